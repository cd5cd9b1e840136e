#include "storage/fetch_sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/sandbox.h"
#include "base/sanitized.h"
#include "storage/fetch_protocol.h"

#define FILES_MAX       64
#define THREADS_MAX     256          /* of all imports together: RLIMIT_NPROC counts the user's */
#define MEMORY_MAX      (3ull << 30) /* address space; a packed kernel may ask for any dictionary */
#define HOST_FILE_BYTES (256u << 10)

/* Copies one of the host's small files into the new root; one that is not there is left out. */
static int copy_host_file(int root, const char *name, struct error *err)
{
    char path[64];
    char bytes[4096];
    size_t total = 0;
    auto_close int from = -1;
    auto_close int to = -1;

    snprintf(path, sizeof path, "/%s", name);
    from = open(path, O_RDONLY | O_CLOEXEC);
    if (from < 0)
        return 0;
    to = openat(root, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (to < 0)
        return error_set(err, errno, "make %s in the new root: %s", name, strerror(errno));
    while (total < HOST_FILE_BYTES) {
        ssize_t got = read(from, bytes, sizeof bytes);

        if (got <= 0)
            break;
        if (write(to, bytes, (size_t)got) != got)
            return error_set(err, EIO, "copy %s into the new root", name);
        total += (size_t)got;
    }
    return 0;
}

static int make_nsswitch(int root, struct error *err)
{
    static const char text[] = "hosts: files dns\n";
    auto_close int fd =
        openat(root, "etc/nsswitch.conf", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    if (fd < 0 || write(fd, text, sizeof text - 1) != (ssize_t)sizeof text - 1)
        return error_set(err, EIO, "make etc/nsswitch.conf in the new root");
    return 0;
}

/* The resolver reads its configuration when a name is looked up, from whatever root is there. */
static int make_root(const struct fetch_sandbox_spec *spec, struct error *err)
{
    auto_close int root = -1;
    int result;

    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return error_set(err, errno, "make mounts private: %s", strerror(errno));
    if (mount("fetch", spec->root, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "mode=0755,size=1m,nr_inodes=16") < 0)
        return error_set(err, errno, "mount a new root: %s", strerror(errno));
    if (!spec->network)
        return 0;
    root = open(spec->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0 || mkdirat(root, "etc", 0755) < 0)
        return error_set(err, errno, "make etc in the new root: %s", strerror(errno));
    result = copy_host_file(root, "etc/resolv.conf", err);
    if (result == 0)
        result = copy_host_file(root, "etc/hosts", err);
    return result == 0 ? make_nsswitch(root, err) : result;
}

/* For every import. */
static const int calls[] = {
    SCMP_SYS(read),          SCMP_SYS(write),
    SCMP_SYS(pread64),       SCMP_SYS(pwritev),
    SCMP_SYS(lseek),         SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),    SCMP_SYS(ftruncate),
    SCMP_SYS(close),         SCMP_SYS(munmap),
    SCMP_SYS(mremap),        SCMP_SYS(brk),
    SCMP_SYS(madvise),       SCMP_SYS(futex),
    SCMP_SYS(sendmsg),       SCMP_SYS(poll),
    SCMP_SYS(clock_gettime), SCMP_SYS(getrandom),
    SCMP_SYS(rt_sigaction),  SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),  SCMP_SYS(restart_syscall),
    SCMP_SYS(exit),          SCMP_SYS(exit_group),
    SCMP_SYS(gettid),        SCMP_SYS(getpid),
};

/* Beside them, where the source is at a URL. */
static const int network_calls[] = {
    SCMP_SYS(connect),         SCMP_SYS(bind),
    SCMP_SYS(sendto),          SCMP_SYS(sendmmsg),
    SCMP_SYS(recvfrom),        SCMP_SYS(recvmsg),
    SCMP_SYS(getsockname),     SCMP_SYS(getpeername),
    SCMP_SYS(setsockopt),      SCMP_SYS(getsockopt),
    SCMP_SYS(socketpair),      SCMP_SYS(fcntl),
    SCMP_SYS(set_robust_list), SCMP_SYS(rseq),
    SCMP_SYS(uname),           SCMP_SYS(pipe2),
    SCMP_SYS(geteuid),         SCMP_SYS(getuid),
    SCMP_SYS(sched_yield),     SCMP_SYS(clock_nanosleep),
    SCMP_SYS(writev),          SCMP_SYS(readv),
    SCMP_SYS(eventfd2),        SCMP_SYS(ppoll),
};

/* What the sanitizers' run-time does beside. */
static const int sanitizer_calls[] = {
    SCMP_SYS(sigaltstack), SCMP_SYS(sched_getaffinity),
    SCMP_SYS(readlink),    SCMP_SYS(mmap),
    SCMP_SYS(mprotect),    SCMP_SYS(openat),
    SCMP_SYS(prctl),       SCMP_SYS(ptrace),
    SCMP_SYS(wait4),       SCMP_SYS(clone),
    SCMP_SYS(getppid),     SCMP_SYS(getdents64),
};

static int allow(scmp_filter_ctx filter, const int *list, size_t count)
{
    int result = 0;

    for (size_t i = 0; i < count && result == 0; i++)
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, list[i], 0);
    return result;
}

/* Sharing blocks with the source; and memory that is never executable. */
static int allow_checked(scmp_filter_ctx filter)
{
    int result =
        seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 2,
                         SCMP_A0(SCMP_CMP_EQ, FETCH_FD_OUTPUT), SCMP_A1(SCMP_CMP_EQ, FICLONE));

    if (result == 0 && !SANITIZED)
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
                                  SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    if (result == 0 && !SANITIZED)
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
                                  SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    return result;
}

/* Sockets of the internet, and netlink because getaddrinfo asks it which families there are. */
static int allow_network(scmp_filter_ctx filter)
{
    static const unsigned families[] = { AF_INET, AF_INET6, AF_NETLINK };
    int result = allow(filter, network_calls, ARRAY_LENGTH(network_calls));

    for (size_t i = 0; i < ARRAY_LENGTH(families) && result == 0; i++)
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                                  SCMP_A0(SCMP_CMP_EQ, families[i]));
    /* nscd's socket is not in our root anyway. */
    if (result == 0)
        result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), 1,
                                  SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
    if (result == 0)
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
                                  SCMP_A1(SCMP_CMP_EQ, FIONREAD));
    /* libcurl looks names up in threads; processes cannot be made.  clone3's flags are in memory,
     * where a filter cannot see them: glibc then uses clone. */
    if (result == 0)
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                                  SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
    if (result == 0)
        result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    /* The resolver's files, read only, in a root that is read only. */
    if (result == 0)
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
                                  SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT, O_RDONLY));
    return result;
}

static int load_filter(bool network, struct error *err)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int result;

    if (!filter)
        return error_set(err, ENOMEM, "no memory for the system call filter");
    result = allow(filter, calls, ARRAY_LENGTH(calls));
    if (result == 0 && SANITIZED)
        result = allow(filter, sanitizer_calls, ARRAY_LENGTH(sanitizer_calls));
    if (result == 0)
        result = allow_checked(filter);
    if (result == 0 && network)
        result = allow_network(filter);
    /* glibc and OpenSSL look for files that may or may not be there. */
    if (result == 0 && !network && !SANITIZED)
        result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOENT), SCMP_SYS(openat), 0);
    if (result == 0)
        result = seccomp_load(filter);
    seccomp_release(filter);
    return result < 0 ? error_set(err, result, "system call filter: %s", strerror(-result)) : 0;
}

int fetch_sandbox_enter(const struct fetch_sandbox_spec *spec, struct error *err)
{
    struct sandbox_spec sandbox = { .root = spec->root,
                                    .uid = spec->uid,
                                    .gid = spec->gid,
                                    .max_files = FILES_MAX,
                                    .max_file_bytes = spec->max_file_bytes,
                                    .max_processes = spec->network ? THREADS_MAX : 1,
                                    .hostname = "fetch" };
    struct rlimit memory = { MEMORY_MAX, MEMORY_MAX };
    const char *step = "";
    int result = make_root(spec, err);

    if (result < 0)
        return result;
    result = sandbox_enter(&sandbox, &step);
    if (result < 0)
        return error_set(err, result, "%s: %s", step, strerror(-result));
    /* Changing ids clears it, so now. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        return error_set(err, errno, "ask to end with the agent: %s", strerror(errno));
    if (!SANITIZED && setrlimit(RLIMIT_AS, &memory) < 0)
        return error_set(err, errno, "limit memory: %s", strerror(errno));
    return load_filter(spec->network, err);
}
