/* sysctl.h - kernel settings of the thread's network namespace.  Network worker only. */
#pragma once

struct error;

/* path: below /proc/sys/, "net/ipv4/ip_forward". */
int sysctl_read(const char *path, int *ret_value, struct error *err);
int sysctl_write(const char *path, int value, struct error *err);

/* Forwarding between interfaces is switched on while a network needs it, and put back after.  What
 * it was is remembered in the file "ip_forward" in dir_fd, written before the change. */
int forwarding_acquire(int dir_fd, struct error *err);
/* Idempotent; changes nothing that we did not change. */
int forwarding_release(int dir_fd, struct error *err);
