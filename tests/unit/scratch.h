/* scratch.h - a directory of a test's own, which goes with all that is in it. */
#pragma once
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define SCRATCH_PATH 256

/* In $TMPDIR, else /tmp. */
static inline bool scratch_make(char ret_path[SCRATCH_PATH], const char *name)
{
    const char *where = getenv("TMPDIR");

    snprintf(ret_path, SCRATCH_PATH, "%s/warren-%s-XXXXXX", where ? where : "/tmp", name);
    return mkdtemp(ret_path) != NULL;
}

static inline int scratch_remove_one(const char *path, const struct stat *status, int kind,
                                     struct FTW *at)
{
    (void)status;
    (void)kind;
    (void)at;
    return remove(path);
}

static inline int scratch_remove(const char *path)
{
    return nftw(path, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
