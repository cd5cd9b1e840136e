/* jail_files.h - small steps on directories and files, relative to a directory fd.  Any thread. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct error;

/* Makes it unless it is there, and opens it; a symlink in its last part is refused.  Owned fd. */
int jail_make_dir(int dir_fd, const char *name, mode_t mode, int *ret_fd, struct error *err);
/* A small file as a string, cut at size - 1; 0 or -errno. */
int jail_read_text(int dir_fd, const char *name, char *ret_text, size_t size);
int jail_write_text(int dir_fd, const char *name, const char *text);
/* Adds the names that are plain numbers to *instances (realloc'ed), each once. */
int jail_list_numbers(int dir_fd, uint32_t **instances, size_t *count, struct error *err);
