/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/futex.h>
#include <linux/net.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/stats.h"
#include "helper/limits.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature) /* clang's way to say it */
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

enum {
    NOBODY = 65534
}; /* Debian's and the kernel's overflow uid; under systemd the unit gives one of its own */

/* Two sockets and a pipe per channel, the peers, the gate's visitors, and what every process has. */
#define FDS_MAX (3 * STATS_CHANNELS_MAX + PEERS_MAX + GATE_PENDING_MAX + 64)

/* What this machine does not have is passed over. */
#define SYSCALL(name) SCMP_SYS(name)
/* What a 32-bit machine's C library calls for the same, with wider arguments. */
#define SYSCALL32(name) SCMP_SYS(name)

/* On i386, mmap(2) has its arguments in memory, where no filter sees them. */
#ifdef __NR_mmap2
#define MMAP SYSCALL32(mmap2)
#else
#define MMAP SYSCALL(mmap)
#endif

/* What moves bytes; the calls that a flag or an address makes dangerous stand in conditions[]. */
static const int relay_calls[] = {
    SYSCALL(read),
    SYSCALL(write),
    SYSCALL(close),
    SYSCALL(getpeername),
};

/* What sd-event needs; its descriptors are made before. */
static const int event_calls[] = {
    SYSCALL(epoll_wait),    SYSCALL(epoll_pwait),     SYSCALL(epoll_pwait2), SYSCALL(epoll_ctl),
    SYSCALL(clock_gettime), SYSCALL(restart_syscall), SYSCALL(rt_sigreturn), SYSCALL32(clock_gettime64),
};

/* What malloc(3), GnuTLS and the end of a process need. */
static const int process_calls[] = {
    SYSCALL(brk),  SYSCALL(munmap),     SYSCALL(getrandom),      SYSCALL(getpid), SYSCALL(gettid),
    SYSCALL(exit), SYSCALL(exit_group), SYSCALL(rt_sigprocmask), /* of a thread that ends */
};

/* Only until the role is known: sandbox_narrow() takes them away. */
static const int early_calls[] = {
    SYSCALL(seccomp),
};

#if defined(__SANITIZE_THREAD__)
const char *__tsan_default_options(void);

/* Its deadlock detector takes a worker's two mutexes for one: only the first thread ever holds both, and a
 * worker never waits for the second while it has the first. */
__attribute__((visibility("default"))) const char *__tsan_default_options(void)
{
    return "detect_deadlocks=0:color=never"; /* a terminal would be asked for by ioctl(2) */
}
#endif

#if SANITIZED
const char *__asan_default_options(void);

/* LeakSanitizer would start a thread to look at the others, which the sandbox forbids. */
__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

/* What the sanitizers' runtime needs besides, in builds for tests. */
static const int sanitizer_calls[] = {
    SYSCALL(sigaltstack),
    SYSCALL(rt_sigaction),
    SYSCALL(sched_yield),
    SYSCALL(tgkill),
#if defined(__SANITIZE_THREAD__)
    SYSCALL(clock_nanosleep),
    SYSCALL(nanosleep),
    SYSCALL(gettimeofday),
    SYSCALL(open),
    SYSCALL(openat),
    SYSCALL(readlink),
    SYSCALL(fstat),
    SYSCALL(newfstatat),
    SYSCALL(stat),
    SYSCALL(pread64), /* a report */
    /* Its own thread may begin after the sandbox. */
    SYSCALL(rseq),
    SYSCALL(set_robust_list),
#endif
};
#endif

struct call_group {
    const int *calls;
    size_t n;
};

#define ELEMENTS(array) (sizeof(array) / sizeof((array)[0]))
#define GROUP(calls)           \
    {                          \
        calls, ELEMENTS(calls) \
    }

static const struct call_group groups[] = {
    GROUP(relay_calls),     GROUP(event_calls), GROUP(process_calls), GROUP(early_calls),
#if SANITIZED
    GROUP(sanitizer_calls),
#endif
};

/* Conditions on an argument, counted from 0. The kernel reads the lower 32 bits of an int, so only they
 * count. */
#define INT_IS(arg, value)                         \
    {                                              \
        arg, SCMP_CMP_MASKED_EQ, UINT32_MAX, value \
    }
#define FLAGS_WITHIN(arg, flags)                        \
    {                                                   \
        arg, SCMP_CMP_MASKED_EQ, (uint32_t) ~(flags), 0 \
    }
#define COMMAND_IS(arg, mask, value)                     \
    {                                                    \
        arg, SCMP_CMP_MASKED_EQ, (uint32_t)(mask), value \
    }
#define IS_NULL(arg)           \
    {                          \
        arg, SCMP_CMP_EQ, 0, 0 \
    }

enum { CONDITIONS_MAX = 3 };

/* Calls that are allowed if all conditions of a row hold. docs/threat-model.md says what that keeps out. */
static const struct conditional {
    int call;
    struct scmp_arg_cmp args[CONDITIONS_MAX];
    unsigned n;
} conditions[] = {
    /* No MSG_FASTOPEN, which connects, no MSG_ZEROCOPY, no MSG_ERRQUEUE. sendto(2) is not there at all. */
    {SYSCALL(sendmsg), {FLAGS_WITHIN(2, MSG_DONTWAIT | MSG_NOSIGNAL)}, 1},
    {SYSCALL(recvmsg), {FLAGS_WITHIN(2, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_PEEK)}, 1},
    {SYSCALL(recvfrom), {FLAGS_WITHIN(3, MSG_DONTWAIT | MSG_PEEK), IS_NULL(4)}, 2},
    {SYSCALL(splice), {IS_NULL(1), IS_NULL(3), FLAGS_WITHIN(5, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)}, 3},
    {SYSCALL(shutdown), {INT_IS(1, SHUT_WR)}, 1},
    {SYSCALL(shutdown), {INT_IS(1, SHUT_RDWR)}, 1}, /* the relay's alone */
    {SYSCALL(accept4), {IS_NULL(1), IS_NULL(2), INT_IS(3, SOCK_CLOEXEC | SOCK_NONBLOCK)}, 3},
    /* For the gate, of listeners. Other options make descriptors (SO_PEERPIDFD) or map memory. */
    {SYSCALL(getsockopt), {INT_IS(1, SOL_SOCKET), INT_IS(2, SO_ACCEPTCONN)}, 2},
    /* The stats page is checked to be a sealed memfd that is long enough, and a pipe to be one. */
    {SYSCALL(fcntl), {INT_IS(1, F_GET_SEALS)}, 1},
    {SYSCALL(fcntl), {INT_IS(1, F_GETPIPE_SZ)}, 1},
    {SYSCALL32(fcntl64), {INT_IS(1, F_GET_SEALS)}, 1},
    {SYSCALL32(fcntl64), {INT_IS(1, F_GETPIPE_SZ)}, 1},
    {SYSCALL(lseek), {IS_NULL(1), INT_IS(2, SEEK_END)}, 2},
    {SYSCALL32(_llseek), {IS_NULL(1), IS_NULL(2), INT_IS(4, SEEK_END)}, 3},
    {SYSCALL(timerfd_settime), {FLAGS_WITHIN(1, TFD_TIMER_ABSTIME)}, 1},
    {SYSCALL32(timerfd_settime64), {FLAGS_WITHIN(1, TFD_TIMER_ABSTIME)}, 1},
    /* No new code: memory can be had, but not made executable. */
    {MMAP, {FLAGS_WITHIN(2, PROT_READ | PROT_WRITE)}, 1},
    {SYSCALL(mprotect), {FLAGS_WITHIN(2, PROT_READ | PROT_WRITE)}, 1},
    /* Mutexes, condition variables and pthread_join(3); no requeueing and no priorities. */
    {SYSCALL(futex), {COMMAND_IS(1, FUTEX_CMD_MASK, FUTEX_WAIT)}, 1},
    {SYSCALL(futex), {COMMAND_IS(1, FUTEX_CMD_MASK, FUTEX_WAKE)}, 1},
    {SYSCALL(futex), {COMMAND_IS(1, FUTEX_CMD_MASK, FUTEX_WAIT_BITSET)}, 1},
    {SYSCALL32(futex_time64), {COMMAND_IS(1, FUTEX_CMD_MASK, FUTEX_WAIT)}, 1},
    {SYSCALL32(futex_time64), {COMMAND_IS(1, FUTEX_CMD_MASK, FUTEX_WAIT_BITSET)}, 1},
#ifdef __i386__ /* Debian's C library calls by this one number, with flags and addresses in memory */
    {SYSCALL32(socketcall), {INT_IS(0, SYS_SENDMSG)}, 1},
    {SYSCALL32(socketcall), {INT_IS(0, SYS_RECVMSG)}, 1},
    {SYSCALL32(socketcall), {INT_IS(0, SYS_RECVFROM)}, 1},
    {SYSCALL32(socketcall), {INT_IS(0, SYS_RECV)}, 1},
    {SYSCALL32(socketcall), {INT_IS(0, SYS_SHUTDOWN)}, 1},
    {SYSCALL32(socketcall), {INT_IS(0, SYS_ACCEPT4)}, 1},
    {SYSCALL32(socketcall), {INT_IS(0, SYS_GETSOCKOPT)}, 1},
#endif
#if SANITIZED
    {SYSCALL(madvise), {INT_IS(2, MADV_DONTDUMP)}, 1},
    {SYSCALL(madvise), {INT_IS(2, MADV_NOHUGEPAGE)}, 1},
#if defined(__SANITIZE_THREAD__) /* a report */
    {SYSCALL(fcntl), {INT_IS(1, F_SETFD)}, 1},
    {SYSCALL(lseek), {INT_IS(2, SEEK_SET)}, 1},
#endif
#endif
    /* malloc(3): memory given back, and large pages by GLIBC_TUNABLES. MADV_MERGEABLE would share keys'
       pages. */
    {SYSCALL(madvise), {INT_IS(2, MADV_DONTNEED)}, 1},
    {SYSCALL(madvise), {INT_IS(2, MADV_HUGEPAGE)}, 1},
    {SYSCALL(mremap), {INT_IS(3, MREMAP_MAYMOVE)}, 1},
};

/* Looked up first: they are called for each piece of a stream. */
static const int frequent_calls[] = {SYSCALL(recvmsg), SYSCALL(sendmsg), SYSCALL(splice)};

/* What the other role needs, and this one does not. */
static const struct conditional not_of_the_gate[] = {
    {SYSCALL(splice), {{0}}, 0},
    {SYSCALL(fcntl), {{0}}, 0},
    {SYSCALL32(fcntl64), {{0}}, 0},
    {SYSCALL(lseek), {{0}}, 0},
    {SYSCALL32(_llseek), {{0}}, 0},
    {SYSCALL(getpeername), {{0}}, 0},
    /* It would end listening, for its successors as well. */
    {SYSCALL(shutdown), {INT_IS(1, SHUT_RDWR)}, 1},
};
static const struct conditional not_of_a_relay[] = {
    {SYSCALL(accept4), {{0}}, 0},
    {SYSCALL(getsockopt), {{0}}, 0},
};

static int set_limit(__rlimit_resource_t resource, rlim_t value)
{
    struct rlimit limit;

    if (getrlimit(resource, &limit) < 0)
        return -errno;
    if (limit.rlim_max == RLIM_INFINITY || limit.rlim_max > value)
        limit.rlim_max = value;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit(resource, &limit) < 0 ? -errno : 0;
}

/* Whatever was permitted, inherited or ambient, capabilities(7); and no way back to them. */
static int drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct held[_LINUX_CAPABILITY_U32S_3];
    static const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3];

    /* Refused by an old kernel only where there is nothing to drop. */
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capget, &header, held) < 0)
        return -errno;
    if (memcmp(held, none, sizeof(none)) == 0) /* the unit has seen to it, and permits capset(2) no more */
        return 0;
    return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

static int drop_root(void)
{
    uid_t real, effective, saved;

    if (getresuid(&real, &effective, &saved) < 0)
        return -errno;
    if (real != 0 && effective != 0 && saved != 0)
        return 0;
    /* The saved uid alone being root takes its effective uid to do it. */
    if (effective != 0 && seteuid(0) < 0)
        return -errno;
    if (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
        setresuid(NOBODY, NOBODY, NOBODY) < 0)
        return -errno;
    return 0;
}

/* Comes first, with one thread: credentials and limits are then all threads'. DUMPABLE is cleared after
 * drop_root(), since a change of the effective uid sets it anew (prctl(2)). NO_NEW_PRIVS must be there before
 * seccomp(2), which wants it of a process without capabilities. */
int sandbox_isolate(int fd)
{
    int r;

    /* 0…2 stay as they are; stdout and stdin lead to /dev/null where the broker starts us. */
    if (fd > 3 && close_range(3, (unsigned)fd - 1, 0) < 0)
        return -errno;
    if (close_range((unsigned)fd + 1, ~0U, 0) < 0)
        return -errno;
    /* splice(2) has no MSG_NOSIGNAL. */
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        return -errno;
    r = set_limit(RLIMIT_NOFILE, FDS_MAX);
    if (r >= 0)
        r = set_limit(RLIMIT_CORE, 0); /* keys are in this memory */
    if (r >= 0)
        r = set_limit(RLIMIT_MEMLOCK, 0);
    if (r >= 0)
        r = drop_root();
    if (r >= 0)
        r = drop_capabilities();
    if (r < 0)
        return r;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return -errno;
    return 0;
}

static void filter_releasep(scmp_filter_ctx *filter)
{
    if (*filter)
        seccomp_release(*filter);
}

/* A filter of this default action, in which any call that is not of this architecture kills too. */
static int filter_new(uint32_t action, scmp_filter_ctx *ret)
{
    _cleanup_(filter_releasep) scmp_filter_ctx filter = seccomp_init(action);
    int r;

    if (!filter)
        return -ENOMEM;
    r = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (r >= 0)
        r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    if (r >= 0)
        r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0); /* is set already */
    if (r < 0)
        return r;
    *ret = filter;
    filter = NULL;
    return 0;
}

static int add_all(scmp_filter_ctx filter, uint32_t action, const struct conditional *rows, size_t n)
{
    int r = 0;

    for (size_t i = 0; r >= 0 && i < n; i++)
        r = seccomp_rule_add_array(filter, action, rows[i].call, rows[i].n, rows[i].args);
    return r;
}

int sandbox_lock(void)
{
    _cleanup_(filter_releasep) scmp_filter_ctx filter = NULL;
    int r = filter_new(SCMP_ACT_KILL_PROCESS, &filter);

    for (size_t i = 0; r >= 0 && i < ELEMENTS(groups); i++)
        for (size_t j = 0; r >= 0 && j < groups[i].n; j++)
            r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, groups[i].calls[j], 0);
    if (r >= 0)
        r = add_all(filter, SCMP_ACT_ALLOW, conditions, ELEMENTS(conditions));
    for (size_t i = 0; r >= 0 && i < ELEMENTS(frequent_calls); i++)
        r = seccomp_syscall_priority(filter, frequent_calls[i], UINT8_MAX);
    return r < 0 ? r : seccomp_load(filter);
}

/* A second filter over the first: the kernel takes the stricter verdict of both, so this one lists only what
 * goes (seccomp(2)). It takes seccomp(2) itself as well, so that it is the last. */
int sandbox_narrow(bool gate)
{
    _cleanup_(filter_releasep) scmp_filter_ctx filter = NULL;
    int r = filter_new(SCMP_ACT_ALLOW, &filter);

    if (r >= 0)
        r = seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, SCMP_SYS(seccomp), 0);
    if (r >= 0 && gate)
        r = add_all(filter, SCMP_ACT_KILL_PROCESS, not_of_the_gate, ELEMENTS(not_of_the_gate));
    else if (r >= 0)
        r = add_all(filter, SCMP_ACT_KILL_PROCESS, not_of_a_relay, ELEMENTS(not_of_a_relay));
    return r < 0 ? r : seccomp_load(filter);
}
