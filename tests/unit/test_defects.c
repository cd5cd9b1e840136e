/* test_defects.c - what of a network's bridge and taps is no longer as it was made. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "net/defects.h"
#include "net/netlink.h"

#define BRIDGE_INDEX 7
#define GATEWAY      0x0a4d0001

struct fixture {
    char prefix[5];
    struct network network;
    struct nic_config nics[2];
    struct net_host host;
    struct netlink_link links[2]; /* by name: tap, bridge */
    struct netlink_address address;
    struct net_sight sight;
};

/* All is well. */
static void build(struct fixture *f)
{
    *f = (struct fixture){
        .prefix = "uda",
        .network = { .config = { .instance = 1,
                                 .cidr = { GATEWAY - 1, 24 },
                                 .peer_isolation = true },
                     .bridge_index = BRIDGE_INDEX },
        .nics = { { .instance = 0x10, .network_instance = 1 },
                  { .instance = 0x11, .network_instance = 2 } },
        .links = { { .index = 8, .master = BRIDGE_INDEX, .up = true, .isolated = true },
                   { .index = BRIDGE_INDEX, .up = true } },
        .address = { .index = BRIDGE_INDEX, .local = GATEWAY },
    };
    nic_tap_name(f->prefix, 0x10, 0, f->links[0].name);
    network_bridge_name(f->prefix, 1, f->links[1].name);
    mac_derive_bridge(1, f->links[1].mac);
    f->host = (struct net_host){ .prefix = f->prefix, .nics = f->nics, .nic_count = 2 };
    f->sight = (struct net_sight){ .links = f->links,
                                   .link_count = ARRAY_LENGTH(f->links),
                                   .addresses = &f->address,
                                   .address_count = 1 };
}

static void expect(const struct fixture *f, const char *part, const char *text)
{
    struct network_fault fault = network_defect(&f->host, &f->network, &f->sight);

    assert_int_equal(fault.instance, 1);
    if (!text) {
        assert_null(fault.text);
        return;
    }
    assert_non_null(fault.text);
    assert_string_equal(fault.part, part);
    assert_string_equal(fault.text, text);
}

static void finds_nothing_where_all_is_well(void **state)
{
    struct fixture f;

    (void)state;
    build(&f);
    expect(&f, NULL, NULL);
}

static void finds_what_a_bridge_lacks(void **state)
{
    struct fixture f;

    (void)state;
    build(&f);
    f.sight.link_count = 1;
    expect(&f, "bridge", "has gone");
    f.sight.link_count = 0;
    expect(&f, "bridge", "has gone");
    build(&f);
    f.links[1].index = 9;
    expect(&f, "bridge", "is another one");
    build(&f);
    f.links[1].mac[5] ^= 1;
    expect(&f, "bridge", "is another one");
    build(&f);
    f.links[1].up = false;
    expect(&f, "bridge", "is down");
    build(&f);
    f.address.local++;
    expect(&f, "bridge", "has lost its address");
    f.address.local--;
    f.address.index++;
    expect(&f, "bridge", "has lost its address");
    f.sight.address_count = 0;
    expect(&f, "bridge", "has lost its address");
}

static void finds_what_a_tap_lacks(void **state)
{
    struct fixture f;

    (void)state;
    for (int i = 0; i < 5; i++) {
        build(&f);
        switch (i) {
        case 0:
            f.links[0].master = 0;
            break;
        case 1:
            f.links[0].up = false;
            break;
        case 2:
            f.links[0].learns = true;
            break;
        case 3:
            f.links[0].floods = true;
            break;
        default:
            f.links[0].isolated = false;
        }
        expect(&f, "tap", "is no longer connected as it was");
    }
}

/* That cannot be mended. */
static void passes_over_a_tap_that_has_gone(void **state)
{
    struct fixture f;

    (void)state;
    build(&f);
    f.sight.links = &f.links[1];
    f.sight.link_count = 1;
    expect(&f, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_nothing_where_all_is_well),
        cmocka_unit_test(finds_what_a_bridge_lacks),
        cmocka_unit_test(finds_what_a_tap_lacks),
        cmocka_unit_test(passes_over_a_tap_that_has_gone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
