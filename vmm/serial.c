#include "vmm/serial.h"

#include <errno.h>
#include <linux/serial_reg.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/control_protocol.h"
#include "vmm/mmio_bus.h"
#include "vmm/platform.h"
#include "vmm/stats_page.h"
#include "vmm/transfer.h"

#define IER_MASK 0x0f
#define IIR_FIFO 0xc0 /* the FIFOs are on */
/* OUT2 connects the interrupt line on a PC; not needed on an ACPI machine. */
#define MCR_MASK      (UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_OUT1 | UART_MCR_RTS | UART_MCR_DTR)
#define LSR_IDLE      (UART_LSR_TEMT | UART_LSR_THRE) /* always */
#define MSR_CONNECTED (UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS)

#define RECEIVE_BYTES 16 /* the FIFO of a 16550A */

struct serial {
    pthread_mutex_t lock;
    struct stats_page *page; /* borrowed */
    int interrupt;           /* borrowed eventfd: pulses the pin */
    bool asserted;           /* the line's level, to pulse on its rise only */
    bool thr_empty_pending;
    uint8_t ier, fcr, lcr, mcr, scratch, divisor[2];
    uint8_t received[RECEIVE_BYTES];
    unsigned received_first, received_count;
    uint8_t queue[VMM_INPUT_MAX]; /* what waits for room in the FIFO, the oldest first */
    unsigned queue_first, queue_count;
};

static uint8_t serial_pending(const struct serial *serial)
{
    if ((serial->ier & UART_IER_RDI) && serial->received_count > 0)
        return UART_IIR_RDI;
    if ((serial->ier & UART_IER_THRI) && serial->thr_empty_pending)
        return UART_IIR_THRI;
    return UART_IIR_NO_INT;
}

static bool serial_receive(struct serial *serial, uint8_t byte)
{
    if (serial->received_count == RECEIVE_BYTES)
        return false;
    serial->received[(serial->received_first + serial->received_count) % RECEIVE_BYTES] = byte;
    serial->received_count++;
    return true;
}

/* After every access: the line delivers what there is room for, and the interrupt follows.  In loop
 * mode nothing comes in from outside. */
static void serial_update(struct serial *serial)
{
    bool level;

    while (!(serial->mcr & UART_MCR_LOOP) && serial->queue_count > 0 &&
           serial_receive(serial, serial->queue[serial->queue_first])) {
        serial->queue_first = (serial->queue_first + 1) % VMM_INPUT_MAX;
        serial->queue_count--;
    }
    level = serial_pending(serial) != UART_IIR_NO_INT;
    if (level && !serial->asserted) /* fails if the counter is full: a pulse is on its way then */
        (void)eventfd_write(serial->interrupt, 1);
    serial->asserted = level;
}

static void serial_transmit(struct serial *serial, uint8_t byte)
{
    uint8_t *ring = (uint8_t *)serial->page + CONSOLE_OFFSET;
    uint64_t written = serial->page->console_bytes;

    ring[written % CONSOLE_RING_BYTES] = byte;
    __atomic_store_n(&serial->page->console_bytes, written + 1, __ATOMIC_RELEASE);
}

static uint8_t serial_take(struct serial *serial)
{
    uint8_t byte;

    if (serial->received_count == 0)
        return 0;
    byte = serial->received[serial->received_first];
    serial->received_first = (serial->received_first + 1) % RECEIVE_BYTES;
    serial->received_count--;
    return byte;
}

static uint8_t serial_read_iir(struct serial *serial)
{
    uint8_t pending = serial_pending(serial);

    if (pending == UART_IIR_THRI)
        serial->thr_empty_pending = false; /* reading it acknowledges it */
    return pending | (serial->fcr & UART_FCR_ENABLE_FIFO ? IIR_FIFO : 0);
}

/* In loop mode the modem's inputs follow our outputs: RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to
 * DCD. */
static uint8_t serial_read_msr(const struct serial *serial)
{
    uint8_t mcr = serial->mcr;

    if (!(mcr & UART_MCR_LOOP))
        return MSR_CONNECTED;
    return (uint8_t)((mcr & 0x02) << 3 | (mcr & 0x01) << 5 | (mcr & 0x0c) << 4);
}

static bool is_divisor(const struct serial *serial, unsigned offset)
{
    return (serial->lcr & UART_LCR_DLAB) && offset <= UART_DLM;
}

static uint8_t serial_read_register(struct serial *serial, unsigned offset)
{
    if (is_divisor(serial, offset))
        return serial->divisor[offset];
    switch (offset) {
    case UART_RX:
        return serial_take(serial);
    case UART_IER:
        return serial->ier;
    case UART_IIR:
        return serial_read_iir(serial);
    case UART_LCR:
        return serial->lcr;
    case UART_MCR:
        return serial->mcr;
    case UART_LSR:
        return LSR_IDLE | (serial->received_count > 0 ? UART_LSR_DR : 0);
    case UART_MSR:
        return serial_read_msr(serial);
    case UART_SCR:
        return serial->scratch;
    default:
        return 0xff;
    }
}

static void serial_write_data(struct serial *serial, uint8_t byte)
{
    if (serial->mcr & UART_MCR_LOOP)
        (void)serial_receive(serial, byte); /* an overrun loses the byte */
    else
        serial_transmit(serial, byte);
    serial->thr_empty_pending = true;
}

static void serial_write_register(struct serial *serial, unsigned offset, uint8_t value)
{
    if (is_divisor(serial, offset)) {
        serial->divisor[offset] = value;
        return;
    }
    switch (offset) {
    case UART_TX:
        serial_write_data(serial, value);
        break;
    case UART_IER:
        /* Enabling the interrupt with the register empty raises it; drivers test for that. */
        if ((value & UART_IER_THRI) && !(serial->ier & UART_IER_THRI))
            serial->thr_empty_pending = true;
        serial->ier = value & IER_MASK;
        break;
    case UART_FCR:
        serial->fcr = value;
        if (value & UART_FCR_CLEAR_RCVR) {
            serial->received_count = 0;
            serial->asserted = false; /* the line falls; what waits in the queue raises it again */
        }
        break;
    case UART_LCR:
        serial->lcr = value;
        break;
    case UART_MCR:
        serial->mcr = value & MCR_MASK;
        break;
    case UART_SCR:
        serial->scratch = value;
        break;
    default: /* read only */
        break;
    }
}

/* Registers are bytes: of a wider access only the first one exists. */
static uint64_t serial_access(void *device, uint64_t offset, unsigned width,
                              const uint64_t *written)
{
    struct serial *serial = device;
    uint64_t value = 0;

    pthread_mutex_lock(&serial->lock);
    if (written)
        serial_write_register(serial, (unsigned)offset, (uint8_t)*written);
    else
        value = serial_read_register(serial, (unsigned)offset);
    serial_update(serial);
    pthread_mutex_unlock(&serial->lock);
    return width == 1 ? value : value | ~0xffull;
}

int serial_new(struct bus *ports, int interrupt, struct stats_page *page,
               struct serial **ret_serial, struct error *err)
{
    struct serial *serial = calloc(1, sizeof *serial);

    if (!serial)
        return error_set(err, ENOMEM, "serial port");
    serial->page = page;
    pthread_mutex_init(&serial->lock, NULL);
    serial->interrupt = interrupt;
    bus_add(ports, PLATFORM_PORT_COM1, PLATFORM_PORT_COM1_SIZE, serial_access, serial);
    *ret_serial = serial;
    return 0;
}

void serial_transfer(struct serial *serial, struct transfer *transfer)
{
    uint8_t *registers[] = { &serial->ier,       &serial->fcr,     &serial->lcr,
                             &serial->mcr,       &serial->scratch, &serial->divisor[0],
                             &serial->divisor[1] };
    uint8_t flags[] = { serial->asserted, serial->thr_empty_pending };

    for (size_t i = 0; i < ARRAY_LENGTH(registers); i++)
        transfer_item(transfer, "serial register", registers[i], 1);
    transfer_value(transfer, "serial flags", flags);
    transfer_value(transfer, "serial input", serial->received);
    transfer_value(transfer, "serial input", serial->received_first);
    transfer_value(transfer, "serial input", serial->received_count);
    transfer_value(transfer, "serial queue", serial->queue);
    transfer_value(transfer, "serial queue", serial->queue_first);
    transfer_value(transfer, "serial queue", serial->queue_count);
    if (serial->received_first >= RECEIVE_BYTES || serial->received_count > RECEIVE_BYTES ||
        serial->queue_first >= VMM_INPUT_MAX || serial->queue_count > VMM_INPUT_MAX)
        transfer_refuse(transfer, EINVAL, "the serial port's input");
    /* The line rises anew in a port that was loaded: KVM may have had its pulse still to do. */
    serial->thr_empty_pending = flags[1];
}

bool serial_input(struct serial *serial, const void *bytes, size_t size)
{
    const uint8_t *from = bytes;
    bool fits;

    pthread_mutex_lock(&serial->lock);
    fits = size <= VMM_INPUT_MAX - serial->queue_count;
    for (size_t i = 0; fits && i < size; i++)
        serial->queue[(serial->queue_first + serial->queue_count++) % VMM_INPUT_MAX] = from[i];
    serial_update(serial);
    pthread_mutex_unlock(&serial->lock);
    return fits;
}
