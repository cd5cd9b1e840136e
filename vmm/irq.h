/* irq.h - interrupts into the guest: IOAPIC pins for serial and GED, MSI messages for PCI devices,
 * each behind an eventfd bound by KVM_IRQFD so that raising one is a write(2) by any thread.
 *
 * Routes are changed under a lock by whichever vCPU thread programs MSI-X. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct error;
struct irq_router;

#define IRQ_GSI_COUNT_MAX 1024 /* 24 pins, then MSI vectors */

/* vm_fd borrowed; the irqchip exists. */
int irq_router_new(int vm_fd, struct irq_router **ret_router, struct error *err);
struct irq_router *irq_router_free(struct irq_router *router);

/* An eventfd (owned by the router) that pulses IOAPIC pin `pin` (edge), for its one user. */
int irq_pin(struct irq_router *router, unsigned pin, int *ret_eventfd, struct error *err);

/* Reserves one MSI vector: an eventfd (owned by the router) and a handle for the calls below. */
int irq_msi_new(struct irq_router *router, int *ret_eventfd, uint32_t *ret_gsi, struct error *err);
/* Gives it back; 0 = there is none. */
void irq_msi_free(struct irq_router *router, uint32_t gsi);
/* Routes it; the route that it has already costs no system call.  False if KVM refuses.  An
 * unrouted eventfd keeps what is written (it counts), and the caller keeps its own pending bit. */
bool irq_msi_route(struct irq_router *router, uint32_t gsi, uint64_t address, uint32_t data);
/* KVM does not listen to it until it is routed again. */
void irq_msi_unroute(struct irq_router *router, uint32_t gsi);
