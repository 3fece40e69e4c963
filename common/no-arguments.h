/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The command line of a program that vmferryd or systemd starts, and nobody by hand: --help, --version, and
 * nothing else. about: what it is for, in whole lines. Returns the exit status, or −1 to go on.
 */
int no_arguments(int argc, char **argv, const char *name, const char *about, const char *version);
