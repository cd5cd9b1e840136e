/* fetch_output.h - the image being made: bytes of the source in order, their sum, sparse on disk.
 * warren-fetch, one thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "storage/fetch_protocol.h"

struct error;

#define FETCH_BUFFER_BYTES (256u << 10) /* multiple of a sparse block */

struct fetch_output {
    int fd;             /* borrowed; FETCH_FD_OUTPUT */
    uint64_t max_bytes; /* the source may not be longer */
    uint64_t size;      /* bytes taken so far */
    bool sum_only;      /* the file holds the bytes already (it was cloned) */
    void *sum;          /* owned; EVP_MD_CTX */
    uint8_t *buffer;    /* owned; bytes not yet written, FETCH_BUFFER_BYTES */
    size_t buffered;
};

int fetch_output_init(struct fetch_output *output, int fd, uint64_t max_bytes, struct error *err);
void fetch_output_close(struct fetch_output *output); /* borrowed fd stays open */

/* The source's next bytes.  -EFBIG names the limit. */
int fetch_output_append(struct fetch_output *output, const void *bytes, size_t size,
                        struct error *err);
/* The source's next `size` bytes are zeros (a hole). */
int fetch_output_skip(struct fetch_output *output, uint64_t size, struct error *err);

/* Writes what is left, sets the length (a multiple of `align` bytes) and gives the sum. */
int fetch_output_finish(struct fetch_output *output, uint64_t align,
                        uint8_t ret_sha256[DIGEST_BYTES], struct error *err);
