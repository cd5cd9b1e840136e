#include "agent/node_memory.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "agent/jail.h"
#include "agent/node_memory_internal.h"
#include "agent/vm_balloon.h"
#include "agent/vm_memory.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/process.h"
#include "base/worker.h"
#include "scheduler/memory_pressure.h"

#define PAUSE_REASON "memory-pressure"
#define STARTING_MS  60000 /* in which a guest fills what it needs */

/* Tags of virtio's balloon statistics (virtio 1.2, 5.5.6.4). */
enum { GUEST_SWAP_IN, GUEST_SWAP_OUT, GUEST_MAJOR_FAULTS, GUEST_TOTAL = 5, GUEST_AVAILABLE };

/* What the worker writes, for the kernel may reclaim for long before such a write is over. */
struct limits_job {
    struct node_memory *memory;
    size_t count;
    struct limits {
        uint32_t instance, reclaim_mib, keep_mib, high_mib;
        bool set_high;
    } vms[];
};

/* By the mode that is in effect, which costs no look at the host. */
static bool is_dry(const struct node *node)
{
    return node->memory->mode == MEMORY_DRY_RUN;
}

bool node_memory_is_short(const struct node *node)
{
    return node->memory && node->memory->mode == MEMORY_ON &&
           node->memory->state.level >= BALANCER_HARD;
}

uint32_t node_memory_balloon_mib(const struct node *node, const struct vm *vm)
{
    return node->memory && !is_dry(node) ? vm->plan.balloon_mib : 0;
}

/* --- what is known --- */

static uint32_t bounded_mib(uint64_t bytes)
{
    return bytes >> 20 < 1u << 22 ? (uint32_t)(bytes >> 20) : 1u << 22;
}

/* The guest's words, each of which may be anything. */
static void hear_guest(struct vm *vm, const struct stats_page *page, struct balancer_vm *ret_vm)
{
    const struct stats_balloon *said = &page->balloon;
    uint64_t wanted = 1u << GUEST_TOTAL | 1u << GUEST_AVAILABLE, total, available, faults;
    uint64_t age_ms = (uint64_t)loop_now_ms() - said->guest_ms;

    ret_vm->balloon_mib = bounded_mib(said->actual_bytes);
    ret_vm->keeps_balloon = said->guest_known & STATS_GUEST_KEEPS;
    ret_vm->stats_age_ms = UINT32_MAX;
    if (said->guest_ms == 0 || (said->guest_known & wanted) != wanted)
        return;
    total = said->guest[GUEST_TOTAL];
    available = said->guest[GUEST_AVAILABLE];
    ret_vm->stats_age_ms = age_ms < UINT32_MAX ? (uint32_t)age_ms : UINT32_MAX;
    ret_vm->used_mib = total > available ? bounded_mib(total - available) : 0;
    /* Counters: what came since the last that were told. */
    faults = said->guest[GUEST_MAJOR_FAULTS] + said->guest[GUEST_SWAP_IN] / 4096;
    if (vm->heard_ms != said->guest_ms) {
        uint64_t seconds = (said->guest_ms - vm->heard_ms) / 1000 + 1;

        vm->refaults =
            vm->heard_ms && faults > vm->heard_faults ? (faults - vm->heard_faults) / seconds : 0;
        vm->heard_ms = said->guest_ms;
        vm->heard_faults = faults;
    }
    ret_vm->refaults = vm->refaults < UINT32_MAX ? (uint32_t)vm->refaults : UINT32_MAX;
}

/* Pages of files are counted once: an image's or a snapshot's are the host's cache, a fork's are
 * its parent's.  That one has mapped only what it touched since, and of what it gave later forks
 * nothing: it is its own all the same, and its group knows. */
static uint32_t resident_mib(const struct node *node, const struct vm *vm)
{
    bool shared = vm->spec.memory_backing == VMM_MEMORY_SHARED;
    bool layered = vm->forked || vm->memory_base[0];
    uint32_t mapped = memory_resident_mib(vm->pid, shared && !layered), held = 0;

    if (shared || layered) /* those that may have forks */
        held = bounded_mib(jail_cgroup_held_bytes(jail_cgroups(node->jail), vm->head.instance));
    return held > mapped ? held : mapped;
}

static void see_vm(struct node *node, struct vm *vm, struct balancer_vm *ret_vm)
{
    const struct vm_spec *spec = &vm->spec;
    struct jail_memory memory;
    struct stats_page page;
    bool is_told = vm_read_page(node, vm, &page) == 0;
    /* What was never plugged no balloon can be asked for: it would take of the rest. */
    uint32_t max_mib = is_told ? vm_memory_current_mib(vm, &page) : spec->memory_max_mib;

    jail_cgroup_see_memory(jail_cgroups(node->jail), vm->head.instance, &memory);
    *ret_vm = (struct balancer_vm){
        .max_mib = max_mib,
        /* A balloon cannot take all: the VMM knows it within what was there from the start on. */
        .min_mib = spec->memory_min_mib < max_mib ? spec->memory_min_mib : max_mib,
        .weight = spec->memory_weight,
        .priority = spec->priority,
        .serial = vm->head.instance,
        .resident_mib = resident_mib(node, vm),
        .swapped_mib = memory.swapped_mib,
        .psi_permille = memory.psi_permille,
        .stats_age_ms = UINT32_MAX,
        .memory = vm->balance,
    };
    if (is_told)
        hear_guest(vm, &page, ret_vm);
    if (is_dry(node))
        ret_vm->memory.asked_mib = ret_vm->balloon_mib;
}

/* Room for all VMs; -ENOMEM. */
static int make_room(struct node_memory *memory, size_t count)
{
    struct balancer_vm *vms;
    struct vm **owners;

    if (count <= memory->size)
        return 0;
    vms = realloc(memory->vms, count * sizeof *vms);
    if (vms)
        memory->vms = vms;
    owners = realloc(memory->owners, count * sizeof(struct vm *));
    if (owners)
        memory->owners = owners;
    if (!vms || !owners)
        return -ENOMEM;
    memory->size = count;
    return 0;
}

static int see_vms(struct node_memory *memory)
{
    struct vm *vm;

    memory->count = 0;
    if (make_room(memory, memory->node->tables[RESOURCE_VM].count) < 0)
        return -ENOMEM;
    for (size_t i = 0; (vm = node_vm_at(memory->node, i)); i++) {
        if (vm->pid <= 0 || !(vm->state == VM_RUNNING || vm->state == VM_PAUSED))
            continue;
        vm->balance_place = memory->count;
        memory->owners[memory->count] = vm;
        see_vm(memory->node, vm, &memory->vms[memory->count++]);
    }
    return 0;
}

/* What is guaranteed to VMs that have just started, and not filled yet: kept free for them. */
static uint32_t starting_mib(const struct node_memory *memory)
{
    uint32_t starting = 0;

    for (size_t i = 0; i < memory->count; i++) {
        const struct balancer_vm *vm = &memory->vms[i];
        int64_t age_ms = loop_now_ms() - memory->owners[i]->launch_ns / 1000000;

        if (age_ms < STARTING_MS && vm->resident_mib < vm->min_mib)
            starting += vm->min_mib - vm->resident_mib;
    }
    return starting;
}

static int see_host(struct node_memory *memory, struct error *err)
{
    struct memory_capacity capacity = node_memory_capacity(memory->node);
    uint64_t overhead = memory->count * VM_OVERHEAD_MIB, resident = 0, mine, free, swapped;
    uint64_t swap = memory->node->swap_room.held_mib;
    int64_t now = loop_now_ms();
    struct memory_pressure pressure;
    int result = memory_pressure_read(&pressure, err);

    if (result < 0)
        return result;
    for (size_t i = 0; i < memory->count; i++)
        resident += memory->vms[i].resident_mib;
    mine = capacity.host_mib > capacity.reserve_mib + overhead
               ? capacity.host_mib - capacity.reserve_mib - overhead
               : 0;
    free = mine > resident ? mine - resident : 0;
    /* Others may have taken of it. */
    if (free > pressure.available_mib)
        free = pressure.available_mib;
    swapped = pressure.swap_mib - pressure.swap_free_mib;
    memory->host = (struct balancer_host){
        .capacity_mib = (uint32_t)mine,
        .free_mib = (uint32_t)free,
        .swap_mib = (uint32_t)swap,
        .swap_free_mib = (uint32_t)(swap > swapped ? swap - swapped : 0),
        .psi_permille = pressure.psi_permille,
        .starting_mib = starting_mib(memory),
        .elapsed_ms = memory->last_ms ? (uint32_t)(now - memory->last_ms) : 0,
    };
    memory->last_ms = now;
    memory->available_mib = pressure.available_mib;
    memory->figures.capacity_mib = mine;
    memory->figures.free_mib = free;
    memory->figures.swapped_mib = swapped;
    return 0;
}

/* --- what is done --- */

/* The kernel may have taken it since the plan was made, and in what a group gives up of its own it
 * heeds no memory.low. */
static void reclaim(const struct jail *jail, const struct limits *vm)
{
    uint32_t held = bounded_mib(jail_cgroup_held_bytes(jail_cgroups(jail), vm->instance));
    uint32_t over = held > vm->keep_mib ? held - vm->keep_mib : 0;

    if (over > 0)
        jail_reclaim_memory(jail, vm->instance, over < vm->reclaim_mib ? over : vm->reclaim_mib);
}

static int run_limits(void *context, struct error *err)
{
    const struct limits_job *job = context;
    const struct jail *jail = job->memory->node->jail;

    (void)err;
    for (size_t i = 0; i < job->count; i++) {
        const struct limits *vm = &job->vms[i];

        if (vm->set_high)
            jail_set_memory_high(jail, vm->instance, vm->high_mib);
        if (vm->reclaim_mib > 0)
            reclaim(jail, vm);
    }
    return 0;
}

static void limits_done(void *context, int result, const struct error *err)
{
    struct limits_job *job = context;

    (void)result;
    (void)err;
    job->memory->reclaiming = false;
    free(job);
}

/* One job at a time: what it does not do, the next plan asks again. */
static void submit_limits(struct node_memory *memory)
{
    struct limits_job *job;

    if (memory->reclaiming)
        return;
    job = calloc(1, sizeof *job + memory->count * sizeof job->vms[0]);
    if (!job)
        return;
    job->memory = memory;
    for (size_t i = 0; i < memory->count; i++) {
        const struct balancer_plan *plan = &memory->vms[i].plan;
        const struct vm *vm = memory->owners[i];
        bool moves_high = plan->high_mib != vm->high_mib;

        if (plan->reclaim_mib == 0 && !moves_high)
            continue;
        job->vms[job->count++] = (struct limits){ .instance = vm->head.instance,
                                                  .reclaim_mib = plan->reclaim_mib,
                                                  .keep_mib = plan->low_mib,
                                                  .high_mib = plan->high_mib,
                                                  .set_high = moves_high };
    }
    if (job->count == 0) {
        free(job);
        return;
    }
    if (worker_submit(memory->worker, run_limits, limits_done, job, NULL) < 0) {
        free(job);
        return;
    }
    memory->reclaiming = true;
    for (size_t i = 0; i < memory->count; i++)
        memory->owners[i]->high_mib = memory->vms[i].plan.high_mib;
}

/* What VMs are guaranteed is kept at once, whatever the worker still reclaims: such a write only
 * sets a number.  That of all together is written though nothing changes: systemd takes it away
 * whenever it is reloaded. */
static void keep_guarantees(const struct node_memory *memory)
{
    const struct jail *jail = memory->node->jail;
    uint64_t all_mib = 0;

    for (size_t i = 0; i < memory->count; i++) {
        uint32_t low_mib = memory->vms[i].plan.low_mib;
        struct vm *vm = memory->owners[i];

        all_mib += low_mib + VM_OVERHEAD_MIB;
        if (low_mib != vm->low_mib)
            jail_set_memory_low(jail, vm->head.instance, low_mib + VM_OVERHEAD_MIB);
        vm->low_mib = low_mib;
    }
    jail_set_memory_low(jail, JAIL_ALL_VMS, all_mib);
}

bool node_memory_paused(const struct vm *vm)
{
    return strncmp(vm->full, PAUSE_REASON, strlen(PAUSE_REASON)) == 0;
}

static void pause_or_resume(struct node_memory *memory, struct vm *vm, bool pause)
{
    struct node *node = memory->node;
    char why[MEMORY_WHY];

    if (pause == node_memory_paused(vm) ||
        (pause && (vm->intent != VM_INTENT_NONE || vm->full[0] || vm->state != VM_RUNNING)))
        return;
    node_memory_why(memory, why);
    log_warning(node->log, "vm %s: %s: %s", vm->head.id,
                pause ? "is paused, the host is short of memory" : "goes on", why);
    vm->full[0] = '\0';
    if (pause)
        snprintf(vm->full, sizeof vm->full, PAUSE_REASON ": %s", why);
    vm->intent = pause ? VM_INTENT_PAUSE : VM_INTENT_NONE;
    node_save(node, &vm->head);
    vm_step(node, vm);
}

static void sacrifice(const struct node_memory *memory, struct vm *vm)
{
    char why[MEMORY_WHY];

    if (vm->pidfd < 0 || vm->sacrificed[0])
        return;
    node_memory_why(memory, why);
    snprintf(vm->sacrificed, sizeof vm->sacrificed,
             "the host was out of memory, and nothing else helped: %s", why);
    log_error(memory->node->log, "vm %s: is killed: %s", vm->head.id, vm->sacrificed);
    process_kill(vm->pidfd, SIGKILL);
}

static void count_actions(struct node_memory *memory, const struct vm *vm,
                          const struct balancer_plan *plan)
{
    uint64_t *actions = memory->figures.actions;

    actions[BALANCER_BALLOON] += plan->balloon_mib > vm->plan.balloon_mib;
    actions[BALANCER_RECLAIM] += plan->reclaim_mib > 0;
    actions[BALANCER_THROTTLE] += plan->high_mib > 0 && vm->plan.high_mib == 0;
    actions[BALANCER_PAUSE] += plan->pause && !vm->plan.pause;
    actions[BALANCER_KILL] += plan->kill;
}

/* Of who would have been paused or killed. */
static void note_would(struct node_memory *memory, const struct vm *vm,
                       const struct balancer_plan *plan)
{
    if (!plan->kill && (!plan->pause || vm->plan.pause))
        return;
    snprintf(memory->would, sizeof memory->would, "%s would be %s", vm->head.id,
             plan->kill ? "killed" : "paused");
    memory->would_is_new = true;
}

static void carry_out(struct node_memory *memory)
{
    struct node *node = memory->node;

    if (!is_dry(node)) {
        keep_guarantees(memory);
        submit_limits(memory);
    }
    for (size_t i = 0; i < memory->count; i++) {
        struct balancer_plan plan = memory->vms[i].plan;
        struct vm *vm = memory->owners[i];
        bool moves = plan.balloon_mib != vm->plan.balloon_mib;

        count_actions(memory, vm, &plan);
        if (is_dry(node))
            note_would(memory, vm, &plan);
        vm->balance = memory->vms[i].memory;
        vm->plan = plan;
        if (is_dry(node))
            continue;
        if (moves)
            vm_balloon_tell(node, vm);
        pause_or_resume(memory, vm, plan.pause);
        node_memory_tell_vm(memory, vm, &plan);
        if (plan.kill)
            sacrifice(memory, vm);
    }
}

static void balance(struct node_memory *memory)
{
    const struct balancer_config config = node_memory_config(memory->node);
    enum balancer_level before = memory->state.level;
    struct error err = { 0 };

    if (see_vms(memory) < 0 || see_host(memory, &err) < 0) {
        log_warning(memory->node->log, "memory is not balanced: %s",
                    err.code ? err.message : "memory is short");
        return;
    }
    balancer_plan(&config, &memory->host, memory->vms, (unsigned)memory->count, &memory->state);
    memory->figures.level = memory->state.level;
    memory->figures.rung = memory->state.rung;
    memory->figures.price = memory->state.price;
    if (memory->state.level != before)
        log_warning(memory->node->log,
                    "the host's memory is %s (before: %s): %u of %u MiB are free",
                    balancer_level_names[memory->state.level], balancer_level_names[before],
                    memory->host.free_mib, memory->host.capacity_mib);
    carry_out(memory);
    node_memory_tell(memory);
}

/* --- ticks --- */

/* A guest fills gigabytes in a second, so the host is looked at more often than its VMs are. */
static void on_timer(void *context)
{
    struct node_memory *memory = context;
    const struct balancer_config config = node_memory_config(memory->node);
    struct memory_pressure now;
    uint32_t fell = 0;

    if (memory_pressure_read(&now, NULL) == 0 && now.available_mib < memory->available_mib)
        fell = (uint32_t)(memory->available_mib - now.available_mib);
    if (loop_now_ms() - memory->last_ms + BALANCER_TICK_MS / 2 >=
        balancer_wait_ms(&config, &memory->host, &memory->state, fell))
        balance(memory);
}

static void balance_again(struct node_memory *memory)
{
    if (loop_now_ms() - memory->last_ms >= BALANCER_TICK_MS)
        balance(memory);
}

static void on_trigger(void *context, uint32_t events)
{
    struct node_memory *memory = context;

    (void)events;
    memory->figures.wakeups++;
    balance_again(memory);
}

/* --- what is in effect --- */

void node_memory_adopt(const struct node *node, struct vm *vm, const struct stats_page *page)
{
    if (node_memory_mode(node) == MEMORY_ON)
        vm->plan.balloon_mib = bounded_mib(page->balloon.target_bytes);
}

/* What another mode, or an earlier agent, did to VMs is undone: their balloons are their specs',
 * none is held to a share.  The mode that comes begins anew.  keep_balloons: of an earlier
 * agent; the first plan goes on from them, for a host that is short cannot give all of it back. */
static void let_go(struct node_memory *memory, bool keep_balloons)
{
    size_t count = memory->node->tables[RESOURCE_VM].count;
    struct limits_job *job = calloc(1, sizeof *job + count * sizeof job->vms[0]);
    struct vm *vm;

    for (size_t i = 0; (vm = node_vm_at(memory->node, i)); i++) {
        /* Who was paused by an earlier agent goes on in its turn. */
        bool keep = memory->mode == MEMORY_ON && node_memory_paused(vm);

        vm->balance = (struct balancer_memory){ .paused = keep };
        vm->plan = (struct balancer_plan){
            .pause = keep,
            .balloon_mib = keep_balloons ? vm->plan.balloon_mib : 0,
        };
        if (vm->pid <= 0)
            continue;
        vm->high_mib = vm->low_mib = 0;
        jail_set_memory_low(memory->node->jail, vm->head.instance, 0);
        if (job)
            job->vms[job->count++] =
                (struct limits){ .instance = vm->head.instance, .set_high = true };
        if (vm->state == VM_RUNNING ||
            vm->state == VM_PAUSED) /* else it is told when it is ready */
            vm_balloon_tell(memory->node, vm);
        pause_or_resume(memory, vm, keep);
        node_memory_tell_vm(memory, vm, &vm->plan);
    }
    jail_set_memory_low(memory->node->jail, JAIL_ALL_VMS, 0);
    if (!job)
        return; /* memory is short: the next plan sets what it changes */
    job->memory = memory;
    if (worker_submit(memory->worker, run_limits, limits_done, job, NULL) < 0)
        free(job);
}

/* Without it there is the tick. */
static void watch_pressure(struct node_memory *memory)
{
    memory->trigger_fd = memory_pressure_trigger();
    if (memory->trigger_fd >= 0 && loop_add(memory->node->loop, memory->trigger_fd, EPOLLPRI,
                                            on_trigger, memory, &memory->trigger, NULL) < 0)
        cleanup_close(&memory->trigger_fd);
}

void node_memory_follow(struct node *node)
{
    struct node_memory *memory = node->memory;
    enum memory_mode mode = node_memory_mode(node);

    if (!memory || node->ending)
        return;
    if (mode != memory->mode) {
        bool is_first = memory->mode == MEMORY_UNKNOWN;

        memory->mode = mode;
        memory->timer = loop_cancel(memory->timer);
        memory->state = (struct balancer_state){ 0 };
        memory->figures.level = memory->state.level;
        memory->figures.rung = memory->state.rung;
        memory->figures.price = 0;
        memory->count = 0;
        memory->last_ms = 0;
        memory->would[0] = '\0';
        let_go(memory, /* keep_balloons= */ is_first && mode == MEMORY_ON);
        memory->trigger = loop_remove(memory->trigger);
        cleanup_close(&memory->trigger_fd);
        if (mode != MEMORY_OFF) {
            memory->timer = loop_every(node->loop, BALANCER_TICK_MS, on_timer, memory);
            watch_pressure(memory);
        }
    }
    if (mode == MEMORY_OFF)
        node_memory_tell(memory);
    else
        balance_again(memory);
}

void node_memory_tick(struct node *node)
{
    struct node_memory *memory = node->memory;

    node_memory_look_at_swap(node);
    if (memory->timer && node_memory_mode(node) == memory->mode)
        return;
    node_memory_follow(node);
}

int node_memory_new(struct node *node, struct node_memory **ret_memory, struct error *err)
{
    struct node_memory *memory = calloc(1, sizeof *memory);
    int result;

    if (!memory)
        return error_set(err, ENOMEM, "memory is short");
    *memory = (struct node_memory){ .node = node, .trigger_fd = -1 };
    node_memory_look_at_swap(node);
    result = worker_new(node->loop, "memory", NULL, &memory->worker, err);
    if (result < 0) {
        node_memory_free(memory);
        return result;
    }
    *ret_memory = memory;
    return 0;
}

struct node_memory *node_memory_free(struct node_memory *memory)
{
    if (!memory)
        return NULL;
    worker_free(memory->worker);
    loop_cancel(memory->timer);
    loop_remove(memory->trigger);
    cleanup_close(&memory->trigger_fd);
    free(memory->vms);
    free(memory->owners);
    free(memory);
    return NULL;
}
