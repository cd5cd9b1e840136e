/* net_filter_tests.c - what a guest may not do: spoofing, the host, other networks, the outside. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/firewall.h"
#include "net/sysctl.h"
#include "tests/tools/net_tool.h"

#define OUTSIDE_PORT 7000

/* Dropped before the neighbour and before the bridge, whomever it is for. */
static void check_dropped(struct bed *bed, struct frame *frame, const char *text, const char *name)
{
    bool to_neighbour = passes(bed, &bed->a, frame, &bed->b, text);
    bool to_bridge;

    memcpy(frame->bytes, broadcast_mac, MAC_BYTES);
    to_bridge = reaches_bridge(bed, &bed->a, frame, text);
    if (to_neighbour || to_bridge)
        snprintf(bed->err.message, sizeof bed->err.message, "reached %s",
                 to_neighbour ? "the neighbour" : "the bridge");
    check(bed, !to_neighbour && !to_bridge, name);
}

static void put_text(struct frame *frame, const char *text)
{
    static const uint8_t padding[46];

    frame_put(frame, text, strlen(text));
    frame_put(frame, padding, sizeof padding);
}

static void check_addresses(struct bed *bed)
{
    const struct guest *a = &bed->a;
    const struct guest *b = &bed->b;
    uint8_t other[MAC_BYTES] = { 2, 9, 9, 9, 9, 9 };
    struct frame frame;

    frame_start(&frame, broadcast_mac, a->nic.mac, 0x0800);
    frame_udp(&frame, a->nic.ipv4, 1, 0xffffffff, 9, "truth-bcast", 11);
    check(bed, reaches_bridge(bed, a, &frame, "truth-bcast"), "(an honest broadcast is seen)");

    frame_start(&frame, b->nic.mac, other, 0x0800);
    frame_udp(&frame, a->nic.ipv4, 1, b->nic.ipv4, 9, "forged-mac", 10);
    check_dropped(bed, &frame, "forged-mac", "a forged MAC is dropped");
    frame_start(&frame, b->nic.mac, a->nic.mac, 0x0800);
    frame_udp(&frame, a->nic.ipv4 + 7, 1, b->nic.ipv4, 9, "forged-ip", 9);
    check_dropped(bed, &frame, "forged-ip", "a forged IPv4 address is dropped");
    frame_start(&frame, b->nic.mac, a->nic.mac, 0x0800);
    frame_udp(&frame, b->nic.ipv4, 1, b->nic.ipv4, 9, "stolen-ip", 9);
    check_dropped(bed, &frame, "stolen-ip", "the neighbour's IPv4 address is dropped");
    frame_start(&frame, b->nic.mac, a->nic.mac, 0x0806);
    frame_arp(&frame, 2, a->nic.mac, a->gateway, b->nic.ipv4);
    put_text(&frame, "arp-gateway");
    check_dropped(bed, &frame, "arp-gateway", "ARP in the gateway's name is dropped");
    frame_start(&frame, b->nic.mac, a->nic.mac, 0x0806);
    frame_arp(&frame, 2, other, a->nic.ipv4, b->nic.ipv4);
    put_text(&frame, "arp-mac");
    check_dropped(bed, &frame, "arp-mac", "ARP with another MAC inside is dropped");
    frame_start(&frame, b->nic.mac, other, 0x0806);
    frame_arp(&frame, 2, a->nic.mac, a->nic.ipv4, b->nic.ipv4);
    put_text(&frame, "arp-outer");
    check_dropped(bed, &frame, "arp-outer", "ARP from another MAC is dropped");
    frame_start(&frame, b->nic.mac, a->nic.mac, 0x0806);
    frame_arp(&frame, 2, a->nic.mac, a->nic.ipv4, b->nic.ipv4);
    put_text(&frame, "arp-honest");
    check(bed, passes(bed, a, &frame, b, "arp-honest"), "(honest ARP passes)");
}

static void check_types(struct bed *bed)
{
    static const struct {
        uint16_t type;
        const char *text;
        const char *name;
    } types[] = {
        { 0x8100, "tag-8021q", "a VLAN tag is dropped" },
        { 0x88a8, "tag-8021ad", "a service VLAN tag is dropped" },
        { 0x86dd, "six", "IPv6 is dropped" },
        { 0x0026, "llc-frame", "802.3 frames are dropped" },
        { 0x88cc, "lldp-frame", "LLDP is dropped" },
    };
    const struct guest *a = &bed->a;
    struct frame frame;

    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        static const uint8_t tag[] = { 0, 5, 8, 0 };

        frame_start(&frame, bed->b.nic.mac, a->nic.mac, types[i].type);
        if (types[i].type == 0x8100 || types[i].type == 0x88a8) {
            frame_put(&frame, tag, sizeof tag);
            frame_udp(&frame, a->nic.ipv4, 1, bed->b.nic.ipv4, 9, types[i].text,
                      strlen(types[i].text));
        } else {
            put_text(&frame, types[i].text);
        }
        check_dropped(bed, &frame, types[i].text, types[i].name);
    }
}

static void check_dhcp(struct bed *bed)
{
    const struct guest *a = &bed->a;
    const struct guest *b = &bed->b;
    char mark[] = { (char)0xab, (char)0xcd, (char)0xef, 1, 0 }; /* the request's xid */
    struct dhcp_answer answer;
    struct frame frame;

    frame_start(&frame, b->nic.mac, a->nic.mac, 0x0800);
    frame_udp(&frame, a->nic.ipv4, 67, b->nic.ipv4, 68, "rogue-dhcp", 10);
    check_dropped(bed, &frame, "rogue-dhcp", "a rogue DHCP server is not heard");
    frame_start(&frame, b->nic.mac, a->nic.mac, 0x0800);
    frame_udp(&frame, a->nic.ipv4, 1067, b->nic.ipv4, 68, "rogue-port", 10);
    check_dropped(bed, &frame, "rogue-port", "nor one at another port than a server's");
    guest_dhcp(a, &frame, 1, b->nic.mac, 0);
    check(bed, !reaches_bridge(bed, a, &frame, mark), "DHCP for the neighbour's MAC is dropped");
    guest_dhcp(a, &frame, 1, a->nic.mac, 0);
    check(bed, reaches_bridge(bed, a, &frame, mark), "(DHCP for its own MAC passes)");
    guest_dhcp(a, &frame, 1, a->nic.mac, 0);
    check(bed, !passes(bed, a, &frame, b, mark), "neighbours do not hear DHCP requests");
    guest_dhcp(a, &frame, 4 /* decline */, b->nic.mac, b->nic.ipv4);
    guest_send(a, &frame);
    answer = guest_asks_dhcp(b, 1, 0);
    check(bed, answer.address == b->nic.ipv4, "nobody declines the neighbour's address");
}

void run_spoofing(struct bed *bed)
{
    check_addresses(bed);
    check_types(bed);
    check_dhcp(bed);
}

static int listen_tcp(uint32_t address, uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons(port),
                              .sin_addr.s_addr = htonl(address) };

    if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 5) < 0)
        perror("listen");
    return fd;
}

static int bind_udp(uint32_t address, uint16_t port)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons(port),
                              .sin_addr.s_addr = htonl(address) };

    if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0)
        perror("bind");
    return fd;
}

static bool socket_hears(int fd, int timeout_ms)
{
    struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
    char text[64];

    return poll(&poll_fd, 1, timeout_ms) > 0 && recv(fd, text, sizeof text, 0) > 0;
}

static void check_replies(struct bed *bed)
{
    struct guest *a = &bed->a;
    int fd = bind_udp(0, 6100);
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons(5000),
                              .sin_addr.s_addr = htonl(a->nic.ipv4) };
    struct frame frame;

    guest_drain(a);
    if (sendto(fd, "host-asks", 9, 0, (struct sockaddr *)&to, sizeof to) < 0)
        perror("sendto");
    check(bed, guest_hears(a, "host-asks", &frame, 500), "the host reaches the guest");
    guest_udp(a, &frame, a->gateway_mac, a->gateway, 6100, "guest-answers");
    guest_send(a, &frame);
    check(bed, socket_hears(fd, 500), "and hears its answer");
    close(fd);
}

static void check_side_doors(struct bed *bed, int udp)
{
    static const uint8_t link_local[MAC_BYTES] = { 1, 0x80, 0xc2, 0, 0, 0x0e };
    static const uint8_t stp[MAC_BYTES] = { 1, 0x80, 0xc2, 0, 0, 0 };
    static const uint8_t slow[MAC_BYTES] = { 1, 0x80, 0xc2, 0, 0, 2 };
    struct guest *a = &bed->a;
    struct frame frame;

    guest_udp(a, &frame, link_local, a->gateway, 8081, "link-local");
    guest_send(a, &frame);
    check(bed, !socket_hears(udp, 100), "nor by frames to a link-local group address");
    guest_udp(a, &frame, stp, a->gateway, 8081, "stp-group");
    guest_send(a, &frame);
    check(bed, !socket_hears(udp, 100), "nor by frames to the STP address");
    guest_udp(a, &frame, slow, a->gateway, 8081, "slow-group");
    guest_send(a, &frame);
    check(bed, !socket_hears(udp, 100), "nor by frames to the slow protocols' address");
    guest_udp(a, &frame, broadcast_mac, 0xffffffff, 8081, "all-ones");
    guest_send(a, &frame);
    guest_udp(a, &frame, broadcast_mac, a->gateway | 255, 8081, "net-bcast");
    guest_send(a, &frame);
    check(bed, !socket_hears(udp, 100), "nor by broadcast");
    guest_udp(a, &frame, a->gateway_mac, bed->c.gateway, 8081, "other-gateway");
    guest_send(a, &frame);
    check(bed, !socket_hears(udp, 100), "nor by another network's gateway address");
}

void run_host(struct bed *bed)
{
    struct guest *a = &bed->a;
    int tcp = listen_tcp(0, 8080);
    int udp = bind_udp(0, 8081);
    struct frame frame;

    check(bed, guest_connects(a, 53, 1), "DNS by TCP is reached");
    check(bed, !guest_connects(a, 8080, 1), "the host's TCP services are not");
    check(bed, !guest_connects(a, 1, 1), "nor closed ports: no reset");
    guest_udp(a, &frame, a->gateway_mac, a->gateway, 8081, "udp-service");
    guest_send(a, &frame);
    check(bed, !socket_hears(udp, 100), "the host's UDP services are not reached");
    guest_drain(a);
    frame_start(&frame, a->gateway_mac, a->nic.mac, 0x0800);
    frame_ping(&frame, a->nic.ipv4, a->gateway);
    guest_send(a, &frame);
    check(bed, !guest_receive(a, &frame, 100), "the host does not answer ping");
    check_side_doors(bed, udp);
    check_replies(bed);
    close(tcp);
    close(udp);
}

/* The outside: another namespace behind a veth pair; every datagram comes back with the address
 * that it was seen from. */
static void serve_outside(int ready_fd, int go_fd)
{
    char byte = 0;
    char buffer[64];
    int fd;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (unshare(CLONE_NEWNET) < 0 || write(ready_fd, "r", 1) != 1 || read(go_fd, &byte, 1) != 1)
        _exit(1);
    if (!shell("ip addr add 192.0.2.2/24 dev veth-out && ip addr add 169.254.169.254/32 dev "
               "veth-out && ip link set veth-out up && ip route add 10.0.0.0/8 via 192.0.2.1"))
        _exit(1);
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(OUTSIDE_PORT) };

    if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || write(ready_fd, "r", 1) != 1)
        _exit(1);
    for (;;) {
        struct sockaddr_in from = { 0 };
        socklen_t size = sizeof from;
        ssize_t got = recvfrom(fd, buffer, sizeof buffer, 0, (struct sockaddr *)&from, &size);
        char text[64];

        if (got == 6 && memcmp(buffer, "attack", 6) == 0) {
            from.sin_addr.s_addr = inet_addr("10.77.0.2");
            from.sin_port = htons(5000);
            snprintf(text, sizeof text, "from-outside");
        } else {
            snprintf(text, sizeof text, "seen %s", inet_ntoa(from.sin_addr));
        }
        (void)sendto(fd, text, strlen(text), 0, (struct sockaddr *)&from, sizeof from);
    }
}

static pid_t start_outside(struct bed *bed)
{
    int ready[2];
    int go[2];
    char command[200];
    char byte;
    bool good;
    pid_t pid;

    if (pipe2(ready, O_CLOEXEC) < 0 || pipe2(go, O_CLOEXEC) < 0)
        abort();
    pid = fork();
    if (pid == 0)
        serve_outside(ready[1], go[0]);
    snprintf(command, sizeof command,
             "ip link add veth-in type veth peer name veth-out && ip link set veth-out netns %d && "
             "ip addr add 192.0.2.1/24 dev veth-in && ip link set veth-in up && "
             "ip route add 169.254.169.254/32 dev veth-in",
             (int)pid);
    /* Until the kernel has seen that the link is up, which may take it a second, it drops. */
    good = read(ready[0], &byte, 1) == 1 && shell(command) && write(go[1], "g", 1) == 1 &&
           read(ready[0], &byte, 1) == 1 &&
           shell("for i in $(seq 50); do ip -o link show veth-in | grep -q 'state UP' && exit; "
                 "sleep 0.1; done; exit 1");
    check(bed, good, "(the outside is there)");
    return pid;
}

static void ask_outside(const struct guest *guest, uint32_t address)
{
    struct frame frame;

    guest_drain(guest);
    guest_udp(guest, &frame, guest->gateway_mac, address, OUTSIDE_PORT, "hello");
    guest_send(guest, &frame);
}

bool outside_answers(const struct guest *guest, uint32_t address, const char *expected)
{
    struct frame frame;

    ask_outside(guest, address);
    return guest_hears(guest, expected, &frame, 10000);
}

bool outside_is_silent(const struct guest *guest, uint32_t address)
{
    struct frame frame;

    ask_outside(guest, address);
    return !guest_hears(guest, "seen", &frame, 1000);
}

static void check_isolation(struct bed *bed)
{
    struct guest *d = &bed->d;
    struct guest *e = &bed->e;
    struct frame frame;

    guest_udp(&bed->a, &frame, bed->a.gateway_mac, bed->c.nic.ipv4, 9, "to-other-net");
    check(bed, !passes(bed, &bed->a, &frame, &bed->c, "to-other-net"),
          "another network is not reached");
    guest_udp(&bed->c, &frame, bed->c.gateway_mac, bed->a.nic.ipv4, 9, "from-isolated");
    check(bed, !passes(bed, &bed->c, &frame, &bed->a, "from-isolated"),
          "nor from an isolated network");
    guest_udp(d, &frame, e->nic.mac, e->nic.ipv4, 9, "peer-direct");
    check(bed, !passes(bed, d, &frame, e, "peer-direct"), "isolated peers: not directly");
    guest_udp(d, &frame, d->gateway_mac, e->nic.ipv4, 9, "peer-routed");
    check(bed, !passes(bed, d, &frame, e, "peer-routed"), "not by the gateway");
    guest_udp(d, &frame, broadcast_mac, 0xffffffff, 9, "peer-bcast");
    check(bed, !passes(bed, d, &frame, e, "peer-bcast"), "not by broadcast");
    check(bed, guest_resolves(d, "vm-e") == e->nic.ipv4, "but DNS still answers them");
}

/* With br_netfilter frames between neighbours pass the inet table: they must still pass. */
static void check_bridge_netfilter(struct bed *bed, int value)
{
    struct frame frame;
    int fd = open("/proc/sys/net/bridge/bridge-nf-call-iptables", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return; /* no such module: nothing to test */
    dprintf(fd, "%d\n", value);
    close(fd);
    guest_udp(&bed->a, &frame, bed->b.nic.mac, bed->b.nic.ipv4, 7, "to-neighbour");
    check(bed, passes(bed, &bed->a, &frame, &bed->b, "to-neighbour"),
          value ? "with br_netfilter neighbours pass" : "without br_netfilter neighbours pass");
    guest_udp(&bed->d, &frame, bed->e.nic.mac, bed->e.nic.ipv4, 7, "to-peer");
    check(bed, !passes(bed, &bed->d, &frame, &bed->e, "to-peer"),
          value ? "with br_netfilter isolated peers do not"
                : "without br_netfilter isolated peers do not");
    guest_udp(&bed->d, &frame, bed->d.gateway_mac, bed->e.nic.ipv4, 9, "peer-routed");
    check(bed, !passes(bed, &bed->d, &frame, &bed->e, "peer-routed"),
          value ? "with br_netfilter not by the gateway"
                : "without br_netfilter not by the gateway");
}

/* Each of these is a connection to the host; nobody answers. */
static void check_share(struct bed *bed)
{
    struct guest *a = &bed->a;
    struct frame frame;

    check(bed,
          sysctl_write("net/netfilter/nf_conntrack_udp_timeout", 600, &bed->err) == 0 &&
              outside_answers(a, OUTSIDE, "seen 192.0.2.1"),
          "(a connection is open)");
    for (unsigned i = 0; i <= FIREWALL_CONNECTIONS; i++) {
        frame_start(&frame, a->gateway_mac, a->nic.mac, 0x0800);
        frame_udp(&frame, a->nic.ipv4, (uint16_t)(10000 + i), OUTSIDE, 9, "opens", 5);
        guest_send(a, &frame);
    }
    frame_start(&frame, a->gateway_mac, a->nic.mac, 0x0800);
    frame_udp(&frame, a->nic.ipv4, 9000, OUTSIDE, OUTSIDE_PORT, "hello", 5);
    guest_drain(a);
    guest_send(a, &frame);
    check(bed, !guest_hears(a, "seen", &frame, 150), "a guest opens no more than its share");
    check(bed, outside_answers(a, OUTSIDE, "seen 192.0.2.1"), "what is open goes on");
    check(bed, outside_answers(&bed->d, OUTSIDE, "seen 192.0.2.1"), "others open theirs");
}

void run_outside(struct bed *bed)
{
    pid_t pid = start_outside(bed);
    struct frame frame;

    check(bed, outside_answers(&bed->a, OUTSIDE, "seen 192.0.2.1"),
          "nat: the outside is reached, by masquerade");
    check(bed, outside_answers(&bed->d, OUTSIDE, "seen 192.0.2.1"), "and by isolated peers");
    check(bed, outside_is_silent(&bed->c, OUTSIDE), "isolated: the outside is not reached");
    check(bed, outside_is_silent(&bed->a, 0xa9fea9fe),
          "the metadata service of a cloud is not reached");
    guest_drain(&bed->a);
    guest_udp(&bed->b, &frame, bed->b.gateway_mac, OUTSIDE, OUTSIDE_PORT, "attack");
    guest_send(&bed->b, &frame);
    check(bed, !guest_hears(&bed->a, "from-outside", &frame, 150),
          "the outside does not reach guests by itself");
    check_isolation(bed);
    check_bridge_netfilter(bed, 1);
    check_bridge_netfilter(bed, 0);
    run_fork(bed);
    check_share(bed);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}
