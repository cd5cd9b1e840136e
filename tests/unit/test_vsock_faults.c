/* test_vsock_faults.c - vsock connections whose sockets fail: the guest or the agent is told,
 * nothing leaks, and the next connection is served. */
#include "tests/unit/fault_harness.h"
#include "tests/unit/vsock_harness.h"
#include "base/cleanup.h"
#include "tests/unit/open_fds.h"

/* The VMM's end of the connection that vsock_connect_host makes next: the newest fd but one. */
static int connect_and_find(struct vsock_fixture *f, uint32_t port, int *ret_device_fd)
{
    int pair[2], host;

    vsock_pair(pair); /* the lowest that are free: those that the connection will have */
    *ret_device_fd = pair[1];
    close(pair[0]);
    close(pair[1]);
    host = vsock_connect_host(f, port, HOST_PORT);
    assert_int_equal(host, pair[0]);
    return host;
}

static void assert_vsock_serves(struct vsock_fixture *f, uint32_t port)
{
    auto_close int host = vsock_connect_host(f, port, HOST_PORT);
    struct virtio_vsock_hdr header;
    char bytes[16] = "";

    assert_true(vsock_send_data(f, port, HOST_PORT, "to the host", 11));
    assert_reads(host, "to the host");
    assert_int_equal(send(host, "to the guest", 12, 0), 12);
    assert_true(vsock_take(f, &header, bytes));
    vsock_offer(f, 1, BUFFER_BYTES);
    assert_string_equal(bytes, "to the guest");
    vsock_send_operation(f, port, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH);
    assert_packet(f, port, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
    assert_true(is_closed(host));
}

static void a_socket_that_cannot_be_watched_is_refused(void **state)
{
    struct vsock_fixture *f = *state;
    int pair[2], before;
    struct vmm_vsock request;

    vsock_start(f);
    before = open_fds();
    vsock_pair(pair);
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_REQUEST, 0);
    request = assert_told(f, VMM_MESSAGE_VSOCK_REQUEST, 0);
    fault_set(EPOLL_CTL, ENOMEM, EPOLL_CTL_ADD, 0, 2);
    vsock_say(f, VMM_MESSAGE_VSOCK_ANSWER, request.id, 0, pair[1]);
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
    assert_true(is_closed(pair[0]));
    close(pair[0]);
    vsock_pair(pair);
    vsock_say(f, VMM_MESSAGE_VSOCK_CONNECT, 9, 7, pair[1]);
    assert_int_equal(assert_told(f, VMM_MESSAGE_VSOCK_CONNECTED, -ECONNREFUSED).id, 9);
    assert_no_packet(f);
    assert_true(is_closed(pair[0]));
    close(pair[0]);
    assert_int_equal(fault_end(), 2);
    assert_int_equal(open_fds(), before);
    assert_vsock_serves(f, GUEST_PORT + 1);
}

/* The guest is told that nothing comes any more. */
static void a_socket_that_cannot_be_read_is_over(void **state)
{
    static const int codes[] = { EIO, ENOMEM, ECONNRESET };
    struct vsock_fixture *f = *state;
    int before, device, host;

    vsock_start(f);
    before = open_fds();
    for (unsigned i = 0; i < ARRAY_LENGTH(codes); i++) {
        uint32_t port = GUEST_PORT + i;

        host = connect_and_find(f, port, &device);
        fault_set(RECVMSG, codes[i], (unsigned long)device, 0, 1);
        assert_int_equal(send(host, "lost", 4, 0), 4);
        assert_packet(f, port, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH);
        assert_int_equal(fault_end(), 1);
        close(host);
        vsock_send_operation(f, port, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
        assert_int_equal(open_fds(), before);
    }
    host = connect_and_find(f, GUEST_PORT + 9, &device);
    fault_set(RECVMSG, EINTR, (unsigned long)device, 0, 3);
    assert_int_equal(send(host, "whole", 5, 0), 5);
    assert_packet(f, GUEST_PORT + 9, HOST_PORT, VIRTIO_VSOCK_OP_RW, 0);
    assert_int_equal(fault_end(), 3);
    close(host);
    assert_packet(f, GUEST_PORT + 9, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH);
    vsock_send_operation(f, GUEST_PORT + 9, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
    assert_vsock_serves(f, GUEST_PORT + 10);
}

static void a_socket_that_cannot_be_written_is_told(void **state)
{
    static const int codes[] = { EIO, EPIPE, ENOBUFS };
    struct vsock_fixture *f = *state;
    int device, host;

    vsock_start(f);
    for (unsigned i = 0; i < ARRAY_LENGTH(codes); i++) {
        uint32_t port = GUEST_PORT + i;

        host = connect_and_find(f, port, &device);
        fault_set(SENDMSG, codes[i], (unsigned long)device, 0, 1);
        assert_true(vsock_send_data(f, port, HOST_PORT, "lost", 4));
        assert_packet(f, port, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_RCV);
        assert_int_equal(fault_end(), 1);
        vsock_send_operation(f, port, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
        assert_true(is_closed(host));
        close(host);
    }
    assert_vsock_serves(f, GUEST_PORT + 9);
}

/* What the socket does not take now is kept, and goes when it can. */
static void what_is_not_taken_goes_later(void **state)
{
    struct vsock_fixture *f = *state;
    int device, host;

    vsock_start(f);
    host = connect_and_find(f, GUEST_PORT, &device);
    fault_set(SENDMSG, EINTR, (unsigned long)device, 0, 3);
    assert_true(vsock_send_data(f, GUEST_PORT, HOST_PORT, "at last", 7));
    assert_int_equal(fault_end(), 3);
    assert_reads(host, "at last");
    fault_set(SENDMSG, FAULT_SHORT, (unsigned long)device, 0, 1);
    assert_true(vsock_send_data(f, GUEST_PORT, HOST_PORT, "one, two", 8));
    assert_reads(host, "one, ");
    assert_int_equal(fault_end(), 1); /* it has become writable anew by that */
    harness_run(&f->h);
    assert_reads(host, "two");
    fault_set(SHUTDOWN, ENOTCONN, SHUT_WR, 0, 1);
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN,
                         VIRTIO_VSOCK_SHUTDOWN_SEND);
    assert_int_equal(fault_end(), 1);
    assert_int_equal(send(host, "and back", 8, 0), 8);
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RW, 0);
    vsock_send_operation(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH);
    assert_packet(f, GUEST_PORT, HOST_PORT, VIRTIO_VSOCK_OP_RST, 0);
    assert_true(is_closed(host));
    close(host);
    assert_vsock_serves(f, GUEST_PORT + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_socket_that_cannot_be_watched_is_refused),
        TEST(a_socket_that_cannot_be_read_is_over),
        TEST(a_socket_that_cannot_be_written_is_told),
        TEST(what_is_not_taken_goes_later),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
