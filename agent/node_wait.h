/* node_wait.h - those who wait for a resource to come into a state.  Loop thread only. */
#pragma once

struct node;
struct resource;

/* Something of the resource (NULL: of the node) changed, or it is no longer in its table: who waits
 * for it looks. */
void node_wait_look(struct node *node, const struct resource *resource);
