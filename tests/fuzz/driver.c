/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Runs a fuzzer as an ordinary test, without libFuzzer: over the files of a corpus, and then over so many
 * mutations of them, the same in every run; or over those that a seed makes, for so many seconds.
 *
 *     fuzz-NAME MUTATIONS DIRECTORY
 *     fuzz-NAME SECONDSs DIRECTORY SEED
 *
 * An input that crashes it is told in hexadecimal: xxd -r -p makes a file of that.
 */

#include "fuzz.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { INPUT_MAX = 8192, CORPUS_MAX = 256 };

struct input {
    uint8_t data[INPUT_MAX];
    size_t size;
};

static struct input *corpus[CORPUS_MAX];
static size_t n_corpus;

static uint64_t state = 0x9e3779b97f4a7c15;
static const struct input *running;

static uint32_t next_random(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 0x2545f4914f6cdd1d) >> 32);
}

/* Only what may be called in a signal's handler. */
static void on_abort(int signal)
{
    static const char digits[] = "0123456789abcdef", head[] = "The input: ";
    char text[2 * INPUT_MAX + 1];
    size_t n = 0;

    for (size_t i = 0; i < running->size; i++) {
        text[n++] = digits[running->data[i] >> 4];
        text[n++] = digits[running->data[i] & 15];
    }
    text[n++] = '\n';
    if (write(STDERR_FILENO, head, sizeof(head) - 1) < 0 || write(STDERR_FILENO, text, n) < 0)
        _exit(EXIT_FAILURE);
}

static void run(const struct input *input)
{
    running = input;
    LLVMFuzzerTestOneInput(input->data, input->size);
}

static int load(const char *directory)
{
    struct dirent **names;
    int n = scandir(directory, &names, NULL, alphasort);

    if (n < 0)
        return -1;
    for (int i = 0; i < n; i++) {
        struct input *input =
            names[i]->d_name[0] != '.' && n_corpus < CORPUS_MAX ? calloc(1, sizeof(*input)) : NULL;
        char path[4096];
        FILE *file;

        snprintf(path, sizeof(path), "%s/%s", directory, names[i]->d_name);
        free(names[i]);
        if (!input)
            continue;
        file = fopen(path, "re");
        if (!file)
            return -1;
        input->size = fread(input->data, 1, INPUT_MAX, file);
        fclose(file);
        corpus[n_corpus++] = input;
    }
    free(names);
    return 0;
}

/* One change: a bit, a byte, a number at a bound, a piece removed, doubled, or put in from another input. */
static void mutate(struct input *input)
{
    static const uint8_t bounds[] = {0, 1, 0x7f, 0x80, 0xfe, 0xff, '\n', ':', '%', '['};
    size_t at = input->size > 0 ? next_random() % input->size : 0, n;
    const struct input *other;

    switch (input->size > 0 ? next_random() % 6 : 5) {
    case 0:
        input->data[at] ^= (uint8_t)(1U << next_random() % 8);
        break;
    case 1:
        input->data[at] = (uint8_t)next_random();
        break;
    case 2:
        input->data[at] = bounds[next_random() % sizeof(bounds)];
        break;
    case 3: /* remove */
        n = 1 + next_random() % (input->size - at);
        memmove(input->data + at, input->data + at + n, input->size - at - n);
        input->size -= n;
        break;
    case 4: /* double */
        n = 1 + next_random() % (input->size - at);
        if (input->size + n > INPUT_MAX)
            break;
        memmove(input->data + at + n, input->data + at, input->size - at);
        input->size += n;
        break;
    default: /* from another */
        other = corpus[next_random() % n_corpus];
        if (other->size == 0)
            break;
        n = 1 + next_random() % other->size;
        if (at + n > INPUT_MAX)
            break;
        memcpy(input->data + at, other->data + other->size - n, n);
        if (at + n > input->size)
            input->size = at + n;
    }
}

static void run_mutation(void)
{
    static struct input input;

    input = *corpus[next_random() % n_corpus];
    for (uint32_t n = 1 + next_random() % 5; n > 0; n--)
        mutate(&input);
    run(&input);
}

int main(int argc, char **argv)
{
    static const struct input nothing;
    char *unit = NULL;
    long amount = argc == 3 || argc == 4 ? strtol(argv[1], &unit, 10) : -1, n = 0;
    time_t end = time(NULL) + amount;

    if (amount < 0 || load(argv[2]) < 0 || n_corpus == 0) {
        fprintf(stderr, "Usage: %s MUTATIONS DIRECTORY\n       %s SECONDSs DIRECTORY SEED\n", argv[0],
                argv[0]);
        return EXIT_FAILURE;
    }
    if (argc == 4)
        state += strtoull(argv[3], NULL, 10);
    signal(SIGABRT, on_abort);
    for (size_t i = 0; i < n_corpus; i++)
        run(corpus[i]);
    run(&nothing);
    for (; *unit == 's' ? time(NULL) < end : n < amount; n++)
        run_mutation();
    printf("%ld mutations of %zu inputs\n", n, n_corpus);
    while (n_corpus > 0)
        free(corpus[--n_corpus]);
    return EXIT_SUCCESS;
}
