/* test_node_memory.c - what the balancer is told of VMs, and that what it plans gets to the worker,
 * or is asked for again.  The linker puts the test's functions in the place of jail.c's and
 * jail_cgroup.c's (Makefile). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sys/mman.h>
#include <unistd.h>
#include "agent/node_change.h"
#include "agent/node_memory.c"

static uint32_t set_high, times;
static uint64_t set_low, low_of_all;

void __wrap_jail_set_memory_high(const struct jail *jail, uint32_t instance, uint32_t high_mib);
void __wrap_jail_set_memory_high(const struct jail *jail, uint32_t instance, uint32_t high_mib)
{
    (void)jail;
    assert_int_equal(instance, 7);
    set_high = high_mib;
    times++;
}

void __wrap_jail_set_memory_low(const struct jail *jail, uint32_t instance, uint64_t low_mib);
void __wrap_jail_set_memory_low(const struct jail *jail, uint32_t instance, uint64_t low_mib)
{
    (void)jail;
    assert_true(instance == 7 || instance == JAIL_ALL_VMS);
    *(instance == JAIL_ALL_VMS ? &low_of_all : &set_low) = low_mib;
}

static uint64_t held_mib; /* by the group of VM 7 */

static uint32_t reclaimed_mib;

void __wrap_jail_reclaim_memory(const struct jail *jail, uint32_t instance, uint32_t mib);
void __wrap_jail_reclaim_memory(const struct jail *jail, uint32_t instance, uint32_t mib)
{
    (void)jail;
    assert_int_equal(instance, 7);
    assert_true(mib > 0);
    reclaimed_mib = mib;
}

const struct jail_cgroup *__wrap_jail_cgroups(const struct jail *jail);
const struct jail_cgroup *__wrap_jail_cgroups(const struct jail *jail)
{
    (void)jail;
    return NULL;
}

uint64_t __wrap_jail_cgroup_held_bytes(const struct jail_cgroup *cgroup, uint32_t instance);
uint64_t __wrap_jail_cgroup_held_bytes(const struct jail_cgroup *cgroup, uint32_t instance)
{
    (void)cgroup;
    assert_int_equal(instance, 7);
    return held_mib << 20;
}

/* A worker that is not there takes no job, as one for which memory is short. */
static void a_limit_that_was_not_taken_is_asked_for_again(void **state)
{
    struct vm vm = { .head = { .instance = 7 } };
    struct vm *owners[] = { &vm };
    struct balancer_vm vms[] = { { .plan = { .high_mib = 64, .low_mib = 16 } } };
    struct node node = { 0 };
    struct node_memory memory = { .node = &node, .vms = vms, .owners = owners, .count = 1 };

    (void)state;
    assert_int_equal(loop_new(&node.loop, NULL), 0);
    submit_limits(&memory);
    assert_false(memory.reclaiming);
    assert_int_equal(vm.high_mib, 0);
    assert_int_equal(worker_new(node.loop, "memory", NULL, &memory.worker, NULL), 0);
    submit_limits(&memory);
    assert_true(memory.reclaiming);
    worker_free(memory.worker); /* does it */
    assert_int_equal(set_high, 64);
    assert_int_equal(vm.high_mib, 64);
    assert_false(memory.reclaiming);
    assert_int_equal(times, 1);
    memory.worker = NULL;
    vms[0].plan.high_mib = 0;
    submit_limits(&memory); /* and the way back, too */
    assert_int_equal(vm.high_mib, 64);
    loop_free(node.loop);
}

/* Though the worker's job may take seconds, and though others take that of all away meanwhile. */
static void guarantees_are_kept_while_the_worker_reclaims(void **state)
{
    struct vm vm = { .head = { .instance = 7 } };
    struct vm *owners[] = { &vm };
    struct balancer_vm vms[] = { { .plan = { .low_mib = 16 } } };
    struct node node = { 0 };
    struct node_memory memory = {
        .node = &node, .vms = vms, .owners = owners, .count = 1, .reclaiming = true
    };

    (void)state;
    node.memory = &memory;
    carry_out(&memory);
    assert_int_equal(set_low, 16 + VM_OVERHEAD_MIB);
    assert_int_equal(low_of_all, 16 + VM_OVERHEAD_MIB);
    set_low = low_of_all = 0;
    carry_out(&memory);
    assert_int_equal(set_low, 0); /* nobody takes that */
    assert_int_equal(low_of_all, 16 + VM_OVERHEAD_MIB);
}

/* The plan saw 300 MiB; when its turn comes the kernel has taken some by itself. */
static void what_is_guaranteed_is_not_reclaimed_by_an_old_plan(void **state)
{
    static const struct {
        uint32_t held_mib, reclaimed_mib;
    } cases[] = { { 300, 37 }, { 290, 34 }, { 257, 1 }, { 256, 0 }, { 219, 0 }, { 0, 0 } };
    struct vm vm = { .head = { .instance = 7 } };
    struct vm *owners[] = { &vm };
    struct balancer_vm vms[] = { { .plan = { .low_mib = 256, .reclaim_mib = 37 } } };
    struct node node = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct node_memory memory = { .node = &node, .vms = vms, .owners = owners, .count = 1 };

        held_mib = cases[i].held_mib;
        reclaimed_mib = 0;
        assert_int_equal(loop_new(&node.loop, NULL), 0);
        assert_int_equal(worker_new(node.loop, "memory", NULL, &memory.worker, NULL), 0);
        submit_limits(&memory);
        worker_free(memory.worker); /* does it */
        assert_int_equal(reclaimed_mib, cases[i].reclaimed_mib);
        loop_free(node.loop);
    }
}

static void whose_driver_keeps_its_balloon_is_heard(void **state)
{
    struct vm vm = { 0 };
    struct stats_page page = { 0 };
    struct balancer_vm seen = { 0 };

    (void)state;
    hear_guest(&vm, &page, &seen);
    assert_false(seen.keeps_balloon);
    page.balloon.guest_known = STATS_GUEST_KEEPS;
    hear_guest(&vm, &page, &seen);
    assert_true(seen.keeps_balloon);
}

/* But no sooner than a tick after the last time, or a guest that stalls keeps the loop busy. */
static void pressure_has_it_balanced_between_ticks(void **state)
{
    const struct config config = { 0 };
    struct node node = { .config = &config, .memory_bytes = UINT64_C(1) << 30 };
    struct node_memory memory = { .node = &node, .mode = MEMORY_DRY_RUN };
    int64_t before;

    (void)state;
    node.memory = &memory;
    memory.last_ms = before = loop_now_ms() - BALANCER_TICK_MS;
    on_trigger(&memory, 0);
    assert_int_equal(memory.figures.wakeups, 1);
    assert_true(memory.last_ms >= before + BALANCER_TICK_MS);
    memory.last_ms = before =
        loop_now_ms() + 60000; /* however long a busy machine takes to the next line */
    on_trigger(&memory, 0);
    assert_int_equal(memory.figures.wakeups, 2);
    assert_int_equal(memory.last_ms, before);
}

static void what_a_vm_that_starts_will_fill_is_kept_for_it(void **state)
{
    static const struct {
        int64_t age_ms;
        uint32_t resident_mib, starting_mib;
    } cases[] = { { 0, 0, 512 },
                  { 0, 500, 12 },
                  { 0, 512, 0 },
                  { 0, 600, 0 },
                  { STARTING_MS / 2, 0, 512 },
                  { STARTING_MS, 0, 0 } };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct vm vm = { .launch_ns = (loop_now_ms() - cases[i].age_ms) * 1000000 };
        struct vm *owners[] = { &vm };
        struct balancer_vm vms[] = { { .min_mib = 512, .resident_mib = cases[i].resident_mib } };
        struct node_memory memory = { .vms = vms, .owners = owners, .count = 1 };

        assert_int_equal(starting_mib(&memory), cases[i].starting_mib);
    }
}

static void dry_run_has_no_balloon_moved(void **state)
{
    struct node node = { 0 };
    struct node_memory memory = { .node = &node, .mode = MEMORY_ON };
    struct vm vm = { .plan = { .balloon_mib = 64 } };

    (void)state;
    assert_int_equal(node_memory_balloon_mib(&node, &vm), 0);
    node.memory = &memory;
    assert_int_equal(node_memory_balloon_mib(&node, &vm), 64);
    memory.mode = MEMORY_DRY_RUN;
    assert_int_equal(node_memory_balloon_mib(&node, &vm), 0);
}

#define SAYS (1u << GUEST_TOTAL | 1u << GUEST_AVAILABLE)

/* Words that a hostile guest, or VMM, may say: none is more than a VM can have, none is divided by.
 */
static void what_a_guest_says_of_its_memory_is_bounded(void **state)
{
    const uint64_t now = (uint64_t)loop_now_ms();
    const struct {
        uint64_t guest_ms, total, available;
        uint32_t known, used_mib, age_ms; /* at least */
    } cases[] = {
        { now, 1024u << 20, 256u << 20, SAYS, 768, 0 },
        { now - 60000, 1024u << 20, 256u << 20, SAYS, 768, 60000 },
        { now, 256u << 20, 1024u << 20, SAYS, 0, 0 },
        { now, UINT64_MAX, 0, SAYS, 1u << 22, 0 },
        { now + 60000, 1024u << 20, 0, SAYS, 1024, UINT32_MAX },   /* not yet */
        { 1, 1024u << 20, 0, SAYS, 1024, 1000 },                   /* long ago */
        { 0, 1024u << 20, 0, SAYS, 0, UINT32_MAX },                /* never */
        { now, 1024u << 20, 0, 1u << GUEST_TOTAL, 0, UINT32_MAX }, /* half of it */
    };

    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct vm vm = { 0 };
        struct balancer_vm seen = { 0 };
        struct stats_page page = { .balloon = { .guest_ms = cases[i].guest_ms,
                                                .guest_known = cases[i].known } };

        page.balloon.guest[GUEST_TOTAL] = cases[i].total;
        page.balloon.guest[GUEST_AVAILABLE] = cases[i].available;
        hear_guest(&vm, &page, &seen);
        assert_int_equal(seen.used_mib, cases[i].used_mib);
        assert_true(seen.stats_age_ms >= cases[i].age_ms);
        assert_int_equal(seen.stats_age_ms == UINT32_MAX, cases[i].age_ms == UINT32_MAX);
    }
}

static uint32_t refaults_after(struct vm *vm, uint64_t ms, uint64_t faults, uint64_t swap_in)
{
    struct balancer_vm seen = { 0 };
    struct stats_page page = { .balloon = { .guest_ms = ms, .guest_known = SAYS } };

    page.balloon.guest[GUEST_MAJOR_FAULTS] = faults;
    page.balloon.guest[GUEST_SWAP_IN] = swap_in;
    hear_guest(vm, &page, &seen);
    return seen.refaults;
}

/* Counters of its: what came since the last time that it said any, a second. */
static void what_a_guest_reads_back_is_a_rate(void **state)
{
    struct vm vm = { 0 };

    (void)state;
    assert_int_equal(refaults_after(&vm, 1000, 5000, 0), 0); /* since when? */
    assert_int_equal(refaults_after(&vm, 1999, 5300, 0), 300);
    assert_int_equal(refaults_after(&vm, 1999, 9999, 0), 300); /* no news */
    assert_int_equal(refaults_after(&vm, 3998, 5300, 200 * 4096), 100);
    assert_int_equal(refaults_after(&vm, 4997, 0, 0), 0); /* it was started anew */
    assert_int_equal(refaults_after(&vm, 5996, UINT64_MAX, 0), UINT32_MAX);
    assert_int_equal(refaults_after(&vm, 2000, UINT64_MAX, 0), 0); /* back in time */
}

/* Its jobs keep it from being stepped: what counts is what it is to be. */
static void a_pause_that_was_asked_for_outlasts_the_shortage(void **state)
{
    struct node node = { 0 };
    struct node_memory memory = { .node = &node };
    struct vm vm = { .state = VM_PAUSED,
                     .jobs = 1,
                     .intent = VM_INTENT_PAUSE,
                     .full = PAUSE_REASON ": 1 of 100 MiB are free" };
    struct change change = { .node = &node,
                             .verb = CHANGE_ACTION,
                             .action = VM_ACTION_PAUSE,
                             .target = &vm.head,
                             .new_spec.desired_running = true,
                             .new_intent = VM_INTENT_PAUSE };

    (void)state;
    change_apply_vm(&change);
    assert_false(node_memory_paused(&vm));
    pause_or_resume(&memory, &vm, false);
    assert_int_equal(vm.intent, VM_INTENT_PAUSE);
    json_decref(vm.head.spec);
}

/* This process has mapped a file of 256 MiB, and what VM 7's group holds is more, or nothing is
 * known of it. */
static void a_page_of_a_file_is_counted_for_one_vm_only(void **state)
{
    static const struct {
        enum vmm_memory_backing backing;
        bool forked, restored;
        uint32_t held_mib, least_mib, most_mib;
    } cases[] = {
        { VMM_MEMORY_ANONYMOUS, false, false, 300, 0, 100 }, /* a kernel's image */
        { VMM_MEMORY_ANONYMOUS, false, true, 0, 0, 100 },    /* a snapshot's memory */
        { VMM_MEMORY_ANONYMOUS, false, true, 150, 150, 150 },
        { VMM_MEMORY_SHARED, false, false, 0, 256, 356 },
        { VMM_MEMORY_SHARED, false, false, 400, 400, 400 }, /* it has forks */
        { VMM_MEMORY_SHARED, true, false, 0, 0, 100 },      /* it is one */
        { VMM_MEMORY_SHARED, true, false, 150, 150, 150 },
        { VMM_MEMORY_SHARED, false, true, 0, 0, 100 },
    };
    const size_t bytes = 256 << 20;
    struct node node = { 0 };
    int fd = memfd_create("memory", MFD_CLOEXEC);
    void *memory;

    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* its notes about this memory are the process's, too */
#endif
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(memory != MAP_FAILED);
    memset(memory, 1, bytes);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct vm vm = { .head.instance = 7,
                         .pid = getpid(),
                         .spec.memory_backing = cases[i].backing,
                         .forked = cases[i].forked,
                         .memory_base = { cases[i].restored ? 'x' : '\0' } };
        uint32_t found;

        held_mib = cases[i].held_mib;
        found = resident_mib(&node, &vm);
        if (found < cases[i].least_mib || found > cases[i].most_mib)
            fail_msg("case %u: %u MiB", i, found);
    }
    munmap(memory, bytes);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_of_a_file_is_counted_for_one_vm_only),
        cmocka_unit_test(a_limit_that_was_not_taken_is_asked_for_again),
        cmocka_unit_test(guarantees_are_kept_while_the_worker_reclaims),
        cmocka_unit_test(what_is_guaranteed_is_not_reclaimed_by_an_old_plan),
        cmocka_unit_test(whose_driver_keeps_its_balloon_is_heard),
        cmocka_unit_test(what_a_guest_says_of_its_memory_is_bounded),
        cmocka_unit_test(what_a_guest_reads_back_is_a_rate),
        cmocka_unit_test(pressure_has_it_balanced_between_ticks),
        cmocka_unit_test(what_a_vm_that_starts_will_fill_is_kept_for_it),
        cmocka_unit_test(dry_run_has_no_balloon_moved),
        cmocka_unit_test(a_pause_that_was_asked_for_outlasts_the_shortage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
