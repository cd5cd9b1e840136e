/* test_config.c - flags over file over defaults, and what is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "agent/config.h"
#include "base/cleanup.h"
#include "base/error.h"

#define ARGUMENTS_MAX 32

struct parsed {
    struct config config;
    enum config_wish wish;
    struct error err;
};

/* "--a b" split at blanks. */
static int parse(const char *line, struct parsed *ret_parsed)
{
    char text[2048];
    char *argv[ARGUMENTS_MAX] = { (char *)"warrend" };
    char *rest = NULL;
    int argc = 1;

    *ret_parsed = (struct parsed){ 0 };
    snprintf(text, sizeof text, "%s", line);
    for (char *word = strtok_r(text, " ", &rest); word && argc < ARGUMENTS_MAX - 1;
         word = strtok_r(NULL, " ", &rest))
        argv[argc++] = word;
    return config_parse(argc, argv, &ret_parsed->config, &ret_parsed->wish, &ret_parsed->err);
}

/* --config of a new file with that text, then more flags. */
static int parse_file(const char *text, const char *more, struct parsed *ret_parsed)
{
    char path[] = "/tmp/warren-config-XXXXXX";
    int fd = mkstemp(path);
    char line[256];
    int result;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    snprintf(line, sizeof line, "--config %s %s", path, more);
    result = parse(line, ret_parsed);
    unlink(path);
    return result;
}

static void nothing_given_means_the_defaults(void **state)
{
    struct parsed p;

    (void)state;
    assert_int_equal(parse("", &p), 0);
    assert_int_equal(p.wish, CONFIG_RUN);
    assert_string_equal(p.config.state_dir, "/var/lib/warren");
    assert_string_equal(p.config.run_dir, "/run/warren");
    assert_int_equal(p.config.import_dirs.count, 1);
    assert_string_equal(p.config.import_dirs.paths[0], "/var/lib/warren/import");
    assert_int_equal(p.config.vsock_dirs.count, 1);
    assert_string_equal(p.config.vsock_dirs.paths[0], "/run/warren/vsock");
    assert_string_equal(p.config.prefix, "wrn");
    assert_int_equal(p.config.memory_ratio_percent, 100);
    assert_int_equal(p.config.import_speed_limit, 16);
    assert_int_equal(p.config.import_speed_time, 60);
    assert_false(p.config.debug);
}

static void flags_have_two_forms(void **state)
{
    struct parsed p;

    (void)state;
    assert_int_equal(
        parse("--state-dir /s --run-dir=/r --prefix ab1 --debug --uid-base=2000 "
              "--import-dir /a --import-dir=/b --vsock-dir /v --allow-private-urls=false",
              &p),
        0);
    assert_string_equal(p.config.state_dir, "/s");
    assert_string_equal(p.config.run_dir, "/r");
    assert_string_equal(p.config.prefix, "ab1");
    assert_true(p.config.debug);
    assert_false(p.config.allow_private_urls);
    assert_int_equal(p.config.uid_base, 2000);
    assert_int_equal(p.config.import_dirs.count, 2);
    assert_string_equal(p.config.import_dirs.paths[1], "/b");
    assert_int_equal(p.config.vsock_dirs.count, 1);
    assert_string_equal(p.config.vsock_dirs.paths[0], "/v");
}

static void what_is_wrong_is_refused(void **state)
{
    static const char *const bad[] = {
        "state-dir /s",
        "--state-dir",
        "--state-dir relative",
        "--nonsense 1",
        "--prefix Abc",
        "--prefix 1ab",
        "--prefix abcde",
        "--prefix=",
        "--prefix a-b",
        "--uid-base 0",
        "--uid-base 10x",
        "--uid-base 99999999999",
        "--uid-base -5",
        "--uid-base 0x3e8",
        "--uid-base +2000",
        "--uid-base=\t2000",
        "--debug=yes",
        "--memory-balancer o",
        "--memory-balancer ''",
        "--memory-balancer auto|off",
        "--uid-count 63",
        "--config /absent",
        "--memory-ratio-percent 0",
        "--disk-ratio-percent=",
        "--socket-group=",
        "--import-speed-limit -1",
        "--import-speed-time 0",
        "extra",
    };
    struct parsed p;

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        if (parse(bad[i], &p) >= 0)
            fail_msg("taken: %s", bad[i]);
        assert_true(p.err.message[0] != '\0');
        assert_string_equal(p.config.prefix, ""); /* untouched */
    }
}

static void paths_and_counts_have_limits(void **state)
{
    char line[2000] = "--state-dir /";
    struct parsed p;

    (void)state;
    memset(line + strlen(line), 'x', CONFIG_PATH_MAX - 2);
    assert_int_equal(parse(line, &p), 0);
    strcat(line, "x");
    assert_int_equal(parse(line, &p), -EINVAL);
    line[0] = '\0';
    for (int i = 0; i < CONFIG_DIRS_MAX; i++)
        strcat(line, "--import-dir=/x ");
    assert_int_equal(parse(line, &p), 0);
    strcat(line, "--import-dir=/x");
    assert_int_equal(parse(line, &p), -EINVAL);
}

static void a_file_says_the_same_as_flags(void **state)
{
    struct parsed p;

    (void)state;
    assert_int_equal(parse_file("# a comment\n\n  prefix = fil  \nstate-dir=/from/file\nimport-dir "
                                "= /f1\nimport-dir = /f2\n"
                                "debug = true\nmemory-reserve-mib = 100",
                                "", &p),
                     0);
    assert_string_equal(p.config.prefix, "fil");
    assert_string_equal(p.config.state_dir, "/from/file");
    assert_int_equal(p.config.import_dirs.count, 2);
    assert_true(p.config.debug);
    assert_int_equal(p.config.memory_reserve_mib, 100);
}

static void flags_win_over_the_file(void **state)
{
    struct parsed p;

    (void)state;
    assert_int_equal(parse_file("prefix = fil\nimport-dir = /f1\nrun-dir = /file\ndebug = true\n",
                                "--prefix flg --import-dir /c --debug=false", &p),
                     0);
    assert_string_equal(p.config.prefix, "flg");
    assert_int_equal(p.config.import_dirs.count, 1);
    assert_string_equal(p.config.import_dirs.paths[0], "/c");
    assert_string_equal(p.config.run_dir, "/file");
    assert_false(p.config.debug);
}

static void a_bad_line_is_named_by_number(void **state)
{
    static const char *const bad[] = { "prefix = a\nnonsense = 1\n", "prefix = a\nprefix\n",
                                       "prefix = a\nuid-base = x\n",
                                       "prefix = a\nuid-base = +2000\n",
                                       "prefix = a\nconfig = /etc/passwd\n" };
    struct parsed p;
    char *text;

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        assert_int_equal(parse_file(bad[i], "", &p), -EINVAL);
        assert_non_null(strstr(p.err.message, "line 2"));
    }
    /* A line longer than the reader's buffer is refused, not read as two. */
    text = calloc(1, 3000);
    memset(text, ' ', 1100);
    memcpy(text, "# ", 2);
    strcat(text, "prefix = evil\n");
    assert_int_equal(parse_file(text, "", &p), -EINVAL);
    free(text);
}

static void a_file_that_cannot_be_read_is_none_of_defaults(void **state)
{
    struct parsed p;

    (void)state;
    assert_int_equal(parse("--config /none-such", &p), -ENOENT);
    assert_int_equal(parse("--config /tmp", &p), -EISDIR);
    assert_non_null(strstr(p.err.message, "/tmp"));
}

static void help_and_version_ask_for_nothing_else(void **state)
{
    struct parsed p;

    (void)state;
    assert_int_equal(parse("--help", &p), 0);
    assert_int_equal(p.wish, CONFIG_HELP);
    assert_int_equal(parse("--version", &p), 0);
    assert_int_equal(p.wish, CONFIG_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_given_means_the_defaults),
        cmocka_unit_test(flags_have_two_forms),
        cmocka_unit_test(what_is_wrong_is_refused),
        cmocka_unit_test(paths_and_counts_have_limits),
        cmocka_unit_test(a_file_says_the_same_as_flags),
        cmocka_unit_test(flags_win_over_the_file),
        cmocka_unit_test(a_bad_line_is_named_by_number),
        cmocka_unit_test(a_file_that_cannot_be_read_is_none_of_defaults),
        cmocka_unit_test(help_and_version_ask_for_nothing_else),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
