/* cpuid.h - what CPUID tells the guest: what KVM supports on this host, with a topology of one
 * package whose cores have one thread each.  Pure; AMD APM volume 3 appendix E, Intel SDM 2A CPUID.
 */
#pragma once
#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

#define CPUID_ENTRIES_MAX 256

/* Laid out as struct kvm_cpuid2. */
struct cpuid {
    uint32_t count, padding;
    struct kvm_cpuid_entry2 entries[CPUID_ENTRIES_MAX];
};

struct vmm_cpuid;

/* Has `host` every feature bit of `wanted`?  If not, *ret_what says which leaf lacks some. */
bool cpuid_is_within(const struct cpuid *wanted, const struct cpuid *host, char *ret_what,
                     size_t size);
/* A copy of what the agent has asked KVM. */
void cpuid_copy(struct cpuid *cpuid, const struct vmm_cpuid *from);
/* Main thread; about 10 KiB: keep one for all vCPUs. */
int cpuid_supported(int kvm_fd, struct cpuid *ret_cpuid, struct error *err);
/* Makes it that of vCPU `index` of `count`; may be called again with another index.  The APIC id is
 * the index. */
void cpuid_adapt(struct cpuid *cpuid, unsigned index, unsigned count, bool has_tsc_deadline);
