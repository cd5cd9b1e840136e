/* server_tls.c - see server_tls.h. */
#include "api/server_tls.h"
#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "base/cleanup.h"
#include "base/error.h"

#define CHAIN_MAX 16 /* certificates that are looked at */

struct server_tls {
    unsigned int references;
    bool has_clients;          /* certificates of clients are asked for */
    unsigned char clients[32]; /* SHA-256 of their authorities' certificates */
    gnutls_certificate_credentials_t credentials;
};

void server_tls_unref(struct server_tls *tls)
{
    if (!tls || --tls->references > 0)
        return;
    gnutls_certificate_free_credentials(tls->credentials);
    free(tls);
}

enum { PART_CERTIFICATE, PART_KEY, PART_CLIENT_CA, PART_COUNT };

static int split_parts(const char *bytes, size_t size, gnutls_datum_t parts[PART_COUNT],
                       struct error *err)
{
    for (int i = 0; i < PART_COUNT; i++) {
        const char *end = size > 0 ? memchr(bytes, '\0', size) : NULL;

        if (!end)
            return error_set(err, EINVAL, "certificate, key and authorities are not complete");
        parts[i] =
            (gnutls_datum_t){ .data = (unsigned char *)bytes, .size = (unsigned int)(end - bytes) };
        size -= (size_t)(end + 1 - bytes);
        bytes = end + 1;
    }
    return 0;
}

static int load_parts(struct server_tls *tls, const gnutls_datum_t parts[PART_COUNT],
                      struct error *err)
{
    int r = gnutls_certificate_set_x509_key_mem(tls->credentials, &parts[PART_CERTIFICATE],
                                                &parts[PART_KEY], GNUTLS_X509_FMT_PEM);

    if (r < 0)
        return error_set(err, EINVAL, "tls-cert, tls-key: %s", gnutls_strerror(r));
    r = gnutls_hash_fast(GNUTLS_DIG_SHA256, parts[PART_CLIENT_CA].data, parts[PART_CLIENT_CA].size,
                         tls->clients);
    if (r < 0)
        return error_set(err, EINVAL, "tls-client-ca: %s", gnutls_strerror(r));
    if (parts[PART_CLIENT_CA].size == 0)
        return 0;
    r = gnutls_certificate_set_x509_trust_mem(tls->credentials, &parts[PART_CLIENT_CA],
                                              GNUTLS_X509_FMT_PEM);
    if (r <= 0)
        return error_set(err, EINVAL, "tls-client-ca: %s",
                         r < 0 ? gnutls_strerror(r) : "there is no certificate in it");
    tls->has_clients = true;
    return 0;
}

int server_tls_new(const char *bytes, size_t size, struct server_tls **ret_tls, struct error *err)
{
    struct server_tls *tls = calloc(1, sizeof(*tls));
    gnutls_datum_t parts[PART_COUNT];
    int r;

    if (!tls || gnutls_certificate_allocate_credentials(&tls->credentials) < 0) {
        free(tls);
        return error_set(err, ENOMEM, "no memory for a certificate");
    }
    tls->references = 1;
    r = split_parts(bytes, size, parts, err);
    if (r == 0)
        r = load_parts(tls, parts, err);
    if (r < 0) {
        server_tls_unref(tls);
        return r;
    }
    *ret_tls = tls;
    return 0;
}

static gnutls_session_t session_of(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);

    return info ? (gnutls_session_t)info->tls_session : NULL;
}

struct server_tls *server_tls_begin(struct server_tls *tls, struct MHD_Connection *mhd)
{
    gnutls_session_t session = session_of(mhd);

    if (!tls || !session ||
        gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, tls->credentials) < 0)
        return NULL;
    gnutls_certificate_server_set_request(session, tls->has_clients ? GNUTLS_CERT_REQUEST
                                                                    : GNUTLS_CERT_IGNORE);
    tls->references++;
    return tls;
}

int server_tls_no_certificate(gnutls_session_t session,
                              const struct gnutls_cert_retr_st *information,
                              gnutls_pcert_st **ret_certificates, unsigned int *ret_count,
                              gnutls_ocsp_data_st **ret_ocsp, unsigned int *ret_ocsp_count,
                              gnutls_privkey_t *ret_key, unsigned int *ret_flags)
{
    (void)session;
    (void)information;
    (void)ret_certificates;
    (void)ret_count;
    (void)ret_ocsp;
    (void)ret_ocsp_count;
    (void)ret_key;
    (void)ret_flags;
    return -1;
}

/* An authority may sign other things than clients: the certificate must say that it is one's. */
static bool is_for_clients(gnutls_x509_crt_t certificate)
{
    char oid[128];

    for (unsigned int i = 0;; i++) {
        size_t size = sizeof(oid);
        unsigned int critical;
        int r = gnutls_x509_crt_get_key_purpose_oid(certificate, i, oid, &size, &critical);

        if (r < 0 && r != GNUTLS_E_SHORT_MEMORY_BUFFER)
            return false;
        if (r >= 0 && strcmp(oid, GNUTLS_KP_TLS_WWW_CLIENT) == 0)
            return true;
    }
}

/* Printable, without what separates words of the tokens file. */
static bool name_is_plain(const char *name, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (name[i] <= ' ' || name[i] > '~')
            return false;
    return size > 0;
}

static bool read_name(const gnutls_datum_t *der, char *ret_name, size_t size)
{
    gnutls_x509_crt_t certificate;
    bool found = false;

    if (gnutls_x509_crt_init(&certificate) < 0)
        return false;
    if (gnutls_x509_crt_import(certificate, der, GNUTLS_X509_FMT_DER) == 0 &&
        is_for_clients(certificate) &&
        gnutls_x509_crt_get_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, 0, ret_name,
                                      &size) == 0)
        found = name_is_plain(ret_name, size);
    gnutls_x509_crt_deinit(certificate);
    return found;
}

/* The first end of those that it showed; 0 = one cannot be read. */
static int64_t first_end(const gnutls_datum_t *chain, unsigned int count)
{
    int64_t until = INT64_MAX;

    for (unsigned int i = 0; i < count && until > 0; i++) {
        gnutls_x509_crt_t certificate;
        int64_t end = 0;

        if (gnutls_x509_crt_init(&certificate) < 0)
            return 0;
        if (gnutls_x509_crt_import(certificate, &chain[i], GNUTLS_X509_FMT_DER) == 0)
            end = gnutls_x509_crt_get_expiration_time(certificate);
        gnutls_x509_crt_deinit(certificate);
        until = end < until ? end : until;
    }
    return until;
}

int64_t server_tls_until(const struct server_tls *tls)
{
    gnutls_datum_t chain[CHAIN_MAX];
    unsigned int count = 0;

    while (count < CHAIN_MAX &&
           gnutls_certificate_get_crt_raw(tls->credentials, 0, count, &chain[count]) == 0)
        count++;
    return first_end(chain, count);
}

bool server_tls_same_clients(const struct server_tls *a, const struct server_tls *b)
{
    return memcmp(a->clients, b->clients, sizeof(a->clients)) == 0;
}

bool server_tls_client(struct MHD_Connection *mhd, char *ret_name, size_t size, int64_t *ret_until)
{
    gnutls_session_t session = session_of(mhd);
    gnutls_typed_vdata_st purpose = { .type = GNUTLS_DT_KEY_PURPOSE_OID,
                                      .data = (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT };
    const gnutls_datum_t *chain;
    unsigned int count = 0, status = 0;

    if (!session)
        return false;
    chain = gnutls_certificate_get_peers(session, &count);
    if (!chain || count == 0 ||
        gnutls_certificate_verify_peers(session, &purpose, 1, &status) < 0 || status != 0)
        return false;
    *ret_until = first_end(chain, count);
    return *ret_until > 0 && read_name(&chain[0], ret_name, size);
}

void server_peer_name(int fd, char *ret_name, size_t size)
{
    struct sockaddr_storage address = { 0 };
    const struct sockaddr_in *v4 = (const void *)&address;
    const struct sockaddr_in6 *v6 = (const void *)&address;
    socklen_t length = sizeof(address);
    char text[INET6_ADDRSTRLEN] = "";
    struct ucred peer;

    snprintf(ret_name, size, "?");
    if (getpeername(fd, (struct sockaddr *)&address, &length) < 0)
        return;
    length = sizeof(peer);
    if (address.ss_family == AF_INET && inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text)))
        snprintf(ret_name, size, "%s:%u", text, ntohs(v4->sin_port));
    else if (address.ss_family == AF_INET6 &&
             inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text)))
        snprintf(ret_name, size, "[%s]:%u", text, ntohs(v6->sin6_port));
    else if (address.ss_family == AF_UNIX &&
             getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0)
        snprintf(ret_name, size, "pid=%d,uid=%u,gid=%u", (int)peer.pid, peer.uid, peer.gid);
}
