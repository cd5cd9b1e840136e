/* filter_print.h - part of the build: a libseccomp filter as a C array, for what is to load it
 * (sandbox_filter) without libseccomp.  For build_*.c only. */
#pragma once
#include <errno.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FILTER_INSTRUCTIONS_MAX 1024

/* 0, or -errno.  filter: NULL if there was no memory for it; released. */
static int filter_print(const char *name, scmp_filter_ctx filter)
{
    struct sock_filter program[FILTER_INSTRUCTIONS_MAX];
    FILE *file = tmpfile();
    size_t used = 0;
    int result = !filter ? -ENOMEM : file ? seccomp_export_bpf(filter, fileno(file)) : -errno;

    if (filter)
        seccomp_release(filter);
    if (result == 0) {
        rewind(file);
        used = fread(program, sizeof program[0], FILTER_INSTRUCTIONS_MAX, file);
        result = used > 0 && used < FILTER_INSTRUCTIONS_MAX ? 0 : -E2BIG;
    }
    if (file)
        fclose(file);
    printf("static const struct sock_filter %s[] = {\n", name);
    for (size_t i = 0; i < used; i++)
        printf("    { 0x%02x, %u, %u, 0x%08x },\n", program[i].code, program[i].jt, program[i].jf,
               program[i].k);
    printf("};\n");
    if (result < 0)
        fprintf(stderr, "filter %s: %s\n", name, strerror(-result));
    return result;
}
