/* label_selector.c - see label_selector.h. */
#include "agent/label_selector.h"
#include <errno.h>
#include <string.h>
#include "agent/labels.h"
#include "base/error.h"

/* Takes one requirement apart, in place. */
static int parse_requirement(char *text, const char *start, struct label_requirement *ret,
                             struct error *err)
{
    struct label_requirement requirement = { .operator= LABEL_THERE };
    char *equals = strchr(text, '=');
    char *key = text, *value = NULL;

    if (equals) {
        value = equals + 1;
        requirement.operator= LABEL_IS;
        if (equals > text && equals[-1] == '!') {
            requirement.operator= LABEL_IS_NOT;
            equals--;
        }
        *equals = '\0';
    } else if (*text == '!') {
        requirement.operator= LABEL_ABSENT;
        key++;
    }
    if (!*key || strlen(key) > LABEL_KEY_MAX || strchr(key, '!'))
        return error_set(err, EINVAL,
                         "write key=value, key!=value, key or !key, with keys of 1 to %d bytes",
                         LABEL_KEY_MAX);
    if (value && strlen(value) > LABEL_VALUE_MAX)
        return error_set(err, EINVAL, "a label's value has at most %d bytes", LABEL_VALUE_MAX);
    requirement.key = (uint16_t)(key - start);
    requirement.value = (uint16_t)(value ? value - start : 0);
    *ret = requirement;
    return 0;
}

int label_selector_parse(const char *text, struct label_selector *ret_selector, struct error *err)
{
    struct label_selector selector = { 0 };
    size_t length = strlen(text);
    char *next = selector.text, *part;

    if (length == 0 || length > LABEL_SELECTOR_MAX)
        return error_set(err, EINVAL, "a label selector has 1 to %d bytes", LABEL_SELECTOR_MAX);
    memcpy(selector.text, text, length + 1);
    while ((part = strsep(&next, ","))) {
        int r;

        if (selector.count == LABEL_REQUIREMENT_MAX)
            return error_set(err, EINVAL, "a label selector has at most %d requirements",
                             LABEL_REQUIREMENT_MAX);
        r = parse_requirement(part, selector.text, &selector.requirements[selector.count++], err);
        if (r < 0)
            return r;
    }
    *ret_selector = selector;
    return 0;
}

/* Of the same text come the same bytes; but of "a=b" and "a,b", too, where "=" and "," became NUL.
 */
bool label_selector_equal(const struct label_selector *a, const struct label_selector *b)
{
    return memcmp(a->text, b->text, sizeof(a->text)) == 0 &&
           memcmp(a->requirements, b->requirements, sizeof(a->requirements)) == 0;
}

static bool requirement_holds(const struct label_selector *selector,
                              const struct label_requirement *requirement, const json_t *labels)
{
    const char *label =
        json_string_value(json_object_get(labels, selector->text + requirement->key));
    bool same = label && strcmp(label, selector->text + requirement->value) == 0;

    switch (requirement->operator) {
    case LABEL_IS:
        return same;
    case LABEL_IS_NOT:
        return !same;
    case LABEL_THERE:
        return label != NULL;
    case LABEL_ABSENT:
        return label == NULL;
    }
    return false;
}

bool label_selector_matches(const struct label_selector *selector, const json_t *labels)
{
    for (size_t i = 0; i < selector->count; i++)
        if (!requirement_holds(selector, &selector->requirements[i], labels))
            return false;
    return true;
}
