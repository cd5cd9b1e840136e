/* vm_memory.h - what a guest's RAM is made of, where that is not its process's own memory. */
#pragma once
#include <stdint.h>
#include "vmm/control_protocol.h"

struct error;

extern const char *const vm_memory_names[VMM_MEMORY_COUNT];

/* Has the host so much of it left now?  0, or -ENOMEM with the numbers.  Any thread. */
int vm_memory_admit(uint32_t backing, uint64_t bytes, struct error *err);

/* A memfd of `bytes` that nobody can make shorter or longer: owned fd.  Its pages are accounted to
 * whom they are first touched by, the VMM.  Only where vmm_memory_has_file.  Any thread. */
int vm_memory_open(uint32_t backing, uint64_t bytes, struct error *err);
