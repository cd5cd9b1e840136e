/* test_seqpacket.c - whole messages and fds over real sockets; sealed memfds. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/seqpacket.h"
#include "tests/unit/open_fds.h"

static void messages_keep_their_bounds(void **state)
{
    char buffer[16];
    int pair[2];

    (void)state;
    assert_int_equal(seqpacket_pair(pair, NULL), 0);
    assert_int_equal(seqpacket_receive(pair[1], buffer, sizeof buffer, NULL, NULL, NULL), -EAGAIN);
    assert_int_equal(seqpacket_send(pair[0], "one", 3, NULL, 0, NULL), 0);
    assert_int_equal(seqpacket_send(pair[0], "three", 5, NULL, 0, NULL), 0);
    assert_int_equal(seqpacket_receive(pair[1], buffer, sizeof buffer, NULL, NULL, NULL), 3);
    assert_memory_equal(buffer, "one", 3);
    assert_int_equal(seqpacket_receive(pair[1], buffer, sizeof buffer, NULL, NULL, NULL), 5);
    close(pair[0]);
    assert_int_equal(seqpacket_receive(pair[1], buffer, sizeof buffer, NULL, NULL, NULL), 0);
    close(pair[1]);
}

static void a_longer_message_than_agreed_is_an_error_and_dropped(void **state)
{
    char buffer[4];
    int pair[2];

    (void)state;
    seqpacket_pair(pair, NULL);
    seqpacket_send(pair[0], "12345", 5, NULL, 0, NULL);
    seqpacket_send(pair[0], "1234", 4, NULL, 0, NULL);
    assert_int_equal(seqpacket_receive(pair[1], buffer, sizeof buffer, NULL, NULL, NULL),
                     -EMSGSIZE);
    assert_int_equal(seqpacket_receive(pair[1], buffer, sizeof buffer, NULL, NULL, NULL), 4);
    close(pair[0]);
    close(pair[1]);
}

static void a_full_socket_is_eagain_and_a_gone_peer_epipe(void **state)
{
    char *large = calloc(1, SEQPACKET_MESSAGE_MAX);
    int pair[2];
    int result = 0;
    int sent = 0;

    (void)state;
    seqpacket_pair(pair, NULL);
    while (result == 0 && sent++ < 10000)
        result = seqpacket_send(pair[0], large, SEQPACKET_MESSAGE_MAX, NULL, 0, NULL);
    assert_int_equal(result, -EAGAIN);
    assert_true(sent > 1);
    close(pair[1]);
    result = seqpacket_send(pair[0], large, 10, NULL, 0, NULL); /* and no SIGPIPE */
    assert_true(result == -EPIPE || result == -ECONNRESET);
    close(pair[0]);
    free(large);
}

static void fds_arrive_close_on_exec(void **state)
{
    int fds[SEQPACKET_FDS_MAX];
    int received[SEQPACKET_FDS_MAX];
    size_t count = SEQPACKET_FDS_MAX;
    struct stat sent_stat, got_stat;
    char byte;
    int pair[2];
    unsigned before;

    (void)state;
    seqpacket_pair(pair, NULL);
    for (int i = 0; i < SEQPACKET_FDS_MAX; i++)
        fds[i] = memfd_create("test", 0);
    before = open_fds();
    assert_int_equal(seqpacket_send(pair[0], "x", 1, fds, SEQPACKET_FDS_MAX, NULL), 0);
    assert_int_equal(seqpacket_receive(pair[1], &byte, 1, received, &count, NULL), 1);
    assert_int_equal(count, SEQPACKET_FDS_MAX);
    for (int i = 0; i < SEQPACKET_FDS_MAX; i++) {
        fstat(fds[i], &sent_stat);
        fstat(received[i], &got_stat);
        assert_int_equal(sent_stat.st_ino, got_stat.st_ino);
        assert_int_equal(fcntl(received[i], F_GETFD), FD_CLOEXEC);
        close(received[i]);
    }
    assert_int_equal(open_fds(), before);
    assert_int_equal(seqpacket_send(pair[0], "x", 1, fds, SEQPACKET_FDS_MAX + 1, NULL), -EMSGSIZE);
    for (int i = 0; i < SEQPACKET_FDS_MAX; i++)
        close(fds[i]);
    close(pair[0]);
    close(pair[1]);
}

static void unwanted_fds_are_closed(void **state)
{
    int fds[5];
    int received[2];
    size_t count = 2;
    char byte;
    int pair[2];
    unsigned before;

    (void)state;
    seqpacket_pair(pair, NULL);
    for (int i = 0; i < 5; i++)
        fds[i] = memfd_create("test", 0);
    before = open_fds();
    seqpacket_send(pair[0], "x", 1, fds, 5, NULL);
    assert_int_equal(seqpacket_receive(pair[1], &byte, 1, received, &count, NULL), -EMSGSIZE);
    assert_int_equal(open_fds(), before);
    seqpacket_send(pair[0], "x", 1, fds, 5, NULL);
    assert_int_equal(seqpacket_receive(pair[1], &byte, 1, NULL, NULL, NULL), 1);
    assert_int_equal(open_fds(), before);
    /* With a message that is too long as well. */
    count = 2;
    seqpacket_send(pair[0], "xy", 2, fds, 2, NULL);
    assert_int_equal(seqpacket_receive(pair[1], &byte, 1, received, &count, NULL), -EMSGSIZE);
    assert_int_equal(open_fds(), before);
    for (int i = 0; i < 5; i++)
        close(fds[i]);
    close(pair[0]);
    close(pair[1]);
}

/* The message is there all the same: it may be an answer that somebody waits for. */
static void fds_without_room_are_an_error_of_their_own(void **state)
{
    int fds[2], received[2], pair[2];
    size_t count = 2;
    struct rlimit limit, none;
    unsigned before;
    char byte = 0;
    ssize_t got;

    (void)state;
    seqpacket_pair(pair, NULL);
    for (int i = 0; i < 2; i++)
        fds[i] = memfd_create("test", 0);
    before = open_fds();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    seqpacket_send(pair[0], "x", 1, fds, 2, NULL);
    none = limit;
    none.rlim_cur = (rlim_t)fds[1] + 2; /* room for one */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    got = seqpacket_receive(pair[1], &byte, 1, received, &count, NULL);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(got, -EMFILE);
    assert_int_equal(byte, 'x');
    assert_int_equal(open_fds(), before);
    for (int i = 0; i < 2; i++) {
        close(fds[i]);
        close(pair[i]);
    }
}

static void a_listener_in_a_deep_directory(void **state)
{
    char path[400] = "/tmp/warren-seqpacket-XXXXXX";
    char byte;
    size_t base;

    (void)state;
    assert_non_null(mkdtemp(path));
    base = strlen(path);
    for (int i = 0; i < 4; i++) {
        strcat(path, "/dddddddddddddddddddddddddddddddddddddddddddddddddd");
        assert_int_equal(mkdir(path, 0700), 0);
    }
    int dir = open(path, O_RDONLY | O_DIRECTORY);
    int listener = seqpacket_listen(dir, "control.sock", NULL);
    int client = seqpacket_connect(dir, "control.sock", NULL);

    assert_true(listener >= 0 && client >= 0);
    int server = accept4(listener, NULL, NULL, 0);

    seqpacket_send(client, "x", 1, NULL, 0, NULL);
    assert_int_equal(seqpacket_receive(server, &byte, 1, NULL, NULL, NULL), 1);
    close(listener);
    /* A leftover socket is no obstacle, and connecting to it is refused. */
    int gone = seqpacket_connect(dir, "control.sock", NULL);

    assert_int_equal(gone, -ECONNREFUSED);
    listener = seqpacket_listen(dir, "control.sock", NULL);
    assert_true(listener >= 0);
    assert_int_equal(seqpacket_connect(dir, "absent.sock", NULL), -ENOENT);
    unlinkat(dir, "control.sock", 0);
    close(listener);
    close(client);
    close(server);
    close(dir);
    while (strlen(path) >= base) {
        rmdir(path);
        *strrchr(path, '/') = '\0';
    }
}

static void a_sealed_memfd_cannot_change(void **state)
{
    struct error err;
    char *bytes = NULL;
    size_t size = 0;
    int fd = sealed_memfd("hello", 5, &err);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "J", 1, 0), -1);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(sealed_memfd_read(fd, 5, &bytes, &size, &err), 0);
    assert_int_equal(size, 5);
    assert_string_equal(bytes, "hello");
    free(bytes);
    bytes = NULL;
    assert_int_equal(sealed_memfd_read(fd, 4, &bytes, &size, &err), -EMSGSIZE);
    assert_null(bytes);
    close(fd);
    fd = sealed_memfd("", 0, &err);
    assert_int_equal(sealed_memfd_read(fd, 0, &bytes, &size, &err), 0);
    assert_string_equal(bytes, "");
    free(bytes);
    close(fd);
}

static void what_is_not_sealed_is_refused(void **state)
{
    char *bytes = NULL;
    size_t size;
    int fd = memfd_create("test", MFD_ALLOW_SEALING);
    int file = open("/dev/null", O_RDONLY);

    (void)state;
    assert_int_equal(sealed_memfd_read(fd, 10, &bytes, &size, NULL), -EPERM);
    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE);
    assert_int_equal(sealed_memfd_read(fd, 10, &bytes, &size, NULL), -EPERM);
    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
    assert_int_equal(sealed_memfd_read(fd, 10, &bytes, &size, NULL), 0);
    free(bytes);
    assert_true(sealed_memfd_read(file, 10, &bytes, &size, NULL) < 0);
    close(file);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_keep_their_bounds),
        cmocka_unit_test(a_longer_message_than_agreed_is_an_error_and_dropped),
        cmocka_unit_test(a_full_socket_is_eagain_and_a_gone_peer_epipe),
        cmocka_unit_test(fds_arrive_close_on_exec),
        cmocka_unit_test(unwanted_fds_are_closed),
        cmocka_unit_test(fds_without_room_are_an_error_of_their_own),
        cmocka_unit_test(a_listener_in_a_deep_directory),
        cmocka_unit_test(a_sealed_memfd_cannot_change),
        cmocka_unit_test(what_is_not_sealed_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
