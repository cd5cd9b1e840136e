/* openapi.h - the project's openapi.yaml, as it was when this program was built.  Any thread. */
#pragma once
#include <stddef.h>

const char *openapi_text(size_t *ret_size);
