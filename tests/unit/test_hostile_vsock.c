/* test_hostile_vsock.c - what a hostile driver does to the vsock device: packets and chains that
 * are none, answers that it does not take, more connections than there may be. */
#include "tests/unit/vsock_harness.h"

/* Each is answered by a reset, and ends the connection if it is one of its packets. */
static void bad_packets_are_reset(void **state)
{
    struct vsock_fixture *f = *state;
    const struct virtio_vsock_hdr good = vsock_packet(GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RW);
    struct virtio_vsock_hdr bad[10];

    for (unsigned i = 0; i < 10; i++)
        bad[i] = good;
    bad[0].type = 2;
    bad[1].len = 1;
    bad[2].len = UINT32_MAX;
    bad[3].op = 0;
    bad[4].op = 99;
    bad[5].op = VIRTIO_VSOCK_OP_REQUEST; /* again */
    bad[6].op = VIRTIO_VSOCK_OP_RESPONSE;
    bad[7].op = VIRTIO_VSOCK_OP_CREDIT_UPDATE; /* with data */
    bad[7].len = 1;
    bad[8].src_cid = CID + 1;
    bad[9].dst_cid = 1ull << 40;
    vsock_start(f);
    for (unsigned i = 0; i < 10; i++) {
        int fd = vsock_connect_host(f, GUEST_PORT, HOST_PORT);

        assert_true(vsock_send(f, &bad[i], "x", i == 7));
        assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
        assert_int_equal(is_closed(fd), i < 8); /* a stranger ends nobody's */
        vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
        assert_no_packet(f);
        close(fd);
    }
    for (unsigned operation = VIRTIO_VSOCK_OP_RESPONSE; operation <= VIRTIO_VSOCK_OP_CREDIT_REQUEST;
         operation++) {
        vsock_send_operation(f, 1, 2, (uint16_t)operation, 0); /* no such connection */
        if (operation != VIRTIO_VSOCK_OP_RST)
            assert_packet(f, 1, 2, VIRTIO_VSOCK_OP_RST, 0);
    }
    assert_no_packet(f);
    assert_int_equal(f->control.told_count, 10);
}

static void bad_chains_stop_the_device(void **state)
{
    struct vsock_fixture *f = *state;
    static const struct {
        unsigned queue;
        struct ring_buffer buffer;
    } bad[] = {
        { TX, { PACKET, sizeof(struct virtio_vsock_hdr) - 1, 0 } },
        { TX, { PACKET, sizeof(struct virtio_vsock_hdr), RING_WRITE } },
        { TX, { UINT64_MAX - 8, sizeof(struct virtio_vsock_hdr), 0 } },
        { RX, { PACKET, sizeof(struct virtio_vsock_hdr), RING_WRITE } },
        { RX, { PACKET, BUFFER_BYTES, 0 } },
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        driver_start(&f->h, 0, VSOCK_RING);
        ring_offer(&f->h, bad[i].queue, &bad[i].buffer, 1);
        if (bad[i].queue == RX)
            vsock_send_operation(f, 1, 2, VIRTIO_VSOCK_OP_RW, 0); /* needs an answer */
        else
            ring_kick(&f->h, TX);
        assert_needs_reset(&f->h);
        vsock_start(f);
        close(vsock_connect_host(f, GUEST_PORT, HOST_PORT));
    }
}

/* Resets that nobody takes hold the transmit queue, and only that. */
static void answers_that_nobody_takes_are_bounded(void **state)
{
    struct vsock_fixture *f = *state;
    const struct ring_buffer buffer = { PACKET, sizeof(struct virtio_vsock_hdr), 0 };
    const struct virtio_vsock_hdr header = vsock_packet(7, 8, VIRTIO_VSOCK_OP_RW);
    unsigned back = 0, resets = 0;
    struct virtio_vsock_hdr answer;
    uint32_t head, used;

    driver_start(&f->h, 0, VSOCK_RING);
    guest_put(&f->h, PACKET, &header, sizeof(header));
    for (unsigned i = 0; i < 5 * VSOCK_RING; i++) {
        if (i < VSOCK_RING || ring_take(&f->h, TX, &head, &used)) {
            ring_offer(&f->h, TX, &buffer, 1);
            back += i >= VSOCK_RING;
        }
        ring_kick(&f->h, TX);
    }
    assert_int_equal(back, VSOCK_RESETS_HOLD);
    while (resets < back + VSOCK_RING) { /* taken, all are answered */
        vsock_offer(f, 1, BUFFER_BYTES);
        assert_true(vsock_take(f, &answer, NULL));
        assert_int_equal(answer.op, VIRTIO_VSOCK_OP_RST);
        resets++;
    }
    assert_no_packet(f);
    assert_int_equal(status_get(&f->h), 15);
}

static void each_answer_that_waits_is_its_own(void **state)
{
    struct vsock_fixture *f = *state;

    driver_start(&f->h, 0, VSOCK_RING);
    for (uint32_t port = 10; port < 14; port++)
        vsock_send_operation(f, port, port + 100, VIRTIO_VSOCK_OP_RW, 0);
    vsock_offer(f, 1, BUFFER_BYTES);
    for (uint32_t port = 10; port < 14; port++)
        assert_packet(f, port, port + 100, VIRTIO_VSOCK_OP_RST, 0);
    assert_no_packet(f);
}

static void connections_are_bounded(void **state)
{
    struct vsock_fixture *f = *state;
    int fds[VIRTIO_VSOCK_CONNECTIONS], pair[2];
    unsigned asked = 0;

    vsock_start(f);
    for (uint32_t i = 0; i < 100; i++) { /* none of which the agent answers */
        struct virtio_vsock_hdr header = { 0 };

        vsock_send_operation(f, 100 + i, HOST_PORT, VIRTIO_VSOCK_OP_REQUEST, 0);
        if (!vsock_take(f, &header, NULL))
            asked++;
        else
            vsock_offer(f, 1, BUFFER_BYTES);
    }
    assert_int_equal(asked, VIRTIO_VSOCK_ASKED_MAX);
    assert_int_equal(f->control.told_count, VIRTIO_VSOCK_ASKED_MAX);
    virtio_vsock_forget(f->vsock);
    for (unsigned i = 0; i < asked; i++) {
        struct virtio_vsock_hdr header = { 0 };

        assert_true(vsock_take(f, &header, NULL));
        assert_int_equal(header.op, VIRTIO_VSOCK_OP_RST);
        vsock_offer(f, 1, BUFFER_BYTES);
    }
    assert_no_packet(f);
    f->told_seen = f->control.told_count;

    for (uint32_t i = 0; i < VIRTIO_VSOCK_CONNECTIONS; i++)
        fds[i] = vsock_connect_host(f, i, HOST_PORT);
    vsock_send_operation(f, 99, HOST_PORT, VIRTIO_VSOCK_OP_REQUEST, 0);
    assert_packet(f, 99, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
    vsock_pair(pair);
    vsock_say(f, VMM_MESSAGE_VSOCK_CONNECT, 9, 1, pair[1]);
    assert_int_equal(assert_told(f, VMM_MESSAGE_VSOCK_CONNECTED, -EAGAIN).id, 9);
    close(pair[0]);
    for (uint32_t i = 0; i < VIRTIO_VSOCK_CONNECTIONS; i++) {
        vsock_send_operation(f, i, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
        assert_true(is_closed(fds[i]));
        close(fds[i]);
    }
    assert_int_equal(f->stats.closed, VIRTIO_VSOCK_CONNECTIONS);
    close(vsock_connect_host(f, 1, HOST_PORT));
}

/* A guest that has room for less than is under way is sent nothing until there is more. */
static void a_window_that_shrinks_is_kept_to(void **state)
{
    struct vsock_fixture *f = *state;
    struct virtio_vsock_hdr window =
        vsock_packet(GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
    char bytes[BUFFER_BYTES];
    int fd;

    vsock_start(f);
    fd = vsock_connect_host(f, GUEST_PORT, HOST_PORT);
    assert_int_equal(write(fd, "0123456789", 10), 10);
    assert_true(vsock_take(f, &(struct virtio_vsock_hdr){ 0 }, bytes));
    for (uint32_t room = 0; room <= 10; room += 5) {
        window.buf_alloc = room;
        assert_true(vsock_send(f, &window, NULL, 0));
        assert_int_equal(write(fd, "more", 4), 4);
        assert_no_packet(f);
    }
    window.fwd_cnt = 11; /* more than it was ever sent */
    assert_true(vsock_send(f, &window, NULL, 0));
    assert_no_packet(f);
    window.fwd_cnt = 10;
    assert_true(vsock_send(f, &window, NULL, 0));
    assert_true(vsock_take(f, &window, bytes));
    assert_int_equal(window.len, 10);
    assert_memory_equal(bytes, "moremoremo", 10);
    close(fd);
}

/* Case 15: the loop is told of the dead once, however often they die before it looks. */
static void a_flood_of_resets_is_one(void **state)
{
    static struct vsock_table table;

    (void)state;
    assert_false(vsock_table_kill(&table));
    table.connections[3].state = VSOCK_OPEN;
    table.connections[5].state = VSOCK_ASKED;
    assert_true(vsock_table_kill(&table));
    assert_false(vsock_table_kill(&table));
    assert_int_equal(table.connections[3].state, VSOCK_DEAD);
    assert_int_equal(table.connections[5].state, VSOCK_DEAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bad_packets_are_reset),
        TEST(bad_chains_stop_the_device),
        TEST(answers_that_nobody_takes_are_bounded),
        TEST(each_answer_that_waits_is_its_own),
        TEST(connections_are_bounded),
        TEST(a_window_that_shrinks_is_kept_to),
        TEST(a_flood_of_resets_is_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
