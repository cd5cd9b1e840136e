/* image_internal.h - what image.c and image_import.c share. */
#pragma once
#include "storage/image.h"

struct image_store {
    int dir_fd;         /* borrowed */
    char **import_dirs; /* owned */
    size_t import_dir_count;
    int fetch_fd;     /* owned; the program */
    char *fetch_root; /* owned */
    char *ca_file;    /* owned; NULL = the system's */
    uid_t uid;
    gid_t gid;
    bool allow_private;
    uint64_t speed_limit, speed_time;
    int log_fd;                   /* borrowed */
    struct image_import *imports; /* owned; loop thread only; oldest first */
};

#define IMAGE_CONTENT "content"
#define IMAGE_UNDONE  "content.tmp"

/* Opens a local source below one of the import directories; errors name the field and the path as
 * it was given, never where it leads.  Owned fd. */
int image_source_open(const struct image_store *store, const char *path, int *ret_fd,
                      struct error *err);
/* Makes the instance's directory, empty, and the file to write in it.  Owned fd. */
int image_undone_create(const struct image_store *store, uint32_t instance, int *ret_fd,
                        struct error *err);
/* From undone to ready, durably. */
int image_undone_finish(const struct image_store *store, uint32_t instance, int fd,
                        struct error *err);

/* image_import.c: ends all of them. */
void image_imports_abort(struct image_store *store);
