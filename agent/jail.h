/* jail.h - where a VM's process lives: its directory below the run directory, its cgroup, its user
 * and namespaces.  After jail_new read-only, so any thread may use it, but for jail_prepare and
 * jail_start, which only the launch worker does; what else waits runs there, too.
 *
 *   <run-dir>/empty              the empty directory that becomes every VMM's root
 *   <run-dir>/vms/<instance>/    control.sock, page (vmm/stats_page.h), process (its identity), and
 *                                log, a pipe while the VMM lives, then a file of what was in it
 *   <cgroup>/<instance>/         the leaf, where cgroup v2 is there */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "agent/jail_cgroup.h"
#include "base/process.h"
#include "vmm/control_protocol.h"
#include "vmm/stats_page.h"

struct config;
struct error;
struct jail;

/* Users of the agent's range below those of VMs. */
enum jail_user { JAIL_USER_API, JAIL_USER_FETCH, JAIL_USER_DNSMASQ, JAIL_USER_VMS = 16 };

/* config: borrowed. */
int jail_new(const struct config *config, struct jail **ret_jail, struct error *err);
struct jail *jail_free(struct jail *jail); /* accepts NULL */

int jail_run_dir_fd(const struct jail *jail);         /* borrowed */
const char *jail_empty_root(const struct jail *jail); /* borrowed; absolute path */
uid_t jail_user(const struct jail *jail, enum jail_user user);
uid_t jail_vm_user(const struct jail *jail, uint32_t instance);
/* What VMs' cgroups are in, for its readers; borrowed. */
const struct jail_cgroup *jail_cgroups(const struct jail *jail);
/* What the host lacks for full confinement ("" = nothing); borrowed. */
static inline const char *jail_cgroup_finding(const struct jail *jail)
{
    return jail_cgroups(jail)->finding;
}

/* 0, or -EAGAIN: others removed it, and no VM can start.  A system call, which does not wait. */
int jail_check_cgroup(const struct jail *jail, struct error *err);
/* Mends that, if it can be.  Launch worker. */
int jail_renew_cgroup(struct jail *jail, struct error *err);

/* May the file size limit of a VMM that runs be raised (jail_limit.h)? */
bool jail_may_raise_limits(const struct jail *jail);
/* What KVM supports here, asked once; count 0 while there is no KVM.  Borrowed. */
const struct vmm_cpuid *jail_cpuid(const struct jail *jail);

/* A program of ours from the libexec directory.  Owned fd. */
int jail_open_program(const struct jail *jail, const char *name, struct error *err);

struct jail_process {
    pid_t pid;
    int pidfd;              /* owned */
    int control_fd;         /* owned; connected to the VMM's listener before it was started */
    int page_fd;            /* owned; to be passed on */
    int log_fd;             /* owned; to be kept open until jail_keep_log */
    struct vmm_rings rings; /* that it has inherited, for CONFIGURE */
};

struct jail_spec {
    const char *hostname;    /* borrowed */
    uint64_t max_file_bytes; /* of the largest file that it may write to; none becomes larger */
    unsigned disk_places;    /* below which those are that it begins with */
    struct jail_share share;
    /* What else is to be made ready while the process becomes a VMM; -errno ends the start. */
    int (*meanwhile)(void *context, struct error *err);
    void *context;
};

#define JAIL_LOG_BYTES 65536 /* of a VMM's log */

/* Makes the rings of the next VM, and its namespaces, a network's with them, by moving the calling
 * thread into them: half a millisecond that its start does not take then.  Without it a start makes
 * its own. */
void jail_prepare(struct jail *jail);

/* Makes directory, page, cgroup and socket, starts the VMM in them (waiting for CONFIGURE), and
 * notes its identity.  If we end before CONFIGURE, the next agent finds it unconfigured and ends
 * it. On failure nothing is left but the directory. */
int jail_start(struct jail *jail, uint32_t instance, const struct jail_spec *spec,
               struct jail_process *ret_process, struct error *err);
/* The log of one that an earlier agent started.  Owned fd, or -1. */
int jail_open_log(const struct jail *jail, uint32_t instance);
/* The process is gone: what it logged becomes a file.  log_fd: borrowed; -1 = that is lost. */
void jail_keep_log(const struct jail *jail, uint32_t instance, int log_fd);
/* The process is gone: cgroup, socket and identity too; page and log stay for reading. */
int jail_clean_up(const struct jail *jail, uint32_t instance, struct error *err);
/* And the directory. */
int jail_remove(const struct jail *jail, uint32_t instance, struct error *err);

/* The identity noted at start, if a VMM was started and not cleaned up; -ENOENT. */
int jail_identity(const struct jail *jail, uint32_t instance, struct process_identity *ret_identity,
                  struct error *err);
int jail_connect(const struct jail *jail, uint32_t instance, struct error *err);
/* Instances that have a directory or a cgroup; malloc'ed array. */
int jail_list(const struct jail *jail, uint32_t **ret_instances, size_t *ret_count,
              struct error *err);

/* The shared page's first part as it is now: jail_read_open_page. */
int jail_read_page(const struct jail *jail, uint32_t instance, struct stats_page *ret_page);
/* Owned fd of the page, to read from; -errno (-ENOENT before the first start). */
int jail_open_page(const struct jail *jail, uint32_t instance);
/* The last `tail` bytes of the console, malloc'ed: none before the first start, or of a page that
 * is damaged.  -EIO: it cannot be opened. */
int jail_read_console(const struct jail *jail, uint32_t instance, size_t tail, char **ret_bytes,
                      size_t *ret_size, struct error *err);
/* Sets its memory.low, which counts as far as that of JAIL_ALL_VMS together has room for it;
 * 0 = none.  At once: it is a number.  Without the controller this and the next two do nothing.
 * Any thread. */
void jail_set_memory_low(const struct jail *jail, uint32_t instance, uint64_t low_mib);
#define JAIL_ALL_VMS 0 /* instances begin at 1 */
/* Sets its memory.high; 0 = none.  Takes seconds where memory is short, as the next does. */
void jail_set_memory_high(const struct jail *jail, uint32_t instance, uint32_t high_mib);
/* Takes so much of its memory, as far as the kernel finds it. */
void jail_reclaim_memory(const struct jail *jail, uint32_t instance, uint32_t mib);
