/* vm_share.h - a VM's weights and caps of CPUs and disks (jail_share.h), in its spec and while it
 * runs. Loop thread. */
#pragma once
#include <jansson.h>

struct jail_share;
struct json_reader;
struct node;
struct vm;

/* Those of the reader's object, or as they are by default; bad ones fail the reader. */
void vm_share_read(struct json_reader *reader, struct jail_share *ret_share);
/* Adds them to a spec: weights always, caps if they are set. */
int vm_share_put(json_t *spec, const struct jail_share *share);
/* Has the launch worker write them as its spec has them; nothing if it does not run.  Told again,
 * they change nothing, so each agent tells again what it cannot know was told. */
void vm_share_tell(const struct node *node, const struct vm *vm);
