/* sandbox.h - the jail's steps, done by a process to itself.  Async-signal-safe (no malloc, no
 * locks): they run between clone3 and exec, too. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct error;
struct sock_filter;

/* What a new root takes from the host, at the same path.  A symbolic link is made anew as it is,
 * what the host does not have is left out. */
struct sandbox_mount {
    const char *path;    /* absolute, shorter than SANDBOX_PATH_MAX */
    unsigned long flags; /* MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC */
};
#define SANDBOX_PATH_MAX 320

struct sandbox_spec {
    int root_namespace; /* fd of a mount namespace from sandbox_make_root, of which we get a copy of
                         * our own; 0 = none.  Faster than `root`: nothing of the host's mounts is
                         * copied first and dropped afterwards */
    const char *root;   /* directory to become the read-only root by pivot_root (needs a mount
                         * namespace of our own); NULL = keep the root */
    const struct sandbox_mount *mounts; /* all that the root holds, which then is a tmpfs over
                                         * `root`; none = the directory itself */
    size_t mount_count;
    uid_t uid; /* 0 = keep */
    gid_t gid;
    uint64_t keep_capabilities;       /* bit mask of CAP_*; normally 0 */
    uint64_t max_files;               /* RLIMIT_NOFILE; 0 = keep */
    uint64_t max_file_bytes;          /* RLIMIT_FSIZE; 0 = keep.  SIGXFSZ is ignored */
    uint64_t max_processes;           /* RLIMIT_NPROC; 0 = keep */
    const char *hostname;             /* in a UTS namespace of our own; NULL = keep */
    const struct sock_filter *filter; /* from the end of sandbox_enter on: it has to let the exec
                                       * pass (process.h); NULL = none */
    size_t filter_length;
};

/* Root, hostname, rlimits, no core dumps, groups, ids, capabilities (bounding set too),
 * no_new_privs, non-dumpable, filter.  0, or -errno with *ret_step naming what failed
 * ("pivot_root"). */
int sandbox_enter(const struct sandbox_spec *spec, const char **ret_step);

/* An owned fd of a new mount namespace that holds `directory`, read-only, and nothing else.  Not
 * async-signal-safe. */
int sandbox_make_root(const char *directory, struct error *err);

/* Loads a classic BPF seccomp program for the calling thread (no_new_privs must be set). */
int sandbox_filter(const struct sock_filter *program, size_t instructions);
