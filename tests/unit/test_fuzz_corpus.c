/* test_fuzz_corpus.c - each fuzz target of tests/fuzz is given what its corpus holds.  Which input
 * was last stands in the log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "vmm/cpuid.h"

#define INPUT_BYTES_MAX 65536
#define CANNOT_RUN_HERE 77

/* Of the state that the target saves. */
#define STATE_BYTES 18012
#define CPUID_USED  100
#define CPUID_END   (40 + sizeof(struct cpuid))

#define TARGETS(X)    \
    X(boot_bzimage)   \
    X(boot_elf)       \
    X(buses)          \
    X(delta)          \
    X(devices)        \
    X(fetch_kernel)   \
    X(http)           \
    X(snapshot)       \
    X(spec)           \
    X(tokens)         \
    X(virtio_balloon) \
    X(virtio_block)   \
    X(virtio_mem)     \
    X(virtio_net)     \
    X(virtio_rng)     \
    X(virtio_vsock)   \
    X(vmm_control)    \
    X(wire)

#define DECLARE(name) int fuzz_##name(const uint8_t *bytes, size_t size);
TARGETS(DECLARE)

/* How many inputs there were. */
static unsigned replay(const char *name, int (*target)(const uint8_t *bytes, size_t size))
{
    static uint8_t bytes[INPUT_BYTES_MAX];
    char path[512];
    struct dirent *entry;
    unsigned inputs = 0;
    DIR *directory;

    snprintf(path, sizeof(path), "tests/fuzz/corpus/%s", name);
    directory = opendir(path);
    if (!directory)
        fail_msg("there is no %s (tests run in the project's directory)", path);
    while ((entry = readdir(directory))) {
        FILE *file;
        size_t size;

        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "tests/fuzz/corpus/%s/%s", name, entry->d_name);
        file = fopen(path, "re");
        assert_non_null(file);
        size = fread(bytes, 1, sizeof(bytes), file);
        assert_true(feof(file));
        fclose(file);
        fprintf(stderr, "# %s\n", path);
        if (target(bytes, size) == CANNOT_RUN_HERE) {
            closedir(directory);
            skip();
        }
        inputs++;
    }
    closedir(directory);
    return inputs;
}

#define DEFINE(name)                                     \
    static void name##_survives_its_corpus(void **state) \
    {                                                    \
        (void)state;                                     \
        assert_true(replay(#name, fuzz_##name) > 3);     \
    }
TARGETS(DEFINE)

/* Case 22 of HOSTILE.md: a snapshot's state, of which one byte is another: each in turn, or one in
 * STATE_STEP.  What the target makes of its input: a patch of one byte, its value and its place. */
static void a_state_with_a_wrong_byte_is_survived(void **state)
{
    const char *text = getenv("STATE_STEP");
    unsigned step = text ? (unsigned)atoi(text) : 7;

    (void)state;
    for (unsigned at = 0; at < STATE_BYTES; at += step) {
        const uint8_t patch[] = { 0, 1, 0x80, at & 1 ? 0xff : 1, (uint8_t)(at >> 8), (uint8_t)at };

        (void)fuzz_snapshot(patch, sizeof(patch));
        if (at >= CPUID_USED && at < CPUID_END) /* nobody looks at the entries that are not used */
            at = CPUID_END - step;
    }
}

/* A new target is replayed, too. */
static void every_target_is_here(void **state)
{
#define NAME(name) #name,
    static const char *const names[] = { TARGETS(NAME) };
    DIR *directory = opendir("tests/fuzz");
    struct dirent *entry;
    size_t found = 0;

    (void)state;
    assert_non_null(directory);
    while ((entry = readdir(directory))) {
        size_t length = strlen(entry->d_name);
        bool known = false;

        if (strncmp(entry->d_name, "fuzz_", 5) != 0 ||
            strcmp(entry->d_name + length - 2, ".c") != 0)
            continue;
        for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
            known |= strlen(names[i]) == length - 7 &&
                     memcmp(entry->d_name + 5, names[i], length - 7) == 0;
        if (!known)
            fail_msg("%s is not in the table of this test", entry->d_name);
        found++;
    }
    closedir(directory);
    assert_int_equal(found, ARRAY_LENGTH(names));
}

int main(void)
{
#define TEST(name) cmocka_unit_test(name##_survives_its_corpus),
    const struct CMUnitTest tests[] = { TARGETS(TEST)
                                            cmocka_unit_test(a_state_with_a_wrong_byte_is_survived),
                                        cmocka_unit_test(every_target_is_here) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
