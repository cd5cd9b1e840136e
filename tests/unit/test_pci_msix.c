/* test_pci_msix.c - MSI-X tables: what is masked stays pending, what is open reaches the CPU that
 * it names, and neither is lost in a snapshot. */
#include "tests/unit/virtio_harness.h"
#include <sys/eventfd.h>
#include "vmm/transfer.h"

#define VECTORS 3
#define MESSAGE 0xfee00000ull /* to CPU 0; bits 12 to 19 name another */
#define MASK    1u

struct fixture {
    struct harness h;
    struct pci_msix *msix;
    int cpus[2];
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    harness_open(&f->h);
    assert_int_equal(pci_msix_new(f->h.router, VECTORS, &f->msix, &f->h.err), 0);
    pci_msix_control(f->msix, true, false);
    for (int i = 0; i < 2; i++) {
        struct kvm_lapic_state lapic;

        f->cpus[i] = f->h.vm_fd < 0 ? -1 : ioctl(f->h.vm_fd, KVM_CREATE_VCPU, i);
        if (f->cpus[i] < 0)
            continue;
        assert_int_equal(ioctl(f->cpus[i], KVM_GET_LAPIC, &lapic), 0);
        lapic.regs[0xf1] |= 1; /* software enable */
        assert_int_equal(ioctl(f->cpus[i], KVM_SET_LAPIC, &lapic), 0);
    }
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    pci_msix_free(f->msix);
    for (int i = 0; i < 2; i++)
        if (f->cpus[i] >= 0)
            close(f->cpus[i]);
    harness_close(&f->h);
    free(f);
    return 0;
}

static void put_entry(struct fixture *f, unsigned vector, uint64_t address, uint32_t data,
                      uint32_t control)
{
    const uint64_t words[] = { address, (uint64_t)control << 32 | data };

    for (unsigned i = 0; i < 2; i++)
        (void)pci_msix_access(f->msix, 16 * vector + 8 * i, 8, &words[i]);
}

static uint64_t pending(struct pci_msix *msix)
{
    return pci_msix_access(msix, PCI_MSIX_PENDING_OFFSET, 8, NULL);
}

/* In the LAPIC's request register. */
static bool cpu_has(const struct fixture *f, unsigned cpu, unsigned vector)
{
    struct kvm_lapic_state lapic;

    assert_int_equal(ioctl(f->cpus[cpu], KVM_GET_LAPIC, &lapic), 0);
    return lapic.regs[0x200 + vector / 32 * 0x10 + vector % 32 / 8] >> (vector % 8) & 1;
}

static bool cpu_gets(const struct fixture *f, unsigned cpu, unsigned vector)
{
    for (unsigned i = 0; i < 10000 && !cpu_has(f, cpu, vector); i++)
        usleep(1000);
    return cpu_has(f, cpu, vector);
}

/* Linux writes Message Control with the function masked, and then without, while it sets up. */
static void what_is_pending_stays_until_msix_is_off(void **state)
{
    struct fixture *f = *state;

    pci_msix_raise(f->msix, 1);
    pci_msix_raise(f->msix, VECTORS); /* does not exist */
    assert_int_equal(pending(f->msix), 1u << 1);
    pci_msix_control(f->msix, true, true);
    assert_int_equal(pending(f->msix), 1u << 1);
    pci_msix_control(f->msix, true, false);
    assert_int_equal(pending(f->msix), 1u << 1);
    pci_msix_control(f->msix, false, false);
    assert_int_equal(pending(f->msix), 0);
    pci_msix_raise(f->msix, 1);
    pci_msix_control(f->msix, true, false);
    assert_int_equal(pending(f->msix), 0);
}

static void a_message_reaches_the_cpu_that_it_names(void **state)
{
    struct fixture *f = *state;

    if (f->cpus[1] < 0)
        skip();
    put_entry(f, 0, MESSAGE | 1 << 12, 0x55, 0);
    pci_msix_control(f->msix, true, true);
    pci_msix_raise(f->msix, 0); /* held by the function's mask */
    assert_int_equal(pending(f->msix), 1);
    pci_msix_control(f->msix, true, false);
    assert_int_equal(pending(f->msix), 0);
    assert_true(cpu_gets(f, 1, 0x55));
    assert_false(cpu_has(f, 0, 0x55));
    put_entry(f, 0, MESSAGE, 0x55, 0); /* goes to another, and is not masked meanwhile */
    pci_msix_raise(f->msix, 0);
    assert_true(cpu_gets(f, 0, 0x55));
}

/* As the host's kernel, which does not ask whether a vector is masked, raises it. */
static void a_lent_vector_is_held_while_it_is_masked(void **state)
{
    struct fixture *f = *state;
    int fd;

    if (f->cpus[0] < 0)
        skip();
    put_entry(f, 1, MESSAGE, 0x41, 0); /* so that it has a route */
    put_entry(f, 1, MESSAGE, 0x41, MASK);
    fd = pci_msix_lend(f->msix, 1);
    assert_int_equal(pci_msix_lend(f->msix, VECTORS), -1);
    assert_int_equal(eventfd_write(fd, 1), 0);
    assert_int_equal(pending(f->msix), 1u << 1);
    put_entry(f, 1, MESSAGE, 0x42, 0);
    assert_int_equal(pending(f->msix), 0);
    assert_true(cpu_gets(f, 0, 0x42));
    put_entry(f, 1, MESSAGE, 0x43, MASK);
    assert_int_equal(eventfd_write(fd, 1), 0);
    assert_int_equal(pending(f->msix), 1u << 1);
    put_entry(f, 1, MESSAGE, 0x44, 0);
    assert_true(cpu_gets(f, 0, 0x44));
    assert_int_equal(eventfd_write(fd, 1), 0); /* open */
    assert_int_equal(pending(f->msix), 0);
    assert_false(cpu_has(f, 0, 0x41));
    assert_false(cpu_has(f, 0, 0x43));
}

static void table_and_pending_bits_are_in_a_snapshot(void **state)
{
    struct fixture *f = *state;
    struct transfer transfer = { .err = &f->h.err };
    struct pci_msix *to;

    put_entry(f, 1, 0x12345678fee01000, 0x4055, MASK);
    put_entry(f, 2, MESSAGE, 0x56, MASK);
    pci_msix_raise(f->msix, 2);
    pci_msix_transfer(f->msix, &transfer);
    transfer.loading = true;
    assert_int_equal(pci_msix_new(f->h.router, VECTORS, &to, &f->h.err), 0);
    pci_msix_transfer(to, &transfer);
    assert_int_equal(transfer.result, 0);
    pci_msix_control(to, true, false);
    assert_true(pci_msix_access(to, 16, 8, NULL) == 0x12345678fee01000);
    assert_true(pci_msix_access(to, 24, 8, NULL) == ((uint64_t)MASK << 32 | 0x4055));
    assert_int_equal(pending(to), 1u << 2);
    pci_msix_free(to);
    free(transfer.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(what_is_pending_stays_until_msix_is_off),
        TEST(a_message_reaches_the_cpu_that_it_names),
        TEST(a_lent_vector_is_held_while_it_is_masked),
        TEST(table_and_pending_bits_are_in_a_snapshot),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
