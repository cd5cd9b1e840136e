#include "vmm/config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "base/cleanup.h"
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

struct range {
    const char *field;
    uint64_t value, least, most;
};

/* of: what the fields are of, "" or as "disks[0]." */
static int check_ranges(const char *of, const struct range *ranges, size_t count, struct error *err)
{
    char field[32];

    for (size_t i = 0; i < count; i++) {
        if (ranges[i].value >= ranges[i].least && ranges[i].value <= ranges[i].most)
            continue;
        snprintf(field, sizeof field, "%s%s", of, ranges[i].field);
        return error_field(err, EINVAL, field, "%" PRIu64 " is not %" PRIu64 " to %" PRIu64,
                           ranges[i].value, ranges[i].least, ranges[i].most);
    }
    return 0;
}

/* Not above VMM_RATE_MAX, which is all ones, unless a field is. */
static uint64_t rate_limit_bits(const struct vmm_rate_limit *limit)
{
    return limit->bytes_per_second | limit->bytes_burst | limit->operations_per_second |
           limit->operations_burst;
}

int config_validate_disk(const struct vmm_disk *disk, unsigned index, struct error *err)
{
    const struct range ranges[] = {
        { "size_bytes", disk->size_bytes, SECTOR_BYTES, DISK_BYTES_MAX },
        { "rate_limit", rate_limit_bits(&disk->rate_limit), 0, VMM_RATE_MAX },
        { "queues", disk->queues, 1, VMM_QUEUES_MAX },
        { "place", disk->place, 0, VMM_DISKS_MAX - 1 },
        { "format", disk->format, VMM_DISK_RAW, VMM_DISK_DELTA },
    };
    char of[32];

    snprintf(of, sizeof of, "disks[%u].size_bytes", index);
    if (disk->size_bytes % SECTOR_BYTES != 0)
        return error_field(err, EINVAL, of, "%" PRIu64 " is no multiple of %u", disk->size_bytes,
                           SECTOR_BYTES);
    snprintf(of, sizeof of, "disks[%u].", index);
    return check_ranges(of, ranges, ARRAY_LENGTH(ranges), err);
}

int config_validate_nic(const struct vmm_nic *nic, unsigned index, struct error *err)
{
    const struct range ranges[] = {
        { "mtu", nic->mtu, nic->mtu ? MTU_MIN : 0, UINT16_MAX },
        { "queues", nic->queues, 1, VMM_QUEUES_MAX },
        { "place", nic->place, 0, VMM_NICS_MAX - 1 },
        { "rate_limit", rate_limit_bits(&nic->rx_rate_limit), 0, VMM_RATE_MAX },
        { "rate_limit", rate_limit_bits(&nic->tx_rate_limit), 0, VMM_RATE_MAX },
    };
    char of[32];

    snprintf(of, sizeof of, "nics[%u].mac", index);
    if (nic->mac[0] & MAC_MULTICAST)
        return error_field(err, EINVAL, of, "is a multicast address");
    snprintf(of, sizeof of, "nics[%u].", index);
    return check_ranges(of, ranges, ARRAY_LENGTH(ranges), err);
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
    if (!config_balloon_is_valid(&configure->balloon, configure->memory_bytes))
        return error_field(err, EINVAL, "balloon", "target_mib %" PRIu32 " or deflate_on_oom %u",
                           configure->balloon.target_mib, configure->balloon.deflate_on_oom);
    return 0;
}

int config_validate(const struct vmm_configure *configure, size_t fd_count, struct error *err)
{
    const struct range ranges[] = {
        { "header.version", configure->header.version, 1, UINT32_MAX },
        { "vcpus", configure->vcpus, 1, VMM_VCPUS_MAX },
        { "kernel_format", configure->kernel_format, VMM_KERNEL_ELF, VMM_KERNEL_BZIMAGE },
        { "memory_backing", configure->memory_backing, 0, VMM_MEMORY_COUNT - 1 },
        { "has_initrd", configure->has_initrd, 0, 1 },
        { "restore", configure->restore, 0, configure->has_initrd ? 0 : VMM_LAYERS_MAX },
        { "disk_count", configure->disk_count, 0, VMM_DISKS_MAX },
        { "rings", configure->rings.count, 0, VMM_DISKS_MAX },
        { "nic_count", configure->nic_count, 0, VMM_NICS_MAX },
        { "cpuid", configure->cpuid.count, 0, VMM_CPUID_MAX },
        { "vsock_cid", configure->vsock_cid, configure->vsock_cid ? VMM_CID_MIN : 0, VMM_CID_MAX },
    };
    int result = check_ranges("", ranges, ARRAY_LENGTH(ranges), err);

    if (result < 0)
        return result;
    if (!text_is_valid(configure->id, sizeof configure->id) || !configure->id[0])
        return error_field(err, EINVAL, "id", "is empty, too long or not printable");
    result = validate_memory(configure, err);
    if (result < 0)
        return result;
    if (configure->rings.count > 0 && !disk_ring_layout_is_valid(&configure->rings.layout))
        return error_field(err, EINVAL, "rings", "are not inside their mapping");
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
