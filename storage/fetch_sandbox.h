/* fetch_sandbox.h - leaving the host: a root with three small files, no capabilities, a system call
 * filter.  warren-fetch, before its first byte of the source; needs root and a mount namespace. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct error;

struct fetch_sandbox_spec {
    const char *root; /* borrowed; an empty directory; a small tmpfs is mounted over it, in our
                       * mount namespace only */
    uid_t uid;        /* not 0 */
    gid_t gid;
    uint64_t max_file_bytes;
    bool network; /* sockets and threads; name look-up needs etc/resolv.conf and etc/hosts */
};

/* Returns with everything in force, for this thread and those it starts later. */
int fetch_sandbox_enter(const struct fetch_sandbox_spec *spec, struct error *err);
