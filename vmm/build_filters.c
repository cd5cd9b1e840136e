/* build_filters.c - part of the build: compiles the rules of filter_rules.h to seccomp programs and
 * prints them as C arrays.  libseccomp is needed here only. */
#include <stdlib.h>
#include "base/cleanup.h"
#include "base/filter_print.h"
#include "vmm/filter_rules.h"

static int add_rule(scmp_filter_ctx filter, uint32_t action, const struct filter_rule *rule)
{
    struct scmp_arg_cmp compare[FILTER_CONDITIONS_MAX];

    for (unsigned i = 0; i < rule->condition_count; i++)
        compare[i] = (struct scmp_arg_cmp){ rule->conditions[i].argument, SCMP_CMP_MASKED_EQ,
                                            rule->conditions[i].mask, rule->conditions[i].value };
    return seccomp_rule_add_exact_array(filter, action, rule->call, rule->condition_count, compare);
}

static int print(const char *name, const struct filter_rule *rules, size_t count)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int result = filter ? 0 : -ENOMEM;

    if (result == 0)
        result = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    for (size_t i = 0; i < count && result == 0; i++)
        result = add_rule(filter, SCMP_ACT_ALLOW, &rules[i]);
    for (size_t i = 0; i < ARRAY_LENGTH(refused_rules) && result == 0; i++)
        result = add_rule(filter, SCMP_ACT_ERRNO(ENOMEM), &refused_rules[i]);
    /* What happens most stands first: running the guest, waiting, raising interrupts. */
    if (result == 0)
        (void)seccomp_syscall_priority(filter, SCMP_SYS(ioctl), 255);
    if (result == 0)
        (void)seccomp_syscall_priority(filter, SCMP_SYS(write), 254);
    if (result < 0)
        fprintf(stderr, "filter %s: %s\n", name, strerror(-result));
    return result < 0 ? result : filter_print(name, filter);
}

int main(void)
{
    if (print("filter_devices", device_rules, ARRAY_LENGTH(device_rules)) < 0 ||
        print("filter_vcpu", vcpu_rules, ARRAY_LENGTH(vcpu_rules)) < 0)
        return EXIT_FAILURE;
    return EXIT_SUCCESS;
}
