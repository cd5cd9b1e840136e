/* labels.h - the labels that a resource of any kind has in its spec.  Pure; any thread.
 *
 * An object of strings.  New ones (spec_rules.h): at most LABELS_MAX together; keys are what a
 * selector (label_selector.h) can name: 1 to 63 of A-Z, a-z, 0-9, ".", "_", "/" and "-"; values
 * have at most 255 bytes and no control characters. */
#pragma once
#include <jansson.h>

struct error;
struct json_reader;

#define LABELS_MAX      32
#define LABEL_KEY_MAX   63
#define LABEL_VALUE_MAX 255

/* Those that are as they were before (NULL: none was) may be anything, and as many as there were.
 * -EINVAL, with "labels" as its field. */
int labels_check(const json_t *labels, const json_t *before, struct error *err);
/* The reader's "labels", strings by any key; borrowed; NULL without any, or if the reader fails
 * now. */
const json_t *labels_read(struct json_reader *reader);
/* For a canonical spec; an empty object for NULL.  New reference, or NULL: memory is short. */
json_t *labels_copy(const json_t *labels);
