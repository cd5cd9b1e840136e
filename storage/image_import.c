/* One import: a warren-fetch process from its start to the file's rename.
 *
 *   WAITING -> FETCHING -> STORING (worker: sync, rename; or removal after a failure) -> done */
#include "storage/image.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/process.h"
#include "base/seqpacket.h"
#include "base/worker.h"
#include "storage/image_internal.h"

#define MESSAGES_PER_TURN 64
#define QUEUE_TURNS       16
#define ARGUMENTS_MAX     24

struct image_import {
    struct image_import *next; /* in store->imports */
    struct image_store *store; /* borrowed, as the next two */
    struct loop *loop;
    struct worker *worker;
    image_progress_fn *progress; /* NULL = not wanted */
    image_done_fn *done;
    void *context;

    uint32_t instance;
    enum image_kind kind;
    char *url;                /* owned; NULL = source_fd */
    char sha256[DIGEST_TEXT]; /* "" = any */
    int source_fd;            /* owned; -1 = URL, or given to the process */
    enum image_import_stage stage;
    bool cancelled;
    uint64_t done_bytes, total_bytes; /* as it said last */

    int output_fd;  /* owned; content.tmp */
    int channel_fd; /* owned */
    int pidfd;      /* owned; not reaped while >= 0 */
    struct loop_source *channel_source;
    struct loop_source *pid_source;
    bool has_result;
    struct fetch_message message; /* the result, as it came */

    int result; /* what done will say */
    struct error err;
    struct image_import_result image;
};

const char *const image_kind_names[IMAGE_KIND_COUNT] = {
    [IMAGE_KERNEL] = "kernel",
    [IMAGE_INITRD] = "initrd",
    [IMAGE_DISK] = "disk",
};

static const uint64_t max_bytes[IMAGE_KIND_COUNT] = {
    [IMAGE_KERNEL] = IMAGE_KERNEL_BYTES_MAX,
    [IMAGE_INITRD] = IMAGE_INITRD_BYTES_MAX,
    [IMAGE_DISK] = IMAGE_DISK_BYTES_MAX,
};

/* --- what is asked for --- */

static int check_url(const char *url, struct error *err)
{
    size_t length = strlen(url);

    if (strncmp(url, "https://", 8) != 0)
        return error_field(err, EINVAL, "spec.source", "a URL must begin with https://");
    if (length > IMAGE_URL_MAX)
        return error_field(err, EINVAL, "spec.source", "a URL has at most %d characters",
                           IMAGE_URL_MAX);
    for (size_t i = 0; i < length; i++)
        if (!isgraph((unsigned char)url[i]))
            return error_field(err, EINVAL, "spec.source",
                               "a URL has no spaces, control or non-ASCII characters; escape them");
    return 0;
}

static int check_sha256(const char *sum, struct error *err)
{
    if (!sum)
        return 0;
    if (strlen(sum) != DIGEST_TEXT - 1 || strspn(sum, "0123456789abcdefABCDEF") != DIGEST_TEXT - 1)
        return error_field(err, EINVAL, "spec.sha256", "a SHA-256 sum has 64 hexadecimal digits");
    return 0;
}

/* *ret_fd: -1 for a URL. */
static int check_spec(const struct image_store *store, const struct image_import_spec *spec,
                      int *ret_fd, struct error *err)
{
    int result = check_sha256(spec->sha256, err);

    if (result < 0)
        return result;
    if (!spec->is_url)
        return image_source_open(store, spec->source, ret_fd, err);
    *ret_fd = -1;
    return check_url(spec->source, err);
}

int image_import_check(const struct image_store *store, const struct image_import_spec *spec,
                       struct error *err)
{
    auto_close int fd = -1;

    return check_spec(store, spec, &fd, err);
}

/* --- the end --- */

static void stop_watching(struct image_import *import)
{
    import->channel_source = loop_remove(import->channel_source);
    import->pid_source = loop_remove(import->pid_source);
    cleanup_close(&import->channel_fd);
    cleanup_close(&import->pidfd);
}

static struct image_import *import_free(struct image_import *import)
{
    struct image_import **link = &import->store->imports;

    while (*link && *link != import)
        link = &(*link)->next;
    if (*link)
        *link = import->next;
    stop_watching(import);
    cleanup_close(&import->source_fd);
    cleanup_close(&import->output_fd);
    free(import->url);
    free(import);
    return NULL;
}

static void start_waiting(struct image_store *store);
static int describe_end(struct image_import *import, int status);

static int run_store(void *job, struct error *err)
{
    struct image_import *import = job;

    if (import->result == 0)
        import->result =
            image_undone_finish(import->store, import->instance, import->output_fd, &import->err);
    /* Here: the last that closes a removed file waits until its blocks are free. */
    cleanup_close(&import->output_fd);
    if (import->result < 0)
        (void)image_remove(import->store, import->instance, NULL); /* a sweep finds the rest */
    (void)err;
    return 0;
}

static void on_stored(void *job, int result, const struct error *err)
{
    struct image_import *import = job;
    struct image_store *store = import->store;

    if (result < 0 && import->result == 0) { /* the worker's batch failed */
        import->result = result;
        import->err = *err;
    }
    if (import->cancelled && import->result == -IMAGE_IMPORT_KILLED)
        import->result = describe_end(import, 0);
    if (import->result < 0)
        import->done(import->context, import->result, NULL, &import->err);
    else
        import->done(import->context, 0, &import->image, NULL);
    import_free(import);
    start_waiting(store);
}

static void store_late(void *context)
{
    struct image_import *import = context;

    (void)run_store(import, NULL);
    on_stored(import, 0, NULL);
}

enum image_import_stage image_import_stage(const struct image_import *import)
{
    return import->stage;
}

static void enter(struct image_import *import, enum image_import_stage stage)
{
    import->stage = stage;
    if (import->progress)
        import->progress(import->context, import->done_bytes, import->total_bytes);
}

/* import->result, import->err and import->image are set. */
static void import_conclude(struct image_import *import)
{
    stop_watching(import);
    enter(import, IMAGE_IMPORT_STORING);
    if (worker_submit(import->worker, run_store, on_stored, import, NULL) == 0)
        return;
    /* Memory is short: on the loop then, but not from within our caller. */
    if (loop_post(import->loop, store_late, import) < 0)
        store_late(import);
}

/* --- what the process says: believed only as far as it is checked --- */

static void clean_text(char *text, size_t size)
{
    text[size - 1] = '\0';
    for (size_t i = 0; text[i]; i++)
        if (!isprint((unsigned char)text[i]))
            text[i] = '?';
}

static int take_failure(struct image_import *import)
{
    struct fetch_message *message = &import->message;

    clean_text(message->field, sizeof message->field);
    clean_text(message->message, sizeof message->message);
    if (message->code < 1 || message->code > 4095)
        message->code = EIO;
    if (strcmp(message->field, "spec.source") != 0 && strcmp(message->field, "spec.sha256") != 0)
        message->field[0] = '\0';
    return error_field(&import->err, message->code, message->field, "%s", message->message);
}

static int take_success(struct image_import *import)
{
    const struct fetch_message *message = &import->message;
    bool is_kernel = import->kind == IMAGE_KERNEL;
    struct stat status;

    if (fstat(import->output_fd, &status) < 0)
        return error_set(&import->err, errno, "look at the image's file");
    if (message->size_bytes == 0 || (uint64_t)status.st_size != message->size_bytes ||
        message->kernel_format >= KERNEL_FORMAT_COUNT ||
        is_kernel != (message->kernel_format != KERNEL_FORMAT_NONE))
        return error_set(&import->err, EPROTO, "warren-fetch gave a result that makes no sense");
    import->image.size_bytes = message->size_bytes;
    import->image.kernel_format = (enum kernel_format)message->kernel_format;
    digest_text(message->sha256, import->image.sha256);
    if (import->sha256[0] && strcasecmp(import->sha256, import->image.sha256) != 0)
        return error_set(&import->err, EPROTO, "warren-fetch gave a result that makes no sense");
    return 0;
}

static int take_message(struct image_import *import, const struct fetch_message *message)
{
    if (message->magic != FETCH_MESSAGE_MAGIC || import->has_result)
        return -EPROTO;
    switch (message->type) {
    case FETCH_PROGRESS:
        import->done_bytes = message->done_bytes;
        import->total_bytes = message->total_bytes;
        if (import->progress && !import->cancelled)
            import->progress(import->context, message->done_bytes, message->total_bytes);
        return 0;
    case FETCH_RESULT:
        import->message = *message;
        import->has_result = true;
        return 0;
    default:
        return -EPROTO;
    }
}

/* 1 = more may come, 0 = the end, or nothing that can be understood. */
static int read_messages(struct image_import *import)
{
    for (int i = 0; i < MESSAGES_PER_TURN; i++) {
        struct fetch_message message;
        ssize_t size =
            seqpacket_receive(import->channel_fd, &message, sizeof message, NULL, NULL, NULL);

        if (size == -EAGAIN)
            return 1;
        if (size != sizeof message || take_message(import, &message) < 0)
            return 0;
    }
    return 1;
}

static void on_channel(void *context, uint32_t events)
{
    struct image_import *import = context;

    (void)events;
    if (read_messages(import) > 0)
        return;
    /* It has said all, or talks nonsense: either way it has no business left. */
    import->channel_source = loop_remove(import->channel_source);
    if (!import->has_result)
        process_kill(import->pidfd, SIGKILL);
}

static int describe_end(struct image_import *import, int status)
{
    if (import->cancelled)
        return error_set(&import->err, ECANCELED, "the import was cancelled");
    if (import->has_result && import->message.code)
        return take_failure(import);
    if (import->has_result)
        return take_success(import);
    if (WIFSIGNALED(status))
        return error_set(&import->err, IMAGE_IMPORT_KILLED,
                         "the import's process was killed by signal %d", WTERMSIG(status));
    return error_set(&import->err, EIO, "the import's process ended without a result");
}

static void on_exit_of_process(void *context, uint32_t events)
{
    struct image_import *import = context;
    int status = 0;
    int result = process_reap(import->pidfd, &status);

    (void)events;
    if (result == -EAGAIN)
        return;
    /* The last message may wait behind many. */
    for (int i = 0; i < QUEUE_TURNS && import->channel_source && !import->has_result; i++)
        (void)read_messages(import);
    import->result = describe_end(import, status);
    import_conclude(import);
}

/* --- the beginning --- */

struct arguments {
    const char *list[ARGUMENTS_MAX];
    size_t count;
    char url[sizeof FETCH_URL_VARIABLE + 1 + IMAGE_URL_MAX]; /* of the environment */
    const char *environment[2];
    char max_bytes[24], speed_limit[24], speed_time[24];
    char uid[12];
    char gid[12];
};

static void add(struct arguments *arguments, const char *name, const char *value)
{
    arguments->list[arguments->count++] = name;
    if (value)
        arguments->list[arguments->count++] = value;
}

static void make_arguments(const struct image_import *import, struct arguments *ret_arguments)
{
    const struct image_store *store = import->store;
    struct arguments *arguments = ret_arguments;

    *arguments = (struct arguments){ .environment = { NULL, NULL } };
    snprintf(arguments->max_bytes, sizeof arguments->max_bytes, "%" PRIu64,
             max_bytes[import->kind]);
    snprintf(arguments->speed_limit, sizeof arguments->speed_limit, "%" PRIu64, store->speed_limit);
    snprintf(arguments->speed_time, sizeof arguments->speed_time, "%" PRIu64, store->speed_time);
    snprintf(arguments->uid, sizeof arguments->uid, "%u", (unsigned)store->uid);
    snprintf(arguments->gid, sizeof arguments->gid, "%u", (unsigned)store->gid);
    add(arguments, "warren-fetch", NULL);
    add(arguments, "--kind", image_kind_names[import->kind]);
    add(arguments, "--max-bytes", arguments->max_bytes);
    add(arguments, "--uid", arguments->uid);
    add(arguments, "--gid", arguments->gid);
    add(arguments, "--root", store->fetch_root);
    if (import->sha256[0])
        add(arguments, "--sha256", import->sha256);
    if (import->url) {
        snprintf(arguments->url, sizeof arguments->url, FETCH_URL_VARIABLE "=%s", import->url);
        arguments->environment[0] = arguments->url;
    }
    if (import->url && store->ca_file)
        add(arguments, "--ca-file", store->ca_file);
    if (import->url && store->allow_private)
        add(arguments, "--allow-private", NULL);
    if (import->url && store->speed_limit > 0) {
        add(arguments, "--speed-limit", arguments->speed_limit);
        add(arguments, "--speed-time", arguments->speed_time);
    }
}

static int spawn(struct image_import *import, int channel, struct error *err)
{
    struct arguments arguments;
    int fds[FETCH_FD_COUNT] = { [0] = -1,
                                [1] = -1,
                                [FETCH_FD_LOG] = import->store->log_fd,
                                [FETCH_FD_CHANNEL] = channel,
                                [FETCH_FD_OUTPUT] = import->output_fd,
                                [FETCH_FD_SOURCE] = import->source_fd };
    struct process_spec spec = {
        .exec_fd = import->store->fetch_fd,
        .clone_flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS,
        .cgroup_fd = -1,
        .fds = fds,
        .fd_count = FETCH_FD_COUNT,
        .new_session = true,
    };
    pid_t pid;

    make_arguments(import, &arguments);
    spec.argv = arguments.list;
    spec.envp = arguments.environment;
    if (!import->url)
        spec.clone_flags |= CLONE_NEWNET;
    return process_spawn(&spec, &pid, &import->pidfd, err);
}

/* On failure the import's files are removed, its fds stay for import_free. */
static int launch(struct image_import *import, struct error *err)
{
    auto_close int channel = -1;
    int pair[2];
    int result = image_undone_create(import->store, import->instance, &import->output_fd, err);

    if (result == 0)
        result = seqpacket_pair(pair, err);
    if (result == 0) {
        import->channel_fd = pair[0];
        channel = pair[1];
        result = spawn(import, channel, err);
    }
    if (result == 0)
        result = loop_add(import->loop, import->channel_fd, EPOLLIN, on_channel, import,
                          &import->channel_source, err);
    if (result == 0)
        result = loop_add(import->loop, import->pidfd, EPOLLIN, on_exit_of_process, import,
                          &import->pid_source, err);
    if (result == 0) {
        import->stage = IMAGE_IMPORT_FETCHING;
        cleanup_close(&import->source_fd);
        return 0;
    }
    process_end(&import->pidfd);
    (void)image_remove(import->store, import->instance, NULL);
    return result;
}

static size_t count_running(const struct image_store *store)
{
    size_t count = 0;

    for (const struct image_import *import = store->imports; import; import = import->next)
        count += import->stage != IMAGE_IMPORT_WAITING;
    return count;
}

/* Called when one has ended. */
static void start_waiting(struct image_store *store)
{
    struct image_import *next;

    for (struct image_import *import = store->imports; import; import = next) {
        next = import->next;
        if (count_running(store) >= IMAGE_IMPORTS_RUNNING)
            return;
        if (import->stage != IMAGE_IMPORT_WAITING)
            continue;
        import->result = launch(import, &import->err);
        if (import->result < 0)
            import_conclude(import);
        else
            enter(import, IMAGE_IMPORT_FETCHING);
    }
}

static struct image_import *import_new(struct image_store *store,
                                       const struct image_import_spec *spec)
{
    struct image_import *import = calloc(1, sizeof *import);
    struct image_import **link = &store->imports;

    if (!import)
        return NULL;
    import->store = store;
    import->loop = spec->loop;
    import->worker = spec->worker;
    import->progress = spec->progress;
    import->done = spec->done;
    import->context = spec->context;
    import->instance = spec->instance;
    import->kind = spec->kind;
    import->source_fd = import->output_fd = import->channel_fd = import->pidfd = -1;
    if (spec->sha256)
        memcpy(import->sha256, spec->sha256, DIGEST_TEXT);
    if (spec->is_url)
        import->url = strdup(spec->source);
    while (*link)
        link = &(*link)->next;
    *link = import;
    return spec->is_url && !import->url ? import_free(import) : import;
}

int image_import_start(struct image_store *store, const struct image_import_spec *spec,
                       struct image_import **ret_import, struct error *err)
{
    auto_close int source_fd = -1;
    struct image_import *import;
    int result = check_spec(store, spec, &source_fd, err);

    if (result < 0)
        return result;
    import = import_new(store, spec);
    if (!import)
        return error_set(err, ENOMEM, "no memory for the import");
    import->source_fd = take_fd(&source_fd);
    if (count_running(store) < IMAGE_IMPORTS_RUNNING) {
        result = launch(import, err);
        if (result < 0) {
            import_free(import);
            return result;
        }
    }
    *ret_import = import;
    return 0;
}

void image_import_cancel(struct image_import *import)
{
    import->cancelled = true;
    switch (import->stage) {
    case IMAGE_IMPORT_WAITING:
        import->result = describe_end(import, 0);
        import_conclude(import);
        break;
    case IMAGE_IMPORT_FETCHING:
        process_kill(import->pidfd, SIGKILL);
        break;
    case IMAGE_IMPORT_STORING:
        break;
    }
}

void image_imports_abort(struct image_store *store)
{
    while (store->imports) {
        struct image_import *import = store->imports;

        import->pid_source = loop_remove(import->pid_source);
        process_end(&import->pidfd);
        (void)image_remove(store, import->instance, NULL);
        import_free(import);
    }
}
