#include "agent/cpu_baseline.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"

const char *const cpu_baseline_names[CPU_BASELINE_COUNT] = {
    [CPU_HOST] = "host",
    [CPU_X86_64_V1] = "x86-64-v1",
    [CPU_X86_64_V2] = "x86-64-v2",
    [CPU_X86_64_V3] = "x86-64-v3",
};

enum { EAX, EBX, ECX, EDX };

#define LEAF_XSAVE  0xd
#define XSAVE_BYTES 0x340 /* of x87, SSE and AVX state, standard format */

/* What a baseline has, from the level on that is named. */
static const struct feature {
    const char *name;
    uint32_t function, index;
    uint8_t reg, bit;
    uint8_t from; /* enum cpu_baseline */
} features[] = {
    { "FPU", 1, 0, EDX, 0, CPU_X86_64_V1 },
    { "VME", 1, 0, EDX, 1, CPU_X86_64_V1 },
    { "DE", 1, 0, EDX, 2, CPU_X86_64_V1 },
    { "PSE", 1, 0, EDX, 3, CPU_X86_64_V1 },
    { "TSC", 1, 0, EDX, 4, CPU_X86_64_V1 },
    { "MSR", 1, 0, EDX, 5, CPU_X86_64_V1 },
    { "PAE", 1, 0, EDX, 6, CPU_X86_64_V1 },
    { "MCE", 1, 0, EDX, 7, CPU_X86_64_V1 },
    { "CX8", 1, 0, EDX, 8, CPU_X86_64_V1 },
    { "APIC", 1, 0, EDX, 9, CPU_X86_64_V1 },
    { "SEP", 1, 0, EDX, 11, CPU_X86_64_V1 },
    { "MTRR", 1, 0, EDX, 12, CPU_X86_64_V1 },
    { "PGE", 1, 0, EDX, 13, CPU_X86_64_V1 },
    { "MCA", 1, 0, EDX, 14, CPU_X86_64_V1 },
    { "CMOV", 1, 0, EDX, 15, CPU_X86_64_V1 },
    { "PAT", 1, 0, EDX, 16, CPU_X86_64_V1 },
    { "PSE36", 1, 0, EDX, 17, CPU_X86_64_V1 },
    { "CLFLUSH", 1, 0, EDX, 19, CPU_X86_64_V1 },
    { "MMX", 1, 0, EDX, 23, CPU_X86_64_V1 },
    { "FXSR", 1, 0, EDX, 24, CPU_X86_64_V1 },
    { "SSE", 1, 0, EDX, 25, CPU_X86_64_V1 },
    { "SSE2", 1, 0, EDX, 26, CPU_X86_64_V1 },
    { "X2APIC", 1, 0, ECX, 21, CPU_X86_64_V1 }, /* KVM's own */
    { "SYSCALL", 0x80000001, 0, EDX, 11, CPU_X86_64_V1 },
    { "NX", 0x80000001, 0, EDX, 20, CPU_X86_64_V1 },
    { "LM", 0x80000001, 0, EDX, 29, CPU_X86_64_V1 },

    { "SSE3", 1, 0, ECX, 0, CPU_X86_64_V2 },
    { "SSSE3", 1, 0, ECX, 9, CPU_X86_64_V2 },
    { "CX16", 1, 0, ECX, 13, CPU_X86_64_V2 },
    { "SSE4.1", 1, 0, ECX, 19, CPU_X86_64_V2 },
    { "SSE4.2", 1, 0, ECX, 20, CPU_X86_64_V2 },
    { "POPCNT", 1, 0, ECX, 23, CPU_X86_64_V2 },
    { "LAHF", 0x80000001, 0, ECX, 0, CPU_X86_64_V2 },

    { "FMA", 1, 0, ECX, 12, CPU_X86_64_V3 },
    { "MOVBE", 1, 0, ECX, 22, CPU_X86_64_V3 },
    { "XSAVE", 1, 0, ECX, 26, CPU_X86_64_V3 },
    { "AVX", 1, 0, ECX, 28, CPU_X86_64_V3 },
    { "F16C", 1, 0, ECX, 29, CPU_X86_64_V3 },
    { "BMI1", 7, 0, EBX, 3, CPU_X86_64_V3 },
    { "AVX2", 7, 0, EBX, 5, CPU_X86_64_V3 },
    { "BMI2", 7, 0, EBX, 8, CPU_X86_64_V3 },
    { "LZCNT", 0x80000001, 0, ECX, 5, CPU_X86_64_V3 },
    { "x87 state", LEAF_XSAVE, 0, EAX, 0, CPU_X86_64_V3 },
    { "SSE state", LEAF_XSAVE, 0, EAX, 1, CPU_X86_64_V3 },
    { "AVX state", LEAF_XSAVE, 0, EAX, 2, CPU_X86_64_V3 },
    /* Not in the psABI, but in every processor that has the above; ERMS is not: AMD's have it since
     * Zen 3. */
    { "PCLMULQDQ", 1, 0, ECX, 1, CPU_X86_64_V3 },
    { "AES", 1, 0, ECX, 25, CPU_X86_64_V3 },
    { "RDRAND", 1, 0, ECX, 30, CPU_X86_64_V3 },
    { "FSGSBASE", 7, 0, EBX, 0, CPU_X86_64_V3 },
    { "RDTSCP", 0x80000001, 0, EDX, 27, CPU_X86_64_V3 },
};

/* What stays as the host has it; `masks` by register. */
static const struct kept {
    uint32_t function, index;
    uint32_t masks[4];
} kept[] = {
    /* TSC deadline, hypervisor; HTT, which the VMM sets */
    { 1, 0, { ~0u, ~0u, 1u << 24 | 1u << 31, 1u << 28 } },
    { 6, 0, { 1u << 2, 0, 0, 0 } }, /* a timer that never stops */
    /* TSC_ADJUST (KVM's own), SMEP, SMAP; UMIP; what tells of speculation */
    { 7,
      0,
      { 0, 1u << 1 | 1u << 7 | 1u << 20, 1u << 2,
        1u << 10 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 29 | 1u << 31 } },
    { LEAF_XSAVE, 1, { 1u << 0, 0, 0, 0 } }, /* XSAVEOPT */
    /* CMP_LEGACY, topology; AMD's second copy of leaf 1 */
    { 0x80000001, 0, { ~0u, ~0u, 1u << 1 | 1u << 22, 0x0183f3ff } },
    /* AMD's speculation controls */
    { 0x80000008,
      0,
      { ~0u, 1u << 12 | 1u << 14 | 1u << 15 | 1u << 24 | 1u << 25 | 1u << 26 | 1u << 28, ~0u, 0 } },
    { 0x80000021,
      0,
      { 1u << 2 | 1u << 5 | 1u << 6 | 1u << 8 | 1u << 27 | 1u << 28 | 1u << 29, 0, 0, 0 } },
    /* kvm-clock and all that KVM had before 5.10 */
    { 0x40000001, 0, { 0x01007efb, 0, 0, 0 } },
};

/* Leaves without features: identity, caches, topology, addresses. */
static const uint32_t plain_leaves[] = {
    0,          2,          4,          0xb,        0x1f,       0x40000000, 0x80000000, 0x80000002,
    0x80000003, 0x80000004, 0x80000005, 0x80000006, 0x80000019, 0x8000001d, 0x8000001e,
};

static void registers_of(const struct kvm_cpuid_entry2 *entry, uint32_t ret_values[4])
{
    const uint32_t values[] = { entry->eax, entry->ebx, entry->ecx, entry->edx };

    memcpy(ret_values, values, sizeof values);
}

static bool host_has(const struct vmm_cpuid *host, const struct feature *feature)
{
    for (uint32_t i = 0; i < host->count; i++) {
        uint32_t values[4];

        registers_of(&host->entries[i], values);
        if (host->entries[i].function == feature->function &&
            host->entries[i].index == feature->index)
            return values[feature->reg] >> feature->bit & 1;
    }
    return false;
}

int cpu_baseline_check(enum cpu_baseline baseline, const struct vmm_cpuid *host, struct error *err)
{
    char lacking[160] = "";

    if (baseline == CPU_HOST)
        return 0;
    if (host->count == 0)
        return error_field(
            err, ENODEV, "cpu",
            "cpu: this host's KVM did not say what it supports when the agent began");
    for (size_t i = 0; i < ARRAY_LENGTH(features); i++) {
        size_t used = strlen(lacking);

        if (features[i].from <= (uint8_t)baseline && !host_has(host, &features[i]))
            snprintf(lacking + used, sizeof lacking - used, "%s%s", used ? ", " : "",
                     features[i].name);
    }
    return lacking[0] ? error_field(err, ENOEXEC, "cpu",
                                    "cpu: this host lacks, of %s: %s; take a lower level, or host",
                                    cpu_baseline_names[baseline], lacking)
                      : 0;
}

static void masks_of(enum cpu_baseline baseline, const struct kvm_cpuid_entry2 *entry,
                     uint32_t ret_masks[4])
{
    memset(ret_masks, 0, 4 * sizeof ret_masks[0]);
    for (size_t i = 0; i < ARRAY_LENGTH(plain_leaves); i++)
        if (plain_leaves[i] == entry->function)
            memset(ret_masks, 0xff, 4 * sizeof ret_masks[0]);
    for (size_t i = 0; i < ARRAY_LENGTH(kept); i++)
        if (kept[i].function == entry->function && kept[i].index == entry->index)
            memcpy(ret_masks, kept[i].masks, sizeof kept[i].masks);
    for (size_t i = 0; i < ARRAY_LENGTH(features); i++)
        if (features[i].function == entry->function && features[i].index == entry->index &&
            features[i].from <= (uint8_t)baseline)
            ret_masks[features[i].reg] |= 1u << features[i].bit;
}

/* Sizes follow from the state that is left. */
static void mask_xsave(enum cpu_baseline baseline, struct kvm_cpuid_entry2 *entry)
{
    if (baseline < CPU_X86_64_V3)
        entry->eax = entry->ebx = entry->ecx = entry->edx = 0;
    else if (entry->index == 0)
        entry->ebx = entry->ecx = XSAVE_BYTES;
}

int cpu_baseline_apply(enum cpu_baseline baseline, struct vmm_cpuid *cpuid, struct error *err)
{
    int result = cpu_baseline_check(baseline, cpuid, err);

    if (result < 0 || baseline == CPU_HOST)
        return result;
    for (uint32_t i = 0; i < cpuid->count; i++) {
        struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];
        uint32_t masks[4];

        if (entry->function == LEAF_XSAVE && entry->index == 2 && baseline >= CPU_X86_64_V3)
            continue; /* where AVX's state is */
        masks_of(baseline, entry, masks);
        entry->eax &= masks[EAX];
        entry->ebx &= masks[EBX];
        entry->ecx &= masks[ECX];
        entry->edx &= masks[EDX];
        if (entry->function == LEAF_XSAVE)
            mask_xsave(baseline, entry);
    }
    return 0;
}
