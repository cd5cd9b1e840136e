/* api_service.h - warrend's side of one listener of the API: its socket, the warren-api process
 * that speaks HTTP on it, and the requests that it relays.  Loop thread.
 *
 * The listening socket belongs to warrend, so that a restart of warren-api refuses nobody: it is
 * started again at once when it dies (later and later if it keeps dying) or hangs
 * (base/watchdog.h), and only the requests then under way are lost. */
#pragma once
#include <sys/types.h>
#include "api/access.h"

struct api_service; /* opaque; see api_service.c */
struct error;
struct log;
struct loop;
struct node;

#define API_SOCKET_NAME "warren.sock"

struct api_metrics;
struct audit;

struct api_service_options {
    enum listener listener;
    size_t changes_max;          /* under way together, waits included; 0 = 2048 */
    const char *address;         /* of the TCP listeners */
    struct api_metrics *metrics; /* of all listeners */
    struct audit *audit;         /* outlives the node; NULL = none (tests) */
    const char *tls;             /* of the TCP listeners, as api_service_set_tls has it */
    size_t tls_size;
    const struct tokens *tokens; /* as they are now; for the TCP listeners */
    struct loop *loop;           /* borrowed, as everything here, until api_service_free */
    struct node *node;
    const struct log *log;
    int run_dir_fd;     /* warren.sock is made in it, replacing one that is there */
    mode_t socket_mode; /* 0 = 0600 */
    int api_exec_fd;    /* the program warren-api */
    uid_t uid;          /* it gives up root for these; 0 = keeps (tests) */
    gid_t gid;
    const char *empty_root; /* absolute path of an empty directory; NULL = keeps the root (tests) */
};

/* Returns once warren-api has been started; the socket accepts connections from then on. */
int api_service_new(const struct api_service_options *options, struct api_service **ret_service,
                    struct error *err);
/* What to show to TLS clients from now on: a WIRE_TLS body.  Whether it is any good is logged
 * later; if it is not, the one before stays. */
int api_service_set_tls(struct api_service *service, const char *bytes, size_t size,
                        struct error *err);
/* Tokens, or labels of VMs, are others now: who may no longer have its stream, or what it waits
 * for, loses it. */
void api_service_check_access(struct api_service *service);
/* In order to end: removes the socket, so that nobody new comes, lets who is connected have one
 * more answer each, and then calls done, later and once.  Who does not wait for that frees the
 * service, which drops what is left.  Requests that wait for something are not hurried:
 * node_end_waits. */
void api_service_drain(struct api_service *service, void (*done)(void *context), void *context);
/* Ends warren-api and removes the socket.  Requests whose change is still under way stay valid
 * until the node reports it.  Accepts NULL, returns NULL. */
struct api_service *api_service_free(struct api_service *service);
