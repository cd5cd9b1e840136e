/* fetch_unpack.h - from a kernel as distributions ship it to one that need not unpack itself.
 * warren-fetch, one thread, inside its sandbox. */
#pragma once
#include <stdint.h>
#include "storage/fetch_protocol.h"

struct error;

/* `output` holds a kernel of `size` bytes, as it came.  An ELF stays if it has a PVH entry.  A
 * bzImage becomes the vmlinux in it, if that has one; else it stays, if it has a 64-bit entry.
 * Everything else is refused: -EINVAL, field "spec.source". */
int fetch_unpack_kernel(int output, uint64_t size, uint64_t *ret_size,
                        enum kernel_format *ret_format, struct error *err);
