#include "agent/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/config.h"
#include "agent/jail_cgroup.h"
#include "agent/jail_files.h"
#include "agent/jail_limit.h"
#include "agent/jail_rings.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/path.h"
#include "base/seqpacket.h"
#include "storage/instance_name.h"
#include "vmm/control_protocol.h"

#define VMM_FILES_MAX 1024 /* each queue of a device has two eventfds */
/* Threads count; since Linux 6.4 those of vhost-net, one of each pair, as well. */
#define VMM_PROCESSES_MAX (VMM_VCPUS_MAX + 8 + VMM_NICS_MAX * VMM_QUEUES_MAX)

struct jail {
    const struct config *config;
    int run_dir_fd, vms_fd; /* <run-dir>, <run-dir>/vms */
    int libexec_fd, vmm_exec_fd;
    int root_namespace; /* what every VMM's root is a copy of */
    struct jail_cgroup cgroup;
    char empty_root[PATH_MAX];
    struct vmm_cpuid cpuid;
    bool may_raise_limits;
    struct jail_rings rings;
    bool prepared; /* the launch worker stands in namespaces that nobody else has been in */
};

/* Made in advance (jail_prepare), or with the process. */
#define OWN_NAMESPACES (CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)

/* --- the place --- */

static int open_places(struct jail *jail, const struct config *config, struct error *err)
{
    int result = jail_make_dir(AT_FDCWD, config->run_dir, 0755, &jail->run_dir_fd, err);
    auto_close int empty = -1;

    if (result == 0)
        result = jail_lock_dir(jail->run_dir_fd, "run-dir", config->run_dir, err);
    if (result == 0)
        result = jail_make_dir(jail->run_dir_fd, "vms", 0700, &jail->vms_fd, err);
    if (result == 0)
        result = jail_make_dir(jail->run_dir_fd, "empty", 0755, &empty, err);
    if (result < 0)
        return result;
    if ((size_t)snprintf(jail->empty_root, sizeof jail->empty_root, "%s/empty", config->run_dir) >=
        sizeof jail->empty_root)
        return error_set(err, ENAMETOOLONG, "run-dir is too long");
    jail->libexec_fd = open(config->libexec_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (jail->libexec_fd < 0)
        return error_set(err, errno, "open the program directory %s (see --libexec-dir): %s",
                         config->libexec_dir, strerror(errno));
    result = jail_open_program(jail, "warren-vmm", err);
    if (result < 0)
        return result;
    jail->vmm_exec_fd = result;
    result = sandbox_make_root(jail->empty_root, err);
    if (result < 0)
        return result;
    jail->root_namespace = result;
    jail_share_device(config->state_dir, jail->cgroup.io_device);
    return jail_cgroup_take(&jail->cgroup, config, err);
}

/* Without KVM the count stays 0: the agent serves all the same, and each VMM asks for itself. */
static void ask_cpuid(struct vmm_cpuid *cpuid)
{
    auto_close int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    cpuid->count = VMM_CPUID_MAX;
    if (kvm_fd < 0 || ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0)
        cpuid->count = 0;
}

int jail_new(const struct config *config, struct jail **ret_jail, struct error *err)
{
    struct jail *jail = calloc(1, sizeof *jail);
    int result;

    if (!jail)
        return error_set(err, ENOMEM, "create the jail");
    *jail = (struct jail){ .config = config,
                           .run_dir_fd = -1,
                           .vms_fd = -1,
                           .libexec_fd = -1,
                           .vmm_exec_fd = -1,
                           .root_namespace = -1,
                           .cgroup.fd = -1 };
    result = open_places(jail, config, err);
    if (result < 0) {
        jail_free(jail);
        return result;
    }
    ask_cpuid(&jail->cpuid);
    jail->may_raise_limits = jail_limit_can_raise();
    *ret_jail = jail;
    return 0;
}

struct jail *jail_free(struct jail *jail)
{
    if (!jail)
        return NULL;
    cleanup_close(&jail->run_dir_fd);
    cleanup_close(&jail->vms_fd);
    cleanup_close(&jail->libexec_fd);
    cleanup_close(&jail->vmm_exec_fd);
    cleanup_close(&jail->root_namespace);
    jail_cgroup_close(&jail->cgroup);
    jail_rings_close(&jail->rings);
    free(jail);
    return NULL;
}

bool jail_may_raise_limits(const struct jail *jail)
{
    return jail->may_raise_limits;
}

const struct vmm_cpuid *jail_cpuid(const struct jail *jail)
{
    return &jail->cpuid;
}

int jail_run_dir_fd(const struct jail *jail)
{
    return jail->run_dir_fd;
}

const char *jail_empty_root(const struct jail *jail)
{
    return jail->empty_root;
}

const struct jail_cgroup *jail_cgroups(const struct jail *jail)
{
    return &jail->cgroup;
}

int jail_check_cgroup(const struct jail *jail, struct error *err)
{
    return jail_cgroup_check_there(&jail->cgroup, err);
}

int jail_renew_cgroup(struct jail *jail, struct error *err)
{
    return jail_cgroup_renew(&jail->cgroup, jail->config, err);
}

uid_t jail_user(const struct jail *jail, enum jail_user user)
{
    return (uid_t)(jail->config->uid_base + user);
}

uid_t jail_vm_user(const struct jail *jail, uint32_t instance)
{
    int64_t room = jail->config->uid_count - JAIL_USER_VMS;

    return (uid_t)(jail->config->uid_base + JAIL_USER_VMS + instance % room);
}

int jail_open_program(const struct jail *jail, const char *name, struct error *err)
{
    int fd = openat(jail->libexec_fd, name, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return error_set(err, errno, "open %s in the program directory %s (see --libexec-dir): %s",
                         name, jail->config->libexec_dir, strerror(errno));
    return fd;
}

/* --- a VM's directory --- */

static int open_dir(const struct jail *jail, uint32_t instance, struct error *err)
{
    int fd = openat(jail->vms_fd, instance_name(instance, "").text,
                    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return error_set(err, errno, "open the VM's run directory");
    return fd;
}

/* All blocks are there before the VMM maps it: no store of it can meet a full disk. */
static int make_page(int dir_fd, struct error *err)
{
    auto_close int fd = jail_create_file(dir_fd, "page", O_RDWR);
    int code;

    if (fd < 0)
        return error_set(err, -fd, "create the VM's page in the run directory: %s", strerror(-fd));
    code = posix_fallocate(fd, 0, VMM_PAGE_BYTES);
    if (code != 0)
        return error_set(err, code, "allocate the VM's page in the run directory: %s",
                         strerror(code));
    return take_fd(&fd);
}

static int write_identity(int dir_fd, pid_t pid, struct error *err)
{
    struct process_identity identity;
    auto_close int fd = -1;
    char text[128];
    int length;
    int result = process_identify(pid, &identity, err);

    if (result < 0)
        return result;
    length = snprintf(text, sizeof text, "%d %" PRIu64 " %s\n", (int)identity.pid,
                      identity.start_ticks, identity.boot_id);
    /* By rename: a half-written one is never seen. */
    fd = jail_create_file(dir_fd, "process.new", O_WRONLY);
    if (fd < 0)
        return error_set(err, -fd, "note the VM's process in the run directory: %s", strerror(-fd));
    if (write(fd, text, (size_t)length) != length ||
        renameat(dir_fd, "process.new", dir_fd, "process") < 0)
        return error_set(err, errno ? errno : EIO, "note the VM's process in the run directory: %s",
                         strerror(errno ? errno : EIO));
    return 0;
}

/* A pipe, since it has a bound of the kernel's, whatever the VMM writes; and one with a name, so
 * that the next agent finds it.  The VMM's end is for reading, too: it never finds nobody there. */
static int make_log(int dir_fd, int *ret_vmm_fd, int *ret_fd, struct error *err)
{
    auto_close int vmm_fd = -1;
    auto_close int fd = -1;

    (void)unlinkat(dir_fd, "log", 0);
    if (mkfifoat(dir_fd, "log", 0600) == 0)
        vmm_fd = openat(dir_fd, "log", O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (vmm_fd >= 0) /* not a copy: the VMM could make that one block */
        fd = openat(dir_fd, "log", O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, errno, "create the VM's log in the run directory: %s",
                         strerror(errno));
    *ret_vmm_fd = take_fd(&vmm_fd);
    *ret_fd = take_fd(&fd);
    return 0;
}

/* The agent may be one that the kernel kills last (OOMScoreAdjust= of its unit); a VM is not. */
static void be_like_others(pid_t pid)
{
    char path[40];

    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", (int)pid);
    jail_write_text(AT_FDCWD, path, "0");
}

struct start {
    const struct jail_spec *spec;
    struct jail_process *process;
    int dir_fd;
};

/* All that the process needs only with CONFIGURE: half a millisecond that it does not wait for. The
 * page first: who finds the process would take what the one before left in its own for this one's
 * end. */
static int while_it_starts(void *context, pid_t pid, struct error *err)
{
    struct start *start = context;
    int result;

    start->process->page_fd = make_page(start->dir_fd, err);
    if (start->process->page_fd < 0)
        return start->process->page_fd;
    result = write_identity(start->dir_fd, pid, err);
    be_like_others(pid);
    if (result < 0)
        return result;
    return start->spec->meanwhile ? start->spec->meanwhile(start->spec->context, err) : 0;
}

static int spawn(struct jail *jail, uint32_t instance, struct start *start, int listener,
                 int log_fd, int cgroup_fd, struct error *err)
{
    static const char *const argv[] = { "warren-vmm", NULL };
    int fds[VMM_RING_FD(VMM_DISKS_MAX)] = { -1, -1, log_fd, listener };
    struct vmm_rings *rings = &start->process->rings;
    uid_t user = jail_vm_user(jail, instance);
    struct sandbox_spec sandbox = {
        .root_namespace = jail->root_namespace,
        .uid = user,
        .gid = user,
        .max_files = VMM_FILES_MAX,
        .max_processes = VMM_PROCESSES_MAX,
        .max_file_bytes = start->spec->max_file_bytes > VMM_PAGE_BYTES ? start->spec->max_file_bytes
                                                                       : VMM_PAGE_BYTES,
        .hostname = start->spec->hostname,
    };
    struct process_spec spec = {
        .exec_fd = jail->vmm_exec_fd,
        .argv = argv,
        .clone_flags = CLONE_NEWPID | (jail->prepared ? 0 : OWN_NAMESPACES),
        .cgroup_fd = cgroup_fd,
        .fds = fds,
        .sandbox = &sandbox,
        .new_session = true,
        .meanwhile = while_it_starts,
        .context = start,
    };

    int result;

    jail_rings_take(&jail->rings, start->spec->disk_places, &fds[VMM_RINGS_FD], rings);
    spec.fd_count = (size_t)VMM_RING_FD(rings->count);
    jail->prepared = false;
    result = process_spawn(&spec, &start->process->pid, &start->process->pidfd, err);
    for (size_t i = VMM_RINGS_FD; i < spec.fd_count; i++)
        cleanup_close(&fds[i]);
    return result;
}

static int start_in(struct jail *jail, uint32_t instance, const struct jail_spec *spec, int dir_fd,
                    struct jail_process *process, struct error *err)
{
    struct start start = { .spec = spec, .process = process, .dir_fd = dir_fd };
    auto_close int cgroup_fd = -1;
    auto_close int listener = -1;
    auto_close int log_fd = -1;
    /* What an earlier agent left: whoever is cloned into a group that was killed once dies at once
     * (Linux 6.14, and stable ones since). */
    int result = jail_cgroup_remove(&jail->cgroup, instance, err);

    if (result == 0)
        result = jail_cgroup_make(&jail->cgroup, instance, &cgroup_fd, err);
    if (result == 0 && !jail_share_is_same(&spec->share, &jail_share_default))
        result = jail_share_write(&jail->cgroup, instance, &spec->share, err);
    if (result < 0)
        return result;
    listener = seqpacket_listen(dir_fd, "control.sock", err);
    if (listener < 0)
        return listener;
    /* Before the process is there: if we end now, the VMM finds a closed connection and ends. */
    process->control_fd = seqpacket_connect(dir_fd, "control.sock", err);
    if (process->control_fd < 0)
        return process->control_fd;
    result = make_log(dir_fd, &log_fd, &process->log_fd, err);
    return result < 0 ? result : spawn(jail, instance, &start, listener, log_fd, cgroup_fd, err);
}

void jail_prepare(struct jail *jail)
{
    if (!jail->prepared)
        jail->prepared = unshare(OWN_NAMESPACES) == 0;
    jail_rings_fill(&jail->rings);
}

int jail_start(struct jail *jail, uint32_t instance, const struct jail_spec *spec,
               struct jail_process *ret_process, struct error *err)
{
    struct jail_process process = { .pidfd = -1, .control_fd = -1, .page_fd = -1, .log_fd = -1 };
    auto_close int dir_fd = -1;
    int result = jail_make_dir(jail->vms_fd, instance_name(instance, "").text, 0700, &dir_fd, err);

    if (result < 0)
        return error_wrap(err, "the VM's run directory");
    result = start_in(jail, instance, spec, dir_fd, &process, err);
    if (result == 0) {
        *ret_process = process;
        return 0;
    }
    cleanup_close(&process.control_fd);
    cleanup_close(&process.page_fd);
    cleanup_close(&process.log_fd);
    jail_clean_up(jail, instance, NULL);
    return result;
}

int jail_open_log(const struct jail *jail, uint32_t instance)
{
    auto_close int dir_fd = open_dir(jail, instance, NULL);

    return dir_fd < 0 ? -1 : openat(dir_fd, "log", O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
}

void jail_keep_log(const struct jail *jail, uint32_t instance, int log_fd)
{
    auto_close int dir_fd = open_dir(jail, instance, NULL);
    auto_close int fd = -1;
    auto_free char *text = malloc(JAIL_LOG_BYTES);
    struct stat status;
    size_t size = 0;
    ssize_t got = 1;

    if (dir_fd < 0 || fstatat(dir_fd, "log", &status, AT_SYMLINK_NOFOLLOW) < 0 ||
        !S_ISFIFO(status.st_mode))
        return; /* it is kept already */
    while (text && log_fd >= 0 && size < JAIL_LOG_BYTES && got > 0) {
        got = read(log_fd, text + size, JAIL_LOG_BYTES - size);
        size += got > 0 ? (size_t)got : 0;
    }
    (void)unlinkat(dir_fd, "log", 0);
    fd = openat(dir_fd, "log", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd >= 0 && size > 0 && write(fd, text, size) < 0)
        (void)unlinkat(dir_fd, "log", 0); /* only for people; the exit record is in the page */
}

int jail_clean_up(const struct jail *jail, uint32_t instance, struct error *err)
{
    auto_close int dir_fd = -1;
    int result = jail_cgroup_remove(&jail->cgroup, instance, err);

    dir_fd = open_dir(jail, instance, NULL);
    if (dir_fd >= 0) {
        unlinkat(dir_fd, "control.sock", 0);
        unlinkat(dir_fd, "process.new", 0);
        unlinkat(dir_fd, "process", 0);
    }
    return result;
}

int jail_remove(const struct jail *jail, uint32_t instance, struct error *err)
{
    auto_close int dir_fd = -1;
    int result = jail_clean_up(jail, instance, err);

    if (result < 0)
        return result;
    dir_fd = open_dir(jail, instance, NULL);
    if (dir_fd < 0)
        return 0;
    unlinkat(dir_fd, "page", 0);
    unlinkat(dir_fd, "log", 0);
    if (unlinkat(jail->vms_fd, instance_name(instance, "").text, AT_REMOVEDIR) < 0 &&
        errno != ENOENT)
        return error_set(err, errno, "remove the VM's run directory");
    return 0;
}

int jail_identity(const struct jail *jail, uint32_t instance, struct process_identity *ret_identity,
                  struct error *err)
{
    auto_close int dir_fd = open_dir(jail, instance, err);
    struct process_identity identity = { 0 };
    char text[128];
    int result;

    if (dir_fd < 0)
        return dir_fd;
    result = path_read_text(dir_fd, "process", text, sizeof text);
    if (result < 0)
        return error_set(err, result, "read the VM's process identity");
    if (sscanf(text, "%d %" SCNu64 " %36s", &identity.pid, &identity.start_ticks,
               identity.boot_id) != 3)
        return error_set(err, EINVAL, "the VM's process identity is damaged");
    *ret_identity = identity;
    return 0;
}

int jail_connect(const struct jail *jail, uint32_t instance, struct error *err)
{
    auto_close int dir_fd = open_dir(jail, instance, err);

    return dir_fd < 0 ? dir_fd : seqpacket_connect(dir_fd, "control.sock", err);
}

int jail_list(const struct jail *jail, uint32_t **ret_instances, size_t *ret_count,
              struct error *err)
{
    uint32_t *instances = NULL;
    size_t count = 0;
    int result = jail_list_numbers(jail->vms_fd, &instances, &count, err);

    if (result == 0 && jail->cgroup.fd >= 0)
        result = jail_list_numbers(jail->cgroup.fd, &instances, &count, err);
    if (result < 0) {
        free(instances);
        return result;
    }
    *ret_instances = instances;
    *ret_count = count;
    return 0;
}

/* --- reading what a VMM wrote --- */

int jail_open_page(const struct jail *jail, uint32_t instance)
{
    auto_close int dir_fd = open_dir(jail, instance, NULL);

    return dir_fd < 0 ? dir_fd : jail_open_file(dir_fd, "page");
}

int jail_read_page(const struct jail *jail, uint32_t instance, struct stats_page *ret_page)
{
    auto_close int fd = jail_open_page(jail, instance);

    return jail_read_open_page(fd, ret_page);
}

int jail_read_console(const struct jail *jail, uint32_t instance, size_t tail, char **ret_bytes,
                      size_t *ret_size, struct error *err)
{
    auto_close int fd = jail_open_page(jail, instance);
    auto_free char *ring = malloc(CONSOLE_RING_BYTES);
    auto_free char *bytes = malloc(CONSOLE_RING_BYTES);
    struct stats_page page;
    size_t size;
    size_t start;

    if (!ring || !bytes)
        return error_no_memory(err);
    if (fd < 0 && fd != -ENOENT)
        return error_set(err, EIO, "open what the VM's console wrote: %s", strerror(-fd));
    if (jail_read_open_page(fd, &page) < 0 ||
        pread(fd, ring, CONSOLE_RING_BYTES, CONSOLE_OFFSET) != CONSOLE_RING_BYTES)
        page.console_bytes = 0;
    size = page.console_bytes < CONSOLE_RING_BYTES ? page.console_bytes : CONSOLE_RING_BYTES;
    if (size > tail)
        size = tail;
    start = (size_t)((page.console_bytes - size) % CONSOLE_RING_BYTES);
    for (size_t i = 0; i < size; i++)
        bytes[i] = ring[(start + i) % CONSOLE_RING_BYTES];
    *ret_bytes = take_pointer(bytes);
    *ret_size = size;
    return 0;
}

static void write_mib(const struct jail *jail, uint32_t instance, const char *file, uint64_t mib)
{
    char text[24];

    snprintf(text, sizeof text, "%" PRIu64, mib << 20);
    if (instance == JAIL_ALL_VMS)
        jail_write_text(jail->cgroup.fd, file, text);
    else
        jail_cgroup_write(&jail->cgroup, instance, file, text);
}

void jail_set_memory_low(const struct jail *jail, uint32_t instance, uint64_t low_mib)
{
    write_mib(jail, instance, "memory.low", low_mib);
}

void jail_set_memory_high(const struct jail *jail, uint32_t instance, uint32_t high_mib)
{
    if (high_mib > 0)
        write_mib(jail, instance, "memory.high", high_mib);
    else
        jail_cgroup_write(&jail->cgroup, instance, "memory.high", "max");
}

void jail_reclaim_memory(const struct jail *jail, uint32_t instance, uint32_t mib)
{
    write_mib(jail, instance, "memory.reclaim", mib);
}
