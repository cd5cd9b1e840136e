/* kvm_state.h - what KVM itself keeps of a machine, into and out of a snapshot (transfer.h). */
#pragma once

struct kvm;
struct transfer;
struct vcpu;

/* Interrupt chips; after the vCPUs exist. */
void kvm_transfer(const struct kvm *kvm, struct transfer *transfer);
/* kvm-clock; last, so that the guest's time goes on from where it was held. */
void kvm_transfer_clock(const struct kvm *kvm, struct transfer *transfer);
void vcpu_transfer(const struct vcpu *vcpu, struct transfer *transfer);
