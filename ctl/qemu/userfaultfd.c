/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/qemu/userfaultfd.h"

#include <stdio.h>
#include <sys/stat.h>

bool userfaultfd_is_for_all(bool device)
{
    FILE *file = fopen("/proc/sys/vm/unprivileged_userfaultfd", "re");
    int c = file ? fgetc(file) : EOF;
    struct stat st;

    if (file)
        fclose(file);
    /* The device is since Linux 6.1. */
    return c == '1' || (device && stat("/dev/userfaultfd", &st) >= 0 && (st.st_mode & 0006) == 0006);
}
