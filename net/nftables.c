#include "net/nftables.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <nftables/libnftables.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "net/firewall.h"
#include "net/netlink_socket.h"

#define BATCH_BYTES 4096 /* NFTABLES_ELEMENTS_MAX of them, added and removed */

struct nftables {
    struct nft_ctx *context;   /* owned */
    struct mnl_socket *socket; /* owned; for elements */
    uint32_t sequence;
};

/* Messages in the making. */
struct batch {
    size_t size;
    uint32_t first, next; /* sequence numbers */
    char bytes[BATCH_BYTES] __attribute__((aligned(8)));
};

int nftables_new(struct nftables **ret_nftables, struct error *err)
{
    struct nftables *nftables = calloc(1, sizeof *nftables);
    int result;

    if (!nftables)
        return error_set(err, ENOMEM, "open nftables");
    nftables->context = nft_ctx_new(NFT_CTX_DEFAULT);
    if (!nftables->context || nft_ctx_buffer_output(nftables->context) != 0 ||
        nft_ctx_buffer_error(nftables->context) != 0) {
        nftables_free(nftables);
        return error_set(err, ENOMEM, "open nftables");
    }
    result = netlink_socket_open(NETLINK_NETFILTER, "nftables", &nftables->socket, err);
    if (result < 0) {
        nftables_free(nftables);
        return result;
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
    if (nftables->socket)
        mnl_socket_close(nftables->socket);
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

/* --- elements, by netlink: the library would read every set back first, which costs more than all
 * the rest of a tap --- */

static struct nlmsghdr *batch_add(struct batch *batch, uint16_t type, uint16_t flags,
                                  uint8_t family, uint16_t resource)
{
    struct nlmsghdr *header = mnl_nlmsg_put_header(batch->bytes + batch->size);
    struct nfgenmsg *message = mnl_nlmsg_put_extra_header(header, sizeof *message);

    header->nlmsg_type = type;
    header->nlmsg_flags = NLM_F_REQUEST | flags;
    header->nlmsg_seq = batch->next++;
    message->nfgen_family = family;
    message->version = NFNETLINK_V0;
    message->res_id = htons(resource);
    return header;
}

static void batch_end_message(struct batch *batch, const struct nlmsghdr *header)
{
    batch->size += MNL_ALIGN(header->nlmsg_len);
}

static void batch_add_element(struct batch *batch, uint16_t type, const char *table,
                              const struct firewall_element *element)
{
    struct nlmsghdr *header = batch_add(batch, (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type),
                                        NLM_F_CREATE | NLM_F_ACK, NFPROTO_BRIDGE, 0);
    struct nlattr *list, *item, *key;

    mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_TABLE, table);
    mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_SET, element->set);
    list = mnl_attr_nest_start(header, NFTA_SET_ELEM_LIST_ELEMENTS);
    item = mnl_attr_nest_start(header, NFTA_LIST_ELEM);
    key = mnl_attr_nest_start(header, NFTA_SET_ELEM_KEY);
    mnl_attr_put(header, NFTA_DATA_VALUE, element->key_bytes, element->key);
    mnl_attr_nest_end(header, key);
    mnl_attr_nest_end(header, item);
    mnl_attr_nest_end(header, list);
    batch_end_message(batch, header);
}

static void batch_bracket(struct batch *batch, uint16_t type)
{
    batch_end_message(batch, batch_add(batch, type, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
}

/* One answer for each element, or one for the whole if it was refused.  Returns the first error. */
static int receive_answers(struct nftables *nftables, const struct batch *batch, size_t count)
{
    char bytes[BATCH_BYTES * 2] __attribute__((aligned(8)));
    int first = 0;

    while (count > 0) {
        ssize_t received = mnl_socket_recvfrom(nftables->socket, bytes, sizeof bytes);
        const struct nlmsghdr *header = (const struct nlmsghdr *)bytes;
        int left = (int)received;

        if (received < 0 && errno == EINTR)
            continue;
        if (received < 0)
            return -errno;
        for (; mnl_nlmsg_ok(header, left); header = mnl_nlmsg_next(header, &left)) {
            const struct nlmsgerr *answer = mnl_nlmsg_get_payload(header);

            if (header->nlmsg_type != NLMSG_ERROR ||
                header->nlmsg_seq - batch->first >= batch->next - batch->first)
                continue; /* of an earlier one that timed out */
            first = first ? first : answer->error;
            if (header->nlmsg_seq == batch->first)
                return first;
            count -= count > 0;
        }
    }
    return first;
}

/* Removing what may not be there: added first, in the same transaction. */
int nftables_change_elements(struct nftables *nftables, const char *table,
                             const struct firewall_element *elements, size_t count, bool remove,
                             struct error *err)
{
    struct batch batch = { .first = nftables->sequence, .next = nftables->sequence };
    int result;

    if (count > NFTABLES_ELEMENTS_MAX)
        return error_set(err, EINVAL, "nftables: %zu elements at once", count);
    batch_bracket(&batch, NFNL_MSG_BATCH_BEGIN);
    for (size_t i = 0; i < count; i++)
        batch_add_element(&batch, NFT_MSG_NEWSETELEM, table, &elements[i]);
    for (size_t i = 0; remove && i < count; i++)
        batch_add_element(&batch, NFT_MSG_DELSETELEM, table, &elements[i]);
    batch_bracket(&batch, NFNL_MSG_BATCH_END);
    nftables->sequence = batch.next;
    if (mnl_socket_sendto(nftables->socket, batch.bytes, batch.size) < 0)
        result = -errno;
    else
        result = receive_answers(nftables, &batch, remove ? 2 * count : count);
    if (result < 0)
        return error_set(err, result, "nftables: elements of %s: %s", table, strerror(-result));
    return 0;
}

/* --- what there is, by netlink, too: the library would read every set first --- */

/* -EINTR: there was a change meanwhile. */
static int receive_rules(struct nftables *nftables, uint32_t sequence, size_t *ret_count)
{
    char bytes[32768] __attribute__((aligned(8)));
    bool changed = false;

    *ret_count = 0;
    for (;;) {
        ssize_t received = mnl_socket_recvfrom(nftables->socket, bytes, sizeof bytes);
        const struct nlmsghdr *header = (const struct nlmsghdr *)bytes;
        int left = (int)received;

        if (received < 0 && errno != EINTR)
            return -errno;
        for (; received > 0 && mnl_nlmsg_ok(header, left); header = mnl_nlmsg_next(header, &left)) {
            if (header->nlmsg_seq != sequence)
                continue; /* of an earlier one that timed out */
            changed = changed || (header->nlmsg_flags & NLM_F_DUMP_INTR);
            if (header->nlmsg_type == NLMSG_ERROR)
                return ((const struct nlmsgerr *)mnl_nlmsg_get_payload(header))->error;
            if (header->nlmsg_type == NLMSG_DONE)
                return changed ? -EINTR : 0;
            ++*ret_count;
        }
    }
}

int nftables_count_rules(struct nftables *nftables, uint8_t family, const char *table,
                         size_t *ret_count, struct error *err)
{
    int result = -EINTR;

    for (int tries = 0; tries < 8 && result == -EINTR; tries++) {
        struct batch batch = { .first = nftables->sequence, .next = nftables->sequence };
        struct nlmsghdr *header =
            batch_add(&batch, NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETRULE, NLM_F_DUMP, family, 0);

        mnl_attr_put_strz(header, NFTA_RULE_TABLE, table);
        nftables->sequence = batch.next;
        result = mnl_socket_sendto(nftables->socket, header, header->nlmsg_len) < 0
                     ? -errno
                     : receive_rules(nftables, batch.first, ret_count);
    }
    return result < 0
               ? error_set(err, result, "nftables: rules of %s: %s", table, strerror(-result))
               : 0;
}
