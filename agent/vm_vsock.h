/* vm_vsock.h - the sockets behind a VM's vsock: which its guest may reach, and who answers the
 * VMM's questions; see node.h for connecting to the guest.  Loop thread. */
#pragma once

struct config;
struct error;
struct node;
struct vm;
struct vm_vsock_spec;
struct vmm_vsock;

/* -EINVAL if a socket is not below a directory that the node allows. */
int vm_vsock_check(const struct config *config, const struct vm_vsock_spec *vsock,
                   struct error *err);
/* What the VMM asks or answers; untrusted. */
void vm_vsock_message(struct node *node, struct vm *vm, const struct vmm_vsock *message);
/* It will answer nothing more. */
void vm_vsock_forget(struct vm *vm);
