/* kvm_harness.h - a machine of two vCPUs of the host's KVM, and what is saved and loaded of it, for
 * unit tests. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "tests/unit/fault_harness.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/cpuid.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm.h"
#include "vmm/transfer.h"
#include "vmm/vcpu.h"

#define VCPUS 2
#define TSC   0x10u /* the first of the MSRs */

struct machine {
    int kvm_fd;
    struct guest_memory *memory;
    struct kvm kvm;
    struct vcpu vcpus[VCPUS];
};

static inline void machine_open(struct machine *m)
{
    const struct guest_memory_spec spec = { .bytes = 2 << 20 };
    static struct cpuid cpuid;

    m->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (m->kvm_fd < 0)
        skip();
    assert_int_equal(guest_memory_make(&spec, &m->memory, NULL), 0);
    assert_int_equal(kvm_open(m->kvm_fd, m->memory, &m->kvm, NULL), 0);
    assert_int_equal(cpuid_supported(m->kvm_fd, &cpuid, NULL), 0);
    for (unsigned i = 0; i < VCPUS; i++) {
        m->vcpus[i].index = i;
        cpuid_adapt(&cpuid, i, VCPUS, m->kvm.has_tsc_deadline);
        assert_int_equal(vcpu_new(&m->vcpus[i], &m->kvm, &cpuid, NULL), 0);
    }
}

static inline void machine_close(struct machine *m)
{
    for (unsigned i = 0; i < VCPUS; i++) {
        munmap(m->vcpus[i].run, m->kvm.run_bytes);
        close(m->vcpus[i].fd);
    }
    close(m->kvm.vm_fd);
    guest_memory_free(m->memory);
    close(m->kvm_fd);
}

static inline void transfer_vcpu(const struct machine *from, const struct machine *to,
                                 unsigned index)
{
    struct error err = { 0 };
    struct transfer transfer = { .err = &err };

    vcpu_transfer(&from->vcpus[index], &transfer);
    transfer.loading = true;
    vcpu_transfer(&to->vcpus[index], &transfer);
    if (!transfer_is_good(&transfer))
        fail_msg("%s", err.message);
    free(transfer.bytes);
}

/* --- MSRs of the first vCPU --- */

#define TSC_DEADLINE 0x6e0u
#define LVT_TIMER    0x320
#define SPURIOUS     0xf0
#define BY_DEADLINE  (2u << 17 | 0x40) /* the timer's mode, and its vector */
#define FAR          (1ull << 40)      /* cycles: no test takes so long */

/* False if this KVM has not that one, or not that value of it. */
static inline bool msr_try(const struct machine *m, unsigned long request, uint32_t index,
                           uint64_t *value)
{
    uint64_t room[(sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)) / 8] = { 0 };
    struct kvm_msrs *msr = (void *)room;
    bool good;

    msr->nmsrs = 1;
    msr->entries[0] = (struct kvm_msr_entry){ .index = index, .data = *value };
    good = ioctl(m->vcpus[0].fd, request, msr) == 1;
    *value = msr->entries[0].data;
    return good;
}

static inline uint64_t msr_do(const struct machine *m, unsigned long request, uint32_t index,
                              uint64_t value)
{
    assert_true(msr_try(m, request, index, &value));
    return value;
}

static inline uint64_t msr_get(const struct machine *m, uint32_t index)
{
    return msr_do(m, KVM_GET_MSRS, index, 0);
}

/* Returns the deadline, of which a KVM without hardware may have made another. */
static inline uint64_t arm_deadline(const struct machine *m)
{
    struct kvm_lapic_state apic;
    uint32_t timer = BY_DEADLINE, enabled = 0x1ff;

    assert_int_equal(ioctl(m->vcpus[0].fd, KVM_GET_LAPIC, &apic), 0);
    memcpy(apic.regs + SPURIOUS, &enabled, sizeof enabled);
    memcpy(apic.regs + LVT_TIMER, &timer, sizeof timer);
    assert_int_equal(ioctl(m->vcpus[0].fd, KVM_SET_LAPIC, &apic), 0);
    (void)msr_do(m, KVM_SET_MSRS, TSC_DEADLINE, msr_get(m, TSC) + FAR);
    return msr_get(m, TSC_DEADLINE);
}

/* --- states --- */

/* All that is saved of the first vCPU and of what it shares. */
static inline void transfer_all(const struct machine *m, struct transfer *transfer)
{
    kvm_transfer(&m->kvm, transfer);
    vcpu_transfer(&m->vcpus[0], transfer);
    kvm_transfer_clock(&m->kvm, transfer);
}

static inline struct transfer saved_by(const struct machine *m, struct error *err)
{
    struct transfer transfer = { .err = err };

    transfer_all(m, &transfer);
    return transfer;
}

/* The result of loading it again, with whatever fails then. */
static inline int loaded_by(const struct machine *m, struct transfer *transfer)
{
    transfer->loading = true;
    transfer->at = 0;
    transfer->result = 0;
    transfer_all(m, transfer);
    return transfer->result;
}

/* The contents of the item that begins so: transfer.h, a name, a size, and that much. */
static inline void *item_of(const struct transfer *transfer, uint32_t first, bool only)
{
    uint32_t item[3];

    for (size_t at = 0; at < transfer->size; at += 8 + item[1]) {
        memcpy(item, transfer->bytes + at, sizeof item);
        if (item[2] == first && (item[1] == sizeof first) == only)
            return transfer->bytes + at + 8;
    }
    fail_msg("no item begins with %#x", first);
    return NULL;
}
