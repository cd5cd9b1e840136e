/* fuzz_boot_elf.c - ELF kernels as the VMM loads them. */
#include "tests/fuzz/fuzz_boot.h"

FUZZ_TARGET(boot_elf)
{
    fuzz_boot(VMM_KERNEL_ELF, bytes, size);
    return 0;
}
