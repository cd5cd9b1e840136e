/* server_stream.h - a reply that is a stream: what comes out of the passed socket goes to the
 * client (200), or bytes are copied both ways (101).  One thread, as all of warren-api.
 *
 * A stream costs its client's connection and, at most, one block of what is under way each way: who
 * reads too slowly makes the socket fill up, and its other end in warrend decides what to do. */
#pragma once
#include <microhttpd.h>

struct server_connection;

/* The response for connection->reply, which has a stream; NULL if memory is short. */
struct MHD_Response *stream_response(struct server_connection *connection);
/* Its request is over, whatever the reason: nothing is watched or open any more. */
void stream_end(struct server_connection *connection);
/* Before the daemon stops: no connection stays suspended or upgraded. */
void stream_let_go(struct server_connection *connection);
