/* path.h - files that somebody else names, kept below directories that we chose.  Any thread. */
#pragma once

/* What of the absolute `path` is below `dir`; NULL if it is not. */
const char *path_below(const char *path, const char *dir);
/* Opens dir/path: neither symbolic links nor ".." nor mount tricks lead out (-ELOOP, -EXDEV). Owned
 * fd, else -errno. */
int path_open_below(const char *dir, const char *path, int flags);
