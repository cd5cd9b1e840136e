/* nftables.h - the one who applies rule sets: libnftables, kept open.  Network worker only. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct firewall_element;
struct nftables; /* opaque */

/* Works on the network namespace of the calling thread. */
int nftables_new(struct nftables **ret_nftables, struct error *err);
struct nftables *nftables_free(struct nftables *nftables); /* accepts NULL, returns NULL */

/* One transaction: all of `text`, or nothing.  The error's code is the kernel's where it names one
 * ("No such file or directory": -ENOENT), else EIO. */
int nftables_apply(struct nftables *nftables, const char *text, struct error *err);
/* Adds `count` elements (at most NFTABLES_ELEMENTS_MAX) to sets of a table of the bridge family, or
 * removes them, as one transaction; what is there, or is not, is no error.  -ENOENT: no such table.
 */
#define NFTABLES_ELEMENTS_MAX 4
int nftables_change_elements(struct nftables *nftables, const char *table,
                             const struct firewall_element *elements, size_t count, bool remove,
                             struct error *err);
/* Runs a list command; *ret_json is malloc'ed. */
int nftables_query(struct nftables *nftables, const char *text, char **ret_json, struct error *err);
/* How many rules a table has, of whatever chains; 0 if it is not there.  family: NFPROTO_...
 */
int nftables_count_rules(struct nftables *nftables, uint8_t family, const char *table,
                         size_t *ret_count, struct error *err);
