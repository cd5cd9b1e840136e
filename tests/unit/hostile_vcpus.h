/* hostile_vcpus.h - a guest of three hostile vCPUs, threads, against all devices of a machine at
 * once: two write registers, rings' places and configuration space at random and reset what they
 * find, the third changes rings and requests under the devices' eyes.  Under the thread sanitizer
 * nobody writes the guest's memory: what a guest does there is a race by intent. */
#pragma once
#define HARNESS_HOTPLUG (4ull << 20)
#include "tests/unit/devices_harness.h"
#include "tests/unit/block_driver.h"
#include <linux/virtio_vsock.h>
#include <pthread.h>
#include "tests/unit/tap_harness.h"

#ifdef __SANITIZE_THREAD__
#define WRITES_MEMORY false
#else
#define WRITES_MEMORY true
#endif

#define SOCKETS 32
#define QUEUES  5 /* the most that a device has here */
#define RING    16
#define PARTS   3
#define CID     42
#define SEED    0x9e3779b97f4a7c15ull

enum { RNG, BALLOON, VSOCK, MEM, RAW, DELTA, SLOW, NIC, DEVICE_COUNT };
static const uint8_t slots[DEVICE_COUNT] = {
    [RNG] = 1,
    [BALLOON] = 2,
    [VSOCK] = 3,
    [MEM] = 4,
    [RAW] = VMM_SLOT_DISKS,
    [DELTA] = VMM_SLOT_DISKS + 1,
    [SLOW] = VMM_SLOT_DISKS + 2,
    [NIC] = VMM_SLOT_NICS,
};

/* Each device has a place for its rings and what is in them. */
#define PLACE(device) (0x10000ull + (device)*0x40000ull)
#define DATA(device)  (PLACE(device) + 0x18000)

struct fixture {
    struct devices_harness *m;
    struct tap_harness tap;
    bool has_tap;
    int base_fd;
    pthread_rwlock_t gate; /* whoever holds the guest has it alone */
    unsigned rounds[2];
    unsigned focus; /* the device that all three work on, mostly */
    bool stop;
    uint64_t random; /* the agent's */
    int sockets[SOCKETS];
    unsigned socket;
};

static inline uint64_t next_random(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

static inline bool is_stopped(struct fixture *f)
{
    return __atomic_load_n(&f->stop, __ATOMIC_RELAXED);
}

/* --- vCPUs that write registers --- */

struct vcpu {
    struct fixture *f;
    struct harness h; /* buses are shared, the driver's own notes are not */
    uint64_t random;
    unsigned number, device;
};

/* One exit of it, between two of which it can be held. */
static inline void put(struct vcpu *vcpu, uint64_t address, unsigned width, uint64_t value)
{
    pthread_rwlock_rdlock(&vcpu->f->gate);
    bus_write(&vcpu->h.mmio, address, &value, width);
    pthread_rwlock_unlock(&vcpu->f->gate);
}

static inline uint64_t get(struct vcpu *vcpu, uint64_t address, unsigned width)
{
    uint64_t value = 0;

    pthread_rwlock_rdlock(&vcpu->f->gate);
    bus_read(&vcpu->h.mmio, address, &value, width);
    pthread_rwlock_unlock(&vcpu->f->gate);
    return value;
}

static inline uint64_t config_address(const struct vcpu *vcpu, unsigned offset)
{
    return PLATFORM_ECAM_START + ((uint64_t)slots[vcpu->device] << 15) + offset;
}

static inline uint64_t registers(struct vcpu *vcpu, unsigned bar)
{
    return get(vcpu, config_address(vcpu, 0x10 + 4 * bar), 4) & ~0xfull;
}

static inline void set_queue(struct vcpu *vcpu, uint64_t common, unsigned queue)
{
    uint64_t place = PLACE(vcpu->device) + queue * 0x4000ull;

    put(vcpu, common + REG_QUEUE_SELECT, 2, queue);
    put(vcpu, common + REG_QUEUE_SIZE, 2, RING);
    put(vcpu, common + REG_QUEUE_VECTOR, 2, queue + 1);
    put(vcpu, common + REG_QUEUE_DESCRIPTORS, 8, place);
    put(vcpu, common + REG_QUEUE_AVAIL, 8, place + 0x1000);
    put(vcpu, common + REG_QUEUE_USED, 8, place + 0x2000);
    if (WRITES_MEMORY) { /* a ring begins at 0 */
        guest_put16(&vcpu->h, place + 0x1002, 0);
        guest_put16(&vcpu->h, place + 0x2002, 0);
    }
    put(vcpu, common + REG_QUEUE_ENABLE, 2, 1);
}

/* As a driver begins, with features at random; the other vCPU may spoil it. */
static inline void begin(struct vcpu *vcpu)
{
    uint64_t common = registers(vcpu, 0) + VIRTIO_PCI_COMMON_OFFSET, offered = 0;

    put(vcpu, config_address(vcpu, 4), 2, 6);
    put(vcpu, common + REG_STATUS, 1, 0);
    put(vcpu, common + REG_STATUS, 1, 3);
    for (unsigned i = 0; i < 2; i++) {
        put(vcpu, common + REG_OFFERED_SELECT, 4, i);
        offered = get(vcpu, common + REG_OFFERED, 4);
        put(vcpu, common + REG_ACCEPTED_SELECT, 4, i);
        /* A set that is consistent is seldom found by chance. */
        if (i == 0 && next_random(&vcpu->random) % 4 == 0)
            offered &= next_random(&vcpu->random);
        put(vcpu, common + REG_ACCEPTED, 4, offered);
    }
    put(vcpu, common + REG_STATUS, 1, 11);
    for (unsigned queue = 0; queue < QUEUES; queue++)
        set_queue(vcpu, common, queue);
    put(vcpu, common + REG_STATUS, 1, 15);
}

static inline void act(struct vcpu *vcpu)
{
    uint64_t value = next_random(&vcpu->random), bar = registers(vcpu, value & 1);

    switch (value >> 56) {
    case 0: /* any register gets anything */
        put(vcpu, bar + (value >> 8) % 0x4100, 1u << (value >> 4 & 3), next_random(&vcpu->random));
        break;
    case 1: /* so does configuration space, but the BARs */
        put(vcpu, config_address(vcpu, 0x40 + (value >> 8) % 0xc0), 1u << (value >> 4 & 1),
            next_random(&vcpu->random));
        break;
    case 2: /* over another device, or where nothing is */
        put(vcpu, config_address(vcpu, 0x10), 4,
            PLATFORM_PCI32_START + (value >> 8) % 20 * 0x10000);
        break;
    case 3:
        put(vcpu, bar + VIRTIO_PCI_COMMON_OFFSET + REG_QUEUE_SELECT, 2, (value >> 8) % QUEUES);
        put(vcpu, bar + VIRTIO_PCI_COMMON_OFFSET + REG_QUEUE_RESET, 2, 1);
        break;
    case 4: /* MSI-X on, with masks and messages at random */
        put(vcpu, config_address(vcpu, 0x42), 2, value);
        put(vcpu, registers(vcpu, 1) + 16 * ((value >> 8) % 4), 8, 0xfee00000 | (value & 0xff000));
        put(vcpu, registers(vcpu, 1) + 16 * ((value >> 8) % 4) + 12, 4, value >> 20 & 1);
        break;
    case 5:
        (void)get(vcpu, bar + (value >> 8) % 0x4100, 1u << (value >> 4 & 3));
        break;
    default:
        put(vcpu, bar + VIRTIO_PCI_NOTIFY_OFFSET + (value >> 8) % QUEUES * VIRTIO_PCI_NOTIFY_STRIDE,
            2, 0);
    }
}

static inline void let_go(struct vcpu *vcpu)
{
    uint32_t slot = 1u << next_random(&vcpu->random) % PCI_SLOTS;

    pthread_rwlock_rdlock(&vcpu->f->gate);
    bus_write(&vcpu->h.ports, PLATFORM_PORT_HOTPLUG_EJECT, &slot, sizeof slot);
    pthread_rwlock_unlock(&vcpu->f->gate);
}

/* The first begins with one device after the other; the second interferes. */
static inline void *run_vcpu(void *context)
{
    struct vcpu *vcpu = context;
    struct fixture *f = vcpu->f;

    for (unsigned round = 0; !is_stopped(f); round++) {
        if (vcpu->number == 0)
            __atomic_store_n(&f->focus, next_random(&vcpu->random) % DEVICE_COUNT,
                             __ATOMIC_RELAXED);
        vcpu->device = __atomic_load_n(&f->focus, __ATOMIC_RELAXED);
        if (vcpu->number == 0 || round % 8 == 0)
            begin(vcpu);
        for (unsigned i = 0; i < 60; i++)
            act(vcpu);
        let_go(vcpu);
        __atomic_store_n(&f->rounds[vcpu->number], round + 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

/* --- the vCPU that writes requests --- */

struct part {
    uint32_t length;
    uint16_t flags;
};

/* What each device's queues are fed with, the last for all others of it. */
static const struct part requests[DEVICE_COUNT][QUEUES][PARTS] = {
    [RNG] = { { { 64, RING_WRITE } } },
    [BALLOON] = { { { 512, 0 } }, { { 512, 0 } }, { { 100, 0 } }, { { 8192, RING_WRITE } } },
    [VSOCK] = { { { 4096, RING_WRITE } }, { { 44, 0 }, { 256, 0 } }, { { 8, RING_WRITE } } },
    [MEM] = { { { 24, 0 }, { 10, RING_WRITE } } },
    [RAW] = { { { 16, 0 }, { 4096, 0 }, { 1, RING_WRITE } },
              { { 16, 0 }, { 4096, RING_WRITE }, { 1, RING_WRITE } },
              { { 16, 0 }, { 16, 0 }, { 1, RING_WRITE } },
              { { 16, 0 }, { 21, RING_WRITE } } },
    [DELTA] = { { { 16, 0 }, { 4096, 0 }, { 1, RING_WRITE } },
                { { 16, 0 }, { 1536, RING_WRITE }, { 1, RING_WRITE } } },
    [SLOW] = { { { 16, 0 }, { 512, RING_WRITE }, { 1, RING_WRITE } } },
    [NIC] = { { { 4096, RING_WRITE } },
              { { 12, 0 }, { 60, 0 } },
              { { 4096, RING_WRITE } },
              { { 12, 0 }, { 5000, 0 } },
              { { 4, 0 }, { 1, RING_WRITE } } },
};

static const uint8_t block_types[] = { OUT, IN, FLUSH, GET_ID, DISCARD, WRITE_ZEROES, OUT, IN };

/* The header, mostly of a sort that is looked at. */
static inline void put_header(const struct harness *h, unsigned device, uint64_t at, uint64_t value)
{
    const uint64_t block[2] = { block_types[value & 7], value >> 8 & 0x7ff };
    const struct virtio_vsock_hdr packet = { .src_cid = CID,
                                             .dst_cid = 2,
                                             .src_port = value >> 8 & 7,
                                             .dst_port = value >> 12 & 3,
                                             .len = value >> 16 & 1 ? 256 : 0,
                                             .type = VIRTIO_VSOCK_TYPE_STREAM,
                                             .op = value >> 20 & 7,
                                             .flags = value >> 24 & 3,
                                             .buf_alloc = value >> 28 & 0x3fff };
    const uint32_t mem[6] = {
        value & 3,       0, (uint32_t)(GUEST_HOLE_END + (value >> 8 & 3) * VMM_MEMORY_BLOCK), 1,
        value >> 12 & 3, 0
    };
    const uint8_t nic[12] = { [0] = value >> 8 & 1, [1] = value >> 9 & 1, [10] = 1 };
    const uint8_t pairs[4] = { 4, 0, value >> 8 & 3, 0 };

    if (device >= RAW && device <= SLOW)
        guest_memory_write(h->memory, at, block, sizeof block);
    else if (device == VSOCK)
        guest_memory_write(h->memory, at, &packet, sizeof packet);
    else if (device == MEM)
        guest_memory_write(h->memory, at, mem, sizeof mem);
    else if (device == NIC)
        guest_memory_write(h->memory, at, value >> 16 & 1 ? pairs : nic, value >> 16 & 1 ? 4 : 12);
    else if (device == BALLOON)
        guest_memory_write(h->memory, at, &value, sizeof value);
}

static inline void put_request(const struct harness *h, unsigned device, uint64_t value)
{
    unsigned queue = (value >> 8) % QUEUES;
    const struct part *parts = requests[device][queue];
    uint64_t place = PLACE(device) + queue * 0x4000ull;
    uint64_t data = DATA(device) + queue * 0x5000ull;
    uint16_t used = 0, avail = 0;

    parts = parts[0].length > 0 ? parts : requests[device][0];
    put_header(h, device, data, value >> 16);
    for (unsigned i = 0; i < PARTS && parts[i].length > 0; i++) {
        bool more = i + 1 < PARTS && parts[i + 1].length > 0;
        struct ring_descriptor descriptor = { data + i * 0x1800ull, parts[i].length,
                                              parts[i].flags | (more ? RING_NEXT : 0),
                                              (uint16_t)(i + 1) };

        if ((value >> 40 & 0x3ffff) == i) /* seldom anything */
            descriptor = (struct ring_descriptor){ value << 20, (uint32_t)(value >> 20),
                                                   value >> 50 & 7, value >> 54 & 15 };
        guest_memory_write(h->memory, place + i * sizeof descriptor, &descriptor,
                           sizeof descriptor);
    }
    (void)guest_memory_read(h->memory, place + 0x1002, &avail, sizeof avail);
    (void)guest_memory_read(h->memory, place + 0x2002, &used, sizeof used);
    if ((value >> 40 & 0x3ffff) == 7)
        avail = (uint16_t)(avail + 99);
    else if ((uint16_t)(avail - used) < RING / 2)
        avail++;
    guest_memory_write(h->memory, place + 0x1002, &avail, sizeof avail);
}

static inline void *run_writer(void *context)
{
    struct fixture *f = context;
    uint64_t random = SEED + 7;

    while (WRITES_MEMORY && !is_stopped(f)) {
        uint64_t value = next_random(&random);

        pthread_rwlock_rdlock(&f->gate);
        put_request(&f->m->h,
                    value >> 62 ? __atomic_load_n(&f->focus, __ATOMIC_RELAXED)
                                : value % DEVICE_COUNT,
                    value);
        pthread_rwlock_unlock(&f->gate);
    }
    return NULL;
}
