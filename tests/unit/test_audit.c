/* test_audit.c - every change has its entry, or a word in the log; and strangers are counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "api/access.h"
#include "api/audit.h"
#include "api/request.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "tests/unit/scratch.h"
#include "tests/unit/short_memory.h"

#define STRANGERS 25
#define FOUND_MAX (1u << 20)

struct fixture {
    char path[SCRATCH_PATH];
    struct loop *loop;
    struct log log;
    struct audit *audit;
    int dir_fd;
    unsigned answered;
    struct {
        unsigned entries, strangers, suppressed, not_there;
    } found;
};

/* The linker puts it in the place of calloc (Makefile). */
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
    return until_short > 0 && --until_short == 0 ? NULL : __real_calloc(count, size);
}

static struct {
    bool stops; /* each begins, and waits to be let go */
    sem_t begun, let_go;
    unsigned fail; /* which of the next fails, from 1 on; 0 = none */
} syncs;

/* And this one in that of fdatasync. */
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
    if (syncs.stops) {
        sem_post(&syncs.begun);
        sem_wait(&syncs.let_go);
    }
    if (syncs.fail == 0 || --syncs.fail > 0)
        return __real_fdatasync(fd);
    errno = EIO;
    return -1;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_true(scratch_make(f->path, "audit"));
    f->dir_fd = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    f->log = (struct log){ .fd = memfd_create("log", MFD_CLOEXEC), .name = "test" };
    assert_int_equal(loop_new(&f->loop, NULL), 0);
    assert_int_equal(audit_new(f->loop, &f->log, f->dir_fd, &f->audit, NULL), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    audit_free(f->audit);
    loop_free(f->loop);
    close(f->log.fd);
    close(f->dir_fd);
    scratch_remove(f->path);
    free(f);
    return 0;
}

static void answer(void *context)
{
    ((struct fixture *)context)->answered++;
}

static void change(struct fixture *f, enum caller_kind kind)
{
    char method[] = "PUT", path[] = "/v1/vms/web";
    struct request request = { .caller = { .kind = kind, .name = "" },
                               .method = method,
                               .path = path };

    audit_write(f->audit, &request, 201, answer, f);
}

/* Ends the audit log, and counts what is in it and in the log. */
static void look(struct fixture *f)
{
    char *text = __real_calloc(1, FOUND_MAX), *rest = text, *line;
    auto_close int fd = openat(f->dir_fd, AUDIT_NAME, O_RDONLY | O_CLOEXEC);

    f->audit = audit_free(f->audit);
    assert_true(read(fd, text, FOUND_MAX - 1) > 0);
    while ((line = strsep(&rest, "\n")) && *line) {
        json_t *entry = json_loads(line, 0, NULL);

        if (!entry)
            fail_msg("no JSON: %s", line);
        f->found.entries++;
        f->found.strangers +=
            strcmp(json_string_value(json_object_get(entry, "who")), "nobody") == 0;
        f->found.suppressed += (unsigned)json_integer_value(json_object_get(entry, "suppressed"));
        json_decref(entry);
    }
    memset(text, 0, FOUND_MAX);
    assert_true(pread(f->log.fd, text, FOUND_MAX - 1, 0) >= 0);
    for (rest = text; (rest = strstr(rest, "is not in the audit log")); rest++)
        f->found.not_there++;
    free(text);
}

/* Perhaps over the end of a second. */
static void strangers_are_counted(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < STRANGERS; i++)
        change(f, CALLER_NOBODY);
    change(f, CALLER_TOKEN);
    change(f, CALLER_TOKEN);
    look(f);
    assert_int_equal(f->answered, STRANGERS + 2);
    assert_in_range(f->found.strangers, AUDIT_STRANGERS, 2 * AUDIT_STRANGERS);
    assert_int_equal(f->found.strangers + f->found.suppressed, STRANGERS);
    assert_int_equal(f->found.entries, f->found.strangers + 2);
    assert_int_equal(f->found.not_there, 0);
}

static void nothing_is_lost_where_memory_is_short(void **state)
{
    struct fixture *f = *state;
    unsigned rounds = 0;
    bool fell_short;

    json_set_alloc_funcs(short_malloc, free);
    do {
        for (unsigned i = 0; i < STRANGERS; i++)
            change(f, CALLER_NOBODY);
        until_short = ++rounds;
        change(f, CALLER_TOKEN);
        fell_short = until_short == 0;
        until_short = 0;
    } while (fell_short);
    change(f, CALLER_TOKEN);
    json_set_alloc_funcs(malloc, free);
    look(f);
    assert_true(rounds > 10);
    assert_int_equal(f->answered, rounds * (STRANGERS + 1) + 1);
    assert_int_equal(f->found.not_there, rounds - 1);
    assert_int_equal(f->found.entries, f->found.strangers + 2);
    assert_int_equal(f->found.strangers + f->found.suppressed, rounds * STRANGERS);
}

/* The second of two that are answered together finds the file full, and what was written cannot be
 * synced before the next file is begun; to sync once more would succeed. */
static void what_a_full_file_lost_is_told(void **state)
{
    struct fixture *f = *state;
    struct stat status;
    char log[4096] = "";
    auto_close int fd = -1;
    off_t entry;

    change(f, CALLER_TOKEN);
    f->audit = audit_free(f->audit);
    assert_int_equal(fstatat(f->dir_fd, AUDIT_NAME, &status, 0), 0);
    entry = status.st_size;
    fd = openat(f->dir_fd, AUDIT_NAME, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "\n", 1, AUDIT_FILE_MAX - 2 * entry - entry / 2 - 1), 1);
    assert_int_equal(audit_new(f->loop, &f->log, f->dir_fd, &f->audit, NULL), 0);
    assert_int_equal(sem_init(&syncs.begun, 0, 0) | sem_init(&syncs.let_go, 0, 0), 0);
    syncs.stops = true;
    syncs.fail = 2;
    change(f, CALLER_TOKEN);
    sem_wait(&syncs.begun);
    change(f, CALLER_TOKEN);
    change(f, CALLER_TOKEN);
    for (unsigned i = 0; i < 10; i++)
        sem_post(&syncs.let_go);
    f->audit = audit_free(f->audit);
    syncs.stops = false;
    assert_int_equal(f->answered, 4);
    assert_true(pread(f->log.fd, log, sizeof(log) - 1, 0) > 0);
    assert_non_null(strstr(log, "not in it"));
    assert_non_null(strstr(strstr(log, "not in it") + 1, "not in it"));
    assert_int_equal(fstatat(f->dir_fd, AUDIT_NAME, &status, 0), 0);
    assert_int_equal(status.st_size, AUDIT_FILE_MAX - entry - entry / 2);
}

static void a_full_file_moves_all_by_one_and_the_oldest_goes(void **state)
{
    struct fixture *f = *state;
    const off_t full = AUDIT_FILE_MAX - 10;
    char name[32];
    struct stat status;

    f->audit = audit_free(f->audit);
    for (int i = 0; i < AUDIT_FILES; i++) { /* each has a size of its own */
        auto_close int fd = -1;

        snprintf(name, sizeof(name), i > 0 ? AUDIT_NAME ".%d" : AUDIT_NAME, i);
        fd = openat(f->dir_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_int_equal(pwrite(fd, "\n", 1, i > 0 ? i : full - 1), 1);
    }
    assert_int_equal(audit_new(f->loop, &f->log, f->dir_fd, &f->audit, NULL), 0);
    change(f, CALLER_TOKEN);
    f->audit = audit_free(f->audit);
    look(f);
    assert_int_equal(f->found.entries, 1);
    for (int i = 1; i <= AUDIT_FILES; i++) {
        snprintf(name, sizeof(name), AUDIT_NAME ".%d", i);
        if (i == AUDIT_FILES) {
            assert_int_equal(fstatat(f->dir_fd, name, &status, 0), -1);
            break;
        }
        assert_int_equal(fstatat(f->dir_fd, name, &status, 0), 0);
        assert_int_equal(status.st_size, i > 1 ? i : full);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(strangers_are_counted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_is_lost_where_memory_is_short, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_a_full_file_lost_is_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_full_file_moves_all_by_one_and_the_oldest_goes, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
