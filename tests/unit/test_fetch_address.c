/* Which addresses an import may connect to. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/un.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "storage/fetch_address.h"

static bool text_is_public(const char *text)
{
    struct sockaddr_in ipv4 = { .sin_family = AF_INET };
    struct sockaddr_in6 ipv6 = { .sin6_family = AF_INET6 };

    if (inet_pton(AF_INET, text, &ipv4.sin_addr) == 1)
        return address_is_public((struct sockaddr *)&ipv4, sizeof ipv4);
    assert_int_equal(inet_pton(AF_INET6, text, &ipv6.sin6_addr), 1);
    return address_is_public((struct sockaddr *)&ipv6, sizeof ipv6);
}

static void public_addresses_are_allowed(void **state)
{
    static const char *const addresses[] = {
        "1.1.1.1",          "9.255.255.255",     "11.0.0.0",       "100.63.255.255",
        "100.128.0.0",      "126.255.255.255",   "128.0.0.1",      "169.253.255.255",
        "169.255.0.0",      "172.15.255.255",    "172.32.0.0",     "192.0.1.0",
        "192.167.0.1",      "192.169.0.1",       "198.17.255.255", "198.20.0.0",
        "223.255.255.1",    "2a00:1450:4001::1", "2600::1",        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(addresses); i++)
        if (!text_is_public(addresses[i]))
            fail_msg("%s must be allowed", addresses[i]);
}

static void special_addresses_are_refused(void **state)
{
    static const char *const addresses[] = {
        "0.0.0.0",
        "0.255.255.255",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.2",
        "192.168.0.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fd00::2",
        "fc00::1",
        "ff02::1",
        "2001:db8::1",
        "2001::1",
        "2002:7f00:1::1",
        "::ffff:127.0.0.1",
        "::ffff:10.1.2.3",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "fec0::1",
        "100::1",
        "3fff::1",
        "64:ff9b::a9fe:a9fe",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(addresses); i++)
        if (text_is_public(addresses[i]))
            fail_msg("%s must be refused", addresses[i]);
}

static void other_families_and_short_addresses_are_refused(void **state)
{
    struct sockaddr_un local = { .sun_family = AF_UNIX };
    struct sockaddr_in ipv4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x08080808) };

    (void)state;
    assert_false(address_is_public((struct sockaddr *)&local, sizeof local));
    assert_true(address_is_public((struct sockaddr *)&ipv4, sizeof ipv4));
    assert_false(address_is_public((struct sockaddr *)&ipv4, sizeof ipv4 - 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(public_addresses_are_allowed),
        cmocka_unit_test(special_addresses_are_refused),
        cmocka_unit_test(other_families_and_short_addresses_are_refused),
    };

    return cmocka_run_group_tests_name("fetch_address", tests, NULL, NULL);
}
