/* jail_limit.h - how large the files of a running VMM may become (RLIMIT_FSIZE).  Any thread. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct error;

/* May this process raise hard limits?  It needs CAP_SYS_RESOURCE in the host's own user namespace,
 * which containers often lack, so this is tried. */
bool jail_limit_can_raise(void);
/* 0 if the process's limit is so large already, or is from now on; -EPERM. */
int jail_limit_raise(pid_t pid, uint64_t bytes, struct error *err);
