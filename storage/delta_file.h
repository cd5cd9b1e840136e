/* delta_file.h - making, judging and growing the files of delta volumes (base/delta_format.h).
 * Functions block on the disk; nothing is locked or closed here. */
#pragma once
#include <stdint.h>

struct error;

/* Makes the empty file `fd` a delta of size_bytes (whole blocks) in which nothing was written yet:
 * one block on disk.  base_bytes: the length of the base's file, at most size_bytes.  Not synced.
 */
int delta_file_init(int fd, uint64_t size_bytes, uint64_t base_bytes, const char *base_uid,
                    struct error *err);
/* Of one whose disk has size_bytes now, however it came to have them. */
uint64_t delta_file_bytes_max(uint64_t size_bytes);
/* 0 if it is a delta over that base, else -EINVAL with the reason.  Its bitmap is judged by who
 * loads it. */
int delta_file_check(int fd, int base_fd, const char *base_uid, struct error *err);
/* Where the disk begins in its file, in bytes.  -EINVAL if it is no delta. */
int delta_file_start(int fd, uint64_t *ret_start, struct error *err);
/* May it grow so far?  As the next, and nothing is changed. */
int delta_file_check_growth(int fd, uint64_t size_bytes, struct error *err);
/* Durably; size_bytes: whole blocks, not less than it has (-EINVAL); -EFBIG if its bitmap has no
 * room for so many, or the file system no such files; both with field "spec.size_mib".  After a
 * power cut it has the one size or the other. */
int delta_file_grow(int fd, uint64_t size_bytes, struct error *err);
