/* io_vector.h - arithmetic on struct iovec arrays that point into guest memory.  Pure; any thread.
 *
 * Offsets and sizes are bytes.  The bytes behind the vectors belong to the guest and may change at
 * any moment: copy once, then judge the copy. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

uint64_t io_vector_bytes(const struct iovec *vectors, unsigned count);

/* Copy `size` bytes at `offset` out of or into the vectors; false (nothing copied) if they are
 * shorter. */
bool io_vector_read(const struct iovec *vectors, unsigned count, uint64_t offset, void *to,
                    size_t size);
bool io_vector_write(const struct iovec *vectors, unsigned count, uint64_t offset, const void *from,
                     size_t size);

/* Cuts the vectors, in place, to [offset, offset+size) and returns how many are left.  What lies
 * outside is dropped; an offset behind the end leaves none. */
unsigned io_vector_slice(struct iovec *vectors, unsigned count, uint64_t offset, uint64_t size);
