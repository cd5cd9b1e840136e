/* fuzz.h - what a fuzz target is: a function that is given bytes and must survive them.
 *
 * FUZZ_TARGET(name) { ... } defines it, with `bytes` and `size`.  `make fuzz` compiles each target
 * alone, where the function has libFuzzer's name; tests/unit/test_fuzz_corpus.c links all of them
 * and replays what stands in tests/fuzz/corpus/<name>. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef FUZZ_ALONE
#define FUZZ_TARGET(name)                                          \
    int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size); \
    int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
#else
#define FUZZ_TARGET(name)                               \
    int fuzz_##name(const uint8_t *bytes, size_t size); \
    int fuzz_##name(const uint8_t *bytes, size_t size)
#endif

/* What must hold whatever came; the input is kept by libFuzzer, named by the replay. */
#define FUZZ_REQUIRE(condition)                                                            \
    do {                                                                                   \
        if (!(condition)) {                                                                \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                       \
        }                                                                                  \
    } while (0)

/* What the machine must have (root for a tap) is not there: the replay skips, `make fuzz` says so.
 */
#ifdef FUZZ_ALONE
#define FUZZ_ABSENT (fprintf(stderr, "%s: cannot run here\n", __FILE__), exit(77), 0)
#else
#define FUZZ_ABSENT 77
#endif

/* Takes the input apart; behind its end everything is zero. */
struct fuzz_input {
    const uint8_t *bytes;
    size_t size;
};

static inline uint64_t fuzz_take(struct fuzz_input *input, unsigned width)
{
    uint64_t value = 0;
    size_t part = width < input->size ? width : input->size;

    memcpy(&value, input->bytes, part);
    input->bytes += part;
    input->size -= part;
    return value;
}
