/* disk_raw.h - a disk that is a plain (sparse) file, byte for byte; synchronous: preadv, pwritev,
 * fdatasync and fallocate on the loop's thread.  The content is never interpreted. */
#pragma once

struct disk;
struct error;

/* fd is borrowed.  The file is at least as long as the disk and is never resized here. */
int disk_raw_new(int fd, struct disk **ret_disk, struct error *err);
