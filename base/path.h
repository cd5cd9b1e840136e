/* path.h - files that somebody else names, kept below directories that we chose.  Any thread. */
#pragma once
#include <stddef.h>

struct error;

/* What of the absolute `path` is below `dir`; NULL if it is not. */
const char *path_below(const char *path, const char *dir);
/* Opens dir/path: neither symbolic links nor ".." nor mount tricks lead out (-ELOOP, -EXDEV). Owned
 * fd, else -errno. */
int path_open_below(const char *dir, const char *path, int flags);
/* Opens a regular file, neither a link nor what a FIFO's other end could hold us by; flags:
 * O_RDONLY or O_RDWR, O_DIRECT.  Owned fd, else -errno (-EINVAL: it is no regular file) and why
 * `what` was not opened. */
int path_open_regular(int dir_fd, const char *name, int flags, const char *what, struct error *err);
/* Such a file as a string, cut at size - 1, as one read has it: one of the kernel's.  0 or -errno.
 */
int path_read_text(int dir_fd, const char *name, char *ret_text, size_t size);
