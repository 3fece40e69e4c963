/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "migration-rig.h"

#include "broker/migration/supply.h"

#include <sys/stat.h>

/* QEMU's sockets: those that the broker listens on, those that it connects to, and those that are brought. */

static int connect_to(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    strcpy(un.sun_path, path);
    if (connect(fd, (const struct sockaddr *)&un, sizeof(un)) == 0)
        return fd;
    close(fd);
    return -1;
}

static int listen_at(const char *path)
{
    int fd = stand_in_socket(path, SOCK_STREAM);

    assert_int_equal(listen(fd, 4), 0);
    return fd;
}

/* What it hears next but pipes. */
static union message hears_qemu(int helper, enum message_type type)
{
    uint32_t next;

    while (message_peek_type(helper, &next) > 0 && next == MESSAGE_PIPE)
        helper_hears(helper, MESSAGE_PIPE, NULL);
    return helper_hears(helper, type, NULL);
}

static void needs_qemu(struct rig *rig, int helper, uint32_t channel)
{
    helper_says(helper, MESSAGE_NEED_QEMU, (union message){.need_qemu.channel = channel});
    rig_turn(rig);
}

TEST(a_source_listens_and_hands_on)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    struct stat st;
    int helper, qemu;
    struct migration *migration = rig_start(rig, &helper);
    const char *path = migration_socket_path(migration, 0);

    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    qemu = connect_to(path);
    rig_turn(rig);
    assert_int_equal(hears_qemu(helper, MESSAGE_QEMU).qemu.channel, MESSAGE_CHANNEL_NEW);
    close(qemu);
    rig_result(rig, helper, VF_ERROR_CANCELLED, "");
    assert_int_equal(stat(path, &st), -1); /* with the migration the socket goes */
}

TEST(a_socket_at_a_path_of_the_callers_goes_with_it)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    struct options options = rig_options(rig);
    char path[64];
    int helper;

    snprintf(path, sizeof(path), "%s/mine", rig->stand_ins.directory);
    options.sockets[0] = strdup(path);
    rig_start_with(rig, options, &helper);
    assert_int_equal(access(path, F_OK), 0);
    rig_result(rig, helper, VF_ERROR_CANCELLED, "");
    assert_int_equal(access(path, F_OK), -1);
}

TEST(with_a_layout_both_ends_have_one_path)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    struct options options = rig_options(rig);
    char path[128], directory[64];
    struct migration *migration;
    int helper;

    options.n_streams = 3;
    strcpy(options.streams[1], "disks");
    strcpy(options.streams[2], "libvirt");
    strcpy(options.layout, "web1");
    migration = rig_start_with(rig, options, &helper);
    snprintf(directory, sizeof(directory), "%s/%016x", rig->stand_ins.directory, 4711);
    snprintf(path, sizeof(path), "%s/migrate.tunnelmigrate.dest.web1", directory);
    assert_string_equal(migration_socket_path(migration, 0), path);
    assert_int_equal(access(path, F_OK), 0);
    snprintf(path, sizeof(path), "%s/disks.tunnelmigrate.dest.web1", directory);
    assert_string_equal(migration_socket_path(migration, 1), path);
    assert_string_equal(migration_socket_path(migration, 2), "");
    rig_result(rig, helper, VF_ERROR_CANCELLED, "");
    assert_int_equal(access(directory, F_OK), -1);
}

TEST(what_libvirts_qemu_leaves_goes_too)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    struct options options = rig_options(rig);
    const char *path;
    int helper, qemu;

    strcpy(options.layout, "web1");
    path = migration_socket_path(rig_prepare_with(rig, options, &helper), 0);
    qemu = listen_at(path);
    rig_result(rig, helper, VF_ERROR_CANCELLED, "");
    assert_int_equal(access(path, F_OK), -1);
    close(qemu);
}

TEST(a_connection_beyond_the_quota_is_closed)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int helper, qemu;
    char byte;

    rig->config.max_channels_in_all = 0;
    qemu = connect_to(migration_socket_path(rig_start(rig, &helper), 0));
    rig_turn(rig);
    helper_hears_nothing(helper);
    assert_int_equal(recv(qemu, &byte, 1, 0), 0);
    close(qemu);
}

TEST(a_path_that_is_taken_is_left_alone)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    _cleanup_(options_clear) struct options options = rig_options(rig);
    struct ticket ticket = {.id = 4711, .expiry = UINT64_MAX};
    char text[TICKET_TEXT_MAX], path[64];
    struct migration *migration;
    struct stat st;

    snprintf(path, sizeof(path), "%s/there", rig->stand_ins.directory);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    options.sockets[0] = strdup(path);
    assert_true(ticket_encode(&ticket, text) >= 0);
    assert_true(migration_start(&rig->services, "vm", text, &options, getuid(), &migration, &error) < 0);
    assert_string_equal(error.name, "org.vmferry.Error.SocketUnavailable");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(registry_count(&rig->registry), 0);
}

TEST(a_destination_connects_to_a_qemu_that_listens_late)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int helper, qemu;
    struct migration *migration = rig_prepare(rig, &helper);

    needs_qemu(rig, helper, 5);
    helper_hears_nothing(helper); /* it tries */
    qemu = listen_at(migration_socket_path(migration, 0));
    for (int i = 0; i < 100 && message_peek_type(helper, &(uint32_t){0}) <= 0; i++)
        assert_true(sd_event_run(rig->event, 10000) >= 0);
    assert_int_equal(hears_qemu(helper, MESSAGE_QEMU).qemu.channel, 5);
    close(qemu);
}

TEST(a_destination_gives_up_in_time)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    union message m;
    int helper;

    rig->config.qemu_timeout = 10000;
    rig_prepare(rig, &helper);
    needs_qemu(rig, helper, 5);
    for (int i = 0; i < 100 && message_peek_type(helper, &(uint32_t){0}) <= 0; i++)
        assert_true(sd_event_run(rig->event, 10000) >= 0);
    m = hears_qemu(helper, MESSAGE_QEMU_FAILED);
    assert_int_equal(m.qemu_failed.error, VF_ERROR_SOCKET_UNAVAILABLE);
    assert_non_null(strstr(m.qemu_failed.text, "send it migrate-incoming, in time"));
}

TEST(what_is_no_socket_is_not_tried_twice)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int helper;
    struct migration *migration = rig_prepare(rig, &helper);

    close(open(migration_socket_path(migration, 0), O_CREAT | O_WRONLY, 0600));
    needs_qemu(rig, helper, 5);
    assert_non_null(
        strstr(hears_qemu(helper, MESSAGE_QEMU_FAILED).qemu_failed.text, "what is there is no socket"));
    unlink(migration_socket_path(migration, 0));
}

TEST(a_second_request_while_one_is_open_is_a_lie)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int helper;

    rig_prepare(rig, &helper);
    needs_qemu(rig, helper, 5);
    needs_qemu(rig, helper, 6);
    assert_int_equal(rig->n_finished, 1);
}

/* ---- Brought by a caller ---- */

TEST(a_socket_that_was_brought_serves_before_the_path)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    int helper, pair[2];
    struct migration *migration = rig_prepare(rig, &helper);
    union message m;

    test_pair(SOCK_STREAM, 0, pair);
    assert_true(supply_add_stream(migration, 0, pair[0], &error) >= 0);
    assert_int_equal(
        registry_find(&rig->registry, ROLE_INCOMING, migration_identity(migration)->id, 0)->n_waiting, 1);
    needs_qemu(rig, helper, 5);
    m = hears_qemu(helper, MESSAGE_QEMU);
    assert_int_equal(m.qemu.channel, 5);
    assert_int_equal(m.qemu.shared, 1); /* its flags are the caller's, too */
    close(pair[0]);
    close(pair[1]);
}

TEST(a_request_that_waits_is_served_at_once)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    int helper, theirs;
    struct migration *migration = rig_prepare(rig, &helper);

    needs_qemu(rig, helper, 5);
    assert_true(supply_open_stream(migration, 0, &theirs, &error) >= 0);
    assert_int_equal(hears_qemu(helper, MESSAGE_QEMU).qemu.shared, 0); /* it is ours alone */
    close(theirs);
}

TEST(none_may_be_brought_twice)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    int helper, pair[2];
    struct migration *migration = rig_prepare(rig, &helper);

    test_pair(SOCK_STREAM, 0, pair);
    assert_true(supply_add_stream(migration, 0, pair[0], &error) >= 0);
    assert_true(supply_add_stream(migration, 0, pair[0], &error) < 0);
    assert_non_null(strstr(error.message, "Pass each only once"));
    close(pair[0]);
    close(pair[1]);
}

TEST(only_so_many_wait_and_a_refused_one_may_come_again)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    int helper, pair[2], theirs[64];
    struct migration *migration = rig_prepare(rig, &helper);

    for (size_t i = 0; i < ELEMENTS(theirs); i++)
        assert_true(supply_open_stream(migration, 0, &theirs[i], &error) >= 0);
    test_pair(SOCK_STREAM, 0, pair);
    assert_true(supply_add_stream(migration, 0, pair[0], &error) < 0);
    assert_string_equal(error.name, "org.vmferry.Error.LimitExceeded");
    needs_qemu(rig, helper, 0); /* takes one */
    assert_true(supply_add_stream(migration, 0, pair[0], &error) >= 0);
    for (size_t i = 0; i < ELEMENTS(theirs); i++)
        close(theirs[i]);
    close(pair[0]);
    close(pair[1]);
}

TEST(a_peer_connection_waits_for_the_helper_or_the_helper_for_it)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    int helper, first[2], second[2];
    struct migration *migration = rig_start(rig, &helper);

    test_tcp_pair(first);
    test_tcp_pair(second);
    assert_true(supply_add_peer(migration, first[0], &error) >= 0);
    helper_hears_nothing(helper);
    for (uint32_t serial = 1; serial <= 2; serial++)
        helper_says(helper, MESSAGE_NEED_PEER,
                    (union message){.need_peer = {.serial = serial, .kind = PEER_CHANNEL}});
    rig_turn(rig);
    assert_int_equal(helper_hears(helper, MESSAGE_PEER, NULL).peer.serial, 1);
    helper_hears_nothing(helper);
    assert_true(supply_add_peer(migration, second[0], &error) >= 0);
    assert_int_equal(helper_hears(helper, MESSAGE_PEER, NULL).peer.serial, 2);
    for (int i = 0; i < 2; i++) {
        close(first[i]);
        close(second[i]);
    }
}

TEST(the_wait_for_a_peer_connection_is_bounded)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    struct options options = rig_options(rig);
    int helper;

    options.expire = 200000;
    rig_start_with(rig, options, &helper);
    rig_state(rig, helper, STATE_CONNECTED, "");
    helper_says(helper, MESSAGE_NEED_PEER, (union message){.need_peer = {.serial = 1, .kind = PEER_CONTROL}});
    for (int i = 0; i < 100 && message_peek_type(helper, &(uint32_t){0}) <= 0; i++)
        assert_true(sd_event_run(rig->event, 10000) >= 0);
    assert_int_equal(helper_hears(helper, MESSAGE_PEER_FAILED, NULL).peer_failed.error,
                     VF_ERROR_PEER_UNREACHABLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_source_listens_and_hands_on),
        CASE(a_socket_at_a_path_of_the_callers_goes_with_it),
        CASE(with_a_layout_both_ends_have_one_path),
        CASE(what_libvirts_qemu_leaves_goes_too),
        CASE(a_connection_beyond_the_quota_is_closed),
        CASE(a_path_that_is_taken_is_left_alone),
        CASE(a_destination_connects_to_a_qemu_that_listens_late),
        CASE(a_destination_gives_up_in_time),
        CASE(what_is_no_socket_is_not_tried_twice),
        CASE(a_second_request_while_one_is_open_is_a_lie),
        CASE(a_socket_that_was_brought_serves_before_the_path),
        CASE(a_request_that_waits_is_served_at_once),
        CASE(none_may_be_brought_twice),
        CASE(only_so_many_wait_and_a_refused_one_may_come_again),
        CASE(a_peer_connection_waits_for_the_helper_or_the_helper_for_it),
        CASE(the_wait_for_a_peer_connection_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
