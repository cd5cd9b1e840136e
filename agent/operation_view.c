/* How far the work on a resource is, as its operation shows it. */
#include "agent/node_snapshot.h"
#include "agent/operation.h"
#include "agent/vm_fork.h"
#include "storage/image.h"

bool operation_verb_of(const struct resource *target, enum operation_verb *ret_verb)
{
    bool is_one;

    switch (target->kind) {
    case RESOURCE_IMAGE:
        *ret_verb = OPERATION_IMPORT;
        return true;
    case RESOURCE_VOLUME: /* what is a fork's is a part of that */
        is_one = disk_base_is_set(&((const struct volume *)target)->source) &&
                 !((const struct volume *)target)->fork[0];
        *ret_verb = OPERATION_COPY;
        return is_one;
    case RESOURCE_SNAPSHOT:
        *ret_verb = OPERATION_SNAPSHOT;
        return !((const struct snapshot *)target)->is_fork;
    case RESOURCE_VM:
        *ret_verb = OPERATION_FORK;
        return ((const struct vm *)target)->spec.fork[0] != '\0';
    default:
        return false;
    }
}

static struct operation_view view_of_image(const struct image *image)
{
    static const enum operation_step steps[] = {
        [IMAGE_IMPORT_WAITING] = STEP_WAIT,
        [IMAGE_IMPORT_FETCHING] = STEP_FETCH,
        [IMAGE_IMPORT_STORING] = STEP_STORE,
    };
    enum image_import_stage stage = image->import     ? image_import_stage(image->import)
                                    : image->imported ? IMAGE_IMPORT_STORING
                                                      : IMAGE_IMPORT_WAITING;

    return (struct operation_view){
        .state = stage == IMAGE_IMPORT_WAITING ? OPERATION_PENDING : OPERATION_RUNNING,
        .step = steps[stage],
        .reason = image->reason,
        .done_bytes = image->done_bytes,
        .total_bytes = image->total_bytes,
    };
}

static struct operation_view view_of_volume(const struct volume *volume)
{
    return (struct operation_view){
        .state = volume->job_running ? OPERATION_RUNNING : OPERATION_PENDING,
        .step = volume->job_running ? STEP_COPY : STEP_WAIT,
        .reason = volume->reason,
        .done_bytes = volume->copy ? __atomic_load_n(&volume->copy->done, __ATOMIC_RELAXED) : 0,
        .total_bytes = volume->copy ? __atomic_load_n(&volume->copy->total, __ATOMIC_RELAXED) : 0,
    };
}

static struct operation_view view_of_snapshot(const struct snapshot *snapshot)
{
    static const enum operation_step steps[] = {
        [SNAPSHOT_FOUND] = STEP_FIND,      [SNAPSHOT_NEW] = STEP_WAIT,
        [SNAPSHOT_PREPARE] = STEP_PREPARE, [SNAPSHOT_MARK] = STEP_PREPARE,
        [SNAPSHOT_AHEAD] = STEP_COPY,      [SNAPSHOT_HOLD] = STEP_HOLD,
        [SNAPSHOT_WRITE] = STEP_WRITE,     [SNAPSHOT_COPY] = STEP_COPY,
        [SNAPSHOT_SEAL] = STEP_SEAL,       [SNAPSHOT_UNDO] = STEP_UNDO,
    };

    struct operation_view view = {
        .state = snapshot->step == SNAPSHOT_NEW ? OPERATION_PENDING : OPERATION_RUNNING,
        .step = steps[snapshot->step],
        .reason = snapshot->reason,
    };

    if (view.step != STEP_COPY || snapshot->copied_ahead)
        return view;
    for (unsigned i = 0; i < snapshot->vm_spec.disk_count; i++)
        view.total_bytes += snapshot->disks[i].read_only ? 0 : snapshot->disks[i].size_bytes;
    view.done_bytes = snapshot_copied_bytes(snapshot);
    if (view.done_bytes > view.total_bytes) /* a delta's file is longer than its disk */
        view.done_bytes = view.total_bytes;
    return view;
}

/* Done when its guest has run; a start that failed is tried again as its VM's spec says. */
static struct operation_view view_of_fork(const struct vm *vm)
{
    bool rests = !vm->start_due && !vm->timer && vm->jobs == 0;
    struct operation_view view = { .state = OPERATION_RUNNING,
                                   .step = vm_fork_awaits(vm) ? STEP_COPY : STEP_START,
                                   .reason = "" };

    if (vm->restore == VM_RESTORE_DONE)
        view.state = OPERATION_SUCCEEDED;
    else if (vm->state == VM_FAILED && rests)
        view = (struct operation_view){ .state = OPERATION_FAILED, .reason = vm->reason };
    else if (vm->state == VM_STOPPED && rests && !vm->spec.desired_running)
        view = (struct operation_view){ .state = OPERATION_CANCELLED,
                                        .reason = "it was stopped before it ran" };
    else if (vm->state == VM_CREATING || vm->state == VM_STOPPED)
        view.state = vm->fork ? OPERATION_RUNNING : OPERATION_PENDING;
    if (view.state == OPERATION_PENDING)
        view.step = STEP_WAIT;
    return view;
}

struct operation_view operation_view(const struct resource *target)
{
    struct operation_view view = { 0 };

    if (target->kind == RESOURCE_VM)
        return view_of_fork((const struct vm *)target);
    if (target->kind == RESOURCE_IMAGE)
        view = view_of_image((const struct image *)target);
    else if (target->kind == RESOURCE_VOLUME)
        view = view_of_volume((const struct volume *)target);
    else
        view = view_of_snapshot((const struct snapshot *)target);
    if (resource_progress(target) == PROGRESS_READY)
        view.state = OPERATION_SUCCEEDED;
    else if (resource_progress(target) == PROGRESS_FAILED)
        view.state = OPERATION_FAILED;
    return view;
}
