/* resource.h - what resources of all kinds have in common, and tables of them by id.
 * Loop thread only. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "agent/node.h"
#include "base/id.h"

struct resource {
    enum resource_kind kind;
    char id[ID_MAX + 1];
    char uid[UID_TEXT];
    uint32_t instance; /* names its kernel objects and files; never used again */
    int64_t generation;
    int64_t revision;
    bool hidden;      /* its creation is not committed: reserves, but is not shown */
    bool deleting;    /* its deletion is committed */
    bool leaving;     /* its deletion is being committed: nothing new may name it */
    bool committing;  /* a change of it is being committed: facts are written behind that */
    bool unsaved;     /* the row is older than what is known */
    unsigned writing; /* rows of it on their way to the disk */
    bool gone;        /* the row's removal was asked for: it is not written any more */
    bool stuck;       /* the work on it failed and is to be tried again, by then: */
    int64_t retry_ms; /* on loop_now_ms's clock */
    unsigned tries;   /* that failed, in a row */
    int failure;      /* errno for which its making failed; 0 = it did not, or before this agent */
    json_t *spec;     /* owned; canonical */
};

/* Its row is on the disk, as it is. */
static inline bool resource_is_saved(const struct resource *resource)
{
    return !resource->unsaved && !resource->committing && resource->writing == 0;
}

static inline bool resource_is_leaving(const struct resource *resource)
{
    return resource->deleting || resource->leaving;
}

/* Pointers in ascending order of id; the resources are not owned. */
struct resource_table {
    struct resource **items;
    size_t count;
    size_t room;
};

/* Hidden ones too; NULL if there is none. */
struct resource *resource_find(const struct resource_table *table, const char *id);
/* Index of the first whose id is greater than `id`. */
size_t resource_after(const struct resource_table *table, const char *id);
/* -ENOMEM; the id must not be there yet. */
int resource_insert(struct resource_table *table, struct resource *resource);
void resource_remove(struct resource_table *table, const struct resource *resource);

/* Frees one that owns its spec only. */
void resource_free(struct resource *resource);

/* As in records and errors; in URLs with an "s" behind. */
const char *resource_kind_name(enum resource_kind kind);
/* Returns -ENOENT. */
int resource_not_found(enum resource_kind kind, const char *id, struct error *err);

/* Is what has this generation and uid ("": none) what the condition names?  -ESTALE. */
int resource_check_condition(const struct node_condition *condition, int64_t generation,
                             const char *uid, struct error *err);

/* "2026-11-22T16:03:59.123Z"; ms since the epoch. */
#define TIMESTAMP_TEXT 32
void timestamp_format(int64_t ms, char ret_text[TIMESTAMP_TEXT]);
int64_t timestamp_now_ms(void);
