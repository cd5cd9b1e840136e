/* vm_memory.h - what a guest's RAM is made of, where that is not its process's own memory; and how
 * much of it the guest is to have now. */
#pragma once
#include <jansson.h>
#include <stdint.h>
#include "vmm/control_protocol.h"

struct error;
struct node;
struct stats_page;
struct vm;

extern const char *const vm_memory_names[VMM_MEMORY_COUNT];

/* Has the host so much of it left now?  0, or -ENOMEM with the numbers.  Any thread. */
int vm_memory_admit(uint32_t backing, uint64_t bytes, struct error *err);

/* A memfd of `bytes` that nobody can make shorter or longer: owned fd.  Its pages are accounted to
 * whom they are first touched by, the VMM.  Only where vmm_memory_has_file.  Any thread. */
int vm_memory_open(uint32_t backing, uint64_t bytes, struct error *err);
/* Makes one that forks are to share: what is mapped of it stays, and nobody who has it can write to
 * it anew.  0, also for a snapshot's file, which is open for reading only, or -errno.  Any
 * thread. */
int vm_memory_seal(int fd);

/* Of its process's pages, which are changed: /proc/PID/pagemap, an owned fd.  Loop thread. */
int vm_memory_open_pagemap(const struct vm *vm, struct error *err);

/* At most what a VMM needs to read all of it from a file, or to write it there. */
int vm_memory_file_ms(const struct vm *vm);
/* Tells a running VMM what the spec says; called when it may have missed a change.  Loop thread. */
void vm_memory_tell(const struct node *node, struct vm *vm);
/* What its guest has: from the start on, and plugged. */
uint32_t vm_memory_current_mib(const struct vm *vm, const struct stats_page *page);
/* Adds `memory_current_mib` to a status; null while the VM does not run (page: NULL).  Loop thread.
 */
int vm_memory_status(const struct vm *vm, const struct stats_page *page, json_t *status);
