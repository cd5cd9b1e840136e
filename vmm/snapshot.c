#include "vmm/snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/sparse_file.h"
#include "vmm/boot_file.h"
#include "vmm/disk_raw.h"
#include "vmm/guest_memory.h"
#include "vmm/transfer.h"

#define SNAPSHOT_MAGIC   "WARRENVM"
#define SNAPSHOT_VERSION 1u

struct snapshot_header {
    char magic[8];
    uint32_t version; /* of the items and of this header */
    uint32_t reserved;
    uint64_t memory_bytes;
    uint64_t state_bytes; /* that follow */
};

int snapshot_write(const struct snapshot_files *files, const struct guest_memory *memory,
                   const struct transfer *transfer, struct error *err)
{
    struct snapshot_header header = {
        .magic = SNAPSHOT_MAGIC,
        .version = SNAPSHOT_VERSION,
        .memory_bytes = guest_memory_bytes(memory),
        .state_bytes = transfer->size,
    };
    struct iovec parts[] = { { &header, sizeof header }, { transfer->bytes, transfer->size } };
    int result = files->memory >= 0 ? guest_memory_save(memory, files->pagemap, files->memory) : 0;

    if (result == 0)
        result = disk_raw_transfer(files->state, DISK_WRITE, parts, ARRAY_LENGTH(parts), 0);
    return result < 0 ? error_set(err, result, "write a snapshot: %s", strerror(-result)) : 0;
}

static int check_header(const struct snapshot_header *header, const struct guest_memory *memory,
                        struct error *err)
{
    if (memcmp(header->magic, SNAPSHOT_MAGIC, sizeof header->magic) != 0)
        return error_set(err, EINVAL, "snapshot: the state file is none");
    if (header->version != SNAPSHOT_VERSION)
        return error_set(err, ENOTSUP, "snapshot: version %u, this VMM reads %u", header->version,
                         SNAPSHOT_VERSION);
    if (header->memory_bytes != guest_memory_bytes(memory))
        return error_set(err, EINVAL, "snapshot: of %llu MiB of memory, not %llu",
                         (unsigned long long)header->memory_bytes >> 20,
                         (unsigned long long)guest_memory_bytes(memory) >> 20);
    if (header->state_bytes == 0 || header->state_bytes > SNAPSHOT_STATE_MAX)
        return error_set(err, EINVAL, "snapshot: a state of %llu bytes",
                         (unsigned long long)header->state_bytes);
    return 0;
}

int snapshot_read(int state_fd, const struct guest_memory *memory, struct transfer *ret_transfer,
                  struct error *err)
{
    struct snapshot_header header;
    auto_free uint8_t *bytes = NULL;
    uint8_t behind;
    int result;

    if (pread(state_fd, &header, sizeof header, 0) != sizeof header)
        return error_set(err, EINVAL, "snapshot: the state file is too short");
    result = check_header(&header, memory, err);
    if (result < 0)
        return result;
    bytes = malloc(header.state_bytes);
    if (!bytes)
        return error_set(err, ENOMEM, "snapshot");
    if (pread(state_fd, bytes, header.state_bytes, sizeof header) != (ssize_t)header.state_bytes ||
        pread(state_fd, &behind, 1, (off_t)(sizeof header + header.state_bytes)) != 0)
        return error_set(err, EINVAL, "snapshot: the state file is not %llu bytes long",
                         (unsigned long long)(sizeof header + header.state_bytes));
    *ret_transfer = (struct transfer){
        .loading = true, .bytes = take_pointer(bytes), .size = header.state_bytes, .err = err
    };
    return 0;
}

/* What is there of it: the rest is zero, as the memory is. */
static int read_layer(int fd, struct guest_memory *memory, struct error *err)
{
    uint8_t *host = guest_memory_region(memory, 0).host; /* the others are behind it */
    uint64_t bytes = guest_memory_bytes(memory), start, end = 0;
    int result;

    if (lseek(fd, 0, SEEK_END) != (off_t)bytes)
        return error_set(err, EINVAL, "the memory file is not of %llu bytes",
                         (unsigned long long)bytes);
    while ((result = sparse_next_data(fd, end, bytes, &start, &end)) > 0) {
        result = boot_file_read(fd, start, host + start, end - start, "snapshot's memory", err);
        if (result < 0)
            return result;
    }
    return result < 0 ? error_set(err, result, "look for data in a snapshot's memory") : 0;
}

int snapshot_map(const int *layer_fds, size_t count, struct guest_memory *memory, struct error *err)
{
    int result = 0;

    for (size_t i = 0; i < count && result == 0; i++)
        result = guest_memory_maps_files(memory) ? guest_memory_lay(memory, layer_fds[i], err)
                                                 : read_layer(layer_fds[i], memory, err);
    return result;
}
