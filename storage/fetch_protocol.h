/* fetch_protocol.h - what warren-fetch is given by, and tells, the agent.
 *
 *   warren-fetch --kind kernel|initrd|disk [--sha256 HEX] --max-bytes N
 *                --uid N --gid N --root EMPTY-DIRECTORY
 *                [--ca-file FILE] [--allow-private]
 *                [--speed-limit BYTES-A-SECOND --speed-time SECONDS]
 *
 * The environment holds FETCH_URL_VARIABLE, or nothing: arguments can be read by all users of the
 * host, and a URL may hold a secret (presigned ones do).
 *
 * One process per import.  It leaves the host before it reads a byte of the source, puts the image
 * into FETCH_FD_OUTPUT and ends after exactly one FETCH_RESULT.  The agent believes nothing of what
 * it says but the source's sum: texts are cleaned, enums and sizes checked, the file's length
 * compared. */
#pragma once
#include <stdint.h>
#include "base/digest.h"

#define FETCH_URL_VARIABLE "WARREN_URL" /* is not there = FETCH_FD_SOURCE */

/* File descriptors of the process; 0 and 1 are /dev/null. */
enum {
    FETCH_FD_LOG = 2,
    FETCH_FD_CHANNEL = 3, /* SOCK_SEQPACKET; fetch sends struct fetch_message, receives nothing */
    FETCH_FD_OUTPUT = 4,  /* empty regular file, O_RDWR */
    FETCH_FD_SOURCE = 5,  /* local path: regular file, O_RDONLY; URL: /dev/null */
    FETCH_FD_COUNT
};

enum image_kind { IMAGE_KERNEL, IMAGE_INITRD, IMAGE_DISK, IMAGE_KIND_COUNT };

enum kernel_format {
    KERNEL_FORMAT_NONE,    /* not a kernel */
    KERNEL_FORMAT_ELF,     /* x86-64 vmlinux with a PVH note */
    KERNEL_FORMAT_BZIMAGE, /* with the 64-bit entry (XLF_KERNEL_64) */
    KERNEL_FORMAT_COUNT
};

enum fetch_message_type { FETCH_PROGRESS = 1, FETCH_RESULT = 2 };

#define FETCH_MESSAGE_MAGIC 0x31484657u /* "WFH1" */

struct fetch_message {
    uint32_t magic;
    uint32_t type;
    uint64_t done_bytes;  /* of the source */
    uint64_t total_bytes; /* of the source; 0 = not known */
    /* FETCH_RESULT only: */
    uint64_t size_bytes;          /* of the output */
    uint8_t sha256[DIGEST_BYTES]; /* of the source's bytes, as they came */
    uint32_t kernel_format;       /* enum kernel_format */
    int32_t code;                 /* 0 = ok, else a positive errno and: */
    char field[64];
    char message[256];
};
_Static_assert(sizeof(struct fetch_message) == 392, "the layout is fixed");
