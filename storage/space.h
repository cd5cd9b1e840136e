/* space.h - may the node promise more disk?  Sparse files are promises: what guests may write
 * counts, not what is on disk today. */
#pragma once
#include <stdint.h>

struct error;

/* Pure.  0 if promised + wanted <= filesystem * ratio_percent / 100, else -ENOSPC with the numbers
 * and `field` to blame.  Sums that overflow are refused. */
int space_admit(uint64_t filesystem_bytes, uint64_t ratio_percent, uint64_t promised_bytes,
                uint64_t wanted_bytes, const char *field, struct error *err);

/* Size, and what is free for us, of the file system a directory is on. */
int space_filesystem(int dir_fd, uint64_t *ret_bytes, uint64_t *ret_free_bytes, struct error *err);

/* Pure.  -ENOSPC with the numbers if so much cannot be written now. */
int space_check_free(uint64_t free_bytes, uint64_t wanted_bytes, struct error *err);

/* -EFBIG with field "spec.size_mib" if the file cannot be so long: what a volume's disk has, behind
 * what comes before it.  Moves the file's offset. */
int space_check_length(int fd, uint64_t start_bytes, uint64_t size_bytes, struct error *err);
