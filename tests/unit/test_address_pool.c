#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "net/address_pool.h"

#define BASE 0x0a4d0000u /* 10.77.0.0 */

static const struct cidr wide = { BASE, 24 };
static const struct cidr tiny = { BASE, 29 }; /* guests .2 to .6 */

static void gives_the_lowest_behind_the_gateway(void **state)
{
    uint32_t used[] = { BASE + 2, BASE + 3, BASE + 5 };
    uint32_t address = 0;

    (void)state;
    assert_int_equal(address_pool_pick(&wide, NULL, 0, NULL, 0, &address, NULL), 0);
    assert_int_equal(address, BASE + 2);
    assert_int_equal(address_pool_pick(&wide, used, 3, NULL, 0, &address, NULL), 0);
    assert_int_equal(address, BASE + 4);
}

static void prefers_what_nobody_had_lately(void **state)
{
    uint32_t used[] = { BASE + 3 };
    uint32_t recent[] = { BASE + 4, BASE + 2 };
    uint32_t address = 0;

    (void)state;
    assert_int_equal(address_pool_pick(&wide, used, 1, recent, 2, &address, NULL), 0);
    assert_int_equal(address, BASE + 5);
}

static void then_the_one_released_longest_ago(void **state)
{
    uint32_t used[] = { BASE + 3, BASE + 5 };
    uint32_t recent[] = { BASE + 5, BASE + 6, BASE + 2, BASE + 4 }; /* .5 is used again */
    uint32_t address = 0;

    (void)state;
    assert_int_equal(address_pool_pick(&tiny, used, 2, recent, 4, &address, NULL), 0);
    assert_int_equal(address, BASE + 6);
}

/* Whichever is the only one left, and though all were released once, others' among them. */
static void never_gives_one_that_is_used(void **state)
{
    const struct cidr small = { BASE, 28 };
    uint32_t used[12], recent[16];

    (void)state;
    for (uint32_t i = 0; i < 16; i++)
        recent[i] = BASE + 15 - i;
    for (uint32_t left = BASE + 2; left <= BASE + 14; left++) {
        uint32_t address = 0;
        size_t count = 0;

        for (uint32_t other = BASE + 2; other <= BASE + 14; other++)
            if (other != left)
                used[count++] = other;
        assert_int_equal(address_pool_pick(&small, used, count, recent, 16, &address, NULL), 0);
        assert_int_equal(address, left);
    }
}

static void ends_when_every_address_is_used(void **state)
{
    uint32_t used[] = { BASE + 2, BASE + 3, BASE + 4, BASE + 5, BASE + 6 };
    uint32_t recent[] = { BASE + 7, BASE + 1, BASE };
    uint32_t address = 42;
    struct error err;

    (void)state;
    assert_int_equal(address_pool_pick(&tiny, used, 5, recent, 3, &address, &err), -ENOSPC);
    assert_int_equal(address, 42);
    assert_string_equal(err.message, "network 10.77.0.0/29 is full: it holds 5 guests");
}

static void ignores_strangers_among_the_used(void **state)
{
    uint32_t used[] = { BASE - 1, BASE, BASE + 1, BASE + 2, BASE + 256 };
    uint32_t address = 0;

    (void)state;
    assert_int_equal(address_pool_pick(&tiny, used, 5, NULL, 0, &address, NULL), 0);
    assert_int_equal(address, BASE + 3);
}

static void holds_what_a_bridge_holds(void **state)
{
    struct cidr whole = { 0x0a000000, 8 };
    struct cidr smallest = { BASE, 30 };
    static uint32_t used[ADDRESS_POOL_GUESTS_MAX];
    uint32_t address = 0;

    (void)state;
    assert_int_equal(address_pool_capacity(&whole), 1023);
    assert_int_equal(address_pool_capacity(&wide), 253);
    assert_int_equal(address_pool_capacity(&tiny), 5);
    assert_int_equal(address_pool_capacity(&smallest), 1);
    for (uint32_t i = 0; i < ADDRESS_POOL_GUESTS_MAX; i++)
        used[i] = whole.address + 2 + i;
    assert_int_equal(
        address_pool_pick(&whole, used, ADDRESS_POOL_GUESTS_MAX - 1, NULL, 0, &address, NULL), 0);
    assert_int_equal(
        address_pool_pick(&whole, used, ADDRESS_POOL_GUESTS_MAX, NULL, 0, &address, NULL), -ENOSPC);
    assert_false(address_pool_is_full(&whole, used, ADDRESS_POOL_GUESTS_MAX - 1));
    assert_true(address_pool_is_full(&whole, used, ADDRESS_POOL_GUESTS_MAX));
    used[0] = whole.address + 1; /* the gateway's is no guest's */
    assert_false(address_pool_is_full(&whole, used, ADDRESS_POOL_GUESTS_MAX));
}

static void checks_a_fixed_address(void **state)
{
    struct error err;

    (void)state;
    assert_int_equal(address_pool_check(&wide, BASE + 2, &err), 0);
    assert_int_equal(address_pool_check(&wide, BASE + 254, &err), 0);
    assert_int_equal(address_pool_check(&wide, BASE, &err), -EINVAL);
    assert_int_equal(address_pool_check(&wide, BASE + 255, &err), -EINVAL);
    assert_int_equal(address_pool_check(&wide, BASE + 256, &err), -EINVAL);
    assert_int_equal(address_pool_check(&wide, BASE + 1, &err), -EINVAL);
    assert_string_equal(err.message, "is the gateway's address in 10.77.0.0/24");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_lowest_behind_the_gateway),
        cmocka_unit_test(prefers_what_nobody_had_lately),
        cmocka_unit_test(then_the_one_released_longest_ago),
        cmocka_unit_test(never_gives_one_that_is_used),
        cmocka_unit_test(ends_when_every_address_is_used),
        cmocka_unit_test(ignores_strangers_among_the_used),
        cmocka_unit_test(holds_what_a_bridge_holds),
        cmocka_unit_test(checks_a_fixed_address),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
