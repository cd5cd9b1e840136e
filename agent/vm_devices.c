#include "agent/vm_devices.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/node_internal.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "net/cidr.h"
#include "net/mac.h"

/* A guest that is asked to let go may be busy, or not listen. */
#define ASK_AGAIN_MS 5000

static const char *const kind_names[VMM_DEVICE_KIND_COUNT] = { "disk", "nic" };

/* --- what is where --- */

static const struct vm_disk_spec *spec_disk(const struct vm *vm, unsigned place)
{
    for (unsigned i = 0; i < vm->spec.disk_count; i++)
        if (vm->spec.disks[i].place == place)
            return &vm->spec.disks[i];
    return NULL;
}

static const struct vm_nic_spec *spec_nic(const struct vm *vm, unsigned place)
{
    for (unsigned i = 0; i < vm->spec.nic_count; i++)
        if (vm->spec.nics[i].place == place)
            return &vm->spec.nics[i];
    return NULL;
}

const struct vm_disk_spec *vm_disk_at(const struct vm *vm, unsigned place)
{
    const struct vm_devices *devices = &vm->devices;

    return devices->at[VMM_DEVICE_DISK][place].use == VM_DEVICE_SPEC ? spec_disk(vm, place)
                                                                     : &devices->disks[place];
}

const struct vm_nic_spec *vm_nic_at(const struct vm *vm, unsigned place)
{
    const struct vm_devices *devices = &vm->devices;

    return devices->at[VMM_DEVICE_NIC][place].use == VM_DEVICE_SPEC ? spec_nic(vm, place)
                                                                    : &devices->nics[place];
}

static bool is_in_machine(const struct vm_device *device)
{
    return device->use != VM_DEVICE_RESERVED && device->there == VM_DEVICE_IS_PRESENT;
}

const struct vm_disk_spec *vm_disk_in_machine(const struct vm *vm, unsigned place)
{
    return is_in_machine(&vm->devices.at[VMM_DEVICE_DISK][place]) ? vm_disk_at(vm, place) : NULL;
}

const struct vm_nic_spec *vm_nic_in_machine(const struct vm *vm, unsigned place)
{
    return is_in_machine(&vm->devices.at[VMM_DEVICE_NIC][place]) ? vm_nic_at(vm, place) : NULL;
}

bool vm_nic_is_forked(const struct vm *vm, unsigned place)
{
    return vm->forked && vm->inside[place].ipv4 != 0; /* one that was attached since is its own */
}

const struct vm_nic *vm_nic_inside(const struct vm *vm, unsigned place)
{
    return vm_nic_is_forked(vm, place) ? &vm->inside[place] : &vm->nics[place];
}

bool vm_uses_volume(const struct vm *vm, const char *volume)
{
    for (unsigned place = 0; place < VMM_DISKS_MAX; place++) {
        const struct vm_disk_spec *disk = vm_disk_at(vm, place);

        if (disk && strcmp(disk->volume, volume) == 0)
            return true;
    }
    return false;
}

unsigned vm_count_nics(const struct vm *vm, const char *network)
{
    unsigned count = 0;

    for (unsigned place = 0; place < VMM_NICS_MAX; place++) {
        const struct vm_nic_spec *nic = vm_nic_at(vm, place);

        count += nic && strcmp(nic->network, network) == 0;
    }
    return count;
}

static bool place_is_taken(const struct vm *vm, enum vmm_device_kind kind, unsigned place)
{
    return kind == VMM_DEVICE_DISK ? vm_disk_at(vm, place) != NULL : vm_nic_at(vm, place) != NULL;
}

int vm_devices_find_place(const struct vm *vm, enum vmm_device_kind kind, struct error *err)
{
    unsigned count = kind == VMM_DEVICE_DISK ? VMM_DISKS_MAX : VMM_NICS_MAX;

    for (unsigned place = 0; place < count; place++)
        if (!place_is_taken(vm, kind, place))
            return (int)place;
    return error_set(err, EBUSY, "vm %s has %u %ss, those that are being detached included",
                     vm->head.id, count, kind_names[kind]);
}

int vm_devices_find_leaving(const struct vm *vm, enum vmm_device_kind kind, const char *name)
{
    for (int place = 0; place < VM_PLACES; place++) {
        const char *has =
            kind == VMM_DEVICE_DISK ? vm->devices.disks[place].name : vm->devices.nics[place].name;

        if (vm->devices.at[kind][place].use == VM_DEVICE_LEAVING && strcmp(has, name) == 0)
            return place;
    }
    return -1;
}

/* --- decisions --- */

enum vm_device_step vm_device_next(const struct vm_device *device, bool in_spec, int64_t now_ms)
{
    bool leaving = device->use == VM_DEVICE_LEAVING;
    bool due = now_ms >= device->again_ms;

    if (device->use == VM_DEVICE_RESERVED || (!leaving && !in_spec))
        return VM_DEVICE_REST;
    if (device->job || device->asked != VM_DEVICE_NOTHING)
        return VM_DEVICE_WAIT;
    if (leaving && device->there != VM_DEVICE_IS_ABSENT)
        return due ? VM_DEVICE_ASK_GO : VM_DEVICE_WAIT;
    if (device->there == VM_DEVICE_IS_UNKNOWN)
        return due ? VM_DEVICE_ASK_LOOK : VM_DEVICE_WAIT;
    if (device->there == VM_DEVICE_IS_PRESENT)
        return VM_DEVICE_REST;
    if (device->up && (leaving || device->failed))
        return due ? VM_DEVICE_TAKE_DOWN : VM_DEVICE_WAIT;
    if (leaving)
        return VM_DEVICE_FORGET;
    return device->failed ? VM_DEVICE_REST : due ? VM_DEVICE_OPEN : VM_DEVICE_WAIT;
}

void vm_device_fail(struct vm_device *device, const char *reason)
{
    device->failed = true;
    device->again_ms = 0;
    snprintf(device->reason, sizeof device->reason, "%s", reason);
}

void vm_device_answered(struct vm_device *device, bool present, int result, int64_t now_ms)
{
    enum vm_device_question asked = device->asked;
    char reason[80] = "";

    device->asked = VM_DEVICE_NOTHING;
    if (asked == VM_DEVICE_ATTACH) {
        present = result == 0 || result == -EEXIST;
        snprintf(reason, sizeof reason, "its VMM cannot attach it: %s", strerror(-result));
    }
    device->there = present ? VM_DEVICE_IS_PRESENT : VM_DEVICE_IS_ABSENT;
    if (asked == VM_DEVICE_ATTACH && !present) {
        vm_device_fail(device, reason);
        return;
    }
    device->again_ms = device->use == VM_DEVICE_LEAVING && asked == VM_DEVICE_DETACH && present
                           ? now_ms + ASK_AGAIN_MS
                           : 0;
    if (present && device->use == VM_DEVICE_SPEC) {
        device->failed = false;
        device->reason[0] = '\0';
    }
}

void vm_device_unanswered(struct vm_device *device)
{
    if (device->asked == VM_DEVICE_ATTACH)
        device->there = VM_DEVICE_IS_UNKNOWN;
    device->asked = VM_DEVICE_NOTHING;
}

bool vm_devices_are_settled(const struct vm *vm)
{
    for (int kind = 0; kind < VMM_DEVICE_KIND_COUNT; kind++)
        for (unsigned place = 0; place < VM_PLACES; place++)
            if (vm_device_next(&vm->devices.at[kind][place],
                               place_is_taken(vm, (enum vmm_device_kind)kind, place),
                               INT64_MAX) != VM_DEVICE_REST)
                return false;
    return true;
}

int vm_devices_check_whole(const struct vm *vm, struct error *err)
{
    if (vm->devices.changing)
        return error_set(err, EBUSY, "a disk or nic of vm %s is being attached or detached",
                         vm->head.id);
    for (int kind = 0; kind < VMM_DEVICE_KIND_COUNT; kind++)
        for (unsigned place = 0; place < VM_PLACES; place++) {
            const struct vm_device *device = &vm->devices.at[kind][place];

            if (device->use == VM_DEVICE_SPEC && device->there == VM_DEVICE_IS_PRESENT)
                continue;
            return error_set(err, EBUSY, "a %s of vm %s %s", kind_names[kind], vm->head.id,
                             device->use == VM_DEVICE_LEAVING ? "is being detached"
                             : device->failed                 ? "could not be attached"
                                                              : "is being attached");
        }
    return 0;
}

/* --- status --- */

static const char *state_name(const struct vm_device *device)
{
    return device->use == VM_DEVICE_LEAVING        ? "detaching"
           : device->there == VM_DEVICE_IS_PRESENT ? "attached"
           : device->failed                        ? "failed"
                                                   : "attaching";
}

static int set_state(const struct vm *vm, enum vmm_device_kind kind, unsigned place, bool stored,
                     json_t *json)
{
    const struct vm_device *device = &vm->devices.at[kind][place];
    unsigned slot = (kind == VMM_DEVICE_DISK ? VMM_SLOT_DISKS : VMM_SLOT_NICS) + place;

    return json_object_set_new(json, "state", json_string(state_name(device))) |
           json_object_set_new(json, "reason", json_reason(device->reason)) |
           json_object_set_new(json, stored ? "place" : "pci_slot",
                               stored        ? json_integer((json_int_t)place)
                               : vm->pid > 0 ? json_integer((json_int_t)slot)
                                             : json_null());
}

static int add_disk(const struct vm *vm, const struct vm_disk_spec *disk, bool stored,
                    json_t *array)
{
    json_t *json = json_pack("{s:s, s:s}", "name", disk->name, "volume", disk->volume);
    int result = set_state(vm, VMM_DEVICE_DISK, disk->place, stored, json);

    if (stored) {
        result |= json_object_set_new(json, "read_only", json_boolean(disk->read_only));
        result |=
            json_object_set_new(json, "pauses", json_boolean(disk->on_enospc == VM_ENOSPC_PAUSE));
    }
    return result | json_array_append_new(array, json);
}

/* A fork's guest knows its nic by these. */
static int set_inside(json_t *nic, const struct vm_nic *inside)
{
    char mac[MAC_TEXT];
    char ipv4[IPV4_TEXT];

    mac_format(inside->mac, mac);
    ipv4_format(inside->ipv4, ipv4);
    return json_object_set_new(nic, "inside_mac", json_string(mac)) |
           json_object_set_new(nic, "inside_ipv4", json_string(ipv4));
}

static int add_nic(const struct vm *vm, const struct vm_nic_spec *nic, bool stored, json_t *array)
{
    unsigned place = nic->place;
    char mac[MAC_TEXT];
    char ipv4[IPV4_TEXT];
    json_t *json;
    int result;

    mac_format(vm->nics[place].mac, mac);
    ipv4_format(vm->nics[place].ipv4, ipv4);
    json = json_pack("{s:s, s:s, s:s}", "name", nic->name, "mac", mac, "ipv4", ipv4);
    result = set_state(vm, VMM_DEVICE_NIC, place, stored, json);
    if (vm_nic_is_forked(vm, place) || (stored && vm->inside[place].ipv4 != 0))
        result |= set_inside(json, &vm->inside[place]);
    if (stored) {
        result |= json_object_set_new(json, "network", json_string(nic->network));
        result |= json_object_set_new(json, "queues", json_integer((json_int_t)nic->queues));
    }
    return result | json_array_append_new(array, json);
}

/* The spec's in its order, then those that are to go. */
int vm_devices_status(const struct vm *vm, json_t *status, bool stored)
{
    json_t *disks = json_array();
    json_t *nics = json_array();
    int result = 0;

    for (unsigned i = 0; i < vm->spec.disk_count; i++)
        result |= add_disk(vm, &vm->spec.disks[i], stored, disks);
    for (unsigned i = 0; i < vm->spec.nic_count; i++)
        result |= add_nic(vm, &vm->spec.nics[i], stored, nics);
    for (unsigned place = 0; place < VM_PLACES; place++) {
        if (vm->devices.at[VMM_DEVICE_DISK][place].use == VM_DEVICE_LEAVING)
            result |= add_disk(vm, &vm->devices.disks[place], stored, disks);
        if (vm->devices.at[VMM_DEVICE_NIC][place].use == VM_DEVICE_LEAVING)
            result |= add_nic(vm, &vm->devices.nics[place], stored, nics);
    }
    return result | json_object_set_new(status, "disks", disks) |
           json_object_set_new(status, "nics", nics);
}

/* --- restore: of what we wrote ourselves, so what is missing has its default --- */

static unsigned restored_place(const json_t *json, unsigned place)
{
    const json_t *stored = json_object_get(json, "place");

    return (stored ? (unsigned)json_integer_value(stored) : place) % VM_PLACES;
}

static void restore_device(struct vm *vm, enum vmm_device_kind kind, unsigned place,
                           const json_t *json)
{
    struct vm_device *device = &vm->devices.at[kind][place];
    const char *state = json_text(json, "state");

    if (!state[0] || strcmp(state, "attached") == 0)
        return;
    device->use = strcmp(state, "detaching") == 0 ? VM_DEVICE_LEAVING : VM_DEVICE_SPEC;
    device->there = VM_DEVICE_IS_UNKNOWN;
    device->up = kind == VMM_DEVICE_NIC;
    device->failed = strcmp(state, "failed") == 0;
    snprintf(device->reason, sizeof device->reason, "%s", json_text(json, "reason"));
}

static void restore_disks(struct vm *vm, const json_t *disks)
{
    for (unsigned i = 0; i < json_array_size(disks); i++) {
        const json_t *json = json_array_get(disks, i);
        unsigned place = restored_place(json, i);
        struct vm_device *device = &vm->devices.at[VMM_DEVICE_DISK][place];
        struct vm_disk_spec *left = &vm->devices.disks[place];

        restore_device(vm, VMM_DEVICE_DISK, place, json);
        if (i < vm->spec.disk_count)
            vm->spec.disks[i].place = (uint8_t)place;
        if (device->use != VM_DEVICE_LEAVING)
            continue;
        *left = (struct vm_disk_spec){
            .place = (uint8_t)place,
            .read_only = json_is_true(json_object_get(json, "read_only")),
            .on_enospc =
                json_is_true(json_object_get(json, "pauses")) ? VM_ENOSPC_PAUSE : VM_ENOSPC_ERROR,
        };
        snprintf(left->name, sizeof left->name, "%s", json_text(json, "name"));
        snprintf(left->volume, sizeof left->volume, "%s", json_text(json, "volume"));
    }
}

static int restore_nic(struct vm *vm, const json_t *json, unsigned place, struct error *err)
{
    struct vm_device *device = &vm->devices.at[VMM_DEVICE_NIC][place];
    struct vm_nic_spec *left = &vm->devices.nics[place];

    restore_device(vm, VMM_DEVICE_NIC, place, json);
    if (mac_parse(json_text(json, "mac"), vm->nics[place].mac, err) < 0 ||
        ipv4_parse(json_text(json, "ipv4"), &vm->nics[place].ipv4, err) < 0)
        return -err->code;
    if (json_object_get(json, "inside_mac") &&
        (mac_parse(json_text(json, "inside_mac"), vm->inside[place].mac, err) < 0 ||
         ipv4_parse(json_text(json, "inside_ipv4"), &vm->inside[place].ipv4, err) < 0))
        return -err->code;
    if (device->use != VM_DEVICE_LEAVING)
        return 0;
    *left = (struct vm_nic_spec){
        .place = (uint8_t)place,
        .queues = (unsigned)json_integer_value(json_object_get(json, "queues")),
    };
    snprintf(left->name, sizeof left->name, "%s", json_text(json, "name"));
    snprintf(left->network, sizeof left->network, "%s", json_text(json, "network"));
    return 0;
}

int vm_devices_restore(struct vm *vm, const json_t *status, struct error *err)
{
    const json_t *nics = json_object_get(status, "nics");
    int result = 0;

    restore_disks(vm, json_object_get(status, "disks"));
    if (json_array_size(nics) < vm->spec.nic_count)
        return error_set(err, EINVAL, "it has nics without addresses");
    for (unsigned i = 0; result == 0 && i < json_array_size(nics); i++) {
        const json_t *json = json_array_get(nics, i);
        unsigned place = restored_place(json, i);

        if (i < vm->spec.nic_count)
            vm->spec.nics[i].place = (uint8_t)place;
        result = restore_nic(vm, json, place, err);
    }
    return result;
}
