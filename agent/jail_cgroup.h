/* jail_cgroup.h - one cgroup v2 leaf per VM, below one parent of the agent's.  Where there is no
 * cgroup v2, VMs run without and the node says so.  Launch worker, but for the two readers. */
#pragma once
#include <stdint.h>

struct error;

struct jail_cgroup {
    int fd;            /* the parent; -1 = there is no cgroup v2 */
    char finding[160]; /* what is missing; "" = nothing */
};

/* path: "" = <prefix>-vms in the root of the hierarchy. */
int jail_cgroup_open(struct jail_cgroup *cgroup, const char *path, const char *prefix,
                     struct error *err);
/* *ret_fd: owned, or -1 without cgroups. */
int jail_cgroup_make(const struct jail_cgroup *cgroup, uint32_t instance, int *ret_fd,
                     struct error *err);
/* Kills what is in it, then removes it; 0 if it is not there. */
int jail_cgroup_remove(const struct jail_cgroup *cgroup, uint32_t instance, struct error *err);
uint64_t jail_cgroup_oom_kills(const struct jail_cgroup *cgroup, uint32_t instance);
