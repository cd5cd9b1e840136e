/* vm_devices.h - a VM's disks and nics by their places: those of its spec, and those that its
 * process may have though the spec has them no more.  Decisions are pure; what is done about them
 * is vm_hotplug.c's.  Loop thread. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "agent/vm_spec.h"

struct error;
struct node;
struct vm;

#define VM_PLACES (VMM_DISKS_MAX > VMM_NICS_MAX ? VMM_DISKS_MAX : VMM_NICS_MAX)

enum vm_device_use {
    VM_DEVICE_SPEC,     /* as the spec says: it has one there, or the place is free */
    VM_DEVICE_RESERVED, /* a change that is being committed puts one into the spec */
    VM_DEVICE_LEAVING,  /* the spec has it no more */
};

/* In the VM's process; of a VM that has none: in its next. */
enum vm_device_there { VM_DEVICE_IS_PRESENT, VM_DEVICE_IS_UNKNOWN, VM_DEVICE_IS_ABSENT };

/* What its VMM owes an answer to. */
enum vm_device_question { VM_DEVICE_NOTHING, VM_DEVICE_ATTACH, VM_DEVICE_LOOK, VM_DEVICE_DETACH };

/* All zero: in the spec and in the machine, or neither. */
struct vm_device {
    enum vm_device_use use;
    enum vm_device_there there;
    enum vm_device_question asked;
    bool job;         /* a worker is at it */
    bool up;          /* a nic's tap or rules may be there */
    bool failed;      /* its attaching: it is tried again when it is asked for again */
    int64_t again_ms; /* no step is taken before then; on loop_now_ms's clock */
    char reason[160]; /* why it failed, or what it waits for */
};

struct vm_devices {
    struct vm_device at[VMM_DEVICE_KIND_COUNT][VM_PLACES];
    /* By place, of those RESERVED and LEAVING.  Their addresses are in vm->nics. */
    struct vm_disk_spec disks[VMM_DISKS_MAX];
    struct vm_nic_spec nics[VMM_NICS_MAX];
    bool changing; /* a change of the spec's disks or nics is being committed */
    unsigned jobs; /* of all of them */
};

/* What has the place, whether in the spec or not; NULL = nothing.  Borrowed. */
const struct vm_disk_spec *vm_disk_at(const struct vm *vm, unsigned place);
const struct vm_nic_spec *vm_nic_at(const struct vm *vm, unsigned place);
/* The same, but only if the machine that is being made, or that runs, has it. */
const struct vm_disk_spec *vm_disk_in_machine(const struct vm *vm, unsigned place);
const struct vm_nic_spec *vm_nic_in_machine(const struct vm *vm, unsigned place);
/* Does the guest have it behind a NAT of its own, from a fork? */
bool vm_nic_is_forked(const struct vm *vm, unsigned place);
/* The addresses by which its guest knows it. */
const struct vm_nic *vm_nic_inside(const struct vm *vm, unsigned place);
/* Uses of a volume or a network by a VM, of what is to go, too. */
bool vm_uses_volume(const struct vm *vm, const char *volume);
unsigned vm_count_nics(const struct vm *vm, const char *network);

/* The lowest place that nobody has, or -EBUSY. */
int vm_devices_find_place(const struct vm *vm, enum vmm_device_kind kind, struct error *err);
/* Is one of that name to go?  Its place, or -1. */
int vm_devices_find_leaving(const struct vm *vm, enum vmm_device_kind kind, const char *name);

enum vm_device_step {
    VM_DEVICE_REST,      /* nothing is to be done */
    VM_DEVICE_WAIT,      /* something is under way, or due later */
    VM_DEVICE_ASK_LOOK,  /* ask the VMM whether it is there */
    VM_DEVICE_ASK_GO,    /* ask the guest to let it go */
    VM_DEVICE_OPEN,      /* get what it needs, then attach it */
    VM_DEVICE_TAKE_DOWN, /* a nic: what the host has of it */
    VM_DEVICE_FORGET,    /* it is gone */
};
/* What is due about the one at a place.  in_spec: the spec has one there. */
enum vm_device_step vm_device_next(const struct vm_device *device, bool in_spec, int64_t now_ms);
/* What the VMM says; `present` and `result` are those of an answer, or of one that is gone. */
void vm_device_answered(struct vm_device *device, bool present, int result, int64_t now_ms);
/* There will be no answer. */
void vm_device_unanswered(struct vm_device *device);
void vm_device_fail(struct vm_device *device, const char *reason);

/* Is nothing to be done, or under way, about any of them? */
bool vm_devices_are_settled(const struct vm *vm);
/* And is each of the spec's in the machine, and will be?  -EBUSY. */
int vm_devices_check_whole(const struct vm *vm, struct error *err);

/* Adds "disks" and "nics" to a status; stored: with what only the row needs.  < 0: memory is
 * short. */
int vm_devices_status(const struct vm *vm, json_t *status, bool stored);
/* Fills in what a stored status says, places included.  Of what was under way an answer of the VMM
 * tells how far it came. */
int vm_devices_restore(struct vm *vm, const json_t *status, struct error *err);
