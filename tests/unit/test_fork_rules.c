/* test_fork_rules.c - the text of a forked nic's rules, and the DHCP options in them.  What the
 * rules do is tests/integration/net's part. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "net/dhcp_text.h"
#include "net/fork_rules.h"

static const struct network_config nat = {
    .instance = 0x1a, .id = "front", .cidr = { 0x0a4d0000, 24 }, .nat = true
};
static const struct nic_config nic = { .instance = 0x30,
                                       .network_instance = 0x1a,
                                       .mac = { 2, 0, 0, 0, 0x30, 0 },
                                       .ipv4 = 0x0a4d0009,
                                       .hostname = "copy",
                                       .forked = true,
                                       .inside_mac = { 2, 0, 0, 0, 0x2f, 0 },
                                       .inside_ipv4 = 0x0a4d0002 };

static void names_inside_outside_and_gateway(void **state)
{
    char *text = fork_rules(&nat, &nic);

    (void)state;
    assert_non_null(text);
    assert_non_null(strstr(text, "ether saddr != 02:00:00:00:2f:00 drop"));
    assert_non_null(strstr(text, "arp saddr ether 02:00:00:00:2f:00 arp saddr ip 10.77.0.2"));
    assert_non_null(strstr(text, "ip saddr 10.77.0.2 accept"));
    assert_non_null(strstr(text, "ip daddr 10.77.0.9 dnat to 10.77.0.2"));
    assert_non_null(strstr(text, "ip saddr 10.77.0.2 snat to 10.77.0.9"));
    assert_non_null(strstr(text, "@th,288,48 0x020000002f00"));
    assert_non_null(strstr(text, "@th,192,32 set 0x0a4d0002"));
    assert_non_null(strstr(text, "ether saddr set 06:00:00:00:1a:00"));
    assert_non_null(strstr(text, "ip saddr set 10.77.0.1"));
    /* the options: server, lease time, mask's first two bytes */
    assert_non_null(strstr(text, "@th,928,128 set 0x36040a4d0001330400000e100104ffff"));
    assert_non_null(strstr(text, "@th,1824,128 set 0x"));
    /* what the guest's own network knows of it stays outside */
    assert_null(strstr(text, "02:00:00:00:30:00"));
    free(text);
}

/* Walks the options; sets what it finds. */
static size_t find(const uint8_t file[DHCP_FILE_BYTES], uint8_t option, const uint8_t **ret_value)
{
    size_t at = 0;

    *ret_value = NULL;
    while (file[at] != 255) {
        assert_true(at + 2 + file[at + 1] < DHCP_FILE_BYTES);
        if (file[at] == option) {
            *ret_value = file + at + 2;
            return file[at + 1];
        }
        at += 2 + (size_t)file[at + 1];
    }
    return 0;
}

static void tells_what_dnsmasq_tells(void **state)
{
    static const struct {
        uint8_t option;
        uint8_t value[4];
    } expected[] = {
        { 54, { 10, 77, 0, 1 } },   { 51, { 0, 0, 0x0e, 0x10 } }, { 1, { 255, 255, 255, 0 } },
        { 28, { 10, 77, 0, 255 } }, { 6, { 10, 77, 0, 1 } },      { 3, { 10, 77, 0, 1 } },
    };
    uint8_t file[DHCP_FILE_BYTES];
    const uint8_t *value;

    (void)state;
    dhcp_file_fill(&nat, file);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        assert_int_equal(find(file, expected[i].option, &value), 4);
        assert_memory_equal(value, expected[i].value, 4);
    }
    assert_int_equal(find(file, 15, &value), 14);
    assert_memory_equal(value, "front.internal", 14);
}

static void isolated_has_no_router_and_the_longest_name_fits(void **state)
{
    struct network_config network = { .instance = 2, .cidr = { 0x0a4e0000, 24 } };
    uint8_t file[DHCP_FILE_BYTES];
    const uint8_t *value;

    (void)state;
    memset(network.id, 'n', NETWORK_ID_MAX);
    dhcp_file_fill(&network, file);
    assert_int_equal(find(file, 3, &value), 0);
    assert_int_equal(find(file, 15, &value), NETWORK_ID_MAX + 9);
    network.nat = true;
    dhcp_file_fill(&network, file);
    assert_int_equal(find(file, 3, &value), 4);
    assert_int_equal(find(file, 15, &value), NETWORK_ID_MAX + 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_inside_outside_and_gateway),
        cmocka_unit_test(tells_what_dnsmasq_tells),
        cmocka_unit_test(isolated_has_no_router_and_the_longest_name_fits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
