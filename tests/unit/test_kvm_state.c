/* test_kvm_state.c - what KVM keeps of a vCPU, from one machine of the host's KVM into another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/error.h"
#include "vmm/cpuid.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm.h"
#include "vmm/transfer.h"
#include "vmm/vcpu.h"

#define VCPUS      2
#define MSI_TO_1   0xfee01000u /* physical destination 1 */
#define MSI_INIT   0x500u      /* delivery modes of the LAPIC */
#define MSI_SIPI   0x600u
#define SIPI_PAGE  0x12u
#define PAGE_SHIFT 12

struct machine {
    int kvm_fd;
    struct guest_memory *memory;
    struct kvm kvm;
    struct vcpu vcpus[VCPUS];
};

static void machine_open(struct machine *m)
{
    const struct guest_memory_spec spec = { .bytes = 2 << 20 };
    static struct cpuid cpuid;

    m->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    assert_int_equal(guest_memory_make(&spec, &m->memory, NULL), 0);
    assert_int_equal(kvm_open(m->kvm_fd, m->memory, &m->kvm, NULL), 0);
    assert_int_equal(cpuid_supported(m->kvm_fd, &cpuid, NULL), 0);
    for (unsigned i = 0; i < VCPUS; i++) {
        m->vcpus[i].index = i;
        cpuid_adapt(&cpuid, i, VCPUS, m->kvm.has_tsc_deadline);
        assert_int_equal(vcpu_new(&m->vcpus[i], &m->kvm, &cpuid, NULL), 0);
    }
}

static void machine_close(struct machine *m)
{
    for (unsigned i = 0; i < VCPUS; i++) {
        munmap(m->vcpus[i].run, m->vcpus[i].run_bytes);
        close(m->vcpus[i].fd);
    }
    close(m->kvm.vm_fd);
    guest_memory_free(m->memory);
    close(m->kvm_fd);
}

static void transfer_vcpu(const struct machine *from, const struct machine *to, unsigned index)
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

/* The first vCPU started the second when that was held already, so it has done nothing about it. */
static void a_start_that_is_due_is_not_lost(void **state)
{
    struct machine from = { 0 }, to = { 0 };
    struct kvm_msi start[] = { { .address_lo = MSI_TO_1, .data = MSI_INIT },
                               { .address_lo = MSI_TO_1, .data = MSI_SIPI | SIPI_PAGE } };
    struct kvm_mp_state run = { 0 };
    struct kvm_lapic_state apic;
    struct kvm_sregs special;
    struct kvm_regs general;

    (void)state;
    if (access("/dev/kvm", R_OK | W_OK) < 0)
        skip();
    machine_open(&from);
    machine_open(&to);
    /* KVM knows where an APIC is once it was written to. */
    assert_int_equal(ioctl(from.vcpus[1].fd, KVM_GET_LAPIC, &apic), 0);
    assert_int_equal(ioctl(from.vcpus[1].fd, KVM_SET_LAPIC, &apic), 0);
    for (int i = 0; i < 2; i++)
        assert_true(ioctl(from.kvm.vm_fd, KVM_SIGNAL_MSI, &start[i]) > 0);
    transfer_vcpu(&from, &to, 1);
    assert_int_equal(ioctl(to.vcpus[1].fd, KVM_GET_MP_STATE, &run), 0);
    assert_int_equal(ioctl(to.vcpus[1].fd, KVM_GET_SREGS, &special), 0);
    assert_int_equal(ioctl(to.vcpus[1].fd, KVM_GET_REGS, &general), 0);
    assert_int_equal(run.mp_state, KVM_MP_STATE_RUNNABLE);
    assert_int_equal(special.cs.base, SIPI_PAGE << PAGE_SHIFT);
    assert_int_equal(general.rip, 0);
    machine_close(&from);
    machine_close(&to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_start_that_is_due_is_not_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
