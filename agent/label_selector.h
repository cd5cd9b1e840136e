/* label_selector.h - which labels a thing must have: "env=prod,!retired".  Pure; any thread.
 *
 * Requirements are joined by commas, and all must hold: "key=value", "key!=value" (holds without
 * the key, too), "key" (is there, whatever its value), "!key" (is not there).  Keys have 1 to 63
 * bytes without "=", "!" and ",", values at most 255 without ",". */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

#define LABEL_SELECTOR_MAX    1024 /* bytes of text, without the NUL */
#define LABEL_REQUIREMENT_MAX 16

enum label_operator { LABEL_IS, LABEL_IS_NOT, LABEL_THERE, LABEL_ABSENT };

/* May be copied: keys and values are offsets into its own text. */
struct label_selector {
    size_t count; /* 0: everything matches */
    struct label_requirement {
        enum label_operator operator;
        uint16_t key, value;
    } requirements[LABEL_REQUIREMENT_MAX];
    char text[LABEL_SELECTOR_MAX + 1];
};

/* -EINVAL, with what to write instead; the field is the caller's to name. */
int label_selector_parse(const char *text, struct label_selector *ret_selector, struct error *err);
bool label_selector_equal(const struct label_selector *a, const struct label_selector *b);
/* labels: an object of strings; NULL = none. */
bool label_selector_matches(const struct label_selector *selector, const json_t *labels);
