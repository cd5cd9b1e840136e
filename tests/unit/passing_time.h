/* passing_time.h - a test's clock goes on as far as the test wants.  In one file of a program. */
#pragma once
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static time_t passed_s; /* on this process's clock, and on no other's */

/* In place of the C library's. */
/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): theirs are reserved */
int clock_gettime(clockid_t clock, struct timespec *now)
{
    long result = syscall(SYS_clock_gettime, clock, now);

    if (result == 0 && clock == CLOCK_MONOTONIC)
        now->tv_sec += passed_s;
    return (int)result;
}
