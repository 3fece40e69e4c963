/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The first program of the machine that tests/lib/vmlib/machine.py boots: loads the kernel's modules, makes
 * the host's files its own (what it writes stays in its memory), runs one program in them and turns the
 * machine off. Static, for nothing else is there.
 *
 *     init PROGRAM [ARGUMENT…]     what stands after "--" on the kernel's command line
 *
 * /modules names the modules, a line each, in the order in which they go in. The program finds the directory
 * that it shares with the host at /mnt. The last line on the console is "init: " and the program's exit
 * status.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(const char *what)
{
    printf("init: %s\n", what);
    fflush(stdout);
    sync();
    reboot(RB_POWER_OFF);
    _exit(1);
}

static void failed(const char *what)
{
    char text[512];

    snprintf(text, sizeof(text), "%s: %s", what, strerror(errno));
    end(text);
}

static void load_modules(void)
{
    FILE *list = fopen("/modules", "re");
    char path[256];

    if (!list)
        failed("/modules");
    while (fgets(path, sizeof(path), list)) {
        int fd;

        path[strcspn(path, "\n")] = 0;
        fd = open(path, O_RDONLY | O_CLOEXEC);
        /* One for a processor that this is not refuses. */
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != ENODEV && errno != EEXIST))
            failed(path);
        close(fd);
    }
    fclose(list);
}

static void mount_at(const char *what, const char *where, const char *type, unsigned long flags,
                     const char *options)
{
    mkdir(where, 0755);
    if (mount(what, where, type, flags, options) < 0)
        failed(where);
}

#define VIRTIO_9P "trans=virtio,version=9p2000.L,msize=512000,"

static void enter_host(void)
{
    mount_at("host", "/host", "9p", MS_RDONLY, VIRTIO_9P "cache=loose");
    mount_at("memory", "/memory", "tmpfs", 0, "mode=0755");
    mkdir("/memory/upper", 0755);
    mkdir("/memory/work", 0755);
    mount_at("root", "/root", "overlay", 0, "lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work");
    mount_at("proc", "/root/proc", "proc", 0, NULL);
    mount_at("sys", "/root/sys", "sysfs", 0, NULL);
    mount_at("dev", "/root/dev", "devtmpfs", 0, NULL);
    mount_at("pts", "/root/dev/pts", "devpts", 0, "ptmxmode=0666");
    mount_at("shm", "/root/dev/shm", "tmpfs", 0, NULL);
    mount_at("run", "/root/run", "tmpfs", 0, "mode=0755");
    mount_at("work", "/root/mnt", "9p", 0, VIRTIO_9P "cache=none");
    /* Moved to the top, not only entered: AppArmor would know all paths as "/root/…". */
    if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        failed("/root");
}

static void raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        failed("lo");
    close(fd);
}

int main(int argc, char **argv)
{
    static char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin", home[] = "HOME=/root",
                locale[] = "LC_ALL=C.UTF-8";
    char *const environment[] = {path, home, locale, NULL};
    char text[32];
    int status;
    pid_t pid;

    (void)argc;
    load_modules();
    enter_host();
    raise_loopback();
    pid = fork();
    if (pid == 0) {
        setsid();
        execve(argv[1], argv + 1, environment);
        perror(argv[1]);
        _exit(127);
    }
    /* As the first process it is also the heir of all that lose their parent. */
    for (pid_t gone = 0; gone != pid;)
        gone = wait(&status);
    snprintf(text, sizeof(text), "%d", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    end(text);
}
