/* test_kvm_state.c - what KVM keeps of a machine, from one machine of the host's KVM into another,
 * into one whose KVM is another, and with calls that fail. */
#include "tests/unit/kvm_harness.h"

#define MSI_TO_1   0xfee01000u /* physical destination 1 */
#define MSI_INIT   0x500u      /* delivery modes of the LAPIC */
#define MSI_SIPI   0x600u
#define SIPI_PAGE  0x12u
#define PAGE_SHIFT 12

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

/* --- calls that fail, and hosts that are unlike --- */

struct call {
    unsigned long request;
    int expected;     /* result where EIO is what it fails with */
    const char *text; /* of the refusal */
};

/* Of each such call the first that fails refuses all, with what it was for. */
static void a_part_that_cannot_be_read_is_refused(void **state)
{
    static const struct call calls[] = {
        { KVM_GET_IRQCHIP, -EIO, "read the interrupt chip" },
        { KVM_GET_CLOCK, -EIO, "read the clock" },
        { KVM_GET_SREGS, -EIO, "read the special registers" },
        { KVM_GET_REGS, -EIO, "read the registers" },
        { KVM_GET_XSAVE, -EIO, "read the extended state" },
        { KVM_GET_XCRS, -EIO, "read the extended control" },
        { KVM_GET_DEBUGREGS, -EIO, "read the debug registers" },
        { KVM_GET_LAPIC, -EIO, "read the local APIC" },
        { KVM_GET_MSRS, -EIO, "read MSR 0x" },
        { KVM_GET_VCPU_EVENTS, -EIO, "read the events" },
        { KVM_GET_MP_STATE, -EIO, "read the run state" },
    };
    struct machine m = { 0 };

    (void)state;
    machine_open(&m);
    for (size_t i = 0; i < ARRAY_LENGTH(calls); i++)
        for (unsigned skipped = 0;; skipped++) {
            struct error err = { 0 };
            struct transfer transfer;

            fault_set(IOCTL, EIO, calls[i].request, skipped, 1);
            transfer = saved_by(&m, &err);
            free(transfer.bytes);
            if (fault_end() == 0) {
                assert_true(transfer_is_good(&transfer) && skipped > 0);
                break;
            }
            if (transfer.result != calls[i].expected || !strstr(err.message, calls[i].text))
                fail_msg("\"%s\", number %u: %d, %s", calls[i].text, skipped, transfer.result,
                         err.message);
        }
    machine_close(&m);
}

static void want_of_memory_refuses(void **state)
{
    struct machine m = { 0 };
    struct error err = { 0 };
    struct transfer transfer;

    (void)state;
    machine_open(&m);
    fault_set(ALLOCATE, ENOMEM, FAULT_ANY, 0, 1);
    transfer = saved_by(&m, &err);
    assert_int_equal(fault_end(), 1);
    assert_int_equal(transfer.result, -ENOMEM);
    assert_non_null(strstr(err.message, "memory is short"));
    machine_close(&m);
}

static void a_host_that_does_not_take_a_part_is_told(void **state)
{
    static const struct call calls[] = {
        { KVM_SET_IRQCHIP, -EIO, "set the interrupt chip" },
        { KVM_SET_CLOCK, -EIO, "set the clock" },
        { KVM_SET_SREGS, -EIO, "set the special registers" },
        { KVM_SET_REGS, -EIO, "set the registers" },
        { KVM_SET_XSAVE, -EIO, "set the extended state" },
        { KVM_SET_XCRS, -EIO, "set the extended control" },
        { KVM_SET_DEBUGREGS, -EIO, "set the debug registers" },
        { KVM_SET_LAPIC, -EIO, "set the local APIC" },
        { KVM_SET_MSRS, -ENOTSUP, "this host's KVM does not take MSR 0x" },
        { KVM_SET_VCPU_EVENTS, -EIO, "set the events" },
        { KVM_SET_MP_STATE, -EIO, "set the run state" },
    };
    struct machine m = { 0 };
    struct error err = { 0 };
    struct transfer transfer;

    (void)state;
    machine_open(&m);
    transfer = saved_by(&m, &err);
    for (size_t i = 0; i < ARRAY_LENGTH(calls); i++) {
        int result;

        fault_set(IOCTL, EIO, calls[i].request, 0, UINT_MAX);
        result = loaded_by(&m, &transfer);
        assert_true(fault_end() > 0);
        if (result != calls[i].expected || !strstr(err.message, calls[i].text))
            fail_msg("\"%s\": %d, %s", calls[i].text, result, err.message);
    }
    assert_int_equal(loaded_by(&m, &transfer), 0);
    free(transfer.bytes);
    machine_close(&m);
}

/* Where a guest's driver has its pins' interrupts sent. */
static void what_a_guest_set_of_its_interrupt_chips_comes_along(void **state)
{
    struct machine from = { 0 }, to = { 0 };
    struct error err = { 0 };
    struct transfer transfer;
    struct kvm_irqchip pins = { .chip_id = KVM_IRQCHIP_IOAPIC };
    struct kvm_irqchip pic = { .chip_id = KVM_IRQCHIP_PIC_SLAVE };

    (void)state;
    machine_open(&from);
    machine_open(&to);
    assert_int_equal(ioctl(from.kvm.vm_fd, KVM_GET_IRQCHIP, &pins), 0);
    assert_int_equal(ioctl(from.kvm.vm_fd, KVM_GET_IRQCHIP, &pic), 0);
    pins.chip.ioapic.redirtbl[5].fields.vector = 0x35;
    pic.chip.pic.imr = 0x5a;
    assert_int_equal(ioctl(from.kvm.vm_fd, KVM_SET_IRQCHIP, &pins), 0);
    assert_int_equal(ioctl(from.kvm.vm_fd, KVM_SET_IRQCHIP, &pic), 0);
    transfer = saved_by(&from, &err);
    assert_int_equal(loaded_by(&to, &transfer), 0);
    pins = (struct kvm_irqchip){ .chip_id = KVM_IRQCHIP_IOAPIC };
    pic = (struct kvm_irqchip){ .chip_id = KVM_IRQCHIP_PIC_SLAVE };
    assert_int_equal(ioctl(to.kvm.vm_fd, KVM_GET_IRQCHIP, &pins), 0);
    assert_int_equal(ioctl(to.kvm.vm_fd, KVM_GET_IRQCHIP, &pic), 0);
    assert_int_equal(pins.chip.ioapic.redirtbl[5].fields.vector, 0x35);
    assert_int_equal(pic.chip.pic.imr, 0x5a);
    free(transfer.bytes);
    machine_close(&from);
    machine_close(&to);
}

static void a_tsc_of_another_rate_needs_scaling(void **state)
{
    struct machine m = { 0 };
    struct error err = { 0 };
    struct transfer transfer;
    uint32_t khz, other;

    (void)state;
    machine_open(&m);
    transfer = saved_by(&m, &err);
    khz = (uint32_t)ioctl(m.vcpus[0].fd, KVM_GET_TSC_KHZ, 0);
    other = khz + 1000;
    memcpy(item_of(&transfer, khz, true), &other, sizeof other);
    fault_set(IOCTL, EINVAL, KVM_SET_TSC_KHZ, 0, 1);
    assert_int_equal(loaded_by(&m, &transfer), -ENOTSUP);
    assert_int_equal(fault_end(), 1);
    assert_non_null(strstr(err.message, "its TSC runs at"));
    free(transfer.bytes);
    machine_close(&m);
}

/* Registers that no guest can reach are not set because a file says so. */
static void other_msrs_are_refused(void **state)
{
    const uint32_t apic_base = 0x1b;
    struct machine m = { 0 };
    struct error err = { 0 };
    struct transfer transfer;

    (void)state;
    machine_open(&m);
    transfer = saved_by(&m, &err);
    memcpy(item_of(&transfer, TSC, false), &apic_base, sizeof apic_base);
    assert_int_equal(loaded_by(&m, &transfer), -EINVAL);
    assert_non_null(strstr(err.message, "MSR 0x1b is not expected"));
    free(transfer.bytes);
    machine_close(&m);
}

#define OLDER_MSRS     36 /* that the first states had */
#define CPUID_FAULTS   0x140u
#define SPEC_CTRL_SSBD 4

/* How a guest defends itself, or watches its processes: UMWAIT_CONTROL, TSX_CTRL,
 * MISC_FEATURES_ENABLES, DEBUGCTL (BTF, bus locks), VIRT_SPEC_CTRL.  What this host's KVM has of
 * them. */
static void what_a_guest_set_of_its_processor_comes_along(void **state)
{
    static const struct kvm_msr_entry set[] = { { .index = 0xe1, .data = 100000 },
                                                { .index = 0x122, .data = 3 },
                                                { .index = CPUID_FAULTS, .data = 1 },
                                                { .index = 0x1d9, .data = 2 },
                                                { .index = 0xc001011f, .data = SPEC_CTRL_SSBD } };
    struct machine from = { 0 }, to = { 0 };
    bool is_set[ARRAY_LENGTH(set)];
    uint64_t value;

    (void)state;
    machine_open(&from);
    machine_open(&to);
    for (size_t i = 0; i < ARRAY_LENGTH(set); i++) {
        value = set[i].data;
        is_set[i] = msr_try(&from, KVM_SET_MSRS, set[i].index, &value) &&
                    msr_try(&from, KVM_GET_MSRS, set[i].index, &value) && value == set[i].data;
    }
    assert_true(is_set[2]); /* which KVM emulates everywhere */
    transfer_vcpu(&from, &to, 0);
    for (size_t i = 0; i < ARRAY_LENGTH(set); i++)
        if (is_set[i])
            assert_int_equal(msr_get(&to, set[i].index), set[i].data);
    machine_close(&from);
    machine_close(&to);
}

/* Also where this host's KVM has them not, it is asked for them. */
static void what_a_guest_may_set_is_asked_for(void **state)
{
    static const char *const asked[] = { "MSR 0xe1", "MSR 0x122", "MSR 0x140", "MSR 0x1d9",
                                         "MSR 0xc001011f" };
    struct machine m = { 0 };
    size_t found = 0;

    (void)state;
    machine_open(&m);
    for (unsigned skipped = 0; found < ARRAY_LENGTH(asked); skipped++) {
        struct error err = { 0 };
        struct transfer transfer;

        fault_set(IOCTL, EIO, KVM_GET_MSRS, skipped, 1);
        transfer = saved_by(&m, &err);
        free(transfer.bytes);
        if (fault_end() == 0)
            fail_msg("%s is not", asked[found]);
        found += strcmp(strstr(err.message, "MSR"), asked[found]) == 0;
    }
    machine_close(&m);
}

static void a_state_of_before_those_is_read(void **state)
{
    struct machine from = { 0 }, to = { 0 };
    struct error err = { 0 };
    struct transfer transfer;
    uint8_t *item;
    uint32_t size, older = OLDER_MSRS * sizeof(struct kvm_msr_entry);

    (void)state;
    machine_open(&from);
    machine_open(&to);
    (void)arm_deadline(&from);
    (void)msr_do(&from, KVM_SET_MSRS, CPUID_FAULTS, 1);
    transfer = saved_by(&from, &err);
    item = item_of(&transfer, TSC, false);
    memcpy(&size, item - 4, sizeof size);
    assert_true(size > older);
    memcpy(item - 4, &older, sizeof older);
    memmove(item + older, item + size, (size_t)(transfer.bytes + transfer.size - (item + size)));
    transfer.size -= size - older;
    assert_int_equal(loaded_by(&to, &transfer), 0);
    assert_int_equal(transfer.at, transfer.size);
    assert_true(msr_get(&to, TSC_DEADLINE) > 0);
    assert_int_equal(msr_get(&to, CPUID_FAULTS), 0);
    free(transfer.bytes);
    machine_close(&from);
    machine_close(&to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_start_that_is_due_is_not_lost),
        cmocka_unit_test(a_part_that_cannot_be_read_is_refused),
        cmocka_unit_test(want_of_memory_refuses),
        cmocka_unit_test(a_host_that_does_not_take_a_part_is_told),
        cmocka_unit_test(what_a_guest_set_of_its_interrupt_chips_comes_along),
        cmocka_unit_test(a_tsc_of_another_rate_needs_scaling),
        cmocka_unit_test(other_msrs_are_refused),
        cmocka_unit_test(what_a_guest_set_of_its_processor_comes_along),
        cmocka_unit_test(what_a_guest_may_set_is_asked_for),
        cmocka_unit_test(a_state_of_before_those_is_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
