/* fuzz_virtio_block.c - the block device under a hostile driver (fuzz_machine.h), over a file. */
#include "tests/fuzz/fuzz_machine.h"
#include <sys/mman.h>
#include "tests/unit/block_driver.h"
#include "vmm/stats_page.h"
#include "vmm/virtio_block.h"

#define DISK_BYTES (256u << 10)
#define MARK_BYTES 4096 /* behind the disk; a guest must never reach it */
#define MARK       0x5a

struct block_fuzz {
    struct stats_disk stats;
    int fd;
};

/* One request, whole but for what the bytes say: type, sector, data's length, direction. */
static void block_step(struct fuzz_machine *m)
{
    static const uint32_t types[] = { 0, 1, 4, 8, 11, 13, 2, 0xffffffff };
    const uint32_t type = types[fuzz_take(&m->input, 1) % 8];
    const uint32_t header_bytes = 16;
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } header = { type, 0, fuzz_take(&m->input, 2) };
    uint32_t length = fuzz_length(m);
    uint8_t how = (uint8_t)fuzz_take(&m->input, 1);
    struct {
        uint64_t sector;
        uint32_t sectors, flags;
    } range = { how >> 2, length / 512, how & 3 };
    bool to_guest = how & 128 ? how & 1 : type == 0 || type == 8;
    const struct ring_buffer buffers[] = {
        { DATA_BASE, header_bytes, 0 },
        { DATA_BASE + 0x1000, length, to_guest ? RING_WRITE : 0 },
        { DATA_BASE + 0x100, 1, RING_WRITE },
    };

    if (how == 0xff)
        header.sector = UINT64_MAX - header.sector;
    guest_put(&m->h, DATA_BASE, &header, sizeof(header));
    if (type > 10)
        guest_put(&m->h, DATA_BASE + 0x1000, &range, sizeof(range));
    ring_offer(&m->h, 0, buffers, 3);
    if (how & 64)
        (void)fuzz_take(&m->input, 0); /* later, with others */
    else
        ring_notify(&m->h, 0);
    fuzz_turns(m);
}

/* A driver that reads the last sector gets it. */
static void block_probe(struct fuzz_machine *m)
{
    uint32_t head, used;

    block_offer(&m->h, 0, DATA_BASE, IN, DISK_BYTES / 512 - 1, DATA_BASE + 0x1000, 512);
    ring_kick(&m->h, 0);
    FUZZ_REQUIRE(ring_take(&m->h, 0, &head, &used));
    FUZZ_REQUIRE(used == 513 && guest_get8(&m->h, DATA_BASE + BLOCK_STATUS) == OK);
}

static void check_mark(int fd)
{
    uint8_t mark[MARK_BYTES];

    FUZZ_REQUIRE(pread(fd, mark, sizeof(mark), DISK_BYTES) == (ssize_t)sizeof(mark));
    for (size_t i = 0; i < sizeof(mark); i++)
        FUZZ_REQUIRE(mark[i] == MARK);
}

FUZZ_TARGET(virtio_block)
{
    static uint8_t mark[MARK_BYTES];
    struct block_fuzz block = { .fd = memfd_create("disk", MFD_CLOEXEC) };
    struct virtio_block_spec spec = {
        .queues = 2,
        .fd = block.fd,
        .size_bytes = DISK_BYTES,
        .serial = "fuzz",
        .stats = &block.stats,
        .ring = NULL, /* the same input does the same */
    };
    struct fuzz_machine m = { .step = block_step, .probe = block_probe, .device = &block };

    if (size == 0)
        return 0;
    spec.read_only = bytes[0] & 1;
    memset(mark, MARK, sizeof(mark));
    FUZZ_REQUIRE(pwrite(block.fd, mark, sizeof(mark), DISK_BYTES) == (ssize_t)sizeof(mark));
    harness_open_on(&m.h, -1, -1);
    FUZZ_REQUIRE(virtio_block_add(m.h.root, &spec, &m.h.err) == 0);
    fuzz_run(&m, bytes + 1, size - 1);
    check_mark(block.fd);
    harness_close(&m.h);
    close(block.fd);
    return 0;
}
