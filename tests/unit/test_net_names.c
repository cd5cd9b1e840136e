/* test_net_names.c - networks, MAC addresses and interface names as text. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "net/cidr.h"
#include "net/interface_name.h"
#include "net/mac.h"

static void reads_networks(void **state)
{
    struct cidr cidr;
    char text[CIDR_TEXT];

    (void)state;
    assert_int_equal(cidr_parse("10.77.0.0/24", &cidr, NULL), 0);
    assert_int_equal(cidr.address, 0x0a4d0000);
    assert_int_equal(cidr.prefix, 24);
    assert_int_equal(cidr_gateway(&cidr), 0x0a4d0001);
    assert_int_equal(cidr_broadcast(&cidr), 0x0a4d00ff);
    cidr_format(&cidr, text);
    assert_string_equal(text, "10.77.0.0/24");
    assert_int_equal(cidr_parse("172.31.255.252/30", &cidr, NULL), 0);
    assert_int_equal(cidr_parse("100.64.0.0/10", &cidr, NULL), 0);
    assert_int_equal(cidr_parse("10.0.0.0/8", &cidr, NULL), 0);
}

static void refuses_what_is_no_network(void **state)
{
    static const char *const bad[] = {
        "",
        "10.77.0.0",
        "10.77.0.0/",
        "10.77.0.0/024",
        "10.77.0.0/24 ",
        " 10.77.0.0/24",
        "10.77.0/24",
        "10.77.0.0.0/24",
        "10.077.0.0/24",
        "10.77.0.256/24",
        "10.77.0.0/33",
        "10.77.0.0/4294967320",
        "10.77.0.1/24", /* host bits */
        "10.77.0.0/31", /* no room */
        "8.0.0.0/7",    /* too wide */
        "8.8.8.0/24",   /* somebody's */
        "127.0.0.0/24", /* our own */
        "169.254.0.0/24",
        "224.0.0.0/24",
        "172.16.0.0/11", /* reaches beyond the private block */
        "192.168.0.0/8",
        "+10.77.0.0/24",
        "10.77.0.-1/24",
        "fd00::/64",
    };
    struct cidr cidr = { 7, 7 };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (cidr_parse(bad[i], &cidr, NULL) != -EINVAL)
            fail_msg("took \"%s\"", bad[i]);
    assert_int_equal(cidr.address, 7);
}

static void refuses_what_is_no_address(void **state)
{
    static const char *const bad[] = { "",          "10.77.0",    "10.77.0.1.", "10.77.0.1/24",
                                       "10.77.0.x", "10.77.0.1x", "::1" };
    uint32_t address = 7;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (ipv4_parse(bad[i], &address, NULL) != -EINVAL)
            fail_msg("took \"%s\"", bad[i]);
    assert_int_equal(address, 7);
    assert_int_equal(ipv4_parse("10.77.0.1", &address, NULL), 0);
    assert_int_equal(address, 0x0a4d0001);
}

static void tells_how_to_write_it(void **state)
{
    struct cidr cidr;
    struct error err;

    (void)state;
    assert_int_equal(cidr_parse("10.77.0.9/24", &cidr, &err), -EINVAL);
    assert_string_equal(err.message, "is not a network address: write 10.77.0.0/24");
}

static void sees_overlaps(void **state)
{
    struct cidr a = { 0x0a4d0000, 24 };
    struct cidr inside = { 0x0a4d0080, 25 };
    struct cidr around = { 0x0a000000, 8 };
    struct cidr beside = { 0x0a4d0100, 24 };
    struct cidr everything = { 0, 0 };

    (void)state;
    assert_true(cidr_overlaps(&a, &a));
    assert_true(cidr_overlaps(&a, &inside));
    assert_true(cidr_overlaps(&inside, &a));
    assert_true(cidr_overlaps(&a, &around));
    assert_true(cidr_overlaps(&a, &everything));
    assert_false(cidr_overlaps(&a, &beside));
    assert_true(cidr_contains(&a, 0x0a4d00ff));
    assert_false(cidr_contains(&a, 0x0a4d0100));
}

static void reads_mac_addresses(void **state)
{
    static const char *const bad[] = { "",
                                       "02:00:00:00:00",
                                       "02:00:00:00:00:0",
                                       "02:00:00:00:00:01:",
                                       "02-00-00-00-00-01",
                                       "02:00:00:00:00:0g",
                                       "01:00:5e:00:00:01",
                                       "ff:ff:ff:ff:ff:ff",
                                       "00:00:00:00:00:00" };
    uint8_t mac[MAC_BYTES] = { 0 };
    char text[MAC_TEXT];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (mac_parse(bad[i], mac, NULL) != -EINVAL)
            fail_msg("took \"%s\"", bad[i]);
    assert_int_equal(mac_parse("02:aB:00:00:00:fe", mac, NULL), 0);
    mac_format(mac, text);
    assert_string_equal(text, "02:ab:00:00:00:fe");
}

static void derives_mac_addresses(void **state)
{
    uint8_t a[MAC_BYTES];
    uint8_t b[MAC_BYTES];
    char text[MAC_TEXT];

    (void)state;
    mac_derive(0x01020304, 5, a);
    mac_format(a, text);
    assert_string_equal(text, "02:01:02:03:04:05");
    mac_derive_bridge(0x01020304, b);
    assert_int_equal(a[0] & 3, 2); /* local, for one */
    assert_int_equal(b[0] & 3, 2);
    assert_memory_not_equal(a, b, 1);
}

static void names_interfaces(void **state)
{
    char name[IFNAMSIZ];

    (void)state;
    network_bridge_name("wrn", 0x1a, name);
    assert_string_equal(name, "wrn-b1a");
    nic_tap_name("wrn", 0x1a, 2, name);
    assert_string_equal(name, "wrn-1a-2");
    nic_tap_name("abcd", UINT32_MAX, NIC_INDEX_MAX, name); /* the longest */
    assert_string_equal(name, "abcd-ffffffff-f");
}

static void knows_its_own_names(void **state)
{
    static const char *const others[] = { "wrn",       "wrn-",     "wrn-b",         "wrn-bz",
                                          "wrnx-b1",   "wrn-1-10", "wrn-1-",        "wrn--1",
                                          "wrn-b01",   "wrn-B1",   "eth0",          "wrn-b1 ",
                                          "wrn-x1-0",  "wr-b1",    "wrn-b1x",       "wrnb1",
                                          "wrn-0x1-0", "wrn-+1-0", "wrn-b100000000" };
    uint32_t instance = 0;
    uint8_t index = 9;

    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (interface_name_parse("wrn", others[i], &instance, &index) != INTERFACE_OTHER)
            fail_msg("took \"%s\"", others[i]);
    assert_int_equal(interface_name_parse("wrn", "wrn-bb1", &instance, &index), INTERFACE_BRIDGE);
    assert_int_equal(instance, 0xb1);
    assert_int_equal(interface_name_parse("wrn", "wrn-b1-f", &instance, &index), INTERFACE_TAP);
    assert_int_equal(instance, 0xb1);
    assert_int_equal(index, 15);
}

static void checks_prefixes(void **state)
{
    (void)state;
    assert_true(interface_prefix_is_valid("wrn"));
    assert_true(interface_prefix_is_valid("w1x2"));
    assert_false(interface_prefix_is_valid(""));
    assert_false(interface_prefix_is_valid("1w"));
    assert_false(interface_prefix_is_valid("abcde"));
    assert_false(interface_prefix_is_valid("a-b"));
    assert_false(interface_prefix_is_valid("A"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_networks),
        cmocka_unit_test(refuses_what_is_no_network),
        cmocka_unit_test(refuses_what_is_no_address),
        cmocka_unit_test(tells_how_to_write_it),
        cmocka_unit_test(sees_overlaps),
        cmocka_unit_test(reads_mac_addresses),
        cmocka_unit_test(derives_mac_addresses),
        cmocka_unit_test(names_interfaces),
        cmocka_unit_test(knows_its_own_names),
        cmocka_unit_test(checks_prefixes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
