/* test_virtio_vsock.c - the vsock device: connections both ways, credit, snapshots.
 * How connections end: test_vsock_ends.c; hostile drivers: test_hostile_vsock.c. */
#include "tests/unit/vsock_harness.h"
#include "base/cleanup.h"
#include "vmm/transfer.h"

#define MUCH (1u << 20)

/* --- connections --- */

static void the_configuration_has_the_cid(void **state)
{
    struct harness *h = &((struct vsock_fixture *)*state)->h;

    driver_attach(h);
    assert_int_equal(config_get(h, 0, 4), 0x10531af4);
    assert_int_equal(device_config_get(h, 0, 8), CID);
    assert_int_equal(reg_get(h, REG_QUEUE_COUNT, 2), 3);
    assert_true(features_offered(h) & 1);
}

static void a_guest_connects(void **state)
{
    struct vsock_fixture *f = *state;
    struct virtio_vsock_hdr header;
    char bytes[BUFFER_BYTES];
    int fd;

    vsock_start(f);
    fd = vsock_connect_host(f, GUEST_PORT, HOST_PORT);
    assert_true(vsock_send_data(f, GUEST_PORT, HOST_PORT, "to the host", 11));
    assert_reads(fd, "to the host");
    assert_int_equal(write(fd, "to the guest", 12), 12);
    assert_true(vsock_take(f, &header, bytes));
    assert_int_equal(header.op, VIRTIO_VSOCK_OP_RW);
    assert_int_equal(header.len, 12);
    assert_int_equal(header.fwd_cnt, 11);
    assert_int_equal(header.buf_alloc, VIRTIO_VSOCK_WINDOW);
    assert_memory_equal(bytes, "to the guest", 12);
    assert_int_equal(f->stats.connections, 1);
    assert_int_equal(f->stats.tx_bytes, 11);
    assert_int_equal(f->stats.rx_bytes, 12);
    /* Two connections do not meet. */
    int other = vsock_connect_host(f, GUEST_PORT + 1, HOST_PORT);

    assert_true(vsock_send_data(f, GUEST_PORT + 1, HOST_PORT, "other", 5));
    assert_reads(other, "other");
    close(other);
    close(fd);
}

static void a_guest_is_refused(void **state)
{
    struct vsock_fixture *f = *state;
    uint32_t id;

    vsock_start(f);
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_REQUEST, 0);
    id = assert_told(f, VMM_MESSAGE_VSOCK_REQUEST, 0).id;
    assert_no_packet(f);
    vsock_say(f, VMM_MESSAGE_VSOCK_ANSWER, id, 0, -1);
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);

    f->control.deaf = true; /* no agent */
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_REQUEST, 0);
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);

    f->control.deaf = false; /* gives up before the answer */
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_REQUEST, 0);
    id = assert_told(f, VMM_MESSAGE_VSOCK_REQUEST, 0).id;
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
    int pair[2];

    vsock_pair(pair);
    vsock_say(f, VMM_MESSAGE_VSOCK_ANSWER, id, 0, pair[1]);
    assert_true(is_closed(pair[0]));
    assert_no_packet(f);
    close(pair[0]);
}

/* Its next connection has the place of the one that it gave up, and not what was for that. */
static void an_answer_that_is_late_is_nobody_elses(void **state)
{
    struct vsock_fixture *f = *state;
    uint32_t late, id;
    int pair[2];

    vsock_start(f);
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_REQUEST, 0);
    late = assert_told(f, VMM_MESSAGE_VSOCK_REQUEST, 0).id;
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
    vsock_send_operation(f, GUEST_PORT, HOST_PORT + 1, VIRTIO_VSOCK_OP_REQUEST, 0);
    id = assert_told(f, VMM_MESSAGE_VSOCK_REQUEST, 0).id;
    assert_int_equal(id % VIRTIO_VSOCK_CONNECTIONS, late % VIRTIO_VSOCK_CONNECTIONS);
    vsock_pair(pair);
    vsock_say(f, VMM_MESSAGE_VSOCK_ANSWER, late, 0, pair[1]);
    assert_true(is_closed(pair[0]));
    close(pair[0]);
    vsock_say(f, VMM_MESSAGE_VSOCK_ANSWER, late, 0, -1);
    assert_no_packet(f);
    vsock_pair(pair);
    vsock_say(f, VMM_MESSAGE_VSOCK_ANSWER, id, 0, pair[1]);
    assert_packet(f, GUEST_PORT, HOST_PORT + 1, VIRTIO_VSOCK_OP_RESPONSE, 0);
    close(pair[0]);
}

static void the_host_connects(void **state)
{
    struct vsock_fixture *f = *state;
    struct virtio_vsock_hdr request;
    int pair[2];

    vsock_start(f);
    vsock_pair(pair);
    assert_int_equal(write(pair[0], "early", 5), 5); /* not before the guest has said yes */
    vsock_say(f, VMM_MESSAGE_VSOCK_CONNECT, 77, GUEST_PORT, pair[1]);
    assert_true(vsock_take(f, &request, NULL));
    assert_int_equal(request.op, VIRTIO_VSOCK_OP_REQUEST);
    assert_int_equal(request.dst_port, GUEST_PORT);
    assert_int_equal(request.buf_alloc, VIRTIO_VSOCK_WINDOW);
    assert_no_packet(f);
    vsock_send_operation(f, GUEST_PORT, request.src_port, VIRTIO_VSOCK_OP_RESPONSE, 0);
    assert_int_equal(assert_told(f, VMM_MESSAGE_VSOCK_CONNECTED, 0).id, 77);
    assert_packet(f, GUEST_PORT, request.src_port, VIRTIO_VSOCK_OP_RW, 0);
    assert_true(vsock_send_data(f, GUEST_PORT, request.src_port, "answer", 6));
    assert_reads(pair[0], "answer");
    assert_int_equal(f->stats.connections, 1);
    close(pair[0]);
}

static void the_host_connects_twice(void **state)
{
    struct vsock_fixture *f = *state;
    struct virtio_vsock_hdr request;
    uint32_t ports[2];
    int pairs[2][2];

    vsock_start(f);
    for (unsigned i = 0; i < 2; i++) {
        vsock_pair(pairs[i]);
        vsock_say(f, VMM_MESSAGE_VSOCK_CONNECT, i, GUEST_PORT, pairs[i][1]);
        assert_true(vsock_take(f, &request, NULL));
        ports[i] = request.src_port;
        vsock_send_operation(f, GUEST_PORT, ports[i], VIRTIO_VSOCK_OP_RESPONSE, 0);
        assert_int_equal(assert_told(f, VMM_MESSAGE_VSOCK_CONNECTED, 0).id, i);
    }
    assert_true(vsock_send_data(f, GUEST_PORT, ports[0], "first", 5));
    assert_true(vsock_send_data(f, GUEST_PORT, ports[1], "second", 6));
    assert_reads(pairs[0][0], "first");
    assert_reads(pairs[1][0], "second");
    close(pairs[0][0]);
    close(pairs[1][0]);
}

static void the_host_is_refused(void **state)
{
    struct vsock_fixture *f = *state;
    struct virtio_vsock_hdr request;
    int pair[2];

    vsock_pair(pair);
    vsock_say(f, VMM_MESSAGE_VSOCK_CONNECT, 1, GUEST_PORT, pair[1]);
    assert_int_equal(assert_told(f, VMM_MESSAGE_VSOCK_CONNECTED, -ENOTCONN).id, 1);
    assert_true(is_closed(pair[0]));
    close(pair[0]);

    vsock_start(f);
    vsock_pair(pair);
    vsock_say(f, VMM_MESSAGE_VSOCK_CONNECT, 2, GUEST_PORT, pair[1]);
    assert_true(vsock_take(f, &request, NULL));
    vsock_send_operation(f, GUEST_PORT, request.src_port, VIRTIO_VSOCK_OP_RST, 0);
    assert_int_equal(assert_told(f, VMM_MESSAGE_VSOCK_CONNECTED, -ECONNREFUSED).id, 2);
    assert_true(is_closed(pair[0]));
    close(pair[0]);

    vsock_pair(pair); /* who asked, gives up */
    vsock_say(f, VMM_MESSAGE_VSOCK_CONNECT, 3, GUEST_PORT, pair[1]);
    assert_true(vsock_take(f, &request, NULL));
    close(pair[0]);
    assert_packet(f, GUEST_PORT, request.src_port, VIRTIO_VSOCK_OP_RST, 0);
    assert_int_equal(assert_told(f, VMM_MESSAGE_VSOCK_CONNECTED, -ECONNREFUSED).id, 3);
    vsock_send_operation(f, GUEST_PORT, request.src_port, VIRTIO_VSOCK_OP_RESPONSE, 0);
    assert_packet(f, GUEST_PORT, request.src_port, VIRTIO_VSOCK_OP_RST, 0);
}

/* An agent that ends takes what it was asked with it; what is open goes on. */
static void an_agent_leaves(void **state)
{
    struct vsock_fixture *f = *state;
    struct virtio_vsock_hdr request;
    int open, pair[2];

    vsock_start(f);
    open = vsock_connect_host(f, GUEST_PORT, HOST_PORT);
    vsock_send_operation(f, GUEST_PORT + 1, HOST_PORT, VIRTIO_VSOCK_OP_REQUEST, 0);
    vsock_pair(pair);
    vsock_say(f, VMM_MESSAGE_VSOCK_CONNECT, 1, GUEST_PORT, pair[1]);
    assert_true(vsock_take(f, &request, NULL));
    vsock_offer(f, 1, BUFFER_BYTES);
    f->told_seen = f->control.told_count;
    virtio_vsock_forget(f->vsock);
    for (unsigned i = 0; i < 2; i++) {
        struct virtio_vsock_hdr header;

        assert_true(vsock_take(f, &header, NULL));
        assert_int_equal(header.op, VIRTIO_VSOCK_OP_RST);
    }
    assert_int_equal(f->control.told_count, f->told_seen);
    assert_true(is_closed(pair[0]));
    assert_true(vsock_send_data(f, GUEST_PORT, HOST_PORT, "goes on", 7));
    assert_reads(open, "goes on");
    close(pair[0]);
    close(open);
}

/* --- credit --- */

static void the_guests_credit_is_kept(void **state)
{
    struct vsock_fixture *f = *state;
    struct virtio_vsock_hdr header =
        vsock_packet(GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
    uint8_t bytes[BUFFER_BYTES], want[BUFFER_BYTES];
    uint32_t got = 0;
    int fd;

    vsock_start(f);
    fd = vsock_connect_host(f, GUEST_PORT, HOST_PORT);
    header.buf_alloc = 5000;
    assert_true(vsock_send(f, &header, NULL, 0));
    for (size_t i = 0; i < 12000; i += 1000) {
        vsock_fill(bytes, 1000, i);
        assert_int_equal(write(fd, bytes, 1000), 1000);
    }
    for (unsigned round = 1; got < 12000; round++) {
        struct virtio_vsock_hdr data;

        while (vsock_take(f, &data, bytes)) {
            vsock_fill(want, data.len, got);
            assert_memory_equal(bytes, want, data.len);
            got += data.len;
            vsock_offer(f, 1, BUFFER_BYTES);
        }
        assert_int_equal(got, round * 5000 < 12000 ? round * 5000 : 12000);
        header.fwd_cnt = got;
        assert_true(vsock_send(f, &header, NULL, 0));
    }
    /* Numbers without sense stop the data, or do not; nothing else. */
    header.fwd_cnt = got + 1;
    header.buf_alloc = UINT32_MAX;
    assert_true(vsock_send(f, &header, NULL, 0));
    assert_int_equal(write(fd, bytes, 100), 100);
    assert_no_packet(f);
    header.fwd_cnt = got;
    assert_true(vsock_send(f, &header, NULL, 0));
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RW, 0);
    close(fd);
}

/* The guest has one buffer at a time: a busy connection does not have it always. */
static void connections_take_turns(void **state)
{
    static const uint8_t bytes[20000] = { 0 };
    struct vsock_fixture *f = *state;
    uint32_t before = 0;
    int fds[3];

    driver_start(&f->h, 0, VSOCK_RING);
    vsock_offer(f, 1, BUFFER_BYTES);
    for (uint32_t i = 0; i < 3; i++)
        fds[i] = vsock_connect_host(f, GUEST_PORT + i, HOST_PORT);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(write(fds[i], bytes, sizeof(bytes)), sizeof(bytes));
    for (unsigned i = 0; i < 6; i++) {
        struct virtio_vsock_hdr header;

        assert_true(vsock_take(f, &header, NULL));
        if (i > 1) /* the first waited when the others had nothing yet */
            assert_int_not_equal(header.dst_port, before);
        before = header.dst_port;
        vsock_offer(f, 1, BUFFER_BYTES);
    }
    for (uint32_t i = 0; i < 3; i++)
        close(fds[i]);
}

static void what_the_socket_does_not_take_is_kept(void **state)
{
    struct vsock_fixture *f = *state;
    uint32_t sent = 0, taken = 0, got = 0;
    uint8_t bytes[8192], want[8192];
    int fd;

    vsock_start(f);
    fd = vsock_connect_host(f, GUEST_PORT, HOST_PORT);
    while (sent - taken < VIRTIO_VSOCK_WINDOW) { /* nobody reads, so the window fills */
        sent += send_window(f, sent, VIRTIO_VSOCK_WINDOW - (sent - taken));
        taken = taken_told(f, taken);
        assert_true(sent < MUCH / 2);
    }
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 0);
    taken = taken_told(f, taken);
    sent += send_window(f, sent, VIRTIO_VSOCK_WINDOW - (sent - taken));
    while (got < sent) { /* and as it is read, the rest follows, and more, whole and in order */
        ssize_t size = read(fd, bytes, sizeof(bytes));

        assert_true(size > 0);
        vsock_fill(want, (size_t)size, got);
        assert_memory_equal(bytes, want, size);
        got += (uint32_t)size;
        taken = taken_told(f, taken);
        if (sent < MUCH)
            sent += send_window(f, sent, VIRTIO_VSOCK_WINDOW - (sent - taken));
    }
    assert_true(sent - taken < VIRTIO_VSOCK_WINDOW / 2);
    assert_int_equal(f->stats.tx_bytes, sent);
    close(fd);
}

static void too_much_is_reset(void **state)
{
    struct vsock_fixture *f = *state;
    uint32_t sent = 0, taken = 0;
    int fd;

    vsock_start(f);
    fd = vsock_connect_host(f, GUEST_PORT, HOST_PORT);
    while (sent - taken < VIRTIO_VSOCK_WINDOW) {
        sent += send_window(f, sent, VIRTIO_VSOCK_WINDOW - (sent - taken));
        vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 0);
        taken = taken_told(f, taken);
    }
    assert_true(vsock_send_data(f, GUEST_PORT, HOST_PORT, "x", 1));
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
    assert_int_equal(f->stats.closed, 1);
    close(fd);
}

/* --- snapshots --- */

static void a_restored_guest_is_told(void **state)
{
    struct vsock_fixture *f = *state;
    struct vsock_fixture *restored = NULL;
    struct transfer out = { .err = &f->h.err }, in;
    const struct ring_buffer buffer = { BUFFER(0), 8, RING_WRITE };
    static uint8_t memory[HARNESS_MEMORY];
    uint32_t head, used, event = 1;
    int fd;

    vsock_start(f);
    ring_offer(&f->h, EVENT, &buffer, 1);
    ring_kick(&f->h, EVENT);
    assert_false(ring_take(&f->h, EVENT, &head, &used));
    fd = vsock_connect_host(f, GUEST_PORT, HOST_PORT);
    pci_root_transfer(f->h.root, &out);
    assert_true(transfer_is_good(&out));
    guest_get(&f->h, 0, memory, sizeof(memory));
    assert_true(vsock_send_data(f, GUEST_PORT, HOST_PORT, "goes on", 7));
    assert_reads(fd, "goes on");
    close(fd);

    vsock_set_up((void **)&restored);
    in = (struct transfer){
        .loading = true, .bytes = out.bytes, .size = out.size, .err = &restored->h.err
    };
    guest_put(&restored->h, 0, memory, sizeof(memory));
    memcpy(restored->h.rings, f->h.rings, sizeof(f->h.rings));
    restored->h.rings[RX].used = guest_get16(&restored->h, ring_used(RX) + 2);
    restored->h.rings[TX] = (struct harness_ring){
        VSOCK_RING,
        guest_get16(&restored->h, ring_avail(TX) + 2),
        guest_get16(&restored->h, ring_used(TX) + 2),
        0,
    };
    pci_root_transfer(restored->h.root, &in);
    assert_true(transfer_is_good(&in));
    harness_run(&restored->h);
    assert_true(ring_take(&restored->h, EVENT, &head, &used));
    assert_int_equal(used, 4);
    guest_get(&restored->h, BUFFER(0), &event, sizeof(event));
    assert_int_equal(event, 0);
    assert_true(vsock_send_data(restored, GUEST_PORT, HOST_PORT, "lost", 4));
    assert_packet(restored, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
    free(out.bytes);
    vsock_tear_down((void **)&restored);
}

/* Its driver has the only buffer in its hands when the snapshot is taken, and kicks when it gives
 * it back if the device has asked for that (2.7.10). */
static void a_restored_guest_is_told_when_it_has_a_buffer(void **state)
{
    const uint64_t ways[] = { 0, VIRTIO_FEATURE_EVENT_INDEX };
    const struct ring_buffer buffer = { BUFFER(0), 8, RING_WRITE };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(ways); i++) {
        struct vsock_fixture *f = NULL;
        struct transfer transfer = { 0 };
        uint32_t head, used;

        vsock_set_up((void **)&f);
        transfer.err = &f->h.err;
        driver_start(&f->h, ways[i], VSOCK_RING);
        ring_offer(&f->h, EVENT, &buffer, 1);
        for (unsigned times = 0; times < 2; times++) { /* as if restored */
            free(transfer.bytes);
            transfer = (struct transfer){ .err = &f->h.err };
            pci_root_transfer(f->h.root, &transfer);
            transfer.loading = true;
            pci_root_transfer(f->h.root, &transfer);
            assert_true(transfer_is_good(&transfer));
            harness_run(&f->h);
            assert_int_equal(ring_take(&f->h, EVENT, &head, &used), times == 0);
        }
        ring_offer(&f->h, EVENT, &buffer, 1);
        if (ways[i])
            assert_int_equal(guest_get16(&f->h, ring_used(EVENT) + 4 + 8 * VSOCK_RING), 1);
        ring_kick(&f->h, EVENT);
        assert_true(ring_take(&f->h, EVENT, &head, &used));
        free(transfer.bytes);
        vsock_tear_down((void **)&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_configuration_has_the_cid),
        TEST(a_guest_connects),
        TEST(a_guest_is_refused),
        TEST(an_answer_that_is_late_is_nobody_elses),
        TEST(the_host_connects),
        TEST(the_host_connects_twice),
        TEST(the_host_is_refused),
        TEST(an_agent_leaves),
        TEST(the_guests_credit_is_kept),
        TEST(connections_take_turns),
        TEST(what_the_socket_does_not_take_is_kept),
        BY_AND_BY(what_the_socket_does_not_take_is_kept),
        TEST(too_much_is_reset),
        TEST(a_restored_guest_is_told),
        cmocka_unit_test(a_restored_guest_is_told_when_it_has_a_buffer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
