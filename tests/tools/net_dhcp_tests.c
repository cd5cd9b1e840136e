/* net_dhcp_tests.c - what dnsmasq can see and do, and what it still does in there. */
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/tools/net_tool.h"

#define ANSWER_MS  10000 /* of a process, which the host may not run for a while */
#define TRY_MS     1000
#define TRIES      20
#define UPSTREAM   0x7f000035 /* 127.0.0.53 */
#define FLOOD_MS   150
#define FEW_TRIES  5 /* less than the 10 s after which dnsmasq gives a question up */
#define DNS_FLOOD  600
#define DHCP_FLOOD 100

/* A file of /proc/PID, cut to its bound. */
static const char *read_proc(int pid, const char *name)
{
    static char text[16384];
    char path[64];
    ssize_t got;
    int fd;

    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    text[got > 0 ? got : 0] = '\0';
    if (fd >= 0)
        close(fd);
    return text;
}

static bool status_has(int pid, const char *line)
{
    return strstr(read_proc(pid, "status"), line) != NULL;
}

/* Does the directory of its root hold nothing but these names (a space before and behind each)? */
static bool root_holds_only(int pid, const char *directory, const char *names)
{
    char path[96];
    char name[300];
    const struct dirent *entry;
    DIR *opened;
    bool good;

    snprintf(path, sizeof path, "/proc/%d/root/%s", pid, directory);
    opened = opendir(path);
    good = opened != NULL;
    while (good && (entry = readdir(opened))) {
        snprintf(name, sizeof name, " %s ", entry->d_name);
        good = entry->d_name[0] == '.' || strstr(names, name) != NULL;
    }
    if (opened)
        closedir(opened);
    return good;
}

static bool mount_is_tight(const char *line, const char *own)
{
    const char *access = strstr(line, own) ? " rw," : " ro,";

    return strstr(line, access) && strstr(line, "nosuid") &&
           (strstr(line, "noexec") || strstr(line, "/lib")) &&
           (strstr(line, "nodev") || strstr(line, " /dev/"));
}

static bool mounts_are_tight(int pid, const char *own)
{
    char *text = strdup(read_proc(pid, "mountinfo"));
    char *rest = text;
    const char *line;
    bool good = text && *text;

    while (good && (line = strsep(&rest, "\n")))
        if (*line && !mount_is_tight(line, own)) {
            printf("# %s\n", line);
            good = false;
        }
    free(text);
    return good;
}

static void check_confinement(struct bed *bed)
{
    int pid = dnsmasq_of(bed, 1);
    char top[32];
    char names[64];

    snprintf(top, sizeof top, "%s", bed->options.run_dir + 1);
    *strchrnul(top, '/') = '\0';
    snprintf(names, sizeof names, " dev etc lib lib64 usr %s ", top);
    check(bed, root_holds_only(pid, "", names), "dnsmasq's root holds what it needs only");
    check(bed, root_holds_only(pid, "etc", " ld.so.cache "), "nothing of the host's configuration");
    check(bed, root_holds_only(pid, "dev", " null urandom "), "two devices");
    check(bed, root_holds_only(pid, "usr", " lib lib64 "), "libraries, and no programs");
    check(bed, mounts_are_tight(pid, bed->options.run_dir), "all read-only but its own directory");
    check(bed,
          status_has(pid, "CapEff:\t0000000000001400\n") &&
              status_has(pid, "CapPrm:\t0000000000001400\n") &&
              status_has(pid, "CapBnd:\t0000000000001400\n"),
          "it has CAP_NET_ADMIN and CAP_NET_BIND_SERVICE");
    check(bed, status_has(pid, "NoNewPrivs:\t1\n") && status_has(pid, "Seccomp:\t2\n"),
          "no new privileges, and a filter");
}

/* --- what it does --- */

/* As by TCP; by UDP without the length in front. */
static const uint8_t query_inside[] = "\0\x25\x12\x34\1\0\0\1\0\0\0\0\0\0"
                                      "\4vm-a\5front\10internal\0\0\1\0\1";
static const uint8_t query_outside[] = "\0\x1d\x12\x34\1\0\0\1\0\0\0\0\0\0"
                                       "\3www\7example\0\0\1\0\1";

static int connect_dns(const struct guest *guest, int type)
{
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons(53),
                              .sin_addr.s_addr = htonl(guest->gateway) };

    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
        perror("connect to DNS");
    return fd;
}

/* How many bytes came; 0 = none. */
static size_t hear(int fd, void *bytes, size_t size, int timeout_ms)
{
    struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
    ssize_t got = poll(&poll_fd, 1, timeout_ms) > 0 ? recv(fd, bytes, size, 0) : 0;

    return got > 0 ? (size_t)got : 0;
}

static void check_tcp(struct bed *bed)
{
    uint32_t address = htonl(bed->a.nic.ipv4);
    uint8_t answer[512];

    for (int i = 0; i < 2; i++) { /* a process of its own there serves each */
        int fd = connect_dns(&bed->a, SOCK_STREAM);
        size_t got;

        if (send(fd, query_inside, sizeof query_inside - 1, 0) < 0)
            perror("ask DNS");
        got = hear(fd, answer, sizeof answer, ANSWER_MS);
        check(bed, got > 20 && memmem(answer, got, &address, 4), "DNS answers by TCP");
        close(fd);
    }
}

/* Asked until it is heard: dnsmasq reads the file when it sees that it has changed. */
static bool reaches_upstream(const struct guest *guest, int upstream, int tries)
{
    int fd = connect_dns(guest, SOCK_DGRAM);
    uint8_t question[512];
    bool came = false;

    for (int i = 0; i < tries && !came; i++) {
        if (send(fd, query_outside + 2, sizeof query_outside - 3, 0) < 0)
            perror("ask DNS");
        came = memmem(question, hear(upstream, question, sizeof question, TRY_MS), "example", 7) !=
               NULL;
    }
    close(fd);
    return came;
}

/* A question that is not answered upstream takes one of dnsmasq's places until it is given up. */
static void check_dns_flood(struct bed *bed, int upstream)
{
    uint8_t bytes[512];
    char name[32];

    for (int i = 0; i < DNS_FLOOD; i++) {
        snprintf(name, sizeof name, "q%d.silent.test", i);
        (void)guest_asks_dns(&bed->d, name);
    }
    for (int i = 0; i < TRIES && !guest_resolves_within(&bed->e, "vm-e", FLOOD_MS); i++)
        ; /* what came before is read before */
    while (recv(upstream, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        ;
    check(bed, reaches_upstream(&bed->e, upstream, FEW_TRIES),
          "a guest's flood leaves DNS to others");
}

static void check_upstream(struct bed *bed)
{
    int upstream = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons(53),
                              .sin_addr.s_addr = htonl(UPSTREAM) };
    char path[300];
    FILE *file;

    snprintf(path, sizeof path, "%s/resolv.conf", bed->options.run_dir);
    file = fopen(path, "we");
    check(bed,
          bind(upstream, (struct sockaddr *)&at, sizeof at) == 0 && file &&
              fputs("nameserver 127.0.0.53\n", file) >= 0 && fclose(file) == 0,
          "(the host gets another name server)");
    check(bed,
          net_host_tend(bed->host, NULL, 0, &bed->err) == 0 &&
              reaches_upstream(&bed->a, upstream, TRIES),
          "dnsmasq asks it");
    check_dns_flood(bed, upstream);
    close(upstream);
}

/* More than dnsmasq has processes for (20), each of which one who says nothing holds for minutes.
 */
static void check_tcp_flood(struct bed *bed)
{
    unsigned served = guest_connects(&bed->d, 53, 40);

    check(bed, served > 0 && served < 10, "a guest has so many connections to DNS and no more");
    check(bed, guest_connects(&bed->e, 53, 1) == 1, "its neighbour is served");
}

/* For an address that is another's, of which dnsmasq would say so in its log each time. */
static void check_dhcp_flood(struct bed *bed)
{
    char mark[] = { (char)0xab, (char)0xcd, (char)0xef, 1, 0 }; /* the request's xid */
    struct dhcp_answer answer;
    struct frame frame;
    int came;

    guest_dhcp(&bed->d, &frame, 3, bed->d.nic.mac, bed->e.nic.ipv4);
    came = count_at_bridge(bed, &bed->d, &frame, mark, DHCP_FLOOD);
    check(bed, came > 0 && came < DHCP_FLOOD / 2, "a guest's flood of DHCP requests is held back");
    answer = guest_asks_dhcp(&bed->e, 1, 0);
    check(bed, answer.address == bed->e.nic.ipv4, "its neighbour gets its address");
}

void run_dhcp(struct bed *bed)
{
    check_confinement(bed);
    check_tcp(bed);
    check_upstream(bed);
    check_tcp_flood(bed);
    check_dhcp_flood(bed);
}
