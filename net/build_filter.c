/* build_filter.c - part of the build: which system calls dnsmasq may make, from its exec on, as a
 * seccomp program, printed as a C array.  libseccomp is needed here only.
 *
 * dnsmasq is not ours, nor are its libraries and the loader: a call that is not here is answered as
 * by a kernel that has no such call (ENOSYS), so that a newer version can do without it, and does
 * not end.  The list is what it was seen to call (tests/integration/net under strace), with what
 * the same version would call for forwarding and at its end.  Nothing here mounts, traces, loads,
 * enters namespaces or makes any, and the only netlink is that of routes and links: CAP_NET_ADMIN
 * cannot be used on packet filters. */
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include "base/cleanup.h"
#include "base/filter_print.h"

#define CONDITIONS_MAX 2

struct rule {
    int call;
    unsigned condition_count;
    struct scmp_arg_cmp conditions[CONDITIONS_MAX];
};

/* clang-format off */
#define ALWAYS(name)     { SCMP_SYS(name), 0, { { 0 } } }
#define IF(name, which)  { SCMP_SYS(name), 1, { which } }
#define IOCTL(request)   IF(ioctl, IS(1, request))
#define IS(at, value)    { at, SCMP_CMP_MASKED_EQ, UINT32_MAX, (uint32_t)(value) }
#define HAS(at, mask, value) { at, SCMP_CMP_MASKED_EQ, mask, value }
#define SOCKET_TYPE      0xf /* without SOCK_CLOEXEC and SOCK_NONBLOCK */
#define INET(family, type) { SCMP_SYS(socket), 2, { IS(0, family), HAS(1, SOCKET_TYPE, type) } }
/* What fork() asks for; and a signal. */
#define FORK_FLAGS       (CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | 0xff)

static const struct rule rules[] = {
    /* being started: the program is an fd, as only its starter has it; then the loader, and libc */
    IF(execveat, IS(4, AT_EMPTY_PATH)),
    ALWAYS(mmap), ALWAYS(mprotect), ALWAYS(munmap), ALWAYS(mremap), ALWAYS(brk), ALWAYS(madvise),
    ALWAYS(arch_prctl), ALWAYS(set_tid_address), ALWAYS(set_robust_list), ALWAYS(rseq),
    ALWAYS(futex), ALWAYS(getrandom), ALWAYS(uname), ALWAYS(sysinfo),
    IF(prlimit64, HAS(2, UINT64_MAX, 0)), /* asks only */
    IF(prctl, IS(0, PR_CAPBSET_READ)), ALWAYS(capget),
    ALWAYS(getuid), ALWAYS(geteuid), ALWAYS(getgid), ALWAYS(getegid), ALWAYS(getpid),
    ALWAYS(getppid), ALWAYS(gettid), ALWAYS(umask), ALWAYS(chdir),
    /* files */
    ALWAYS(openat), ALWAYS(access), ALWAYS(faccessat), ALWAYS(newfstatat), ALWAYS(fstat),
    ALWAYS(stat), ALWAYS(lstat), ALWAYS(statx), ALWAYS(readlink), ALWAYS(getdents64),
    ALWAYS(read), ALWAYS(pread64), ALWAYS(write), ALWAYS(writev), ALWAYS(lseek), ALWAYS(close),
    ALWAYS(fcntl), ALWAYS(dup), ALWAYS(dup2), ALWAYS(ftruncate), ALWAYS(fsync), ALWAYS(pipe2),
    IOCTL(TCGETS), /* is it a terminal? */
    ALWAYS(inotify_init1), ALWAYS(inotify_add_watch), ALWAYS(inotify_rm_watch),
    /* the network */
    INET(AF_INET, SOCK_DGRAM), INET(AF_INET, SOCK_STREAM),
    INET(AF_INET6, SOCK_DGRAM), INET(AF_INET6, SOCK_STREAM),
    { SCMP_SYS(socket), 2, { IS(0, AF_NETLINK), IS(2, NETLINK_ROUTE) } },
    ALWAYS(bind), ALWAYS(listen), ALWAYS(accept), ALWAYS(accept4), ALWAYS(connect),
    ALWAYS(getsockname), ALWAYS(getpeername), ALWAYS(getsockopt), ALWAYS(setsockopt),
    ALWAYS(sendto), ALWAYS(sendmsg), ALWAYS(recvfrom), ALWAYS(recvmsg), ALWAYS(shutdown),
    IOCTL(SIOCGIFNAME), IOCTL(SIOCGIFINDEX), IOCTL(SIOCGIFFLAGS), IOCTL(SIOCGIFMTU),
    IOCTL(SIOCGIFADDR), IOCTL(SIOCGSTAMP_OLD),
    IOCTL(SIOCSARP), /* a guest that has no address yet cannot answer ARP */
    /* time, waiting, signals */
    ALWAYS(poll), ALWAYS(ppoll), ALWAYS(clock_gettime), ALWAYS(gettimeofday), ALWAYS(time),
    ALWAYS(nanosleep), ALWAYS(clock_nanosleep), ALWAYS(alarm), ALWAYS(rt_sigaction),
    ALWAYS(rt_sigprocmask), ALWAYS(rt_sigreturn), ALWAYS(restart_syscall),
    /* a process for each connection of DNS by TCP; and the end */
    IF(clone, HAS(0, ~(uint64_t)FORK_FLAGS, 0)),
    ALWAYS(wait4), ALWAYS(kill), ALWAYS(tgkill), ALWAYS(exit), ALWAYS(exit_group),
};
/* clang-format on */

int main(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
    int result =
        filter ? seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) : -ENOMEM;

    for (size_t i = 0; i < ARRAY_LENGTH(rules) && result == 0; i++)
        result = seccomp_rule_add_exact_array(filter, SCMP_ACT_ALLOW, rules[i].call,
                                              rules[i].condition_count, rules[i].conditions);
    if (result < 0)
        fprintf(stderr, "filter of dnsmasq: %s\n", strerror(-result));
    return result < 0 || filter_print("dhcp_filter", filter) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
