/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/no-arguments.h"
#include "helper/carrier/aead.h"
#include "helper/helper.h"
#include "version.h"

enum { SOCKET_FD = 3 }; /* SD_LISTEN_FDS_START: where systemd, too, puts an accepted connection */

/* For "vmferryctl check": the cipher that this CPU does faster, the library that does it, and its MB/s. */
static int print_cipher(void)
{
    struct aead_choice choice;

    aead_choose(&choice);
    printf("%s %s %u\n", aead_cipher_name(choice.preferred), choice.fastest[choice.preferred]->name,
           choice.rate[choice.preferred]);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    int r;

    if (argc == 2 && strcmp(argv[1], "--cipher") == 0)
        return print_cipher();
    r = no_arguments(argc, argv, "vmferry-helper",
                     "Carries the bytes of one migration, or accepts connections as the gate, in a sandbox.\n"
                     "vmferryd starts it with its socket as descriptor 3; it is of no use by hand.\n\n"
                     "      --cipher    show the preferred cipher, the library that does it, and its MB/s\n",
                     VMFERRY_VERSION);
    return r >= 0 ? r : helper_run(SOCKET_FD, NULL);
}
