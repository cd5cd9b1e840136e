/* test_virtio_pci.c - configuration space, BARs, MSI-X and virtio registers, with the entropy
 * device behind them, against drivers that keep the rules and drivers that do not. */
#include "tests/unit/rng_harness.h"

#define ALL_FEATURES                                                                   \
    (VIRTIO_FEATURE_VERSION_1 | VIRTIO_FEATURE_INDIRECT | VIRTIO_FEATURE_EVENT_INDEX | \
     VIRTIO_FEATURE_RING_RESET)

/* One buffer of 16 bytes; whether the device filled it. */
static bool device_answers(struct harness *h)
{
    const struct ring_buffer buffer = { DATA_BASE, 16, RING_WRITE };
    uint32_t head, length;

    ring_offer(h, 0, &buffer, 1);
    ring_kick(h, 0);
    return ring_take(h, 0, &head, &length) && length == 16;
}

/* --- PCI --- */

static void identity_is_that_of_a_modern_device(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;

    assert_int_equal(config_get(h, 0, 4), 0x10441af4);
    assert_int_equal(config_get(h, 8, 4), 0x00ff0001); /* class, revision 1 */
    assert_int_equal(config_get(h, 0x0e, 1), 0);       /* header type */
    assert_int_equal(config_get(h, 0x3d, 1), 0);       /* no INTx */
    assert_int_equal(config_get(h, 0x2c, 4), 0x10441af4);
    h->slot = 0;
    assert_int_equal(config_get(h, 8, 4), 0x06000000);
}

static void absent_functions_read_all_ones(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;

    h->slot = 2;
    assert_int_equal(config_get(h, 0, 4), 0xffffffff);
    assert_int_equal(mmio_get(h, PLATFORM_ECAM_START + (1 << 15) + (1 << 12), 4), 0xffffffff);
    config_put(h, 4, 2, 0xffff); /* into the void */
    h->slot = 31;
    assert_int_equal(config_get(h, 0, 2), 0xffff);
}

static void config_accesses_of_every_width(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;

    for (unsigned offset = 0; offset < 4096; offset++) {
        for (unsigned width = 1; width <= 8; width *= 2) {
            uint64_t ones = width == 8 ? ~0ull : (1ull << (8 * width)) - 1;
            uint64_t value = mmio_get(h, ecam_address(h, offset), width);

            if (width == 8 || offset % width != 0)
                assert_true(value == ones);
            else if (offset >= 256)
                assert_true(value == 0);
            mmio_put(h, ecam_address(h, offset), width, ~0ull);
        }
    }
    assert_int_equal(config_get(h, 0, 4), 0x10441af4); /* read only stayed so */
    assert_int_equal(config_get(h, 4, 2), 0x0406);
    assert_int_equal(config_get(h, 8, 4), 0x00ff0001);
}

static uint32_t port_get(struct harness *h, uint16_t port, unsigned width)
{
    uint32_t value = 0;

    bus_read(&h->ports, port, &value, width);
    return value;
}

static void port_put(struct harness *h, uint16_t port, unsigned width, uint32_t value)
{
    bus_write(&h->ports, port, &value, width);
}

static void ports_reach_the_same_registers(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;

    port_put(h, 0xcf8, 4, 0x80000800);
    assert_int_equal(port_get(h, 0xcf8, 4), 0x80000800);
    assert_int_equal(port_get(h, 0xcfc, 4), 0x10441af4);
    assert_int_equal(port_get(h, 0xcfe, 2), 0x1044);
    assert_int_equal(port_get(h, 0xcfd, 1), 0x1a);
    assert_int_equal(port_get(h, 0xcfd, 2), 0xffff); /* misaligned */
    port_put(h, 0xcf8, 4, 0x80000804);
    port_put(h, 0xcfc, 2, 6);
    assert_int_equal(config_get(h, 4, 2), 6);
    port_put(h, 0xcf9, 1, 6); /* a reset register that is not ours */
    assert_int_equal(port_get(h, 0xcf8, 4), 0x80000804);
    port_put(h, 0xcf8, 4, 0x00000800); /* not enabled */
    assert_int_equal(port_get(h, 0xcfc, 4), 0xffffffff);
    port_put(h, 0xcf8, 4, 0x80010800); /* bus 1 */
    assert_int_equal(port_get(h, 0xcfc, 4), 0xffffffff);
    port_put(h, 0xcf8, 4, 0x80000900); /* function 1 */
    assert_int_equal(port_get(h, 0xcfc, 4), 0xffffffff);
}

static void bars_are_sized_and_decoded_as_told(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;
    uint64_t bar = bar_address(h, 0);

    assert_true(bar >= PLATFORM_PCI32_START && bar % VIRTIO_PCI_BAR_BYTES == 0);
    assert_int_equal(mmio_get(h, bar + REG_QUEUE_COUNT, 2), 0xffff); /* memory decoding is off */
    config_put(h, 4, 2, 2);
    assert_int_equal(mmio_get(h, bar + REG_QUEUE_COUNT, 2), 1);
    config_put(h, 0x10, 4, 0xffffffff);
    assert_int_equal(config_get(h, 0x10, 4), 0xffffc000);
    assert_int_equal(mmio_get(h, bar + REG_QUEUE_COUNT, 2), 0xffff);
    config_put(h, 0x10, 4, (uint32_t)bar);
    assert_int_equal(mmio_get(h, bar + REG_QUEUE_COUNT, 2), 1);
    config_put(h, 0x14, 4, 0xffffffff);
    assert_int_equal(config_get(h, 0x14, 4), 0xfffff000);
    config_put(h, 0x18, 4, 0xffffffff);
    assert_int_equal(config_get(h, 0x18, 4), 0); /* absent */
    config_put(h, 0x30, 4, 0xffffffff);
    assert_int_equal(config_get(h, 0x30, 4), 0); /* no ROM */
}

static void a_moved_bar_answers_and_kicks_there(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;
    uint64_t before = bar_address(h, 0), after = PLATFORM_PCI32_START + 0x1000000;

    driver_start(h, 0, 8);
    config_put(h, 4, 2, 4);
    config_put(h, 0x10, 4, (uint32_t)after);
    config_put(h, 4, 2, 6);
    assert_int_equal(mmio_get(h, before + REG_QUEUE_COUNT, 2), 0xffff);
    assert_int_equal(mmio_get(h, after + REG_QUEUE_COUNT, 2), 1);
    assert_true(device_answers(h));
    /* Outside the window: nobody answers, and nothing else is covered. */
    config_put(h, 0x10, 4, (uint32_t)PLATFORM_ECAM_START);
    assert_int_equal(config_get(h, 0, 4), 0x10441af4);
    config_put(h, 0x10, 4, 0);
    config_put(h, 0x10, 4, 0xfec00000);
    assert_int_equal(mmio_get(h, 0xfec00000 + REG_QUEUE_COUNT, 2), 0xffff);
    config_put(h, 0x10, 4, (uint32_t)(PLATFORM_PCI32_START + PLATFORM_PCI32_SIZE - 0x4000));
    assert_true(device_answers(h));
}

static void every_bar_access_is_survived(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;

    driver_attach(h);
    for (unsigned bar = 0; bar < 2; bar++) {
        uint64_t start = bar_address(h, bar), size = bar == 0 ? 0x4000 : 0x1000;

        for (uint64_t offset = 0; offset < size + 16; offset++) {
            for (unsigned width = 1; width <= 8; width++) {
                (void)mmio_get(h, start + offset, width);
                mmio_put(h, start + offset, width, 0xa5a5a5a5a5a5a5a5ull);
            }
        }
    }
    harness_run(h);
    driver_start(h, 0, 8);
    assert_true(device_answers(h));
}

static void wrong_widths_are_not_answered(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;

    driver_attach(h);
    assert_int_equal(reg_get(h, REG_STATUS, 2), 0xffff);
    assert_int_equal(reg_get(h, REG_STATUS, 4), 0xffffffff);
    assert_int_equal(reg_get(h, REG_QUEUE_COUNT, 1), 0xff);
    assert_int_equal(reg_get(h, REG_QUEUE_SELECT, 4), 0xffffffff); /* crosses registers */
    assert_true(reg_get(h, REG_OFFERED_SELECT, 8) == ~0ull);
    reg_put(h, REG_STATUS, 2, 1);
    assert_int_equal(status_get(h), 0);
    assert_int_equal(reg_get(h, 60, 4), 0xffffffff); /* behind the last register */
}

/* --- MSI-X --- */

static void masked_vectors_stay_pending(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;
    uint64_t table = bar_address(h, 1);

    driver_start(h, 0, 8);
    assert_int_equal(interrupts_take(h), 0);
    assert_true(device_answers(h));
    assert_int_equal(interrupts_take(h), 2);
    assert_int_equal(interrupts_take(h), 0);
    reg_put(h, REG_QUEUE_SELECT, 2, 0);
    reg_put(h, REG_QUEUE_VECTOR, 2, 2); /* there are two vectors: 0 and 1 */
    assert_int_equal(reg_get(h, REG_QUEUE_VECTOR, 2), 0xffff);
    assert_true(device_answers(h));
    assert_int_equal(interrupts_take(h), 0);
    for (unsigned at = config_get(h, 0x34, 1); at != 0; at = config_get(h, at + 1, 1))
        if (config_get(h, at, 1) == 0x11)
            assert_int_equal(config_get(h, at + 2, 2) & 0x7ff, 2 - 1);
    assert_int_equal(mmio_get(h, bar_address(h, 0) + VIRTIO_PCI_ISR_OFFSET, 1), 1);
    assert_int_equal(mmio_get(h, bar_address(h, 0) + VIRTIO_PCI_ISR_OFFSET, 1), 0);

    mmio_put(h, table + 16, 8, 0x11223344fee00003ull);
    assert_true(mmio_get(h, table + 16, 8) == 0x11223344fee00000ull);
    mmio_put(h, table + 24, 4, 0x4055);
    assert_true(mmio_get(h, table + 24, 8) == 0x100004055ull);
    assert_int_equal(mmio_get(h, table + 24, 2), 0xffff);
    mmio_put(h, table + PCI_MSIX_PENDING_OFFSET, 8, ~0ull); /* read only */
    assert_int_equal(interrupts_take(h), 0);
}

/* Vector 0x55 in the LAPIC's request register. */
static bool lapic_has(int vcpu_fd, unsigned vector)
{
    struct kvm_lapic_state lapic;

    assert_int_equal(ioctl(vcpu_fd, KVM_GET_LAPIC, &lapic), 0);
    return lapic.regs[0x200 + vector / 32 * 0x10 + vector % 32 / 8] >> (vector % 8) & 1;
}

static void an_unmasked_vector_reaches_the_lapic(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;
    struct kvm_lapic_state lapic;
    int vcpu_fd;

    if (h->vm_fd < 0)
        skip();
    vcpu_fd = ioctl(h->vm_fd, KVM_CREATE_VCPU, 0);
    assert_true(vcpu_fd >= 0);
    assert_int_equal(ioctl(vcpu_fd, KVM_GET_LAPIC, &lapic), 0);
    lapic.regs[0xf1] |= 1; /* software enable */
    assert_int_equal(ioctl(vcpu_fd, KVM_SET_LAPIC, &lapic), 0);

    driver_start(h, 0, 8);
    assert_true(device_answers(h)); /* while masked: sent at unmasking */
    assert_false(lapic_has(vcpu_fd, 0x55));
    mmio_put(h, bar_address(h, 1) + 16, 8, 0xfee00000);
    mmio_put(h, bar_address(h, 1) + 24, 8, 0x55);
    assert_int_equal(mmio_get(h, bar_address(h, 1) + PCI_MSIX_PENDING_OFFSET, 8), 0);
    for (unsigned i = 0; i < 10000 && !lapic_has(vcpu_fd, 0x55); i++)
        usleep(1000);
    assert_true(lapic_has(vcpu_fd, 0x55));

    mmio_put(h, bar_address(h, 1) + 24, 4, 0x56); /* another message, not masked meanwhile */
    assert_true(device_answers(h));
    for (unsigned i = 0; i < 10000 && !lapic_has(vcpu_fd, 0x56); i++)
        usleep(1000);
    assert_true(lapic_has(vcpu_fd, 0x56));

    mmio_put(h, bar_address(h, 1) + 28, 4, 1); /* masked, but routed */
    assert_true(device_answers(h));
    assert_int_equal(mmio_get(h, bar_address(h, 1) + PCI_MSIX_PENDING_OFFSET, 8), 2);
    mmio_put(h, bar_address(h, 1) + 28, 4, 0);
    assert_int_equal(mmio_get(h, bar_address(h, 1) + PCI_MSIX_PENDING_OFFSET, 8), 0);

    mmio_put(h, bar_address(h, 1) + 16, 8, ~0ull); /* no such address: only this vector is lost */
    assert_true(device_answers(h));
    assert_int_equal(status_get(h), 15);
    close(vcpu_fd);
}

/* --- virtio --- */

static void status_bits_come_in_order_and_stay(void **state)
{
    static const struct {
        uint8_t before, write, after;
    } cases[] = {
        { 0, 2, 0 },   { 0, 4, 0 },   { 0, 8, 0 },    { 0, 9, 0 },      { 0, 5, 0 },
        { 0, 14, 0 },  { 1, 2, 1 },   { 1, 9, 1 },    { 3, 1, 3 },      { 3, 7, 3 },
        { 11, 3, 11 }, { 11, 9, 11 }, { 15, 11, 15 }, { 15, 7, 15 },    { 15, 3, 15 },
        { 15, 1, 15 }, { 1, 64, 1 },  { 3, 67, 3 },   { 3, 48 | 3, 3 }, { 1, 129, 129 },
    };
    struct harness *h = &((struct fixture *)*state)->h;

    driver_attach(h);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        status_put(h, 0);
        for (unsigned j = 0; j < 4; j++) {
            static const uint8_t steps[] = { 1, 3, 11, 15 };

            if (steps[j] == 3)
                features_accept(h, VIRTIO_FEATURE_VERSION_1);
            if (steps[j] == 11)
                features_accept(h, VIRTIO_FEATURE_VERSION_1);
            if (steps[j] <= cases[i].before)
                status_put(h, steps[j]);
        }
        assert_int_equal(status_get(h), cases[i].before);
        status_put(h, cases[i].write);
        if (status_get(h) != cases[i].after)
            fail_msg("status %u, wrote %u: %u", cases[i].before, cases[i].write, status_get(h));
    }
    status_put(h, 0);
    assert_int_equal(status_get(h), 0);
}

static void features_are_checked_and_frozen(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;

    driver_attach(h);
    assert_true(features_offered(h) == ALL_FEATURES);
    assert_false(driver_negotiate(h, 0));                            /* no VERSION_1 */
    assert_false(driver_negotiate(h, VIRTIO_FEATURE_VERSION_1 | 1)); /* not offered */
    assert_false(driver_negotiate(h, VIRTIO_FEATURE_VERSION_1 | 1ull << 63));
    status_put(h, 15);
    assert_int_equal(status_get(h), 3); /* not without FEATURES_OK */
    assert_true(driver_negotiate(h, ALL_FEATURES));
    features_accept(h, VIRTIO_FEATURE_VERSION_1);
    assert_true((reg_put(h, REG_ACCEPTED_SELECT, 4, 0), reg_get(h, REG_ACCEPTED, 4)) ==
                (uint32_t)ALL_FEATURES);
    reg_put(h, REG_OFFERED_SELECT, 4, 2);
    assert_int_equal(reg_get(h, REG_OFFERED, 4), 0);
    reg_put(h, REG_OFFERED_SELECT, 4, 0xffffffff);
    assert_int_equal(reg_get(h, REG_OFFERED, 4), 0);
    status_put(h, 0);
    status_put(h, 3);
    for (uint32_t select = 2; select != 0; select *= 2) { /* words that are not there */
        reg_put(h, REG_ACCEPTED_SELECT, 4, select);
        reg_put(h, REG_ACCEPTED, 4, UINT32_MAX);
        assert_int_equal(reg_get(h, REG_ACCEPTED, 4), 0);
    }
    for (unsigned select = 0; select < 2; select++) {
        reg_put(h, REG_ACCEPTED_SELECT, 4, select);
        assert_int_equal(reg_get(h, REG_ACCEPTED, 4), 0);
    }
    status_put(h, 0);
    features_accept(h, ALL_FEATURES); /* before DRIVER: dropped */
    reg_put(h, REG_ACCEPTED_SELECT, 4, 0);
    assert_int_equal(reg_get(h, REG_ACCEPTED, 4), 0);
}

static void a_queue_is_frozen_once_enabled(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;

    driver_start(h, 0, 8);
    reg_put(h, REG_QUEUE_SELECT, 2, 0);
    reg_put(h, REG_QUEUE_SIZE, 2, 64);
    reg_put(h, REG_QUEUE_DESCRIPTORS, 8, 0xdead0000);
    reg_put(h, REG_QUEUE_AVAIL, 4, 0xdead0000);
    reg_put(h, REG_QUEUE_AVAIL + 4, 4, 0xdead0000);
    reg_put(h, REG_QUEUE_USED, 8, ~0ull);
    reg_put(h, REG_QUEUE_ENABLE, 2, 0);
    assert_int_equal(reg_get(h, REG_QUEUE_SIZE, 2), 8);
    assert_int_equal(reg_get(h, REG_QUEUE_DESCRIPTORS, 8), RING_BASE(0));
    assert_int_equal(reg_get(h, REG_QUEUE_AVAIL, 4), ring_avail(0));
    assert_int_equal(reg_get(h, REG_QUEUE_USED, 8), ring_used(0));
    assert_int_equal(reg_get(h, REG_QUEUE_ENABLE, 2), 1);
    assert_true(device_answers(h));

    /* Nor before DRIVER_OK, nor where queues could be reset and set up again. */
    assert_true(driver_negotiate(h, ALL_FEATURES));
    driver_set_ring(h, 0, 8);
    reg_put(h, REG_QUEUE_SIZE, 2, 64);
    reg_put(h, REG_QUEUE_USED, 8, 0x2000);
    status_put(h, 15);
    reg_put(h, REG_QUEUE_AVAIL, 8, 0x2000);
    assert_int_equal(reg_get(h, REG_QUEUE_SIZE, 2), 8);
    assert_int_equal(reg_get(h, REG_QUEUE_USED, 8), ring_used(0));
    assert_int_equal(reg_get(h, REG_QUEUE_AVAIL, 8), ring_avail(0));
}

static void queues_are_set_up_at_their_time_only(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;

    driver_attach(h);
    reg_put(h, REG_QUEUE_SIZE, 2, 16); /* before FEATURES_OK */
    assert_int_equal(reg_get(h, REG_QUEUE_SIZE, 2), 64);
    reg_put(h, REG_QUEUE_ENABLE, 2, 1);
    assert_int_equal(reg_get(h, REG_QUEUE_ENABLE, 2), 0);
    assert_true(driver_negotiate(h, VIRTIO_FEATURE_VERSION_1));
    status_put(h, 15); /* started with no queue */
    reg_put(h, REG_QUEUE_SIZE, 2, 16);
    assert_int_equal(reg_get(h, REG_QUEUE_SIZE, 2), 64);
    reg_put(h, REG_QUEUE_ENABLE, 2, 1); /* too late */
    assert_int_equal(reg_get(h, REG_QUEUE_ENABLE, 2), 0);
    ring_kick(h, 0);
    assert_int_equal(status_get(h), 15);
}

static void numbers_out_of_range_reach_nothing(void **state)
{
    static const uint16_t numbers[] = { 1, 7, 8, 64, 255, 256, 32767, 65535 };
    struct harness *h = &((struct fixture *)*state)->h;

    driver_start(h, 0, 8);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        reg_put(h, REG_QUEUE_SELECT, 2, numbers[i]);
        for (unsigned reg = REG_QUEUE_SIZE; reg < REG_QUEUE_DESCRIPTORS; reg += 2)
            assert_int_equal(reg_get(h, reg, 2), 0);
        for (unsigned reg = REG_QUEUE_DESCRIPTORS; reg < 56; reg += 8)
            assert_int_equal(reg_get(h, reg, 8), 0);
        reg_put(h, REG_QUEUE_SIZE, 2, 8);
        reg_put(h, REG_QUEUE_VECTOR, 2, 1);
        reg_put(h, REG_QUEUE_DESCRIPTORS, 8, 0x1000);
        reg_put(h, REG_QUEUE_ENABLE, 2, 1);
        reg_put(h, REG_QUEUE_RESET, 2, 1);
        mmio_put(h, bar_address(h, 0) + VIRTIO_PCI_NOTIFY_OFFSET + 4ull * numbers[i], 2, 0);
    }
    harness_run(h);
    assert_true(device_answers(h));
}

static void a_bad_ring_needs_reset(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;

    driver_attach(h);
    assert_true(driver_negotiate(h, VIRTIO_FEATURE_VERSION_1));
    reg_put(h, REG_QUEUE_SIZE, 2, 3);
    reg_put(h, REG_QUEUE_ENABLE, 2, 1);
    assert_int_equal(reg_get(h, REG_QUEUE_ENABLE, 2), 0);
    assert_needs_reset(h);
    driver_start(h, 0, 8); /* and a reset is enough */
    assert_true(device_answers(h));
}

static void a_broken_rule_stops_the_device_until_reset(void **state)
{
    const struct ring_buffer bad = { GUEST_HOLE_START, 16, RING_WRITE };
    struct harness *h = &((struct fixture *)*state)->h;

    driver_start(h, 0, 8);
    ring_offer(h, 0, &bad, 1);
    ring_kick(h, 0);
    assert_int_equal(status_get(h), 15 | VIRTIO_STATUS_NEEDS_RESET);
    assert_int_equal(interrupts_take(h), 1); /* the configuration's */
    assert_false(device_answers(h));
    status_put(h, 15); /* the driver cannot clear it */
    assert_needs_reset(h);
    driver_start(h, 0, 8);
    assert_true(device_answers(h));
}

static void a_queue_can_be_reset_alone(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;

    driver_start(h, VIRTIO_FEATURE_RING_RESET, 8);
    assert_true(device_answers(h));
    reg_put(h, REG_QUEUE_SELECT, 2, 0);
    reg_put(h, REG_QUEUE_RESET, 2, 1);
    assert_int_equal(reg_get(h, REG_QUEUE_RESET, 2), 0);
    assert_int_equal(reg_get(h, REG_QUEUE_ENABLE, 2), 0);
    assert_false(device_answers(h));
    driver_set_ring(h, 0, 16);
    assert_true(device_answers(h));
    assert_int_equal(status_get(h), 15);
}

static void failed_stops_the_device(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;

    driver_start(h, 0, 8);
    status_put(h, 15 | VIRTIO_STATUS_FAILED);
    assert_false(device_answers(h));
    status_put(h, 0);
    status_put(h, 1);
    status_put(h, 3 | VIRTIO_STATUS_FAILED);
    features_accept(h, VIRTIO_FEATURE_VERSION_1);
    status_put(h, 11); /* cleared in passing */
    assert_int_equal(status_get(h), 3 | VIRTIO_STATUS_FAILED);
}

/* What Linux does before another kernel takes over (kexec): the rings' memory is that one's then.
 */
static void a_device_that_may_not_be_master_leaves_memory_alone(void **state)
{
    const struct ring_buffer buffer = { DATA_BASE, 16, RING_WRITE };
    struct harness *h = &((struct fixture *)*state)->h;

    driver_start(h, 0, 8);
    ring_offer(h, 0, &buffer, 1);
    ring_notify(h, 0);
    config_put(h, 0x04, 2, 0x2);
    harness_run(h);
    assert_false(device_answers(h));
    assert_int_equal(guest_get16(h, ring_used(0) + 2), 0);
    config_put(h, 0x04, 2, 0x6);
    assert_false(device_answers(h));
    driver_start(h, 0, 8);
    assert_true(device_answers(h));
    config_put(h, 0x3c, 1, 0xb); /* no other register matters */
    config_put(h, 0x04, 2, 0x406);
    assert_true(device_answers(h));
}

static void the_config_window_reaches_the_registers(void **state)
{
    struct harness *h = &((struct fixture *)*state)->h;
    unsigned window = 0;

    driver_attach(h);
    for (unsigned at = config_get(h, 0x34, 1); at != 0; at = config_get(h, at + 1, 1)) {
        if (config_get(h, at, 1) == 9 && config_get(h, at + 3, 1) == 5)
            window = at;
    }
    assert_true(window != 0);
    config_put(h, window + 4, 1, 0);
    config_put(h, window + 8, 4, REG_STATUS);
    config_put(h, window + 12, 4, 1);
    config_put(h, window + 16, 1, 1);
    assert_int_equal(status_get(h), 1);
    assert_int_equal(config_get(h, window + 16, 1), 1);
    config_put(h, window + 8, 4, REG_QUEUE_SIZE);
    config_put(h, window + 12, 4, 2);
    assert_int_equal(config_get(h, window + 16, 4), 64);
    for (unsigned bar = 0; bar < 256; bar += 51) {
        static const uint32_t offsets[] = { 0, 1, 20, 60, 0x1000, 0x3000, 0x3ffe, 0x4000, ~0u };

        for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
            for (unsigned length = 0; length < 10; length++) {
                config_put(h, window + 4, 1, bar);
                config_put(h, window + 8, 4, offsets[i]);
                config_put(h, window + 12, 4, length == 9 ? ~0u : length);
                (void)config_get(h, window + 16, 4);
                config_put(h, window + 16, 4, ~0u);
            }
        }
    }
}

static void capabilities_name_the_four_pages(void **state)
{
    static const uint32_t offsets[] = { 0,
                                        VIRTIO_PCI_COMMON_OFFSET,
                                        VIRTIO_PCI_NOTIFY_OFFSET,
                                        VIRTIO_PCI_ISR_OFFSET,
                                        VIRTIO_PCI_DEVICE_OFFSET,
                                        0 };
    struct harness *h = &((struct fixture *)*state)->h;
    unsigned seen = 0, steps = 0;

    assert_int_equal(config_get(h, 6, 2) & 0x10, 0x10);
    for (unsigned at = config_get(h, 0x34, 1); at != 0; at = config_get(h, at + 1, 1)) {
        unsigned type = config_get(h, at + 3, 1);

        assert_true(at >= 0x40 && at % 4 == 0 && steps++ < 16);
        if (config_get(h, at, 1) != 9)
            continue;
        assert_true(type >= 1 && type <= 5);
        assert_int_equal(config_get(h, at + 8, 4), offsets[type]);
        seen |= 1u << type;
    }
    assert_int_equal(seen, 0x2e); /* no device configuration: the entropy device has none */
}

static void a_full_bus_refuses_the_next_device(void **state)
{
    struct fixture *f = *state;
    int result = 0;

    for (unsigned i = 2; i < PCI_SLOTS; i++)
        assert_int_equal(virtio_rng_add(f->h.root, &f->rng_bytes, &f->h.err), 0);
    result = virtio_rng_add(f->h.root, &f->rng_bytes, &f->h.err);
    assert_int_equal(result, -ENOSPC);
    assert_string_equal(f->h.err.message, "virtio rng: all 32 PCI slots are taken");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, harness_tear_down)
        TEST(identity_is_that_of_a_modern_device),
        TEST(absent_functions_read_all_ones),
        TEST(config_accesses_of_every_width),
        TEST(ports_reach_the_same_registers),
        TEST(bars_are_sized_and_decoded_as_told),
        TEST(a_moved_bar_answers_and_kicks_there),
        TEST(every_bar_access_is_survived),
        TEST(wrong_widths_are_not_answered),
        TEST(masked_vectors_stay_pending),
        TEST(an_unmasked_vector_reaches_the_lapic),
        TEST(status_bits_come_in_order_and_stay),
        TEST(features_are_checked_and_frozen),
        TEST(a_queue_is_frozen_once_enabled),
        TEST(queues_are_set_up_at_their_time_only),
        TEST(numbers_out_of_range_reach_nothing),
        TEST(a_bad_ring_needs_reset),
        TEST(a_broken_rule_stops_the_device_until_reset),
        TEST(a_queue_can_be_reset_alone),
        TEST(failed_stops_the_device),
        TEST(a_device_that_may_not_be_master_leaves_memory_alone),
        TEST(the_config_window_reaches_the_registers),
        TEST(capabilities_name_the_four_pages),
        TEST(a_full_bus_refuses_the_next_device),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
