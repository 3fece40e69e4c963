/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The broker's object: PrepareIncoming, StartOutgoing, the list of migrations. */

struct bus;

/* Puts it on the bus. 0 or a negative errno. */
int broker_object_export(struct bus *bus);
