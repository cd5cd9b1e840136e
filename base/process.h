/* process.h - starting, watching and recognising processes.  Any thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/sandbox.h"

struct error;

struct process_spec {
    int exec_fd;             /* the program (execveat); borrowed */
    const char *const *argv; /* NULL ended */
    const char *const *envp; /* NULL = empty */
    uint64_t clone_flags;    /* CLONE_NEW*; namespaces of its own */
    int cgroup_fd;           /* directory of the leaf to start in (CLONE_INTO_CGROUP); -1 = ours */
    const int *fds;  /* fds[i] becomes fd i of the child; -1 = /dev/null; all others are closed */
    size_t fd_count; /* at least 3, at most PROCESS_FDS_MAX */
    const struct sandbox_spec *sandbox; /* entered before exec; NULL = none */
    bool new_session;
    /* What the parent does while the child makes itself ready; NULL = nothing.  If it fails
     * (-errno, *err filled), the child is killed, and that is the error. */
    int (*meanwhile)(void *context, pid_t pid, struct error *err);
    void *context;
};
#define PROCESS_FDS_MAX 80

/* What recognises a process again after we, or the host, restarted: a pid alone may be another's.
 */
struct process_identity {
    pid_t pid;
    uint64_t start_ticks; /* /proc/PID/stat field 22 */
    char boot_id[37];
};

/* Starts it.  Returns once exec has succeeded; a failure before (which step, why) is the error.
 * *ret_pidfd is owned. */
int process_spawn(const struct process_spec *spec, pid_t *ret_pid, int *ret_pidfd,
                  struct error *err);

int process_identify(pid_t pid, struct process_identity *ret_identity, struct error *err);
/* How long ago it was started; the host's sleep counts. */
int64_t process_age_ms(const struct process_identity *identity);
/* A pidfd of the very same process, or -ESRCH. */
int process_open(const struct process_identity *identity, struct error *err);

/* Signal by pidfd; 0 too when it is already gone. */
int process_kill(int pidfd, int signal);
/* Reaps our own child whose pidfd is readable.  0 and the wait status (as from wait(2)), or -ECHILD
 * when it is not our child (adopted). */
int process_reap(int pidfd, int *ret_status);
/* Waits until it has ended (a zombie has); 0, or -ETIMEDOUT; -1 = for ever. */
int process_await(int pidfd, int timeout_ms);
/* SIGKILL; waits until it is gone, but not for ever; reaps it if it is our child.  Closes *pidfd
 * and makes it -1, which is accepted, too: no loop may watch it any more. */
void process_end(int *pidfd);
