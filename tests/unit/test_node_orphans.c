/* test_node_orphans.c - real VMMs that no row names: they are ended together, and nobody waits for
 * one of them while others have not been told.  Needs root and warren-vmm beside the tests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "agent/node_internal.h"
#include "agent/node_setup.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/worker.h"
#include "tests/unit/jail_harness.h"

#define ORPHANS 16
#define KNOWN   1 /* the instance that a row names */

static size_t count_of(const struct jail *jail, uint32_t *ret_first)
{
    uint32_t *instances = NULL;
    size_t count = 0;

    assert_int_equal(jail_list(jail, &instances, &count, NULL), 0);
    *ret_first = count > 0 ? instances[0] : 0;
    free(instances);
    return count;
}

/* From its SIGKILL on it stands at the end of its life until we let it go. */
static void die_slowly(const struct jail_process *process)
{
    assert_int_equal(ptrace(PTRACE_SEIZE, process->pid, NULL, PTRACE_O_TRACEEXIT), 0);
}

static void await_told(const struct jail_process *process)
{
    int status = 0;

    assert_int_equal(waitpid(process->pid, &status, __WALL), process->pid);
    assert_true(WIFSTOPPED(status));
    assert_int_equal(status >> 8, SIGTRAP | PTRACE_EVENT_EXIT << 8);
    assert_int_equal(process_await(process->pidfd, 0), -ETIMEDOUT);
}

static void start_vmms(struct fixture *f, struct jail_process *processes)
{
    for (unsigned i = 0; i <= ORPHANS; i++)
        assert_int_equal(jail_start(f->jail, KNOWN + i, &(struct jail_spec){ .hostname = "a" },
                                    &processes[i], &f->err),
                         0);
}

static void vms_that_no_row_names_end_together(void **state)
{
    struct fixture *f = need_jail(state);
    struct vm known = { .head.instance = KNOWN };
    struct resource *rows[] = { &known.head };
    struct log log = { .fd = memfd_create("log", MFD_CLOEXEC), .level = LOG_LEVEL_ERROR };
    struct node node = { .jail = f->jail, .log = &log };
    struct jail_process processes[1 + ORPHANS];
    struct stat status;
    uint32_t first;

    node.tables[RESOURCE_VM].items = rows;
    node.tables[RESOURCE_VM].count = 1;
    assert_int_equal(loop_new(&node.loop, NULL), 0);
    assert_int_equal(worker_new(node.loop, "launch", NULL, &node.launch_worker, NULL), 0);
    start_vmms(f, processes);
    for (unsigned i = 1; i <= ORPHANS; i++)
        die_slowly(&processes[i]);

    assert_int_equal(node_remove_orphans(&node, &f->err), 0);
    for (unsigned i = 1; i <= ORPHANS; i++)
        await_told(&processes[i]);
    assert_int_equal(count_of(f->jail, &first), 1 + ORPHANS);
    for (unsigned i = 1; i <= ORPHANS; i++)
        assert_int_equal(ptrace(PTRACE_DETACH, processes[i].pid, NULL, NULL), 0);
    worker_free(node.launch_worker); /* does the rest */

    assert_int_equal(fstat(log.fd, &status), 0);
    assert_int_equal(status.st_size, 0);
    assert_int_equal(count_of(f->jail, &first), 1);
    assert_int_equal(first, KNOWN);
    assert_int_equal(process_await(processes[0].pidfd, 0), -ETIMEDOUT); /* it goes on */
    for (unsigned i = 0; i <= ORPHANS; i++)
        end(&processes[i]);
    loop_free(node.loop);
    close(log.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(vms_that_no_row_names_end_together, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
