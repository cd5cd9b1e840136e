/* balloon.c - see balloon.h.  Virtio 1.2, 5.5.  What is given away begins at 4 MiB, where touch
 * begins, too. */
#include <stddef.h>
#include "tests/guest/apic.h"
#include "tests/guest/balloon.h"
#include "tests/guest/console.h"
#include "tests/guest/guest.h"
#include "tests/guest/memory.h"
#include "tests/guest/text.h"
#include "tests/guest/virtio.h"

#define MIB               UINT64_C(0x100000)
#define PAGE_BYTES        4096
#define GIVEN_START       (4 * MIB)
#define LIST_PAGES        1024
#define REPORT_BYTES      (2 * MIB)
#define TIMEOUT           (5 * SECOND)
#define LOOK_AGAIN        (20 * MILLISECOND)
#define USE_AGAIN         (500 * MILLISECOND)
#define FEATURE_STATS     (UINT64_C(1) << 1)
#define FEATURE_REPORTING (UINT64_C(1) << 5)
#define STAT_MAJOR_FAULTS 2
#define STAT_FREE         4
#define STAT_TOTAL        5
#define STAT_AVAILABLE    6
#define STAT_COUNT        10

static struct virtio_device device;
static struct virtqueue inflate, deflate, stats, reports;
static uint32_t pages[LIST_PAGES];
static struct __attribute__((packed)) {
    uint16_t tag;
    uint64_t value;
} numbers[STAT_COUNT];
static uint32_t numbers_told = 2;

static bool submit(struct virtqueue *queue, uint64_t address, uint32_t bytes, uint16_t flags)
{
    struct virtqueue_used_element element;

    queue->descriptors[0] =
        (struct virtqueue_descriptor){ .address = address, .length = bytes, .flags = flags };
    virtqueue_submit(queue, 0, true);
    return virtqueue_wait(queue, TIMEOUT, &element);
}

/* The device holds the buffer until it wants the numbers anew. */
static void submit_stats(void)
{
    stats.descriptors[0] =
        (struct virtqueue_descriptor){ .address = (uintptr_t)numbers,
                                       .length = numbers_told * (uint32_t)sizeof(numbers[0]) };
    virtqueue_submit(&stats, 0, true);
}

static void tell_number(unsigned index, uint16_t tag, uint64_t value)
{
    numbers[index].tag = tag;
    numbers[index].value = value;
}

static void offer_stats(uint32_t given)
{
    tell_number(0, STAT_FREE, (uint64_t)given * PAGE_BYTES);
    tell_number(1, STAT_TOTAL, GIVEN_START + (uint64_t)given * PAGE_BYTES);
    submit_stats();
}

/* Those that it does not know are made up: MiB by their tags. */
static void tell_all(void)
{
    for (uint16_t tag = 0; tag < STAT_COUNT; tag++) {
        if (tag == STAT_FREE || tag == STAT_TOTAL)
            continue;
        tell_number(numbers_told++, tag, tag * MIB);
    }
}

/* A liar's: that nothing of its memory is free, and it reads all of it anew each time; or that all
 * is. */
static void offer_lies(uint64_t bytes, bool full)
{
    static uint64_t faults;

    faults += bytes / PAGE_BYTES;
    tell_number(0, STAT_TOTAL, bytes);
    tell_number(1, STAT_AVAILABLE, full ? 0 : bytes);
    tell_number(2, STAT_MAJOR_FAULTS, full ? faults : 0);
    numbers_told = 3;
    submit_stats();
}

/* One list of pages at most; what is given then. */
static uint32_t step(uint32_t given, uint32_t wanted)
{
    uint32_t most = given < wanted ? wanted - given : given - wanted;
    uint32_t count = most < LIST_PAGES ? most : LIST_PAGES;
    uint32_t first = given < wanted ? given : given - count;

    for (uint32_t i = 0; i < count; i++)
        pages[i] = (uint32_t)(GIVEN_START / PAGE_BYTES) + first + i;
    if (!submit(given < wanted ? &inflate : &deflate, (uintptr_t)pages, count * 4, 0))
        console_print("balloon timeout\n");
    return given < wanted ? given + count : given - count;
}

/* Until as much is given as is wanted; what is given then. */
static uint32_t give(uint32_t given)
{
    volatile uint32_t *config = (volatile uint32_t *)device.config; /* num_pages, actual */
    uint32_t wanted = config[0];

    if (given == wanted)
        return given;
    while (given != wanted)
        given = step(given, wanted);
    config[1] = given;
    console_print("balloon %u MiB\n", given * PAGE_BYTES / MIB);
    return given;
}

static void follow(struct guest *guest)
{
    struct virtqueue_used_element element;
    uint32_t given = 0;

    offer_stats(given);
    for (;;) {
        given = give(given);
        if (virtqueue_take(&stats, &element))
            offer_stats(given);
        guest_wait(guest, LOOK_AGAIN);
    }
}

/* Gives what it is asked for, and goes on to use it, with all the rest. */
static void lie(struct guest *guest, uint64_t mib, bool full)
{
    struct virtqueue_used_element element;
    uint32_t given = 0;

    offer_lies(mib * MIB, full);
    for (uint64_t round = 1;; round++) {
        given = give(given);
        for (uint64_t page = 0; page < mib * MIB; page += PAGE_BYTES) {
            volatile uint64_t *word = memory_map(GIVEN_START + page, PAGE_BYTES);

            if (word != NULL)
                *word = round;
        }
        if (round == 1)
            console_print("balloon lies\n");
        if (virtqueue_take(&stats, &element))
            offer_lies(mib * MIB, full);
        guest_wait(guest, USE_AGAIN);
    }
}

static void report(uint64_t mib)
{
    for (uint64_t done = 0; done < mib * MIB; done += REPORT_BYTES) {
        if (!submit(&reports, GIVEN_START + done, REPORT_BYTES, DESCRIPTOR_WRITE)) {
            console_print("balloon report timeout\n");
            return;
        }
    }
    console_print("balloon report %u MiB ok\n", mib);
}

void balloon_run(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    bool tells_all = count == 2 && text_equal(arguments[1], "all");
    bool follows = (count == 1 || tells_all) && text_equal(arguments[0], "follow");
    bool full = count == 3 && text_equal(arguments[2], "full");
    bool lies = (full || (count == 3 && text_equal(arguments[2], "free"))) &&
                text_equal(arguments[0], "lie");
    uint64_t mib = 0;

    if (!follows && !((lies || (count == 2 && text_equal(arguments[0], "report"))) &&
                      text_number(arguments[1], &mib))) {
        console_print("balloon usage\n");
        return;
    }
    if (!virtio_open(&device, "balloon", VIRTIO_BALLOON, index,
                     FEATURE_STATS | FEATURE_REPORTING) ||
        !virtio_add_queue(&device, &inflate, 0) || !virtio_add_queue(&device, &deflate, 1) ||
        !virtio_add_queue(&device, &stats, 2) || !virtio_add_queue(&device, &reports, 3))
        return;
    virtio_start(&device);
    if (tells_all)
        tell_all();
    if (follows)
        follow(guest);
    else if (lies)
        lie(guest, mib, full);
    else
        report(mib);
}
