/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The whole program: reads its arguments, runs the verb, prints what went wrong. Returns its exit status. */
int ctl_run(int argc, char **argv);
