#include "vmm/cpuid.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/control_protocol.h"

_Static_assert(offsetof(struct cpuid, entries) == offsetof(struct kvm_cpuid2, entries),
               "one layout");

#define LEAF1_ECX_VMX          (1u << 5)
#define LEAF1_ECX_TSC_DEADLINE (1u << 24)
#define LEAF1_ECX_HYPERVISOR   (1u << 31)
#define LEAF1_EDX_HTT          (1u << 28)
#define LEAF7_EBX_ERMS         (1u << 9)
#define LEAF7_EBX_TRACE        (1u << 25)
#define LEAF7_ECX_SHADOW_STACK (1u << 7)
#define LEAF7_EDX_IBT          (1u << 20)
#define LEAFD1_ECX_CET         (3u << 11)
#define AMD1_ECX_CMP_LEGACY    (1u << 1)
#define AMD1_ECX_SVM           (1u << 2)
#define AMD1_ECX_PERFCTR_CORE  (1u << 23)

#define LEVEL_SMT  1u
#define LEVEL_CORE 2u

int cpuid_supported(int kvm_fd, struct cpuid *ret_cpuid, struct error *err)
{
    ret_cpuid->count = CPUID_ENTRIES_MAX;
    ret_cpuid->padding = 0;
    if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, ret_cpuid) < 0)
        return error_set(err, errno, "ask KVM for the CPUID it supports");
    return 0;
}

void cpuid_copy(struct cpuid *cpuid, const struct vmm_cpuid *from)
{
    cpuid->count = from->count;
    cpuid->padding = 0;
    memcpy(cpuid->entries, from->entries, from->count * sizeof from->entries[0]);
}

/* What of a leaf is sets of features, but those that no guest has (adapt_entry), and but ERMS:
 * where it is missing, the same instructions are slower. */
static const struct feature_leaf {
    uint32_t function, index, eax, ebx, ecx, edx;
} feature_leaves[] = {
    { 1, 0, 0, 0, ~LEAF1_ECX_VMX, ~0u },
    { 7, 0, 0, ~(LEAF7_EBX_ERMS | LEAF7_EBX_TRACE), ~LEAF7_ECX_SHADOW_STACK, ~LEAF7_EDX_IBT },
    { 7, 1, ~0u, 0, ~0u, ~0u },
    { 7, 2, 0, 0, 0, ~0u },
    { 0xd, 0, ~0u, 0, 0, 0 },
    { 0xd, 1, ~0u, 0, 0, 0 },
    { 0x80000001, 0, 0, 0, ~AMD1_ECX_SVM, ~0u },
    { 0x80000007, 0, 0, 0, 0, ~0u },
    { 0x80000008, 0, 0, ~0u, 0, 0 },
    { 0x40000001, 0, ~0u, 0, 0, 0 },
    { 0x80000021, 0, ~0u, 0, ~0u, 0 },
};

static struct kvm_cpuid_entry2 find_leaf(const struct cpuid *cpuid, uint32_t function,
                                         uint32_t index)
{
    for (uint32_t i = 0; i < cpuid->count && i < CPUID_ENTRIES_MAX; i++)
        if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
            return cpuid->entries[i];
    return (struct kvm_cpuid_entry2){ 0 };
}

bool cpuid_is_within(const struct cpuid *wanted, const struct cpuid *host, char *ret_what,
                     size_t size)
{
    if (wanted->count > CPUID_ENTRIES_MAX) {
        snprintf(ret_what, size, "room for %u CPUID entries", wanted->count);
        return false;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(feature_leaves); i++) {
        const struct feature_leaf *leaf = &feature_leaves[i];
        struct kvm_cpuid_entry2 want = find_leaf(wanted, leaf->function, leaf->index);
        struct kvm_cpuid_entry2 have = find_leaf(host, leaf->function, leaf->index);

        if ((want.eax & ~have.eax & leaf->eax) || (want.ebx & ~have.ebx & leaf->ebx) ||
            (want.ecx & ~have.ecx & leaf->ecx) || (want.edx & ~have.edx & leaf->edx)) {
            snprintf(ret_what, size, "features of CPUID leaf %#x", leaf->function);
            return false;
        }
    }
    return true;
}

struct vcpu_place {
    unsigned index, count;
    unsigned shift; /* bits of an APIC id that number cores */
    bool has_tsc_deadline;
};

/* No virtualization in the guest: nested state is large, hard to carry to another host, and KVM's
 * part with the most bugs for a hostile guest to find. */
static void adapt_features(struct kvm_cpuid_entry2 *entry, const struct vcpu_place *place)
{
    entry->ebx = (entry->ebx & 0xff00) | place->index << 24 | place->count << 16 | (8u << 8);
    entry->ecx = (entry->ecx & ~LEAF1_ECX_VMX) | LEAF1_ECX_HYPERVISOR;
    if (place->has_tsc_deadline)
        entry->ecx |= LEAF1_ECX_TSC_DEADLINE;
    entry->edx &= ~LEAF1_EDX_HTT;
    if (place->count > 1)
        entry->edx |= LEAF1_EDX_HTT;
}

/* Deterministic cache parameters: levels 1 and 2 belong to one core, level 3 to all. */
static void adapt_cache(struct kvm_cpuid_entry2 *entry, const struct vcpu_place *place)
{
    unsigned level = entry->eax >> 5 & 7;
    unsigned sharing = level >= 3 ? (1u << place->shift) - 1 : 0;

    if ((entry->eax & 0x1f) == 0)
        return; /* no more caches */
    entry->eax = (entry->eax & 0x3fff) | sharing << 14;
    if (entry->function == 4)
        entry->eax |= ((1u << place->shift) - 1) << 26;
}

/* Extended topology: KVM's own sub-leaves are the host's. */
static void adapt_topology(struct kvm_cpuid_entry2 *entry, const struct vcpu_place *place)
{
    entry->eax = entry->ebx = 0;
    entry->ecx = entry->index & 0xff;
    if (entry->index == 0) {
        entry->ebx = 1;
        entry->ecx |= LEVEL_SMT << 8;
    } else if (entry->index == 1) {
        entry->eax = place->shift;
        entry->ebx = place->count;
        entry->ecx |= LEVEL_CORE << 8;
    }
    entry->edx = place->index;
}

static void adapt_entry(struct kvm_cpuid_entry2 *entry, const struct vcpu_place *place)
{
    switch (entry->function) {
    case 1:
        adapt_features(entry, place);
        break;
    case 4:
    case 0x8000001d:
        adapt_cache(entry, place);
        break;
    case 7: /* no CET (KVM's since Linux 6.18): no snapshot has its registers, one is no MSR; nor
             * Processor Trace, which KVM has where kvm_intel.pt_mode says so */
        if (entry->index == 0) {
            entry->ebx &= ~LEAF7_EBX_TRACE;
            entry->ecx &= ~LEAF7_ECX_SHADOW_STACK;
            entry->edx &= ~LEAF7_EDX_IBT;
        }
        break;
    case 0xd:
        if (entry->index == 1)
            entry->ecx &= ~LEAFD1_ECX_CET;
        break;
    case 0xa:  /* no performance counters (kvm_hide_counters) */
    case 0x14: /* what Processor Trace has */
    case 0x80000022:
    case 0x80000026: /* AMD's other extended topology: 0xb says the same */
    case 0x8000000a: /* what SVM has */
        entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
        break;
    case 0xb:
    case 0x1f:
        adapt_topology(entry, place);
        break;
    case 0x80000001:
        entry->ecx &= ~(AMD1_ECX_CMP_LEGACY | AMD1_ECX_SVM | AMD1_ECX_PERFCTR_CORE);
        if (place->count > 1)
            entry->ecx |= AMD1_ECX_CMP_LEGACY;
        break;
    case 0x80000008:
        entry->ecx = (entry->ecx & ~0xf0ffu) | (place->count - 1) | place->shift << 12;
        break;
    case 0x8000001e:
        entry->eax = entry->ebx = place->index;
        entry->ecx = 0;
        break;
    }
}

/* Drops KVM's sub-leaves of an extended topology leaf and puts ours (two levels and the end) there;
 * on processors without the leaf it stays absent. */
static void rebuild_topology(struct cpuid *cpuid, uint32_t function)
{
    uint32_t kept = 0;
    bool found = false;

    for (uint32_t i = 0; i < cpuid->count; i++) {
        if (cpuid->entries[i].function == function)
            found = true;
        else
            cpuid->entries[kept++] = cpuid->entries[i];
    }
    cpuid->count = kept;
    for (uint32_t index = 0; found && index < 3 && cpuid->count < CPUID_ENTRIES_MAX; index++)
        cpuid->entries[cpuid->count++] = (struct kvm_cpuid_entry2){
            .function = function,
            .index = index,
            .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        };
}

void cpuid_adapt(struct cpuid *cpuid, unsigned index, unsigned count, bool has_tsc_deadline)
{
    struct vcpu_place place = { index, count, 0, has_tsc_deadline };

    while (1u << place.shift < count)
        place.shift++;
    rebuild_topology(cpuid, 0xb);
    rebuild_topology(cpuid, 0x1f);
    for (uint32_t i = 0; i < cpuid->count; i++)
        adapt_entry(&cpuid->entries[i], &place);
}
