/* boot_file.h - bytes of a kernel or initrd file on their way into guest memory.  Main thread. */
#pragma once
#include <stdint.h>

struct error;
struct guest_memory;

#define BOOT_PAGE_BYTES 4096ull

/* Size of a regular, not empty file. */
int boot_file_size(int fd, const char *what, uint64_t *ret_bytes, struct error *err);
/* Exactly `size` bytes from `offset`; -EIO if the file ends before. */
int boot_file_read(int fd, uint64_t offset, void *to, uint64_t size, const char *what,
                   struct error *err);
/* The file's range [offset, offset+size) to `guest`: in anonymous memory whole pages are mapped
 * copy-on-write where the offset and the address agree within a page; the rest is read. */
int boot_file_load(int fd, uint64_t offset, uint64_t size, struct guest_memory *memory,
                   uint64_t guest, const char *what, struct error *err);
