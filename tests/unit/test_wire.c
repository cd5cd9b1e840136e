/* test_wire.c - the messages between warrend and warren-api, as bytes from a hostile peer. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "api/wire.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/seqpacket.h"

static struct wire_message request(void)
{
    struct wire_message message = { .kind = WIRE_REQUEST, .id = 7 };

    message.strings[WIRE_METHOD] = "PUT";
    message.strings[WIRE_TARGET] = "/v1/vms/a?wait=3";
    message.strings[WIRE_IF_MATCH] = "\"3\"";
    message.body = (char *)"{\"vcpus\":1}";
    message.body_size = strlen(message.body);
    return message;
}

static void a_request_comes_back_as_it_was(void **state)
{
    struct wire_message in = request(), out;
    char bytes[SEQPACKET_MESSAGE_MAX];
    size_t size = 0;
    int fd = -1;

    (void)state;
    assert_int_equal(wire_pack(&in, bytes, sizeof(bytes), &size, &fd, NULL), 0);
    assert_int_equal(fd, -1);
    assert_int_equal(wire_unpack(bytes, size, -1, &out, NULL), 0);
    assert_int_equal(out.kind, WIRE_REQUEST);
    assert_int_equal(out.id, 7);
    assert_string_equal(out.strings[WIRE_METHOD], "PUT");
    assert_string_equal(out.strings[WIRE_TARGET], "/v1/vms/a?wait=3");
    assert_string_equal(out.strings[WIRE_IF_MATCH], "\"3\"");
    assert_null(out.strings[WIRE_CONTENT_TYPE]);
    assert_string_equal(out.body, in.body);
    wire_message_clear(&out);
}

static void a_large_body_travels_in_a_sealed_memfd(void **state)
{
    struct wire_message in = { .kind = WIRE_REPLY, .id = 9, .status = 200 }, out;
    char bytes[SEQPACKET_MESSAGE_MAX];
    auto_free char *body = malloc(300000);
    auto_close int fd = -1;
    size_t size = 0;

    (void)state;
    memset(body, 'b', 300000);
    in.body = body;
    in.body_size = 300000;
    assert_int_equal(wire_pack(&in, bytes, sizeof(bytes), &size, &fd, NULL), 0);
    assert_true(fd >= 0);
    assert_true(size < 100);
    assert_int_equal(wire_unpack(bytes, size, fd, &out, NULL), 0);
    assert_int_equal(out.body_size, 300000);
    assert_memory_equal(out.body, body, 300000);
    wire_message_clear(&out);
    /* and the same message without its fd, or with one that can still change, is refused */
    assert_int_equal(wire_unpack(bytes, size, -1, &out, NULL), -EINVAL);
    {
        auto_close int unsealed = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        assert_int_equal(ftruncate(unsealed, 300000), 0);
        assert_true(wire_unpack(bytes, size, unsealed, &out, NULL) < 0);
    }
}

static void a_stream_travels_with_its_reply(void **state)
{
    struct wire_message in = { .kind = WIRE_REPLY, .id = 9, .status = 101, .has_stream = true };
    struct wire_message out;
    char bytes[SEQPACKET_MESSAGE_MAX], got[2] = "";
    auto_close int fd = -1;
    int pair[2];
    size_t size = 0;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    in.stream_fd = pair[1];
    in.strings[WIRE_UPGRADE] = "warren-stream";
    assert_int_equal(wire_pack(&in, bytes, sizeof(bytes), &size, &fd, NULL), 0);
    close(pair[1]);
    assert_int_equal(wire_unpack(bytes, size, -1, &out, NULL), -EINVAL);
    assert_int_equal(wire_unpack(bytes, size, fd, &out, NULL), 0);
    assert_true(out.has_stream);
    assert_int_equal(out.status, 101);
    assert_int_equal(write(out.stream_fd, "x", 1), 1);
    (void)take_fd(&fd);
    wire_message_clear(&out); /* and it was the last that had it open */
    assert_int_equal(read(pair[0], got, 2), 1);
    assert_int_equal(read(pair[0], got, 2), 0);
    close(pair[0]);
}

static void streams_are_for_good_replies_only(void **state)
{
    static const struct wire_message bad[] = {
        { .kind = WIRE_REPLY, .status = 101 },
        { .kind = WIRE_REPLY, .status = 404, .has_stream = true },
        { .kind = WIRE_REPLY, .status = 100, .has_stream = true },
        { .kind = WIRE_REPLY, .status = 200, .has_stream = true, .body = "x", .body_size = 1 },
        { .kind = WIRE_ABANDON, .has_stream = true },
    };
    struct wire_message good = { .kind = WIRE_REPLY, .status = 200 }, out;
    char bytes[SEQPACKET_MESSAGE_MAX];
    size_t size;
    int fd;

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
        assert_int_equal(wire_pack(&bad[i], bytes, sizeof(bytes), &size, &fd, NULL), -EINVAL);
    assert_int_equal(wire_pack(&good, bytes, sizeof(bytes), &size, &fd, NULL), 0);
    assert_int_equal(wire_unpack(bytes, size, 0, &out, NULL), -EINVAL); /* an fd for nothing */
    bytes[16] = 3;                                                      /* flags: body and stream */
    assert_int_equal(wire_unpack(bytes, size, 0, &out, NULL), -EINVAL);
}

static void what_would_smuggle_a_header_is_not_packed(void **state)
{
    struct wire_message message = { .kind = WIRE_REPLY, .id = 1, .status = 200 };
    char bytes[SEQPACKET_MESSAGE_MAX];
    size_t size;
    int fd;

    (void)state;
    message.strings[WIRE_LOCATION] = "/v1/x\r\nSet-Cookie: a=b";
    assert_int_equal(wire_pack(&message, bytes, sizeof(bytes), &size, &fd, NULL), -EINVAL);
    message.strings[WIRE_LOCATION] = NULL;
    message.strings[WIRE_METHOD] = "GET"; /* only requests have one */
    assert_int_equal(wire_pack(&message, bytes, sizeof(bytes), &size, &fd, NULL), -EINVAL);
    message.strings[WIRE_METHOD] = NULL;
    message.status = 99;
    assert_int_equal(wire_pack(&message, bytes, sizeof(bytes), &size, &fd, NULL), -EINVAL);
}

static void a_request_without_a_target_is_refused(void **state)
{
    struct wire_message message = request();
    char bytes[SEQPACKET_MESSAGE_MAX];
    size_t size;
    int fd;

    (void)state;
    message.strings[WIRE_TARGET] = NULL;
    assert_int_equal(wire_pack(&message, bytes, sizeof(bytes), &size, &fd, NULL), -EINVAL);
}

static void parts_have_limits(void **state)
{
    static char target[WIRE_TARGET_MAX + 2], body[WIRE_REQUEST_BODY_MAX + 1];
    struct wire_message message = request();
    char bytes[SEQPACKET_MESSAGE_MAX];
    size_t size;
    int fd;

    (void)state;
    memset(target, '/', WIRE_TARGET_MAX);
    message.strings[WIRE_TARGET] = target;
    message.body = body;
    message.body_size = WIRE_REQUEST_BODY_MAX;
    assert_int_equal(wire_pack(&message, bytes, sizeof(bytes), &size, &fd, NULL), 0);
    close(fd);
    message.body_size++;
    assert_int_equal(wire_pack(&message, bytes, sizeof(bytes), &size, &fd, NULL), -EINVAL);
    message.body_size = 0;
    target[WIRE_TARGET_MAX] = '/';
    assert_int_equal(wire_pack(&message, bytes, sizeof(bytes), &size, &fd, NULL), -EINVAL);
}

/* Where the body does not fit either it travels by itself. */
static void nothing_is_written_behind_the_buffer(void **state)
{
    struct wire_message in = request();
    char bytes[SEQPACKET_MESSAGE_MAX];
    size_t whole = 0, head, size;
    int fd;

    (void)state;
    assert_int_equal(wire_pack(&in, bytes, sizeof(bytes), &whole, &fd, NULL), 0);
    head = whole - in.body_size;
    for (size_t room = 0; room <= whole; room++) {
        memset(bytes, 'z', sizeof(bytes));
        assert_int_equal(wire_pack(&in, bytes, room, &size, &fd, NULL), room < head ? -EINVAL : 0);
        assert_int_equal(bytes[room], 'z');
        if (room < head)
            continue;
        assert_int_equal(fd >= 0, room < whole);
        close(fd);
    }
}

/* Cut anywhere, a message is refused: never read beyond its end (run under ASan). */
static void every_truncation_is_refused(void **state)
{
    struct wire_message in = request(), out;
    char bytes[SEQPACKET_MESSAGE_MAX];
    size_t size = 0;
    int fd;

    (void)state;
    assert_int_equal(wire_pack(&in, bytes, sizeof(bytes), &size, &fd, NULL), 0);
    for (size_t cut = 0; cut < size; cut++) {
        auto_free char *copy = malloc(cut ? cut : 1); /* exactly as long, for ASan */

        memcpy(copy, bytes, cut);
        assert_true(wire_unpack(copy, cut, -1, &out, NULL) < 0);
    }
}

/* Every byte set to every value: refused, or understood as something that is itself allowed. */
static void every_changed_byte_is_survived(void **state)
{
    struct wire_message in = request(), out;
    char bytes[SEQPACKET_MESSAGE_MAX];
    size_t size = 0;
    int fd;

    (void)state;
    assert_int_equal(wire_pack(&in, bytes, sizeof(bytes), &size, &fd, NULL), 0);
    bytes[0] ^= 1; /* of another version */
    assert_int_equal(wire_unpack(bytes, size, -1, &out, NULL), -EINVAL);
    bytes[0] ^= 1;
    for (size_t i = 0; i < size; i++) {
        for (int value = 0; value < 256; value++) {
            auto_free char *copy = malloc(size);

            memcpy(copy, bytes, size);
            copy[i] = (char)value;
            if (wire_unpack(copy, size, -1, &out, NULL) < 0)
                continue;
            assert_true(out.kind >= WIRE_REQUEST && out.kind < WIRE_KIND_COUNT);
            assert_true(out.body_size <= size);
            for (int s = 0; s < WIRE_STRING_COUNT; s++) {
                for (const char *c = out.strings[s]; c && *c; c++)
                    assert_true(*c >= 0x20 && *c <= 0x7e);
            }
            wire_message_clear(&out);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_comes_back_as_it_was),
        cmocka_unit_test(a_large_body_travels_in_a_sealed_memfd),
        cmocka_unit_test(a_stream_travels_with_its_reply),
        cmocka_unit_test(streams_are_for_good_replies_only),
        cmocka_unit_test(what_would_smuggle_a_header_is_not_packed),
        cmocka_unit_test(a_request_without_a_target_is_refused),
        cmocka_unit_test(parts_have_limits),
        cmocka_unit_test(nothing_is_written_behind_the_buffer),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(every_changed_byte_is_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
