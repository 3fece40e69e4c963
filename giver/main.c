/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "giver.h"
#include "version.h"

enum { SOCKET_FD = 3 }; /* SD_LISTEN_FDS_START: where systemd puts an accepted connection */

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {0},
    };
    int c, r;

    while ((c = getopt_long(argc, argv, "hV", options, NULL)) >= 0) {
        switch (c) {
        case 'h':
            printf(
                "Usage: vmferry-giver\n\n"
                "Gives sockets and directories that vmferryd has made to the users whose QEMU they are for.\n"
                "systemd starts it with a connection of vmferryd's as descriptor 3; it is of no use by "
                "hand.\n\n"
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
        fprintf(stderr, "vmferry-giver takes no argument ('%s').\n", argv[optind]);
        return EXIT_FAILURE;
    }
    r = giver_serve(SOCKET_FD);
    if (r < 0)
        fprintf(stderr, "vmferry-giver: what came on descriptor 3 is no request of vmferryd's: %s.\n",
                strerror(-r));
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
