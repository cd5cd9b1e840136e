/* disk_raw.h - a disk that is a plain (sparse) file, byte for byte; synchronous: preadv, pwritev,
 * fdatasync and fallocate on the loop's thread.  The content is never interpreted. */
#pragma once
#include "vmm/disk.h"

struct error;

/* fd is borrowed.  The file is at least as long as the disk and is never resized here. */
int disk_raw_new(int fd, struct disk **ret_disk, struct error *err);

/* At once and whole; 0 or -errno.  DISK_READ or else a write; -EIO where the file ends; the vectors
 * are changed.  mode: of fallocate; the file keeps its size. */
int disk_raw_transfer(int fd, enum disk_operation operation, struct iovec *vectors, unsigned count,
                      uint64_t offset);
int disk_raw_allocate(int fd, int mode, uint64_t offset, uint64_t size);
