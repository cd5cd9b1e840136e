/* fetch_url.h - the source is at a URL.  warren-fetch, one thread, inside its sandbox. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct fetch_output;
struct fetch_report;

struct fetch_url_spec {
    const char *url;         /* borrowed */
    const char *authorities; /* borrowed; PEM bundle, read before the sandbox was entered */
    size_t authorities_size;
    bool allow_private;
    uint64_t speed_limit; /* bytes a second, at least, from the server; 0 = it is waited for */
    uint64_t speed_time;  /* s; for so long, on average */
};

#define FETCH_REDIRECTS_MAX   5
#define FETCH_CONNECT_SECONDS 20

/* Takes the whole resource into `output`.  Only https, at most FETCH_REDIRECTS_MAX
 * redirects; every address connected to, those of redirects too, must be public
 * unless allow_private.  Proxies and credentials in URLs are not used.  -EAGAIN also if the server
 * is slower than the limit. */
int fetch_url(const struct fetch_url_spec *spec, struct fetch_output *output,
              struct fetch_report *report, struct error *err);
