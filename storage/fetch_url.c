#include "storage/fetch_url.h"

#include <curl/curl.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/error.h"
#include "base/loop.h"
#include "storage/fetch_address.h"
#include "storage/fetch_output.h"
#include "storage/fetch_report.h"

#define FIELD "spec.source"

struct transfer {
    const struct fetch_url_spec *spec;
    struct fetch_output *output;
    struct fetch_report *report;
    CURL *curl;         /* owned by fetch_url */
    bool refused;       /* an address was not public */
    struct error error; /* of a callback; code 0 = none */
    int64_t since_ms;   /* when its speed was looked at last, and what had come by then: */
    uint64_t since_size;
};

static void cleanup_curl(CURL **curl)
{
    curl_easy_cleanup(*curl);
}
#define auto_curl __attribute__((cleanup(cleanup_curl)))

static size_t on_bytes(char *bytes, size_t unit, size_t count, void *context)
{
    struct transfer *transfer = context;
    curl_off_t total = 0;
    int result = fetch_output_append(transfer->output, bytes, unit * count, &transfer->error);

    curl_easy_getinfo(transfer->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &total);
    if (result == 0)
        result = fetch_report_progress(transfer->report, transfer->output->size,
                                       total > 0 ? (uint64_t)total : 0, &transfer->error);
    return result == 0 ? unit * count : CURL_WRITEFUNC_ERROR;
}

/* libcurl's own limit looks at the last seconds only: a burst a minute would satisfy it.  Where
 * nobody asked for twice the time, we were held up ourselves (a suspended host). */
static int check_speed(struct transfer *transfer)
{
    const struct fetch_url_spec *spec = transfer->spec;
    int64_t now_ms = loop_now_ms();
    int64_t span_ms = now_ms - transfer->since_ms, limit_ms = (int64_t)spec->speed_time * 1000;
    uint64_t came = transfer->output->size - transfer->since_size;

    if (span_ms < limit_ms)
        return 0;
    transfer->since_ms = now_ms;
    transfer->since_size = transfer->output->size;
    if (span_ms >= 2 * limit_ms || came >= spec->speed_limit * spec->speed_time)
        return 0;
    return error_field(&transfer->error, EAGAIN, FIELD,
                       "the source's server sent less than %llu KiB a second for %llu s: take "
                       "another, put the file into an import-dir, or lower import-speed-limit",
                       (unsigned long long)spec->speed_limit >> 10,
                       (unsigned long long)spec->speed_time);
}

/* Also called while nothing comes: an agent that has gone is noticed then, too. */
static int on_progress(void *context, curl_off_t total, curl_off_t done, curl_off_t up_total,
                       curl_off_t up_done)
{
    struct transfer *transfer = context;

    (void)done;
    (void)up_total;
    (void)up_done;
    return check_speed(transfer) < 0 ||
           fetch_report_progress(transfer->report, transfer->output->size,
                                 total > 0 ? (uint64_t)total : 0, &transfer->error) < 0;
}

/* The address is the one that connect(2) will get: no second look-up can change it. */
static curl_socket_t on_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct transfer *transfer = context;

    if (purpose != CURLSOCKTYPE_IPCXN)
        return CURL_SOCKET_BAD;
    if (!transfer->spec->allow_private && !address_is_public(&address->addr, address->addrlen)) {
        transfer->refused = true;
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static CURLcode set_limits(CURL *curl, const struct transfer *transfer)
{
    CURLcode code = curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);

    code |= curl_easy_setopt(curl, CURLOPT_MAXREDIRS, (long)FETCH_REDIRECTS_MAX);
    code |= curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    code |= curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    code |= curl_easy_setopt(curl, CURLOPT_PROXY, "");
    code |= curl_easy_setopt(curl, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    code |= curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)FETCH_CONNECT_SECONDS);
    code |=
        curl_easy_setopt(curl, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)transfer->output->max_bytes);
    code |= curl_easy_setopt(curl, CURLOPT_USERAGENT, "warren-fetch");
    return code;
}

static CURLcode set_source(CURL *curl, const struct fetch_url_spec *spec)
{
    struct curl_blob authorities = { .data = (void *)(uintptr_t)spec->authorities,
                                     .len = spec->authorities_size,
                                     .flags = CURL_BLOB_NOCOPY };
    CURLcode code = curl_easy_setopt(curl, CURLOPT_URL, spec->url);

    code |= curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "https");
    code |= curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "https");
    code |= curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (spec->authorities_size > 0) {
        code |= curl_easy_setopt(curl, CURLOPT_CAINFO_BLOB, &authorities);
        code |= curl_easy_setopt(curl, CURLOPT_CAINFO, NULL);
        code |= curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
    }
    return code;
}

static CURLcode set_callbacks(CURL *curl, struct transfer *transfer)
{
    CURLcode code = curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes);

    code |= curl_easy_setopt(curl, CURLOPT_WRITEDATA, transfer);
    code |= curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    code |= curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    code |= curl_easy_setopt(curl, CURLOPT_XFERINFODATA, transfer);
    code |= curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, on_socket);
    code |= curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, transfer);
    return code;
}

/* What went wrong, for the person who gave the URL. */
static int explain(const struct transfer *transfer, CURLcode code, const char *detail,
                   struct error *err)
{
    long status = 0;

    if (transfer->error.code) {
        *err = transfer->error;
        return -err->code;
    }
    /* Of a name with several addresses another may have answered. */
    if (transfer->refused && code == CURLE_COULDNT_CONNECT)
        return error_field(err, EACCES, FIELD,
                           "the URL leads to an address that is not public (the setting "
                           "allow-private-urls permits it)");
    curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &status);
    switch (code) {
    case CURLE_HTTP_RETURNED_ERROR:
        return error_field(err, EINVAL, FIELD, "the source's server answered %ld", status);
    case CURLE_UNSUPPORTED_PROTOCOL:
        return error_field(err, EINVAL, FIELD, "the URL, or where it redirects to, is not https");
    case CURLE_TOO_MANY_REDIRECTS:
        return error_field(err, EINVAL, FIELD, "the URL redirects more than %d times",
                           FETCH_REDIRECTS_MAX);
    case CURLE_FILESIZE_EXCEEDED:
        return error_field(err, EFBIG, FIELD,
                           "the source is larger than the limit of %llu bytes for this kind",
                           (unsigned long long)transfer->output->max_bytes);
    case CURLE_LOGIN_DENIED:
        return error_field(err, EINVAL, FIELD, "credentials in the URL are not supported");
    case CURLE_PARTIAL_FILE:
        return error_field(err, EAGAIN, FIELD, "the source ended before its announced length");
    default:
        return error_field(err, EAGAIN, FIELD, "the source could not be read: %s",
                           detail[0] ? detail : curl_easy_strerror(code));
    }
}

int fetch_url(const struct fetch_url_spec *spec, struct fetch_output *output,
              struct fetch_report *report, struct error *err)
{
    char detail[CURL_ERROR_SIZE] = "";
    auto_curl CURL *curl = curl_easy_init();
    struct transfer transfer = {
        .spec = spec, .output = output, .report = report, .curl = curl, .since_ms = loop_now_ms()
    };
    long status = 0;
    CURLcode code;

    if (!curl)
        return error_set(err, ENOMEM, "no memory for the import");
    code = curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
    code |= set_limits(curl, &transfer);
    code |= set_source(curl, spec);
    code |= set_callbacks(curl, &transfer);
    if (code != CURLE_OK)
        return error_set(err, EIO, "libcurl lacks an option that imports need");
    code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    /* FAILONERROR knows 4xx and 5xx only: a redirect to nowhere, or a part, has a body, too. */
    if (code == CURLE_OK && status != 200)
        code = CURLE_HTTP_RETURNED_ERROR;
    return code == CURLE_OK ? 0 : explain(&transfer, code, detail, err);
}
