/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Distance between two hosts, where the kernel has no netem: carries packets between two TUN devices, each of
 * them USEC later than it came, whatever the rate. Nothing is lost or comes out of order; TCP sees a link of
 * that delay, as wide as this machine can copy.
 *
 * Usage: distance USEC FD FD
 */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum {
    PACKET = 65536,
    SLOTS =
        8192, /* 512 MiB of packets under way, taken as they are needed; then the sender's device is full */
};

struct direction {
    int from, to;
    uint64_t delay; /* ns */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t first, n;
    struct {
        void *data;
        size_t size;
        uint64_t due;
    } slots[SLOTS];
};

static uint64_t now_nsec(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void *take_in(void *userdata)
{
    struct direction *d = userdata;
    char *buffer = malloc(PACKET);
    ssize_t n;

    while (buffer && ((n = read(d->from, buffer, PACKET)) > 0 || errno == EINTR)) {
        void *data = n > 0 ? malloc((size_t)n) : NULL;
        size_t slot;

        if (!data)
            continue; /* a packet that is lost */
        memcpy(data, buffer, (size_t)n);
        pthread_mutex_lock(&d->lock);
        while (d->n == SLOTS)
            pthread_cond_wait(&d->changed, &d->lock);
        slot = (d->first + d->n++) % SLOTS;
        d->slots[slot].data = data;
        d->slots[slot].size = (size_t)n;
        d->slots[slot].due = now_nsec() + d->delay;
        pthread_cond_broadcast(&d->changed);
        pthread_mutex_unlock(&d->lock);
    }
    exit(EXIT_FAILURE);
}

static void *hand_out(void *userdata)
{
    struct direction *d = userdata;

    prctl(PR_SET_TIMERSLACK, 1);
    for (;;) {
        struct timespec due;
        uint64_t at;

        pthread_mutex_lock(&d->lock);
        while (d->n == 0)
            pthread_cond_wait(&d->changed, &d->lock);
        at = d->slots[d->first].due;
        pthread_mutex_unlock(&d->lock);
        due = (struct timespec){.tv_sec = (time_t)(at / 1000000000), .tv_nsec = (long)(at % 1000000000)};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR)
            ;
        if (write(d->to, d->slots[d->first].data, d->slots[d->first].size) < 0 && errno != ENOBUFS)
            exit(EXIT_FAILURE);
        free(d->slots[d->first].data);
        pthread_mutex_lock(&d->lock);
        d->first = (d->first + 1) % SLOTS;
        d->n--;
        pthread_cond_broadcast(&d->changed);
        pthread_mutex_unlock(&d->lock);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static struct direction directions[2];
    pthread_t thread;

    if (argc != 4) {
        fprintf(stderr, "Usage: distance USEC FD FD\n");
        return EXIT_FAILURE;
    }
    for (int i = 0; i < 2; i++) {
        struct direction *d = &directions[i];

        d->from = atoi(argv[2 + i]);
        d->to = atoi(argv[3 - i]);
        d->delay = strtoull(argv[1], NULL, 10) * 1000;
        pthread_mutex_init(&d->lock, NULL);
        pthread_cond_init(&d->changed, NULL);
        if (pthread_create(&thread, NULL, take_in, d) != 0 || pthread_create(&thread, NULL, hand_out, d) != 0)
            return EXIT_FAILURE;
    }
    pause();
    return EXIT_FAILURE;
}
