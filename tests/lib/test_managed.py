# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which processes a ManagedBroker takes for its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from vmlib.managed import ManagedBroker


def test_sessions_of_the_dead(workdir: Path) -> None:
    """A broker has died, and so has all that it had started: who is given its number then is not ended for it."""
    with ManagedBroker(workdir, "d") as broker:
        first = broker.pid
        broker.crash()
        with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
            broker._sessions.add(other.pid)  # as if its number had been that of the first
            assert broker.stand_ins() == [other.pid]
            other.kill()
            other.wait()
            broker.crash()
            assert not {first, other.pid} & broker._sessions
