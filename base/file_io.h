/* file_io.h - all of it, where pread(2) and pwrite(2) may do a part.  Any thread; may wait for the
 * disk.  By preadv and pwritev, which a VMM may still call once it is confined. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* 0, -EIO if the file ends before that, else -errno. */
int file_read_all(int fd, void *ret_bytes, size_t size, uint64_t offset);
/* 0, else -errno; some of it may be written then. */
int file_write_all(int fd, const void *bytes, size_t size, uint64_t offset);
