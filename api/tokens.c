/* tokens.c - see tokens.h. */
#include "api/tokens.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/error.h"

static const char *const scope_names[SCOPE_COUNT] = {
    [SCOPE_OPEN] = "none",       [SCOPE_METRICS] = "metrics", [SCOPE_READ] = "read",
    [SCOPE_OPERATE] = "operate", [SCOPE_ADMIN] = "admin",
};

const char *scope_name(enum scope scope)
{
    return scope_names[scope];
}

/* --- one line --- */

static int parse_name(struct token *token, const char *name, struct error *err)
{
    size_t length = name ? strlen(name) : 0;

    if (length == 0 || length > TOKEN_NAME_MAX)
        return error_set(err, EINVAL, "a name has 1 to %d characters", TOKEN_NAME_MAX);
    for (size_t i = 0; i < length; i++)
        if (name[i] < '!' || name[i] > '~')
            return error_set(err, EINVAL, "a name has printable characters only");
    if (strchr(name, '='))
        return error_set(err, EINVAL, "the name is missing before %.32s", name);
    memcpy(token->name, name, length + 1);
    return 0;
}

static int parse_scopes(struct token *token, char *list, struct error *err)
{
    char *name;

    while ((name = strsep(&list, ","))) {
        int scope = SCOPE_METRICS;

        while (scope < SCOPE_COUNT && strcmp(name, scope_names[scope]) != 0)
            scope++;
        if (scope == SCOPE_COUNT)
            return error_set(err, EINVAL, "scopes are metrics, read, operate and admin");
        if (scope > (int)token->scope)
            token->scope = (enum scope)scope;
    }
    return 0;
}

static int parse_digest(struct token *token, const char *hex, struct error *err)
{
    size_t length = strlen(hex);

    if (length != DIGEST_TEXT - 1 || strspn(hex, "0123456789abcdef") != length)
        return error_set(err, EINVAL, "sha256 has %d digits of 0-9a-f", DIGEST_TEXT - 1);
    memcpy(token->digest, hex, DIGEST_TEXT);
    return 0;
}

static int parse_labels(struct token *token, const char *text, struct error *err)
{
    token->limits = malloc(sizeof(*token->limits));
    if (!token->limits)
        return error_set(err, ENOMEM, "no memory for tokens");
    return label_selector_parse(text, token->limits, err);
}

enum { FIELD_SCOPES, FIELD_LABELS, FIELD_SHA256, FIELD_COUNT };

static int parse_field(struct token *token, char *word, unsigned int *seen, struct error *err)
{
    static const char *const names[FIELD_COUNT] = { "scopes=", "labels=", "sha256=" };
    int field = 0;
    char *value;

    while (field < FIELD_COUNT && strncmp(word, names[field], strlen(names[field])) != 0)
        field++;
    if (field == FIELD_COUNT || *seen & 1u << field)
        return error_set(err, EINVAL, "write scopes=, labels= and sha256=, once each, not %.32s",
                         word);
    *seen |= 1u << field;
    value = word + strlen(names[field]);
    if (field == FIELD_SCOPES)
        return parse_scopes(token, value, err);
    return field == FIELD_LABELS ? parse_labels(token, value, err)
                                 : parse_digest(token, value, err);
}

static char *next_word(char **rest)
{
    char *word;

    do
        word = strsep(rest, " \t\r");
    while (word && !*word);
    return word;
}

/* 1 = a token, 0 = an empty line. */
static int parse_line(struct token *token, char *line, struct error *err)
{
    char *word = next_word(&line);
    unsigned int seen = 0;
    int r;

    if (!word || *word == '#')
        return 0;
    token->is_certificate = strcmp(word, "cert") == 0;
    if (!token->is_certificate && strcmp(word, "token") != 0)
        return error_set(err, EINVAL, "a line begins with token or cert");
    r = parse_name(token, next_word(&line), err);
    while (r == 0 && (word = next_word(&line)))
        r = parse_field(token, word, &seen, err);
    if (r == 0 && !(seen & 1u << FIELD_SCOPES))
        r = error_set(err, EINVAL, "scopes= is missing");
    if (r == 0 && !(seen & 1u << FIELD_SHA256) != token->is_certificate)
        r = error_set(err, EINVAL, "a token has sha256=, a cert has not");
    return r < 0 ? r : 1;
}

/* --- the file --- */

/* A digest stands for one token, a certificate's name for one line. */
static int check_unique(const struct tokens *tokens, const struct token *token, struct error *err)
{
    for (size_t i = 0; i < tokens->count; i++) {
        const struct token *other = &tokens->items[i];

        if (other->is_certificate != token->is_certificate)
            continue;
        if (token->is_certificate ? strcmp(other->name, token->name) == 0
                                  : strcmp(other->digest, token->digest) == 0)
            return error_set(err, EINVAL, "%s is there twice", token->name);
    }
    return 0;
}

static int add_line(struct tokens *tokens, char *line, struct error *err)
{
    struct token token = { 0 };
    struct token *items;
    int r = parse_line(&token, line, err);

    if (r > 0 && tokens->count == TOKENS_MAX)
        r = error_set(err, EINVAL, "there are more than %d", TOKENS_MAX);
    if (r > 0 && check_unique(tokens, &token, err) < 0)
        r = -EINVAL;
    items = r > 0 ? realloc(tokens->items, (tokens->count + 1) * sizeof(token)) : NULL;
    if (r > 0 && !items)
        r = error_set(err, ENOMEM, "no memory for tokens");
    if (r <= 0) {
        free(token.limits);
        return r;
    }
    tokens->items = items;
    tokens->items[tokens->count++] = token;
    return 0;
}

int tokens_parse(const char *bytes, size_t size, struct tokens *ret_tokens, struct error *err)
{
    struct tokens tokens = { 0 };
    auto_free char *text = size <= TOKENS_FILE_MAX ? malloc(size + 1) : NULL;
    char *rest = text, *line;
    int number = 0, r = 0;

    if (size > TOKENS_FILE_MAX)
        return error_set(err, EINVAL, "it has more than %d bytes", TOKENS_FILE_MAX);
    if (!text)
        return error_set(err, ENOMEM, "no memory for tokens");
    memcpy(text, bytes, size);
    text[size] = '\0';
    if (strlen(text) != size)
        return error_set(err, EINVAL, "it has a NUL in it");
    while (r == 0 && (line = strsep(&rest, "\n"))) {
        number++;
        r = add_line(&tokens, line, err);
    }
    if (r < 0) {
        tokens_clear(&tokens);
        return error_wrap(err, "line %d", number);
    }
    *ret_tokens = tokens;
    return 0;
}

void tokens_clear(struct tokens *tokens)
{
    for (size_t i = 0; i < tokens->count; i++)
        free(tokens->items[i].limits);
    free(tokens->items);
    *tokens = (struct tokens){ 0 };
}

const struct token *tokens_find_secret(const struct tokens *tokens, const char *secret)
{
    char digest[DIGEST_TEXT];

    digest_of(secret, strlen(secret), digest);
    return tokens_find_digest(tokens, digest);
}

const struct token *tokens_find_digest(const struct tokens *tokens, const char *digest)
{
    const struct token *found = NULL;

    for (size_t i = 0; i < tokens->count; i++)
        if (!tokens->items[i].is_certificate && digest_equal(tokens->items[i].digest, digest))
            found = &tokens->items[i];
    return found;
}

const struct token *tokens_find_certificate(const struct tokens *tokens, const char *name)
{
    for (size_t i = 0; i < tokens->count; i++)
        if (tokens->items[i].is_certificate && strcmp(tokens->items[i].name, name) == 0)
            return &tokens->items[i];
    return NULL;
}
