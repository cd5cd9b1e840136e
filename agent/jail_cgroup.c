#include "agent/jail_cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "agent/config.h"
#include "agent/jail_files.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/path.h"
#include "scheduler/memory_pressure.h"
#include "storage/instance_name.h"

#define REMOVE_TRIES 200 /* of a millisecond: the kernel frees a killed process's cgroup late */

/* Where the unified hierarchy is mounted: "<options> - cgroup2 <source> ..." in mountinfo. */
static int find_mount(char *ret_path, size_t size)
{
    FILE *file = fopen("/proc/self/mountinfo", "re");
    char line[1024];
    int result = -ENOENT;

    if (!file)
        return -errno;
    while (result < 0 && fgets(line, sizeof line, file)) {
        char point[512];

        if (strstr(line, " - cgroup2 ") && sscanf(line, "%*s %*s %*s %*s %511s", point) == 1 &&
            strlen(point) < size) {
            memcpy(ret_path, point, strlen(point) + 1);
            result = 0;
        }
    }
    fclose(file);
    return result;
}

/* A word of those between spaces. */
static bool has_word(const char *text, const char *word)
{
    size_t length = strlen(word);

    for (const char *at = text; (at = strstr(at, word)); at += length)
        if ((at == text || at[-1] == ' ') && strchr(" \n", at[length]))
            return true;
    return false;
}

static const struct {
    const char *name;
    enum jail_controller controller;
} controllers[] = {
    { "memory", JAIL_CONTROLLER_MEMORY },
    { "cpu", JAIL_CONTROLLER_CPU },
    { "io", JAIL_CONTROLLER_IO },
    { "pids", JAIL_CONTROLLER_PIDS },
};

unsigned jail_cgroup_controllers(const struct jail_cgroup *cgroup)
{
    char text[256];
    unsigned have = 0;

    if (cgroup->fd < 0 ||
        path_read_text(cgroup->fd, "cgroup.subtree_control", text, sizeof text) < 0)
        return 0;
    for (size_t i = 0; i < ARRAY_LENGTH(controllers); i++)
        if (has_word(text, controllers[i].name))
            have |= controllers[i].controller;
    return have;
}

bool jail_cgroup_has(const struct jail_cgroup *cgroup, enum jail_controller controller)
{
    return jail_cgroup_controllers(cgroup) & controller;
}

/* Lets leaves have controllers; what the host does not give is a finding, not a failure. */
static void enable_controllers(struct jail_cgroup *cgroup, int parent_fd)
{
    unsigned have;
    size_t used;

    for (size_t i = 0; i < ARRAY_LENGTH(controllers); i++) {
        char request[16];

        snprintf(request, sizeof request, "+%s", controllers[i].name);
        jail_write_text(parent_fd, "cgroup.subtree_control", request);
        jail_write_text(cgroup->fd, "cgroup.subtree_control", request);
    }
    cgroup->controllers = have = jail_cgroup_controllers(cgroup);
    for (size_t i = 0; i < ARRAY_LENGTH(controllers); i++) {
        if (have & controllers[i].controller)
            continue;
        used = strlen(cgroup->finding);
        snprintf(cgroup->finding + used, sizeof cgroup->finding - used, "%s%s",
                 used ? ", " : "cgroup v2 controllers missing: ", controllers[i].name);
    }
    used = strlen(cgroup->finding);
    if (used > 0)
        snprintf(cgroup->finding + used, sizeof cgroup->finding - used,
                 ": VMs have no such limits; see cgroup_disable= of the kernel, and --cgroup");
}

/* What zswap has of guests' memory never reaches a disk (since Linux 6.8).  The group of all has it
 * for who looks; each VM's too, for systemd 256 sets a unit's anew whenever it is reloaded. */
static void keep_zswap(int fd)
{
    jail_write_text(fd, "memory.zswap.writeback", "0");
}

/* A directory elsewhere can be made, too, but would be no cgroup.  What is not there is left to who
 * makes it. */
int jail_cgroup_check(const char *path, struct error *err)
{
    char parent[512];
    struct statfs at;
    int length = (int)(strrchr(path, '/') - path);

    snprintf(parent, sizeof parent, "%.*s/", length, path);
    if ((statfs(path, &at) < 0 && statfs(parent, &at) < 0) || at.f_type == CGROUP2_SUPER_MAGIC)
        return 0;
    return error_field(
        err, EINVAL, "cgroup",
        "cgroup: %s is not in a cgroup v2 hierarchy, as /sys/fs/cgroup mostly is one", path);
}

int jail_cgroup_open(struct jail_cgroup *cgroup, const char *path, const char *prefix,
                     struct error *err)
{
    char parent[512];
    char own[600];
    auto_close int parent_fd = -1;
    int result = 0;

    cgroup->fd = -1;
    cgroup->own[0] = '\0';
    cgroup->finding[0] = '\0';
    cgroup->controllers = 0;
    if (path[0])
        snprintf(own, sizeof own, "%s", path);
    else if (find_mount(parent, sizeof parent) == 0)
        snprintf(own, sizeof own, "%s/%s-vms", parent, prefix);
    else {
        snprintf(cgroup->finding, sizeof cgroup->finding,
                 "no cgroup v2: VMs run without cgroups of their own; boot with "
                 "systemd.unified_cgroup_hierarchy=1");
        return 0;
    }
    result = jail_make_dir(AT_FDCWD, own, 0755, &cgroup->fd, err);
    if (result == -EROFS || result == -EACCES || result == -EPERM) {
        snprintf(cgroup->finding, sizeof cgroup->finding,
                 "cgroup v2 cannot be written: VMs run without cgroups of their own");
        return 0;
    }
    if (result < 0)
        return result;
    if (!path[0])
        memcpy(cgroup->own, own, sizeof own);
    parent_fd = openat(cgroup->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enable_controllers(cgroup, parent_fd);
    keep_zswap(cgroup->fd);
    return 0;
}

void jail_cgroup_close(struct jail_cgroup *cgroup)
{
    if (cgroup->fd >= 0 && cgroup->own[0])
        (void)rmdir(cgroup->own); /* EBUSY while there are leaves */
    cleanup_close(&cgroup->fd);
}

static bool is_stale(const struct jail_cgroup *cgroup)
{
    return cgroup->fd >= 0 && faccessat(cgroup->fd, "cgroup.procs", F_OK, 0) < 0;
}

/* Only who holds its lock removes it; so one that is there once we hold the lock stays. */
int jail_cgroup_take(struct jail_cgroup *cgroup, const struct config *config, struct error *err)
{
    const char *setting = config->cgroup[0] ? "cgroup" : "prefix";
    const char *value = config->cgroup[0] ? config->cgroup : config->prefix;
    int result = config->cgroup[0] ? jail_cgroup_check(config->cgroup, err) : 0;

    if (result < 0)
        return result;
    do {
        cleanup_close(&cgroup->fd);
        result = jail_cgroup_open(cgroup, config->cgroup, config->prefix, err);
        if (result == 0 && cgroup->fd >= 0)
            result = jail_lock_dir(cgroup->fd, setting, value, err);
    } while (result == 0 && is_stale(cgroup));
    if (result < 0)
        cgroup->own[0] = '\0'; /* another's */
    return result;
}

int jail_cgroup_check_there(const struct jail_cgroup *cgroup, struct error *err)
{
    return is_stale(cgroup)
               ? error_set(err, EAGAIN,
                           "the control group of VMs was removed by others: no VM can start before "
                           "there is one again")
               : 0;
}

/* By dup3, so that those who use it at this moment find the old one or the new one. */
int jail_cgroup_renew(struct jail_cgroup *cgroup, const struct config *config, struct error *err)
{
    struct jail_cgroup anew = { .fd = -1 };
    int result = 0;

    if (!is_stale(cgroup))
        return 0;
    if (config->cgroup[0] && access(config->cgroup, F_OK) < 0)
        return error_set(err, ENOENT, "%s is to be made by who gave it", config->cgroup);
    result = jail_cgroup_take(&anew, config, err);
    if (result == 0 && anew.fd < 0)
        result = error_set(err, EROFS, "%s", anew.finding);
    else if (result == 0 && cgroup->controllers & ~anew.controllers)
        result = error_set(err, EBUSY, "the new one lacks controllers that it had");
    else if (result == 0 && dup3(anew.fd, cgroup->fd, O_CLOEXEC) < 0)
        result = error_set(err, errno, "open the new one: %s", strerror(errno));
    if (result == 0)
        cleanup_close(&anew.fd);
    else
        jail_cgroup_close(&anew);
    return result;
}

int jail_cgroup_make(const struct jail_cgroup *cgroup, uint32_t instance, int *ret_fd,
                     struct error *err)
{
    int result;

    *ret_fd = -1;
    if (cgroup->fd < 0)
        return 0;
    result = jail_make_dir(cgroup->fd, instance_name(instance, "").text, 0755, ret_fd, err);
    if (result == -ENOENT && jail_cgroup_check_there(cgroup, err) < 0)
        return -EAGAIN;
    if (result < 0)
        return error_wrap(err, "the VM's cgroup");
    jail_write_text(*ret_fd, "pids.max", "128"); /* more than VMM_PROCESSES_MAX (jail.c) */
    keep_zswap(*ret_fd);
    return 0;
}

int jail_cgroup_remove(const struct jail_cgroup *cgroup, uint32_t instance, struct error *err)
{
    const struct instance_name name = instance_name(instance, "");

    if (cgroup->fd < 0)
        return 0;
    for (int tries = 0; tries < REMOVE_TRIES; tries++) {
        if (unlinkat(cgroup->fd, name.text, AT_REMOVEDIR) == 0 || errno == ENOENT)
            return 0;
        if (errno != EBUSY)
            break;
        jail_cgroup_write(cgroup, instance, "cgroup.kill", "1");
        usleep(1000);
    }
    return error_set(err, errno, "remove the VM's cgroup: %s", strerror(errno));
}

static int read_leaf(const struct jail_cgroup *cgroup, uint32_t instance, const char *file,
                     char *ret_text, size_t size)
{
    char name[40];

    if (cgroup->fd < 0)
        return -ENOENT;
    snprintf(name, sizeof name, "%" PRIu32 "/%s", instance, file);
    return path_read_text(cgroup->fd, name, ret_text, size);
}

/* The number behind a word; 0 if that is not there. */
static uint64_t count_behind(const char *text, const char *word)
{
    const char *found = strstr(text, word);

    return found ? strtoull(found + strlen(word), NULL, 10) : 0;
}

/* The same of a leaf's file. */
static uint64_t read_count(const struct jail_cgroup *cgroup, uint32_t instance, const char *file,
                           const char *word)
{
    char text[512];

    return read_leaf(cgroup, instance, file, text, sizeof text) < 0 ? 0 : count_behind(text, word);
}

uint64_t jail_cgroup_oom_kills(const struct jail_cgroup *cgroup, uint32_t instance)
{
    return read_count(cgroup, instance, "memory.events", "oom_kill ");
}

uint64_t jail_cgroup_throttled_us(const struct jail_cgroup *cgroup, uint32_t instance)
{
    return read_count(cgroup, instance, "cpu.stat", "throttled_usec ");
}

uint64_t jail_cgroup_held_bytes(const struct jail_cgroup *cgroup, uint32_t instance)
{
    char text[512]; /* both are among the first */

    if (read_leaf(cgroup, instance, "memory.stat", text, sizeof text) < 0)
        return 0;
    return count_behind(text, "anon ") + count_behind(text, "shmem ");
}

bool jail_cgroup_keeps_zswap(const struct jail_cgroup *cgroup)
{
    char text[8] = "";

    return cgroup->fd >= 0 &&
           path_read_text(cgroup->fd, "memory.zswap.writeback", text, sizeof text) == 0 &&
           text[0] == '0';
}

int jail_cgroup_write(const struct jail_cgroup *cgroup, uint32_t instance, const char *file,
                      const char *text)
{
    char name[40];

    if (cgroup->fd < 0)
        return -ENOENT;
    snprintf(name, sizeof name, "%" PRIu32 "/%s", instance, file);
    return jail_write_text(cgroup->fd, name, text);
}

void jail_cgroup_see_memory(const struct jail_cgroup *cgroup, uint32_t instance,
                            struct jail_memory *ret_memory)
{
    struct jail_memory memory = { 0 };
    char text[256];

    if (read_leaf(cgroup, instance, "memory.pressure", text, sizeof text) == 0)
        memory.psi_permille = memory_pressure_permille(text);
    if (read_leaf(cgroup, instance, "memory.swap.current", text, sizeof text) == 0)
        memory.swapped_mib = (uint32_t)(strtoull(text, NULL, 10) >> 20);
    *ret_memory = memory;
}
