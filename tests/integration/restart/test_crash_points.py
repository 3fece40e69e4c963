# SPDX-License-Identifier: LGPL-2.1-or-later
"""A broker that dies at each thing that it tells the FD store, one after the other: none is left out."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
from vmlib.broker import BusError, Migration, build_dir, settled, wait_until
from vmlib.lives import Life, Own
from vmlib.managed import ManagedBroker
from vmlib.restarts import brokers, close

POINTS_MIN = 4  # of a migration: its record and its helper come and go


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


class Lives:
    """Migrations under a broker that dies, and is started again."""

    def __init__(self, pair: Own, broker: CrashingBroker) -> None:
        self.pair, self.broker, self.died = pair, broker, False

    def has_died(self) -> bool:
        """Starts it again where it has."""
        if self.broker.process.poll() is None:
            return False
        self.broker.crash()
        self.died = True
        return True

    def forget(self) -> None:
        """All that there is at both sides."""
        for broker in brokers(self.pair):
            while True:
                try:
                    for _, _, _, _, _, path in broker.list():
                        Migration(broker, path).call("Forget")
                    break
                except (BusError, OSError, EOFError):
                    wait_until(self.has_died, f"{broker.name} has died: what else?")

    def run(self, point: int, after: bool) -> bool:
        """From the first call until nothing is left of it; whether it died there."""
        self.died = False
        self.broker.start_to_die(point, after)
        with ThreadPoolExecutor(1) as pool:
            life = pool.submit(Life(self.pair, point, 64 << 10))
            while not life.done():
                self.has_died()
                time.sleep(0.005)
            life.result()
        self.forget()
        settled(lambda: (self.has_died(), self.broker.store.names()), 0.2)
        return self.died


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("side", [0, 1], ids=["source", "destination"])
def test_each_crash_point(workdir: Path, request: pytest.FixtureRequest, side: int, after: bool) -> None:
    """No migration is lost, nothing is left of any."""
    pair = Own(workdir, broker=CrashingBroker)
    try:
        broker = brokers(pair)[side]
        assert isinstance(broker, CrashingBroker)
        lives = Lives(pair, broker)
        died = [True]
        for point in count(1):
            died.append(lives.run(point, after))
            if not any(died[-2:]):  # how many there are depends on what happens first
                break
        points = sum(died) - 1
        broker.crash()  # one that does not die at what it tells last
        request.node.user_properties.append(("figure", f"{points} crash points"))  # tools/test shows it
        assert points >= POINTS_MIN
    except BaseException:
        close(pair, True)
        raise
    close(pair, False)
