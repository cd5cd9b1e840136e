/* build_filters.c - part of the build: compiles the rules of filter_rules.h to seccomp programs and
 * prints them as C arrays.  libseccomp is needed here only. */
#include <errno.h>
#include <linux/filter.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "vmm/filter_rules.h"

#define INSTRUCTIONS_MAX 1024

static int add_rule(scmp_filter_ctx filter, const struct filter_rule *rule)
{
    struct scmp_arg_cmp compare[FILTER_CONDITIONS_MAX];

    for (unsigned i = 0; i < rule->condition_count; i++)
        compare[i] = (struct scmp_arg_cmp){ rule->conditions[i].argument, SCMP_CMP_MASKED_EQ,
                                            rule->conditions[i].mask, rule->conditions[i].value };
    return seccomp_rule_add_exact_array(filter, SCMP_ACT_ALLOW, rule->call, rule->condition_count,
                                        compare);
}

static int compile(const struct filter_rule *rules, size_t count, int fd)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int result = filter ? 0 : -ENOMEM;

    if (result == 0)
        result = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    for (size_t i = 0; i < count && result == 0; i++)
        result = add_rule(filter, &rules[i]);
    for (size_t i = 0; i < ARRAY_LENGTH(refused_calls) && result == 0; i++)
        result = seccomp_rule_add_exact(filter, SCMP_ACT_ERRNO(ENOMEM), refused_calls[i], 0);
    /* What happens most stands first: running the guest, waiting, raising interrupts. */
    if (result == 0)
        (void)seccomp_syscall_priority(filter, SCMP_SYS(ioctl), 255);
    if (result == 0)
        (void)seccomp_syscall_priority(filter, SCMP_SYS(write), 254);
    if (result == 0)
        result = seccomp_export_bpf(filter, fd);
    if (filter)
        seccomp_release(filter);
    return result;
}

static int print(const char *name, const struct filter_rule *rules, size_t count)
{
    struct sock_filter program[INSTRUCTIONS_MAX];
    FILE *file = tmpfile();
    size_t used;
    int result = file ? compile(rules, count, fileno(file)) : -errno;

    if (result < 0) {
        fprintf(stderr, "build_filters: %s: %s\n", name, strerror(-result));
        return result;
    }
    rewind(file);
    used = fread(program, sizeof program[0], INSTRUCTIONS_MAX, file);
    fclose(file);
    printf("static const struct sock_filter %s[] = {\n", name);
    for (size_t i = 0; i < used; i++)
        printf("    { 0x%02x, %u, %u, 0x%08x },\n", program[i].code, program[i].jt, program[i].jf,
               program[i].k);
    printf("};\n");
    return used > 0 && used < INSTRUCTIONS_MAX ? 0 : -E2BIG;
}

int main(void)
{
    if (print("filter_devices", device_rules, ARRAY_LENGTH(device_rules)) < 0 ||
        print("filter_vcpu", vcpu_rules, ARRAY_LENGTH(vcpu_rules)) < 0)
        return EXIT_FAILURE;
    return EXIT_SUCCESS;
}
