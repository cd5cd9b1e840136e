#include "vmm/irq.h"

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/platform.h"

struct irq_line {
    int eventfd; /* owned */
    bool bound;  /* KVM listens on the eventfd */
    bool routed; /* MSI only */
    uint64_t address;
    uint32_t data;
};

struct irq_router {
    int vm_fd; /* borrowed */
    pthread_mutex_t lock;
    uint32_t count; /* of lines: the pins, then MSI vectors */
    struct irq_line lines[IRQ_GSI_COUNT_MAX];
    /* what KVM_SET_GSI_ROUTING gets; rebuilt at each change, kept to allocate nothing then */
    struct {
        uint32_t count, flags; /* laid out as struct kvm_irq_routing */
        struct kvm_irq_routing_entry entries[IRQ_GSI_COUNT_MAX];
    } table;
};

int irq_router_new(int vm_fd, struct irq_router **ret_router, struct error *err)
{
    struct irq_router *router = calloc(1, sizeof *router);

    if (!router)
        return error_set(err, ENOMEM, "interrupt router");
    router->vm_fd = vm_fd;
    router->count = PLATFORM_PINS;
    for (uint32_t i = 0; i < PLATFORM_PINS; i++)
        router->lines[i].eventfd = -1;
    pthread_mutex_init(&router->lock, NULL);
    *ret_router = router;
    return 0;
}

struct irq_router *irq_router_free(struct irq_router *router)
{
    if (router) {
        for (uint32_t i = 0; i < router->count; i++)
            cleanup_close(&router->lines[i].eventfd);
        pthread_mutex_destroy(&router->lock);
        free(router);
    }
    return NULL;
}

static int irq_bind(struct irq_router *router, uint32_t gsi, bool bind, struct error *err)
{
    struct irq_line *line = &router->lines[gsi];
    struct kvm_irqfd irqfd = {
        .fd = (uint32_t)line->eventfd,
        .gsi = gsi,
        .flags = bind ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
    };

    if (line->bound == bind)
        return 0;
    if (ioctl(router->vm_fd, KVM_IRQFD, &irqfd) < 0)
        return error_set(err, errno, "%s interrupt %u", bind ? "bind" : "release", gsi);
    line->bound = bind;
    return 0;
}

int irq_pin(struct irq_router *router, unsigned pin, int *ret_eventfd, struct error *err)
{
    struct irq_line *line = &router->lines[pin];
    int result;

    line->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (line->eventfd < 0)
        return error_set(err, errno, "eventfd for pin %u", pin);
    result = irq_bind(router, pin, true, err);
    if (result == 0)
        *ret_eventfd = line->eventfd;
    return result;
}

int irq_msi_new(struct irq_router *router, int *ret_eventfd, uint32_t *ret_gsi, struct error *err)
{
    uint32_t gsi = PLATFORM_PINS;
    int fd;

    while (gsi < router->count && router->lines[gsi].eventfd >= 0)
        gsi++;
    if (gsi == IRQ_GSI_COUNT_MAX)
        return error_set(err, ENOSPC, "more than %d interrupts", IRQ_GSI_COUNT_MAX);
    fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return error_set(err, errno, "eventfd for an interrupt");
    pthread_mutex_lock(&router->lock);
    router->lines[gsi] = (struct irq_line){ .eventfd = fd };
    if (gsi == router->count)
        router->count++;
    pthread_mutex_unlock(&router->lock);
    *ret_gsi = gsi;
    *ret_eventfd = fd;
    return 0;
}

/* The whole table: KVM has no call to change one entry.  Pins first: setting a table replaces
 * KVM's default one.  The 8259 is left out: nothing raises its pins. */
static bool irq_table_load(struct irq_router *router)
{
    uint32_t used = 0;

    for (uint32_t gsi = 0; gsi < router->count; gsi++) {
        const struct irq_line *line = &router->lines[gsi];
        struct kvm_irq_routing_entry *entry = &router->table.entries[used];

        if (gsi >= PLATFORM_PINS && !line->routed)
            continue;
        memset(entry, 0, sizeof *entry);
        entry->gsi = gsi;
        if (gsi < PLATFORM_PINS) {
            entry->type = KVM_IRQ_ROUTING_IRQCHIP;
            entry->u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
            entry->u.irqchip.pin = gsi;
        } else {
            entry->type = KVM_IRQ_ROUTING_MSI;
            entry->u.msi.address_lo = (uint32_t)line->address;
            entry->u.msi.address_hi = (uint32_t)(line->address >> 32);
            entry->u.msi.data = line->data;
        }
        used++;
    }
    router->table.count = used;
    return ioctl(router->vm_fd, KVM_SET_GSI_ROUTING, &router->table) == 0;
}

bool irq_msi_route(struct irq_router *router, uint32_t gsi, uint64_t address, uint32_t data)
{
    struct irq_line *line = &router->lines[gsi], before;
    bool good = true;

    pthread_mutex_lock(&router->lock);
    before = *line;
    if (!line->routed || line->address != address || line->data != data) {
        line->address = address;
        line->data = data;
        line->routed = true;
        good = irq_table_load(router);
        if (!good)
            *line = before; /* KVM kept its table */
    }
    good = good && irq_bind(router, gsi, true, NULL) == 0;
    pthread_mutex_unlock(&router->lock);
    return good;
}

void irq_msi_unroute(struct irq_router *router, uint32_t gsi)
{
    pthread_mutex_lock(&router->lock);
    (void)irq_bind(router, gsi, false, NULL);
    pthread_mutex_unlock(&router->lock);
}

void irq_msi_free(struct irq_router *router, uint32_t gsi)
{
    if (gsi == 0)
        return;
    pthread_mutex_lock(&router->lock);
    (void)irq_bind(router, gsi, false, NULL);
    cleanup_close(&router->lines[gsi].eventfd);
    router->lines[gsi].routed = false;
    pthread_mutex_unlock(&router->lock);
}
