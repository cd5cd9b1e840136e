/* jail_cgroup.h - one cgroup v2 leaf per VM, below one parent of the agent's.  Where there is no
 * cgroup v2, VMs run without and the node says so.  Any thread, but for what makes and removes: who
 * starts and ends the agent, then the launch worker, which may renew it, too. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "agent/jail_share.h"

struct config;
struct error;

/* The controllers that leaves are to have. */
enum jail_controller {
    JAIL_CONTROLLER_MEMORY = 1,
    JAIL_CONTROLLER_CPU = 2,
    JAIL_CONTROLLER_IO = 4,
    JAIL_CONTROLLER_PIDS = 8,
};

struct jail_cgroup {
    int fd;               /* the parent; -1 = there is no cgroup v2 */
    unsigned controllers; /* that leaves had when it was opened */
    char own[600];        /* the parent's path, if it is of our making; "" = it was given */
    char finding[160];    /* what is missing; "" = nothing */
    char io_device[JAIL_IO_DEVICE_TEXT]; /* that io.max limits; "" = none */
};

/* What an operator set: -EINVAL if it is no cgroup. */
int jail_cgroup_check(const char *path, struct error *err);
/* path: "" = <prefix>-vms in the root of the hierarchy. */
int jail_cgroup_open(struct jail_cgroup *cgroup, const char *path, const char *prefix,
                     struct error *err);
/* Removes the parent, unless VMs are left in it or it was given, and closes it. */
void jail_cgroup_close(struct jail_cgroup *cgroup);
/* That, as it is configured, for this agent alone: another's is refused. */
int jail_cgroup_take(struct jail_cgroup *cgroup, const struct config *config, struct error *err);
/* 0, or -EAGAIN: it has been removed since it was opened.  Any thread. */
int jail_cgroup_check_there(const struct jail_cgroup *cgroup, struct error *err);
/* Where it has been: takes another in its place, with the same controllers, which it makes unless
 * the path was given: there may be a reason why its owner, who alone knows, did not. */
int jail_cgroup_renew(struct jail_cgroup *cgroup, const struct config *config, struct error *err);
/* *ret_fd: owned, or -1 without cgroups. */
int jail_cgroup_make(const struct jail_cgroup *cgroup, uint32_t instance, int *ret_fd,
                     struct error *err);
/* Kills what is in it, then removes it; 0 if it is not there. */
int jail_cgroup_remove(const struct jail_cgroup *cgroup, uint32_t instance, struct error *err);
/* Those of them that leaves have; reads a file. */
unsigned jail_cgroup_controllers(const struct jail_cgroup *cgroup);
bool jail_cgroup_has(const struct jail_cgroup *cgroup, enum jail_controller controller);
/* Whether zswap keeps what it has of VMs' memory in RAM. */
bool jail_cgroup_keeps_zswap(const struct jail_cgroup *cgroup);
/* Writes to a file of the leaf, what it may have then: 0 or -errno.  memory.reclaim returns when it
 * is done, or -EAGAIN.  Any thread. */
int jail_cgroup_write(const struct jail_cgroup *cgroup, uint32_t instance, const char *file,
                      const char *text);
/* What the host's kernel says of a VM's memory; 0 where that cannot be told.  Any thread. */
struct jail_memory {
    uint32_t psi_permille; /* of the last 10 s in which the VM waited for memory */
    uint32_t swapped_mib;  /* of it, by the host */
};
void jail_cgroup_see_memory(const struct jail_cgroup *cgroup, uint32_t instance,
                            struct jail_memory *ret_memory);
/* What it has in RAM that is no file's on a disk, whether its process has mapped it or not; 0 where
 * that cannot be told.  Any thread. */
uint64_t jail_cgroup_held_bytes(const struct jail_cgroup *cgroup, uint32_t instance);
/* For how long its cpu.max held it back, in all; 0 where that cannot be told.  Any thread. */
uint64_t jail_cgroup_throttled_us(const struct jail_cgroup *cgroup, uint32_t instance);
uint64_t jail_cgroup_oom_kills(const struct jail_cgroup *cgroup, uint32_t instance);
