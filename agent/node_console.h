/* node_console.h - what else the node does about consoles; see node.h for following and input. Loop
 * thread. */
#pragma once
#include <stdbool.h>

struct node;
struct vm;

/* The VM's page is about to be made anew: followers get what they can of the old one. */
void vm_console_catch_up(struct node *node, const struct vm *vm);
/* The VMM answered the oldest input. */
void vm_console_answered(struct vm *vm, bool taken);
/* It will answer nothing more. */
void vm_console_forget(struct vm *vm);
/* The node ends: so do its streams. */
void node_console_end(struct node *node);
