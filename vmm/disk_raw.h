/* disk_raw.h - a disk that is a plain (sparse) file, byte for byte.  The content is never
 * interpreted.
 *
 * By a ring (uring.h), so that the loop's thread does not wait; and by system calls, which do,
 * where there is no ring, for what the ring could not finish, and for small writes to the page
 * cache (ten times faster so on ext4).  O_DIRECT of the file is
 * respected, but requests that are not aligned to 4096 bytes go through the page cache. */
#pragma once
#include "vmm/disk.h"

struct error;

struct uring;

/* fd and ring are borrowed; ring: NULL = none, all is done by system calls; several disks of one
 * lock may share it, and then each one's run and drain are theirs, too.  The file is at least as
 * long as the disk and is never resized here. */
int disk_raw_new(int fd, struct uring *ring, struct disk **ret_disk, struct error *err);

/* At once and whole; 0 or -errno.  DISK_READ or else a write; -EIO where the file ends; the vectors
 * are changed.  mode: of fallocate; the file keeps its size. */
int disk_raw_transfer(int fd, enum disk_operation operation, struct iovec *vectors, unsigned count,
                      uint64_t offset);
int disk_raw_allocate(int fd, int mode, uint64_t offset, uint64_t size);
/* fdatasync; 0 or -EIO, whatever it was (disk.h).  Once one has failed, all do, also those of the
 * disk's requests: the kernel tells an error once, and forgets what it could not write, so that the
 * next would succeed over a loss that nobody was told of. */
int disk_raw_sync(struct disk *disk);
