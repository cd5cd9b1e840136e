/* server_tls.h - TLS 1.3 for warren-api: who we are, and who the client is.  One thread.
 *
 * libmicrohttpd keeps the certificate that it was started with.  So it is started without one, and
 * each session gets the credentials that are valid when it connects: a new certificate needs no new
 * daemon, and sessions that have begun keep theirs.  libmicrohttpd rejects no client certificate,
 * either: chain, times and purpose are checked here, for each request. */
#pragma once
#include <gnutls/abstract.h>
#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct server_tls; /* opaque, counted; see server_tls.c */

#define SERVER_TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3"

/* When the first of its own certificates ends, in seconds of the epoch. */
int64_t server_tls_until(const struct server_tls *tls);
/* bytes: the body of a WIRE_TLS message.  -EINVAL with what is wrong. */
int server_tls_new(const char *bytes, size_t size, struct server_tls **ret_tls, struct error *err);
void server_tls_unref(struct server_tls *tls); /* accepts NULL */

/* Gives a new session its credentials, which it holds (server_tls_unref behind its end).  NULL if
 * there are none: then its handshake fails. */
struct server_tls *server_tls_begin(struct server_tls *tls, struct MHD_Connection *mhd);
/* Has the client shown a certificate that is valid now?  Its common name, and until when it is, in
 * seconds since 1970. */
bool server_tls_client(struct MHD_Connection *mhd, char *ret_name, size_t size, int64_t *ret_until);
/* Do both accept the same authorities' clients?  Neither is NULL. */
bool server_tls_same_clients(const struct server_tls *a, const struct server_tls *b);
/* libmicrohttpd's own certificate: none. */
int server_tls_no_certificate(gnutls_session_t session,
                              const struct gnutls_cert_retr_st *information,
                              gnutls_pcert_st **ret_certificates, unsigned int *ret_count,
                              gnutls_ocsp_data_st **ret_ocsp, unsigned int *ret_ocsp_count,
                              gnutls_privkey_t *ret_key, unsigned int *ret_flags);

/* Of a connected socket: "pid=7,uid=0,gid=0" or "192.0.2.1:5000"; "?" if it cannot be told. */
void server_peer_name(int fd, char *ret_name, size_t size);
