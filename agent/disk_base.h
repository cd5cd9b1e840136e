/* disk_base.h - what a disk begins with or stands on: an image, or a disk of a snapshot. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/id.h"

struct error;
struct node;

/* By names, as users and rows know it. */
struct disk_base {
    char image[ID_MAX + 1];    /* "" = none */
    char snapshot[ID_MAX + 1]; /* "" = none */
    char disk[ID_MAX + 1];     /* of the snapshot */
};

#define DISK_BASE_UID 40 /* bytes; as in a delta's header */

/* By files, for workers. */
struct disk_base_file {
    uint32_t image;          /* instance; 0 = none */
    uint32_t snapshot;       /* instance; 0 = none */
    unsigned index;          /* of the snapshot's disk */
    bool is_delta;           /* it is a delta itself: to be copied, not to be stood on */
    char uid[DISK_BASE_UID]; /* which a delta over it names */
    uint64_t least_bytes;    /* that the file has; 0 = it says so itself (a delta) */
};

static inline bool disk_base_is_set(const struct disk_base *base)
{
    return base->image[0] || base->snapshot[0];
}

/* Loop thread.  All zero if there is none, or it is not there. */
struct disk_base_file disk_base_file(const struct node *node, const struct disk_base *base);
/* Any thread.  An owned fd, O_RDONLY; -EBADMSG if the file has lost its end. */
int disk_base_open(const struct node *node, const struct disk_base_file *file, int *ret_fd,
                   struct error *err);

/* {"image"} or {"snapshot","disk"}, null if there is none; and back, where null is none. */
json_t *disk_base_json(const struct disk_base *base);
void disk_base_restore(struct disk_base *base, const json_t *json);
