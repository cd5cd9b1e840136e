/* pci.c - see pci.h. */
#include "vmm/pci.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "vmm/mmio_bus.h"
#include "vmm/pci_msix.h"
#include "vmm/platform.h"
#include "vmm/transfer.h"

#define COMMAND_WRITABLE    (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE)
#define BAR_ADDRESS_MASK    0xfffffff0u
#define ECAM_BUS_SHIFT      20
#define ECAM_SLOT_SHIFT     15
#define ECAM_FUNCTION_SHIFT 12
#define PORT_ADDRESS_ENABLE 0x80000000u
#define SLOT_BYTES          0x10000 /* of the window, for the BARs of one slot */
#define HOST_BRIDGE_VENDOR  0x1b36  /* "generic PCIe host bridge" */
#define HOST_BRIDGE_DEVICE  0x0008
#define HOST_BRIDGE_CLASS   0x060000

struct pci_root {
    struct pci_host host;
    uint32_t port_address; /* 0xcf8; atomic */
    struct pci_function *functions[PCI_SLOTS];
    struct pci_function host_bridge;
};

static uint32_t config_get(const struct pci_function *function, unsigned offset, unsigned width)
{
    uint32_t value = 0;

    memcpy(&value, function->config + offset, width);
    return value;
}

static void config_set(struct pci_function *function, unsigned offset, unsigned width,
                       uint32_t value)
{
    memcpy(function->config + offset, &value, width);
}

/* --- where BARs are --- */

uint64_t pci_function_bar(const struct pci_function *function, unsigned bar)
{
    return config_get(function, PCI_BASE_ADDRESS_0 + 4 * bar, 4) & BAR_ADDRESS_MASK;
}

/* Decoding follows the registers.  A place outside the window is not answered: RAM, the IOAPIC and
 * the ECAM cannot be covered by a BAR. */
static void function_decode(struct pci_function *function)
{
    bool memory_on = config_get(function, PCI_COMMAND, 2) & PCI_COMMAND_MEMORY;

    for (unsigned i = 0; i < PCI_STD_NUM_BARS; i++) {
        uint64_t size = function->bars[i].size;
        uint64_t address = pci_function_bar(function, i);

        if (size == 0)
            continue;
        if (!memory_on || address < PLATFORM_PCI32_START ||
            address - PLATFORM_PCI32_START > PLATFORM_PCI32_SIZE - size)
            address = 0;
        __atomic_store_n(&function->bars[i].address, address, __ATOMIC_RELAXED);
        if (address != 0 && address != function->bars[i].told) {
            function->bars[i].told = address;
            if (function->ops->bar_moved)
                function->ops->bar_moved(function->owner, i, address);
        }
    }
}

/* Functions come and go while no vCPU runs, so the pointers stay good without a lock. */
static struct pci_function *root_find_bar(const struct pci_root *root, uint64_t address,
                                          unsigned width, unsigned *ret_bar, uint64_t *ret_offset)
{
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        struct pci_function *function = root->functions[slot];

        for (unsigned i = 0; function && i < PCI_STD_NUM_BARS; i++) {
            uint64_t start = __atomic_load_n(&function->bars[i].address, __ATOMIC_RELAXED);

            if (start == 0 || address < start || address - start > function->bars[i].size - width)
                continue;
            *ret_bar = i;
            *ret_offset = address - start;
            return function;
        }
    }
    return NULL;
}

static uint64_t window_access(void *device, uint64_t offset, unsigned width,
                              const uint64_t *written)
{
    unsigned bar;
    uint64_t bar_offset, value;
    struct pci_function *function =
        root_find_bar(device, PLATFORM_PCI32_START + offset, width, &bar, &bar_offset);

    if (!function || bar_offset % width != 0)
        return ~0ull;
    pthread_mutex_lock(&function->lock);
    if (function->msix && bar == function->msix_bar)
        value = pci_msix_access(function->msix, bar_offset, width, written);
    else
        value = function->ops->bar_access(function->owner, bar, bar_offset, width, written);
    pthread_mutex_unlock(&function->lock);
    return value;
}

/* --- configuration space --- */

static bool touches(unsigned offset, unsigned width, unsigned start, unsigned size)
{
    return offset < start + size && start < offset + width;
}

static void function_apply_msix(struct pci_function *function)
{
    uint32_t control = config_get(function, function->msix_offset + PCI_MSIX_FLAGS, 2);

    pci_msix_control(function->msix, control & PCI_MSIX_FLAGS_ENABLE,
                     control & PCI_MSIX_FLAGS_MASKALL);
}

static void function_apply(struct pci_function *function, unsigned offset, unsigned width)
{
    if (touches(offset, width, PCI_COMMAND, 2) ||
        touches(offset, width, PCI_BASE_ADDRESS_0, 4 * PCI_STD_NUM_BARS))
        function_decode(function);
    if (function->msix && touches(offset, width, function->msix_offset + PCI_MSIX_FLAGS, 2))
        function_apply_msix(function);
    if (function->ops->config_written)
        function->ops->config_written(function->owner, offset, width);
}

static void function_write(struct pci_function *function, unsigned offset, unsigned width,
                           uint64_t value)
{
    for (unsigned i = 0; i < width; i++) {
        uint8_t mask = function->writable[offset + i];
        uint8_t *byte = &function->config[offset + i];

        *byte = (uint8_t)((*byte & ~mask) | ((value >> (8 * i)) & mask));
    }
    function_apply(function, offset, width);
}

/* `offset` may be anything; only aligned accesses of 1, 2 and 4 bytes exist. */
static uint64_t root_config_access(struct pci_root *root, unsigned slot, uint64_t offset,
                                   unsigned width, const uint64_t *written)
{
    struct pci_function *function = root->functions[slot];
    uint32_t value;

    if (!function || width > 4 || offset % width != 0)
        return ~0ull;
    if (offset >= PCI_CONFIG_BYTES)
        return 0; /* no extended capabilities */
    pthread_mutex_lock(&function->lock);
    if (written)
        function_write(function, (unsigned)offset, width, *written);
    else if (function->ops->config_read)
        function->ops->config_read(function->owner, (unsigned)offset, width);
    value = config_get(function, (unsigned)offset, width);
    pthread_mutex_unlock(&function->lock);
    return value;
}

/* --- snapshots --- */

/* Loaded as if the guest wrote it: only writable bits, and with their effects. */
static void function_transfer(struct pci_function *function, struct transfer *transfer)
{
    uint8_t config[PCI_CONFIG_BYTES];

    memcpy(config, function->config, sizeof config);
    transfer_value(transfer, "PCI configuration", config);
    if (transfer->loading && transfer_is_good(transfer) &&
        memcmp(config, function->config, PCI_COMMAND) != 0)
        transfer_refuse(transfer, EINVAL, "another kind of device is in PCI slot %u",
                        function->slot);
    for (unsigned i = 0; transfer->loading && i < PCI_CONFIG_BYTES; i++)
        function->config[i] = (uint8_t)((function->config[i] & ~function->writable[i]) |
                                        (config[i] & function->writable[i]));
    if (function->msix)
        pci_msix_transfer(function->msix, transfer);
    if (function->ops->transfer)
        function->ops->transfer(function->owner, transfer);
    if (!transfer->loading || !transfer_is_good(transfer))
        return;
    function_decode(function);
    if (function->msix)
        function_apply_msix(function);
}

void pci_root_transfer(struct pci_root *root, struct transfer *transfer)
{
    transfer_value(transfer, "PCI address", root->port_address);
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
        struct pci_function *function = root->functions[slot];
        uint8_t there = function != NULL;

        transfer_value(transfer, "PCI slot", there);
        if (there != (function != NULL))
            transfer_refuse(transfer, EINVAL, "PCI slot %u has %s device", slot,
                            there ? "no" : "a");
        if (function && transfer_is_good(transfer)) {
            pthread_mutex_lock(&function->lock);
            function_transfer(function, transfer);
            pthread_mutex_unlock(&function->lock);
        }
    }
}

/* --- the two ways to it.  One bus and function 0 only: everything else is absent. --- */

static uint64_t ecam_access(void *device, uint64_t offset, unsigned width, const uint64_t *written)
{
    if (offset >> ECAM_BUS_SHIFT != 0 || (offset >> ECAM_FUNCTION_SHIFT & 7) != 0)
        return ~0ull;
    return root_config_access(device, offset >> ECAM_SLOT_SHIFT & 31, offset & 0xfff, width,
                              written);
}

/* 0xcf8 has the address of the register that 0xcfc is. */
static uint64_t port_access(void *device, uint64_t offset, unsigned width, const uint64_t *written)
{
    struct pci_root *root = device;
    uint32_t address = __atomic_load_n(&root->port_address, __ATOMIC_RELAXED);

    if (offset == 0 && width == 4) {
        if (written)
            __atomic_store_n(&root->port_address, (uint32_t)*written, __ATOMIC_RELAXED);
        return address;
    }
    if (offset < 4 || !(address & PORT_ADDRESS_ENABLE) || (address >> 16 & 0xff) != 0 ||
        (address >> 8 & 7) != 0)
        return ~0ull;
    return root_config_access(root, address >> 11 & 31, (address & 0xfc) + offset - 4, width,
                              written);
}

/* --- functions --- */

static int function_place_bars(struct pci_function *function, const struct pci_function_spec *spec,
                               struct error *err)
{
    uint64_t next = PLATFORM_PCI32_START + function->slot * SLOT_BYTES, end = next + SLOT_BYTES;

    for (unsigned i = 0; i < PCI_STD_NUM_BARS; i++) {
        uint64_t size = spec->bar_size[i];
        uint64_t address = (next + size - 1) & ~(size - 1);

        if (size == 0)
            continue;
        if (size < 4096 || (size & (size - 1)) != 0 || address + size > end)
            return error_set(err, ENOSPC, "no place for a PCI BAR of %u bytes", spec->bar_size[i]);
        next = address + size;
        function->bars[i].size = spec->bar_size[i];
        function->bars[i].told = address;
        config_set(function, PCI_BASE_ADDRESS_0 + 4 * i, 4, (uint32_t)address);

        uint32_t mask = ~(spec->bar_size[i] - 1) & BAR_ADDRESS_MASK;

        memcpy(function->writable + PCI_BASE_ADDRESS_0 + 4 * i, &mask, sizeof(mask));
    }
    return 0;
}

static int function_add_msix(struct pci_function *function, const struct pci_function_spec *spec,
                             struct error *err)
{
    uint8_t bytes[PCI_CAP_MSIX_SIZEOF] = { PCI_CAP_ID_MSIX };
    uint8_t writable[PCI_CAP_MSIX_SIZEOF] = { 0 };
    uint16_t control = (uint16_t)(spec->msix_vectors - 1);
    uint32_t table = spec->msix_bar, pending = PCI_MSIX_PENDING_OFFSET | spec->msix_bar;
    int result;

    memcpy(bytes + PCI_MSIX_FLAGS, &control, sizeof(control));
    memcpy(bytes + PCI_MSIX_TABLE, &table, sizeof(table));
    memcpy(bytes + PCI_MSIX_PBA, &pending, sizeof(pending));
    writable[PCI_MSIX_FLAGS + 1] = (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL) >> 8;

    result = pci_function_add_capability(function, bytes, writable, sizeof(bytes), err);
    if (result < 0)
        return result;
    function->msix_offset = (uint8_t)result;
    function->msix_bar = spec->msix_bar;
    return pci_msix_new(function->root->host.router, spec->msix_vectors, &function->msix, err);
}

static int root_find_slot(const struct pci_root *root, unsigned slot, unsigned *ret_slot,
                          struct error *err)
{
    bool any = slot == PCI_SLOT_ANY;

    while (any && slot < PCI_SLOTS && root->functions[slot])
        slot++;
    if (slot >= PCI_SLOTS)
        return error_set(err, ENOSPC, "all %d PCI slots are taken", PCI_SLOTS);
    if (root->functions[slot])
        return error_set(err, EEXIST, "PCI slot %u is taken", slot);
    *ret_slot = slot;
    return 0;
}

int pci_function_init(struct pci_function *function, struct pci_root *root, unsigned slot,
                      const struct pci_function_spec *spec, const struct pci_function_ops *ops,
                      void *owner, struct error *err)
{
    int result = root_find_slot(root, slot, &slot, err);

    if (result < 0)
        return result;
    *function = (struct pci_function){
        .root = root,
        .slot = slot,
        .ops = ops,
        .owner = owner,
        .capability_end = PCI_STD_HEADER_SIZEOF,
    };
    config_set(function, 0, 4, spec->vendor | (uint32_t)spec->device << 16);
    config_set(function, PCI_REVISION_ID, 1, spec->revision);
    config_set(function, PCI_CLASS_PROG, 3, spec->class_code);
    config_set(function, PCI_SUBSYSTEM_VENDOR_ID, 4,
               spec->subsystem_vendor | (uint32_t)spec->subsystem << 16);
    function->writable[PCI_COMMAND] = COMMAND_WRITABLE & 0xff;
    function->writable[PCI_COMMAND + 1] = COMMAND_WRITABLE >> 8;
    function->writable[PCI_INTERRUPT_LINE] = 0xff;

    result = function_place_bars(function, spec, err);
    if (result == 0 && spec->msix_vectors > 0)
        result = function_add_msix(function, spec, err);
    if (result == 0)
        pthread_mutex_init(&function->lock, NULL);
    return result;
}

void pci_function_destroy(struct pci_function *function)
{
    function->msix = pci_msix_free(function->msix);
    pthread_mutex_destroy(&function->lock);
}

int pci_function_add_capability(struct pci_function *function, const uint8_t *bytes,
                                const uint8_t *writable, unsigned size, struct error *err)
{
    unsigned offset = (function->capability_end + 3u) & ~3u;

    if (size < 2 || size > PCI_CONFIG_BYTES - offset)
        return error_set(err, ENOSPC, "no room for a PCI capability of %u bytes", size);
    memcpy(function->config + offset, bytes, size);
    if (writable)
        memcpy(function->writable + offset, writable, size);
    function->config[offset + 1] = 0;
    function
        ->config[function->capability_last ? function->capability_last + 1 : PCI_CAPABILITY_LIST] =
        (uint8_t)offset;
    config_set(function, PCI_STATUS, 2, PCI_STATUS_CAP_LIST);
    function->capability_last = (uint8_t)offset;
    function->capability_end = (uint16_t)(offset + size);
    return (int)offset;
}

void pci_function_add(struct pci_function *function)
{
    function->root->functions[function->slot] = function;
}

void pci_root_remove(struct pci_root *root, unsigned slot)
{
    struct pci_function *function = root->functions[slot];

    root->functions[slot] = NULL;
    if (function)
        function->ops->free(function->owner);
}

/* --- the root --- */

static void host_bridge_free(void *owner)
{
    pci_function_destroy(owner); /* embedded in the root */
}

/* Nothing can be wanting: an empty root has a slot for it, and it has no BARs and no interrupts. */
static void root_add_host_bridge(struct pci_root *root)
{
    static const struct pci_function_ops ops = { .free = host_bridge_free };
    static const struct pci_function_spec spec = {
        .vendor = HOST_BRIDGE_VENDOR,
        .device = HOST_BRIDGE_DEVICE,
        .class_code = HOST_BRIDGE_CLASS,
    };

    (void)pci_function_init(&root->host_bridge, root, PCI_SLOT_ANY, &spec, &ops, &root->host_bridge,
                            NULL);
    pci_function_add(&root->host_bridge);
}

int pci_root_new(const struct pci_host *host, struct pci_root **ret_root, struct error *err)
{
    struct pci_root *root = calloc(1, sizeof(*root));

    if (!root)
        return error_set(err, ENOMEM, "PCI root");
    root->host = *host;
    root_add_host_bridge(root);
    bus_add(host->ports, PLATFORM_PORT_PCI_ADDRESS, PLATFORM_PORT_PCI_SIZE, port_access, root);
    bus_add(host->mmio, PLATFORM_ECAM_START, PLATFORM_ECAM_SIZE, ecam_access, root);
    bus_add(host->mmio, PLATFORM_PCI32_START, PLATFORM_PCI32_SIZE, window_access, root);
    *ret_root = root;
    return 0;
}

struct pci_root *pci_root_free(struct pci_root *root)
{
    if (!root)
        return NULL;
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
        pci_root_remove(root, slot);
    free(root);
    return NULL;
}

const struct pci_host *pci_root_host(const struct pci_root *root)
{
    return &root->host;
}
