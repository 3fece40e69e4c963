# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tells when all that was said has been heard, so that a test can see that nothing happens without waiting for long."""

from __future__ import annotations

import re
import time
from pathlib import Path

from .broker import Broker


def look(pids: list[int]) -> list[tuple[str, ...]] | None:
    """How often each thread of these processes has slept and been interrupted; None unless all of them sleep."""
    found = []
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            status = (task / "status").read_text()
            if not re.search(r"^State:\s+S", status, re.M):
                return None
            found.append((task.name, *re.findall(r"ctxt_switches:\s+(\d+)", status)))
    return found


def all_heard(*brokers: Broker, timeout: float = 20) -> None:
    """Waits until these brokers, their helpers and their buses sleep, all at the same moment.

    Each has then read all that the others had sent, and from here on only a timer or somebody else makes them act. That
    they slept at the same moment is known from two looks at each between which it did not run: each slept from the one
    to the other, and so did all when the first look at all was over. Only for what tests send from other threads and is
    not sent yet this says nothing.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            for broker in brokers:
                broker.get("Version")
            pids = [pid for broker in brokers for pid in (broker.bus.process.pid, broker.pid, *broker.helpers())]
            first = look(pids)
            if first is not None and first == look(pids):
                return
        except (FileNotFoundError, ProcessLookupError):
            pass  # a helper that ended meanwhile
        assert time.monotonic() < end, "they do not get quiet"
        time.sleep(0.005)
