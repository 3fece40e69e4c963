/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/libvirt/thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/cleanup.h"

struct thread {
    pthread_t id;
    void (*run)(void *argument);
    void *argument;
    int done; /* eventfd: the thread writes to it as its last act */
    bool over;
    sd_event_source *source;
};

static void *body(void *userdata)
{
    struct thread *thread = userdata;

    thread->run(thread->argument);
    eventfd_write(thread->done, 1);
    return NULL;
}

static int on_done(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct thread *thread = userdata;

    thread->over = true;
    return sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

static void thread_free(struct thread *thread)
{
    sd_event_source_disable_unref(thread->source);
    fd_closep(&thread->done);
    free(thread);
}

int thread_begin(struct ctl *ctl, void (*run)(void *argument), void *argument, struct thread **ret,
                 struct trouble *trouble)
{
    struct thread *thread = calloc(1, sizeof(*thread));
    int r;

    *ret = NULL;
    if (!thread)
        return trouble_no_memory(trouble);
    *thread = (struct thread){.run = run, .argument = argument, .done = eventfd(0, EFD_CLOEXEC)};
    r = thread->done < 0
            ? -errno
            : sd_event_add_io(ctl->event, &thread->source, thread->done, EPOLLIN, on_done, thread);
    if (r >= 0)
        r = -pthread_create(&thread->id, NULL, body, thread);
    if (r < 0) {
        thread_free(thread);
        return trouble_set(trouble, STATUS_FAILED, "Cannot start a thread: %s.", strerror(-r));
    }
    *ret = thread;
    return 0;
}

bool thread_is_over(const struct thread *thread)
{
    return thread->over;
}

void thread_end(struct thread *thread)
{
    if (!thread)
        return;
    pthread_join(thread->id, NULL);
    thread_free(thread);
}

void thread_leave(struct thread *thread)
{
    if (!thread)
        return;
    pthread_detach(thread->id);
    thread->source =
        sd_event_source_disable_unref(thread->source); /* the rest is the thread's, until the end */
}

int thread_run(struct ctl *ctl, void (*run)(void *argument), void *argument, struct trouble *trouble)
{
    struct thread *thread;

    if (thread_begin(ctl, run, argument, &thread, trouble) < 0)
        return -1;
    while (!thread_is_over(thread))
        if (ctl_turn(ctl, UINT64_MAX, NULL) < 0)
            break;
    thread_end(thread);
    return 0;
}
