/* plug.c - see plug.h.  Virtio 1.2, 5.15.  Blocks are plugged from the region's start on, and
 * unplugged from behind; what is in them is checked before they go, and again when they come. */
#include "tests/guest/plug.h"
#include <stddef.h>
#include "tests/guest/apic.h"
#include "tests/guest/console.h"
#include "tests/guest/guest.h"
#include "tests/guest/memory.h"
#include "tests/guest/text.h"
#include "tests/guest/virtio.h"

#define MIB            UINT64_C(0x100000)
#define PAGE_BYTES     4096
#define TIMEOUT        (5 * SECOND)
#define LOOK_AGAIN     (20 * MILLISECOND)
#define CONFIG_BLOCK   0
#define CONFIG_ADDRESS 16
#define CONFIG_WANTED  48
#define MARK           UINT64_C(0x5a5a000000000000)

enum { PLUG, UNPLUG };

static struct virtio_device device;
static struct virtqueue requests;
static struct {
    uint16_t type, padding[3];
    uint64_t address;
    uint16_t count, padding2[3];
} request;
static volatile struct {
    uint16_t type, padding[3], state;
} response;

static uint64_t config(unsigned offset)
{
    volatile uint32_t *halves = (volatile uint32_t *)(device.config + offset);

    return halves[0] | (uint64_t)halves[1] << 32;
}

static bool ask(uint16_t type, uint64_t address)
{
    struct virtqueue_used_element element;

    request.type = type;
    request.address = address;
    request.count = 1;
    requests.descriptors[0] = (struct virtqueue_descriptor){ .address = (uintptr_t)&request,
                                                             .length = sizeof(request),
                                                             .flags = DESCRIPTOR_NEXT,
                                                             .next = 1 };
    requests.descriptors[1] = (struct virtqueue_descriptor){ .address = (uintptr_t)&response,
                                                             .length = 10,
                                                             .flags = DESCRIPTOR_WRITE };
    response.type = UINT16_MAX;
    virtqueue_submit(&requests, 0, true);
    if (virtqueue_wait(&requests, TIMEOUT, &element) && response.type == 0)
        return true;
    console_print("plug answer %u\n", response.type);
    return false;
}

/* Each page is expected to begin with `from`, or the mark and its address, and gets the other. */
static bool mark(uint64_t address, uint64_t bytes, bool is_new)
{
    if (memory_map(address, bytes) == NULL)
        return false;
    for (uint64_t at = address; at < address + bytes; at += PAGE_BYTES) {
        volatile uint64_t *word = (volatile uint64_t *)at; /* it is mapped where it is */

        if (*word != (is_new ? 0 : MARK | at)) {
            console_print("plug bad 0x%x value 0x%x\n", at, *word);
            return false;
        }
        if (is_new)
            *word = MARK | at;
    }
    return true;
}

static bool step(uint64_t start, uint64_t block, uint64_t *have, uint64_t wanted)
{
    if (*have < wanted) {
        if (!ask(PLUG, start + *have) || !mark(start + *have, block, true))
            return false;
        *have += block;
    } else {
        *have -= block;
        return mark(start + *have, block, false) && ask(UNPLUG, start + *have);
    }
    return true;
}

void plug_run(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    uint64_t have = 0, start, block;

    if (count != 1 || !text_equal(arguments[0], "follow")) {
        console_print("plug usage\n");
        return;
    }
    if (!virtio_open(&device, "plug", VIRTIO_MEM, index, 0) ||
        !virtio_add_queue(&device, &requests, 0))
        return;
    virtio_start(&device);
    start = config(CONFIG_ADDRESS);
    block = config(CONFIG_BLOCK);
    console_print("plug 0 MiB of 0x%x\n", start);
    for (;;) {
        uint64_t wanted = config(CONFIG_WANTED);

        if (have != wanted) {
            while (have != wanted)
                if (!step(start, block, &have, wanted))
                    return;
            console_print("plug %u MiB\n", have / MIB);
        }
        guest_wait(guest, LOOK_AGAIN);
    }
}
