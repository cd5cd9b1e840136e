#include "agent/config.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "storage/database.h"

#define DEFAULT_FILE "/etc/warren/warrend.conf"

const char *const memory_balancer_names[MEMORY_BALANCER_COUNT] = {
    [MEMORY_BALANCER_AUTO] = "auto",
    [MEMORY_BALANCER_OFF] = "off",
    [MEMORY_BALANCER_ON] = "on",
    [MEMORY_BALANCER_DRY_RUN] = "dry-run",
};

enum option_type {
    TYPE_PATH,
    TYPE_PATHS,
    TYPE_PREFIX,
    TYPE_NAME,
    TYPE_NUMBER,
    TYPE_CHOICE,
    TYPE_FLAG
};

struct option {
    const char *name;
    enum option_type type;
    size_t offset;
    int64_t min, max; /* of numbers */
    const char *argument;
    const char *help;
};

#define AT(field) offsetof(struct config, field)

static const struct option options[] = {
    { "config", TYPE_PATH, AT(config_file), 0, 0, "FILE",
      "read settings from FILE (default " DEFAULT_FILE " if it is there)" },
    { "state-dir", TYPE_PATH, AT(state_dir), 0, 0, "DIR",
      "database, images and volumes (default /var/lib/warren)" },
    { "run-dir", TYPE_PATH, AT(run_dir), 0, 0, "DIR",
      "sockets; the API's is warren.sock in it (default /run/warren)" },
    { "import-dir", TYPE_PATHS, AT(import_dirs), 0, 0, "DIR",
      "images may be imported from below DIR; may be repeated (default /var/lib/warren/import)" },
    { "vsock-dir", TYPE_PATHS, AT(vsock_dirs), 0, 0, "DIR",
      "VMs may name unix sockets below DIR; may be repeated (default: vsock in the run "
      "directory)" },
    { "libexec-dir", TYPE_PATH, AT(libexec_dir), 0, 0, "DIR",
      "where warren-vmm, warren-api and warren-fetch are (default: where warrend is)" },
    { "prefix", TYPE_PREFIX, AT(prefix), 0, 0, "NAME",
      "start of the names of taps, bridges, nftables and cgroups: 1 to 4 letters and digits "
      "(default wrn)" },
    { "uid-base", TYPE_NUMBER, AT(uid_base), 1000, 4000000000, "UID",
      "first user id given to helper processes and VMs (default 700000)" },
    { "uid-count", TYPE_NUMBER, AT(uid_count), 64, 1000000, "N",
      "how many user ids from there on are ours (default 65536)" },
    { "socket-group", TYPE_NAME, AT(socket_group), 0, 0, "GROUP",
      "group that may use the API's socket beside root (default: none)" },
    { "listen", TYPE_NAME, AT(listen), 0, 0, "ADDR:PORT",
      "serve the API by TLS 1.3 there, too, to who has a token or a client certificate" },
    { "metrics-listen", TYPE_NAME, AT(metrics_listen), 0, 0, "ADDR:PORT",
      "serve /metrics and nothing else by TLS 1.3 there" },
    { "tls-cert", TYPE_PATH, AT(tls_cert), 0, 0, "FILE",
      "PEM, the server's certificate and those between it and its authority" },
    { "tls-key", TYPE_PATH, AT(tls_key), 0, 0, "FILE", "PEM, its key; root's alone (mode 0600)" },
    { "tls-client-ca", TYPE_PATH, AT(tls_client_ca), 0, 0, "FILE",
      "PEM, the authorities that sign certificates of clients (default: none are asked for)" },
    { "tokens", TYPE_PATH, AT(tokens), 0, 0, "FILE",
      "who may do what by TLS; root's alone (default /etc/warren/tokens)" },
    { "cgroup", TYPE_PATH, AT(cgroup), 0, 0, "DIR",
      "cgroup v2 directory to put VMs in (default: <prefix>-vms in the root of the hierarchy)" },
    { "memory-reserve-mib", TYPE_NUMBER, AT(memory_reserve_mib), 0, 1 << 30, "MIB",
      "memory of the host that is not promised to VMs (default 512)" },
    { "memory-ratio-percent", TYPE_NUMBER, AT(memory_ratio_percent), 1, MEMORY_RATIO_MAX, "N",
      "how much of the rest may be promised (default 100); what is above 100 needs swap, and "
      "cgroup v2's memory controller" },
    { "memory-balancer", TYPE_CHOICE, AT(memory_balancer), 0, 0, "auto|off|on|dry-run",
      "whether VMs give memory back when the host is short; dry-run only tells what would be done "
      "(default auto: on where more than 100 percent are promised)" },
    { "disk-ratio-percent", TYPE_NUMBER, AT(disk_ratio_percent), 1, 100000, "N",
      "how much of the file system's size may be promised to volumes (default 200)" },
    { "autostart-parallel", TYPE_NUMBER, AT(autostart_parallel), 1, 1000, "N",
      "how many VMs are being started at a time, and in a second, after the host's reboot "
      "(default 8)" },
    { "events-kept", TYPE_NUMBER, AT(events_kept), 1, 10000000, "N",
      "of how many of the newest changes GET /v1/events can tell (default 10000)" },
    { "events-heartbeat-seconds", TYPE_NUMBER, AT(events_heartbeat_seconds), 1, 3600, "S",
      "how often a stream of events that has none says so; whoever takes nothing for twice as long "
      "is cut off (default 15)" },
    { "accept-older-database", TYPE_FLAG, AT(accept_older_database), 0, 0, NULL,
      "start though the database is older than what is on this host, as after the restore of a "
      "backup: what was made since, VMs and volumes too, is removed" },
    { "allow-private-urls", TYPE_FLAG, AT(allow_private_urls), 0, 0, NULL,
      "let imports by URL reach private, link-local and loopback addresses" },
    { "ca-file", TYPE_PATH, AT(ca_file), 0, 0, "FILE",
      "certificates that imports by URL trust (default: the system's)" },
    { "import-speed-limit", TYPE_NUMBER, AT(import_speed_limit), 0, 1 << 20, "KIB",
      "an import by URL fails whose server sends less than so many KiB a second (default 16; 0: it "
      "is waited for) ..." },
    { "import-speed-time", TYPE_NUMBER, AT(import_speed_time), 1, 86400, "S",
      "... for so many seconds, on average (default 60)" },
    { "debug", TYPE_FLAG, AT(debug), 0, 0, NULL, "log requests and VMs' states, too" },
};

static int set_path(char *to, const struct option *option, const char *value, struct error *err)
{
    if (value[0] != '/' || strlen(value) >= CONFIG_PATH_MAX)
        return error_field(err, EINVAL, option->name,
                           "%s: give an absolute path of at most %d characters", option->name,
                           CONFIG_PATH_MAX - 1);
    memcpy(to, value, strlen(value) + 1);
    return 0;
}

static int add_path(struct config_dirs *dirs, const struct option *option, const char *value,
                    struct error *err)
{
    if (dirs->count == CONFIG_DIRS_MAX)
        return error_field(err, EINVAL, option->name, "%s: at most %d", option->name,
                           CONFIG_DIRS_MAX);
    return set_path(dirs->paths[dirs->count++], option, value, err);
}

static int set_prefix(char *to, const struct option *option, const char *value, struct error *err)
{
    size_t length = strlen(value);

    for (size_t i = 0; i < length; i++)
        if (!islower((unsigned char)value[i]) && !(i > 0 && isdigit((unsigned char)value[i])))
            length = 0;
    if (length < 1 || length > 4)
        return error_field(err, EINVAL, option->name, "%s: give 1 to 4 of a-z, 0-9, a letter first",
                           option->name);
    memcpy(to, value, length + 1);
    return 0;
}

static int set_number(int64_t *to, const struct option *option, const char *value,
                      struct error *err)
{
    char *end;
    long long number;

    errno = 0;
    number = strtoll(value, &end, 10);
    if (errno || !isdigit((unsigned char)value[0]) || *end || number < option->min ||
        number > option->max)
        return error_field(err, EINVAL, option->name, "%s: give a number from %lld to %lld",
                           option->name, (long long)option->min, (long long)option->max);
    *to = number;
    return 0;
}

/* The number of a choice, of those that the help names. */
static int set_choice(int64_t *to, const struct option *option, const char *value,
                      struct error *err)
{
    const char *choice = option->argument;
    size_t length = strlen(value);

    for (int64_t number = 0; choice; number++) {
        if (length > 0 && !strchr(value, '|') && strncmp(choice, value, length) == 0 &&
            (choice[length] == '|' || choice[length] == '\0')) {
            *to = number;
            return 0;
        }
        choice = strchr(choice, '|');
        choice = choice ? choice + 1 : NULL;
    }
    return error_field(err, EINVAL, option->name, "%s: give one of %s", option->name,
                       option->argument);
}

static int set_name(char *to, const struct option *option, const char *value, struct error *err)
{
    if (strlen(value) == 0 || strlen(value) > 63)
        return error_field(err, EINVAL, option->name, "%s: give a name of 1 to 63 characters",
                           option->name);
    memcpy(to, value, strlen(value) + 1);
    return 0;
}

static int set_option(struct config *config, const struct option *option, const char *value,
                      struct error *err)
{
    char *field = (char *)config + option->offset;

    switch (option->type) {
    case TYPE_PATH:
        return set_path(field, option, value, err);
    case TYPE_PATHS:
        return add_path((struct config_dirs *)(void *)field, option, value, err);
    case TYPE_PREFIX:
        return set_prefix(field, option, value, err);
    case TYPE_NAME:
        return set_name(field, option, value, err);
    case TYPE_NUMBER:
        return set_number((int64_t *)(void *)field, option, value, err);
    case TYPE_CHOICE:
        return set_choice((int64_t *)(void *)field, option, value, err);
    case TYPE_FLAG:
        if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
            return error_field(err, EINVAL, option->name, "%s: give true or false", option->name);
        *(bool *)field = value[0] == 't';
        return 0;
    }
    return -EINVAL;
}

static const struct option *find_option(const char *name, size_t length)
{
    for (size_t i = 0; i < ARRAY_LENGTH(options); i++)
        if (strlen(options[i].name) == length && strncmp(options[i].name, name, length) == 0)
            return &options[i];
    return NULL;
}

/* --- the file --- */

static char *trim(char *text)
{
    char *end = text + strlen(text);

    while (isspace((unsigned char)*text))
        text++;
    while (end > text && isspace((unsigned char)end[-1]))
        *--end = '\0';
    return text;
}

static int parse_line(struct config *config, char *line, struct error *err)
{
    const struct option *option;
    char *equals;
    char *name;

    line = trim(line);
    if (line[0] == '\0' || line[0] == '#')
        return 0;
    equals = strchr(line, '=');
    if (!equals)
        return error_set(err, EINVAL, "\"%s\": write name = value", line);
    *equals = '\0';
    name = trim(line);
    option = find_option(name, strlen(name));
    if (!option || option->offset == AT(config_file))
        return error_set(err, EINVAL, "\"%s\" is not a setting; see warrend --help", name);
    return set_option(config, option, trim(equals + 1), err);
}

static int parse_file(struct config *config, const char *path, bool required, struct error *err)
{
    FILE *file = fopen(path, "re");
    char line[1024];
    int number = 0;
    int result = 0;
    int unread;

    if (!file && errno == ENOENT && !required)
        return 0;
    if (!file)
        return error_set(err, errno, "open %s: %s", path, strerror(errno));
    while (result == 0 && fgets(line, sizeof line, file)) {
        number++;
        result = strlen(line) < sizeof line - 1 ? parse_line(config, line, err)
                                                : error_set(err, EINVAL, "the line is too long");
    }
    unread = ferror(file) ? errno : 0; /* a directory can be opened, too */
    fclose(file);
    if (result == 0 && unread)
        return error_set(err, unread, "read %s: %s", path, strerror(unread));
    return result < 0 ? error_wrap(err, "%s line %d", path, number) : 0;
}

/* --- flags --- */

/* One "--name value", "--name=value" or "--name"; the count of arguments it takes. */
static int parse_flag(struct config *config, char **argv, struct error *err)
{
    const char *name = argv[0] + 2;
    const char *equals = strchr(name, '=');
    const struct option *option =
        find_option(name, equals ? (size_t)(equals - name) : strlen(name));
    const char *value = equals ? equals + 1 : NULL;
    int taken = 1;
    int result;

    if (strncmp(argv[0], "--", 2) != 0 || !option)
        return error_set(err, EINVAL, "%s is not an option; see warrend --help", argv[0]);
    if (!value && option->type == TYPE_FLAG) {
        value = "true";
    } else if (!value) {
        value = argv[1];
        taken = 2;
    }
    if (!value)
        return error_set(err, EINVAL, "%s needs a value; see warrend --help", argv[0]);
    result = set_option(config, option, value, err);
    return result < 0 ? result : taken;
}

static int parse_flags(struct config *config, char **argv, struct error *err)
{
    for (char **argument = argv; *argument;) {
        int taken = parse_flag(config, argument, err);

        if (taken < 0)
            return taken;
        argument += taken;
    }
    return 0;
}

int config_parse(int argc, char **argv, struct config *ret_config, enum config_wish *ret_wish,
                 struct error *err)
{
    static const struct config defaults = {
        .state_dir = "/var/lib/warren",
        .run_dir = "/run/warren",
        .prefix = "wrn",
        .tokens = "/etc/warren/tokens",
        .uid_base = 700000,
        .uid_count = 65536,
        .memory_reserve_mib = 512,
        .memory_ratio_percent = 100,
        .disk_ratio_percent = 200,
        .autostart_parallel = 8,
        .events_kept = EVENTS_KEPT,
        .events_heartbeat_seconds = 15,
        .import_speed_limit = 16,
        .import_speed_time = 60,
    };
    struct config flags = defaults;
    struct config config = defaults;
    int result;

    *ret_wish = CONFIG_RUN;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            *ret_wish = CONFIG_HELP;
        if (strcmp(argv[i], "--version") == 0)
            *ret_wish = CONFIG_VERSION;
    }
    if (*ret_wish != CONFIG_RUN)
        return 0;
    /* Once to learn which file, then the file, then the flags over it. */
    result = parse_flags(&flags, argv + 1, err);
    if (result == 0)
        result = parse_file(&config, flags.config_file[0] ? flags.config_file : DEFAULT_FILE,
                            flags.config_file[0] != '\0', err);
    if (flags.import_dirs.count > 0) /* flags replace what the file lists */
        config.import_dirs.count = 0;
    if (flags.vsock_dirs.count > 0)
        config.vsock_dirs.count = 0;
    if (result == 0)
        result = parse_flags(&config, argv + 1, err);
    if (result < 0)
        return result;
    if (config.import_dirs.count == 0)
        snprintf(config.import_dirs.paths[config.import_dirs.count++], CONFIG_PATH_MAX, "%s",
                 "/var/lib/warren/import");
    if (config.vsock_dirs.count == 0 &&
        snprintf(config.vsock_dirs.paths[config.vsock_dirs.count++], CONFIG_PATH_MAX, "%s/vsock",
                 config.run_dir) >= CONFIG_PATH_MAX)
        return error_field(err, EINVAL, "run-dir", "run-dir: the path is too long");
    *ret_config = config;
    return 0;
}

void config_print_help(void)
{
    printf("warrend - runs microVMs on this host for whoever asks over its REST API\n\n"
           "usage: warrend [OPTION...]\n\n"
           "The API is on the unix socket warren.sock in the run directory:\n"
           "  curl --unix-socket /run/warren/warren.sock http://warren/v1/node\n"
           "  curl --unix-socket /run/warren/warren.sock http://warren/openapi.yaml\n"
           "VMs go on running when warrend ends; starting it again finds them.\n\n"
           "Each option may be a line \"name = value\" of the configuration file, too:\n");
    for (size_t i = 0; i < ARRAY_LENGTH(options); i++) {
        char left[64];

        snprintf(left, sizeof left, "--%s%s%s", options[i].name, options[i].argument ? " " : "",
                 options[i].argument ? options[i].argument : "");
        printf("  %-27s %s\n", left, options[i].help);
    }
    printf("  %-27s %s\n  %-27s %s\n", "--help", "this text", "--version", "the version");
}
