/* kvm_state.c - the transfers of kvm.h and vcpu.h. */
#include <errno.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include "base/cleanup.h"
#include "vmm/kvm.h"
#include "vmm/transfer.h"
#include "vmm/vcpu.h"

struct part_kind {
    const char *name;
    unsigned long get, set; /* requests of ioctl(2) */
    size_t size;
};

static void read_part(int fd, struct transfer *transfer, const struct part_kind *kind, void *part)
{
    if (!transfer->loading && ioctl(fd, kind->get, part) < 0)
        transfer_refuse(transfer, errno, "read the %s", kind->name);
}

static void set_part(int fd, struct transfer *transfer, const struct part_kind *kind, void *part)
{
    if (transfer->loading && transfer_is_good(transfer) && ioctl(fd, kind->set, part) < 0)
        transfer_refuse(transfer, errno, "set the %s", kind->name);
}

void kvm_transfer(const struct kvm *kvm, struct transfer *transfer)
{
    static const struct part_kind kind = { "interrupt chip", KVM_GET_IRQCHIP, KVM_SET_IRQCHIP,
                                           sizeof(struct kvm_irqchip) };
    static const uint32_t chips[] = { KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
                                      KVM_IRQCHIP_IOAPIC };

    for (size_t i = 0; i < ARRAY_LENGTH(chips); i++) {
        struct kvm_irqchip chip = { .chip_id = chips[i] };

        read_part(kvm->vm_fd, transfer, &kind, &chip);
        transfer_item(transfer, kind.name, &chip, kind.size);
        chip.chip_id = chips[i];
        set_part(kvm->vm_fd, transfer, &kind, &chip);
    }
}

void kvm_transfer_clock(const struct kvm *kvm, struct transfer *transfer)
{
    static const struct part_kind kind = { "clock", KVM_GET_CLOCK, KVM_SET_CLOCK,
                                           sizeof(uint64_t) };
    struct kvm_clock_data clock = { 0 };

    read_part(kvm->vm_fd, transfer, &kind, &clock);
    transfer_item(transfer, kind.name, &clock.clock, kind.size);
    clock.flags = 0;
    set_part(kvm->vm_fd, transfer, &kind, &clock);
}

/* --- one vCPU --- */

union vcpu_part {
    struct kvm_sregs special;
    struct kvm_regs general;
    struct kvm_xsave extended;
    struct kvm_xcrs control;
    struct kvm_debugregs debug;
    struct kvm_lapic_state apic;
    struct kvm_vcpu_events events;
    struct kvm_mp_state state;
};

/* In the order in which they are set: the APIC's base is among the special registers, its timer's
 * mode decides what the TSC deadline means, and an event may only be pending in a vCPU that is
 * otherwise complete. */
static const struct part_kind parts_before_msrs[] = {
    { "special registers", KVM_GET_SREGS, KVM_SET_SREGS, sizeof(struct kvm_sregs) },
    { "registers", KVM_GET_REGS, KVM_SET_REGS, sizeof(struct kvm_regs) },
    { "extended state", KVM_GET_XSAVE, KVM_SET_XSAVE, sizeof(struct kvm_xsave) },
    { "extended control", KVM_GET_XCRS, KVM_SET_XCRS, sizeof(struct kvm_xcrs) },
    { "debug registers", KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, sizeof(struct kvm_debugregs) },
    { "local APIC", KVM_GET_LAPIC, KVM_SET_LAPIC, sizeof(struct kvm_lapic_state) },
};
static const struct part_kind parts_after_msrs[] = {
    { "events", KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, sizeof(struct kvm_vcpu_events) },
    { "run state", KVM_GET_MP_STATE, KVM_SET_MP_STATE, sizeof(struct kvm_mp_state) },
};

/* Those that a guest may have changed.  The TSC comes first, its deadline last (it is compared with
 * the TSC when it is set), but for those that older states do not have; of those that this KVM
 * lacks nothing is saved.  Variable MTRRs are left out: KVM heeds them where a device is passed
 * through only, and Linux, which has the PAT, writes none by itself.  CET's are left out, as no
 * guest has it (cpuid.c). */
#define OLDER_MSRS 36
static const uint32_t msrs[] = {
    0x10,       0x3b,       0x174,      0x175,      0x176,      0x1a0,      0x277,
    0x2ff,      0x250,      0x258,      0x259,      0x268,      0x269,      0x26a,
    0x26b,      0x26c,      0x26d,      0x26e,      0x26f,      0x48,       0xda0,
    0x17a,      0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102, 0xc0000103,
    0x4b564d00, 0x4b564d01, 0x4b564d02, 0x4b564d03, 0x4b564d04, 0x4b564d05, 0x4b564d06,
    0x6e0,      0xe1,       0x122,      0x140,      0x1d9,      0xc001011f,
};

struct one_msr {
    struct kvm_msrs header;
    struct kvm_msr_entry entry;
};

static void transfer_parts(int fd, struct transfer *transfer, const struct part_kind *parts,
                           size_t count)
{
    for (size_t i = 0; i < count; i++) {
        union vcpu_part part;

        memset(&part, 0, sizeof part);
        read_part(fd, transfer, &parts[i], &part);
        transfer_item(transfer, parts[i].name, &part, parts[i].size);
        set_part(fd, transfer, &parts[i], &part);
    }
}

static void read_msrs(int fd, struct transfer *transfer, struct kvm_msr_entry *ret_entries)
{
    for (size_t i = 0; i < ARRAY_LENGTH(msrs); i++) {
        struct one_msr msr = { .header.nmsrs = 1, .entry.index = msrs[i] };
        int count = ioctl(fd, KVM_GET_MSRS, &msr);

        if (count < 0)
            transfer_refuse(transfer, errno, "read MSR %#x", msrs[i]);
        if (count == 1)
            ret_entries[i] = msr.entry; /* else its index stays 0 */
    }
}

/* Some may be read but not set; that matters if they are in use. */
static void set_msr(int fd, struct transfer *transfer, const struct kvm_msr_entry *entry)
{
    struct one_msr msr = { .header.nmsrs = 1, .entry = *entry };

    if (transfer_is_good(transfer) && ioctl(fd, KVM_SET_MSRS, &msr) != 1 && entry->data != 0)
        transfer_refuse(transfer, ENOTSUP, "this host's KVM does not take MSR %#x", entry->index);
}

/* Only those of the list: a state that names others is not ours.  Linux before 6.7 takes a TSC that
 * is within a second of what it expects for a wish to be synchronized, and stays at that.  The
 * first vCPU's is nobody's to follow, also if its guest is so young: so it comes from far. */
static void set_msrs(const struct vcpu *vcpu, struct transfer *transfer,
                     const struct kvm_msr_entry *entries)
{
    const struct kvm_msr_entry far = { .index = msrs[0], .data = 1ull << 62 };

    if (vcpu->index == 0)
        set_msr(vcpu->fd, transfer, &far);
    for (size_t i = 0; i < ARRAY_LENGTH(msrs); i++) {
        if (entries[i].index != 0 && entries[i].index != msrs[i])
            transfer_refuse(transfer, EINVAL, "MSR %#x is not expected", entries[i].index);
        if (entries[i].index != 0)
            set_msr(vcpu->fd, transfer, &entries[i]);
    }
}

/* A guest has measured its TSC once and for all. */
static void transfer_tsc_rate(int fd, struct transfer *transfer)
{
    int here = ioctl(fd, KVM_GET_TSC_KHZ, 0);
    int khz = here;

    transfer_value(transfer, "TSC rate", khz);
    if (transfer->loading && transfer_is_good(transfer) && khz != here &&
        ioctl(fd, KVM_SET_TSC_KHZ, khz) < 0)
        transfer_refuse(transfer, ENOTSUP, "its TSC runs at %d kHz, this host's at %d", khz, here);
}

/* Asking for the run state first lets KVM take an INIT or SIPI that is due: that changes the rest.
 * The timer's deadline is read before the APIC: KVM may raise its interrupt and forget the deadline
 * with any call, and a timer that is in neither would silence its guest; in both it does no harm.
 */
void vcpu_transfer(const struct vcpu *vcpu, struct transfer *transfer)
{
    struct kvm_msr_entry entries[ARRAY_LENGTH(msrs)] = { 0 };
    struct kvm_mp_state state;

    read_part(vcpu->fd, transfer, &parts_after_msrs[1], &state);
    transfer_tsc_rate(vcpu->fd, transfer);
    if (!transfer->loading)
        read_msrs(vcpu->fd, transfer, entries);
    transfer_parts(vcpu->fd, transfer, parts_before_msrs, ARRAY_LENGTH(parts_before_msrs));
    transfer_grown(transfer, "MSRs", entries, sizeof entries, OLDER_MSRS * sizeof entries[0]);
    if (transfer->loading)
        set_msrs(vcpu, transfer, entries);
    transfer_parts(vcpu->fd, transfer, parts_after_msrs, ARRAY_LENGTH(parts_after_msrs));
}
