/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "common/no-arguments.h"
#include "helper/helper.h"
#include "version.h"

enum { SOCKET_FD = 3 }; /* SD_LISTEN_FDS_START: where systemd, too, puts an accepted connection */

int main(int argc, char **argv)
{
    int r =
        no_arguments(argc, argv, "vmferry-helper",
                     "Carries the bytes of one migration, or accepts connections as the gate, in a sandbox.\n"
                     "vmferryd starts it with its socket as descriptor 3; it is of no use by hand.\n",
                     VMFERRY_VERSION);

    return r >= 0 ? r : helper_run(SOCKET_FD, NULL);
}
