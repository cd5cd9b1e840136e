/* image.h - kernels, initrds and disks that VMs start from: imported once, never changed after.
 *
 * <state-dir>/images/<instance>/content is there whole, synced and read-only, or not at all:
 * imports write content.tmp and rename it.  An open or mapped image stays valid when it is removed.
 */
#pragma once
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <sys/types.h>
#include "storage/fetch_protocol.h"

struct error;
struct loop;
struct worker;
struct image_store;
struct image_import;

struct image_store_config {
    int images_dir_fd;              /* borrowed; <state-dir>/images */
    const char *const *import_dirs; /* borrowed; absolute paths that local sources must lie below */
    size_t import_dir_count;
    const char *fetch_path; /* borrowed; the program warren-fetch */
    const char *fetch_root; /* borrowed; an empty directory, its root */
    uid_t uid;              /* of warren-fetch */
    gid_t gid;
    const char *ca_file; /* borrowed; PEM; NULL = the system's */
    bool allow_private;
    uint64_t speed_limit; /* bytes a second that a server must send at least; 0 = none */
    uint64_t speed_time;  /* s, for so long */
    int log_fd;           /* borrowed; -1 = none */
};

/* The largest source of a kind; *_RUNNING at a time, the others wait their turn. */
#define IMAGE_KERNEL_BYTES_MAX (1ull << 30)
#define IMAGE_INITRD_BYTES_MAX (2ull << 30)
#define IMAGE_DISK_BYTES_MAX   (2ull << 40)
#define IMAGE_IMPORTS_RUNNING  4
#define IMAGE_URL_MAX          2048

int image_store_new(const struct image_store_config *config, struct image_store **ret_store,
                    struct error *err);
/* Accepts NULL, returns NULL.  Ends running imports without calling their `done`; the worker that
 * they were given must have been freed before. */
struct image_store *image_store_free(struct image_store *store);

/* An owned fd of a ready image, O_RDONLY; -ENOENT.  Any thread. */
int image_open(const struct image_store *store, uint32_t instance, int *ret_fd, struct error *err);
/* Blocks on the disk: for a worker.  0 too if it is not there. */
int image_remove(const struct image_store *store, uint32_t instance, struct error *err);
/* Removes every image but those in keep[], and what unfinished imports left.  Blocks; no import may
 * be running. */
int image_sweep(const struct image_store *store, const uint32_t *keep, size_t count,
                struct error *err);

/* "kernel", "initrd", "disk". */
extern const char *const image_kind_names[IMAGE_KIND_COUNT];

struct image_import_result {
    uint64_t size_bytes;
    char sha256[DIGEST_TEXT]; /* of the source's bytes */
    enum kernel_format kernel_format;
};

enum image_import_stage {
    IMAGE_IMPORT_WAITING, /* others go first */
    IMAGE_IMPORT_FETCHING,
    IMAGE_IMPORT_STORING, /* or what was fetched is being removed */
};

/* Both on the loop's thread.  total 0 = not known.  Called when the stage is another, too, but for
 * the first. */
typedef void image_progress_fn(void *context, uint64_t done, uint64_t total);
/* Exactly once, never from within image_import_start or _cancel; the import is gone after it.
 * result 0: the image can be opened, *image says what it is.  Else nothing of it is left.
 * -IMAGE_IMPORT_KILLED: its process ended by a signal, of whomever; another may do better. */
#define IMAGE_IMPORT_KILLED EINTR
typedef void image_done_fn(void *context, int result, const struct image_import_result *image,
                           const struct error *err);

struct image_import_spec {
    uint32_t instance;
    enum image_kind kind;
    const char *source; /* borrowed; absolute path or URL */
    bool is_url;
    const char *sha256; /* borrowed; 64 hexadecimal digits; NULL = any */
    /* Of image_import_start only.  The worker syncs and renames at the end; both are borrowed. */
    struct loop *loop;
    struct worker *worker;
    image_progress_fn *progress; /* NULL = not wanted */
    image_done_fn *done;
    void *context;
};

/* What can be said of a source without reading it: -EINVAL or -ENOENT, fields "spec.source" and
 * "spec.sha256".  Opens local files, but does not wait. */
int image_import_check(const struct image_store *store, const struct image_import_spec *spec,
                       struct error *err);

/* Loop thread.  Leftovers of an earlier import of this instance are replaced. */
int image_import_start(struct image_store *store, const struct image_import_spec *spec,
                       struct image_import **ret_import, struct error *err);
enum image_import_stage image_import_stage(const struct image_import *import);
/* Loop thread, before `done`, which is called with -ECANCELED; or with 0 if it was too late. */
void image_import_cancel(struct image_import *import);
