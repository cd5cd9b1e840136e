/* vm_files.h - the files a VM is made of: which, and opening them for its process. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "agent/disk_base.h"
#include "base/digest.h"
#include "vmm/control_protocol.h"

struct error;
struct node;
struct vm;
struct vm_disk_spec;

/* kvm, page, RAM, kernel and initrd or a state and its memory, disks with their bases */
#define VM_FILES_MAX  (4 + VMM_LAYERS_MAX + 2 * VMM_DISKS_MAX)
#define VM_FILES_PAGE 1

struct vm_files {
    uint32_t kernel; /* instances; 0 = none */
    uint32_t initrd;
    uint32_t snapshot;                /* to be restored, in place of both */
    uint8_t restore;                  /* of how many files the memory consists; 0 = boot */
    uint32_t layers[VMM_LAYERS_MAX];  /* the snapshots whose they are, itself the last */
    int fork_fds[1 + VMM_LAYERS_MAX]; /* owned until opened: a fork's state and memory */
    char digest[DIGEST_TEXT];
    enum vmm_memory_backing memory_backing;
    uint64_t memory_bytes;
    unsigned disk_count;  /* by place, as CONFIGURE has them */
    unsigned disk_places; /* below which they are */
    struct vm_file_disk {
        uint32_t volume;
        char id[ID_MAX + 1]; /* of the volume, for who reads an error */
        bool is_delta;
        struct disk_base_file base; /* of a delta */
        bool read_only;
        bool direct;             /* past the page cache */
        uint64_t writable_bytes; /* how long its file may become; 0 = it is not written to */
    } disks[VMM_DISKS_MAX];
    unsigned vhost_queues[VMM_NICS_MAX]; /* of the nics that want vhost */
    uint64_t max_file_bytes; /* of the largest that may be written to: a disk, or a snapshot */
    uint32_t busy_volume;    /* that another process still has: why they could not be opened */

    int fds[VM_FILES_MAX]; /* owned, in the order of the protocol */
    unsigned count;
    int vhost_fds[VMM_NICS_MAX][VMM_QUEUES_MAX]; /* owned; -1 = none */
};

/* Descriptors that are left for what ends things when no VM is let start any more: a start takes
 * fewer.  0, or -EMFILE. */
#define VM_FILES_RESERVE 64
int vm_files_admit(struct error *err);

/* What the memory of the process is, at its next start.  Loop thread, as the next. */
enum vmm_memory_backing vm_files_backing(const struct vm *vm);
/* From spawn to READY. */
int vm_files_limit_ms(const struct vm *vm);
void vm_files_choose(const struct node *node, const struct vm *vm, struct vm_files *ret_files);
void vm_files_choose_disk(const struct node *node, const struct vm_disk_spec *spec,
                          struct vm_file_disk *ret_disk);
/* Launch worker.  At most two: its base, if it is a delta, and its file.  On failure, too, there
 * may be one in ret_fds; *count grows.  -EBUSY: another process has it, for example a VMM that
 * ended while a sync was under way; to be tried again later. */
int vm_files_open_disk(const struct node *node, const struct vm_file_disk *disk, int *ret_fds,
                       unsigned *count, struct error *err);
/* Launch worker.  All but the page, whose place is left at -1.  On failure some are open:
 * vm_files_close. */
int vm_files_open(const struct node *node, struct vm_files *files, struct error *err);
void vm_files_close(struct vm_files *files);
/* As many of /dev/vhost-net, or none where the host does not have it; the others are -1. */
void vm_files_open_vhost(unsigned queues, int ret_fds[VMM_QUEUES_MAX]);
