/* test_hostile_jail.c - hostile guests, cases 23 and 24 of tests/HOSTILE.md: links, FIFOs and swaps
 * where the agent keeps a VM's files, and what a VMM inherits.  Needs root and warren-vmm beside
 * the tests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "agent/config.h"
#include "agent/jail.h"
#include "agent/jail_rings.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "tests/unit/jail_harness.h"
#include "vmm/stats_page.h"

#define SWAPS 3000

struct place {
    struct config config;
    struct jail *jail;
    char secret[CONFIG_PATH_MAX + 16]; /* a file beside the run directory's that nobody may touch */
};

static const char secret_text[] = "SECRET";

/* A page that would be believed, with the secret in it. */
static void write_secret(const struct place *p)
{
    static uint8_t bytes[VMM_PAGE_BYTES];
    struct stats_page *page = (struct stats_page *)bytes;
    auto_close int fd = open(p->secret, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    page->magic = STATS_PAGE_MAGIC;
    page->console_bytes = sizeof(secret_text);
    memcpy(page->exit_text, secret_text, sizeof(secret_text));
    memcpy(bytes + CONSOLE_OFFSET, secret_text, sizeof(secret_text));
    assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
}

static int place_set_up(void **state)
{
    struct place *p = calloc(1, sizeof *p);

    *state = p;
    p->config.uid_base = 951000;
    p->config.uid_count = 1000;
    strcpy(p->config.prefix, "uhh");
    strcpy(p->config.run_dir, "/tmp/warren-hostile-XXXXXX");
    if (!mkdtemp(p->config.run_dir))
        return -1;
    snprintf(p->secret, sizeof p->secret, "%s/secret", p->config.run_dir);
    if (geteuid() != 0 || !find_programs(p->config.libexec_dir))
        return 0;
    write_secret(p);
    return jail_new(&p->config, &p->jail, NULL);
}

static int place_tear_down(void **state)
{
    struct place *p = *state;
    char command[CONFIG_PATH_MAX + 16];

    if (p->jail)
        (void)jail_remove(p->jail, 7, NULL);
    jail_free(p->jail);
    for (int i = 0; i < 2; i++) {
        snprintf(command, sizeof command, "%s/uhh-vms",
                 i ? "/sys/fs/cgroup/unified" : "/sys/fs/cgroup");
        rmdir(command);
    }
    snprintf(command, sizeof command, "rm -rf %s", p->config.run_dir);
    free(p);
    return system(command);
}

static const char *const evils[] = {
    "ln -s ../../secret", "ln ../../secret",          "mkfifo", "mkdir",
    "ln -s /dev/zero",    "ln -s ../../../../../etc",
};
static const char *const names[] = { "page", "process", "process.new", "log", "control.sock" };

static void plant(const struct place *p, const char *how, const char *name)
{
    char command[4 * CONFIG_PATH_MAX];

    snprintf(command, sizeof command, "mkdir -p %s/vms/7 && cd %s/vms/7 && rm -rf %s && %s %s",
             p->config.run_dir, p->config.run_dir, name, how, name);
    assert_int_equal(system(command), 0);
}

static void assert_secret_is_safe(const struct place *p)
{
    struct stats_page page;
    struct stat status;
    auto_close int fd = open(p->secret, O_RDONLY | O_CLOEXEC);

    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_size, VMM_PAGE_BYTES);
    assert_int_equal(status.st_uid, 0);
    assert_int_equal(pread(fd, &page, sizeof page, 0), sizeof page);
    assert_string_equal(page.exit_text, secret_text);
}

/* Reading from what was planted neither waits nor shows what lies elsewhere. */
static void case_23_links_and_fifos_are_not_read(void **state)
{
    struct place *p = *state;
    struct process_identity identity = { .pid = 77 };
    struct stats_page page;
    char *bytes = NULL;
    size_t size = 0;

    if (!p->jail)
        skip();
    alarm(30); /* a FIFO that is waited for */
    for (size_t i = 0; i < ARRAY_LENGTH(evils); i++) {
        if (strncmp(evils[i], "ln .", 4) == 0)
            continue; /* a hard link made by root is root's own file */
        for (size_t k = 0; k < ARRAY_LENGTH(names); k++)
            plant(p, evils[i], names[k]);
        assert_true(jail_read_page(p->jail, 7, &page) < 0);
        assert_int_equal(page.exit_text[0], '\0');
        assert_int_equal(jail_read_console(p->jail, 7, 100, &bytes, &size, NULL), -EIO);
        assert_null(bytes);
        assert_int_equal(size, 0);
        assert_true(jail_identity(p->jail, 7, &identity, NULL) < 0);
        assert_int_equal(identity.pid, 77);
        assert_true(jail_connect(p->jail, 7, NULL) < 0);
    }
    alarm(0);
    assert_secret_is_safe(p);
}

static const struct jail_spec spec = { .hostname = "vm", .max_file_bytes = VMM_PAGE_BYTES };

static void end_and_keep_log(const struct place *p, struct jail_process *process)
{
    auto_close int log_fd = take_fd(&process->log_fd);

    end(process);
    jail_keep_log(p->jail, 7, log_fd);
}

/* Starting where something was planted: it starts with files of its own, or says why not. */
static void case_23_a_start_writes_through_no_link(void **state)
{
    struct place *p = *state;
    unsigned started = 0;

    if (!p->jail)
        skip();
    alarm(50);
    for (size_t i = 0; i < ARRAY_LENGTH(evils); i++) {
        for (size_t k = 0; k < ARRAY_LENGTH(names); k++) {
            struct jail_process process;
            struct error err = { 0 };

            plant(p, evils[i], names[k]);
            if (jail_start(p->jail, 7, &spec, &process, &err) == 0) {
                started++;
                end_and_keep_log(p, &process);
            } else {
                assert_true(err.message[0] != '\0');
            }
            assert_secret_is_safe(p);
            (void)jail_clean_up(p->jail, 7, NULL);
            plant(p, "touch", names[k]); /* nothing is left of it */
        }
    }
    alarm(0);
    assert_true(started >= 20);
}

struct swapper {
    const struct place *place;
    bool stop;
};

/* Two names for the page and for the directory, swapped for ever. */
static void *swap(void *context)
{
    struct swapper *swapper = context;
    char path[4][CONFIG_PATH_MAX + 32];
    static const char *const parts[] = { "vms/7/page", "vms/7/evil", "vms/7", "vms/evil" };

    for (int i = 0; i < 4; i++)
        snprintf(path[i], sizeof path[i], "%s/%s", swapper->place->config.run_dir, parts[i]);
    for (unsigned turn = 0; !__atomic_load_n(&swapper->stop, __ATOMIC_RELAXED); turn++) {
        (void)renameat2(AT_FDCWD, path[0], AT_FDCWD, path[1], RENAME_EXCHANGE);
        if (turn % 8 == 0)
            (void)renameat2(AT_FDCWD, path[2], AT_FDCWD, path[3], RENAME_EXCHANGE);
    }
    return NULL;
}

static void case_23_swap_races(void **state)
{
    struct place *p = *state;
    struct swapper swapper = { .place = p };
    char command[3 * CONFIG_PATH_MAX];
    struct stats_page page;
    unsigned good = 0, bad = 0;
    pthread_t thread;

    if (!p->jail)
        skip();
    plant(p, "ln -s ../../secret", "evil");
    snprintf(command, sizeof command,
             "cd %s && cp secret vms/7/page && printf 'AG2' | dd of=vms/7/page bs=1 seek=1 "
             "conv=notrunc 2>/dev/null && printf MINE__ | dd of=vms/7/page bs=1 seek=%zu "
             "conv=notrunc 2>/dev/null && mkdir other && cp secret other/page && ln -s ../other "
             "vms/evil",
             p->config.run_dir, offsetof(struct stats_page, exit_text));
    assert_int_equal(system(command), 0);
    assert_int_equal(pthread_create(&thread, NULL, swap, &swapper), 0);
    for (unsigned i = 0; i < SWAPS || (good == 0 && i < 1000 * SWAPS); i++) {
        if (jail_read_page(p->jail, 7, &page) == 0) {
            assert_string_equal(page.exit_text, "MINE__");
            good++;
        } else {
            assert_int_equal(page.exit_text[0], '\0');
            bad++;
        }
    }
    __atomic_store_n(&swapper.stop, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    print_message("read %u, refused %u\n", good, bad);
    assert_true(good > 0);
}

/* What an agent (or a library in it) opened without care does not reach a VMM. */
static void case_24_no_descriptor_is_inherited(void **state)
{
    struct place *p = *state;
    int careless[6], count = 0;
    struct jail_process process;
    char path[64], target[PATH_MAX];
    DIR *directory;
    struct dirent *entry;

    if (!p->jail)
        skip();
    careless[0] = open("/", O_RDONLY | O_DIRECTORY); /* none of them with CLOEXEC */
    careless[1] = open(p->secret, O_RDWR);
    careless[2] = open("/proc/self", O_PATH | O_DIRECTORY);
    careless[3] = socket(AF_UNIX, SOCK_STREAM, 0);
    careless[4] = dup2(careless[0], 200);
    careless[5] = memfd_create("careless", 0);
    assert_int_equal(jail_start(p->jail, 7, &spec, &process, NULL), 0);
    usleep(50000); /* it opens its own */
    snprintf(path, sizeof path, "/proc/%d/fd", process.pid);
    directory = opendir(path);
    assert_non_null(directory);
    while ((entry = readdir(directory))) {
        ssize_t length = readlinkat(dirfd(directory), entry->d_name, target, sizeof target - 1);

        if (length < 0)
            continue;
        target[length] = '\0';
        count++;
        if (strcmp(target, "/dev/null") != 0 && !strstr(target, "/vms/7/log") &&
            strncmp(target, "socket:", 7) != 0 && strncmp(target, "anon_inode:", 11) != 0)
            fail_msg("the VMM has fd %s: %s", entry->d_name, target);
    }
    closedir(directory);
    end_and_keep_log(p, &process);
    /* null, null, log, listener; rings and their events; two loops, connection */
    assert_in_range(count, 4, 10 + 2 * JAIL_RINGS_SPARE);
    for (size_t i = 0; i < ARRAY_LENGTH(careless); i++)
        close(careless[i]);
}

#define IN_A_PLACE(name) cmocka_unit_test_setup_teardown(name, place_set_up, place_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_PLACE(case_23_links_and_fifos_are_not_read),
        IN_A_PLACE(case_23_a_start_writes_through_no_link),
        IN_A_PLACE(case_23_swap_races),
        IN_A_PLACE(case_24_no_descriptor_is_inherited),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
