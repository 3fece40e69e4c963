/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
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

#define SYSCALL(name) SCMP_SYS(name)

/* What moves bytes. */
static const int relay_calls[] = {
    SYSCALL(recvmsg), SYSCALL(sendmsg),     SYSCALL(recvfrom),   SYSCALL(sendto),
    SYSCALL(read),    SYSCALL(write),       SYSCALL(splice),     SYSCALL(shutdown),
    SYSCALL(close),   SYSCALL(getpeername), SYSCALL(getsockopt),
};

/* What sd-event needs; its descriptors are made before. */
static const int event_calls[] = {
    SYSCALL(epoll_wait),      SYSCALL(epoll_pwait),   SYSCALL(epoll_pwait2),    SYSCALL(epoll_ctl),
    SYSCALL(timerfd_settime), SYSCALL(clock_gettime), SYSCALL(restart_syscall), SYSCALL(rt_sigreturn),
};

/* What malloc(3), GnuTLS and the end of a process need. mmap and mprotect stand below, with conditions. */
static const int process_calls[] = {
    SYSCALL(brk),   SYSCALL(munmap),     SYSCALL(mremap),         SYSCALL(madvise),
    SYSCALL(futex), SYSCALL(getrandom),  SYSCALL(getpid),         SYSCALL(gettid),
    SYSCALL(exit),  SYSCALL(exit_group), SYSCALL(rt_sigprocmask), /* of a thread that ends */
};

/* Only until the role is known: sandbox_narrow() takes them away. */
static const int early_calls[] = {
    SYSCALL(accept4),
    SYSCALL(seccomp),
};

#if SANITIZED
const char *__asan_default_options(void);

/* LeakSanitizer would start a thread to look at the others, which the sandbox forbids. */
__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

/* What the sanitizers' runtime needs besides, in builds for tests. */
static const int sanitizer_calls[] = {
    SYSCALL(sigaltstack),     SYSCALL(rt_sigaction), SYSCALL(sched_yield),  SYSCALL(tgkill),
#if defined(__SANITIZE_THREAD__)
    SYSCALL(clock_nanosleep), SYSCALL(nanosleep),    SYSCALL(gettimeofday),
#endif
};
#endif

struct call_group {
    const int *calls;
    size_t n;
};

#define GROUP(calls)                              \
    {                                             \
        calls, sizeof(calls) / sizeof((calls)[0]) \
    }

static const struct call_group groups[] = {
    GROUP(relay_calls),     GROUP(event_calls), GROUP(process_calls), GROUP(early_calls),
#if SANITIZED
    GROUP(sanitizer_calls),
#endif
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

int sandbox_lock(void)
{
    _cleanup_(filter_releasep) scmp_filter_ctx filter = NULL;
    int r = filter_new(SCMP_ACT_KILL_PROCESS, &filter);

    for (size_t i = 0; r >= 0 && i < sizeof(groups) / sizeof(groups[0]); i++)
        for (size_t j = 0; r >= 0 && j < groups[i].n; j++)
            r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, groups[i].calls[j], 0);
    /* No new code: memory can be had, but not made executable. */
    if (r >= 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
                             SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    if (r >= 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
                             SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    /* The stats page is checked to be a sealed memfd. */
    if (r >= 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1, SCMP_A1(SCMP_CMP_EQ, F_GET_SEALS));
    if (r >= 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(lseek), 0);
    /* And a pipe to be one. */
    if (r >= 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1, SCMP_A1(SCMP_CMP_EQ, F_GETPIPE_SZ));
    return r < 0 ? r : seccomp_load(filter);
}

int sandbox_narrow(bool gate)
{
    _cleanup_(filter_releasep) scmp_filter_ctx filter = NULL;
    int r = filter_new(SCMP_ACT_ALLOW, &filter);

    if (r >= 0)
        r = seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, SCMP_SYS(seccomp), 0);
    if (r >= 0 && !gate)
        r = seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, SCMP_SYS(accept4), 0);
    return r < 0 ? r : seccomp_load(filter);
}
