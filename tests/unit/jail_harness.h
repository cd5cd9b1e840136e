/* jail_harness.h - for unit tests that start real programs in jails. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "agent/config.h"
#include "agent/jail.h"
#include "base/cleanup.h"
#include "base/error.h"

/* The programs are in the directory above the tests'. */
static bool find_programs(char ret_path[CONFIG_PATH_MAX])
{
    char self[PATH_MAX], program[PATH_MAX + 16];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);

    if (length < 0)
        return false;
    self[length] = '\0';
    snprintf(ret_path, CONFIG_PATH_MAX, "%.200s", dirname(dirname(self)));
    snprintf(program, sizeof program, "%s/warren-vmm", ret_path);
    return access(program, X_OK) == 0;
}

/* A jail of the test's own; none without root or warren-vmm. */
struct fixture {
    struct config config;
    struct jail *jail;
    struct error err;
};

static inline int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    *state = f;
    if (!f)
        return -1;
    f->config.uid_base = 931000;
    f->config.uid_count = 1000;
    snprintf(f->config.prefix, sizeof f->config.prefix, "u%03x", (unsigned)getpid() & 0xfff);
    strcpy(f->config.run_dir, "/tmp/warren-jail-XXXXXX");
    if (!mkdtemp(f->config.run_dir))
        return -1;
    if (geteuid() != 0 || !find_programs(f->config.libexec_dir))
        return 0;
    return jail_new(&f->config, &f->jail, &f->err);
}

static inline int tear_down(void **state)
{
    struct fixture *f = *state;
    uint32_t *instances = NULL;
    size_t count = 0;
    char command[400];

    if (f->jail && jail_list(f->jail, &instances, &count, NULL) == 0)
        for (size_t i = 0; i < count; i++)
            jail_remove(f->jail, instances[i], NULL);
    free(instances);
    jail_free(f->jail);
    for (int i = 0; i < 2; i++) {
        snprintf(command, sizeof command, "%s/%s-vms",
                 i ? "/sys/fs/cgroup/unified" : "/sys/fs/cgroup", f->config.prefix);
        rmdir(command);
    }
    snprintf(command, sizeof command, "%s/vms", f->config.run_dir);
    rmdir(command);
    snprintf(command, sizeof command, "%s/empty", f->config.run_dir);
    rmdir(command);
    int result = rmdir(f->config.run_dir);

    free(f);
    return result;
}

static inline struct fixture *need_jail(void **state)
{
    struct fixture *f = *state;

    if (!f->jail)
        skip();
    return f;
}

static inline void end(struct jail_process *process)
{
    int status;

    process_kill(process->pidfd, SIGKILL);
    assert_int_equal(process_await(process->pidfd, 10000), 0);
    process_reap(process->pidfd, &status);
    cleanup_close(&process->pidfd);
    cleanup_close(&process->control_fd);
    cleanup_close(&process->page_fd);
    cleanup_close(&process->log_fd);
}
