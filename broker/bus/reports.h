/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What an owner reports, as it stands on the bus: the dictionaries of ReportProgress and Report, and Details.
 */

#include <systemd/sd-bus.h>

#include "broker/migration/report.h"

/* Both read what is next in m: ≥ 0, or negative with error set. */
int reports_read_progress(sd_bus_message *m, struct progress *ret, sd_bus_error *error);
int reports_read_outcome(sd_bus_message *m, struct outcome *ret, sd_bus_error *error);

/* Appends an a{sv} of what is known. */
int reports_append_details(sd_bus_message *m, const struct report *report);
