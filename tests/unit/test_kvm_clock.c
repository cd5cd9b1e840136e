/* test_kvm_clock.c - a guest's clocks and timers, from one machine of the host's KVM into another.
 */
#include "tests/unit/kvm_harness.h"

#define SOON    (1ull << 37) /* cycles: no test takes so long from a line to the next */
#define HOUR_NS 3600000000000ull

/* It counts for a timer that is in that mode only, so the local APIC comes before it. */
static void a_deadline_comes_along(void **state)
{
    struct machine from = { 0 }, to = { 0 };
    uint64_t due;

    (void)state;
    machine_open(&from);
    machine_open(&to);
    due = arm_deadline(&from);
    assert_true(due > FAR);
    assert_int_equal(msr_get(&to, TSC_DEADLINE), 0);
    transfer_vcpu(&from, &to, 0);
    assert_in_range(msr_get(&to, TSC_DEADLINE), due, due + SOON);
    assert_in_range(msr_get(&to, TSC), due - FAR, due);
    machine_close(&from);
    machine_close(&to);
}

static const struct machine *expiring;
static bool apic_is_read;

/* In the first call behind the APIC's, as KVM does where the processor counts for it and the thread
 * has come to another CPU: the interrupt is raised, and the deadline is forgotten. */
static void expire(enum fault_call call, unsigned long what)
{
    if (call != IOCTL || !expiring)
        return;
    if (apic_is_read) {
        const struct machine *m = expiring;

        expiring = NULL;
        (void)msr_do(m, KVM_SET_MSRS, TSC_DEADLINE, 0);
    }
    apic_is_read |= what == KVM_GET_LAPIC;
}

static void a_timer_that_expires_meanwhile_is_not_lost(void **state)
{
    struct machine from = { 0 }, to = { 0 };

    (void)state;
    machine_open(&from);
    machine_open(&to);
    (void)arm_deadline(&from);
    expiring = &from;
    fault_before = expire;
    transfer_vcpu(&from, &to, 0);
    fault_before = NULL;
    assert_null(expiring);
    assert_int_equal(msr_get(&from, TSC_DEADLINE), 0);
    assert_true(msr_get(&to, TSC_DEADLINE) > 0);
    machine_close(&from);
    machine_close(&to);
}

static void the_clock_goes_on_where_it_was(void **state)
{
    struct machine from = { 0 }, to = { 0 };
    struct kvm_clock_data clock = { .clock = HOUR_NS };
    struct error err = { 0 };
    struct transfer transfer = { .err = &err };

    (void)state;
    machine_open(&from);
    machine_open(&to);
    assert_int_equal(ioctl(from.kvm.vm_fd, KVM_SET_CLOCK, &clock), 0);
    kvm_transfer_clock(&from.kvm, &transfer);
    transfer.loading = true;
    kvm_transfer_clock(&to.kvm, &transfer);
    assert_true(transfer_is_good(&transfer));
    assert_int_equal(ioctl(to.kvm.vm_fd, KVM_GET_CLOCK, &clock), 0);
    assert_in_range(clock.clock, HOUR_NS, 2 * HOUR_NS);
    free(transfer.bytes);
    machine_close(&from);
    machine_close(&to);
}

/* By which of them is refused when only that one fails. */
static void the_tsc_is_set_first_and_its_deadline_last(void **state)
{
    struct machine m = { 0 };
    struct error err = { 0 };
    struct transfer transfer = { .err = &err };
    bool first = true;

    (void)state;
    machine_open(&m);
    (void)arm_deadline(&m);
    vcpu_transfer(&m.vcpus[0], &transfer);
    transfer.loading = true;
    for (unsigned skipped = 0; first || fault_end() > 0; skipped++) {
        transfer.at = 0;
        transfer.result = 0;
        fault_set(IOCTL, EIO, KVM_SET_MSRS, skipped, 1);
        vcpu_transfer(&m.vcpus[0], &transfer);
        if (first)
            assert_non_null(strstr(err.message, "MSR 0x10"));
        first = false;
    }
    assert_non_null(strstr(err.message, "MSR 0x6e0"));
    free(transfer.bytes);
    machine_close(&m);
}

/* The TSC of a KVM that takes any that is near what it expects for that (Linux before 6.7), where
 * no time passes. */
static struct {
    uint64_t tsc, second;
    unsigned calls;
} older_kvm;

static void older_kvm_hears(enum fault_call call, unsigned long what)
{
    const struct kvm_msrs *msr = fault_argument;
    uint64_t tsc;

    if (call != IOCTL || what != KVM_SET_MSRS || msr->entries[0].index != TSC)
        return;
    tsc = msr->entries[0].data;
    if (tsc >= older_kvm.tsc + older_kvm.second || tsc + older_kvm.second <= older_kvm.tsc)
        older_kvm.tsc = tsc;
    older_kvm.calls++;
}

static void load_young(const struct machine *from, const struct machine *to, unsigned index,
                       uint64_t tsc)
{
    struct error err = { 0 };
    struct transfer transfer = { .err = &err };

    vcpu_transfer(&from->vcpus[index], &transfer);
    memcpy((uint8_t *)item_of(&transfer, TSC, false) + offsetof(struct kvm_msr_entry, data), &tsc,
           sizeof tsc);
    transfer.loading = true;
    fault_before = older_kvm_hears;
    vcpu_transfer(&to->vcpus[index], &transfer);
    fault_before = NULL;
    assert_true(transfer_is_good(&transfer));
    free(transfer.bytes);
}

/* Its machine is as young, and its TSC is not that one's; those of the others follow the first. */
static void a_guest_of_less_than_a_second_has_its_tsc(void **state)
{
    struct machine from = { 0 }, to = { 0 };
    uint64_t tsc;

    (void)state;
    machine_open(&from);
    machine_open(&to);
    older_kvm.second = 1000ull * (unsigned)ioctl(from.vcpus[0].fd, KVM_GET_TSC_KHZ, 0);
    tsc = older_kvm.second / 2;
    load_young(&from, &to, 0, tsc);
    assert_true(older_kvm.tsc == tsc);
    older_kvm.calls = 0;
    load_young(&from, &to, 1, tsc + 1000);
    assert_true(older_kvm.tsc == tsc);
    assert_int_equal(older_kvm.calls, 1);
    machine_close(&from);
    machine_close(&to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_deadline_comes_along),
        cmocka_unit_test(the_tsc_is_set_first_and_its_deadline_last),
        cmocka_unit_test(a_timer_that_expires_meanwhile_is_not_lost),
        cmocka_unit_test(the_clock_goes_on_where_it_was),
        cmocka_unit_test(a_guest_of_less_than_a_second_has_its_tsc),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
