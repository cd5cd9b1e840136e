#include "vmm/config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include "base/error.h"

#define MEMORY_STEP     (1ull << 20)
#define SECTOR_BYTES    512u
#define DISK_BYTES_MAX  (UINT64_MAX >> 1) /* off_t */
#define MAC_MULTICAST   1
#define MTU_MIN         68
#define IS_PRINTABLE(c) ((c) >= ' ' && (c) <= '~')

/* NUL terminated, printable. */
static bool text_is_valid(const char *text, size_t size)
{
    size_t length = strnlen(text, size);

    for (size_t i = 0; i < length; i++)
        if (!IS_PRINTABLE(text[i]))
            return false;
    return length < size;
}

static int validate_header(const struct vmm_configure *configure, size_t size, struct error *err)
{
    const struct vmm_message_header *header = &configure->header;

    if (size != sizeof *configure)
        return error_field(err, EINVAL, "header.size", "%zu bytes, not %zu", size,
                           sizeof *configure);
    if (header->type != VMM_MESSAGE_CONFIGURE)
        return error_field(err, EINVAL, "header.type", "%" PRIu32 " is not CONFIGURE",
                           header->type);
    if (header->size != size)
        return error_field(err, EINVAL, "header.size", "says %" PRIu32 ", has %zu", header->size,
                           size);
    if (header->version == 0)
        return error_field(err, EINVAL, "header.version", "must not be 0");
    return 0;
}

static bool rate_limit_is_valid(const struct vmm_rate_limit *limit)
{
    return (limit->bytes_per_second | limit->bytes_burst | limit->operations_per_second |
            limit->operations_burst) <= VMM_RATE_MAX;
}

int config_validate_disk(const struct vmm_disk *disk, unsigned index, struct error *err)
{
    char field[32] = "disks[0].size_bytes";

    field[6] = (char)('0' + index);
    if (disk->size_bytes == 0 || disk->size_bytes % SECTOR_BYTES != 0 ||
        disk->size_bytes > DISK_BYTES_MAX)
        return error_field(err, EINVAL, field, "%" PRIu64 " is not a positive multiple of %u",
                           disk->size_bytes, SECTOR_BYTES);
    memcpy(field + 9, "rate_limit", sizeof "rate_limit");
    if (!rate_limit_is_valid(&disk->rate_limit))
        return error_field(err, EINVAL, field, "has more than %llu", VMM_RATE_MAX);
    memcpy(field + 9, "queues", sizeof "queues");
    if (disk->queues < 1 || disk->queues > VMM_QUEUES_MAX)
        return error_field(err, EINVAL, field, "%u is not 1 to %d", disk->queues, VMM_QUEUES_MAX);
    memcpy(field + 9, "place", sizeof "place");
    if (disk->place >= VMM_DISKS_MAX)
        return error_field(err, EINVAL, field, "%u is not below %d", disk->place, VMM_DISKS_MAX);
    memcpy(field + 9, "format", sizeof "format");
    if (disk->format != VMM_DISK_RAW && disk->format != VMM_DISK_DELTA)
        return error_field(err, EINVAL, field, "%u is unknown", disk->format);
    return 0;
}

int config_validate_nic(const struct vmm_nic *nic, unsigned index, struct error *err)
{
    char field[32] = "nics[0].mac";

    field[5] = (char)('0' + index);
    if (nic->mac[0] & MAC_MULTICAST)
        return error_field(err, EINVAL, field, "is a multicast address");
    memcpy(field + 8, "mtu", sizeof "mtu");
    if (nic->mtu != 0 && nic->mtu < MTU_MIN)
        return error_field(err, EINVAL, field, "%u is below %d", nic->mtu, MTU_MIN);
    memcpy(field + 8, "queues", sizeof "queues");
    if (nic->queues < 1 || nic->queues > VMM_QUEUES_MAX)
        return error_field(err, EINVAL, field, "%u is not 1 to %d", nic->queues, VMM_QUEUES_MAX);
    memcpy(field + 8, "place", sizeof "place");
    if (nic->place >= VMM_NICS_MAX)
        return error_field(err, EINVAL, field, "%u is not below %d", nic->place, VMM_NICS_MAX);
    memcpy(field + 8, "rate_limit", sizeof "rate_limit");
    if (!rate_limit_is_valid(&nic->rx_rate_limit) || !rate_limit_is_valid(&nic->tx_rate_limit))
        return error_field(err, EINVAL, field, "has more than %llu", VMM_RATE_MAX);
    return 0;
}

static int validate_places(const struct vmm_configure *configure, struct error *err)
{
    uint32_t disks = 0, nics = 0;

    for (int i = 0; i < configure->disk_count; i++)
        disks |= 1u << configure->disks[i].place;
    for (int i = 0; i < configure->nic_count; i++)
        nics |= 1u << configure->nics[i].place;
    if (__builtin_popcount(disks) != configure->disk_count)
        return error_field(err, EINVAL, "disks", "two have one place");
    if (__builtin_popcount(nics) != configure->nic_count)
        return error_field(err, EINVAL, "nics", "two have one place");
    return 0;
}

static size_t fds_expected(const struct vmm_configure *configure)
{
    size_t count = 3u + configure->has_initrd + configure->restore +
                   vmm_memory_has_file(configure->memory_backing);

    for (int i = 0; i < configure->disk_count; i++)
        count += config_disk_fds(&configure->disks[i]);
    for (int i = 0; i < configure->nic_count; i++)
        count += config_nic_fds(&configure->nics[i]);
    return count;
}

static int validate_memory(const struct vmm_configure *configure, struct error *err)
{
    if (configure->memory_bytes < VMM_MEMORY_MIN || configure->memory_bytes > VMM_MEMORY_MAX ||
        configure->memory_bytes % MEMORY_STEP != 0)
        return error_field(err, EINVAL, "memory_bytes", "%" PRIu64 " is not 1 MiB to 512 GiB",
                           configure->memory_bytes);
    if (configure->hotplug_bytes > VMM_MEMORY_MAX - configure->memory_bytes ||
        configure->hotplug_bytes % VMM_MEMORY_BLOCK != 0 ||
        (configure->hotplug_bytes > 0 && configure->memory_bytes % VMM_MEMORY_BLOCK != 0))
        return error_field(err, EINVAL, "hotplug_bytes", "%" PRIu64 " do not fit behind the rest",
                           configure->hotplug_bytes);
    if (!config_memory_is_valid(configure->requested_bytes, configure->hotplug_bytes))
        return error_field(err, EINVAL, "requested_bytes", "%" PRIu64 " of %" PRIu64,
                           configure->requested_bytes, configure->hotplug_bytes);
    if (configure->memory_backing >= VMM_MEMORY_COUNT)
        return error_field(err, EINVAL, "memory_backing", "%u is unknown",
                           configure->memory_backing);
    if (!config_balloon_is_valid(&configure->balloon, configure->memory_bytes))
        return error_field(err, EINVAL, "balloon", "target_mib %" PRIu32 " or deflate_on_oom %u",
                           configure->balloon.target_mib, configure->balloon.deflate_on_oom);
    return 0;
}

int config_validate(const struct vmm_configure *configure, size_t size, size_t fd_count,
                    struct error *err)
{
    int result = validate_header(configure, size, err);

    if (result < 0)
        return result;
    if (!text_is_valid(configure->id, sizeof configure->id) || !configure->id[0])
        return error_field(err, EINVAL, "id", "is empty, too long or not printable");
    if (configure->vcpus < 1 || configure->vcpus > VMM_VCPUS_MAX)
        return error_field(err, EINVAL, "vcpus", "%" PRIu32 " is not 1 to %d", configure->vcpus,
                           VMM_VCPUS_MAX);
    if (configure->kernel_format != VMM_KERNEL_ELF &&
        configure->kernel_format != VMM_KERNEL_BZIMAGE)
        return error_field(err, EINVAL, "kernel_format", "%" PRIu32 " is unknown",
                           configure->kernel_format);
    result = validate_memory(configure, err);
    if (result < 0)
        return result;
    if (configure->has_initrd > 1)
        return error_field(err, EINVAL, "has_initrd", "is not 0 or 1");
    if (configure->restore > VMM_LAYERS_MAX || (configure->restore && configure->has_initrd))
        return error_field(err, EINVAL, "restore", "is not 0 to %d, or goes with an initrd",
                           VMM_LAYERS_MAX);
    if (configure->disk_count > VMM_DISKS_MAX)
        return error_field(err, EINVAL, "disk_count", "%u is above %d", configure->disk_count,
                           VMM_DISKS_MAX);
    if (configure->rings.count > VMM_DISKS_MAX ||
        (configure->rings.count > 0 && !disk_ring_layout_is_valid(&configure->rings.layout)))
        return error_field(err, EINVAL, "rings", "are too many, or not inside their mapping");
    if (configure->nic_count > VMM_NICS_MAX)
        return error_field(err, EINVAL, "nic_count", "%u is above %d", configure->nic_count,
                           VMM_NICS_MAX);
    if (configure->vsock_cid != 0 &&
        (configure->vsock_cid < VMM_CID_MIN || configure->vsock_cid > VMM_CID_MAX))
        return error_field(err, EINVAL, "vsock_cid", "%" PRIu64 " is not %d to %u",
                           configure->vsock_cid, VMM_CID_MIN, VMM_CID_MAX);
    if (configure->cpuid.count > VMM_CPUID_MAX)
        return error_field(err, EINVAL, "cpuid", "%" PRIu32 " entries are above %d",
                           configure->cpuid.count, VMM_CPUID_MAX);
    if (!text_is_valid(configure->cmdline, sizeof configure->cmdline))
        return error_field(err, EINVAL, "cmdline", "is too long or not printable");
    for (unsigned i = 0; i < configure->disk_count && result == 0; i++)
        result = config_validate_disk(&configure->disks[i], i, err);
    for (unsigned i = 0; i < configure->nic_count && result == 0; i++)
        result = config_validate_nic(&configure->nics[i], i, err);
    if (result == 0)
        result = validate_places(configure, err);
    if (result == 0 && fd_count != fds_expected(configure))
        return error_field(err, EINVAL, "fds", "%zu came, %zu are needed", fd_count,
                           fds_expected(configure));
    return result;
}

void config_name_fds(const struct vmm_configure *configure, const int *fds,
                     struct config_fds *ret_fds)
{
    ret_fds->kvm = *fds++;
    ret_fds->page = *fds++;
    ret_fds->ram = vmm_memory_has_file(configure->memory_backing) ? *fds++ : -1;
    ret_fds->kernel = configure->restore ? -1 : *fds++;
    ret_fds->initrd = configure->has_initrd ? *fds++ : -1;
    ret_fds->state = configure->restore ? *fds++ : -1;
    for (int i = 0; i < configure->restore; i++)
        ret_fds->layers[i] = *fds++;
    for (int i = 0; i < configure->disk_count; i++) {
        ret_fds->disks[i] = fds;
        fds += config_disk_fds(&configure->disks[i]);
    }
    for (int i = 0; i < configure->nic_count; i++) {
        ret_fds->nics[i] = fds;
        fds += config_nic_fds(&configure->nics[i]);
    }
}
