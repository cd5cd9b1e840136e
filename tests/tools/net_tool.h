/* net_tool.h - what the parts of tests/integration/net share. */
#pragma once
#include <stdio.h>
#include "base/error.h"
#include "net/network.h"
#include "tests/tools/net_guest.h"

#define PREFIX      "wtst"
#define DNSMASQ_UID 64055

struct bed {
    struct net_host *host;
    struct net_options options;
    struct error err;
    int passed;
    int failed;
    int fence; /* numbers the frames that end a wait */
    struct network_config nat, isolated, peers;
    struct guest a, b; /* nat */
    struct guest c;    /* isolated */
    struct guest d, e; /* peers: nat with peer isolation */
};

/* Prints "ok NAME" or "FAIL NAME: last error". */
void check(struct bed *bed, bool good, const char *name);
double now_ms(void); /* monotonic */

struct network_config make_network(uint32_t instance, const char *id, const char *cidr, bool nat,
                                   bool peer_isolation);
/* The guest's nic, up; checks. */
void join(struct bed *bed, struct guest *guest, const struct network_config *network,
          uint32_t instance, uint32_t last_byte, const char *hostname);

/* A fork of `parent`: its MAC and address inside, others outside. */
void join_fork(struct bed *bed, struct guest *guest, const struct guest *parent, uint32_t instance,
               uint32_t last_byte, const char *hostname);

/* Sends `frame` (which holds `text`), then what surely passes; did `text` reach `to` before that?
 */
bool passes(struct bed *bed, const struct guest *from, const struct frame *frame,
            const struct guest *to, const char *text);
/* The same from guest to host: does an AF_PACKET socket on the bridge see it? */
bool reaches_bridge(struct bed *bed, const struct guest *from, const struct frame *frame,
                    const char *text);
/* How many of so many; -1 if it cannot be told. */
int count_at_bridge(struct bed *bed, const struct guest *from, const struct frame *frame,
                    const char *text, int times);
/* A UDP datagram from the host to the guest. */
void host_sends(const struct guest *guest, const char *text);

/* Asks the server outside; is what it answers as expected ("seen <address>")?  Or does it not? */
bool outside_answers(const struct guest *guest, uint32_t address, const char *expected);
bool outside_is_silent(const struct guest *guest, uint32_t address);
#define OUTSIDE 0xc0000202 /* 192.0.2.2 */

/* A command line of the test itself; true if it exits with 0. */
bool shell(const char *command);
/* What a test needs first, checked only if it does not come about. */
void arrange(struct bed *bed, const char *command, const char *name);
/* Of the network's dnsmasq; 0 if there is none. */
int dnsmasq_of(const struct bed *bed, uint32_t network_instance);
/* As the agent looks after it once a second: what is not as it was made; NULL = nothing. */
const char *fault_of(struct bed *bed, uint32_t network_instance);
/* Does its output hold the text? */
bool shell_prints(const char *command, const char *text);

/* As an agent that starts, with the bed's own networks and nics. */
int restore(struct bed *bed);
/* Prints what each of so many nics costs: the first, and others whose instances and addresses count
 * on from there. */
#define MEASURED_MAX 100
void measure(struct bed *bed, const struct nic_config *first, unsigned count, const char *what);

void run_spoofing(struct bed *bed);
void run_dhcp(struct bed *bed);
void run_host(struct bed *bed);
void run_outside(struct bed *bed);
/* Called while there is an outside. */
void run_fork(struct bed *bed);
void run_lifecycle(struct bed *bed);
