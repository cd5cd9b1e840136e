/* access_files.c - see access_files.h. */
#include "api/access_files.h"
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "api/wire.h"
#include "base/cleanup.h"
#include "base/error.h"

#define PEM_MAX (80 * 1024) /* three of them fit into a message */

static int check_file(const char *path, int fd, bool secret, size_t max, struct error *err)
{
    struct stat status;

    if (fstat(fd, &status) < 0)
        return error_set(err, errno, "%s: %s", path, strerror(errno));
    if (!S_ISREG(status.st_mode) || status.st_size > (off_t)max)
        return error_set(err, EINVAL, "%s: must be a file of at most %zu bytes", path, max);
    if (status.st_mode & (secret ? 077 : 022) || (status.st_uid != 0 && status.st_uid != geteuid()))
        return error_set(err, EPERM, "%s: must be root's, with mode %s", path,
                         secret ? "0600" : "0644");
    return 0;
}

/* malloc'ed, with a NUL behind. */
static int read_file(const char *path, bool secret, size_t max, char **ret_bytes, size_t *ret_size,
                     struct error *err)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    auto_free char *bytes = NULL;
    size_t used = 0;
    ssize_t n;
    int r;

    if (fd < 0)
        return error_set(err, errno, "open %s: %s", path, strerror(errno));
    r = check_file(path, fd, secret, max, err);
    if (r < 0)
        return r;
    bytes = malloc(max + 2);
    if (!bytes)
        return error_set(err, ENOMEM, "no memory for %s", path);
    while ((n = read(fd, bytes + used, max + 1 - used)) > 0)
        used += (size_t)n;
    if (n < 0 || used > max)
        return error_set(err, n < 0 ? errno : EINVAL, "read %s", path);
    bytes[used] = '\0';
    *ret_bytes = take_pointer(bytes);
    *ret_size = used;
    return 0;
}

static int add_pem(struct access_tls *tls, const char *path, bool secret, struct error *err)
{
    auto_free char *bytes = NULL;
    size_t size = 0;
    char *grown;
    int r = path[0] ? read_file(path, secret, PEM_MAX, &bytes, &size, err) : 0;

    if (r < 0)
        return r;
    if (bytes && strlen(bytes) != size)
        return error_set(err, EINVAL, "%s: it has a NUL in it", path);
    grown = realloc(tls->bytes, tls->size + size + 1);
    if (!grown)
        return error_set(err, ENOMEM, "no memory for %s", path);
    memcpy(grown + tls->size, bytes ? bytes : "", size + 1);
    if (bytes)
        explicit_bzero(bytes, size);
    tls->bytes = grown;
    tls->size += size + 1;
    return 0;
}

int access_tokens_read(const struct access_paths *paths, struct tokens *ret_tokens,
                       struct error *err)
{
    struct tokens tokens = { 0 };
    auto_free char *bytes = NULL;
    size_t size = 0;
    int r = read_file(paths->tokens, true, TOKENS_FILE_MAX, &bytes, &size, err);

    if (r == 0 && (r = tokens_parse(bytes, size, &tokens, err)) < 0)
        error_wrap(err, "%s", paths->tokens);
    if (r < 0 && r != -ENOENT)
        return r;
    *ret_tokens = tokens; /* who removes it, because one leaked, wants that nobody has any */
    return 0;
}

int access_tls_read(const struct access_paths *paths, struct access_tls *ret_tls, struct error *err)
{
    struct access_tls tls = { 0 };
    int r = add_pem(&tls, paths->certificate, false, err);

    if (r == 0)
        r = add_pem(&tls, paths->key, true, err);
    if (r == 0)
        r = add_pem(&tls, paths->client_ca, false, err);
    if (r < 0) {
        access_tls_clear(&tls);
        return r;
    }
    *ret_tls = tls;
    return 0;
}

void access_tls_clear(struct access_tls *tls)
{
    if (tls->bytes)
        explicit_bzero(tls->bytes, tls->size);
    free(tls->bytes);
    *tls = (struct access_tls){ 0 };
}
