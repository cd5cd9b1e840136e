/* vcpu.h - one virtual CPU: created by the main thread, then run by a thread of its own until the
 * process ends. */
#pragma once
#include <stdint.h>

struct bus;
struct cpuid;
struct error;
struct exit_record;
struct kvm;
struct kvm_run;
struct transfer;
struct vcpu_gate;

/* How the first vCPU enters the kernel (boot_linux.h); the others wait for their INIT and SIPI. */
enum vcpu_mode {
    VCPU_MODE_PROTECTED_32, /* paging off, flat segments */
    VCPU_MODE_LONG_64,      /* paging on, page tables at cr3 */
};

struct vcpu_entry {
    enum vcpu_mode mode;
    uint64_t rip, rbx, rsi, rsp;
    uint64_t cr3; /* long mode only */
    uint64_t gdt; /* guest-physical; vcpu_gdt's is there */
};

struct vcpu {
    unsigned index;
    int fd;                     /* owned */
    struct kvm_run *run;        /* owned mapping of the kvm's run_bytes */
    struct bus *ports, *mmio;   /* borrowed */
    struct exit_record *record; /* borrowed */
    uint64_t *exits;            /* borrowed counters in the shared page, by enum stats_exit */
    struct vcpu_gate *gate;     /* borrowed */
    int thread_id;
};

/* Creates the KVM vCPU with the adapted `cpuid` and its MSRs; fills fd and run. */
int vcpu_new(struct vcpu *vcpu, const struct kvm *kvm, const struct cpuid *cpuid,
             struct error *err);
int vcpu_set_entry(struct vcpu *vcpu, const struct vcpu_entry *entry, struct error *err);
/* Starts the thread: it loads its filter, waits at the gate, then runs the guest. */
int vcpu_start(struct vcpu *vcpu, struct error *err);
/* Makes its thread come to the gate, or go on from there; the main thread, around closing and
 * opening it. */
void vcpu_call(struct vcpu *vcpu);
void vcpu_release(struct vcpu *vcpu);
void vcpu_transfer(const struct vcpu *vcpu, struct transfer *transfer); /* kvm_state.c */

/* The descriptors that boot code finds: null, null, code, data, TSS.  The selectors are those of
 * the Linux boot protocol (__BOOT_CS 0x10, __BOOT_DS 0x18). */
#define VCPU_GDT_ENTRIES 5
void vcpu_gdt(enum vcpu_mode mode, uint64_t ret_gdt[VCPU_GDT_ENTRIES]);
