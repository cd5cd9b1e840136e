/* VMs as resources: what is read, reserved, shown and stored.  What is done about them is in
 * vm_supervisor.c. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/jail.h"
#include "agent/node_change.h"
#include "agent/operation.h"
#include "agent/node_schedule.h"
#include "agent/node_snapshot.h"
#include "agent/vm_balloon.h"
#include "agent/vm_fork.h"
#include "agent/vm_files.h"
#include "agent/vm_memory.h"
#include "agent/vm_vsock.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "net/address_pool.h"
#include "scheduler/admission.h"
#include "storage/image.h"

static const char *const restore_names[VM_RESTORE_COUNT] = {
    [VM_RESTORE_DUE] = "due",
    [VM_RESTORE_UNDER_WAY] = "under-way",
    [VM_RESTORE_DONE] = "done",
};

static const char *const intent_names[VM_INTENT_COUNT] = {
    [VM_INTENT_NONE] = "none",
    [VM_INTENT_KILL] = "kill",
    [VM_INTENT_REBOOT] = "reboot",
    [VM_INTENT_PAUSE] = "pause",
};

/* --- parse --- */

static struct vm *vm_new(void)
{
    struct vm *vm = calloc(1, sizeof *vm);

    if (!vm)
        return NULL;
    vm->pidfd = -1;
    vm->log_fd = -1;
    vm->page_fd = -1;
    vm->status_fd = -1;
    vm->state = VM_CREATING;
    vm->since_ms = timestamp_now_ms();
    memset(vm->tap_fds, 0xff, sizeof vm->tap_fds); /* all -1 */
    return vm;
}

static void vm_free(struct resource *resource)
{
    struct vm *vm = (struct vm *)resource;

    cleanup_close(&vm->log_fd);
    vm_fork_drop(vm);
    vm_spec_clear(&vm->spec);
    json_decref(vm->head.spec);
    free(vm);
}

static int vm_parse(const json_t *spec, struct resource **ret_resource, struct error *err)
{
    struct vm *vm = vm_new();
    int result;

    if (!vm)
        return error_no_memory(err);
    result = vm_spec_parse(spec, &vm->spec, err);
    if (result < 0) {
        vm_free(&vm->head);
        return result;
    }
    vm->head.spec = vm_spec_json(&vm->spec);
    vm->restore = vm->spec.snapshot[0] || vm->spec.fork[0] ? VM_RESTORE_DUE : VM_RESTORE_NONE;
    *ret_resource = &vm->head;
    return 0;
}

/* --- reserve --- */

static int check_image(const struct node *node, const char *id, enum image_kind kind,
                       const char *field, struct error *err)
{
    const struct image *image = node_find_image(node, id);

    if (!image || resource_is_leaving(&image->head))
        return error_field(err, EINVAL, field, "%s: there is no image %s", field, id);
    if (image->kind != (int)kind)
        return error_field(err, EINVAL, field, "%s: image %s is of kind %s, and must be of kind %s",
                           field, id, image_kind_names[image->kind], image_kind_names[kind]);
    return 0;
}

int vm_check_images(const struct node *node, const struct vm_spec *spec, struct error *err)
{
    int result = check_image(node, spec->kernel, IMAGE_KERNEL, "boot.kernel", err);

    return result == 0 && spec->initrd[0]
               ? check_image(node, spec->initrd, IMAGE_INITRD, "boot.initrd", err)
               : result;
}

static bool shares(const struct vm_disk_spec *one, const struct vm_disk_spec *other)
{
    return strcmp(one->volume, other->volume) == 0 && !(one->read_only && other->read_only);
}

int vm_check_disk(const struct node *node, const struct vm *vm, unsigned index, struct error *err)
{
    const struct vm_disk_spec *disk = &vm->spec.disks[index];
    const struct volume *volume = node_find_volume(node, disk->volume);
    const struct vm *other;
    char field[32];

    snprintf(field, sizeof field, "disks[%u].volume", index);
    /* A fork's are made by itself. */
    if ((!vm->spec.fork[0] || disk->read_only) && (!volume || resource_is_leaving(&volume->head)))
        return error_field(err, EINVAL, field, "%s: there is no volume %s", field, disk->volume);
    for (size_t i = 0; (other = node_vm_at(node, i)); i++) {
        for (unsigned place = 0; place < VMM_DISKS_MAX; place++) {
            const struct vm_disk_spec *has = vm_disk_at(other, place);

            if (has && !(other == vm && place == disk->place) && shares(has, disk))
                return error_field(err, EBUSY, field, "%s: volume %s is in use by vm %s", field,
                                   disk->volume, other->head.id);
        }
    }
    return 0;
}

static int address_taken(const struct vm *vm, const char *field, struct error *err)
{
    return error_field(err, EADDRINUSE, field, "%s: another nic has this address%s", field,
                       vm->spec.snapshot[0]
                           ? ", which a restored guest keeps: delete the other VM, or fork it"
                           : "");
}

static int compare_addresses(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a;
    uint32_t right = *(const uint32_t *)b;

    return left < right ? -1 : left > right;
}

/* Has that VM's nic at the place its addresses already?  Of `vm` itself only those before `index`,
 * and those that are to go. */
static const struct vm_nic_spec *nic_with_addresses(const struct vm *other, const struct vm *vm,
                                                    unsigned place, unsigned index)
{
    const struct vm_nic_spec *nic = vm_nic_at(other, place);
    bool own = other == vm && vm->devices.at[VMM_DEVICE_NIC][place].use == VM_DEVICE_SPEC;

    return nic && own && nic - vm->spec.nics >= (ptrdiff_t)index ? NULL : nic;
}

/* Strictly ascending addresses that VMs (this one, too) have in a network.  malloc'ed. */
static uint32_t *used_addresses(const struct node *node, const struct vm *vm, unsigned index,
                                const char *network, size_t *ret_count)
{
    const struct resource_table *vms = &node->tables[RESOURCE_VM];
    uint32_t *used = malloc(sizeof *used * (VMM_NICS_MAX * (vms->count + 1) + 1));
    uint32_t inside = vm->inside[vm->spec.nics[index].place].ipv4;
    size_t count = 0;

    if (!used)
        return NULL;
    if (inside != 0) /* a fork's guest goes on with it, whoever has it: outside it has another */
        used[count++] = inside;
    for (size_t i = 0; i <= vms->count; i++) {
        const struct vm *other = i < vms->count ? (const struct vm *)vms->items[i] : vm;

        if (other == vm && i < vms->count)
            continue;
        for (unsigned place = 0; place < VMM_NICS_MAX; place++) {
            const struct vm_nic_spec *nic = nic_with_addresses(other, vm, place, index);

            if (nic && strcmp(nic->network, network) == 0 && other->nics[place].ipv4 != inside)
                used[count++] = other->nics[place].ipv4;
        }
    }
    qsort(used, count, sizeof *used, compare_addresses);
    *ret_count = count;
    return used;
}

static int network_full(const struct vm_nic_spec *nic, const struct network *network,
                        const char *field, struct error *err)
{
    uint32_t capacity = address_pool_capacity(&network->config.cidr);

    return error_field(err, EADDRNOTAVAIL, field,
                       capacity < ADDRESS_POOL_GUESTS_MAX
                           ? "%s: network %s is full: all its %u addresses are given"
                           : "%s: network %s is full: it has %u guests, the most there may be",
                       field, nic->network, capacity);
}

static int take_address(struct vm *vm, unsigned index, const struct vm_nic_spec *nic,
                        const struct network *network, const uint32_t *used, size_t used_count,
                        struct error *err)
{
    char field[32];
    int result;

    snprintf(field, sizeof field, "nics[%u].%s", index, nic->has_ipv4 ? "ipv4" : "network");
    if (!nic->has_ipv4) {
        result = address_pool_pick(&network->config.cidr, used, used_count, network->recent,
                                   network->recent_count, &vm->nics[nic->place].ipv4, err);
        return result < 0 ? network_full(nic, network, field, err) : 0;
    }
    if (address_pool_check(&network->config.cidr, nic->ipv4, err) < 0) {
        char reason[sizeof err->message];

        snprintf(reason, sizeof reason, "%s", err->message);
        return error_field(err, EINVAL, field, "%s: %.200s", field, reason);
    }
    if (bsearch(&nic->ipv4, used, used_count, sizeof *used, compare_addresses))
        return address_taken(vm, field, err);
    if (address_pool_is_full(&network->config.cidr, used, used_count))
        return network_full(nic, network, field, err);
    vm->nics[nic->place].ipv4 = nic->ipv4;
    return 0;
}

static bool mac_is_used(const struct node *node, const struct vm *vm, unsigned index)
{
    const struct resource_table *vms = &node->tables[RESOURCE_VM];
    const uint8_t *mac = vm->nics[vm->spec.nics[index].place].mac;

    for (size_t i = 0; i <= vms->count; i++) {
        const struct vm *other = i < vms->count ? (const struct vm *)vms->items[i] : vm;

        for (unsigned place = 0; place < VMM_NICS_MAX; place++)
            if (nic_with_addresses(other, vm, place, index) &&
                memcmp(other->nics[place].mac, mac, MAC_BYTES) == 0)
                return true;
    }
    return false;
}

static int take_mac(const struct node *node, struct vm *vm, unsigned index,
                    const struct vm_nic_spec *nic, const struct network *network, struct error *err)
{
    uint8_t *mac = vm->nics[nic->place].mac, gateway[MAC_BYTES];
    char field[32];

    snprintf(field, sizeof field, "nics[%u].mac", index);
    mac_derive_bridge(network->head.instance, gateway);
    if (nic->has_mac && memcmp(nic->mac, gateway, MAC_BYTES) == 0)
        return error_field(err, EINVAL, field, "%s: is the gateway's address", field);
    if (nic->has_mac) {
        memcpy(mac, nic->mac, MAC_BYTES);
        return mac_is_used(node, vm, index) ? address_taken(vm, field, err) : 0;
    }
    /* Somebody may have asked for what is derived. */
    for (unsigned last = nic->place; last <= UINT8_MAX; last += VMM_NICS_MAX) {
        mac_derive(vm->head.instance, (uint8_t)last, mac);
        if (!mac_is_used(node, vm, index))
            return 0;
    }
    return address_taken(vm, field, err);
}

int vm_reserve_nic(const struct node *node, struct vm *vm, unsigned index, struct error *err)
{
    const struct snapshot *snapshot = node_find_snapshot(node, vm->spec.snapshot);
    struct vm_nic_spec nic = vm->spec.nics[index];
    const struct network *network = node_find_network(node, nic.network);
    auto_free uint32_t *used = NULL;
    size_t used_count = 0;
    char field[32];

    snprintf(field, sizeof field, "nics[%u].network", index);
    if (!network || resource_is_leaving(&network->head))
        return error_field(err, EINVAL, field, "%s: there is no network %s", field, nic.network);
    if (snapshot && !vm->spec.fork[0] && vm->restore == VM_RESTORE_DUE &&
        snapshot_check_nic(snapshot, index, &nic, err) < 0)
        return -err->code;
    if (take_mac(node, vm, index, &nic, network, err) < 0)
        return -err->code;
    used = used_addresses(node, vm, index, nic.network, &used_count);
    if (!used)
        return error_no_memory(err);
    return take_address(vm, index, &nic, network, used, used_count, err);
}

void vm_inherit_nics(struct vm *vm, const struct vm *parent)
{
    for (unsigned place = 0; place < VMM_NICS_MAX; place++)
        vm->inside[place] = *vm_nic_inside(parent, place);
}

int vm_admit(const struct node *node, const struct vm *vm, const struct vm_spec *spec,
             struct error *err)
{
    const struct memory_capacity capacity = node_memory_capacity(node);
    const struct memory_promise promised = node_promised(node, vm);
    const struct memory_promise wanted = { spec->memory_max_mib, spec->memory_min_mib };
    int result = node_check_schedulable(node, err);

    if (result == 0)
        result = admission_check(&capacity, &promised, &wanted, err);
    if (result == 0)
        result = vm_memory_admit(spec->memory_backing, vm_spec_memory_bytes(spec), err);
    if (result == 0)
        result = vm_files_admit(err);
    if (result == 0)
        result = jail_share_check(jail_cgroups(node->jail), &spec->share, err);
    return result < 0 ? result : cpu_baseline_check(spec->cpu, jail_cpuid(node->jail), err);
}

int vm_admit_guarantee(const struct node *node, const struct vm *vm, const struct vm_spec *spec,
                       struct error *err)
{
    const struct memory_capacity capacity = node_memory_capacity(node);
    const struct memory_promise promised = node_promised(node, vm);
    const struct memory_promise wanted = { spec->memory_max_mib, spec->memory_min_mib };

    return admission_check_guarantee(&capacity, &promised, &wanted, err);
}

static int check_snapshot(const struct node *node, const struct vm *vm, struct error *err)
{
    const char *id = vm->spec.snapshot;
    const struct snapshot *snapshot = node_find_snapshot(node, id);

    if (!snapshot || resource_is_leaving(&snapshot->head))
        return error_field(err, EINVAL, "boot.snapshot", "boot.snapshot: there is no snapshot %s",
                           id);
    if (snapshot->is_fork)
        return error_field(err, EINVAL, "boot.snapshot",
                           "boot.snapshot: snapshot %s has no memory: it is a fork's", id);
    if (snapshot->state == PROGRESS_FAILED)
        return error_field(err, EINVAL, "boot.snapshot", "boot.snapshot: snapshot %s failed", id);
    return snapshot_check_vm(node, snapshot, vm, err);
}

/* A snapshot holds its kernel and initrd. */
static int check_boot(const struct node *node, const struct vm *vm, struct error *err)
{
    if (vm->spec.fork[0])
        return 0; /* its parent's is good */
    return vm->spec.snapshot[0] ? check_snapshot(node, vm, err)
                                : vm_check_images(node, &vm->spec, err);
}

/* A machine that goes on is the same machine. */
static void place_devices(const struct node *node, struct vm *vm)
{
    if (vm->spec.fork[0])
        vm_spec_copy_places(&vm->spec, &node_find_vm(node, vm->spec.fork)->spec);
    else if (vm->spec.snapshot[0])
        vm_spec_copy_places(&vm->spec, &node_find_snapshot(node, vm->spec.snapshot)->vm_spec);
}

static int vm_reserve(struct node *node, struct resource *resource, struct error *err)
{
    struct vm *vm = (struct vm *)resource;
    int result = node_check_schedulable(node, err);

    vm->closure = (struct vm_closure){ .node = node, .vm = vm };
    if (result == 0 && vm->spec.fork[0])
        result = vm_fork_check(node, vm, err);
    for (unsigned i = 0; result == 0 && i < vm->spec.disk_count; i++)
        result = vm_check_disk(node, vm, i, err);
    if (result == 0)
        result = check_boot(node, vm, err);
    if (result == 0)
        place_devices(node, vm);
    if (result == 0 && vm->spec.fork[0])
        vm_inherit_nics(vm, node_find_vm(node, vm->spec.fork));
    for (unsigned i = 0; result == 0 && i < vm->spec.nic_count; i++)
        result = vm_reserve_nic(node, vm, i, err);
    if (result == 0)
        result = vm_vsock_check(node->config, &vm->spec.vsock, err);
    if (result == 0 && vm->spec.desired_running)
        result = vm_admit(node, vm, &vm->spec, err);
    return result;
}

/* --- begin and remove --- */

static void vm_begin(struct node *node, struct resource *resource)
{
    struct vm *vm = (struct vm *)resource;

    vm->start_due = vm->spec.desired_running;
    if (vm->spec.fork[0])
        vm_fork_put_volumes(node, vm);
    if (!vm->start_due)
        vm_set_state(node, vm, VM_STOPPED, "never started");
    vm_step(node, vm);
}

static int vm_may_remove(struct node *node, const struct resource *resource, bool force,
                         struct error *err)
{
    const struct vm *vm = (const struct vm *)resource;

    (void)node;
    if (!force && (vm_state_is_live(vm->state) || vm->start_due))
        return error_set(err, EBUSY, "vm %s is %s: stop it first, or use ?force=true", vm->head.id,
                         vm_state_name(vm->state));
    return 0;
}

void vm_remember_address(struct node *node, const char *id, uint32_t ipv4)
{
    struct network *network = node_find_network(node, id);

    if (!network)
        return;
    if (network->recent_count == NETWORK_RECENT_MAX)
        memmove(network->recent, network->recent + 1,
                --network->recent_count * sizeof network->recent[0]);
    network->recent[network->recent_count++] = ipv4;
}

static void vm_remove(struct node *node, struct resource *resource)
{
    struct vm *vm = (struct vm *)resource;

    for (unsigned i = 0; i < vm->spec.nic_count; i++)
        vm_remember_address(node, vm->spec.nics[i].network, vm->nics[vm->spec.nics[i].place].ipv4);
    vm->start_due = false;
    vm->placed = true; /* its directory, at least */
    vm_step(node, vm);
}

/* --- status --- */

static json_t *exit_json(const struct vm *vm)
{
    char at[TIMESTAMP_TEXT];

    if (!vm->exit.set)
        return json_null();
    timestamp_format(vm->exit.at_ms, at);
    return json_pack("{s:s, s:i, s:o, s:s}", "reason", vm_cause_name(vm->exit.cause), "detail",
                     vm->exit.detail, "text", json_message(vm->exit.text), "at", at);
}

/* Who serves them. */
static int set_backends(const struct stats_page *page, json_t *nics)
{
    int result = 0;

    for (size_t i = 0; i < json_array_size(nics); i++) {
        json_t *nic = json_array_get(nics, i);
        json_int_t place = json_integer_value(json_object_get(nic, "pci_slot")) - VMM_SLOT_NICS;

        result |= json_object_set_new(nic, "backend",
                                      page && place >= 0 && place < VMM_NICS_MAX
                                          ? json_string(page->nics[place].vhost ? "vhost" : "vmm")
                                          : json_null());
    }
    return result;
}

/* What its process says of itself: null without one. */
static int add_said(const struct node *node, const struct vm *vm, json_t *status)
{
    struct stats_page page;
    bool known = vm->pid > 0 && vm_read_page(node, vm, &page) == 0;

    return set_backends(known ? &page : NULL, json_object_get(status, "nics")) |
           vm_balloon_status(vm, known ? &page : NULL, status) |
           vm_memory_status(vm, known ? &page : NULL, status);
}

/* What only the row needs. */
static int add_stored(const struct vm *vm, json_t *status)
{
    return json_object_set_new(status, "since_ms", json_integer(vm->since_ms)) |
           json_object_set_new(status, "exit_ms", json_integer(vm->exit.at_ms)) |
           json_object_set_new(status, "failures", json_integer(vm->failures)) |
           json_object_set_new(status, "stop_by_ms", json_integer(vm->stop_by_ms)) |
           json_object_set_new(status, "boot_id", json_string(vm->boot_id)) |
           json_object_set_new(status, "intent", json_string(intent_names[vm->intent])) |
           json_object_set_new(status, "full", json_string(vm->full)) |
           json_object_set_new(status, "start_due",
                               json_boolean(vm->start_due || vm->start_committing)) |
           json_object_set_new(status, "autostart_waits", json_boolean(vm->autostart_waits)) |
           json_object_set_new(status, "deleting", json_boolean(vm->head.deleting)) |
           json_object_set_new(status, "forked", json_boolean(vm->forked)) |
           json_object_set_new(status, "memory_base_uid", json_string(vm->memory_base));
}

static json_t *vm_status(const struct node *node, const struct resource *resource, bool stored)
{
    const struct vm *vm = (const struct vm *)resource;
    const struct snapshot *base = snapshot_of_memory(node, vm);
    const char *reason = stored              ? vm->reason
                         : vm_is_cut_off(vm) ? "its VMM has no connection until warrend is "
                                               "restarted: it runs on, and can only be killed"
                         : vm->silent        ? "its VMM does not answer"
                         : vm->autostart_waits
                             ? "host-reboot: waits for its turn, or for memory, to start"
                             : vm->reason;
    char since[TIMESTAMP_TEXT];
    json_t *status;
    int result;

    timestamp_format(vm->since_ms, since);
    status = json_pack("{s:s, s:I, s:o, s:s, s:o, s:i, s:o, s:s?}", "state",
                       vm_state_name(vm->head.deleting ? VM_DELETING : vm->state),
                       "observed_generation", (json_int_t)vm->observed_generation, "reason",
                       json_reason(reason), "since", since, "exit", exit_json(vm), "restarts",
                       (int)vm->restarts, "pid", vm->pid > 0 ? json_integer(vm->pid) : json_null(),
                       "restore", restore_names[vm->restore]);
    result = vm_devices_status(vm, status, stored);
    if (vm->spec.fork[0])
        result |= json_object_set_new(status, "operation", operation_link(node, resource));
    if (stored)
        result |= add_stored(vm, status);
    else
        result |= json_object_set_new(status, "memory_base",
                                      base ? json_string(base->head.id) : json_null()) |
                  add_said(node, vm, status);
    return json_whole(status, result);
}

/* --- restore: of what we wrote ourselves, so what is missing has its default --- */

static void restore_exit(struct vm *vm, const json_t *status)
{
    const json_t *exit = json_object_get(status, "exit");
    enum vm_cause cause = vm_cause_parse(json_text(exit, "reason"));

    if (!json_is_object(exit) || cause == VM_CAUSE_COUNT)
        return;
    vm->exit = (struct vm_exit){
        .set = true,
        .cause = cause,
        .detail = (int)json_integer_value(json_object_get(exit, "detail")),
        .at_ms = json_integer_value(json_object_get(status, "exit_ms")),
    };
    snprintf(vm->exit.text, sizeof vm->exit.text, "%s", json_text(exit, "text"));
}

static int vm_restore(struct resource *resource, const json_t *status, struct error *err)
{
    struct vm *vm = (struct vm *)resource;
    int intent, restore;

    vm->state = vm_state_parse(json_text(status, "state"));
    if (vm->state == VM_NONE)
        return error_set(err, EINVAL, "its state is not known");
    snprintf(vm->reason, sizeof vm->reason, "%s", json_text(status, "reason"));
    vm->observed_generation = json_integer_value(json_object_get(status, "observed_generation"));
    vm->restarts = (unsigned)json_integer_value(json_object_get(status, "restarts"));
    vm->failures = (unsigned)json_integer_value(json_object_get(status, "failures"));
    vm->since_ms = json_integer_value(json_object_get(status, "since_ms"));
    vm->stop_by_ms = json_integer_value(json_object_get(status, "stop_by_ms"));
    snprintf(vm->boot_id, sizeof vm->boot_id, "%s", json_text(status, "boot_id"));
    vm->head.deleting = json_is_true(json_object_get(status, "deleting"));
    intent = json_index(status, "intent", intent_names, VM_INTENT_COUNT);
    if (intent >= 0)
        vm->intent = (enum vm_intent)intent;
    restore = json_index(status, "restore", restore_names, VM_RESTORE_COUNT);
    if (restore >= 0)
        vm->restore = (enum vm_restore)restore;
    snprintf(vm->full, sizeof vm->full, "%s", json_text(status, "full"));
    vm->start_was_due = json_is_true(json_object_get(status, "start_due"));
    vm->autostart_waits = json_is_true(json_object_get(status, "autostart_waits"));
    vm->forked = json_is_true(json_object_get(status, "forked"));
    snprintf(vm->memory_base, sizeof vm->memory_base, "%s", json_text(status, "memory_base_uid"));
    restore_exit(vm, status);
    return vm_devices_restore(vm, status, err);
}

const struct resource_ops vm_ops = {
    .parse = vm_parse,
    .reserve = vm_reserve,
    .begin = vm_begin,
    .may_remove = vm_may_remove,
    .remove = vm_remove,
    .patch = change_patch_vm,
    .apply = change_apply_vm,
    .status = vm_status,
    .restore = vm_restore,
    .free = vm_free,
};
