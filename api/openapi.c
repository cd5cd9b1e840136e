/* openapi.c - see openapi.h.  The build runs at the top of the repository, where the file is. */
#include "api/openapi.h"
#include <stdint.h>

__asm__(".pushsection .rodata\n"
        ".local openapi_begin, openapi_end\n"
        "openapi_begin:\n"
        ".incbin \"openapi.yaml\"\n"
        "openapi_end:\n"
        ".byte 0\n"
        ".popsection\n");

extern const char openapi_begin[], openapi_end[];

const char *openapi_text(size_t *ret_size)
{
    *ret_size = (size_t)((uintptr_t)openapi_end - (uintptr_t)openapi_begin);
    return openapi_begin;
}
