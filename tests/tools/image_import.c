/* Imports one image with the real image store and the real warren-fetch, prints what came of it as
 * one line of JSON-like words, and removes it again unless --keep.
 *
 *   image_import FETCH-PROGRAM IMAGES-DIR EMPTY-DIR IMPORT-DIR KIND SOURCE [OPTION...]
 *     --sha256 HEX  --ca-file FILE  --allow-private  --keep  --speed KIB[:SECONDS]
 *     --cancel-ms N (after so long)  --show-jail (Uid, CapEff... of warren-fetch, while it runs)
 *     --count N (so many at once, instances 1 to N)
 *
 *   ok size=53243444 format=1 sha256=... progress=3
 *   error code=22 field=spec.sha256 message */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/worker.h"
#include "storage/image.h"

#define UID           61234
#define INSTANCES_MAX 64

struct run {
    struct loop *loop;
    struct worker *worker;
    struct image_store *store;
    struct image_import *imports[INSTANCES_MAX];
    struct slot {
        struct run *run;
        unsigned index;
        unsigned progress;
        uint64_t last_done;
    } slots[INSTANCES_MAX];
    struct image_import_spec spec;
    unsigned count;
    unsigned ended;
    unsigned failures;
    bool show_jail;
    long cancel_ms;
    bool keep;
};

/* /proc/PID/status of every process with our uid. */
static void show_jail(void)
{
    char command[256];

    snprintf(command, sizeof command,
             "for p in /proc/[0-9]*/task/*/status; do grep -q '^Uid:.%d' $p 2>/dev/null && "
             "grep -E '^(Uid|Gid|Groups|CapEff|CapBnd|NoNewPrivs|Seccomp|Name):' $p; done",
             UID);
    fflush(stdout);
    if (system(command) != 0) {
        /* none found: the caller sees it */
    }
}

static void on_progress(void *context, uint64_t done, uint64_t total)
{
    struct slot *slot = context;

    (void)total;
    slot->progress++;
    slot->last_done = done;
    if (slot->run->show_jail && done > 0) {
        slot->run->show_jail = false;
        show_jail();
    }
}

static void on_done(void *context, int result, const struct image_import_result *image,
                    const struct error *err)
{
    struct slot *slot = context;
    struct run *run = slot->run;

    run->imports[slot->index] = NULL;
    if (result < 0) {
        printf("error code=%d field=%s %s\n", err->code, err->field, err->message);
        run->failures++;
    } else {
        printf("ok size=%llu format=%d sha256=%s progress=%u\n",
               (unsigned long long)image->size_bytes, image->kernel_format, image->sha256,
               slot->progress);
        if (!run->keep && image_remove(run->store, slot->index + 1, NULL) < 0)
            run->failures++;
    }
    if (++run->ended == run->count)
        loop_stop(run->loop);
}

static void on_cancel(void *context)
{
    struct run *run = context;

    for (unsigned i = 0; i < run->count; i++)
        if (run->imports[i])
            image_import_cancel(run->imports[i]);
}

static int start_all(struct run *run, struct error *err)
{
    run->spec.loop = run->loop;
    run->spec.worker = run->worker;
    run->spec.progress = on_progress;
    run->spec.done = on_done;
    for (unsigned i = 0; i < run->count; i++) {
        int result;

        run->slots[i] = (struct slot){ .run = run, .index = i };
        run->spec.instance = i + 1;
        run->spec.context = &run->slots[i];
        result = image_import_start(run->store, &run->spec, &run->imports[i], err);
        if (result < 0)
            return result;
    }
    if (run->cancel_ms >= 0 && !loop_after(run->loop, run->cancel_ms, on_cancel, run))
        return error_set(err, ENOMEM, "timer");
    return 0;
}

/* KiB a second, for so many seconds. */
static void parse_speed(struct image_store_config *config, const char *text)
{
    char *end;

    config->speed_limit = strtoull(text, &end, 10) << 10;
    config->speed_time = *end == ':' ? strtoull(end + 1, NULL, 10) : 1;
}

static void parse(struct run *run, struct image_store_config *config, int argc, char **argv)
{
    for (int i = 7; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";

        if (strcmp(argv[i], "--allow-private") == 0)
            config->allow_private = true;
        else if (strcmp(argv[i], "--keep") == 0)
            run->keep = true;
        else if (strcmp(argv[i], "--show-jail") == 0)
            run->show_jail = true;
        else if (strcmp(argv[i], "--sha256") == 0)
            run->spec.sha256 = argv[++i];
        else if (strcmp(argv[i], "--ca-file") == 0)
            config->ca_file = argv[++i];
        else if (strcmp(argv[i], "--speed") == 0)
            parse_speed(config, value), i++;
        else if (strcmp(argv[i], "--cancel-ms") == 0)
            run->cancel_ms = strtol(value, NULL, 10), i++;
        else if (strcmp(argv[i], "--count") == 0)
            run->count = (unsigned)strtoul(value, NULL, 10) % (INSTANCES_MAX + 1), i++;
    }
}

static int run_all(struct run *run, const struct image_store_config *config, struct error *err)
{
    int result = image_store_new(config, &run->store, err);

    if (result == 0)
        result = loop_new(&run->loop, err);
    if (result == 0)
        result = worker_new(run->loop, "disk", NULL, &run->worker, err);
    if (result == 0)
        result = start_all(run, err);
    if (result == 0)
        result = loop_run(run->loop, err);
    run->worker = worker_free(run->worker);
    run->store = image_store_free(run->store);
    run->loop = loop_free(run->loop);
    return result;
}

int main(int argc, char **argv)
{
    struct run run = { .count = 1, .cancel_ms = -1 };
    struct image_store_config config = { .uid = UID, .gid = UID, .log_fd = 2 };
    const char *import_dirs[1];
    auto_close int dir = -1;
    struct error err = { 0 };

    if (argc < 7)
        return 2;
    import_dirs[0] = argv[4];
    dir = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    config.images_dir_fd = dir;
    config.import_dirs = import_dirs;
    config.import_dir_count = 1;
    config.fetch_path = argv[1];
    config.fetch_root = argv[3];
    for (int i = 0; i < IMAGE_KIND_COUNT; i++)
        if (strcmp(argv[5], image_kind_names[i]) == 0)
            run.spec.kind = (enum image_kind)i;
    run.spec.source = argv[6];
    run.spec.is_url = strstr(argv[6], "://") != NULL;
    parse(&run, &config, argc, argv);
    if (run_all(&run, &config, &err) < 0) {
        printf("error code=%d field=%s %s\n", err.code, err.field, err.message);
        return 1;
    }
    return run.failures ? 1 : 0;
}
