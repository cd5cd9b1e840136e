#include "scheduler/memory_pressure.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/path.h"

#define PRESSURE_FILE "/proc/pressure/memory"

/* us of us.  Who lacks CAP_SYS_RESOURCE may have windows of 2 s only, since Linux 6.5. */
static const char *const triggers[] = { "some 150000 1000000", "some 300000 2000000" };

/* "Name:   N kB" */
static int find_mib(const char *text, const char *name, uint64_t *ret_mib)
{
    const char *found = strstr(text, name);

    if (!found)
        return -EIO;
    *ret_mib = strtoull(found + strlen(name), NULL, 10) >> 10;
    return 0;
}

/* "some avg10=1.23 avg60=..." */
uint32_t memory_pressure_permille(const char *text)
{
    unsigned whole, hundredths;

    if (sscanf(text, "some avg10=%3u.%2u", &whole, &hundredths) != 2 || whole > 100)
        return 0;
    return whole * 10 + hundredths / 10;
}

int memory_pressure_read(struct memory_pressure *ret_pressure, struct error *err)
{
    struct memory_pressure pressure;
    char text[4096];
    int result = path_read_text(AT_FDCWD, "/proc/meminfo", text, sizeof text);

    if (result == 0)
        result = find_mib(text, "\nMemAvailable:", &pressure.available_mib);
    if (result == 0)
        result = find_mib(text, "\nSwapTotal:", &pressure.swap_mib);
    if (result == 0)
        result = find_mib(text, "\nSwapFree:", &pressure.swap_free_mib);
    if (result < 0)
        return error_set(err, -result, "read /proc/meminfo: %s", strerror(-result));
    pressure.psi_permille = path_read_text(AT_FDCWD, PRESSURE_FILE, text, sizeof text) < 0
                                ? 0
                                : memory_pressure_permille(text);
    *ret_pressure = pressure;
    return 0;
}

int memory_pressure_trigger(void)
{
    auto_close int fd = open(PRESSURE_FILE, O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return -errno;
    for (size_t i = 0; i < ARRAY_LENGTH(triggers); i++)
        if (write(fd, triggers[i], strlen(triggers[i]) + 1) >= 0)
            return take_fd(&fd);
    return -errno;
}

uint32_t memory_resident_mib(pid_t pid, bool with_files)
{
    unsigned long long size, resident, files;
    char path[40], text[128];

    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    if (pid <= 0 || path_read_text(AT_FDCWD, path, text, sizeof text) < 0 ||
        sscanf(text, "%llu %llu %llu", &size, &resident, &files) != 3)
        return 0;
    if (!with_files)
        resident -= files;
    return (uint32_t)(resident * (unsigned long long)sysconf(_SC_PAGESIZE) >> 20);
}
