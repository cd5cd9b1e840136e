/* net_tool.c - the network's integration test, inside a fresh network namespace.
 *
 *   net_tool RUN_DIR      (tests/integration/net makes the namespaces, and in the directory
 * another, "empty", and a file "resolv.conf", which is mounted over the host's)
 *
 * The "guests" are taps whose fds this process holds instead of a VMM: it writes and reads their
 * frames.  Bridges, packet filter, dnsmasq are the real ones. */
#include "tests/tools/net_tool.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

#define FENCE_MS 1000

void check(struct bed *bed, bool good, const char *name)
{
    if (good) {
        bed->passed++;
        printf("ok %s\n", name);
    } else {
        bed->failed++;
        printf("FAIL %s: %s\n", name, bed->err.message);
    }
    fflush(stdout);
    bed->err = (struct error){ 0 };
}

bool shell(const char *command)
{
    return system(command) == 0; /* NOLINT(cert-env33-c): text of this test only */
}

/* "[d]hcp" is not found in the shell's own command line. */
int dnsmasq_of(const struct bed *bed, uint32_t network_instance)
{
    char text[400];
    FILE *pipe;
    int pid = 0;

    snprintf(text, sizeof text, "pgrep -o -f -- '--[d]hcp-leasefile=%s/net/%x/leases'",
             bed->options.run_dir, network_instance);
    pipe = popen(text, "re"); /* NOLINT(cert-env33-c): text of this test only */
    if (pipe && fgets(text, sizeof text, pipe))
        pid = (int)strtol(text, NULL, 10);
    if (pipe)
        pclose(pipe);
    return pid;
}

const char *fault_of(struct bed *bed, uint32_t network_instance)
{
    struct network_fault fault = { .instance = network_instance };

    (void)net_host_tend(bed->host, &fault, 1, &bed->err);
    return fault.text;
}

bool shell_prints(const char *command, const char *text)
{
    FILE *pipe = popen(command, "re"); /* NOLINT(cert-env33-c): text of this test only */
    char output[65536];
    size_t got = pipe ? fread(output, 1, sizeof output - 1, pipe) : 0;

    output[got] = '\0';
    if (pipe)
        pclose(pipe);
    return strstr(output, text) != NULL;
}

double now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

struct network_config make_network(uint32_t instance, const char *id, const char *cidr, bool nat,
                                   bool peer_isolation)
{
    struct network_config network = { .instance = instance,
                                      .nat = nat,
                                      .peer_isolation = peer_isolation,
                                      .mtu = NETWORK_MTU_DEFAULT };

    snprintf(network.id, sizeof network.id, "%s", id);
    if (cidr_parse(cidr, &network.cidr, NULL) < 0)
        abort();
    return network;
}

void arrange(struct bed *bed, const char *command, const char *name)
{
    if (!shell(command))
        check(bed, false, name);
}

int restore(struct bed *bed)
{
    struct network_config networks[] = { bed->nat, bed->isolated, bed->peers };
    struct nic_config nics[] = { bed->a.nic, bed->b.nic, bed->c.nic, bed->d.nic, bed->e.nic };

    return net_host_restore(bed->host, networks, 3, nics, 5, &bed->err);
}

void measure(struct bed *bed, const struct nic_config *first, unsigned count, const char *what)
{
    struct nic_config nics[MEASURED_MAX];
    int fds[MEASURED_MAX];
    bool good = true;
    double start = now_ms();
    double up, closed;
    unsigned up_count = 0;

    for (unsigned i = 0; i < count && good; i++) {
        nics[i] = *first;
        nics[i].instance += i;
        nics[i].ipv4 += i;
        mac_derive(nics[i].instance, 0, nics[i].mac);
        snprintf(nics[i].hostname, sizeof nics[i].hostname, "many-%u", i);
        good = nic_up(bed->host, &nics[i], &fds[i], &bed->err) == 0;
        up_count += good;
    }
    up = now_ms();
    check(bed, good, "many nics come up");
    for (unsigned i = 0; i < up_count; i++)
        close(fds[i]);
    closed = now_ms();
    for (unsigned i = 0; i < up_count; i++)
        good = nic_down(bed->host, &nics[i], &bed->err) == 0 && good;
    check(bed, good, "and go down");
    printf("# per %s: up %.2f ms, close %.2f ms, down %.2f ms\n", what, (up - start) / count,
           (closed - up) / count, (now_ms() - closed) / count);
}

static void come_up(struct bed *bed, struct guest *guest)
{
    char name[128];

    snprintf(name, sizeof name, "nic of %s comes up", guest->nic.hostname);
    check(bed, nic_up(bed->host, &guest->nic, &guest->fd, &bed->err) == 0, name);
    if (guest->fd < 0)
        exit(1);
}

void join_fork(struct bed *bed, struct guest *guest, const struct guest *parent, uint32_t instance,
               uint32_t last_byte, const char *hostname)
{
    *guest = *parent;
    guest->fd = -1;
    guest->nic.instance = instance;
    guest->nic.ipv4 = (parent->nic.ipv4 & ~255u) + last_byte;
    mac_derive(instance, 0, guest->nic.mac);
    snprintf(guest->nic.hostname, sizeof guest->nic.hostname, "%s", hostname);
    guest->nic.forked = true;
    memcpy(guest->nic.inside_mac, parent->mac, MAC_BYTES);
    guest->nic.inside_ipv4 = parent->ipv4;
    come_up(bed, guest);
}

void join(struct bed *bed, struct guest *guest, const struct network_config *network,
          uint32_t instance, uint32_t last_byte, const char *hostname)
{
    *guest = (struct guest){
        .fd = -1,
        .gateway = cidr_gateway(&network->cidr),
        .nic = { .instance = instance,
                 .network_instance = network->instance,
                 .ipv4 = network->cidr.address + last_byte,
                 .owner = 64056,
                 .queues = 1 },
    };
    mac_derive(instance, 0, guest->nic.mac);
    memcpy(guest->mac, guest->nic.mac, MAC_BYTES);
    guest->ipv4 = guest->nic.ipv4;
    mac_derive_bridge(network->instance, guest->gateway_mac);
    snprintf(guest->nic.hostname, sizeof guest->nic.hostname, "%s", hostname);
    come_up(bed, guest);
}

void host_sends(const struct guest *guest, const char *text)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons(6000),
                              .sin_addr.s_addr = htonl(guest->nic.ipv4) };

    if (sendto(fd, text, strlen(text), 0, (struct sockaddr *)&to, sizeof to) < 0)
        perror("host sends");
    close(fd);
}

static const char *next_fence(struct bed *bed)
{
    static char text[32];

    snprintf(text, sizeof text, "fence-%06d", ++bed->fence);
    return text;
}

bool passes(struct bed *bed, const struct guest *from, const struct frame *frame,
            const struct guest *to, const char *text)
{
    struct frame heard;
    const char *fence = next_fence(bed);
    bool came = false;

    guest_drain(to);
    guest_send(from, frame);
    usleep(2000);
    host_sends(to, fence);
    while (guest_receive(to, &heard, FENCE_MS)) {
        came = came || frame_holds(&heard, text);
        if (frame_holds(&heard, fence))
            return came;
    }
    printf("# no fence\n");
    return true; /* neither way proven: fails tests of dropping; tests of passing check more */
}

int count_at_bridge(struct bed *bed, const struct guest *from, const struct frame *frame,
                    const char *text, int times)
{
    char name[IFNAMSIZ];
    uint8_t bytes[FRAME_MAX];
    struct frame last;
    const char *fence = next_fence(bed);
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
    struct sockaddr_ll where = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
    struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
    int came = 0;
    bool ended = false;

    network_bridge_name(PREFIX, from->nic.network_instance, name);
    where.sll_ifindex = (int)if_nametoindex(name);
    if (bind(fd, (struct sockaddr *)&where, sizeof where) < 0)
        perror("bind to bridge");
    for (int i = 0; i < times; i++)
        guest_send(from, frame);
    guest_udp(from, &last, from->gateway_mac, from->gateway, 9, fence);
    guest_send(from, &last);
    while (!ended && poll(&poll_fd, 1, FENCE_MS) > 0) {
        ssize_t got = recv(fd, bytes, sizeof bytes, 0);

        came += got > 0 && memmem(bytes, (size_t)got, text, strlen(text));
        ended = got > 0 && memmem(bytes, (size_t)got, fence, strlen(fence));
    }
    close(fd);
    if (!ended)
        printf("# no fence at the bridge\n");
    return ended ? came : -1;
}

bool reaches_bridge(struct bed *bed, const struct guest *from, const struct frame *frame,
                    const char *text)
{
    return count_at_bridge(bed, from, frame, text, 1) != 0;
}

static void bring_up(struct bed *bed)
{
    struct guest *all[] = { &bed->a, &bed->b, &bed->c, &bed->d, &bed->e };

    bed->nat = make_network(1, "front", "10.77.0.0/24", true, false);
    bed->isolated = make_network(2, "inner", "10.78.0.0/24", false, false);
    bed->peers = make_network(0x1a3, "peers", "10.79.0.0/24", true, true);
    check(bed, net_host_new(&bed->options, &bed->host, &bed->err) == 0, "host opens");
    check(bed, net_host_restore(bed->host, NULL, 0, NULL, 0, &bed->err) == 0, "restore of nothing");
    check(bed, network_up(bed->host, &bed->nat, &bed->err) == 0, "nat network comes up");
    check(bed, network_up(bed->host, &bed->nat, &bed->err) == 0, "and once more");
    check(bed, network_up(bed->host, &bed->isolated, &bed->err) == 0, "isolated network comes up");
    check(bed, network_up(bed->host, &bed->peers, &bed->err) == 0, "peer-isolated one comes up");
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        all[i]->fd = -1;
    join(bed, &bed->a, &bed->nat, 0x10, 2, "vm-a");
    join(bed, &bed->b, &bed->nat, 0x11, 3, "12");
    join(bed, &bed->c, &bed->isolated, 0x12, 2, "ignore");
    join(bed, &bed->d, &bed->peers, 0x13, 2, "vm-d");
    join(bed, &bed->e, &bed->peers, 0x14, 3, "vm-e");
}

static void run_basics(struct bed *bed)
{
    struct dhcp_answer answer;
    struct frame frame;

    check(bed, guest_resolves_arp(&bed->a, bed->a.gateway, 2000), "the gateway answers ARP");
    check(bed, !guest_resolves_arp(&bed->a, bed->c.gateway, 200),
          "the host does not answer ARP for its other addresses");
    answer = guest_asks_dhcp(&bed->a, 1, 0);
    check(bed, answer.type == 2 && answer.address == bed->a.nic.ipv4, "DHCP offers the address");
    check(bed, answer.router == bed->a.gateway && answer.dns == bed->a.gateway,
          "with router and DNS");
    answer = guest_asks_dhcp(&bed->a, 3, bed->a.nic.ipv4);
    check(bed, answer.type == 5 && strcmp(answer.domain, "front.internal") == 0,
          "DHCP acknowledges, with a domain");
    answer = guest_asks_dhcp(&bed->b, 1, 0);
    check(bed, answer.type == 2 && answer.address == bed->b.nic.ipv4,
          "a VM called \"12\" gets its address too");
    answer = guest_asks_dhcp(&bed->c, 1, 0);
    check(bed, answer.type == 2 && answer.address == bed->c.nic.ipv4 && answer.router == 0,
          "a VM called \"ignore\" too; isolated: without router");
    check(bed, guest_resolves(&bed->b, "vm-a.front.internal") == bed->a.nic.ipv4, "DNS by name");
    check(bed, guest_resolves(&bed->b, "vm-a") == bed->a.nic.ipv4, "DNS by short name");
    check(bed, guest_resolves(&bed->b, "vm-d") == 0, "DNS does not tell other networks' names");
    guest_udp(&bed->a, &frame, bed->b.nic.mac, bed->b.nic.ipv4, 7, "to-neighbour");
    check(bed, passes(bed, &bed->a, &frame, &bed->b, "to-neighbour"),
          "neighbours reach each other");
}

int main(int argc, char **argv)
{
    struct log log = { .fd = 2, .level = LOG_LEVEL_WARNING, .name = "net_tool" };
    struct bed bed = { 0 };
    char empty[300];

    if (argc != 2)
        return 2;
    snprintf(empty, sizeof empty, "%s/empty", argv[1]);
    bed.options = (struct net_options){
        .prefix = PREFIX,
        .run_dir = argv[1],
        .empty_root = empty,
        .run_dir_fd = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC),
        .dnsmasq_uid = DNSMASQ_UID,
        .dnsmasq_gid = DNSMASQ_UID,
        .log = &log,
    };
    bring_up(&bed);
    run_basics(&bed);
    run_spoofing(&bed);
    run_dhcp(&bed);
    run_host(&bed);
    run_outside(&bed);
    run_lifecycle(&bed);
    net_host_free(bed.host);
    printf("%d passed, %d failed, 0 skipped\n", bed.passed, bed.failed);
    return bed.failed ? 1 : 0;
}
