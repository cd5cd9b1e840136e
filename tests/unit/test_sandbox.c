/* test_sandbox.c - each step of the jail, seen from inside by a process that entered it.  Needs
 * root. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/sandbox.h"

#define TEST_UID 987654

/* Runs `inside` in a child with new namespaces that has entered the sandbox: its exit status; 100 +
 * errno where the sandbox itself failed. */
static int run_inside(const struct sandbox_spec *spec, int (*inside)(void))
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        static const gid_t groups[] = { 1, 2 }; /* to be dropped */
        const char *step = "";
        int result;

        if (setgroups(ARRAY_LENGTH(groups), groups) < 0 || unshare(CLONE_NEWNS | CLONE_NEWUTS) < 0)
            _exit(99);
        result = sandbox_enter(spec, &step);
        _exit(result < 0 ? 100 - result : inside());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int set_up(void **state)
{
    static char directory[] = "/tmp/warren-sandbox-XXXXXX";

    if (geteuid() != 0)
        return 0;
    memcpy(directory + strlen(directory) - 6, "XXXXXX", 6);
    *state = mkdtemp(directory);
    return *state && chmod(directory, 0755) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    return *state ? rmdir(*state) : 0;
}

static void need_root(void **state)
{
    if (!*state)
        skip();
}

/* --- the root --- */

static int root_is_empty_and_read_only(void)
{
    DIR *root = opendir("/");
    const struct dirent *entry;

    if (!root)
        return 1;
    while ((entry = readdir(root)))
        if (entry->d_name[0] != '.')
            return 2;
    closedir(root);
    if (open("/x", O_WRONLY | O_CREAT, 0600) >= 0 || errno != EROFS)
        return 3;
    if (open("../../etc/passwd", O_RDONLY) >= 0 || chdir("..") < 0 || access("etc", F_OK) == 0)
        return 4;
    return mkdir("/x", 0700) == 0 ? 5 : 0;
}

static void the_root_is_empty_and_read_only(void **state)
{
    need_root(state);
    struct sandbox_spec spec = { .root = *state };

    assert_int_equal(run_inside(&spec, root_is_empty_and_read_only), 0);
}

static void a_prepared_root_is_the_same(void **state)
{
    need_root(state);
    struct error err = { 0 };
    int namespace = sandbox_make_root(*state, &err);
    struct sandbox_spec spec = { .root_namespace = namespace, .uid = TEST_UID, .gid = TEST_UID };

    assert_true(namespace > 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(run_inside(&spec, root_is_empty_and_read_only), 0);
    close(namespace);
    assert_true(sandbox_make_root("/nonexistent", &err) < 0);
}

static bool is_mounted(const char *path, unsigned long flags)
{
    struct statvfs now;

    return statvfs(path, &now) == 0 &&
           (now.f_flag & (ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC)) == flags;
}

static int root_holds_what_was_asked_for(void)
{
    char byte;
    int fd = open("/dev/zero", O_RDONLY);

    if (fd < 0 || read(fd, &byte, 1) != 1)
        return 1;
    if (!is_mounted("/usr/lib", ST_RDONLY | ST_NOSUID | ST_NODEV) ||
        !is_mounted("/dev/zero", ST_RDONLY | ST_NOSUID | ST_NOEXEC) ||
        !is_mounted("/", ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC))
        return 2;
    if (access("/usr/bin", F_OK) == 0 || access("/dev/null", F_OK) == 0 ||
        access("/nonexistent", F_OK) == 0 || access("/proc", F_OK) == 0)
        return 3;
    if (open("/x", O_WRONLY | O_CREAT, 0600) >= 0 || errno != EROFS)
        return 4;
    return chdir("..") < 0 || access("sys", F_OK) == 0 ? 5 : 0;
}

static void a_root_holds_only_its_mounts(void **state)
{
    need_root(state);
    const struct sandbox_mount mounts[] = {
        { "/usr/lib", MS_RDONLY | MS_NOSUID | MS_NODEV },
        { "/dev/zero", MS_RDONLY | MS_NOSUID | MS_NOEXEC },
        { "/nonexistent/a", MS_RDONLY },
    };
    struct sandbox_spec spec = { .root = *state,
                                 .mounts = mounts,
                                 .mount_count = ARRAY_LENGTH(mounts),
                                 .uid = TEST_UID,
                                 .gid = TEST_UID };

    assert_int_equal(run_inside(&spec, root_holds_what_was_asked_for), 0);
}

#define LINK_PATH "/dev/shm/warren-sandbox-link"

static int has_the_link(void)
{
    char target[16] = "";

    return readlink(LINK_PATH, target, sizeof target - 1) == 7 && strcmp(target, "usr/lib") == 0
               ? 0
               : 1;
}

static void links_stay_links(void **state)
{
    need_root(state);
    const struct sandbox_mount mount = { LINK_PATH, MS_RDONLY };
    struct sandbox_spec spec = { .root = *state, .mounts = &mount, .mount_count = 1 };

    assert_int_equal(symlink("usr/lib", LINK_PATH), 0);
    int result = run_inside(&spec, has_the_link);
    unlink(LINK_PATH);
    assert_int_equal(result, 0);
}

static void a_path_too_long_is_refused(void **state)
{
    need_root(state);
    char path[SANDBOX_PATH_MAX + 1];
    const struct sandbox_mount mount = { path, MS_RDONLY };
    struct sandbox_spec spec = { .root = *state, .mounts = &mount, .mount_count = 1 };

    memset(path, '/', sizeof path);
    memcpy(path + sizeof path - 4, "dev", 4);
    assert_int_equal(run_inside(&spec, root_holds_what_was_asked_for), 100 + ENAMETOOLONG);
}

/* --- ids and capabilities --- */

static bool status_has(const char *wanted)
{
    static char text[8192];
    int fd = open("/proc/self/status", O_RDONLY);
    ssize_t got = read(fd, text, sizeof text - 1);

    close(fd);
    text[got > 0 ? got : 0] = '\0';
    return strstr(text, wanted) != NULL;
}

static int has_no_privileges(void)
{
    if (!status_has("Uid:\t987654\t987654\t987654\t987654\n") ||
        !status_has("Gid:\t987654\t987654\t987654\t987654\n"))
        return 1;
    if (!status_has("Groups:\t \n"))
        return 2;
    if (!status_has("CapInh:\t0000000000000000\n") || !status_has("CapPrm:\t0000000000000000\n") ||
        !status_has("CapEff:\t0000000000000000\n") || !status_has("CapBnd:\t0000000000000000\n") ||
        !status_has("CapAmb:\t0000000000000000\n"))
        return 3;
    if (!status_has("NoNewPrivs:\t1\n"))
        return 4;
    if (setresuid(0, 0, 0) == 0 || seteuid(0) == 0)
        return 5;
    return prctl(PR_GET_DUMPABLE) == 0 ? 0 : 6;
}

static void nothing_privileged_is_kept(void **state)
{
    need_root(state);
    struct sandbox_spec spec = { .uid = TEST_UID, .gid = TEST_UID };

    assert_int_equal(run_inside(&spec, has_no_privileges), 0);
}

static int has_one_capability(void)
{
    return status_has("CapEff:\t0000000000000400\n") && status_has("CapBnd:\t0000000000000400\n") &&
                   status_has("CapAmb:\t0000000000000400\n")
               ? 0
               : 1;
}

static void only_what_is_asked_for_is_kept(void **state)
{
    need_root(state);
    struct sandbox_spec spec = { .uid = TEST_UID, .gid = TEST_UID, .keep_capabilities = 1u << 10 };

    assert_int_equal(run_inside(&spec, has_one_capability), 0);
}

/* --- limits and name --- */

static int limits_hold(void)
{
    struct rlimit limit;
    char name[65] = "";

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur != 40 || limit.rlim_max != 40)
        return 1;
    if (getrlimit(RLIMIT_CORE, &limit) < 0 || limit.rlim_max != 0)
        return 2;
    if (getrlimit(RLIMIT_NPROC, &limit) < 0 || limit.rlim_max != 3)
        return 3;
    if (getrlimit(RLIMIT_FSIZE, &limit) < 0 || limit.rlim_max != 8192)
        return 4;
    if (gethostname(name, sizeof name) < 0 || strcmp(name, "guest-1") != 0)
        return 5;
    /* Past the limit is an error, not the end of the process. */
    int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);

    if (fd < 0 || ftruncate(fd, 8192) < 0 || pwrite(fd, "x", 1, 8192) == 1 || errno != EFBIG)
        return 6;
    limit.rlim_max = 100;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0 ? 7 : 0;
}

static void limits_and_host_name(void **state)
{
    need_root(state);
    char before[65], after[65];
    struct sandbox_spec spec = { .uid = TEST_UID,
                                 .gid = TEST_UID,
                                 .max_files = 40,
                                 .max_file_bytes = 8192,
                                 .max_processes = 3,
                                 .hostname = "guest-1" };

    gethostname(before, sizeof before);
    assert_int_equal(run_inside(&spec, limits_hold), 0);
    gethostname(after, sizeof after);
    assert_string_equal(before, after);
}

/* --- filters --- */

static int try_filter(void)
{
    static const struct sock_filter no_sockets[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };

    if (sandbox_filter(no_sockets, 0) != -EINVAL)
        return 1;
    if (sandbox_filter(no_sockets, ARRAY_LENGTH(no_sockets)) < 0)
        return 2;
    if (!status_has("Seccomp:\t2\n"))
        return 3;
    (void)socket(AF_UNIX, SOCK_STREAM, 0);
    return 4;
}

static int has_no_sockets(void)
{
    return socket(AF_UNIX, SOCK_STREAM, 0) < 0 && errno == EXDEV && status_has("Seccomp:\t2\n") ? 0
                                                                                                : 1;
}

static void a_filter_of_the_spec_is_loaded(void **state)
{
    need_root(state);
    static const struct sock_filter no_sockets[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EXDEV),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sandbox_spec spec = { .uid = TEST_UID,
                                 .gid = TEST_UID,
                                 .filter = no_sockets,
                                 .filter_length = ARRAY_LENGTH(no_sockets) };

    assert_int_equal(run_inside(&spec, has_no_sockets), 0);
}

static void a_filter_kills(void **state)
{
    need_root(state);
    struct sandbox_spec spec = { .uid = TEST_UID, .gid = TEST_UID };

    assert_int_equal(run_inside(&spec, try_filter), -SIGSYS);
}

static int never(void)
{
    return 0;
}

static void a_step_that_fails_fails_all(void **state)
{
    need_root(state);
    struct sandbox_spec spec = { .root = "/nonexistent" };

    assert_int_equal(run_inside(&spec, never), 100 + ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_root_is_empty_and_read_only), TEST(a_prepared_root_is_the_same),
        TEST(a_root_holds_only_its_mounts),    TEST(links_stay_links),
        TEST(a_path_too_long_is_refused),      TEST(nothing_privileged_is_kept),
        TEST(only_what_is_asked_for_is_kept),  TEST(limits_and_host_name),
        TEST(a_filter_of_the_spec_is_loaded),  TEST(a_filter_kills),
        TEST(a_step_that_fails_fails_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
