/* jail_share.h - what a VM gets of the host's CPUs and disks: weights and caps, which the kernel
 * keeps by files of its cgroup (cgroup v2: cpu.weight, cpu.max, io.weight, io.max).
 *
 * A weight counts where others want the same, and is what a host without the controller does
 * without; a cap that such a host could not keep is refused. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct jail_cgroup;

#define JAIL_WEIGHT_MAX     10000
#define JAIL_CPU_LIMIT_MAX  102400 /* percent of one CPU */
#define JAIL_SHARE_TEXT     128
#define JAIL_CPU_PERIOD_US  100000 /* cpu.max's */
#define JAIL_IO_DEVICE_TEXT 24     /* "MAJOR:MINOR" */

enum jail_share_file {
    JAIL_SHARE_CPU_WEIGHT,
    JAIL_SHARE_CPU_MAX,
    JAIL_SHARE_IO_WEIGHT,
    JAIL_SHARE_IO_BFQ_WEIGHT, /* of hosts whose disks have that scheduler */
    JAIL_SHARE_IO_MAX,
    JAIL_SHARE_FILE_COUNT
};

struct jail_share {
    unsigned cpu_weight, io_weight; /* 1 to JAIL_WEIGHT_MAX; the kernel's own is 100 */
    unsigned cpu_limit_percent;     /* of one CPU; 0 = none */
    struct jail_io_limit {
        uint64_t read_bytes, write_bytes, read_operations,
            write_operations; /* a second; 0 = none */
    } io_limit;
};

/* As the kernel makes a cgroup: no weight but its own, no cap. */
extern const struct jail_share jail_share_default;
bool jail_share_is_same(const struct jail_share *a, const struct jail_share *b);

/* Pure.  device: as jail_share_device finds it; "" leaves JAIL_SHARE_IO_MAX empty. */
void jail_share_text(const struct jail_share *share, const char *device, enum jail_share_file file,
                     char ret_text[JAIL_SHARE_TEXT]);

/* The disk that holds the absolute directory, or will once that is made, for io.max takes no
 * partitions; "" = it is on none (tmpfs, overlays, file systems of many disks). */
void jail_share_device(const char *directory, char ret_device[JAIL_IO_DEVICE_TEXT]);

/* -ENOEXEC with the field: this host could not keep a cap that is set. */
int jail_share_check(const struct jail_cgroup *cgroup, const struct jail_share *share,
                     struct error *err);
/* -errno if a cap that is set could not be written.  Any thread. */
int jail_share_write(const struct jail_cgroup *cgroup, uint32_t instance,
                     const struct jail_share *share, struct error *err);
