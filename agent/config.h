/* config.h - warrend's settings: every one is a flag and a line of the configuration file. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct error;

#define CONFIG_PATH_MAX 256
#define CONFIG_DIRS_MAX 16

struct config_dirs {
    unsigned count;
    char paths[CONFIG_DIRS_MAX][CONFIG_PATH_MAX];
};

/* Who is short of memory gives it back, by itself or by being made to. */
enum memory_balancer {
    MEMORY_BALANCER_AUTO, /* where more is promised than there is */
    MEMORY_BALANCER_OFF,
    MEMORY_BALANCER_ON,
    MEMORY_BALANCER_DRY_RUN, /* only told, by GET /v1/node/memory */
    MEMORY_BALANCER_COUNT
};
extern const char *const memory_balancer_names[MEMORY_BALANCER_COUNT];

#define MEMORY_RATIO_MAX 1000 /* percent */

struct config {
    char config_file[CONFIG_PATH_MAX]; /* "" = /etc/warren/warrend.conf if it is there */
    char state_dir[CONFIG_PATH_MAX];
    char run_dir[CONFIG_PATH_MAX];
    char libexec_dir[CONFIG_PATH_MAX]; /* warren-vmm, -api, -fetch; "" = where warrend itself is */
    struct config_dirs import_dirs;
    struct config_dirs vsock_dirs; /* of unix sockets that guests may reach */
    char prefix[5];                /* of taps, bridges, tables, cgroups */
    int64_t uid_base;              /* first of the uids (and gids) that helpers and VMs get */
    int64_t uid_count;
    char socket_group[64]; /* who may connect to the API's socket beside root; "" = nobody */
    char listen[64], metrics_listen[64]; /* addresses of TLS listeners; "" = none */
    char tls_cert[CONFIG_PATH_MAX];      /* files of the TLS listeners; "" = none */
    char tls_key[CONFIG_PATH_MAX];
    char tls_client_ca[CONFIG_PATH_MAX];
    char tokens[CONFIG_PATH_MAX];
    char cgroup[CONFIG_PATH_MAX]; /* parent of the VMs' cgroups; "" = <cgroup2>/<prefix>-vms */
    int64_t memory_reserve_mib;   /* of the host's, never promised to VMs */
    int64_t memory_ratio_percent; /* promised to VMs / host memory beyond the reserve */
    int64_t memory_balancer;      /* enum memory_balancer */
    int64_t disk_ratio_percent;   /* promised to volumes / size of the file system */
    int64_t autostart_parallel; /* VMs started at a time, and in a second, after a host's reboot */
    int64_t events_kept;        /* of so many revisions, in the database */
    int64_t events_heartbeat_seconds;
    bool accept_older_database;    /* than what is on the host, which goes */
    bool allow_private_urls;       /* imports may come from private and loopback addresses */
    char ca_file[CONFIG_PATH_MAX]; /* for imports; "" = the system's */
    int64_t import_speed_limit;    /* KiB a second that a server must send at least; 0 = none */
    int64_t import_speed_time;     /* s, for so long */
    bool debug;
};

/* What to do instead of running. */
enum config_wish { CONFIG_RUN, CONFIG_HELP, CONFIG_VERSION };

/* Defaults, then the file, then the flags.  -EINVAL with what to do about it. */
int config_parse(int argc, char **argv, struct config *ret_config, enum config_wish *ret_wish,
                 struct error *err);
/* To stdout. */
void config_print_help(void);
