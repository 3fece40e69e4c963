/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Runs a fuzzer as an ordinary test, without libFuzzer: over the files of a corpus, and then over so many
 * mutations of them, the same in every run.
 *
 *     fuzz-NAME MUTATIONS DIRECTORY
 */

#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>

enum { INPUT_MAX = 8192, CORPUS_MAX = 256 };

struct input {
    uint8_t data[INPUT_MAX];
    size_t size;
};

static struct input *corpus[CORPUS_MAX];
static size_t n_corpus;

static uint32_t next_random(void)
{
    static uint64_t x = 0x9e3779b97f4a7c15;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    return (uint32_t)((x * 0x2545f4914f6cdd1d) >> 32);
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

int main(int argc, char **argv)
{
    static struct input input;
    long mutations = argc == 3 ? strtol(argv[1], NULL, 10) : -1;

    if (mutations < 0 || load(argv[2]) < 0 || n_corpus == 0) {
        fprintf(stderr, "Usage: %s MUTATIONS DIRECTORY\n", argv[0]);
        return EXIT_FAILURE;
    }
    for (size_t i = 0; i < n_corpus; i++)
        LLVMFuzzerTestOneInput(corpus[i]->data, corpus[i]->size);
    LLVMFuzzerTestOneInput(NULL, 0);
    for (long i = 0; i < mutations; i++) {
        input = *corpus[next_random() % n_corpus];
        for (uint32_t n = 1 + next_random() % 5; n > 0; n--)
            mutate(&input);
        LLVMFuzzerTestOneInput(input.data, input.size);
    }
    while (n_corpus > 0)
        free(corpus[--n_corpus]);
    return EXIT_SUCCESS;
}
