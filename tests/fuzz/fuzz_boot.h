/* fuzz_boot.h - a kernel file of bytes, loaded into a small guest. */
#pragma once
#include <sys/mman.h>
#include <unistd.h>
#include "tests/fuzz/fuzz.h"
#include "tests/unit/memory_harness.h"
#include "vmm/boot_linux.h"
#include "vmm/vcpu.h"

#define FUZZ_BOOT_MEMORY (8ull << 20)

/* The first byte says what stands beside the kernel: 1 = an initrd, 2 = a long command line. */
static inline void fuzz_boot(enum vmm_kernel_format format, const uint8_t *bytes, size_t size)
{
    static char cmdline[VMM_CMDLINE_MAX + 1];
    uint8_t how = size > 0 ? bytes[0] : 0;
    int fd = memfd_create("kernel", MFD_CLOEXEC);
    struct boot_spec spec = { .format = format, .kernel_fd = fd, .cmdline = "console=ttyS0" };
    struct guest_memory *memory = NULL;
    struct vcpu_entry entry = { 0 };

    if (size > 1)
        FUZZ_REQUIRE(write(fd, bytes + 1, size - 1) == (ssize_t)size - 1);
    if (how & 2)
        spec.cmdline = memset(cmdline, 'a', VMM_CMDLINE_MAX);
    spec.initrd_fd = how & 1 ? fd : -1;
    FUZZ_REQUIRE(guest_memory_new(FUZZ_BOOT_MEMORY, &memory, NULL) == 0);
    if (boot_linux_load(memory, &spec, &entry, NULL) == 0)
        FUZZ_REQUIRE(entry.rip >= BOOT_KERNEL_MIN && entry.rip < FUZZ_BOOT_MEMORY);
    guest_memory_free(memory);
    close(fd);
}
