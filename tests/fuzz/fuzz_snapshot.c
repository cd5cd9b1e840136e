/* fuzz_snapshot.c - a snapshot's state that someone has changed: it is refused, or is one that a
 * guest could have made itself.  A machine with a serial port, power and hotplug registers and one
 * of each device but the nic (tests/unit/test_virtio_net_queues.c) is saved by the code that saves
 * it; the bytes then say what in the file becomes other, what cuts it off, and what the guest of
 * the machine that was loaded does (fuzz_machine.h).
 *
 * The vCPUs' part goes to KVM as it is, and is not here: tests/unit/test_kvm_state.c. */
#define HARNESS_HOTPLUG (4ull << 20)
#include <sys/mman.h>
#include "tests/fuzz/fuzz_machine.h"
#include "vmm/control_protocol.h"
#include "vmm/cpuid.h"
#include "vmm/hotplug.h"
#include "vmm/power.h"
#include "vmm/serial.h"
#include "vmm/snapshot.h"
#include "vmm/stats_page.h"
#include "vmm/transfer.h"
#include "vmm/virtio_balloon.h"
#include "vmm/virtio_block.h"
#include "vmm/virtio_mem.h"
#include "vmm/virtio_rng.h"
#include "vmm/virtio_vsock.h"

#define DISK_BYTES        (64u << 10)
#define DEVICES           5
#define PATCHES_MAX       16
#define FILE_HEADER_BYTES 32

struct board {
    struct fuzz_machine m; /* first */
    struct stats_disk disk_stats;
    struct stats_balloon balloon_stats;
    struct stats_memory memory_stats;
    struct stats_vsock vsock_stats;
    struct serial *serial;
    struct power *power;
    struct hotplug *hotplug;
    struct cpuid cpuid;
    uint64_t served;
    int disk_fd, interrupt;
};

static union {
    struct stats_page page;
    uint8_t whole[VMM_PAGE_BYTES];
} shared;

static bool tell_nobody(struct control *control, const struct vmm_vsock *message)
{
    (void)control;
    (void)message;
    return true;
}

static void eject_nothing(void *context, unsigned slot)
{
    (void)context;
    (void)slot;
}

/* The last one, which gets no driver, is the entropy source. */
static void board_add_devices(struct board *board)
{
    struct harness *h = &board->m.h;
    const struct vmm_balloon balloon = { .target_mib = 1 };
    const struct virtio_vsock_spec vsock = { 3, &board->vsock_stats, tell_nobody, NULL };
    const struct virtio_block_spec disk = {
        .fd = board->disk_fd,
        .queues = 1,
        .size_bytes = DISK_BYTES,
        .serial = "fuzz",
        .stats = &board->disk_stats,
        .ring = NULL, /* the same input does the same */
    };
    struct virtio_balloon *ret_balloon;
    struct virtio_mem *ret_mem;
    struct virtio_vsock *ret_vsock;

    FUZZ_REQUIRE(virtio_block_add(h->root, &disk, &h->err) == 0);
    FUZZ_REQUIRE(
        virtio_balloon_add(h->root, &balloon, &board->balloon_stats, &ret_balloon, &h->err) == 0);
    FUZZ_REQUIRE(
        virtio_mem_add(h->root, VMM_MEMORY_BLOCK, &board->memory_stats, &ret_mem, &h->err) == 0);
    FUZZ_REQUIRE(virtio_vsock_add(h->root, &vsock, &ret_vsock, &h->err) == 0);
    FUZZ_REQUIRE(virtio_rng_add(h->root, &board->served, &h->err) == 0);
}

static void board_open(struct board *board)
{
    struct harness *h = &board->m.h;

    memset(board, 0, sizeof(*board));
    harness_open_on(h, -1, -1);
    board->disk_fd = memfd_create("disk", MFD_CLOEXEC);
    board->interrupt = memfd_create("interrupt", MFD_CLOEXEC);
    board->cpuid.count = 1;
    FUZZ_REQUIRE(serial_new(&h->ports, board->interrupt, &shared.page, &board->serial, &h->err) ==
                 0);
    FUZZ_REQUIRE(power_new(&h->ports, board->interrupt, h->loop, NULL, &board->power, &h->err) ==
                 0);
    FUZZ_REQUIRE(hotplug_new(&h->ports, board->power, h->loop, eject_nothing, NULL, &board->hotplug,
                             &h->err) == 0);
    board_add_devices(board);
}

static void board_close(struct board *board)
{
    harness_close(&board->m.h);
    free(board->hotplug);
    free(board->power);
    free(board->serial);
    close(board->disk_fd);
    close(board->interrupt);
}

/* As machine.c does. */
static void board_transfer(struct board *board, struct transfer *transfer)
{
    struct cpuid host = board->cpuid;
    char what[64];

    transfer_item(transfer, "CPUID", &board->cpuid, sizeof(board->cpuid));
    if (transfer->loading && transfer_is_good(transfer) &&
        !cpuid_is_within(&board->cpuid, &host, what, sizeof(what)))
        transfer_refuse(transfer, ENOTSUP, "this host's processor, or the VM's cpu, lacks %s",
                        what);
    serial_transfer(board->serial, transfer);
    power_transfer(board->power, transfer);
    hotplug_transfer(board->hotplug, transfer);
    pci_root_transfer(board->m.h.root, transfer);
}

/* All devices but the last have a driver; serial input waits. */
static void board_run(struct board *board)
{
    for (unsigned slot = 1; slot < DEVICES; slot++) {
        board->m.h.slot = slot;
        driver_start(&board->m.h, 0, FUZZ_RING_SIZE);
    }
    (void)serial_input(board->serial, "waits", 5);
}

/* Values of those kinds that a number in the file may be. */
static uint64_t patch_value(struct fuzz_input *input, uint8_t kind)
{
    static const uint64_t values[] = { 0,          1,          15,         0xff,
                                       0xffff,     0x7fffffff, 0x80000000, HARNESS_MEMORY - 8,
                                       1ull << 63, UINT64_MAX };

    return kind >= 0x80 ? fuzz_take(input, 1 + (kind & 7))
                        : values[kind % (sizeof(values) / sizeof(values[0]))];
}

/* Where a patch goes: into an item, or anywhere. */
static off_t patch_place(struct fuzz_input *input, int fd, off_t end, bool in_item)
{
    struct {
        uint32_t name, size;
    } item;
    off_t at = FILE_HEADER_BYTES;
    unsigned index = (unsigned)fuzz_take(input, 1), offset = (unsigned)fuzz_take(input, 1);

    if (!in_item)
        return (off_t)(index << 8 | offset) % end;
    for (;; at += (off_t)(sizeof(item) + item.size)) {
        if (pread(fd, &item, sizeof(item), at) != sizeof(item) || item.size == 0)
            return at % end; /* the sizes were patched, too */
        if (index-- == 0)
            return (at + (off_t)(sizeof(item) + offset % item.size)) % end;
    }
}

static void patch_file(struct fuzz_input *input, int fd)
{
    unsigned patches = (unsigned)fuzz_take(input, 1) % PATCHES_MAX;
    off_t end = lseek(fd, 0, SEEK_END);

    for (unsigned i = 0; i < patches; i++) {
        uint8_t kind = (uint8_t)fuzz_take(input, 1);
        uint64_t value = patch_value(input, kind);
        off_t at = patch_place(input, fd, end - 8, kind % 4 != 0);

        if (kind == 0x7c)
            FUZZ_REQUIRE(ftruncate(fd, at) == 0);
        else
            FUZZ_REQUIRE(pwrite(fd, &value, 1u << (kind >> 4 & 3), at) > 0);
    }
}

static void save(struct board *board, int state_fd)
{
    const struct snapshot_files files = { state_fd, -1, -1 };
    struct transfer saved = { .err = &board->m.h.err };

    board_transfer(board, &saved);
    FUZZ_REQUIRE(transfer_is_good(&saved));
    FUZZ_REQUIRE(snapshot_write(&files, board->m.h.memory, &saved, saved.err) == 0);
    free(saved.bytes);
}

/* What a device may look like that a guest has driven by its registers alone. */
static void check_device(struct harness *h)
{
    uint64_t accepted = 0, offered = features_offered(h);
    uint8_t status = status_get(h);

    for (uint32_t i = 0; i < 2; i++) {
        reg_put(h, REG_ACCEPTED_SELECT, 4, i);
        accepted |= reg_get(h, REG_ACCEPTED, 4) << 32 * i;
    }
    if (status & VIRTIO_STATUS_DRIVER_OK) {
        FUZZ_REQUIRE(status & VIRTIO_STATUS_FEATURES_OK);
        FUZZ_REQUIRE((accepted & ~offered) == 0 && accepted & VIRTIO_FEATURE_VERSION_1);
    }
}

static void check_devices(struct board *board)
{
    for (unsigned slot = 1; slot <= DEVICES; slot++) {
        board->m.h.slot = slot;
        for (unsigned i = 0; i < 2; i++) /* the registers may have been moved, or be off */
            config_put(&board->m.h, 0x10 + 4 * i, 4,
                       PLATFORM_PCI32_START + (2 * slot + i) * 0x100000);
        config_put(&board->m.h, 4, 2, 6);
        check_device(&board->m.h);
    }
    FUZZ_REQUIRE(board->memory_stats.plugged_bytes <= HARNESS_HOTPLUG);
    FUZZ_REQUIRE(board->memory_stats.plugged_bytes % VMM_MEMORY_BLOCK == 0);
}

static bool load(struct board *board, int state_fd)
{
    struct transfer loaded = { 0 };
    bool good;

    if (snapshot_read(state_fd, board->m.h.memory, &loaded, &board->m.h.err) < 0)
        return false;
    board_transfer(board, &loaded);
    good = transfer_is_good(&loaded);
    FUZZ_REQUIRE(loaded.at <= loaded.size);
    free(loaded.bytes);
    return good;
}

static void rng_probe(struct fuzz_machine *m)
{
    const struct ring_buffer buffer = { DATA_BASE, 32, RING_WRITE };
    uint32_t head, used;

    if (m->h.slot < DEVICES)
        return;
    ring_offer(&m->h, 0, &buffer, 1);
    ring_kick(&m->h, 0);
    FUZZ_REQUIRE(ring_take(&m->h, 0, &head, &used));
    FUZZ_REQUIRE(used == 32);
}

static void serial_step(struct fuzz_machine *m)
{
    uint64_t how = fuzz_take(&m->input, 1), value = fuzz_take(&m->input, 1);

    if (how & 8)
        bus_write(&m->h.ports, PLATFORM_PORT_COM1 + (how & 7), &value, 1);
    else
        bus_read(&m->h.ports, PLATFORM_PORT_COM1 + (how & 7), &value, 1);
}

FUZZ_TARGET(snapshot)
{
    static struct board board;
    int state_fd = memfd_create("state", MFD_CLOEXEC);
    struct fuzz_input input = { bytes, size };
    unsigned slot = 1 + (unsigned)fuzz_take(&input, 1) % DEVICES;

    board_open(&board);
    board_run(&board);
    save(&board, state_fd);
    board_close(&board);

    patch_file(&input, state_fd);
    board_open(&board);
    board.m.step = serial_step;
    board.m.probe = rng_probe;
    board.m.h.slot = slot;
    fuzz_begin(&board.m, input.bytes, input.size);
    if (load(&board, state_fd)) {
        fuzz_turns(&board.m);
        check_devices(&board);
        board.m.h.slot = slot;
        fuzz_program(&board.m);
    }
    board_close(&board);
    close(state_fd);
    return 0;
}
