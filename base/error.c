#include "base/error.h"
#undef error_set
#undef error_field
#undef error_no_memory
#undef error_wrap

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fill(struct error *err, int code, const char *field, const char *format, va_list args)
{
    code = abs(code);
    if (!err)
        return -code;
    err->code = code;
    snprintf(err->field, sizeof err->field, "%s", field);
    vsnprintf(err->message, sizeof err->message, format, args);
    return -code;
}

int error_set(struct error *err, int code, const char *format, ...)
{
    va_list args;
    int result;

    va_start(args, format);
    result = fill(err, code, "", format, args);
    va_end(args);
    return result;
}

int error_field(struct error *err, int code, const char *field, const char *format, ...)
{
    va_list args;
    int result;

    va_start(args, format);
    result = fill(err, code, field, format, args);
    va_end(args);
    return result;
}

int error_no_memory(struct error *err)
{
    return error_set(err, EAGAIN, "memory is short; try again");
}

int error_wrap(struct error *err, const char *format, ...)
{
    char context[sizeof err->message];
    char inner[sizeof err->message];
    va_list args;
    size_t used;

    if (!err)
        return -1;
    va_start(args, format);
    vsnprintf(context, sizeof context, format, args);
    va_end(args);
    memcpy(inner, err->message, sizeof inner);
    snprintf(err->message, sizeof err->message, "%s", context);
    used = strlen(err->message);
    snprintf(err->message + used, sizeof err->message - used, ": %s", inner);
    return -err->code;
}
