/* net_lifecycle_tests.c - restarts, repairs, failures, reuse, and what is left after all. */
#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "net/sysctl.h"
#include "tests/tools/net_tool.h"
#include "tests/unit/passing_time.h"

static bool neighbours_talk(struct bed *bed)
{
    struct frame frame;

    guest_udp(&bed->a, &frame, bed->b.nic.mac, bed->b.nic.ipv4, 7, "still-here");
    return passes(bed, &bed->a, &frame, &bed->b, "still-here");
}

static bool spoofing_passes(struct bed *bed)
{
    struct frame frame;

    frame_start(&frame, bed->b.nic.mac, bed->a.nic.mac, 0x0800);
    frame_udp(&frame, bed->a.nic.ipv4 + 9, 1, bed->b.nic.ipv4, 9, "forged-again", 12);
    return passes(bed, &bed->a, &frame, &bed->b, "forged-again");
}

static bool has_ended(int pidfd)
{
    struct pollfd poll_fd = { .fd = pidfd, .events = POLLIN };

    return poll(&poll_fd, 1, 10000) > 0;
}

/* Owned pidfd. */
static int open_dnsmasq(const struct bed *bed, uint32_t network_instance)
{
    return (int)syscall(SYS_pidfd_open, dnsmasq_of(bed, network_instance), 0);
}

static bool exists(const char *interface)
{
    return if_nametoindex(interface) != 0;
}

/* The agent is killed and starts again, with less and with more in the kernel than in its rows. */
static void check_restart(struct bed *bed)
{
    int old_dnsmasq = open_dnsmasq(bed, 1);
    struct dhcp_answer answer;

    bed->host = net_host_free(bed->host);
    check(bed, neighbours_talk(bed), "without an agent guests talk on");
    arrange(bed,
            "ip link add " PREFIX "-b99 type bridge && ip tuntap add " PREFIX "-99-0 mode tap && "
            "ip link add " PREFIX "x-b1 type bridge && ip link add " PREFIX "-zz type bridge && "
            "nft add element bridge warren_" PREFIX " sources '{ \"" PREFIX
            "-10-0\" . 02:00:00:00:10:00 . 10.77.0.11 }'",
            "(strays are made)");
    check(bed, spoofing_passes(bed), "(a stray rule lets a forged address pass)");
    check(bed, net_host_new(&bed->options, &bed->host, &bed->err) == 0, "the agent starts again");
    check(bed, restore(bed) == 0, "and restores");
    check(bed, !spoofing_passes(bed), "the stray rule is gone");
    check(bed, !exists(PREFIX "-b99") && !exists(PREFIX "-99-0"), "stray bridge and tap are gone");
    check(bed, exists(PREFIX "x-b1") && exists(PREFIX "-zz"), "what is not ours is not touched");
    check(bed, neighbours_talk(bed), "running guests keep their taps");
    check(bed, has_ended(old_dnsmasq), "the old dnsmasq has ended");
    answer = guest_asks_dhcp(&bed->a, 3, bed->a.nic.ipv4);
    check(bed, answer.type == 5 && answer.address == bed->a.nic.ipv4, "a lease is renewed");
    check(bed, restore(bed) == 0 && neighbours_talk(bed), "restoring twice is the same");
    close(old_dnsmasq);
    arrange(bed, "ip link del " PREFIX "x-b1; ip link del " PREFIX "-zz", "(strays are unmade)");
}

static bool finds(struct bed *bed, const char *name, const char *message)
{
    struct net_finding findings[NET_FINDINGS_MAX];
    size_t count = net_host_findings(bed->host, findings);

    for (size_t i = 0; i < count; i++)
        if (strcmp(findings[i].name, name) == 0 && strstr(findings[i].message, message))
            return true;
    return false;
}

static bool is_served(struct bed *bed)
{
    return guest_asks_dhcp(&bed->a, 1, 0).address == bed->a.nic.ipv4 &&
           guest_resolves(&bed->a, "vm-a") == bed->a.nic.ipv4;
}

static void check_sabotage(struct bed *bed)
{
    static const struct {
        const char *command, *fault, *name;
    } sabotages[] = {
        { "ip link del " PREFIX "-b1", "has gone", "a bridge that was deleted" },
        { "ip link del " PREFIX "-b1 && ip link add " PREFIX "-b1 type bridge", "is another one",
          "a bridge that was replaced" },
        { "ip link set " PREFIX "-b1 down", "is down", "a bridge that was set down" },
        { "ip addr flush dev " PREFIX "-b1", "has lost its address", "a bridge's address" },
        { "ip link set " PREFIX "-10-0 nomaster", "is no longer connected as it was",
          "a tap that was taken off its bridge" },
        { "ip link set " PREFIX "-10-0 down", "is no longer connected as it was",
          "a tap that was set down" },
        { "ip link set " PREFIX "-10-0 nomaster && ip link set " PREFIX "-10-0 master " PREFIX
          "-b1",
          "is no longer connected as it was", "a tap that was put on its bridge by hand" },
    };
    char name[120];

    check(bed, !fault_of(bed, 1), "a network that nobody touched has no fault");
    for (size_t i = 0; i < sizeof sabotages / sizeof sabotages[0]; i++) {
        const char *fault = shell(sabotages[i].command) ? fault_of(bed, 1) : "(not done)";

        snprintf(name, sizeof name, "%s is a fault", sabotages[i].name);
        check(bed, fault && strcmp(fault, sabotages[i].fault) == 0, name);
        snprintf(name, sizeof name, "%s is mended", sabotages[i].name);
        check(bed,
              network_up(bed->host, &bed->nat, &bed->err) == 0 && !fault_of(bed, 1) &&
                  neighbours_talk(bed) && !spoofing_passes(bed) && is_served(bed) &&
                  shell_prints("ip neigh show dev " PREFIX "-b1 nud permanent", "10.77.0.3 "),
              name);
    }
    arrange(bed, "ip link set " PREFIX "-13-0 type bridge_slave isolated off",
            "(a peer is let out)");
    check(bed,
          fault_of(bed, 0x1a3) && network_up(bed->host, &bed->peers, &bed->err) == 0 &&
              shell_prints("ip -d link show " PREFIX "-13-0", "isolated on") &&
              !fault_of(bed, 0x1a3),
          "a peer's isolation is mended");
}

static void check_lost_bridge(struct bed *bed)
{
    check(bed, !finds(bed, "bridge-missing", "") && !finds(bed, "tap-missing", ""),
          "all bridges and taps are found");
    arrange(bed, "ip link set " PREFIX "-10-0 name " PREFIX "x-0 && ip link del " PREFIX "-b1",
            "(a bridge is lost, and a tap)");
    check(bed, finds(bed, "bridge-missing", bed->nat.id), "a lost bridge is found");
    check(bed, finds(bed, "tap-missing", bed->a.nic.hostname), "a lost tap is found");
    arrange(bed, "ip link set " PREFIX "x-0 name " PREFIX "-10-0", "(the tap is back)");
    check(bed, restore(bed) == 0 && neighbours_talk(bed),
          "a lost bridge comes back with its ports");
}

static void check_repair(struct bed *bed)
{
    struct guest g;

    check(bed, net_host_tend(bed->host, NULL, 0, &bed->err) == 0, "nothing to repair");
    arrange(bed, "nft flush ruleset", "(the ruleset is flushed)");
    check(bed, spoofing_passes(bed), "(without tables a forged address passes)");
    check(bed, finds(bed, "firewall-missing", ""), "missing tables are found");
    check(bed, net_host_tend(bed->host, NULL, 0, &bed->err) == 1 && !spoofing_passes(bed),
          "repair puts the tables back");
    arrange(bed, "nft flush ruleset", "(the ruleset is flushed)");
    join(bed, &g, &bed->nat, 0x30, 30, "late");
    check(bed, !spoofing_passes(bed), "so does the next change");
    close(g.fd);
    check(bed, nic_down(bed->host, &g.nic, &bed->err) == 0, "a nic whose VMM is gone goes down");
    check(bed, !shell_prints("nft list ruleset", PREFIX "-30-0"),
          "its elements go, though a whole table brought them");
}

/* Somebody else's server is at the gateway's address before dnsmasq is. */
static void check_taken_address(struct bed *bed)
{
    int other = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons(53),
                              .sin_addr.s_addr = htonl(cidr_gateway(&bed->nat.cidr)) };

    check(bed, bind(other, (struct sockaddr *)&at, sizeof at) == 0, "(the address is taken)");
    check(bed,
          network_up(bed->host, &bed->nat, &bed->err) < 0 && strstr(bed->err.message, "in use"),
          "dnsmasq does not start, and it is said why");
    check(bed, fault_of(bed, 1) && finds(bed, "dhcp-down", bed->nat.id), "that is found");
    close(other);
}

static void check_dnsmasq_death(struct bed *bed)
{
    auto_close int pidfd = open_dnsmasq(bed, 1);
    char command[100];
    struct dhcp_answer answer;
    int pid = dnsmasq_of(bed, 1);

    snprintf(command, sizeof command, "kill -9 %d", pid);
    check(bed, pid > 0 && shell(command) && has_ended(pidfd), "the death of dnsmasq is seen");
    check_taken_address(bed);
    check(bed, network_up(bed->host, &bed->nat, &bed->err) == 0, "dnsmasq is started again");
    answer = guest_asks_dhcp(&bed->b, 1, 0);
    check(bed, answer.address == bed->b.nic.ipv4, "and knows its guests");
    snprintf(command, sizeof command, "/proc/%d", pid);
    check(bed, access(command, F_OK) < 0, "no zombie is left");
}

/* Looks after network 1 so many times, with so many seconds before each.  How often its dnsmasq was
 * started again. */
static int tend(struct bed *bed, int times, int seconds)
{
    int restarts = 0;

    for (int i = 0; i < times; i++) {
        passed_s += seconds;
        if (fault_of(bed, 1) && network_up(bed->host, &bed->nat, &bed->err) == 0)
            restarts++;
    }
    return restarts;
}

/* Its DNS takes what came before, in order. */
static void await_answers(struct bed *bed)
{
    if (guest_resolves(&bed->a, "vm-a") != bed->a.nic.ipv4)
        printf("# DNS did not answer\n");
}

/* It is asked to read its files where no answers come. */
static void check_doubt(struct bed *bed)
{
    auto_close int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    char events[4096];
    char path[300];
    bool doubted = false;

    snprintf(path, sizeof path, "%s/net/1/hosts/reload", bed->options.run_dir);
    if (inotify_add_watch(watch, path, IN_OPEN) < 0)
        perror("watch the file");
    for (int i = 0; i < 12; i++) {
        doubted = doubted || tend(bed, 1, 5) > 0 || read(watch, events, sizeof events) > 0;
        await_answers(bed);
    }
    check(bed, !doubted, "a dnsmasq that answers is not doubted");
    arrange(bed,
            "nft 'add table inet deaf; add chain inet deaf input { type filter hook input "
            "priority 0; }; "
            "add rule inet deaf input iif lo udp dport 53 drop'",
            "(somebody drops the questions)");
    check(bed, tend(bed, 12, 5) == 0 && read(watch, events, sizeof events) > 0,
          "one that no question reaches is asked otherwise, and left alone");
    arrange(bed, "nft delete table inet deaf", "(nobody drops the questions)");
}

static void check_dnsmasq_hang(struct bed *bed)
{
    int pid = dnsmasq_of(bed, 1);
    struct dhcp_answer answer;
    int restarts = 0;

    check_doubt(bed);
    for (int i = 0; i < 3; i++) {
        kill(pid, SIGSTOP);
        restarts += tend(bed, 4, 5);
        kill(pid, SIGCONT);
        await_answers(bed);
        restarts += tend(bed, 1, 1);
    }
    check(bed, restarts == 0, "one that is slow is left alone");
    kill(pid, SIGSTOP);
    check(bed, tend(bed, 12, 60) == 0, "so is one where the agent itself was held up");
    check(bed, tend(bed, 7, 5) == 1, "one that hangs is started again");
    check(bed, dnsmasq_of(bed, 1) != pid, "as another process");
    answer = guest_asks_dhcp(&bed->b, 1, 0);
    check(bed, answer.address == bed->b.nic.ipv4, "and knows its guests");
    check(bed, tend(bed, 1, 5) == 0, "once is enough");
}

static void check_dnsmasq_failure(struct bed *bed)
{
    const char *run_dir = bed->options.run_dir;
    auto_close int pidfd = open_dnsmasq(bed, 1);
    char command[400];

    snprintf(command, sizeof command,
             "cd %s/net/1 && mv leases aside && mkdir leases && kill -9 %d", run_dir,
             dnsmasq_of(bed, 1));
    if (!shell(command) || !has_ended(pidfd))
        check(bed, false, "(dnsmasq cannot start)");
    check(bed, fault_of(bed, 1) && network_up(bed->host, &bed->nat, &bed->err) == -EIO,
          "one that does not start is told");
    snprintf(command, sizeof command, "cd %s/net/1 && rmdir leases && mv aside leases", run_dir);
    arrange(bed, command, "(it can)");
    check(bed, tend(bed, 1, 5) == 1, "it is tried again");
}

/* A guest leaves, another gets its address at once: rules, ARP and lease are the new one's. */
static void check_reuse(struct bed *bed)
{
    struct guest old = bed->b;
    struct dhcp_answer answer;
    struct frame frame;

    answer = guest_asks_dhcp(&old, 3, old.nic.ipv4);
    check(bed, answer.type == 5, "(the old guest has a lease)");
    close(old.fd);
    check(bed, nic_down(bed->host, &old.nic, &bed->err) == 0, "the old guest goes");
    check(bed, nic_down(bed->host, &old.nic, &bed->err) == 0, "twice is no error");
    join(bed, &bed->b, &bed->nat, 0x40, 3, "heir");
    answer = guest_asks_dhcp(&bed->b, 1, 0);
    check(bed, answer.type == 2 && answer.address == bed->b.nic.ipv4,
          "its address is offered to the heir at once");
    check(bed, guest_resolves(&bed->a, "heir") == bed->b.nic.ipv4 && !guest_resolves(&bed->a, "12"),
          "DNS knows the heir and not the dead");
    check(bed, nic_down(bed->host, &old.nic, &bed->err) == 0,
          "the dead guest goes down late again");
    check(bed, neighbours_talk(bed), "the heir is reached");
    frame_start(&frame, bed->a.nic.mac, old.nic.mac, 0x0800);
    frame_udp(&frame, old.nic.ipv4, 1, bed->a.nic.ipv4, 9, "from-the-dead", 13);
    check(bed, !passes(bed, &bed->b, &frame, &bed->a, "from-the-dead"),
          "the old MAC is not let through");
}

/* A lease that no release reached: dnsmasq did not run when the guest left. */
static void check_stuck_lease(struct bed *bed)
{
    struct guest old;
    struct guest heir;
    struct dhcp_answer answer;
    char path[300];
    FILE *leases;

    join(bed, &old, &bed->nat, 0x50, 50, "stuck");
    (void)guest_asks_dhcp(&old, 3, old.nic.ipv4);
    close(old.fd);
    check(bed, nic_down(bed->host, &old.nic, &bed->err) == 0, "(a guest goes)");
    usleep(100000);
    snprintf(path, sizeof path, "%s/net/1/leases", bed->options.run_dir);
    leases = fopen(path, "we");
    if (leases) {
        fprintf(leases, "99999999999 02:00:00:00:50:00 10.77.0.50 stuck *\n");
        fclose(leases);
    }
    join(bed, &heir, &bed->nat, 0x51, 50, "unstuck");
    answer = guest_asks_dhcp(&heir, 1, 0);
    check(bed, answer.type == 2 && answer.address == heir.nic.ipv4, "a stuck lease is removed");
    close(heir.fd);
    check(bed, nic_down(bed->host, &heir.nic, &bed->err) == 0, "(and goes)");
}

static void check_failures(struct bed *bed)
{
    struct network_config overlap = make_network(9, "over", "172.31.0.0/16", true, false);
    struct network_config same = make_network(8, "same", "10.77.0.128/25", true, false);
    struct nic_config nic = bed->a.nic;
    int fd = -1;

    arrange(bed, "ip link add lan type veth peer name lan-far && ip addr add 172.31.7.7/24 dev lan",
            "(the host has a LAN)");
    check(bed, network_up(bed->host, &overlap, &bed->err) == -EADDRINUSE && !exists(PREFIX "-b9"),
          "a network over the host's own is refused, and nothing is left");
    check(bed, network_up(bed->host, &same, &bed->err) == -EADDRINUSE, "so is one over another");
    check(bed, nic_up(bed->host, &nic, &fd, &bed->err) == -EBUSY && neighbours_talk(bed),
          "a nic that is up is not taken again");
    nic.instance = 0x60;
    check(bed, nic_up(bed->host, &nic, &fd, &bed->err) == -EEXIST, "a taken address is refused");
    nic.ipv4 = bed->nat.cidr.address + 60;
    check(bed, nic_up(bed->host, &nic, &fd, &bed->err) == -EEXIST, "a taken MAC is refused");
    nic.mac[5] = 0x60;
    nic.ipv4 = bed->a.gateway;
    check(bed, nic_up(bed->host, &nic, &fd, &bed->err) == -EINVAL, "the gateway's address too");
    nic.ipv4 = bed->nat.cidr.address + 60;
    arrange(bed, "ip link set " PREFIX "-b2 down && ip link del " PREFIX "-b2",
            "(a bridge is lost)");
    nic.network_instance = 2;
    nic.ipv4 = bed->isolated.cidr.address + 60;
    check(bed, nic_up(bed->host, &nic, &fd, &bed->err) < 0 && !exists(PREFIX "-60-0") && fd == -1,
          "a nic without its bridge fails, and no tap is left");
    check(bed, !shell_prints("nft list ruleset", PREFIX "-60-0"), "nor a rule");
    check(bed, network_up(bed->host, &bed->isolated, &bed->err) == 0, "(the bridge is made again)");
}

static void check_queues(struct bed *bed)
{
    struct nic_config nic = bed->a.nic;
    int fds[NIC_QUEUES_MAX], other[NIC_QUEUES_MAX] = { -1, -1 };

    nic.instance = 0x61;
    nic.ipv4 = bed->nat.cidr.address + 61;
    nic.mac[5] = 0x61;
    nic.queues = 0;
    check(bed, nic_up(bed->host, &nic, fds, &bed->err) == -EINVAL, "a nic without a queue fails");
    nic.queues = NIC_QUEUES_MAX + 1;
    check(bed, nic_up(bed->host, &nic, fds, &bed->err) == -EINVAL && !exists(PREFIX "-61-0"),
          "so does one of too many");
    nic.queues = NIC_QUEUES_MAX;
    if (nic_up(bed->host, &nic, fds, &bed->err) < 0) {
        check(bed, false, "a nic of eight queues comes up");
        return;
    }
    check(bed, shell_prints("ip -d link show " PREFIX "-61-0", "numqueues 8"),
          "a nic of eight queues comes up");
    check(bed, shell_prints("ip link show " PREFIX "-61-0", "mtu 1500"), "of the network's MTU");
    check(bed, nic_up(bed->host, &nic, other, &bed->err) == -EBUSY && other[0] == -1,
          "and is not joined by another");
    for (int i = 0; i < NIC_QUEUES_MAX; i++) {
        check(bed, exists(PREFIX "-61-0"), "its tap lives as long as one queue");
        close(fds[i]);
    }
    check(bed, !exists(PREFIX "-61-0"), "and no longer");
    check(bed, nic_down(bed->host, &nic, &bed->err) == 0, "then it goes down");
}

static void check_findings(struct bed *bed)
{
    struct net_finding findings[NET_FINDINGS_MAX];
    size_t count;
    bool forward = false;
    bool own = false;

    arrange(bed,
            "nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward "
            "priority 0; policy drop; }'",
            "(somebody drops)");
    count = net_host_findings(bed->host, findings);
    for (size_t i = 0; i < count; i++) {
        printf("# finding %s%s: %s\n", findings[i].name, findings[i].problem ? " (problem)" : "",
               findings[i].message);
        forward = forward || strcmp(findings[i].name, "forward-drop") == 0;
        own = own || strstr(findings[i].message, "by this agent and is put back");
    }
    check(bed, forward, "a FORWARD policy of drop is found");
    check(bed, own, "ip_forward is told");
    arrange(bed, "nft delete table ip filter", "(nobody drops)");
}

static void measure_nics(struct bed *bed)
{
    struct nic_config nic = { .instance = 0x1000,
                              .network_instance = 1,
                              .ipv4 = bed->nat.cidr.address + 100,
                              .owner = 64056,
                              .queues = 1 };

    measure(bed, &nic, MEASURED_MAX, "nic");
}

static bool directory_is_empty(const char *run_dir)
{
    char path[300];
    DIR *directory;
    int count = 0;
    const struct dirent *entry;

    snprintf(path, sizeof path, "%s/net", run_dir);
    directory = opendir(path);
    while (directory && (entry = readdir(directory)))
        count += entry->d_name[0] != '.';
    if (directory)
        closedir(directory);
    return directory && count == 0;
}

static void check_end(struct bed *bed)
{
    const struct network_config *networks[] = { &bed->peers, &bed->isolated, &bed->nat };
    struct guest *guests[] = { &bed->a, &bed->b, &bed->c, &bed->d, &bed->e };
    int pidfds[3];
    int forward = -1;
    bool good = true;

    check(bed, sysctl_read("net/ipv4/ip_forward", &forward, NULL) == 0 && forward == 1,
          "ip_forward is 1 while there is a nat network");
    for (int i = 0; i < 3; i++)
        pidfds[i] = open_dnsmasq(bed, networks[i]->instance);
    for (int i = 0; i < 2; i++) /* the others' networks go under them */
        good = nic_down(bed->host, &guests[i]->nic, &bed->err) == 0 && good;
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 3; i++)
            good = network_down(bed->host, networks[i], &bed->err) == 0 && good;
    check(bed, good, "all networks go down, twice");
    for (int i = 0; i < 3; i++)
        good = has_ended(pidfds[i]) && good;
    check(bed, good, "no dnsmasq is left");
    check(bed, !shell_prints("ip -br link", PREFIX), "no bridge and no tap is left");
    check(bed, !shell_prints("nft list tables", "warren"), "no table is left");
    check(bed, directory_is_empty(bed->options.run_dir), "no file is left");
    check(bed, sysctl_read("net/ipv4/ip_forward", &forward, NULL) == 0 && forward == 0,
          "ip_forward is as before");
}

void run_lifecycle(struct bed *bed)
{
    check_restart(bed);
    check_sabotage(bed);
    check_lost_bridge(bed);
    check_repair(bed);
    check_dnsmasq_death(bed);
    check_dnsmasq_hang(bed);
    check_dnsmasq_failure(bed);
    check_reuse(bed);
    check_stuck_lease(bed);
    check_failures(bed);
    check_queues(bed);
    check_findings(bed);
    measure_nics(bed);
    check_end(bed);
}
