/* fuzz_boot_bzimage.c - bzImages as the VMM loads them. */
#include "tests/fuzz/fuzz_boot.h"

FUZZ_TARGET(boot_bzimage)
{
    fuzz_boot(VMM_KERNEL_BZIMAGE, bytes, size);
    return 0;
}
