#include "vmm/guest_memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/error.h"

#define PAGE_BYTES 4096u
#define FILES_MAX  24 /* a kernel's segments (boot_elf.h), an initrd */

struct guest_memory {
    void *host; /* owned: one mapping, the regions one behind the other */
    uint64_t bytes;
    size_t count;
    struct guest_memory_region regions[2];
    size_t file_count;
    struct file_range {
        uint8_t *start, *end;
    } files[FILES_MAX]; /* where files are mapped */
};

int guest_memory_new(uint64_t bytes, struct guest_memory **ret_memory, struct error *err)
{
    uint64_t low = bytes < GUEST_HOLE_START ? bytes : GUEST_HOLE_START;
    struct guest_memory *memory;
    uint8_t *host;

    if (bytes == 0 || bytes % PAGE_BYTES != 0)
        return error_set(err, EINVAL, "guest memory of %" PRIu64 " bytes", bytes);
    memory = calloc(1, sizeof *memory);
    if (!memory)
        return error_set(err, ENOMEM, "guest memory");
    host = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                -1, 0);
    if (host == MAP_FAILED) {
        int code = errno;

        free(memory);
        return error_set(err, code, "map %" PRIu64 " MiB of guest memory", bytes >> 20);
    }
    (void)madvise(host, bytes, MADV_DONTDUMP);
    memory->host = host;
    memory->bytes = bytes;
    memory->regions[memory->count++] = (struct guest_memory_region){ 0, low, host };
    if (bytes > low)
        memory->regions[memory->count++] =
            (struct guest_memory_region){ GUEST_HOLE_END, bytes - low, host + low };
    *ret_memory = memory;
    return 0;
}

struct guest_memory *guest_memory_free(struct guest_memory *memory)
{
    if (memory) {
        munmap(memory->host, memory->bytes);
        free(memory);
    }
    return NULL;
}

size_t guest_memory_region_count(const struct guest_memory *memory)
{
    return memory->count;
}

struct guest_memory_region guest_memory_region(const struct guest_memory *memory, size_t index)
{
    return memory->regions[index];
}

void *guest_memory_map(const struct guest_memory *memory, uint64_t guest, uint64_t size)
{
    if (size == 0)
        return NULL;
    for (size_t i = 0; i < memory->count; i++) {
        const struct guest_memory_region *region = &memory->regions[i];

        if (guest >= region->guest_start && size <= region->size &&
            guest - region->guest_start <= region->size - size)
            return region->host + (guest - region->guest_start);
    }
    return NULL;
}

bool guest_memory_read(const struct guest_memory *memory, uint64_t guest, void *to, uint64_t size)
{
    const void *from = guest_memory_map(memory, guest, size);

    if (!from)
        return false;
    memcpy(to, from, size);
    return true;
}

bool guest_memory_write(const struct guest_memory *memory, uint64_t guest, const void *from,
                        uint64_t size)
{
    void *to = guest_memory_map(memory, guest, size);

    if (!to)
        return false;
    memcpy(to, from, size);
    return true;
}

int guest_memory_map_file(struct guest_memory *memory, uint64_t guest, uint64_t size, int fd,
                          uint64_t offset, struct error *err)
{
    void *to = guest_memory_map(memory, guest, size);

    if (!to || (guest | size | offset) % PAGE_BYTES != 0)
        return error_set(err, EINVAL, "file range does not fit the guest's pages");
    if (memory->file_count == FILES_MAX)
        return error_set(err, E2BIG, "more than %d mapped parts of files", FILES_MAX);
    if (mmap(to, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd,
             (off_t)offset) == MAP_FAILED)
        return error_set(err, errno, "map a file into guest memory");
    (void)madvise(to, size, MADV_DONTDUMP);
    memory->files[memory->file_count++] = (struct file_range){ to, (uint8_t *)to + size };
    return 0;
}

/* From `start` to the end of the file or anonymous range there, at most `end`; where it stopped. */
static uint8_t *discard_part(const struct guest_memory *memory, uint8_t *start, uint8_t *end)
{
    bool in_file = false;

    for (size_t i = 0; i < memory->file_count; i++) {
        const struct file_range *file = &memory->files[i];
        bool here = start >= file->start && start < file->end;
        uint8_t *edge = here ? file->end : file->start;

        in_file |= here;
        if (edge > start && edge < end)
            end = edge;
    }
    /* MADV_DONTNEED would bring the file's content back.  Each hole in it is a mapping more; at
     * vm.max_map_count of them the kernel refuses. */
    if (in_file)
        (void)mmap(start, (size_t)(end - start), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    else
        (void)madvise(start, (size_t)(end - start), MADV_DONTNEED);
    return end;
}

void guest_memory_discard_mapped(const struct guest_memory *memory, void *host, uint64_t size)
{
    uint8_t *end = (uint8_t *)host + size - ((uintptr_t)host + size) % PAGE_BYTES;
    uint8_t *start = (uint8_t *)host + -(uintptr_t)host % PAGE_BYTES;

    while (start < end)
        start = discard_part(memory, start, end);
}

void guest_memory_discard(const struct guest_memory *memory, uint64_t guest, uint64_t size)
{
    void *host = guest_memory_map(memory, guest, size);

    if (host)
        guest_memory_discard_mapped(memory, host, size);
}
