/* test_virtio_block_changes.c - a disk that grows, and whose rate limit changes, while it is used.
 */
#include "tests/unit/virtio_harness.h"
#include <sys/mman.h>
#include "base/cleanup.h"
#include "storage/delta_file.h"
#include "vmm/stats_page.h"
#include "vmm/virtio_block.h"

#define DISK_BYTES (1u << 20)
#define SECTORS    (DISK_BYTES / 512)
#define HEADER(n)  (DATA_BASE + (n)*0x2000ull)
#define STATUS(n)  (HEADER(n) + 0x100)
#define DATA(n)    (HEADER(n) + 0x1000)
#define DATA_BYTES 4096u
#define FEATURES   (1ull << 9 | 1ull << 13 | 1ull << 14) /* flush, discard, write zeroes */

enum { IN = 0, OUT = 1, FLUSH = 4, WRITE_ZEROES = 13 };
enum { OK, IO_ERROR, UNSUPPORTED, UNTOUCHED = 0xee };

/* What a disk is made of, each in turn. */
static struct {
    enum disk_engine engine;
    bool is_delta;
} kind;

struct fixture {
    struct harness h;
    struct stats_disk stats;
    struct virtio_block *block;
    struct virtio_block_spec spec;
    int fd, base_fd;
};

static int file_new(const char *name, uint64_t size)
{
    int fd = memfd_create(name, MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    return fd;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    f->base_fd = file_new("base", 4096);
    f->fd = file_new("disk", kind.is_delta ? 0 : DISK_BYTES);
    if (kind.is_delta)
        assert_int_equal(delta_file_init(f->fd, DISK_BYTES, 4096, "uid", &f->h.err), 0);
    harness_open(&f->h);
    f->spec = (struct virtio_block_spec){ .fd = f->fd,
                                          .base_fd = f->base_fd,
                                          .is_delta = kind.is_delta,
                                          .queues = 1,
                                          .size_bytes = DISK_BYTES,
                                          .stats = &f->stats,
                                          .engine = kind.engine,
                                          .ret_block = &f->block };
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    harness_close(&f->h);
    close(f->fd);
    close(f->base_fd);
    free(f);
    return 0;
}

static void add_disk(struct fixture *f)
{
    assert_int_equal(virtio_block_add(f->h.root, &f->spec, f->h.loop, &f->h.err), 0);
    driver_start(&f->h, FEATURES | VIRTIO_FEATURE_RING_RESET, 64);
}

/* Request n, of 4 KiB or none, is in the ring; nobody is told. */
static void offer(struct fixture *f, unsigned n, uint32_t type, uint64_t sector)
{
    const struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header = { type, 0, sector };
    const uint8_t untouched = UNTOUCHED;
    const struct ring_buffer status = { STATUS(n), 1, RING_WRITE };
    struct ring_buffer buffers[3] = { { HEADER(n), 16, 0 },
                                      { DATA(n), DATA_BYTES, type == IN ? RING_WRITE : 0 },
                                      status };

    if (type == FLUSH)
        buffers[1] = status;
    if (type == WRITE_ZEROES)
        buffers[1].length = 16;
    guest_put(&f->h, HEADER(n), &header, sizeof(header));
    guest_put(&f->h, STATUS(n), &untouched, 1);
    ring_offer(&f->h, 0, buffers, type == FLUSH ? 2 : 3);
}

static void fill(struct fixture *f, unsigned n, uint8_t value)
{
    uint8_t bytes[DATA_BYTES];

    memset(bytes, value, sizeof(bytes));
    guest_put(&f->h, DATA(n), bytes, sizeof(bytes));
}

/* So many are answered. */
static void await(struct fixture *f, unsigned count)
{
    int64_t end_ms = loop_now_ms() + 10000;
    uint32_t head, used;

    while (count > 0) {
        assert_true(loop_now_ms() < end_ms);
        if (ring_take(&f->h, 0, &head, &used))
            count--;
        else
            assert_int_equal(loop_turn(f->h.loop, 10, &f->h.err), 0);
    }
}

static int request(struct fixture *f, uint32_t type, uint64_t sector)
{
    offer(f, 0, type, sector);
    ring_kick(&f->h, 0);
    await(f, 1);
    return guest_get8(&f->h, STATUS(0));
}

/* --- size --- */

static const struct vmm_rate_limit none;

static void grow(struct fixture *f, uint64_t size_bytes)
{
    if (kind.is_delta)
        assert_int_equal(delta_file_grow(f->fd, size_bytes, &f->h.err), 0);
    else
        assert_int_equal(ftruncate(f->fd, (off_t)size_bytes), 0);
    virtio_block_change(f->block, size_bytes, &none);
}

static void a_disk_grows_while_it_is_used(void **state)
{
    struct fixture *f = *state;
    uint64_t generation;
    uint8_t back[DATA_BYTES];

    add_disk(f);
    generation = reg_get(&f->h, REG_GENERATION, 1);
    (void)interrupts_take(&f->h);
    fill(f, 0, 0x77);
    assert_int_equal(request(f, OUT, SECTORS), IO_ERROR);
    (void)interrupts_take(&f->h);
    grow(f, 8 * DISK_BYTES);
    assert_int_equal(interrupts_take(&f->h), 1);
    assert_int_equal(reg_get(&f->h, REG_GENERATION, 1), generation + 1);
    assert_int_equal(device_config_get(&f->h, 0, 8), 8 * SECTORS);
    assert_int_equal(request(f, OUT, SECTORS), OK);
    assert_int_equal(request(f, OUT, 8 * SECTORS - 8), OK);
    assert_int_equal(request(f, OUT, 8 * SECTORS - 7), IO_ERROR);
    assert_int_equal(request(f, FLUSH, 0), OK);
    fill(f, 0, 0);
    assert_int_equal(request(f, IN, SECTORS), OK);
    guest_get(&f->h, DATA(0), back, sizeof(back));
    assert_int_equal(back[0], 0x77);
    assert_int_equal(back[DATA_BYTES - 1], 0x77);
    assert_int_equal(request(f, IN, 4 * SECTORS), OK);
    guest_get(&f->h, DATA(0), back, sizeof(back));
    assert_int_equal(back[0], 0);
}

static void it_never_shrinks_and_is_told_once(void **state)
{
    static const uint64_t sizes[] = { 0, 512, DISK_BYTES - 512, DISK_BYTES, UINT64_MAX };
    struct fixture *f = *state;

    add_disk(f);
    (void)interrupts_take(&f->h);
    for (unsigned i = 0; i < ARRAY_LENGTH(sizes); i++) {
        virtio_block_change(f->block, sizes[i], &none);
        assert_int_equal(device_config_get(&f->h, 0, 8), SECTORS);
        assert_int_equal(interrupts_take(&f->h), 0);
    }
    /* Nor does a delta become larger than its bitmap knows. */
    virtio_block_change(f->block, (1ull << 40) + DISK_BYTES, &none);
    assert_int_equal(device_config_get(&f->h, 0, 8) > SECTORS, !kind.is_delta);
}

/* What the file has by now counts at the next start only if it was told. */
static void a_delta_may_have_grown_before_it_is_told(void **state)
{
    struct fixture *f = *state;

    if (kind.is_delta)
        assert_int_equal(delta_file_grow(f->fd, 2 * DISK_BYTES, &f->h.err), 0);
    add_disk(f);
    assert_int_equal(device_config_get(&f->h, 0, 8), SECTORS);
    assert_int_equal(request(f, OUT, SECTORS), IO_ERROR);
}

/* --- rate limits --- */

static void a_rate_limit_is_lifted_and_set(void **state)
{
    const struct vmm_rate_limit slow = { .operations_per_second = 1 };
    struct fixture *f = *state;
    int64_t begin_ms = loop_now_ms();

    f->spec.rate_limit = slow;
    add_disk(f);
    for (unsigned i = 0; i < 8; i++)
        offer(f, i, IN, 0);
    ring_kick(&f->h, 0);
    virtio_block_change(f->block, DISK_BYTES, &slow); /* told again: it waits as before */
    await(f, 1);
    harness_run(&f->h);
    assert_int_equal(guest_get16(&f->h, ring_used(0) + 2), 1);
    virtio_block_change(f->block, DISK_BYTES, &none);
    await(f, 7);
    assert_in_range(loop_now_ms() - begin_ms, 0, 4000); /* of 7000 */
    virtio_block_change(f->block, DISK_BYTES, &slow);
    for (unsigned i = 0; i < 3; i++)
        offer(f, i, IN, 0);
    ring_kick(&f->h, 0);
    await(f, 1);
    harness_run(&f->h);
    assert_int_equal(guest_get16(&f->h, ring_used(0) + 2), 9);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_disk_grows_while_it_is_used),
        TEST(it_never_shrinks_and_is_told_once),
        TEST(a_delta_may_have_grown_before_it_is_told),
        TEST(a_rate_limit_is_lifted_and_set),
    };
    int failed = 0;

    for (int i = 0; i < 4; i++) {
        kind.engine = i % 2 ? DISK_ENGINE_RING : DISK_ENGINE_CALLS;
        kind.is_delta = i / 2;
        failed += cmocka_run_group_tests(tests, NULL, NULL);
    }
    return failed;
}
