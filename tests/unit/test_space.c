/* What may be promised of a file system. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "storage/space.h"

#define GIB (1ull << 30)

static void promises_up_to_the_ratio_are_made(void **state)
{
    struct error err = { 0 };

    (void)state;
    assert_int_equal(space_admit(100 * GIB, 100, 60 * GIB, 40 * GIB, "f", &err), 0);
    assert_int_equal(space_admit(100 * GIB, 100, 60 * GIB, 40 * GIB + 1, "f", &err), -ENOSPC);
    assert_string_equal(err.field, "f");
    assert_non_null(strstr(err.message, "102400 MiB that may be promised"));
    assert_non_null(strstr(err.message, "61440 MiB are"));
    assert_int_equal(space_admit(100 * GIB, 250, 60 * GIB, 190 * GIB, "f", &err), 0);
    assert_int_equal(space_admit(100 * GIB, 250, 60 * GIB, 190 * GIB + 1, "f", &err), -ENOSPC);
    assert_int_equal(space_admit(100 * GIB, 50, 60 * GIB, 0, "f", &err), -ENOSPC);
}

static void sums_that_overflow_are_refused(void **state)
{
    (void)state;
    assert_int_equal(space_admit(100 * GIB, 100, 1, UINT64_MAX, "f", NULL), -ENOSPC);
    assert_int_equal(space_admit(100 * GIB, 100, UINT64_MAX, 1, "f", NULL), -ENOSPC);
    assert_int_equal(space_admit(UINT64_MAX, UINT64_MAX, UINT64_MAX, 1, "f", NULL), -ENOSPC);
    assert_int_equal(space_admit(UINT64_MAX, UINT64_MAX, 0, UINT64_MAX, "f", NULL), 0);
}

static void what_is_free_is_enough_or_not(void **state)
{
    (void)state;
    assert_int_equal(space_check_free(5, 5, NULL), 0);
    assert_int_equal(space_check_free(5, 6, NULL), -ENOSPC);
    assert_int_equal(space_check_free(0, UINT64_MAX, NULL), -ENOSPC);
}

static void the_file_system_is_measured(void **state)
{
    auto_close int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    uint64_t size = 0;
    uint64_t available = 0;

    (void)state;
    assert_int_equal(space_filesystem(fd, &size, &available, NULL), 0);
    assert_true(size > 0 && available <= size);
    assert_int_equal(space_filesystem(-1, &size, &available, NULL), -EBADF);
}

static void a_file_can_be_so_long_or_not(void **state)
{
    auto_close int fd = memfd_create("file", MFD_CLOEXEC);
    struct error err = { 0 };

    (void)state;
    assert_int_equal(space_check_length(fd, 4096, GIB, &err), 0);
    assert_int_equal(space_check_length(fd, INT64_MAX - GIB + 1, GIB, &err), -EFBIG);
    assert_string_equal(err.field, "spec.size_mib");
    assert_string_equal(err.message, "the file system has no files of 1024 MiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(promises_up_to_the_ratio_are_made),
        cmocka_unit_test(sums_that_overflow_are_refused),
        cmocka_unit_test(what_is_free_is_enough_or_not),
        cmocka_unit_test(the_file_system_is_measured),
        cmocka_unit_test(a_file_can_be_so_long_or_not),
    };

    return cmocka_run_group_tests_name("space", tests, NULL, NULL);
}
