/* audit.h - one line of JSON for each request that may change something, refused ones too: who,
 * from where, what, and how it was answered.  Loop thread; a worker writes.
 *
 * An entry is on the disk before its answer goes out: those that wait at one moment are synced
 * together.  What was done and not yet answered may be missing after a power cut.  No bodies,
 * headers or secrets.  While nothing can be written, changes are to be refused (audit_check); what
 * was under way already goes to the log instead, and a line says how many are missing as soon as
 * one can be written, which is tried once a second. */
#pragma once
#include "base/loop.h"

struct audit; /* opaque; see audit.c */
struct error;
struct log;
struct request;

#define AUDIT_NAME      "audit.log" /* and .1 (newest) to .4, in the state directory */
#define AUDIT_FILE_MAX  (16u << 20) /* bytes */
#define AUDIT_FILES     5
#define AUDIT_STRANGERS 10 /* entries a second of those who are not known, who must not fill it */

/* dir_fd: borrowed, as the rest; open for reading, so that it can be synced. */
int audit_new(struct loop *loop, const struct log *log, int dir_fd, struct audit **ret_audit,
              struct error *err);
/* Writes what is queued and calls every done.  Accepts NULL. */
struct audit *audit_free(struct audit *audit);

/* 0, or -EDQUOT while the last entry could not be written.  NULL: nobody keeps one. */
int audit_check(const struct audit *audit, struct error *err);
/* Later calls done(context), once, whatever becomes of the entry.  done: NULL = nobody waits. */
void audit_write(struct audit *audit, const struct request *request, int status, loop_fn *done,
                 void *context);
