/* findings.h - what on this host stands in the way of networks.  Network worker only. */
#pragma once
#include "net/network.h"

struct nftables;

struct findings {
    struct net_finding *items; /* borrowed, NET_FINDINGS_MAX */
    size_t count;
};

void findings_add(struct findings *findings, const char *name, bool problem, const char *format,
                  ...) __attribute__((format(printf, 4, 5)));

/* Forwarding; our tables, if they are to be there (filtered); other people's chains that drop by
 * policy what is forwarded or comes in (Docker, ufw, by nftables or by legacy iptables), firewalld,
 * br_netfilter. */
void findings_collect(struct findings *findings, struct nftables *nftables, const char *prefix,
                      bool filtered, int net_dir_fd);
