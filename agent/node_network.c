/* Networks as resources; the work is net/network.h's, on the network worker. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/labels.h"
#include "agent/node_change.h"
#include "base/error.h"
#include "base/json.h"
#include "base/log.h"
#include "base/worker.h"
#include "net/address_pool.h"

static const char *const mode_names[] = { "isolated", "nat" };

struct network_job {
    struct node *node;
    struct network *network;
    struct network_config config;
};

/* *ret_labels: borrowed. */
static int read_spec(const json_t *spec, struct network_config *config, const json_t **ret_labels,
                     struct error *err)
{
    struct json_reader reader;
    const char *cidr;

    json_reader_init(&reader, spec, "", err);
    cidr = json_read_string(&reader, "cidr", CIDR_TEXT, JSON_REQUIRED, NULL);
    config->nat = json_read_enum(&reader, "mode", mode_names, 2, JSON_OPTIONAL, 1) == 1;
    config->peer_isolation = json_read_bool(&reader, "peer_isolation", false);
    config->mtu = (uint16_t)json_read_integer(&reader, "mtu", NETWORK_MTU_MIN, NETWORK_MTU_MAX,
                                              JSON_OPTIONAL, NETWORK_MTU_DEFAULT);
    *ret_labels = labels_read(&reader);
    if (json_reader_end(&reader) < 0)
        return reader.result;
    if (cidr_parse(cidr, &config->cidr, err) < 0) {
        char reason[sizeof err->message];

        snprintf(reason, sizeof reason, "%s", err->message);
        return error_field(err, EINVAL, "cidr", "cidr: %.240s", reason);
    }
    return 0;
}

static int network_parse(const json_t *spec, struct resource **ret_resource, struct error *err)
{
    struct network *network = calloc(1, sizeof *network);
    const json_t *labels = NULL;
    char cidr[CIDR_TEXT];
    int result;

    if (!network)
        return error_no_memory(err);
    result = read_spec(spec, &network->config, &labels, err);
    if (result < 0) {
        free(network);
        return result;
    }
    cidr_format(&network->config.cidr, cidr);
    network->head.spec =
        json_pack("{s:s, s:s, s:b, s:i, s:o}", "cidr", cidr, "mode",
                  mode_names[network->config.nat], "peer_isolation", network->config.peer_isolation,
                  "mtu", network->config.mtu, "labels", labels_copy(labels));
    *ret_resource = &network->head;
    return 0;
}

static int network_reserve(struct node *node, struct resource *resource, struct error *err)
{
    struct network *network = (struct network *)resource;
    const struct network *other;

    if (node->tables[RESOURCE_NETWORK].count >= NETWORK_LIMIT)
        return error_set(err, EADDRNOTAVAIL, "a node has at most %d networks", NETWORK_LIMIT);
    for (size_t i = 0; (other = node_network_at(node, i)); i++) {
        if (cidr_overlaps(&network->config.cidr, &other->config.cidr))
            return error_field(err, EADDRINUSE, "cidr", "cidr: overlaps with network %s",
                               other->head.id);
    }
    return 0;
}

/* --- work --- */

static void network_failed(struct node *node, struct network *network, const char *work,
                           const struct error *err)
{
    snprintf(network->reason, sizeof network->reason, "%.150s", err->message);
    node->network_look = 0; /* it is found at the next tick */
    node_retry_later(node, &network->head, work, err);
    node_save(node, &network->head);
}

static int bring_up(void *argument, struct error *err)
{
    struct network_job *job = argument;

    return network_up(job->node->net, &job->config, err);
}

static int bring_down(void *argument, struct error *err)
{
    struct network_job *job = argument;

    return network_down(job->node->net, &job->config, err);
}

static void is_up(void *argument, int result, const struct error *err)
{
    struct network_job *job = argument;
    struct network *network = job->network;
    struct node *node = job->node;

    network->job_running = false;
    free(job);
    if (network->head.deleting) {
        network_ops.remove(node, &network->head);
        return;
    }
    if (result < 0) {
        network->state = PROGRESS_FAILED;
        network_failed(node, network, "bring up", err);
    } else {
        network->state = PROGRESS_READY;
        network->reason[0] = '\0';
        node_retry_over(&network->head);
        node_save(node, &network->head);
    }
    node_wake_vms(node);
}

static void is_down(void *argument, int result, const struct error *err)
{
    struct network_job *job = argument;
    struct node *node = job->node;

    job->network->job_running = false;
    if (result < 0)
        network_failed(node, job->network, "take down", err);
    else
        node_gone(node, &job->network->head);
    free(job);
}

static void submit(struct node *node, struct network *network, worker_run_fn *run,
                   worker_done_fn *done)
{
    struct network_job *job = calloc(1, sizeof *job);
    struct error err = { 0 };

    network->config.instance = network->head.instance;
    memcpy(network->config.id, network->head.id, sizeof network->config.id);
    if (!job) {
        error_set(&err, ENOMEM, "memory is short");
        network_failed(node, network, "queue its work", &err);
        return;
    }
    *job = (struct network_job){ .node = node, .network = network, .config = network->config };
    network->job_running = true;
    if (worker_submit(node->net_worker, run, done, job, &err) < 0)
        done(job, -err.code, &err);
}

static void network_begin(struct node *node, struct resource *resource)
{
    struct network *network = (struct network *)resource;

    network->state = PROGRESS_WORKING;
    if (!network->job_running)
        submit(node, network, bring_up, is_up);
}

static int network_may_remove(struct node *node, const struct resource *resource, bool force,
                              struct error *err)
{
    const struct vm *vm;

    (void)force;
    for (size_t i = 0; (vm = node_vm_at(node, i)); i++) {
        if (vm_count_nics(vm, resource->id) > 0)
            return error_set(err, EBUSY, "network %s is in use by vm %s", resource->id,
                             vm->head.id);
    }
    return 0;
}

static void network_remove(struct node *node, struct resource *resource)
{
    struct network *network = (struct network *)resource;

    if (!network->job_running)
        submit(node, network, bring_down, is_down);
}

/* --- tending: what others did to networks is made good, a dnsmasq that does not serve is started
 * again --- */

#define LOOK_TICKS         60 /* what others change on the host is found that late */
#define LOOK_TICKS_TROUBLE 5  /* and that it is over, so late */

struct tend_job {
    struct node *node;
    size_t count;
    struct network_fault faults[NETWORK_LIMIT];
    bool look; /* for findings */
    size_t finding_count;
    struct net_finding findings[NET_FINDINGS_MAX];
};

static int tend(void *argument, struct error *err)
{
    struct tend_job *job = argument;
    struct net_host *host = job->node->net;
    int result = net_host_tend(host, job->faults, job->count, err);

    if (job->look)
        job->finding_count = net_host_findings(host, job->findings);
    return result;
}

/* NULL if it has gone, or is worked on. */
static struct network *find_idle(const struct node *node, uint32_t instance)
{
    struct network *network;

    for (size_t i = 0; (network = node_network_at(node, i)); i++)
        if (network->head.instance == instance && !network->head.deleting && !network->job_running)
            return network;
    return NULL;
}

/* As at its creation: if that fails, the network says so, and it is tried again later and later.
 * Each restoration is an event, because it is counted.  filtered: the rules are back already. */
static void restore(struct node *node, const struct network_fault *fault, bool filtered)
{
    struct network *network = find_idle(node, fault->instance);

    if (!network || (!fault->text && !filtered))
        return;
    network->restarts++;
    if (!fault->text) {
        node_save(node, &network->head);
        return;
    }
    log_error(node->log, "network %s: its %s %s; it is restored", network->head.id, fault->part,
              fault->text);
    submit(node, network, bring_up, is_up);
}

static const struct net_finding *find_known(const struct node *node, const char *message)
{
    for (size_t i = 0; i < node->finding_count; i++)
        if (strcmp(node->findings[i].message, message) == 0)
            return &node->findings[i];
    return NULL;
}

/* Problems are logged at the second look: a tap has gone for a moment, too, when its VM ends. */
static void take_findings(struct node *node, struct tend_job *job)
{
    node->network_look = LOOK_TICKS;
    for (size_t i = 0; i < job->finding_count; i++) {
        struct net_finding *finding = &job->findings[i];
        const struct net_finding *known = find_known(node, finding->message);

        if (!finding->problem)
            continue;
        node->network_look = LOOK_TICKS_TROUBLE;
        finding->logged = known != NULL;
        if (known && !known->logged)
            log_warning(node->log, "%s: %s", finding->name, finding->message);
    }
    node->finding_count = job->finding_count;
    memcpy(node->findings, job->findings, sizeof node->findings);
}

static void tended(void *argument, int result, const struct error *err)
{
    struct tend_job *job = argument;
    struct node *node = job->node;
    const char *trouble = result < 0 ? err->message : "";

    if (result > 0)
        log_warning(node->log, "networks: somebody changed the packet filter's rules; they are "
                               "put back");
    if (trouble[0] && strcmp(trouble, node->network_trouble) != 0)
        log_error(node->log, "networks: %s; it is tried every second", trouble);
    snprintf(node->network_trouble, sizeof node->network_trouble, "%s", trouble);
    node->tending_networks = false;
    if (job->look)
        take_findings(node, job);
    for (size_t i = 0; i < job->count; i++)
        restore(node, &job->faults[i], result > 0);
    free(job);
}

void node_tend_networks(struct node *node)
{
    bool look = --node->network_look <= 0;
    const struct network *network;
    struct tend_job *job;
    struct error err = { 0 };

    job = (node_network_at(node, 0) || look) && !node->tending_networks ? calloc(1, sizeof *job)
                                                                        : NULL;
    if (!job)
        return; /* memory is short, or there is nothing to do: the next tick comes */
    job->node = node;
    job->look = look;
    for (size_t i = 0; (network = node_network_at(node, i)) && job->count < NETWORK_LIMIT; i++)
        if (network->state == PROGRESS_READY)
            job->faults[job->count++].instance = network->head.instance;
    if (worker_submit(node->net_worker, tend, tended, job, &err) == 0)
        node->tending_networks = true;
    else
        free(job);
}

/* --- status --- */

static unsigned addresses_used(const struct node *node, const char *id)
{
    const struct vm *vm;
    unsigned used = 0;

    for (size_t i = 0; (vm = node_vm_at(node, i)); i++)
        used += vm_count_nics(vm, id);
    return used;
}

static json_t *network_status(const struct node *node, const struct resource *resource, bool stored)
{
    const struct network *network = (const struct network *)resource;
    char bridge[IFNAMSIZ];
    char gateway[IPV4_TEXT];
    json_t *status;

    network_bridge_name(node->config->prefix, network->head.instance, bridge);
    ipv4_format(cidr_gateway(&network->config.cidr), gateway);
    status = json_pack(
        "{s:s, s:o, s:s, s:s, s:i, s:i, s:i}", "state", resource_state_name(resource), "reason",
        json_reason(network->reason), "bridge", bridge, "gateway", gateway, "addresses_used",
        stored ? 0 : (int)addresses_used(node, network->head.id), "addresses_total",
        (int)address_pool_capacity(&network->config.cidr), "restarts", (int)network->restarts);
    return status;
}

/* Its state, but for the count, is made anew at every start of the agent. */
static int network_restore(struct resource *resource, const json_t *status, struct error *err)
{
    const char *state = json_string_value(json_object_get(status, "state"));
    struct network *network = (struct network *)resource;

    (void)err;
    network->state = PROGRESS_WORKING;
    network->config.instance = network->head.instance;
    memcpy(network->config.id, network->head.id, sizeof network->config.id);
    network->restarts = (unsigned)json_integer_value(json_object_get(status, "restarts"));
    network->head.deleting = state && strcmp(state, "deleting") == 0;
    return 0;
}

const struct resource_ops network_ops = {
    .parse = network_parse,
    .reserve = network_reserve,
    .begin = network_begin,
    .may_remove = network_may_remove,
    .remove = network_remove,
    .patch = change_patch_spec,
    .apply = change_apply_spec,
    .status = network_status,
    .restore = network_restore,
    .free = resource_free,
};
