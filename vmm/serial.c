#include "vmm/serial.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/error.h"
#include "vmm/control_protocol.h"
#include "vmm/mmio_bus.h"
#include "vmm/platform.h"
#include "vmm/stats_page.h"
#include "vmm/transfer.h"

enum serial_register {
    REGISTER_DATA, /* RBR, THR; divisor low with DLAB */
    REGISTER_IER,  /* divisor high with DLAB */
    REGISTER_IIR,  /* FCR when written */
    REGISTER_LCR,
    REGISTER_MCR,
    REGISTER_LSR,
    REGISTER_MSR,
    REGISTER_SCRATCH,
};

#define IER_RECEIVED  0x01
#define IER_THR_EMPTY 0x02
#define IER_MASK      0x0f

#define IIR_NONE       0x01
#define IIR_THR_EMPTY  0x02
#define IIR_RECEIVED   0x04
#define IIR_FIFO       0xc0
#define FCR_ENABLE     0x01
#define FCR_RESET_RX   0x02
#define LCR_DLAB       0x80
#define MCR_MASK       0x1f
#define MCR_OUT2       0x08 /* connects the interrupt line on a PC; not needed on an ACPI machine */
#define MCR_LOOP       0x10
#define LSR_DATA_READY 0x01
#define LSR_IDLE       0x60 /* holding and shift register empty, always */
#define MSR_CONNECTED  0xb0 /* carrier, DSR, CTS */

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
    if ((serial->ier & IER_RECEIVED) && serial->received_count > 0)
        return IIR_RECEIVED;
    if ((serial->ier & IER_THR_EMPTY) && serial->thr_empty_pending)
        return IIR_THR_EMPTY;
    return IIR_NONE;
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
    uint64_t one = 1;
    bool level;

    while (!(serial->mcr & MCR_LOOP) && serial->queue_count > 0 &&
           serial_receive(serial, serial->queue[serial->queue_first])) {
        serial->queue_first = (serial->queue_first + 1) % VMM_INPUT_MAX;
        serial->queue_count--;
    }
    level = serial_pending(serial) != IIR_NONE;
    if (level && !serial->asserted && write(serial->interrupt, &one, sizeof one) < 0) {
        /* the counter is full: a pulse is already on its way */
    }
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

    if (pending == IIR_THR_EMPTY)
        serial->thr_empty_pending = false; /* reading it acknowledges it */
    return pending | (serial->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

/* In loop mode the modem's inputs follow our outputs: RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to
 * DCD. */
static uint8_t serial_read_msr(const struct serial *serial)
{
    uint8_t mcr = serial->mcr;

    if (!(mcr & MCR_LOOP))
        return MSR_CONNECTED;
    return (uint8_t)((mcr & 0x02) << 3 | (mcr & 0x01) << 5 | (mcr & 0x0c) << 4);
}

static uint8_t serial_read_register(struct serial *serial, unsigned offset)
{
    bool divisor = serial->lcr & LCR_DLAB;

    switch ((enum serial_register)offset) {
    case REGISTER_DATA:
        return divisor ? serial->divisor[0] : serial_take(serial);
    case REGISTER_IER:
        return divisor ? serial->divisor[1] : serial->ier;
    case REGISTER_IIR:
        return serial_read_iir(serial);
    case REGISTER_LCR:
        return serial->lcr;
    case REGISTER_MCR:
        return serial->mcr;
    case REGISTER_LSR:
        return LSR_IDLE | (serial->received_count > 0 ? LSR_DATA_READY : 0);
    case REGISTER_MSR:
        return serial_read_msr(serial);
    case REGISTER_SCRATCH:
        return serial->scratch;
    }
    return 0xff;
}

static void serial_write_data(struct serial *serial, uint8_t byte)
{
    if (serial->mcr & MCR_LOOP)
        (void)serial_receive(serial, byte); /* an overrun loses the byte */
    else
        serial_transmit(serial, byte);
    serial->thr_empty_pending = true;
}

static void serial_write_register(struct serial *serial, unsigned offset, uint8_t value)
{
    bool divisor = serial->lcr & LCR_DLAB;

    switch ((enum serial_register)offset) {
    case REGISTER_DATA:
        if (divisor)
            serial->divisor[0] = value;
        else
            serial_write_data(serial, value);
        break;
    case REGISTER_IER:
        if (divisor) {
            serial->divisor[1] = value;
            break;
        }
        /* Enabling the interrupt with the register empty raises it; drivers test for that. */
        if ((value & IER_THR_EMPTY) && !(serial->ier & IER_THR_EMPTY))
            serial->thr_empty_pending = true;
        serial->ier = value & IER_MASK;
        break;
    case REGISTER_IIR:
        serial->fcr = value;
        if (value & FCR_RESET_RX) {
            serial->received_count = 0;
            serial->asserted = false; /* the line falls; what waits in the queue raises it again */
        }
        break;
    case REGISTER_LCR:
        serial->lcr = value;
        break;
    case REGISTER_MCR:
        serial->mcr = value & MCR_MASK;
        break;
    case REGISTER_SCRATCH:
        serial->scratch = value;
        break;
    case REGISTER_LSR:
    case REGISTER_MSR:
        break; /* read only */
    }
}

/* Registers are bytes: of a wider access only the first one exists. */
static uint64_t serial_read(void *device, uint64_t offset, unsigned width)
{
    struct serial *serial = device;
    uint64_t value;

    pthread_mutex_lock(&serial->lock);
    value = serial_read_register(serial, (unsigned)offset);
    serial_update(serial);
    pthread_mutex_unlock(&serial->lock);
    return width == 1 ? value : value | ~0xffull;
}

static void serial_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct serial *serial = device;

    (void)width;
    pthread_mutex_lock(&serial->lock);
    serial_write_register(serial, (unsigned)offset, (uint8_t)value);
    serial_update(serial);
    pthread_mutex_unlock(&serial->lock);
}

static const struct bus_ops serial_ops = { .read = serial_read, .write = serial_write };

int serial_new(struct bus *ports, int interrupt, struct stats_page *page,
               struct serial **ret_serial, struct error *err)
{
    struct serial *serial = calloc(1, sizeof *serial);
    int result;

    if (!serial)
        return error_set(err, ENOMEM, "serial port");
    serial->page = page;
    pthread_mutex_init(&serial->lock, NULL);
    serial->interrupt = interrupt;
    result = bus_add(ports, PLATFORM_PORT_COM1, PLATFORM_PORT_COM1_SIZE, &serial_ops, serial, err);
    if (result < 0) {
        serial_free(serial);
        return result;
    }
    *ret_serial = serial;
    return 0;
}

struct serial *serial_free(struct serial *serial)
{
    if (serial) {
        pthread_mutex_destroy(&serial->lock);
        free(serial);
    }
    return NULL;
}

void serial_transfer(struct serial *serial, struct transfer *transfer)
{
    uint8_t *registers[] = { &serial->ier,       &serial->fcr,     &serial->lcr,
                             &serial->mcr,       &serial->scratch, &serial->divisor[0],
                             &serial->divisor[1] };
    uint8_t flags[] = { serial->asserted, serial->thr_empty_pending };

    for (size_t i = 0; i < ARRAY_LENGTH(registers); i++)
        transfer_item(transfer, "serial register", registers[i], 1);
    transfer_item(transfer, "serial flags", flags, sizeof flags);
    transfer_item(transfer, "serial input", serial->received, sizeof serial->received);
    transfer_item(transfer, "serial input", &serial->received_first, sizeof serial->received_first);
    transfer_item(transfer, "serial input", &serial->received_count, sizeof serial->received_count);
    transfer_item(transfer, "serial queue", serial->queue, sizeof serial->queue);
    transfer_item(transfer, "serial queue", &serial->queue_first, sizeof serial->queue_first);
    transfer_item(transfer, "serial queue", &serial->queue_count, sizeof serial->queue_count);
    if (serial->received_first >= RECEIVE_BYTES || serial->received_count > RECEIVE_BYTES ||
        serial->queue_first >= VMM_INPUT_MAX || serial->queue_count > VMM_INPUT_MAX)
        transfer_refuse(transfer, EINVAL, "the serial port's input");
    serial->asserted = flags[0];
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
