/* test_vsock_ends.c - how vsock connections end: by halves, with a slow reader or one that has
 * gone, by a reset of the device. */
#include "tests/unit/vsock_harness.h"

static void halves_are_closed(void **state)
{
    struct vsock_fixture *f = *state;
    int fd;

    vsock_start(f);
    fd = vsock_connect_host(f, GUEST_PORT, HOST_PORT);
    assert_true(vsock_send_data(f, GUEST_PORT, HOST_PORT, "last", 4));
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN,
                         VIRTIO_VSOCK_SHUTDOWN_SEND);
    assert_reads(fd, "last");
    assert_true(is_closed(fd));
    assert_int_equal(write(fd, "still", 5), 5);
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RW, 0);
    close(fd); /* after its last byte was read */
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH);
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH);
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
    assert_int_equal(f->stats.closed, 1);

    fd = vsock_connect_host(f, GUEST_PORT, HOST_PORT);
    assert_int_equal(write(fd, "bye", 3), 3);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RW, 0);
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND);
    assert_true(vsock_send_data(f, GUEST_PORT, HOST_PORT, "answer", 6));
    assert_reads(fd, "answer");
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH);
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
    assert_true(is_closed(fd));
    assert_int_equal(f->stats.closed, 2);
    close(fd);
}

/* Where nothing is read of it any more, its end is seen all the same. */
static void a_host_that_leaves_a_half_is_gone(void **state)
{
    struct vsock_fixture *f = *state;
    int fd;

    vsock_start(f);
    fd = vsock_connect_host(f, GUEST_PORT, HOST_PORT);
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN,
                         VIRTIO_VSOCK_SHUTDOWN_RCV);
    assert_int_equal(send(fd, "more", 4, MSG_NOSIGNAL), -1);
    assert_no_packet(f);
    close(fd);
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH);

    fd = vsock_connect_host(f, GUEST_PORT + 1, HOST_PORT);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    assert_packet(f, GUEST_PORT + 1, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN,
                  VIRTIO_VSOCK_SHUTDOWN_SEND);
    close(fd);
    assert_packet(f, GUEST_PORT + 1, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH);
}

/* Nothing that was acknowledged is lost because its reader is slow. */
static void a_closed_connection_is_drained(void **state)
{
    struct vsock_fixture *f = *state;
    uint32_t sent = 0, taken = 0, got = 0;
    uint8_t bytes[8192];
    ssize_t size;
    int fd;

    vsock_start(f);
    fd = vsock_connect_host(f, GUEST_PORT, HOST_PORT);
    while (sent - taken < VIRTIO_VSOCK_WINDOW) {
        sent += send_window(f, sent, VIRTIO_VSOCK_WINDOW - (sent - taken));
        vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 0);
        taken = taken_told(f, taken);
    }
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH);
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
    int again = vsock_connect_host(f, GUEST_PORT, HOST_PORT); /* the port is free */

    assert_true(vsock_send_data(f, GUEST_PORT, HOST_PORT, "new", 3));
    assert_reads(again, "new");
    while ((size = read(fd, bytes, sizeof(bytes))) > 0) {
        got += (uint32_t)size;
        harness_run(&f->h);
    }
    assert_int_equal(size, 0);
    assert_int_equal(got, sent);
    assert_int_equal(f->stats.closed, 1);
    close(again);
    close(fd);
}

/* The reader has gone: what is sent goes nowhere, and the guest is told. */
static void a_host_that_left_takes_nothing(void **state)
{
    struct vsock_fixture *f = *state;
    int fd;

    vsock_start(f);
    fd = vsock_connect_host(f, GUEST_PORT, HOST_PORT);
    close(fd);
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH);
    for (unsigned i = 0; i < 40; i++) {
        uint8_t bytes[4096] = { 0 };

        assert_true(vsock_send_data(f, GUEST_PORT, HOST_PORT, bytes, sizeof(bytes)));
    }
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
    assert_no_packet(f);
    assert_int_equal(f->stats.closed, 1);
}

/* It reads no more, but may send: by that the guest learns of it, and is not held up. */
static void a_host_that_does_not_listen_can_speak(void **state)
{
    struct vsock_fixture *f = *state;
    uint8_t bytes[4096] = { 0 };
    int fd;

    vsock_start(f);
    fd = vsock_connect_host(f, GUEST_PORT, HOST_PORT);
    assert_int_equal(shutdown(fd, SHUT_RD), 0);
    for (unsigned i = 0; i < 2 * VIRTIO_VSOCK_WINDOW / sizeof(bytes); i++) {
        assert_true(vsock_send_data(f, GUEST_PORT, HOST_PORT, bytes, sizeof(bytes)));
        if (i == 0)
            assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN,
                          VIRTIO_VSOCK_SHUTDOWN_RCV);
    }
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 0);
    assert_int_equal(taken_told(f, 0), 2 * VIRTIO_VSOCK_WINDOW);
    assert_int_equal(send(fd, "still", 5, 0), 5);
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RW, 0);
    close(fd);
}

/* What was kept for it is nobody's then, and keeps no place. */
static void a_host_that_stops_listening_gets_no_more(void **state)
{
    struct vsock_fixture *f = *state;
    struct virtio_vsock_hdr last = { 0 }, header;
    int fd;

    vsock_start(f);
    f->send_bytes = 8192;
    fd = vsock_connect_host(f, GUEST_PORT, HOST_PORT);
    (void)send_window(f, 0, VIRTIO_VSOCK_WINDOW);
    assert_int_equal(shutdown(fd, SHUT_RD), 0);
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN,
                         VIRTIO_VSOCK_SHUTDOWN_SEND);
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH);
    while (vsock_take(f, &header, NULL))
        last = header;
    assert_int_equal(last.op, VIRTIO_VSOCK_OP_RST);
    assert_int_equal(f->stats.closed, 1);
    close(fd);
}

static void a_reset_device_closes_all(void **state)
{
    struct vsock_fixture *f = *state;
    struct virtio_vsock_hdr request;
    int fd, pair[2];

    vsock_start(f);
    fd = vsock_connect_host(f, GUEST_PORT, HOST_PORT);
    vsock_pair(pair);
    vsock_say(f, VMM_MESSAGE_VSOCK_CONNECT, 5, GUEST_PORT, pair[1]);
    assert_true(vsock_take(f, &request, NULL));
    status_put(&f->h, 0);
    assert_false(is_closed(fd)); /* not on the guest's thread */
    harness_run(&f->h);
    assert_true(is_closed(fd));
    assert_int_equal(assert_told(f, VMM_MESSAGE_VSOCK_CONNECTED, -ECONNREFUSED).id, 5);
    close(fd);
    close(pair[0]);
    vsock_start(f);
    fd = vsock_connect_host(f, GUEST_PORT, HOST_PORT);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(halves_are_closed),
        TEST(a_host_that_leaves_a_half_is_gone),
        TEST(a_closed_connection_is_drained),
        BY_AND_BY(a_closed_connection_is_drained),
        TEST(a_host_that_left_takes_nothing),
        TEST(a_host_that_does_not_listen_can_speak),
        TEST(a_host_that_stops_listening_gets_no_more),
        TEST(a_reset_device_closes_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
