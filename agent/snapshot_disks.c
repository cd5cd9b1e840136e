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

static int open_disk(const struct snapshot_disks *disks, unsigned i, struct error *err)
{
    int fd = -1;
    int result =
        volume_open_held(disks->volumes, disks->list[i].volume, disks->list[i].format, &fd, err);

    return result < 0 ? result : fd;
}

/* What is on its way to them goes now, and not while the VM is held. */
static int sync_disks(const struct snapshot_disks *disks, struct error *err)
{
    int result = 0;

    for (unsigned i = 0; result == 0 && i < disks->count; i++) {
        auto_close int fd = open_disk(disks, i, err);

        if (fd < 0)
            return fd;
        if (fdatasync(fd) < 0)
            result = error_set(err, errno, "sync a disk: %s", strerror(errno));
    }
    return result;
}

int snapshot_disks_prepare(struct snapshot_disks *disks, struct error *err)
{
    uint64_t total = 0;
    int result = sync_disks(disks, err);

    if (result < 0)
        return result;
    memset(disks->marks.shifts, WRITE_MARK_SHIFT_MIN, sizeof disks->marks.shifts);
    for (unsigned i = 0; i < disks->count; i++) {
        auto_close int fd = open_disk(disks, i, err);
        struct stat status;

        if (fd < 0)
            return fd;
        if (fstat(fd, &status) < 0)
            return error_set(err, errno, "look at a disk: %s", strerror(errno));
        disks->marks.shifts[disks->list[i].place] =
            (uint8_t)write_mark_shift((uint64_t)status.st_size);
        total += snapshot_store_weigh_disk(disks->store, disks->instance, fd);
    }
    return total < AHEAD_BYTES_MIN ? 0 : make_marks(&disks->marks, err);
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

static int copy_whole(struct snapshot_disks *disks, struct error *err)
{
    int result = 0;

    for (unsigned i = 0; result == 0 && i < disks->count; i++) {
        auto_close int fd = open_disk(disks, i, err);

        if (fd < 0)
            return fd;
        result = snapshot_store_add_disk(disks->store, disks->instance, disks->list[i].index,
                                         disks->list[i].format, fd, copy_progress, disks, err);
        disks->before = disks->done;
    }
    return result;
}

static int copy_marked(struct snapshot_disks *disks, uint64_t *ret_bytes, struct error *err)
{
    int result = 0;

    *ret_bytes = 0;
    for (unsigned i = 0; result == 0 && i < disks->count; i++) {
        auto_close int fd = open_disk(disks, i, err);

        if (fd < 0)
            return fd;
        result = snapshot_store_renew_disk(
            disks->store, disks->instance, disks->list[i].index, disks->list[i].format, fd,
            disks->marks.bytes + (size_t)disks->list[i].place * WRITE_MARKS_OF_DISK,
            disks->marks.shifts[disks->list[i].place], look_for_cancel, disks, ret_bytes, err);
    }
    return result;
}

int snapshot_disks_copy_ahead(struct snapshot_disks *disks, struct error *err)
{
    uint64_t before = UINT64_MAX, bytes = 0;
    int result = copy_whole(disks, err);

    for (unsigned i = 0; result == 0 && i < disks->count; i++)
        result = snapshot_store_sync_disk(disks->store, disks->instance, disks->list[i].index,
                                          disks->list[i].format, err);
    for (unsigned round = 0; result == 0 && round < ROUNDS_MAX; round++) {
        result = sync_disks(disks, err);
        if (result == 0)
            result = copy_marked(disks, &bytes, err);
        if (result < 0 || bytes < AHEAD_BYTES_MIN || bytes > before / 2)
            break;
        before = bytes;
    }
    disks->copied_ahead = result == 0;
    return result;
}

int snapshot_disks_copy(struct snapshot_disks *disks, struct error *err)
{
    uint64_t bytes;

    return disks->copied_ahead ? copy_marked(disks, &bytes, err) : copy_whole(disks, err);
}
