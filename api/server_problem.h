/* server_problem.h - the problem documents that warren-api answers by itself: of requests that
 * never reach warrend.  Any thread. */
#pragma once
#include <microhttpd.h>
#include "api/server_headers.h"

/* *ret_status is the HTTP status.  The response closes the connection, for after such a request it
 * is not sure where the next one begins.  NULL if memory is short. */
struct MHD_Response *server_problem(enum server_refusal refusal, unsigned int *ret_status);
