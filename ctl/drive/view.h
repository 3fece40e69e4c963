/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the user sees while QEMU migrates. */

#include "ctl/drive/internal.h"

/* Shows how far it is. record: of the source's tunnel; an empty object if its broker does not answer. */
void view_show(struct drive *drive, json_object *record);

/* From now on this QEMU has all the time it needs, and the progress says that it takes that. */
void view_be_patient(struct drive *drive, struct qmp *qmp);

/* Ends that, for both. */
void view_let_go(struct drive *drive);

/*
 * While host is connected to again: shows for how long that is so already, and why the last try failed (NULL:
 * none has), whatever turns the loop meanwhile. Until view_back().
 */
void view_away(struct drive *drive, const char *host, const char *why);
void view_back(struct drive *drive);
