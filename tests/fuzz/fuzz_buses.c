/* fuzz_buses.c - ports and memory as a guest's instructions reach them, of any width and place: a
 * serial port, configuration space by ports and by ECAM, BARs of two devices that the guest may lay
 * over each other, MSI-X tables. */
#include "tests/fuzz/fuzz_machine.h"
#include <sys/eventfd.h>
#include "vmm/serial.h"
#include "vmm/stats_page.h"
#include "vmm/virtio_rng.h"

#define ACCESSES_MAX 1000

static uint64_t choose_address(struct fuzz_input *input, struct harness *h, uint8_t how)
{
    uint64_t offset = fuzz_take(input, 2);

    switch (how & 7) {
    case 0:
    case 1:
        return PLATFORM_ECAM_START + ((how >> 3 & 3) << 15) + offset % 0x120;
    case 2:
    case 3:
        h->slot = 1 + (how >> 3 & 1);
        return bar_address(h, how >> 4 & 1) + offset;
    case 4:
        return PLATFORM_PCI32_START + offset;
    case 5:
        return PLATFORM_PCI32_START + PLATFORM_PCI32_SIZE - 16 + offset % 32;
    case 6:
        return PLATFORM_ECAM_START + offset * 16;
    default:
        return fuzz_take(input, 8);
    }
}

static void access_memory(struct fuzz_input *input, struct harness *h)
{
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    uint64_t address = choose_address(input, h, how);
    unsigned width = 1 + (unsigned)(fuzz_take(input, 1) % 8);

    if (how & 0x80)
        mmio_put(h, address, width, fuzz_take(input, width));
    else
        (void)mmio_get(h, address, width);
}

static void access_port(struct fuzz_input *input, struct harness *h)
{
    static const uint16_t bases[] = { PLATFORM_PORT_COM1, PLATFORM_PORT_PCI_ADDRESS,
                                      PLATFORM_PORT_PCI_ADDRESS + 4, 0 };
    uint8_t how = (uint8_t)fuzz_take(input, 1);
    unsigned width = 1 + (how >> 5 & 3);
    uint16_t port = (uint16_t)(bases[how & 3] + (how >> 2 & 7));
    uint64_t value = 0;

    if ((how & 3) == 3)
        port = (uint16_t)fuzz_take(input, 2);
    if (how & 0x80) {
        value = fuzz_take(input, width);
        bus_write(&h->ports, port, &value, width);
    } else {
        bus_read(&h->ports, port, &value, width);
    }
}

FUZZ_TARGET(buses)
{
    struct fuzz_input input = { bytes, size };
    struct stats_page *page = calloc(1, VMM_PAGE_BYTES + 64);
    struct serial *serial = NULL;
    struct harness h;
    uint64_t served[2] = { 0 };
    int interrupt = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    FUZZ_REQUIRE(page);
    harness_open_on(&h, -1, -1);
    FUZZ_REQUIRE(serial_new(&h.ports, interrupt, page, &serial, NULL) == 0);
    for (unsigned i = 0; i < 2; i++)
        FUZZ_REQUIRE(virtio_rng_add(h.root, &served[i], NULL) == 0);
    for (h.slot = 1; h.slot <= 2; h.slot++)
        driver_attach(&h);
    for (unsigned i = 0; i < ACCESSES_MAX && input.size > 0; i++) {
        switch (fuzz_take(&input, 1) & 3) {
        case 0:
            access_port(&input, &h);
            break;
        case 1:
            (void)serial_input(serial, "guest", 5);
            (void)loop_turn(h.loop, 0, NULL);
            break;
        default:
            access_memory(&input, &h);
        }
    }
    /* What identifies a device cannot be changed; what lies behind the console's ring neither. */
    for (h.slot = 1; h.slot <= 2; h.slot++)
        FUZZ_REQUIRE(config_get(&h, 0, 4) == 0x10441af4 && config_get(&h, 0x34, 1) == 0x40);
    for (unsigned i = 0; i < 64; i++)
        FUZZ_REQUIRE(((uint8_t *)page)[VMM_PAGE_BYTES + i] == 0);
    free(serial);
    harness_close(&h);
    close(interrupt);
    free(page);
    return 0;
}
