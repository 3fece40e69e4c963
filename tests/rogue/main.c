/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The real helper, but for one thing: when something comes on its stdin it does what $VMFERRY_ROGUE says, as
 * one would that somebody took over through a peer's bytes. Each of those calls must kill it.
 * tests/integration/hostile/test_helper.py drives it.
 */

#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "deeds.h"
#include "helper/helper.h"

static void try_socket(void)
{
    socket(AF_INET, SOCK_STREAM, 0);
}

static void try_socketpair(void)
{
    int pair[2];

    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
}

static void try_connect(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};

    connect(SOCKET_FD, (const struct sockaddr *)&address, sizeof(address));
}

static void try_bind(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};

    bind(SOCKET_FD, (const struct sockaddr *)&address, sizeof(address));
}

static void try_listen(void)
{
    listen(SOCKET_FD, 1);
}

static void try_accept(void)
{
    accept(SOCKET_FD, NULL, NULL);
}

static void try_accept4(void)
{
    accept4(SOCKET_FD, NULL, NULL, SOCK_CLOEXEC);
}

static void try_open(void)
{
#ifdef SYS_open
    syscall(SYS_open, "/etc/passwd", O_RDONLY);
#else
    syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY); /* this machine has no older one */
#endif
}

static void try_openat(void)
{
    openat(AT_FDCWD, "/etc/passwd", O_RDONLY);
}

static void try_unlink(void)
{
    unlink("/nonexistent");
}

static void try_exec(void)
{
    char *const argv[] = {NULL};

    execve("/bin/true", argv, argv);
}

static void try_fork(void)
{
    if (fork() == 0)
        _exit(0);
}

static void try_clone3(void)
{
    syscall(SYS_clone3, NULL, 0);
}

static void try_mmap_exec(void)
{
    mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void try_mprotect_exec(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    mprotect(p, 4096, PROT_READ | PROT_EXEC);
}

static void try_pkey_mprotect(void)
{
    syscall(SYS_pkey_mprotect, NULL, 0, PROT_EXEC, -1);
}

static void try_memfd(void)
{
    memfd_create("x", 0);
}

static void try_ptrace(void)
{
    ptrace(PTRACE_ATTACH, getpid(), NULL, NULL);
}

static void try_kill(void)
{
    kill(getpid(), 0);
}

static void try_prctl(void)
{
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static void try_setuid(void)
{
    syscall(SYS_setuid, 0);
}

static void try_seccomp(void)
{
    syscall(SYS_seccomp, 0, 0, NULL);
}

static void try_io_uring(void)
{
    struct io_uring_params params = {0};

    syscall(SYS_io_uring_setup, 1, &params);
}

static void try_fcntl(void)
{
    fcntl(SOCKET_FD, F_SETFD, 0);
}

static void try_dup(void)
{
    if (dup(SOCKET_FD) < 0)
        abort();
}

static void try_process_vm_readv(void)
{
    syscall(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0);
}

#if defined(__x86_64__)
static void try_i386(void)
{
    long r;

    /* getpid() of the other architecture: harmless, and yet another table of calls. */
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory");
}

static void try_x32(void)
{
    syscall(0x40000000 | SYS_getpid);
}
#endif

static const struct deed calls[] = {
    {"socket", try_socket},
    {"socketpair", try_socketpair},
    {"connect", try_connect},
    {"bind", try_bind},
    {"listen", try_listen},
    {"accept", try_accept},
    {"accept4", try_accept4},
    {"open", try_open},
    {"openat", try_openat},
    {"unlink", try_unlink},
    {"exec", try_exec},
    {"fork", try_fork},
    {"clone3", try_clone3},
    {"mmap-exec", try_mmap_exec},
    {"mprotect-exec", try_mprotect_exec},
    {"pkey-mprotect", try_pkey_mprotect},
    {"memfd", try_memfd},
    {"ptrace", try_ptrace},
    {"kill", try_kill},
    {"prctl", try_prctl},
    {"setuid", try_setuid},
    {"seccomp", try_seccomp},
    {"io-uring", try_io_uring},
    {"fcntl", try_fcntl},
    {"dup", try_dup},
    {"process-vm-readv", try_process_vm_readv},
#if defined(__x86_64__)
    {"i386", try_i386},
    {"x32", try_x32},
#endif
    {0},
};

/* The kernel kills it in there; an exit status of 99 says that it did not. */
static void try(const struct deed *deed, const char *wanted)
{
    for (; deed->name; deed++)
        if (strcmp(deed->name, wanted) == 0) {
            deed->try();
            _exit(99);
        }
}

static int on_signal(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    const char *wanted = userdata;

    (void)source;
    (void)fd;
    (void)revents;
    try(calls, wanted);
    try(arguments, wanted);
    try(gate_arguments, wanted);
    _exit(98);
}

static void on_locked(sd_event *event)
{
    char *wanted = getenv("VMFERRY_ROGUE");

    if (wanted)
        sd_event_add_io(event, NULL, STDIN_FILENO, EPOLLIN, on_signal, wanted);
}

int main(void)
{
    return helper_run(SOCKET_FD, on_locked);
}
