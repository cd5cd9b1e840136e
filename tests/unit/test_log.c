/* test_log.c - a line is one line, and waits for nobody. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>
#include "base/log.h"

static const char *read_text(int fd, char *text, size_t room)
{
    ssize_t size = read(fd, text, room - 1);

    text[size > 0 ? size : 0] = '\0';
    return text;
}

static bool is_blocking(int fd)
{
    return !(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

/* Until nothing more goes in; how many bytes are in it. */
static size_t fill(int fd)
{
    static const char zeroes[1024];
    size_t count = 0;
    ssize_t size;

    while ((size = write(fd, zeroes, sizeof zeroes)) > 0)
        count += (size_t)size;
    assert_int_equal(errno, EAGAIN);
    return count;
}

static void empty(int fd, size_t count)
{
    char bytes[1024];

    while (count > 0) {
        ssize_t size = read(fd, bytes, count < sizeof bytes ? count : sizeof bytes);

        assert_true(size > 0);
        count -= (size_t)size;
    }
}

static void a_line_is_one_line(void **state)
{
    struct log log = { .level = LOG_LEVEL_INFO, .name = "vmm a" };
    char text[2048];
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    log.fd = ends[1];
    errno = EBUSY;
    log_warning(&log, "%s", "one\n<3>two\tthree");
    assert_int_equal(errno, EBUSY);
    assert_string_equal(read_text(ends[0], text, sizeof text), "<4>vmm a: one <3>two three\n");
    log_debug(&log, "above the level");
    log_error(NULL, "nowhere");
    log_info(&log, "%01500d", 1);
    assert_int_equal(strlen(read_text(ends[0], text, sizeof text)), 1023);
    assert_int_equal(text[1022], '\n');
    close(ends[0]);
    close(ends[1]);
}

/* A full log loses lines, counts them, and says so when it is read again: of the two ends, as they
 * are once log_unblock was called with the second. */
static void check_losses(int reader, int writer)
{
    struct log_losses losses = { 0 };
    struct log log = {
        .fd = writer, .level = LOG_LEVEL_INFO, .name = "warrend", .losses = &losses
    };
    char text[2048];
    size_t full = fill(writer);

    log_info(&log, "one");
    log_info(&log, "two");
    assert_int_equal(losses.total, 2);
    empty(reader, full);
    log_info(&log, "three");
    assert_string_equal(read_text(reader, text, sizeof text),
                        "<4>warrend: lines lost before this, as nobody read the log: 2\n"
                        "<6>warrend: three\n");
    log_info(&log, "four");
    assert_string_equal(read_text(reader, text, sizeof text), "<6>warrend: four\n");
    assert_int_equal(losses.total, 2);
    close(reader);
    close(writer);
}

static void a_full_pipe_waits_for_nobody(void **state)
{
    int ends[2], ours;

    (void)state;
    assert_int_equal(pipe(ends), 0);
    ours = dup(ends[1]);
    log_unblock(ours);
    assert_false(is_blocking(ours));
    assert_true(is_blocking(ends[1])); /* others may want to wait */
    close(ends[1]);
    check_losses(ends[0], ours);
}

static void a_full_socket_waits_for_nobody(void **state)
{
    int ends[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    log_unblock(ends[1]);
    assert_false(is_blocking(ends[1]));
    check_losses(ends[0], ends[1]);
}

static void a_terminal_stays_as_others_have_it(void **state)
{
    int master, terminal, ours;

    (void)state;
    if (openpty(&master, &terminal, NULL, NULL, NULL) < 0)
        skip(); /* no /dev/pts is here */
    ours = dup(terminal);
    log_unblock(ours);
    assert_false(is_blocking(ours));
    assert_true(isatty(ours));
    assert_true(is_blocking(terminal));
    close(ours);
    close(terminal);
    close(master);
}

/* A terminal takes the part of a line that it has room for. */
static void a_part_of_a_line_is_not_a_line(void **state)
{
    struct log_losses losses = { 0 };
    struct log log = { .level = LOG_LEVEL_INFO, .name = "a", .losses = &losses };
    unsigned long written = 0, read_whole = 0;
    struct termios raw;
    int master, terminal;
    char bytes[4096];
    ssize_t size;

    (void)state;
    if (openpty(&master, &terminal, NULL, NULL, NULL) < 0)
        skip(); /* no /dev/pts is here */
    assert_int_equal(tcgetattr(terminal, &raw), 0);
    cfmakeraw(&raw);
    assert_int_equal(tcsetattr(terminal, TCSANOW, &raw), 0);
    log_unblock(terminal);
    log.fd = terminal;
    for (; losses.total == 0 && written < 10000; written++)
        log_info(&log, "%0900d", 0);
    assert_int_equal(losses.total, 1);
    assert_int_equal(fcntl(master, F_SETFL, O_NONBLOCK), 0);
    while ((size = read(master, bytes, sizeof bytes)) > 0)
        for (ssize_t i = 0; i < size; i++)
            read_whole += bytes[i] == '\n';
    assert_int_equal(read_whole, written - 1);
    close(terminal);
    close(master);
}

/* To open it anew would begin at its start. */
static void a_file_is_appended_to(void **state)
{
    char path[] = "/tmp/warren-test-log-XXXXXX", text[64];
    int fd = mkstemp(path);
    struct log log = { .fd = fd, .level = LOG_LEVEL_INFO, .name = "a" };

    (void)state;
    assert_true(fd >= 0);
    unlink(path);
    log_info(&log, "one");
    log_unblock(fd);
    log_info(&log, "two");
    assert_int_equal(pread(fd, text, sizeof text, 0), 20);
    assert_memory_equal(text, "<6>a: one\n<6>a: two\n", 20);
    close(fd);
    log_unblock(fd); /* nothing there: nothing happens */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_one_line),
        cmocka_unit_test(a_full_pipe_waits_for_nobody),
        cmocka_unit_test(a_full_socket_waits_for_nobody),
        cmocka_unit_test(a_terminal_stays_as_others_have_it),
        cmocka_unit_test(a_part_of_a_line_is_not_a_line),
        cmocka_unit_test(a_file_is_appended_to),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
