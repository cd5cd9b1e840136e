/* test_cpu_baseline.c - named sets of features, over leaves as KVM gives them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include "agent/cpu_baseline.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/cpuid.h"

/* Recorded: a KVM without hardware behind it. */
static const struct kvm_cpuid_entry2 software[] = {
    { .function = 0, .eax = 0x1c, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69 },
    { .function = 1, .eax = 0xc06f2, .ebx = 0x20800, .ecx = 0x81202000, .edx = 0x0f8bfbff },
    { .function = 6, .eax = 4 },
    { .function = 7, .eax = 2, .ebx = 0x01802852, .ecx = 0x1a010104, .edx = 0x20010000 },
    { .function = 7, .index = 1, .eax = 0x1c00 },
    { .function = 7, .index = 2, .edx = 1 },
    { .function = 0xd, .eax = 0xe7, .ebx = 0xa80, .ecx = 0xa80 },
    { .function = 0xd, .index = 2, .eax = 0x100, .ebx = 0x240 },
    { .function = 0xd, .index = 5, .eax = 0x40, .ebx = 0x440 },
    { .function = 0x80000000, .eax = 0x80000021 },
    { .function = 0x80000001, .ecx = 0x101, .edx = 0x20100800 },
    { .function = 0x80000007, .edx = 0x100 },
    { .function = 0x80000008, .eax = 0x3930 },
    { .function = 0x80000021, .eax = 0x244, .ecx = 6 },
    { .function = 0x40000001, .eax = 0x01007efb },
};

/* Put together after a server of Intel's with AVX-512 and AMX, and one of AMD's before Zen 3. */
static const struct kvm_cpuid_entry2 intel[] = {
    { .function = 0, .eax = 0x20, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69 },
    { .function = 1, .eax = 0x806f8, .ecx = 0xfffa3203, .edx = 0x1f8bfbff },
    { .function = 6, .eax = 4 },
    { .function = 7, .eax = 2, .ebx = 0xf1bf07ab, .ecx = 0x1b415f6e, .edx = 0xa5d14410 },
    { .function = 7, .index = 1, .eax = 0x1c30, .edx = 0x4000 },
    { .function = 7, .index = 2, .edx = 0x17 },
    { .function = 0xd, .eax = 0x602e7, .ebx = 0x240, .ecx = 0x2b00 },
    { .function = 0xd, .index = 1, .eax = 0x1f, .ebx = 0x2b00, .ecx = 0x1800 },
    { .function = 0xd, .index = 2, .eax = 0x100, .ebx = 0x240 },
    { .function = 0xd, .index = 18, .eax = 0x2000, .ebx = 0xb00 },
    { .function = 0x14, .eax = 1, .ebx = 0x5f },
    { .function = 0x1d, .eax = 1 },
    { .function = 0x80000001, .ecx = 0x121, .edx = 0x2c100800 },
    { .function = 0x80000007, .edx = 0x100 },
    { .function = 0x80000008, .eax = 0x3934, .ebx = 0x0100d200 },
    { .function = 0x40000001, .eax = 0x01007efb },
};
static const struct kvm_cpuid_entry2 amd[] = {
    { .function = 0, .eax = 0x10, .ebx = 0x68747541, .ecx = 0x444d4163, .edx = 0x69746e65 },
    { .function = 1, .eax = 0x830f10, .ecx = 0xfff83203, .edx = 0x178bfbff },
    { .function = 7, .ebx = 0x219c01ab, .ecx = 0x400004 },
    { .function = 0xd, .eax = 7, .ebx = 0x240, .ecx = 0x340 },
    { .function = 0xd, .index = 1, .eax = 0xf, .ebx = 0x340 },
    { .function = 0xd, .index = 2, .eax = 0x100, .ebx = 0x240 },
    { .function = 0x80000001, .ecx = 0x4003f7, .edx = 0x2fd3fbff },
    { .function = 0x80000008, .eax = 0x3030, .ebx = 0x0108d205 },
    { .function = 0x8000001f, .eax = 0x3 },
    { .function = 0x40000001, .eax = 0x0103fefb },
};

#define TABLE(name) table_of(name, ARRAY_LENGTH(name))
static struct vmm_cpuid table_of(const struct kvm_cpuid_entry2 *entries, size_t count)
{
    struct vmm_cpuid cpuid = { .count = (uint32_t)count };

    memcpy(cpuid.entries, entries, count * sizeof entries[0]);
    return cpuid;
}

static struct kvm_cpuid_entry2 leaf(const struct vmm_cpuid *cpuid, uint32_t function,
                                    uint32_t index)
{
    for (uint32_t i = 0; i < cpuid->count; i++)
        if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
            return cpuid->entries[i];
    return (struct kvm_cpuid_entry2){ 0 };
}

static bool is_within(const struct vmm_cpuid *wanted, const struct vmm_cpuid *host)
{
    struct cpuid a, b;
    char what[64];

    cpuid_copy(&a, wanted);
    cpuid_copy(&b, host);
    return cpuid_is_within(&a, &b, what, sizeof what);
}

static void a_host_has_what_it_has(void **state)
{
    static const bool expected[3][CPU_BASELINE_COUNT] = {
        { true, true, false, false },
        { true, true, true, true },
        { true, true, true, true },
    };
    const struct vmm_cpuid hosts[] = { TABLE(software), TABLE(intel), TABLE(amd) };
    struct error err = { 0 };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(hosts); i++)
        for (int b = 0; b < CPU_BASELINE_COUNT; b++)
            if ((cpu_baseline_check((enum cpu_baseline)b, &hosts[i], &err) == 0) != expected[i][b])
                fail_msg("host %zu, %s: %s", i, cpu_baseline_names[b], err.message);
}

static void what_is_missing_is_named(void **state)
{
    struct vmm_cpuid host = TABLE(software), before = host;
    struct error err = { 0 };

    (void)state;
    assert_int_equal(cpu_baseline_apply(CPU_X86_64_V2, &host, &err), -ENOEXEC);
    assert_string_equal(err.field, "cpu");
    assert_string_equal(err.message, "cpu: this host lacks, of x86-64-v2: SSE3, SSSE3, SSE4.1, "
                                     "SSE4.2, POPCNT; take a lower level, or host");
    assert_memory_equal(&host, &before, sizeof host);
    host.count = 0;
    assert_int_equal(cpu_baseline_check(CPU_X86_64_V1, &host, &err), -ENODEV);
    assert_int_equal(cpu_baseline_check(CPU_HOST, &host, &err), 0);
    host.count = 1; /* nearly everything is missing: the message ends somewhere */
    assert_int_equal(cpu_baseline_check(CPU_X86_64_V3, &host, &err), -ENOEXEC);
}

/* Each bit that a masked guest sees for certain is missed when it is gone. */
static void no_feature_is_left_out(void **state)
{
    unsigned missed = 0;

    (void)state;
    for (uint32_t i = 0; i < ARRAY_LENGTH(amd); i++)
        for (unsigned bit = 0; bit < 128; bit++) {
            struct vmm_cpuid host = TABLE(amd);
            uint32_t *registers[] = { &host.entries[i].eax, &host.entries[i].ebx,
                                      &host.entries[i].ecx, &host.entries[i].edx };

            *registers[bit / 32] &= ~(1u << bit % 32);
            missed += cpu_baseline_check(CPU_X86_64_V3, &host, NULL) == -ENOEXEC;
        }
    assert_int_equal(missed, 50);
}

static void unlike_hosts_become_alike(void **state)
{
    (void)state;
    for (enum cpu_baseline b = CPU_X86_64_V1; b < CPU_BASELINE_COUNT; b++) {
        const struct vmm_cpuid hosts[] = { TABLE(intel), TABLE(amd) };
        struct vmm_cpuid one = hosts[0], other = hosts[1];

        assert_false(is_within(&one, &other));
        assert_false(is_within(&other, &one));
        assert_int_equal(cpu_baseline_apply(b, &one, NULL), 0);
        assert_int_equal(cpu_baseline_apply(b, &other, NULL), 0);
        assert_true(is_within(&one, &hosts[0]));
        assert_true(is_within(&other, &hosts[1]));
        assert_int_equal(leaf(&one, 1, 0).ecx, leaf(&other, 1, 0).ecx);
        assert_int_equal(leaf(&one, 1, 0).edx, leaf(&other, 1, 0).edx);
        assert_int_equal(leaf(&one, 7, 0).ebx & ~2u, leaf(&other, 7, 0).ebx & ~2u);
        assert_int_equal(leaf(&one, 7, 0).ecx, leaf(&other, 7, 0).ecx);
        assert_int_equal(leaf(&one, 7, 0).eax | leaf(&other, 7, 0).eax, 0);
        for (uint32_t i = 0; i < 19; i++) {
            assert_int_equal(leaf(&one, 0xd, i).eax, leaf(&other, 0xd, i).eax);
            assert_int_equal(leaf(&one, 0xd, i).ebx, leaf(&other, 0xd, i).ebx);
            assert_int_equal(leaf(&one, 0xd, i).ecx, leaf(&other, 0xd, i).ecx);
        }
        assert_int_equal(leaf(&one, 0x14, 0).eax | leaf(&one, 0x1d, 0).eax, 0);
        assert_int_equal(leaf(&one, 0x80000007, 0).edx, 0); /* another host's TSC runs otherwise */
    }
}

/* What protects a guest is not taken from it, and a host without it is refused at the restore. */
static void protection_stays(void **state)
{
    struct vmm_cpuid one = TABLE(intel), other = TABLE(intel);

    (void)state;
    other.entries[3].edx &= ~(1u << 31); /* SSBD */
    assert_int_equal(cpu_baseline_apply(CPU_X86_64_V2, &one, NULL), 0);
    assert_int_equal(cpu_baseline_apply(CPU_X86_64_V2, &other, NULL), 0);
    assert_int_equal(leaf(&one, 7, 0).edx >> 31, 1);
    assert_int_equal(leaf(&one, 7, 0).ebx & (1u << 7 | 1u << 20), 1u << 7 | 1u << 20);
    assert_true(is_within(&other, &one));
    assert_false(is_within(&one, &other));
}

/* x86-64-v3 had ERMS, too, which AMD's have since Zen 3: what ran then is restored. */
static void a_guest_of_before_is_restored(void **state)
{
    struct vmm_cpuid before = TABLE(intel), now = TABLE(intel);

    (void)state;
    assert_int_equal(cpu_baseline_apply(CPU_X86_64_V3, &before, NULL), 0);
    assert_int_equal(cpu_baseline_apply(CPU_X86_64_V3, &now, NULL), 0);
    assert_int_equal(leaf(&now, 7, 0).ebx >> 9 & 1, 0);
    before.entries[3].ebx |= 1u << 9;
    assert_true(is_within(&before, &now));
}

static void identity_stays(void **state)
{
    struct vmm_cpuid cpuid = TABLE(amd);

    (void)state;
    assert_int_equal(cpu_baseline_apply(CPU_X86_64_V1, &cpuid, NULL), 0);
    assert_int_equal(leaf(&cpuid, 0, 0).ebx, 0x68747541);
    assert_int_equal(leaf(&cpuid, 1, 0).eax, 0x830f10);
    assert_int_equal(leaf(&cpuid, 0x80000008, 0).eax, 0x3030);
    assert_int_equal(leaf(&cpuid, 1, 0).ecx >> 26 & 1, 0); /* and no XSAVE */
    assert_int_equal(leaf(&cpuid, 0xd, 0).eax, 0);
    cpuid = TABLE(amd);
    assert_int_equal(cpu_baseline_apply(CPU_HOST, &cpuid, NULL), 0);
    assert_memory_equal(cpuid.entries, amd, sizeof amd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_host_has_what_it_has), cmocka_unit_test(what_is_missing_is_named),
        cmocka_unit_test(no_feature_is_left_out), cmocka_unit_test(unlike_hosts_become_alike),
        cmocka_unit_test(protection_stays),       cmocka_unit_test(a_guest_of_before_is_restored),
        cmocka_unit_test(identity_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
