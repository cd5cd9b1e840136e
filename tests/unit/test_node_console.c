/* test_node_console.c - followers of a console ring that a fast and lying writer fills, and input
 * to a VMM that answers by hand.  The VM and its page are the test's. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "agent/jail.h"
#include "agent/node_console.h"
#include "agent/node_internal.h"
#include "agent/vmm_client.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/seqpacket.h"

#define RECEIVED_MAX (4 << 20)
#define TURNS        500

struct fixture {
    struct node node;
    struct vm vm, other;
    struct stats_page page;
    int vmm; /* the VMM's end of its control connection; -1 */
    int answers, last_result;
    char *received;
    size_t received_size;
};

/* --- what node.c and jail.c do --- */

static int page_file = -1; /* -1 = the VM was never started */
static struct vm *known[2];

struct vm *node_find_vm(const struct node *node, const char *id)
{
    (void)node;
    for (size_t i = 0; i < ARRAY_LENGTH(known); i++)
        if (known[i] && strcmp(known[i]->head.id, id) == 0)
            return known[i];
    return NULL;
}

int jail_open_page(const struct jail *jail, uint32_t instance)
{
    (void)jail;
    (void)instance;
    return page_file < 0 ? -ENOENT : dup(page_file);
}

int jail_read_console(const struct jail *jail, uint32_t instance, size_t tail, char **ret_bytes,
                      size_t *ret_size, struct error *err)
{
    (void)jail, (void)instance, (void)tail, (void)ret_bytes, (void)ret_size;
    return error_set(err, ENOSYS, "not asked for here");
}

/* --- the guest --- */

static void write_page(const struct fixture *f)
{
    const struct stats_page page = f->page;

    assert_int_equal(pwrite(page_file, &page, sizeof page, 0), sizeof page);
}

/* As jail_start and the VMM do: empty, then with its magic and start. */
static void guest_starts(struct fixture *f)
{
    if (page_file < 0)
        page_file = memfd_create("page", MFD_CLOEXEC);
    assert_int_equal(ftruncate(page_file, 0), 0);
    assert_int_equal(ftruncate(page_file, VMM_PAGE_BYTES), 0);
    f->page = (struct stats_page){ .magic = STATS_PAGE_MAGIC, .start_ns = f->page.start_ns + 1000 };
    write_page(f);
}

static void guest_prints(struct fixture *f, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        assert_int_equal(
            pwrite(page_file, &bytes[i], 1,
                   (off_t)(CONSOLE_OFFSET + (f->page.console_bytes + i) % CONSOLE_RING_BYTES)),
            1);
    f->page.console_bytes += size;
    write_page(f);
}

static char letter(uint64_t position)
{
    return (char)('a' + position % 23);
}

static void guest_floods(struct fixture *f, size_t size)
{
    for (size_t done = 0; done < size; done++) {
        char c = letter(f->page.console_bytes);

        guest_prints(f, &c, 1);
    }
}

/* --- the fixture --- */

static struct vm vm_named(const char *id, uint32_t instance)
{
    struct vm vm = { .state = VM_RUNNING, .pidfd = -1, .head = { .instance = instance } };

    snprintf(vm.head.id, sizeof vm.head.id, "%s", id);
    snprintf(vm.head.uid, sizeof vm.head.uid, "uid-%s", id);
    return vm;
}

static void on_input(void *context, bool taken)
{
    vm_console_answered(context, taken);
}

static void on_closed(void *context, bool forbidden)
{
    struct vm *vm = context;

    (void)forbidden;
    vm->client = vmm_client_free(vm->client);
    vm_console_forget(vm);
}

static const struct vmm_client_ops ops = { .input = on_input, .closed = on_closed };

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    int pair[2];

    assert_int_equal(loop_new(&f->node.loop, NULL), 0);
    f->vm = vm_named("a", 7);
    f->other = vm_named("b", 8);
    known[0] = &f->vm;
    known[1] = &f->other;
    f->received = malloc(RECEIVED_MAX + 1);
    assert_int_equal(seqpacket_pair(pair, NULL), 0);
    f->vmm = pair[1];
    assert_int_equal(vmm_client_new(f->node.loop, NULL, pair[0], &ops, &f->vm, &f->vm.client, NULL),
                     0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    node_console_end(&f->node);
    assert_int_equal(node_console_followers(&f->node), 0);
    f->vm.client = vmm_client_free(f->vm.client);
    vm_console_forget(&f->vm);
    cleanup_close(&f->vmm);
    cleanup_close(&page_file);
    loop_free(f->node.loop);
    free(f->received);
    free(f);
    return 0;
}

static void turn(struct fixture *f)
{
    assert_int_equal(loop_turn(f->node.loop, 50, NULL), 0);
}

/* As after a tick of the followers' timer. */
static void tick(struct fixture *f)
{
    int64_t end = loop_now_ms() + 25;

    while (loop_now_ms() < end)
        assert_int_equal(loop_turn(f->node.loop, 5, NULL), 0);
    assert_int_equal(loop_turn(f->node.loop, 0, NULL), 0); /* which is due by now */
}

static int follow(struct fixture *f, size_t tail)
{
    int fd = -1;

    assert_int_equal(node_console_follow(&f->node, "a", tail, &fd, NULL), 0);
    f->received_size = 0;
    return fd;
}

/* What is there now; true at the stream's end. */
static bool receive(struct fixture *f, int fd)
{
    for (;;) {
        ssize_t n =
            recv(fd, f->received + f->received_size, RECEIVED_MAX - f->received_size, MSG_DONTWAIT);

        if (n == 0)
            return true;
        if (n < 0)
            return false;
        f->received_size += (size_t)n;
        f->received[f->received_size] = '\0';
    }
}

static void receive_until(struct fixture *f, int fd, const char *text)
{
    for (int i = 0; i < TURNS; i++) {
        assert_false(receive(f, fd));
        if (f->received_size >= strlen(text) && strstr(f->received, text))
            return;
        turn(f);
    }
    fail_msg("only this came: %.200s", f->received);
}

/* --- following --- */

static void first_the_tail_then_what_comes(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = -1;

    guest_starts(f);
    guest_prints(f, "0123456789", 10);
    fd = follow(f, 4);
    receive_until(f, fd, "6789");
    guest_prints(f, "more", 4);
    receive_until(f, fd, "6789more");
    assert_int_equal(f->received_size, 8);
}

static void a_vm_that_never_ran_is_followed(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = follow(f, 100);

    tick(f);
    guest_starts(f);
    guest_prints(f, "ready", 5);
    receive_until(f, fd, "ready");
}

/* Every byte that came is the right one, and every other is counted. */
static void who_reads_too_slowly_is_told(void **state)
{
    static const char marker[] = "\n[warren: %zu bytes of the console are lost]\n%n";
    struct fixture *f = *state;
    auto_close int fd = -1;
    size_t position = 0, losses = 0, waiting = 0;

    guest_starts(f);
    fd = follow(f, 0);
    for (int i = 0; i < 20; i++) {
        guest_floods(f, CONSOLE_RING_BYTES / 2);
        tick(f);
        if (i == 8)
            (void)receive(f, fd);
    }
    receive(f, fd);
    waiting = f->received_size;
    assert_true(waiting < 4 * CONSOLE_RING_BYTES); /* two fillings of a socket */
    for (int i = 0; i < 10; i++) {
        tick(f);
        receive(f, fd);
    }
    for (size_t i = 0; i < f->received_size;) {
        size_t lost;
        int length = 0;

        if (f->received[i] == '\n' && sscanf(f->received + i, marker, &lost, &length) == 1) {
            position += lost;
            i += (size_t)length;
            losses++;
        } else {
            assert_int_equal(f->received[i++], letter(position++));
        }
    }
    assert_int_equal(position, f->page.console_bytes);
    assert_true(losses >= 2);
}

static void it_goes_on_over_starts(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = -1;

    guest_starts(f);
    fd = follow(f, 0);
    for (int i = 0; i < 3; i++) {
        guest_prints(f, "goodbye\n", 8);
        vm_console_catch_up(&f->node, &f->vm);
        guest_starts(f);
        guest_prints(f, "hello again\n", 12);
    }
    receive_until(f, fd, "goodbye\nhello again\ngoodbye\n");
    tick(f);
    receive(f, fd);
    assert_null(strstr(f->received, "lost"));
}

static void a_deleted_vm_ends_it(void **state)
{
    struct fixture *f = *state;
    auto_close int fd = -1;
    bool ended = false;

    guest_starts(f);
    fd = follow(f, 0);
    guest_prints(f, "last words", 10);
    snprintf(f->vm.head.uid, sizeof f->vm.head.uid, "another"); /* it was made again at once */
    for (int i = 0; !ended && i < TURNS; i++) {
        turn(f);
        ended = receive(f, fd);
    }
    assert_true(ended);
    assert_string_equal(f->received, "last words");
    assert_int_equal(node_console_followers(&f->node), 0);
}

static void who_leaves_is_forgotten(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 3; i++) {
        int fd = follow(f, 0);

        if (i > 0)
            guest_starts(f);
        tick(f);
        close(fd);
        if (i == 2) {
            guest_prints(f, "x", 1);
            vm_console_catch_up(&f->node, &f->vm); /* finds it gone before the loop does */
        } else {
            tick(f);
        }
        assert_int_equal(node_console_followers(&f->node), 0);
    }
}

static void there_is_a_most(void **state)
{
    struct fixture *f = *state;
    struct error err = { 0 };
    int fds[64], count = 0, fd;

    while (count < 64 && node_console_follow(&f->node, "a", 0, &fds[count], &err) == 0)
        count++;
    assert_int_equal(count, 32);
    assert_int_equal(err.code, EAGAIN);
    assert_int_equal(node_console_follow(&f->node, "b", 0, &fd, &err), 0);
    close(fd);
    assert_int_equal(node_console_follow(&f->node, "c", 0, &fd, &err), -ENOENT);
    while (count > 0)
        close(fds[--count]);
    tick(f);
    assert_int_equal(node_console_followers(&f->node), 0);
}

/* A VMM may write what it likes into its page, or cut it. */
static void lies_are_survived(void **state)
{
    static const uint64_t figures[] = {
        0, 1, 65535, 65536, UINT64_MAX, UINT64_MAX / 2, 1000000, UINT64_MAX - 70000
    };
    struct fixture *f = *state;
    auto_close int fd = -1;

    srand(1);
    guest_starts(f);
    fd = follow(f, SIZE_MAX);
    for (int i = 0; i < 2000; i++) {
        f->page.console_bytes = figures[rand() % 8];
        f->page.start_ns = (uint64_t)rand() % 2;
        f->page.magic = rand() % 16 ? STATS_PAGE_MAGIC : 1;
        write_page(f);
        if (rand() % 16 == 0)
            assert_int_equal(ftruncate(page_file, rand() % VMM_PAGE_BYTES), 0);
        vm_console_catch_up(&f->node, &f->vm);
        f->received_size = 0;
        assert_false(receive(f, fd));
        assert_true(f->received_size < 4 * CONSOLE_RING_BYTES);
    }
    assert_int_equal(node_console_followers(&f->node), 1);
}

/* --- input --- */

static void on_done(void *context, int result, const struct error *err)
{
    struct fixture *f = context;

    assert_int_equal(result, -err->code);
    f->answers++;
    f->last_result = result;
}

static void type(struct fixture *f, const char *text)
{
    node_console_input(&f->node, "a", text, strlen(text), on_done, f);
}

static void vmm_answers(struct fixture *f, bool taken)
{
    struct vmm_state answer = {
        .header = { VMM_MESSAGE_INPUT_TAKEN, VMM_PROTOCOL_VERSION, sizeof answer, 0 },
        .result = taken ? 0 : -EAGAIN,
    };

    assert_int_equal(seqpacket_send(f->vmm, &answer, sizeof answer, NULL, 0, NULL), 0);
    turn(f);
}

static void input_is_what_the_vmm_says(void **state)
{
    struct fixture *f = *state;
    struct vmm_console_input input;

    type(f, "first");
    type(f, "second");
    assert_int_equal(f->answers, 0);
    assert_int_equal(seqpacket_receive(f->vmm, &input, sizeof input, NULL, NULL, NULL),
                     sizeof input);
    assert_int_equal(input.header.type, VMM_MESSAGE_CONSOLE_INPUT);
    assert_int_equal(input.count, 5);
    assert_memory_equal(input.bytes, "first", 5);
    vmm_answers(f, true);
    assert_int_equal(f->answers, 1);
    assert_int_equal(f->last_result, 0);
    vmm_answers(f, false);
    assert_int_equal(f->answers, 2);
    assert_int_equal(f->last_result, -EAGAIN);
    vmm_answers(f, true); /* to nothing */
    assert_int_equal(f->answers, 2);
    assert_non_null(f->vm.client);
}

static void input_that_cannot_be_is_refused(void **state)
{
    struct fixture *f = *state;

    f->vm.state = VM_STOPPED;
    type(f, "x");
    assert_int_equal(f->last_result, -EBUSY);
    f->vm.state = VM_RUNNING;
    node_console_input(&f->node, "absent", "x", 1, on_done, f);
    assert_int_equal(f->last_result, -ENOENT);
    assert_int_equal(f->answers, 2);
}

/* A VMM that hangs: bounded, and its end answers all. */
static void a_silent_vmm_is_not_waited_for(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 100; i++)
        type(f, "x");
    assert_true(f->answers >= 100 - 16);
    assert_int_equal(f->last_result, -EAGAIN);
    cleanup_close(&f->vmm);
    turn(f);
    assert_int_equal(f->answers, 100);
    type(f, "x");
    assert_int_equal(f->answers, 101);
    assert_int_equal(f->last_result, -EAGAIN);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(first_the_tail_then_what_comes),
        TEST(a_vm_that_never_ran_is_followed),
        TEST(who_reads_too_slowly_is_told),
        TEST(it_goes_on_over_starts),
        TEST(a_deleted_vm_ends_it),
        TEST(who_leaves_is_forgotten),
        TEST(there_is_a_most),
        TEST(lies_are_survived),
        TEST(input_is_what_the_vmm_says),
        TEST(input_that_cannot_be_is_refused),
        TEST(a_silent_vmm_is_not_waited_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
