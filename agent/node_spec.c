#include "agent/node_spec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/node_internal.h"
#include "agent/node_schedule.h"
#include "agent/node_wait.h"
#include "agent/spec_change.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"
#include "storage/database.h"

#define NODE_ROW      "node"
#define PERMILLE_MOST 500 /* of the host's memory, to be kept free: more leaves none to VMs */
#define UNSET_BOTH             \
    {                          \
        NODE_UNSET, NODE_UNSET \
    }
#define LEVELS_ABOVE_HIGH (BALANCER_HIGH + 1)

const struct node_spec node_spec_default = {
    .memory = { .ratio_percent = NODE_UNSET,
                .reserve_mib = NODE_UNSET,
                .balancer = NODE_UNSET,
                .thresholds = { UNSET_BOTH, UNSET_BOTH, UNSET_BOTH, UNSET_BOTH } },
};

/* --- what it may be --- */

struct balancer_config node_spec_balancer(const struct node_spec *spec,
                                          const struct balancer_config *base)
{
    struct balancer_config config = *base;

    for (int level = LEVELS_ABOVE_HIGH; level < BALANCER_LEVEL_COUNT; level++) {
        int64_t enter = spec->memory.thresholds[level].enter;
        int64_t leave = spec->memory.thresholds[level].leave;

        if (enter != NODE_UNSET)
            config.levels[level].enter_permille = (uint32_t)enter;
        if (leave != NODE_UNSET)
            config.levels[level].leave_permille = (uint32_t)leave;
    }
    return config;
}

/* A level is left above where it is entered, or it would be both; a worse one lies below. */
static int check_thresholds(const struct node_spec *spec, struct error *err)
{
    const struct balancer_config config = node_spec_balancer(spec, &balancer_default);
    char field[48];

    for (int level = LEVELS_ABOVE_HIGH; level < BALANCER_LEVEL_COUNT; level++) {
        unsigned enter = config.levels[level].enter_permille;
        unsigned leave = config.levels[level].leave_permille;
        bool first = level == LEVELS_ABOVE_HIGH;

        snprintf(field, sizeof field, "memory.thresholds.%s", balancer_level_names[level]);
        if (enter >= leave)
            return error_field(err, EINVAL, field,
                               "%s: leave_permille (%u) must be above enter_permille (%u)", field,
                               leave, enter);
        if (!first && (enter >= config.levels[level - 1].enter_permille ||
                       leave >= config.levels[level - 1].leave_permille))
            return error_field(err, EINVAL, field,
                               "%s: enter_permille (%u) and leave_permille (%u) must be below "
                               "those of %s (%u and %u)",
                               field, enter, leave, balancer_level_names[level - 1],
                               config.levels[level - 1].enter_permille,
                               config.levels[level - 1].leave_permille);
    }
    return 0;
}

static int read_thresholds(const json_t *thresholds, struct node_memory_spec *memory,
                           struct error *err)
{
    struct json_reader reader;

    json_reader_init(&reader, thresholds, "memory.thresholds", err);
    for (int level = LEVELS_ABOVE_HIGH; level < BALANCER_LEVEL_COUNT; level++) {
        const json_t *one = json_read_object(&reader, balancer_level_names[level], JSON_NULLABLE);
        struct json_reader inner;
        char path[48];

        if (!one)
            continue;
        snprintf(path, sizeof path, "memory.thresholds.%s", balancer_level_names[level]);
        json_reader_init(&inner, one, path, err);
        memory->thresholds[level].enter = json_read_integer(
            &inner, "enter_permille", 1, PERMILLE_MOST, JSON_NULLABLE, NODE_UNSET);
        memory->thresholds[level].leave = json_read_integer(
            &inner, "leave_permille", 1, PERMILLE_MOST, JSON_NULLABLE, NODE_UNSET);
        if (json_reader_end(&inner) < 0)
            return -err->code;
    }
    return json_reader_end(&reader);
}

static int read_memory(const json_t *json, struct node_memory_spec *memory, struct error *err)
{
    struct json_reader reader;
    const json_t *thresholds;
    int result;

    json_reader_init(&reader, json, "memory", err);
    memory->ratio_percent =
        json_read_integer(&reader, "ratio_percent", 1, MEMORY_RATIO_MAX, JSON_NULLABLE, NODE_UNSET);
    memory->reserve_mib =
        json_read_integer(&reader, "reserve_mib", 0, 1 << 30, JSON_NULLABLE, NODE_UNSET);
    memory->balancer = json_read_enum(&reader, "balancer", memory_balancer_names,
                                      MEMORY_BALANCER_COUNT, JSON_NULLABLE, NODE_UNSET);
    thresholds = json_read_object(&reader, "thresholds", JSON_NULLABLE);
    result = json_reader_end(&reader);
    return result == 0 && thresholds ? read_thresholds(thresholds, memory, err) : result;
}

static int read_spec(const json_t *json, struct node_spec *ret_spec, struct error *err)
{
    struct node_spec spec = node_spec_default;
    struct json_reader reader;
    const json_t *memory;
    int result;

    json_reader_init(&reader, json, "", err);
    spec.cordoned = !json_read_bool(&reader, "schedulable", true);
    spec.draining = json_read_bool(&reader, "draining", false);
    memory = json_read_object(&reader, "memory", JSON_NULLABLE);
    result = json_reader_end(&reader);
    if (result == 0 && memory)
        result = read_memory(memory, &spec.memory, err);
    if (result == 0)
        *ret_spec = spec;
    return result;
}

int node_spec_parse(const json_t *json, struct node_spec *ret_spec, struct error *err)
{
    struct node_spec spec;
    int result = read_spec(json, &spec, err);

    if (result == 0)
        result = check_thresholds(&spec, err);
    if (result == 0)
        *ret_spec = spec;
    return result;
}

/* --- as JSON --- */

static int add(json_t *object, const char *key, int64_t value, bool stored)
{
    if (value == NODE_UNSET)
        return stored ? 0 : json_object_set_new(object, key, json_null());
    return json_object_set_new(object, key, json_integer(value));
}

json_t *node_spec_json(const struct node_spec *spec, bool stored)
{
    const struct node_memory_spec *memory = &spec->memory;
    json_t *json =
        json_pack("{s:b, s:{s:{}}}", "schedulable", !spec->cordoned, "memory", "thresholds");
    json_t *to = json_object_get(json, "memory"), *thresholds = json_object_get(to, "thresholds");
    int result = add(to, "ratio_percent", memory->ratio_percent, stored) |
                 add(to, "reserve_mib", memory->reserve_mib, stored);

    if (memory->balancer != NODE_UNSET)
        result |= json_object_set_new(to, "balancer",
                                      json_string(memory_balancer_names[memory->balancer]));
    else if (!stored)
        result |= json_object_set_new(to, "balancer", json_null());
    for (int level = LEVELS_ABOVE_HIGH; level < BALANCER_LEVEL_COUNT; level++) {
        json_t *one = json_object();

        result |= add(one, "enter_permille", memory->thresholds[level].enter, stored) |
                  add(one, "leave_permille", memory->thresholds[level].leave, stored);
        result |= json_object_set_new(thresholds, balancer_level_names[level], one);
    }
    if (stored && spec->draining)
        result |= json_object_set_new(json, "draining", json_true());
    return json_whole(json, result);
}

/* Names of `state`: how the node is, of which its memory is all that changes by itself. */
static const char *const state_names[BALANCER_LEVEL_COUNT] = {
    [BALANCER_HIGH] = "ready",
    [BALANCER_SOFT] = "memory-soft",
    [BALANCER_HARD] = "memory-hard",
    [BALANCER_LOW] = "memory-low",
};

json_t *node_status_json(const struct node_status *status)
{
    return json_pack("{s:s, s:s, s:o}", "state", state_names[status->level], "rung",
                     balancer_rung_names[status->rung], "reason", json_reason(status->reason));
}

int node_spec_show(const struct node *node, json_t *info)
{
    return json_object_set_new(info, "generation", json_integer(node->generation)) |
           json_object_set_new(info, "spec", node_spec_json(&node->spec, /* stored= */ false)) |
           json_object_set_new(info, "status", node_status_json(&node->status));
}

/* --- the row --- */

int node_spec_restore(struct node *node, const struct record *record, const json_t *spec,
                      const json_t *status, struct error *err)
{
    int level = json_index(status, "state", state_names, BALANCER_LEVEL_COUNT);
    int rung = json_index(status, "rung", balancer_rung_names, BALANCER_RUNG_COUNT);
    struct error order = { 0 };
    int result;

    node->generation = record->generation;
    if (level >= 0)
        node->status.level = (enum balancer_level)level;
    if (rung >= 0)
        node->status.rung = (enum balancer_rung)rung;
    result = read_spec(spec, &node->spec, err);
    /* Those that were not set may be others by now: no reason not to start. */
    if (result == 0 && check_thresholds(&node->spec, &order) < 0) {
        log_warning(node->log,
                    "the thresholds that were set have no order here, and do not count: %s",
                    order.message);
        memcpy(node->spec.memory.thresholds, node_spec_default.memory.thresholds,
               sizeof node->spec.memory.thresholds);
    }
    return result;
}

static int put_row(struct node *node, const struct node_spec *spec, int64_t generation,
                   database_done_fn *done, void *context, struct error *err)
{
    json_t *spec_json = node_spec_json(spec, /* stored= */ true);
    json_t *status_json = node_status_json(&node->status);
    auto_free char *spec_text = json_canonical(spec_json);
    auto_free char *status_text = json_canonical(status_json);
    struct record record = { .kind = NODE_ROW,
                             .id = NODE_ROW,
                             .uid = NODE_ROW,
                             .generation = generation,
                             .revision = ++node->revision,
                             .spec = spec_text,
                             .status = status_text };
    int result = -EAGAIN;

    json_decref(spec_json);
    json_decref(status_json);
    if (spec_text && status_text)
        result = database_put(node->database, &record, done, context, err);
    else
        error_no_memory(err);
    node->row.writing = result >= 0;
    if (result >= 0)
        node->row.stale = false;
    return result;
}

/* --- what is asked for --- */

struct node_wish {
    struct node_wish *next;
    struct node *node;
    json_t *patch; /* owned */
    struct node_condition condition;
    struct node_spec spec; /* what it will be */
    node_done_fn *done;
    void *context;
    int result;
    struct error err;
};

static void go_on(struct node *node);

static void wish_answer(void *context)
{
    struct node_wish *wish = context;

    wish->done(wish->context, wish->result, &wish->err);
    json_decref(wish->patch);
    free(wish);
}

/* Later, so that `done` is never called before the call that brought it has returned. */
static void wish_refuse(struct node_wish *wish, int result)
{
    wish->result = result;
    if (loop_post(wish->node->loop, wish_answer, wish) < 0)
        wish_answer(wish);
}

static void take_effect(struct node *node, const struct node_spec *spec)
{
    bool scheduling =
        spec->cordoned != node->spec.cordoned || spec->draining != node->spec.draining;

    node->spec = *spec;
    if (scheduling)
        log_info(node->log, "the node is %s",
                 spec->draining   ? "draining"
                 : spec->cordoned ? "cordoned"
                                  : "schedulable");
    node_memory_follow(node);
    node_drain_go_on(node);
    node_wait_look(node, NULL);
}

static void wish_committed(void *context, int result, const struct error *err)
{
    struct node_wish *wish = context;
    struct node *node = wish->node;

    node->row.wishes = wish->next; /* what takes effect may write the row anew */
    node->row.writing = false;
    if (result == 0) {
        node->database_error = 0;
        node->generation++;
        take_effect(node, &wish->spec);
    } else {
        node->database_error = -result;
        node->row.stale = true;
        wish->err = *err;
        log_error(node->log, "a change of the node could not be recorded: %s", err->message);
    }
    wish->result = result;
    wish_answer(wish);
    go_on(node);
}

/* Of a client's patch: what is merged has no more of a null than its effect, so a mistyped name
 * would be taken.  Shown, a spec has all fields. */
static int check_patch(const json_t *patch, struct error *err)
{
    json_t *known = node_spec_json(&node_spec_default, /* stored= */ false);
    int result = known ? spec_change_check_known(known, patch, err) : error_no_memory(err);

    json_decref(known);
    return result;
}

/* 1: it is being written; 0: it is so already. */
static int wish_begin(struct node_wish *wish)
{
    struct node *node = wish->node;
    struct error *err = &wish->err;
    json_t *now = node_spec_json(&node->spec, /* stored= */ true), *next;
    int result;

    if (resource_check_condition(&wish->condition, node->generation, "", err) < 0) {
        json_decref(now);
        return -err->code;
    }
    next = now && wish->patch ? json_patched(now, wish->patch) : NULL;
    if (!next) {
        json_decref(now);
        return error_no_memory(err);
    }
    result = node_spec_parse(next, &wish->spec, err);
    json_decref(next);
    if (result == 0)
        result = node_memory_check(node, &wish->spec.memory, err);
    if (result == 0) {
        next = node_spec_json(&wish->spec, /* stored= */ true);
        result = next ? !json_equal(now, next) : error_no_memory(err);
        json_decref(next);
    }
    json_decref(now);
    if (result <= 0)
        return result;
    result = put_row(node, &wish->spec, node->generation + 1, wish_committed, wish, err);
    return result < 0 ? result : 1;
}

static void status_written(void *context, int result, const struct error *err)
{
    struct node *node = context;

    node->row.writing = false;
    node->database_error = result < 0 ? -result : 0;
    if (result < 0 && !node->row.failed)
        log_error(node->log, "how the node stands could not be recorded: %s", err->message);
    node->row.failed = result < 0;
    node->row.stale |= result < 0; /* node_spec_save_again */
    if (result == 0)
        go_on(node);
}

static void go_on(struct node *node)
{
    while (node->row.wishes && !node->row.writing) {
        struct node_wish *wish = node->row.wishes;
        int result =
            node->ending ? error_set(&wish->err, EAGAIN, "the agent is ending") : wish_begin(wish);

        if (result <= 0) {
            node->row.wishes = wish->next;
            wish_refuse(wish, result);
        }
    }
    if (node->row.stale && !node->row.writing && !node->ending)
        put_row(node, &node->spec, node->generation, status_written, node, NULL);
}

void node_spec_change(struct node *node, json_t *patch, struct node_condition condition,
                      node_done_fn *done, void *context)
{
    struct error err;
    struct node_wish *wish = patch ? malloc(sizeof *wish) : NULL;
    struct node_wish **last = &node->row.wishes;

    if (!wish) {
        json_decref(patch);
        done(context, error_no_memory(&err), &err);
        return;
    }
    *wish = (struct node_wish){
        .node = node, .patch = patch, .condition = condition, .done = done, .context = context
    };
    while (*last)
        last = &(*last)->next;
    *last = wish;
    go_on(node);
}

void node_patch_spec(struct node *node, const json_t *patch, struct node_condition condition,
                     node_done_fn *done, void *context)
{
    const json_t *schedulable = json_object_get(patch, "schedulable");
    json_t *mine = json_whole_copy(patch);
    struct error err = { 0 };
    int result = check_patch(patch, &err);

    if (result < 0) {
        json_decref(mine);
        done(context, result, &err);
        return;
    }
    /* Not the client's; what makes the node take VMs again ends that it drains. */
    json_object_del(mine, "draining");
    if (schedulable && !json_is_false(schedulable))
        result = json_object_set_new(mine, "draining", json_null());
    node_spec_change(node, json_whole(mine, result), condition, done, context);
}

void node_spec_note(struct node *node, const struct node_status *status)
{
    node->status = *status;
    node->row.stale = true;
    go_on(node);
}

void node_spec_save_again(struct node *node)
{
    go_on(node);
}
