/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "broker/config/load.h"
#include "broker/config/settings.h"
#include "broker/log.h"
#include "common/cleanup.h"
#include "version.h"

#include <ftw.h>
#include <limits.h>
#include <sys/stat.h>

#define ETC    VMFERRY_SYSCONFDIR "/vmferry/vmferryd.conf"
#define RUN    "/run/vmferry/vmferryd.conf"
#define VENDOR VMFERRY_VENDORDIR "/vmferry/vmferryd.conf"

/* A host's files below a directory of their own, and what was logged about them. */
static char root[] = "/tmp/test-config.XXXXXX";
static char logged[16384];
static struct config config;
static struct config_mistakes mistakes;

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    return ftw->level == 0 ? 0 : remove(path);
}

static void start(void)
{
    if (access(root, F_OK) < 0)
        assert_non_null(mkdtemp(root));
    assert_return_code(nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS), errno);
    config_init(&config);
    mistakes = (struct config_mistakes){0};
}

static int end(void **state)
{
    config_clear(&config);
    nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    rmdir(root);
    strcpy(strrchr(root, '.'), ".XXXXXX");
    return test_check(state);
}

static const char *in_root(const char *path)
{
    static char whole[PATH_MAX];

    snprintf(whole, sizeof(whole), "%s%s", root, path);
    for (char *slash = strchr(whole + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(whole, 0755);
        *slash = '/';
    }
    return whole;
}

static void put_bytes(const char *path, const char *data, size_t n)
{
    FILE *file = fopen(in_root(path), "we");

    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

static void put(const char *path, const char *text)
{
    put_bytes(path, text, strlen(text));
}

/* Loads with standard error led into `logged`. */
static int load(const char *path)
{
    FILE *file = tmpfile();
    int saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3), r;
    size_t n;

    assert_non_null(file);
    fflush(stderr);
    dup2(fileno(file), STDERR_FILENO);
    log_open(LOG_INFO);
    r = config_load(&config, root, path, &mistakes);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(file);
    n = fread(logged, 1, sizeof(logged) - 1, file);
    logged[n] = '\0';
    fclose(file);
    config_finish(&config);
    return r;
}

static void assert_logged(const char *path, const char *words)
{
    char line[PATH_MAX + 256];

    snprintf(line, sizeof(line), "%s%s%s", path ? root : "", path ? path : "", words);
    if (!strstr(logged, line))
        print_error("'%s' is not in:\n%s", line, logged);
    assert_non_null(strstr(logged, line));
}

TEST(test_nothing)
{
    start();
    assert_int_equal(load(NULL), 0);
    assert_string_equal(logged, "");
    assert_int_equal(config.max_migrations, DEFAULT_MAX_MIGRATIONS);
    assert_int_equal(config.max_per_user, DEFAULT_MAX_PER_USER);
    assert_int_equal(config.max_channels, DEFAULT_MAX_CHANNELS);
    assert_int_equal(config.max_windows_per_user, (uint64_t)DEFAULT_WINDOWS_PER_USER << 20);
    assert_int_equal(config.max_calls, DEFAULT_MAX_CALLS);
    assert_int_equal(config.max_calls_per_user, DEFAULT_CALLS_PER_USER);
    assert_int_equal(config.max_gate, DEFAULT_GATE_PENDING);
    assert_int_equal(config.max_spares, DEFAULT_MAX_SPARES);
    assert_int_equal(config.window, (uint64_t)DEFAULT_WINDOW_MIB << 20);
    assert_int_equal(config.growth, DEFAULT_GROWTH_MIB);
    assert_int_equal(config.qemu_timeout, DEFAULT_QEMU_TIMEOUT);
    assert_int_equal(config.expire, DEFAULT_EXPIRE);
    assert_int_equal(config.resume_timeout, DEFAULT_RESUME);
    assert_true(config.allow_plain);
    assert_int_equal(config.n_listen, 1);
    assert_string_equal(config.listen[0], DEFAULT_LISTEN);
    assert_true(config.endpoints[0].any);
    assert_int_equal(config.allowed.n, 1);
    assert_string_equal(config.allowed.items[0], DEFAULT_ALLOWED);
}

/* Every file that could count assigns another number to what it wins, and to what others win over it. */
TEST(test_order)
{
    start();
    put(VENDOR, "[Broker]\nMaxMigrations=1\n");
    put(RUN, "[Broker]\nMaxMigrations=2\nMaxCalls=2\n");
    put(VENDOR ".d/10-a.conf", "[Broker]\nMaxChannels=11\nMaxMigrationsPerUser=11\nMaxCallsPerUser=11\n");
    put(RUN ".d/20-b.conf", "[Broker]\nMaxChannels=22\nMaxMigrationsPerUser=22\n");
    put(VENDOR ".d/30-c.conf", "[Broker]\nMaxChannels=33\n");
    put(RUN ".d/30-c.conf", "[Broker]\nMaxChannels=34\n");
    put(ETC ".d/30-c.conf", "[Broker]\nMaxChannels=35\n");
    put(VENDOR ".d/40-d.conf", "[Broker]\nMaxCalls=44\n");
    assert_return_code(mkdir(in_root(ETC ".d"), 0755) < 0 && errno != EEXIST ? -1 : 0, errno);
    assert_return_code(symlink("/dev/null", in_root(ETC ".d/40-d.conf")), errno);
    put(ETC ".d/50-e.txt", "[Broker]\nMaxCalls=55\n");
    put(ETC ".d/.60-f.conf", "[Broker]\nMaxCalls=66\n");
    assert_int_equal(load(NULL), 0);
    assert_string_equal(logged, "");
    assert_int_equal(config.max_migrations, 2); /* of the main files /run's is the first that is there */
    assert_int_equal(config.max_calls, 2);      /* the drop-in that would change it is masked */
    assert_int_equal(config.max_calls_per_user, 11);
    assert_int_equal(config.max_per_user, 22);
    assert_int_equal(config.max_channels, 35); /* by name, wherever it is; of one name that in /etc */
    config_clear(&config);
    config_init(&config);
    put(ETC, "[Broker]\nMaxMigrations=3\n");
    assert_int_equal(load(NULL), 0);
    assert_int_equal(config.max_migrations, 3);
}

TEST(test_values)
{
    start();
    put(ETC,
        "# a comment\n; another\n[Broker]\n  MaxMigrations = 7  \nAllowPlain=Off ; because\n"
        "WindowMiB=1024\nQemuTimeoutSec=86400\nResumeTimeoutSec=0\nExpireSec=1\nMaxGateConnections=1024\n"
        "MaxSpareHelpers=0\n");
    assert_int_equal(load(NULL), 0);
    assert_string_equal(logged, "");
    assert_int_equal(config.max_migrations, 7);
    assert_false(config.allow_plain);
    assert_int_equal(config.window, (uint64_t)1 << 30);
    assert_int_equal(config.qemu_timeout, 86400000000);
    assert_int_equal(config.resume_timeout, 0);
    assert_int_equal(config.expire, 1000000);
    assert_int_equal(config.max_gate, 1024);
    assert_int_equal(config.max_spares, 0);
}

/* Each is said with its file and its line, and all else counts. */
TEST(test_wrong)
{
    char text[4096];

    start();
    snprintf(text, sizeof(text),
             "MaxCalls=5\n[Broker]\nMaxMigrations=0\nMaxMigrations=10001\nMaxMigrations=1x\nMaxMigrations=\n"
             "MaxMigrations=-1\nMaxMigrations=99999999999999999999\nAllowPlain=maybe\nmaxmigrations=3\n"
             "Listen=tcp:example.org\nAllowedDirectories=/a relative\nAllowedDirectories=/run/%%h\n"
             "AllowedDirectories=/run/\nListen=%0300d\nMaxCallsPerUser=9\nnonsense\n[Other]\nMaxCalls=6\n"
             "[Broker]\nLibvirtSocketLabel=a b\n",
             0);
    put(ETC, text);
    assert_int_equal(load(NULL), 0);
    assert_logged(ETC, ":1: 'MaxCalls' is in the section []; only [Broker] is known.");
    assert_logged(ETC, ":3: MaxMigrations=0 is no number from 1 to 10000. It is ignored.");
    assert_logged(ETC, ":4: MaxMigrations=10001 is no number");
    assert_logged(ETC, ":5: MaxMigrations=1x is no number");
    assert_logged(ETC, ":6: MaxMigrations= is no number");
    assert_logged(ETC, ":7: MaxMigrations=-1 is no number");
    assert_logged(ETC, ":8: MaxMigrations=99999999999999999999 is no number");
    assert_logged(ETC, ":9: AllowPlain=maybe is neither yes nor no. It is ignored.");
    assert_logged(ETC, ":10: There is no setting 'maxmigrations'. It is ignored.");
    assert_logged(ETC, ":11: Listen=tcp:example.org: the host is no IP address; names are not resolved.");
    assert_logged(ETC, ":12: AllowedDirectories=/a relative: the path is not absolute.");
    assert_logged(ETC, ":13: AllowedDirectories=/run/%h: only %U, the uid, can follow a '%'.");
    assert_logged(ETC, ":14: AllowedDirectories=/run/: the path ends with a slash.");
    assert_logged(ETC, ":15: The line is too long; spread lists over several. It is ignored.");
    assert_logged(ETC, ":17: That is neither a [section] nor KEY=VALUE. It is ignored.");
    assert_logged(ETC, ":19: 'MaxCalls' is in the section [Other]; only [Broker] is known.");
    assert_logged(ETC, ":21: LibvirtSocketLabel=a b is no label of SELinux. It is ignored.");
    assert_int_equal(config.max_migrations, DEFAULT_MAX_MIGRATIONS);
    assert_int_equal(config.max_calls, DEFAULT_MAX_CALLS);
    assert_int_equal(config.max_calls_per_user, 9);
    assert_int_equal(config.allowed.n, 1);
    assert_string_equal(config.allowed.items[0], DEFAULT_ALLOWED); /* half an entry is none */
    assert_int_equal(config.n_listen, 1);
}

/* Files that count as a whole or not at all: the same mistakes, but it is not said that the rest counts. */
TEST(test_wrong_again)
{
    start();
    mistakes.refuse = true;
    put(ETC, "[Broker]\nMaxMigrations=0\nMaxCall=5\n");
    assert_int_equal(load(NULL), 0);
    assert_int_equal(mistakes.n, 2);
    assert_non_null(strstr(mistakes.first, ETC ":2: MaxMigrations=0 is no number from 1 to 10000"));
    assert_logged(ETC, ":3: There is no setting 'MaxCall'.\n");
    assert_null(strstr(logged, "ignored"));
}

static struct config finished(const char *text)
{
    struct config ret;

    config_init(&ret);
    start();
    put(ETC, text);
    assert_int_equal(config_load(&ret, root, NULL, &mistakes), 0);
    assert_int_equal(mistakes.n, 0);
    config_finish(&ret);
    return ret;
}

/* Of each kind one that has changed, beside all others that have not. */
TEST(test_changes)
{
    static const struct {
        const char *key, *text;
    } changes[] = {{"MaxCalls", "MaxCalls=5"},
                   {"WindowMiB", "WindowMiB=1024"},
                   {"AllowPlain", "AllowPlain=no"},
                   {"Listen", "Listen=tcp:192.0.2.1"},
                   {"AllowedDirectories", "AllowedDirectories="},
                   {"LibvirtUser", "LibvirtUser=libvirt-qemu"},
                   {"LibvirtSocketLabel", "LibvirtSocketLabel=system_u:system_r:svirt_socket_t:s0:c1,c2"}};
    struct config same = finished("[Broker]\n");

    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        const struct setting *setting;
        char text[256];
        struct config other;

        snprintf(text, sizeof(text), "[Broker]\n%s\n", changes[i].text);
        other = finished(text);
        for (size_t k = 0; (setting = setting_at(k)); k++)
            assert_int_equal(setting_is_equal(setting, &same, &other),
                             strcmp(setting->key, changes[i].key) != 0);
        config_clear(&other);
    }
    config_clear(&same);
}

/* A line of the length that the manual page promises. */
TEST(test_long_line)
{
    char text[256] = "[Broker]\nAllowedDirectories=/";

    start();
    memset(text + strlen(text), 'x', 9 + 190 - strlen(text));
    put(ETC, text);
    assert_int_equal(load(NULL), 0);
    assert_string_equal(logged, "");
    assert_int_equal(strlen(config.allowed.items[0]), 190 - strlen("AllowedDirectories="));
}

TEST(test_bytes)
{
    static const char text[] = "[Broker]\nMaxCalls=5\0\nMaxMigrations=6\n";

    start();
    put_bytes(ETC, text, sizeof(text) - 1);
    assert_int_equal(load(NULL), 0);
    assert_logged(ETC, ":2: The line holds a NUL. It is ignored.");
    assert_int_equal(config.max_calls, DEFAULT_MAX_CALLS);
    assert_int_equal(config.max_migrations, 6);
}

TEST(test_lists)
{
    start();
    put(ETC, "[Broker]\nListen=tcp:192.0.2.1 tcp:192.0.2.2:1\nListen=vsock:*\nAllowedDirectories=\n");
    assert_int_equal(load(NULL), 0);
    assert_string_equal(logged, "");
    assert_int_equal(config.n_listen, 3);
    assert_string_equal(config.listen[1], "tcp:192.0.2.2:1");
    assert_int_equal(config.endpoints[2].address.ss_family, AF_VSOCK);
    assert_int_equal(config.allowed.n, 0);
    put(ETC ".d/1.conf", "[Broker]\nListen=\nListen=tcp:192.0.2.3\nAllowedDirectories=/a/%U/b\n");
    config_clear(&config);
    config_init(&config);
    assert_int_equal(load(NULL), 0);
    assert_int_equal(config.n_listen, 1);
    assert_string_equal(config.listen[0], "tcp:192.0.2.3");
    assert_string_equal(config.allowed.items[0], "/a/%U/b");
    put(ETC ".d/2.conf", "[Broker]\nListen=\n");
    config_clear(&config);
    config_init(&config);
    assert_int_equal(load(NULL), 0);
    assert_string_equal(config.listen[0], DEFAULT_LISTEN);
}

TEST(test_list_limit)
{
    char text[1024] = "[Broker]\n";

    start();
    for (int i = 0; i < CONFIG_LISTEN_MAX + 1; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "Listen=tcp:192.0.2.%d\n", i);
    put(ETC, text);
    assert_int_equal(load(NULL), 0);
    assert_logged(ETC, ":18: Listen=tcp:192.0.2.16 is one too many: the list has 16 already. It is ignored.");
    assert_int_equal(config.n_listen, CONFIG_LISTEN_MAX);
}

/* What is no file is no reason to hang or to fail. */
TEST(test_no_file)
{
    start();
    assert_return_code(mkfifo(in_root(ETC), 0600), errno);
    assert_return_code(mkdir(in_root(ETC ".d/1.conf/"), 0755) < 0 && errno != EEXIST ? -1 : 0, errno);
    put(ETC ".d/2.conf", "[Broker]\nMaxCalls=5\n");
    assert_int_equal(load(NULL), 0);
    assert_logged(ETC, ": Operation not supported. It is ignored.");
    assert_logged(ETC ".d/1.conf", ": Is a directory. It is ignored.");
    assert_int_equal(config.max_calls, 5);
}

TEST(test_named)
{
    start();
    put(ETC, "[Broker]\nMaxCalls=5\nMaxMigrations=5\n");
    put("/mine", "[Broker]\nMaxCalls=6\n");
    put("/mine.d/x.conf", "[Broker]\nMaxCallsPerUser=7\n");
    assert_int_equal(load(in_root("/mine")), 0);
    assert_int_equal(config.max_calls, 6);
    assert_int_equal(config.max_calls_per_user, 7);
    assert_int_equal(config.max_migrations, DEFAULT_MAX_MIGRATIONS);
    config_clear(&config);
    config_init(&config);
    assert_int_equal(load(in_root("/none")), -ENOENT);
    assert_logged("/none", ": No such file or directory. See --config=.");
}

#define CONFIG_CASE(name) cmocka_unit_test_setup_teardown(name, test_note, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONFIG_CASE(test_nothing),    CONFIG_CASE(test_order),       CONFIG_CASE(test_values),
        CONFIG_CASE(test_wrong),      CONFIG_CASE(test_wrong_again), CONFIG_CASE(test_changes),
        CONFIG_CASE(test_long_line),  CONFIG_CASE(test_bytes),       CONFIG_CASE(test_lists),
        CONFIG_CASE(test_list_limit), CONFIG_CASE(test_no_file),     CONFIG_CASE(test_named),
    };

    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
