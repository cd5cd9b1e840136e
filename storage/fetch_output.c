#include "storage/fetch_output.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/sparse_file.h"

int fetch_output_init(struct fetch_output *output, int fd, uint64_t max_bytes, struct error *err)
{
    *output = (struct fetch_output){ .fd = fd, .max_bytes = max_bytes };
    output->sum = EVP_MD_CTX_new();
    output->buffer = malloc(FETCH_BUFFER_BYTES);
    if (output->sum && output->buffer && EVP_DigestInit_ex(output->sum, EVP_sha256(), NULL) == 1)
        return 0;
    fetch_output_close(output);
    return error_set(err, ENOMEM, "no memory for the import");
}

void fetch_output_close(struct fetch_output *output)
{
    EVP_MD_CTX_free(output->sum);
    free(output->buffer);
    output->sum = NULL;
    output->buffer = NULL;
}

static int flush(struct fetch_output *output, struct error *err)
{
    int result;

    if (output->buffered == 0 || output->sum_only) {
        output->buffered = 0;
        return 0;
    }
    result =
        sparse_write(output->fd, output->buffer, output->buffered, output->size - output->buffered);
    output->buffered = 0;
    return result < 0 ? error_set(err, result, "write the image: %s", strerror(-result)) : 0;
}

static int check_limit(const struct fetch_output *output, uint64_t size, struct error *err)
{
    if (size <= output->max_bytes - output->size)
        return 0;
    return error_field(err, EFBIG, "spec.source",
                       "the source is larger than the limit of %" PRIu64 " bytes for this kind",
                       output->max_bytes);
}

static int add_to_sum(struct fetch_output *output, const void *bytes, size_t size,
                      struct error *err)
{
    if (EVP_DigestUpdate(output->sum, bytes, size) == 1)
        return 0;
    return error_set(err, EIO, "the sum of the source could not be computed");
}

int fetch_output_append(struct fetch_output *output, const void *bytes, size_t size,
                        struct error *err)
{
    const uint8_t *from = bytes;
    int result = check_limit(output, size, err);

    if (result == 0)
        result = add_to_sum(output, bytes, size, err);
    while (result == 0 && size > 0) {
        size_t room = FETCH_BUFFER_BYTES - output->buffered;
        size_t piece = size < room ? size : room;

        memcpy(output->buffer + output->buffered, from, piece);
        output->buffered += piece;
        output->size += piece;
        from += piece;
        size -= piece;
        if (output->buffered == FETCH_BUFFER_BYTES)
            result = flush(output, err);
    }
    return result;
}

int fetch_output_skip(struct fetch_output *output, uint64_t size, struct error *err)
{
    static const uint8_t zeros[64 << 10];
    int result = check_limit(output, size, err);

    if (result == 0)
        result = flush(output, err);
    while (result == 0 && size > 0) {
        size_t piece = size < sizeof zeros ? (size_t)size : sizeof zeros;

        result = add_to_sum(output, zeros, piece, err);
        output->size += piece;
        size -= piece;
    }
    return result;
}

int fetch_output_finish(struct fetch_output *output, uint64_t align,
                        uint8_t ret_sha256[DIGEST_BYTES], struct error *err)
{
    uint64_t length = (output->size + align - 1) / align * align;
    int result = flush(output, err);

    if (result < 0)
        return result;
    if (output->size == 0)
        return error_field(err, EINVAL, "spec.source", "the source is empty");
    if (ftruncate(output->fd, (off_t)length) < 0)
        return error_set(err, errno, "set the image's length: %s", strerror(errno));
    if (EVP_DigestFinal_ex(output->sum, ret_sha256, NULL) != 1)
        return error_set(err, EIO, "the sum of the source could not be computed");
    return 0;
}
