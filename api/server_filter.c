/* server_filter.c - see server_filter.h.  No open, socket, connect, exec, fork: what it has is all
 * it will ever have. */
#include "api/server_filter.h"
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/sanitized.h"

static const int allowed[] = {
    /* waiting */
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(poll),
    /* clients and warrend */
    SCMP_SYS(accept4),
    SCMP_SYS(recvfrom),
    SCMP_SYS(recvmsg),
    SCMP_SYS(sendto),
    SCMP_SYS(sendmsg),
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(shutdown),
    SCMP_SYS(close),
    SCMP_SYS(setsockopt),
    SCMP_SYS(getsockopt),
    SCMP_SYS(getpeername),
    SCMP_SYS(socketpair), /* between libmicrohttpd's TLS and a relay */
    /* bodies in memfds */
    SCMP_SYS(memfd_create),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(ftruncate),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    /* memory: mmap and mprotect are without PROT_EXEC, see below */
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(brk),
    SCMP_SYS(madvise),
    SCMP_SYS(futex),
    /* time and ends */
    SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(getrandom),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
};

/* None that chooses a process that is signalled: the other listeners' warren-apis have our user. */
static const int fcntl_commands[] = {
    F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_ADD_SEALS, F_GET_SEALS,
};

#define PROT_EXEC_BIT 4

/* By their arguments. */
static int add_checked(scmp_filter_ctx filter)
{
    static const int mappers[] = { SCMP_SYS(mmap), SCMP_SYS(mprotect) };
    int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, /* abort's */
                             SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));

    for (size_t i = 0; r >= 0 && i < ARRAY_LENGTH(mappers); i++)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, mappers[i], 1,
                             SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC_BIT, 0));
    for (size_t i = 0; r >= 0 && i < ARRAY_LENGTH(fcntl_commands); i++)
        r = seccomp_rule_add(
            filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
            SCMP_A1(SCMP_CMP_MASKED_EQ, UINT32_MAX, (scmp_datum_t)fcntl_commands[i]));
    return r;
}

static int add_rules(scmp_filter_ctx filter)
{
    for (size_t i = 0; i < ARRAY_LENGTH(allowed); i++) {
        int r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0);

        if (r < 0)
            return r;
    }
    return add_checked(filter);
}

int server_filter_load(struct error *err)
{
    scmp_filter_ctx filter;
    int r;

    if (SANITIZED)
        return 0; /* the sanitizers' own system calls are anybody's guess */
    filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (!filter)
        return error_set(err, ENOMEM, "no memory for the system call filter");
    r = add_rules(filter);
    if (r >= 0)
        r = seccomp_load(filter);
    seccomp_release(filter);
    return r < 0 ? error_set(err, -r, "load the system call filter") : 0;
}
