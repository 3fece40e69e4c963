/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A monitor that says what a case has written down, on the same event loop. */

#include "../failing.h"

#include <sys/un.h>

#include "common/cleanup.h"
#include "ctl/qemu/qmp.h"

#define GREETING "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}}}}\r\n"
#define OWN      "\"id\": @" /* the id of the command that came last, where a case says it */
#define DONE     "{\"return\": {}, " OWN "}\r\n"
#define HANG_UP  ""

#define LINES(...) ((const char *const[]){__VA_ARGS__, NULL})

static struct rig {
    struct ctl ctl;
    struct side side;
    struct qmp *qmp;
    struct trouble trouble;
    struct sockaddr_un address;
    int listener, fd;
    sd_event_source *accepts, *reads;
    const char *const *says; /* at first, and then once per command; after the last one: nothing */
    char heard[4096], id[64], first[64]; /* ids: in quotes, of the last command and of the first */
} rig;

/* Each '@' is the command's id. */
static void say_text(const char *text)
{
    for (const char *at; *text; text = at) {
        at = strchrnul(text, '@');
        assert_int_equal(send(rig.fd, text, (size_t)(at - text), MSG_NOSIGNAL), at - text);
        if (*at && *rig.id)
            assert_int_equal(send(rig.fd, rig.id, strlen(rig.id), MSG_NOSIGNAL), strlen(rig.id));
        at += *at != '\0';
    }
}

static void say(void)
{
    const char *text = *rig.says;

    if (!text)
        return;
    rig.says++;
    if (strcmp(text, HANG_UP) == 0)
        shutdown(rig.fd, SHUT_RDWR);
    else
        say_text(text);
}

static void take_id(void)
{
    _cleanup_json_ json_object *command = json_tokener_parse(rig.heard);

    snprintf(rig.id, sizeof(rig.id), "\"%s\"", record_text(command, "id"));
    if (!rig.first[0])
        snprintf(rig.first, sizeof(rig.first), "%s", rig.id);
}

static int on_command(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    ssize_t n = recv(fd, rig.heard, sizeof(rig.heard) - 1, MSG_DONTWAIT);

    rig.heard[n > 0 ? n : 0] = '\0';
    if (n > 0) {
        take_id();
        say();
    } else {
        sd_event_source_set_enabled(source, SD_EVENT_OFF);
    }
    return 0;
}

static int on_connect(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    rig.fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    assert_true(rig.fd >= 0);
    assert_true(sd_event_add_io(rig.ctl.event, &rig.reads, rig.fd, EPOLLIN, on_command, NULL) >= 0);
    say();
    return 0;
}

static int open_monitor(const char *const *says)
{
    rig = (struct rig){.says = says, .fd = -1, .address.sun_family = AF_UNIX};
    rig.side = (struct side){.ctl = &rig.ctl, .where = ""};
    snprintf(rig.address.sun_path, sizeof(rig.address.sun_path), "/tmp/test-ctl-qmp.%d", getpid());
    assert_true(sd_event_new(&rig.ctl.event) >= 0);
    rig.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(rig.listener, (const struct sockaddr *)&rig.address, sizeof(rig.address)), 0);
    assert_int_equal(listen(rig.listener, 1), 0);
    assert_true(sd_event_add_io(rig.ctl.event, &rig.accepts, rig.listener, EPOLLIN, on_connect, NULL) >= 0);
    return qmp_open(&rig.side, rig.address.sun_path, &rig.qmp, &rig.trouble);
}

static void begin(const char *const *says)
{
    if (open_monitor(says) < 0)
        fail_msg("%s", rig.trouble.text);
}

static void end(void)
{
    qmp_free(rig.qmp);
    sd_event_source_disable_unref(rig.reads);
    sd_event_source_disable_unref(rig.accepts);
    sd_event_unref(rig.ctl.event);
    if (rig.fd >= 0)
        close(rig.fd);
    close(rig.listener);
    unlink(rig.address.sun_path);
    trouble_clear(&rig.trouble);
}

static void is_trouble(int r, int status, const char *text)
{
    assert_trouble(&rig.trouble, r, status, text);
}

static int ask(const char *command, json_object **ret)
{
    return qmp_execute(rig.qmp, command, NULL, ret, &rig.trouble);
}

TEST(it_is_opened)
{
    begin(LINES(GREETING, DONE));
    assert_non_null(strstr(rig.heard, "qmp_capabilities"));
    assert_string_equal(qmp_version_text(rig.qmp), "7.2");
    assert_true(qmp_is_at_least(rig.qmp, 7, 2) && qmp_is_at_least(rig.qmp, 6, 9));
    assert_false(qmp_is_at_least(rig.qmp, 7, 3) || qmp_is_at_least(rig.qmp, 8, 0));
    assert_int_equal(qmp_uid(rig.qmp), geteuid());
    assert_non_null(strstr(qmp_name(rig.qmp), rig.address.sun_path));
    end();
}

TEST(what_greets_otherwise_is_no_qemu)
{
    is_trouble(open_monitor(LINES("{\"hello\": 1}\r\n")), STATUS_FAILED, "greets with what is no QMP");
    end();
    is_trouble(open_monitor(LINES("220 mail ESMTP\r\n")), STATUS_FAILED, "220 mail ESMTP");
    end();
    is_trouble(open_monitor(LINES(HANG_UP)), STATUS_FAILED, "it closed the connection. Is ");
    end();
}

TEST(there_is_no_such_socket)
{
    begin(LINES(GREETING, DONE));
    qmp_free(rig.qmp);
    rig.qmp = NULL;
    is_trouble(qmp_open(&rig.side, "/nonexistent/qmp", &rig.qmp, &rig.trouble), STATUS_FAILED,
               "There is no QMP socket");
    end();
}

TEST(a_command_and_its_answer)
{
    json_object *reply = NULL;

    begin(LINES(GREETING, DONE, "{\"return\": {\"status\": \"running\"}, " OWN "}\r\n"));
    assert_int_equal(qmp_execute(rig.qmp, "query-status", json_object_new_object(), &reply, &rig.trouble), 0);
    assert_string_equal(record_text(reply, "status"), "running");
    assert_ptr_equal(strstr(rig.heard, "{\"execute\":\"query-status\",\"arguments\":{},\"id\":\""),
                     rig.heard);
    assert_string_not_equal(rig.id, rig.first);
    json_object_put(reply);
    end();
}

/* QEMU has answered: it can be asked on. */
TEST(a_refusal_is_no_loss)
{
    begin(LINES(GREETING, DONE,
                "{\"error\": {\"class\": \"GenericError\", \"desc\": \"No \\u001b[31mway\"}, " OWN "}\r\n",
                DONE));
    is_trouble(ask("migrate", NULL), STATUS_FAILED, "refuses 'migrate': No ?[31mway");
    assert_true(qmp_is_open(rig.qmp));
    assert_int_equal(ask("migrate", NULL), 0);
    end();
}

TEST(what_is_lost_stays_lost)
{
    begin(LINES(GREETING, DONE, HANG_UP));
    is_trouble(ask("migrate", NULL), STATUS_FAILED, "did not answer 'migrate': it closed the connection");
    assert_false(qmp_is_open(rig.qmp));
    is_trouble(ask("migrate_cancel", NULL), STATUS_FAILED,
               "cannot be told 'migrate_cancel': it closed the connection");
    end();
}

/* A client that was killed leaves QEMU's answers to the next one; that one's ids may be numbers, or missing.
 */
TEST(answers_to_a_client_that_is_gone)
{
    static const char OTHERS[] =
        "{\"return\": 1, \"id\": 1}\r\n{\"return\": 1, \"id\": 2}\r\n{\"return\": 1}\r\n"
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"late\"}}\r\n"
        "{\"return\": 1, \"id\": \"0000000000000001-1\"}\r\n";
    char greeting[1024], done[1024], status[1024];
    json_object *reply = NULL;

    snprintf(greeting, sizeof(greeting), "%s%s%s", OTHERS, GREETING, OTHERS);
    snprintf(done, sizeof(done), "%s%s", OTHERS, DONE);
    snprintf(status, sizeof(status), "%s{\"return\": {\"status\": \"running\"}, " OWN "}\r\n%s", OTHERS,
             OTHERS);
    begin(LINES(greeting, done, status, DONE));
    assert_int_equal(ask("query-status", &reply), 0);
    assert_string_equal(record_text(reply, "status"), "running");
    json_object_put(reply);
    assert_int_equal(ask("stop", NULL), 0);
    assert_true(qmp_is_open(rig.qmp));
    end();
}

/* There is an end to that. */
TEST(answers_to_others_without_end)
{
    char text[8192] = "";

    for (int i = 0; i < 65; i++)
        strcat(text, "{\"return\": {}, \"id\": 7}\r\n");
    begin(LINES(GREETING, DONE, text));
    is_trouble(ask("migrate", NULL), STATUS_FAILED, "it keeps answering what it was not asked");
    assert_false(qmp_is_open(rig.qmp));
    end();
}

TEST(a_second_answer)
{
    begin(LINES(GREETING, DONE, DONE DONE));
    is_trouble(ask("migrate", NULL), STATUS_FAILED, "it answered twice");
    assert_false(qmp_is_open(rig.qmp));
    end();
}

/* So that no client takes another one's answers for its own. */
TEST(ids_are_of_one_connection)
{
    char first[64];

    begin(LINES(GREETING, DONE));
    snprintf(first, sizeof(first), "%s", rig.id);
    end();
    begin(LINES(GREETING, DONE));
    assert_string_not_equal(rig.id, first);
    end();
}

TEST(an_answer_that_is_none)
{
    begin(LINES(GREETING, DONE, "{" OWN "}\r\n"));
    is_trouble(ask("migrate", NULL), STATUS_FAILED, "with what is no QMP");
    assert_false(qmp_is_open(rig.qmp));
    end();
}

TEST(events_of_a_migration_are_counted)
{
    begin(LINES(GREETING, DONE,
                "{\"event\": \"MIGRATION\", \"data\": {}}\r\n{\"event\": \"STOP\"}\r\n"
                "{\"event\": \"MIGRATION_PASS\"}\r\n{\"event\": 1}\r\n" DONE));
    assert_int_equal(qmp_events(rig.qmp), 0);
    assert_int_equal(ask("migrate", NULL), 0);
    assert_int_equal(qmp_events(rig.qmp), 3);
    assert_int_equal(qmp_stops(rig.qmp), 1);
    end();
}

TEST(why_qemu_ends_is_kept)
{
    begin(LINES(
        GREETING, DONE,
        "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}}\r\n" DONE));
    assert_string_equal(qmp_shutdown(rig.qmp), "");
    assert_int_equal(ask("query-status", NULL), 0);
    assert_string_equal(qmp_shutdown(rig.qmp), "guest-shutdown");
    assert_int_equal(qmp_events(rig.qmp), 1);
    assert_false(qmp_has_ended(rig.qmp));
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(it_is_opened),
        CASE(what_greets_otherwise_is_no_qemu),
        CASE(there_is_no_such_socket),
        CASE(a_command_and_its_answer),
        CASE(a_refusal_is_no_loss),
        CASE(what_is_lost_stays_lost),
        CASE(answers_to_a_client_that_is_gone),
        CASE(answers_to_others_without_end),
        CASE(a_second_answer),
        CASE(ids_are_of_one_connection),
        CASE(an_answer_that_is_none),
        CASE(events_of_a_migration_are_counted),
        CASE(why_qemu_ends_is_kept),
    };

    return cmocka_run_group_tests_name("ctl-qemu-qmp", tests, NULL, NULL);
}
