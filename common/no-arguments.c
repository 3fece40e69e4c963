/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "no-arguments.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

int no_arguments(int argc, char **argv, const char *name, const char *about, const char *version)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "hV", options, NULL)) >= 0) {
        switch (c) {
        case 'h':
            printf(
                "Usage: %s\n\n%s\n"
                "  -h, --help      show this text\n"
                "  -V, --version   show the version\n",
                name, about);
            return EXIT_SUCCESS;
        case 'V':
            puts(version);
            return EXIT_SUCCESS;
        default:
            return EXIT_FAILURE;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "%s takes no argument ('%s').\n", name, argv[optind]);
        return EXIT_FAILURE;
    }
    return -1;
}
