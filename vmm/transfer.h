/* transfer.h - the state of a machine on its way into or out of a snapshot.  Main thread, while the
 * vCPUs are held or before they run.
 *
 * Each part of the machine has one function that names its items in order, for both directions:
 * what is saved and what is loaded cannot differ.  A loaded item is copied only if its name and
 * size are the expected ones; after the first failure nothing is copied any more, and the machine
 * is not used.  Whoever loads a number that it will use as an index or a length checks it itself.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

struct transfer {
    bool loading;
    uint8_t *bytes; /* owned by who made the transfer */
    size_t size;    /* saved, or to be loaded */
    size_t room, at;
    struct error *err; /* borrowed; tells of the first failure */
    int result;        /* 0, or its -errno */
};

void transfer_item(struct transfer *transfer, const char *name, void *data, size_t size);
/* Of one that has only `older` bytes in states of before: what they lack stays as it is. */
void transfer_grown(struct transfer *transfer, const char *name, void *data, size_t size,
                    size_t older);
/* A whole variable or array. */
#define transfer_value(transfer, name, value) transfer_item(transfer, name, &(value), sizeof(value))
/* Loading only: the state makes no sense, or not on this host. */
void transfer_refuse(struct transfer *transfer, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool transfer_is_good(const struct transfer *transfer);
