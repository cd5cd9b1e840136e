/* virtio_net_header.c - see virtio_net_header.h. */
#include "vmm/virtio_net_header.h"

bool net_features_are_consistent(uint64_t features)
{
    const uint64_t guest_tso = NET_FEATURE_GUEST_TSO4 | NET_FEATURE_GUEST_TSO6;
    const uint64_t host_tso = NET_FEATURE_HOST_TSO4 | NET_FEATURE_HOST_TSO6;

    return !((features & NET_FEATURE_MULTI_QUEUE) && !(features & NET_FEATURE_CONTROL)) &&
           !((features & guest_tso) && !(features & NET_FEATURE_GUEST_CSUM)) &&
           !((features & host_tso) && !(features & NET_FEATURE_CSUM)) &&
           !((features & NET_FEATURE_GUEST_ECN) && !(features & guest_tso)) &&
           !((features & NET_FEATURE_HOST_ECN) && !(features & host_tso));
}

static bool segmentation_is_agreed(uint8_t type, bool tcp4, bool tcp6, bool ecn)
{
    return (!(type & NET_GSO_ECN) || ecn) && (((type & ~NET_GSO_ECN) == NET_GSO_TCP4 && tcp4) ||
                                              ((type & ~NET_GSO_ECN) == NET_GSO_TCP6 && tcp6));
}

bool net_header_check_transmit(struct net_header *header, uint64_t features, uint64_t frame_bytes)
{
    const struct net_header from_guest = *header;
    bool needs_csum = from_guest.flags & NET_HEADER_NEEDS_CSUM;

    *header = (struct net_header){ 0 };
    if (frame_bytes < NET_FRAME_MIN || frame_bytes > NET_FRAME_MAX)
        return false;
    if (needs_csum) {
        uint32_t csum_end = (uint32_t)from_guest.csum_start + from_guest.csum_offset + 2;

        if (!(features & NET_FEATURE_CSUM) || csum_end > frame_bytes)
            return false;
        header->flags = NET_HEADER_NEEDS_CSUM;
        header->csum_start = from_guest.csum_start;
        header->csum_offset = from_guest.csum_offset;
    }
    if (from_guest.gso_type == NET_GSO_NONE)
        return true;
    if (!segmentation_is_agreed(from_guest.gso_type, features & NET_FEATURE_HOST_TSO4,
                                features & NET_FEATURE_HOST_TSO6, features & NET_FEATURE_HOST_ECN))
        return false;
    /* 5.1.6.2: segmentation needs the checksum, a size, and headers inside the frame. */
    if (!needs_csum || from_guest.gso_size == 0 || from_guest.header_length > frame_bytes)
        return false;
    header->gso_type = from_guest.gso_type;
    header->gso_size = from_guest.gso_size;
    header->header_length = from_guest.header_length;
    return true;
}

bool net_header_check_receive(struct net_header *header, uint64_t features)
{
    bool guest_csum = features & NET_FEATURE_GUEST_CSUM;

    if ((header->flags & NET_HEADER_NEEDS_CSUM) && !guest_csum)
        return false;
    if (!guest_csum)
        header->flags = 0;
    return header->gso_type == NET_GSO_NONE ||
           segmentation_is_agreed(header->gso_type, features & NET_FEATURE_GUEST_TSO4,
                                  features & NET_FEATURE_GUEST_TSO6,
                                  features & NET_FEATURE_GUEST_ECN);
}
