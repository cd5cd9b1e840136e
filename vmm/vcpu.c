#include "vmm/vcpu.h"

#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/sanitized.h"
#include "vmm/exit_record.h"
#include "vmm/filter.h"
#include "vmm/kvm.h"
#include "vmm/mmio_bus.h"
#include "vmm/stats_counter.h"
#include "vmm/vcpu_gate.h"

#define MSR_MISC_ENABLE       0x1a0
#define MISC_ENABLE_STRINGS   1ull
#define MSR_MTRR_DEFAULT_TYPE 0x2ff
#define MTRR_ENABLE           (1ull << 11)
#define MTRR_WRITE_BACK       6ull

/* What firmware leaves behind.  One call each: KVM stops at the first it does not know, and none
 * of them is vital. */
static void vcpu_set_msrs(int fd)
{
    static const struct kvm_msr_entry entries[] = {
        { .index = MSR_MISC_ENABLE, .data = MISC_ENABLE_STRINGS },
        { .index = MSR_MTRR_DEFAULT_TYPE, .data = MTRR_ENABLE | MTRR_WRITE_BACK },
    };

    for (size_t i = 0; i < ARRAY_LENGTH(entries); i++) {
        struct {
            struct kvm_msrs header;
            struct kvm_msr_entry entry;
        } msrs = { .header.nmsrs = 1, .entry = entries[i] };

        (void)ioctl(fd, KVM_SET_MSRS, &msrs);
    }
}

int vcpu_new(struct vcpu *vcpu, const struct kvm *kvm, const struct cpuid *cpuid, struct error *err)
{
    auto_close int fd = ioctl(kvm->vm_fd, KVM_CREATE_VCPU, vcpu->index);

    if (fd < 0)
        return error_set(err, errno, "create vCPU %u", vcpu->index);
    if (ioctl(fd, KVM_SET_CPUID2, cpuid) < 0)
        return error_set(err, errno, "set CPUID of vCPU %u", vcpu->index);
    vcpu_set_msrs(fd);
    vcpu->run = mmap(NULL, kvm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (vcpu->run == MAP_FAILED)
        return error_set(err, errno, "map vCPU %u", vcpu->index);
    vcpu->fd = take_fd(&fd);
    return 0;
}

/* --- exits --- */

static void exit_io(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    unsigned size = run->io.size;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    for (uint32_t i = 0; i < run->io.count; i++, data += size) {
        if (run->io.direction == KVM_EXIT_IO_OUT)
            bus_write(vcpu->ports, run->io.port, data, size);
        else
            bus_read(vcpu->ports, run->io.port, data, size);
    }
}

static void exit_mmio(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;

    if (run->mmio.is_write)
        bus_write(vcpu->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
    else
        bus_read(vcpu->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
}

static void exit_nothing(struct vcpu *vcpu)
{
    (void)vcpu;
}

static void exit_shutdown(struct vcpu *vcpu)
{
    char text[64];

    snprintf(text, sizeof text, "triple fault of vCPU %u", vcpu->index);
    exit_record_end(vcpu->record, EXIT_REASON_TRIPLE_FAULT, 0, text);
}

static void exit_internal_error(struct vcpu *vcpu)
{
    struct kvm_regs regs = { 0 };
    char text[96];

    (void)ioctl(vcpu->fd, KVM_GET_REGS, &regs);
    snprintf(text, sizeof text, "KVM internal error %u on vCPU %u at rip %#llx",
             vcpu->run->internal.suberror, vcpu->index, regs.rip);
    exit_record_end(vcpu->record, EXIT_REASON_KVM_ERROR, (int)vcpu->run->internal.suberror, text);
}

static void exit_fail_entry(struct vcpu *vcpu)
{
    char text[96];

    snprintf(text, sizeof text, "vCPU %u cannot enter the guest: hardware reason %#llx",
             vcpu->index, vcpu->run->fail_entry.hardware_entry_failure_reason);
    exit_record_end(vcpu->record, EXIT_REASON_KVM_ERROR,
                    (int)vcpu->run->fail_entry.hardware_entry_failure_reason, text);
}

static void exit_system_event(struct vcpu *vcpu)
{
    static const enum exit_reason reasons[] = {
        [KVM_SYSTEM_EVENT_SHUTDOWN] = EXIT_REASON_POWEROFF,
        [KVM_SYSTEM_EVENT_RESET] = EXIT_REASON_REBOOT,
        [KVM_SYSTEM_EVENT_CRASH] = EXIT_REASON_PANIC,
    };
    uint32_t type = vcpu->run->system_event.type;

    if (type == 0 || type >= ARRAY_LENGTH(reasons))
        exit_record_end(vcpu->record, EXIT_REASON_KVM_ERROR, (int)type, "unknown system event");
    exit_record_end(vcpu->record, reasons[type], (int)type, "system event of KVM");
}

static void (*const exit_handlers[])(struct vcpu *vcpu) = {
    [KVM_EXIT_IO] = exit_io,
    [KVM_EXIT_MMIO] = exit_mmio,
    [KVM_EXIT_INTR] = exit_nothing,
    [KVM_EXIT_SHUTDOWN] = exit_shutdown,
    [KVM_EXIT_FAIL_ENTRY] = exit_fail_entry,
    [KVM_EXIT_INTERNAL_ERROR] = exit_internal_error,
    [KVM_EXIT_SYSTEM_EVENT] = exit_system_event,
};

static enum stats_exit exit_kind(uint32_t reason)
{
    return reason == KVM_EXIT_IO     ? STATS_EXIT_IO
           : reason == KVM_EXIT_MMIO ? STATS_EXIT_MMIO
           : reason == KVM_EXIT_INTR ? STATS_EXIT_SIGNAL
                                     : STATS_EXIT_OTHER;
}

static void vcpu_handle_exit(struct vcpu *vcpu)
{
    uint32_t reason = vcpu->run->exit_reason;
    char text[64];

    if (reason < ARRAY_LENGTH(exit_handlers) && exit_handlers[reason]) {
        exit_handlers[reason](vcpu);
        return;
    }
    snprintf(text, sizeof text, "vCPU %u: exit %u of KVM is unknown", vcpu->index, reason);
    exit_record_end(vcpu->record, EXIT_REASON_KVM_ERROR, (int)reason, text);
}

static void *vcpu_run(void *context)
{
    struct vcpu *vcpu = context;
    struct error err = { 0 };
    char name[16];

    snprintf(name, sizeof name, "vcpu%u", vcpu->index);
    (void)prctl(PR_SET_NAME, name);
    vcpu->thread_id = (int)syscall(SYS_gettid);
    if (filter_load(FILTER_VCPU, &err) < 0)
        exit_record_fail(vcpu->record, EXIT_REASON_CONFIG, &err);
    vcpu_gate_pass(vcpu->gate);
    for (;;) {
        if (ioctl(vcpu->fd, KVM_RUN, 0) == 0) {
            stats_add(&vcpu->exits[exit_kind(vcpu->run->exit_reason)], 1);
            vcpu_handle_exit(vcpu);
        } else if (errno == EINTR) {
            stats_add(&vcpu->exits[STATS_EXIT_SIGNAL], 1);
            /* The guest's watchdogs are told that the time it missed was ours; one without
             * kvm-clock cannot be told. */
            if (vcpu_gate_pass(vcpu->gate))
                (void)ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL, 0);
        } else if (errno != EAGAIN) {
            error_set(&err, errno, "run vCPU %u", vcpu->index);
            exit_record_fail(vcpu->record, EXIT_REASON_VMM_ERROR, &err);
        }
    }
    return NULL;
}

/* Exits are handled with little stack; what is not touched costs nothing. */
#define STACK_BYTES (SANITIZED ? 1u << 20 : 64u << 10)

int vcpu_start(struct vcpu *vcpu, struct error *err)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int code = pthread_attr_init(&attributes);

    if (code == 0)
        code = pthread_attr_setstacksize(&attributes, STACK_BYTES);
    if (code == 0)
        code = pthread_create(&thread, &attributes, vcpu_run, vcpu);
    pthread_attr_destroy(&attributes);
    if (code != 0)
        return error_set(err, code, "start the thread of vCPU %u", vcpu->index);
    return 0;
}

void vcpu_call(struct vcpu *vcpu)
{
    __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    (void)syscall(SYS_tkill, vcpu->thread_id, VCPU_GATE_SIGNAL);
}

void vcpu_release(struct vcpu *vcpu)
{
    __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
}
