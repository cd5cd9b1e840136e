/* open_fds.h - how many fds this process has, for tests of who closes what. */
#pragma once
#include <fcntl.h>

static inline int open_fds(void)
{
    int count = 0;

    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}
