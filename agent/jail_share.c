#include "agent/jail_share.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "agent/jail_cgroup.h"
#include "base/error.h"
#include "base/path.h"

#define BFQ_WEIGHT_MAX 1000

static const struct {
    const char *name;
    enum jail_controller controller;
} files[JAIL_SHARE_FILE_COUNT] = {
    [JAIL_SHARE_CPU_WEIGHT] = { "cpu.weight", JAIL_CONTROLLER_CPU },
    [JAIL_SHARE_CPU_MAX] = { "cpu.max", JAIL_CONTROLLER_CPU },
    [JAIL_SHARE_IO_WEIGHT] = { "io.weight", JAIL_CONTROLLER_IO },
    [JAIL_SHARE_IO_BFQ_WEIGHT] = { "io.bfq.weight", JAIL_CONTROLLER_IO },
    [JAIL_SHARE_IO_MAX] = { "io.max", JAIL_CONTROLLER_IO },
};

const struct jail_share jail_share_default = { .cpu_weight = 100, .io_weight = 100 };

bool jail_share_is_same(const struct jail_share *a, const struct jail_share *b)
{
    return a->cpu_weight == b->cpu_weight && a->io_weight == b->io_weight &&
           a->cpu_limit_percent == b->cpu_limit_percent &&
           a->io_limit.read_bytes == b->io_limit.read_bytes &&
           a->io_limit.write_bytes == b->io_limit.write_bytes &&
           a->io_limit.read_operations == b->io_limit.read_operations &&
           a->io_limit.write_operations == b->io_limit.write_operations;
}

static bool limits_io(const struct jail_share *share)
{
    const struct jail_io_limit *limit = &share->io_limit;

    return limit->read_bytes || limit->write_bytes || limit->read_operations ||
           limit->write_operations;
}

static bool is_cap(const struct jail_share *share, enum jail_share_file file)
{
    return (file == JAIL_SHARE_CPU_MAX && share->cpu_limit_percent > 0) ||
           (file == JAIL_SHARE_IO_MAX && limits_io(share));
}

/* --- as the kernel takes them --- */

static void append_rate(char text[JAIL_SHARE_TEXT], const char *name, uint64_t rate)
{
    size_t used = strlen(text);

    if (rate > 0)
        snprintf(text + used, JAIL_SHARE_TEXT - used, " %s=%" PRIu64, name, rate);
    else
        snprintf(text + used, JAIL_SHARE_TEXT - used, " %s=max", name);
}

void jail_share_text(const struct jail_share *share, const char *device, enum jail_share_file file,
                     char ret_text[JAIL_SHARE_TEXT])
{
    const struct jail_io_limit *io = &share->io_limit;
    unsigned bfq = share->io_weight < BFQ_WEIGHT_MAX ? share->io_weight : BFQ_WEIGHT_MAX;

    ret_text[0] = '\0';
    if (file == JAIL_SHARE_CPU_WEIGHT) {
        snprintf(ret_text, JAIL_SHARE_TEXT, "%u", share->cpu_weight);
    } else if (file == JAIL_SHARE_CPU_MAX && share->cpu_limit_percent == 0) {
        snprintf(ret_text, JAIL_SHARE_TEXT, "max %d", JAIL_CPU_PERIOD_US);
    } else if (file == JAIL_SHARE_CPU_MAX) {
        snprintf(ret_text, JAIL_SHARE_TEXT, "%" PRIu64 " %d",
                 (uint64_t)share->cpu_limit_percent * (JAIL_CPU_PERIOD_US / 100),
                 JAIL_CPU_PERIOD_US);
    } else if (file == JAIL_SHARE_IO_WEIGHT || file == JAIL_SHARE_IO_BFQ_WEIGHT) {
        snprintf(ret_text, JAIL_SHARE_TEXT, "default %u",
                 file == JAIL_SHARE_IO_WEIGHT ? share->io_weight : bfq);
    } else if (device[0]) {
        snprintf(ret_text, JAIL_SHARE_TEXT, "%s", device);
        append_rate(ret_text, "rbps", io->read_bytes);
        append_rate(ret_text, "wbps", io->write_bytes);
        append_rate(ret_text, "riops", io->read_operations);
        append_rate(ret_text, "wiops", io->write_operations);
    }
}

/* --- the host --- */

/* One that is not there yet will be where the nearest directory above it is. */
static int find_directory(const char *directory, struct stat *ret_status)
{
    char path[PATH_MAX];
    char *slash;

    snprintf(path, sizeof path, "%s", directory);
    while (stat(path, ret_status) < 0) {
        slash = strrchr(path, '/');
        if (errno != ENOENT || !slash)
            return -errno;
        slash[slash == path] = '\0'; /* "/" stays */
    }
    return 0;
}

void jail_share_device(const char *directory, char ret_device[JAIL_IO_DEVICE_TEXT])
{
    char path[64], text[JAIL_IO_DEVICE_TEXT];
    struct stat status;

    ret_device[0] = '\0';
    if (find_directory(directory, &status) < 0 || major(status.st_dev) == 0)
        return;
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u/partition", major(status.st_dev),
             minor(status.st_dev));
    if (access(path, F_OK) < 0) {
        snprintf(ret_device, JAIL_IO_DEVICE_TEXT, "%u:%u", major(status.st_dev),
                 minor(status.st_dev));
        return;
    }
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u/../dev", major(status.st_dev),
             minor(status.st_dev));
    if (path_read_text(AT_FDCWD, path, text, sizeof text) == 0)
        snprintf(ret_device, JAIL_IO_DEVICE_TEXT, "%.*s", (int)strcspn(text, "\n"), text);
}

static int check(const struct jail_cgroup *cgroup, unsigned controllers,
                 const struct jail_share *share, struct error *err)
{
    if (share->cpu_limit_percent > 0 && !(controllers & JAIL_CONTROLLER_CPU))
        return error_field(err, ENOEXEC, "cpu_limit_percent",
                           "cpu_limit_percent: this host's VMs have no cpu controller of cgroup "
                           "v2: leave it out, or "
                           "see to the finding cgroup of GET /v1/node");
    if (limits_io(share) && !(controllers & JAIL_CONTROLLER_IO))
        return error_field(err, ENOEXEC, "io_limit",
                           "io_limit: this host's VMs have no io controller of cgroup v2: take the "
                           "disks' rate_limit, or see to the finding cgroup of GET /v1/node");
    if (limits_io(share) && !cgroup->io_device[0])
        return error_field(err, ENOEXEC, "io_limit",
                           "io_limit: the volumes of this host are on no disk of their own that "
                           "the kernel could limit: take the disks' rate_limit, or have the state "
                           "directory on a disk");
    return 0;
}

int jail_share_check(const struct jail_cgroup *cgroup, const struct jail_share *share,
                     struct error *err)
{
    bool has_cap = share->cpu_limit_percent > 0 || limits_io(share);

    return check(cgroup, has_cap ? jail_cgroup_controllers(cgroup) : 0, share, err);
}

int jail_share_write(const struct jail_cgroup *cgroup, uint32_t instance,
                     const struct jail_share *share, struct error *err)
{
    unsigned controllers = jail_cgroup_controllers(cgroup);
    int first = check(cgroup, controllers, share, err);

    for (int file = 0; file < JAIL_SHARE_FILE_COUNT; file++) {
        char text[JAIL_SHARE_TEXT];
        int result;

        jail_share_text(share, cgroup->io_device, (enum jail_share_file)file, text);
        if (!text[0] || !(controllers & files[file].controller))
            continue;
        result = jail_cgroup_write(cgroup, instance, files[file].name, text);
        if (result < 0 && first == 0 && is_cap(share, (enum jail_share_file)file))
            first = error_set(err, -result, "write %s of the VM's cgroup: %s", files[file].name,
                              strerror(-result));
    }
    return first;
}
