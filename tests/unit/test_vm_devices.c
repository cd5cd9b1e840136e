/* test_vm_devices.c - what is due about a disk or nic that comes or goes, who has which place, and
 * what a row keeps of it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "agent/node_internal.h"
#include "agent/vm_devices.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"

#define NOW 1000

static struct vm_device wanted(enum vm_device_there there)
{
    return (struct vm_device){ .there = there };
}

static struct vm_device leaving(enum vm_device_there there, bool up)
{
    return (struct vm_device){ .use = VM_DEVICE_LEAVING, .there = there, .up = up };
}

static void assert_next(struct vm_device device, enum vm_device_step step)
{
    assert_int_equal(vm_device_next(&device, device.use == VM_DEVICE_SPEC, NOW), step);
    if (step == VM_DEVICE_REST)
        return;
    device.job = true;
    assert_int_equal(vm_device_next(&device, true, NOW), VM_DEVICE_WAIT);
    device.job = false;
    device.asked = VM_DEVICE_LOOK;
    assert_int_equal(vm_device_next(&device, true, NOW), VM_DEVICE_WAIT);
    device.asked = VM_DEVICE_NOTHING;
    device.again_ms = NOW + 1;
    assert_int_equal(vm_device_next(&device, true, NOW),
                     step == VM_DEVICE_FORGET ? step : VM_DEVICE_WAIT);
}

static void each_has_its_next_step(void **state)
{
    struct vm_device failed = { .there = VM_DEVICE_IS_ABSENT, .failed = true };
    struct vm_device reserved = { .use = VM_DEVICE_RESERVED, .there = VM_DEVICE_IS_ABSENT };

    (void)state;
    assert_next(wanted(VM_DEVICE_IS_PRESENT), VM_DEVICE_REST);
    assert_next(wanted(VM_DEVICE_IS_UNKNOWN), VM_DEVICE_ASK_LOOK);
    assert_next(wanted(VM_DEVICE_IS_ABSENT), VM_DEVICE_OPEN);
    assert_next(failed, VM_DEVICE_REST);
    failed.up = true;
    assert_next(failed, VM_DEVICE_TAKE_DOWN);
    failed.there = VM_DEVICE_IS_UNKNOWN; /* it was tried again by an agent that ended */
    assert_next(failed, VM_DEVICE_ASK_LOOK);
    assert_next(reserved, VM_DEVICE_REST);
    assert_next(leaving(VM_DEVICE_IS_PRESENT, true), VM_DEVICE_ASK_GO);
    assert_next(leaving(VM_DEVICE_IS_UNKNOWN, true), VM_DEVICE_ASK_GO);
    assert_next(leaving(VM_DEVICE_IS_ABSENT, true), VM_DEVICE_TAKE_DOWN);
    assert_next(leaving(VM_DEVICE_IS_ABSENT, false), VM_DEVICE_FORGET);
    assert_int_equal(vm_device_next(&(struct vm_device){ 0 }, false, NOW), VM_DEVICE_REST);
}

static struct vm_device ask(struct vm_device device, enum vm_device_question question, bool present,
                            int result)
{
    device.asked = question;
    vm_device_answered(&device, present, result, NOW);
    assert_int_equal(device.asked, VM_DEVICE_NOTHING);
    return device;
}

static void answers_are_facts(void **state)
{
    struct vm_device device = wanted(VM_DEVICE_IS_ABSENT);

    (void)state;
    snprintf(device.reason, sizeof device.reason, "volume x is creating");
    device = ask(device, VM_DEVICE_ATTACH, true, 0);
    assert_int_equal(device.there, VM_DEVICE_IS_PRESENT);
    assert_string_equal(device.reason, "");
    device = ask(wanted(VM_DEVICE_IS_ABSENT), VM_DEVICE_ATTACH, true, -EEXIST);
    assert_int_equal(device.there, VM_DEVICE_IS_PRESENT);
    device = ask(wanted(VM_DEVICE_IS_ABSENT), VM_DEVICE_ATTACH, true, -ENOMEM);
    assert_int_equal(device.there, VM_DEVICE_IS_ABSENT);
    assert_true(device.failed && device.reason[0]);
    device = ask(wanted(VM_DEVICE_IS_UNKNOWN), VM_DEVICE_LOOK, false, -ENOENT);
    assert_int_equal(device.there, VM_DEVICE_IS_ABSENT);
    assert_false(device.failed);
    device = ask(leaving(VM_DEVICE_IS_UNKNOWN, true), VM_DEVICE_DETACH, true, 0);
    assert_int_equal(device.there, VM_DEVICE_IS_PRESENT);
    assert_true(device.again_ms > NOW);
    device = ask(device, VM_DEVICE_NOTHING, false, 0); /* unasked: the guest has let it go */
    assert_int_equal(device.there, VM_DEVICE_IS_ABSENT);
    assert_int_equal(device.again_ms, 0);
}

/* Whatever an attach met, a look says how it ended. */
static void an_answer_that_never_comes(void **state)
{
    struct vm_device device = wanted(VM_DEVICE_IS_ABSENT);

    (void)state;
    device.asked = VM_DEVICE_ATTACH;
    vm_device_unanswered(&device);
    assert_int_equal(device.there, VM_DEVICE_IS_UNKNOWN);
    device = leaving(VM_DEVICE_IS_PRESENT, true);
    device.asked = VM_DEVICE_DETACH;
    vm_device_unanswered(&device);
    assert_int_equal(device.there, VM_DEVICE_IS_PRESENT);
    assert_next(device, VM_DEVICE_ASK_GO);
}

/* --- a VM --- */

#define DISK(name, volume) "{\"name\":\"" name "\",\"volume\":\"" volume "\"}"
#define NIC(name)          "{\"name\":\"" name "\",\"network\":\"net\"}"
#define VM(disks, nics) \
    "{\"memory_mib\":16,\"boot\":{\"kernel\":\"k\"},\"disks\":[" disks "],\"nics\":[" nics "]}"

static int set_up(void **state)
{
    const char *text = VM(DISK("a", "v") "," DISK("b", "w"), NIC("m"));
    struct vm *vm = calloc(1, sizeof *vm);
    json_t *json = json_loads(text, 0, NULL);

    *state = vm;
    if (!vm || !json || vm_spec_parse(json, &vm->spec, NULL) < 0)
        return -1;
    json_decref(json);
    snprintf(vm->head.id, sizeof vm->head.id, "one");
    vm->nics[0] = (struct vm_nic){ { 2, 0, 0, 0, 0, 1 }, 0x0a000002 };
    return 0;
}

static int tear_down(void **state)
{
    struct vm *vm = *state;

    vm_spec_clear(&vm->spec);
    free(vm);
    return 0;
}

/* The second disk is taken out of the spec, and is to go. */
static void let_go(struct vm *vm)
{
    vm->devices.disks[1] = vm->spec.disks[1];
    vm->spec.disk_count = 1;
    vm->devices.at[VMM_DEVICE_DISK][1] = leaving(VM_DEVICE_IS_PRESENT, false);
}

static void places_are_held_until_all_is_gone(void **state)
{
    struct vm *vm = *state;
    struct error err;

    assert_int_equal(vm_devices_find_place(vm, VMM_DEVICE_DISK, &err), 2);
    assert_int_equal(vm_devices_find_place(vm, VMM_DEVICE_NIC, &err), 1);
    assert_string_equal(vm_disk_at(vm, 1)->name, "b");
    let_go(vm);
    assert_string_equal(vm_disk_at(vm, 1)->name, "b");
    assert_true(vm_uses_volume(vm, "w"));
    assert_int_equal(vm_devices_find_place(vm, VMM_DEVICE_DISK, &err), 2);
    assert_int_equal(vm_devices_find_leaving(vm, VMM_DEVICE_DISK, "b"), 1);
    assert_int_equal(vm_devices_find_leaving(vm, VMM_DEVICE_DISK, "a"), -1);
    vm->devices.at[VMM_DEVICE_DISK][1] = (struct vm_device){ 0 };
    assert_false(vm_uses_volume(vm, "w"));
    assert_int_equal(vm_devices_find_place(vm, VMM_DEVICE_DISK, &err), 1);
    for (unsigned i = 1; i < VMM_NICS_MAX; i++) {
        vm->devices.nics[i] = (struct vm_nic_spec){ .network = "net", .place = (uint8_t)i };
        vm->devices.at[VMM_DEVICE_NIC][i].use = VM_DEVICE_RESERVED;
    }
    assert_int_equal(vm_count_nics(vm, "net"), VMM_NICS_MAX);
    assert_int_equal(vm_devices_find_place(vm, VMM_DEVICE_NIC, &err), -EBUSY);
}

static void only_what_the_machine_has_is_made(void **state)
{
    struct vm *vm = *state;

    assert_non_null(vm_disk_in_machine(vm, 1));
    assert_null(vm_disk_in_machine(vm, 2));
    vm->devices.at[VMM_DEVICE_DISK][1].there = VM_DEVICE_IS_ABSENT; /* it came while it started */
    assert_null(vm_disk_in_machine(vm, 1));
    vm->devices.at[VMM_DEVICE_DISK][1].there = VM_DEVICE_IS_PRESENT;
    let_go(vm); /* and this is to go while it starts */
    assert_non_null(vm_disk_in_machine(vm, 1));
    vm->devices.at[VMM_DEVICE_DISK][1].use = VM_DEVICE_RESERVED;
    assert_null(vm_disk_in_machine(vm, 1));
}

static void a_copy_needs_a_whole_machine(void **state)
{
    struct vm *vm = *state;
    struct error err;

    assert_true(vm_devices_are_settled(vm));
    assert_int_equal(vm_devices_check_whole(vm, &err), 0);
    vm->devices.changing = true;
    assert_int_equal(vm_devices_check_whole(vm, &err), -EBUSY);
    vm->devices.changing = false;
    vm->devices.at[VMM_DEVICE_DISK][0] =
        (struct vm_device){ .there = VM_DEVICE_IS_ABSENT, .failed = true };
    assert_true(vm_devices_are_settled(vm));
    assert_int_equal(vm_devices_check_whole(vm, &err), -EBUSY);
    assert_string_equal(err.message, "a disk of vm one could not be attached");
    vm->devices.at[VMM_DEVICE_DISK][0] = (struct vm_device){ 0 };
    let_go(vm);
    assert_false(vm_devices_are_settled(vm));
    assert_int_equal(vm_devices_check_whole(vm, &err), -EBUSY);
    assert_string_equal(err.message, "a disk of vm one is being detached");
}

/* --- rows --- */

static const char *text_at(const json_t *status, const char *array, size_t index, const char *key)
{
    return json_string_value(
        json_object_get(json_array_get(json_object_get(status, array), index), key));
}

static void a_row_has_all_that_is_to_go(void **state)
{
    struct vm *vm = *state;
    struct vm *found = calloc(1, sizeof *found);
    json_t *status = json_object();

    vm->spec.disks[0].place = 5;
    vm->spec.disks[1].read_only = true;
    vm->spec.disks[1].on_enospc = VM_ENOSPC_PAUSE;
    let_go(vm);
    vm->devices.nics[3] =
        (struct vm_nic_spec){ .name = "n", .network = "other", .place = 3, .queues = 2 };
    vm->nics[3] = (struct vm_nic){ { 2, 0, 0, 0, 0, 9 }, 0x0a000009 };
    vm->devices.at[VMM_DEVICE_NIC][3] = leaving(VM_DEVICE_IS_PRESENT, true);
    vm->devices.at[VMM_DEVICE_NIC][0].there = VM_DEVICE_IS_ABSENT;
    vm_devices_status(vm, status, /* stored= */ true);
    assert_string_equal(text_at(status, "disks", 1, "state"), "detaching");
    assert_string_equal(text_at(status, "nics", 0, "state"), "attaching");
    found->spec = vm->spec;
    found->spec.disks[0].place = 0; /* as it comes from JSON */
    assert_int_equal(vm_devices_restore(found, status, NULL), 0);
    assert_int_equal(found->spec.disks[0].place, 5);
    assert_int_equal(found->devices.at[VMM_DEVICE_DISK][1].use, VM_DEVICE_LEAVING);
    assert_int_equal(found->devices.at[VMM_DEVICE_DISK][1].there, VM_DEVICE_IS_UNKNOWN);
    assert_string_equal(vm_disk_at(found, 1)->volume, "w");
    assert_true(vm_disk_at(found, 1)->read_only);
    assert_int_equal(vm_disk_at(found, 1)->on_enospc, VM_ENOSPC_PAUSE);
    assert_string_equal(vm_nic_at(found, 3)->network, "other");
    assert_int_equal(vm_nic_at(found, 3)->queues, 2);
    assert_int_equal(found->nics[3].ipv4, 0x0a000009);
    assert_int_equal(found->devices.at[VMM_DEVICE_NIC][0].there, VM_DEVICE_IS_UNKNOWN);
    assert_int_equal(found->devices.at[VMM_DEVICE_DISK][5].there, VM_DEVICE_IS_PRESENT);
    json_decref(status);
    free(found);
}

static void a_row_of_before_has_its_places_in_order(void **state)
{
    struct vm *vm = *state;
    json_t *status = json_pack("{s:[{s:s, s:s, s:s}]}", "nics", "name", "m", "mac",
                               "02:00:00:00:00:05", "ipv4", "10.0.0.5");

    assert_int_equal(vm_devices_restore(vm, status, NULL), 0);
    assert_int_equal(vm->spec.disks[1].place, 1);
    assert_int_equal(vm->nics[0].ipv4, 0x0a000005);
    assert_true(vm_devices_are_settled(vm));
    json_decref(status);
    status = json_object();
    assert_int_equal(vm_devices_restore(vm, status, &(struct error){ 0 }), -EINVAL);
    json_decref(status);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_has_its_next_step),
        cmocka_unit_test(answers_are_facts),
        cmocka_unit_test(an_answer_that_never_comes),
        TEST(places_are_held_until_all_is_gone),
        TEST(only_what_the_machine_has_is_made),
        TEST(a_copy_needs_a_whole_machine),
        TEST(a_row_has_all_that_is_to_go),
        TEST(a_row_of_before_has_its_places_in_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
