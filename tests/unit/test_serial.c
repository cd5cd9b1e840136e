/* test_serial.c - the 16550A as Linux's driver uses it, through the port bus. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/control_protocol.h"
#include "vmm/mmio_bus.h"
#include "vmm/platform.h"
#include "vmm/serial.h"
#include "vmm/stats_page.h"
#include "vmm/transfer.h"

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCRATCH };

struct fixture {
    struct bus ports;
    struct serial *serial;
    struct stats_page *page;
    int interrupt;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    f->page = calloc(1, VMM_PAGE_BYTES);
    f->interrupt = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (serial_new(&f->ports, f->interrupt, f->page, &f->serial, NULL) < 0)
        return -1;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    free(f->serial);
    close(f->interrupt);
    free(f->page);
    free(f);
    return 0;
}

static uint8_t in(struct fixture *f, unsigned offset)
{
    uint8_t value;

    bus_read(&f->ports, PLATFORM_PORT_COM1 + offset, &value, 1);
    return value;
}

static void out(struct fixture *f, unsigned offset, uint8_t value)
{
    bus_write(&f->ports, PLATFORM_PORT_COM1 + offset, &value, 1);
}

static uint64_t pulses(struct fixture *f)
{
    uint64_t count = 0;

    return read(f->interrupt, &count, sizeof count) == sizeof count ? count : 0;
}

static void output_goes_into_the_ring(void **state)
{
    struct fixture *f = *state;
    const char *ring = (const char *)f->page + CONSOLE_OFFSET;

    for (const char *c = "hello"; *c; c++)
        out(f, DATA, (uint8_t)*c);
    assert_int_equal(f->page->console_bytes, 5);
    assert_memory_equal(ring, "hello", 5);
    assert_int_equal(in(f, LSR) & 0x60, 0x60);
    assert_int_equal(pulses(f), 0);
}

static void the_ring_keeps_the_newest(void **state)
{
    struct fixture *f = *state;
    const char *ring = (const char *)f->page + CONSOLE_OFFSET;

    for (unsigned i = 0; i < CONSOLE_RING_BYTES + 3; i++)
        out(f, DATA, i < CONSOLE_RING_BYTES ? 'a' : 'b');
    assert_int_equal(f->page->console_bytes, CONSOLE_RING_BYTES + 3);
    assert_memory_equal(ring, "bbba", 4);
    assert_int_equal(ring[CONSOLE_RING_BYTES - 1], 'a');
}

/* serial8250_do_startup tests the transmit interrupt like this and falls back to polling. */
static void enabling_the_transmit_interrupt_raises_it(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 2; i++) {
        out(f, IER, 2);
        assert_int_equal(pulses(f), 1);
        assert_int_equal(in(f, IIR) & 0x0f, 2);
        assert_int_equal(in(f, IIR) & 0x0f, 1); /* reading it took it back */
        out(f, IER, 0);
    }
    out(f, IER, 2);
    (void)in(f, IIR);
    (void)pulses(f);
    out(f, DATA, 'x');
    out(f, DATA, 'y');
    assert_int_equal(pulses(f), 1); /* the line stayed high */
    assert_int_equal(in(f, IIR) & 0x0f, 2);
    assert_int_equal(in(f, IIR) & 0x0f, 1);
}

static void it_is_a_16550a(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(in(f, IIR) & 0xc0, 0);
    out(f, IIR, 1); /* FCR */
    assert_int_equal(in(f, IIR), 0xc1);
    out(f, IER, 0xff);
    assert_int_equal(in(f, IER), 0x0f);
    out(f, IER, 0);
    out(f, SCRATCH, 0x5a);
    assert_int_equal(in(f, SCRATCH), 0x5a);
    out(f, LCR, 0x80);
    out(f, DATA, 0x34);
    out(f, IER, 0x12);
    assert_int_equal(in(f, DATA), 0x34);
    assert_int_equal(in(f, IER), 0x12);
    out(f, LCR, 3);
    assert_int_equal(in(f, IER), 0);
    assert_int_equal(f->page->console_bytes, 0);
}

/* 8250 drivers look for the port like this: in loop mode the modem inputs follow its outputs. */
static void loop_mode_follows(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(in(f, MSR), 0xb0);
    out(f, MCR, 0x10 | 0x0a);
    assert_int_equal(in(f, MSR) & 0xf0, 0x90);
    out(f, DATA, 'z');
    assert_int_equal(f->page->console_bytes, 0);
    assert_int_equal(in(f, LSR) & 1, 1);
    assert_int_equal(in(f, DATA), 'z');
    assert_int_equal(in(f, LSR) & 1, 0);
}

static void input_interrupts_and_is_bounded(void **state)
{
    struct fixture *f = *state;

    out(f, IER, 1);
    assert_true(serial_input(f->serial, "0123456789abcdefXYZ", 19));
    assert_int_equal(pulses(f), 1);
    assert_int_equal(in(f, IIR) & 0x0f, 4);
    for (int i = 0; i < 19; i++)
        assert_int_equal(in(f, DATA), "0123456789abcdefXYZ"[i]);
    assert_int_equal(in(f, IIR) & 0x0f, 1);
    assert_int_equal(in(f, DATA), 0);
    assert_int_equal(pulses(f), 0);
    assert_true(serial_input(f->serial, "Q", 1));
    assert_int_equal(pulses(f), 1);
    out(f, IIR, 3); /* FCR: reset the receiver */
    assert_int_equal(in(f, LSR) & 1, 0);
}

/* All or nothing, in order, however the queue wraps around. */
static void input_waits_in_a_queue(void **state)
{
    struct fixture *f = *state;
    static uint8_t bytes[VMM_INPUT_MAX];
    uint8_t next = 0;

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    assert_true(serial_input(f->serial, bytes, sizeof bytes));
    assert_true(serial_input(f->serial, bytes, 16)); /* as many are in the FIFO already */
    assert_false(serial_input(f->serial, bytes, 1));
    for (int i = 0; i < 256; i++)
        assert_int_equal(in(f, DATA), next++);
    assert_false(serial_input(f->serial, bytes, 257)); /* and nothing of it */
    assert_true(serial_input(f->serial, bytes + 16, 240));
    assert_true(serial_input(f->serial, bytes, 16));
    assert_false(serial_input(f->serial, bytes, 1));
    for (size_t i = 0; i < VMM_INPUT_MAX + 16; i++) {
        assert_int_equal(in(f, LSR) & 1, 1);
        assert_int_equal(in(f, DATA), next++);
    }
    assert_int_equal(in(f, LSR) & 1, 0);
}

static void what_is_queued_outlives_a_reset_and_loop_mode(void **state)
{
    struct fixture *f = *state;

    assert_true(serial_input(f->serial, "0123456789abcdefXYZ", 19));
    out(f, IER, 1);
    assert_int_equal(pulses(f), 1);
    out(f, IIR, 3); /* FCR: what the FIFO held is the guest's to lose, what waits outside is not */
    assert_int_equal(pulses(f), 1);
    assert_int_equal(in(f, DATA), 'X');
    assert_int_equal(in(f, DATA), 'Y');
    assert_int_equal(in(f, DATA), 'Z');
    out(f, MCR, 0x10); /* loop: the line outside is cut */
    assert_true(serial_input(f->serial, "in", 2));
    assert_int_equal(in(f, LSR) & 1, 0);
    out(f, DATA, 'L');
    assert_int_equal(in(f, DATA), 'L');
    assert_int_equal(in(f, LSR) & 1, 0);
    (void)pulses(f);
    out(f, MCR, 0x08);
    assert_int_equal(pulses(f), 1);
    assert_int_equal(in(f, DATA), 'i');
    assert_int_equal(in(f, DATA), 'n');
}

static void wide_accesses_are_harmless(void **state)
{
    struct fixture *f = *state;
    uint32_t value = 0x41424344;

    bus_write(&f->ports, PLATFORM_PORT_COM1, &value, 4);
    assert_int_equal(f->page->console_bytes, 1);
    bus_read(&f->ports, PLATFORM_PORT_COM1 + LSR, &value, 2);
    assert_int_equal(value & 0xffff, 0xff60);
}

/* KVM works off a pin's pulse a little later, and what is under way is in no snapshot. */
static void a_restored_port_raises_its_interrupt_again(void **state)
{
    struct fixture *from = *state, *to;
    struct transfer transfer = { 0 };

    out(from, IER, 1);
    for (unsigned waits = 0; waits < 2; waits++) {
        assert_int_equal(set_up((void **)&to), 0);
        assert_true(waits == 0 || serial_input(from->serial, "x", 1));
        transfer.loading = false;
        serial_transfer(from->serial, &transfer);
        transfer.loading = true;
        serial_transfer(to->serial, &transfer);
        assert_true(transfer_is_good(&transfer));
        assert_true(serial_input(to->serial, NULL, 0));
        assert_int_equal(pulses(to), waits);
        assert_int_equal(in(to, DATA), waits ? 'x' : 0);
        assert_int_equal(tear_down((void **)&to), 0);
    }
    assert_int_equal(pulses(from), 1); /* and the one that goes on has its own */
    assert_true(serial_input(from->serial, NULL, 0));
    assert_int_equal(pulses(from), 0);
    free(transfer.bytes);
}

/* What is in its registers, FIFO and queue; both that were made of a port go on as it would have.
 */
static void a_restored_port_goes_on_where_it_was(void **state)
{
    struct fixture *ports[] = { *state, NULL };
    struct transfer transfer = { 0 };
    struct fixture *f = ports[0];

    out(f, LCR, 0x83);
    out(f, DATA, 0x34);
    out(f, IER, 0x12);
    out(f, LCR, 3);
    out(f, MCR, 0x0b);
    out(f, IIR, 1); /* FCR */
    out(f, SCRATCH, 0x5a);
    assert_true(serial_input(f->serial, "..0123456789abcdefXYZ", 21));
    assert_int_equal(in(f, DATA), '.');
    assert_int_equal(in(f, DATA), '.');
    out(f, IER, 3);
    serial_transfer(f->serial, &transfer);
    assert_int_equal(set_up((void **)&ports[1]), 0);
    transfer.loading = true;
    serial_transfer(ports[1]->serial, &transfer);
    assert_true(transfer_is_good(&transfer));
    for (unsigned i = 0; i < 2; i++) {
        f = ports[i];
        assert_int_equal(in(f, IIR), 0xc4);
        for (int k = 0; k < 19; k++)
            assert_int_equal(in(f, DATA), "0123456789abcdefXYZ"[k]);
        assert_int_equal(in(f, LSR) & 1, 0);
        assert_int_equal(in(f, IIR), 0xc2); /* and there is room to send */
        assert_int_equal(in(f, IIR), 0xc1);
        assert_int_equal(in(f, IER), 3);
        assert_int_equal(in(f, MCR), 0x0b);
        assert_int_equal(in(f, LCR), 3);
        assert_int_equal(in(f, SCRATCH), 0x5a);
        out(f, LCR, 0x83);
        assert_int_equal(in(f, DATA), 0x34);
        assert_int_equal(in(f, IER), 0x12);
    }
    assert_int_equal(tear_down((void **)&ports[1]), 0);
    free(transfer.bytes);
}

/* The number `which` among those that say where input waits, and how much, in what was saved. */
static void put_number(struct transfer *transfer, unsigned which, uint32_t value)
{
    struct {
        uint32_t name, size;
    } item;

    for (size_t at = 0; at < transfer->size; at += sizeof item + item.size) {
        memcpy(&item, transfer->bytes + at, sizeof item);
        if (item.size == sizeof value && which-- == 0)
            memcpy(transfer->bytes + at + sizeof item, &value, sizeof value);
    }
}

/* Of a state that nobody saved so: input that waits outside of its queue. */
static void input_that_cannot_be_is_refused(void **state)
{
    static const uint32_t most[] = { 15, 16, VMM_INPUT_MAX - 1, VMM_INPUT_MAX };
    struct fixture *f = *state, *to;

    for (unsigned i = 0; i < 2 * ARRAY_LENGTH(most); i++) {
        struct transfer transfer = { 0 };

        assert_int_equal(set_up((void **)&to), 0);
        serial_transfer(f->serial, &transfer);
        put_number(&transfer, i / 2, most[i / 2] + i % 2);
        transfer.loading = true;
        serial_transfer(to->serial, &transfer);
        assert_int_equal(transfer_is_good(&transfer), i % 2 == 0);
        assert_int_equal(tear_down((void **)&to), 0);
        free(transfer.bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(output_goes_into_the_ring, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_ring_keeps_the_newest, set_up, tear_down),
        cmocka_unit_test_setup_teardown(enabling_the_transmit_interrupt_raises_it, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(it_is_a_16550a, set_up, tear_down),
        cmocka_unit_test_setup_teardown(loop_mode_follows, set_up, tear_down),
        cmocka_unit_test_setup_teardown(input_interrupts_and_is_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(input_waits_in_a_queue, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_queued_outlives_a_reset_and_loop_mode, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(wide_accesses_are_harmless, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_restored_port_raises_its_interrupt_again, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_restored_port_goes_on_where_it_was, set_up, tear_down),
        cmocka_unit_test_setup_teardown(input_that_cannot_be_is_refused, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
