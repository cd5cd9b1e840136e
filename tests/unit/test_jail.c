/* test_jail.c - a real VMM in its jail: what it is given, how it is found again, that nothing is
 * left; and what is read of files that a VMM could write.  Needs root and warren-vmm beside the
 * tests. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "agent/config.h"
#include "agent/jail.h"
#include "agent/jail_files.h"
#include "agent/jail_rings.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "tests/unit/jail_harness.h"
#include "vmm/stats_page.h"

static bool is_there(const struct fixture *f, const char *name)
{
    char path[CONFIG_PATH_MAX + 64];

    snprintf(path, sizeof path, "%s/vms/%s", f->config.run_dir, name);
    return access(path, F_OK) == 0;
}

static void a_vmm_starts_is_found_again_and_leaves_nothing(void **state)
{
    struct fixture *f = need_jail(state);
    struct jail_process process;
    struct process_identity identity;
    struct stat status;
    uint32_t *instances = NULL;
    size_t count = 0;
    char path[64];
    int fd;

    assert_int_equal(
        jail_start(f->jail, 7, &(struct jail_spec){ .hostname = "web-1" }, &process, &f->err), 0);
    assert_true(process.pid > 0 && process.pidfd >= 0 && process.control_fd >= 0);
    assert_int_equal(fstat(process.page_fd, &status), 0);
    assert_int_equal(status.st_size, VMM_PAGE_BYTES);
    assert_true(status.st_blocks * 512 >= VMM_PAGE_BYTES); /* no hole that a full disk could meet */
    assert_int_equal(status.st_uid, 0);
    snprintf(path, sizeof path, "/proc/%d", process.pid);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(jail_identity(f->jail, 7, &identity, NULL), 0);
    assert_int_equal(identity.pid, process.pid);
    fd = process_open(&identity, NULL);
    assert_true(fd >= 0);
    close(fd);
    fd = jail_connect(f->jail, 7, NULL);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(jail_list(f->jail, &instances, &count, NULL), 0);
    assert_int_equal(count, 1);
    assert_int_equal(instances[0], 7);
    free(instances);
    end(&process);

    assert_int_equal(jail_clean_up(f->jail, 7, &f->err), 0);
    assert_false(is_there(f, "7/control.sock"));
    assert_false(is_there(f, "7/process"));
    assert_true(is_there(f, "7/page"));
    assert_int_equal(jail_identity(f->jail, 7, &identity, NULL), -ENOENT);
    assert_true(jail_connect(f->jail, 7, NULL) < 0);
    assert_int_equal(jail_clean_up(f->jail, 7, &f->err), 0); /* again is no error */
    assert_int_equal(jail_remove(f->jail, 7, &f->err), 0);
    assert_false(is_there(f, "7"));
    assert_int_equal(jail_remove(f->jail, 7, &f->err), 0);
}

static ino_t namespace_of(pid_t pid, const char *name)
{
    char path[64];
    struct stat status;

    snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, name);
    assert_int_equal(stat(path, &status), 0);
    return status.st_ino;
}

/* As the launch worker does: prepared or not, each has namespaces that nobody else is in. */
static void *start_three(void *context)
{
    static const char *const names[] = { "net", "ipc", "uts", "pid", "mnt" };
    struct fixture *f = context;
    struct jail_process processes[3];

    for (unsigned i = 0; i < 3; i++) {
        if (i != 1)
            jail_prepare(f->jail);
        assert_int_equal(jail_start(f->jail, 20 + i, &(struct jail_spec){ .hostname = "a" },
                                    &processes[i], &f->err),
                         0);
    }
    jail_prepare(f->jail);
    for (unsigned n = 0; n < sizeof names / sizeof names[0]; n++)
        for (unsigned i = 0; i < 3; i++) {
            ino_t own = namespace_of(processes[i].pid, names[n]);

            assert_int_not_equal(own, namespace_of(getpid(), names[n]));
            assert_int_not_equal(own, namespace_of(gettid(), names[n]));
            assert_int_not_equal(own, namespace_of(processes[(i + 1) % 3].pid, names[n]));
        }
    for (unsigned i = 0; i < 3; i++) {
        end(&processes[i]);
        jail_remove(f->jail, 20 + i, NULL);
    }
    return NULL;
}

static void each_vmm_has_namespaces_of_its_own(void **state)
{
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, start_three, need_jail(state)), 0);
    pthread_join(thread, NULL);
}

/* RLIMIT_CORE of 0 is for files: a core_pattern that is a pipe would get the guest's memory all the
 * same, and may keep it.  The kernel shows what is dumped by whose /proc files are. */
static void no_vmm_dumps_core(void **state)
{
    struct fixture *f = need_jail(state);
    struct jail_process process;
    struct stat status;
    char path[64];

    assert_int_equal(
        jail_start(f->jail, 8, &(struct jail_spec){ .hostname = "a" }, &process, &f->err), 0);
    snprintf(path, sizeof path, "/proc/%d/environ", process.pid);
    assert_int_equal(stat(path, &status), 0);
    for (int tries = 0; status.st_uid != 0 && tries < 1000; tries++) { /* it says so itself */
        usleep(10000);
        assert_int_equal(stat(path, &status), 0);
    }
    assert_int_equal(status.st_uid, 0);
    end(&process);
    jail_remove(f->jail, 8, NULL);
}

static unsigned rings_of(pid_t pid)
{
    char path[64], target[64];
    unsigned count = 0;

    for (int fd = 0; fd < 200; fd++) {
        ssize_t length;

        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
        length = readlink(path, target, sizeof target - 1);
        target[length > 0 ? length : 0] = '\0';
        count += strstr(target, "[io_uring]") != NULL;
    }
    return count;
}

static void a_vmm_inherits_rings_for_its_disks(void **state)
{
    struct fixture *f = need_jail(state);
    struct jail_process process;
    unsigned count = 1;

    for (unsigned places = 0; places <= VMM_DISKS_MAX && count > 0; places += 4) {
        struct jail_spec spec = { .hostname = "a", .disk_places = places };
        unsigned wanted = places + JAIL_RINGS_SPARE;

        wanted = wanted < VMM_DISKS_MAX ? wanted : VMM_DISKS_MAX;
        assert_int_equal(jail_start(f->jail, 10, &spec, &process, &f->err), 0);
        count = process.rings.count;
        if (count > 0) { /* and we hold none of them any more */
            assert_int_equal(count, wanted);
            assert_int_equal(rings_of(process.pid), wanted);
            assert_in_range(rings_of(getpid()), 0, VMM_DISKS_MAX - wanted);
        }
        end(&process);
        jail_remove(f->jail, 10, NULL);
    }
    if (count == 0)
        skip(); /* this host has no io_uring for us */
}

static int start_without_io_uring(struct fixture *f)
{
    static const struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct jail_spec spec = { .hostname = "a", .disk_places = 2 };
    struct jail_process process;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        sandbox_filter(program, ARRAY_LENGTH(program)) < 0)
        return 1;
    jail_prepare(f->jail);
    if (jail_start(f->jail, 12, &spec, &process, &f->err) < 0)
        return 2;
    if (process.rings.count != 0 || rings_of(process.pid) != 0)
        return 3;
    end(&process);
    return 0;
}

static void without_io_uring_it_starts_all_the_same(void **state)
{
    struct fixture *f = need_jail(state);
    int status;
    pid_t pid = fork();

    if (pid == 0)
        _exit(start_without_io_uring(f));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void a_second_start_begins_with_an_empty_page(void **state)
{
    struct fixture *f = need_jail(state);
    struct jail_process process;
    struct stats_page page = { .magic = STATS_PAGE_MAGIC, .exit_reason = 1 };
    struct stats_page read_back;

    assert_int_equal(
        jail_start(f->jail, 8, &(struct jail_spec){ .hostname = "a" }, &process, &f->err), 0);
    assert_int_equal(pwrite(process.page_fd, &page, sizeof page, 0), sizeof page);
    assert_int_equal(jail_read_page(f->jail, 8, &read_back), 0);
    end(&process);
    jail_clean_up(f->jail, 8, NULL);
    assert_int_equal(
        jail_start(f->jail, 8, &(struct jail_spec){ .hostname = "a" }, &process, &f->err), 0);
    assert_true(jail_read_page(f->jail, 8, &read_back) < 0);
    assert_int_equal(read_back.exit_reason, 0);
    end(&process);
}

/* Also where all of its processes are still alive: the cgroup is emptied. */
static void removal_ends_what_is_left_in_the_cgroup(void **state)
{
    struct fixture *f = need_jail(state);
    struct jail_process process;

    if (jail_cgroup_finding(f->jail)[0] == 'n' || strstr(jail_cgroup_finding(f->jail), "cannot"))
        skip();
    assert_int_equal(
        jail_start(f->jail, 9, &(struct jail_spec){ .hostname = "a" }, &process, &f->err), 0);
    assert_int_equal(jail_remove(f->jail, 9, &f->err), 0);
    assert_int_equal(process_await(process.pidfd, 10000), 0);
    end(&process);
}

static uint64_t file_limit(pid_t pid)
{
    char path[64];
    char line[256];
    unsigned long long limit = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/limits", (int)pid);
    file = fopen(path, "re");
    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "Max file size %llu", &limit) == 1)
            break;
    fclose(file);
    return limit;
}

static void what_a_vmm_writes_has_a_bound(void **state)
{
    struct fixture *f = need_jail(state);
    const struct jail_spec spec = { .hostname = "a", .max_file_bytes = 3 << 20 };
    struct jail_process process;
    char path[CONFIG_PATH_MAX + 64];
    static char block[4096];
    struct stat status;
    int pipe_fd;

    assert_int_equal(jail_start(f->jail, 6, &spec, &process, &f->err), 0);
    assert_int_equal(file_limit(process.pid), 3 << 20);
    snprintf(path, sizeof path, "/proc/%d/fd/2", (int)process.pid);
    pipe_fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    assert_true(pipe_fd >= 0);
    memset(block, 'x', sizeof block);
    for (int i = 0; i < 1000 && write(pipe_fd, block, sizeof block) > 0; i++)
        assert_true(i < 512);
    close(pipe_fd);
    close(process.log_fd);
    process.log_fd = jail_open_log(f->jail, 6); /* the next agent's */
    process_kill(process.pidfd, SIGKILL);
    assert_int_equal(process_await(process.pidfd, 10000), 0);
    jail_keep_log(f->jail, 6, process.log_fd);
    snprintf(path, sizeof path, "%s/vms/6/log", f->config.run_dir);
    assert_int_equal(stat(path, &status), 0);
    assert_true(S_ISREG(status.st_mode));
    assert_true(status.st_size > 0 && status.st_size <= JAIL_LOG_BYTES);
    jail_keep_log(f->jail, 6, -1); /* changes nothing */
    assert_int_equal(stat(path, &status), 0);
    assert_true(status.st_size > 0);
    end(&process);
    assert_int_equal(jail_remove(f->jail, 6, &f->err), 0);
    /* Without a disk to write to. */
    assert_int_equal(
        jail_start(f->jail, 6, &(struct jail_spec){ .hostname = "a" }, &process, &f->err), 0);
    assert_int_equal(file_limit(process.pid), VMM_PAGE_BYTES);
    end(&process);
    assert_int_equal(jail_remove(f->jail, 6, &f->err), 0);
}

static void users_do_not_overlap(void **state)
{
    struct fixture *f = need_jail(state);

    assert_int_equal(jail_user(f->jail, JAIL_USER_API), 931000);
    assert_int_equal(jail_vm_user(f->jail, 1), 931000 + JAIL_USER_VMS + 1);
    for (uint32_t instance = 0; instance < 5000; instance++) {
        uid_t user = jail_vm_user(f->jail, instance);

        assert_in_range(user, 931000 + JAIL_USER_VMS, 931999);
    }
    assert_int_equal(jail_vm_user(f->jail, UINT32_MAX) / 1000, 931);
}

/* --- what a VMM may have written --- */

static int open_page(struct fixture *f, uint32_t instance)
{
    char path[CONFIG_PATH_MAX + 64];

    snprintf(path, sizeof path, "%s/vms/%u", f->config.run_dir, instance);
    mkdir(path, 0700);
    strcat(path, "/page");
    return open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

static void write_page(int fd, const struct stats_page *page)
{
    assert_int_equal(pwrite(fd, page, sizeof *page, 0), sizeof *page);
}

static void the_console_is_a_ring(void **state)
{
    struct fixture *f = need_jail(state);
    struct stats_page page = { .magic = STATS_PAGE_MAGIC };
    char *ring = malloc(CONSOLE_RING_BYTES);
    char *bytes = NULL;
    size_t size = 0;
    int fd = open_page(f, 20);

    for (size_t i = 0; i < CONSOLE_RING_BYTES; i++)
        ring[i] = (char)('a' + i % 26);
    memcpy(ring, "NEWEST", 6);
    assert_int_equal(pwrite(fd, ring, CONSOLE_RING_BYTES, CONSOLE_OFFSET), CONSOLE_RING_BYTES);
    page.console_bytes = 6;
    write_page(fd, &page);
    assert_int_equal(jail_read_console(f->jail, 20, 100, &bytes, &size, NULL), 0);
    assert_int_equal(size, 6);
    assert_memory_equal(bytes, "NEWEST", 6);
    free(bytes);
    assert_int_equal(jail_read_console(f->jail, 20, 3, &bytes, &size, NULL), 0);
    assert_int_equal(size, 3);
    assert_memory_equal(bytes, "EST", 3);
    free(bytes);
    page.console_bytes = 5ull * CONSOLE_RING_BYTES + 6; /* it went round */
    write_page(fd, &page);
    assert_int_equal(jail_read_console(f->jail, 20, 8, &bytes, &size, NULL), 0);
    assert_int_equal(size, 8);
    assert_memory_equal(bytes, ring + CONSOLE_RING_BYTES - 2, 2);
    assert_memory_equal(bytes + 2, "NEWEST", 6);
    free(bytes);
    assert_int_equal(jail_read_console(f->jail, 20, SIZE_MAX, &bytes, &size, NULL), 0);
    assert_int_equal(size, CONSOLE_RING_BYTES);
    free(bytes);
    page.console_bytes = UINT64_MAX; /* a lie */
    write_page(fd, &page);
    assert_int_equal(jail_read_console(f->jail, 20, SIZE_MAX, &bytes, &size, NULL), 0);
    assert_int_equal(size, CONSOLE_RING_BYTES);
    free(bytes);
    free(ring);
    close(fd);
}

static void of_a_page_of_another_layout_the_head_is_read(void **state)
{
    struct fixture *f = need_jail(state);
    struct stats_page page = { .magic = 0x31474150, /* "PAG1" */
                               .start_ns = 5,
                               .exit_reason = EXIT_REASON_PANIC,
                               .exit_detail = 6,
                               .exit_text = "why",
                               .console_bytes = 3,
                               .rng_bytes = 7,
                               .disk_full = { 1 } };
    struct stats_page got;
    auto_free char *bytes = NULL;
    auto_close int fd = open_page(f, 22);
    size_t size;

    memset(page.vcpu_exits, 0xff, sizeof page.vcpu_exits);
    write_page(fd, &page);
    assert_int_equal(ftruncate(fd, VMM_PAGE_BYTES), 0);
    assert_int_equal(pwrite(fd, "end", 3, CONSOLE_OFFSET), 3);
    assert_int_equal(jail_read_page(f->jail, 22, &got), 1);
    assert_int_equal(got.start_ns, 5);
    assert_int_equal(got.exit_reason, EXIT_REASON_PANIC);
    assert_int_equal(got.exit_detail, 6);
    assert_string_equal(got.exit_text, "why");
    assert_int_equal(got.console_bytes, 3);
    for (size_t i = STATS_HEAD_BYTES; i < sizeof got; i++)
        assert_int_equal(((const char *)&got)[i], 0);
    assert_int_equal(jail_read_console(f->jail, 22, 100, &bytes, &size, NULL), 0);
    assert_int_equal(size, 3);
    assert_memory_equal(bytes, "end", 3);
}

static void a_page_that_lies_is_harmless(void **state)
{
    struct fixture *f = need_jail(state);
    struct stats_page page = { .magic = STATS_PAGE_MAGIC, .exit_reason = 1 };
    struct stats_page got;
    char *bytes = NULL;
    size_t size = 77;
    int fd = open_page(f, 21);

    memset(page.exit_text, 'x', sizeof page.exit_text); /* no NUL */
    write_page(fd, &page);
    assert_int_equal(jail_read_page(f->jail, 21, &got), 0);
    assert_int_equal(strlen(got.exit_text), sizeof got.exit_text - 1);
    assert_int_equal(ftruncate(fd, 10), 0); /* short */
    assert_true(jail_read_page(f->jail, 21, &got) < 0);
    assert_int_equal(got.exit_reason, 0);
    assert_int_equal(jail_read_console(f->jail, 21, 100, &bytes, &size, NULL), 0);
    assert_int_equal(size, 0);
    free(bytes);
    page.magic = 1;
    write_page(fd, &page);
    assert_true(jail_read_page(f->jail, 21, &got) < 0);
    assert_int_equal(got.exit_reason, 0);
    close(fd);
    assert_true(jail_read_page(f->jail, 999, &got) < 0);
    bytes = NULL;
    assert_int_equal(jail_read_console(f->jail, 999, 100, &bytes, &size, NULL), 0);
    assert_int_equal(size, 0);
    free(bytes);
}

static void a_damaged_identity_is_an_error(void **state)
{
    static const char *const bad[] = { "", "x", "12", "12 34", "12 x boot" };
    struct fixture *f = need_jail(state);
    struct process_identity identity = { .pid = 77 };
    char path[CONFIG_PATH_MAX + 64];

    close(open_page(f, 22));
    snprintf(path, sizeof path, "%s/vms/22/process", f->config.run_dir);
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        FILE *file = fopen(path, "w");

        assert_non_null(file);
        fputs(bad[i], file);
        fclose(file);
        assert_true(jail_identity(f->jail, 22, &identity, NULL) < 0);
        assert_int_equal(identity.pid, 77);
    }
    unlink(path);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_true(jail_identity(f->jail, 22, &identity, NULL) < 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_vmm_starts_is_found_again_and_leaves_nothing),
        TEST(each_vmm_has_namespaces_of_its_own),
        TEST(a_vmm_inherits_rings_for_its_disks),
        TEST(without_io_uring_it_starts_all_the_same),
        TEST(no_vmm_dumps_core),
        TEST(a_second_start_begins_with_an_empty_page),
        TEST(removal_ends_what_is_left_in_the_cgroup),
        TEST(what_a_vmm_writes_has_a_bound),
        TEST(users_do_not_overlap),
        TEST(the_console_is_a_ring),
        TEST(of_a_page_of_another_layout_the_head_is_read),
        TEST(a_page_that_lies_is_harmless),
        TEST(a_damaged_identity_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
