/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "message.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "cleanup.h"
#include "fd-pass.h"

struct message_rule {
    const char *name;
    enum message_direction direction;
    size_t size;
    size_t n_fds;
    unsigned phases;
};

#define RULE(TYPE, member, direction_, n_fds_, phases_) \
    [MESSAGE_##TYPE] = {#TYPE, direction_, sizeof(((union message *)NULL)->member), n_fds_, phases_}

static const struct message_rule rules[] = {
    RULE(START_RELAY, start_relay, TO_HELPER, 1, PHASE_NEW),
    RULE(START_GATE, start_gate, TO_HELPER, 0, PHASE_NEW),
    RULE(LISTENER, listener, TO_HELPER, 1, PHASE_GATE),
    RULE(REJECT, reject, TO_HELPER, 1, PHASE_GATE),
    RULE(PEER, peer, TO_HELPER, 1, PHASE_RELAY | PHASE_ENDED),
    RULE(PEER_FAILED, peer_failed, TO_HELPER, 0, PHASE_RELAY | PHASE_ENDED),
    RULE(QEMU, qemu, TO_HELPER, 1, PHASE_RELAY | PHASE_ENDED),
    RULE(QEMU_FAILED, qemu_failed, TO_HELPER, 0, PHASE_RELAY | PHASE_ENDED),
    RULE(LIMIT, limit, TO_HELPER, 0, PHASE_RELAY | PHASE_ENDED),
    RULE(END, end, TO_HELPER, 0, PHASE_RELAY | PHASE_ENDED),
    RULE(PIPE, pipe, TO_HELPER, 1, PHASE_RELAY | PHASE_ENDED),
    RULE(SYNC, sync, TO_HELPER, 0, PHASE_RELAY | PHASE_ENDED),
    RULE(HOLD, hold, TO_HELPER, 0, PHASE_RELAY | PHASE_ENDED),
    RULE(OUTCOME, outcome, TO_HELPER, 0, PHASE_RELAY | PHASE_ENDED),
    RULE(OFFER, offer, TO_HELPER, 0, PHASE_RELAY | PHASE_GATE | PHASE_ENDED),
    RULE(PEER_MARKED, peer_marked, TO_HELPER, 1, PHASE_RELAY | PHASE_ENDED),
    RULE(KEEP, keep, TO_HELPER, 1, PHASE_RELAY | PHASE_ENDED),
    RULE(USE, use, TO_HELPER, 0, PHASE_RELAY | PHASE_ENDED),
    /* The broker's messages may cross a RESULT on its way; a helper has no such excuse. */
    RULE(READY, ready, TO_BROKER, 0, PHASE_NEW),
    RULE(ARRIVED, arrived, TO_BROKER, 1, PHASE_GATE),
    RULE(NEED_PEER, need_peer, TO_BROKER, 0, PHASE_RELAY),
    RULE(NEED_QEMU, need_qemu, TO_BROKER, 0, PHASE_RELAY),
    RULE(STATE, state_changed, TO_BROKER, 0, PHASE_RELAY),
    RULE(RESULT, result, TO_BROKER, 0, PHASE_RELAY),
    RULE(LOG, log, TO_BROKER, 0, PHASE_RELAY | PHASE_GATE | PHASE_ENDED),
    RULE(SYNCED, synced, TO_BROKER, 0, PHASE_RELAY),
    RULE(PEER_OUTCOME, peer_outcome, TO_BROKER, 0, PHASE_RELAY),
    RULE(FEATURES, features, TO_BROKER, 0, PHASE_RELAY),
    RULE(ARRIVED_MARKED, arrived_marked, TO_BROKER, 1, PHASE_GATE),
    RULE(KEPT, kept, TO_BROKER, 0, PHASE_RELAY),
};

static const struct message_rule *rule_find(uint32_t type)
{
    if (type >= sizeof(rules) / sizeof(rules[0]) || !rules[type].name)
        return NULL;
    return &rules[type];
}

const char *message_name(uint32_t type)
{
    const struct message_rule *rule = rule_find(type);

    return rule ? rule->name : "?";
}

int message_send(int sock, enum message_type type, union message *m, int fd)
{
    const struct message_rule *rule = rule_find(type);

    if (!rule || (rule->n_fds == 1) != (fd >= 0))
        return -EINVAL;
    m->header = (struct message_header){.type = type, .version = MESSAGE_VERSION};
    return fd_pass_send(sock, m, rule->size, &fd, rule->n_fds);
}

/* What was received, held against the table. */
static int check(enum message_direction direction, unsigned phase, const union message *m, ssize_t n,
                 size_t n_fds)
{
    const struct message_rule *rule;

    if ((size_t)n < sizeof(m->header) || m->header.version != MESSAGE_VERSION)
        return -EBADMSG;
    rule = rule_find(m->header.type);
    if (!rule || rule->direction != direction || (size_t)n != rule->size || n_fds != rule->n_fds ||
        !(rule->phases & phase))
        return -EBADMSG;
    return 1;
}

static int receive(int sock, enum message_direction direction, unsigned phase, int flags, union message *ret,
                   int *ret_fd)
{
    int fds[FD_PASS_MAX], r;
    size_t n_fds;
    ssize_t n;

    *ret_fd = -1;
    memset(ret, 0, sizeof(*ret));
    n = fd_pass_recv(sock, flags, ret, sizeof(*ret), fds, &n_fds);
    if (n < 0)
        return (int)n;
    _cleanup_fd_ int fd = n_fds > 0 ? fds[0] : -1;
    if (n == 0 && n_fds == 0)
        return 0;
    r = check(direction, phase, ret, n, n_fds);
    if (r < 0)
        return r;
    *ret_fd = fd_steal(&fd);
    return 1;
}

int message_recv(int sock, enum message_direction direction, unsigned phase, union message *ret, int *ret_fd)
{
    return receive(sock, direction, phase, 0, ret, ret_fd);
}

int message_peek_type(int sock, uint32_t *ret_type)
{
    struct message_header header = {0};
    ssize_t n;

    /* Without room for control data no FD is made. */
    do {
        n = recv(sock, &header, sizeof(header), MSG_PEEK | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    *ret_type = (size_t)n == sizeof(header) ? header.type : 0;
    return n > 0;
}

int message_peek(int sock, enum message_direction direction, unsigned phase, union message *ret)
{
    int fd, r = receive(sock, direction, phase, MSG_PEEK, ret, &fd);

    if (r > 0 && fd >= 0) { /* a descriptor is received once, or not at all */
        fd_closep(&fd);
        return -EBADMSG;
    }
    return r;
}

/*
 * Characters without a glyph that change how the text around them is read: its direction, its lines, or where
 * a word ends. U+200C and U+200D are not among them: scripts and emoji need these two.
 */
static bool is_format_control(uint32_t code)
{
    static const struct {
        uint32_t first, last;
    } ranges[] = {
        {0x061c, 0x061c}, /* Arabic letter mark */
        {0x200b, 0x200b}, /* zero width space */
        {0x200e, 0x200f}, /* left-to-right and right-to-left mark */
        {0x2028, 0x202e}, /* line and paragraph separator, bidi embeddings and overrides */
        {0x2060, 0x206f}, /* word joiner, invisible operators, bidi isolates, deprecated ones */
        {0xfeff, 0xfeff}, /* zero width no-break space */
        {0xfff9, 0xfffb}, /* interlinear annotation */
    };

    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
        if (code >= ranges[i].first && code <= ranges[i].last)
            return true;
    return false;
}

/*
 * The length in bytes of the character at s, of which left bytes may be read, and its number; 0 where there
 * is none: what is not UTF-8 (RFC 3629).
 */
static size_t character_length(const unsigned char *s, size_t left, uint32_t *ret)
{
    uint32_t code;
    size_t n;

    if (s[0] < 0x80) {
        n = 1;
        code = s[0];
    } else if ((s[0] & 0xe0) == 0xc0) {
        n = 2;
        code = s[0] & 0x1fU;
    } else if ((s[0] & 0xf0) == 0xe0) {
        n = 3;
        code = s[0] & 0x0fU;
    } else if ((s[0] & 0xf8) == 0xf0) {
        n = 4;
        code = s[0] & 0x07U;
    } else {
        return 0;
    }
    if (n > left)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        code = (code << 6) | (s[i] & 0x3fU);
    }
    if ((n == 2 && code < 0x80) || (n == 3 && code < 0x800) || (n == 4 && code < 0x10000) ||
        code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return 0;
    *ret = code;
    return n;
}

/* The same for a printable character; 0 for a control character (C0, DEL, C1, format) as well. */
static size_t printable_length(const unsigned char *s, size_t left)
{
    uint32_t code = 0;
    size_t n = character_length(s, left, &code);

    return code < 0x20 || (code >= 0x7f && code < 0xa0) || is_format_control(code) ? 0 : n;
}

bool message_text_ok(const char *text, size_t size)
{
    const unsigned char *s = (const unsigned char *)text;

    for (size_t i = 0; i < size;) {
        size_t n;

        if (s[i] == 0)
            return true;
        n = printable_length(s + i, size - i);
        if (n == 0)
            return false;
        i += n;
    }
    return false;
}

void message_text_set(char *field, size_t size, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t left = strlen(text), out = 0;

    memset(field, 0, size);
    while (left > 0) {
        uint32_t code;
        size_t n = printable_length(s, left);
        size_t skip = n > 0 ? n : character_length(s, left, &code);

        if (out + (n > 0 ? n : 1) >= size)
            break;
        if (n > 0)
            memcpy(field + out, s, n);
        else
            field[out] = '?';
        skip = skip > 0 ? skip : 1;
        out += n > 0 ? n : 1;
        s += skip;
        left -= skip;
    }
}

void message_text_end(char *text)
{
    const size_t n = strlen(text);
    size_t first = n; /* byte of the last character */
    uint32_t code;

    while (first > 0 && ((unsigned char)text[--first] & 0xc0) == 0x80)
        ;
    if (first < n && character_length((const unsigned char *)text + first, n - first, &code) == 0)
        text[first] = '\0';
}

bool message_outcome_ok(const struct outcome *outcome)
{
    return outcome->outcome > VF_OUTCOME_NONE && outcome->outcome < VF_OUTCOME_MAX_ &&
           message_text_ok(outcome->host, sizeof(outcome->host)) &&
           message_text_ok(outcome->run_state, sizeof(outcome->run_state)) &&
           message_text_ok(outcome->reason, sizeof(outcome->reason));
}

bool stream_name_ok(const char *name)
{
    size_t n = strlen(name);

    return n >= 1 && n < MESSAGE_STREAM_MAX && name[0] >= 'a' && name[0] <= 'z' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}
