/* test_host_memory.c - what a host does with memory, read of made-up hosts; and that VMs' cgroup
 * keeps zswap from writing to disks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "agent/host_memory.h"
#include "agent/jail_cgroup.h"
#include "base/cleanup.h"
#include "tests/unit/scratch.h"

static int set_up(void **state)
{
    char root[SCRATCH_PATH];

    *state = scratch_make(root, "host-memory") ? strdup(root) : NULL;
    return *state ? 0 : -1;
}

static int tear_down(void **state)
{
    int result = scratch_remove(*state);

    free(*state);
    return result;
}

/* The file and all directories above it. */
static void put(const char *root, const char *name, const char *text)
{
    char path[256];
    auto_close int fd = -1;

    snprintf(path, sizeof path, "%s%s", root, name);
    for (char *slash = strchr(path + strlen(root) + 1, '/'); slash;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0755);
        *slash = '/';
    }
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void swaps(const char *root, const char *lines)
{
    char text[1024];

    snprintf(text, sizeof text, "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n%s", lines);
    put(root, "/proc/swaps", text);
}

static void a_bare_host_has_nothing(void **state)
{
    struct host_memory memory = host_memory_read(*state);

    assert_false(memory.ksm_runs || memory.zswap);
    for (int kind = 0; kind < SWAP_KIND_COUNT; kind++)
        assert_int_equal(memory.swap_mib[kind], 0);
    assert_string_equal(memory.disk, "");
    swaps(*state, "");
    assert_string_equal(host_memory_read(*state).disk, "");
}

static void ksm_and_zswap_are_seen(void **state)
{
    static const struct {
        const char *run, *zswap;
        bool ksm_runs, has_zswap;
    } cases[] = {
        { "0\n", "N\n", false, false },
        { "1\n", "Y\n", true, true },
        { "2\n", "N\n", false, false }, /* all was unmerged */
        { "", "", false, false },
    };

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct host_memory memory;

        put(*state, "/sys/kernel/mm/ksm/run", cases[i].run);
        put(*state, "/sys/module/zswap/parameters/enabled", cases[i].zswap);
        memory = host_memory_read(*state);
        assert_int_equal(memory.ksm_runs, cases[i].ksm_runs);
        assert_int_equal(memory.zswap, cases[i].has_zswap);
    }
}

static void swap_is_of_three_kinds(void **state)
{
    struct host_memory memory;

    put(*state, "/sys/block/dm-1/dm/uuid", "CRYPT-PLAIN-swap\n");
    put(*state, "/sys/block/dm-2/dm/uuid", "LVM-abc\n"); /* on a volume of dm-1 */
    put(*state, "/sys/block/dm-2/slaves/dm-1/x", "");
    put(*state, "/sys/block/dm-3/dm/uuid", "LVM-def\n"); /* on dm-1 and a bare disk */
    put(*state, "/sys/block/dm-3/slaves/dm-1/x", "");
    put(*state, "/sys/block/dm-3/slaves/sda2/x", "");
    swaps(*state, "/dev/zram0 partition 1048572 0 100\n"
                  "/dev/dm-1 partition 2097152 0 -2\n"
                  "/dev/dm-2 partition 1024 0 -3\n"
                  "/dev/dm-3 partition 3072 0 -4\n"
                  "/swap\\040file file 4096 0 -5\n");
    memory = host_memory_read(*state);
    assert_int_equal(memory.swap_mib[SWAP_ZRAM], 1023);
    assert_int_equal(memory.swap_mib[SWAP_ENCRYPTED], 2049);
    assert_int_equal(memory.swap_mib[SWAP_DISK], 7);
    assert_string_equal(memory.disk, "/dev/dm-3");
}

static void names_prove_nothing(void **state)
{
    struct host_memory memory;

    /* A file of that name, a path that leaves /sys, a loop of devices. */
    put(*state, "/sys/block/dm-1/dm/uuid", "x\n");
    put(*state, "/sys/block/dm-1/slaves/dm-1/x", "");
    swaps(*state, "/dev/zram0 file 1024 0 -2\n/dev/../dm-1 partition 1024 0 -2\n"
                  "/dev/dm-1 partition 1024 0 -2\nnonsense\n\n/dev/sda partition -1\n");
    memory = host_memory_read(*state);
    assert_int_equal(memory.swap_mib[SWAP_ZRAM] + memory.swap_mib[SWAP_ENCRYPTED], 0);
    assert_int_equal(memory.swap_mib[SWAP_DISK], 3);
}

/* The host has 1000 MiB. */
static void what_swap_has_room_for(void **state)
{
    static const struct {
        uint64_t swap_mib, zram_mib;
        bool zswap, keeps;
        uint64_t percent, held_mib, taken_mib;
    } cases[] = {
        { .swap_mib = 0 },
        { .swap_mib = 3000, .held_mib = 3000 },
        /* Before a disk: the pool takes of memory what the disk has its place for. */
        { 3000, 0, true, false, 20, 3000, 200 },
        { 300, 0, true, false, 20, 300, 150 },
        { 3000, 1000, true, false, 20, 3000, 700 },
        { .swap_mib = 3000, .keeps = true, .percent = 20, .held_mib = 3000 },
        /* Nothing goes to the disk: the pool, twice, of which once in memory. */
        { 3000, 0, true, true, 20, 400, 200 },
        { 300, 0, true, true, 20, 300, 150 },
        { 3000, 0, true, true, 0, 0, 0 },
        { 3000, 500, true, true, 20, 400, 200 },
        { .swap_mib = 3000, .zram_mib = 1000, .held_mib = 3000, .taken_mib = 500 },
        { .swap_mib = 1000, .zram_mib = 1000, .held_mib = 1000, .taken_mib = 500 },
        { .swap_mib = 10,
          .zram_mib = 1000,
          .held_mib = 10,
          .taken_mib = 5 }, /* swapped off since */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        struct host_memory memory = { .zswap = cases[i].zswap, .zswap_percent = cases[i].percent };
        struct swap_room room;

        memory.swap_mib[SWAP_ZRAM] = cases[i].zram_mib;
        room = host_memory_swap_room(&memory, 1000, cases[i].swap_mib, cases[i].keeps);
        assert_int_equal(room.held_mib, cases[i].held_mib);
        assert_int_equal(room.taken_mib, cases[i].taken_mib);
    }
}

static void zswaps_pool_is_a_share(void **state)
{
    static const struct {
        const char *text;
        uint64_t percent;
    } cases[] = { { "20\n", 20 }, { "", 0 }, { "nonsense", 0 }, { "99999999999999999999", 100 } };

    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        put(*state, "/sys/module/zswap/parameters/max_pool_percent", cases[i].text);
        assert_int_equal(host_memory_read(*state).zswap_percent, cases[i].percent);
    }
}

static void zswap_is_kept_from_disks(void **state)
{
    struct jail_cgroup cgroup;
    char path[256], text[8] = "";
    auto_close int fd = -1, leaf_fd = -1;

    snprintf(path, sizeof path, "%s/vms", (char *)*state);
    put(*state, "/vms/memory.zswap.writeback", "1\n");
    assert_int_equal(jail_cgroup_open(&cgroup, path, "x", NULL), 0);
    assert_true(jail_cgroup_keeps_zswap(&cgroup));
    fd = openat(cgroup.fd, "memory.zswap.writeback", O_RDONLY);
    assert_true(read(fd, text, sizeof text - 1) > 0);
    assert_int_equal(text[0], '0');
    cleanup_close(&fd);
    /* A VM's own too, for systemd 256 sets that of a unit's group anew whenever it is reloaded. */
    put(*state, "/vms/7/memory.zswap.writeback", "1\n");
    assert_int_equal(jail_cgroup_make(&cgroup, 7, &leaf_fd, NULL), 0);
    fd = openat(leaf_fd, "memory.zswap.writeback", O_RDONLY);
    assert_true(read(fd, text, sizeof text - 1) > 0);
    assert_int_equal(text[0], '0');
    put(*state, "/vms/memory.zswap.writeback", "1\n"); /* by an operator, since */
    assert_false(jail_cgroup_keeps_zswap(&cgroup));
    assert_int_equal(unlinkat(cgroup.fd, "memory.zswap.writeback", 0), 0);
    assert_false(jail_cgroup_keeps_zswap(&cgroup)); /* an older kernel */
    jail_cgroup_close(&cgroup);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_bare_host_has_nothing), TEST(ksm_and_zswap_are_seen),   TEST(swap_is_of_three_kinds),
        TEST(names_prove_nothing),     TEST(zswap_is_kept_from_disks), TEST(what_swap_has_room_for),
        TEST(zswaps_pool_is_a_share),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
