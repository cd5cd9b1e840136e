/* no_sync.c - preloaded into warrend by tests/host/power-loss: what is asked to be on the disk
 * stays in memory.
 *
 * NO_SYNC says of what: "all", "files" (fsync of files; not fdatasync, so SQLite's is done) or
 * "directories". */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool is_left_out(const char *what)
{
    const char *wanted = getenv("NO_SYNC");

    return wanted && (strcmp(wanted, "all") == 0 || strcmp(wanted, what) == 0);
}

int fsync(int fd)
{
    struct stat status;
    bool is_dir = fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);

    return is_left_out(is_dir ? "directories" : "files") ? 0 : (int)syscall(SYS_fsync, fd);
}

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): as in glibc */
int fdatasync(int fd)
{
    return is_left_out("data") ? 0 : (int)syscall(SYS_fdatasync, fd);
}
