/* fail_malloc.c - preloaded into warrend by tests/integration (agent_lib.sh): of the allocations of
 * its first thread, the one that a counter says fails.
 *
 * FAIL_MALLOC names a file of 4 bytes, a number in the host's order: while it is not 0 each
 * allocation takes one off, and the one that makes it 0 fails. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);

static _Atomic uint32_t *left;

__attribute__((constructor)) static void open_counter(void)
{
    const char *path = getenv("FAIL_MALLOC");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *page =
        fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *left, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (page != MAP_FAILED)
        left = page;
    if (fd >= 0)
        close(fd);
}

static bool fails(void)
{
    if (!left || *left == 0 || syscall(SYS_gettid) != getpid() || --*left != 0)
        return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size)
{
    return fails() ? NULL : __libc_malloc(size);
}

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): as in glibc */
void *calloc(size_t count, size_t size)
{
    return fails() ? NULL : __libc_calloc(count, size);
}

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): as in glibc */
void *realloc(void *memory, size_t size)
{
    return fails() ? NULL : __libc_realloc(memory, size);
}
