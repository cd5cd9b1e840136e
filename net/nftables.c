#include "net/nftables.h"

#include <errno.h>
#include <nftables/libnftables.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"

struct nftables {
    struct nft_ctx *context; /* owned */
};

int nftables_new(struct nftables **ret_nftables, struct error *err)
{
    struct nftables *nftables = calloc(1, sizeof *nftables);

    if (!nftables)
        return error_set(err, ENOMEM, "open nftables");
    nftables->context = nft_ctx_new(NFT_CTX_DEFAULT);
    if (!nftables->context || nft_ctx_buffer_output(nftables->context) != 0 ||
        nft_ctx_buffer_error(nftables->context) != 0) {
        nftables_free(nftables);
        return error_set(err, ENOMEM, "open nftables");
    }
    *ret_nftables = nftables;
    return 0;
}

struct nftables *nftables_free(struct nftables *nftables)
{
    if (!nftables)
        return NULL;
    if (nftables->context)
        nft_ctx_free(nftables->context);
    free(nftables);
    return NULL;
}

/* libnftables tells the reason only in words: those of strerror. */
static int code_of(const char *message)
{
    static const int codes[] = { ENOENT, EEXIST, EBUSY, EPERM, EOPNOTSUPP, ENOMEM, EINVAL };

    for (size_t i = 0; i < ARRAY_LENGTH(codes); i++)
        if (strstr(message, strerrordesc_np(codes[i])))
            return codes[i];
    return EIO;
}

static int run(struct nftables *nftables, const char *text, struct error *err)
{
    /* Read back even when empty: that is what resets the buffer. */
    int result = nft_run_cmd_from_buffer(nftables->context, text);
    const char *message = nft_ctx_get_error_buffer(nftables->context);
    const char *start;

    if (result == 0)
        return 0;
    start = message ? strstr(message, "Error: ") : NULL;
    start = start ? start + strlen("Error: ") : "unknown error";
    return error_set(err, code_of(start), "nftables: %.*s", (int)strcspn(start, "\n"), start);
}

int nftables_apply(struct nftables *nftables, const char *text, struct error *err)
{
    int result;

    if (!text)
        return error_set(err, ENOMEM, "nftables: out of memory");
    result = run(nftables, text, err);
    (void)nft_ctx_get_output_buffer(nftables->context);
    return result;
}

int nftables_query(struct nftables *nftables, const char *text, char **ret_json, struct error *err)
{
    char *copy = NULL;
    int result;

    nft_ctx_output_set_flags(nftables->context, NFT_CTX_OUTPUT_JSON);
    result = run(nftables, text, err);
    nft_ctx_output_set_flags(nftables->context, 0);
    if (result == 0) {
        copy = strdup(nft_ctx_get_output_buffer(nftables->context));
        if (!copy)
            return error_set(err, ENOMEM, "nftables: out of memory");
        *ret_json = copy;
    } else {
        (void)nft_ctx_get_output_buffer(nftables->context);
    }
    return result;
}
