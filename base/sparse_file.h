/* sparse_file.h - writing and copying files so that zeros cost nothing: holes stay holes, and whole
 * blocks of zeros become holes.  Any thread; functions block on the disk. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

#define SPARSE_BLOCK_BYTES 4096

bool sparse_is_zero(const void *bytes, size_t size);

/* Writes at `offset`, but leaves out every whole aligned block of zeros: the file must be a hole
 * there.  The caller sets the final length (ftruncate).  0 or -errno. */
int sparse_write(int fd, const void *bytes, size_t size, uint64_t offset);

/* The next stretch with data in [offset, size): 1 with its bounds, 0 if only holes follow, -errno.
 * Where the file system knows no holes, everything is data. */
int sparse_next_data(int fd, uint64_t offset, uint64_t size, uint64_t *ret_start,
                     uint64_t *ret_end);

/* Where in [offset, size) the first data is; size = nowhere, offset = not known.  For who reads on
 * from there: to find where it ends takes some file systems 20 ms a GiB (tmpfs, page by page). */
uint64_t sparse_find_data(int fd, uint64_t offset, uint64_t size);

/* Is sparse_next_data exact for this file, which is one hole of at least 16 KiB and stays that?  0;
 * -EOPNOTSUPP if zeroes may be told from holes only in larger pieces, or not at all. */
int sparse_check_exact(int fd);

/* Makes the empty file `to` share all blocks of `from`.  0; -EOPNOTSUPP if these two files cannot
 * (other file system, or one without reflinks), and `to` is unchanged; else -errno. */
int sparse_clone(int from, int to);

/* done: bytes of `size` copied or skipped so far.  A negative return stops the copy with it. */
typedef int sparse_progress_fn(void *context, uint64_t done, uint64_t size);

/* Could the empty file `to` share the blocks of `from` (as sparse_clone)?  `to` stays empty. */
bool sparse_can_clone(int from, int to);

/* Makes `to`, an empty file, equal to the first `size` bytes of `from`: shared blocks where they
 * can be, else a copy of the data only.  progress may be NULL.  -EIO if `from` shrinks under us. */
int sparse_copy(int from, int to, uint64_t size, sparse_progress_fn *progress, void *context,
                struct error *err);

/* The same into one hole of that size, from what does not shrink, by reads and writes alone: all
 * that some filters allow. */
int sparse_copy_by_hand(int from, int to, uint64_t size);

/* Makes [start, end), whole blocks or up to the end of `from`, of `to` equal to that of `from`.
 * -EOPNOTSUPP, and nothing is done, where the file system cannot punch holes. */
int sparse_copy_anew(int from, int to, uint64_t start, uint64_t end, sparse_progress_fn *progress,
                     void *context);
