/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/options.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "broker/config/config.h"
#include "broker/errors.h"
#include "broker/sockets/deputy.h"
#include "broker/sockets/qemu-socket.h"
#include "common/address.h"

enum { CLIENT_ID_MAX = 128, IN = 1 << ROLE_INCOMING, OUT = 1 << ROLE_OUTGOING };

struct option_rule {
    const char *key;
    const char *type;
    unsigned roles;
    int (*read)(sd_bus_message *m, struct options *options, sd_bus_error *error);
};

/* Reads the "as" that comes next, at most max texts of less than size bytes each, into a table. */
static int read_texts(sd_bus_message *m, char *table, size_t size, uint32_t max, uint32_t *ret_n,
                      const char *key, sd_bus_error *error)
{
    const char *text;
    int r = sd_bus_message_enter_container(m, 'a', "s");

    for (*ret_n = 0; r > 0; (*ret_n)++) {
        r = sd_bus_message_read(m, "s", &text);
        if (r <= 0)
            break;
        if (*ret_n == max)
            return error_invalid(error, "Option '%s' has more than %" PRIu32 " entries.", key, max);
        if (strlen(text) >= size)
            return error_invalid(error, "Option '%s': '%.40s…' is longer than %zu bytes.", key, text,
                                 size - 1);
        if (!message_text_ok(text, strlen(text) + 1))
            return error_invalid(error, "Option '%s': '%s' holds what is not printable.", key, text);
        strcpy(table + *ret_n * size, text);
    }
    return r < 0 ? r : sd_bus_message_exit_container(m);
}

static int read_streams(sd_bus_message *m, struct options *options, sd_bus_error *error)
{
    int r = read_texts(m, options->streams[0], MESSAGE_STREAM_MAX, MESSAGE_STREAMS_MAX, &options->n_streams,
                       "streams", error);

    if (r < 0)
        return r;
    if (options->n_streams == 0)
        return error_invalid(error, "Option 'streams' is empty. Leave it out for the one stream 'migrate'.");
    for (uint32_t i = 0; i < options->n_streams; i++) {
        if (!stream_name_ok(options->streams[i]))
            return error_invalid(
                error, "Option 'streams': '%s' is no name of a stream (a-z, 0-9 and '-', a letter first).",
                options->streams[i]);
        for (uint32_t j = 0; j < i; j++)
            if (strcmp(options->streams[i], options->streams[j]) == 0)
                return error_invalid(error, "Option 'streams' names '%s' twice.", options->streams[i]);
    }
    return 0;
}

/* Read after all others, since it needs the streams; see options_parse(). */
static int read_sockets(sd_bus_message *m, struct options *options, sd_bus_error *error)
{
    const char *stream, *path;
    int r = sd_bus_message_enter_container(m, 'a', "{ss}");

    while (r >= 0 && (r = sd_bus_message_read(m, "{ss}", &stream, &path)) > 0) {
        int i = options_stream(options, stream);

        if (i >= 0)
            r = options_check_path(path, stream, error);
        if (r < 0)
            return r;

        if (i < 0)
            return error_set(error, VF_ERROR_NO_SUCH_STREAM,
                             "Option 'sockets' names the stream '%s', which is not among 'streams'.", stream);
        if (options->sockets[i])
            return error_invalid(error, "Option 'sockets' names the stream '%s' twice.", stream);
        if (options->layout[0] != '\0')
            return error_invalid(error, "Option 'layout' makes the paths: leave 'sockets' out.");
        /* Whoever connects to such a path is, for the other host's libvirt, who has prepared there. */
        if (strcmp(stream, STREAM_LIBVIRT) == 0 && path[0] != '\0')
            return error_invalid(
                error, "The stream '" STREAM_LIBVIRT
                       "' can have no path: every process that may use it, "
                       "QEMU too, would have the rights that its caller has with libvirt at the other "
                       "host. Bring its sockets by AddStream.");
        if (path[0] != '/' && path[0] != '\0')
            return error_invalid(error, "Option 'sockets': the path '%s' is not absolute.", path);
        if (!message_text_ok(path, strlen(path) + 1))
            return error_invalid(error, "Option 'sockets': the path '%s' holds what is not printable.", path);
        options->sockets[i] = strdup(path);
        if (!options->sockets[i])
            return -ENOMEM;
    }
    return r < 0 ? r : sd_bus_message_exit_container(m);
}

/* A number, or a name of the user database. */
static bool find_user(const char *text, bool with_group, uid_t *ret_uid, gid_t *ret_gid)
{
    char *end, buf[4096];
    unsigned long v;
    struct passwd pw, *found = NULL;

    errno = 0;
    v = strtoul(text, &end, 10);
    if (*text >= '0' && *text <= '9' && *end == '\0') {
        if (errno != 0 || v >= UINT32_MAX)
            return false;
        *ret_uid = (uid_t)v;
        *ret_gid = (gid_t)-1;
        if (!with_group && getpwuid_r((uid_t)v, &pw, buf, sizeof(buf), &found) == 0 && found)
            *ret_gid = found->pw_gid;
        return true;
    }
    if (getpwnam_r(text, &pw, buf, sizeof(buf), &found) != 0 || !found)
        return false;
    *ret_uid = found->pw_uid;
    *ret_gid = found->pw_gid;
    return true;
}

static bool find_group(const char *text, gid_t *ret)
{
    char *end, buf[4096];
    unsigned long v;
    struct group gr, *found = NULL;

    errno = 0;
    v = strtoul(text, &end, 10);
    if (*text >= '0' && *text <= '9' && *end == '\0') {
        *ret = (gid_t)v;
        return errno == 0 && v < UINT32_MAX;
    }
    if (getgrnam_r(text, &gr, buf, sizeof(buf), &found) != 0 || !found)
        return false;
    *ret = found->gr_gid;
    return true;
}

static int read_owner(sd_bus_message *m, struct options *options, sd_bus_error *error)
{
    const char *text;
    size_t n;
    int r = sd_bus_message_read(m, "s", &text);

    if (r < 0)
        return r;
    if (strlen(text) >= sizeof(options->owner))
        return error_invalid(error, "Option 'socket-owner': '%.40s…' is not USER or USER:GROUP.", text);
    n = strcspn(text, ":");
    if (n == 0 || n >= OWNER_MAX)
        return error_invalid(error, "Option 'socket-owner': '%s' is not USER or USER:GROUP.", text);
    strcpy(options->owner, text);
    return 0;
}

/* The first user of LibvirtUser= that there is, whom the administrator has named and not the caller. */
static int find_libvirt_user(const struct config *config, struct options *options, sd_bus_error *error)
{
    for (size_t i = 0; i < config->libvirt_user.n; i++)
        if (find_user(config->libvirt_user.items[i], false, &options->owner_uid, &options->owner_gid)) {
            options->has_owner = true;
            return 0;
        }
    return error_set(
        error, VF_ERROR_SOCKET_UNAVAILABLE,
        "Option 'layout': this host has none of the users as whom libvirt may run QEMU (%s%s). Is "
        "libvirt installed? Else set LibvirtUser= in vmferryd.conf(5).",
        config->libvirt_user.n > 0 ? config->libvirt_user.items[0] : "LibvirtUser= is empty",
        config->libvirt_user.n > 1 ? ", …" : "");
}

/* Of a caller that may name no other. */
static int find_self(struct options *options, uid_t caller, sd_bus_error *error)
{
    char number[16];

    if (options->layout[0] != '\0')
        return error_denied(error,
                            "Option 'socket-owner': with 'layout' only root names one; for uid %u it is "
                            "LibvirtUser= of vmferryd.conf(5). Leave the option out.",
                            caller);
    snprintf(number, sizeof(number), "%u", caller);
    if (strcmp(options->owner, number) != 0)
        return error_denied(
            error,
            "Option 'socket-owner': uid %u can have sockets for itself only, without a group. Leave "
            "the option out, or give the number %u; or call as root.",
            caller, caller);
    options->owner_uid = caller;
    options->owner_gid = (gid_t)-1;
    options->has_owner = true;
    return 0;
}

int options_find_owner(const struct config *config, struct options *options, uid_t caller,
                       sd_bus_error *error)
{
    const char *text = options->owner;
    size_t n = strcspn(text, ":");
    char user[OWNER_MAX];

    /* A user's own broker serves that user's own QEMUs. */
    if (n == 0)
        return options->layout[0] != '\0' && config->bus == BUS_SYSTEM
                   ? find_libvirt_user(config, options, error)
                   : 0;
    if (deputy_is_restricted(caller))
        return find_self(options, caller, error);
    memcpy(user, text, n);
    user[n] = '\0';
    if (!find_user(user, text[n] == ':', &options->owner_uid, &options->owner_gid))
        return error_invalid(error, "Option 'socket-owner': there is no user '%s'.", user);
    if (text[n] == ':') {
        if (!find_group(text + n + 1, &options->owner_gid))
            return error_invalid(error, "Option 'socket-owner': there is no group '%s'.", text + n + 1);
        options->has_group = true;
    }
    options->has_owner = true;
    return 0;
}

static int read_layout(sd_bus_message *m, struct options *options, sd_bus_error *error)
{
    static const char prefix[] = "libvirt:";
    const char *text, *name;
    int r = sd_bus_message_read(m, "s", &text);

    if (r < 0)
        return r;
    name = text + strlen(prefix);
    if (strncmp(text, prefix, strlen(prefix)) != 0 || *name == '\0' || strchr(name, '/'))
        return error_invalid(
            error,
            "Option 'layout' is '%.80s'; it can be 'libvirt:NAME', with the domain's name at the "
            "destination.",
            text);
    if (!message_text_ok(name, strlen(name) + 1))
        return error_invalid(error, "Option 'layout' holds what is not printable.");
    if (strlen(name) >= LAYOUT_NAME_MAX)
        return error_set(
            error, VF_ERROR_PATH_TOO_LONG,
            "Option 'layout': the domain's name has %zu bytes, for which no socket's path has room. "
            "Migrate the domain under a shorter name (vmferryctl migrate --name=, virsh migrate --dname).",
            strlen(name));
    strcpy(options->layout, name);
    return 0;
}

static int read_security(sd_bus_message *m, struct options *options, sd_bus_error *error)
{
    const char *text;
    int r = sd_bus_message_read(m, "s", &text);

    if (r < 0)
        return r;
    if (strcmp(text, "tls") == 0)
        options->security = SECURITY_TLS;
    else if (strcmp(text, "plain") == 0)
        options->security = SECURITY_PLAIN;
    else
        return error_invalid(error, "Option 'security' is '%s'; it can be 'tls' or 'plain'.", text);
    options->has_security = true;
    return 0;
}

static int check_endpoints(struct options *options, const char *key, sd_bus_error *error)
{
    for (uint32_t i = 0; i < options->n_endpoints; i++) {
        struct endpoint endpoint;
        const char *why = endpoint_parse(options->endpoints[i], &endpoint);

        if (!why && endpoint.any)
            why = "it names no host";
        if (why)
            return error_invalid(error, "Option '%s': '%s': %s.", key, options->endpoints[i], why);
    }
    return 0;
}

static int read_endpoints(sd_bus_message *m, struct options *options, sd_bus_error *error)
{
    int r = read_texts(m, options->endpoints[0], ADDRESS_TEXT_MAX, TICKET_ENDPOINTS_MAX,
                       &options->n_endpoints, "endpoints", error);

    if (r < 0)
        return r;
    options->no_endpoints = options->n_endpoints == 0;
    return check_endpoints(options, "endpoints", error);
}

static int read_endpoint(sd_bus_message *m, struct options *options, sd_bus_error *error)
{
    const char *text;
    int r = sd_bus_message_read(m, "s", &text);

    if (r < 0)
        return r;
    if (strlen(text) >= ADDRESS_TEXT_MAX)
        return error_invalid(error, "Option 'endpoint' is longer than %d bytes.", ADDRESS_TEXT_MAX - 1);
    if (!message_text_ok(text, strlen(text) + 1))
        return error_invalid(error, "Option 'endpoint': '%s' holds what is not printable.", text);
    strcpy(options->endpoints[0], text);
    options->n_endpoints = 1;
    return check_endpoints(options, "endpoint", error);
}

static int read_near(sd_bus_message *m, struct options *options, sd_bus_error *error)
{
    const char *text;
    int r = sd_bus_message_read(m, "s", &text);

    if (r < 0)
        return r;
    if (strlen(text) >= sizeof(options->near) || !address_is_ip(text))
        return error_invalid(error, "Option 'near-address': '%.60s' is no IPv4 or IPv6 address.", text);
    strcpy(options->near, text);
    return 0;
}

static int read_expire(sd_bus_message *m, struct options *options, sd_bus_error *error)
{
    int r = sd_bus_message_read(m, "t", &options->expire);

    if (r >= 0 && (options->expire < EXPIRE_MIN || options->expire > EXPIRE_MAX))
        return error_invalid(error, "Option 'expire-usec' is %" PRIu64 "; it can be %d to %llu.",
                             options->expire, EXPIRE_MIN, EXPIRE_MAX);
    return r;
}

static int read_resume_timeout(sd_bus_message *m, struct options *options, sd_bus_error *error)
{
    int r = sd_bus_message_read(m, "t", &options->resume_timeout);

    if (r >= 0 && options->resume_timeout > EXPIRE_MAX)
        return error_invalid(
            error, "Option 'resume-timeout-usec' is %" PRIu64 "; it can be 0 (never resume) to %llu.",
            options->resume_timeout, EXPIRE_MAX);
    return r;
}

static int read_bandwidth(sd_bus_message *m, struct options *options, sd_bus_error *error)
{
    return sd_bus_message_read(m, "t", &options->bandwidth_limit);
}

static int read_expected(sd_bus_message *m, struct options *options, sd_bus_error *error)
{
    return sd_bus_message_read(m, "t", &options->expected_bytes);
}

static int read_client_id(sd_bus_message *m, struct options *options, sd_bus_error *error)
{
    const char *text;
    int r = sd_bus_message_read(m, "s", &text);

    if (r < 0)
        return r;
    if (!message_text_ok(text, strlen(text) + 1))
        return error_invalid(error, "Option 'client-id' holds what is not printable.");
    if (text[0] == '\0' || strlen(text) > CLIENT_ID_MAX)
        return error_invalid(error, "Option 'client-id' is empty or longer than %d bytes.", CLIENT_ID_MAX);
    options->client_id = strdup(text);
    return options->client_id ? 0 : -ENOMEM;
}

static int read_tie(sd_bus_message *m, struct options *options, sd_bus_error *error)
{
    int v, r = sd_bus_message_read(m, "b", &v);

    if (r >= 0)
        options->tie_to_caller = v;
    return r;
}

static const struct option_rule rules[] = {
    {"streams", "as", IN | OUT, read_streams},
    {"sockets", "a{ss}", IN | OUT, read_sockets},
    {"socket-owner", "s", IN | OUT, read_owner},
    {"layout", "s", IN | OUT, read_layout},
    {"security", "s", IN | OUT, read_security},
    {"endpoints", "as", IN, read_endpoints},
    {"near-address", "s", IN, read_near},
    {"endpoint", "s", OUT, read_endpoint},
    {"expire-usec", "t", IN | OUT, read_expire},
    {"resume-timeout-usec", "t", IN | OUT, read_resume_timeout},
    {"bandwidth-limit", "t", IN | OUT, read_bandwidth},
    {"expected-bytes", "t", IN | OUT, read_expected},
    {"client-id", "s", IN | OUT, read_client_id},
    {"tie-to-caller", "b", IN | OUT, read_tie},
};

enum { N_RULES = sizeof(rules) / sizeof(rules[0]) };

static int rule_find(const char *key, enum message_role role, const struct option_rule **ret,
                     sd_bus_error *error)
{
    for (size_t i = 0; i < N_RULES; i++) {
        if (strcmp(rules[i].key, key) != 0)
            continue;
        if (!(rules[i].roles & (1U << role)))
            return error_invalid(error, "Option '%s' belongs to %s.", key,
                                 role == ROLE_INCOMING ? "StartOutgoing" : "PrepareIncoming");
        *ret = &rules[i];
        return 0;
    }
    return error_invalid(
        error, "There is no option '%s'. Those of this method stand in org.vmferry.Broker1(5).", key);
}

/* One pass over the a{sv}: reads 'sockets' (second pass) or all else (first), and says what cannot be. */
static int read_pass(sd_bus_message *m, enum message_role role, bool second, struct options *options,
                     sd_bus_error *error)
{
    unsigned seen = 0;
    int r = sd_bus_message_enter_container(m, 'a', "{sv}");

    while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
        const struct option_rule *rule = NULL;
        const char *key, *type;
        bool now;

        r = sd_bus_message_read(m, "s", &key);
        if (r >= 0)
            r = rule_find(key, role, &rule, error);
        if (r < 0)
            return r;
        if (seen & (1U << (rule - rules)))
            return error_invalid(error, "Option '%s' is given twice.", key);
        seen |= 1U << (rule - rules);
        r = sd_bus_message_peek_type(m, NULL, &type);
        if (r < 0)
            return r;
        if (strcmp(type, rule->type) != 0)
            return error_invalid(error, "Option '%s' is of type '%s', but must be of type '%s'.", key, type,
                                 rule->type);
        now = (rule->read == read_sockets) == second;
        if (now) {
            r = sd_bus_message_enter_container(m, 'v', rule->type);
            if (r >= 0)
                r = rule->read(m, options, error);
            if (r >= 0)
                r = sd_bus_message_exit_container(m);
        } else {
            r = sd_bus_message_skip(m, "v");
        }
        if (r >= 0)
            r = sd_bus_message_exit_container(m);
    }
    return r < 0 ? r : sd_bus_message_exit_container(m);
}

int options_parse(sd_bus_message *m, enum message_role role, const struct config *config, struct options *ret,
                  sd_bus_error *error)
{
    int r;

    *ret = (struct options){.n_streams = 1,
                            .streams = {"migrate"},
                            .expire = config->expire,
                            .resume_timeout = config->resume_timeout};
    r = read_pass(m, role, false, ret, error);
    if (r < 0)
        return r;
    /* What comes before the a{sv} is read again for the second pass: it is where the container begins. */
    r = sd_bus_message_rewind(m, true);
    if (r >= 0)
        r = sd_bus_message_skip(m, role == ROLE_INCOMING ? "s" : "ss");
    if (r >= 0)
        r = read_pass(m, role, true, ret, error);
    if (r >= 0 && role == ROLE_INCOMING && ret->security == SECURITY_PLAIN && !config->allow_plain)
        return error_set(
            error, VF_ERROR_SECURITY_MISMATCH,
            "Option 'security' is 'plain', which this host does not allow (AllowPlain=). Take 'tls'.");
    return r;
}
