/* slow_sync.c - preloaded into warrend by tests/bench/run: a disk that syncs slowly.
 *
 * SLOW_SYNC_MS is how much longer fsync and fdatasync take. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void delay(void)
{
    const char *text = getenv("SLOW_SYNC_MS");
    long ms = text ? strtol(text, NULL, 10) : 0;
    struct timespec time = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

    nanosleep(&time, NULL);
}

int fsync(int fd)
{
    delay();
    return (int)syscall(SYS_fsync, fd);
}

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): as fsync */
int fdatasync(int fd)
{
    delay();
    return (int)syscall(SYS_fdatasync, fd);
}
