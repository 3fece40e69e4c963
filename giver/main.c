/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/no-arguments.h"
#include "giver.h"
#include "version.h"

enum { SOCKET_FD = 3 }; /* SD_LISTEN_FDS_START: where systemd puts an accepted connection */

int main(int argc, char **argv)
{
    int r = no_arguments(
        argc, argv, "vmferry-giver",
        "Gives sockets and directories that vmferryd has made to the users whose QEMU they are for.\n"
        "systemd starts it with a connection of vmferryd's as descriptor 3; it is of no use by hand.\n",
        VMFERRY_VERSION);

    if (r >= 0)
        return r;
    r = giver_serve(SOCKET_FD);
    if (r < 0)
        fprintf(stderr, "vmferry-giver: what came on descriptor 3 is no request of vmferryd's: %s.\n",
                strerror(-r));
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
