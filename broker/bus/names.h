/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The names and paths of the broker on the bus. */

#include "broker/migration/registry.h"

#define BUS_NAME            "org.vmferry.Broker1"
#define BROKER_PATH         "/org/vmferry/Broker1"
#define BROKER_INTERFACE    "org.vmferry.Broker1"
#define MIGRATION_INTERFACE "org.vmferry.Migration1"

#define OBJECT_PATH_MAX 64

/* The path of a migration's object: BROKER_PATH/ROLE/ID, or …/ID_NUMBER. */
void object_path(const struct identity *identity, char ret[static OBJECT_PATH_MAX]);

/* The migration whose path this is; NULL when there is none. */
struct entry *object_find(const struct registry *registry, const char *path);
