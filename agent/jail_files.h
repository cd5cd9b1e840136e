/* jail_files.h - small steps on directories and files, relative to a directory fd.  Any thread. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct error;
struct stats_page;

/* Makes it unless it is there, and opens it; a symlink in its last part is refused.  Owned fd. */
int jail_make_dir(int dir_fd, const char *name, mode_t mode, int *ret_fd, struct error *err);
/* What its subdirectories name is ended by whoever does not know it: one agent only, as long as
 * this fd is open.  setting, value: to blame if another has it for 2 s. */
int jail_lock_dir(int fd, const char *setting, const char *value, struct error *err);
/* A regular file to read: no symlink, no FIFO that would make us wait.  Owned fd, or -errno. */
int jail_open_file(int dir_fd, const char *name);
/* A new empty file (mode 0600), in place of whatever has this name and without touching it, should
 * it be a link to somewhere else.  `flags`: access mode, O_APPEND.  Owned fd, or -errno. */
int jail_create_file(int dir_fd, const char *name, int flags);
int jail_write_text(int dir_fd, const char *name, const char *text);
/* The first part of a VM's shared page as it is now.  0; 1 = of another version's VMM, and only its
 * head is known, the rest is zeroes; -errno = there is none (yet), and all of it is zeroes. */
int jail_read_open_page(int fd, struct stats_page *ret_page);
/* Adds the names that are plain numbers to *instances (realloc'ed), each once. */
int jail_list_numbers(int dir_fd, uint32_t **instances, size_t *count, struct error *err);
