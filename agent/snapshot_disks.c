/* snapshot_disks.c - see snapshot_disks.h. */
#include "agent/snapshot_disks.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/write_marks.h"

#define MARKS_BYTES ((size_t)VMM_DISKS_MAX * WRITE_MARKS_OF_DISK)

/* With less to copy, a VM is not held for long. */
#define AHEAD_BYTES_MIN (16u << 20)
/* What was written meanwhile is copied again and again while that makes it less, but not for ever:
 * a guest may write as fast as we copy. */
#define ROUNDS_MAX 8

struct snapshot_marks snapshot_marks_take(struct snapshot_marks *marks)
{
    struct snapshot_marks taken = *marks;

    *marks = (struct snapshot_marks){ .fd = -1 };
    return taken;
}

void snapshot_marks_free(struct snapshot_marks *marks)
{
    struct snapshot_marks freed = snapshot_marks_take(marks);

    cleanup_close(&freed.fd);
    if (freed.bytes)
        (void)munmap(freed.bytes, MARKS_BYTES);
}

/* All of it is there at once, and counted as ours: a VMM's cgroup may have no room. */
static int make_marks(struct snapshot_marks *marks, struct error *err)
{
    auto_close int fd = memfd_create("write-marks", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    void *bytes;

    if (fd < 0 || ftruncate(fd, (off_t)MARKS_BYTES) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return error_set(err, errno, "make marks for writes: %s", strerror(errno));
    bytes = mmap(NULL, MARKS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (bytes == MAP_FAILED)
        return error_set(err, errno, "make marks for writes: %s", strerror(errno));
    marks->fd = take_fd(&fd);
    marks->bytes = bytes;
    return 0;
}

/* What is done with the i-th of them, open for reading as fd; *total: bytes, whichever they are. */
typedef int disk_act_fn(struct snapshot_disks *disks, unsigned i, int fd, uint64_t *total,
                        struct error *err);

static int each_disk(struct snapshot_disks *disks, disk_act_fn *act, uint64_t *total,
                     struct error *err)
{
    int result = 0;

    for (unsigned i = 0; result == 0 && i < disks->count; i++) {
        auto_close int fd = -1;

        result = volume_open_held(disks->volumes, disks->list[i].volume, disks->list[i].format, &fd,
                                  err);
        if (result == 0)
            result = act(disks, i, fd, total, err);
    }
    return result;
}

/* What is on its way to it goes now, and not while the VM is held. */
static int sync_one(struct snapshot_disks *disks, unsigned i, int fd, uint64_t *total,
                    struct error *err)
{
    (void)disks;
    (void)i;
    (void)total;
    return fdatasync(fd) < 0 ? error_set(err, errno, "sync a disk: %s", strerror(errno)) : 0;
}

/* Syncs it, and adds what there would be to copy. */
static int weigh_one(struct snapshot_disks *disks, unsigned i, int fd, uint64_t *total,
                     struct error *err)
{
    struct stat status;
    int result = sync_one(disks, i, fd, total, err);

    if (result < 0)
        return result;
    if (fstat(fd, &status) < 0)
        return error_set(err, errno, "look at a disk: %s", strerror(errno));
    disks->marks.shifts[disks->list[i].place] = (uint8_t)write_mark_shift((uint64_t)status.st_size);
    *total += snapshot_store_weigh_disk(disks->store, disks->instance, fd);
    return 0;
}

int snapshot_disks_prepare(struct snapshot_disks *disks, struct error *err)
{
    uint64_t total = 0;
    int result;

    memset(disks->marks.shifts, WRITE_MARK_SHIFT_MIN, sizeof disks->marks.shifts);
    result = each_disk(disks, weigh_one, &total, err);
    return result < 0 || total < AHEAD_BYTES_MIN ? result : make_marks(&disks->marks, err);
}

static int look_for_cancel(void *context, uint64_t done, uint64_t size)
{
    const struct snapshot_disks *disks = context;

    (void)done;
    (void)size;
    return __atomic_load_n(&disks->cancelled, __ATOMIC_RELAXED) ? -ECANCELED : 0;
}

static int copy_progress(void *context, uint64_t done, uint64_t size)
{
    struct snapshot_disks *disks = context;

    __atomic_store_n(&disks->done, disks->before + done, __ATOMIC_RELAXED);
    return look_for_cancel(disks, done, size);
}

static int add_one(struct snapshot_disks *disks, unsigned i, int fd, uint64_t *total,
                   struct error *err)
{
    int result = snapshot_store_add_disk(disks->store, disks->instance, disks->list[i].index,
                                         disks->list[i].format, fd, copy_progress, disks, err);

    (void)total;
    disks->before = disks->done;
    return result;
}

/* Adds what was marked of it. */
static int renew_one(struct snapshot_disks *disks, unsigned i, int fd, uint64_t *total,
                     struct error *err)
{
    unsigned place = disks->list[i].place;

    return snapshot_store_renew_disk(
        disks->store, disks->instance, disks->list[i].index, disks->list[i].format, fd,
        disks->marks.bytes + (size_t)place * WRITE_MARKS_OF_DISK, disks->marks.shifts[place],
        look_for_cancel, disks, total, err);
}

int snapshot_disks_copy_ahead(struct snapshot_disks *disks, struct error *err)
{
    uint64_t before = UINT64_MAX;
    int result = each_disk(disks, add_one, NULL, err);

    for (unsigned i = 0; result == 0 && i < disks->count; i++)
        result = snapshot_store_sync_disk(disks->store, disks->instance, disks->list[i].index,
                                          disks->list[i].format, err);
    for (unsigned round = 0; result == 0 && round < ROUNDS_MAX; round++) {
        uint64_t bytes = 0;

        result = each_disk(disks, sync_one, NULL, err);
        if (result == 0)
            result = each_disk(disks, renew_one, &bytes, err);
        if (result < 0 || bytes < AHEAD_BYTES_MIN || bytes > before / 2)
            break;
        before = bytes;
    }
    disks->copied_ahead = result == 0;
    return result;
}

int snapshot_disks_copy(struct snapshot_disks *disks, struct error *err)
{
    uint64_t bytes = 0;

    return each_disk(disks, disks->copied_ahead ? renew_one : add_one, &bytes, err);
}
