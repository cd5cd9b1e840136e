/* filter_rules.h - which system calls the VMM's threads may make once the guest runs, and with
 * which arguments.  Read by build_filters.c only.
 *
 * A call may stand in several rules: each is another way to be allowed.  All conditions of one rule
 * must hold.  Nothing here opens, connects, executes, clones or makes memory executable. */
#pragma once
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/vhost.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include "vmm/control_protocol.h"
#include "vmm/vcpu_gate.h"

#define FILTER_CONDITIONS_MAX 2

struct filter_rule {
    int call;
    unsigned condition_count;
    struct filter_condition {
        unsigned argument;
        uint64_t mask, value; /* (argument & mask) == value */
    } conditions[FILTER_CONDITIONS_MAX];
};

/* clang-format off */
#define ALWAYS(name)   { SCMP_SYS(name), 0, { { 0, 0, 0 } } }
#define IOCTL(request) { SCMP_SYS(ioctl), 1, { { 1, 0xffffffff, (uint32_t)(request) } } }
/* Private memory of no file, not executable. */
#define ANONYMOUS_MMAP(more) { SCMP_SYS(mmap), 2, { { 2, PROT_EXEC, 0 }, \
                               { 3, 0xffffffff, MAP_ANONYMOUS | MAP_PRIVATE | (more) } } }

/* Of madvise's kinds only those that take memory away, or keep its pages small: never
 * MADV_MERGEABLE, by which pages would be shared with other tenants.  This one is musl's free, of
 * whole pages within what it keeps. */
#define FREE_MADVISE { SCMP_SYS(madvise), 1, { { 2, 0xffffffff, MADV_FREE } } }

/* Runs the guest, raises interrupts by eventfd, binds them when a guest programs MSI-X. */
static const struct filter_rule vcpu_rules[] = {
    IOCTL(KVM_RUN),
    IOCTL(KVM_GET_REGS), /* for the exit record of a KVM error */
    IOCTL(KVM_KVMCLOCK_CTRL), IOCTL(KVM_IRQFD), IOCTL(KVM_SET_GSI_ROUTING),
    IOCTL(KVM_IOEVENTFD), /* when a guest moves a BAR */
    IOCTL(VHOST_NET_SET_BACKEND), IOCTL(VHOST_GET_VRING_BASE), /* when it resets a NIC */
    ALWAYS(read), /* a reset, or the end, waits for what a disk has in flight */
    ALWAYS(fdatasync), ALWAYS(pwritev), /* and a delta's file has what was done then */
    ALWAYS(write), ALWAYS(futex),
    ALWAYS(brk), ALWAYS(munmap), ANONYMOUS_MMAP(0), /* malloc; these threads free nothing */
    ALWAYS(clock_gettime), ALWAYS(rt_sigreturn), ALWAYS(exit_group),
};

static const struct filter_rule device_rules[] = {
    /* the loop */
    ALWAYS(epoll_pwait), /* what musl makes of epoll_wait */
    ALWAYS(epoll_ctl), ALWAYS(clock_gettime), ALWAYS(futex),
    /* control: the one listener, and its connections */
    { SCMP_SYS(accept4), 1, { { 0, 0xffffffff, VMM_LISTENER_FD } } },
    { SCMP_SYS(getsockopt), 2, { { 1, 0xffffffff, SOL_SOCKET }, { 2, 0xffffffff, SO_PEERCRED } } },
    ALWAYS(recvmsg), ALWAYS(sendmsg), ALWAYS(close),
    ALWAYS(shutdown), /* a guest has closed its half of a vsock connection */
    /* pausing: vCPUs are called by a signal */
    { SCMP_SYS(tkill), 1, { { 1, 0xffffffff, VCPU_GATE_SIGNAL } } },
    /* eventfds, taps, the log; disks, by rings that were restricted before (uring.h), or without */
    ALWAYS(read), ALWAYS(write), ALWAYS(writev), ALWAYS(getrandom), ALWAYS(io_uring_enter),
    ALWAYS(preadv), ALWAYS(pwritev), ALWAYS(fdatasync), ALWAYS(fallocate),
    ALWAYS(lseek), /* the size, and the holes, of a delta that is attached */
    { SCMP_SYS(fcntl), 1, { { 1, 0xffffffff, F_SETFL } } }, /* O_DIRECT: raw_do_unaligned */
    { SCMP_SYS(fcntl), 1, { { 1, 0xffffffff, F_GETFL } } },
    IOCTL(TUNSETOFFLOAD), /* when a guest's driver negotiates its NIC */
    /* a NIC's queues go to the host's kernel, and back; the last two: one is attached */
    IOCTL(VHOST_SET_FEATURES), IOCTL(VHOST_SET_VRING_NUM), IOCTL(VHOST_SET_VRING_BASE),
    IOCTL(VHOST_SET_VRING_ADDR), IOCTL(VHOST_SET_VRING_CALL), IOCTL(VHOST_SET_VRING_ERR),
    IOCTL(VHOST_SET_VRING_KICK), IOCTL(VHOST_NET_SET_BACKEND), IOCTL(VHOST_GET_VRING_BASE),
    IOCTL(VHOST_SET_OWNER), IOCTL(VHOST_SET_MEM_TABLE),
    /* a snapshot: what KVM keeps of a held machine, read only */
    IOCTL(KVM_GET_IRQCHIP), IOCTL(KVM_GET_CLOCK), IOCTL(KVM_GET_TSC_KHZ), IOCTL(KVM_GET_SREGS),
    IOCTL(KVM_GET_REGS), IOCTL(KVM_GET_XSAVE), IOCTL(KVM_GET_XCRS), IOCTL(KVM_GET_DEBUGREGS),
    IOCTL(KVM_GET_LAPIC), IOCTL(KVM_GET_MSRS), IOCTL(KVM_GET_VCPU_EVENTS), IOCTL(KVM_GET_MP_STATE),
    /* a device is attached, or let go by the guest: its queues' kicks and interrupts, its tap */
    ALWAYS(eventfd2), IOCTL(KVM_IOEVENTFD), IOCTL(KVM_IRQFD), IOCTL(TUNGETVNETHDRSZ),
    /* a fork: the guest's memory becomes copy-on-write, what it was mapped by goes aside */
    { SCMP_SYS(mmap), 2, { { 2, PROT_EXEC, 0 },
                           { 3, 0xffffffff, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE } } },
    { SCMP_SYS(madvise), 1, { { 2, 0xffffffff, MADV_NOHUGEPAGE } } },
    { SCMP_SYS(mremap), 1,
      { { 3, 0xffffffff, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP } } },
    /* an attached disk's ring, and marks of what is written: no more than files that are open here,
     * and not executable */
    { SCMP_SYS(mmap), 2, { { 2, PROT_EXEC, 0 }, { 3, 0xffffffff, MAP_SHARED | MAP_POPULATE } } },
    /* malloc, and the bitmap of a delta that is attached */
    ALWAYS(brk), ALWAYS(munmap), ANONYMOUS_MMAP(0), ANONYMOUS_MMAP(MAP_NORESERVE), FREE_MADVISE,
    /* what the balloon discards: anonymous memory, and a file's by anonymous memory over it */
    { SCMP_SYS(madvise), 1, { { 2, 0xffffffff, MADV_DONTNEED } } },
    ANONYMOUS_MMAP(MAP_FIXED | MAP_NORESERVE),
    ALWAYS(exit_group),
};
/* Answered by ENOMEM: realloc asks first, and copies then. */
static const struct filter_rule refused_rules[] = {
    { SCMP_SYS(mremap), 1, { { 3, MREMAP_FIXED, 0 } } },
};
/* clang-format on */
