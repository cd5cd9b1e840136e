/* aml.h - writes ACPI machine language (ACPI 6.4, chapter 20) into a caller's buffer: nested
 * packages get their lengths when they are closed, names and descriptors their encodings.  Pure.
 *
 *   aml_device(&aml, "COM1");
 *       aml_name(&aml, "_HID");     aml_eisa_id(&aml, "PNP0501");
 *   aml_end(&aml);
 *
 * Overflow or wrong nesting sets `failed`; callers look once, at the end. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AML_DEPTH_MAX 8

struct aml {
    uint8_t *bytes; /* borrowed */
    size_t capacity, size;
    bool failed;
    unsigned depth;
    struct aml_open {
        size_t start;      /* where the package length belongs */
        bool is_resources; /* a buffer: ends in an end tag and gets its own size */
    } open[AML_DEPTH_MAX];
};

void aml_init(struct aml *aml, void *bytes, size_t capacity);

/* Packages: everything up to the matching aml_end is in them. */
void aml_scope(struct aml *aml, const char *path);
void aml_device(struct aml *aml, const char *name);
void aml_method(struct aml *aml, const char *name, unsigned arguments, bool serialized);
void aml_package(struct aml *aml, unsigned elements);
void aml_resources(struct aml *aml); /* a buffer of the descriptors below */
void aml_if_local_and(struct aml *aml, unsigned local, uint64_t mask);
void aml_end(struct aml *aml);

/* NAME = the one object that is written next. */
void aml_name(struct aml *aml, const char *name);
void aml_integer(struct aml *aml, uint64_t value);
void aml_string(struct aml *aml, const char *text);
void aml_eisa_id(struct aml *aml, const char *id); /* "PNP0501" */

/* An operation region in I/O space and its one field that covers it. */
void aml_io_register(struct aml *aml, const char *region, const char *field, uint16_t port,
                     unsigned bytes);

/* Statements of methods. */
void aml_store_to_local(struct aml *aml, const char *name, unsigned local);
void aml_notify(struct aml *aml, const char *path, uint8_t value);

/* Resource descriptors (ACPI 6.4, 6.4). */
void aml_resource_io(struct aml *aml, uint16_t port, uint8_t size);
void aml_resource_interrupt(struct aml *aml, uint32_t gsi); /* edge, active high, exclusive */
void aml_resource_bus_numbers(struct aml *aml, uint16_t first, uint16_t count);
void aml_resource_memory_window(struct aml *aml, uint32_t start, uint32_t size); /* a producer's */
void aml_resource_memory_fixed(struct aml *aml, uint32_t start, uint32_t size);
