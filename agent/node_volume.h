/* node_volume.h - volumes that grow: between node_volume.c, which is the resource, and
 * node_volume_change.c, which does that.  Loop thread only.
 *
 * What a volume's spec says is written first.  Then its file grows, then size_bytes says so, and
 * VMs that use it are told; whichever agent finds a row that wants more than there is goes on. */
#pragma once
#include "agent/node_internal.h"

static inline bool volume_is_growing(const struct volume *volume)
{
    return volume->state == PROGRESS_READY && volume->wanted_bytes > volume->size_bytes;
}

/* One that is ready: makes its file as long as is wanted, unless that is under way. */
void volume_grow(struct node *node, struct volume *volume);
/* One that is being made, or waits for that, has failed then, once its worker knows. */
void volume_cancel(struct node *node, struct volume *volume);
/* Its state stays as it is: the work is begun again. */
void volume_stuck(struct node *node, struct volume *volume, const char *work,
                  const struct error *err);
