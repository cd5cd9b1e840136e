/* seqpacket.h - SOCK_SEQPACKET unix sockets: whole messages, with fds.  Any thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct error;

#define SEQPACKET_FDS_MAX     253   /* the kernel's SCM_MAX_FD */
#define SEQPACKET_MESSAGE_MAX 65536 /* larger bodies travel as sealed memfds */

/* Binds `name` in the directory dir_fd and listens (works for paths of any length).  Owned fd. */
int seqpacket_listen(int dir_fd, const char *name, struct error *err);
/* Connects without waiting; non-blocking, close-on-exec.  Owned fd. */
int seqpacket_connect(int dir_fd, const char *name, struct error *err);
int seqpacket_pair(int ret_fds[2], struct error *err); /* both non-blocking, close-on-exec */

/* 0 once the whole message is queued, -EAGAIN if the peer's buffer is full, else -errno. */
int seqpacket_send(int fd, const void *message, size_t size, const int *fds, size_t fd_count,
                   struct error *err);
/* Size of the message (at most `size`; a longer one is -EMSGSIZE and dropped), 0 at the end,
 * -EAGAIN if none waits.  Up to *fd_count fds are put into ret_fds (owned, close-on-exec), their
 * number into *fd_count; more than fit: -EMSGSIZE, all closed.  fds may be NULL (any are closed).
 * -EMFILE: the process has no room for all of them; they are closed, but the message is there. */
ssize_t seqpacket_receive(int fd, void *message, size_t size, int *ret_fds, size_t *fd_count,
                          struct error *err);

/* A memfd with these bytes, sealed against every change.  Owned fd. */
int sealed_memfd(const void *bytes, size_t size, struct error *err);
/* Reads a received memfd whole: refuses one not sealed against write and shrink (it could change
 * under us), and one larger than max.  *ret_bytes is malloc'ed with a NUL behind. */
int sealed_memfd_read(int fd, size_t max, char **ret_bytes, size_t *ret_size, struct error *err);
