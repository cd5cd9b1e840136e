/* directory.h - what is in a directory, and that it goes.  Any thread; may wait for the disk. */
#pragma once

/* Calls `each` for every entry of at_fd/name but "." and "..", with the directory's fd (borrowed),
 * until it returns other than 0, and returns that.  -errno if the directory cannot be read whole.
 * `name` may be ".": at_fd's own position is left alone. */
int directory_each(int at_fd, const char *name,
                   int (*each)(void *context, int dir_fd, const char *name), void *context);
/* A directory and the files in it; 0 if it is not there, too; -errno. */
int directory_remove(int at_fd, const char *name);
/* unlinkat of a file, but 0 if it is not there, too; -errno. */
int directory_unlink(int dir_fd, const char *name);
