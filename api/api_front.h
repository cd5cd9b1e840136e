/* api_front.h - all listeners of the API together, with what they share: metrics, tokens and
 * certificate.  These are read again when their files change, and when api_front_reload asks for
 * it; what is wrong with them then is logged, and changes nothing.  Loop thread. */
#pragma once
#include "api/api_service.h"

struct api_front; /* opaque; see api_front.c */

struct api_front_options {
    struct api_service_options service;                      /* what all listeners have in common */
    const char *listen, *metrics_listen;                     /* addresses; "" = none */
    const char *tls_cert, *tls_key, *tls_client_ca, *tokens; /* files; borrowed */
};

int api_front_new(const struct api_front_options *options, struct api_front **ret_front,
                  struct error *err);
void api_front_reload(struct api_front *front);
/* As api_service_drain, of all listeners. */
void api_front_drain(struct api_front *front, void (*done)(void *context), void *context);
struct api_front *api_front_free(struct api_front *front); /* accepts NULL, returns NULL */
