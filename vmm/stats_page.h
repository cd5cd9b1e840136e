/* stats_page.h - the file that a VMM and the agent share for one VM: counters, the exit record and
 * the console ring.
 *
 * The agent creates it (VMM_PAGE_BYTES, all blocks allocated, so that a full disk cannot turn a
 * store into SIGBUS) in the VM's run directory and passes its fd; the VMM maps it shared and only
 * writes.  The agent only reads it, with pread: a VMM that shortens the file cannot hurt it.  Being
 * a file it survives both processes: why a VM ended is known even if it ended while no agent ran,
 * and the console's tail is there after a crash.  Everything in it is untrusted by the agent.
 *
 * Counters are written by one thread each with relaxed atomics; readers may see them a moment late
 * and not all of one instant.
 *
 * The magic tells the layout: "PAG" and a digit.  An agent meets the pages of VMMs that are older,
 * or newer, than itself.  What is added at the end is 0 where a VMM does not know it, and needs no
 * other digit.  What moves a field, as one more of enum stats_exit would, does: of such a page only
 * the head is read.  So all layouts have for ever the same first STATS_HEAD_BYTES, numbers of enum
 * exit_reason, and place of the console ring.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define STATS_PAGE_MAGIC   0x32474150 /* "PAG2" */
#define STATS_HEAD_BYTES   152        /* up to and with console_bytes */
#define STATS_DISKS_MAX    8
#define STATS_NICS_MAX     8
#define STATS_VCPUS_MAX    32
#define STATS_GUEST_MAX    10
#define STATS_GUEST_KEEPS  (1ull << 63) /* its driver does not deflate when memory runs out */
#define CONSOLE_RING_BYTES 65536        /* power of two */
#define CONSOLE_OFFSET     4096
#define VMM_PAGE_BYTES     (CONSOLE_OFFSET + CONSOLE_RING_BYTES)

enum exit_reason {
    EXIT_REASON_NONE = 0,     /* still running, or killed before it could say */
    EXIT_REASON_POWEROFF,     /* ACPI S5 */
    EXIT_REASON_REBOOT,       /* reset register, i8042 */
    EXIT_REASON_PANIC,        /* pvpanic */
    EXIT_REASON_TRIPLE_FAULT, /* KVM_EXIT_SHUTDOWN */
    EXIT_REASON_KVM_ERROR,    /* KVM_EXIT_INTERNAL_ERROR, FAIL_ENTRY: detail has the suberror */
    EXIT_REASON_VMM_ERROR,    /* a host call failed: detail has errno, text what */
    EXIT_REASON_CONFIG,       /* the VM could not be built: text says why */
    EXIT_REASON_COUNT,
};

/* Why a vCPU came back from KVM_RUN. */
enum stats_exit {
    STATS_EXIT_IO,     /* a port */
    STATS_EXIT_MMIO,   /* a device's register */
    STATS_EXIT_SIGNAL, /* the VMM called it, or the host's kernel */
    STATS_EXIT_OTHER,
    STATS_EXIT_COUNT,
};

struct stats_disk {
    uint64_t read_ops, write_ops, flush_ops, discard_ops;
    uint64_t read_bytes, write_bytes, discard_bytes;
    uint64_t errors;
};

struct stats_nic {
    uint64_t rx_frames, rx_bytes, rx_dropped; /* rx: towards the guest */
    uint64_t tx_frames, tx_bytes, tx_dropped;
    uint64_t vhost; /* 1 = the host's kernel serves it, and nothing is counted */
};

/* The guest's words are its own: `actual` and `guest` may lie. */
struct stats_balloon {
    uint64_t target_bytes, actual_bytes;     /* asked of the guest; what it says it gave */
    uint64_t inflated_bytes, reported_bytes; /* given by inflating, by reporting, ever */
    uint64_t guest_ms;               /* CLOCK_MONOTONIC of the guest's statistics; 0 = none came */
    uint64_t guest_known;            /* a bit for each of them that came, and STATS_GUEST_KEEPS */
    uint64_t guest[STATS_GUEST_MAX]; /* by tag, virtio 1.2, 5.5.6.4 */
};

struct stats_vsock {
    uint64_t connections, closed;
    uint64_t rx_bytes, tx_bytes; /* rx: towards the guest */
};

struct stats_memory {
    uint64_t requested_bytes, plugged_bytes; /* of what can be plugged */
};

struct stats_page {
    uint32_t magic;    /* STATS_PAGE_MAGIC, written by the VMM when it has mapped the page */
    uint32_t unused;   /* 1 in older pages */
    uint64_t start_ns; /* CLOCK_MONOTONIC when the vCPUs were let go; 0 = not yet */

    uint32_t exit_reason; /* enum exit_reason; written last, after the three below */
    int32_t exit_detail;  /* before there is a reason, and of a power-off: SIGTERM if that came */
    char exit_text[120];

    uint64_t console_bytes; /* since start; the newest byte is at (console_bytes-1) % RING */
    uint64_t vcpu_exits[STATS_VCPUS_MAX][STATS_EXIT_COUNT];
    struct stats_disk disks[STATS_DISKS_MAX];
    struct stats_nic nics[STATS_NICS_MAX];
    uint64_t rng_bytes;
    struct stats_balloon balloon;
    struct stats_vsock vsock;
    struct stats_memory memory;
    uint8_t disk_full[STATS_DISKS_MAX]; /* 1: requests of it wait for space */
};

_Static_assert(offsetof(struct stats_page, exit_reason) == 16 &&
                   offsetof(struct stats_page, vcpu_exits) == STATS_HEAD_BYTES,
               "the head is where it always was");
_Static_assert(offsetof(struct stats_page, disk_full) == 2320, "what moves has another magic");
_Static_assert(sizeof(struct stats_page) <= CONSOLE_OFFSET, "counters fit before the console");
