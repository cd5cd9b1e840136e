/* disk_bench.c - drives a disk back end of the VMM with nothing around it but its loop.
 *
 *   disk_bench FILE random|sequential read|write BYTES DEPTH MS none|buffered ring|calls MEMORY
 *              [BASE]
 *
 * Prints operations per second; MS 0: as many as FILE has blocks, and a flush.  FILE is
 * overwritten. The buffers are those of MEMORY, one behind the other: the speed of large transfers
 * depends on how scattered the memory is.  With a BASE, FILE is a delta over it; an empty one
 * becomes that. */
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/loop.h"
#include "storage/delta_file.h"
#include "vmm/disk.h"
#include "tests/unit/ring_harness.h"
#include "vmm/disk_delta.h"
#include "vmm/disk_raw.h"

struct bench {
    struct disk *disk;
    bool random;
    enum disk_operation operation;
    uint64_t bytes, blocks, next, state; /* state: of the random numbers */
    uint64_t done;
    unsigned ready_count;
    struct slot *ready[DISK_IN_FLIGHT_MAX];
};

struct slot {
    struct disk_request request; /* first */
    struct bench *bench;
    struct iovec vector;
    void *buffer;
};

static void request_done(struct disk_request *request, int result)
{
    struct slot *slot = (struct slot *)request;
    struct bench *bench = slot->bench;

    if (result < 0) {
        fprintf(stderr, "disk_bench: %s\n", strerror(-result));
        exit(1);
    }
    bench->done++;
    bench->ready[bench->ready_count++] = slot;
}

static void submit(struct bench *bench, struct slot *slot)
{
    uint64_t block = bench->next++ % bench->blocks;

    if (bench->random) {
        bench->state ^= bench->state << 13;
        bench->state ^= bench->state >> 7;
        bench->state ^= bench->state << 17;
        block = bench->state % bench->blocks;
    }
    slot->vector = (struct iovec){ slot->buffer, bench->bytes };
    slot->request = (struct disk_request){
        .operation = bench->operation,
        .offset = block * bench->bytes,
        .size = bench->bytes,
        .vectors = &slot->vector,
        .vector_count = 1,
        .done = request_done,
    };
    disk_submit(bench->disk, &slot->request);
}

static void disk_event(void *context, uint32_t events)
{
    (void)events;
    disk_run(((struct bench *)context)->disk);
}

/* As virtio_block.c does: a turn's requests go out together. */
static void run(struct bench *bench, struct loop *loop, int64_t ms)
{
    int64_t begin_ms = loop_now_ms();
    struct error err = { 0 };

    while (ms > 0 ? loop_now_ms() - begin_ms < ms : bench->done < bench->blocks) {
        unsigned count = bench->ready_count;
        struct slot *turn[DISK_IN_FLIGHT_MAX];

        memcpy(turn, bench->ready, count * sizeof(turn[0]));
        bench->ready_count = 0;
        for (unsigned i = 0; i < count; i++)
            submit(bench, turn[i]);
        disk_run(bench->disk);
        while (bench->ready_count == 0)
            if (loop_turn(loop, -1, &err) < 0)
                exit(1);
    }
    printf("%.1f\n", (double)bench->done * 1000 / (double)(loop_now_ms() - begin_ms));
    disk_drain(bench->disk, DISK_FINISH);
}

/* Which blocks a delta has is in its file from then on. */
static void flush(struct bench *bench, struct slot *slot)
{
    slot->request = (struct disk_request){ .operation = DISK_FLUSH, .done = request_done };
    disk_submit(bench->disk, &slot->request);
    disk_drain(bench->disk, DISK_FINISH);
}

static int usage(void)
{
    fprintf(stderr, "usage: disk_bench FILE random|sequential read|write BYTES DEPTH MS "
                    "none|buffered ring|calls MEMORY [BASE]\n");
    return 2;
}

static int open_disk(struct bench *bench, int fd, struct uring *ring, const char *base,
                     struct error *err)
{
    int base_fd = base ? open(base, O_RDONLY | O_CLOEXEC) : -1; /* as long as we live */
    struct stat status;
    int result = fstat(fd, &status);
    bool is_new = result == 0 && status.st_size == 0;

    if (base)
        result = fstat(base_fd, &status);
    if (result < 0)
        return error_set(err, errno, "%s", strerror(errno));
    bench->blocks = (uint64_t)status.st_size / bench->bytes;
    if (bench->blocks == 0)
        return error_set(err, EINVAL, "the disk is too small");
    if (!base)
        return disk_raw_new(fd, ring, &bench->disk, err);
    if (is_new)
        result = delta_file_init(fd, (uint64_t)status.st_size, (uint64_t)status.st_size, "", err);
    return result < 0
               ? result
               : disk_delta_new(base_fd, fd, ring, (uint64_t)status.st_size, &bench->disk, err);
}

int main(int argc, char **argv)
{
    struct bench bench = { .state = 88172645463325252ull };
    struct loop_source *source;
    struct error err = { 0 };
    struct loop *loop;
    struct stat status;
    auto_close int fd = -1;
    auto_close int memory_fd = -1;
    uint8_t *memory;
    unsigned depth;
    int64_t ms;

    if (argc != 10 && argc != 11)
        return usage();
    fd = open(argv[1], O_RDWR | O_CLOEXEC | (strcmp(argv[7], "none") == 0 ? O_DIRECT : 0));
    bench.random = strcmp(argv[2], "random") == 0;
    bench.operation = strcmp(argv[3], "write") == 0 ? DISK_WRITE : DISK_READ;
    bench.bytes = strtoull(argv[4], NULL, 10);
    depth = (unsigned)strtoul(argv[5], NULL, 10);
    memory_fd = open(argv[9], O_RDWR | O_CLOEXEC);
    if (fd < 0 || bench.bytes == 0 || depth == 0 || depth > DISK_IN_FLIGHT_MAX || memory_fd < 0 ||
        fstat(memory_fd, &status) < 0 || (uint64_t)status.st_size < depth * bench.bytes)
        return usage();
    memory = mmap(NULL, depth * bench.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                  memory_fd, 0);
    if (memory == MAP_FAILED)
        return usage();
    if (loop_new(&loop, &err) < 0 ||
        open_disk(&bench, fd, strcmp(argv[8], "calls") == 0 ? NULL : ring_new(), argv[10], &err) <
            0 ||
        (bench.disk->event_fd >= 0 && loop_add(loop, bench.disk->event_fd, EPOLLIN | EPOLLET,
                                               disk_event, &bench, &source, &err) < 0)) {
        fprintf(stderr, "disk_bench: %s\n", err.message);
        return 1;
    }
    struct slot *slots = calloc(depth, sizeof(*slots));

    for (unsigned i = 0; slots && i < depth; i++) {
        slots[i].bench = &bench;
        slots[i].buffer = memory + i * bench.bytes;
        bench.ready[bench.ready_count++] = &slots[i];
    }
    ms = (int64_t)strtoul(argv[6], NULL, 10);
    run(&bench, loop, ms);
    if (ms == 0)
        flush(&bench, slots);
    return 0;
}
