/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "../stand-ins.h"

#include "broker/helpers/ready.h"
#include "broker/log.h"

/* The helpers of a broker, each a stand-in that systemd has started. */

struct rig {
    struct stand_ins stand_ins;
    sd_event *event;
    struct helper_links links;
    unsigned n_gone;
};

static void on_gone(struct helper_link *link, const char *why, void *userdata)
{
    struct rig *rig = userdata;

    rig->n_gone++;
    helper_link_free(link);
}

static const struct helper_handlers handlers = {.gone = on_gone};

static struct rig *rig_new(unsigned max_spares)
{
    struct rig *rig = calloc(1, sizeof(*rig));

    assert_non_null(rig);
    log_open(LOG_EMERG);
    stand_ins_open(&rig->stand_ins, false);
    assert_true(sd_event_new(&rig->event) >= 0);
    helper_links_init(&rig->links, rig->event, "/nonexistent", rig->stand_ins.helper_path);
    helper_links_keep_spares(&rig->links, max_spares);
    stand_ins_turn(&rig->stand_ins, rig->event);
    return rig;
}

static void rig_freep(struct rig **rig)
{
    helper_links_clear(&(*rig)->links);
    sd_event_unref((*rig)->event);
    for (size_t i = 0; i < (*rig)->stand_ins.n_helpers; i++)
        assert_true(helper_is_dropped((*rig)->stand_ins.helpers[i]));
    stand_ins_close(&(*rig)->stand_ins);
    free(*rig);
}

#define _cleanup_rig_ _cleanup_(rig_freep)

static size_t n_started(const struct rig *rig)
{
    return rig->stand_ins.n_helpers;
}

static unsigned n_dropped(const struct rig *rig)
{
    unsigned n = 0;

    for (size_t i = 0; i < n_started(rig); i++)
        n += helper_is_dropped(rig->stand_ins.helpers[i]);
    return n;
}

/* Until there are so many spares, and no more come. */
static void rig_wait_spares(struct rig *rig, unsigned n)
{
    for (int i = 0; i < 500 && (rig->links.n_spares != n || rig->links.to_make > 0); i++) {
        assert_true(sd_event_run(rig->event, 20000) >= 0);
        stand_in_accept(&rig->stand_ins);
    }
    stand_ins_turn(&rig->stand_ins, rig->event);
    assert_int_equal(rig->links.n_spares, n);
    assert_int_equal(rig->links.to_make, 0);
}

/* It is a migration's from now on, and hears that; returns how many were started before it. */
static size_t rig_take(struct rig *rig)
{
    struct helper_link *link;
    union message m = {0};
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    uint32_t type;
    size_t i = 0;

    assert_true(helper_link_new(&rig->links, &handlers, rig, &link) >= 0);
    assert_true(helper_link_send(link, MESSAGE_START_RELAY, &m, fd) >= 0);
    close(fd);
    stand_in_accept(&rig->stand_ins);
    while (message_peek_type(rig->stand_ins.helpers[i], &type) <= 0 || type != MESSAGE_START_RELAY)
        assert_true(++i < n_started(rig));
    helper_hears(rig->stand_ins.helpers[i], MESSAGE_START_RELAY, NULL);
    return i;
}

TEST(one_is_there_before_it_is_needed)
{
    _cleanup_rig_ struct rig *rig = rig_new(4);

    assert_int_equal(n_started(rig), 1);
    assert_int_equal(rig_take(rig), 0);
    assert_int_equal(n_started(rig), 1); /* the next one lets the migration go first */
    rig_wait_spares(rig, 1);
    assert_int_equal(n_started(rig), 2);
}

TEST(after_several_at_once_so_many_wait)
{
    _cleanup_rig_ struct rig *rig = rig_new(4);

    for (int i = 0; i < 3; i++)
        rig_take(rig);
    assert_int_equal(n_started(rig), 3);
    rig_wait_spares(rig, 3);
    assert_int_equal(n_started(rig), 6);
    for (int i = 0; i < 3; i++)
        assert_int_equal(rig_take(rig), 3 + i); /* in the order of their starts */
    assert_int_equal(n_started(rig), 6);
}

TEST(there_are_never_more_spares_than_may_be)
{
    _cleanup_rig_ struct rig *rig = rig_new(2);

    for (int i = 0; i < 4; i++)
        rig_take(rig);
    rig_wait_spares(rig, 2);
    helper_links_keep_spares(&rig->links, 0);
    rig_wait_spares(rig, 0);
    assert_int_equal(n_dropped(rig), 2);
    rig_take(rig);
    rig_wait_spares(rig, 0);
    assert_int_equal(rig->n_gone, 0);
}

/* It is not made over and over: the next migration makes its own, and another spare is tried then. */
TEST(a_spare_that_dies_is_not_followed_by_another)
{
    _cleanup_rig_ struct rig *rig = rig_new(4);

    shutdown(rig->stand_ins.helpers[0], SHUT_RDWR);
    stand_ins_turn(&rig->stand_ins, rig->event);
    rig_wait_spares(rig, 0);
    assert_int_equal(n_started(rig), 1);
    assert_int_equal(rig_take(rig), 1);
    rig_wait_spares(rig, 1);
}

/* And one that has died unseen is not given to a migration. */
TEST(a_dead_spare_is_not_taken)
{
    _cleanup_rig_ struct rig *rig = rig_new(4);

    shutdown(rig->stand_ins.helpers[0], SHUT_RDWR);
    assert_int_equal(rig_take(rig), 1);
    rig_wait_spares(rig, 1);
}

TEST(a_spare_that_speaks_is_ended)
{
    _cleanup_rig_ struct rig *rig = rig_new(4);

    helper_says(rig->stand_ins.helpers[0], MESSAGE_LOG, (union message){.log.priority = LOG_INFO});
    stand_ins_turn(&rig->stand_ins, rig->event);
    rig_wait_spares(rig, 0);
    assert_true(helper_is_dropped(rig->stand_ins.helpers[0]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(one_is_there_before_it_is_needed),
        CASE(after_several_at_once_so_many_wait),
        CASE(there_are_never_more_spares_than_may_be),
        CASE(a_spare_that_dies_is_not_followed_by_another),
        CASE(a_dead_spare_is_not_taken),
        CASE(a_spare_that_speaks_is_ended),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
