/* test_device_faults.c - what a guest sees of nic, entropy, balloon and memory where the
 * host's calls fail: an error or nothing, and afterwards a device that works.  Disks:
 * test_block_faults.c. */
#define HARNESS_HOTPLUG (8ull << 20)
#include "tests/unit/fault_harness.h"
#include "tests/unit/virtio_harness.h"
#include "tests/unit/tap_harness.h"
#include <linux/vhost.h>
#include <sys/mman.h>
#include "base/cleanup.h"
#include "vmm/control_protocol.h"
#include "vmm/stats_page.h"
#include "vmm/virtio_balloon.h"
#include "vmm/virtio_mem.h"
#include "vmm/virtio_net.h"
#include "vmm/virtio_net_header.h"
#include "vmm/virtio_rng.h"

#define QUEUE 8
#define RX    0
#define TX    1

/* --- nic --- */

struct nic {
    struct harness h;
    struct stats_nic stats;
    struct tap_harness tap;
    unsigned buffers; /* offered to the device and not come back */
    struct virtio_net *net;
    int fds[2]; /* the tap's; a vhost-net's, 0 = none */
};

#define FRAME(n)  (DATA_BASE + 0x20000ull + (n)*0x4000ull)
#define FRAME_OUT (DATA_BASE + 0x10000ull)
#define ALL_NET   (NET_FEATURE_CSUM | NET_FEATURE_GUEST_CSUM | NET_FEATURE_GUEST_TSO4)

static void nic_offer(struct nic *n)
{
    while (n->buffers < 4) {
        const struct ring_buffer buffer = { FRAME(n->h.rings[RX].next_descriptor), 0x4000,
                                            RING_WRITE };

        ring_offer(&n->h, RX, &buffer, 1);
        n->buffers++;
    }
    ring_kick(&n->h, RX);
}

/* With the host's kernel to serve it: /dev/null, which takes what is pretended to be taken. */
static void nic_open_by(struct nic *n, bool vhost)
{
    struct virtio_net_spec spec = {
        .queues = 1, .stats = &n->stats, .tap_fds = n->fds, .ret_net = &n->net
    };

    *n = (struct nic){ 0 };
    if (!tap_harness_enter())
        skip();
    harness_open(&n->h);
    assert_true(tap_harness_open(&n->tap));
    n->fds[0] = n->tap.tap_fd;
    if (vhost) {
        n->fds[1] = open("/dev/null", O_RDWR | O_CLOEXEC);
        spec.vhost = true;
        fault_pretended = VHOST_VIRTIO;
    }
    assert_int_equal(virtio_net_add(n->h.root, &spec, &n->h.err), 0);
    driver_start(&n->h, ALL_NET, QUEUE);
    nic_offer(n);
}

static void nic_open(struct nic *n)
{
    nic_open_by(n, false);
}

static void nic_close(struct nic *n)
{
    harness_close(&n->h);
    tap_harness_close(&n->tap);
    fault_pretended = 0;
    if (n->fds[1] > 0)
        close(n->fds[1]);
}

/* The chain comes back whatever becomes of the frame; its size as the host sees it, or -1. */
static ssize_t nic_send(struct nic *n, uint32_t size)
{
    static const uint8_t frame[8192] = {
        255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 0x88, 0xb5
    };
    const struct ring_buffer buffer = { FRAME_OUT, VIRTIO_NET_HEADER_BYTES + size, 0 };
    uint32_t head, used;

    guest_put(&n->h, FRAME_OUT + VIRTIO_NET_HEADER_BYTES, frame, size);
    ring_offer(&n->h, TX, &buffer, 1);
    ring_kick(&n->h, TX);
    assert_true(ring_take(&n->h, TX, &head, &used));
    return tap_host_receive(&n->tap);
}

/* What came, or -1; the buffer is offered again. */
static int nic_take(struct nic *n)
{
    uint32_t head, used;

    harness_run(&n->h);
    if (!ring_take(&n->h, RX, &head, &used))
        return -1;
    n->buffers--;
    nic_offer(n);
    return (int)used - VIRTIO_NET_HEADER_BYTES;
}

static void assert_nic_serves(struct nic *n)
{
    assert_int_equal(status_get(&n->h), 15);
    assert_int_equal(nic_send(n, 100), 100);
    assert_int_equal(nic_send(n, 4000), 4000);
    assert_true(tap_host_send(&n->tap, 200));
    assert_int_equal(nic_take(n), 200);
}

static void a_tap_that_fails_costs_frames(void **state)
{
    static const int codes[] = { EIO, EAGAIN, ENOBUFS, ENOMEM, EBADFD, EINVAL };
    struct nic n;

    (void)state;
    nic_open(&n);
    assert_nic_serves(&n);
    for (unsigned i = 0; i < ARRAY_LENGTH(codes); i++) {
        uint64_t dropped = n.stats.tx_dropped;

        for (unsigned times = 1; times <= 3; times += 2) {
            fault_set(WRITE, codes[i], (unsigned long)n.tap.tap_fd, 0, times);
            for (unsigned k = 0; k < times; k++)
                assert_int_equal(nic_send(&n, 60), -1);
            assert_int_equal(fault_end(), times);
            fault_set(WRITEV, codes[i], (unsigned long)n.tap.tap_fd, 0, times);
            for (unsigned k = 0; k < times; k++)
                assert_int_equal(nic_send(&n, 3000), -1);
            assert_int_equal(fault_end(), times);
            fault_set(READ, codes[i], (unsigned long)n.tap.tap_fd, 0, times);
            assert_true(tap_host_send(&n.tap, 300)); /* it stays in the tap, and comes later */
            assert_int_equal(nic_take(&n), 300);
            assert_int_equal(fault_end(), times);
        }
        assert_int_equal(n.stats.tx_dropped, dropped + 8);
        assert_nic_serves(&n);
    }
    nic_close(&n);
}

/* A frame of which a part was taken, either way, is not sent again, and none is made of the rest.
 */
static void half_a_frame_is_none(void **state)
{
    struct nic n;

    (void)state;
    nic_open(&n);
    fault_set(READ, FAULT_SHORT, (unsigned long)n.tap.tap_fd, 0, 1);
    assert_true(tap_host_send(&n.tap, 300));
    assert_int_equal(nic_take(&n), -1);
    assert_int_equal(fault_end(), 1);
    assert_int_equal(n.stats.rx_dropped, 1);
    fault_set(WRITE, FAULT_SHORT, (unsigned long)n.tap.tap_fd, 0, 1);
    assert_int_equal(nic_send(&n, 60), -1);
    assert_int_equal(fault_end(), 1);
    fault_set(WRITEV, FAULT_SHORT, (unsigned long)n.tap.tap_fd, 0, 1);
    assert_int_equal(nic_send(&n, 3000), -1);
    assert_int_equal(fault_end(), 1);
    assert_nic_serves(&n);
    nic_close(&n);
}

/* Tried again each time that the queues are served, and not once it is done. */
static void offloads_are_set_when_they_can_be(void **state)
{
    struct nic n;

    (void)state;
    nic_open(&n);
    status_put(&n.h, 0);
    fault_set(IOCTL, EBUSY, TUNSETOFFLOAD, 0, 6);
    n.buffers = 0;
    driver_start(&n.h, 0, QUEUE); /* other features than those it has */
    nic_offer(&n);
    for (unsigned i = 0; i < 8; i++)
        assert_nic_serves(&n);
    assert_int_equal(fault.seen, 7);
    assert_int_equal(fault_end(), 6);
    nic_close(&n);
}

/* The guest's next buffer brings it back. */
static void a_tap_that_cannot_be_watched_is_later(void **state)
{
    struct nic n;

    (void)state;
    nic_open(&n);
    status_put(&n.h, 0);
    harness_run(&n.h);
    assert_true(tap_host_send(&n.tap, 80));
    harness_run(&n.h); /* not watched any more */
    n.buffers = 0;
    driver_start(&n.h, ALL_NET, QUEUE);
    fault_set(EPOLL_CTL, ENOMEM, EPOLL_CTL_MOD, 0, 3);
    nic_offer(&n);
    assert_int_equal(nic_take(&n), 80);
    assert_true(fault_end() > 0);
    assert_true(tap_host_send(&n.tap, 90));
    ring_kick(&n.h, RX);
    assert_int_equal(nic_take(&n), 90);
    assert_nic_serves(&n);
    nic_close(&n);
}

static struct nic *spoilt;

static void spoil_header(enum fault_call call, unsigned long what)
{
    if ((call == WRITE || call == WRITEV) && what == (unsigned long)spoilt->tap.tap_fd)
        memset(guest_memory_map(spoilt->h.memory, FRAME_OUT, VIRTIO_NET_HEADER_BYTES), 0xff,
               VIRTIO_NET_HEADER_BYTES);
}

/* HOSTILE.md, case 17: what the tap gets is the header that was checked. */
static void a_header_that_changes_later_is_not_sent(void **state)
{
    static const uint8_t zeroes[VIRTIO_NET_HEADER_BYTES];
    struct nic n;

    (void)state;
    nic_open(&n);
    spoilt = &n;
    for (uint32_t size = 60; size <= 3000; size += 2940) { /* copied; in its place */
        fault_before = spoil_header;
        guest_put(&n.h, FRAME_OUT, zeroes, sizeof(zeroes));
        assert_int_equal(nic_send(&n, size), size);
        fault_before = NULL;
        assert_int_equal(guest_get8(&n.h, FRAME_OUT), 0xff);
    }
    guest_put(&n.h, FRAME_OUT, zeroes, sizeof(zeroes));
    assert_nic_serves(&n);
    nic_close(&n);
}

/* Whatever it does not take: the queues are ours. */
static void a_nic_that_vhost_does_not_take_is_served(void **state)
{
    static const unsigned long requests[] = {
        VHOST_SET_OWNER,      VHOST_SET_MEM_TABLE,   VHOST_SET_FEATURES,   VHOST_SET_VRING_NUM,
        VHOST_SET_VRING_BASE, VHOST_SET_VRING_ADDR,  VHOST_SET_VRING_CALL, VHOST_SET_VRING_ERR,
        VHOST_SET_VRING_KICK, VHOST_NET_SET_BACKEND,
    };
    unsigned asked;
    struct nic n;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LENGTH(requests); i++) {
        fault_set(IOCTL, ENOMEM, requests[i], 0, UINT_MAX);
        nic_open_by(&n, true);
        assert_nic_serves(&n);
        assert_int_equal(n.stats.vhost, 0);
        harness_run(&n.h);
        asked = fault_made[IOCTL];
        harness_run(&n.h);
        assert_int_equal(fault_made[IOCTL], asked); /* nor asked again and again */
        assert_true(fault_end() > 0);
        nic_close(&n);
    }
}

/* Where its queues stand nobody knows then: a driver begins anew, and is served. */
static void a_queue_that_vhost_keeps_needs_reset(void **state)
{
    static const unsigned long requests[] = { VHOST_NET_SET_BACKEND, VHOST_GET_VRING_BASE };
    struct nic n;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LENGTH(requests); i++) {
        nic_open_by(&n, true);
        assert_int_equal(n.stats.vhost, 1);
        fault_set(IOCTL, EIO, requests[i], 0, 1);
        virtio_net_finish(n.net);
        assert_int_equal(fault_end(), 1);
        assert_needs_reset(&n.h);
        fault_pretended = 0; /* /dev/null takes nothing */
        n.buffers = 0;
        driver_start(&n.h, ALL_NET, QUEUE);
        nic_offer(&n);
        assert_nic_serves(&n);
        nic_close(&n);
    }
}

/* --- kicks and interrupts --- */

struct rng {
    struct harness h;
    uint64_t bytes;
};

static void rng_open(struct rng *r)
{
    *r = (struct rng){ 0 };
    harness_open(&r->h);
    assert_int_equal(virtio_rng_add(r->h.root, &r->bytes, &r->h.err), 0);
    driver_start(&r->h, 0, QUEUE);
}

/* Bytes got of 100, or -1 if the chain did not come back. */
static int rng_ask(struct rng *r)
{
    const struct ring_buffer buffer = { DATA_BASE, 100, RING_WRITE };
    uint32_t head, used;

    ring_offer(&r->h, 0, &buffer, 1);
    ring_kick(&r->h, 0);
    return ring_take(&r->h, 0, &head, &used) ? (int)used : -1;
}

static void entropy_that_fails_is_less_entropy(void **state)
{
    struct rng r;

    (void)state;
    rng_open(&r);
    fault_set(GETRANDOM, ENOSYS, FAULT_ANY, 0, 2);
    assert_int_equal(rng_ask(&r), 0);
    assert_int_equal(rng_ask(&r), 0);
    assert_int_equal(rng_ask(&r), 100);
    assert_int_equal(fault_end(), 2);
    fault_set(GETRANDOM, FAULT_SHORT, FAULT_ANY, 0, 3);
    assert_int_equal(rng_ask(&r), 100);
    assert_int_equal(fault_end(), 3);
    fault_set(GETRANDOM, EINTR, FAULT_ANY, 0, 3);
    assert_int_equal(rng_ask(&r), 100);
    assert_int_equal(fault_end(), 3);
    assert_int_equal(r.bytes, 300);
    assert_int_equal(status_get(&r.h), 15);
    harness_close(&r.h);
}

/* A kick that is lost is made good by the next. */
static void kicks_are_not_forgotten(void **state)
{
    struct rng r;
    uint32_t head, used;

    (void)state;
    rng_open(&r);
    fault_set(WRITE, EAGAIN, FAULT_ANY, 0, 1);
    assert_int_equal(rng_ask(&r), -1);
    assert_int_equal(fault_end(), 1);
    assert_int_equal(rng_ask(&r), 100);
    assert_true(ring_take(&r.h, 0, &head, &used));
    harness_close(&r.h);
}

static bool is_pending(struct rng *r)
{
    return mmio_get(&r->h, bar_address(&r->h, 1) + PCI_MSIX_PENDING_OFFSET, 8) & 2;
}

/* It is shown as pending, and sent with the next, or when the guest touches its message. */
static void an_interrupt_that_fails_is_pending(void **state)
{
    static const unsigned long requests[] = { KVM_IRQFD, KVM_SET_GSI_ROUTING };
    struct rng r;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LENGTH(requests); i++) {
        rng_open(&r);
        if (r.h.vm_fd < 0)
            skip();
        fault_set(IOCTL, ENOMEM, requests[i], 0, UINT_MAX);
        interrupts_let_go(&r.h);
        assert_true(fault_end() > 0);
        assert_int_equal(rng_ask(&r), 100);
        assert_true(is_pending(&r));
        interrupts_let_go(&r.h);
        assert_false(is_pending(&r));
        fault_set(WRITE, EAGAIN, FAULT_ANY, 1, 1); /* the first is the kick */
        assert_int_equal(rng_ask(&r), 100);
        assert_int_equal(fault_end(), 1);
        assert_true(is_pending(&r));
        assert_int_equal(rng_ask(&r), 100);
        assert_false(is_pending(&r));
        harness_close(&r.h);
    }
}

/* --- memory --- */

#define PAGE  4096u
#define AREA  0x200000ull
#define BLOCK VMM_MEMORY_BLOCK
#define START GUEST_HOLE_END

enum { INFLATE, DEFLATE, STATS, REPORTS };

static void balloon_open(struct harness *h, struct stats_balloon *stats)
{
    static const struct vmm_balloon config = { .target_mib = 2 };
    struct virtio_balloon *balloon;

    harness_open(h);
    assert_int_equal(virtio_balloon_add(h->root, &config, stats, &balloon, &h->err), 0);
    driver_start(h, 1ull << 1 | 1ull << 5, QUEUE);
}

static void give_page(struct harness *h, unsigned queue)
{
    const uint32_t page = AREA / PAGE;
    const struct ring_buffer number = { DATA_BASE, sizeof(page), 0 },
                             report = { AREA, PAGE, RING_WRITE };
    uint32_t head, used;

    guest_put(h, DATA_BASE, &page, sizeof(page));
    ring_offer(h, queue, queue == REPORTS ? &report : &number, 1);
    ring_kick(h, queue);
    assert_true(ring_take(h, queue, &head, &used));
}

/* The guest's chain comes back, its memory is what it was; the next time the host gets it. */
static void what_a_balloon_cannot_discard_stays(void **state)
{
    auto_close int file = memfd_create("kernel", MFD_CLOEXEC);
    struct stats_balloon stats = { 0 };
    struct harness h;

    (void)state;
    assert_int_equal(ftruncate(file, PAGE), 0);
    assert_int_equal(pwrite(file, "file", 4, 0), 4);
    for (unsigned of_file = 0; of_file < 2; of_file++) {
        for (unsigned queue = INFLATE; queue <= REPORTS; queue += REPORTS) {
            balloon_open(&h, &stats);
            if (of_file)
                assert_int_equal(guest_memory_map_file(h.memory, AREA, PAGE, file, 0, &h.err), 0);
            guest_put(&h, AREA + 8, "mine", 4);
            fault_set(of_file ? MMAP : MADVISE, ENOMEM, FAULT_ANY, 0, 1);
            give_page(&h, queue);
            assert_int_equal(fault_end(), 1);
            assert_memory_equal(guest_memory_map(h.memory, AREA + 8, 4), "mine", 4);
            give_page(&h, queue);
            assert_memory_equal(guest_memory_map(h.memory, AREA, 16), (char[16]){ 0 }, 16);
            assert_int_equal(status_get(&h), 15);
            harness_close(&h);
        }
    }
}

/* In whatever order its pages are named: one call, for the host's kernel to free it whole. */
static void a_huge_page_goes_in_one_call(void **state)
{
    enum { PAGES = 512, STEP = 37 }; /* no factor in common */
    struct stats_balloon stats = { 0 };
    struct harness h;
    uint32_t pages[PAGES], head, used;
    const struct ring_buffer numbers = { DATA_BASE, sizeof(pages), 0 };
    unsigned before;

    (void)state;
    balloon_open(&h, &stats);
    for (uint32_t i = 0; i < PAGES; i++)
        pages[i] = AREA / PAGE + i * STEP % PAGES;
    guest_put(&h, DATA_BASE, pages, sizeof(pages));
    guest_put(&h, AREA + 8, "mine", 4);
    before = fault_made[MADVISE];
    ring_offer(&h, INFLATE, &numbers, 1);
    ring_kick(&h, INFLATE);
    assert_true(ring_take(&h, INFLATE, &head, &used));
    assert_int_equal(fault_made[MADVISE], before + 1);
    assert_memory_equal(guest_memory_map(h.memory, AREA, 16), (char[16]){ 0 }, 16);
    harness_close(&h);
}

enum { PLUG, UNPLUG, UNPLUG_ALL, STATE };
enum { ACK, NACK, BUSY, ERROR };
enum { PLUGGED, UNPLUGGED };

static unsigned mem_ask(struct harness *h, uint16_t type, uint16_t count)
{
    const struct {
        uint16_t type, padding[3];
        uint64_t address;
        uint16_t count, padding2[3];
    } request = { .type = type, .address = START, .count = count };
    const struct ring_buffer buffers[] = { { DATA_BASE, sizeof(request), 0 },
                                           { DATA_BASE + 0x1000, 10, RING_WRITE } };
    uint32_t head, used;

    guest_put(h, DATA_BASE, &request, sizeof(request));
    ring_offer(h, 0, buffers, 2);
    ring_kick(h, 0);
    assert_true(ring_take(h, 0, &head, &used));
    return guest_get16(h, DATA_BASE + 0x1000);
}

static unsigned mem_state(struct harness *h, uint16_t count)
{
    assert_int_equal(mem_ask(h, STATE, count), ACK);
    return guest_get16(h, DATA_BASE + 0x1008);
}

/* What is plugged comes as zeroes, or not at all; what is not taken stays plugged. */
static void memory_is_plugged_as_zeroes_or_not(void **state)
{
    static const char zeroes[4] = "", dirt[4] = "dirt";
    struct stats_memory stats = { 0 };
    struct virtio_mem *mem;
    struct harness h;

    (void)state;
    harness_open(&h);
    assert_int_equal(virtio_mem_add(h.root, 2 * BLOCK, &stats, &mem, &h.err), 0);
    driver_start(&h, 0, QUEUE);
    guest_put(&h, START, dirt, 4); /* by a guest that did not plug it first */
    fault_set(MADVISE, ENOMEM, MADV_DONTNEED, 0, 1);
    assert_int_equal(mem_ask(&h, PLUG, 2), BUSY);
    assert_int_equal(mem_state(&h, 2), UNPLUGGED);
    assert_int_equal(stats.plugged_bytes, 0);
    assert_int_equal(mem_ask(&h, PLUG, 2), ACK);
    assert_memory_equal(guest_memory_map(h.memory, START, 4), zeroes, 4);
    for (unsigned how = UNPLUG; how <= UNPLUG_ALL; how++) {
        guest_put(&h, START, dirt, 4);
        fault_set(MADVISE, EAGAIN, MADV_DONTNEED, 0, 1);
        assert_int_equal(mem_ask(&h, (uint16_t)how, 2), BUSY);
        assert_int_equal(mem_state(&h, 2), PLUGGED);
        assert_int_equal(stats.plugged_bytes, 2 * BLOCK);
        assert_int_equal(mem_ask(&h, (uint16_t)how, 2), ACK);
        assert_int_equal(mem_state(&h, 2), UNPLUGGED);
        assert_int_equal(mem_ask(&h, PLUG, 2), ACK);
        assert_memory_equal(guest_memory_map(h.memory, START, 4), zeroes, 4);
    }
    assert_int_equal(status_get(&h), 15);
    harness_close(&h);
}

/* Where memory is a file, its holes may not be had: a tmpfs that is full, an I/O error. */
static void a_file_that_keeps_its_pages_says_so(void **state)
{
    auto_close int file = memfd_create("memory", MFD_CLOEXEC);
    struct guest_memory_spec spec = { .bytes = 2 << 20, .backing = VMM_MEMORY_SHARED, .fd = file };
    struct guest_memory *memory;

    (void)state;
    assert_int_equal(ftruncate(file, 2 << 20), 0);
    assert_int_equal(guest_memory_make(&spec, &memory, NULL), 0);
    assert_true(guest_memory_write(memory, PAGE, "kept", 4));
    fault_set(FALLOCATE, ENOSPC, FAULT_ANY, 0, 1);
    assert_false(guest_memory_discard(memory, PAGE, PAGE));
    assert_int_equal(fault_end(), 1);
    assert_memory_equal(guest_memory_map(memory, PAGE, 4), "kept", 4);
    assert_true(guest_memory_discard(memory, PAGE, PAGE));
    assert_memory_equal(guest_memory_map(memory, PAGE, 4), (char[4]){ 0 }, 4);
    guest_memory_free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tap_that_fails_costs_frames),
        cmocka_unit_test(half_a_frame_is_none),
        cmocka_unit_test(offloads_are_set_when_they_can_be),
        cmocka_unit_test(a_tap_that_cannot_be_watched_is_later),
        cmocka_unit_test(a_header_that_changes_later_is_not_sent),
        cmocka_unit_test(a_nic_that_vhost_does_not_take_is_served),
        cmocka_unit_test(a_queue_that_vhost_keeps_needs_reset),
        cmocka_unit_test(entropy_that_fails_is_less_entropy),
        cmocka_unit_test(kicks_are_not_forgotten),
        cmocka_unit_test(an_interrupt_that_fails_is_pending),
        cmocka_unit_test(what_a_balloon_cannot_discard_stays),
        cmocka_unit_test(a_huge_page_goes_in_one_call),
        cmocka_unit_test(memory_is_plugged_as_zeroes_or_not),
        cmocka_unit_test(a_file_that_keeps_its_pages_says_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
