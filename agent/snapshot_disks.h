/* snapshot_disks.h - the disks of a snapshot that is being made, as a worker copies them: ahead,
 * while the VM runs and its VMM marks what it writes (base/write_marks.h), and, while it is held,
 * what is marked; or all of it then, where that takes no time (shared blocks, little data) or the
 * VMM cannot mark.  Functions block on the disk. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "storage/snapshot_store.h"
#include "vmm/control_protocol.h"

/* Of all disks of a VM, by place. */
struct snapshot_marks {
    int fd;         /* owned, for the VMM; -1 = there are none */
    uint8_t *bytes; /* owned, mapped */
    uint8_t shifts[VMM_DISKS_MAX];
};

struct snapshot_disks {
    const struct snapshot_store *store; /* borrowed, as the next */
    const struct volume_store *volumes;
    uint32_t instance; /* of the snapshot */
    unsigned count;
    struct {
        unsigned index;  /* among the VM's disks */
        unsigned place;  /* in its machine */
        uint32_t volume; /* instance */
        enum volume_format format;
    } list[VMM_DISKS_MAX]; /* that may be written to */
    struct snapshot_marks marks;
    bool copied_ahead; /* all but what is marked */
    bool cancelled;    /* set by another thread, which reads `done` */
    uint64_t done;     /* bytes of disks, holes included, of those that are copied whole */
    uint64_t before;   /* of them, those of earlier disks */
};

/* The snapshot's directory was begun.  Syncs the disks, so that less is on its way when the VM is
 * held, and makes marks if copying ahead is worth it. */
int snapshot_disks_prepare(struct snapshot_disks *disks, struct error *err);
/* Its VMM marks what it writes by now.  Syncs the disks again before each look at the marks. */
int snapshot_disks_copy_ahead(struct snapshot_disks *disks, struct error *err);
/* The VM is held. */
int snapshot_disks_copy(struct snapshot_disks *disks, struct error *err);

/* Out of `marks`, which has none then. */
struct snapshot_marks snapshot_marks_take(struct snapshot_marks *marks);
void snapshot_marks_free(struct snapshot_marks *marks); /* also of none, and twice */
