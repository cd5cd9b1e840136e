/* vcpu_state.c - a vCPU's registers at boot: Intel SDM 3A chapters 3 and 9, the PVH start ABI and
 * Linux's Documentation/x86/boot.rst. */
#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/vcpu.h"

#define CR0_PE   0x1ull
#define CR0_ET   0x10ull
#define CR0_PG   0x80000000ull
#define CR4_PAE  0x20ull
#define EFER_LME 0x100ull
#define EFER_LMA 0x400ull

#define SELECTOR_CODE 0x10
#define SELECTOR_DATA 0x18
#define SELECTOR_TSS  0x20

#define TYPE_DATA_WRITE   3  /* accessed */
#define TYPE_CODE_EXECUTE 11 /* readable, accessed */
#define TYPE_TSS_BUSY     11

static struct kvm_segment flat_segment(uint16_t selector, uint8_t type)
{
    return (struct kvm_segment){
        .base = 0,
        .limit = 0xffffffff,
        .selector = selector,
        .type = type,
        .present = 1,
        .s = 1,
        .db = 1,
        .g = 1,
    };
}

static struct kvm_segment code_segment(enum vcpu_mode mode)
{
    struct kvm_segment code = flat_segment(SELECTOR_CODE, TYPE_CODE_EXECUTE);

    if (mode == VCPU_MODE_LONG_64) {
        code.l = 1;
        code.db = 0;
    }
    return code;
}

static struct kvm_segment task_segment(void)
{
    return (struct kvm_segment){
        .base = 0,
        .limit = 0x67,
        .selector = SELECTOR_TSS,
        .type = TYPE_TSS_BUSY,
        .present = 1,
    };
}

/* The same segments as descriptors. */
void vcpu_gdt(enum vcpu_mode mode, uint64_t ret_gdt[VCPU_GDT_ENTRIES])
{
    ret_gdt[0] = ret_gdt[1] = 0;
    ret_gdt[2] = mode == VCPU_MODE_LONG_64 ? 0x00af9b000000ffff : 0x00cf9b000000ffff;
    ret_gdt[3] = 0x00cf93000000ffff;
    ret_gdt[4] = 0x00008b0000000067;
}

static int set_special(int fd, const struct vcpu_entry *entry, struct error *err)
{
    struct kvm_segment data = flat_segment(SELECTOR_DATA, TYPE_DATA_WRITE);
    struct kvm_sregs sregs;

    if (ioctl(fd, KVM_GET_SREGS, &sregs) < 0)
        return error_set(err, errno, "read a vCPU's special registers");
    sregs.cs = code_segment(entry->mode);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.tr = task_segment();
    sregs.gdt.base = entry->gdt;
    sregs.gdt.limit = (uint16_t)(entry->gdt_bytes - 1);
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 = CR0_PE | CR0_ET;
    sregs.cr4 = 0;
    if (entry->mode == VCPU_MODE_LONG_64) {
        sregs.cr0 |= CR0_PG;
        sregs.cr3 = entry->cr3;
        sregs.cr4 = CR4_PAE;
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
