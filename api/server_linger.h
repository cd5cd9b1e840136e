/* server_linger.h - what a client still sends behind an answer that ended its connection.
 *
 * A socket that is closed with bytes unread is reset, and the answer may be lost with it: so it is
 * read, and dropped, for a moment (RFC 9112, 9.6).  One thread, the loop's. */
#pragma once

struct server;
struct server_linger;

#define SERVER_LINGER_MS  5000 /* from the answer's end; then the connection is closed */
#define SERVER_LINGER_MAX 32   /* at a time; more are closed at once */

/* fd: libmicrohttpd's, about to be closed; a copy is kept.  Nothing if it cannot be. */
void linger_begin(struct server *server, int fd);
void linger_end_all(struct server *server);
