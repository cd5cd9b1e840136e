/* disk_delta.h - a delta file over a base (base/delta_format.h).  What changes no bit and lies in
 * one of the two files goes to that file's engine as it is; the rest is done at once. */
#pragma once
#include <stdint.h>
#include "vmm/disk_raw.h"

struct disk;
struct error;

/* fds and ring (disk_raw.h), which is for both, are borrowed and outlive the disk; base is only
 * read.  -EINVAL with the reason if they are no delta of size_bytes or more and its base.  It may
 * grow as far as its bitmap has room. */
int disk_delta_new(int base_fd, int delta_fd, struct uring *ring, uint64_t size_bytes,
                   struct disk **ret_disk, struct error *err);
