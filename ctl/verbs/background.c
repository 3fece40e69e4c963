/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/background.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"

enum { COMMAND_MAX = 32 * 1024, WORDS_MAX = 512 };

/* A command line: the words of one after the other, each with its NUL. */
struct command {
    char text[COMMAND_MAX];
    size_t size;
};

static bool read_all(const char *path, struct command *ret)
{
    _cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n;

    ret->size = 0;
    while (fd >= 0 && (n = read(fd, ret->text + ret->size, sizeof(ret->text) - ret->size)) > 0)
        ret->size += (size_t)n;
    return fd >= 0 && ret->size > 0 && ret->size < sizeof(ret->text) && ret->text[ret->size - 1] == '\0';
}

/* FNV-1a: a name for the file, and for the service; the VM's own may be longer than a file's. */
static uint64_t hash(uint64_t from, const char *text)
{
    for (const unsigned char *at = (const unsigned char *)(text ? text : ""); *at; at++)
        from = (from ^ *at) * 0x100000001b3;
    return (from ^ 0xff) * 0x100000001b3;
}

/* Of this VM, at the source that the options name. */
static uint64_t key_of(const struct ctl *ctl)
{
    const struct arguments *a = &ctl->arguments;

    return hash(hash(hash(0xcbf29ce484222325, a->operands[0]), a->host), a->address);
}

static bool path_of(const struct ctl *ctl, char ret[static PATH_MAX])
{
    const char *base = geteuid() == 0 ? "/run" : getenv("XDG_RUNTIME_DIR");

    if (!base || base[0] != '/' || snprintf(ret, PATH_MAX, "%s/vmferryctl", base) >= PATH_MAX - 20)
        return false;
    if (mkdir(ret, 0700) < 0 && errno != EEXIST)
        return false;
    snprintf(ret + strlen(ret), 20, "/%016" PRIx64, key_of(ctl));
    return true;
}

/* ---- Noted down ---- */

void background_note(const struct ctl *ctl)
{
    static struct command command; /* too large for a stack */
    _cleanup_fd_ int fd = -1;
    char path[PATH_MAX];

    if (!path_of(ctl, path) || !read_all("/proc/self/cmdline", &command))
        return;
    unlink(path);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0 && write(fd, command.text, command.size) != (ssize_t)command.size)
        unlink(path);
}

void background_forget(const struct ctl *ctl)
{
    char path[PATH_MAX];

    if (path_of(ctl, path))
        unlink(path);
}

/* ---- Run again ---- */

/* getopt_long(3) took this word for the option, whole or abbreviated. */
static bool is_option(const char *word, const char *option)
{
    return strlen(word) > 2 && strncmp(option, word, strlen(word)) == 0;
}

/* The words but those options that must not be said again; ret has room for more behind them. */
static size_t split(struct command *command, char *ret[static WORDS_MAX])
{
    static const char *const not_again[] = {"--background", "--attach", "--resume"};
    size_t n = 0;

    for (size_t at = 0; at < command->size && n + 4 < WORDS_MAX; at += strlen(command->text + at) + 1) {
        bool again = true;

        for (size_t i = 0; i < sizeof(not_again) / sizeof(not_again[0]); i++)
            again = again && !is_option(command->text + at, not_again[i]);
        if (again)
            ret[n++] = command->text + at;
    }
    return n;
}

int background_attach(struct ctl *ctl, struct trouble *trouble)
{
    static struct command command;
    static char resume[] = "--resume";
    char path[PATH_MAX], *words[WORDS_MAX];
    struct stat st;
    size_t n;

    if (!path_of(ctl, path) || lstat(path, &st) < 0 || st.st_uid != geteuid() || !read_all(path, &command))
        return trouble_set(
            trouble, STATUS_FAILED,
            "No 'migrate' of VM '%s' has been left to itself here by this user. Give its whole command "
            "again, with --resume.",
            ctl->arguments.operands[0]);
    n = split(&command, words);
    /* Options come before operands where these begin with "--". */
    memmove(words + 2, words + 1, (n - 1) * sizeof(words[0]));
    words[1] = resume;
    words[n + 1] = NULL;
    execv("/proc/self/exe", words);
    return trouble_set(trouble, STATUS_FAILED, "Cannot start vmferryctl again: %s.", strerror(errno));
}

/* ---- As a service ---- */

/* What systemd would not pass on. */
static size_t add_environment(char (*texts)[64], char **words, size_t n)
{
    static const char *const names[] = {
        "SSH_AUTH_SOCK",           "VMFERRY_SSH", "PATH", "HOME", "DBUS_SYSTEM_BUS_ADDRESS",
        "DBUS_SESSION_BUS_ADDRESS"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (getenv(names[i])) {
            snprintf(texts[i], sizeof(texts[i]), "--setenv=%s", names[i]);
            words[n++] = texts[i];
        }
    return n;
}

static int wait_for(pid_t pid, struct trouble *trouble)
{
    int how;

    while (waitpid(pid, &how, 0) < 0)
        if (errno != EINTR)
            return trouble_set(trouble, STATUS_FAILED, "Cannot wait for systemd-run: %s.", strerror(errno));
    return WIFEXITED(how) ? WEXITSTATUS(how) : STATUS_FAILED;
}

int background_run(struct ctl *ctl, struct trouble *trouble)
{
    static struct command command;
    static char program[] = "systemd-run", quiet[] = "--quiet", collect[] = "--collect", user[] = "--user",
                type[] = "--service-type=notify", kill[] = "--property=KillMode=process", end[] = "--",
                no_ask[] = "--no-ask-password";
    char unit[64], self[PATH_MAX], environment[8][64], *words[WORDS_MAX + 32], *own[WORDS_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    size_t n = 0, n_own;
    pid_t pid;
    int status;

    if (length < 0 || !read_all("/proc/self/cmdline", &command))
        return trouble_set(trouble, STATUS_FAILED, "The command line is not known, or too long.");
    self[length] = '\0';
    snprintf(unit, sizeof(unit), "--unit=vmferry-migrate-%016" PRIx64, key_of(ctl));
    words[n++] = program;
    words[n++] = quiet;
    words[n++] = collect;
    words[n++] = type;
    words[n++] = kill; /* what --ssh has started outlives a post-copy */
    words[n++] = unit;
    if (geteuid() != 0)
        words[n++] = user;
    n = add_environment(environment, words, n);
    words[n++] = end;
    words[n++] = self;
    words[n++] = no_ask;
    n_own = split(&command, own);
    memcpy(words + n, own + 1, (n_own - 1) * sizeof(own[0]));
    words[n + n_own - 1] = NULL;
    pid = fork();
    if (pid == 0) {
        execvp(program, words);
        dprintf(STDERR_FILENO, "vmferryctl: systemd-run: %s\n", strerror(errno));
        _exit(127);
    }
    status = pid < 0 ? -1 : wait_for(pid, trouble);
    if (status != 0)
        return trouble_set(
            trouble, STATUS_FAILED,
            "The migration of VM '%s' did not begin in the background: 'journalctl%s -u %s' says why.",
            ctl->arguments.operands[0], geteuid() != 0 ? " --user" : "", unit + strlen("--unit="));
    ctl_say(ctl,
            "VM '%s' moves in the background (%s.service). 'vmferryctl watch' shows it, 'vmferryctl cancel "
            "--qmp=' "
            "ends it, and what it comes to is in the journal.",
            ctl->arguments.operands[0], unit + strlen("--unit="));
    return STATUS_DONE;
}
