/* fuzz_machine.h - a guest's driver as a program of bytes: registers, rings, descriptors, memory,
 * configuration space and kicks in any order, against one virtio device of the harness.
 *
 * Each step is an operation's byte and what it takes.  The numbers that matter (places near the end
 * of RAM, sizes near the limits) have short codes, so that mutations find them.  After the program
 * an orderly driver must get its device to work again: nothing a guest did may last beyond a reset.
 */
#pragma once
#include "tests/fuzz/fuzz.h"
#include "tests/unit/virtio_harness.h"

#define FUZZ_STEPS_MAX 400
#define FUZZ_RING_SIZE 16

struct fuzz_machine {
    struct harness h;
    struct fuzz_input input;
    uint32_t bars[2];
    /* The device's own step, and an orderly request after a fresh start; either may be NULL. */
    void (*step)(struct fuzz_machine *m);
    void (*probe)(struct fuzz_machine *m);
    void *device;
};

static inline uint64_t fuzz_address(struct fuzz_machine *m)
{
    static const uint64_t bases[] = {
        DATA_BASE,
        RING_BASE(0),
        RING_BASE(1),
        HARNESS_MEMORY - 0x100,
        0,
        GUEST_HOLE_START - 0x100,
        PLATFORM_PCI32_START,
        GUEST_HOLE_END - 0x100,
        UINT64_MAX - 0xff,
        1ull << 63,
    };
    uint8_t kind = (uint8_t)fuzz_take(&m->input, 1);

    if (kind >= 0xf0)
        return fuzz_take(&m->input, 8);
    return bases[kind % (sizeof(bases) / sizeof(bases[0]))] + fuzz_take(&m->input, 2);
}

static inline uint32_t fuzz_length(struct fuzz_machine *m)
{
    static const uint32_t lengths[] = { 0,    1,    2,    12,   15,     16,         17,
                                        20,   21,   32,   60,   511,    512,        513,
                                        1514, 4096, 8192, 4112, 131072, UINT32_MAX, 0x80000000 };
    uint8_t kind = (uint8_t)fuzz_take(&m->input, 1);

    if (kind >= 0xf0)
        return (uint32_t)fuzz_take(&m->input, 4);
    return lengths[kind % (sizeof(lengths) / sizeof(lengths[0]))];
}

static inline void fuzz_turns(struct fuzz_machine *m)
{
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(loop_turn(m->h.loop, 0, &m->h.err), 0);
}

static inline void fuzz_put(struct fuzz_machine *m, uint64_t address, const void *from, size_t size)
{
    (void)guest_memory_write(m->h.memory, address, from, size);
}

static inline void step_register(struct fuzz_machine *m)
{
    static const struct {
        uint8_t offset, width;
    } registers[] = {
        { REG_OFFERED_SELECT, 4 },    { REG_ACCEPTED_SELECT, 4 }, { REG_ACCEPTED, 4 },
        { REG_CONFIG_VECTOR, 2 },     { REG_STATUS, 1 },          { REG_QUEUE_SELECT, 2 },
        { REG_QUEUE_SIZE, 2 },        { REG_QUEUE_VECTOR, 2 },    { REG_QUEUE_ENABLE, 2 },
        { REG_QUEUE_DESCRIPTORS, 8 }, { REG_QUEUE_AVAIL, 8 },     { REG_QUEUE_USED, 8 },
        { REG_QUEUE_RESET, 2 },
    };
    unsigned which = fuzz_take(&m->input, 1) % (sizeof(registers) / sizeof(registers[0]));
    unsigned width = registers[which].width;

    reg_put(&m->h, registers[which].offset, width,
            width == 8 ? fuzz_address(m) : fuzz_take(&m->input, width));
}

static inline void step_bar(struct fuzz_machine *m, bool write)
{
    uint8_t how = (uint8_t)fuzz_take(&m->input, 1);
    unsigned width = 1u << (how & 3);
    uint64_t address = bar_address(&m->h, how >> 2 & 1) + fuzz_take(&m->input, 2) % 0x4100;

    if (write)
        mmio_put(&m->h, address, width, fuzz_take(&m->input, width));
    else
        (void)mmio_get(&m->h, address, width);
}

static inline void step_config(struct fuzz_machine *m, bool write)
{
    uint8_t how = (uint8_t)fuzz_take(&m->input, 1);
    unsigned width = 1u << how % 3, offset = (unsigned)fuzz_take(&m->input, 1);

    if (write)
        config_put(&m->h, offset, width, (uint32_t)fuzz_take(&m->input, width));
    else
        (void)config_get(&m->h, offset, width);
}

static inline void step_memory(struct fuzz_machine *m)
{
    uint64_t address = fuzz_address(m);
    size_t size = fuzz_take(&m->input, 1) % 64;

    if (size > m->input.size)
        size = m->input.size;
    fuzz_put(m, address, m->input.bytes, size);
    m->input.bytes += size;
    m->input.size -= size;
}

static inline void step_descriptor(struct fuzz_machine *m)
{
    uint8_t where = (uint8_t)fuzz_take(&m->input, 1);
    struct ring_descriptor descriptor;

    descriptor.address = fuzz_address(m);
    descriptor.length = fuzz_length(m);
    descriptor.flags = (uint16_t)(fuzz_take(&m->input, 1) & 0x87);
    descriptor.next = (uint16_t)fuzz_take(&m->input, 1);
    /* Half of them into the ring of queue 0 or 1, half into a table for indirect ones. */
    fuzz_put(m,
             (where & 1 ? DATA_BASE + 0x8000 : RING_BASE(where >> 1 & 1)) +
                 (where >> 2) % 32 * sizeof(descriptor),
             &descriptor, sizeof(descriptor));
}

/* Puts heads into the avail ring, with the index in order or not. */
static inline void step_offer(struct fuzz_machine *m, bool in_order)
{
    unsigned queue = fuzz_take(&m->input, 1) & 1;
    struct harness_ring *ring = &m->h.rings[queue];
    uint16_t value;

    ring->size = FUZZ_RING_SIZE;
    value = (uint16_t)fuzz_take(&m->input, in_order ? 1 : 2);
    if (in_order) {
        ring_offer_head(&m->h, queue, value);
        return;
    }
    ring->avail = value;
    guest_put16(&m->h, ring_avail(queue) + 2, value);
}

static inline void step_kick(struct fuzz_machine *m)
{
    uint8_t queue = (uint8_t)fuzz_take(&m->input, 1);

    mmio_put(&m->h,
             bar_address(&m->h, 0) + VIRTIO_PCI_NOTIFY_OFFSET + queue * VIRTIO_PCI_NOTIFY_STRIDE, 2,
             queue);
    fuzz_turns(m);
}

static inline bool fuzz_start(struct fuzz_machine *m, uint64_t features)
{
    if (config_get(&m->h, 0, 4) == UINT32_MAX)
        return false; /* no device is there at the moment */
    driver_attach(&m->h);
    if (!driver_negotiate(&m->h, features | VIRTIO_FEATURE_VERSION_1))
        return false;
    reg_put(&m->h, REG_CONFIG_VECTOR, 2, 0);
    for (unsigned i = 0; i < reg_get(&m->h, REG_QUEUE_COUNT, 2); i++)
        driver_set_ring(&m->h, i, FUZZ_RING_SIZE);
    status_put(&m->h, 15);
    fuzz_turns(m);
    return true;
}

/* Registers of the device may be anywhere in the window, or nowhere: the driver looks for them. */
static inline void fuzz_restore(struct fuzz_machine *m)
{
    for (unsigned i = 0; i < 2; i++)
        config_put(&m->h, 0x10 + 4 * i, 4, m->bars[i]);
    config_put(&m->h, 4, 2, 6);
}

enum fuzz_step {
    STEP_REGISTER,
    STEP_BAR_WRITE,
    STEP_BAR_READ,
    STEP_CONFIG_WRITE,
    STEP_CONFIG_READ,
    STEP_MEMORY,
    STEP_DESCRIPTOR,
    STEP_OFFER,
    STEP_INDEX,
    STEP_KICK,
    STEP_START,
    STEP_TURN,
    STEP_RESTORE,
    STEP_DEVICE,
    STEP_DEVICE_2,
    STEP_DEVICE_3,
    STEP_COUNT
};

static inline void fuzz_do_step(struct fuzz_machine *m, enum fuzz_step step)
{
    switch (step) {
    case STEP_REGISTER:
        step_register(m);
        break;
    case STEP_BAR_WRITE:
    case STEP_BAR_READ:
        step_bar(m, step == STEP_BAR_WRITE);
        break;
    case STEP_CONFIG_WRITE:
    case STEP_CONFIG_READ:
        step_config(m, step == STEP_CONFIG_WRITE);
        break;
    case STEP_MEMORY:
        step_memory(m);
        break;
    case STEP_DESCRIPTOR:
        step_descriptor(m);
        break;
    case STEP_OFFER:
    case STEP_INDEX:
        step_offer(m, step == STEP_OFFER);
        break;
    case STEP_KICK:
        step_kick(m);
        break;
    case STEP_START:
        fuzz_restore(m);
        (void)fuzz_start(m, fuzz_take(&m->input, 8));
        break;
    case STEP_TURN:
        fuzz_turns(m);
        break;
    case STEP_RESTORE:
        fuzz_restore(m);
        break;
    default:
        if (m->step)
            m->step(m);
        break;
    }
}

/* The machine is open, with its device in the harness's slot. */
static inline void fuzz_begin(struct fuzz_machine *m, const uint8_t *bytes, size_t size)
{
    m->input = (struct fuzz_input){ bytes, size };
    for (unsigned i = 0; i < VIRTIO_DEVICE_QUEUES_MAX; i++)
        m->h.rings[i].size = FUZZ_RING_SIZE;
    for (unsigned i = 0; i < 2; i++)
        m->bars[i] = config_get(&m->h, 0x10 + 4 * i, 4);
}

static inline void fuzz_steps(struct fuzz_machine *m)
{
    for (unsigned i = 0; i < FUZZ_STEPS_MAX && m->input.size > 0; i++)
        fuzz_do_step(m, fuzz_take(&m->input, 1) % STEP_COUNT);
}

/* Runs the program, then the orderly driver. */
static inline void fuzz_program(struct fuzz_machine *m)
{
    fuzz_steps(m);
    fuzz_restore(m);
    FUZZ_REQUIRE(fuzz_start(m, 0));
    FUZZ_REQUIRE(status_get(&m->h) == 15);
    if (m->probe)
        m->probe(m);
}

static inline void fuzz_run(struct fuzz_machine *m, const uint8_t *bytes, size_t size)
{
    fuzz_begin(m, bytes, size);
    driver_attach(&m->h);
    fuzz_program(m);
}
