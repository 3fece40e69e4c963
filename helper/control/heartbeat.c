/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/control/heartbeat.h"

#include "common/clock.h"
#include "helper/control/internal.h"
#include "helper/control/outbox.h"
#include "helper/limits.h"

bool heartbeat_is_silent(struct control *control, unsigned max)
{
    return control->carrier && ++control->silence > max;
}

void heartbeat_ping(struct control *control, bool always, uint64_t now)
{
    struct frame ping = {.type = FRAME_PING};
    bool due = always || control->silence > 1 || control->measured == 0 || now - control->measured >= TRIP;

    if (!due || control->pinged != 0 || *control->halted)
        return;
    ping.cookie = control->pinged = exact_now();
    control_send(control, &ping);
}

void heartbeat_on_ping(struct control *control, uint64_t cookie)
{
    struct frame pong = {.type = FRAME_PONG, .cookie = cookie};

    control_send(control, &pong);
}

uint64_t heartbeat_on_pong(struct control *control, uint64_t cookie)
{
    uint64_t now = exact_now(); /* the turn of the loop may have begun before the answer came */
    uint64_t trip = now - control->pinged;

    if (control->pinged == 0 || cookie != control->pinged)
        return 0;
    control->measured = turn_now(control->event);
    control->pinged = 0;
    return trip > 0 ? trip : 1;
}
