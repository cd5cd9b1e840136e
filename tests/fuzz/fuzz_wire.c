/* fuzz_wire.c - what warrend and warren-api tell each other, as bytes from the other end. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "tests/fuzz/fuzz.h"
#include "api/wire.h"

/* Only what is well formed is unpacked, so packing it again gives the same. */
static void check_message(const struct wire_message *message)
{
    static uint8_t buffer[1 << 20];
    struct wire_message again = { 0 };
    size_t size = 0;
    int fd = -1;

    FUZZ_REQUIRE(message->kind > 0 && message->kind < WIRE_KIND_COUNT);
    FUZZ_REQUIRE(!message->body || message->body[message->body_size] == '\0');
    FUZZ_REQUIRE(wire_pack(message, buffer, sizeof(buffer), &size, &fd, NULL) == 0);
    FUZZ_REQUIRE(wire_unpack(buffer, size, fd, &again, NULL) == 0);
    FUZZ_REQUIRE(again.kind == message->kind && again.id == message->id);
    FUZZ_REQUIRE(again.status == message->status && again.body_size == message->body_size);
    wire_message_clear(&again);
    if (fd >= 0)
        close(fd);
}

/* The first byte: 1 = a memfd comes with it, 2 = a sealed one. */
FUZZ_TARGET(wire)
{
    struct wire_message message = { 0 };
    uint8_t how = size > 0 ? bytes[0] : 0;
    uint8_t *copy;
    int fd = -1;

    if (size == 0)
        return 0;
    copy = malloc(size);
    FUZZ_REQUIRE(copy);
    memcpy(copy, bytes + 1, size - 1);
    if (how & 3) {
        fd = memfd_create("body", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        FUZZ_REQUIRE(write(fd, bytes, size) == (ssize_t)size);
        if (how & 2)
            FUZZ_REQUIRE(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0);
    }
    if (wire_unpack(copy, size - 1, fd, &message, NULL) == 0) {
        check_message(&message);
        wire_message_clear(&message);
    }
    if (fd >= 0)
        close(fd);
    free(copy);
    return 0;
}
