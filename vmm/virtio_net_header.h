/* virtio_net_header.h - the header before every frame (virtio 1.2, 5.1.6), and what may stand in
 * it. Pure; any thread. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* 5.1.3 */
#define NET_FEATURE_CSUM        (1ull << 0)
#define NET_FEATURE_GUEST_CSUM  (1ull << 1)
#define NET_FEATURE_MTU         (1ull << 3)
#define NET_FEATURE_MAC         (1ull << 5)
#define NET_FEATURE_GUEST_TSO4  (1ull << 7)
#define NET_FEATURE_GUEST_TSO6  (1ull << 8)
#define NET_FEATURE_GUEST_ECN   (1ull << 9)
#define NET_FEATURE_HOST_TSO4   (1ull << 11)
#define NET_FEATURE_HOST_TSO6   (1ull << 12)
#define NET_FEATURE_HOST_ECN    (1ull << 13)
#define NET_FEATURE_MERGE       (1ull << 15)
#define NET_FEATURE_STATUS      (1ull << 16)
#define NET_FEATURE_CONTROL     (1ull << 17)
#define NET_FEATURE_MULTI_QUEUE (1ull << 22)

#define NET_FRAME_MIN 14             /* an Ethernet header */
#define NET_FRAME_MAX (65535u + 18u) /* the largest IP packet with Ethernet and VLAN headers */

struct net_header {
    uint8_t flags;
    uint8_t gso_type;
    uint16_t header_length;
    uint16_t gso_size;
    uint16_t csum_start;
    uint16_t csum_offset;
    uint16_t buffers;
};

#define NET_HEADER_NEEDS_CSUM 1
#define NET_GSO_NONE          0
#define NET_GSO_TCP4          1
#define NET_GSO_TCP6          4
#define NET_GSO_ECN           0x80 /* beside one of TCP */

/* The feature combinations that 5.1.3.1 allows. */
bool net_features_are_consistent(uint64_t features);
/* A guest's header for a frame of `frame_bytes`: false if it must be dropped; else *header is cut
 * to what was negotiated and means something. */
bool net_header_check_transmit(struct net_header *header, uint64_t features, uint64_t frame_bytes);
/* The host's: false if the guest did not agree to get such frames (they can be older than its
 * features). */
bool net_header_check_receive(struct net_header *header, uint64_t features);
