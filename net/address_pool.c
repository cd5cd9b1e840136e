#include "net/address_pool.h"

#include <errno.h>

#include "base/error.h"

uint32_t address_pool_capacity(const struct cidr *cidr)
{
    /* network, gateway and broadcast are no guest's */
    uint32_t addresses = ~cidr_netmask(cidr) - 2;

    return addresses < ADDRESS_POOL_GUESTS_MAX ? addresses : ADDRESS_POOL_GUESTS_MAX;
}

static bool is_used(const uint32_t *used, size_t count, uint32_t address)
{
    size_t low = 0;

    while (low < count) {
        size_t middle = low + (count - low) / 2;

        if (used[middle] == address)
            return true;
        if (used[middle] < address)
            low = middle + 1;
        else
            count = middle;
    }
    return false;
}

static bool is_recent(const uint32_t *recent, size_t count, uint32_t address)
{
    for (size_t i = 0; i < count; i++)
        if (recent[i] == address)
            return true;
    return false;
}

static bool is_guest_address(const struct cidr *cidr, uint32_t address)
{
    return cidr_contains(cidr, address) && address > cidr_gateway(cidr) &&
           address < cidr_broadcast(cidr);
}

/* Guests in the network, and the lowest address that is neither used nor recent (0: none). */
static uint32_t find_fresh(const struct cidr *cidr, const uint32_t *used, size_t used_count,
                           const uint32_t *recent, size_t recent_count)
{
    size_t next = 0;

    for (uint32_t address = cidr_gateway(cidr) + 1; address < cidr_broadcast(cidr); address++) {
        while (next < used_count && used[next] < address)
            next++;
        if (next < used_count && used[next] == address)
            continue;
        if (!is_recent(recent, recent_count, address))
            return address;
    }
    return 0;
}

static uint32_t count_guests(const struct cidr *cidr, const uint32_t *used, size_t used_count)
{
    uint32_t guests = 0;

    for (size_t i = 0; i < used_count; i++)
        guests += is_guest_address(cidr, used[i]);
    return guests;
}

bool address_pool_is_full(const struct cidr *cidr, const uint32_t *used, size_t used_count)
{
    return count_guests(cidr, used, used_count) >= address_pool_capacity(cidr);
}

int address_pool_pick(const struct cidr *cidr, const uint32_t *used, size_t used_count,
                      const uint32_t *recent, size_t recent_count, uint32_t *ret_address,
                      struct error *err)
{
    uint32_t capacity = address_pool_capacity(cidr);
    uint32_t address;
    char text[CIDR_TEXT];

    address = find_fresh(cidr, used, used_count, recent, recent_count);
    for (size_t i = 0; i < recent_count && address == 0; i++)
        if (is_guest_address(cidr, recent[i]) && !is_used(used, used_count, recent[i]))
            address = recent[i];
    if (address_pool_is_full(cidr, used, used_count) || address == 0) {
        cidr_format(cidr, text);
        return error_set(err, ENOSPC, "network %s is full: it holds %u guests", text, capacity);
    }
    *ret_address = address;
    return 0;
}

int address_pool_check(const struct cidr *cidr, uint32_t address, struct error *err)
{
    char text[CIDR_TEXT];

    cidr_format(cidr, text);
    if (!cidr_contains(cidr, address))
        return error_set(err, EINVAL, "is outside the network's %s", text);
    if (address == cidr->address || address == cidr_broadcast(cidr))
        return error_set(err, EINVAL, "is the network or broadcast address of %s", text);
    if (address == cidr_gateway(cidr))
        return error_set(err, EINVAL, "is the gateway's address in %s", text);
    return 0;
}
