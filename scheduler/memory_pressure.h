/* memory_pressure.h - how the host's memory stands, from /proc.  Any thread; a call needs 30 us. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct error;

struct memory_pressure {
    uint64_t available_mib; /* MemAvailable */
    uint64_t swap_mib, swap_free_mib;
    uint32_t
        psi_permille; /* some task waited for memory, of the last 10 s; 0 where there is no PSI */
};

/* -EIO if /proc/meminfo is not as it should be. */
int memory_pressure_read(struct memory_pressure *ret_pressure, struct error *err);
/* Of the text of a memory.pressure (cgroup's or the host's), as psi_permille; 0 if it is none. */
uint32_t memory_pressure_permille(const char *text);
/* An fd that has EPOLLPRI when tasks waited for memory 15 % of a second, or of two (PSI trigger):
 * owned, or -errno where there is no PSI. */
int memory_pressure_trigger(void);
/* Of a process, what is in memory (not swapped), in MiB; 0 if it is gone.  With or without pages of
 * files, which others may have mapped, too. */
uint32_t memory_resident_mib(pid_t pid, bool with_files);
