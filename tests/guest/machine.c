/* machine.c - see machine.h. */
#include <stddef.h>
#include "tests/guest/acpi.h"
#include "tests/guest/apic.h"
#include "tests/guest/console.h"
#include "tests/guest/cpu.h"
#include "tests/guest/guest.h"
#include "tests/guest/machine.h"
#include "tests/guest/memory.h"
#include "tests/guest/pci.h"
#include "tests/guest/text.h"

#define PAGE_BYTES       4096
#define MIB              (UINT64_C(1) << 20)
#define TOUCH_FLOOR      (4 * MIB)           /* above our image, and above what VMMs put low */
#define ADDRESS_END      (UINT64_C(1) << 47) /* identity: the lower canonical half */
#define TRAMPOLINE_FIRST 0x8000
#define TRAMPOLINE_LAST  0x9e000
#define LINE_BYTES       64

#define COM1_INTERRUPT_ENABLE 1
#define COM1_LINE_STATUS      5
#define COM1_RECEIVED         0x01
#define COM1_DATA_READY       0x01

extern uint8_t ap_trampoline[]; /* start.S */
extern uint8_t ap_trampoline_end[];

/* Written by the other processors (start.S). */
volatile uint32_t ap_count;
volatile uint32_t ap_spin;

static const struct memory_range *memory_ranges(const struct start_info *info)
{
    if (info->version < 1 || info->memory_map == 0)
        return NULL;
    return memory_map(info->memory_map, info->memory_map_count * sizeof(struct memory_range));
}

void machine_info(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    const struct start_info *info = guest->info;
    const struct memory_range *ranges = memory_ranges(info);
    uint32_t apic_ids[ACPI_PROCESSORS_MAX];
    uint64_t ram = 0;

    (void)index, (void)arguments, (void)count;
    console_print("info version %u modules %u rsdp 0x%x\n", (uint64_t)info->version,
                  (uint64_t)info->module_count, info->rsdp);
    if (info->command_line != 0)
        console_print("info cmdline %s\n", (const char *)(uintptr_t)info->command_line);
    for (uint32_t i = 0; ranges != NULL && i < info->memory_map_count; i++) {
        console_print("info memory 0x%x bytes 0x%x type %u\n", ranges[i].base, ranges[i].bytes,
                      (uint64_t)ranges[i].type);
        if (ranges[i].type == MEMORY_RAM)
            ram += ranges[i].bytes;
    }
    console_print("info ram %u KiB\n", ram / 1024);
    console_print("info cpus %u\n", (uint64_t)acpi_processors(guest->rsdp, apic_ids));
}

void machine_pci(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    (void)guest, (void)index, (void)arguments, (void)count;
    pci_print_bus();
}

static bool overlaps(uint64_t page, uint64_t start, uint64_t bytes)
{
    return start != 0 && page < start + bytes && start < page + PAGE_BYTES;
}

/* A page below 1 MiB that is RAM and that none of what we were given lies in; 0 if there is none.
 */
static uint64_t find_low_page(const struct start_info *info)
{
    const struct memory_range *ranges = memory_ranges(info);

    for (uint64_t page = TRAMPOLINE_FIRST; page <= TRAMPOLINE_LAST; page += PAGE_BYTES) {
        bool ram = false;

        for (uint32_t i = 0; ranges != NULL && i < info->memory_map_count; i++) {
            if (ranges[i].type == MEMORY_RAM && page >= ranges[i].base &&
                page + PAGE_BYTES <= ranges[i].base + ranges[i].bytes)
                ram = true;
        }
        if (ram && !overlaps(page, (uintptr_t)info, sizeof(*info)) &&
            !overlaps(page, info->memory_map, info->memory_map_count * sizeof(*ranges)) &&
            !overlaps(page, info->command_line, PAGE_BYTES) &&
            !overlaps(page, info->rsdp, PAGE_BYTES))
            return page;
    }
    return 0;
}

/* smp: starts the other processors and leaves them in HLT; smp:spin leaves them in a loop at
 * ring 3. */
void machine_processors(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    uint32_t apic_ids[ACPI_PROCESSORS_MAX];
    unsigned processors = acpi_processors(guest->rsdp, apic_ids);
    uint64_t page = find_low_page(guest->info);
    uint64_t deadline;

    (void)index;
    if (page == 0) {
        console_print("smp failed no-low-page\n");
        return;
    }
    ap_spin = count > 0 && text_equal(arguments[0], "spin");
    memcpy(memory_map(page, PAGE_BYTES), ap_trampoline,
           (uintptr_t)ap_trampoline_end - (uintptr_t)ap_trampoline);
    for (unsigned i = 0; i < processors; i++) {
        if (apic_ids[i] != 0) /* ours */
            apic_start_processor(apic_ids[i], (uint32_t)page);
    }
    deadline = clock_ns() + SECOND;
    while (ap_count + 1 < processors && clock_ns() < deadline)
        apic_wait(MILLISECOND);
    console_print("smp %u of %u\n", (uint64_t)ap_count + 1, (uint64_t)processors);
}

/* touch:MIB writes a word in each page of RAM above 4 MiB; touch:MIB:VALUE writes VALUE. */
void machine_touch(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    const struct memory_range *ranges = memory_ranges(guest->info);
    uint64_t value = 0x5a5a5a5a5a5a5a5a;
    uint64_t wanted;
    uint64_t done = 0;
    uint64_t start;

    (void)index;
    if (count < 1 || !text_number(arguments[0], &wanted) ||
        (count > 1 && !text_number(arguments[1], &value))) {
        console_print("touch usage\n");
        return;
    }
    wanted *= MIB;
    start = clock_ns();
    for (uint32_t i = 0; ranges != NULL && i < guest->info->memory_map_count; i++) {
        uint64_t page = ranges[i].base < TOUCH_FLOOR ? TOUCH_FLOOR : ranges[i].base;
        uint64_t end = ranges[i].base + ranges[i].bytes;

        for (; ranges[i].type == MEMORY_RAM && page + PAGE_BYTES <= end && done < wanted;
             page += PAGE_BYTES, done += PAGE_BYTES) {
            volatile uint64_t *word = memory_map(page, PAGE_BYTES);

            if (word == NULL)
                break;
            *word = value;
        }
    }
    console_print("touch %u of %u MiB ns %u\n", done / MIB, wanted / MIB, clock_ns() - start);
}

void machine_serial(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    char line[LINE_BYTES];
    uint64_t kib;

    (void)guest, (void)index;
    if (count != 1 || !text_number(arguments[0], &kib)) {
        console_print("serial usage\n");
        return;
    }
    for (unsigned i = 0; i < LINE_BYTES; i++)
        line[i] = (char)('!' + i);
    line[LINE_BYTES - 1] = '\n';
    for (uint64_t i = 0; i < kib * 1024 / LINE_BYTES; i++)
        console_bytes(line, LINE_BYTES);
    console_print("serial %u KiB ok\n", kib);
}

void machine_listen(void)
{
    apic_route_pin(COM1_PIN, VECTOR_DEVICE);
    port_write8(COM1_PORT + COM1_INTERRUPT_ENABLE, COM1_RECEIVED);
}

char machine_typed(struct guest *guest)
{
    while ((port_read8(COM1_PORT + COM1_LINE_STATUS) & COM1_DATA_READY) == 0)
        guest_wait(guest, WAIT_FOREVER);
    return (char)port_read8(COM1_PORT);
}

/* Gives back what comes in on the serial port, for ever. */
void machine_echo(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    (void)index, (void)arguments, (void)count;
    machine_listen();
    console_print("echo\n");
    for (;;) {
        char byte = machine_typed(guest);

        console_bytes(&byte, 1);
    }
}

/* spin: for ever; spin:MS: so long. */
void machine_spin(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    uint64_t deadline = UINT64_MAX;
    uint64_t turns = 0;

    (void)guest, (void)index;
    if (count > 0 && text_number(arguments[0], &deadline))
        deadline = clock_ns() + deadline * MILLISECOND;
    else
        console_print("spin\n");
    for (; deadline == UINT64_MAX || clock_ns() < deadline; turns++)
        cpu_pause();
    console_print("spin %s ms turns %u\n", arguments[0], turns);
}

void machine_sleep(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    uint64_t deadline;

    (void)index;
    if (count != 1 || !text_number(arguments[0], &deadline)) {
        console_print("sleep usage\n");
        return;
    }
    deadline = clock_ns() + deadline * MILLISECOND;
    for (uint64_t now = clock_ns(); now < deadline; now = clock_ns())
        guest_wait(guest, deadline - now);
    console_print("sleep %s ms ok\n", arguments[0]);
}

/* A line after every so many milliseconds: whoever reads them sees whether the guest goes on. */
void machine_tick(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    uint64_t period;

    (void)index;
    if (count != 1 || !text_number(arguments[0], &period) || period == 0) {
        console_print("tick usage\n");
        return;
    }
    for (uint64_t ticks = 1;; ticks++) {
        uint64_t deadline = clock_ns() + period * MILLISECOND;

        for (uint64_t now = clock_ns(); now < deadline; now = clock_ns())
            guest_wait(guest, deadline - now);
        console_print("tick %u\n", (unsigned)ticks);
    }
}

/* Fills numbers from all arguments; prints "<name> usage" and returns false if they are not min to
 * max numbers. */
static bool take_numbers(const char *name, char **arguments, unsigned count, uint64_t *numbers,
                         unsigned wanted)
{
    bool good = count == wanted;

    for (unsigned i = 0; i < count && good; i++)
        good = text_number(arguments[i], &numbers[i]);
    if (!good)
        console_print("%s usage\n", name);
    return good;
}

/* in:PORT:BYTES */
void machine_port_read(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    uint64_t numbers[2];
    uint16_t port;
    uint64_t value;

    (void)guest, (void)index;
    if (!take_numbers("in", arguments, count, numbers, 2))
        return;
    port = (uint16_t)numbers[0];
    value = numbers[1] == 1   ? port_read8(port)
            : numbers[1] == 2 ? port_read16(port)
                              : port_read32(port);
    console_print("in 0x%x 0x%x\n", (uint64_t)port, value);
}

/* out:PORT:BYTES:VALUE */
void machine_port_write(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    uint64_t numbers[3];
    uint16_t port;

    (void)guest, (void)index;
    if (!take_numbers("out", arguments, count, numbers, 3))
        return;
    port = (uint16_t)numbers[0];
    if (numbers[1] == 1)
        port_write8(port, (uint8_t)numbers[2]);
    else if (numbers[1] == 2)
        port_write16(port, (uint16_t)numbers[2]);
    else
        port_write32(port, (uint32_t)numbers[2]);
    console_print("out 0x%x ok\n", (uint64_t)port);
}

static volatile void *memory_reach(const char *name, uint64_t address)
{
    volatile void *at = address < ADDRESS_END ? memory_map(address, 8) : NULL;

    if (at == NULL)
        console_print("%s 0x%x unmapped\n", name, address);
    return at;
}

/* peek:ADDRESS:BYTES */
void machine_peek(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    uint64_t numbers[2];
    volatile void *at;
    uint64_t value;

    (void)guest, (void)index;
    if (!take_numbers("peek", arguments, count, numbers, 2))
        return;
    at = memory_reach("peek", numbers[0]);
    if (at == NULL)
        return;
    value = numbers[1] == 1   ? *(volatile uint8_t *)at
            : numbers[1] == 2 ? *(volatile uint16_t *)at
            : numbers[1] == 4 ? *(volatile uint32_t *)at
                              : *(volatile uint64_t *)at;
    console_print("peek 0x%x 0x%x\n", numbers[0], value);
}

/* poke:ADDRESS:BYTES:VALUE */
void machine_poke(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    uint64_t numbers[3];
    volatile void *at;

    (void)guest, (void)index;
    if (!take_numbers("poke", arguments, count, numbers, 3))
        return;
    at = memory_reach("poke", numbers[0]);
    if (at == NULL)
        return;
    if (numbers[1] == 1)
        *(volatile uint8_t *)at = (uint8_t)numbers[2];
    else if (numbers[1] == 2)
        *(volatile uint16_t *)at = (uint16_t)numbers[2];
    else if (numbers[1] == 4)
        *(volatile uint32_t *)at = (uint32_t)numbers[2];
    else
        *(volatile uint64_t *)at = numbers[2];
    console_print("poke 0x%x ok\n", numbers[0]);
}
