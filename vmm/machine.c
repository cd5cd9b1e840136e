#include "vmm/machine.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/loop.h"
#include "vmm/acpi.h"
#include "vmm/boot_linux.h"
#include "vmm/config.h"
#include "vmm/control.h"
#include "vmm/cpuid.h"
#include "vmm/devices.h"
#include "vmm/exit_record.h"
#include "vmm/filter.h"
#include "vmm/guest_memory.h"
#include "vmm/irq.h"
#include "vmm/kvm.h"
#include "vmm/mmio_bus.h"
#include "vmm/platform.h"
#include "vmm/power.h"
#include "vmm/serial.h"
#include "vmm/snapshot.h"
#include "vmm/transfer.h"
#include "vmm/vcpu.h"
#include "vmm/vcpu_gate.h"
#include "vmm/virtio_balloon.h"
#include "vmm/virtio_mem.h"
#include "vmm/virtio_vsock.h"

struct machine {
    struct exit_record *record; /* borrowed */
    struct loop *loop;          /* borrowed */
    struct guest_memory *memory;
    struct kvm kvm;
    struct bus ports, mmio;
    struct irq_router *router;
    struct serial *serial;
    struct power *power;
    struct devices devices;
    struct control *control; /* borrowed */
    bool paused;             /* by control: the vCPUs are held anyway */
    struct vcpu_entry entry;
    struct vcpu_gate gate;
    struct cpuid cpuid;  /* what the vCPUs' was made of */
    unsigned vcpu_count; /* of those created */
    struct vcpu vcpus[VMM_VCPUS_MAX];
};

_Static_assert(PLATFORM_GENERATION_ID >= BOOT_ACPI_START + ACPI_BYTES_MAX &&
                   PLATFORM_GENERATION_ID + 4096 <= BOOT_RESET_VECTOR,
               "a page of its own, in reserved memory");

static bool put_generation_id(struct machine *machine, const struct vmm_configure *configure)
{
    return guest_memory_write(machine->memory, PLATFORM_GENERATION_ID, configure->generation_id,
                              sizeof configure->generation_id);
}

static int load_guest(struct machine *machine, const struct vmm_configure *configure,
                      const struct config_fds *fds, struct error *err)
{
    struct boot_spec spec = {
        .format = (enum vmm_kernel_format)configure->kernel_format,
        .kernel_fd = fds->kernel,
        .initrd_fd = fds->initrd,
        .cmdline = configure->cmdline,
    };
    const struct guest_memory_spec memory = {
        .bytes = configure->memory_bytes,
        .hotplug_bytes = configure->hotplug_bytes,
        .backing = (enum vmm_memory_backing)configure->memory_backing,
        .fd = fds->ram,
    };
    uint8_t tables[ACPI_BYTES_MAX];
    size_t size;
    int result = guest_memory_make(&memory, &machine->memory, err);

    if (result < 0)
        return result;
    if (configure->restore)
        return snapshot_map(fds->layers, configure->restore, machine->memory, err);
    size = acpi_build(configure->vcpus, BOOT_ACPI_START, tables);
    if (!guest_memory_write(machine->memory, BOOT_ACPI_START, tables, size) ||
        !put_generation_id(machine, configure))
        return error_set(err, EINVAL, "no guest memory for the ACPI tables");
    return boot_linux_load(machine->memory, &spec, &machine->entry, err);
}

/* Buses, interrupts and what sits on the board itself. */
static int build_board(struct machine *machine, struct error *err)
{
    int com1, ged;
    int result = irq_router_new(machine->kvm.vm_fd, &machine->router, err);

    if (result == 0)
        result = irq_pin(machine->router, PLATFORM_PIN_COM1, &com1, err);
    if (result == 0)
        result = irq_pin(machine->router, PLATFORM_PIN_GED, &ged, err);
    if (result == 0)
        result = serial_new(&machine->ports, com1, machine->record->page, &machine->serial, err);
    if (result == 0)
        result =
            power_new(&machine->ports, ged, machine->loop, machine->record, &machine->power, err);
    return result;
}

static void hold_guest(struct machine *machine);
static void release_guest(struct machine *machine);

static int build_devices(struct machine *machine, const struct vmm_configure *configure,
                         const struct config_fds *fds, struct error *err)
{
    const struct devices_spec spec = {
        .host = { machine->memory, &machine->ports, &machine->mmio, machine->router, machine->loop,
                  machine->kvm.vm_fd },
        .power = machine->power,
        .page = machine->record->page,
        .hold = hold_guest,
        .release = release_guest,
        .machine = machine,
        .tell_vsock = control_send_vsock,
        .tell_device = control_send_device,
        .control = machine->control,
    };

    return devices_init(&machine->devices, &spec, configure, fds, err);
}

static int build_vcpus(struct machine *machine, unsigned count, struct error *err)
{
    struct cpuid cpuid = machine->cpuid;
    int result = 0;

    for (unsigned i = 0; i < count && result == 0; i++) {
        struct vcpu *vcpu = &machine->vcpus[i];

        *vcpu = (struct vcpu){
            .index = i,
            .ports = &machine->ports,
            .mmio = &machine->mmio,
            .record = machine->record,
            .exits = machine->record->page->vcpu_exits[i],
            .gate = &machine->gate,
        };
        cpuid_adapt(&cpuid, i, count, machine->kvm.has_tsc_deadline);
        result = vcpu_new(vcpu, &machine->kvm, &cpuid, err);
        if (result == 0)
            machine->vcpu_count++;
    }
    return result;
}

static int choose_cpuid(struct machine *machine, const struct vmm_configure *configure,
                        struct error *err)
{
    if (configure->cpuid.count == 0)
        return cpuid_supported(machine->kvm.kvm_fd, &machine->cpuid, err);
    cpuid_copy(&machine->cpuid, &configure->cpuid);
    return 0;
}

/* --- snapshots --- */

/* The guest keeps the processor that it knows; this host must have all of it. */
static void transfer_cpuid(struct machine *machine, struct transfer *transfer)
{
    struct cpuid host = machine->cpuid;
    char what[64];

    transfer_item(transfer, "CPUID", &machine->cpuid, sizeof machine->cpuid);
    if (transfer->loading && transfer_is_good(transfer) &&
        !cpuid_is_within(&machine->cpuid, &host, what, sizeof what))
        transfer_refuse(transfer, ENOTSUP, "this host's processor, or the VM's cpu, lacks %s",
                        what);
}

/* After the CPUID: everything else, which needs the vCPUs. */
static void transfer_machine(struct machine *machine, struct transfer *transfer)
{
    unsigned count = machine->vcpu_count;

    transfer_item(transfer, "vCPUs", &count, sizeof count);
    if (count != machine->vcpu_count)
        transfer_refuse(transfer, EINVAL, "of %u vCPUs, not %u", count, machine->vcpu_count);
    kvm_transfer(&machine->kvm, transfer);
    serial_transfer(machine->serial, transfer);
    power_transfer(machine->power, transfer);
    devices_transfer(&machine->devices, transfer);
    for (unsigned i = 0; i < machine->vcpu_count && transfer_is_good(transfer); i++)
        vcpu_transfer(&machine->vcpus[i], transfer);
    kvm_transfer_clock(&machine->kvm, transfer);
}

static int restore(struct machine *machine, const struct vmm_configure *configure, int state_fd,
                   struct error *err)
{
    struct transfer transfer = { 0 };
    int result = snapshot_read(state_fd, machine->memory, &transfer, err);

    if (result < 0)
        return result;
    transfer_cpuid(machine, &transfer);
    result = transfer.result;
    if (result == 0)
        result = build_vcpus(machine, configure->vcpus, err);
    if (result == 0) {
        transfer_machine(machine, &transfer);
        result = transfer.result;
    }
    /* It is another life of the machine, and the guest is told, now that it can be interrupted. */
    if (result == 0 && put_generation_id(machine, configure))
        power_notify(machine->power, GED_EVENT_GENERATION_ID);
    if (result == 0)
        (void)serial_input(machine->serial, NULL, 0);
    free(transfer.bytes);
    return result;
}

/* --- the whole --- */

static int build_start(struct machine *machine, const struct vmm_configure *configure,
                       const struct config_fds *fds, struct error *err)
{
    int result = choose_cpuid(machine, configure, err);

    if (result == 0 && configure->restore)
        return restore(machine, configure, fds->state, err);
    if (result == 0)
        result = build_vcpus(machine, configure->vcpus, err);
    if (result == 0)
        result = vcpu_set_entry(&machine->vcpus[0], &machine->entry, err);
    return result;
}

int machine_new(const struct vmm_configure *configure, const struct config_fds *fds,
                struct exit_record *record, struct loop *loop, struct control *control,
                struct machine **ret_machine, struct error *err)
{
    struct machine *machine = calloc(1, sizeof *machine);
    int result;

    if (!machine)
        return error_set(err, ENOMEM, "machine");
    machine->record = record;
    machine->loop = loop;
    machine->control = control;
    vcpu_gate_init(&machine->gate);
    result = load_guest(machine, configure, fds, err);
    if (result == 0)
        result = kvm_open(fds->kvm, machine->memory, &machine->kvm, err);
    if (result == 0)
        result = build_board(machine, err);
    if (result == 0)
        result = build_devices(machine, configure, fds, err);
    if (result == 0)
        result = build_start(machine, configure, fds, err);
    if (result < 0)
        return result;
    machine->kvm.kvm_fd = -1;
    *ret_machine = machine;
    return 0;
}

static void on_signal(int signal)
{
    (void)signal; /* it only ends a KVM_RUN */
}

static void finish(void *context)
{
    struct machine *machine = context;

    devices_finish(&machine->devices, DISK_CANCEL);
}

/* Threads first: the filters forbid new ones.  Each vCPU thread filters itself before it comes to
 * the gate, so no guest instruction runs before every thread is confined. */
int machine_start(struct machine *machine, struct error *err)
{
    const struct sigaction action = { .sa_handler = on_signal };
    int result = 0;

    (void)sigaction(VCPU_GATE_SIGNAL, &action, NULL);
    machine->record->finish = finish;
    machine->record->context = machine;
    for (unsigned i = 0; i < machine->vcpu_count && result == 0; i++)
        result = vcpu_start(&machine->vcpus[i], err);
    if (result == 0)
        result = filter_load(FILTER_DEVICES, err);
    if (result < 0)
        return result;
    __atomic_store_n(&machine->record->page->start_ns, (uint64_t)loop_now_ns(), __ATOMIC_RELEASE);
    vcpu_gate_await(&machine->gate, machine->vcpu_count);
    vcpu_gate_open(&machine->gate);
    return 0;
}

/* --- what the agent asks for (control.h) --- */

static void press_power_button(struct machine *machine, bool by_signal)
{
    machine->record->page->exit_detail = by_signal ? SIGTERM : 0;
    power_notify(machine->power, GED_EVENT_POWER_BUTTON);
}

/* Each vCPU is held between two instructions. */
static void hold_guest(struct machine *machine)
{
    if (machine->paused)
        return;
    vcpu_gate_close(&machine->gate);
    for (unsigned i = 0; i < machine->vcpu_count; i++)
        vcpu_call(&machine->vcpus[i]);
    vcpu_gate_await(&machine->gate, machine->vcpu_count);
}

static void release_guest(struct machine *machine)
{
    if (machine->paused)
        return;
    for (unsigned i = 0; i < machine->vcpu_count; i++)
        vcpu_release(&machine->vcpus[i]);
    vcpu_gate_open(&machine->gate);
}

static void pause_guest(struct machine *machine)
{
    hold_guest(machine);
    machine->paused = true;
    devices_finish(&machine->devices, DISK_FINISH);
}

static void resume_guest(struct machine *machine)
{
    machine->paused = false;
    devices_retry(&machine->devices);
    release_guest(machine);
}

static int save(struct machine *machine, const struct snapshot_files *files, struct error *err)
{
    struct transfer transfer = { .err = err };
    int result;

    transfer_cpuid(machine, &transfer);
    transfer_machine(machine, &transfer);
    result = transfer.result;
    if (result == 0)
        result = snapshot_write(files, machine->memory, &transfer, err);
    free(transfer.bytes);
    return result;
}

static int snapshot_guest(struct machine *machine, const struct snapshot_files *files, int base_fd,
                          struct error *err)
{
    int result = save(machine, files, err);

    return result < 0 || base_fd < 0 ? result : guest_memory_rebase(machine->memory, base_fd, err);
}

static int fork_guest(struct machine *machine, const int fds[3], int ret_layers[VMM_LAYERS_MAX],
                      size_t *ret_count, struct error *err)
{
    int result = save(machine, &(const struct snapshot_files){ fds[0], -1, -1 }, err);

    return result < 0
               ? result
               : guest_memory_fork(machine->memory, fds[1], fds[2], ret_layers, ret_count, err);
}

/* In between the devices are served, and others have the processor. */
static void unmap_aside(void *context)
{
    struct machine *machine = context;

    if (guest_memory_unmap_aside(machine->memory))
        (void)loop_after(machine->loop, 5, unmap_aside, machine);
}

/* A guest that wrote on would write into its forks. */
static void part_guest(struct machine *machine)
{
    struct error err = { 0 };

    if (guest_memory_part(machine->memory, &err) < 0)
        exit_record_fail(machine->record, EXIT_REASON_VMM_ERROR, &err);
    unmap_aside(machine);
}

static bool console_input(struct machine *machine, const void *bytes, size_t size)
{
    return serial_input(machine->serial, bytes, size);
}

static void change_balloon(struct machine *machine, const struct vmm_balloon *balloon)
{
    virtio_balloon_change(machine->devices.balloon, balloon);
}

static void vsock_message(struct machine *machine, const struct vmm_vsock *message, int fd)
{
    if (machine->devices.vsock)
        virtio_vsock_message(machine->devices.vsock, message, fd);
    else
        cleanup_close(&fd);
}

static void agent_left(struct machine *machine)
{
    if (machine->devices.vsock)
        virtio_vsock_forget(machine->devices.vsock);
    (void)devices_mark_writes(&machine->devices, -1, NULL, NULL);
}

static int mark_writes(struct machine *machine, int fd, const uint8_t shifts[VMM_DISKS_MAX],
                       struct error *err)
{
    return devices_mark_writes(&machine->devices, fd, shifts, err);
}

static void change_memory(struct machine *machine, uint64_t requested)
{
    if (machine->devices.mem)
        virtio_mem_change(machine->devices.mem, requested);
}

static int attach_device(struct machine *machine, const struct vmm_attach *attach, const int *fds,
                         struct error *err)
{
    return devices_attach(&machine->devices, attach, fds, err);
}

static void change_device(struct machine *machine, const struct vmm_attach *change)
{
    devices_change(&machine->devices, change);
}

static int detach_device(struct machine *machine, enum vmm_device_kind kind, unsigned place,
                         bool ask, struct error *err)
{
    return devices_detach(&machine->devices, kind, place, ask, err);
}

const struct control_ops machine_control_ops = {
    .press_power_button = press_power_button,
    .pause = pause_guest,
    .resume = resume_guest,
    .snapshot = snapshot_guest,
    .fork = fork_guest,
    .part = part_guest,
    .console_input = console_input,
    .change_balloon = change_balloon,
    .vsock = vsock_message,
    .disconnected = agent_left,
    .change_memory = change_memory,
    .attach = attach_device,
    .change = change_device,
    .detach = detach_device,
    .mark_writes = mark_writes,
};
