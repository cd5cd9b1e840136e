#include "vmm/kvm.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/guest_memory.h"
#include "vmm/platform.h"

static const struct kvm_requirement {
    int capability;
    const char *name;
} requirements[] = {
    { KVM_CAP_IRQCHIP, "interrupt chips" },
    { KVM_CAP_USER_MEMORY, "memory slots" },
    { KVM_CAP_SET_TSS_ADDR, "a TSS address" },
    { KVM_CAP_SET_IDENTITY_MAP_ADDR, "an identity map address" },
    { KVM_CAP_EXT_CPUID, "CPUID" },
    { KVM_CAP_MP_STATE, "multiprocessor state" },
    { KVM_CAP_IRQFD, "irqfd" },
    { KVM_CAP_IOEVENTFD, "ioeventfd" },
    { KVM_CAP_IRQ_ROUTING, "interrupt routing" },
};

static int kvm_check(int kvm_fd, struct error *err)
{
    int version = ioctl(kvm_fd, KVM_GET_API_VERSION, 0);

    if (version < 0)
        return error_set(err, errno, "the kvm fd is not /dev/kvm");
    if (version != KVM_API_VERSION)
        return error_set(err, ENOTSUP, "KVM's API has version %d, not %d", version,
                         KVM_API_VERSION);
    for (size_t i = 0; i < ARRAY_LENGTH(requirements); i++)
        if (ioctl(kvm_fd, KVM_CHECK_EXTENSION, requirements[i].capability) <= 0)
            return error_set(err, ENOTSUP, "this host's KVM lacks %s", requirements[i].name);
    return 0;
}

static int kvm_add_memory(int vm_fd, const struct guest_memory *memory, struct error *err)
{
    for (size_t i = 0; i < guest_memory_region_count(memory); i++) {
        struct guest_memory_region region = guest_memory_region(memory, i);
        struct kvm_userspace_memory_region slot = {
            .slot = (uint32_t)i,
            .guest_phys_addr = region.guest_start,
            .memory_size = region.size,
            .userspace_addr = (uintptr_t)region.host,
        };

        if (ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
            return error_set(err, errno, "give the guest its memory");
    }
    return 0;
}

/* The two addresses are needed by Intel processors without unrestricted guest mode only. */
static int kvm_add_chips(int vm_fd, struct error *err)
{
    uint64_t identity_map = PLATFORM_IDENTITY_MAP;

    if (ioctl(vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0)
        return error_set(err, errno, "set the identity map's address");
    if (ioctl(vm_fd, KVM_SET_TSS_ADDR, PLATFORM_TSS_START) < 0)
        return error_set(err, errno, "set the TSS address");
    if (ioctl(vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
        return error_set(err, errno, "create the interrupt chips");
    return 0;
}

/* Performance counters tell guests about each other, and no snapshot has them.  CPUID says that
 * there are none (cpuid.c), but AMD's first four are there whatever it says, unless KVM is told
 * (Linux 5.18). */
static int kvm_hide_counters(int vm_fd, struct error *err)
{
    struct kvm_enable_cap none = { .cap = KVM_CAP_PMU_CAPABILITY, .args = { KVM_PMU_CAP_DISABLE } };

    if (ioctl(vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_PMU_CAPABILITY) > 0 &&
        ioctl(vm_fd, KVM_ENABLE_CAP, &none) < 0)
        return error_set(err, errno, "hide the performance counters");
    return 0;
}

int kvm_open(int kvm_fd, const struct guest_memory *memory, struct kvm *ret_kvm, struct error *err)
{
    auto_close int vm_fd = -1;
    int run_bytes;
    int result = kvm_check(kvm_fd, err);

    if (result < 0)
        return result;
    run_bytes = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_bytes < (int)sizeof(struct kvm_run))
        return error_set(err, ENOTSUP, "KVM's run page has %d bytes", run_bytes);
    vm_fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
    if (vm_fd < 0)
        return error_set(err, errno, "create a virtual machine");
    result = kvm_hide_counters(vm_fd, err);
    if (result == 0)
        result = kvm_add_memory(vm_fd, memory, err);
    if (result == 0)
        result = kvm_add_chips(vm_fd, err);
    if (result < 0)
        return result;
    *ret_kvm = (struct kvm){
        .kvm_fd = kvm_fd,
        .vm_fd = take_fd(&vm_fd),
        .run_bytes = (size_t)run_bytes,
        .has_tsc_deadline = ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0,
    };
    return 0;
}
