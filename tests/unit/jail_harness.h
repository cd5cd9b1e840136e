/* jail_harness.h - for unit tests that start real programs in jails. */
#pragma once
#include <libgen.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>
#include "agent/config.h"

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
