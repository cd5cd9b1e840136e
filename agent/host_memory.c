#include "agent/host_memory.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/path.h"

#define DEPTH_MAX 4 /* of what a device stands on */

const char *const swap_kind_names[SWAP_KIND_COUNT] = {
    [SWAP_ZRAM] = "zram",
    [SWAP_ENCRYPTED] = "encrypted",
    [SWAP_DISK] = "disk",
};

/* "" if there is no such file. */
static void read_word(const char *root, const char *name, char ret_text[16])
{
    char path[PATH_MAX];

    snprintf(path, sizeof path, "%s%s", root, name);
    if (path_read_text(AT_FDCWD, path, ret_text, 16) < 0)
        ret_text[0] = '\0';
}

static bool begins_with(const char *root, const char *name, char first)
{
    char text[16];

    read_word(root, name, text);
    return text[0] == first;
}

static uint64_t read_percent(const char *root, const char *name)
{
    char text[16];
    unsigned long percent;

    read_word(root, name, text);
    percent = strtoul(text, NULL, 10);
    return percent < 100 ? percent : 100;
}

/* dm-crypt, or all that it stands on is: a volume of LVM on it, say.  device: below /sys/block. */
static bool is_encrypted(const char *root, const char *device, int depth)
{
    char path[PATH_MAX], uuid[16] = "";
    const struct dirent *entry;
    unsigned count = 0;
    bool all = true;
    DIR *slaves;

    snprintf(path, sizeof path, "%s/sys/block/%s/dm/uuid", root, device);
    if (path_read_text(AT_FDCWD, path, uuid, sizeof uuid) == 0 && strncmp(uuid, "CRYPT-", 6) == 0)
        return true;
    snprintf(path, sizeof path, "%s/sys/block/%s/slaves", root, device);
    slaves = depth < DEPTH_MAX ? opendir(path) : NULL;
    if (!slaves)
        return false;
    while ((entry = readdir(slaves)))
        if (entry->d_name[0] != '.') {
            count++;
            all = all && is_encrypted(root, entry->d_name, depth + 1);
        }
    closedir(slaves);
    return count > 0 && all;
}

static enum swap_kind kind_of(const char *root, const char *name, const char *type)
{
    if (strcmp(type, "partition") != 0 || strncmp(name, "/dev/", 5) != 0)
        return SWAP_DISK;
    name += 5;
    if (strncmp(name, "zram", 4) == 0)
        return SWAP_ZRAM;
    return !strchr(name, '/') && is_encrypted(root, name, 0) ? SWAP_ENCRYPTED : SWAP_DISK;
}

/* Lines of "/dev/sda2 partition 1048572 0 -2", in KiB, below one of headings. */
static void read_swaps(const char *root, struct host_memory *memory)
{
    uint64_t kib[SWAP_KIND_COUNT] = { 0 };
    char path[PATH_MAX], text[4096], name[64], type[16];
    unsigned long long size;
    char *line, *rest = text;

    snprintf(path, sizeof path, "%s/proc/swaps", root);
    if (path_read_text(AT_FDCWD, path, text, sizeof text) < 0)
        return;
    while ((line = strsep(&rest, "\n"))) {
        enum swap_kind kind;

        if (sscanf(line, "%63s%*[^ \t] %15s %llu", name, type, &size) != 3 &&
            sscanf(line, "%63s %15s %llu", name, type, &size) != 3)
            continue;
        if (size > 1ull << 40)
            continue; /* nonsense */
        kind = kind_of(root, name, type);
        kib[kind] += size;
        if (kind == SWAP_DISK && !memory->disk[0])
            snprintf(memory->disk, sizeof memory->disk, "%s", name);
    }
    for (int kind = 0; kind < SWAP_KIND_COUNT; kind++)
        memory->swap_mib[kind] = kib[kind] >> 10;
}

struct host_memory host_memory_read(const char *root)
{
    struct host_memory memory = {
        .ksm_runs = begins_with(root, "/sys/kernel/mm/ksm/run", '1'),
        .zswap = begins_with(root, "/sys/module/zswap/parameters/enabled", 'Y'),
        .zswap_percent = read_percent(root, "/sys/module/zswap/parameters/max_pool_percent"),
    };

    read_swaps(root, &memory);
    return memory;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

struct swap_room host_memory_swap_room(const struct host_memory *memory, uint64_t host_mib,
                                       uint64_t swap_mib, bool keeps_zswap)
{
    uint64_t pooled = memory->zswap ? 2 * (host_mib * memory->zswap_percent / 100) : 0;
    uint64_t held = memory->zswap && keeps_zswap ? least(swap_mib, pooled) : swap_mib;

    return (struct swap_room){
        .held_mib = held,
        .taken_mib = least(held, pooled + memory->swap_mib[SWAP_ZRAM]) / 2,
    };
}
