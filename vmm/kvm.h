/* kvm.h - one virtual machine of the kernel: its fd, memory slots and interrupt chips.
 *
 * The order is what makes it fast: memory slots, then the interrupt chips, then vCPUs; a slot added
 * after the chips waits for a grace period.  Main thread, before the vCPUs run. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct error;
struct guest_memory;
struct transfer;

struct kvm {
    int kvm_fd;       /* borrowed: /dev/kvm */
    int vm_fd;        /* open until the process ends */
    size_t run_bytes; /* of the page shared with a vCPU (struct kvm_run) */
    bool has_tsc_deadline;
};

/* Checks what the host's KVM can do, creates the VM with `memory` in it and its interrupt chips. */
int kvm_open(int kvm_fd, const struct guest_memory *memory, struct kvm *ret_kvm, struct error *err);

/* kvm_state.c: what KVM itself keeps, into and out of a snapshot (transfer.h); after the vCPUs
 * exist. The clock comes last, so that the guest's time goes on from where it was held. */
void kvm_transfer(const struct kvm *kvm, struct transfer *transfer);
void kvm_transfer_clock(const struct kvm *kvm, struct transfer *transfer);
