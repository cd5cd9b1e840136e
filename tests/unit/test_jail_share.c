/* test_jail_share.c - weights and caps as the kernel takes them, and hosts that keep none. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/jail_cgroup.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "tests/unit/scratch.h"

static void check_text(const struct jail_share *share, const char *device,
                       enum jail_share_file file, const char *wanted)
{
    char text[JAIL_SHARE_TEXT];

    jail_share_text(share, device, file, text);
    assert_string_equal(text, wanted);
}

static void what_is_not_capped_is_max(void **state)
{
    const struct jail_share share = { .cpu_weight = 100, .io_weight = 100 };

    (void)state;
    check_text(&share, "8:0", JAIL_SHARE_CPU_WEIGHT, "100");
    check_text(&share, "8:0", JAIL_SHARE_CPU_MAX, "max 100000");
    check_text(&share, "8:0", JAIL_SHARE_IO_WEIGHT, "default 100");
    check_text(&share, "8:0", JAIL_SHARE_IO_MAX, "8:0 rbps=max wbps=max riops=max wiops=max");
    check_text(&share, "", JAIL_SHARE_IO_MAX, "");
}

static void caps_are_as_the_kernel_takes_them(void **state)
{
    const uint64_t most = (UINT64_C(1) << 40) - 1;
    struct jail_share share = { .cpu_weight = JAIL_WEIGHT_MAX,
                                .io_weight = JAIL_WEIGHT_MAX,
                                .cpu_limit_percent = 150,
                                .io_limit = { .read_bytes = 1, .write_operations = 4 } };

    (void)state;
    check_text(&share, "8:0", JAIL_SHARE_CPU_WEIGHT, "10000");
    check_text(&share, "8:0", JAIL_SHARE_CPU_MAX, "150000 100000");
    check_text(&share, "8:0", JAIL_SHARE_IO_BFQ_WEIGHT, "default 1000");
    check_text(&share, "259:16", JAIL_SHARE_IO_MAX, "259:16 rbps=1 wbps=max riops=max wiops=4");
    share.cpu_limit_percent = JAIL_CPU_LIMIT_MAX;
    check_text(&share, "8:0", JAIL_SHARE_CPU_MAX, "102400000 100000");
    share.cpu_limit_percent = 1; /* the kernel takes 1,000 us at least */
    check_text(&share, "8:0", JAIL_SHARE_CPU_MAX, "1000 100000");
    share.io_limit = (struct jail_io_limit){ most, most, most, most };
    check_text(&share, "4095:1048575", JAIL_SHARE_IO_MAX,
               "4095:1048575 rbps=1099511627775 wbps=1099511627775 riops=1099511627775 "
               "wiops=1099511627775");
}

/* --- a directory that looks like a cgroup --- */

struct fixture {
    char dir[SCRATCH_PATH];
    struct jail_cgroup cgroup;
    struct error err;
};

static void write_file(const struct fixture *f, const char *name, const char *text)
{
    auto_close int fd = openat(f->cgroup.fd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void check_file(const struct fixture *f, const char *name, const char *wanted)
{
    auto_close int fd = openat(f->cgroup.fd, name, O_RDONLY);
    char text[JAIL_SHARE_TEXT] = "";

    assert_true(fd >= 0);
    assert_true(read(fd, text, sizeof text - 1) >= 0);
    assert_string_equal(text, wanted);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_true(scratch_make(f->dir, "share"));
    f->cgroup.fd = open(f->dir, O_RDONLY | O_DIRECTORY);
    assert_int_equal(mkdirat(f->cgroup.fd, "7", 0700), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    close(f->cgroup.fd);
    assert_int_equal(scratch_remove(f->dir), 0);
    free(f);
    return 0;
}

static void who_ran_out_of_memory_is_counted(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(jail_cgroup_oom_kills(&f->cgroup, 7), 0); /* there is no such file */
    write_file(f, "7/memory.events", "low 5\nhigh 4\nmax 3\noom 2\noom_kill 0\noom_group_kill 1\n");
    assert_int_equal(jail_cgroup_oom_kills(&f->cgroup, 7), 0);
    write_file(f, "7/memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\noom_group_kill 0\n");
    assert_int_equal(jail_cgroup_oom_kills(&f->cgroup, 7), 1);
    assert_int_equal(jail_cgroup_oom_kills(&f->cgroup, 8), 0);
}

static void what_is_held_in_ram_is_counted(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(jail_cgroup_held_bytes(&f->cgroup, 7), 0);
    write_file(f, "7/memory.stat",
               "anon 4096\nfile 70000\nkernel 5\nkernel_stack 6\npagetables 7\n"
               "sec_pagetables 8\npercpu 9\nsock 1\nvmalloc 2\nshmem 8192\nzswap 3\n"
               "file_mapped 70000\nanon_thp 11\nshmem_thp 12\n");
    assert_int_equal(jail_cgroup_held_bytes(&f->cgroup, 7), 3 * 4096);
    assert_int_equal(jail_cgroup_held_bytes(&f->cgroup, 8), 0);
}

static void a_cap_that_is_not_kept_is_refused(void **state)
{
    struct fixture *f = *state;
    struct jail_share share = { .cpu_weight = 5, .io_weight = 5 };

    write_file(f, "cgroup.subtree_control", "cpuset memory pids\n");
    assert_int_equal(jail_cgroup_controllers(&f->cgroup), /* and cpuset is not cpu */
                     JAIL_CONTROLLER_MEMORY | JAIL_CONTROLLER_PIDS);
    assert_int_equal(jail_share_check(&f->cgroup, &share, &f->err), 0);
    share.cpu_limit_percent = 50;
    assert_int_equal(jail_share_check(&f->cgroup, &share, &f->err), -ENOEXEC);
    assert_string_equal(f->err.field, "cpu_limit_percent");
    assert_int_equal(jail_share_write(&f->cgroup, 7, &share, &f->err), -ENOEXEC);
    share.cpu_limit_percent = 0;
    share.io_limit.read_bytes = 1;
    assert_int_equal(jail_share_check(&f->cgroup, &share, &f->err), -ENOEXEC);
    assert_string_equal(f->err.field, "io_limit");
    write_file(f, "cgroup.subtree_control", "cpu io\n");
    assert_int_equal(jail_share_check(&f->cgroup, &share, &f->err), -ENOEXEC); /* of which disk? */
    strcpy(f->cgroup.io_device, "8:0");
    assert_int_equal(jail_share_check(&f->cgroup, &share, &f->err), 0);
}

static void what_the_host_has_is_written(void **state)
{
    struct fixture *f = *state;
    const struct jail_share share = { .cpu_weight = 5, .io_weight = 6, .cpu_limit_percent = 50 };

    write_file(f, "cgroup.subtree_control", "cpu\n");
    write_file(f, "7/cpu.weight", "");
    write_file(f, "7/cpu.max", "");
    write_file(f, "7/io.weight", "");
    assert_int_equal(jail_share_write(&f->cgroup, 7, &share, &f->err), 0);
    check_file(f, "7/cpu.weight", "5");
    check_file(f, "7/cpu.max", "50000 100000");
    check_file(f, "7/io.weight", ""); /* without the controller it is not asked */
    assert_int_equal(unlinkat(f->cgroup.fd, "7/cpu.max", 0), 0);
    assert_int_equal(jail_share_write(&f->cgroup, 7, &share, &f->err), -ENOENT);
    write_file(f, "7/cpu.max", "");
    assert_int_equal(unlinkat(f->cgroup.fd, "7/cpu.weight", 0), 0);
    assert_int_equal(jail_share_write(&f->cgroup, 7, &share, &f->err), 0); /* a weight may fail */
}

static void only_disks_are_limited(void **state)
{
    char device[JAIL_IO_DEVICE_TEXT], later[JAIL_IO_DEVICE_TEXT], path[SCRATCH_PATH + 32];
    unsigned major, minor;

    (void)state;
    jail_share_device("/proc", device);
    assert_string_equal(device, "");
    jail_share_device("/", device);
    jail_share_device("/nowhere/yet", later);
    assert_string_equal(later, device);
    if (sscanf(device, "%u:%u", &major, &minor) == 2) { /* the root may be an overlay */
        snprintf(path, sizeof path, "/sys/dev/block/%u:%u/partition", major, minor);
        assert_int_equal(access(path, F_OK), -1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_capped_is_max),
        cmocka_unit_test(caps_are_as_the_kernel_takes_them),
        cmocka_unit_test_setup_teardown(who_ran_out_of_memory_is_counted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_held_in_ram_is_counted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_cap_that_is_not_kept_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_the_host_has_is_written, set_up, tear_down),
        cmocka_unit_test(only_disks_are_limited),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
