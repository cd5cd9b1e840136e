/* nftables.h - the one who applies rule sets: libnftables, kept open.  Network worker only. */
#pragma once

struct error;
struct nftables; /* opaque */

/* Works on the network namespace of the calling thread. */
int nftables_new(struct nftables **ret_nftables, struct error *err);
struct nftables *nftables_free(struct nftables *nftables); /* accepts NULL, returns NULL */

/* One transaction: all of `text`, or nothing.  The error's code is the kernel's where it names one
 * ("No such file or directory": -ENOENT), else EIO. */
int nftables_apply(struct nftables *nftables, const char *text, struct error *err);
/* Runs a list command; *ret_json is malloc'ed. */
int nftables_query(struct nftables *nftables, const char *text, char **ret_json, struct error *err);
