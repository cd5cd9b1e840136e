/* audit.h - one line of JSON for each request that may change something, refused ones too: who,
 * from where, what, and how it was answered.  Loop thread; a worker writes.
 *
 * An entry is in the file before its answer goes out.  It is not synced: a crash of warrend loses
 * none, a power cut may lose those of the last seconds.  No bodies, headers or secrets.  While
 * nothing can be written, changes are to be refused (audit_check); what was under way already goes
 * to the log instead. */
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

/* dir_fd: borrowed, as the rest. */
int audit_new(struct loop *loop, const struct log *log, int dir_fd, struct audit **ret_audit,
              struct error *err);
/* Writes what is queued and calls every done.  Accepts NULL. */
struct audit *audit_free(struct audit *audit);

/* 0, or -EDQUOT while the last entry could not be written.  The refusal's own entry tries again. */
int audit_check(const struct audit *audit, struct error *err);
/* Later calls done(context), once, whatever becomes of the entry.  done: NULL = nobody waits. */
void audit_write(struct audit *audit, const struct request *request, int status, loop_fn *done,
                 void *context);
