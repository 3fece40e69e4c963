# SPDX-License-Identifier: LGPL-2.1-or-later
"""A broker that dies at each thing that it tells the FD store, one after the other: none is left out."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
from vmlib.broker import build_dir
from vmlib.lives import Life, Own
from vmlib.managed import ManagedBroker
from vmlib.restarts import brokers, close

POINTS_MIN = 6  # of a migration: its record and its helper come and go, and the record changes meanwhile


class CrashingBroker(ManagedBroker):
    """Dies at this number of what it tells the store; 0: does not."""

    point = 0
    after = False

    def environment(self) -> dict[str, str]:
        if self.point == 0:
            return super().environment()
        return {**super().environment(), "LD_PRELOAD": str(build_dir() / "tests/faults/libcrash-point.so"),
                "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1:verify_asan_link_order=0",
                "VMFERRY_CRASH_AT": str(self.point), **({"VMFERRY_CRASH_AFTER": "1"} if self.after else {})}

    def start_to_die(self, point: int, after: bool) -> None:
        """It may die before it is ready."""
        self.kill()
        self.point, self.after = point, after
        try:
            self.start()
        except AssertionError:
            assert self.process.poll() is not None
        finally:
            self.point = 0


def dies_at(pair: Own, broker: CrashingBroker, point: int, after: bool) -> bool:
    """A migration under a broker that dies there, and is started again; false where it has come to its end before."""
    died = False
    broker.start_to_die(point, after)
    with ThreadPoolExecutor(1) as pool:
        life = pool.submit(Life(pair, point, 64 << 10))
        while not life.done():
            if broker.process.poll() is not None:
                broker.crash()
                died = True
            time.sleep(0.005)
        life.result()
    return died or broker.process.poll() is not None


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("side", [0, 1], ids=["source", "destination"])
def test_each_crash_point(workdir: Path, side: int, after: bool) -> None:
    """No migration is lost, nothing is left of any."""
    pair = Own(workdir, broker=CrashingBroker)
    try:
        broker = brokers(pair)[side]
        assert isinstance(broker, CrashingBroker)
        points = next(point for point in count(1) if not dies_at(pair, broker, point, after)) - 1
        broker.crash()  # one that does not die at what it tells last
        print(f"{points} crash points")
        assert points >= POINTS_MIN
    except BaseException:
        close(pair, True)
        raise
    close(pair, False)
