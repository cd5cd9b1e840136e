#include "storage/space.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/error.h"

/* filesystem * percent / 100, or as much as a number can say. */
static uint64_t limit_of(uint64_t filesystem_bytes, uint64_t ratio_percent)
{
    unsigned __int128 limit = (unsigned __int128)filesystem_bytes * ratio_percent / 100;

    return limit > UINT64_MAX ? UINT64_MAX : (uint64_t)limit;
}

int space_admit(uint64_t filesystem_bytes, uint64_t ratio_percent, uint64_t promised_bytes,
                uint64_t wanted_bytes, const char *field, struct error *err)
{
    uint64_t limit = limit_of(filesystem_bytes, ratio_percent);

    if (promised_bytes <= limit && wanted_bytes <= limit - promised_bytes)
        return 0;
    return error_field(err, ENOSPC, field,
                       "%" PRIu64 " MiB are wanted, but of the %" PRIu64
                       " MiB that may be promised "
                       "(%" PRIu64 " %% of the file system) %" PRIu64 " MiB are",
                       wanted_bytes >> 20, limit >> 20, ratio_percent, promised_bytes >> 20);
}

int space_filesystem(int dir_fd, uint64_t *ret_bytes, uint64_t *ret_free_bytes, struct error *err)
{
    struct statvfs status;

    if (fstatvfs(dir_fd, &status) < 0)
        return error_set(err, errno, "look at the file system: %s", strerror(errno));
    *ret_bytes = (uint64_t)status.f_blocks * status.f_frsize;
    *ret_free_bytes = (uint64_t)status.f_bavail * status.f_frsize;
    return 0;
}

int space_check_free(uint64_t free_bytes, uint64_t wanted_bytes, struct error *err)
{
    if (wanted_bytes <= free_bytes)
        return 0;
    return error_set(err, ENOSPC, "%" PRIu64 " MiB are wanted, but %" PRIu64 " MiB are free",
                     wanted_bytes >> 20, free_bytes >> 20);
}

int space_check_length(int fd, uint64_t start_bytes, uint64_t size_bytes, struct error *err)
{
    if (lseek(fd, (off_t)(start_bytes + size_bytes), SEEK_SET) >= 0)
        return 0;
    return error_field(err, EFBIG, "spec.size_mib",
                       "the file system has no files of %" PRIu64 " MiB", size_bytes >> 20);
}
