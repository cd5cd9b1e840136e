/* notify.h - tells systemd how far the agent is (sd_notify(3)).  A few lines of our own: the
 * protocol is one datagram, and libsystemd would be one more library in the root process.  Loop
 * thread. */
#pragma once

struct loop;

/* Tells that requests are served; and from then on, as often as the unit's WatchdogSec wants, that
 * the loop turns.  Nothing where no systemd asks for it ($NOTIFY_SOCKET). */
void notify_ready(struct loop *loop);
/* That the agent is ending, in its own order. */
void notify_stopping(void);
