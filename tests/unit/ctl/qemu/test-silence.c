/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include <pthread.h>
#include <sys/un.h>

#include "common/cleanup.h"
#include "ctl/qemu/qmp.h"

/* The clock of the program, which the cases set forward; the linker puts it in the place of ctl_now(). */
static uint64_t forward;

uint64_t __real_ctl_now(void);
uint64_t __wrap_ctl_now(void);

uint64_t __wrap_ctl_now(void)
{
    return __real_ctl_now() + forward;
}

/* A monitor that greets, takes qmp_capabilities, and answers the next command when the case says so. */
struct rig {
    struct ctl ctl;
    struct side side;
    struct qmp *qmp;
    struct sockaddr_un address;
    int listener, go[2];
    pthread_t thread;
    unsigned told, tell_until; /* how often silence was told; after so many the answer comes; 0: never */
    uint64_t longest;
};

static void say(int fd, const char *text)
{
    if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
        return;
}

/* Answers the command in data. */
static void answer(int fd, char *data, ssize_t n, const char *value)
{
    _cleanup_json_ json_object *command = NULL;
    char text[256];

    data[n] = '\0';
    command = json_tokener_parse(data);
    snprintf(text, sizeof(text), "{\"return\": %s, \"id\": \"%s\"}\r\n", value, record_text(command, "id"));
    say(fd, text);
}

static void *serve(void *userdata)
{
    struct rig *rig = userdata;
    int fd = accept4(rig->listener, NULL, NULL, SOCK_CLOEXEC);
    char data[4096], byte;
    ssize_t n;

    say(fd, "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}}}}\r\n");
    if ((n = recv(fd, data, sizeof(data) - 1, 0)) > 0)
        answer(fd, data, n, "{}");
    if ((n = recv(fd, data, sizeof(data) - 1, 0)) > 0 && read(rig->go[0], &byte, 1) == 1)
        answer(fd, data, n, "{\"status\": \"late\"}");
    while (recv(fd, data, sizeof(data), 0) > 0)
        ;
    close(fd);
    return NULL;
}

static void rig_open(struct rig *rig)
{
    struct trouble trouble = {0};

    *rig = (struct rig){.address.sun_family = AF_UNIX};
    forward = 0;
    snprintf(rig->address.sun_path, sizeof(rig->address.sun_path), "/tmp/test-ctl-silence.%d", getpid());
    rig->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(rig->listener >= 0);
    assert_int_equal(bind(rig->listener, (const struct sockaddr *)&rig->address, sizeof(rig->address)), 0);
    assert_int_equal(listen(rig->listener, 1), 0);
    assert_int_equal(pipe2(rig->go, O_CLOEXEC), 0);
    assert_int_equal(pthread_create(&rig->thread, NULL, serve, rig), 0);
    assert_true(sd_event_new(&rig->ctl.event) >= 0);
    rig->side = (struct side){.ctl = &rig->ctl, .where = ""};
    assert_int_equal(qmp_open(&rig->side, rig->address.sun_path, &rig->qmp, &trouble), 0);
}

static void rig_close(struct rig *rig)
{
    qmp_free(rig->qmp);
    close(rig->go[1]);
    assert_int_equal(pthread_join(rig->thread, NULL), 0);
    close(rig->go[0]);
    close(rig->listener);
    unlink(rig->address.sun_path);
    sd_event_unref(rig->ctl.event);
}

static bool on_silent(struct qmp *qmp, uint64_t usec, void *userdata)
{
    struct rig *rig = userdata;

    assert_ptr_equal(qmp, rig->qmp);
    assert_true(usec >= rig->longest);
    rig->longest = usec;
    forward += 40 * SECOND;
    if (++rig->told == rig->tell_until)
        assert_int_equal(write(rig->go[1], "", 1), 1);
    return rig->told < 5;
}

static int ask(struct rig *rig, json_object **ret, struct trouble *trouble)
{
    return qmp_execute(rig->qmp, "query-migrate", NULL, ret, trouble);
}

/* It is waited for: for 120 s here, and the answer is taken. */
TEST(test_patience)
{
    struct trouble trouble = {0};
    json_object *reply = NULL;
    struct rig rig;

    rig_open(&rig);
    rig.tell_until = 3;
    qmp_be_patient(rig.qmp, on_silent, &rig);
    assert_int_equal(ask(&rig, &reply, &trouble), 0);
    assert_string_equal(record_text(reply, "status"), "late");
    assert_true(rig.told >= 3 && rig.longest > 80 * SECOND);
    assert_true(qmp_is_open(rig.qmp));
    assert_int_equal(qmp_silence(rig.qmp), 0);
    json_object_put(reply);
    rig_close(&rig);
}

/* Given up: nothing more can be asked, and for how long it was silent is known. */
TEST(test_given_up)
{
    struct trouble trouble = {0};
    struct rig rig;

    rig_open(&rig);
    qmp_be_patient(rig.qmp, on_silent, &rig);
    assert_int_equal(ask(&rig, NULL, &trouble), -1);
    assert_int_equal(trouble.status, STATUS_CANCELLED);
    trouble_clear(&trouble);
    assert_int_equal(rig.told, 5);
    assert_false(qmp_is_open(rig.qmp));
    assert_true(qmp_silence(rig.qmp) > 160 * SECOND);
    assert_int_equal(ask(&rig, NULL, &trouble), -1);
    assert_non_null(strstr(trouble.text, "has not answered"));
    trouble_clear(&trouble);
    rig_close(&rig);
}

/* The second Ctrl-C gives it up as well, but not before a second has passed. */
TEST(test_second_ctrl_c)
{
    struct trouble trouble = {0};
    struct rig rig;

    rig_open(&rig);
    rig.ctl.interrupts = 2;
    qmp_be_patient(rig.qmp, on_silent, &rig);
    assert_int_equal(ask(&rig, NULL, &trouble), -1);
    trouble_clear(&trouble);
    assert_true(rig.told == 1 && qmp_silence(rig.qmp) > SECOND);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_patience),
        CASE(test_given_up),
        CASE(test_second_ctrl_c),
    };

    return cmocka_run_group_tests_name("ctl-silence", tests, NULL, NULL);
}
