/* virtio_net.c - see virtio_net.h. */
#include "vmm/virtio_net.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/error.h"
#include "base/loop.h"
#include "vmm/io_vector.h"
#include "vmm/stats_counter.h"
#include "vmm/stats_page.h"
#include "vmm/transfer.h"
#include "vmm/vhost_net.h"
#include "vmm/virtio_device.h"
#include "vmm/virtio_net_header.h"
#include "vmm/virtio_pci.h"

#define NET_DEVICE_ID  1
#define NET_PCI_CLASS  0x020000
#define NET_QUEUE_SIZE VIRTQUEUE_SIZE_MAX
#define CONFIG_LINK_UP 1
/* After so many frames one way the other devices get their turn. */
#define TURN_FRAMES   128
#define TURN_COMMANDS 4
/* A merged frame may use all buffers of the queue, most of them of one vector. */
#define VECTORS_MAX  (2 * VIRTQUEUE_SIZE_MAX)
#define COPIED_BYTES 2048
#define HELD_BYTES   (VIRTIO_NET_HEADER_BYTES + NET_FRAME_MAX)

_Static_assert(sizeof(struct net_header) == VIRTIO_NET_HEADER_BYTES, "as on the wire");

struct net_config { /* 5.1.4 */
    uint8_t mac[6];
    uint16_t status;
    uint16_t queue_pairs;
    uint16_t mtu;
};

/* One of the tap's queues. */
struct net_tap {
    struct virtio_net *net;
    int fd;                     /* borrowed */
    struct loop_source *source; /* NULL once the tap is gone */
    bool watching;              /* the source waits for EPOLLIN */
    size_t held_bytes;          /* header and frame in `held`; 0 = none */
    uint8_t held[HELD_BYTES];
};

/* Queues: receive and transmit of each pair in turn, then control; of one pair without MQ. */
struct virtio_net {
    struct virtio_device_ops ops; /* with the number of queues that this one has */
    struct virtio_device *device; /* borrowed, as the stats */
    struct stats_nic *stats;
    struct virtio_throttle rx_throttle, tx_throttle;
    uint8_t mac[6];
    uint16_t mtu;
    struct vhost_net *vhost; /* owned; NULL = none */
    uint16_t pairs;          /* those that the driver uses */
    uint64_t tap_features;   /* those the tap's offloads were set for */
    unsigned turn;           /* the tap that has the next buffers of several of a pair */
    struct iovec vectors[VECTORS_MAX];
    uint16_t heads[NET_QUEUE_SIZE]; /* chains that one frame goes into, and their sizes */
    uint32_t sizes[NET_QUEUE_SIZE];
    unsigned tap_count;
    struct net_tap taps[];
};

static unsigned receive_queue(unsigned pair)
{
    return 2 * pair;
}

static unsigned transmit_queue(unsigned pair)
{
    return 2 * pair + 1;
}

/* 5.1.2; the driver may take the control queue without the pairs. */
static unsigned control_queue(const struct virtio_net *net)
{
    return virtio_device_features(net->device) & NET_FEATURE_MULTI_QUEUE ? 2 * net->tap_count : 2;
}

/* --- the tap; loop thread --- */

/* The host spreads frames over all of the tap's queues; those of pairs that the driver does not use
 * go to one that it does. */
static unsigned tap_pair(const struct net_tap *tap)
{
    return (unsigned)(tap - tap->net->taps) % tap->net->pairs;
}

static void tap_watch(struct net_tap *tap, bool watch)
{
    if (tap->source && tap->watching != watch &&
        loop_change(tap->source, watch ? EPOLLIN : 0, NULL) == 0)
        tap->watching = watch;
}

/* The tap may only send the guest what it agreed to; frames queued before are checked one by one.
 */
static void tap_set_offloads(struct virtio_net *net)
{
    uint64_t features = virtio_device_features(net->device);
    unsigned long offloads = 0;

    if (features == net->tap_features)
        return;
    if (features & NET_FEATURE_GUEST_CSUM)
        offloads |= TUN_F_CSUM;
    if (features & NET_FEATURE_GUEST_TSO4)
        offloads |= TUN_F_TSO4;
    if (features & NET_FEATURE_GUEST_TSO6)
        offloads |= TUN_F_TSO6;
    if (features & NET_FEATURE_GUEST_ECN)
        offloads |= TUN_F_TSO_ECN;
    if (ioctl(net->taps[0].fd, TUNSETOFFLOAD, offloads) == 0)
        net->tap_features = features;
}

/* Takes the next good frame into `held`; false if none waits. */
static bool tap_read(struct net_tap *tap)
{
    struct virtio_net *net = tap->net;
    uint64_t features = virtio_device_features(net->device);

    for (unsigned dropped = 0; dropped < TURN_FRAMES; dropped++) {
        ssize_t size = read(tap->fd, tap->held, sizeof(tap->held));
        struct net_header header;

        if (size < 0 && errno == EINTR)
            continue;
        if (size <= 0)
            return false;
        memcpy(&header, tap->held, sizeof(header));
        if ((size_t)size >= sizeof(header) + NET_FRAME_MIN &&
            net_header_check_receive(&header, features)) {
            memcpy(tap->held, &header, sizeof(header));
            tap->held_bytes = (size_t)size;
            return true;
        }
        stats_add(&net->stats->rx_dropped, 1);
    }
    return false;
}

/* --- receive --- */

enum deliver_result { DELIVERED, NO_BUFFERS, BROKEN };

static enum deliver_result receive_drop(struct net_tap *tap, struct virtqueue *queue,
                                        uint16_t chains)
{
    virtqueue_rewind(queue, chains);
    tap->held_bytes = 0;
    stats_add(&tap->net->stats->rx_dropped, 1);
    return DELIVERED;
}

/* Copies the held frame into `chains` chains taken from the queue. */
static void receive_store(struct net_tap *tap, struct virtqueue *queue, uint16_t chains,
                          unsigned vectors)
{
    struct virtio_net *net = tap->net;
    size_t left = tap->held_bytes;

    memcpy(tap->held + offsetof(struct net_header, buffers), &chains, sizeof(chains));
    io_vector_write(net->vectors, vectors, 0, tap->held, tap->held_bytes);
    for (uint16_t i = 0; i < chains; i++) {
        uint32_t part = left < net->sizes[i] ? (uint32_t)left : net->sizes[i];

        virtqueue_put(queue, net->heads[i], part);
        left -= part;
    }
    stats_add(&net->stats->rx_frames, 1);
    stats_add(&net->stats->rx_bytes, tap->held_bytes - VIRTIO_NET_HEADER_BYTES);
    rate_limit_spend(&net->rx_throttle.limit, tap->held_bytes - VIRTIO_NET_HEADER_BYTES);
    tap->held_bytes = 0;
    net->turn = (unsigned)(tap - net->taps) + 1;
}

/* Finds room for the held frame: one chain, or with mergeable buffers as many as it needs.  With
 * NO_BUFFERS, *ret_left chains are there and too few. */
static enum deliver_result receive_deliver(struct net_tap *tap, struct virtqueue *queue,
                                           uint16_t *ret_left)
{
    struct virtio_net *net = tap->net;
    bool merge = virtio_device_features(net->device) & NET_FEATURE_MERGE;
    uint64_t room = 0;
    unsigned vectors = 0;
    uint16_t chains = 0;

    while (room < tap->held_bytes) {
        struct virtqueue_chain chain;
        int result;

        /* A frame that no buffer, or not all buffers together, can hold would wait for ever. */
        if (chains == (merge ? queue->size : 1))
            return receive_drop(tap, queue, chains);
        result = virtqueue_pop(queue, net->vectors + vectors, VECTORS_MAX - vectors, &chain);
        if (result == -E2BIG)
            return receive_drop(tap, queue, chains);
        if (result < 0 || (result > 0 && chain.readable_count > 0))
            return BROKEN;
        if (result == 0) {
            virtqueue_rewind(queue, chains);
            *ret_left = chains;
            return NO_BUFFERS;
        }

        uint64_t size = io_vector_bytes(chain.vectors, chain.writable_count);

        net->heads[chains] = chain.head;
        net->sizes[chains] = size < HELD_BYTES ? (uint32_t)size : HELD_BYTES;
        chains++;
        vectors += chain.writable_count;
        room += size;
    }
    receive_store(tap, queue, chains, vectors);
    return DELIVERED;
}

static void tap_receive(struct net_tap *tap)
{
    struct virtio_net *net = tap->net;
    unsigned index = receive_queue(tap_pair(tap));
    struct virtqueue *queue = virtio_device_queue(net->device, index);
    uint16_t left = 0;

    tap_watch(tap, true); /* kicks stay on: another tap may wait for the queue's buffers */
    for (unsigned tries = 0; tries < TURN_FRAMES; tries++) {
        enum deliver_result result;

        if (virtio_throttle_holds(&net->rx_throttle)) {
            tap_watch(tap, false);
            break;
        }
        if (tap->held_bytes == 0 && !tap_read(tap))
            break;
        result = receive_deliver(tap, queue, &left);
        if (result == BROKEN) {
            virtio_device_fault(net->device);
            return;
        }
        if (result == NO_BUFFERS && !virtqueue_enable_kicks(queue, left)) {
            tap_watch(tap, false); /* the guest's kick brings us back */
            break;
        }
    }
    /* The tap brings us back to what is in it. */
    if (tap->held_bytes > 0 && tap->watching)
        virtio_device_kick(net->device, index);
    virtio_device_complete(net->device, index);
}

/* The host's kernel takes what comes for all pairs of the tap, or for none. */
static bool net_lends(struct virtio_net *net, unsigned queue)
{
    net->stats->vhost =
        net->vhost && net->pairs == net->tap_count && vhost_net_serves(net->vhost, queue);
    return net->stats->vhost;
}

static void tap_ready(void *context, uint32_t events)
{
    struct net_tap *tap = context;
    struct virtio_device *device = tap->net->device;

    virtio_device_lock(device);
    if (events & (EPOLLERR | EPOLLHUP)) /* the interface was deleted under us */
        tap->source = loop_remove(tap->source);
    else if (!virtio_device_is_live(device) ||
             !virtio_device_queue(device, receive_queue(tap_pair(tap)))->enabled ||
             net_lends(tap->net, receive_queue(tap_pair(tap))))
        tap_watch(tap, false); /* until the queue is kicked at its start */
    else
        tap_receive(tap);
    virtio_device_unlock(device);
}

/* --- transmit --- */

/* One that the guest offers. */
struct frame {
    struct virtqueue_chain chain; /* its vectors stand behind one that is free for our header */
    struct net_header header;     /* checked; a copy */
    bool good;
    uint64_t bytes; /* behind the header */
};

/* virtqueue_pop, and checks the header. */
static int frame_take(struct virtqueue *queue, uint64_t features, struct iovec *vectors,
                      unsigned vectors_max, struct frame *ret_frame)
{
    int result = virtqueue_pop(queue, vectors, vectors_max, &ret_frame->chain);

    if (result <= 0)
        return result;
    ret_frame->bytes = io_vector_bytes(vectors, ret_frame->chain.readable_count);
    if (ret_frame->chain.writable_count > 0 || ret_frame->bytes < sizeof(ret_frame->header))
        return -EPROTO;
    ret_frame->bytes -= sizeof(ret_frame->header);
    io_vector_read(vectors, ret_frame->chain.readable_count, 0, &ret_frame->header,
                   sizeof(ret_frame->header));
    ret_frame->good = net_header_check_transmit(&ret_frame->header, features, ret_frame->bytes);
    return 1;
}

static bool frame_send(struct frame *frame, int tap_fd)
{
    struct iovec *vectors = frame->chain.vectors;
    unsigned count = frame->chain.readable_count;
    uint8_t copy[VIRTIO_NET_HEADER_BYTES + COPIED_BYTES] __attribute__((aligned(64)));

    if (!frame->good)
        return false;
    if (frame->bytes <= COPIED_BYTES) { /* the kernel takes it in one piece faster than from two */
        memcpy(copy, &frame->header, VIRTIO_NET_HEADER_BYTES);
        io_vector_read(vectors, count, VIRTIO_NET_HEADER_BYTES, copy + VIRTIO_NET_HEADER_BYTES,
                       frame->bytes);
        return write(tap_fd, copy, VIRTIO_NET_HEADER_BYTES + frame->bytes) >= 0;
    }
    count = io_vector_slice(vectors, count, sizeof(frame->header), frame->bytes);
    vectors[-1] = (struct iovec){ &frame->header, sizeof(frame->header) };
    return writev(tap_fd, vectors - 1, (int)count + 1) >= 0;
}

static void transmit_batch(struct virtio_net *net, struct virtqueue *queue, int tap_fd,
                           struct frame *frames, unsigned count)
{
    uint64_t sent = 0, bytes = 0;

    for (unsigned i = 0; i < count; i++) {
        if (!frame_send(&frames[i], tap_fd))
            continue;
        sent++;
        bytes += frames[i].bytes;
        rate_limit_spend(&net->tx_throttle.limit, frames[i].bytes);
    }
    stats_add(&net->stats->tx_frames, sent);
    stats_add(&net->stats->tx_bytes, bytes);
    stats_add(&net->stats->tx_dropped, count - sent);
    for (unsigned i = 0; i < count; i++)
        virtqueue_put(queue, frames[i].chain.head, 0);
}

/* virtio_device_serve.  All that wait are looked at before one is sent: the kernel's way through
 * the tap leaves little of our code in the processor's caches. */
static int net_transmit(void *owner, unsigned index)
{
    struct virtio_net *net = owner;
    struct virtqueue *queue = virtio_device_queue(net->device, index);
    uint64_t features = virtio_device_features(net->device);
    /* Under a limit each has to ask. */
    unsigned most = rate_limit_is_set(&net->tx_throttle.limit) ? 1 : TURN_FRAMES;
    unsigned count = 0, used = 1;
    struct frame frames[TURN_FRAMES];
    int result = 1;

    if (virtio_throttle_holds(&net->tx_throttle))
        return -EAGAIN;
    while (result > 0 && count < most && used < VECTORS_MAX) {
        result =
            frame_take(queue, features, net->vectors + used, VECTORS_MAX - used, &frames[count]);
        if (result > 0)
            used += 1u + frames[count++].chain.readable_count;
    }
    transmit_batch(net, queue, net->taps[index / 2].fd, frames, count);
    return count > 0 && result != -EPROTO ? (int)count : result;
}

/* --- control, 5.1.6.5 --- */

struct control_command {
    uint8_t class, command;
    uint16_t pairs; /* of CONTROL_SET_PAIRS, which is the only one */
};
#define CONTROL_MULTI_QUEUE 4
#define CONTROL_SET_PAIRS   0
enum { CONTROL_OK, CONTROL_ERROR };

static uint8_t control_do(struct virtio_net *net, const struct control_command *command)
{
    if (command->class != CONTROL_MULTI_QUEUE || command->command != CONTROL_SET_PAIRS ||
        !(virtio_device_features(net->device) & NET_FEATURE_MULTI_QUEUE) || command->pairs == 0 ||
        command->pairs > net->tap_count)
        return CONTROL_ERROR;
    vhost_net_stop(net->vhost);
    net->pairs = command->pairs;
    for (unsigned i = 0; i < 2u * net->pairs; i++) /* what waited may have another way now */
        virtio_device_kick(net->device, i);
    return CONTROL_OK;
}

/* virtio_device_serve */
static int net_control_one(void *owner, unsigned index)
{
    struct virtio_net *net = owner;
    struct virtqueue *queue = virtio_device_queue(net->device, index);
    struct control_command command = { 0 };
    uint8_t answer = CONTROL_ERROR;
    struct virtqueue_chain chain;
    int result = virtqueue_pop(queue, net->vectors, VIRTQUEUE_SIZE_MAX, &chain);

    if (result <= 0)
        return result;
    if (chain.readable_count == 0 || chain.writable_count == 0)
        return -EPROTO;
    if (io_vector_bytes(net->vectors, chain.readable_count) == sizeof(command) &&
        io_vector_read(net->vectors, chain.readable_count, 0, &command, sizeof(command)))
        answer = control_do(net, &command);
    io_vector_write(net->vectors + chain.readable_count, chain.writable_count, 0, &answer,
                    sizeof(answer));
    virtqueue_put(queue, chain.head, sizeof(answer));
    return 1;
}

/* --- the device --- */

static void net_process_queue(void *owner, unsigned queue)
{
    struct virtio_net *net = owner;
    uint64_t features = virtio_device_features(net->device);

    tap_set_offloads(net);
    if ((features & NET_FEATURE_CONTROL) && queue == control_queue(net)) {
        virtio_device_serve(net->device, queue, net_control_one, TURN_COMMANDS);
    } else if (queue / 2 >= net->pairs || net_lends(net, queue)) {
        return; /* not in use, or by others */
    } else if (queue == transmit_queue(queue / 2)) {
        virtio_device_serve(net->device, queue, net_transmit, TURN_FRAMES);
    } else {
        for (unsigned i = 0, first = net->turn; i < net->tap_count; i++) {
            struct net_tap *tap = &net->taps[(first + i) % net->tap_count];

            if (receive_queue(tap_pair(tap)) == queue)
                tap_receive(tap);
        }
    }
}

static uint64_t net_offer_features(void *owner)
{
    const struct virtio_net *net = owner;

    return NET_FEATURE_CSUM | NET_FEATURE_GUEST_CSUM | NET_FEATURE_MAC | NET_FEATURE_GUEST_TSO4 |
           NET_FEATURE_GUEST_TSO6 | NET_FEATURE_HOST_TSO4 | NET_FEATURE_HOST_TSO6 |
           NET_FEATURE_GUEST_ECN | NET_FEATURE_HOST_ECN | NET_FEATURE_MERGE | NET_FEATURE_STATUS |
           (net->mtu ? NET_FEATURE_MTU : 0) |
           (net->tap_count > 1 ? NET_FEATURE_CONTROL | NET_FEATURE_MULTI_QUEUE : 0);
}

static bool net_accept_features(void *owner, uint64_t features)
{
    (void)owner;
    return net_features_are_consistent(features);
}

static void net_read_config(void *owner, void *config)
{
    const struct virtio_net *net = owner;
    struct net_config values = { .status = CONFIG_LINK_UP,
                                 .queue_pairs = (uint16_t)net->tap_count,
                                 .mtu = net->mtu };

    memcpy(values.mac, net->mac, sizeof(values.mac));
    memcpy(config, &values, sizeof(values));
}

/* What is held is lost, as frames may be. */
static void net_transfer(void *owner, struct transfer *transfer)
{
    struct virtio_net *net = owner;

    transfer_item(transfer, "net pairs", &net->pairs, sizeof(net->pairs));
    if (net->pairs == 0 || net->pairs > net->tap_count ||
        (net->pairs > 1 && !(virtio_device_features(net->device) & NET_FEATURE_MULTI_QUEUE))) {
        transfer_refuse(transfer, EPROTO, "a nic with %u queue pairs", net->pairs);
        net->pairs = 1;
    }
}

/* The taps' sources are the loop thread's: tap_ready stops watching when it finds the device reset.
 */
static void net_reset(void *owner)
{
    struct virtio_net *net = owner;

    net->pairs = 1;
    for (unsigned i = 0; i < net->tap_count; i++)
        net->taps[i].held_bytes = 0;
}

static void net_drain(void *owner)
{
    struct virtio_net *net = owner;

    vhost_net_stop(net->vhost);
}

static void net_free(void *owner)
{
    struct virtio_net *net = owner;

    vhost_net_free(net->vhost);
    loop_cancel(net->rx_throttle.timer);
    loop_cancel(net->tx_throttle.timer);
    for (unsigned i = 0; i < net->tap_count; i++)
        loop_remove(net->taps[i].source);
    free(net);
}

static const struct virtio_device_ops net_ops = {
    .name = "net",
    .device_id = NET_DEVICE_ID,
    .pci_class = NET_PCI_CLASS,
    .queue_count = 2,
    .queue_size = NET_QUEUE_SIZE,
    .config_bytes = sizeof(struct net_config),
    .offer_features = net_offer_features,
    .accept_features = net_accept_features,
    .read_config = net_read_config,
    .process_queue = net_process_queue,
    .transfer = net_transfer,
    .drain = net_drain,
    .reset = net_reset,
    .free = net_free,
};

static int tap_add(struct net_tap *tap, struct loop *loop, struct error *err)
{
    int header_bytes, flags = fcntl(tap->fd, F_GETFL);

    if (flags < 0 || fcntl(tap->fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return error_set(err, errno, "tap");
    if (ioctl(tap->fd, TUNGETVNETHDRSZ, &header_bytes) < 0)
        return error_set(err, errno, "not a tap");
    if (header_bytes != VIRTIO_NET_HEADER_BYTES)
        return error_set(err, EINVAL, "the tap's header has %d bytes instead of %d", header_bytes,
                         VIRTIO_NET_HEADER_BYTES);
    /* Not watched until the guest has buffers. */
    return loop_add(loop, tap->fd, 0, tap_ready, tap, &tap->source, err);
}

int virtio_net_add(struct pci_root *root, const struct virtio_net_spec *spec, struct error *err)
{
    struct virtio_net *net = calloc(1, sizeof(*net) + spec->queues * sizeof(net->taps[0]));
    int result = 0;

    if (!net)
        return error_set(err, ENOMEM, "virtio net");
    net->ops = net_ops;
    if (spec->queues > 1)
        net->ops.queue_count = (uint16_t)(2 * spec->queues + 1);
    net->stats = spec->stats;
    net->mtu = spec->mtu;
    net->pairs = 1;
    net->tap_features = UINT64_MAX; /* unknown */
    memcpy(net->mac, spec->mac, sizeof(net->mac));
    while (net->tap_count < spec->queues && result == 0) {
        struct net_tap *tap = &net->taps[net->tap_count];

        tap->net = net;
        tap->fd = spec->tap_fds[net->tap_count++];
        result = tap_add(tap, pci_root_host(root)->loop, err);
    }
    if (result == 0)
        result = virtio_pci_add(root, spec->slot, &net->ops, net, &net->device, err);
    else
        net_free(net);
    if (result != 0)
        return result;
    if (spec->vhost)
        net->vhost = vhost_net_new(net->device, spec->tap_fds, spec->queues);
    net->stats->vhost = net->vhost != NULL;
    virtio_throttle_set(&net->rx_throttle, &spec->rx_rate_limit, net->device);
    virtio_throttle_set(&net->tx_throttle, &spec->tx_rate_limit, net->device);
    if (spec->ret_net)
        *spec->ret_net = net;
    return 0;
}

void virtio_net_change(struct virtio_net *net, const struct vmm_rate_limit *rx,
                       const struct vmm_rate_limit *tx)
{
    virtio_throttle_set(&net->rx_throttle, rx, net->device);
    virtio_throttle_set(&net->tx_throttle, tx, net->device);
}

void virtio_net_finish(struct virtio_net *net)
{
    virtio_device_lock(net->device);
    vhost_net_stop(net->vhost);
    virtio_device_unlock(net->device);
}
