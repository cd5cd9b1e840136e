/* cpu_baseline.h - named sets of processor features, so that a snapshot moves between unlike hosts.
 * Pure.
 *
 * A baseline is a level of the x86-64 psABI, with what goes with it on every processor that has it.
 * A guest sees all of it and nothing else; but what protects it from others (SMEP, speculation
 * controls) stays as the host has it, and so does what KVM offers its guests (clocks).  A host that
 * lacks one of those is told so when the snapshot comes (vmm/cpuid.h), not by weaker guests. */
#pragma once
#include "vmm/control_protocol.h"

struct error;

enum cpu_baseline {
    CPU_HOST, /* all that KVM supports here */
    CPU_X86_64_V1,
    CPU_X86_64_V2,
    CPU_X86_64_V3,
    CPU_BASELINE_COUNT
};

extern const char *const cpu_baseline_names[CPU_BASELINE_COUNT];

/* 0, or -ENOEXEC naming what `host` lacks, or -ENODEV if nothing is known of it. */
int cpu_baseline_check(enum cpu_baseline baseline, const struct vmm_cpuid *host, struct error *err);
/* Takes from *cpuid what is not in the baseline; fails as the check does, and changes nothing then.
 */
int cpu_baseline_apply(enum cpu_baseline baseline, struct vmm_cpuid *cpuid, struct error *err);
