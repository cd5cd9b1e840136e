/* card.c - see card.h. */
#include <stddef.h>
#include "tests/guest/apic.h"
#include "tests/guest/card.h"
#include "tests/guest/console.h"
#include "tests/guest/cpu.h"
#include "tests/guest/guest.h"
#include "tests/guest/text.h"
#include "tests/guest/virtio.h"

#define F_MAC         (UINT64_C(1) << 5)
#define HEADER_BYTES  12 /* struct virtio_net_hdr, all zero: no offloads were agreed */
#define BUFFER_BYTES  2048
#define RECEIVE_COUNT 32
#define SEND_TIMEOUT  (2 * SECOND)
#define SPIN_TURNS    50

static struct virtqueue receive_queue;
static struct virtqueue send_queue;
static uint8_t receive_buffers[RECEIVE_COUNT][BUFFER_BYTES] __attribute__((aligned(4096)));
static uint8_t send_buffer[HEADER_BYTES + CARD_LONG_MAX] __attribute__((aligned(4096)));
static struct virtio_device device;
static uint8_t mac[6];
static int held = -1; /* receive buffer the caller still reads */
static bool opened;

static void give_buffer(unsigned which, bool notify)
{
    receive_queue.descriptors[which] =
        (struct virtqueue_descriptor){ .address = (uintptr_t)receive_buffers[which],
                                       .length = BUFFER_BYTES,
                                       .flags = DESCRIPTOR_WRITE };
    virtqueue_submit(&receive_queue, (uint16_t)which, notify);
}

bool card_open(void)
{
    if (opened)
        return true;
    if (!virtio_open(&device, "net", VIRTIO_NET, 0, F_MAC))
        return false;
    if (device.config == NULL || !virtio_add_queue(&device, &receive_queue, 0) ||
        !virtio_add_queue(&device, &send_queue, 1)) {
        console_print("net 0 broken queues\n");
        return false;
    }
    for (int i = 0; i < 6; i++)
        mac[i] = device.config[i];
    virtio_start(&device);
    for (unsigned i = 0; i < RECEIVE_COUNT && i < receive_queue.size; i++)
        give_buffer(i, false);
    virtqueue_notify(&receive_queue);
    opened = true;
    return true;
}

const uint8_t *card_mac(void)
{
    return mac;
}

uint8_t *card_frame(void)
{
    memset(send_buffer, 0, HEADER_BYTES + FRAME_MAX);
    return send_buffer + HEADER_BYTES;
}

bool card_send(uint32_t bytes)
{
    struct virtqueue_used_element element;

    send_queue.descriptors[0] = (struct virtqueue_descriptor){ .address = (uintptr_t)send_buffer,
                                                               .length = HEADER_BYTES + bytes };
    virtqueue_submit(&send_queue, 0, true);
    return virtqueue_wait(&send_queue, SEND_TIMEOUT, &element);
}

uint8_t *card_receive(struct guest *guest, uint64_t timeout_ns, uint32_t *ret_bytes)
{
    struct virtqueue_used_element element;
    uint64_t deadline = timeout_ns == WAIT_FOREVER ? UINT64_MAX : clock_ns() + timeout_ns;

    if (held >= 0)
        give_buffer((unsigned)held, true);
    held = -1;
    for (unsigned turns = 0; !virtqueue_take(&receive_queue, &element); turns++) {
        uint64_t now = deadline == UINT64_MAX ? 0 : clock_ns();

        if (now >= deadline)
            return NULL;
        if (turns < SPIN_TURNS)
            cpu_pause();
        else
            guest_wait(guest, deadline == UINT64_MAX ? WAIT_FOREVER : deadline - now);
    }
    held = (int)(element.id % RECEIVE_COUNT);
    if (element.length < HEADER_BYTES || element.length > BUFFER_BYTES)
        element.length = HEADER_BYTES;
    *ret_bytes = element.length - HEADER_BYTES;
    return receive_buffers[held] + HEADER_BYTES;
}
