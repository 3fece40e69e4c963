# SPDX-License-Identifier: LGPL-2.1-or-later
"""Is a bandwidth limit held? Never more than it, and all of it as soon as the machine lets the helpers run."""

from __future__ import annotations

from collections.abc import Callable

WINDOWS = 8  # measurements until a limit that is not reached is taken for one that is too low


def assert_held(measure: Callable[[], float], limit: float) -> None:
    """`measure` says the bytes/s of a second or so. To 5 %."""
    seen: list[float] = []
    for _ in range(WINDOWS):
        seen.append(measure())
        assert seen[-1] <= limit * 1.05, f"{seen} with a limit of {limit}"
        if seen[-1] >= limit * 0.95:
            return
    raise AssertionError(f"{seen} with a limit of {limit}")
