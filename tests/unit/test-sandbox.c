/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "common/message.h"
#include "helper/carrier.h"
#include "helper/sandbox.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

/* How far a child goes before its body runs. */
enum depth {
    OPEN,     /* not at all */
    ISOLATED, /* sandbox_isolate() */
    LOCKED,   /* and sandbox_lock() */
    RELAY,    /* and sandbox_narrow(false) */
    GATE,     /* and sandbox_narrow(true) */
};

static void require_at(bool ok, const char *what)
{
    if (ok)
        return;
    if (write(STDERR_FILENO, what, strlen(what)) < 0 || write(STDERR_FILENO, "\n", 1) < 0)
        _exit(2);
    _exit(1);
}

/* In a child, where cmocka's checks have nowhere to jump to. */
#define REQUIRE(condition) require_at(condition, #condition)

/*
 * Runs body in a child that is so deep, with one end of a socket pair as its only descriptor; the other end
 * is fed a byte. Returns what waitpid(2) gave.
 */
static int in_child(enum depth depth, void (*body)(int fd))
{
    int pair[2], status;
    pid_t pid;

    test_pair(SOCK_STREAM, 0, pair);
    assert_int_equal(send(pair[0], "x", 1, 0), 1);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const struct rlimit no_core = {0, 0};

        alarm(20);
        setrlimit(RLIMIT_CORE, &no_core);
        if (depth >= ISOLATED)
            REQUIRE(sandbox_isolate(pair[1]) == 0);
        if (depth >= LOCKED)
            REQUIRE(sandbox_lock() == 0);
        if (depth >= RELAY)
            REQUIRE(sandbox_narrow(depth == GATE) == 0);
        body(pair[1]);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    close(pair[0]);
    close(pair[1]);
    return status;
}

/* ---- What kills ---- */

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
        {"newfstatat", SYS_newfstatat, {AT_FDCWD, ADDRESS("/"), ADDRESS(page), 0}},
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
        {"accept", SYS_accept, {THE_FD, 0, 0}},
        {"accept4", SYS_accept4, {THE_FD, 0, 0, 0}},
        {"setsockopt", SYS_setsockopt, {THE_FD, SOL_SOCKET, SO_KEEPALIVE, ADDRESS(page), 4}},
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
        {"personality", SYS_personality, {0xffffffff}},
        {"seccomp", SYS_seccomp, {2, 0, ADDRESS(page)}},
        /* Code */
        {"mmap PROT_EXEC", SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0}},
        {"mmap PROT_WRITE|EXEC",
         SYS_mmap,
         {0, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0}},
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
        {"accept", SYS_accept, {THE_FD, 0, 0}},
        {"socket", SYS_socket, {AF_UNIX, SOCK_STREAM, 0}},
        {"openat", SYS_openat, {AT_FDCWD, ADDRESS("/"), O_RDONLY}},
        {"execve", SYS_execve, {ADDRESS("/bin/true"), 0, 0}},
    };

    for (size_t i = 0; i < ELEMENTS(calls); i++) {
        int status;

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

/* ---- What goes on working ---- */

static void use_memory(int fd)
{
    char *p = malloc(1000), *q;

    (void)fd;
    for (size_t size = 1000; size < 64 * 1024 * 1024; size *= 3) {
        q = realloc(p, size);
        REQUIRE(q != NULL);
        p = q;
        memset(p, 1, size);
    }
    free(p);
    p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(p != MAP_FAILED);
    REQUIRE(mprotect(p, 4096, PROT_READ) == 0);
    REQUIRE(madvise(p, 1 << 20, MADV_DONTNEED) == 0);
    REQUIRE(munmap(p, 1 << 20) == 0);
}

TEST(test_memory)
{
    assert_int_equal(in_child(RELAY, use_memory), 0);
}

static void use_socket(int fd)
{
    struct timespec now;
    uint8_t byte;
    int type;
    socklen_t size = sizeof(type);

    REQUIRE(getrandom(&byte, 1, 0) == 1);
    REQUIRE(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    REQUIRE(getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM);
    REQUIRE(read(fd, &byte, 1) == 1 && byte == 'x');
    REQUIRE(recv(fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    REQUIRE(send(fd, "y", 1, MSG_NOSIGNAL) == 1);
    REQUIRE(write(fd, "z", 1) == 1);
    REQUIRE(shutdown(fd, SHUT_WR) == 0);
    errno = 0;
    REQUIRE(write(fd, "z", 1) < 0 && errno == EPIPE); /* SIGPIPE is ignored */
    REQUIRE(close(fd) == 0);
}

TEST(test_socket)
{
    assert_int_equal(in_child(RELAY, use_socket), 0);
    assert_int_equal(in_child(GATE, use_socket), 0);
}

static void use_accept(int fd)
{
    REQUIRE(accept4(fd, NULL, NULL, SOCK_CLOEXEC) < 0); /* it listens to nobody: an error, but no death */
    REQUIRE(errno == EINVAL);
}

TEST(test_accept)
{
    assert_int_equal(in_child(GATE, use_accept), 0);
    assert_int_equal(in_child(LOCKED, use_accept), 0); /* the role is not known yet */
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)source;
    (void)usec;
    (*(int *)userdata)++;
    return 0;
}

static void on_carrier(struct carrier *carrier, uint32_t revents, void *userdata)
{
    (void)carrier;
    if (revents & EPOLLIN)
        (*(int *)userdata)++;
}

/* A loop made before, with a timer for its timerfd, as helper_run() does; sources come and go after. */
static void use_events(int fd)
{
    sd_event_source *holder = NULL, *timer = NULL;
    struct carrier *carrier = NULL;
    sd_event *event = NULL;
    int timers = 0, inputs = 0;

    REQUIRE(sd_event_new(&event) >= 0);
    REQUIRE(sd_event_add_time(event, &holder, CLOCK_MONOTONIC, UINT64_MAX, 0, NULL, NULL) >= 0);
    REQUIRE(sandbox_lock() == 0);
    REQUIRE(sandbox_narrow(false) == 0);
    REQUIRE(carrier_plain_new(fd, false, NULL, NULL, &carrier) == 0);
    REQUIRE(carrier_attach(carrier, event, on_carrier, &inputs) == 0);
    carrier_watch(carrier, EPOLLIN);
    REQUIRE(sd_event_add_time_relative(event, &timer, CLOCK_MONOTONIC, 20000, 1, on_timer, &timers) >= 0);
    for (int i = 0; i < 1000 && (timers == 0 || inputs == 0); i++) {
        REQUIRE(sd_event_run(event, 1000000) >= 0);
        if (inputs > 0)
            carrier_watch(carrier, 0);
    }
    REQUIRE(timers == 1 && inputs == 1);
    carrier = carrier_free(carrier);
    sd_event_source_unref(timer);
    sd_event_source_unref(holder);
    sd_event_unref(event);
}

TEST(test_events)
{
    assert_int_equal(in_child(ISOLATED, use_events), 0);
}

/* Both securities from the handshake to the last byte: what GnuTLS does first must be possible, too. */
static void use_carriers(int fd)
{
    static const struct preamble preamble = {PEER_CONTROL, 1};
    static const uint8_t key[KEY_SIZE] = {7};
    struct ring_pool pool = {.max_free = 1};
    uint8_t exported[KEY_SIZE];
    int pairs[2][2];

    (void)fd;
    for (int i = 0; i < 2; i++)
        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pairs[i]) == 0);
    REQUIRE(sandbox_lock() == 0);
    REQUIRE(sandbox_narrow(false) == 0);
    for (int tls = 0; tls < 2; tls++) {
        struct carrier *ends[2] = {NULL, NULL};
        int results[2] = {-EAGAIN, -EAGAIN};
        struct ring out, in;

        for (int i = 0; i < 2; i++)
            REQUIRE((tls ? carrier_tls_new(pairs[tls][i], i == 0, &preamble, key, CARRIER_TLS_BUFFER_MIN,
                                           &ends[i])
                         : carrier_plain_new(pairs[tls][i], i == 0, &preamble, key, &ends[i])) == 0);
        for (int n = 0; n < 20; n++)
            for (int i = 0; i < 2; i++)
                if (results[i] == -EAGAIN)
                    results[i] = ends[i]->ops->handshake(ends[i]);
        REQUIRE(results[0] == 0 && results[1] == 0);
        REQUIRE(ends[0]->ops->export_key(ends[0], exported) == 0);
        REQUIRE(ring_init(&out, &pool, 1 << 20) == 0);
        REQUIRE(ring_init(&in, &pool, 1 << 20) == 0);
        for (int i = 0; i < 16; i++)
            REQUIRE(ring_append(&out, page, sizeof(page)) == 0);
        while (in.end < out.end) {
            ssize_t r = carrier_send(ends[0], &out);

            REQUIRE(r > 0 || r == -EAGAIN);
            r = carrier_recv(ends[1], &in, SIZE_MAX);
            REQUIRE(r > 0 || r == -EAGAIN);
        }
        ring_clear(&out);
        ring_clear(&in);
        carrier_free(ends[0]);
        carrier_free(ends[1]);
    }
    ring_pool_clear(&pool);
}

TEST(test_carriers)
{
    assert_int_equal(in_child(ISOLATED, use_carriers), 0);
}

/* The FD of a message comes in, and a pipe and a sealed page are looked at. */
static void use_messages(int fd)
{
    union message m = {0}, got;
    int pair[2], memory = memfd_create("stats", MFD_CLOEXEC | MFD_ALLOW_SEALING), pipe_fds[2], in = -1;

    (void)fd;
    REQUIRE(memory >= 0);
    REQUIRE(ftruncate(memory, 4096) == 0);
    REQUIRE(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) == 0);
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    REQUIRE(sandbox_lock() == 0);
    REQUIRE(sandbox_narrow(false) == 0);
    REQUIRE(message_send(pair[0], MESSAGE_PEER, &m, memory) == 0);
    REQUIRE(message_recv(pair[1], TO_HELPER, PHASE_RELAY, &got, &in) == 1 && in >= 0);
    REQUIRE(fcntl(in, F_GET_SEALS) >= 0);
    REQUIRE(lseek(in, 0, SEEK_END) == 4096);
    REQUIRE(fcntl(pipe_fds[0], F_GETPIPE_SZ) > 0);
    REQUIRE(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, in, 0) != MAP_FAILED);
    REQUIRE(write(pipe_fds[1], "abc", 3) == 3);
    REQUIRE(splice(pipe_fds[0], NULL, fd, NULL, 3, SPLICE_F_NONBLOCK) == 3);
    close(in);
}

TEST(test_messages)
{
    assert_int_equal(in_child(ISOLATED, use_messages), 0);
}

/* ---- What isolation takes away ---- */

static void look_at_fds(int fd)
{
    int high;

    /* Others around it, near and far, and not on the lowest number. */
    fd = fcntl(fd, F_DUPFD, 20);
    REQUIRE(fd >= 20);
    REQUIRE(fcntl(fd, F_DUPFD, fd + 1) == fd + 1);
    high = fcntl(fd, F_DUPFD, 900);
    REQUIRE(high >= 900);
    REQUIRE(open("/", O_RDONLY) >= 3);
    REQUIRE(sandbox_isolate(fd) == 0);
    for (int i = 0; i < 2000; i++) {
        bool is_open = fcntl(i, F_GETFD) >= 0;

        REQUIRE(is_open == (i == fd) || i <= 2);
    }
}

static void look_at_fd_3(int fd)
{
    REQUIRE(dup2(fd, 3) == 3);
    REQUIRE(dup2(fd, 4) == 4);
    REQUIRE(sandbox_isolate(3) == 0);
    for (int i = 0; i < 2000; i++)
        REQUIRE((fcntl(i, F_GETFD) >= 0) == (i == 3) || i <= 2);
}

TEST(test_fds_are_closed)
{
    assert_int_equal(in_child(OPEN, look_at_fds), 0);
    assert_int_equal(in_child(OPEN, look_at_fd_3), 0);
}

static void require_no_capability(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    REQUIRE(syscall(SYS_capget, &head, data) == 0);
    for (int i = 0; i < 2; i++)
        REQUIRE(data[i].effective == 0 && data[i].permitted == 0 && data[i].inheritable == 0);
    for (int i = 0; i <= CAP_LAST_CAP; i++)
        REQUIRE(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i, 0, 0) <= 0);
}

static void require_no_root(void)
{
    uid_t uid[3];
    gid_t gid[3];

    REQUIRE(getresuid(&uid[0], &uid[1], &uid[2]) == 0);
    REQUIRE(getresgid(&gid[0], &gid[1], &gid[2]) == 0);
    for (int i = 0; i < 3; i++)
        REQUIRE(uid[i] != 0 && gid[i] != 0);
    REQUIRE(setresuid(0, 0, 0) < 0);
    REQUIRE(setresgid(0, 0, 0) < 0);
    require_no_capability();
}

static void look_at_limits(int fd)
{
    struct rlimit limit;

    (void)fd;
    REQUIRE(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
    REQUIRE(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
    REQUIRE(getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_cur == 0 && limit.rlim_max == 0);
    REQUIRE(getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_max == 0);
    REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max <= 4096 &&
            limit.rlim_cur == limit.rlim_max);
}

TEST(test_limits)
{
    assert_int_equal(in_child(ISOLATED, look_at_limits), 0);
}

static void look_at_root(int fd)
{
    (void)fd;
    REQUIRE(getuid() == 65534 && getgid() == 65534);
    REQUIRE(getgroups(0, NULL) == 0);
    require_no_root();
}

TEST(test_root_is_dropped)
{
    if (getuid() != 0)
        skip();
    assert_int_equal(in_child(ISOLATED, look_at_root), 0);
}

/* Root in hiding: only the saved uid is 0. */
static void hide_root(int fd)
{
    REQUIRE(setgroups(0, NULL) == 0);
    REQUIRE(setresgid(1000, 1000, 1000) == 0);
    REQUIRE(setresuid(1000, 1000, 0) == 0);
    REQUIRE(sandbox_isolate(fd) == 0);
    require_no_root();
}

TEST(test_saved_root_is_dropped)
{
    if (getuid() != 0)
        skip();
    assert_int_equal(in_child(OPEN, hide_root), 0);
}

/* No root, but capabilities, as from AmbientCapabilities= of a unit. */
static void keep_capabilities(int fd)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    REQUIRE(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0);
    REQUIRE(setgroups(0, NULL) == 0);
    REQUIRE(setresgid(1000, 1000, 1000) == 0);
    REQUIRE(setresuid(1000, 1000, 1000) == 0);
    data[0].effective = data[0].permitted = data[0].inheritable = 1U << CAP_NET_ADMIN;
    REQUIRE(syscall(SYS_capset, &head, data) == 0);
    REQUIRE(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0) == 0);
    REQUIRE(sandbox_isolate(fd) == 0);
    require_no_root();
}

/* Root whose capabilities the kernel does not take away with its uid. */
static void keep_by_securebits(int fd)
{
    REQUIRE(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) == 0);
    REQUIRE(sandbox_isolate(fd) == 0);
    require_no_root();
}

TEST(test_capabilities_are_dropped)
{
    if (getuid() != 0)
        skip();
    assert_int_equal(in_child(OPEN, keep_capabilities), 0);
    assert_int_equal(in_child(OPEN, keep_by_securebits), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_forbidden),
        CASE(test_forbidden_to_the_gate),
#ifdef __x86_64__
        CASE(test_i386),
#endif
        CASE(test_memory),
        CASE(test_socket),
        CASE(test_accept),
        CASE(test_events),
        CASE(test_carriers),
        CASE(test_messages),
        CASE(test_fds_are_closed),
        CASE(test_limits),
        CASE(test_root_is_dropped),
        CASE(test_saved_root_is_dropped),
        CASE(test_capabilities_are_dropped),
    };

    /* It makes calls of its own in the process, for which a filter would kill it. */
    if (test_in_valgrind()) {
        puts("1..0 # SKIP in valgrind");
        return 0;
    }
    return cmocka_run_group_tests_name("sandbox", tests, NULL, NULL);
}
