/* apic.c - see apic.h.  Intel SDM volume 3, chapter 11. */
#include <stddef.h>
#include "tests/guest/apic.h"
#include "tests/guest/cpu.h"
#include "tests/guest/memory.h"

enum apic_register {
    APIC_EOI = 0xb0,
    APIC_SPURIOUS = 0xf0,
    APIC_ICR_LOW = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_LINT0 = 0x350,
    APIC_TIMER_INITIAL = 0x380,
    APIC_TIMER_CURRENT = 0x390,
    APIC_TIMER_DIVIDE = 0x3e0,
};

#define IOAPIC_ADDRESS  UINT64_C(0xfec00000)
#define IOAPIC_WINDOW   0x10
#define IOAPIC_ENTRY    0x10 /* of pin 0; two registers a pin */
#define APIC_ENABLED    0x100
#define LVT_MASKED      0x10000
#define DIVIDE_BY_1     0xb
#define ICR_INIT        0x4500
#define ICR_STARTUP     0x4600
#define ICR_PENDING     0x1000
#define PIC_MASTER_MASK 0x21
#define PIC_SLAVE_MASK  0xa1
#define CALIBRATION_NS  (2 * MILLISECOND)

static bool enabled;
static uint64_t cycles_per_ms;

static volatile uint32_t *apic_register(enum apic_register offset)
{
    return (volatile uint32_t *)(uintptr_t)(MSI_ADDRESS + offset);
}

/* Only the vectors 0x20 to 0x2f are expected: the legacy interrupt controllers are shut off. */
static void apic_enable(void)
{
    if (enabled)
        return;
    enabled = true;
    (void)memory_map(MSI_ADDRESS, 4096);
    port_write8(PIC_MASTER_MASK, 0xff);
    port_write8(PIC_SLAVE_MASK, 0xff);
    *apic_register(APIC_SPURIOUS) = APIC_ENABLED | VECTOR_SPURIOUS;
    *apic_register(APIC_LVT_LINT0) = LVT_MASKED;
    *apic_register(APIC_TIMER_DIVIDE) = DIVIDE_BY_1;
    *apic_register(APIC_LVT_TIMER) = VECTOR_DEVICE;
}

void apic_wait(uint64_t timeout_ns)
{
    apic_enable();
    if (timeout_ns != WAIT_FOREVER)
        *apic_register(APIC_TIMER_INITIAL) =
            timeout_ns < UINT32_MAX ? (uint32_t)timeout_ns + 1 : UINT32_MAX;
    ring0_call(ring0_wait);
    *apic_register(APIC_EOI) = 0;
}

static void ioapic_write(unsigned number, uint32_t value)
{
    volatile uint8_t *ioapic = (volatile uint8_t *)(uintptr_t)IOAPIC_ADDRESS;

    *(volatile uint32_t *)ioapic = number;
    *(volatile uint32_t *)(ioapic + IOAPIC_WINDOW) = value;
}

void apic_route_pin(unsigned pin, unsigned vector)
{
    apic_enable();
    (void)memory_map(IOAPIC_ADDRESS, 4096);
    ioapic_write(IOAPIC_ENTRY + 2 * pin + 1, 0); /* to APIC id 0 */
    ioapic_write(IOAPIC_ENTRY + 2 * pin, vector);
}

/* In cycles a millisecond.  Begins anew, and takes longer, until the readings of the two clocks,
 * between which we may have been off the processor, or paused, are near enough to each other. */
static uint64_t clock_measure(void)
{
    uint64_t before_start, start, before, end;
    uint64_t passed, least = CALIBRATION_NS / 2;

    *apic_register(APIC_LVT_TIMER) = LVT_MASKED | VECTOR_DEVICE;
    do {
        least = least < SECOND ? 2 * least : least;
        before_start = cpu_cycles();
        *apic_register(APIC_TIMER_INITIAL) = UINT32_MAX;
        start = cpu_cycles();
        do {
            before = cpu_cycles();
            passed = UINT32_MAX - *apic_register(APIC_TIMER_CURRENT);
            end = cpu_cycles();
        } while (passed < least);
    } while (passed == UINT32_MAX || (end - before + start - before_start) * 16 > end - start);
    *apic_register(APIC_TIMER_INITIAL) = 0;
    *apic_register(APIC_LVT_TIMER) = VECTOR_DEVICE;
    return (end - start) * MILLISECOND / passed;
}

/* Until two measurements agree: between the readings of one we may have been copied, and go on
 * where the TSC is another (a KVM in software gives every guest its host's) and the timer is not.
 */
static void clock_calibrate(void)
{
    uint64_t last, now = 0;

    apic_enable();
    do {
        last = now;
        now = clock_measure();
    } while (now > last + last / 8 || last > now + now / 8);
    cycles_per_ms = now != 0 ? now : 1;
}

uint64_t clock_cycles_to_ns(uint64_t cycles)
{
    if (cycles_per_ms == 0)
        clock_calibrate();
    return cycles / cycles_per_ms * MILLISECOND +
           cycles % cycles_per_ms * MILLISECOND / cycles_per_ms;
}

uint64_t clock_ns(void)
{
    if (cycles_per_ms == 0)
        clock_calibrate();
    return clock_cycles_to_ns(cpu_cycles());
}

static void apic_send(uint32_t apic_id, uint32_t command)
{
    *apic_register(APIC_ICR_HIGH) = apic_id << 24;
    *apic_register(APIC_ICR_LOW) = command;
    for (int i = 0; i < 1000 && (*apic_register(APIC_ICR_LOW) & ICR_PENDING) != 0; i++)
        cpu_pause();
}

void apic_start_processor(uint32_t apic_id, uint32_t address)
{
    apic_enable();
    apic_send(apic_id, ICR_INIT);
    apic_wait(10 * MILLISECOND);
    apic_send(apic_id, ICR_STARTUP | address >> 12);
    apic_wait(MILLISECOND);
    apic_send(apic_id, ICR_STARTUP | address >> 12);
}
