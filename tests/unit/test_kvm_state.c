/* test_kvm_state.c - what KVM keeps of a machine, from one machine of the host's KVM into another,
 * into one whose KVM is another, and with calls that fail. */
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

#define VCPUS      2
#define MSI_TO_1   0xfee01000u /* physical destination 1 */
#define MSI_INIT   0x500u      /* delivery modes of the LAPIC */
#define MSI_SIPI   0x600u
#define SIPI_PAGE  0x12u
#define PAGE_SHIFT 12
#define TSC        0x10u /* the first of the MSRs */

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

static void machine_close(struct machine *m)
{
    for (unsigned i = 0; i < VCPUS; i++) {
        munmap(m->vcpus[i].run, m->kvm.run_bytes);
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

/* --- clocks --- */

#define TSC_DEADLINE 0x6e0u
#define LVT_TIMER    0x320
#define SPURIOUS     0xf0
#define BY_DEADLINE  (2u << 17 | 0x40) /* the timer's mode, and its vector */
#define FAR          (1ull << 40)      /* cycles: no test takes so long */
#define SOON         (1ull << 37)      /* nor that, from a line to the next */
#define HOUR_NS      3600000000000ull

/* False if this KVM has not that one, or not that value of it. */
static bool msr_try(const struct machine *m, unsigned long request, uint32_t index, uint64_t *value)
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

static uint64_t msr_do(const struct machine *m, unsigned long request, uint32_t index,
                       uint64_t value)
{
    assert_true(msr_try(m, request, index, &value));
    return value;
}

static uint64_t msr_get(const struct machine *m, uint32_t index)
{
    return msr_do(m, KVM_GET_MSRS, index, 0);
}

/* Returns the deadline, of which a KVM without hardware may have made another. */
static uint64_t arm_deadline(const struct machine *m)
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

/* --- calls that fail, and hosts that are unlike --- */

/* All that is saved of the first vCPU and of what it shares. */
static void transfer_all(const struct machine *m, struct transfer *transfer)
{
    kvm_transfer(&m->kvm, transfer);
    vcpu_transfer(&m->vcpus[0], transfer);
    kvm_transfer_clock(&m->kvm, transfer);
}

static struct transfer saved_by(const struct machine *m, struct error *err)
{
    struct transfer transfer = { .err = err };

    transfer_all(m, &transfer);
    return transfer;
}

/* The result of loading it again, with whatever fails then. */
static int loaded_by(const struct machine *m, struct transfer *transfer)
{
    transfer->loading = true;
    transfer->at = 0;
    transfer->result = 0;
    transfer_all(m, transfer);
    return transfer->result;
}

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

/* The contents of the item that begins so: transfer.h, a name, a size, and that much. */
static void *item_of(const struct transfer *transfer, uint32_t first, bool only)
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
        cmocka_unit_test(a_deadline_comes_along),
        cmocka_unit_test(the_tsc_is_set_first_and_its_deadline_last),
        cmocka_unit_test(a_timer_that_expires_meanwhile_is_not_lost),
        cmocka_unit_test(the_clock_goes_on_where_it_was),
        cmocka_unit_test(a_part_that_cannot_be_read_is_refused),
        cmocka_unit_test(want_of_memory_refuses),
        cmocka_unit_test(a_host_that_does_not_take_a_part_is_told),
        cmocka_unit_test(a_tsc_of_another_rate_needs_scaling),
        cmocka_unit_test(other_msrs_are_refused),
        cmocka_unit_test(what_a_guest_set_of_its_processor_comes_along),
        cmocka_unit_test(what_a_guest_may_set_is_asked_for),
        cmocka_unit_test(a_state_of_before_those_is_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
