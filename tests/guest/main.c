/* main.c - runs the words of the command line in order, then idles.  README.md says what each
 * prints. */
#include <stddef.h>
#include "tests/guest/apic.h"
#include "tests/guest/balloon.h"
#include "tests/guest/block.h"
#include "tests/guest/console.h"
#include "tests/guest/cpu.h"
#include "tests/guest/guest.h"
#include "tests/guest/hostile.h"
#include "tests/guest/machine.h"
#include "tests/guest/memory.h"
#include "tests/guest/net.h"
#include "tests/guest/pci.h"
#include "tests/guest/plug.h"
#include "tests/guest/power.h"
#include "tests/guest/rng.h"
#include "tests/guest/slots.h"
#include "tests/guest/text.h"
#include "tests/guest/virtio.h"
#include "tests/guest/vsock.h"

#define COMMAND_LINE_MAX 4096
#define ARGUMENTS_MAX    8

/* Both are called from start.S; info is 0 if the VMM gave none. */
void guest_main(const struct start_info *info);
void fault_report(uint64_t vector, uint64_t error, uint64_t rip, uint64_t address, uint64_t cs);

static char command_line[COMMAND_LINE_MAX];
static char typed_line[COMMAND_LINE_MAX];

static void run_idle(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    (void)index, (void)arguments, (void)count;
    for (;;)
        guest_wait(guest, WAIT_FOREVER);
}

static void run_block(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    (void)guest;
    block_run(index, arguments, count);
}

static void run_latency(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    const char *rest = count > 0 ? text_after(arguments[0], "blk") : NULL;
    uint64_t disk = 0;

    (void)guest, (void)index;
    if (rest == NULL || (*rest != '\0' && !text_number(rest, &disk)))
        console_print("latency usage\n");
    else
        block_measure((unsigned)disk, arguments + 1, count - 1);
}

static void run_typed(struct guest *guest, unsigned index, char **arguments, unsigned count);

static const struct command {
    const char *name;
    void (*run)(struct guest *guest, unsigned index, char **arguments, unsigned count);
} commands[] = {
    { "idle", run_idle },
    { "blk", run_block },
    { "latency", run_latency },
    { "net", net_run },
    { "rng", rng_run },
    { "balloon", balloon_run },
    { "vsock", vsock_run },
    { "plug", plug_run },
    { "slots", slots_run },
    { "pci", machine_pci },
    { "info", machine_info },
    { "smp", machine_processors },
    { "touch", machine_touch },
    { "serial", machine_serial },
    { "spin", machine_spin },
    { "sleep", machine_sleep },
    { "tick", machine_tick },
    { "in", machine_port_read },
    { "out", machine_port_write },
    { "peek", machine_peek },
    { "poke", machine_poke },
    { "poweroff", power_off },
    { "reboot", power_reboot },
    { "i8042", power_i8042 },
    { "triple", power_triple_fault },
    { "panic", power_panic },
    { "power", power_button },
    { "generation", power_generation },
    { "echo", machine_echo },
    { "obey", run_typed },
    { "hostile", hostile_run },
};

/* "blk1:read:5" is the command blk with index 1 and two arguments. */
static void run_word(struct guest *guest, char *word)
{
    char *pieces[ARGUMENTS_MAX];
    unsigned count = text_split(word, ':', pieces, ARGUMENTS_MAX);

    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        const char *rest =
            text_equal(pieces[0], "i8042") ? NULL : text_after(pieces[0], commands[i].name);
        uint64_t index = 0;

        if (text_equal(pieces[0], commands[i].name))
            rest = "";
        if (rest == NULL || (*rest != '\0' && !text_number(rest, &index)))
            continue;
        commands[i].run(guest, (unsigned)index, pieces + 1, count - 1);
        return;
    }
    console_print("unknown %s\n", pieces[0]);
}

/* Words with '=' are settings; those not known (console=ttyS0) are somebody else's. */
static bool take_setting(struct guest *guest, char *word)
{
    char *pieces[2];
    char *parts[2];
    uint64_t bits = 24;

    if (text_split(word, '=', pieces, 2) != 2)
        return false;
    if (text_equal(pieces[0], "ip")) {
        if (text_split(pieces[1], '/', parts, 2) == 2 &&
            (!text_number(parts[1], &bits) || bits == 0 || bits > 32))
            bits = 24;
        guest->mask = (uint32_t)(UINT64_C(0xffffffff) << (32 - bits));
        if (!text_ipv4(parts[0], &guest->address))
            console_print("ip usage\n");
    } else if (text_equal(pieces[0], "wait")) {
        if (text_equal(pieces[1], "events"))
            virtio_trust_events();
        else
            console_print("wait usage\n");
    } else if (text_equal(pieces[0], "gw")) {
        if (!text_ipv4(pieces[1], &guest->gateway))
            console_print("gw usage\n");
    } else if (text_equal(pieces[0], "mac")) {
        guest->has_mac = text_mac(pieces[1], guest->mac);
        if (!guest->has_mac)
            console_print("mac usage\n");
    }
    return true;
}

static void run_words(struct guest *guest, char *next)
{
    while (*next != '\0') {
        char *word = next;

        while (*next != '\0' && *next != ' ')
            next++;
        if (*next != '\0')
            *next++ = '\0';
        if (*word != '\0' && !take_setting(guest, word))
            run_word(guest, word);
    }
}

/* Runs each line that is typed, for ever. */
static void run_typed(struct guest *guest, unsigned index, char **arguments, unsigned count)
{
    (void)index, (void)arguments, (void)count;
    machine_listen();
    console_print("obey\n");
    for (unsigned length = 0;;) {
        char byte = machine_typed(guest);

        if (byte != '\n' && length < COMMAND_LINE_MAX - 1) {
            typed_line[length++] = byte;
            continue;
        }
        typed_line[length] = '\0';
        length = 0;
        run_words(guest, typed_line);
    }
}

static void copy_command_line(uint64_t address)
{
    const char *text = memory_map(address, COMMAND_LINE_MAX);

    if (address == 0 || text == NULL)
        return;
    for (unsigned i = 0; i < COMMAND_LINE_MAX - 1 && text[i] != '\0'; i++)
        command_line[i] = text[i];
}

void guest_main(const struct start_info *info)
{
    struct guest guest = { .info = NULL };

    console_ready();
    info = memory_map((uintptr_t)info, sizeof(*info));
    if (info != NULL && info->magic == START_INFO_MAGIC) {
        guest.info = info;
        guest.rsdp = info->rsdp;
        pci_use_tables(guest.rsdp);
        copy_command_line(info->command_line);
        run_words(&guest, command_line);
    } else {
        console_print("no start info\n");
    }
    run_idle(&guest, 0, NULL, 0);
}

void fault_report(uint64_t vector, uint64_t error, uint64_t rip, uint64_t address, uint64_t cs)
{
    console_print("\nfault %u error 0x%x rip 0x%x address 0x%x cs 0x%x\n", vector, error, rip,
                  address, cs);
    for (;;)
        apic_wait(WAIT_FOREVER);
}
