/* filter_rules.c - prints the rules of vmm/filter_rules.h for tests/tools/filter_uses.py, a line
 * each:
 *
 *   devices fcntl 1&0xffffffff=0x4       thread kind, call, conditions: argument & mask = value */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/cleanup.h"
#include "vmm/filter_rules.h"

static void print(const char *kind, const struct filter_rule *rules, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        auto_free char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, rules[i].call);

        printf("%s %s", kind, name);
        for (unsigned k = 0; k < rules[i].condition_count; k++)
            printf(" %u&%#" PRIx64 "=%#" PRIx64, rules[i].conditions[k].argument,
                   rules[i].conditions[k].mask, rules[i].conditions[k].value);
        printf("\n");
    }
}

int main(void)
{
    print("vcpu", vcpu_rules, ARRAY_LENGTH(vcpu_rules));
    print("devices", device_rules, ARRAY_LENGTH(device_rules));
    print("refused", refused_rules, ARRAY_LENGTH(refused_rules));
    return EXIT_SUCCESS;
}
