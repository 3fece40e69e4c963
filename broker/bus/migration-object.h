/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The object of each migration: its methods and its properties. */

struct bus;

/* Puts it on the bus. 0 or a negative errno. */
int migration_object_export(struct bus *bus);
