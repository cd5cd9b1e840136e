/* dhcp_directory.h - the files that we share with one dnsmasq.  Network worker only.
 *
 * <net dir>/<instance, hex>/   ours; dnsmasq's group may look
 *   hosts/<tap>  names/<tap>   ours, read by dnsmasq
 *   resolv.conf                ours, a copy of the host's, for networks with a way out
 *   leases                     dnsmasq's
 *   log                        its stderr, from the last start on */
#pragma once
#include <sys/stat.h>
#include "net/dhcp.h"

#define DHCP_RELOAD_FILE "reload" /* in hosts/, a comment: read at start and on SIGHUP only */

struct dhcp_directory {
    int fd;               /* owned */
    int hosts_fd;         /* owned */
    int names_fd;         /* owned */
    bool has_resolver;    /* it was copied, when it was: */
    struct stat resolver; /* the host's; zeroes = there was none */
    uid_t uid;            /* dnsmasq's */
    gid_t gid;
    char prefix[INTERFACE_PREFIX_MAX + 1];
};

void dhcp_directory_init(struct dhcp_directory *directory);
void dhcp_directory_close(struct dhcp_directory *directory);

/* With entries for exactly these nics of the network, and no leases: an authoritative server makes
 * them anew when guests renew. */
int dhcp_directory_make(struct dhcp_directory *directory, const struct dhcp_options *options,
                        const struct network_config *network, const struct nic_config *nics,
                        size_t nic_count, struct error *err);
/* Idempotent; errors are left to the next start. */
void dhcp_directory_remove(int net_dir_fd, uint32_t instance);

int dhcp_directory_add(struct dhcp_directory *directory, const struct network_config *network,
                       const struct nic_config *nic, struct error *err);
/* Idempotent. */
int dhcp_directory_delete(struct dhcp_directory *directory, const struct nic_config *nic,
                          struct error *err);

/* Copies the host's resolv.conf if it is not what was copied last; an empty one if there is none.
 */
int dhcp_directory_follow_resolver(struct dhcp_directory *directory, struct error *err);

/* Emptied, for stderr.  Owned fd. */
int dhcp_directory_open_log(const struct dhcp_directory *directory, struct error *err);
/* Its last line, without control characters. */
void dhcp_directory_last_log(const struct dhcp_directory *directory, char *ret_line, size_t size);

bool dhcp_directory_find_lease(const struct dhcp_directory *directory, uint32_t address,
                               uint8_t ret_mac[MAC_BYTES]);
/* While dnsmasq does not run. */
void dhcp_directory_drop_lease(const struct dhcp_directory *directory, uint32_t address);
