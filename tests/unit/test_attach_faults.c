/* test_attach_faults.c - devices that come and go on a host whose calls fail: the place stays free,
 * nothing leaks, and the next one is served. */
#include "tests/unit/fault_harness.h"
#include "tests/unit/devices_harness.h"
#include "tests/unit/block_driver.h"
#include "tests/unit/ring_harness.h"
#include "tests/unit/tap_harness.h"
#include "base/delta_format.h"
#include "base/cleanup.h"
#include "storage/delta_file.h"
#include "tests/unit/open_fds.h"

#define BASE_UID  "01234567-89ab-4cde-8f01-23456789abcd"
#define TRIES_MAX 64

struct fixture {
    struct devices_harness *d;
    struct tap_harness tap;
    int fds[2]; /* of a delta: its base's, its own */
    enum kind { RAW, DELTA, NIC, KINDS } kind;
    int before; /* fds */
};

static void open_files(struct fixture *f)
{
    f->fds[0] = f->fds[1] = -1;
    if (f->kind == NIC) {
        assert_true(tap_harness_open(&f->tap));
        f->fds[0] = f->tap.tap_fd;
        return;
    }
    f->fds[0] = file_new();
    if (f->kind == DELTA) {
        f->fds[1] = memfd_create("delta", MFD_CLOEXEC);
        assert_int_equal(delta_file_init(f->fds[1], DISK_BYTES, DISK_BYTES, BASE_UID, NULL), 0);
        /* Something in its bitmap, so that there is something to be read. */
        assert_int_equal(pwrite(f->fds[1], "\1", 1, DELTA_BITMAP_OFFSET), 1);
    }
}

static int attach_any(struct fixture *f)
{
    const struct vmm_attach nic = {
        .kind = VMM_DEVICE_NIC, .nic = { .mac = { 2, 0, 0, 0, 0, 9 }, .queues = 1, .place = 7 }
    };
    struct vmm_attach disk = a_disk;

    disk.disk.format = f->kind == DELTA ? VMM_DISK_DELTA : VMM_DISK_RAW;
    return devices_attach(&f->d->devices, f->kind == NIC ? &nic : &disk, f->fds, &f->d->h.err);
}

static unsigned slot_of(const struct fixture *f)
{
    return f->kind == NIC ? VMM_SLOT_NICS + 7 : DISK_SLOT;
}

/* The guest writes a sector, or sends a frame. */
static void assert_serves(struct fixture *f)
{
    const struct ring_buffer frame = { DATA_BASE + 0x1000, VIRTIO_NET_HEADER_BYTES + 60, 0 };
    struct harness *h = &f->d->h;
    unsigned queue = f->kind == NIC;
    uint32_t head, length;

    h->slot = slot_of(f);
    driver_start(h, 0, 8);
    interrupts_let_go(h);
    guest_put(h, DATA_BASE + 0x1000, (char[80]){ 0 }, 80);
    if (f->kind == NIC)
        ring_offer(h, queue, &frame, 1);
    else
        block_offer(h, queue, DATA_BASE, OUT, 5, DATA_BASE + 0x1000, 512);
    ring_kick(h, queue);
    assert_true(ring_take(h, queue, &head, &length));
    if (f->kind != NIC)
        assert_int_equal(guest_get8(h, DATA_BASE + BLOCK_STATUS), OK);
    assert_int_equal(status_get(h), 15);
}

/* The driver lets it go; its files are closed by that. */
static void let_go(struct fixture *f)
{
    int gone = f->d->control.gone;
    unsigned place = f->kind == NIC ? 7 : 3;

    assert_int_equal(devices_detach(&f->d->devices,
                                    f->kind == NIC ? VMM_DEVICE_NIC : VMM_DEVICE_DISK, place, true,
                                    NULL),
                     0);
    eject(f->d, 1u << slot_of(f));
    assert_int_equal(f->d->control.gone, gone + 1);
    if (f->kind == NIC)
        close(f->tap.host_fd);
}

static void begin(struct fixture *f, enum kind kind)
{
    *f = (struct fixture){ .d = devices_harness_new(/* with_kvm= */ true), .kind = kind };
    harness_run(&f->d->h);
    f->before = open_fds();
    open_files(f);
}

static void end(struct fixture *f)
{
    assert_int_equal(open_fds(), f->before);
    devices_harness_free(f->d);
}

/* The first call, the second, and so on fails, until the attaching has no more of them. */
static unsigned attach_through(enum kind kind, enum fault_call call, int code, unsigned long what)
{
    unsigned refused = 0;
    struct fixture f;
    int result, with_files;

    begin(&f, kind);
    with_files = open_fds();
    do {
        fault_set(call, code, what, refused, 1);
        result = attach_any(&f);
        /* The last allocation is of the timer that tells the guest again, and is done without. */
        if (fault_end() == 0 || (result == 0 && call == ALLOCATE))
            break;
        refused++;
        harness_run(&f.d->h);
        if (result == 0)
            fail_msg("call %d, kind %d: attached though %u failed", (int)call, (int)kind, refused);
        assert_int_equal(open_fds(), with_files);
        assert_int_equal(f.d->machine.holds, f.d->machine.releases);
        f.d->h.slot = slot_of(&f);
        assert_int_equal(config_get(&f.d->h, 0, 4), 0xffffffff);
        assert_int_equal(port_get(f.d, PLATFORM_PORT_HOTPLUG_FILLED), 0);
    } while (refused < TRIES_MAX);
    assert_int_equal(result, 0);
    assert_serves(&f);
    let_go(&f);
    end(&f);
    return refused;
}

static bool has_taps(void)
{
    static int entered = -1;

    if (entered < 0)
        entered = tap_harness_enter();
    return entered;
}

static void what_fails_leaves_the_place_free(void **state)
{
    static const struct {
        enum fault_call call;
        int code;
        unsigned long what;
        unsigned refused[KINDS]; /* so many calls at the least; 0 = it makes none */
    } cases[] = {
        { EVENTFD, EMFILE, FAULT_ANY, { 3, 3, 5 } }, /* kicks and vectors */
        { EVENTFD, ENOMEM, FAULT_ANY, { 3, 3, 5 } },
        { EPOLL_CTL, ENOMEM, EPOLL_CTL_ADD, { 1, 1, 3 } }, /* kicks, a tap */
        { EPOLL_CTL, ENOSPC, EPOLL_CTL_ADD, { 1, 1, 3 } },
        { IOCTL, EBADFD, TUNGETVNETHDRSZ, { 0, 0, 1 } },
        { FCNTL, EBADF, F_GETFL, { 0, 0, 1 } },
        { FCNTL, EINVAL, F_SETFL, { 0, 0, 1 } },
        { LSEEK, EIO, FAULT_ANY, { 0, 3, 0 } }, /* two sizes, the bitmap's data */
        { PREADV, EIO, FAULT_ANY, { 0, 2, 0 } },
        { PREADV, ENOMEM, FAULT_ANY, { 0, 2, 0 } },
        { MMAP, ENOMEM, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, { 0, 1, 0 } }, /* in memory */
        { ALLOCATE, ENOMEM, FAULT_ANY, { 4, 7, 5 } },
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LENGTH(cases); i++)
        for (enum kind kind = RAW; kind < KINDS; kind++) {
            unsigned refused;

            if (cases[i].refused[kind] == 0 || (kind == NIC && !has_taps()))
                continue;
            refused = attach_through(kind, cases[i].call, cases[i].code, cases[i].what);
            if (refused < cases[i].refused[kind])
                fail_msg("call %d, kind %d: refused %u times", (int)cases[i].call, (int)kind,
                         refused);
        }
}

/* A header of which a part is read is none; the rest of a bitmap is read by the next call. */
static void a_short_header_is_refused(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, DELTA);
    fault_set(PREADV, FAULT_SHORT, (unsigned long)f.fds[1], 0, 1);
    assert_int_equal(attach_any(&f), -EINVAL);
    assert_int_equal(fault_end(), 1);
    fault_set(PREADV, FAULT_SHORT, (unsigned long)f.fds[1], 1, 3);
    assert_int_equal(attach_any(&f), 0);
    assert_int_equal(fault_end(), 3);
    assert_serves(&f);
    let_go(&f);
    end(&f);
}

/* Kicks come as exits then: slower, that is all.  And what KVM does not give back when a device
 * goes is not in its successor's way. */
static void without_ioeventfds_it_serves(void **state)
{
    static const unsigned long requests[] = { KVM_IOEVENTFD, KVM_IRQFD };

    (void)state;
    for (enum kind kind = RAW; kind < KINDS; kind++)
        for (unsigned i = 0; i < ARRAY_LENGTH(requests); i++) {
            struct fixture f;

            if (kind == NIC && !has_taps())
                continue;
            begin(&f, kind);
            fault_set(IOCTL, ENOMEM, requests[i], 0, UINT_MAX);
            assert_int_equal(attach_any(&f), 0);
            assert_serves(&f);
            let_go(&f);
            assert_true(fault_end() > 0 || f.d->h.vm_fd < 0);
            assert_int_equal(open_fds(), f.before);
            open_files(&f);
            assert_int_equal(attach_any(&f), 0);
            assert_serves(&f);
            fault_set(IOCTL, EINVAL, requests[i], 0, UINT_MAX);
            let_go(&f);
            assert_true(fault_end() > 0 || f.d->h.vm_fd < 0);
            open_files(&f);
            assert_int_equal(attach_any(&f), 0);
            assert_serves(&f);
            let_go(&f);
            end(&f);
        }
}

/* Its requests are done by calls then. */
static void a_ring_that_cannot_be_mapped_is_done_without(void **state)
{
    struct uring *ring = ring_new();
    struct fixture f;

    (void)state;
    if (!ring)
        skip(); /* this host has no io_uring for us */
    for (unsigned skipped = 0; skipped < 2; skipped++) {
        begin(&f, RAW);
        f.d->devices.inherited = (struct vmm_rings){ .count = 4, .layout = ring->layout };
        fault_set(MMAP, ENOMEM, MAP_SHARED | MAP_POPULATE, skipped, 2);
        assert_int_equal(attach_any(&f), 0);
        assert_true(fault_end() > 0);
        assert_serves(&f);
        let_go(&f);
        end(&f);
    }
    ring_free(ring);
}

/* The event that tells the guest is lost; the slot says what it is all the same. */
static void a_guest_that_is_not_told_can_look(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, RAW);
    fault_set(WRITE, EAGAIN, (unsigned long)f.d->ged, 0, UINT_MAX);
    assert_int_equal(attach_any(&f), 0);
    assert_int_equal(fault_end(), 1);
    assert_int_equal(port_get(f.d, PLATFORM_PORT_HOTPLUG_FILLED), 1u << DISK_SLOT);
    assert_serves(&f);
    let_go(&f);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_fails_leaves_the_place_free),
        cmocka_unit_test(a_short_header_is_refused),
        cmocka_unit_test(without_ioeventfds_it_serves),
        cmocka_unit_test(a_ring_that_cannot_be_mapped_is_done_without),
        cmocka_unit_test(a_guest_that_is_not_told_can_look),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
