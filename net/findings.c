#include "net/firewall.h"
#include "net/findings.h"

#include <jansson.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "net/nftables.h"
#include "net/sysctl.h"

#define XTABLES_BYTES_MAX (4u << 20)

void findings_add(struct findings *findings, const char *name, bool problem, const char *format,
                  ...)
{
    struct net_finding *finding;
    va_list values;

    if (findings->count == NET_FINDINGS_MAX)
        return;
    finding = &findings->items[findings->count++];
    memset(finding, 0, sizeof *finding);
    snprintf(finding->name, sizeof finding->name, "%s", name);
    finding->problem = problem;
    va_start(values, format);
    vsnprintf(finding->message, sizeof finding->message, format, values);
    va_end(values);
}

static void look_at_forwarding(struct findings *findings, int net_dir_fd)
{
    struct stat status;
    bool changed = fstatat(net_dir_fd, "ip_forward", &status, 0) == 0;
    int value = 0;

    if (sysctl_read("net/ipv4/ip_forward", &value, NULL) < 0)
        findings_add(findings, "ip-forward", true, "net.ipv4.ip_forward cannot be read");
    else if (value == 0)
        findings_add(findings, "ip-forward", changed,
                     changed ? "net.ipv4.ip_forward was switched off by somebody: guests of nat "
                               "networks do not reach the outside until it is 1"
                             : "net.ipv4.ip_forward is 0; it is set to 1 while there are nat "
                               "networks");
    else
        findings_add(findings, "ip-forward", false,
                     changed ? "net.ipv4.ip_forward was set to 1 by this agent and is put back "
                               "with the last nat network"
                             : "net.ipv4.ip_forward is 1, and not by this agent");
}

static void add_drop(struct findings *findings, const char *hook, const char *where)
{
    if (strcmp(hook, "forward") == 0)
        findings_add(findings, "forward-drop", true,
                     "%s drops forwarded packets by policy (Docker and ufw do that): accept those "
                     "from and to the bridges there, or guests do not reach the outside",
                     where);
    else
        findings_add(findings, "input-drop", true,
                     "%s drops incoming packets by policy (ufw does that): accept udp 53 and 67 "
                     "and tcp 53 from the bridges there, or guests get no address and no names",
                     where);
}

static void look_at_chain(struct findings *findings, const json_t *chain, const char *own)
{
    const char *family = json_string_value(json_object_get(chain, "family"));
    const char *table = json_string_value(json_object_get(chain, "table"));
    const char *name = json_string_value(json_object_get(chain, "name"));
    const char *hook = json_string_value(json_object_get(chain, "hook"));
    const char *policy = json_string_value(json_object_get(chain, "policy"));
    char where[120];

    if (!family || !table || !name || !hook || !policy || strcmp(table, own) == 0)
        return;
    if (strcmp(policy, "drop") != 0 || (strcmp(family, "ip") != 0 && strcmp(family, "inet") != 0))
        return;
    if (strcmp(hook, "forward") != 0 && strcmp(hook, "input") != 0)
        return;
    snprintf(where, sizeof where, "nftables chain %s %.40s %.40s", family, table, name);
    add_drop(findings, hook, where);
}

static bool is_chain_of(const json_t *chain, const char *family, const char *table)
{
    const char *its_family = json_string_value(json_object_get(chain, "family"));
    const char *its_table = json_string_value(json_object_get(chain, "table"));

    return its_family && its_table && strcmp(its_family, family) == 0 &&
           strcmp(its_table, table) == 0;
}

static void look_at_nftables(struct findings *findings, struct nftables *nftables,
                             const char *prefix, bool filtered)
{
    bool bridge = false, inet = false;
    auto_free char *text = NULL;
    json_t *list;
    const json_t *item;
    char own[FIREWALL_TABLE_NAME];
    size_t index;

    if (nftables_query(nftables, "list chains", &text, NULL) < 0)
        return;
    list = json_loads(text, 0, NULL);
    firewall_table_name(prefix, own);
    json_array_foreach(json_object_get(list, "nftables"), index, item)
    {
        const json_t *chain = json_object_get(item, "chain");
        const char *table = json_string_value(json_object_get(chain, "table"));
        const char *hook = json_string_value(json_object_get(chain, "hook"));

        bridge = bridge || is_chain_of(chain, "bridge", own);
        inet = inet || is_chain_of(chain, "inet", own);
        look_at_chain(findings, chain, own);
        if (table && hook && strcmp(table, "firewalld") == 0 && strcmp(hook, "forward") == 0)
            findings_add(findings, "firewalld", true,
                         "firewalld rejects what its zones do not name: put the bridges into the "
                         "zone \"trusted\"");
    }
    json_decref(list);
    if (filtered && !(bridge && inet))
        findings_add(findings, "firewall-missing", true,
                     "somebody removed the nftables tables %s: guests are not filtered until they "
                     "can be put back",
                     own);
}

/* The policy of a legacy iptables chain is the verdict of the rule at its underflow. */
static bool legacy_drops(int fd, unsigned int hook)
{
    struct ipt_getinfo info = { .name = "filter" };
    socklen_t size = sizeof info;
    auto_free struct ipt_get_entries *entries = NULL;
    const struct xt_standard_target *target;
    const struct ipt_entry *entry;

    if (getsockopt(fd, IPPROTO_IP, IPT_SO_GET_INFO, &info, &size) < 0 ||
        info.size > XTABLES_BYTES_MAX || !(info.valid_hooks & 1u << hook))
        return false;
    size = (socklen_t)(sizeof *entries + info.size);
    entries = calloc(1, size);
    if (!entries)
        return false;
    snprintf(entries->name, sizeof entries->name, "filter");
    entries->size = info.size;
    if (getsockopt(fd, IPPROTO_IP, IPT_SO_GET_ENTRIES, entries, &size) < 0 ||
        info.underflow[hook] + sizeof *entry + sizeof *target > info.size)
        return false;
    entry = (const void *)((const char *)entries->entrytable + info.underflow[hook]);
    if (info.underflow[hook] + entry->target_offset + sizeof *target > info.size)
        return false;
    target = (const void *)((const char *)entry + entry->target_offset);
    return target->target.u.user.name[0] == '\0' && target->verdict == -NF_DROP - 1;
}

static void look_at_legacy(struct findings *findings)
{
    FILE *tables = fopen("/proc/thread-self/net/ip_tables_names", "re");
    auto_close int fd = -1;
    char line[64];
    bool loaded = false;

    /* Asking for a table would load its module, so only one that is there is asked for. */
    while (tables && !loaded && fgets(line, sizeof line, tables))
        loaded = strcmp(line, "filter\n") == 0;
    if (tables)
        fclose(tables);
    fd = loaded ? socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW) : -1;
    if (fd < 0)
        return;
    if (legacy_drops(fd, NF_INET_FORWARD))
        add_drop(findings, "forward", "legacy iptables chain FORWARD");
    if (legacy_drops(fd, NF_INET_LOCAL_IN))
        add_drop(findings, "input", "legacy iptables chain INPUT");
}

static void look_at_bridge_netfilter(struct findings *findings)
{
    int value = 0;

    if (sysctl_read("net/bridge/bridge-nf-call-iptables", &value, NULL) == 0 && value)
        findings_add(findings, "bridge-netfilter", false,
                     "bridge-nf-call-iptables is 1: iptables rules of others (Docker) also see "
                     "packets between guests of one network");
}

void findings_collect(struct findings *findings, struct nftables *nftables, const char *prefix,
                      bool filtered, int net_dir_fd)
{
    look_at_forwarding(findings, net_dir_fd);
    look_at_nftables(findings, nftables, prefix, filtered);
    look_at_legacy(findings);
    look_at_bridge_netfilter(findings);
}
