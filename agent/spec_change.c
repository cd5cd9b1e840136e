/* spec_change.c - see spec_change.h. */
#include "agent/spec_change.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "agent/resource.h"
#include "base/error.h"

enum when { NEVER, AT_REST, AT_ONCE };

/* What is not here never changes; what a spec may be without is. */
struct field {
    const char *path; /* "disks[].queues": of each */
    enum when when;
    const char *instead; /* of what never changes */
};

static const struct field labels[] = { { "labels", AT_ONCE, NULL }, { 0 } };

static const struct field image_fields[] = {
    { "labels", AT_ONCE, NULL },
    { "format", NEVER, NULL },
    { "sha256", NEVER, NULL },
    { 0 },
};

static const struct field snapshot_fields[] = {
    { "labels", AT_ONCE, NULL },
    { "parent", NEVER, NULL },
    { "track_changes", NEVER, NULL },
    { 0 },
};

static const struct field volume_fields[] = {
    { "labels", AT_ONCE, NULL },
    { "size_mib", AT_ONCE, NULL },
    { "delete_protection", AT_ONCE, NULL },
    { "image", NEVER, NULL },
    { "snapshot", NEVER, NULL },
    { "disk", NEVER, NULL },
    { "fork", NEVER, NULL },
    { "clone", NEVER, NULL },
    { 0 },
};

static const struct field operation_fields[] = { { "cancel", AT_ONCE, NULL }, { 0 } };

/* At once: what the agent itself goes by, and what it can tell a VMM that runs.  At rest: what a
 * machine is made of. */
static const struct field vm_fields[] = {
    { "labels", AT_ONCE, NULL },
    { "restart", AT_ONCE, NULL },
    { "on_reboot", AT_ONCE, NULL },
    { "autostart", AT_ONCE, NULL },
    { "autostart_order", AT_ONCE, NULL },
    { "delete_protection", AT_ONCE, NULL },
    { "desired_state", AT_ONCE, NULL },
    { "stop_timeout_seconds", AT_ONCE, NULL },
    { "balloon", AT_ONCE, NULL },
    { "memory_target_mib", AT_ONCE, NULL },
    { "memory_min_mib", AT_ONCE, NULL },
    { "memory_weight", AT_ONCE, NULL },
    { "priority", AT_ONCE, NULL },
    { "cpu_weight", AT_ONCE, NULL },
    { "cpu_limit_percent", AT_ONCE, NULL },
    { "io_weight", AT_ONCE, NULL },
    { "io_limit", AT_ONCE, NULL },
    { "io_limit.read_bytes_per_second", AT_ONCE, NULL },
    { "io_limit.write_bytes_per_second", AT_ONCE, NULL },
    { "io_limit.read_ops_per_second", AT_ONCE, NULL },
    { "io_limit.write_ops_per_second", AT_ONCE, NULL },
    { "vcpus", AT_REST, NULL },
    { "cpu", AT_REST, NULL },
    { "memory_mib", AT_REST, NULL },
    { "memory_max_mib", AT_REST, NULL },
    { "memory_backing", AT_REST, NULL },
    { "boot.kernel", AT_REST, NULL },
    { "boot.initrd", AT_REST, NULL },
    { "boot.cmdline", AT_REST, NULL },
    { "boot.snapshot", NEVER, "what a VM goes on from is decided when it is made" },
    { "boot.fork", NEVER, "what a VM goes on from is decided when it is made" },
    { "vsock", AT_REST, NULL },
    { "vsock.cid", AT_REST, NULL },
    { "vsock.ports", AT_ONCE, NULL },
    { "disks", NEVER, "PUT or DELETE the one disk, below the VM" },
    { "disks[]", NEVER, "detach the disk, and attach it anew" },
    { "disks[].cache", AT_REST, NULL },
    { "disks[].on_enospc", AT_REST, NULL },
    { "disks[].queues", AT_REST, NULL },
    { "disks[].rate_limit", AT_ONCE, NULL },
    { "disks[].rate_limit.bytes_per_second", AT_ONCE, NULL },
    { "disks[].rate_limit.bytes_burst", AT_ONCE, NULL },
    { "disks[].rate_limit.ops_per_second", AT_ONCE, NULL },
    { "disks[].rate_limit.ops_burst", AT_ONCE, NULL },
    { "nics", NEVER, "PUT or DELETE the one nic, below the VM" },
    { "nics[]", NEVER, "detach the nic, and attach it anew" },
    { "nics[].mac", NEVER, NULL },
    { "nics[].ipv4", NEVER, NULL },
    { "nics[].queues", AT_REST, NULL },
    { "nics[].vhost", AT_REST, NULL },
    { "nics[].rx_rate_limit", AT_ONCE, NULL },
    { "nics[].rx_rate_limit.bytes_per_second", AT_ONCE, NULL },
    { "nics[].rx_rate_limit.bytes_burst", AT_ONCE, NULL },
    { "nics[].rx_rate_limit.ops_per_second", AT_ONCE, NULL },
    { "nics[].rx_rate_limit.ops_burst", AT_ONCE, NULL },
    { "nics[].tx_rate_limit", AT_ONCE, NULL },
    { "nics[].tx_rate_limit.bytes_per_second", AT_ONCE, NULL },
    { "nics[].tx_rate_limit.bytes_burst", AT_ONCE, NULL },
    { "nics[].tx_rate_limit.ops_per_second", AT_ONCE, NULL },
    { "nics[].tx_rate_limit.ops_burst", AT_ONCE, NULL },
    { 0 },
};

#define FIELDS_MAX (sizeof vm_fields / sizeof vm_fields[0])

static const struct field *const fields_of[RESOURCE_KIND_COUNT] = {
    [RESOURCE_IMAGE] = image_fields,       [RESOURCE_VOLUME] = volume_fields,
    [RESOURCE_NETWORK] = labels,           [RESOURCE_VM] = vm_fields,
    [RESOURCE_SNAPSHOT] = snapshot_fields, [RESOURCE_OPERATION] = operation_fields,
};

/* --- paths --- */

/* "disks[7].queues" is of "disks[].queues". */
static bool path_is_of(const char *path, const char *pattern)
{
    for (; *pattern; pattern++, path++) {
        if (*pattern == ']')
            path += strspn(path, "0123456789");
        if (*path != *pattern)
            return false;
    }
    return *path == '\0';
}

static bool is_excepted(const char *path, const char *const *except)
{
    for (; except && *except; except++)
        if (path_is_of(path, *except))
            return true;
    return false;
}

/* --- comparing --- */

static bool value_differs(const json_t *a, const json_t *b, const char *path,
                          const char *const *except, char *ret_field, size_t size);

/* Each member of `a` by itself. */
static bool members_differ(const json_t *a, const json_t *b, const char *path,
                           const char *const *except, char *ret_field, size_t size)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)a, key, value)
    {
        char inner[128];

        snprintf(inner, sizeof inner, "%s%s%s", path, path[0] ? "." : "", key);
        if (value_differs(value, json_object_get(b, key), inner, except, ret_field, size))
            return true;
    }
    return false;
}

/* Are they as many things with names, each of which can be compared by itself? */
static bool have_pairs(const json_t *a, const json_t *b)
{
    bool pairs = json_array_size(a) == json_array_size(b) && json_array_size(a) > 0;

    for (size_t i = 0; pairs && i < json_array_size(a); i++)
        pairs = json_object_get(json_array_get(a, i), "name") &&
                json_object_get(json_array_get(b, i), "name");
    return pairs;
}

static bool items_differ(const json_t *a, const json_t *b, const char *path,
                         const char *const *except, char *ret_field, size_t size)
{
    for (size_t i = 0; i < json_array_size(a); i++) {
        char inner[128];

        snprintf(inner, sizeof inner, "%s[%zu]", path, i);
        if (value_differs(json_array_get(a, i), json_array_get(b, i), inner, except, ret_field,
                          size))
            return true;
    }
    return false;
}

/* NULL: there is none. */
static bool value_differs(const json_t *a, const json_t *b, const char *path,
                          const char *const *except, char *ret_field, size_t size)
{
    if ((a && b && json_equal(a, b)) || is_excepted(path, except))
        return false;
    if (json_is_object(a) && json_is_object(b))
        return members_differ(a, b, path, except, ret_field, size) ||
               members_differ(b, a, path, except, ret_field, size);
    if (have_pairs(a, b))
        return items_differ(a, b, path, except, ret_field, size);
    snprintf(ret_field, size, "%s", path);
    return true;
}

bool spec_differs(const json_t *a, const json_t *b, const char *const *except, char *ret_field,
                  size_t size)
{
    return value_differs(a, b, "", except, ret_field, size);
}

/* --- deciding --- */

/* The first change of what does not change as early as that. */
static bool find_change(const struct field *fields, const json_t *before, const json_t *after,
                        enum when when, char *ret_path, size_t size)
{
    const char *except[FIELDS_MAX + 1] = { NULL };
    size_t count = 0;

    for (; fields->path; fields++)
        if (fields->when >= when)
            except[count++] = fields->path;
    return spec_differs(before, after, except, ret_path, size);
}

/* Of the field, or of what it is part of. */
static const char *instead_of(const struct field *fields, const char *path)
{
    char part[64];

    snprintf(part, sizeof part, "%s", path);
    while (part[0]) {
        size_t length = strlen(part);

        for (const struct field *field = fields; field->path; field++)
            if (field->instead && path_is_of(part, field->path))
                return field->instead;
        while (length > 0 && part[length] != '.' && part[length] != '[')
            length--;
        part[length] = '\0';
    }
    return NULL;
}

int spec_change_check(enum resource_kind kind, const json_t *before, const json_t *after,
                      const char *busy, struct error *err)
{
    const struct field *fields = fields_of[kind];
    char path[64];

    if (find_change(fields, before, after, AT_REST, path, sizeof path)) {
        const char *instead = instead_of(fields, path);

        if (instead)
            return error_field(err, EBADE, path, "%s: can never be changed: %s", path, instead);
        return error_field(err, EBADE, path,
                           "%s: can never be changed: delete the %s and make it anew", path,
                           resource_kind_name(kind));
    }
    if (busy && find_change(fields, before, after, AT_ONCE, path, sizeof path))
        return error_field(err, EBUSY, path, "%s: cannot be changed while the %s is %s", path,
                           resource_kind_name(kind), busy);
    return 0;
}

static bool is_field(const struct field *fields, const char *path)
{
    for (; fields->path; fields++)
        if (path_is_of(path, fields->path))
            return true;
    return false;
}

/* fields: NULL = `before` has all that there are. */
static int check_nulls(const struct field *fields, const json_t *before, const json_t *patch,
                       const char *path, struct error *err)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)patch, key, value)
    {
        const json_t *has = json_object_get(before, key);
        char inner[128];
        int result = 0;

        snprintf(inner, sizeof inner, "%s%s%s", path, path[0] ? "." : "", key);
        if (json_is_null(value) && !has && !(fields && is_field(fields, inner)))
            result = error_field(err, EINVAL, inner, "%s: is not a known field", inner);
        else if (json_is_object(value) && (!has || json_is_object(has)) &&
                 strcmp(inner, "labels") != 0)
            result = check_nulls(fields, has, value, inner, err);
        if (result < 0)
            return result;
    }
    return 0;
}

int spec_change_check_nulls(enum resource_kind kind, const json_t *before, const json_t *patch,
                            const char *path, struct error *err)
{
    return check_nulls(fields_of[kind], before, patch, path, err);
}

int spec_change_check_known(const json_t *known, const json_t *patch, struct error *err)
{
    return check_nulls(NULL, known, patch, "", err);
}
