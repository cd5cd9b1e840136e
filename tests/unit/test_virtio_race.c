/* test_virtio_race.c - a hostile guest with several vCPUs: while the loop's thread serves the
 * devices, one thread does random register accesses, and another changes rings, descriptors and
 * headers under the device's eyes.  Nothing may crash, hang or be reported by a sanitizer, and an
 * orderly driver gets its answers afterwards.  Under the thread sanitizer only the registers are
 * raced: what the guest does to its own memory is a race by intent. */
#include "tests/unit/virtio_harness.h"
#include <pthread.h>
#include "vmm/stats_page.h"
#include "vmm/virtio_block.h"
#include "vmm/virtio_rng.h"

/* How long: until each kind of request was served so often, and the registers' thread made so many
 * rounds.  What hangs, tests/run-unit ends. */
#define RACE_SERVED 25
#define RACE_ROUNDS 500
#define DISK_BYTES  (1u << 20)
#define SEED        0x9e3779b97f4a7c15ull
#ifdef __SANITIZE_THREAD__
#define RACE_REGISTERS_ONLY true
#else
#define RACE_REGISTERS_ONLY false
#endif

struct fixture {
    struct harness h;
    struct stats_disk stats;
    uint64_t rng_bytes;
    int fd;
    unsigned rounds; /* of the registers' thread */
    bool stop;
};

static uint64_t next_random(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

static bool is_stopped(struct fixture *f)
{
    return __atomic_load_n(&f->stop, __ATOMIC_RELAXED);
}

/* Mostly orderly starts of the block device, so that requests are really served. */
static void *registers_thread(void *context)
{
    struct fixture *f = context;
    struct harness h = f->h; /* buses are shared, the driver's own indices are not */
    uint64_t random = SEED;

    for (unsigned turn = 0; !is_stopped(f); turn++) {
        h.slot = 1 + turn % 2;
        driver_attach(&h);
        if (driver_negotiate(&h, VIRTIO_FEATURE_VERSION_1 | VIRTIO_FEATURE_INDIRECT |
                                     (turn & 2 ? VIRTIO_FEATURE_EVENT_INDEX : 0))) {
            reg_put(&h, REG_CONFIG_VECTOR, 2, 0);
            reg_put(&h, REG_QUEUE_SELECT, 2, 0);
            reg_put(&h, REG_QUEUE_SIZE, 2, 16);
            reg_put(&h, REG_QUEUE_VECTOR, 2, 1);
            reg_put(&h, REG_QUEUE_DESCRIPTORS, 8, RING_BASE(h.slot));
            reg_put(&h, REG_QUEUE_AVAIL, 8, ring_avail(h.slot));
            reg_put(&h, REG_QUEUE_USED, 8, ring_used(h.slot));
            /* A ring begins at 0; else the next index would be more than the ring has, for ever. */
            guest_put16(&h, ring_avail(h.slot) + 2, 0);
            guest_put16(&h, ring_used(h.slot) + 2, 0);
            reg_put(&h, REG_QUEUE_ENABLE, 2, 1);
            status_put(&h, 15);
        }
        for (unsigned i = 0; i < 200; i++) {
            uint64_t value = next_random(&random);
            uint64_t address = bar_address(&h, value & 1) + (value >> 8) % 0x4100;

            if (value >> 57 == 0) /* seldom: one register somewhere gets anything */
                mmio_put(&h, address, 1u << (value >> 4 & 3), next_random(&random));
            else if (value >> 61 == 1)
                (void)mmio_get(&h, address, 1u << (value >> 4 & 3));
            else
                ring_notify(&h, 0);
        }
        __atomic_store_n(&f->rounds, turn + 1, __ATOMIC_RELAXED);
        if (turn % 64 == 0) /* on the other device's, too */
            config_put(&h, 0x10, 4, (uint32_t)(PLATFORM_PCI32_START + (turn % 3) * 0x100000));
    }
    return NULL;
}

/* A block request as it should be: header, data, status. */
static void put_good_request(struct fixture *f, uint64_t value)
{
    const uint32_t is_write = value & 1, header[4] = { is_write, 0, value >> 1 & 0x7ff, 0 };

    guest_put(&f->h, DATA_BASE, header, sizeof(header));
    ring_put_descriptor(&f->h, 1, 0, DATA_BASE, 16, RING_NEXT, 1);
    ring_put_descriptor(&f->h, 1, 1, DATA_BASE + 512, 512,
                        is_write ? RING_NEXT : RING_NEXT | RING_WRITE, 2);
    ring_put_descriptor(&f->h, 1, 2, DATA_BASE + 64, 1, RING_WRITE, 0);
    ring_put_descriptor(&f->h, 2, 0, DATA_BASE + 1024, 64, RING_WRITE, 0);
}

/* Changes requests while they are looked at, and now and then a descriptor or an index to anything.
 */
static void *memory_thread(void *context)
{
    struct fixture *f = context;
    uint64_t random = SEED + 1;

    while (!RACE_REGISTERS_ONLY && !is_stopped(f)) {
        uint64_t value = next_random(&random);
        unsigned queue = 1 + (value & 1);
        uint16_t used = guest_get16(&f->h, ring_used(queue) + 2);

        put_good_request(f, value >> 1);
        if ((value >> 20 & 0xfff) == 0)
            ring_put_descriptor(&f->h, queue, value >> 1 & 3, DATA_BASE + (value >> 32 & 0xffff),
                                value >> 8 & 7 ? 512 : (uint32_t)(value >> 40),
                                (uint16_t)(value >> 12 & 7), (uint16_t)(value >> 16 & 15));
        guest_put16(&f->h, ring_avail(queue) + 4 + 2 * (value >> 56 & 15),
                    (value >> 20 & 0x1fff) == 1 ? 3 : 0);
        guest_put16(&f->h, ring_avail(queue) + 2,
                    (uint16_t)(used + ((value >> 20 & 0x1fff) == 2 ? 99 : (value >> 50 & 3))));
    }
    return NULL;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct virtio_block_spec spec = { .queues = 1, .size_bytes = DISK_BYTES };
    char name[] = "/tmp/test_virtio_race.XXXXXX";

    assert_non_null(f);
    harness_open(&f->h);
    f->fd = mkstemp(name);
    assert_true(f->fd >= 0);
    unlink(name);
    assert_int_equal(ftruncate(f->fd, DISK_BYTES), 0);
    spec.fd = f->fd;
    spec.stats = &f->stats;
    assert_int_equal(virtio_block_add(f->h.root, &spec, &f->h.err), 0);
    assert_int_equal(virtio_rng_add(f->h.root, &f->rng_bytes, &f->h.err), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    harness_close(&f->h);
    close(f->fd);
    free(f);
    return 0;
}

static bool has_raced(struct fixture *f)
{
    return __atomic_load_n(&f->rounds, __ATOMIC_RELAXED) >= RACE_ROUNDS &&
           (RACE_REGISTERS_ONLY ||
            (f->stats.read_ops >= RACE_SERVED && f->stats.write_ops >= RACE_SERVED &&
             f->stats.errors > 0 && f->rng_bytes >= 64 * RACE_SERVED));
}

static void devices_survive_racing_vcpus(void **state)
{
    const struct ring_buffer buffer = { DATA_BASE, 16, RING_WRITE };
    struct fixture *f = *state;
    pthread_t registers, memory;
    uint32_t head, length;

    assert_int_equal(pthread_create(&registers, NULL, registers_thread, f), 0);
    assert_int_equal(pthread_create(&memory, NULL, memory_thread, f), 0);
    while (!has_raced(f))
        assert_int_equal(loop_turn(f->h.loop, 1, &f->h.err), 0);
    __atomic_store_n(&f->stop, true, __ATOMIC_RELAXED);
    pthread_join(registers, NULL);
    pthread_join(memory, NULL);
    print_message("rounds %u reads %llu writes %llu errors %llu random bytes %llu\n", f->rounds,
                  (unsigned long long)f->stats.read_ops, (unsigned long long)f->stats.write_ops,
                  (unsigned long long)f->stats.errors, (unsigned long long)f->rng_bytes);

    f->h.slot = 2;
    driver_start(&f->h, 0, 8);
    ring_offer(&f->h, 0, &buffer, 1);
    ring_kick(&f->h, 0);
    assert_true(ring_take(&f->h, 0, &head, &length));
    assert_int_equal(length, 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(devices_survive_racing_vcpus, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
