/* net_fork_tests.c - guests that were copied while they ran: two of one parent, with its MAC and
 * address inside, each in a namespace of its own.  Called while there is an outside. */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/fork_rules.h"
#include "tests/tools/net_tool.h"

#define ETHERNET_BYTES 14

struct forks {
    struct guest a1, a2; /* of a, which runs on */
    struct guest c1, c2; /* of c: isolated */
    struct guest d1;     /* of d: peer isolation */
};

static const char dhcp_mark[] = { (char)0xab, (char)0xcd, (char)0xef, 1, 0 }; /* the xid */

static uint32_t source_of(const struct frame *frame)
{
    uint32_t wire;

    memcpy(&wire, frame->bytes + ETHERNET_BYTES + 12, sizeof wire);
    return ntohl(wire);
}

static uint32_t target_of(const struct frame *frame)
{
    uint32_t wire;

    memcpy(&wire, frame->bytes + ETHERNET_BYTES + 16, sizeof wire);
    return ntohl(wire);
}

/* A datagram to this address comes to `to`, and from whom `to` should see it come. */
static bool reaches(const struct guest *from, uint32_t address, const struct guest *to,
                    uint32_t seen_from, const char *text)
{
    struct frame frame;

    guest_drain(to);
    guest_udp(from, &frame, from->gateway_mac, address, 7, text);
    guest_send(from, &frame);
    if (!guest_hears(to, text, &frame, 500))
        return false;
    return source_of(&frame) == seen_from && target_of(&frame) == to->ipv4 &&
           memcmp(frame.bytes, to->mac, MAC_BYTES) == 0;
}

static void check_basics(struct bed *bed, struct guest *fork, const char *name)
{
    struct frame frame;

    printf("# %s\n", name);
    check(bed, guest_resolves_arp(fork, fork->gateway, 300), "the gateway answers ARP");
    check(bed, guest_resolves_arp(fork, bed->b.ipv4, 300), "and in a neighbour's name");
    check(bed, !guest_resolves_arp(fork, fork->ipv4, 200), "but not in the guest's own");
    check(bed, guest_resolves(fork, "vm-a.front.internal") == bed->a.ipv4, "DNS answers");
    check(bed, guest_connects(fork, 53, 1), "by TCP too");
    check(bed, guest_resolves(&bed->b, fork->nic.hostname) == fork->nic.ipv4,
          "and names its outside address to neighbours");
    guest_drain(fork);
    host_sends(fork, "host-to-fork");
    check(bed, guest_hears(fork, "host-to-fork", &frame, 500) && target_of(&frame) == fork->ipv4,
          "the host reaches it by its outside address");
    check(bed, outside_answers(fork, OUTSIDE, "seen 192.0.2.1"), "it reaches the outside");
    check(bed, outside_is_silent(fork, 0xa9fea9fe), "but not the metadata service of a cloud");
    check(bed, !guest_connects(fork, 8080, 1), "nor the host's services");
}

static void check_dhcp(struct bed *bed, struct guest *fork)
{
    struct dhcp_answer answer = guest_asks_dhcp(fork, 1, 0);
    uint8_t other[MAC_BYTES] = { 2, 9, 9, 9, 9, 9 };
    uint8_t zero[2] = { 0, 0 };
    uint32_t wire = htonl(fork->ipv4);
    struct frame frame;

    check(bed,
          answer.type == 2 && answer.address == fork->ipv4 && answer.router == fork->gateway &&
              answer.dns == fork->gateway && strcmp(answer.domain, "front.internal") == 0,
          "DHCP offers the inside address, and all as before");
    answer = guest_asks_dhcp(fork, 3, fork->ipv4);
    check(bed, answer.type == 5 && answer.address == fork->ipv4, "and acknowledges it");
    guest_dhcp(fork, &frame, 3, fork->mac, 0);
    memcpy(frame.bytes, fork->gateway_mac, MAC_BYTES);
    frame.size = ETHERNET_BYTES;
    struct frame bootp = frame;
    guest_dhcp(fork, &bootp, 3, fork->mac, 0);
    memcpy(bootp.bytes + 42 + 12, &wire, sizeof wire); /* ciaddr */
    frame_udp(&frame, fork->ipv4, 68, fork->gateway, 67, bootp.bytes + 42, bootp.size - 42);
    guest_drain(fork);
    guest_send(fork, &frame);
    check(bed,
          guest_hears(fork, dhcp_mark, &frame, 10000) && frame.bytes[42] == 2 &&
              memcmp(frame.bytes + 42 + 240, "\x35\1\5", 3) == 0 &&
              target_of(&frame) == fork->ipv4 && source_of(&frame) == fork->gateway &&
              memcmp(frame.bytes, fork->mac, MAC_BYTES) == 0 &&
              memcmp(frame.bytes + 40, zero, 2) == 0,
          "a lease is renewed");
    guest_dhcp(fork, &frame, 1, fork->mac, 0);
    frame.bytes[42 + 10] = 0x80; /* the broadcast flag */
    guest_drain(fork);
    guest_send(fork, &frame);
    check(bed,
          guest_hears(fork, dhcp_mark, &frame, 10000) && target_of(&frame) == 0xffffffff &&
              memcmp(frame.bytes, broadcast_mac, MAC_BYTES) == 0,
          "by broadcast if it asks for that");
    guest_dhcp(fork, &frame, 1, other, 0);
    guest_drain(fork);
    guest_send(fork, &frame);
    check(bed, !guest_hears(fork, dhcp_mark, &frame, 100), "another MAC address is not answered");
    guest_dhcp(fork, &frame, 7 /* release */, fork->mac, 0);
    check(bed, !reaches_bridge(bed, fork, &frame, dhcp_mark), "nothing of it goes outside");
}

/* Multicast listener reports would come within a second (RFC 3810 section 9.11). */
static void check_silence(struct bed *bed, const struct guest *fork)
{
    struct frame frame;
    bool ipv6 = false;

    while (guest_receive(fork, &frame, 1100))
        ipv6 = ipv6 || (frame.bytes[12] == 0x86 && frame.bytes[13] == 0xdd);
    check(bed, !ipv6, "its namespace has no IPv6");
}

static void check_neighbours(struct bed *bed, struct forks *f)
{
    struct frame frame;

    check(bed, reaches(&f->a1, f->a2.nic.ipv4, &f->a2, f->a1.nic.ipv4, "fork-to-fork"),
          "two forks of one parent: one reaches the other by its outside address");
    check(bed, reaches(&f->a2, f->a1.nic.ipv4, &f->a1, f->a2.nic.ipv4, "and-back"), "and back");
    check(bed, reaches(&f->a1, bed->b.ipv4, &bed->b, f->a1.nic.ipv4, "fork-to-b"),
          "a fork reaches a neighbour");
    guest_udp(&bed->b, &frame, f->a1.nic.mac, f->a1.nic.ipv4, 7, "b-to-fork");
    guest_drain(&f->a1);
    guest_send(&bed->b, &frame);
    check(bed, guest_hears(&f->a1, "b-to-fork", &frame, 500) && source_of(&frame) == bed->b.ipv4,
          "a neighbour reaches a fork");
    guest_udp(&f->a1, &frame, bed->b.mac, bed->b.ipv4, 7, "by-old-mac");
    check(bed, passes(bed, &f->a1, &frame, &bed->b, "by-old-mac"),
          "also by the MAC address that it knew");
    guest_udp(&bed->a, &frame, f->a1.nic.mac, f->a1.nic.ipv4, 7, "parent-to-fork");
    guest_drain(&f->a1);
    guest_send(&bed->a, &frame);
    check(bed,
          guest_hears(&f->a1, "parent-to-fork", &frame, 500) && source_of(&frame) == f->a1.nic.ipv4,
          "its parent reaches it, under the fork's outside address");
    check(bed, reaches(&f->a1, f->a1.nic.ipv4, &bed->a, f->a1.nic.ipv4, "fork-to-parent"),
          "by which the fork reaches its parent");
}

/* New connections are refused at the limit, old ones go on. */
static void check_limit(struct bed *bed, const struct guest *fork)
{
    uint16_t port = 0;
    int heard = 0;
    struct frame frame;
    struct frame seen;

    guest_drain(&bed->b);
    for (int i = 0; i < FORK_CONNECTIONS + 500; i++) {
        port = htons((uint16_t)(10000 + i));
        guest_udp(fork, &frame, fork->gateway_mac, bed->b.ipv4, 7, "many-ports");
        memcpy(frame.bytes + ETHERNET_BYTES + 20, &port, sizeof port);
        guest_send(fork, &frame);
        while (guest_receive(&bed->b, &seen, 0))
            heard += frame_holds(&seen, "many-ports");
    }
    while (guest_receive(&bed->b, &seen, 50))
        heard += frame_holds(&seen, "many-ports");
    if (heard > FORK_CONNECTIONS || heard < FORK_CONNECTIONS - 100)
        snprintf(bed->err.message, sizeof bed->err.message, "%d passed", heard);
    check(bed, heard <= FORK_CONNECTIONS && heard >= FORK_CONNECTIONS - 100,
          "a fork has so many connections and no more");
    check(bed, !passes(bed, fork, &frame, &bed->b, "many-ports"), "(no new one)");
    check(bed, guest_resolves(fork, "vm-a") == bed->a.ipv4, "but keeps those that were answered");
}

/* "Port unreachable" about a datagram that the fork sent: a neighbour writes what it saw. */
static void check_errors(struct bed *bed, struct guest *fork)
{
    struct guest *b = &bed->b;
    uint8_t icmp[8 + 28] = { 3, 3 };
    uint32_t sum = 0;
    uint16_t folded;
    struct frame frame;
    struct frame seen;

    guest_udp(fork, &frame, fork->gateway_mac, b->ipv4, 9, "what-port");
    guest_drain(b);
    guest_send(fork, &frame);
    check(bed, guest_hears(b, "what-port", &seen, 500), "(a fork tries a port)");
    memcpy(icmp + 8, seen.bytes + ETHERNET_BYTES, 28);
    for (size_t i = 0; i < sizeof icmp; i += 2)
        sum += (uint32_t)icmp[i] << 8 | icmp[i + 1];
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    folded = htons((uint16_t)~sum);
    memcpy(icmp + 2, &folded, 2);
    frame_start(&frame, fork->nic.mac, b->mac, 0x0800);
    frame_ipv4(&frame, b->ipv4, fork->nic.ipv4, IPPROTO_ICMP, sizeof icmp);
    frame_put(&frame, icmp, sizeof icmp);
    guest_drain(fork);
    guest_send(b, &frame);
    while (guest_receive(fork, &seen, 500)) {
        uint32_t about;

        memcpy(&about, seen.bytes + ETHERNET_BYTES + 20 + 8 + 12, sizeof about);
        if (seen.bytes[23] == IPPROTO_ICMP && seen.bytes[34] == 3) {
            check(bed, ntohl(about) == fork->ipv4, "an ICMP error is about the inside address");
            return;
        }
    }
    check(bed, false, "an ICMP error comes");
}

static void check_forged(struct bed *bed, const struct guest *fork, const struct frame *frame,
                         const char *text, const char *name)
{
    struct frame copy = *frame;
    bool to_neighbour = passes(bed, fork, &copy, &bed->b, text);

    memcpy(copy.bytes, broadcast_mac, MAC_BYTES);
    check(bed, !to_neighbour && !reaches_bridge(bed, fork, &copy, text), name);
}

/* Other frames may come: the host goes on answering a connection that was given up. */
static bool hears_kind(const struct guest *guest, uint16_t type, uint8_t protocol)
{
    struct frame frame;

    while (guest_receive(guest, &frame, 100))
        if (frame.bytes[12] == type >> 8 && frame.bytes[13] == (type & 255) &&
            (type == 0x0806 || frame.bytes[23] == protocol))
            return true;
    return false;
}

static void check_spoofing(struct bed *bed, const struct guest *fork)
{
    static const uint8_t text_padding[46];
    static const uint8_t tag[] = { 0, 5, 8, 0 };
    static const uint16_t types[] = { 0x86dd, 0x88cc, 0x0026 };
    uint8_t other[MAC_BYTES] = { 2, 9, 9, 9, 9, 9 };
    const uint32_t addresses[] = { fork->ipv4 + 77, fork->nic.ipv4, bed->b.ipv4, fork->gateway };
    struct frame frame;

    frame_start(&frame, fork->gateway_mac, other, 0x0800);
    frame_udp(&frame, fork->ipv4, 1, bed->b.ipv4, 9, "fork-mac", 8);
    check_forged(bed, fork, &frame, "fork-mac", "a forged MAC is dropped");
    frame_start(&frame, fork->gateway_mac, fork->nic.mac, 0x0800);
    frame_udp(&frame, fork->ipv4, 1, bed->b.ipv4, 9, "fork-out-mac", 12);
    check_forged(bed, fork, &frame, "fork-out-mac", "so is its outside MAC");
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        frame_start(&frame, fork->gateway_mac, fork->mac, 0x0800);
        frame_udp(&frame, addresses[i], 1, bed->b.ipv4, 9, "fork-ip", 7);
        check_forged(bed, fork, &frame, "fork-ip", "a forged address is dropped");
    }
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        frame_start(&frame, fork->gateway_mac, fork->mac, types[i]);
        frame_put(&frame, "fork-type", 9);
        frame_put(&frame, text_padding, sizeof text_padding);
        check_forged(bed, fork, &frame, "fork-type", "other protocols are dropped");
    }
    frame_start(&frame, fork->gateway_mac, fork->mac, 0x8100);
    frame_put(&frame, tag, sizeof tag);
    frame_udp(&frame, fork->ipv4, 1, bed->b.ipv4, 9, "fork-tag", 8);
    check_forged(bed, fork, &frame, "fork-tag", "a VLAN tag is dropped");
    frame_start(&frame, broadcast_mac, fork->mac, 0x0800);
    frame_udp(&frame, fork->ipv4, 67, bed->b.ipv4, 68, "fork-rogue", 10);
    check_forged(bed, fork, &frame, "fork-rogue", "a rogue DHCP server is not heard");
    frame_start(&frame, broadcast_mac, fork->mac, 0x0806);
    frame_arp(&frame, 1, fork->mac, bed->b.ipv4, fork->gateway);
    guest_drain(fork);
    guest_send(fork, &frame);
    check(bed, !hears_kind(fork, 0x0806, 0), "ARP in another's name is not answered");
    frame_start(&frame, fork->gateway_mac, fork->mac, 0x0800);
    frame_ping(&frame, fork->ipv4, fork->gateway);
    guest_drain(fork);
    guest_send(fork, &frame);
    check(bed, !hears_kind(fork, 0x0800, IPPROTO_ICMP), "the host does not answer ping");
}

static void check_modes(struct bed *bed, struct forks *f)
{
    struct dhcp_answer answer = guest_asks_dhcp(&f->c1, 1, 0);

    check(bed, answer.address == f->c1.ipv4 && answer.router == 0,
          "isolated: DHCP without a router");
    check(bed, outside_is_silent(&f->c1, OUTSIDE), "the outside is not reached");
    check(bed, guest_resolves(&f->c1, "ignore") == bed->c.ipv4, "DNS answers");
    check(bed, reaches(&f->c1, f->c2.nic.ipv4, &f->c2, f->c1.nic.ipv4, "isolated-forks"),
          "forks reach each other");
    check(bed, !reaches(&f->c1, bed->a.ipv4, &bed->a, f->c1.nic.ipv4, "c-to-a"),
          "another network is not reached");
    check(bed, outside_answers(&f->d1, OUTSIDE, "seen 192.0.2.1"),
          "peer isolation: the outside is reached");
    check(bed, !reaches(&f->d1, bed->e.ipv4, &bed->e, f->d1.nic.ipv4, "d1-to-e"), "a peer is not");
    check(bed, !reaches(&f->d1, f->d1.nic.ipv4, &bed->d, f->d1.nic.ipv4, "d1-to-d"),
          "nor its parent");
    check(bed, !reaches(&bed->e, f->d1.nic.ipv4, &f->d1, bed->e.ipv4, "e-to-d1"), "nor by a peer");
}

static bool is_gone(const char *interface, int wait_ms)
{
    while (if_nametoindex(interface) != 0 && wait_ms-- > 0)
        usleep(1000);
    return if_nametoindex(interface) == 0;
}

static void check_restore(struct bed *bed, struct forks *f)
{
    struct network_config networks[] = { bed->nat, bed->isolated, bed->peers };
    struct nic_config nics[] = { bed->a.nic, bed->b.nic, bed->c.nic, bed->d.nic, bed->e.nic,
                                 f->a1.nic,  f->a2.nic,  f->c1.nic,  f->c2.nic };

    bed->host = net_host_free(bed->host);
    check(bed, reaches(&f->a1, f->a2.nic.ipv4, &f->a2, f->a1.nic.ipv4, "no-agent"),
          "without an agent forks talk on");
    check(bed, net_host_new(&bed->options, &bed->host, &bed->err) == 0, "the agent starts again");
    check(bed, net_host_restore(bed->host, networks, 3, nics, 9, &bed->err) == 0, "and restores");
    check(bed, reaches(&f->a1, f->a2.nic.ipv4, &f->a2, f->a1.nic.ipv4, "new-agent"),
          "forks talk on");
    check(bed, is_gone(PREFIX "-84-0", 0), "one that no row names is cut off");
    arrange(bed, "ip link del " PREFIX "-b1", "(a bridge is lost)");
    check(bed,
          net_host_restore(bed->host, networks, 3, nics, 9, &bed->err) == 0 &&
              reaches(&f->a1, f->a2.nic.ipv4, &f->a2, f->a1.nic.ipv4, "new-bridge"),
          "a lost bridge comes back with its forks");
}

static void check_removal(struct bed *bed, struct forks *f)
{
    struct guest *all[] = { &f->a1, &f->a2, &f->c1, &f->c2, &f->d1 };
    bool good = true;

    check(bed, nic_down(bed->host, &f->a1.nic, &bed->err) == 0 && is_gone(PREFIX "-80-0", 0),
          "a fork goes down while its VMM lives: it is cut off");
    close(f->a2.fd);
    check(bed, is_gone(PREFIX "-81-0", 5000), "a VMM ends: namespace and pair go by themselves");
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        good = nic_down(bed->host, &all[i]->nic, &bed->err) == 0 && good;
    close(f->a1.fd);
    close(f->c1.fd);
    close(f->c2.fd);
    close(f->d1.fd);
    check(bed, good, "all go down");
    check(bed, !shell_prints("ip -br link", PREFIX "-8"), "no interface is left");
    check(bed, !shell_prints("nft list ruleset", PREFIX "-8"), "nor an element");
    check(bed, !shell_prints("ip neigh show nud permanent", "10.77.0.8"), "nor a neighbour");
}

static int start_without_forks(struct bed *bed)
{
    int result = net_host_new(&bed->options, &bed->host, &bed->err);

    return result < 0 ? result : restore(bed);
}

/* An agent that is killed while it makes a fork; it says when it begins and when it has done. */
static pid_t start_doomed(struct bed *bed, const struct nic_config *nic, int said[2])
{
    pid_t pid = fork();
    char byte;
    int fd;

    if (pid == 0) {
        close(said[0]);
        if (start_without_forks(bed) < 0 || write(said[1], "b", 1) != 1)
            _exit(1);
        if (nic_up(bed->host, nic, &fd, &bed->err) == 0 && write(said[1], "d", 1) == 1)
            pause();
        _exit(1);
    }
    close(said[1]);
    if (read(said[0], &byte, 1) != 1)
        check(bed, false, "(an agent makes a fork)");
    return pid;
}

/* From before the first to after the last step, a fraction of a step apart. */
static void check_kills(struct bed *bed, const struct guest *parent)
{
    struct nic_config nic = parent->nic;
    int halfway = 0;
    int done = 0;
    bool gone = true;
    bool swept = true;

    nic.instance = 0x88;
    nic.ipv4 += 200;
    nic.mac[4] = 0x88;
    nic.forked = true;
    memcpy(nic.inside_mac, parent->mac, MAC_BYTES);
    nic.inside_ipv4 = parent->ipv4;
    bed->host = net_host_free(bed->host);
    for (int microseconds = 0; microseconds < 40000 && done < 3; microseconds += 250) {
        int said[2];
        char byte;
        pid_t pid;

        if (pipe(said) < 0)
            abort();
        pid = start_doomed(bed, &nic, said);
        usleep((useconds_t)microseconds);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        if (read(said[0], &byte, 1) == 1)
            done++;
        else
            halfway++;
        close(said[0]);
        gone = is_gone(PREFIX "-88-0", 5000) && gone;
        swept = start_without_forks(bed) == 0 && swept;
        swept = !shell_prints("nft list ruleset; ip -br link; ip neigh show nud permanent",
                              PREFIX "-88-0") &&
                swept;
        swept = !shell_prints("ip neigh show nud permanent", "10.77.0.202") && swept;
        bed->host = net_host_free(bed->host);
    }
    printf("# killed %d times on the way, %d times after it\n", halfway, done);
    check(bed, gone, "an agent is killed while it forks: the pair goes by itself");
    check(bed, swept, "and the rest when the next one starts");
    check(bed, start_without_forks(bed) == 0, "(an agent starts)");
}

/* The namespace lives as long as any of them. */
static void check_queues(struct bed *bed, struct nic_config *nic)
{
    int fds[NIC_QUEUES_MAX];

    nic->queues = NIC_QUEUES_MAX;
    if (nic_up(bed->host, nic, fds, &bed->err) < 0) {
        check(bed, false, "a fork of eight queues");
        return;
    }
    for (int i = 0; i < NIC_QUEUES_MAX - 1; i++)
        close(fds[i]);
    check(bed, !is_gone(PREFIX "-8f-0", 500), "a fork of eight queues lives as long as one");
    close(fds[NIC_QUEUES_MAX - 1]);
    check(bed, is_gone(PREFIX "-8f-0", 5000), "and no longer");
    check(bed, nic_down(bed->host, nic, &bed->err) == 0, "it goes down");
}

static void check_refusals(struct bed *bed, const struct guest *fork)
{
    struct nic_config nic = fork->nic;
    int fd = -1;

    check(bed, nic_up(bed->host, &nic, &fd, &bed->err) == -EBUSY, "a fork is not taken again");
    nic.instance = 0x8f;
    nic.ipv4 += 9;
    nic.mac[4] = 0x8f;
    nic.inside_ipv4 = fork->gateway;
    check(bed, nic_up(bed->host, &nic, &fd, &bed->err) == -EINVAL, "inside, the gateway's address");
    nic.inside_ipv4 = bed->c.ipv4;
    check(bed, nic_up(bed->host, &nic, &fd, &bed->err) == -EINVAL, "another network's");
    nic.inside_ipv4 = nic.ipv4;
    check(bed, nic_up(bed->host, &nic, &fd, &bed->err) == -EINVAL, "and its own are refused");
    nic.inside_ipv4 = fork->ipv4;
    memcpy(nic.inside_mac, fork->gateway_mac, MAC_BYTES);
    check(bed, nic_up(bed->host, &nic, &fd, &bed->err) == -EINVAL, "so is the gateway's MAC");
    arrange(bed, "ip link add " PREFIX "-8f-0 type bridge", "(somebody has the name)");
    memcpy(nic.inside_mac, fork->mac, MAC_BYTES);
    check(bed, nic_up(bed->host, &nic, &fd, &bed->err) == -EBUSY && !is_gone(PREFIX "-8f-0", 0),
          "and a name that somebody has");
    arrange(bed, "ip link del " PREFIX "-8f-0", "(nobody has the name)");
    check(bed, fd == -1, "no fd comes of all that");
    check_queues(bed, &nic);
}

static void measure_forks(struct bed *bed)
{
    struct nic_config nic = bed->a.nic;

    nic.instance = 0x2000;
    nic.ipv4 = bed->nat.cidr.address + 100;
    nic.forked = true;
    nic.inside_ipv4 = bed->a.ipv4;
    memcpy(nic.inside_mac, bed->a.mac, MAC_BYTES);
    measure(bed, &nic, 50, "forked nic");
    check(bed, !shell_prints("ip -br link", PREFIX "-20"), "no interface is left");
}

void run_fork(struct bed *bed)
{
    struct forks f;

    join_fork(bed, &f.a1, &bed->a, 0x80, 80, "fork-a1");
    join_fork(bed, &f.a2, &bed->a, 0x81, 81, "fork-a2");
    join_fork(bed, &f.c1, &bed->c, 0x82, 82, "fork-c1");
    join_fork(bed, &f.c2, &bed->c, 0x83, 83, "fork-c2");
    join_fork(bed, &f.d1, &bed->d, 0x84, 84, "fork-d1");
    check_silence(bed, &f.d1);
    check_basics(bed, &f.a1, "fork-a1");
    check_basics(bed, &f.a2, "fork-a2");
    check_dhcp(bed, &f.a1);
    check_neighbours(bed, &f);
    check_errors(bed, &f.a1);
    check_spoofing(bed, &f.a1);
    check_modes(bed, &f);
    check_limit(bed, &f.a2);
    check(bed, reaches(&f.a1, f.a2.nic.ipv4, &f.a2, f.a1.nic.ipv4, "to-full"),
          "others still reach it");
    check_refusals(bed, &f.a1);
    check_restore(bed, &f);
    check_removal(bed, &f);
    check_kills(bed, &bed->a);
    measure_forks(bed);
}
