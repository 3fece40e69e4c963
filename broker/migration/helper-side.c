/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/helper-side.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#include "broker/migration/log.h"
#include "common/clock.h"

/* One follows the other, and the first the last. */
static void set_voice(struct helper_side *side, enum helper_voice voice)
{
    static const char *const names[] = {"ours", "syncing", "synced"};

    if (voice != (side->voice + 1) % 3)
        return;
    migration_log(side->identity, LOG_DEBUG, NULL, "helper: %s → %s", names[side->voice], names[voice]);
    side->voice = voice;
}

void helper_side_init(struct helper_side *side, const struct identity *identity)
{
    *side = (struct helper_side){.identity = identity, .page.fd = -1};
}

void helper_side_clear(struct helper_side *side)
{
    side->link = helper_link_free(side->link);
    stats_page_clear(&side->page);
}

int helper_side_send(struct helper_side *side, enum message_type type, union message *m, int fd)
{
    return side->link ? helper_link_send(side->link, type, m, fd) : -ENOTCONN;
}

bool helper_side_has_room(const struct helper_side *side)
{
    return side->link && helper_link_has_room(side->link);
}

void helper_side_answer(struct helper_side *side, enum message_type type, union message *m, int fd)
{
    if (side->link && helper_link_send(side->link, type, m, fd) < 0)
        helper_side_kill(side, "did not take what it had asked for");
}

void helper_side_kill(struct helper_side *side, const char *why)
{
    helper_link_kill(side->link, why);
}

void helper_side_sync(struct helper_side *side)
{
    union message m = {0};
    uint32_t number;

    if (gnutls_rnd(GNUTLS_RND_NONCE, &number, sizeof(number)) < 0)
        number = (uint32_t)wall_now();
    side->cookie = SYNC_KNOWS_FEATURES << 32 | number;
    set_voice(side, VOICE_SYNCING);
    m.sync.cookie = side->cookie;
    /* One that has ended meanwhile cannot be told; what it said is read before its end is seen. */
    if (helper_side_send(side, MESSAGE_SYNC, &m, -1) == -EAGAIN)
        helper_side_kill(side, "does not read what it is told");
}

int helper_side_offer(struct helper_side *side, uint32_t growth)
{
    union message m = {.offer = {.features = OFFERS_KNOWN, .growth = growth}};

    return helper_side_send(side, MESSAGE_OFFER, &m, -1);
}

bool helper_side_has(const struct helper_side *side, enum message_offers feature)
{
    return (side->features & feature) != 0;
}

/* Those that the broker before this one gave are smaller: it is the time since the host's start. */
uint64_t helper_side_keep(struct helper_side *side, enum kept_for what, uint32_t stream, bool shared, int fd)
{
    const uint64_t now = exact_now(), number = now > side->kept ? now : side->kept + 1;
    union message m = {.keep = {.number = number, .what = what, .stream = stream, .shared = shared}};

    if (!helper_side_has(side, OFFER_KEEPS) || helper_side_send(side, MESSAGE_KEEP, &m, fd) < 0)
        return 0;
    side->kept = number;
    return number;
}

bool helper_side_hears(struct helper_side *side, const union message *m)
{
    if (m->header.type == MESSAGE_FEATURES) {
        side->features = m->features.features & OFFERS_KNOWN;
        return false;
    }
    if (side->voice == VOICE_OURS)
        return true;
    if (m->header.type == MESSAGE_SYNCED) {
        if (side->voice == VOICE_SYNCING && m->synced.cookie == side->cookie)
            set_voice(side, VOICE_SYNCED);
        return false;
    }
    return side->voice == VOICE_SYNCED ||
           (m->header.type != MESSAGE_NEED_PEER && m->header.type != MESSAGE_NEED_QEMU);
}

void helper_side_settled(struct helper_side *side)
{
    if (side->voice == VOICE_SYNCED)
        set_voice(side, VOICE_OURS);
}
