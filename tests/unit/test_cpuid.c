/* test_cpuid.c - the topology that CPUID tells, from entries as KVM gives them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/cpuid.h"

static const struct kvm_cpuid_entry2 host[] = {
    { .function = 0, .eax = 0x1f },
    { .function = 1, .ebx = 0x07100800, .ecx = 0x20, .edx = 0x178bfbff },
    { .function = 4, .index = 0, .eax = 0x1c004121 },
    { .function = 4, .index = 1, .eax = 0x1c03c163 },
    { .function = 4, .index = 2, .eax = 0 },
    { .function = 7, .ebx = 1u << 25 | 1u, .ecx = 1u << 7 | 1u << 2, .edx = 1u << 20 | 1u << 4 },
    { .function = 0xa, .eax = 0x07300404 },
    { .function = 0xb, .index = 0, .eax = 1, .ebx = 2, .ecx = 0x100, .edx = 7 },
    { .function = 0xd, .index = 1, .eax = 0xf, .ecx = 3u << 11 | 1u << 8 },
    { .function = 0x14, .index = 0, .eax = 1, .ebx = 0xf, .ecx = 7 },
    { .function = 0x14, .index = 1, .eax = 2, .ebx = 0x3fff },
    { .function = 0x80000001, .ecx = 6 | 1u << 23 },
    { .function = 0x80000008, .ecx = 0x700f, .eax = 0x3030 },
    { .function = 0x8000000a, .eax = 1, .ebx = 8, .edx = 0x19 },
    { .function = 0x8000001e, .eax = 7, .ebx = 0x103, .ecx = 1 },
};

static void make(struct cpuid *cpuid)
{
    *cpuid = (struct cpuid){ .count = ARRAY_LENGTH(host) };
    memcpy(cpuid->entries, host, sizeof host);
}

static const struct kvm_cpuid_entry2 *find(const struct cpuid *cpuid, uint32_t function,
                                           uint32_t index)
{
    for (uint32_t i = 0; i < cpuid->count; i++)
        if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
            return &cpuid->entries[i];
    return NULL;
}

static void each_vcpu_has_its_apic_id(void **state)
{
    struct cpuid cpuid;

    (void)state;
    make(&cpuid);
    for (unsigned index = 0; index < 5; index++) {
        cpuid_adapt(&cpuid, index, 5, true);
        assert_int_equal(find(&cpuid, 1, 0)->ebx, index << 24 | 5 << 16 | 0x800);
        assert_int_equal(find(&cpuid, 1, 0)->ecx >> 31, 1);
        assert_int_equal(find(&cpuid, 1, 0)->ecx >> 24 & 1, 1);
        assert_int_equal(find(&cpuid, 1, 0)->edx >> 28 & 1, 1);
        assert_int_equal(find(&cpuid, 0x8000001e, 0)->eax, index);
        for (uint32_t level = 0; level < 3; level++)
            assert_int_equal(find(&cpuid, 0xb, level)->edx, index);
    }
}

static void cores_are_of_one_package(void **state)
{
    struct cpuid cpuid;

    (void)state;
    make(&cpuid);
    cpuid_adapt(&cpuid, 0, 5, false);
    assert_int_equal(find(&cpuid, 0xb, 0)->eax, 0); /* a core has one thread */
    assert_int_equal(find(&cpuid, 0xb, 0)->ebx, 1);
    assert_int_equal(find(&cpuid, 0xb, 0)->ecx, 0x100);
    assert_int_equal(find(&cpuid, 0xb, 1)->eax, 3); /* 5 cores need 3 bits */
    assert_int_equal(find(&cpuid, 0xb, 1)->ebx, 5);
    assert_int_equal(find(&cpuid, 0xb, 1)->ecx, 0x201);
    assert_int_equal(find(&cpuid, 0xb, 2)->ecx, 2); /* the end */
    assert_null(find(&cpuid, 0x1f, 0));             /* the host has none */
    assert_int_equal(find(&cpuid, 0x80000008, 0)->ecx, 0x3004);
    assert_int_equal(find(&cpuid, 4, 0)->eax, 7u << 26 | 0x121);
    assert_int_equal(find(&cpuid, 4, 1)->eax, 7u << 26 | 7u << 14 | 0x163);
    assert_int_equal(find(&cpuid, 4, 2)->eax, 0);
    assert_int_equal(find(&cpuid, 0xa, 0)->eax, 0);
    assert_int_equal(find(&cpuid, 0x80000001, 0)->ecx >> 23 & 1, 0); /* AMD's counters */
}

/* The topology that a guest looks at first, where the host has it, and AMD's. */
static void no_topology_is_the_hosts(void **state)
{
    struct cpuid cpuid;

    (void)state;
    make(&cpuid);
    for (uint32_t level = 0; level < 5; level++)
        cpuid.entries[cpuid.count++] = (struct kvm_cpuid_entry2){
            .function = 0x1f, .index = level, .eax = 6, .ebx = 64, .ecx = 0x500, .edx = 77
        };
    cpuid_adapt(&cpuid, 2, 5, false);
    for (uint32_t level = 0; level < 3; level++) {
        assert_int_equal(find(&cpuid, 0x1f, level)->eax, find(&cpuid, 0xb, level)->eax);
        assert_int_equal(find(&cpuid, 0x1f, level)->ebx, find(&cpuid, 0xb, level)->ebx);
        assert_int_equal(find(&cpuid, 0x1f, level)->edx, 2);
    }
    assert_null(find(&cpuid, 0x1f, 3));
    assert_int_equal(find(&cpuid, 0x80000001, 0)->ecx & 2, 2);
    assert_int_equal(find(&cpuid, 0x8000001e, 0)->ecx, 0);
}

static void one_vcpu_is_alone(void **state)
{
    struct cpuid cpuid;

    (void)state;
    make(&cpuid);
    cpuid_adapt(&cpuid, 0, 1, false);
    assert_int_equal(find(&cpuid, 1, 0)->edx >> 28 & 1, 0);
    assert_int_equal(find(&cpuid, 1, 0)->ecx >> 24 & 1, 0);
    assert_int_equal(find(&cpuid, 0x80000001, 0)->ecx & 2, 0);
    assert_int_equal(find(&cpuid, 0xb, 1)->eax, 0);
    assert_int_equal(cpuid.count, ARRAY_LENGTH(host) + 2);
}

static void guests_see_no_virtualization(void **state)
{
    struct cpuid cpuid;
    const struct kvm_cpuid_entry2 *svm;

    (void)state;
    make(&cpuid);
    cpuid_adapt(&cpuid, 1, 2, true);
    assert_int_equal(find(&cpuid, 1, 0)->ecx >> 5 & 1, 0);          /* VMX */
    assert_int_equal(find(&cpuid, 0x80000001, 0)->ecx >> 2 & 1, 0); /* SVM */
    svm = find(&cpuid, 0x8000000a, 0);
    assert_int_equal(svm->eax | svm->ebx | svm->ecx | svm->edx, 0);
}

static void guests_see_no_shadow_stacks(void **state)
{
    struct cpuid cpuid;

    (void)state;
    make(&cpuid);
    cpuid_adapt(&cpuid, 0, 1, true);
    assert_int_equal(find(&cpuid, 7, 0)->ecx, 1u << 2);
    assert_int_equal(find(&cpuid, 7, 0)->edx, 1u << 4); /* nor indirect branch tracking */
    assert_int_equal(find(&cpuid, 0xd, 1)->ecx, 1u << 8);
    assert_int_equal(find(&cpuid, 0xd, 1)->eax, 0xf);
}

static void guests_see_no_processor_trace(void **state)
{
    struct cpuid cpuid;

    (void)state;
    make(&cpuid);
    cpuid_adapt(&cpuid, 0, 1, true);
    assert_int_equal(find(&cpuid, 7, 0)->ebx, 1);
    for (uint32_t index = 0; index < 2; index++) {
        const struct kvm_cpuid_entry2 *trace = find(&cpuid, 0x14, index);

        assert_int_equal(trace->eax | trace->ebx | trace->ecx | trace->edx, 0);
    }
}

/* So a host may have it switched off, and what ran on one that has it is restored there. */
static void no_host_needs_it_for_a_guest(void **state)
{
    struct cpuid with, without;
    char what[64];

    (void)state;
    make(&with);
    make(&without);
    for (uint32_t i = 0; i < without.count; i++) {
        if (without.entries[i].function == 1)
            without.entries[i].ecx &= ~(1u << 5); /* VMX */
        if (without.entries[i].function == 0x80000001)
            without.entries[i].ecx &= ~(1u << 2); /* SVM */
        if (without.entries[i].function == 7)
            without.entries[i].ebx = 1, without.entries[i].ecx = 1u << 2,
            without.entries[i].edx = 1u << 4;
    }
    assert_true(cpuid_is_within(&with, &without, what, sizeof what));
    with.entries[1].ecx |= 1; /* SSE3 */
    assert_false(cpuid_is_within(&with, &without, what, sizeof what));
}

static bool is_missed(struct kvm_cpuid_entry2 feature)
{
    struct cpuid with, without;
    char what[64];

    make(&with);
    make(&without);
    with.entries[with.count++] = feature;
    return !cpuid_is_within(&with, &without, what, sizeof what);
}

/* A guest has looked once which instructions there are, and which bits of MSRs. */
static void features_of_newer_processors_are_missed(void **state)
{
    static const struct kvm_cpuid_entry2 features[] = {
        { 7, 1, 0, .eax = 1u << 4 },          /* AVX-VNNI */
        { 7, 1, 0, .ecx = 1u << 5 },          /* WRMSRNS of an immediate */
        { 7, 1, 0, .edx = 1u << 4 },          /* AVX-VNNI-INT8 */
        { 7, 2, 0, .edx = 1u << 4 },          /* BHI_DIS_S */
        { 0x80000007, 0, 0, .edx = 1u << 8 }, /* an invariant TSC */
        { 0x80000021, 0, 0, .ecx = 1u << 1 }, /* TSA_SQ_NO */
    };
    const struct kvm_cpuid_entry2 size = { 0x80000021, 0, 0, .ebx = 1 }; /* of microcode */

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(features); i++)
        if (!is_missed(features[i]))
            fail_msg("feature %zu", i);
    assert_false(is_missed(size));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_vcpu_has_its_apic_id),
        cmocka_unit_test(cores_are_of_one_package),
        cmocka_unit_test(no_topology_is_the_hosts),
        cmocka_unit_test(one_vcpu_is_alone),
        cmocka_unit_test(guests_see_no_virtualization),
        cmocka_unit_test(guests_see_no_shadow_stacks),
        cmocka_unit_test(guests_see_no_processor_trace),
        cmocka_unit_test(no_host_needs_it_for_a_guest),
        cmocka_unit_test(features_of_newer_processors_are_missed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
