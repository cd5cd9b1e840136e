/* warren-fetch: takes one image from a source that strangers wrote.  See fetch_protocol.h. */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/log.h"
#include "storage/fetch_kernel.h"
#include "storage/fetch_output.h"
#include "storage/fetch_local.h"
#include "storage/fetch_protocol.h"
#include "storage/fetch_report.h"
#include "storage/fetch_sandbox.h"
#include "storage/fetch_unpack.h"
#include "storage/fetch_url.h"

#define AUTHORITIES_MAX  (8u << 20)
#define AUTHORITIES_FILE "/etc/ssl/certs/ca-certificates.crt"
#define DISK_ALIGN_BYTES 4096

struct options {
    enum image_kind kind;
    const char *url;    /* NULL = FETCH_FD_SOURCE */
    const char *sha256; /* NULL = any */
    const char *ca_file;
    uint64_t max_bytes;
    uint64_t speed_limit, speed_time; /* as in struct fetch_url_spec */
    bool allow_private;
    struct fetch_sandbox_spec sandbox;
};

static int parse_number(const char *text, const char *option, uint64_t max, uint64_t *ret_number,
                        struct error *err)
{
    char *end;
    unsigned long long number;

    errno = 0;
    number = strtoull(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || number == 0 || number > max)
        return error_set(err, EINVAL, "--%s: not a number from 1 to %" PRIu64, option, max);
    *ret_number = number;
    return 0;
}

static int parse_kind(const char *text, enum image_kind *ret_kind, struct error *err)
{
    static const char *const names[IMAGE_KIND_COUNT] = {
        [IMAGE_KERNEL] = "kernel",
        [IMAGE_INITRD] = "initrd",
        [IMAGE_DISK] = "disk",
    };

    for (int i = 0; i < IMAGE_KIND_COUNT; i++)
        if (strcmp(text, names[i]) == 0) {
            *ret_kind = (enum image_kind)i;
            return 0;
        }
    return error_set(err, EINVAL, "--kind: kernel, initrd or disk");
}

enum option_id {
    OPTION_KIND,
    OPTION_SHA256,
    OPTION_MAX_BYTES,
    OPTION_UID,
    OPTION_GID,
    OPTION_ROOT,
    OPTION_CA_FILE,
    OPTION_ALLOW_PRIVATE,
    OPTION_SPEED_LIMIT,
    OPTION_SPEED_TIME
};

static const struct option long_options[] = {
    { "kind", required_argument, NULL, OPTION_KIND },
    { "sha256", required_argument, NULL, OPTION_SHA256 },
    { "max-bytes", required_argument, NULL, OPTION_MAX_BYTES },
    { "uid", required_argument, NULL, OPTION_UID },
    { "gid", required_argument, NULL, OPTION_GID },
    { "root", required_argument, NULL, OPTION_ROOT },
    { "ca-file", required_argument, NULL, OPTION_CA_FILE },
    { "allow-private", no_argument, NULL, OPTION_ALLOW_PRIVATE },
    { "speed-limit", required_argument, NULL, OPTION_SPEED_LIMIT },
    { "speed-time", required_argument, NULL, OPTION_SPEED_TIME },
    { NULL, 0, NULL, 0 },
};

static int parse_option(struct options *options, int id, const char *value, struct error *err)
{
    uint64_t number = 0;
    int result = 0;

    switch (id) {
    case OPTION_KIND:
        return parse_kind(value, &options->kind, err);
    case OPTION_SHA256:
        options->sha256 = value;
        return 0;
    case OPTION_MAX_BYTES:
        return parse_number(value, "max-bytes", INT64_MAX / 2, &options->max_bytes, err);
    case OPTION_UID:
        result = parse_number(value, "uid", UINT32_MAX - 1, &number, err);
        options->sandbox.uid = (uid_t)number;
        return result;
    case OPTION_GID:
        result = parse_number(value, "gid", UINT32_MAX - 1, &number, err);
        options->sandbox.gid = (gid_t)number;
        return result;
    case OPTION_ROOT:
        options->sandbox.root = value;
        return 0;
    case OPTION_CA_FILE:
        options->ca_file = value;
        return 0;
    case OPTION_ALLOW_PRIVATE:
        options->allow_private = true;
        return 0;
    case OPTION_SPEED_LIMIT:
        return parse_number(value, "speed-limit", 1u << 30, &options->speed_limit, err);
    case OPTION_SPEED_TIME:
        return parse_number(value, "speed-time", 86400, &options->speed_time, err);
    default:
        return error_set(err, EINVAL, "unknown option; see storage/fetch_protocol.h");
    }
}

static int parse_options(int argc, char **argv, struct options *ret_options, struct error *err)
{
    struct options options = { .kind = IMAGE_KIND_COUNT,
                               .url = getenv(FETCH_URL_VARIABLE),
                               .ca_file = AUTHORITIES_FILE };
    int id;

    opterr = 0;
    while ((id = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        int result = parse_option(&options, id, optarg, err);

        if (result < 0)
            return result;
    }
    if (optind != argc || options.kind == IMAGE_KIND_COUNT || !options.max_bytes ||
        !options.sandbox.uid || !options.sandbox.gid || !options.sandbox.root)
        return error_set(err, EINVAL, "--kind, --max-bytes, --uid, --gid and --root are needed");
    if (options.sha256 && strlen(options.sha256) != DIGEST_TEXT - 1)
        return error_field(err, EINVAL, "spec.sha256", "a sum has 64 hexadecimal digits");
    options.sandbox.network = options.url != NULL;
    /* An unpacked kernel is longer than its source; a disk's end is rounded up. */
    options.sandbox.max_file_bytes = options.max_bytes + DISK_ALIGN_BYTES;
    if (options.kind == IMAGE_KERNEL && options.sandbox.max_file_bytes < KERNEL_UNPACKED_MAX)
        options.sandbox.max_file_bytes = KERNEL_UNPACKED_MAX;
    *ret_options = options;
    return 0;
}

/* Malloc'ed; an empty bundle means that no https server is believed. */
static int read_authorities(const char *path, char **ret_bytes, size_t *ret_size, struct error *err)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    auto_free char *bytes = NULL;
    struct stat status;
    ssize_t got;

    if (fd < 0 || fstat(fd, &status) < 0 || status.st_size > AUTHORITIES_MAX)
        return error_set(err, EAGAIN,
                         "the node has no certificate authorities; install ca-certificates or give "
                         "it a ca-file");
    bytes = malloc((size_t)status.st_size + 1);
    if (!bytes)
        return error_set(err, ENOMEM, "no memory for the import");
    got = read(fd, bytes, (size_t)status.st_size);
    if (got <= 0)
        return error_set(err, EIO, "the certificate authorities could not be read");
    bytes[got] = '\0';
    *ret_bytes = take_pointer(bytes);
    *ret_size = (size_t)got;
    return 0;
}

/* Whatever reads configuration or loads code does it now: inside there are no files. */
static int start_libraries(const struct options *options, struct error *err)
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned size;

    OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    if (EVP_Digest("", 0, sum, &size, EVP_sha256(), NULL) != 1)
        return error_set(err, EIO, "libcrypto does not work");
    if (!options->url)
        return 0;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || OPENSSL_init_ssl(0, NULL) != 1)
        return error_set(err, EIO, "libcurl does not work");
    return 0;
}

static int compare_sum(const struct options *options, const uint8_t sum[DIGEST_BYTES],
                       struct error *err)
{
    char text[DIGEST_TEXT];

    digest_text(sum, text);
    if (!options->sha256 || strcasecmp(text, options->sha256) == 0)
        return 0;
    return error_field(err, EINVAL, "spec.sha256", "the source's sum is %s", text);
}

static int import(const struct options *options, const struct fetch_url_spec *url,
                  struct fetch_report *report, struct fetch_output *output,
                  struct fetch_result *ret_result, struct error *err)
{
    struct fetch_result done = { .kernel_format = KERNEL_FORMAT_NONE };
    uint64_t align = options->kind == IMAGE_DISK ? DISK_ALIGN_BYTES : 1;
    int result = fetch_output_init(output, FETCH_FD_OUTPUT, options->max_bytes, err);

    if (result == 0 && options->url)
        result = fetch_url(url, output, report, err);
    else if (result == 0)
        result = fetch_local(FETCH_FD_SOURCE, output, report, err);
    if (result == 0)
        result = fetch_output_finish(output, align, done.sha256, err);
    if (result == 0)
        result = compare_sum(options, done.sha256, err);
    done.size_bytes = (output->size + align - 1) / align * align;
    if (result == 0 && options->kind == IMAGE_KERNEL)
        result = fetch_unpack_kernel(FETCH_FD_OUTPUT, output->size, &done.size_bytes,
                                     &done.kernel_format, err);
    if (result == 0)
        *ret_result = done;
    return result;
}

static int run(int argc, char **argv, struct fetch_report *report, struct fetch_result *ret_result,
               struct error *err)
{
    auto_free char *authorities = NULL;
    struct fetch_output output = { .fd = -1 };
    struct fetch_url_spec url = { .authorities_size = 0 };
    struct options options;
    int result = parse_options(argc, argv, &options, err);

    if (result == 0)
        result = start_libraries(&options, err);
    if (result == 0 && options.url)
        result = read_authorities(options.ca_file, &authorities, &url.authorities_size, err);
    if (result == 0)
        result = fetch_sandbox_enter(&options.sandbox, err);
    if (result < 0)
        return result;
    url.url = options.url;
    url.authorities = authorities;
    url.allow_private = options.allow_private;
    url.speed_limit = options.speed_limit;
    url.speed_time = options.speed_time;
    result = import(&options, &url, report, &output, ret_result, err);
    fetch_output_close(&output);
    return result;
}

int main(int argc, char **argv)
{
    struct log log = { .fd = FETCH_FD_LOG, .level = LOG_LEVEL_INFO, .name = "warren-fetch" };
    struct fetch_report report = { .fd = FETCH_FD_CHANNEL };
    struct fetch_result done = { .size_bytes = 0 };
    struct error err = { .code = 0 };
    int result = run(argc, argv, &report, &done, &err);

    if (fetch_report_result(&report, &done, result < 0 ? &err : NULL) < 0 && result < 0)
        log_error(&log, "%s", err.message);
    return result < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
