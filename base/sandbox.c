#include "base/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"

#define CAPABILITY_LAST 63

#if defined(__SANITIZE_ADDRESS__)
/* The leak check at the end attaches to its own process, which a sealed one does not allow. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return prctl(PR_GET_DUMPABLE) != 1;
}
#endif

/* Each step returns 0 or -errno. */

/* Directories that lead to the path, which is relative. */
static int make_parents(const char *path)
{
    char parent[SANDBOX_PATH_MAX];

    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        memcpy(parent, path, (size_t)(slash - path));
        parent[slash - path] = '\0';
        if (mkdir(parent, 0755) < 0 && errno != EEXIST)
            return -errno;
    }
    return 0;
}

static int take_link(const char *from, const char *to)
{
    char target[SANDBOX_PATH_MAX];
    ssize_t length = readlink(from, target, sizeof target - 1);

    if (length < 0)
        return -errno;
    target[length] = '\0';
    return symlink(target, to) < 0 ? -errno : 0;
}

/* Into the root, which is the working directory. */
static int take_mount(const struct sandbox_mount *from)
{
    const char *to = from->path + 1;
    auto_close int file = -1;
    struct stat status;
    int result;

    if (lstat(from->path, &status) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (from->path[0] != '/' || strlen(from->path) >= SANDBOX_PATH_MAX)
        return -ENAMETOOLONG;
    result = make_parents(to);
    if (result < 0)
        return result;
    if (S_ISLNK(status.st_mode))
        return take_link(from->path, to);
    if (S_ISDIR(status.st_mode) && mkdir(to, 0755) < 0)
        return -errno;
    if (!S_ISDIR(status.st_mode)) {
        file = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (file < 0)
            return -errno;
    }
    if (mount(from->path, to, NULL, MS_BIND, NULL) < 0 ||
        mount(NULL, to, NULL, MS_BIND | MS_REMOUNT | from->flags, NULL) < 0)
        return -errno;
    return 0;
}

/* What becomes the root is mounted over `root`. */
static int mount_root(const struct sandbox_spec *spec)
{
    int result = 0;

    if (spec->mount_count == 0)
        return mount(spec->root, spec->root, NULL, MS_BIND, NULL) < 0 ? -errno : 0;
    if (mount("root", spec->root, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "mode=755,size=64k,nr_inodes=256") < 0 ||
        chdir(spec->root) < 0)
        return -errno;
    for (size_t i = 0; i < spec->mount_count && result == 0; i++)
        result = take_mount(&spec->mounts[i]);
    return result;
}

/* `root`, read-only, becomes the root; the old root and all below it is gone. */
static int enter_root(const struct sandbox_spec *spec)
{
    unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    int result;

    if (spec->root_namespace > 0) {
        if (setns(spec->root_namespace, CLONE_NEWNS) < 0 || unshare(CLONE_NEWNS) < 0)
            return -errno;
        return 0;
    }
    if (!spec->root)
        return 0;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -errno;
    result = mount_root(spec);
    if (result < 0)
        return result;
    if (mount(NULL, spec->root, NULL, MS_BIND | MS_REMOUNT | flags, NULL) < 0)
        return -errno;
    if (chdir(spec->root) < 0)
        return -errno;
    /* The new root over the old one at the same place: pivot_root(2), "pivot_root(".", ".")". */
    if (syscall(SYS_pivot_root, ".", ".") < 0)
        return -errno;
    if (umount2(".", MNT_DETACH) < 0)
        return -errno;
    return chdir("/") < 0 ? -errno : 0;
}

static int set_hostname(const struct sandbox_spec *spec)
{
    if (spec->hostname && sethostname(spec->hostname, strlen(spec->hostname)) < 0)
        return -errno;
    return 0;
}

static int limit(int resource, uint64_t value)
{
    struct rlimit both = { .rlim_cur = value, .rlim_max = value };

    return setrlimit(resource, &both) < 0 ? -errno : 0;
}

static int set_limits(const struct sandbox_spec *spec)
{
    int result = limit(RLIMIT_CORE, 0);

    if (result == 0 && spec->max_files)
        result = limit(RLIMIT_NOFILE, spec->max_files);
    if (result == 0 && spec->max_processes)
        result = limit(RLIMIT_NPROC, spec->max_processes);
    if (result == 0 && spec->max_file_bytes) {
        signal(SIGXFSZ, SIG_IGN);
        result = limit(RLIMIT_FSIZE, spec->max_file_bytes);
    }
    return result;
}

/* The raw system calls change this thread only, which is the only one here (see sandbox.h); glibc's
 * wrappers would signal the threads of the process that we were cloned from. */
static int set_ids(const struct sandbox_spec *spec)
{
    if (spec->uid == 0)
        return 0;
    if (syscall(SYS_setgroups, 0, NULL) < 0)
        return -errno;
    if (syscall(SYS_setresgid, spec->gid, spec->gid, spec->gid) < 0)
        return -errno;
    if (spec->keep_capabilities && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        return -errno;
    return syscall(SYS_setresuid, spec->uid, spec->uid, spec->uid) < 0 ? -errno : 0;
}

/* While capabilities still allow it: what is not in the bounding set can never come back. */
static int drop_bounding_set(const struct sandbox_spec *spec)
{
    for (int cap = 0; cap <= CAPABILITY_LAST; cap++) {
        if (spec->keep_capabilities & (1ull << cap))
            continue;
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return errno == EINVAL && cap > 0 ? 0 : -errno; /* the kernel knows no more */
    }
    return 0;
}

static int set_capabilities(const struct sandbox_spec *spec)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2];

    for (int i = 0; i < 2; i++) {
        uint32_t keep = (uint32_t)(spec->keep_capabilities >> (32 * i));

        data[i] = (struct __user_cap_data_struct){ .effective = keep,
                                                   .permitted = keep,
                                                   .inheritable = keep };
    }
    if (syscall(SYS_capset, &header, data) < 0)
        return -errno;
    /* Ambient, so that an exec'ed program without file capabilities (dnsmasq) has them too. */
    for (int cap = 0; cap <= CAPABILITY_LAST; cap++)
        if ((spec->keep_capabilities & (1ull << cap)) &&
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
            return -errno;
    return 0;
}

static int seal(const struct sandbox_spec *spec)
{
    (void)spec;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ? -errno : 0;
}

static int load_filter(const struct sandbox_spec *spec)
{
    return spec->filter ? sandbox_filter(spec->filter, spec->filter_length) : 0;
}

int sandbox_enter(const struct sandbox_spec *spec, const char **ret_step)
{
    static const struct {
        const char *name;
        int (*run)(const struct sandbox_spec *spec);
    } steps[] = {
        { "set the host name", set_hostname }, { "enter the empty root", enter_root },
        { "set limits", set_limits },          { "drop the bounding set", drop_bounding_set },
        { "set user and group", set_ids },     { "set capabilities", set_capabilities },
        { "set no_new_privs", seal },          { "load the system call filter", load_filter },
    };

    for (size_t i = 0; i < ARRAY_LENGTH(steps); i++) {
        int result = steps[i].run(spec);

        if (result < 0) {
            *ret_step = steps[i].name;
            return result;
        }
    }
    return 0;
}

/* The child that makes the namespace holds it until `release` ends. */
static void hold_root(const char *directory, int ready, int release)
{
    const struct sandbox_spec spec = { .root = directory };
    char byte = 0;

    if (enter_root(&spec) < 0 || write(ready, &byte, 1) != 1)
        _exit(1);
    if (read(release, &byte, 1) < 0)
        _exit(1);
    _exit(0);
}

int sandbox_make_root(const char *directory, struct error *err)
{
    struct clone_args args = { .flags = CLONE_NEWNS, .exit_signal = SIGCHLD };
    int ready[2];
    int release[2];
    char path[64];
    char byte;
    int fd = -1;
    long pid;

    if (pipe2(ready, O_CLOEXEC) < 0)
        return error_set(err, errno, "create a pipe");
    if (pipe2(release, O_CLOEXEC) < 0) {
        close(ready[0]);
        close(ready[1]);
        return error_set(err, errno, "create a pipe");
    }
    pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0) {
        close(release[1]);
        hold_root(directory, ready[1], release[0]);
    }
    close(ready[1]);
    close(release[0]);
    snprintf(path, sizeof path, "/proc/%ld/ns/mnt", pid);
    if (pid > 0 && read(ready[0], &byte, 1) == 1)
        fd = open(path, O_RDONLY | O_CLOEXEC);
    close(ready[0]);
    close(release[1]);
    if (pid > 0)
        waitpid((pid_t)pid, NULL, 0);
    if (fd < 0)
        return error_set(err, EPERM, "make an empty root of %s; is this run as root?", directory);
    return fd;
}

int sandbox_filter(const struct sock_filter *program, size_t instructions)
{
    struct sock_fprog filter = { .len = (unsigned short)instructions,
                                 .filter = (struct sock_filter *)program };

    if (instructions == 0 || instructions > BPF_MAXINSNS)
        return -EINVAL;
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) < 0 ? -errno : 0;
}
