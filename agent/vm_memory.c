#include "agent/vm_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/jail.h"
#include "agent/node_internal.h"
#include "agent/vmm_client.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/path.h"

#define HUGE_POOL "/sys/kernel/mm/hugepages/hugepages-2048kB"

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21u << 26)
#endif

const char *const vm_memory_names[VMM_MEMORY_COUNT] = {
    [VMM_MEMORY_ANONYMOUS] = "anonymous",
    [VMM_MEMORY_TRANSPARENT_HUGE] = "transparent-huge",
    [VMM_MEMORY_HUGE_2M] = "huge-2m",
    [VMM_MEMORY_SHARED] = "shared",
};

/* 0 where there is none. */
static uint64_t pool_count(const char *path)
{
    char text[32] = "";

    return path_read_text(AT_FDCWD, path, text, sizeof text) < 0 ? 0 : strtoull(text, NULL, 10);
}

int vm_memory_admit(uint32_t backing, uint64_t bytes, struct error *err)
{
    uint64_t pages = bytes >> 21, available, promised;

    if (backing != VMM_MEMORY_HUGE_2M)
        return 0;
    available = pool_count(HUGE_POOL "/free_hugepages");
    promised = pool_count(HUGE_POOL "/resv_hugepages");
    available = available > promised ? available - promised : 0;
    if (pages <= available)
        return 0;
    return error_field(err, ENOMEM, "memory_backing",
                       "memory_backing: %" PRIu64 " huge pages are needed, this host has %" PRIu64
                       " left: raise vm.nr_hugepages, or choose another backing",
                       pages, available);
}

int vm_memory_open(uint32_t backing, uint64_t bytes, struct error *err)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    auto_close int fd = -1;

    if (backing == VMM_MEMORY_HUGE_2M)
        flags |= MFD_HUGETLB | MFD_HUGE_2MB;
    fd = memfd_create("guest-memory", flags);
    if (fd < 0)
        return error_set(err, errno, "make a file of guest memory (%s): %s",
                         vm_memory_names[backing], strerror(errno));
    if (ftruncate(fd, (off_t)bytes) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
        return error_set(err, errno, "size %" PRIu64 " MiB of guest memory: %s", bytes >> 20,
                         strerror(errno));
    return take_fd(&fd);
}

int vm_memory_seal(int fd)
{
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0 || (seals & F_SEAL_SEAL)) /* the latter it has already, or an older agent's */
        return 0;
    return fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0 ? -errno : 0;
}

/* Of this thread. */
static void set_sys_admin(bool effective)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    if (syscall(SYS_capget, &header, data) < 0)
        return;
    if (effective)
        data[0].effective |= data[0].permitted & 1u << CAP_SYS_ADMIN;
    else
        data[0].effective &= ~(1u << CAP_SYS_ADMIN);
    (void)syscall(SYS_capset, &header, data);
}

/* Where in the host's memory its pages are is not the VMM's to know: neighbours there could be
 * attacked (rowhammer).  The kernel shows it if whoever opened the file had CAP_SYS_ADMIN. */
int vm_memory_open_pagemap(const struct vm *vm, struct error *err)
{
    char path[40];
    int fd;

    snprintf(path, sizeof path, "/proc/%d/pagemap", (int)vm->pid);
    set_sys_admin(false);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    set_sys_admin(true);
    return fd < 0 ? error_set(err, errno, "look at its pages: %s", strerror(errno)) : fd;
}

/* 100 MiB a second are slow even for a spinning disk. */
#define FILE_BYTES_PER_SECOND (100ull << 20)

int vm_memory_file_ms(const struct vm *vm)
{
    return (int)(vm_spec_memory_bytes(&vm->spec) / FILE_BYTES_PER_SECOND) * 1000;
}

void vm_memory_tell(const struct node *node, struct vm *vm)
{
    struct error err = { 0 };

    if (vm->client && vm->spec.memory_max_mib > vm->spec.memory_mib &&
        vmm_client_memory(vm->client, vm_spec_requested_bytes(&vm->spec), &err) < 0)
        log_warning(node->log, "vm %s: its memory cannot be changed: %s", vm->head.id, err.message);
}

uint32_t vm_memory_current_mib(const struct vm *vm, const struct stats_page *page)
{
    uint32_t most = vm->spec.memory_max_mib - vm->spec.memory_mib;
    uint64_t plugged = page->memory.plugged_bytes >> 20;

    return vm->spec.memory_mib + (plugged < most ? (uint32_t)plugged : most);
}

int vm_memory_status(const struct vm *vm, const struct stats_page *page, json_t *status)
{
    return json_object_set_new(status, "memory_current_mib",
                               page ? json_integer(vm_memory_current_mib(vm, page)) : json_null());
}
