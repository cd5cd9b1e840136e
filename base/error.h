/* error.h - what went wrong, in a fixed-size object the caller owns.  Any thread; never allocates.
 *
 * Every function that can fail takes a `struct error *err` last, returns -code and fills it in.
 * `err` may be NULL where the caller does not care.  Lower layers return errors, the agent logs
 * them, the API maps `code` to an HTTP status and `field` to the problem document's field. */
#pragma once
#include <stdarg.h>

struct error {
    int code;          /* positive errno; 0 = none */
    char field[64];    /* which input is to blame ("spec.disks[0].volume"); "" = none */
    char message[256]; /* for people; no internal paths where a client may see it */
};

/* Fills *err and returns -code (code may be given as errno or -errno). */
int error_set(struct error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same, and names the input to blame. */
int error_field(struct error *err, int code, const char *field, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* What was asked for may succeed later: -EAGAIN. */
int error_no_memory(struct error *err);

/* Puts "context: " before the message, keeps code and field; returns -err->code, -1 for NULL. */
int error_wrap(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#ifdef __clang_analyzer__
/* clang-tidy looks at one file at a time and must be told that these are negative. */
#define error_set(...)       (error_set(__VA_ARGS__), -1)
#define error_field(...)     (error_field(__VA_ARGS__), -1)
#define error_no_memory(err) (error_no_memory(err), -1)
#define error_wrap(...)      (error_wrap(__VA_ARGS__), -1)
#endif
