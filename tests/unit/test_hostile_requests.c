/* test_hostile_requests.c - hostile guests, cases 9, 11, 12, 14, 17, 19, 21 and 22 of
 * tests/HOSTILE.md: what a driver can ask of a disk and of the entropy source, and how it can touch
 * registers. */
#include "tests/unit/hostile.h"
#include <linux/falloc.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include "vmm/power.h"
#include "vmm/serial.h"

#define ERROR_LOOPS 1000000u
#define RACE_KICKS  20000u
#define MARK_BYTES  65536 /* of the file, behind the disk's end */
#define MARK        0x5a

static void case_09_accesses_of_any_width_and_place(void **state)
{
    struct hostile *f = *state;
    struct stats_page *page = calloc(1, VMM_PAGE_BYTES);
    struct serial *serial;
    struct power *power;
    int interrupt = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    uint64_t value = 0x0101010101010101;

    assert_int_equal(serial_new(&f->h.ports, interrupt, page, &serial, NULL), 0);
    assert_int_equal(power_new(&f->h.ports, interrupt, f->h.loop, NULL, &power, NULL), 0);
    FOR_EACH_SLOT(slot)
    {
        hostile_start(f, slot, 0);
        for (unsigned bar = 0; bar < 2; bar++) {
            for (uint64_t offset = 0; offset < 0x4010; offset++) {
                for (unsigned width = 1; width <= 16; width++) {
                    uint8_t bytes[16] = { 0 };

                    bus_read(&f->h.mmio, bar_address(&f->h, bar) + offset, bytes, width);
                    if (offset % 0x1000 < 0x48 || offset % 0x1000 > 0xff0)
                        bus_write(&f->h.mmio, bar_address(&f->h, bar) + offset, bytes, width);
                }
            }
        }
        for (unsigned offset = 0; offset < 0x1010; offset++) {
            for (unsigned width = 1; width <= 8; width++) {
                uint8_t bytes[8] = { 0 };

                bus_read(&f->h.mmio, ecam_address(&f->h, offset), bytes, width);
                if (offset > 0x20 || width == 3 || width > 4) /* not to move its BARs */
                    bus_write(&f->h.mmio, ecam_address(&f->h, offset), bytes, width);
            }
        }
        hostile_start(f, slot, 0);
        assert_serves(f);
    }
    for (unsigned port = 0; port < 0x10000; port++) {
        for (unsigned width = 1; width <= 8; width++) {
            uint8_t bytes[8];

            bus_read(&f->h.ports, port, bytes, width);
            /* Those of power.c end the VM when they are written to, as they shall. */
            if (port < PLATFORM_PORT_PVPANIC - 8 && port != PLATFORM_PORT_I8042_COMMAND)
                bus_write(&f->h.ports, port, &value, width);
        }
    }
    free(power);
    free(serial);
    close(interrupt);
    free(page);
}

/* Chains that are too short to be answered break the device; those that are only wrong fail. */
static void case_11_headers_and_responses_of_wrong_size(void **state)
{
    static const struct {
        struct ring_buffer buffers[3];
        unsigned count;
        int status; /* UNTOUCHED = the device breaks */
    } cases[] = {
        { { { HEADER, 16, 0 } }, 1, UNTOUCHED },
        { { { STATUS, 1, RING_WRITE } }, 1, UNTOUCHED },
        { { { HEADER, 1, 0 }, { STATUS, 1, RING_WRITE } }, 2, UNTOUCHED },
        { { { HEADER, 15, 0 }, { STATUS, 1, RING_WRITE } }, 2, UNTOUCHED },
        { { { HEADER, 15, 0 }, { DATA, 512, RING_WRITE }, { STATUS, 1, RING_WRITE } },
          3,
          UNTOUCHED },
        { { { HEADER, 16, RING_WRITE }, { STATUS, 1, RING_WRITE } }, 2, UNTOUCHED },
        { { { HEADER, 16, 0 }, { DATA, 512, 0 } }, 2, UNTOUCHED },
        { { { HEADER, 16, 0 }, { STATUS, 1, RING_WRITE } }, 2, IO_ERROR },
        { { { HEADER, 17, 0 }, { DATA, 511, RING_WRITE }, { STATUS, 1, RING_WRITE } },
          3,
          IO_ERROR },
        { { { HEADER, 16, 0 }, { DATA, 511, RING_WRITE }, { STATUS, 1, RING_WRITE } },
          3,
          IO_ERROR },
        { { { HEADER, 16, 0 }, { DATA, 513, RING_WRITE }, { STATUS, 1, RING_WRITE } },
          3,
          IO_ERROR },
        { { { HEADER, 4096, 0 }, { DATA, 512, RING_WRITE }, { STATUS, 1, RING_WRITE } }, 3, OK },
    };
    static const uint32_t id_sizes[] = { 0, 1, 19, 21, 512 };
    struct hostile *f = *state;
    uint32_t head, used;

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        hostile_start(f, DISK_SLOT, 0);
        put_header(f, IN, 0);
        ring_offer(&f->h, 0, cases[i].buffers, cases[i].count);
        ring_kick(&f->h, 0);
        if (guest_get8(&f->h, STATUS) != cases[i].status && cases[i].buffers[0].flags == 0)
            fail_msg("case %zu: status %u", i, guest_get8(&f->h, STATUS));
        if (cases[i].status == UNTOUCHED)
            assert_breaks_and_recovers(f);
        else
            assert_true(ring_take(&f->h, 0, &head, &used) && used <= 513);
    }
    hostile_start(f, DISK_SLOT, 0);
    for (size_t i = 0; i < ARRAY_LENGTH(id_sizes); i++)
        assert_int_equal(disk_request(f, GET_ID, 0, DATA, id_sizes[i]), IO_ERROR);
    for (uint32_t size = 0; size < 40; size++) /* a range is 16 bytes */
        if (size != 16)
            assert_int_equal(disk_request(f, DISCARD, 0, DATA, size), IO_ERROR);
    assert_serves(f);
}

/* 64 buffers of nearly all RAM are 256 MiB; one answer is 64 KiB. */
static void case_12_entropy_for_gigabytes(void **state)
{
    struct hostile *f = *state;
    uint32_t head, used;

    hostile_start(f, RNG_SLOT, VIRTIO_FEATURE_INDIRECT);
    for (unsigned i = 0; i < RING_SIZE; i++) {
        struct ring_descriptor entry = { DATA, HARNESS_MEMORY - DATA, RING_WRITE | RING_NEXT,
                                         (uint16_t)(i + 1) };

        if (i == RING_SIZE - 1)
            entry.flags = RING_WRITE;
        guest_put(&f->h, TABLE + i * sizeof(entry), &entry, sizeof(entry));
    }
    offer_descriptor(f, TABLE, RING_SIZE * 16, RING_INDIRECT, 0);
    assert_true(ring_take(&f->h, 0, &head, &used));
    assert_int_equal(used, VIRTIO_RNG_REQUEST_BYTES);
    assert_int_equal(f->rng_bytes, VIRTIO_RNG_REQUEST_BYTES);
    assert_serves(f);
    hostile_start(f, RNG_SLOT, 0);
    offer_descriptor(f, 0x1000, UINT32_MAX, RING_WRITE, 0);
    assert_breaks_and_recovers(f);
}

/* A million requests that fail in different ways: none is lost, nothing is kept. */
static void case_14_errors_in_mid_request(void **state)
{
    static const uint32_t types[] = { IN, OUT, GET_ID, DISCARD, WRITE_ZEROES, 99, IN, OUT };
    struct hostile *f = *state;
    struct harness *h = &f->h;
    size_t before = 0;

    hostile_start(f, DISK_SLOT, 0);
    for (unsigned i = 0; i < 8; i++) { /* 8 requests, one descriptor each for header and status */
        const struct {
            uint32_t type, reserved;
            uint64_t sector;
        } header = { types[i], 0, i == 0 ? UINT64_MAX : DISK_SECTORS - (i & 1) };

        guest_put(h, HEADER + 16 * i, &header, sizeof(header));
        ring_put_descriptor(h, 0, 2 * i, HEADER + 16 * i, 16, RING_NEXT, (uint16_t)(2 * i + 1));
        ring_put_descriptor(h, 0, 2 * i + 1, STATUS, i < 6 ? 1 : 1025, RING_WRITE, 0);
    }
    for (unsigned done = 0; done < ERROR_LOOPS; done += 8) {
        for (uint16_t i = 0; i < 8; i++)
            ring_offer_head(h, 0, (uint16_t)(2 * i));
        ring_notify(h, 0);
        while (guest_get16(h, ring_used(0) + 2) != h->rings[0].avail)
            assert_int_equal(loop_turn(h->loop, 100, &h->err), 0);
        if (done == 800)
            before = mallinfo2().uordblks;
    }
    assert_int_equal(mallinfo2().uordblks, before);
    assert_int_equal(f->stats.errors, ERROR_LOOPS);
    assert_int_equal(status_get(h), 15);
    h->rings[0].used = h->rings[0].avail;
    assert_serves(f);
    for (unsigned i = 0; i < 2000; i++) { /* and with a reset in between */
        hostile_start(f, DISK_SLOT, 0);
        offer_descriptor(f, HEADER, 15, 0, 0);
        assert_needs_reset(h);
    }
    hostile_start(f, DISK_SLOT, 0);
    for (unsigned i = 0; i < 300; i++)
        assert_serves(f);
}

struct race {
    struct hostile *f;
    bool stop;
};

/* The chain that is checked and used meanwhile: word by word it turns bad, and good again. */
struct flipped {
    volatile struct ring_descriptor *ring;
    volatile uint32_t *header;
    volatile uint64_t *sector;
};

static void make_good(const struct flipped *chain, unsigned turn)
{
    chain->ring[0].length = 16;
    chain->ring[1].address = DATA;
    chain->ring[1].length = 512;
    chain->ring[1].next = 2;
    chain->header[0] = turn / 64 % 2;
    chain->ring[1].flags = turn / 64 % 2 ? RING_NEXT : RING_NEXT | RING_WRITE;
    *chain->sector = turn % DISK_SECTORS;
}

static void make_bad(const struct flipped *chain, unsigned turn)
{
    static const uint64_t addresses[] = { HARNESS_MEMORY - 256, UINT64_MAX - 100, 1ull << 63 };
    static const uint32_t lengths[] = { 4096, UINT32_MAX, 0, DISK_BYTES };
    static const uint64_t sectors[] = { DISK_SECTORS - 1, DISK_SECTORS, UINT64_MAX, 1ull << 55 };

    switch (turn % 8) {
    case 0:
        chain->ring[1].address = addresses[turn / 8 % ARRAY_LENGTH(addresses)];
        break;
    case 1:
        chain->ring[1].length = lengths[turn / 8 % ARRAY_LENGTH(lengths)];
        break;
    case 2:
        chain->ring[1].next = turn & 8 ? 1 : 65535;
        break;
    case 3:
        chain->ring[1].flags ^= RING_WRITE;
        break;
    case 4:
        chain->ring[0].length = 8;
        break;
    default:
        *chain->sector = sectors[turn / 8 % ARRAY_LENGTH(sectors)];
        break;
    }
}

static void *flip(void *context)
{
    struct race *race = context;
    struct guest_memory *memory = race->f->h.memory;
    uint32_t *header = guest_memory_map(memory, HEADER, 16);
    const struct flipped chain = { guest_memory_map(memory, RING_BASE(0), 48), header,
                                   (volatile uint64_t *)(header + 2) };

    for (unsigned turn = 0; !__atomic_load_n(&race->stop, __ATOMIC_RELAXED); turn++) {
        bool bad = turn % 4 == 0;

        make_good(&chain, turn);
        if (bad)
            make_bad(&chain, turn / 4);
        for (unsigned i = 0; i < turn % 512; i++) /* so that some are seen whole */
            __asm__ volatile("pause");
    }
    return NULL;
}

static void race_kicks(struct hostile *f, unsigned slot)
{
    for (unsigned i = 0; i < RACE_KICKS; i++) {
        if (i == 0 || status_get(&f->h) != 15) {
            hostile_start(f, slot, i % 2 ? VIRTIO_FEATURE_INDIRECT : 0);
            ring_put_descriptor(&f->h, 0, 2, STATUS, 1, RING_WRITE, 0);
        }
        ring_put_descriptor(&f->h, 0, 0, slot == RNG_SLOT ? DATA + 4096 : HEADER, 16,
                            slot == RNG_SLOT ? RING_WRITE | RING_NEXT : RING_NEXT, 1);
        ring_offer_head(&f->h, 0, 0);
        ring_notify(&f->h, 0);
        assert_int_equal(loop_turn(f->h.loop, 0, &f->h.err), 0);
    }
}

#define RACE_ROUNDS_MAX 1000

static void case_17_flipped_after_validation(void **state)
{
    struct hostile *f = *state;
    struct race race = { .f = f };
    static uint8_t mark[MARK_BYTES], after[MARK_BYTES];
    struct stat status;
    pthread_t thread;

    memset(mark, MARK, sizeof(mark));
    assert_int_equal(pwrite(f->fd, mark, sizeof(mark), DISK_BYTES), sizeof(mark));
    guest_put(&f->h, CANARY, mark, sizeof(mark));
    assert_int_equal(pthread_create(&thread, NULL, flip, &race), 0);
    /* Until both outcomes were seen: how long that takes is the scheduler's business. */
    for (unsigned round = 0; round < RACE_ROUNDS_MAX; round++) {
        FOR_EACH_SLOT(slot)
        race_kicks(f, slot);
        if (f->stats.read_ops + f->stats.write_ops > 0 && f->stats.errors > 0)
            break;
    }
    __atomic_store_n(&race.stop, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);

    print_message("reads %llu writes %llu errors %llu random bytes %llu\n",
                  (unsigned long long)f->stats.read_ops, (unsigned long long)f->stats.write_ops,
                  (unsigned long long)f->stats.errors, (unsigned long long)f->rng_bytes);
    assert_true(f->stats.read_ops + f->stats.write_ops > 0 && f->stats.errors > 0);
    assert_int_equal(pread(f->fd, after, sizeof(after), DISK_BYTES), sizeof(after));
    assert_memory_equal(after, mark, sizeof(mark)); /* what lies behind the disk */
    guest_get(&f->h, CANARY, after, sizeof(after));
    assert_memory_equal(after, mark, sizeof(mark)); /* what no descriptor ever named */
    assert_int_equal(fstat(f->fd, &status), 0);
    assert_int_equal(status.st_size, DISK_BYTES + MARK_BYTES);
    FOR_EACH_SLOT(slot)
    {
        hostile_start(f, slot, 0);
        assert_serves(f);
    }
}

static int read_only_set_up(void **state)
{
    *state = hostile_new(true);
    return 0;
}

static void assert_disk_unchanged(struct hostile *f)
{
    static uint8_t zeroes[DISK_BYTES], disk[DISK_BYTES];
    struct stat status;

    assert_int_equal(pread(f->fd, disk, sizeof(disk), 0), sizeof(disk));
    assert_memory_equal(disk, zeroes, sizeof(disk));
    assert_int_equal(fstat(f->fd, &status), 0);
    assert_int_equal(status.st_size, DISK_BYTES);
}

static void case_19_sectors_and_lengths(void **state)
{
    static const struct {
        uint64_t sector;
        uint32_t size;
    } transfers[] = {
        { DISK_SECTORS, 512 },
        { DISK_SECTORS - 1, 1024 },
        { 1, DISK_BYTES },
        { UINT64_MAX, 512 },
        { UINT64_MAX / 512, 512 },
        { UINT64_MAX / 512 + 1, 512 },
        { UINT64_MAX / 512 + 2, 1024 },
        { (1ull << 55) - 1, 512 },
        { 1ull << 55, 512 },
        { 1ull << 63, 512 },
        { 0, 1 },
        { 0, 511 },
        { 0, 513 },
        { DISK_SECTORS - 1, 513 },
    };
    static const struct {
        uint64_t sector;
        uint32_t sectors;
    } ranges[] = {
        { DISK_SECTORS, 1 },         { DISK_SECTORS - 1, 2 },
        { 0, DISK_SECTORS + 1 },     { 0, 0 },
        { 0, UINT32_MAX },           { UINT64_MAX, 1 },
        { UINT64_MAX, 2 },           { UINT64_MAX - 7, 8 },
        { UINT64_MAX / 512 + 1, 1 }, { 1ull << 55, 8 },
        { 1ull << 63, UINT32_MAX },
    };
    struct hostile *f = *state;

    hostile_start(f, DISK_SLOT, 0);
    memset(guest_memory_map(f->h.memory, DATA, 0x2000), MARK, 0x2000);
    for (size_t i = 0; i < ARRAY_LENGTH(transfers); i++) {
        for (uint32_t type = IN; type <= OUT; type++)
            if (disk_request(f, type, transfers[i].sector, DATA, transfers[i].size) != IO_ERROR)
                fail_msg("transfer %zu, type %u", i, type);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(ranges); i++) {
        if (disk_range(f, DISCARD, ranges[i].sector, ranges[i].sectors, 0) != IO_ERROR ||
            disk_range(f, WRITE_ZEROES, ranges[i].sector, ranges[i].sectors, 1) != IO_ERROR)
            fail_msg("range %zu", i);
    }
    assert_disk_unchanged(f);
    assert_serves(f);
}

/* On a disk that has room for them: what would keep the loop's thread too long fails. */
static void case_19_requests_that_take_too_long(void **state)
{
    enum { MIB_OF_REQUEST = 33, CHAIN = MIB_OF_REQUEST + 2, SECTORS_OF_RANGE = 1 << 21 };
    struct hostile *f = *state;
    struct ring_buffer buffers[CHAIN] = { { HEADER, 16, 0 } };
    uint32_t head, used;

    harness_close(&f->h);
    harness_open(&f->h);
    assert_int_equal(ftruncate(f->fd, 4ll << 30), 0);
    hostile_add_of(f, 4ull << 30, false);
    for (unsigned i = 0; i < 4; i++) {
        uint32_t type = i & 1 ? OUT : IN;
        unsigned last = CHAIN - 2 + i / 2;

        f->h.slot = DISK_SLOT;
        driver_start(&f->h, BLOCK_FEATURES, 64);
        for (unsigned at = 1; at < last; at++) /* the same memory again and again */
            buffers[at] =
                (struct ring_buffer){ 2 * DATA_BASE, 1u << 20, type == IN ? RING_WRITE : 0 };
        buffers[last] = (struct ring_buffer){ STATUS, 1, RING_WRITE };
        block_put_header(&f->h, HEADER, type, 0);
        ring_offer(&f->h, 0, buffers, last + 1);
        ring_kick(&f->h, 0);
        assert_true(ring_await(&f->h, 0, &head, &used));
        assert_int_equal(guest_get8(&f->h, STATUS), i < 2 ? OK : IO_ERROR);
        assert_int_equal(used, i == 0 ? (32u << 20) + 1 : 1);
    }
    assert_int_equal(disk_range(f, DISCARD, 0, SECTORS_OF_RANGE, 0), OK);
    assert_int_equal(disk_range(f, DISCARD, 0, SECTORS_OF_RANGE + 1, 0), IO_ERROR);
    assert_int_equal(disk_range(f, WRITE_ZEROES, 8, SECTORS_OF_RANGE + 1, 1), IO_ERROR);
}

/* How long one takes depends on the extents there: each is followed by the others' turn. */
static void case_19_ranges_have_a_turn_each(void **state)
{
    enum { SECTORS_OF_RANGE = 1 << 21 };
    const struct ring_buffer buffers[] = { { HEADER, 16, 0 },
                                           { DATA, 16, 0 },
                                           { STATUS, 1, RING_WRITE } };
    struct hostile *f = *state;
    uint16_t before;

    harness_close(&f->h);
    harness_open(&f->h);
    assert_int_equal(ftruncate(f->fd, 4ll << 30), 0);
    hostile_add_of(f, 4ull << 30, false);
    f->h.slot = DISK_SLOT;
    driver_start(&f->h, BLOCK_FEATURES, 64);
    block_put_header(&f->h, HEADER, DISCARD, 0);
    block_put_range(&f->h, DATA, 0, SECTORS_OF_RANGE, 0);
    for (unsigned i = 0; i < 16; i++)
        ring_offer(&f->h, 0, buffers, ARRAY_LENGTH(buffers));
    ring_notify(&f->h, 0);
    for (before = 0; before < 16; before = guest_get16(&f->h, ring_used(0) + 2)) {
        assert_int_equal(loop_turn(f->h.loop, 1000, &f->h.err), 0);
        assert_in_range(guest_get16(&f->h, ring_used(0) + 2) - before, 0, 2);
    }
}

static void case_19_writes_to_a_read_only_disk(void **state)
{
    struct hostile *f = *state;

    f->h.slot = DISK_SLOT;
    for (unsigned i = 0; i < 2; i++) { /* as agreed, and with all features there are */
        driver_start(&f->h, i ? (1ull << 9) | (1ull << 5) : 0, RING_SIZE);
        memset(guest_memory_map(f->h.memory, DATA, 0x1000), MARK, 0x1000);
        assert_int_equal(disk_request(f, OUT, 0, DATA, 512), IO_ERROR);
        assert_int_equal(disk_request(f, OUT, DISK_SECTORS, DATA, 512), IO_ERROR);
        assert_int_equal(disk_range(f, DISCARD, 0, 8, 0), UNSUPPORTED);
        assert_int_equal(disk_range(f, WRITE_ZEROES, 0, 8, 1), UNSUPPORTED);
    }
    assert_false(driver_negotiate(&f->h, VIRTIO_FEATURE_VERSION_1 | (1ull << 13)));
    assert_disk_unchanged(f);
}

/* The guest writes headers of image formats that name other files; then the VM is made anew. */
static void case_21_a_raw_disk_stays_raw(void **state)
{
    static const uint8_t qcow2[512] = "QFI\xfb\0\0\0\3\0\0\0\0\0\0\1\0\0\0\0\13";
    static const uint8_t vmdk[512] = "KDMV\1\0\0\0";
    static const uint8_t luks[512] = "LUKS\xba\xbe\0\1";
    const uint8_t *const headers[] = { qcow2, vmdk, luks };
    struct hostile *f = *state;
    uint8_t back[512];

    for (size_t i = 0; i < ARRAY_LENGTH(headers); i++) {
        hostile_start(f, DISK_SLOT, 0);
        guest_put(&f->h, DATA, headers[i], 512);
        guest_put(&f->h, DATA + 256, "/etc/passwd", 11);
        assert_int_equal(disk_request(f, OUT, 0, DATA, 512), OK);
        harness_close(&f->h);
        harness_open(&f->h);
        hostile_add(f, false);
        hostile_start(f, DISK_SLOT, 0);
        assert_int_equal(device_config_get(&f->h, 0, 8), DISK_SECTORS);
        assert_int_equal(disk_request(f, IN, 0, DATA, 512), OK);
        guest_get(&f->h, DATA, back, sizeof(back));
        assert_memory_equal(back, headers[i], 256);
        assert_memory_equal(back + 256, "/etc/passwd", 11);
    }
}

/* Queues that are set up and kicked in a device that was never started, as a restored one might be.
 */
static void case_22_active_without_driver_ok(void **state)
{
    static const uint8_t statuses[] = { 11, 0x8b };
    struct hostile *f = *state;
    uint32_t head, used;

    FOR_EACH_SLOT(slot)
    {
        for (size_t i = 0; i < ARRAY_LENGTH(statuses); i++) {
            f->h.slot = slot;
            driver_attach(&f->h);
            assert_true(driver_negotiate(&f->h, VIRTIO_FEATURE_VERSION_1));
            status_put(&f->h, statuses[i]);
            driver_set_ring(&f->h, 0, RING_SIZE);
            put_header(f, IN, 0);
            ring_put_descriptor(&f->h, 0, 1, STATUS, 1, RING_WRITE, 0);
            offer_descriptor(f, HEADER, 16, RING_NEXT, 1);
            assert_false(ring_take(&f->h, 0, &head, &used));
            assert_int_equal(guest_get8(&f->h, STATUS), UNTOUCHED);
        }
        hostile_start(f, slot, 0);
        assert_serves(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOSTILE_TEST(case_09_accesses_of_any_width_and_place),
        HOSTILE_TEST(case_11_headers_and_responses_of_wrong_size),
        HOSTILE_TEST(case_12_entropy_for_gigabytes),
        HOSTILE_TEST(case_14_errors_in_mid_request),
        HOSTILE_TEST(case_17_flipped_after_validation),
        HOSTILE_TEST(case_19_sectors_and_lengths),
        HOSTILE_TEST(case_19_requests_that_take_too_long),
        HOSTILE_TEST(case_19_ranges_have_a_turn_each),
        cmocka_unit_test_setup_teardown(case_19_writes_to_a_read_only_disk, read_only_set_up,
                                        hostile_tear_down),
        HOSTILE_TEST(case_21_a_raw_disk_stays_raw),
        HOSTILE_TEST(case_22_active_without_driver_ok),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
