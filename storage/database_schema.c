/* The schema's versions, and how each is made of the one before. */
#include "storage/database_internal.h"

/* The files as strings in the program. */
__asm__(".section .rodata\n"
        "database_schema:\n"
        ".incbin \"storage/schema.sql\"\n"
        ".byte 0\n"
        "database_schema_events:\n"
        ".incbin \"storage/schema_events.sql\"\n"
        ".byte 0\n"
        ".previous\n");
extern const char database_schema[], database_schema_events[];

const char *const database_schema_steps[DATABASE_SCHEMA_VERSION] = {
    database_schema,
    "CREATE TABLE idempotency ("
    "sequence INTEGER NOT NULL PRIMARY KEY, " /* the oldest go first */
    "scope TEXT NOT NULL, "                   /* who asked, method and path */
    "key TEXT NOT NULL, "
    "digest TEXT NOT NULL, " /* SHA-256 of the body */
    "created_ms INTEGER NOT NULL, "
    "status INTEGER NOT NULL, " /* HTTP; 0 = the change is committed, but not answered yet */
    "etag TEXT, location TEXT, body TEXT) STRICT",
    database_schema_events,
};
