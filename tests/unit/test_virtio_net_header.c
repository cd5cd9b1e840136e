/* test_virtio_net_header.c - which headers of frames are believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "vmm/virtio_net_header.h"

enum {
    CSUM = NET_FEATURE_CSUM,
    TSO = NET_FEATURE_CSUM | NET_FEATURE_HOST_TSO4,
    ECN = TSO | NET_FEATURE_HOST_ECN
};
static const struct {
    struct net_header header;
    uint64_t features, bytes;
    bool sent;
} cases[] = {
    { { 0 }, 0, 14, true },
    { { 0 }, 0, 13, false },
    { { 0 }, 0, 0, false },
    { { 0 }, 0, 65553, true },
    { { 0 }, 0, 65554, false },
    { { 0 }, 0, UINT64_MAX, false },
    { { .flags = 0xfe }, 0, 64, true }, /* bits of no meaning are cleared */
    { { .flags = 1, .csum_start = 34, .csum_offset = 16 }, 0, 64, false },
    { { .flags = 1, .csum_start = 34, .csum_offset = 16 }, CSUM, 64, true },
    { { .flags = 1, .csum_start = 34, .csum_offset = 16 }, CSUM, 52, true },
    { { .flags = 1, .csum_start = 34, .csum_offset = 16 }, CSUM, 51, false },
    { { .flags = 1, .csum_start = 65535, .csum_offset = 65535 }, CSUM, 64, false },
    { { .flags = 1, .csum_start = 65535, .csum_offset = 1 }, CSUM, 64, false },
    { { .flags = 1, .gso_type = 1, .gso_size = 1000 }, CSUM, 64, false },
    { { .flags = 1, .gso_type = 1, .gso_size = 1000 }, TSO, 64, true },
    { { .flags = 1, .gso_type = 4, .gso_size = 1000 }, TSO, 64, false },
    { { .flags = 1, .gso_type = 3, .gso_size = 1000 }, TSO, 64, false },
    { { .flags = 1, .gso_type = 0x81, .gso_size = 1000 }, TSO, 64, false },
    { { .flags = 1, .gso_type = 0x81, .gso_size = 1000 }, ECN, 64, true },
    { { .flags = 1, .gso_type = 0x80, .gso_size = 1000 }, ECN, 64, false },
    { { .flags = 1, .gso_type = 0x84, .gso_size = 1000 }, ECN, 64, false },
    { { .flags = 1, .gso_type = 255, .gso_size = 1000 }, ECN, 64, false },
    { { .flags = 1, .gso_type = 255, .gso_size = 1000 }, TSO, 64, false },
    { { .flags = 0, .gso_type = 1, .gso_size = 1000 }, TSO, 64, false },
    { { .flags = 1, .gso_type = 1, .gso_size = 0 }, TSO, 64, false },
    { { .flags = 1, .gso_type = 1, .gso_size = 9, .header_length = 64 }, TSO, 64, true },
    { { .flags = 1, .gso_type = 1, .gso_size = 9, .header_length = 65 }, TSO, 64, false },
    { { .gso_size = 9, .header_length = 65535 }, TSO, 64, true }, /* unused, so cleared */
};

static void headers_are_judged(void **state)
{
    const uint64_t guest_ecn =
        NET_FEATURE_GUEST_CSUM | NET_FEATURE_GUEST_TSO6 | NET_FEATURE_GUEST_ECN;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct net_header header = cases[i].header;

        if (net_header_check_transmit(&header, cases[i].features, cases[i].bytes) != cases[i].sent)
            fail_msg("case %zu", i);
        assert_true(header.flags <= 1);
        if (header.gso_type == 0)
            assert_int_equal(header.header_length + header.gso_size, 0);
        if (cases[i].sent && (cases[i].header.flags & 1)) /* it all goes to the tap */
            assert_memory_equal(&header, &cases[i].header, sizeof(header));
    }
    for (unsigned type = 0; type < 256; type++) {
        struct net_header header = { .gso_type = (uint8_t)type, .flags = 2 /* DATA_VALID */ };

        assert_int_equal(net_header_check_receive(&header, 0), type == 0);
        assert_int_equal(header.flags, 0);
        header = (struct net_header){ .gso_type = (uint8_t)type };
        assert_int_equal(net_header_check_receive(&header, guest_ecn),
                         type == 0 || (type & 0x7f) == NET_GSO_TCP6);
        header.flags = NET_HEADER_NEEDS_CSUM;
        assert_false(net_header_check_receive(&header, 0));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(headers_are_judged) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
