#include "vmm/aml.h"

#include <string.h>

#define OP_ZERO     0x00
#define OP_ONE      0x01
#define OP_NAME     0x08
#define OP_BYTE     0x0a
#define OP_WORD     0x0b
#define OP_DWORD    0x0c
#define OP_STRING   0x0d
#define OP_QWORD    0x0e
#define OP_SCOPE    0x10
#define OP_BUFFER   0x11
#define OP_PACKAGE  0x12
#define OP_METHOD   0x14
#define OP_EXTENDED 0x5b
#define OP_LOCAL0   0x60
#define OP_STORE    0x70
#define OP_AND      0x7b
#define OP_NOTIFY   0x86
#define OP_IF       0xa0
#define EXT_REGION  0x80
#define EXT_FIELD   0x81
#define EXT_DEVICE  0x82
#define NAME_ROOT   '\\'
#define NAME_DUAL   0x2e
#define SPACE_IO    1
#define FIELD_DWORD 0x43 /* DWordAcc, NoLock, WriteAsZeros */

#define TAG_IO            0x47
#define TAG_END           0x79
#define TAG_MEMORY_FIXED  0x86
#define TAG_DWORD_SPACE   0x87
#define TAG_WORD_SPACE    0x88
#define TAG_INTERRUPT     0x89
#define INTERRUPT_EDGE    0x03 /* consumer, edge; active high, exclusive */
#define SPACE_MEMORY      0
#define SPACE_BUS         2
#define SPACE_FIXED       0x0c /* minimum and maximum are fixed */
#define MEMORY_READ_WRITE 1    /* not cacheable */

void aml_init(struct aml *aml, void *bytes, size_t capacity)
{
    *aml = (struct aml){ .bytes = bytes, .capacity = capacity };
}

static void put(struct aml *aml, const void *bytes, size_t size)
{
    if (aml->failed || size > aml->capacity - aml->size) {
        aml->failed = true;
        return;
    }
    memcpy(aml->bytes + aml->size, bytes, size);
    aml->size += size;
}

static void put_byte(struct aml *aml, uint8_t byte)
{
    put(aml, &byte, 1);
}

static void put_word(struct aml *aml, uint16_t word)
{
    put(aml, &word, sizeof word);
}

static void put_dword(struct aml *aml, uint32_t dword)
{
    put(aml, &dword, sizeof dword);
}

/* "_SB_" or "\\_SB_.PWRB": segments of four characters, at most two. */
static void put_path(struct aml *aml, const char *path)
{
    size_t length;

    if (*path == NAME_ROOT) {
        put_byte(aml, NAME_ROOT);
        path++;
    }
    length = strlen(path);
    if (length == 9 && path[4] == '.') {
        put_byte(aml, NAME_DUAL);
        put(aml, path, 4);
        put(aml, path + 5, 4);
    } else if (length == 4) {
        put(aml, path, 4);
    } else {
        aml->failed = true;
    }
}

static void begin(struct aml *aml, bool is_resources)
{
    if (aml->depth == AML_DEPTH_MAX) {
        aml->failed = true;
        return;
    }
    aml->open[aml->depth++] = (struct aml_open){ aml->size, is_resources };
}

/* 20.2.4: one byte up to 63, else 4 bits and as many bytes as are needed; it counts itself. */
static size_t encode_length(size_t content, uint8_t ret[3])
{
    size_t total = content + 1;

    if (total <= 0x3f) {
        ret[0] = (uint8_t)total;
        return 1;
    }
    total = content + 2;
    if (total <= 0xfff) {
        ret[0] = (uint8_t)(0x40 | (total & 0xf));
        ret[1] = (uint8_t)(total >> 4);
        return 2;
    }
    total = content + 3;
    ret[0] = (uint8_t)(0x80 | (total & 0xf));
    ret[1] = (uint8_t)(total >> 4);
    ret[2] = (uint8_t)(total >> 12);
    return 3;
}

static void insert(struct aml *aml, size_t at, const void *bytes, size_t size)
{
    if (aml->failed || size > aml->capacity - aml->size) {
        aml->failed = true;
        return;
    }
    memmove(aml->bytes + at + size, aml->bytes + at, aml->size - at);
    memcpy(aml->bytes + at, bytes, size);
    aml->size += size;
}

void aml_end(struct aml *aml)
{
    struct aml_open open;
    uint8_t length[3];

    if (aml->depth == 0) {
        aml->failed = true;
        return;
    }
    open = aml->open[--aml->depth];
    if (open.is_resources) {
        uint8_t size[3] = { OP_WORD };
        uint16_t bytes;

        put_byte(aml, TAG_END);
        put_byte(aml, 0); /* no checksum */
        bytes = (uint16_t)(aml->size - open.start);
        memcpy(size + 1, &bytes, sizeof bytes);
        insert(aml, open.start, size, sizeof size);
    }
    insert(aml, open.start, length, encode_length(aml->size - open.start, length));
}

void aml_scope(struct aml *aml, const char *path)
{
    put_byte(aml, OP_SCOPE);
    begin(aml, false);
    put_path(aml, path);
}

void aml_device(struct aml *aml, const char *name)
{
    put_byte(aml, OP_EXTENDED);
    put_byte(aml, EXT_DEVICE);
    begin(aml, false);
    put_path(aml, name);
}

void aml_method(struct aml *aml, const char *name, unsigned arguments, bool serialized)
{
    put_byte(aml, OP_METHOD);
    begin(aml, false);
    put_path(aml, name);
    put_byte(aml, (uint8_t)(arguments | (serialized ? 8 : 0)));
}

void aml_package(struct aml *aml, unsigned elements)
{
    put_byte(aml, OP_PACKAGE);
    begin(aml, false);
    put_byte(aml, (uint8_t)elements);
}

void aml_resources(struct aml *aml)
{
    put_byte(aml, OP_BUFFER);
    begin(aml, true);
}

void aml_if_local_and(struct aml *aml, unsigned local, uint64_t mask)
{
    put_byte(aml, OP_IF);
    begin(aml, false);
    put_byte(aml, OP_AND);
    put_byte(aml, (uint8_t)(OP_LOCAL0 + local));
    aml_integer(aml, mask);
    put_byte(aml, OP_ZERO); /* the result is stored nowhere */
}

void aml_name(struct aml *aml, const char *name)
{
    put_byte(aml, OP_NAME);
    put_path(aml, name);
}

void aml_integer(struct aml *aml, uint64_t value)
{
    if (value <= 1) {
        put_byte(aml, value ? OP_ONE : OP_ZERO);
    } else if (value <= 0xff) {
        put_byte(aml, OP_BYTE);
        put_byte(aml, (uint8_t)value);
    } else if (value <= 0xffff) {
        put_byte(aml, OP_WORD);
        put_word(aml, (uint16_t)value);
    } else if (value <= 0xffffffff) {
        put_byte(aml, OP_DWORD);
        put_dword(aml, (uint32_t)value);
    } else {
        put_byte(aml, OP_QWORD);
        put(aml, &value, sizeof value);
    }
}

void aml_string(struct aml *aml, const char *text)
{
    put_byte(aml, OP_STRING);
    put(aml, text, strlen(text) + 1);
}

static unsigned hex_digit(char digit)
{
    return (unsigned)(digit <= '9' ? digit - '0' : digit - 'A' + 10);
}

/* 19.3.4: three letters of five bits and four hex digits, the most significant byte first. */
void aml_eisa_id(struct aml *aml, const char *id)
{
    uint32_t value;

    if (strlen(id) != 7) {
        aml->failed = true;
        return;
    }
    value = (uint32_t)(id[0] - '@') << 26 | (uint32_t)(id[1] - '@') << 21 |
            (uint32_t)(id[2] - '@') << 16 | hex_digit(id[3]) << 12 | hex_digit(id[4]) << 8 |
            hex_digit(id[5]) << 4 | hex_digit(id[6]);
    put_byte(aml, OP_DWORD);
    put_dword(aml, __builtin_bswap32(value));
}

void aml_io_register(struct aml *aml, const char *region, const char *field, uint16_t port,
                     unsigned bytes)
{
    uint8_t length[3];
    size_t length_bytes = encode_length(bytes * 8 - 1, length);

    put_byte(aml, OP_EXTENDED);
    put_byte(aml, EXT_REGION);
    put_path(aml, region);
    put_byte(aml, SPACE_IO);
    aml_integer(aml, port);
    aml_integer(aml, bytes);
    put_byte(aml, OP_EXTENDED);
    put_byte(aml, EXT_FIELD);
    begin(aml, false);
    put_path(aml, region);
    put_byte(aml, FIELD_DWORD);
    put_path(aml, field);
    /* A field's length has the encoding of a package's but does not count itself. */
    put(aml, length, length_bytes);
    aml_end(aml);
}

void aml_store_to_local(struct aml *aml, const char *name, unsigned local)
{
    put_byte(aml, OP_STORE);
    put_path(aml, name);
    put_byte(aml, (uint8_t)(OP_LOCAL0 + local));
}

void aml_notify(struct aml *aml, const char *path, uint8_t value)
{
    put_byte(aml, OP_NOTIFY);
    put_path(aml, path);
    aml_integer(aml, value);
}

void aml_resource_io(struct aml *aml, uint16_t port, uint8_t size)
{
    put_byte(aml, TAG_IO);
    put_byte(aml, 1); /* decodes 16 bits */
    put_word(aml, port);
    put_word(aml, port);
    put_byte(aml, 1); /* alignment */
    put_byte(aml, size);
}

void aml_resource_interrupt(struct aml *aml, uint32_t gsi)
{
    put_byte(aml, TAG_INTERRUPT);
    put_word(aml, 6);
    put_byte(aml, INTERRUPT_EDGE);
    put_byte(aml, 1); /* one interrupt */
    put_dword(aml, gsi);
}

void aml_resource_bus_numbers(struct aml *aml, uint16_t first, uint16_t count)
{
    put_byte(aml, TAG_WORD_SPACE);
    put_word(aml, 13);
    put_byte(aml, SPACE_BUS);
    put_byte(aml, SPACE_FIXED);
    put_byte(aml, 0);
    put_word(aml, 0); /* granularity */
    put_word(aml, first);
    put_word(aml, (uint16_t)(first + count - 1));
    put_word(aml, 0); /* translation */
    put_word(aml, count);
}

void aml_resource_memory_window(struct aml *aml, uint32_t start, uint32_t size)
{
    put_byte(aml, TAG_DWORD_SPACE);
    put_word(aml, 23);
    put_byte(aml, SPACE_MEMORY);
    put_byte(aml, SPACE_FIXED);
    put_byte(aml, MEMORY_READ_WRITE);
    put_dword(aml, 0); /* granularity */
    put_dword(aml, start);
    put_dword(aml, start + (size - 1));
    put_dword(aml, 0); /* translation */
    put_dword(aml, size);
}

void aml_resource_memory_fixed(struct aml *aml, uint32_t start, uint32_t size)
{
    put_byte(aml, TAG_MEMORY_FIXED);
    put_word(aml, 9);
    put_byte(aml, MEMORY_READ_WRITE);
    put_dword(aml, start);
    put_dword(aml, size);
}
