/* block.c - see block.h. */
#include <stddef.h>
#include "tests/guest/apic.h"
#include "tests/guest/block.h"
#include "tests/guest/console.h"
#include "tests/guest/cpu.h"
#include "tests/guest/text.h"
#include "tests/guest/virtio.h"

#define BLOCK_DISKS      4
#define SECTOR_BYTES     512
#define SLOT_BYTES       4096
#define COUNT_LINE       64
#define COUNT_PLACES     8
#define SLOT_SECTORS     (SLOT_BYTES / SECTOR_BYTES)
#define SLOT_COUNT       32
#define SLOT_DESCRIPTORS 3
#define REQUEST_TIMEOUT  (10 * SECOND)
#define SAMPLES_MAX      4096
#define F_FLUSH          (UINT64_C(1) << 9)
#define F_DISCARD        (UINT64_C(1) << 13)
#define F_WRITE_ZEROES   (UINT64_C(1) << 14)
#define STATUS_NONE      0xff

enum block_type {
    BLOCK_READ = 0,
    BLOCK_WRITE = 1,
    BLOCK_FLUSH = 4,
    BLOCK_GET_ID = 8,
    BLOCK_DISCARD = 11,
    BLOCK_WRITE_ZEROES = 13,
};

struct block_request {
    uint32_t type;
    uint32_t reserved;
    uint64_t sector;
    uint8_t status;
    uint8_t padding[15];
};

struct block_range { /* 5.2.6: discard and write zeroes */
    uint64_t sector;
    uint32_t count;
    uint32_t flags;
};

static struct block_disk {
    struct virtqueue queue;
    struct block_request requests[SLOT_COUNT];
    struct virtio_device device;
    uint64_t sectors;
    bool opened;
} disks[BLOCK_DISKS];

static uint8_t data[SLOT_COUNT][SLOT_BYTES] __attribute__((aligned(SLOT_BYTES)));
static uint32_t samples[SAMPLES_MAX];

static uint64_t block_capacity(const struct block_disk *disk)
{
    volatile uint32_t *config = (volatile uint32_t *)disk->device.config;

    return (uint64_t)config[1] << 32 | config[0];
}

static bool block_start(struct block_disk *disk, unsigned index)
{
    if (!virtio_add_queue(&disk->device, &disk->queue, 0) || disk->device.config == NULL) {
        console_print("blk %u broken queue\n", (uint64_t)index);
        return false;
    }
    disk->sectors = block_capacity(disk);
    virtio_watch_config(&disk->device);
    virtio_start(&disk->device);
    return true;
}

static struct block_disk *block_open(unsigned index)
{
    struct block_disk *disk = &disks[index % BLOCK_DISKS];

    if (disk->opened)
        return disk;
    if (!virtio_open(&disk->device, "blk", VIRTIO_BLOCK, index,
                     F_FLUSH | F_DISCARD | F_WRITE_ZEROES) ||
        !block_start(disk, index))
        return NULL;
    disk->opened = true;
    return disk;
}

/* Builds and submits a request on a slot: header, data (if any), status. */
static void block_submit(struct block_disk *disk, unsigned slot, enum block_type type,
                         uint64_t sector, uint32_t bytes, bool notify)
{
    struct block_request *request = &disk->requests[slot];
    uint16_t head = (uint16_t)(slot * SLOT_DESCRIPTORS);
    struct virtqueue_descriptor *descriptor = &disk->queue.descriptors[head];
    bool to_guest = type == BLOCK_READ || type == BLOCK_GET_ID;

    request->type = type;
    request->sector = sector;
    request->status = STATUS_NONE;
    descriptor[0] =
        (struct virtqueue_descriptor){ .address = (uintptr_t)request,
                                       .length = 16,
                                       .flags = DESCRIPTOR_NEXT,
                                       .next = (uint16_t)(bytes > 0 ? head + 1 : head + 2) };
    descriptor[1] =
        (struct virtqueue_descriptor){ .address = (uintptr_t)data[slot],
                                       .length = bytes,
                                       .flags = DESCRIPTOR_NEXT | (to_guest ? DESCRIPTOR_WRITE : 0),
                                       .next = (uint16_t)(head + 2) };
    descriptor[2] = (struct virtqueue_descriptor){ .address = (uintptr_t)&request->status,
                                                   .length = 1,
                                                   .flags = DESCRIPTOR_WRITE };
    virtqueue_submit(&disk->queue, head, notify);
}

/* Does one request on slot 0.  Returns NULL if it went well, else the word to print. */
static const char *block_do(struct block_disk *disk, enum block_type type, uint64_t sector,
                            uint32_t bytes)
{
    struct virtqueue_used_element element;

    block_submit(disk, 0, type, sector, bytes, true);
    if (!virtqueue_wait(&disk->queue, REQUEST_TIMEOUT, &element))
        return "timeout";
    switch (*(volatile uint8_t *)&disk->requests[0].status) {
    case 0:
        return NULL;
    case 1:
        return "ioerr";
    case 2:
        return "unsupported";
    default:
        return "bad-status";
    }
}

void block_probe(unsigned slot)
{
    static struct block_disk disk; /* one at a time */
    const char *wrong;
    uint8_t was;

    if (!virtio_open_slot(&disk.device, "blk", slot, F_FLUSH | F_DISCARD | F_WRITE_ZEROES) ||
        !block_start(&disk, slot))
        return;
    wrong = block_do(&disk, BLOCK_READ, disk.sectors - 1, SECTOR_BYTES);
    was = data[0][0];
    console_print("slot %u disk %u sectors was %s", (uint64_t)slot, disk.sectors,
                  wrong != NULL ? wrong : "0x");
    if (wrong == NULL)
        console_print("%b", was);
    memset(data[0], was + 1, SECTOR_BYTES);
    wrong = block_do(&disk, BLOCK_WRITE, disk.sectors - 1, SECTOR_BYTES);
    console_print(" write %s", wrong != NULL ? wrong : "ok");
    memset(data[0], 0, SECTOR_BYTES);
    wrong = block_do(&disk, BLOCK_READ, disk.sectors - 1, SECTOR_BYTES);
    if (wrong == NULL && data[0][0] != (uint8_t)(was + 1))
        wrong = "other";
    console_print(" read %s\n", wrong != NULL ? wrong : "ok");
}

struct block_call { /* what the verbs get */
    struct block_disk *disk;
    uint64_t index;
    const char *verb;
    uint64_t sector;
    uint64_t value; /* a byte, or a count of sectors */
    uint64_t count; /* sectors to write or verify, one by one */
};

static void print_result(const struct block_call *call, const char *wrong)
{
    console_print("blk %u %s %u %s\n", call->index, call->verb, call->sector,
                  wrong != NULL ? wrong : "ok");
}

static void block_read(const struct block_call *call)
{
    const char *wrong = block_do(call->disk, BLOCK_READ, call->sector, SECTOR_BYTES);

    if (wrong != NULL) {
        print_result(call, wrong);
        return;
    }
    console_print("blk %u read %u ok 0x", call->index, call->sector);
    for (int i = 0; i < 16; i++)
        console_print("%b", data[0][i]);
    console_print("\n");
}

static void block_write(const struct block_call *call)
{
    const char *wrong = NULL;

    memset(data[0], (int)call->value, SECTOR_BYTES);
    for (uint64_t i = 0; i < call->count && wrong == NULL; i++)
        wrong = block_do(call->disk, BLOCK_WRITE, call->sector + i, SECTOR_BYTES);
    print_result(call, wrong);
}

static void block_verify(const struct block_call *call)
{
    for (uint64_t i = 0; i < call->count; i++) {
        const char *wrong = block_do(call->disk, BLOCK_READ, call->sector + i, SECTOR_BYTES);

        if (wrong != NULL) {
            print_result(call, wrong);
            return;
        }
        for (unsigned at = 0; at < SECTOR_BYTES; at++) {
            if (data[0][at] == (uint8_t)call->value)
                continue;
            console_print("blk %u verify %u bad sector %u offset %u value 0x%b\n", call->index,
                          call->sector, call->sector + i, (uint64_t)at, data[0][at]);
            return;
        }
    }
    print_result(call, NULL);
}

/* Memory and disk must be of one moment, also in a copy of both.  Several places in turn: the next
 * write would hide what is wrong with one. */
static void block_count(const struct block_call *call)
{
    uint64_t *const found = (uint64_t *)(void *)data[0];
    const char *wrong = NULL;

    memset(data[0], 0, SECTOR_BYTES);
    for (uint64_t i = 0; i < call->value && wrong == NULL; i++) {
        uint64_t sector = call->sector + i % COUNT_PLACES * SLOT_SECTORS;

        if (i >= COUNT_PLACES)
            wrong = block_do(call->disk, BLOCK_READ, sector, SECTOR_BYTES);
        if (wrong == NULL && i >= COUNT_PLACES && *found != i - COUNT_PLACES) {
            console_print("blk %u count bad disk %u memory %u\n", call->index, *found, i);
            return;
        }
        *found = i;
        if (wrong == NULL)
            wrong = block_do(call->disk, BLOCK_WRITE, sector, SECTOR_BYTES);
        if ((i + 1) % COUNT_LINE == 0)
            console_print("blk %u count at %u\n", call->index, i + 1);
    }
    print_result(call, wrong);
}

static void block_flush(const struct block_call *call)
{
    const char *wrong = block_do(call->disk, BLOCK_FLUSH, 0, 0);

    console_print("blk %u flush %s\n", call->index, wrong != NULL ? wrong : "ok");
}

static void block_size(const struct block_call *call)
{
    console_print("blk %u size %u sectors features 0x%x\n", call->index, call->disk->sectors,
                  call->disk->device.features);
}

/* Asleep until an interrupt says so: there is no time after which it looks anyway. */
static void block_grown(const struct block_call *call)
{
    while (block_capacity(call->disk) == call->disk->sectors)
        apic_wait(WAIT_FOREVER);
    call->disk->sectors = block_capacity(call->disk);
    console_print("blk %u grown %u sectors\n", call->index, call->disk->sectors);
}

static void block_id(const struct block_call *call)
{
    const char *wrong = block_do(call->disk, BLOCK_GET_ID, 0, 20);

    data[0][20] = '\0';
    console_print("blk %u id %s\n", call->index, wrong != NULL ? wrong : (const char *)data[0]);
}

static void block_range_do(const struct block_call *call, enum block_type type)
{
    struct block_range range = { .sector = call->sector, .count = (uint32_t)call->value };

    memcpy(data[0], &range, sizeof(range));
    print_result(call, block_do(call->disk, type, 0, sizeof(range)));
}

static void block_discard(const struct block_call *call)
{
    block_range_do(call, BLOCK_DISCARD);
}

static void block_zero(const struct block_call *call)
{
    block_range_do(call, BLOCK_WRITE_ZEROES);
}

static const struct block_verb {
    const char *name;
    unsigned arguments; /* numbers that must follow */
    void (*run)(const struct block_call *call);
} verbs[] = {
    { "read", 1, block_read },       { "write", 2, block_write }, { "verify", 2, block_verify },
    { "flush", 0, block_flush },     { "size", 0, block_size },   { "id", 0, block_id },
    { "discard", 2, block_discard }, { "zero", 2, block_zero },   { "grown", 0, block_grown },
    { "count", 2, block_count },
};

void block_run(unsigned index, char **arguments, unsigned count)
{
    const struct block_verb *verb = NULL;
    struct block_call call = { .index = index, .count = 1 };
    uint64_t *const numbers[] = { &call.sector, &call.value, &call.count };

    for (unsigned i = 0; i < sizeof(verbs) / sizeof(verbs[0]) && count > 0; i++) {
        if (text_equal(arguments[0], verbs[i].name))
            verb = &verbs[i];
    }
    if (verb == NULL || count > 4 || count < 1 + verb->arguments || index >= BLOCK_DISKS) {
        console_print("blk %u usage\n", (uint64_t)index);
        return;
    }
    for (unsigned i = 1; i < count; i++) {
        if (!text_number(arguments[i], numbers[i - 1])) {
            console_print("blk %u usage\n", (uint64_t)index);
            return;
        }
    }
    call.verb = verb->name;
    call.disk = block_open(index);
    if (call.disk != NULL)
        verb->run(&call);
}

/* A full-period generator over the 4 KiB blocks would be overkill: xorshift is random enough. */
static uint64_t next_sector(const struct block_disk *disk, uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state % (disk->sectors / SLOT_SECTORS) * SLOT_SECTORS;
}

static void samples_sort(unsigned count)
{
    for (unsigned gap = count / 2; gap > 0; gap = gap == 2 ? 1 : gap * 5 / 11) {
        for (unsigned i = gap; i < count; i++) {
            uint32_t value = samples[i];
            unsigned at = i;

            for (; at >= gap && samples[at - gap] > value; at -= gap)
                samples[at] = samples[at - gap];
            samples[at] = value;
        }
    }
}

/* Keeps depth 4 KiB random reads in flight until total are done, with one kick for all that are
 * ready; fills samples.  Returns false on an error. */
static bool measure_reads(struct block_disk *disk, uint64_t total, unsigned depth)
{
    uint64_t started[SLOT_COUNT];
    uint64_t random = 0x9e3779b97f4a7c15;
    uint64_t submitted = 0;
    uint64_t unannounced;
    struct virtqueue_used_element element;

    for (; submitted < depth && submitted < total; submitted++) {
        started[submitted] = cpu_cycles();
        block_submit(disk, (unsigned)submitted, BLOCK_READ, next_sector(disk, &random), SLOT_BYTES,
                     false);
    }
    unannounced = submitted;
    for (uint64_t done = 0; done < total; done++) {
        unsigned slot;

        if (!virtqueue_take(&disk->queue, &element)) {
            if (unannounced > 0)
                virtqueue_notify(&disk->queue);
            unannounced = 0;
            if (!virtqueue_wait(&disk->queue, REQUEST_TIMEOUT, &element))
                return false;
        }
        slot = element.id / SLOT_DESCRIPTORS % SLOT_COUNT;
        if (*(volatile uint8_t *)&disk->requests[slot].status != 0)
            return false;
        samples[done % SAMPLES_MAX] = (uint32_t)clock_cycles_to_ns(cpu_cycles() - started[slot]);
        if (submitted == total)
            continue;
        submitted++;
        started[slot] = cpu_cycles();
        block_submit(disk, slot, BLOCK_READ, next_sector(disk, &random), SLOT_BYTES, false);
        unannounced++;
    }
    return true;
}

void block_measure(unsigned index, char **arguments, unsigned count)
{
    uint64_t total;
    uint64_t depth = 1;
    uint64_t start;
    uint64_t kept;
    struct block_disk *disk;

    if (count < 1 || count > 2 || index >= BLOCK_DISKS || !text_number(arguments[0], &total) ||
        total == 0 || (count == 2 && !text_number(arguments[1], &depth)) || depth == 0 ||
        depth > SLOT_COUNT) {
        console_print("latency usage\n");
        return;
    }
    disk = block_open(index);
    if (disk == NULL || disk->sectors < SLOT_SECTORS)
        return;
    if (depth * SLOT_DESCRIPTORS > disk->queue.size)
        depth = disk->queue.size / SLOT_DESCRIPTORS;
    start = clock_ns();
    if (!measure_reads(disk, total, (unsigned)depth)) {
        console_print("latency blk %u failed\n", (uint64_t)index);
        return;
    }
    start = clock_ns() - start;
    kept = total < SAMPLES_MAX ? total : SAMPLES_MAX;
    samples_sort((unsigned)kept);
    console_print("latency blk %u reads %u depth %u total_ns %u iops %u", (uint64_t)index, total,
                  depth, start, total * SECOND / (start + 1));
    console_print(" min_ns %u p50_ns %u p99_ns %u max_ns %u\n", (uint64_t)samples[0],
                  (uint64_t)samples[kept / 2], (uint64_t)samples[kept * 99 / 100],
                  (uint64_t)samples[kept - 1]);
}
