/* test_jail_cgroup.c - the group that all VMs' control groups are in: who makes it, who removes it,
 * and what becomes of it when others do.  Needs root and warren-vmm beside the tests, as
 * test_jail.c. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "agent/config.h"
#include "agent/jail.h"
#include "agent/jail_cgroup.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "tests/unit/jail_harness.h"

static void the_cgroups_parent_goes_when_it_is_empty(void **state)
{
    struct fixture *f = need_jail(state);
    struct jail_cgroup cgroup, other;
    auto_close int leaf = -1;

    assert_int_equal(jail_cgroup_open(&cgroup, "", "ujm", &f->err), 0);
    if (cgroup.fd < 0)
        skip();
    assert_int_equal(jail_cgroup_make(&cgroup, 5, &leaf, &f->err), 0);
    jail_cgroup_close(&cgroup);
    assert_int_equal(cgroup.fd, -1);

    assert_int_equal(jail_cgroup_open(&cgroup, "", "ujm", &f->err), 0);
    assert_int_equal(faccessat(cgroup.fd, "5", F_OK, 0), 0); /* it was kept for its VM */
    assert_int_equal(jail_cgroup_remove(&cgroup, 5, &f->err), 0);
    assert_int_equal(jail_cgroup_open(&other, "", "ujm", &f->err), 0);
    assert_int_equal(jail_cgroup_check_there(&other, &f->err), 0);
    assert_int_equal(access(cgroup.own, F_OK), 0);
    jail_cgroup_close(&cgroup);
    assert_int_equal(access(cgroup.own, F_OK), -1);
    assert_int_equal(jail_cgroup_check_there(&other, &f->err), -EAGAIN);
    jail_cgroup_close(&other);

    /* One that was given is its owner's. */
    assert_int_equal(mkdir(cgroup.own, 0755), 0);
    assert_int_equal(jail_cgroup_open(&other, cgroup.own, "ujm", &f->err), 0);
    jail_cgroup_close(&other);
    assert_int_equal(rmdir(cgroup.own), 0);
}

static bool has_leaf(const char *parent, const char *name)
{
    char path[700];

    snprintf(path, sizeof path, "%s/%s/cgroup.procs", parent, name);
    return access(path, F_OK) == 0;
}

/* By somebody else, while the agent has it open. */
static void one_that_was_removed_is_made_anew(void **state)
{
    struct fixture *f = need_jail(state);
    struct jail_cgroup cgroup = { .fd = -1 }, other = { .fd = -1 };
    int leaf = -1;
    int fd;

    f->jail = jail_free(f->jail);
    assert_int_equal(jail_cgroup_take(&cgroup, &f->config, &f->err), 0);
    if (cgroup.fd < 0)
        skip();
    fd = cgroup.fd;
    assert_int_equal(jail_cgroup_renew(&cgroup, &f->config, &f->err), 0); /* it is there */
    assert_int_equal(rmdir(cgroup.own), 0);
    assert_int_equal(jail_cgroup_make(&cgroup, 5, &leaf, &f->err), -EAGAIN);
    assert_non_null(strstr(f->err.message, "was removed"));
    cgroup.controllers |= 1u << 31; /* as if it had had one more */
    assert_int_equal(jail_cgroup_renew(&cgroup, &f->config, &f->err), -EBUSY);
    assert_int_equal(access(cgroup.own, F_OK), -1);
    cgroup.controllers &= ~(1u << 31);
    assert_int_equal(jail_cgroup_renew(&cgroup, &f->config, &f->err), 0);
    assert_int_equal(cgroup.fd, fd); /* for those who have its number */
    assert_int_equal(jail_cgroup_check_there(&cgroup, &f->err), 0);
    assert_int_equal(jail_cgroup_make(&cgroup, 5, &leaf, &f->err), 0);
    close(leaf);
    assert_true(has_leaf(cgroup.own, "5"));
    assert_true(jail_cgroup_take(&other, &f->config, &f->err) < 0); /* it is ours alone */
    assert_string_equal(f->err.field, "prefix");
    jail_cgroup_close(&other);
    assert_int_equal(jail_cgroup_remove(&cgroup, 5, &f->err), 0);
    jail_cgroup_close(&cgroup);
    assert_int_equal(access(cgroup.own, F_OK), -1);
}

static void one_that_was_given_is_its_owners_to_make(void **state)
{
    struct fixture *f = need_jail(state);
    struct jail_cgroup cgroup = { .fd = -1 };
    char path[sizeof cgroup.own];

    assert_int_equal(jail_cgroup_open(&cgroup, "", "ujn", &f->err), 0);
    if (cgroup.fd < 0)
        skip();
    memcpy(path, cgroup.own, sizeof path);
    cgroup.own[0] = '\0';
    jail_cgroup_close(&cgroup);
    assert_in_range(snprintf(f->config.cgroup, sizeof f->config.cgroup, "%s", path), 1,
                    sizeof f->config.cgroup - 1);
    assert_int_equal(jail_cgroup_take(&cgroup, &f->config, &f->err), 0);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(jail_cgroup_renew(&cgroup, &f->config, &f->err), -ENOENT);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(jail_cgroup_check_there(&cgroup, &f->err), -EAGAIN);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(jail_cgroup_renew(&cgroup, &f->config, &f->err), 0);
    assert_int_equal(jail_cgroup_check_there(&cgroup, &f->err), 0);
    jail_cgroup_close(&cgroup);
    assert_int_equal(rmdir(path), 0);
}

/* Where else the agent would make it again and again, as one that others always remove. */
static void a_cgroup_is_in_the_hierarchy(void **state)
{
    struct fixture *f = need_jail(state);
    char *path = f->config.cgroup;

    f->jail = jail_free(f->jail);
    assert_in_range(snprintf(path, sizeof f->config.cgroup, "%s/group", f->config.run_dir), 1,
                    sizeof f->config.cgroup - 1);
    assert_int_equal(jail_new(&f->config, &f->jail, &f->err), -EINVAL);
    assert_string_equal(f->err.field, "cgroup");
    assert_non_null(strstr(f->err.message, path));
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(jail_cgroup_check("/none-such", &f->err), -EINVAL);
    assert_int_equal(access("/none-such", F_OK), -1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_cgroups_parent_goes_when_it_is_empty),
        TEST(one_that_was_removed_is_made_anew),
        TEST(one_that_was_given_is_its_owners_to_make),
        TEST(a_cgroup_is_in_the_hierarchy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
