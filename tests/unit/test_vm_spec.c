/* test_vm_spec.c - what a VM's spec may say: bounds, names, and the canonical form. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "agent/vm_spec.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "tests/unit/short_memory.h"

static json_t *json_of(const char *text)
{
    struct error err = { 0 };
    json_t *json = NULL;

    if (json_parse(text, strlen(text), &json, &err) < 0)
        fail_msg("%s: %s", text, err.message);
    return json;
}

static int parse(const char *text, struct vm_spec *ret_spec, struct error *err)
{
    json_t *json = json_of(text);
    int result = vm_spec_parse(json, ret_spec, err);

    json_decref(json);
    return result;
}

#define BOOT  "\"boot\":{\"kernel\":\"k\"}"
#define VSOCK "{\"memory_mib\":16," BOOT ",\"vsock\":"
#define NIC   "{\"memory_mib\":16," BOOT ",\"nics\":[{\"name\":\"a\",\"network\":\"n\","
#define DISK  "{\"memory_mib\":16," BOOT ",\"disks\":[{\"name\":\"a\",\"volume\":\"v\","

static void the_least_has_every_default(void **state)
{
    struct vm_spec spec;
    json_t *canonical;
    char *text;

    (void)state;
    assert_int_equal(parse("{\"memory_mib\":128," BOOT "}", &spec, NULL), 0);
    canonical = vm_spec_json(&spec);
    text = json_canonical(canonical);
    assert_string_equal(
        text,
        "{\"autostart\":false,\"autostart_order\":0,\"balloon\":{\"amount_mib\":0,\"deflate_on_"
        "oom\":true,"
        "\"stats_interval_seconds\":5},\"boot\":{\"cmdline\":\"\",\"kernel\":\"k\"},"
        "\"cpu\":\"host\",\"cpu_weight\":100,\"delete_protection\":false,"
        "\"desired_state\":\"running\",\"disks\":[],\"io_weight\":100,\"labels\":{},"
        "\"memory_backing\":\"anonymous\","
        "\"memory_max_mib\":128,\"memory_mib\":128,\"memory_min_mib\":128,"
        "\"memory_target_mib\":128,\"memory_weight\":100,\"nics\":[],"
        "\"on_reboot\":\"restart\",\"priority\":100,\"restart\":\"never\",\"stop_timeout_seconds\":"
        "60,\"vcpus\":1}");
    free(text);
    json_decref(canonical);
    vm_spec_clear(&spec);
    vm_spec_clear(&spec);
}

static const char all[] =
    "{\"autostart\":true,\"autostart_order\":1000000,\"balloon\":{\"amount_mib\":524285,"
    "\"deflate_on_oom\":false,\"stats_interval_seconds\":3600},\"boot\":{"
    "\"cmdline\":\"console=ttyS0 "
    "\xc3\xa4\",\"initrd\":\"i\",\"kernel\":\"k\"},"
    "\"cpu\":\"x86-64-v3\",\"cpu_limit_percent\":150,\"cpu_weight\":10000,"
    "\"delete_protection\":true,"
    "\"desired_state\":\"stopped\",\"disks\":[{\"cache\":\"none\","
    "\"name\":\"root\",\"on_enospc\":\"pause\",\"queues\":3,"
    "\"rate_limit\":{\"bytes_burst\":1099511627775,"
    "\"bytes_per_second\":1,\"ops_burst\":0,\"ops_per_second\":7},"
    "\"read_only\":true,\"volume\":\"v\"}],"
    "\"io_limit\":{\"read_bytes_per_second\":1099511627775,"
    "\"read_ops_per_second\":3,\"write_bytes_per_second\":2,"
    "\"write_ops_per_second\":4},\"io_weight\":1,"
    "\"labels\":{\"a\":\"b\"},\"memory_backing\":\"huge-2m\","
    "\"memory_max_mib\":524288,\"memory_mib\":524286,"
    "\"memory_min_mib\":7,\"memory_target_mib\":524286,"
    "\"memory_weight\":10000,"
    "\"nics\":[{\"ipv4\":\"10.0.0.9\",\"mac\":\"02:00:00:00:00:09\","
    "\"name\":\"eth0\",\"network\":\"n\",\"queues\":8,\"rx_rate_limit\":{"
    "\"bytes_burst\":9,\"bytes_per_second\":1,\"ops_burst\":0,"
    "\"ops_per_second\":0},\"tx_rate_limit\":{\"bytes_burst\":0,"
    "\"bytes_per_second\":0,\"ops_burst\":0,\"ops_per_second\":8},"
    "\"vhost\":false},{\"name\":\"eth1\",\"network\":\"n\","
    "\"queues\":1,\"vhost\":true}],"
    "\"on_reboot\":\"stop\",\"priority\":0,\"restart\":\"on-failure\",\"stop_timeout_"
    "seconds\":3600,\"vcpus\":32,\"vsock\":{\"cid\":4294967294,"
    "\"ports\":[{\"port\":0,\"socket\":\"/run/a\"},"
    "{\"port\":4294967294,\"socket\":\"/run/b\"}]}}";

static void everything_comes_back_as_it_was(void **state)
{
    struct vm_spec spec;
    json_t *canonical;
    char *text;

    (void)state;
    assert_int_equal(parse(all, &spec, NULL), 0);
    assert_true(spec.nics[0].has_mac && spec.nics[0].has_ipv4);
    assert_int_equal(spec.nics[0].ipv4, 0x0a000009);
    canonical = vm_spec_json(&spec);
    text = json_canonical(canonical);
    assert_string_equal(text, all);
    free(text);
    json_decref(canonical);
    vm_spec_clear(&spec);
}

static json_t *written(const void *spec)
{
    return vm_spec_json(spec);
}

static json_t *copied(const void *json)
{
    return json_patched(json, NULL);
}

static json_t *patched(const void *patch)
{
    json_t *whole = json_object();
    json_t *json = json_object_set_new(whole, "cpu", json_string("host")) < 0
                       ? NULL
                       : json_patched(whole, patch);

    json_decref(whole);
    return json;
}

static void without_memory_it_is_written_whole_or_not_at_all(void **state)
{
    struct vm_spec spec;
    json_t *canonical;

    (void)state;
    assert_int_equal(parse(all, &spec, NULL), 0);
    canonical = vm_spec_json(&spec);
    assert_whole(written, &spec);
    assert_whole(copied, canonical);
    assert_whole(patched, canonical);
    json_decref(canonical);
    vm_spec_clear(&spec);
}

static void a_snapshot_is_all_of_a_boot(void **state)
{
    struct vm_spec spec;
    json_t *canonical;
    char *text;

    (void)state;
    assert_int_equal(parse("{\"memory_mib\":16,\"boot\":{\"snapshot\":\"s\"}}", &spec, NULL), 0);
    assert_string_equal(spec.snapshot, "s");
    assert_string_equal(spec.kernel, "");
    canonical = vm_spec_json(&spec);
    text = json_canonical(json_object_get(canonical, "boot"));
    assert_string_equal(text, "{\"snapshot\":\"s\"}");
    free(text);
    json_decref(canonical);
    vm_spec_clear(&spec);
}

static const struct {
    const char *text, *field;
} mistakes[] = {
    { "{" BOOT "}", "memory_mib" },
    { "{\"memory_mib\":1," BOOT "}", "memory_mib" },
    { "{\"memory_mib\":524289," BOOT "}", "memory_mib" },
    { "{\"memory_mib\":18014398509481985," BOOT "}", "memory_mib" },
    { "{\"memory_mib\":16}", "boot" },
    { "{\"memory_mib\":16,\"memory_min_mib\":0," BOOT "}", "memory_min_mib" },
    { "{\"memory_mib\":16,\"memory_min_mib\":17," BOOT "}", "memory_min_mib" },
    { "{\"memory_mib\":16,\"memory_max_mib\":32,\"memory_min_mib\":33," BOOT "}",
      "memory_min_mib" },
    { "{\"memory_mib\":16,\"memory_weight\":0," BOOT "}", "memory_weight" },
    { "{\"memory_mib\":16,\"memory_weight\":10001," BOOT "}", "memory_weight" },
    { "{\"memory_mib\":16,\"cpu_weight\":0," BOOT "}", "cpu_weight" },
    { "{\"memory_mib\":16,\"io_weight\":10001," BOOT "}", "io_weight" },
    { "{\"memory_mib\":16,\"cpu_limit_percent\":0," BOOT "}", "cpu_limit_percent" },
    { "{\"memory_mib\":16,\"cpu_limit_percent\":102401," BOOT "}", "cpu_limit_percent" },
    { "{\"memory_mib\":16,\"io_limit\":7," BOOT "}", "io_limit" },
    { "{\"memory_mib\":16,\"io_limit\":{\"ops\":1}," BOOT "}", "io_limit.ops" },
    { "{\"memory_mib\":16,\"io_limit\":{\"read_ops_per_second\":0}," BOOT "}",
      "io_limit.read_ops_per_second" },
    { "{\"memory_mib\":16,\"io_limit\":{\"write_bytes_per_second\":1099511627776}," BOOT "}",
      "io_limit.write_bytes_per_second" },
    { "{\"memory_mib\":16,\"priority\":-1," BOOT "}", "priority" },
    { "{\"memory_mib\":16,\"priority\":1001," BOOT "}", "priority" },
    { "{\"memory_mib\":16,\"memory_backing\":\"huge-1g\"," BOOT "}", "memory_backing" },
    { "{\"memory_mib\":16,\"cpu\":\"x86-64-v9\"," BOOT "}", "cpu" },
    { "{\"memory_mib\":16,\"memory_max_mib\":14," BOOT "}", "memory_max_mib" },
    { "{\"memory_mib\":16,\"memory_max_mib\":19," BOOT "}", "memory_max_mib" },
    { "{\"memory_mib\":16,\"memory_max_mib\":524290," BOOT "}", "memory_max_mib" },
    { "{\"memory_mib\":17,\"memory_max_mib\":19," BOOT "}", "memory_mib" },
    { "{\"memory_mib\":16,\"memory_target_mib\":18," BOOT "}", "memory_target_mib" },
    { "{\"memory_mib\":16,\"memory_max_mib\":20,\"memory_target_mib\":14," BOOT "}",
      "memory_target_mib" },
    { "{\"memory_mib\":16,\"memory_max_mib\":20,\"memory_target_mib\":22," BOOT "}",
      "memory_target_mib" },
    { "{\"memory_mib\":16,\"memory_max_mib\":20,\"memory_target_mib\":17," BOOT "}",
      "memory_target_mib" },
    { "{\"memory_mib\":17,\"memory_backing\":\"huge-2m\"," BOOT "}", "memory_mib" },
    { "{\"memory_mib\":16,\"boot\":{}}", "boot.kernel" },
    { "{\"memory_mib\":16,\"boot\":{\"kernel\":\"../k\"}}", "boot.kernel" },
    { "{\"memory_mib\":16,\"boot\":{\"kernel\":\"k\",\"initrd\":\"\"}}", "boot.initrd" },
    { "{\"memory_mib\":16,\"boot\":{\"kernel\":\"k\",\"cmdline\":\"a\\nb\"}}", "boot.cmdline" },
    { "{\"memory_mib\":16,\"boot\":{\"kernel\":\"k\",\"cmdline\":\"a\\tb\"}}", "boot.cmdline" },
    { "{\"memory_mib\":16,\"boot\":{\"kernel\":\"k\",\"x\":1}}", "boot.x" },
    { "{\"memory_mib\":16,\"boot\":{\"snapshot\":\"S\"}}", "boot.snapshot" },
    { "{\"memory_mib\":16,\"boot\":{\"snapshot\":\"s\",\"kernel\":\"k\"}}", "boot.snapshot" },
    { "{\"memory_mib\":16,\"boot\":{\"snapshot\":\"s\",\"initrd\":\"i\"}}", "boot.snapshot" },
    { "{\"memory_mib\":16,\"boot\":{\"snapshot\":\"s\",\"cmdline\":\"x\"}}", "boot.snapshot" },
    { "{\"memory_mib\":16,\"vcpus\":0," BOOT "}", "vcpus" },
    { "{\"memory_mib\":16,\"vcpus\":33," BOOT "}", "vcpus" },
    { "{\"memory_mib\":16,\"restart\":\"maybe\"," BOOT "}", "restart" },
    { "{\"memory_mib\":16,\"on_reboot\":1," BOOT "}", "on_reboot" },
    { "{\"memory_mib\":16,\"autostart\":\"yes\"," BOOT "}", "autostart" },
    { "{\"memory_mib\":16,\"desired_state\":\"failed\"," BOOT "}", "desired_state" },
    { "{\"memory_mib\":16,\"stop_timeout_seconds\":0," BOOT "}", "stop_timeout_seconds" },
    { "{\"memory_mib\":16,\"disks\":{}," BOOT "}", "disks" },
    { "{\"memory_mib\":16,\"disks\":[7]," BOOT "}", "disks[0]" },
    { "{\"memory_mib\":16,\"disks\":[{\"name\":\"a\",\"volume\":\"v\"},{\"name\":\"a\","
      "\"volume\":\"w\"}]," BOOT "}",
      "disks[1].name" },
    { "{\"memory_mib\":16,\"disks\":[{\"name\":\"a\",\"volume\":\"v\"},{\"name\":\"b\","
      "\"volume\":\"v\"}]," BOOT "}",
      "disks[1].volume" },
    { DISK "\"cache\":\"writeback\"}]}", "disks[0].cache" },
    { DISK "\"on_enospc\":\"stop\"}]}", "disks[0].on_enospc" },
    { DISK "\"queues\":0}]}", "disks[0].queues" },
    { DISK "\"queues\":5}],\"vcpus\":4}", "disks[0].queues" },
    { DISK "\"queues\":9}],\"vcpus\":32}", "disks[0].queues" },
    { DISK "\"rate_limit\":[]}]}", "disks[0].rate_limit" },
    { DISK "\"rate_limit\":{\"bytes_per_second\":-1}}]}", "disks[0].rate_limit.bytes_per_second" },
    { DISK "\"rate_limit\":{\"ops_per_second\":1099511627776}}]}",
      "disks[0].rate_limit.ops_per_second" },
    { DISK "\"rate_limit\":{\"ops_burst\":1}}]}", "disks[0].rate_limit.ops_burst" },
    { DISK "\"rate_limit\":{\"ops_per_second\":5,\"bytes_burst\":1}}]}",
      "disks[0].rate_limit.bytes_burst" },
    { DISK "\"rate_limit\":{\"size\":1}}]}", "disks[0].rate_limit.size" },
    { "{\"memory_mib\":16,\"nics\":[{\"name\":\"a\"}]," BOOT "}", "nics[0].network" },
    { "{\"memory_mib\":16,\"nics\":[{\"name\":\"a\",\"network\":\"n\"},{\"name\":\"a\","
      "\"network\":\"n\"}]," BOOT "}",
      "nics[1].name" },
    { "{\"memory_mib\":16,\"nics\":[{\"name\":\"a\",\"network\":\"n\",\"mac\":\"03:00:00:00:00:"
      "01\"}]," BOOT "}",
      "nics[0].mac" },
    { "{\"memory_mib\":16,\"nics\":[{\"name\":\"a\",\"network\":\"n\",\"ipv4\":\"10.0.0\"}]"
      "," BOOT "}",
      "nics[0].ipv4" },
    { NIC "\"queues\":0}]}", "nics[0].queues" },
    { NIC "\"queues\":2}]}", "nics[0].queues" },
    { NIC "\"queues\":3}],\"vcpus\":2}", "nics[0].queues" },
    { NIC "\"queues\":9}],\"vcpus\":9}", "nics[0].queues" },
    { NIC "\"rx_rate_limit\":7}]}", "nics[0].rx_rate_limit" },
    { NIC "\"vhost\":1}]}", "nics[0].vhost" },
    { NIC "\"vhost\":true,\"rx_rate_limit\":{}}]}", "nics[0].vhost" },
    { NIC "\"vhost\":true,\"tx_rate_limit\":{\"ops_per_second\":1}}]}", "nics[0].vhost" },
    { NIC "\"rx_rate_limit\":{\"bytes_burst\":1}}]}", "nics[0].rx_rate_limit.bytes_burst" },
    { NIC "\"tx_rate_limit\":{\"ops_per_second\":1099511627776}}]}",
      "nics[0].tx_rate_limit.ops_per_second" },
    { NIC "\"rate_limit\":{}}]}", "nics[0].rate_limit" },
    { "{\"memory_mib\":16,\"labels\":{\"a\":null}," BOOT "}", "labels" },
    { "{\"memory_mib\":16,\"autostart_order\":1000001," BOOT "}", "autostart_order" },
    { "{\"memory_mib\":16,\"autostart_order\":-1," BOOT "}", "autostart_order" },
    { "{\"memory_mib\":16,\"delete_protection\":\"yes\"," BOOT "}", "delete_protection" },
    { "{\"memory_mib\":16,\"labels\":[]," BOOT "}", "labels" },
    { VSOCK "7}", "vsock" },
    { VSOCK "{\"cid\":2}}", "vsock.cid" },
    { VSOCK "{\"cid\":4294967295}}", "vsock.cid" },
    { VSOCK "{\"x\":1}}", "vsock.x" },
    { VSOCK "{\"ports\":[{\"port\":1}]}}", "vsock.ports[0].socket" },
    { VSOCK "{\"ports\":[{\"port\":1,\"socket\":\"a\"}]}}", "vsock.ports[0].socket" },
    { VSOCK "{\"ports\":[{\"port\":1,\"socket\":\"/a\\n\"}]}}", "vsock.ports[0].socket" },
    { VSOCK "{\"ports\":[{\"socket\":\"/a\"}]}}", "vsock.ports[0].port" },
    { VSOCK "{\"ports\":[{\"port\":4294967295,\"socket\":\"/a\"}]}}", "vsock.ports[0].port" },
    { VSOCK "{\"ports\":[{\"port\":1,\"socket\":\"/a\"},{\"port\":1,\"socket\":\"/b\"}]}}",
      "vsock.ports[1].port" },
    { "{\"memory_mib\":16,\"balloon\":7," BOOT "}", "balloon" },
    { "{\"memory_mib\":16,\"balloon\":{\"amount_mib\":16}," BOOT "}", "balloon.amount_mib" },
    { "{\"memory_mib\":16,\"balloon\":{\"amount_mib\":-1}," BOOT "}", "balloon.amount_mib" },
    { "{\"memory_mib\":16,\"balloon\":{\"amount_mib\":17592186044417}," BOOT "}",
      "balloon.amount_mib" },
    { "{\"memory_mib\":16,\"balloon\":{\"deflate_on_oom\":1}," BOOT "}", "balloon.deflate_on_oom" },
    { "{\"memory_mib\":16,\"balloon\":{\"stats_interval_seconds\":3601}," BOOT "}",
      "balloon.stats_interval_seconds" },
    { "{\"memory_mib\":16,\"balloon\":{\"x\":1}," BOOT "}", "balloon.x" },
    { "{\"memory_mib\":16,\"mystery\":1," BOOT "}", "mystery" },
    { "[]", "" },
};

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(mistakes); i++) {
        struct vm_spec spec = { .vcpus = 77 };
        struct error err = { 0 };

        if (parse(mistakes[i].text, &spec, &err) != -EINVAL ||
            strcmp(err.field, mistakes[i].field) != 0)
            fail_msg("%s: blamed \"%s\": %s", mistakes[i].text, err.field, err.message);
        assert_int_equal(spec.vcpus, 77); /* untouched */
    }
}

static void counts_have_limits(void **state)
{
    char text[8192];
    struct vm_spec spec;
    struct error err = { 0 };
    size_t used;

    (void)state;
    for (int count = VMM_DISKS_MAX; count <= VMM_DISKS_MAX + 1; count++) {
        used = (size_t)snprintf(text, sizeof text, "{\"memory_mib\":16," BOOT ",\"disks\":[");
        for (int i = 0; i < count; i++)
            used += (size_t)snprintf(text + used, sizeof text - used,
                                     "%s{\"name\":\"d%d\",\"volume\":\"v%d\"}", i ? "," : "", i, i);
        snprintf(text + used, sizeof text - used, "]}");
        if (count == VMM_DISKS_MAX) {
            assert_int_equal(parse(text, &spec, &err), 0);
            assert_int_equal(spec.disk_count, VMM_DISKS_MAX);
            vm_spec_clear(&spec);
        } else {
            assert_int_equal(parse(text, &spec, &err), -EINVAL);
            assert_string_equal(err.field, "disks");
        }
    }
}

static void the_command_line_has_its_length(void **state)
{
    char text[VMM_CMDLINE_MAX + 200];
    char line[VMM_CMDLINE_MAX + 2];
    struct vm_spec spec;

    (void)state;
    memset(line, 'x', sizeof line);
    line[VMM_CMDLINE_MAX] = '\0';
    snprintf(text, sizeof text,
             "{\"memory_mib\":16,\"boot\":{\"kernel\":\"k\",\"cmdline\":\"%s\"}}", line);
    assert_int_equal(parse(text, &spec, NULL), 0);
    assert_string_equal(spec.cmdline, line);
    vm_spec_clear(&spec);
    line[VMM_CMDLINE_MAX] = 'x';
    line[VMM_CMDLINE_MAX + 1] = '\0';
    snprintf(text, sizeof text,
             "{\"memory_mib\":16,\"boot\":{\"kernel\":\"k\",\"cmdline\":\"%s\"}}", line);
    struct error err = { 0 };

    assert_int_equal(parse(text, &spec, &err), -EINVAL);
    assert_string_equal(err.field, "boot.cmdline");
}

/* --- places --- */

#define THREE                                                                   \
    "{\"memory_mib\":16," BOOT ",\"disks\":[{\"name\":\"a\",\"volume\":\"v\"}," \
    "{\"name\":\"b\",\"volume\":\"w\"},{\"name\":\"c\",\"volume\":\"x\"}],"     \
    "\"nics\":[{\"name\":\"m\",\"network\":\"n\"},{\"name\":\"o\",\"network\":\"n\"}]}"
#define TWO                                                                     \
    "{\"memory_mib\":16," BOOT ",\"disks\":[{\"name\":\"c\",\"volume\":\"x\"}," \
    "{\"name\":\"a\",\"volume\":\"v\"}],\"nics\":[{\"name\":\"o\",\"network\":\"n\"}]}"

static void places_stay_with_names(void **state)
{
    struct vm_spec three, two;

    (void)state;
    assert_int_equal(parse(THREE, &three, NULL), 0);
    assert_int_equal(three.disks[2].place, 2);
    assert_int_equal(three.nics[1].place, 1);
    three.disks[2].place = 6;
    assert_int_equal(parse(TWO, &two, NULL), 0);
    vm_spec_keep_places(&two, &three);
    assert_int_equal(two.disks[0].place, 6);
    assert_int_equal(two.disks[1].place, 0);
    assert_int_equal(two.nics[0].place, 1);
    vm_spec_clear(&three);
    vm_spec_clear(&two);
}

static void places_come_back_from_rows(void **state)
{
    json_t *status = json_object();
    struct vm_spec first, second, old;

    (void)state;
    assert_int_equal(parse(TWO, &first, NULL), 0);
    first.disks[0].place = 6;
    first.disks[1].place = 1;
    first.nics[0].place = 7;
    vm_spec_store_places(&first, status);
    assert_int_equal(parse(TWO, &second, NULL), 0);
    vm_spec_restore_places(&second, status);
    assert_int_equal(second.disks[0].place, 6);
    assert_int_equal(second.disks[1].place, 1);
    assert_int_equal(second.nics[0].place, 7);
    assert_int_equal(parse(TWO, &old, NULL), 0);
    json_object_clear(status); /* a row of before there were places */
    vm_spec_restore_places(&old, status);
    assert_int_equal(old.disks[1].place, 1);
    vm_spec_copy_places(&old, &first); /* a fork, a restored machine */
    assert_int_equal(old.disks[0].place, 6);
    assert_int_equal(old.nics[0].place, 7);
    json_decref(status);
    vm_spec_clear(&first);
    vm_spec_clear(&second);
    vm_spec_clear(&old);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_least_has_every_default),
        cmocka_unit_test(everything_comes_back_as_it_was),
        cmocka_unit_test(without_memory_it_is_written_whole_or_not_at_all),
        cmocka_unit_test(a_snapshot_is_all_of_a_boot),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(counts_have_limits),
        cmocka_unit_test(the_command_line_has_its_length),
        cmocka_unit_test(places_stay_with_names),
        cmocka_unit_test(places_come_back_from_rows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
