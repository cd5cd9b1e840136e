/* vcpu_state.c - a vCPU's registers at boot: Intel SDM 3A chapters 3 and 9, the PVH start ABI and
 * Linux's Documentation/x86/boot.rst. */
#include <asm/processor-flags.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include "base/error.h"
#include "vmm/vcpu.h"

#define EFER_LME 0x100ull
#define EFER_LMA 0x400ull

/* The flat segments of 4 GiB that both boot protocols want, as descriptors: each at its selector.
 */
enum { GDT_CODE = 2, GDT_DATA, GDT_TASK };

void vcpu_gdt(enum vcpu_mode mode, uint64_t ret_gdt[VCPU_GDT_ENTRIES])
{
    ret_gdt[0] = ret_gdt[1] = 0;
    ret_gdt[GDT_CODE] = mode == VCPU_MODE_LONG_64 ? 0x00af9b000000ffff : 0x00cf9b000000ffff;
    ret_gdt[GDT_DATA] = 0x00cf93000000ffff;
    ret_gdt[GDT_TASK] = 0x00008b0000000067;
}

/* What the processor has of a segment after it has loaded it; its base is 0. */
static struct kvm_segment load_segment(const uint64_t *gdt, unsigned index)
{
    uint64_t descriptor = gdt[index], limit = (descriptor & 0xffff) | (descriptor >> 32 & 0xf0000);
    bool pages = descriptor >> 55 & 1;

    return (struct kvm_segment){
        .limit = (uint32_t)(pages ? limit << 12 | 0xfff : limit),
        .selector = (uint16_t)(index * sizeof gdt[0]),
        .type = descriptor >> 40 & 15,
        .s = descriptor >> 44 & 1,
        .present = descriptor >> 47 & 1,
        .l = descriptor >> 53 & 1,
        .db = descriptor >> 54 & 1,
        .g = pages,
    };
}

static int set_special(int fd, const struct vcpu_entry *entry, struct error *err)
{
    uint64_t gdt[VCPU_GDT_ENTRIES];
    struct kvm_sregs sregs;

    vcpu_gdt(entry->mode, gdt);
    if (ioctl(fd, KVM_GET_SREGS, &sregs) < 0)
        return error_set(err, errno, "read a vCPU's special registers");
    sregs.cs = load_segment(gdt, GDT_CODE);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = load_segment(gdt, GDT_DATA);
    sregs.tr = load_segment(gdt, GDT_TASK);
    sregs.gdt.base = entry->gdt;
    sregs.gdt.limit = sizeof gdt - 1;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = X86_CR0_PE | X86_CR0_ET;
    sregs.cr4 = 0;
    if (entry->mode == VCPU_MODE_LONG_64) {
        sregs.cr0 |= X86_CR0_PG;
        sregs.cr3 = entry->cr3;
        sregs.cr4 = X86_CR4_PAE;
        sregs.efer = EFER_LME | EFER_LMA;
    }
    if (ioctl(fd, KVM_SET_SREGS, &sregs) < 0)
        return error_set(err, errno, "set a vCPU's special registers");
    return 0;
}

int vcpu_set_entry(struct vcpu *vcpu, const struct vcpu_entry *entry, struct error *err)
{
    struct kvm_regs regs = {
        .rip = entry->rip,
        .rbx = entry->rbx,
        .rsi = entry->rsi,
        .rsp = entry->rsp,
        .rflags = 2,
    };
    int result = set_special(vcpu->fd, entry, err);

    if (result < 0)
        return result;
    if (ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
        return error_set(err, errno, "set a vCPU's registers");
    return 0;
}
