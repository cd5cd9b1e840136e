/* node_setup.h - making the node from what is on the disk and in the kernel, and ending it.
 *
 * There is one way to start, whether everything was shut down in order, the agent was killed, or
 * the host lost power: node_new loads the rows, node_reconcile compares them with what is really
 * there. */
#pragma once
#include <stdint.h>
#include <sys/types.h>

struct config;
struct error;
struct jail;
struct log;
struct loop;
struct node;

/* Opens database, stores, workers and network.  config, log, loop and jail are borrowed. */
int node_new(struct loop *loop, const struct log *log, const struct config *config,
             struct jail *jail, struct node **ret_node, struct error *err);

/* Re-adopts VMs that run, makes networks as they should be, removes what no row names, and goes on
 * with or undoes what was begun.  Waits for the network worker's part; the rest goes on in the
 * loop.  Once, before the API opens. */
int node_reconcile(struct node *node, struct error *err);

/* Instead, where the database is damaged, or older than what is there: nothing is touched, nothing
 * can be changed, and what is known of VMs can be read.  Once. */
void node_damage_begin(struct node *node, const struct error *damage);

/* The pidfd of the VM's process of an earlier agent, or -1 if it is gone.  Owned. */
int node_find_process(const struct node *node, uint32_t instance, pid_t *ret_pid);

/* node_orphans.c: ends the processes of VMs that no row names, and has the launch worker wait for
 * them and remove what is left of them, before it starts any. */
int node_remove_orphans(struct node *node, struct error *err);

/* Finishes what is queued and closes; VMs, networks and dnsmasqs go on.  Accepts NULL. */
struct node *node_free(struct node *node);
