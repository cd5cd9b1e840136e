/* test_spec_change.c - where two specs differ, and which fields may, when. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include "agent/spec_change.h"
#include "agent/vm_spec.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"

static json_t *json_of(const char *text)
{
    struct error err = { 0 };
    json_t *json = NULL;

    if (json_parse(text, strlen(text), &json, &err) < 0)
        fail_msg("%s: %s", text, err.message);
    return json;
}

/* --- differences --- */

static void assert_differs(const char *a, const char *b, const char *field)
{
    static const char *const except[] = { "desired_state", "o.free", "l[].free", NULL };
    json_t *left = json_of(a);
    json_t *right = json_of(b);
    char found[64] = "";

    assert_int_equal(spec_differs(left, right, except, found, sizeof found), field[0] != '\0');
    assert_string_equal(found, field);
    json_decref(left);
    json_decref(right);
}

static void the_field_that_differs_is_found(void **state)
{
    (void)state;
    assert_differs("{\"a\":1}", "{\"a\":1}", "");
    assert_differs("{\"a\":1}", "{\"a\":2}", "a");
    assert_differs("{\"a\":1}", "{\"a\":1,\"b\":1}", "b");
    assert_differs("{\"a\":1,\"b\":1}", "{\"a\":1}", "b");
    assert_differs("{\"o\":{\"x\":1,\"y\":1}}", "{\"o\":{\"x\":1,\"y\":2}}", "o.y");
    assert_differs("{\"o\":{}}", "{\"o\":[]}", "o");
    assert_differs("{\"l\":[1]}", "{\"l\":[1,2]}", "l");
    assert_differs("{\"l\":[1]}", "{\"l\":[2]}", "l");
    assert_differs("{\"desired_state\":\"a\"}", "{\"desired_state\":\"b\"}", "");
    assert_differs("{\"desired_state\":\"a\"}", "{}", "");
    assert_differs("{\"o\":{\"desired_state\":1}}", "{\"o\":{\"desired_state\":2}}",
                   "o.desired_state");
    assert_differs("{\"o\":{\"free\":1,\"x\":1}}", "{\"o\":{\"free\":2,\"x\":1}}", "");
    assert_differs("{\"o\":{\"free\":1,\"x\":1}}", "{\"o\":{\"free\":2}}", "o.x");
}

static void things_with_names_are_compared_one_by_one(void **state)
{
    (void)state;
    assert_differs("{\"l\":[{\"name\":\"a\",\"x\":1},{\"name\":\"b\",\"x\":1}]}",
                   "{\"l\":[{\"name\":\"a\",\"x\":1},{\"name\":\"b\",\"x\":2}]}", "l[1].x");
    assert_differs("{\"l\":[{\"name\":\"a\",\"x\":1}]}", "{\"l\":[{\"name\":\"b\",\"x\":1}]}",
                   "l[0].name");
    assert_differs("{\"l\":[{\"name\":\"a\",\"free\":1}]}", "{\"l\":[{\"name\":\"a\",\"free\":2}]}",
                   "");
    assert_differs("{\"l\":[{\"name\":\"a\"}]}", "{\"l\":[]}", "l");
    assert_differs("{\"l\":[{\"name\":\"a\"}]}", "{\"l\":[{\"x\":1}]}", "l");
    assert_differs("{\"l\":[{\"name\":\"a\"}]}", "{\"l\":7}", "l");
}

/* --- what may change --- */

/* All of a VM's spec that there is by default, and what is not. */
#define VM                                                                              \
    "{\"memory_mib\":16,\"boot\":{\"kernel\":\"k\"},\"vsock\":{},\"disks\":[{\"name\":" \
    "\"d\",\"volume\":\"v\"}],\"nics\":[{\"name\":\"n\",\"network\":\"net\",\"mac\":"   \
    "\"02:00:00:00:00:01\",\"ipv4\":\"10.0.0.2\"}],\"labels\":{\"a\":\"b\"},\"vcpus\":2}"

enum { AT_ONCE = 0, AT_REST = -EBUSY, NEVER = -EBADE };

static const struct {
    const char *patch, *field;
    int when;
} vm_changes[] = {
    { "{\"labels\":{\"a\":\"c\"}}", "", AT_ONCE },
    { "{\"restart\":\"always\"}", "", AT_ONCE },
    { "{\"on_reboot\":\"stop\"}", "", AT_ONCE },
    { "{\"autostart\":true}", "", AT_ONCE },
    { "{\"autostart_order\":3}", "", AT_ONCE },
    { "{\"delete_protection\":true}", "", AT_ONCE },
    { "{\"desired_state\":\"stopped\"}", "", AT_ONCE },
    { "{\"stop_timeout_seconds\":3}", "", AT_ONCE },
    { "{\"balloon\":{\"amount_mib\":1,\"deflate_on_oom\":false,\"stats_interval_seconds\":1}}", "",
      AT_ONCE },
    { "{\"memory_min_mib\":3}", "", AT_ONCE },
    { "{\"memory_weight\":3}", "", AT_ONCE },
    { "{\"priority\":3}", "", AT_ONCE },
    { "{\"cpu_weight\":3}", "", AT_ONCE },
    { "{\"cpu_limit_percent\":3}", "", AT_ONCE },
    { "{\"io_weight\":3}", "", AT_ONCE },
    { "{\"io_limit\":{\"read_ops_per_second\":3}}", "", AT_ONCE },
    { "{\"vsock\":{\"ports\":[{\"port\":1,\"socket\":\"/a\"}]}}", "", AT_ONCE },
    { "{\"disks\":[{\"name\":\"d\",\"volume\":\"v\",\"rate_limit\":{}}]}", "", AT_ONCE },
    { "{\"vcpus\":3}", "vcpus", AT_REST },
    { "{\"cpu\":\"x86-64-v1\"}", "cpu", AT_REST },
    { "{\"memory_mib\":18}", "memory_mib", AT_REST },
    { "{\"memory_max_mib\":18}", "memory_max_mib", AT_REST },
    { "{\"memory_max_mib\":18,\"memory_target_mib\":18}", "memory_max_mib", AT_REST },
    { "{\"memory_backing\":\"shared\"}", "memory_backing", AT_REST },
    { "{\"boot\":{\"kernel\":\"other\"}}", "boot.kernel", AT_REST },
    { "{\"boot\":{\"initrd\":\"i\"}}", "boot.initrd", AT_REST },
    { "{\"boot\":{\"cmdline\":\"c\"}}", "boot.cmdline", AT_REST },
    { "{\"vsock\":null}", "vsock", AT_REST },
    { "{\"vsock\":{\"cid\":7}}", "vsock.cid", AT_REST },
    { "{\"disks\":[{\"name\":\"d\",\"volume\":\"v\",\"cache\":\"none\"}]}", "disks[0].cache",
      AT_REST },
    { "{\"disks\":[{\"name\":\"d\",\"volume\":\"v\",\"on_enospc\":\"pause\"}]}",
      "disks[0].on_enospc", AT_REST },
    { "{\"disks\":[{\"name\":\"d\",\"volume\":\"v\",\"queues\":2}]}", "disks[0].queues", AT_REST },
    { "{\"boot\":{\"fork\":\"f\"}}", "boot.fork", NEVER },
    { "{\"boot\":{\"kernel\":null,\"cmdline\":null,\"snapshot\":\"s\"}}", "boot.snapshot", NEVER },
    { "{\"disks\":null}", "disks", NEVER },
    { "{\"disks\":[{\"name\":\"e\",\"volume\":\"v\"}]}", "disks[0].name", NEVER },
    { "{\"disks\":[{\"name\":\"d\",\"volume\":\"w\"}]}", "disks[0].volume", NEVER },
    { "{\"disks\":[{\"name\":\"d\",\"volume\":\"v\",\"read_only\":true}]}", "disks[0].read_only",
      NEVER },
    { "{\"nics\":[]}", "nics", NEVER },
};

/* The canonical spec with a patch. */
static json_t *canonical_vm(const char *patch)
{
    json_t *json = json_of(VM), *change = json_of(patch), *canonical;
    struct vm_spec spec;
    struct error err = { 0 };

    assert_int_equal(json_merge_patch(json, change), 0);
    if (vm_spec_parse(json, &spec, &err) < 0)
        fail_msg("%s: %s", patch, err.message);
    canonical = vm_spec_json(&spec);
    vm_spec_clear(&spec);
    json_decref(json);
    json_decref(change);
    return canonical;
}

/* Whatever else changes with it. */
static void each_field_of_a_vm_has_its_time(void **state)
{
    json_t *before = canonical_vm("{}");

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(vm_changes); i++) {
        json_t *after = canonical_vm(vm_changes[i].patch);
        const char *field = vm_changes[i].field;
        int when = vm_changes[i].when;
        struct error running = { 0 }, resting = { 0 };

        if (spec_change_check(RESOURCE_VM, before, after, "running: stop it first", &running) !=
                when ||
            spec_change_check(RESOURCE_VM, before, after, NULL, &resting) !=
                (when == NEVER ? NEVER : 0))
            fail_msg("%s: %s, %s", vm_changes[i].patch, running.message, resting.message);
        if (when == NEVER ? strcmp(resting.field, field) != 0
                          : when == AT_REST && strcmp(running.field, field) != 0)
            fail_msg("%s: blamed %s, %s", vm_changes[i].patch, running.field, resting.field);
        json_decref(after);
    }
    json_decref(before);
}

/* A field that nobody thought of would never change, and nobody would know. */
static void no_field_of_a_vm_is_forgotten(void **state)
{
    json_t *before = canonical_vm("{}"), *value;
    const char *key;

    (void)state;
    json_object_foreach(before, key, value)
    {
        bool named = strcmp(key, "memory_target_mib") == 0;

        for (size_t i = 0; i < ARRAY_LENGTH(vm_changes); i++)
            named |= strncmp(vm_changes[i].patch + 2, key, strlen(key)) == 0;
        if (!named)
            fail_msg("%s: when can it be changed?", key);
    }
    json_decref(before);
}

static void assert_message(enum resource_kind kind, const char *a, const char *b, const char *busy,
                           const char *message)
{
    json_t *before = json_of(a), *after = json_of(b);
    struct error err = { 0 };

    assert_true(spec_change_check(kind, before, after, busy, &err) < 0);
    assert_string_equal(err.message, message);
    json_decref(before);
    json_decref(after);
}

static void a_refusal_says_what_to_do(void **state)
{
    (void)state;
    assert_message(RESOURCE_VM, "{\"vcpus\":1}", "{\"vcpus\":2}", "running: stop it first",
                   "vcpus: cannot be changed while the vm is running: stop it first");
    assert_message(RESOURCE_VM, "{\"nics\":[{\"name\":\"a\",\"mac\":1}]}",
                   "{\"nics\":[{\"name\":\"a\",\"mac\":2}]}", NULL,
                   "nics[0].mac: can never be changed: detach the nic, and attach it anew");
    assert_message(RESOURCE_VM, "{\"nics\":[{\"name\":\"a\"}]}", "{\"nics\":[]}", NULL,
                   "nics: can never be changed: PUT or DELETE the one nic, below the VM");
    assert_message(RESOURCE_NETWORK, "{\"mtu\":1}", "{\"mtu\":2}", NULL,
                   "mtu: can never be changed: delete the network and make it anew");
}

static void of_each_kind_labels_change(void **state)
{
    static const enum resource_kind kinds[] = { RESOURCE_IMAGE, RESOURCE_VOLUME, RESOURCE_NETWORK,
                                                RESOURCE_VM, RESOURCE_SNAPSHOT };
    json_t *before = json_of("{\"labels\":{},\"x\":1}");
    json_t *labels = json_of("{\"labels\":{\"a\":\"b\"},\"x\":1}");
    json_t *other = json_of("{\"labels\":{},\"x\":2}");

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(kinds); i++) {
        assert_int_equal(spec_change_check(kinds[i], before, labels, "busy", NULL), 0);
        assert_int_equal(spec_change_check(kinds[i], before, other, NULL, NULL), -EBADE);
    }
    json_decref(before);
    json_decref(labels);
    json_decref(other);
}

static void assert_nulls(enum resource_kind kind, const char *before, const char *patch,
                         const char *path, const char *field)
{
    json_t *left = json_of(before), *right = json_of(patch);
    struct error err = { 0 };

    assert_int_equal(spec_change_check_nulls(kind, left, right, path, &err),
                     field[0] ? -EINVAL : 0);
    assert_string_equal(err.field, field);
    json_decref(left);
    json_decref(right);
}

static void a_null_of_no_field_is_a_mistake(void **state)
{
    (void)state;
    assert_nulls(RESOURCE_VM, "{}", "{\"cpu_limit_percent\":null}", "", "");
    assert_nulls(RESOURCE_VM, "{}", "{\"cpu_limt_percent\":null}", "", "cpu_limt_percent");
    assert_nulls(RESOURCE_VM, "{}", "{\"vcpus\":2,\"vcpu\":null}", "", "vcpu");
    assert_nulls(RESOURCE_VM, "{}", "{\"x\":1}", "", ""); /* what is read tells of it */
    assert_nulls(RESOURCE_VM, "{\"x\":1}", "{\"x\":null}", "", "");
    assert_nulls(RESOURCE_VM, "{\"io_limit\":{}}", "{\"io_limit\":{\"read_ops_per_second\":null}}",
                 "", "");
    assert_nulls(RESOURCE_VM, "{}", "{\"io_limit\":{\"read_ops_per_second\":null}}", "", "");
    assert_nulls(RESOURCE_VM, "{}", "{\"io_limit\":{\"read_ops\":null}}", "", "io_limit.read_ops");
    assert_nulls(RESOURCE_VM, "{}", "{\"vsock\":{\"cid\":null,\"ports\":null}}", "", "");
    assert_nulls(RESOURCE_VM, "{}", "{\"vsock\":{\"port\":null}}", "", "vsock.port");
    assert_nulls(RESOURCE_VM, "{\"balloon\":{}}", "{\"balloon\":{\"mib\":null}}", "",
                 "balloon.mib");
    assert_nulls(RESOURCE_VM, "{\"boot\":{}}", "{\"boot\":{\"initrd\":null}}", "", "");
    assert_nulls(RESOURCE_VM, "{\"labels\":{}}", "{\"labels\":{\"any\":null}}", "", "");
    assert_nulls(RESOURCE_VM, "{}", "{\"rate_limit\":null}", "disks[]", "");
    assert_nulls(RESOURCE_VM, "{}", "{\"rx_rate_limit\":null}", "disks[]", "disks[].rx_rate_limit");
    assert_nulls(RESOURCE_VM, "{}", "{\"rate_limit\":{\"ops_burst\":null}}", "disks[]", "");
    assert_nulls(RESOURCE_VM, "{}", "{\"rate_limit\":{\"burst\":null}}", "disks[]",
                 "disks[].rate_limit.burst");
    assert_nulls(RESOURCE_VM, "{}", "{\"mac\":null}", "nics[]", "");
    assert_nulls(RESOURCE_VOLUME, "{}", "{\"image\":null}", "", "");
    assert_nulls(RESOURCE_NETWORK, "{}", "{\"mtus\":null}", "", "mtus");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_field_that_differs_is_found),
        cmocka_unit_test(things_with_names_are_compared_one_by_one),
        cmocka_unit_test(each_field_of_a_vm_has_its_time),
        cmocka_unit_test(no_field_of_a_vm_is_forgotten),
        cmocka_unit_test(a_refusal_says_what_to_do),
        cmocka_unit_test(of_each_kind_labels_change),
        cmocka_unit_test(a_null_of_no_field_is_a_mistake),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
