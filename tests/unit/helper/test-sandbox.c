/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sandbox-rig.h"

#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <time.h>

/* What kills. */

static long call(long number, long a, long b, long c, long d, long e, long f)
{
    return syscall(number, a, b, c, d, e, f);
}

struct forbidden {
    const char *name;
    long number;
    long args[6];
};

#define ADDRESS(object) (long)(uintptr_t)(object)

static char page[8192] __attribute__((aligned(4096)));
static const struct forbidden *forbidden_call;

#ifdef SYS_newfstatat
#define STAT_NAME "newfstatat"
enum { STAT_CALL = SYS_newfstatat };
#else
#define STAT_NAME "fstatat64"
enum { STAT_CALL = SYS_fstatat64 };
#endif

/* A 32-bit host has mmap2, whose offset counts pages; arm has no mmap at all there. */
#ifdef SYS_mmap2
enum { MMAP = SYS_mmap2 };
#else
enum { MMAP = SYS_mmap };
#endif

/* ThreadSanitizer's report needs these: in its build alone they are allowed. */
static bool is_for_a_report(const struct forbidden *f)
{
#ifdef __SANITIZE_THREAD__
    static const char *const names[] = {"openat", "open", STAT_NAME};

    for (size_t i = 0; i < ELEMENTS(names); i++)
        if (strcmp(f->name, names[i]) == 0)
            return true;
#endif
    return false;
}

static void try_forbidden(int fd)
{
    const struct forbidden *f = forbidden_call;
    long a = f->args[0] == -100 ? fd : f->args[0];

    if (call(f->number, a, f->args[1], f->args[2], f->args[3], f->args[4], f->args[5]) == 0 &&
        (f->number == SYS_clone || f->number == SYS_clone3))
        _exit(0); /* the child of a fork that should not be */
}

enum { THE_FD = -100 };

TEST(test_forbidden)
{
    const struct forbidden calls[] = {
        /* Files */
        {"openat", SYS_openat, {AT_FDCWD, ADDRESS("/"), O_RDONLY}},
        {"openat2", SYS_openat2, {AT_FDCWD, ADDRESS("/"), ADDRESS(page), 24}},
        {"open_by_handle_at", SYS_open_by_handle_at, {AT_FDCWD, ADDRESS(page), 0}},
        {"unlinkat", SYS_unlinkat, {AT_FDCWD, ADDRESS("/none"), 0}},
        {"renameat2", SYS_renameat2, {AT_FDCWD, ADDRESS("/none"), AT_FDCWD, ADDRESS("/none2"), 0}},
        {"mkdirat", SYS_mkdirat, {AT_FDCWD, ADDRESS("/"), 0}},
        {"fchmodat", SYS_fchmodat, {AT_FDCWD, ADDRESS("/none"), 0}},
        {"readlinkat", SYS_readlinkat, {AT_FDCWD, ADDRESS("/none"), ADDRESS(page), 10}},
        {STAT_NAME, STAT_CALL, {AT_FDCWD, ADDRESS("/"), ADDRESS(page), 0}},
        {"getdents64", SYS_getdents64, {THE_FD, ADDRESS(page), 100}},
        {"chdir", SYS_chdir, {ADDRESS("/")}},
        {"chroot", SYS_chroot, {ADDRESS("/")}},
        {"mount", SYS_mount, {0}},
        {"fsopen", SYS_fsopen, {ADDRESS("tmpfs"), 0}},
        {"memfd_create", SYS_memfd_create, {ADDRESS("x"), 0}},
        {"sendfile", SYS_sendfile, {THE_FD, 0, 0, 0}},
        {"ioctl", SYS_ioctl, {THE_FD, 0x5421, ADDRESS(page)}},
        {"fcntl F_SETFL", SYS_fcntl, {THE_FD, F_SETFL, 0}},
        {"fcntl F_DUPFD", SYS_fcntl, {THE_FD, F_DUPFD, 0}},
        {"fcntl F_ADD_SEALS", SYS_fcntl, {THE_FD, F_ADD_SEALS, 0}},
        {"fcntl F_SETOWN", SYS_fcntl, {THE_FD, F_SETOWN, 1}},
        {"dup", SYS_dup, {THE_FD}},
        {"dup3", SYS_dup3, {THE_FD, 9, 0}},
        /* Sockets */
        {"socket", SYS_socket, {AF_UNIX, SOCK_STREAM, 0}},
        {"socketpair", SYS_socketpair, {AF_UNIX, SOCK_STREAM, 0, ADDRESS(page)}},
        {"connect", SYS_connect, {THE_FD, ADDRESS(page), 2}},
        {"bind", SYS_bind, {THE_FD, ADDRESS(page), 2}},
        {"listen", SYS_listen, {THE_FD, 1}},
#ifdef SYS_accept
        {"accept", SYS_accept, {THE_FD, 0, 0}},
#endif
        {"accept4", SYS_accept4, {THE_FD, 0, 0, 0}},
        {"setsockopt", SYS_setsockopt, {THE_FD, SOL_SOCKET, SO_KEEPALIVE, ADDRESS(page), 4}},
        {"setsockopt TCP_ULP", SYS_setsockopt, {THE_FD, IPPROTO_TCP, 31, ADDRESS(page), 4}},
        {"setsockopt TCP_REPAIR", SYS_setsockopt, {THE_FD, IPPROTO_TCP, 19, ADDRESS(page), 4}},
        {"setsockopt TLS_TX", SYS_setsockopt, {THE_FD, 282, 1, ADDRESS(page), 4}},
        {"tee", SYS_tee, {THE_FD, THE_FD, 1, 0}},
        /* Processes */
        {"execve", SYS_execve, {ADDRESS("/bin/true"), 0, 0}},
        {"execveat", SYS_execveat, {AT_FDCWD, ADDRESS("/bin/true"), 0, 0, 0}},
        {"clone", SYS_clone, {SIGCHLD, 0, 0, 0, 0}},
        {"clone3", SYS_clone3, {ADDRESS(page), 64}},
        {"ptrace", SYS_ptrace, {PTRACE_TRACEME, 0, 0, 0}},
        {"kill", SYS_kill, {0, 0}},
        {"tkill", SYS_tkill, {1, 0}},
        {"rt_sigqueueinfo", SYS_rt_sigqueueinfo, {1, 0, ADDRESS(page)}},
        {"pidfd_open", SYS_pidfd_open, {1, 0}},
        {"process_vm_readv", SYS_process_vm_readv, {1, ADDRESS(page), 0, ADDRESS(page), 0, 0}},
        {"prctl", SYS_prctl, {PR_SET_DUMPABLE, 1, 0, 0, 0}},
        {"prlimit64", SYS_prlimit64, {0, RLIMIT_CORE, 0, ADDRESS(page)}},
        {"setresuid", SYS_setresuid, {-1, -1, -1}},
        {"capset", SYS_capset, {0, 0}},
        {"unshare", SYS_unshare, {0}},
        {"setns", SYS_setns, {THE_FD, 0}},
        {"personality", SYS_personality, {-1}},
        {"seccomp", SYS_seccomp, {2, 0, ADDRESS(page)}},
        /* Code */
        {"mmap PROT_EXEC", MMAP, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0}},
#if defined(SYS_mmap2) && defined(SYS_mmap)
        {"old mmap", SYS_mmap, {ADDRESS(page)}},
#endif
        {"mmap PROT_WRITE|EXEC", MMAP, {0, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0}},
        {"mprotect PROT_EXEC", SYS_mprotect, {ADDRESS(page), 4096, PROT_READ | PROT_EXEC}},
        {"pkey_mprotect", SYS_pkey_mprotect, {ADDRESS(page), 4096, PROT_READ | PROT_EXEC, -1}},
        {"remap_file_pages", SYS_remap_file_pages, {ADDRESS(page), 4096, 0, 0, 0}},
        {"shmat", SYS_shmat, {0, 0, 0}},
        {"shmget", SYS_shmget, {0, 4096, 01600}},
        /* What the kernel had its holes in */
        {"io_uring_setup", SYS_io_uring_setup, {1, ADDRESS(page)}},
        {"bpf", SYS_bpf, {0, ADDRESS(page), 0}},
        {"perf_event_open", SYS_perf_event_open, {ADDRESS(page), 0, -1, -1, 0}},
        {"userfaultfd", SYS_userfaultfd, {1}},
        {"keyctl", SYS_keyctl, {0}},
        {"add_key", SYS_add_key, {ADDRESS("user"), ADDRESS("x"), 0, 0, -1}},
        {"vmsplice", SYS_vmsplice, {THE_FD, ADDRESS(page), 0, 0}},
        {"timerfd_create", SYS_timerfd_create, {CLOCK_MONOTONIC, 0}},
        {"epoll_create1", SYS_epoll_create1, {0}},
        {"eventfd2", SYS_eventfd2, {0, 0}},
        {"pipe2", SYS_pipe2, {ADDRESS(page), 0}},
        {"inotify_init1", SYS_inotify_init1, {0}},
#ifdef __x86_64__
        {"open", SYS_open, {ADDRESS("/"), O_RDONLY}},
        {"creat", SYS_creat, {ADDRESS("/none/none"), 0}},
        {"fork", SYS_fork, {0}},
        {"modify_ldt", SYS_modify_ldt, {0, ADDRESS(page), 0}},
        {"arch_prctl", SYS_arch_prctl, {0x1004, ADDRESS(page)}},
        /* The x32 ABI: the same kernel entry with another numbering. */
        {"x32 getpid", 0x40000000 | SYS_getpid, {0}},
        {"x32 openat", 0x40000000 | SYS_openat, {AT_FDCWD, ADDRESS("/"), O_RDONLY}},
#endif
        {"no call at all", 100000, {0}},
    };
    bool ok = true;

    for (size_t i = 0; i < ELEMENTS(calls); i++) {
        int status;

        if (is_for_a_report(&calls[i]))
            continue;
        forbidden_call = &calls[i];
        status = in_child(RELAY, try_forbidden);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS) {
            print_error("%s: status %#x\n", calls[i].name, (unsigned)status);
            ok = false;
        }
    }
    assert_true(ok);
}

/* A gate accepts, but nothing else more. */
TEST(test_forbidden_to_the_gate)
{
    const struct forbidden calls[] = {
        {"seccomp", SYS_seccomp, {2, 0, ADDRESS(page)}},
#ifdef SYS_accept
        {"accept", SYS_accept, {THE_FD, 0, 0}},
#endif
        {"socket", SYS_socket, {AF_UNIX, SOCK_STREAM, 0}},
        {"openat", SYS_openat, {AT_FDCWD, ADDRESS("/"), O_RDONLY}},
        {"execve", SYS_execve, {ADDRESS("/bin/true"), 0, 0}},
    };

    for (size_t i = 0; i < ELEMENTS(calls); i++) {
        int status;

        if (is_for_a_report(&calls[i]))
            continue;
        forbidden_call = &calls[i];
        status = in_child(GATE, try_forbidden);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGSYS);
    }
}

#ifdef __x86_64__
/* The i386 entry: 20 is getpid there, and writev, a harmless one, here. */
static void call_i386(int fd)
{
    long r;

    (void)fd;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
}

TEST(test_i386)
{
    int status = in_child(OPEN, call_i386);

    if (status != 0)
        skip(); /* a kernel without it */
    status = in_child(LOCKED, call_i386);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSYS);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_forbidden),
        CASE(test_forbidden_to_the_gate),
#ifdef __x86_64__
        CASE(test_i386),
#endif
    };

    if (skipped_in_valgrind())
        return 0;
    return cmocka_run_group_tests_name("sandbox", tests, NULL, NULL);
}
