/* test_virtio_block.c - block requests against a real file, whole and broken ones. */
#include "tests/unit/block_driver.h"
#include <sys/stat.h>
#include "tests/unit/ring_harness.h"
#include "vmm/io_vector.h"
#include "vmm/stats_page.h"
#include "vmm/virtio_block.h"

#define DISK_BYTES   (64u << 20)
#define DISK_SECTORS (DISK_BYTES / 512)
#define HEADER       DATA_BASE
#define STATUS       (DATA_BASE + BLOCK_STATUS)
#define DATA         (DATA_BASE + 0x1000)

#define FEATURE_READ_ONLY (1ull << 5)

struct fixture {
    struct harness h;
    struct stats_disk stats;
    int fd;
    struct virtio_block_spec spec;
};

static bool by_ring; /* or by calls, the disks that the tests make */

static struct fixture *fixture_new(int flags)
{
    char name[] = "test_virtio_block.XXXXXX"; /* here: a tmpfs has no O_DIRECT */
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    harness_open(&f->h);
    f->fd = mkostemp(name, flags);
    assert_true(f->fd >= 0);
    unlink(name);
    assert_int_equal(ftruncate(f->fd, DISK_BYTES), 0);
    f->spec = (struct virtio_block_spec){ .queues = 1,
                                          .fd = f->fd,
                                          .size_bytes = DISK_BYTES,
                                          .serial = "volume-0123456789abc",
                                          .stats = &f->stats,
                                          .ring = by_ring ? ring_new() : NULL };
    return f;
}

static void add_disk(struct fixture *f)
{
    assert_int_equal(virtio_block_add(f->h.root, &f->spec, &f->h.err), 0);
}

static int set_up(void **state)
{
    struct fixture *f = fixture_new(0);

    add_disk(f);
    *state = f;
    return 0;
}

static int set_up_bare(void **state)
{
    *state = fixture_new(0);
    return 0;
}

static int set_up_read_only(void **state)
{
    struct fixture *f = fixture_new(0);

    f->spec.read_only = true;
    add_disk(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    harness_close(&f->h);
    ring_free(f->spec.ring);
    close(f->fd);
    free(f);
    return 0;
}

static void put_header(struct fixture *f, uint32_t type, uint64_t sector)
{
    block_put_header(&f->h, HEADER, type, sector);
}

/* Header, `size` bytes at DATA (none if 0), status; returns the status byte. */
static int request(struct fixture *f, uint32_t type, uint64_t sector, uint32_t size,
                   uint32_t *ret_used)
{
    uint32_t head, used;

    block_offer(&f->h, 0, HEADER, type, sector, DATA, size);
    ring_kick(&f->h, 0);
    if (!ring_await(&f->h, 0, &head, &used))
        return -1;
    if (ret_used)
        *ret_used = used;
    return guest_get8(&f->h, STATUS);
}

static int request_range(struct fixture *f, uint32_t type, uint64_t sector, uint32_t sectors,
                         uint32_t flags)
{
    block_put_range(&f->h, DATA, sector, sectors, flags);
    return request(f, type, 0, 16, NULL);
}

static void fill(uint8_t *bytes, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 251 + seed);
}

static void the_configuration_describes_the_disk(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;

    driver_start(h, BLOCK_FEATURES, 8);
    assert_int_equal(config_get(h, 0, 4), 0x10421af4);
    assert_int_equal(config_get(h, 8, 4), 0x01800001);
    assert_int_equal(device_config_get(h, 0, 8), DISK_SECTORS);
    assert_int_equal(device_config_get(h, 4, 4), 0);
    assert_int_equal(device_config_get(h, 8, 4), 1 << 20); /* a segment; FreeBSD insists on it */
    assert_int_equal(device_config_get(h, 12, 4), 254);    /* segments: the queue's, less two */
    assert_int_equal(device_config_get(h, 20, 4), 512);
    assert_int_equal(device_config_get(h, 34, 2), 1);
    assert_int_equal(device_config_get(h, 40, 4), 1);
    assert_int_equal(device_config_get(h, 56, 1), 1);
    assert_int_equal(device_config_get(h, 60, 4), 0xffffffff);
    assert_int_equal(device_config_get(h, 4095, 1), 0xff);
    assert_int_equal(features_offered(h) & (BLOCK_FEATURES | FEATURE_READ_ONLY), BLOCK_FEATURES);
}

static void what_is_written_is_read_back(void **state)
{
    struct fixture *f = *state;
    uint8_t bytes[4096], file[4096], back[4096];
    uint32_t used;

    driver_start(&f->h, BLOCK_FEATURES, 8);
    fill(bytes, sizeof(bytes), 1);
    guest_put(&f->h, DATA, bytes, sizeof(bytes));
    assert_int_equal(request(f, OUT, 100, sizeof(bytes), &used), OK);
    assert_int_equal(used, 1);
    assert_int_equal(pread(f->fd, file, sizeof(file), 100 * 512), sizeof(file));
    assert_memory_equal(file, bytes, sizeof(bytes));

    memset(back, 0, sizeof(back));
    guest_put(&f->h, DATA, back, sizeof(back));
    assert_int_equal(request(f, IN, 100, sizeof(bytes), &used), OK);
    assert_int_equal(used, sizeof(bytes) + 1);
    guest_get(&f->h, DATA, back, sizeof(back));
    assert_memory_equal(back, bytes, sizeof(bytes));

    assert_int_equal(request(f, FLUSH, 0, 0, &used), OK);
    assert_int_equal(request(f, OUT, DISK_SECTORS - 1, 512, NULL), OK); /* the last one */
    assert_int_equal(f->stats.write_ops, 2);
    assert_int_equal(f->stats.write_bytes, 4096 + 512);
    assert_int_equal(f->stats.read_ops, 1);
    assert_int_equal(f->stats.read_bytes, 4096);
    assert_int_equal(f->stats.flush_ops, 1);
    assert_int_equal(f->stats.errors, 0);
}

/* 2.7.4: nothing may be assumed about how a request is cut into descriptors. */
static void any_framing_works(void **state)
{
    struct fixture *f = *state;
    const struct ring_buffer in[] = { { HEADER, 3, 0 },
                                      { HEADER + 3, 13, 0 },
                                      { DATA + 1, 100, RING_WRITE },
                                      { DATA + 0x3000, 900, RING_WRITE },
                                      { DATA + 0x8000, 25, RING_WRITE } };
    const struct ring_buffer out[] = { { HEADER, 16 + 24, 0 },
                                       { DATA, 488, 0 },
                                       { STATUS - 7, 8, RING_WRITE } };
    uint8_t bytes[1024], back[1024];
    uint32_t head, used;

    driver_start(&f->h, BLOCK_FEATURES, 16);
    fill(bytes, sizeof(bytes), 2);
    assert_int_equal(pwrite(f->fd, bytes, sizeof(bytes), 512), sizeof(bytes));
    put_header(f, IN, 1);
    ring_offer(&f->h, 0, in, 5);
    ring_kick(&f->h, 0);
    assert_true(ring_await(&f->h, 0, &head, &used));
    assert_int_equal(used, 1025);
    guest_get(&f->h, DATA + 1, back, 100);
    guest_get(&f->h, DATA + 0x3000, back + 100, 900);
    guest_get(&f->h, DATA + 0x8000, back + 1000, 24);
    assert_memory_equal(back, bytes, sizeof(bytes));
    assert_int_equal(guest_get8(&f->h, DATA + 0x8000 + 24), OK);

    guest_put(&f->h, HEADER + 16, bytes, 24);
    guest_put(&f->h, DATA, bytes + 24, 488);
    put_header(f, OUT, 9);
    ring_offer(&f->h, 0, out, 3);
    ring_kick(&f->h, 0);
    assert_true(ring_await(&f->h, 0, &head, &used));
    assert_int_equal(guest_get8(&f->h, STATUS), OK);
    assert_int_equal(pread(f->fd, back, 512, 9 * 512), 512);
    assert_memory_equal(back, bytes, 512);
}

static void the_id_is_the_serial(void **state)
{
    struct fixture *f = *state;
    char id[20];
    uint32_t used;

    driver_start(&f->h, BLOCK_FEATURES, 8);
    assert_int_equal(request(f, GET_ID, 0, 20, &used), OK);
    assert_int_equal(used, 21);
    guest_get(&f->h, DATA, id, sizeof(id));
    assert_memory_equal(id, "volume-0123456789abc", 20);
    assert_int_equal(request(f, GET_ID, 0, 19, NULL), IO_ERROR);
    assert_int_equal(request(f, GET_ID, 0, 4096, NULL), IO_ERROR);
}

static blkcnt_t file_blocks(const struct fixture *f)
{
    struct stat stat;

    assert_int_equal(fstat(f->fd, &stat), 0);
    assert_int_equal(stat.st_size, DISK_BYTES); /* never changes */
    return stat.st_blocks;
}

static void discards_and_zeroes_free_space(void **state)
{
    struct fixture *f = *state;
    static uint8_t bytes[1 << 20], zeroes[1 << 20];
    blkcnt_t full;

    driver_start(&f->h, BLOCK_FEATURES, 8);
    fill(bytes, sizeof(bytes), 3);
    assert_int_equal(pwrite(f->fd, bytes, sizeof(bytes), 0), sizeof(bytes));
    assert_int_equal(fsync(f->fd), 0);
    full = file_blocks(f);

    assert_int_equal(request_range(f, WRITE_ZEROES, 8, 8, 0), OK); /* keeps its space */
    assert_int_equal(request_range(f, WRITE_ZEROES, 1024, 512, 1), OK);
    assert_true(file_blocks(f) <= full - 256 * 2);
    assert_int_equal(request_range(f, DISCARD, 512, 512, 0), OK);
    assert_true(file_blocks(f) <= full - 512 * 2 + 8);
    assert_int_equal(pread(f->fd, zeroes, sizeof(zeroes), 0), sizeof(zeroes));
    memset(bytes + 4096, 0, 4096);
    memset(bytes + 512 * 512, 0, 1024 * 512);
    assert_memory_equal(zeroes, bytes, sizeof(bytes));
    assert_int_equal(f->stats.discard_ops, 3);
    assert_int_equal(f->stats.discard_bytes, (8 + 512 + 512) * 512);

    assert_int_equal(request_range(f, WRITE_ZEROES, DISK_SECTORS - 1, 1, 0), OK);
    (void)file_blocks(f);
}

static void what_is_outside_the_disk_fails(void **state)
{
    static const struct {
        uint32_t type;
        uint64_t sector;
        uint32_t size;
    } cases[] = {
        { IN, DISK_SECTORS, 512 },
        { IN, DISK_SECTORS - 1, 1024 },
        { IN, UINT64_MAX, 512 },
        { IN, UINT64_MAX / 512 + 1, 512 },
        { IN, 1ull << 55, 512 },
        { IN, 0, 511 },
        { IN, 0, 513 },
        { IN, 0, 1 },
        { IN, 0, 0 },
        { OUT, DISK_SECTORS, 512 },
        { OUT, DISK_SECTORS - 1, 1024 },
        { OUT, UINT64_MAX, 512 },
        { OUT, UINT64_MAX / 512 + 1, 512 },
        { OUT, 0, 100 },
        { OUT, 0, 0 },
    };
    static const struct {
        uint64_t sector;
        uint32_t sectors;
    } ranges[] = { { DISK_SECTORS, 1 },
                   { DISK_SECTORS - 1, 2 },
                   { UINT64_MAX, 1 },
                   { UINT64_MAX, 2 },
                   { 0, 0 },
                   { 0, UINT32_MAX },
                   { 0, (1u << 21) + 1 },
                   { UINT64_MAX / 512 + 1, 1 } };
    struct fixture *f = *state;

    driver_start(&f->h, BLOCK_FEATURES, 8);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (request(f, cases[i].type, cases[i].sector, cases[i].size, NULL) != IO_ERROR)
            fail_msg("case %zu was not refused", i);
    }
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        if (request_range(f, DISCARD, ranges[i].sector, ranges[i].sectors, 0) != IO_ERROR ||
            request_range(f, WRITE_ZEROES, ranges[i].sector, ranges[i].sectors, 1) != IO_ERROR)
            fail_msg("range %zu was not refused", i);
    }
    assert_int_equal(f->stats.errors,
                     sizeof(cases) / sizeof(cases[0]) + 2 * sizeof(ranges) / sizeof(ranges[0]));
    assert_int_equal(file_blocks(f), 0);
    assert_int_equal(status_get(&f->h), 15);
}

static void unknown_requests_are_unsupported(void **state)
{
    static const uint32_t types[] = { 2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 255, 0x80000000, ~0u };
    struct fixture *f = *state;

    driver_start(&f->h, BLOCK_FEATURES, 8);
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        assert_int_equal(request(f, types[i], 0, 512, NULL), UNSUPPORTED);
    assert_int_equal(request_range(f, DISCARD, 0, 8, 1), UNSUPPORTED);
    assert_int_equal(request_range(f, WRITE_ZEROES, 0, 8, 2), UNSUPPORTED);
    assert_int_equal(request(f, DISCARD, 0, 32, NULL), IO_ERROR); /* two ranges */
    assert_int_equal(request(f, DISCARD, 0, 15, NULL), IO_ERROR);
    assert_int_equal(request(f, WRITE_ZEROES, 0, 0, NULL), IO_ERROR);
    driver_start(&f->h, BLOCK_FLUSH, 8); /* not negotiated */
    assert_int_equal(request_range(f, DISCARD, 0, 8, 0), UNSUPPORTED);
    assert_int_equal(request_range(f, WRITE_ZEROES, 0, 8, 0), UNSUPPORTED);
}

static void a_read_only_disk_takes_no_change(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(features_offered((driver_attach(&f->h), &f->h)) &
                         (BLOCK_FEATURES | FEATURE_READ_ONLY),
                     BLOCK_FLUSH | FEATURE_READ_ONLY);
    driver_start(&f->h, BLOCK_FLUSH, 8); /* a driver that does not look at READ_ONLY */
    assert_int_equal(request(f, OUT, 0, 512, NULL), IO_ERROR);
    assert_int_equal(request_range(f, DISCARD, 0, 8, 0), UNSUPPORTED);
    assert_int_equal(request(f, IN, 0, 512, NULL), OK);
    assert_int_equal(request(f, FLUSH, 0, 0, NULL), OK);
    assert_int_equal(file_blocks(f), 0);
}

static void a_chain_without_header_or_status_needs_reset(void **state)
{
    static const struct {
        struct ring_buffer buffers[2];
        unsigned count;
    } cases[] = {
        { { { HEADER, 15, 0 }, { STATUS, 1, RING_WRITE } }, 2 },
        { { { HEADER, 16, 0 }, { DATA, 512, 0 } }, 2 },
        { { { HEADER, 16, 0 } }, 1 },
        { { { STATUS, 513, RING_WRITE } }, 1 },
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        driver_start(&f->h, BLOCK_FEATURES, 8);
        put_header(f, IN, 0);
        ring_offer(&f->h, 0, cases[i].buffers, cases[i].count);
        ring_kick(&f->h, 0);
        assert_needs_reset(&f->h);
    }
    driver_start(&f->h, BLOCK_FEATURES, 8);
    assert_int_equal(request(f, IN, 0, 512, NULL), OK);
}

/* The same thousands of times over: no request may be lost to an error (CVE-2021-3748). */
static void errors_leak_no_request(void **state)
{
    const struct ring_buffer bad = { HEADER, 15, 0 };
    struct fixture *f = *state;

    driver_start(&f->h, BLOCK_FEATURES, 8);
    for (unsigned i = 0; i < 2000; i++)
        assert_int_equal(request(f, IN, DISK_SECTORS, 512, NULL), IO_ERROR);
    for (unsigned i = 0; i < 600; i++) {
        ring_offer(&f->h, 0, &bad, 1);
        ring_kick(&f->h, 0);
        assert_needs_reset(&f->h);
        driver_start(&f->h, BLOCK_FEATURES, 8);
    }
    assert_int_equal(request(f, IN, 0, 512, NULL), OK);
}

/* A short file stands for a failing disk: the error is the guest's, not ours. */
static void a_failing_disk_is_an_io_error(void **state)
{
    struct fixture *f = *state;

    driver_start(&f->h, BLOCK_FEATURES, 8);
    assert_int_equal(ftruncate(f->fd, 1024), 0);
    assert_int_equal(request(f, IN, 2, 512, NULL), IO_ERROR);
    assert_int_equal(request(f, IN, 1, 1024, NULL), IO_ERROR);
    assert_int_equal(request(f, IN, 1, 512, NULL), OK);
}

static void a_burst_takes_several_turns(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;
    uint32_t head, used;
    unsigned answered = 0;

    driver_start(h, BLOCK_FEATURES, 256);
    put_header(f, FLUSH, 0);
    for (unsigned i = 0; i < 128; i++) {
        const struct ring_buffer buffers[2] = { { HEADER, 16, 0 }, { STATUS, 1, RING_WRITE } };

        ring_offer(h, 0, buffers, 2);
    }
    ring_notify(h, 0);
    assert_int_equal(loop_turn(h->loop, 0, &h->err), 0);
    while (ring_take(h, 0, &head, &used))
        answered++;
    assert_in_range(answered, 0, 64);
    while (answered < 128 && ring_await(&f->h, 0, &head, &used))
        answered++;
    assert_int_equal(answered, 128);
}

/* The largest request fits, 32 MiB, the next larger one fails without doing anything. */
static void requests_are_bounded(void **state)
{
    struct fixture *f = *state;
    struct harness *h = &f->h;
    struct ring_descriptor table[256];
    const struct ring_buffer indirect = { DATA_BASE + 0x100000, sizeof(table), RING_INDIRECT };
    uint32_t head, used;

    driver_start(h, BLOCK_FEATURES | VIRTIO_FEATURE_INDIRECT, 256);
    for (unsigned extra = 0; extra < 2; extra++) {
        for (unsigned i = 1; i < 255; i++)
            table[i] = (struct ring_descriptor){ DATA, 128 << 10, RING_WRITE | RING_NEXT,
                                                 (uint16_t)(i + 1) };
        table[7].length = (384 << 10) + extra * 512;
        table[0] = (struct ring_descriptor){ HEADER, 16, RING_NEXT, 1 };
        table[255] = (struct ring_descriptor){ STATUS, 1, RING_WRITE, 0 };
        guest_put(h, indirect.address, table, sizeof(table));
        put_header(f, IN, 0);
        ring_offer(h, 0, &indirect, 1);
        ring_kick(h, 0);
        assert_true(ring_await(&f->h, 0, &head, &used));
        assert_int_equal(guest_get8(h, STATUS), extra == 0 ? OK : IO_ERROR);
        assert_int_equal(used, extra == 0 ? (32 << 20) + 1 : 1);
    }
}

/* The second request waits for what the first one took, and then comes by itself. */
static void a_rate_limit_holds_the_queue(void **state)
{
    const uint32_t size = 64 << 10;
    const struct ring_buffer buffers[3] = { { HEADER, 16, 0 },
                                            { DATA, size, RING_WRITE },
                                            { STATUS, 1, RING_WRITE } };
    struct fixture *f = *state;
    int64_t begin_ms = loop_now_ms();
    uint32_t head, used;

    f->spec.rate_limit.bytes_per_second = size;
    add_disk(f);
    driver_start(&f->h, BLOCK_FEATURES, 16);
    put_header(f, IN, 0);
    for (unsigned i = 0; i < 3; i++)
        ring_offer(&f->h, 0, buffers, 3);
    ring_kick(&f->h, 0);
    assert_true(ring_await(&f->h, 0, &head, &used));
    assert_true(ring_await(&f->h, 0, &head, &used));
    assert_true(loop_now_ms() - begin_ms >= 899); /* a second's worth, and a tenth was there */
    status_put(&f->h, 0);                         /* the third waits still, and is forgotten */
    driver_start(&f->h, BLOCK_FEATURES, 16);
    assert_int_equal(request(f, FLUSH, 0, 0, &used), OK);
}

/* A guest that writes a disk format's header into its disk only ever sees bytes. */
static void a_raw_disk_stays_raw(void **state)
{
    struct fixture *f = *state;
    static const char magic[512] = "QFI\xfb\0\0\0\3";
    char back[512];

    driver_start(&f->h, BLOCK_FEATURES, 8);
    guest_put(&f->h, DATA, magic, sizeof(magic));
    assert_int_equal(request(f, OUT, 0, 512, NULL), OK);
    driver_start(&f->h, BLOCK_FEATURES, 8);
    assert_int_equal(device_config_get(&f->h, 0, 8), DISK_SECTORS);
    assert_int_equal(request(f, IN, 0, 512, NULL), OK);
    guest_get(&f->h, DATA, back, sizeof(back));
    assert_memory_equal(back, magic, sizeof(magic));
}

static void without_flush_each_write_is_stable(void **state)
{
    struct fixture *f = *state;

    driver_start(&f->h, 0, 8);
    assert_int_equal(request(f, OUT, 0, 4096, NULL), OK);
    assert_int_equal(f->stats.write_ops, 1);
    assert_int_equal(f->stats.flush_ops, 0); /* the driver asked for none */
}

static void a_bad_spec_is_refused(void **state)
{
    struct fixture *f = *state;
    struct virtio_block_spec spec = f->spec;

    spec.size_bytes = 0;
    assert_int_equal(virtio_block_add(f->h.root, &spec, &f->h.err), -EINVAL);
    spec.size_bytes = 1000;
    assert_int_equal(virtio_block_add(f->h.root, &spec, &f->h.err), -EINVAL);
    spec.size_bytes = UINT64_MAX - 511;
    assert_int_equal(virtio_block_add(f->h.root, &spec, &f->h.err), -EINVAL);
}

static void vectors_are_sliced_exactly(void **state)
{
    uint8_t bytes[100];
    struct iovec vectors[3] = { { bytes, 10 }, { bytes + 10, 20 }, { bytes + 30, 70 } };

    (void)state;
    assert_int_equal(io_vector_bytes(vectors, 3), 100);
    assert_int_equal(io_vector_slice(vectors, 3, 15, 20), 2);
    assert_ptr_equal(vectors[0].iov_base, bytes + 15);
    assert_int_equal(vectors[0].iov_len, 15);
    assert_int_equal(vectors[1].iov_len, 5);
    assert_int_equal(io_vector_slice(vectors, 2, 20, 1), 0);
    assert_false(io_vector_read(vectors, 2, 19, bytes, 2));
    assert_false(io_vector_read(vectors, 2, UINT64_MAX, bytes, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(the_configuration_describes_the_disk),
        TEST(what_is_written_is_read_back),
        TEST(any_framing_works),
        TEST(the_id_is_the_serial),
        TEST(discards_and_zeroes_free_space),
        TEST(what_is_outside_the_disk_fails),
        TEST(unknown_requests_are_unsupported),
        cmocka_unit_test_setup_teardown(a_read_only_disk_takes_no_change, set_up_read_only,
                                        tear_down),
        TEST(a_chain_without_header_or_status_needs_reset),
        TEST(errors_leak_no_request),
        TEST(a_failing_disk_is_an_io_error),
        TEST(a_burst_takes_several_turns),
        TEST(requests_are_bounded),
        cmocka_unit_test_setup_teardown(a_rate_limit_holds_the_queue, set_up_bare, tear_down),
        TEST(a_raw_disk_stays_raw),
        TEST(without_flush_each_write_is_stable),
        TEST(a_bad_spec_is_refused),
        TEST(vectors_are_sliced_exactly),
    };

    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    by_ring = true;
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
