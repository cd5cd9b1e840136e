/* server_main.c - warren-api: from its fds to serving.  Started by warrend (api_service.c) with
 * 2 = log, 3 = the socket to warrend, 4 = the listening socket; everything else is closed. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include "api/query.h"
#include "api/server.h"
#include "api/server_filter.h"
#include "base/error.h"
#include "base/log.h"
#include "base/sandbox.h"

#define LINK_FD   3
#define LISTEN_FD 4

#define FILES_MAX               16384
#define ADDRESS_CONNECTIONS_MAX 256 /* of one client by TCP */

#define FILES_SPARE 64 /* for all that is not a connection, and bodies' memfds under way */

static int parse_id(const char *name, const char *text, unsigned int *ret_id, struct error *err)
{
    int64_t value = 0;

    if (!digits_parse(text, strnlen(text, 32), &value) || value > 0xfffffffe)
        return error_set(err, EINVAL, "--%s must be a number, not %s", name, text);
    *ret_id = (unsigned int)value;
    return 0;
}

static int parse_arguments(int argc, char **argv, struct sandbox_spec *sandbox,
                           struct server_options *server, struct error *err)
{
    static const struct option options[] = {
        { "uid", required_argument, NULL, 'u' },
        { "gid", required_argument, NULL, 'g' },
        { "root", required_argument, NULL, 'r' },
        { "tls", no_argument, NULL, 't' },
        { 0 },
    };
    int option, r = 0;

    while (r >= 0 && (option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'u')
            r = parse_id("uid", optarg, &sandbox->uid, err);
        else if (option == 'g')
            r = parse_id("gid", optarg, &sandbox->gid, err);
        else if (option == 'r')
            sandbox->root = optarg;
        else if (option == 't')
            server->tls = true;
        else
            r = error_set(err, EINVAL,
                          "it is started by warrend, with --uid N --gid N --root DIR [--tls]");
    }
    return r;
}

/* As many files as we want or, where the hard limit is lower, as we may have. */
static uint64_t files_limit(void)
{
    const struct rlimit wanted = { FILES_MAX, FILES_MAX };
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 1024;
    if (limit.rlim_max >= FILES_MAX)
        return FILES_MAX;
    return setrlimit(RLIMIT_NOFILE, &wanted) == 0 ? FILES_MAX : limit.rlim_max;
}

static int serve(int argc, char **argv, struct error *err)
{
    struct sandbox_spec sandbox = { .max_file_bytes = WIRE_REPLY_BODY_MAX, .max_processes = 1 };
    struct server_options options = { .address_limit = ADDRESS_CONNECTIONS_MAX };
    struct server *server = NULL;
    const char *step = "";
    int r = parse_arguments(argc, argv, &sandbox, &options, err);

    if (r < 0)
        return r;
    sandbox.max_files = files_limit();
    tzset(); /* reads a file at its first call, which otherwise is the first Date header's */
    if (sandbox.root)
        sandbox.hostname = "warren-api";
    r = sandbox_enter(&sandbox, &step);
    if (r < 0)
        return error_set(err, r, "enter the sandbox: %s", step);
    options.connection_limit = (unsigned int)sandbox.max_files - FILES_SPARE;
    r = server_new(LINK_FD, LISTEN_FD, &options, &server, err);
    if (r >= 0)
        r = server_filter_load(err);
    if (r >= 0)
        r = server_run(server, err);
    server_free(server);
    return r;
}

int main(int argc, char **argv)
{
    struct log log = { .fd = 2, .level = LOG_LEVEL_INFO, .name = "warren-api" };
    struct error err = { 0 };

    signal(SIGPIPE, SIG_IGN);
    if (serve(argc, argv, &err) < 0) {
        log_error(&log, "%s", err.message);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
