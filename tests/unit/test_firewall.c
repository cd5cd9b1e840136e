/* test_firewall.c - the text of rule sets and of dnsmasq's files.  That the kernel takes the rules,
 * and what they let through, is tests/integration/net's part. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/dhcp_text.h"
#include "net/firewall.h"

static const struct network_config nat = {
    .instance = 0x1a, .id = "front", .cidr = { 0x0a4d0000, 24 }, .nat = true
};
static const struct network_config isolated = { .instance = 2,
                                                .id = "inner",
                                                .cidr = { 0x0a4e0000, 24 } };
static const struct nic_config nic = { .instance = 0x30,
                                       .index = 1,
                                       .network_instance = 0x1a,
                                       .mac = { 2, 0, 0, 0, 0x30, 1 },
                                       .ipv4 = 0x0a4d0002,
                                       .hostname = "12" };

static void names_a_nic_in_both_sets(void **state)
{
    static const uint8_t sources[] = "wrn-30-1\0\0\0\0\0\0\0\0" /* ifname */
                                     "\x02\0\0\0\x30\x01\0\0"   /* MAC */
                                     "\x0a\x4d\0\x02";          /* IPv4 */
    static const uint8_t clients[] = "wrn-30-1\0\0\0\0\0\0\0\0"
                                     "\x02\0\0\0\x30\x01\0\0"
                                     "\x02\0\0\0\x30\x01\0\0";
    struct firewall_element elements[FIREWALL_NIC_ELEMENTS];
    char *text = firewall_ruleset("wrn", NULL, 0, &nic, 1);
    char table[FIREWALL_TABLE_NAME];

    (void)state;
    firewall_nic_elements("wrn", &nic, elements);
    firewall_table_name("wrn", table);
    assert_string_equal(table, "warren_wrn");
    assert_string_equal(elements[0].set, "sources");
    assert_int_equal(elements[0].key_bytes, sizeof sources - 1);
    assert_memory_equal(elements[0].key, sources, sizeof sources - 1);
    assert_string_equal(elements[1].set, "clients");
    assert_int_equal(elements[1].key_bytes, sizeof clients - 1);
    assert_memory_equal(elements[1].key, clients, sizeof clients - 1);
    assert_non_null(strstr(text, "add element bridge warren_wrn sources"
                                 " { \"wrn-30-1\" . 02:00:00:00:30:01 . 10.77.0.2 }\n"
                                 "add element bridge warren_wrn clients"
                                 " { \"wrn-30-1\" . 02:00:00:00:30:01 . 0x020000003001 }\n"));
    free(text);
}

static int count(const char *text, const char *part)
{
    int found = 0;

    for (const char *at = strstr(text, part); at; at = strstr(at + 1, part))
        found++;
    return found;
}

static void removes_what_may_not_be_there(void **state)
{
    char *network = firewall_network_change("wrn", FIREWALL_REMOVE, &isolated);
    char *all = firewall_removal("wrn");

    (void)state;
    assert_int_equal(count(network, "add element"), 5); /* so that the removal cannot fail */
    assert_int_equal(count(network, "delete element"), 5);
    assert_string_equal(all, "add table bridge warren_wrn\ndelete table bridge warren_wrn\n"
                             "add table inet warren_wrn\ndelete table inet warren_wrn\n");
    free(network);
    free(all);
}

static void lets_only_nat_networks_out(void **state)
{
    char *out = firewall_network_change("wrn", FIREWALL_ADD, &nat);
    char *in = firewall_network_change("wrn", FIREWALL_ADD, &isolated);

    (void)state;
    assert_non_null(strstr(out, "add element inet warren_wrn outgoing { \"wrn-b1a\" }\n"));
    assert_null(strstr(in, "outgoing"));
    assert_non_null(strstr(in, "inet warren_wrn gateways { \"wrn-b2\" . 10.78.0.1 }\n"));
    assert_non_null(strstr(in, "bridge warren_wrn subnets { 10.78.0.0/24 }\n"));
    free(out);
    free(in);
}

static void replaces_whole_tables(void **state)
{
    struct network_config networks[] = { nat, isolated };
    char *text = firewall_ruleset("wrn", networks, 2, &nic, 1);
    const char *removed;

    (void)state;
    removed = strstr(text, "delete table inet warren_wrn\n");
    assert_non_null(removed);
    assert_true(removed < strstr(text, "table bridge warren_wrn {"));
    assert_int_equal(count(text, "\"wrn-*\""), 8);
    assert_null(strstr(text, "%"));
    assert_int_equal(count(text, "add element"), 5 + 4 + 2);
    free(text);
}

static const char *find(const struct dhcp_arguments *arguments, const char *start)
{
    for (size_t i = 0; i < arguments->count; i++)
        if (strncmp(arguments->items[i], start, strlen(start)) == 0)
            return arguments->items[i];
    return NULL;
}

static void confines_dnsmasq(void **state)
{
    struct dhcp_arguments arguments;

    (void)state;
    dhcp_arguments_fill(&arguments, "wrn", "/run/x/1a", &nat);
    assert_false(arguments.failed);
    assert_string_equal(arguments.items[0], "dnsmasq");
    assert_string_equal(find(&arguments, "--interface="), "--interface=wrn-b1a");
    assert_non_null(find(&arguments, "--except-interface=lo"));
    assert_non_null(find(&arguments, "--conf-file=/dev/null"));
    assert_string_equal(find(&arguments, "--dhcp-range="),
                        "--dhcp-range=10.77.0.0,static,255.255.255.0,3600s");
    assert_null(find(&arguments, "--no-resolv"));
    dhcp_arguments_free(&arguments);
    dhcp_arguments_fill(&arguments, "wrn", "/run/x/2", &isolated);
    assert_non_null(find(&arguments, "--no-resolv"));
    assert_string_equal(find(&arguments, "--dhcp-option"), "--dhcp-option=option:router");
    dhcp_arguments_free(&arguments);
}

static void writes_names_that_are_no_numbers(void **state)
{
    char line[DHCP_LINE_MAX];

    (void)state;
    dhcp_host_line(&nat, &nic, line);
    assert_string_equal(line, "02:00:00:00:30:01,10.77.0.2,12.front.internal\n");
    dhcp_name_line(&nat, &nic, line);
    assert_string_equal(line, "10.77.0.2 12 12.front.internal\n");
}

static void fits_the_longest_names(void **state)
{
    struct network_config network = nat;
    struct nic_config guest = nic;
    char line[DHCP_LINE_MAX];

    (void)state;
    memset(network.id, 'n', NETWORK_ID_MAX);
    memset(guest.hostname, 'h', NETWORK_ID_MAX);
    dhcp_name_line(&network, &guest, line);
    assert_int_equal(line[strlen(line) - 1], '\n');
    dhcp_host_line(&network, &guest, line);
    assert_int_equal(line[strlen(line) - 1], '\n');
}

static void reads_leases(void **state)
{
    static const char *const bad[] = { "",
                                       "x",
                                       "duid 00:01",
                                       "1 2 3",
                                       "99 02:00:00:00:30:01",
                                       "99 02:00:00:00:30:01 10.77.0.22 a *",
                                       "99 zz:00:00:00:30:01 10.77.0.2 a *" };
    uint8_t mac[MAC_BYTES] = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(dhcp_lease_line_holds(bad[i], 0x0a4d0002, mac));
    assert_true(dhcp_lease_line_holds("99 02:00:00:00:30:01 10.77.0.2 a *", 0x0a4d0002, mac));
    assert_memory_equal(mac, nic.mac, MAC_BYTES);
}

static void releases_as_the_guest_would(void **state)
{
    uint8_t packet[DHCP_RELEASE_BYTES];
    static const uint8_t options[] = { 0x63, 0x82, 0x53, 0x63, 53, 1, 7, 54, 4, 10, 77, 0, 1, 255 };

    (void)state;
    dhcp_release_fill(&nat, nic.ipv4, nic.mac, packet);
    assert_int_equal(packet[0], 1);
    assert_memory_equal(packet + 12, ((uint8_t[]){ 10, 77, 0, 2 }), 4);
    assert_memory_equal(packet + 28, nic.mac, MAC_BYTES);
    assert_memory_equal(packet + 236, options, sizeof options);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_a_nic_in_both_sets),
        cmocka_unit_test(removes_what_may_not_be_there),
        cmocka_unit_test(lets_only_nat_networks_out),
        cmocka_unit_test(replaces_whole_tables),
        cmocka_unit_test(confines_dnsmasq),
        cmocka_unit_test(writes_names_that_are_no_numbers),
        cmocka_unit_test(fits_the_longest_names),
        cmocka_unit_test(reads_leases),
        cmocka_unit_test(releases_as_the_guest_would),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
