/* node_setup.h - making the node from what is on the disk and in the kernel, and ending it.
 *
 * There is one way to start, whether everything was shut down in order, the agent was killed, or
 * the host lost power: node_new loads the rows, node_reconcile compares them with what is really
 * there. */
#pragma once

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

/* Finishes what is queued and closes; VMs, networks and dnsmasqs go on.  Accepts NULL. */
struct node *node_free(struct node *node);
