/* shift_clock.c - preloaded into warrend by tests/integration/host_faults: the time of day jumps,
 * or time goes by faster.
 *
 * SHIFT_CLOCK names a file of 16 bytes, two signed numbers of seconds in the host's order, which
 * are added to CLOCK_REALTIME and to CLOCK_MONOTONIC whenever they are read, however they are. */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static _Atomic int64_t *shift; /* two */

__attribute__((constructor)) static void open_shift(void)
{
    const char *path = getenv("SHIFT_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = fd < 0 ? MAP_FAILED : mmap(NULL, 2 * sizeof *shift, PROT_READ, MAP_SHARED, fd, 0);

    if (page != MAP_FAILED)
        shift = page;
    if (fd >= 0)
        close(fd);
}

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): as in glibc */
int clock_gettime(clockid_t clock, struct timespec *ret_time)
{
    long result = syscall(SYS_clock_gettime, clock, ret_time);

    if (result == 0 && shift && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        ret_time->tv_sec += shift[0];
    if (result == 0 && shift && clock == CLOCK_MONOTONIC)
        ret_time->tv_sec += shift[1];
    return (int)result;
}

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): as in glibc */
time_t time(time_t *ret_time)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (ret_time)
        *ret_time = now.tv_sec;
    return now.tv_sec;
}

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): as in glibc */
int gettimeofday(struct timeval *restrict ret_time, void *restrict zone)
{
    struct timespec now;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    *ret_time = (struct timeval){ .tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000 };
    return 0;
}
