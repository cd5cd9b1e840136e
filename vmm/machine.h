/* machine.h - one virtual machine, put together from a validated configuration.  Main thread. */
#pragma once
struct config_fds;
struct control;
struct control_ops;
struct error;
struct exit_record;
struct loop;
struct machine; /* opaque; see machine.c */
struct vmm_configure;

/* Loads the kernel, or a snapshot; creates VM, devices and vCPUs.  What is passed is borrowed, but
 * the fds of disks and nics, which are taken over; those of RAM and its layers must stay open, the
 * others may be closed.  It ends with the process: one that could not be built is not taken down
 * either. */
int machine_new(const struct vmm_configure *configure, const struct config_fds *fds,
                struct exit_record *record, struct loop *loop, struct control *control,
                struct machine **ret_machine, struct error *err);

/* Starts the vCPU threads, filters the calling thread, then lets the guest run. */
int machine_start(struct machine *machine, struct error *err);

/* With the started machine as their context. */
extern const struct control_ops machine_control_ops;
