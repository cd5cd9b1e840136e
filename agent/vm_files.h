/* vm_files.h - the files a VM is made of: which, and opening them for its process. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/id.h"
#include "vmm/control_protocol.h"

struct error;
struct node;
struct vm;

/* kvm, page, RAM, kernel, initrd, disks with their bases */
#define VM_FILES_MAX  (5 + 2 * VMM_DISKS_MAX)
#define VM_FILES_PAGE 1

struct vm_files {
    uint32_t kernel; /* instances; 0 = none */
    uint32_t initrd;
    enum vmm_memory_backing memory_backing;
    uint64_t memory_bytes;
    unsigned disk_count;
    struct vm_file_disk {
        uint32_t volume;
        uint32_t base; /* the image's instance, if the volume is a delta; else 0 */
        char base_uid[UID_TEXT];
        bool read_only;
        bool direct; /* past the page cache */
    } disks[VMM_DISKS_MAX];
    uint64_t max_file_bytes; /* of the largest that may be written to */

    int fds[VM_FILES_MAX]; /* owned, in the order of the protocol */
    unsigned count;
};

/* Loop thread. */
void vm_files_choose(const struct node *node, const struct vm *vm, struct vm_files *ret_files);
/* Launch worker.  All but the page, whose place is left at -1.  On failure some are open:
 * vm_files_close. */
int vm_files_open(const struct node *node, struct vm_files *files, struct error *err);
void vm_files_close(struct vm_files *files);
