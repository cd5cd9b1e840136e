/* main.c - one virtual machine, one process.  Started jailed by the agent with a log, a listener
 * and rings (control_protocol.h), it waits for its configuration, builds the machine, confines
 * itself and then serves devices and control until the guest ends.  It opens nothing. */
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "vmm/config.h"
#include "vmm/control.h"
#include "vmm/exit_record.h"
#include "vmm/filter.h"
#include "vmm/machine.h"

#define CONFIGURE_TIMEOUT_MS 60000

struct vmm {
    struct log log;
    char log_name[sizeof "vmm " + sizeof((struct vmm_configure *)0)->id];
    struct exit_record record;
    struct loop *loop;
    struct control *control;
    struct machine *machine;
    struct vmm_configure configure;
};

/* One malloc arena: in glibc an arena per thread would be reserved in 64 MiB steps and grow by
 * mprotect, which the filters forbid.
 * Returns an fd that is readable once there is a SIGTERM, which no thread takes in another way. */
static int prepare_process(void)
{
    sigset_t terminate;

#ifdef __GLIBC__ /* sanitizer builds; musl has one arena anyway */
    (void)mallopt(M_ARENA_MAX, 1);
#endif
    (void)signal(SIGPIPE, SIG_IGN);
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); /* the jail did; without one, filters need it */
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);     /* exec has taken off that the jail did this */
    (void)sigemptyset(&terminate);
    (void)sigaddset(&terminate, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &terminate, NULL);
    return signalfd(-1, &terminate, SFD_CLOEXEC);
}

static int wait_configure(struct vmm *vmm, int *fds, size_t *ret_fd_count, struct error *err)
{
    int stop_fd = prepare_process(), result = loop_new(&vmm->loop, err);

    if (result == 0)
        result = control_new(vmm->loop, VMM_LISTENER_FD, stop_fd, &vmm->log, &vmm->control, err);
    if (result == 0)
        result = control_wait_configure(vmm->control, CONFIGURE_TIMEOUT_MS, &vmm->configure, fds,
                                        ret_fd_count, err);
    return result;
}

static int build(struct vmm *vmm, const int *fds, size_t fd_count, struct error *err)
{
    struct config_fds named;
    int result;

    /* The page first, so that everything after it can be reported there. */
    if (fd_count >= 2) {
        result = stats_page_map(fds[1], &vmm->record.page, err);
        if (result < 0)
            return result;
    }
    result = config_validate(&vmm->configure, fd_count, err);
    if (result < 0)
        return result;
    snprintf(vmm->log_name, sizeof vmm->log_name, "vmm %s", vmm->configure.id);
    vmm->log.name = vmm->log_name;
    config_name_fds(&vmm->configure, fds, &named);
    result = machine_new(&vmm->configure, &named, &vmm->record, vmm->loop, vmm->control,
                         &vmm->machine, err);
    if (result < 0)
        return result;
    cleanup_close(&named.kvm);
    cleanup_close(&named.page);
    cleanup_close(&named.kernel);
    cleanup_close(&named.initrd);
    cleanup_close(&named.state);
    if (!FILTERS_ARE_BUILT)
        log_warning(&vmm->log, "a sanitizer build: system calls are not filtered");
    return machine_start(vmm->machine, err);
}

int main(void)
{
    struct vmm vmm = { .log = { .fd = VMM_LOG_FD, .level = LOG_LEVEL_INFO, .name = "vmm" } };
    struct error err = { 0 };
    int fds[CONFIG_FDS_MAX];
    size_t fd_count = 0;

    vmm.record.log = &vmm.log;
    if (wait_configure(&vmm, fds, &fd_count, &err) < 0 || build(&vmm, fds, fd_count, &err) < 0)
        exit_record_fail(&vmm.record, EXIT_REASON_CONFIG, &err);
    control_ready(vmm.control, &machine_control_ops, vmm.machine);
    (void)loop_run(vmm.loop, &err);
    exit_record_fail(&vmm.record, EXIT_REASON_VMM_ERROR, &err);
}
