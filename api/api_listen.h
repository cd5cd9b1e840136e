/* api_listen.h - the sockets that warren-api accepts from.  Owned fds, non-blocking. */
#pragma once
#include <stddef.h>
#include <sys/types.h>

struct error;

/* `name` in the directory, made under another name and renamed once it listens: whoever sees it can
 * connect. */
int api_listen_unix(int dir_fd, const char *name, mode_t mode, struct error *err);
/* "192.0.2.1:9443" or "[2001:db8::1]:9443": numbers, no names.  ret_address: as it is then (port 0
 * chooses one). */
int api_listen_tcp(const char *address, char *ret_address, size_t size, struct error *err);
