#include "vmm/guest_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/file_io.h"
#include "base/sparse_file.h"

#define PAGE_BYTES 4096u
#define HUGE_BYTES (2u << 20)
#define ASIDE_STEP (16u << 20) /* at a time: 0.5 ms */
#define FILES_MAX  24          /* a kernel's segments (boot_elf.h), an initrd */

/* What the process may still map once discards have used up its mappings (vm.max_map_count): else
 * it could allocate nothing any more, for a snapshot, say, as long as it lives. */
#define SPARE_MAPPINGS 128u

struct guest_memory {
    uint8_t *host; /* owned: one mapping, the regions one behind the other */
    uint64_t bytes;
    int fd;              /* borrowed; what is mapped, shared; -1 = nothing */
    uint64_t page_bytes; /* what can be discarded */
    bool maps_files;
    bool can_freeze;                /* `fd` can become a layer */
    size_t layer_count, part_count; /* parts: of layers, that are mapped */
    int layers[VMM_LAYERS_MAX];     /* borrowed */
    int base_fd;                    /* owned; the only layer, where guest_memory_rebase gave it */
    uint8_t *discarded; /* owned; of each page: not 0 once it was taken away from a layer's */
    uint8_t *aside;     /* owned; what `host` was mapped by before guest_memory_part */
    uint64_t aside_bytes;
    uint8_t *spare; /* owned; SPARE_MAPPINGS of one page while holes in files can be made */
    size_t count;
    struct guest_memory_region regions[GUEST_REGIONS_MAX];
    size_t file_count;
    struct file_range {
        uint8_t *start, *end;
    } files[FILES_MAX]; /* where files are mapped */
};

/* At a multiple of 2 MiB, as guest addresses are: else no huge page could be used for both. */
static void *reserve(uint64_t bytes)
{
    uint64_t room = bytes + HUGE_BYTES;
    uint8_t *start =
        mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint64_t before;

    if (start == MAP_FAILED)
        return NULL;
    before = -(uintptr_t)start % HUGE_BYTES;
    if (before > 0)
        munmap(start, before);
    munmap(start + before + bytes, room - before - bytes);
    return start + before;
}

static int populate(struct guest_memory *memory, const struct guest_memory_spec *spec,
                    struct error *err)
{
    int flags = memory->fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

    /* Where there are not enough huge pages, this is where it is known. */
    if (mmap(memory->host, memory->bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED, memory->fd,
             0) == MAP_FAILED)
        return error_set(err, errno, "map %" PRIu64 " MiB of guest memory: %s", memory->bytes >> 20,
                         strerror(errno));
    if (spec->backing == VMM_MEMORY_TRANSPARENT_HUGE &&
        madvise(memory->host, memory->bytes, MADV_HUGEPAGE) < 0)
        return error_set(err, errno, "this host's kernel has no transparent huge pages");
    return 0;
}

static int check_spec(const struct guest_memory_spec *spec, uint64_t page_bytes, struct error *err)
{
    off_t end;

    if (spec->bytes == 0 || (spec->bytes | spec->hotplug_bytes) % page_bytes != 0)
        return error_set(err, EINVAL, "guest memory of %" PRIu64 " and %" PRIu64 " bytes",
                         spec->bytes, spec->hotplug_bytes);
    if (!vmm_memory_has_file(spec->backing))
        return 0;
    end = lseek(spec->fd, 0, SEEK_END);
    if (end < 0 || (uint64_t)end != spec->bytes + spec->hotplug_bytes) /* else: SIGBUS later */
        return error_set(err, EINVAL, "the guest's memory is a file of %lld bytes", (long long)end);
    return 0;
}

static void add_region(struct guest_memory *memory, uint64_t guest_start, uint64_t size,
                       bool hotplug)
{
    struct guest_memory_region region = { guest_start, size, memory->host, hotplug, size };

    for (size_t i = 0; i < memory->count; i++) {
        struct guest_memory_region *before = &memory->regions[i];

        region.host += before->size;
        if (before->guest_start + before->size == guest_start) /* a guest sees no seam there */
            before->reach += size;
    }
    if (size > 0)
        memory->regions[memory->count++] = region;
}

int guest_memory_make(const struct guest_memory_spec *spec, struct guest_memory **ret_memory,
                      struct error *err)
{
    uint64_t low = spec->bytes < GUEST_HOLE_START ? spec->bytes : GUEST_HOLE_START;
    uint64_t high = spec->bytes - low;
    uint64_t page_bytes = spec->backing == VMM_MEMORY_HUGE_2M ? HUGE_BYTES : PAGE_BYTES;
    struct guest_memory *memory;
    int result = check_spec(spec, page_bytes, err);

    if (result < 0)
        return result;
    memory = calloc(1, sizeof *memory);
    if (!memory)
        return error_set(err, ENOMEM, "guest memory");
    *memory = (struct guest_memory){
        .host = reserve(spec->bytes + spec->hotplug_bytes),
        .bytes = spec->bytes + spec->hotplug_bytes,
        .fd = vmm_memory_has_file(spec->backing) ? spec->fd : -1,
        .page_bytes = page_bytes,
        .maps_files = spec->backing == VMM_MEMORY_ANONYMOUS,
        .can_freeze = spec->backing == VMM_MEMORY_SHARED,
        .base_fd = -1,
        .discarded = calloc((spec->bytes + spec->hotplug_bytes) / PAGE_BYTES, 1),
    };
    if (!memory->host || !memory->discarded)
        result =
            error_set(err, errno, "no room for %" PRIu64 " MiB of guest memory", spec->bytes >> 20);
    else
        result = populate(memory, spec, err);
    if (result < 0) {
        guest_memory_free(memory);
        return result;
    }
    add_region(memory, 0, low, false);
    add_region(memory, GUEST_HOLE_END, high, false);
    add_region(memory,
               GUEST_HOLE_END +
                   (high + GUEST_HOTPLUG_ALIGN - 1) / GUEST_HOTPLUG_ALIGN * GUEST_HOTPLUG_ALIGN,
               spec->hotplug_bytes, true);
    *ret_memory = memory;
    return 0;
}

struct guest_memory *guest_memory_free(struct guest_memory *memory)
{
    if (memory) {
        if (memory->host)
            munmap(memory->host, memory->bytes);
        munmap(memory->aside, memory->aside_bytes); /* refuses 0 */
        munmap(memory->spare, memory->spare ? SPARE_MAPPINGS * PAGE_BYTES : 0);
        cleanup_close(&memory->base_fd);
        free(memory->discarded);
        free(memory);
    }
    return NULL;
}

uint64_t guest_memory_bytes(const struct guest_memory *memory)
{
    return memory->bytes;
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

        if (guest >= region->guest_start && size <= region->reach &&
            guest - region->guest_start <= region->reach - size)
            return region->host + (guest - region->guest_start);
    }
    return NULL;
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

bool guest_memory_maps_files(const struct guest_memory *memory)
{
    return memory->maps_files;
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
    memory->files[memory->file_count++] = (struct file_range){ to, (uint8_t *)to + size };
    return 0;
}

/* --- layers --- */

/* A smaller part is copied, and those beyond that many: each would be two mappings more, which are
 * bounded (vm.max_map_count, 65,530), and discards need some, too. */
#define COPY_BYTES   (64u << 10)
#define PARTS_MAX    8192
#define PAGEMAP_STEP 4096u /* pages */
/* Documentation/admin-guide/mm/pagemap.rst: a page of a file, or shared, has the last. */
#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_SWAPPED (1ull << 62)
#define PAGEMAP_OF_FILE (1ull << 61)

static int map_private(struct guest_memory *memory, int fd, uint64_t start, uint64_t end)
{
    return mmap(memory->host + start, end - start, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, (off_t)start) == MAP_FAILED
               ? -errno
               : 0;
}

static bool map_anonymous(void *start, size_t size)
{
    return mmap(start, size, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
}

/* What the file has nothing of need not be its own: a page that is written there would be one of
 * the file's first, and stay in memory beside the guest's.  Not by huge pages, or 2 MiB would be
 * the guest's own for a byte.  What cannot be done is as it was. */
static void map_holes(struct guest_memory *memory, int fd)
{
    for (uint64_t at = 0, end; at < memory->bytes; at = end + HUGE_BYTES) {
        end = sparse_find_data(fd, at, memory->bytes);
        end -= end % HUGE_BYTES;
        if (end > at && memory->part_count++ < PARTS_MAX &&
            map_anonymous(memory->host + at, end - at))
            (void)madvise(memory->host + at, end - at, MADV_NOHUGEPAGE);
    }
}

/* All of RAM is a file's from now on, and changes are the guest's own. */
static int map_first(struct guest_memory *memory, int fd)
{
    int result = map_private(memory, fd, 0, memory->bytes);

    if (result < 0)
        return result;
    memory->files[0] = (struct file_range){ memory->host, memory->host + memory->bytes };
    memory->file_count = 1;
    memory->layers[0] = fd;
    memory->layer_count = 1;
    memory->part_count = 0;
    memory->fd = -1;
    map_holes(memory, fd);
    return 0;
}

static int map_over(struct guest_memory *memory, int fd)
{
    uint64_t start, end = 0;
    int result;

    while ((result = sparse_next_data(fd, end, memory->bytes, &start, &end)) > 0) {
        if ((start | end) % PAGE_BYTES != 0)
            return -EINVAL;
        if (end - start >= COPY_BYTES && memory->part_count++ < PARTS_MAX)
            result = map_private(memory, fd, start, end);
        else
            result = file_read_all(fd, memory->host + start, end - start, start);
        if (result < 0)
            return result;
    }
    if (result == 0)
        memory->layers[memory->layer_count++] = fd;
    return result;
}

int guest_memory_lay(struct guest_memory *memory, int fd, struct error *err)
{
    off_t size = lseek(fd, 0, SEEK_END);
    int result;

    if (size < 0 || (uint64_t)size != memory->bytes) /* a shorter one would be a SIGBUS later */
        return error_set(err, EINVAL, "the memory file is of %lld bytes, not %" PRIu64,
                         (long long)size, memory->bytes);
    if (memory->layer_count == VMM_LAYERS_MAX)
        return error_set(err, E2BIG, "memory of more than %d files", VMM_LAYERS_MAX);
    result = memory->layer_count == 0 ? map_first(memory, fd) : map_over(memory, fd);
    return result < 0 ? error_set(err, result, "map memory: %s", strerror(-result)) : 0;
}

/* Ours alone; or nobody's, where a layer has one, which must not come back. */
static bool is_changed(const struct guest_memory *memory, uint64_t page, uint64_t entry)
{
    return memory->discarded[page] ||
           ((entry & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) && !(entry & PAGEMAP_OF_FILE));
}

/* sparse_write, or, where a zero is to be seen, file_write_all. */
typedef int write_fn(int fd, const void *bytes, size_t size, uint64_t offset);

/* The pages of [at, at + count) that are changed, in runs. */
static int save_private(const struct guest_memory *memory, const uint64_t *entries, uint64_t at,
                        size_t count, write_fn *write, int fd)
{
    int result = 0;

    for (size_t i = 0, end; i < count && result == 0; i = end + 1) {
        uint64_t start = at + i * PAGE_BYTES;

        for (end = i; end < count && is_changed(memory, at / PAGE_BYTES + end, entries[end]); end++)
            continue;
        result = write(fd, memory->host + start, (end - i) * PAGE_BYTES, start);
    }
    return result;
}

/* Those of [start, end). */
static int save_changes(const struct guest_memory *memory, int pagemap_fd, uint64_t start,
                        uint64_t end, write_fn *write, int fd)
{
    auto_free uint64_t *entries = malloc(PAGEMAP_STEP * sizeof *entries);
    int result = entries ? 0 : -ENOMEM;

    for (uint64_t at = start; at < end && result == 0; at += PAGEMAP_STEP * PAGE_BYTES) {
        uint64_t left = (end - at) / PAGE_BYTES;
        size_t count = left < PAGEMAP_STEP ? (size_t)left : PAGEMAP_STEP;

        result = file_read_all(pagemap_fd, entries, count * sizeof *entries,
                               ((uintptr_t)memory->host + at) / PAGE_BYTES * sizeof *entries);
        if (result == 0)
            result = save_private(memory, entries, at, count, write, fd);
    }
    return result;
}

int guest_memory_rebase(struct guest_memory *memory, int fd, struct error *err)
{
    int result = memory->maps_files ? 0 : -ENOTSUP, before[VMM_LAYERS_MAX];
    size_t count = memory->layer_count;

    memcpy(before, memory->layers, sizeof before);
    /* What could not be written later would be lost from the page cache, and to the guest. */
    if (result == 0 && fdatasync(fd) < 0)
        result = -errno;
    if (result == 0)
        result = map_first(memory, fd);
    if (result < 0)
        return error_set(err, result, "map the memory anew: %s", strerror(-result));
    memset(memory->discarded, 0, memory->bytes / PAGE_BYTES);
    for (size_t i = 0; i < count; i++) /* else a fork's would stay in memory for nobody */
        cleanup_close(&before[i]);
    memory->base_fd = fd;
    return 0;
}

int guest_memory_fork(struct guest_memory *memory, int pagemap_fd, int changes_fd,
                      int ret_layers[VMM_LAYERS_MAX], size_t *ret_count, struct error *err)
{
    size_t count = memory->layer_count;
    int result = 0;

    if (count == 0 && !memory->can_freeze)
        return error_set(err, ENOTSUP, "fork: the memory is neither shared nor restored");
    if (count == VMM_LAYERS_MAX)
        return error_set(err, E2BIG, "fork: memory of more than %d files", VMM_LAYERS_MAX);
    if (count > 0) /* beside a page that is written, holes: they are what the layers have */
        result = sparse_check_exact(changes_fd);
    if (count > 0 && result == 0)
        result = save_changes(memory, pagemap_fd, 0, memory->bytes, file_write_all, changes_fd);
    if (result < 0)
        return error_set(err, result, "fork: %s", strerror(-result));
    memcpy(ret_layers, memory->layers, sizeof memory->layers);
    ret_layers[count] = count > 0 ? changes_fd : memory->fd;
    *ret_count = count + 1;
    return 0;
}

int guest_memory_part(struct guest_memory *memory, struct error *err)
{
    int result = 0;

    if (memory->layer_count == 0) {
        memory->aside = reserve(memory->bytes);
        memory->aside_bytes = memory->aside ? memory->bytes : 0;
        /* Linux before 5.13 refuses, and takes it down when the next comes over it. */
        (void)mremap(memory->host, memory->aside_bytes, memory->aside_bytes,
                     MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, memory->aside);
        result = map_first(memory, memory->fd);
    }
    return result < 0 ? error_set(err, result, "part from a fork: %s", strerror(-result)) : 0;
}

bool guest_memory_unmap_aside(struct guest_memory *memory)
{
    uint64_t size = memory->aside_bytes < ASIDE_STEP ? memory->aside_bytes : ASIDE_STEP;

    memory->aside_bytes -= size;
    return size > 0 && munmap(memory->aside + memory->aside_bytes, size) == 0;
}

/* Every other page is mapped differently, or all were one mapping.  False if there is no room. */
static bool hold_spare(struct guest_memory *memory)
{
    void *start = mmap(NULL, SPARE_MAPPINGS * PAGE_BYTES, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    bool good = start != MAP_FAILED;

    memory->spare = good ? start : NULL;
    for (unsigned i = 1; good && i < SPARE_MAPPINGS; i += 2)
        good = map_anonymous(memory->spare + i * PAGE_BYTES, PAGE_BYTES);
    return good;
}

static void give_up_spare(struct guest_memory *memory)
{
    munmap(memory->spare, memory->spare ? SPARE_MAPPINGS * PAGE_BYTES : 0);
    memory->spare = NULL;
}

/* From `start` to the end of the file or anonymous range there, at most `end`; where it stopped, or
 * NULL if the kernel refuses. */
static uint8_t *discard_part(struct guest_memory *memory, uint8_t *start, uint8_t *end)
{
    bool in_file = false;
    uint8_t *discarded;
    size_t pages;

    for (size_t i = 0; i < memory->file_count; i++) {
        const struct file_range *file = &memory->files[i];
        bool here = start >= file->start && start < file->end;
        uint8_t *edge = here ? file->end : file->start;

        in_file |= here;
        if (edge > start && edge < end)
            end = edge;
    }
    /* MADV_DONTNEED would bring the file's content back, but where it is hidden already. */
    discarded = memory->discarded + (start - memory->host) / PAGE_BYTES;
    pages = (size_t)(end - start) / PAGE_BYTES;
    if (!in_file || !memchr(discarded, 0, pages))
        return madvise(start, (size_t)(end - start), MADV_DONTNEED) < 0 ? NULL : end;
    /* Each hole in it is a mapping more; at vm.max_map_count of them the kernel refuses, the next
     * time when the spare ones are to be held again. */
    if ((!memory->spare && !hold_spare(memory)) || !map_anonymous(start, (size_t)(end - start))) {
        give_up_spare(memory);
        return NULL;
    }
    memset(discarded, 1, pages);
    return end;
}

bool guest_memory_discard_mapped(struct guest_memory *memory, void *host, uint64_t size)
{
    uint8_t *end = (uint8_t *)host + size - ((uintptr_t)host + size) % memory->page_bytes;
    uint8_t *start = (uint8_t *)host + -(uintptr_t)host % memory->page_bytes;

    if (memory->fd >= 0 && start < end) /* MADV_DONTNEED would leave it in the file */
        return fallocate(memory->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                         start - memory->host, end - start) == 0;
    while (start && start < end)
        start = discard_part(memory, start, end);
    return start != NULL;
}

bool guest_memory_discard(struct guest_memory *memory, uint64_t guest, uint64_t size)
{
    void *host = guest_memory_map(memory, guest, size);

    return host && guest_memory_discard_mapped(memory, host, size);
}

bool guest_memory_refills(const struct guest_memory *memory)
{
    return memory->page_bytes == PAGE_BYTES;
}

/* The next stretch of pages, from `at` on, where a layer has something, or what was mapped into
 * booted memory.  At the end of memory, and empty, if none has. */
static int next_of_files(const struct guest_memory *memory, uint64_t at, uint64_t *ret_start,
                         uint64_t *ret_end)
{
    uint64_t first = memory->bytes, end = first, start;
    int fd = -1, result = 0;

    for (size_t i = 0; i < memory->layer_count; i++) {
        start = sparse_find_data(memory->layers[i], at, memory->bytes);
        if (start < first) {
            first = start;
            fd = memory->layers[i];
        }
    }
    if (fd >= 0) /* asked of one only, for it takes time */
        result = sparse_next_data(fd, first, memory->bytes, &start, &end);
    for (size_t i = 0; i < memory->file_count && memory->layer_count == 0; i++) {
        start = (uint64_t)(memory->files[i].start - memory->host);
        if (memory->files[i].end > memory->host + at && start < first) {
            first = start > at ? start : at;
            end = (uint64_t)(memory->files[i].end - memory->host);
        }
    }
    *ret_start = first - first % PAGE_BYTES;
    *ret_end = end + -end % PAGE_BYTES;
    return result < 0 ? result : 0;
}

int guest_memory_save(const struct guest_memory *memory, int pagemap_fd, int fd)
{
    uint64_t start, end;
    int result = 0;

    if (memory->fd >= 0)
        return sparse_copy_by_hand(memory->fd, fd, memory->bytes);
    if (pagemap_fd < 0)
        return sparse_write(fd, memory->host, memory->bytes, 0);
    for (uint64_t at = 0; at < memory->bytes && result == 0; at = end) {
        result = next_of_files(memory, at, &start, &end);
        if (result == 0)
            result = save_changes(memory, pagemap_fd, at, start, sparse_write, fd);
        if (result == 0)
            result = sparse_write(fd, memory->host + start, end - start, start);
    }
    return result;
}
