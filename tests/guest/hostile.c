/* hostile.c - see hostile.h.  Each case breaks one rule of virtio 1.2 on a device that was just
 * started, waits for NEEDS_RESET, then starts it again and has it serve a request as it should be.
 * The same cases are tried in all their forms by tests/unit/test_hostile_rings.c; here they come
 * from a real guest. */
#include <stddef.h>
#include "tests/guest/apic.h"
#include "tests/guest/console.h"
#include "tests/guest/cpu.h"
#include "tests/guest/hostile.h"
#include "tests/guest/pci.h"
#include "tests/guest/text.h"
#include "tests/guest/virtio.h"

#define DESCRIPTOR_INDIRECT 4
#define COMMON_STATUS       0x14
#define COMMON_QUEUE_SELECT 0x16
#define COMMON_QUEUE_SIZE   0x18
#define COMMON_QUEUE_ENABLE 0x1c
#define COMMON_QUEUE_USED   0x30
#define STATUS_NEEDS_RESET  64
#define STATUS_LIVE         15
#define ANSWER_TIMEOUT      (5 * SECOND)
#define BLOCK_FLUSH         4

static struct virtqueue queue;
static struct virtio_device device;
static struct {
    uint32_t type, reserved;
    uint64_t sector;
    uint8_t bytes[512];
} request __attribute__((aligned(16)));

static void offer(uint64_t address, uint32_t length, uint16_t flags, uint16_t next)
{
    queue.descriptors[0] = (struct virtqueue_descriptor){ address, length, flags, next };
    virtqueue_submit(&queue, 0, true);
}

static bool needs_reset(uint64_t timeout_ns)
{
    uint64_t deadline = clock_ns() + timeout_ns;

    do {
        if (device.common[COMMON_STATUS] & STATUS_NEEDS_RESET)
            return true;
        cpu_pause();
    } while (clock_ns() < deadline);
    return false;
}

/* --- the cases; `turn` counts from 0 until one returns false --- */

static bool case_loop(unsigned turn)
{
    queue.descriptors[1] =
        (struct virtqueue_descriptor){ (uintptr_t)&request, 16, DESCRIPTOR_NEXT, 0 };
    offer((uintptr_t)&request, 16, DESCRIPTOR_NEXT, turn == 0 ? 0 : turn == 1 ? 1 : 0xffff);
    return turn < 2;
}

static bool case_wild(unsigned turn)
{
    const struct {
        uint64_t address;
        uint32_t length;
    } wild[] = {
        { UINT64_C(0xc0000000) - 8, 16 },   { UINT64_MAX - 7, 16 },
        { UINT64_C(1) << 63, 16 },          { UINT64_C(0xfee00000), 4096 },
        { UINT64_C(0xffffffff) - 7, 4096 }, { pci_bar_address(device.slot, 0), 16 },
        { (uintptr_t)&request, 0 },         { (uintptr_t)&request, UINT32_MAX },
    };

    offer(wild[turn].address, wild[turn].length, 0, 0);
    return turn + 1 < sizeof(wild) / sizeof(wild[0]);
}

static bool case_index(unsigned turn)
{
    *(volatile uint16_t *)&queue.available.index = (uint16_t)(turn == 0 ? 0x8000 : queue.size + 1);
    virtqueue_notify(&queue);
    return turn < 1;
}

static bool case_head(unsigned turn)
{
    virtqueue_submit(&queue, turn == 0 ? queue.size : 0xffff, true);
    return turn < 1;
}

static bool case_indirect(unsigned turn)
{
    offer((uintptr_t)&request, turn == 0 ? 16 : 15, DESCRIPTOR_INDIRECT, 0);
    return turn < 1; /* it was not agreed to */
}

/* Queues that do not exist; the rings of one that does. */
static bool case_queue(unsigned turn)
{
    volatile uint8_t *common = device.common;

    for (unsigned number = 1; number < 0x10000; number = number * 3 + 1) {
        *(volatile uint16_t *)(common + COMMON_QUEUE_SELECT) = (uint16_t)(number == 1 ? 1 : number);
        *(volatile uint16_t *)(common + COMMON_QUEUE_SIZE) = 16;
        *(volatile uint16_t *)(common + COMMON_QUEUE_ENABLE) = 1;
        *(volatile uint16_t *)(device.notify + number % 0x400 * 4) = (uint16_t)number;
    }
    *(volatile uint16_t *)(common + COMMON_QUEUE_SELECT) = 0;
    *(volatile uint16_t *)(common + COMMON_QUEUE_SIZE) = 0;
    *(volatile uint32_t *)(common + COMMON_QUEUE_USED) = 0xfee00000;
    (void)turn;
    return false;
}

static const struct hostile_case {
    const char *name;
    bool (*run)(unsigned turn); /* whether there is another turn */
    bool is_survived;           /* the device goes on; else it must say NEEDS_RESET */
} cases[] = {
    { "loop", case_loop, false },         { "wild", case_wild, false },
    { "index", case_index, false },       { "head", case_head, false },
    { "indirect", case_indirect, false }, { "queue", case_queue, true },
};

static bool start(const char *name, unsigned type)
{
    if (!virtio_open(&device, name, type, 0, 0) || !virtio_add_queue(&device, &queue, 0))
        return false;
    virtio_start(&device);
    return device.common[COMMON_STATUS] == STATUS_LIVE;
}

/* A request as it should be: 16 random bytes, or a flush. */
static bool serves(unsigned type)
{
    struct virtqueue_used_element element;

    request.type = BLOCK_FLUSH;
    request.bytes[0] = 0xff;
    queue.descriptors[1] =
        (struct virtqueue_descriptor){ (uintptr_t)request.bytes, 1, DESCRIPTOR_WRITE, 0 };
    if (type == VIRTIO_RNG)
        offer((uintptr_t)request.bytes, 16, DESCRIPTOR_WRITE, 0);
    else
        offer((uintptr_t)&request, 16, DESCRIPTOR_NEXT, 1);
    return virtqueue_wait(&queue, ANSWER_TIMEOUT, &element) &&
           (type == VIRTIO_RNG || *(volatile uint8_t *)&request.bytes[0] == 0);
}

static void run_case(const struct hostile_case *hostile, const char *name, unsigned type)
{
    bool more = true;

    for (unsigned turn = 0; more; turn++) {
        if (!start(name, type))
            return;
        more = hostile->run(turn);
        if (hostile->is_survived ? !serves(type) : !needs_reset(ANSWER_TIMEOUT)) {
            console_print("hostile %s %s turn %u status 0x%x\n", hostile->name, name,
                          (uint64_t)turn, (uint64_t)device.common[COMMON_STATUS]);
            return;
        }
        if (!start(name, type) || !serves(type)) {
            console_print("hostile %s %s turn %u not-recovered\n", hostile->name, name,
                          (uint64_t)turn);
            return;
        }
    }
    console_print("hostile %s %s ok\n", hostile->name, name);
}

void hostile_run(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    unsigned type = count > 0 && text_equal(arguments[0], "blk") ? VIRTIO_BLOCK : VIRTIO_RNG;

    (void)guest, (void)index;
    if (count != 1 || (type == VIRTIO_RNG && !text_equal(arguments[0], "rng"))) {
        console_print("hostile usage\n");
        return;
    }
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        run_case(&cases[i], arguments[0], type);
    console_print("hostile %s done\n", arguments[0]);
}
