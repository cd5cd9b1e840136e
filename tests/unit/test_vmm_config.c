/* test_vmm_config.c - the one message that configures a VMM: each bad field is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/config.h"

static struct vmm_configure valid(void)
{
    struct vmm_configure configure = {
        .header = { .type = VMM_MESSAGE_CONFIGURE,
                    .version = VMM_PROTOCOL_VERSION,
                    .size = sizeof configure },
        .id = "web-1",
        .vcpus = 2,
        .kernel_format = VMM_KERNEL_ELF,
        .memory_bytes = 128u << 20,
        .has_initrd = 1,
        .disk_count = 1,
        .nic_count = 2,
        .disks = { { .size_bytes = 4096, .format = VMM_DISK_RAW, .queues = 1 } },
        .nics = { { .queues = 1 }, { .queues = 1, .place = 1 } },
        .cmdline = "console=ttyS0",
    };

    return configure;
}

#define VALID_FDS 7

static void a_valid_one_is_taken(void **state)
{
    struct vmm_configure configure = valid();
    int fds[VALID_FDS] = { 10, 11, 12, 13, 14, 15, 16 };
    struct config_fds named;

    (void)state;
    assert_int_equal(config_validate(&configure, VALID_FDS, NULL), 0);
    config_name_fds(&configure, fds, &named);
    assert_int_equal(named.kvm, 10);
    assert_int_equal(named.page, 11);
    assert_int_equal(named.kernel, 12);
    assert_int_equal(named.initrd, 13);
    assert_int_equal(named.disks[0][0], 14);
    assert_int_equal(named.nics[0][0], 15);
    assert_int_equal(named.nics[1][0], 16);
    configure.has_initrd = 0;
    config_name_fds(&configure, fds, &named);
    assert_int_equal(named.initrd, -1);
    assert_int_equal(named.disks[0][0], 13);
}

static void a_delta_comes_with_its_base(void **state)
{
    struct vmm_configure configure = valid();
    int fds[VALID_FDS + 1] = { 10, 11, 12, 13, 14, 15, 16, 17 };
    struct config_fds named;

    (void)state;
    configure.disks[0].format = VMM_DISK_DELTA;
    assert_int_equal(config_validate(&configure, VALID_FDS, NULL), -EINVAL);
    assert_int_equal(config_validate(&configure, VALID_FDS + 1, NULL), 0);
    config_name_fds(&configure, fds, &named);
    assert_int_equal(named.disks[0][0], 14);
    assert_int_equal(named.disks[0][1], 15);
    assert_int_equal(named.nics[0][0], 16);
    assert_int_equal(named.nics[1][0], 17);
}

static void each_queue_of_a_nic_has_its_tap(void **state)
{
    struct vmm_configure configure = valid();
    int fds[VALID_FDS + 7];
    struct config_fds named;

    (void)state;
    configure.nics[0].queues = 8;
    assert_int_equal(config_validate(&configure, VALID_FDS, NULL), -EINVAL);
    assert_int_equal(config_validate(&configure, VALID_FDS + 7, NULL), 0);
    config_name_fds(&configure, fds, &named);
    assert_ptr_equal(named.nics[0], fds + 5);
    assert_ptr_equal(named.nics[1], fds + 13);
}

static void fds_of_vhost_follow_the_taps(void **state)
{
    struct vmm_configure configure = valid();
    int fds[VALID_FDS + 4];
    struct config_fds named;

    (void)state;
    configure.nics[0].queues = 2;
    configure.nics[0].vhost = 1;
    assert_int_equal(config_validate(&configure, VALID_FDS + 1, NULL), -EINVAL);
    assert_int_equal(config_validate(&configure, VALID_FDS + 3, NULL), 0);
    config_name_fds(&configure, fds, &named);
    assert_ptr_equal(named.nics[0], fds + 5);
    assert_ptr_equal(named.nics[1], fds + 9);
    configure.nics[1].vhost = 255;
    assert_int_equal(config_validate(&configure, VALID_FDS + 4, NULL), 0);
}

static void a_restored_one_has_state_and_layers_for_its_kernel(void **state)
{
    struct vmm_configure configure = valid();
    int fds[] = { 10, 11, 12, 13, 14, 15, 16, 17, 18, 19 };
    static const int layers[] = { 14, 15, 16 };
    struct config_fds named;

    (void)state;
    configure.has_initrd = 0;
    configure.restore = 3;
    configure.memory_backing = VMM_MEMORY_HUGE_2M;
    assert_int_equal(config_validate(&configure, 9, NULL), -EINVAL);
    assert_int_equal(config_validate(&configure, 10, NULL), 0);
    config_name_fds(&configure, fds, &named);
    assert_int_equal(named.page, 11);
    assert_int_equal(named.ram, 12);
    assert_int_equal(named.kernel, -1);
    assert_int_equal(named.state, 13);
    assert_memory_equal(named.layers, layers, sizeof layers);
    assert_int_equal(named.disks[0][0], 17);
    assert_int_equal(named.nics[1][0], 19);
    configure.restore = 0;
    config_name_fds(&configure, fds, &named);
    assert_int_equal(named.kernel, 13);
    assert_int_equal(named.state, -1);
    configure.memory_backing = VMM_MEMORY_ANONYMOUS;
    config_name_fds(&configure, fds, &named);
    assert_int_equal(named.ram, -1);
    assert_int_equal(named.kernel, 12);
}

static void the_most_and_the_least_are_taken(void **state)
{
    struct vmm_configure configure = valid();

    (void)state;
    configure.vcpus = VMM_VCPUS_MAX;
    configure.kernel_format = VMM_KERNEL_BZIMAGE;
    configure.memory_bytes = VMM_MEMORY_MAX - VMM_MEMORY_BLOCK;
    configure.hotplug_bytes = configure.requested_bytes = VMM_MEMORY_BLOCK;
    configure.balloon.target_mib = (uint32_t)(configure.memory_bytes >> 20) - 1;
    configure.balloon.deflate_on_oom = 1;
    configure.vsock_cid = VMM_CID_MAX;
    configure.cpuid.count = VMM_CPUID_MAX;
    memset(configure.id, '~', sizeof configure.id - 1);
    memset(configure.cmdline, ' ', sizeof configure.cmdline - 1);
    configure.disk_count = VMM_DISKS_MAX;
    configure.nic_count = VMM_NICS_MAX;
    for (uint8_t i = 0; i < VMM_DISKS_MAX; i++) {
        configure.disks[i] = configure.disks[0];
        configure.disks[i].place = i;
    }
    configure.disks[0].size_bytes = 512;
    configure.disks[1].size_bytes = (UINT64_MAX >> 1) - 511;
    configure.disks[1].queues = VMM_QUEUES_MAX;
    configure.disks[1].rate_limit.bytes_per_second = VMM_RATE_MAX;
    for (uint8_t i = 0; i < VMM_NICS_MAX; i++)
        configure.nics[i] = (struct vmm_nic){ .queues = 1, .place = i, .mtu = i ? 68 : UINT16_MAX };
    assert_int_equal(config_validate(&configure, 4 + VMM_DISKS_MAX + VMM_NICS_MAX, NULL), 0);
    configure = valid();
    configure.vcpus = 1;
    configure.memory_bytes = VMM_MEMORY_MIN;
    configure.vsock_cid = VMM_CID_MIN;
    assert_int_equal(config_validate(&configure, VALID_FDS, NULL), 0);
    configure.memory_bytes = VMM_MEMORY_MAX;
    assert_int_equal(config_validate(&configure, VALID_FDS, NULL), 0);
}

#define FAULT(function, statement)                \
    static void function(struct vmm_configure *c) \
    {                                             \
        statement;                                \
    }
FAULT(bad_version, c->header.version = 0)
FAULT(no_id, c->id[0] = 0)
FAULT(endless_id, memset(c->id, 'a', sizeof c->id))
FAULT(forged_id, c->id[1] = '\n')
FAULT(no_vcpus, c->vcpus = 0)
FAULT(many_rings, c->rings.count = VMM_DISKS_MAX + 1)
FAULT(bad_ring, c->rings.count = 1)
FAULT(many_vcpus, c->vcpus = VMM_VCPUS_MAX + 1)
FAULT(bad_format, c->kernel_format = 3)
FAULT(no_memory, c->memory_bytes = 0)
FAULT(much_memory, c->memory_bytes = VMM_MEMORY_MAX + (1u << 20))
FAULT(odd_memory, c->memory_bytes += 4096)
FAULT(wrapping_memory, c->memory_bytes = UINT64_MAX - (1u << 20) + 1)
FAULT(whole_balloon, c->balloon.target_mib = 128)
FAULT(wrapping_balloon, c->balloon.target_mib = UINT32_MAX)
FAULT(host_cid, c->vsock_cid = 2)
FAULT(any_cid, c->vsock_cid = UINT32_MAX)
FAULT(odd_balloon, c->balloon.deflate_on_oom = 2)
FAULT(odd_hotplug, c->hotplug_bytes = VMM_MEMORY_BLOCK / 2)
FAULT(much_hotplug, c->hotplug_bytes = VMM_MEMORY_MAX - c->memory_bytes + VMM_MEMORY_BLOCK)
FAULT(wrapping_hotplug, c->hotplug_bytes = UINT64_MAX - VMM_MEMORY_BLOCK + 1)
FAULT(more_than_hotplug, c->requested_bytes = VMM_MEMORY_BLOCK)
FAULT(odd_request, c->requested_bytes = (c->hotplug_bytes = VMM_MEMORY_BLOCK) / 2)
static void hotplug_on_odd_memory(struct vmm_configure *c)
{
    c->memory_bytes += 1u << 20;
    c->hotplug_bytes = VMM_MEMORY_BLOCK;
}
FAULT(restored_initrd, c->restore = 1)
static void many_layers(struct vmm_configure *c)
{
    c->has_initrd = 0;
    c->restore = VMM_LAYERS_MAX + 1;
}
FAULT(many_cpuids, c->cpuid.count = VMM_CPUID_MAX + 1)
FAULT(disks_at_one_place, c->disks[c->disk_count++] = c->disks[0])
FAULT(bad_initrd, c->has_initrd = 2)
FAULT(far_disk, c->disks[0].place = VMM_DISKS_MAX)
FAULT(far_nic, c->nics[1].place = VMM_NICS_MAX)
FAULT(nics_at_one_place, c->nics[1].place = 0)
FAULT(many_disks, c->disk_count = VMM_DISKS_MAX + 1)
FAULT(many_nics, c->nic_count = 255)
FAULT(missing_fd, c->nics[1].queues = 2)
FAULT(endless_cmdline, memset(c->cmdline, 'a', sizeof c->cmdline))
FAULT(odd_disk, c->disks[0].size_bytes = 513)
FAULT(empty_disk, c->disks[0].size_bytes = 0)
FAULT(huge_disk, c->disks[0].size_bytes = UINT64_MAX - 511)
FAULT(fast_disk, c->disks[0].rate_limit.operations_burst = VMM_RATE_MAX + 1)
FAULT(faster_disk, c->disks[0].rate_limit.bytes_per_second = UINT64_MAX)
FAULT(no_format, c->disks[0].format = 0)
FAULT(strange_format, c->disks[0].format = VMM_DISK_DELTA + 1)
FAULT(multicast, c->nics[1].mac[0] = 1)
FAULT(tiny_mtu, c->nics[0].mtu = 67)
FAULT(no_disk_queue, c->disks[0].queues = 0)
FAULT(many_disk_queues, c->disks[0].queues = 255)
FAULT(no_queue, c->nics[0].queues = 0)
FAULT(many_queues, c->nics[1].queues = 9)
FAULT(fast_nic, c->nics[1].rx_rate_limit.bytes_per_second = VMM_RATE_MAX + 1)
FAULT(faster_nic, c->nics[0].tx_rate_limit.operations_burst = UINT64_MAX)

static void strange_memory(struct vmm_configure *configure)
{
    configure->memory_backing = VMM_MEMORY_COUNT;
}

static void memory_without_fd(struct vmm_configure *configure)
{
    configure->memory_backing = VMM_MEMORY_SHARED;
}

static const struct {
    void (*damage)(struct vmm_configure *configure);
    const char *field;
} faults[] = {
    { bad_version, "header.version" },
    { no_id, "id" },
    { endless_id, "id" },
    { forged_id, "id" },
    { no_vcpus, "vcpus" },
    { many_rings, "rings" },
    { bad_ring, "rings" },
    { many_vcpus, "vcpus" },
    { bad_format, "kernel_format" },
    { no_memory, "memory_bytes" },
    { much_memory, "memory_bytes" },
    { odd_memory, "memory_bytes" },
    { wrapping_memory, "memory_bytes" },
    { whole_balloon, "balloon" },
    { wrapping_balloon, "balloon" },
    { odd_balloon, "balloon" },
    { strange_memory, "memory_backing" },
    { memory_without_fd, "fds" },
    { host_cid, "vsock_cid" },
    { any_cid, "vsock_cid" },
    { far_disk, "disks[0].place" },
    { far_nic, "nics[1].place" },
    { nics_at_one_place, "nics" },
    { odd_hotplug, "hotplug_bytes" },
    { much_hotplug, "hotplug_bytes" },
    { wrapping_hotplug, "hotplug_bytes" },
    { hotplug_on_odd_memory, "hotplug_bytes" },
    { more_than_hotplug, "requested_bytes" },
    { odd_request, "requested_bytes" },
    { restored_initrd, "restore" },
    { many_layers, "restore" },
    { many_cpuids, "cpuid" },
    { disks_at_one_place, "disks" },
    { bad_initrd, "has_initrd" },
    { many_disks, "disk_count" },
    { many_nics, "nic_count" },
    { missing_fd, "fds" },
    { endless_cmdline, "cmdline" },
    { odd_disk, "disks[0].size_bytes" },
    { empty_disk, "disks[0].size_bytes" },
    { huge_disk, "disks[0].size_bytes" },
    { fast_disk, "disks[0].rate_limit" },
    { faster_disk, "disks[0].rate_limit" },
    { no_format, "disks[0].format" },
    { strange_format, "disks[0].format" },
    { multicast, "nics[1].mac" },
    { tiny_mtu, "nics[0].mtu" },
    { no_disk_queue, "disks[0].queues" },
    { many_disk_queues, "disks[0].queues" },
    { no_queue, "nics[0].queues" },
    { many_queues, "nics[1].queues" },
    { fast_nic, "nics[1].rate_limit" },
    { faster_nic, "nics[0].rate_limit" },
};

static void each_bad_field_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(faults); i++) {
        struct vmm_configure configure = valid();
        struct error err = { 0 };

        faults[i].damage(&configure);
        assert_int_equal(config_validate(&configure, VALID_FDS, &err), -EINVAL);
        assert_string_equal(err.field, faults[i].field);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_valid_one_is_taken),
        cmocka_unit_test(a_delta_comes_with_its_base),
        cmocka_unit_test(each_queue_of_a_nic_has_its_tap),
        cmocka_unit_test(fds_of_vhost_follow_the_taps),
        cmocka_unit_test(a_restored_one_has_state_and_layers_for_its_kernel),
        cmocka_unit_test(the_most_and_the_least_are_taken),
        cmocka_unit_test(each_bad_field_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
