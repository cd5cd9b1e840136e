/* request_table.h - the requests of one warren-api, by its ids: those that have yet to be answered,
 * and those whose answer is a stream that is still open.  Loop thread. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct error;
struct request;

#define REQUEST_TABLE_SIZE 4096 /* power of two */

/* Requests are borrowed. */
struct request_table {
    struct request *slots[REQUEST_TABLE_SIZE];
    size_t count;
};

/* How many streams of one kind a caller may have, so that it leaves others some. */
struct stream_share {
    const char *what;
    size_t all;
    size_t of_vm; /* of one VM; 0 = they are of none */
};

struct request *request_table_find(struct request_table *table, uint64_t id);
/* Its id must be new. */
void request_table_add(struct request_table *table, struct request *request);
void request_table_remove(struct request_table *table, const struct request *request);
/* visit may remove the request that it is given. */
void request_table_each(struct request_table *table,
                        void (*visit)(void *context, struct request *request), void *context);
/* May this request, which is in it, have a stream, too?  Those that are yet to be opened count.
 * PROBLEM_TOO_MANY_STREAMS (429). */
int request_table_check_share(const struct request_table *table, const struct request *request,
                              const struct stream_share *share, struct error *err);
