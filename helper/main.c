/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "helper.h"
#include "version.h"

enum { SOCKET_FD = 3 }; /* SD_LISTEN_FDS_START: where systemd, too, puts an accepted connection */

int main(int argc, char **argv)
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
                "Usage: vmferry-helper\n\n"
                "Carries the bytes of one migration, or accepts connections as the gate, in a sandbox.\n"
                "vmferryd starts it with its socket as descriptor 3; it is of no use by hand.\n\n"
                "  -h, --help      show this text\n"
                "  -V, --version   show the version\n");
            return EXIT_SUCCESS;
        case 'V':
            puts(VMFERRY_VERSION);
            return EXIT_SUCCESS;
        default:
            return EXIT_FAILURE;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "vmferry-helper takes no argument ('%s').\n", argv[optind]);
        return EXIT_FAILURE;
    }
    return helper_run(SOCKET_FD, NULL);
}
