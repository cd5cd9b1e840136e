/* control_protocol.h - what the agent and a VMM say to each other: fixed-size messages on a
 * SOCK_SEQPACKET unix socket, no text to parse.
 *
 * The agent makes the listening socket in the VM's run directory and passes it as fd
 * VMM_LISTENER_FD at exec; the VMM only ever accepts (peer uid must be 0), one connection at a
 * time: a newer one replaces the older.  The agent connects the same way after the spawn and after
 * its own restart, so there is one way in.
 *
 *   agent -> VMM   CONFIGURE + fds     once, first.  Answer: READY (vCPUs run) or an exit record
 *   agent -> VMM   POWER_BUTTON        ACPI power button through the GED.  No answer
 *   agent -> VMM   PAUSE, RESUME       Answer: STATE, once it is so.  While paused nothing but this
 *                                      socket is served
 *   agent -> VMM   SNAPSHOT + 2 fds    while paused; state and memory file (snapshot.h).  Answer:
 *                                      SNAPSHOT_DONE, when both are written, or with an error; to
 *                                      sync them is the agent's.  A third, the memory file for
 *                                      reading: the memory becomes changes of that, its only layer
 *   agent -> VMM   SAVE + 3 fds        as SNAPSHOT; the third is its /proc/PID/pagemap, by which
 *                                      only memory that was used is read, the fourth the memory
 *                                      file for reading
 *   agent -> VMM   FORK + 3 fds        while paused; where its state goes, its /proc/PID/pagemap,
 *                                      and an empty file of the RAM's size for what changed since
 *                                      the memory's layers.  Answer: SNAPSHOT_DONE, with the layers
 *                                      of which a fork's memory consists (guest_memory.h)
 *   agent -> VMM   ATTACH + fds        a disk or a nic, as CONFIGURE has for one.  Answer: DEVICE,
 *                                      state PRESENT: the guest is told of it; result -EEXIST: its
 *                                      place is taken, -errno: it cannot be
 *   agent -> VMM   CHANGE              as ATTACH, without fds: what is at that place, if anything
 *                                      is, has these rate limits from now on, and a disk this size,
 *                                      if it is a larger one (its file has it already); the rest
 *                                      stays as it is.  No answer: there is nothing to refuse, and
 *                                      it may be told again at any time
 *   agent -> VMM   DETACH              asks the guest to let it go, each time anew; with state
 *                                      PRESENT only asks whether it is there.  Answer: DEVICE,
 *                                      state PRESENT, or ABSENT with -ENOENT: none is there
 *   VMM -> agent   DEVICE              unasked, state ABSENT: the guest has let go what it was
 *                                      asked for, by this agent or the one before; its fds are
 *                                      closed.  State FULL: there is no space for a request of a
 *                                      disk that has pause_when_full.  Such requests wait until
 *                                      RESUME, which tries them again; the page (stats_page.h)
 *                                      says it, too
 *   agent -> VMM   MARK_WRITES + 1 fd  a memfd of VMM_DISKS_MAX * WRITE_MARKS_OF_DISK bytes: what
 *                                      is written to the disks is marked there from now on
 *                                      (base/write_marks.h), until the connection ends or this is
 *                                      said anew; without an fd: no more.  Answer: MARKING
 *   agent -> VMM   PING                Answer: STATE (re-adoption, liveness)
 *   agent -> VMM   BALLOON             struct vmm_balloon_change.  No answer; see stats_page.h
 *   agent -> VMM   MEMORY              struct vmm_memory_change.  No answer; see stats_page.h
 *   agent -> VMM   CONSOLE_INPUT       for the guest's serial port.  Answer: INPUT_TAKEN, in
 *                                      order: 0 = all of it, -EAGAIN = nothing, there is no room
 *   VMM -> agent   READY, STATE, SNAPSHOT_DONE, INPUT_TAKEN, MARKING    all are struct vmm_state
 *
 * A connection of the guest's vsock is a stream socket that the agent passes, struct vmm_vsock:
 *   agent -> VMM   VSOCK_CONNECT + fd  to a port of the guest; to hang up is to give up.  Answer:
 *                                      VSOCK_CONNECTED with the same id, which is the agent's
 *   VMM -> agent   VSOCK_REQUEST       the guest wants a port of the host
 *   agent -> VMM   VSOCK_ANSWER + fd   to it, with the same id, which is the VMM's; without an fd:
 *                                      refused
 * What is unanswered when the agent's connection ends is refused.
 *
 * A VMM ends by exiting after it wrote the exit record into the shared page (stats_page.h); the
 * agent sees the pidfd.  An unknown type, a wrong size or a second CONFIGURE closes the connection
 * and changes nothing.
 *
 * Every message starts with the header; `version` is the sender's newest, and both sides speak the
 * lower one.  VMMs outlive their agent's upgrades, so a version only adds types: what one says, and
 * how long it is, never changes, and who has not said its version yet speaks the first.  Version 1
 * has all that is not named here; 2 has ATTACH, DETACH and CHANGE (1 had others, under other
 * numbers); 3 has MARK_WRITES, 4 SAVE.  Integers are the host's. */
#pragma once
#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/disk_ring.h"
#include "vmm/stats_page.h"

#define VMM_PROTOCOL_VERSION 4
#define VMM_PROTOCOL_DEVICES 2 /* the first version with ATTACH, DETACH, CHANGE as they are */
#define VMM_PROTOCOL_MARKS   3 /* the first with MARK_WRITES */
#define VMM_PROTOCOL_SAVE    4 /* the first with SAVE */
#define VMM_LISTENER_FD      3
#define VMM_RINGS_FD         4 /* the first of them: struct vmm_rings */
#define VMM_LOG_FD           2 /* lines of text, non-blocking or a file */

#define VMM_VCPUS_MAX    STATS_VCPUS_MAX
#define VMM_DISKS_MAX    STATS_DISKS_MAX
#define VMM_NICS_MAX     STATS_NICS_MAX
#define VMM_SLOT_DISKS   8 /* PCI slot of the disk at place 0, and so on */
#define VMM_SLOT_NICS    16
#define VMM_QUEUES_MAX   8 /* of a disk; pairs of a nic */
#define VMM_CMDLINE_MAX  2047
#define VMM_MEMORY_MAX   (512ull << 30) /* bytes */
#define VMM_MEMORY_MIN   (1ull << 20)
#define VMM_MEMORY_BLOCK (2ull << 20) /* of memory that is plugged */
#define VMM_LAYERS_MAX   8            /* files that a restored VM's memory consists of */
#define VMM_CID_MIN      3            /* of a guest's vsock */
#define VMM_CID_MAX      0xfffffffeu
#define VMM_INPUT_MAX    4096 /* bytes of one CONSOLE_INPUT, and that wait for the guest together */

enum vmm_message_type {
    VMM_MESSAGE_CONFIGURE = 1,
    VMM_MESSAGE_POWER_BUTTON,
    VMM_MESSAGE_PING,
    VMM_MESSAGE_PAUSE,
    VMM_MESSAGE_RESUME,
    VMM_MESSAGE_SNAPSHOT,
    VMM_MESSAGE_CONSOLE_INPUT,
    VMM_MESSAGE_BALLOON,
    VMM_MESSAGE_FORK,
    VMM_MESSAGE_VSOCK_CONNECT,
    VMM_MESSAGE_VSOCK_ANSWER,
    VMM_MESSAGE_MEMORY,
    VMM_MESSAGE_ATTACH,
    VMM_MESSAGE_DETACH,
    VMM_MESSAGE_CHANGE,
    VMM_MESSAGE_MARK_WRITES,
    VMM_MESSAGE_SAVE,
    VMM_MESSAGE_READY = 64,
    VMM_MESSAGE_STATE,
    VMM_MESSAGE_SNAPSHOT_DONE,
    VMM_MESSAGE_INPUT_TAKEN,
    VMM_MESSAGE_VSOCK_REQUEST,
    VMM_MESSAGE_VSOCK_CONNECTED,
    VMM_MESSAGE_DEVICE,
    VMM_MESSAGE_MARKING,
};

enum vmm_kernel_format { VMM_KERNEL_ELF = 1, VMM_KERNEL_BZIMAGE };

/* What the guest's RAM is.  The last two are a memfd of the agent's, mapped shared: of 2 MiB pages
 * that are reserved for it; or sealed against another size, to be forked. */
enum vmm_memory_backing {
    VMM_MEMORY_ANONYMOUS,
    VMM_MEMORY_TRANSPARENT_HUGE,
    VMM_MEMORY_HUGE_2M,
    VMM_MEMORY_SHARED,
    VMM_MEMORY_COUNT
};
static inline bool vmm_memory_has_file(uint32_t backing)
{
    return backing == VMM_MEMORY_HUGE_2M || backing == VMM_MEMORY_SHARED;
}

enum vmm_disk_format { VMM_DISK_RAW = 1, VMM_DISK_DELTA /* base/delta_format.h */ };

struct vmm_message_header {
    uint32_t type;
    uint32_t version;
    uint32_t size; /* of the whole message, header included */
    uint32_t reserved;
};
static inline struct vmm_message_header vmm_header(uint32_t type, size_t size)
{
    return (struct vmm_message_header){ type, VMM_PROTOCOL_VERSION, (uint32_t)size, 0 };
}

/* The fds that come with CONFIGURE, in this order:
 *   kvm (/dev/kvm), page (stats_page.h), the guest's memory if vmm_memory_has_file, then kernel
 * and, if has_initrd, initrd; or, to restore a snapshot, its state and its memory's files; for each
 * of disks[disk_count] its base (read-only) if it is a delta, then its file; for each of
 * nics[nic_count] as many as it has queues (of a tap, IFF_TAP|IFF_NO_PI|IFF_VNET_HDR,
 * IFF_MULTI_QUEUE if there are more than one, TUNSETVNETHDRSZ 12), and with vhost as many of
 * /dev/vhost-net. */

/* At most so much in a second, and beyond that a burst, once; see rate_limit.h. */
#define VMM_RATE_MAX ((1ull << 40) - 1) /* of each field; all bits: see config.c */
struct vmm_rate_limit {
    uint64_t bytes_per_second, bytes_burst; /* a rate of 0 = no limit */
    uint64_t operations_per_second, operations_burst;
};

struct vmm_disk {
    uint8_t read_only;
    uint8_t format; /* enum vmm_disk_format */
    uint8_t queues; /* 1 to VMM_QUEUES_MAX */
    uint8_t place;  /* below VMM_DISKS_MAX, its own: its PCI slot and its counters follow from it */
    uint8_t pause_when_full; /* 0 or 1: requests for which there is no space wait, see above */
    uint8_t reserved[3];
    uint64_t size_bytes; /* multiple of 512; raw: the file is at least that long; delta: the same */
    char serial[20];     /* virtio-blk GET_ID, NUL padded */
    char reserved2[4];
    struct vmm_rate_limit rate_limit;
};

/* Rings that the VMM inherits from the agent, for the disks at the places below `count`: for those
 * that are there at the start, and those that are attached. */
#define VMM_RING_FD(index)       (VMM_RINGS_FD + 2 * (int)(index))
#define VMM_RING_EVENT_FD(index) (VMM_RING_FD(index) + 1)
struct vmm_rings {
    uint32_t count;                 /* at most VMM_DISKS_MAX; 0 = system calls are used */
    struct disk_ring_layout layout; /* of each */
    uint32_t reserved;
};

struct vmm_nic {
    uint8_t mac[6];
    uint16_t mtu;   /* 0 = not told */
    uint8_t queues; /* 1 to VMM_QUEUES_MAX */
    uint8_t place;  /* below VMM_NICS_MAX, as a disk's */
    uint8_t vhost;  /* not 0: there are fds for it; it serves, without rate limits, if it can */
    uint8_t reserved[5];
    struct vmm_rate_limit rx_rate_limit, tx_rate_limit; /* operations: frames; rx: to the guest */
};

struct vmm_balloon {
    uint32_t target_mib;       /* below the VM's memory */
    uint16_t stats_interval_s; /* how often the guest is asked; 0 = never */
    uint8_t deflate_on_oom;    /* 0 or 1; of CONFIGURE only */
    uint8_t reserved;
};

/* What KVM supports on this host (KVM_GET_SUPPORTED_CPUID).  The same for every VM, and a question
 * that costs 0.7 ms where the host is a VM itself, so the agent asks once.  Laid out as struct
 * kvm_cpuid2; count 0 = the VMM asks itself. */
#define VMM_CPUID_MAX 128
struct vmm_cpuid {
    uint32_t count, padding;
    struct kvm_cpuid_entry2 entries[VMM_CPUID_MAX];
};

struct vmm_configure {
    struct vmm_message_header header;
    char id[64]; /* for log lines */
    uint32_t vcpus;
    uint32_t kernel_format;
    uint64_t memory_bytes;    /* multiple of 1 MiB; of VMM_MEMORY_BLOCK if more can be plugged */
    uint64_t hotplug_bytes;   /* that can be plugged, beyond these; multiple of VMM_MEMORY_BLOCK */
    uint64_t requested_bytes; /* of them, now; multiple of VMM_MEMORY_BLOCK */
    uint8_t has_initrd;
    uint8_t disk_count;
    uint8_t nic_count;
    uint8_t restore; /* of how many files its memory consists: a machine of the same configuration,
                      * snapshotted or forked; 0 = boot */
    uint8_t memory_backing; /* enum vmm_memory_backing */
    uint8_t reserved[3];
    uint8_t generation_id[16]; /* random: no two machines, nor two lives of one, have the same */
    struct vmm_rings rings;
    struct vmm_disk disks[VMM_DISKS_MAX];
    struct vmm_nic nics[VMM_NICS_MAX];
    struct vmm_balloon balloon;
    uint64_t vsock_cid;                /* 0 = no vsock */
    char cmdline[VMM_CMDLINE_MAX + 1]; /* NUL terminated */
    struct vmm_cpuid cpuid;
};

struct vmm_console_input {
    struct vmm_message_header header;
    uint32_t count; /* of bytes, 1 to VMM_INPUT_MAX */
    uint32_t reserved;
    uint8_t bytes[VMM_INPUT_MAX];
};

struct vmm_balloon_change {
    struct vmm_message_header header;
    struct vmm_balloon balloon;
};

struct vmm_vsock {
    struct vmm_message_header header;
    uint32_t id;
    uint32_t port;  /* of CONNECT and REQUEST */
    int32_t result; /* of CONNECTED: 0; -ECONNREFUSED: by the guest; -ENOTCONN: it has no driver;
                       -EAGAIN: there are too many connections */
    uint32_t reserved;
};

struct vmm_memory_change {
    struct vmm_message_header header;
    uint64_t requested_bytes; /* as in CONFIGURE */
};

struct vmm_mark_writes {
    struct vmm_message_header header;
    /* By the disks' places, WRITE_MARK_SHIFT_MIN to _MAX: of the bytes that a mark stands for. */
    uint8_t shifts[VMM_DISKS_MAX];
};

enum vmm_device_kind { VMM_DEVICE_DISK, VMM_DEVICE_NIC, VMM_DEVICE_KIND_COUNT };

struct vmm_attach { /* and CHANGE */
    struct vmm_message_header header;
    uint32_t kind; /* enum vmm_device_kind: which of the two it is */
    uint32_t reserved;
    union {
        struct vmm_disk disk;
        struct vmm_nic nic;
    };
};
static inline unsigned vmm_attach_place(const struct vmm_attach *attach)
{
    return attach->kind == VMM_DEVICE_DISK ? attach->disk.place : attach->nic.place;
}

enum vmm_device_state { VMM_DEVICE_ABSENT, VMM_DEVICE_PRESENT, VMM_DEVICE_FULL };

/* DETACH and DEVICE. */
struct vmm_device {
    struct vmm_message_header header;
    uint8_t kind;  /* enum vmm_device_kind */
    uint8_t place; /* of it */
    uint8_t state; /* enum vmm_device_state */
    uint8_t reserved;
    int32_t result; /* of what was asked: 0 or -errno; the log says more */
};

struct vmm_state {
    struct vmm_message_header header;
    char id[64];      /* the agent, which knows whom it asks, does not look at it */
    uint32_t running; /* 1 once the vCPUs were let go */
    uint32_t paused;  /* 1 while they are held */
    int32_t result;   /* of what was asked: 0 or -errno; the log says more */
    uint32_t reserved;
};
