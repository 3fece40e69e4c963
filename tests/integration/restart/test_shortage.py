# SPDX-License-Identifier: LGPL-2.1-or-later
"""A broker of whose allocations, or system calls, one fails in a whole migration: the next one in the next migration.

Each ends clearly: it is carried, or a call or the migration says what was wrong, or the broker ends and is started again.
$VMFERRY_LONG tries each of them, or one of $VMFERRY_STEP, from $VMFERRY_FIRST to $VMFERRY_LAST, so that it can be done in
parts beside each other; else some of the allocations, once it is ready. The build must be without sanitizers, which
allocate themselves: so it is of the part qemu.
"""

from __future__ import annotations

import os
import re
import struct
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from vmlib.broker import BusError, Migration, build_dir, wait_until
from vmlib.lives import Life, Own
from vmlib.managed import ManagedBroker
from vmlib.restarts import brokers, close

LONG = bool(os.environ.get("VMFERRY_LONG"))
FIRST, LAST = (int(os.environ.get(f"VMFERRY_{name}", "0")) for name in ("FIRST", "LAST"))
STEP = int(os.environ.get("VMFERRY_STEP", "1" if LONG else "41"))
PATIENCE = 20 if LONG else 120
LIBRARIES = {"allocations": "libfail-allocation.so", "calls": "libfail-call.so"}  # tests/faults

pytestmark = [pytest.mark.qemu,
              pytest.mark.skipif("asan" in build_dir().name, reason="needs a build without sanitizers")]


class StarvedBroker(ManagedBroker):
    what = "allocations"
    fail_at = 0
    ended = 0  # how often it has, by itself
    good_ends = (0, -9, 1)

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "LD_PRELOAD": str(build_dir() / "tests/faults" / LIBRARIES[self.what]),
                "VMFERRY_FAIL_AT": str(self.fail_at), "VMFERRY_FAIL_COUNT": str(self.workdir / f"count-{self.name}")}

    def counts(self) -> tuple[int, int]:
        """What it has asked for since it was started, and how much of it has failed."""
        asked, failed = struct.unpack("<QQ", (self.workdir / f"count-{self.name}").read_bytes())
        return asked, failed

    def again(self, fail_at: int) -> None:
        """Started anew; it may end before it is ready, as it should where it cannot do without."""
        self.kill()
        self.fail_at = fail_at
        try:
            self.start()
        except AssertionError:
            self.fail_at = 0
            assert self.has_ended()
        self.fail_at = 0

    def has_ended(self) -> bool:
        """By itself, never by a signal: then it is started again."""
        status = self.process.poll()
        if status is None:
            return False
        assert status >= 0, f"{self.name} died by signal {-status}: {self.log()[-2000:]}"
        self.ended += 1
        self.crash()
        return True


def forget(pair: Own, broker: StarvedBroker) -> None:
    for one in brokers(pair):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                for _, _, _, state, _, path in one.list():
                    if state != "finished":
                        Migration(one, path).cancel()
                    else:
                        Migration(one, path).call("Forget")
                if not one.list():
                    break
            except (BusError, OSError, EOFError):
                broker.has_ended()
            time.sleep(0.01)


def errors(pair: Own, broker: StarvedBroker, number: int) -> list[str]:
    """What the migrations say that have ended not well; or QEMU was told, whose connection was closed, and the log says why."""
    broker.has_ended()
    if re.search(rf"\(vm{number}\): A connection to \S+ (by uid \d+ )?was closed:", broker.log()):
        return ["QEMU's connection closed"]
    rows = [(one, row[5]) for one in brokers(pair) for row in one.list() if row[3] == "finished"]
    return [name for name in (Migration(one, path).get("ErrorName") for one, path in rows) if name]


def try_one(pair: Own, broker: StarvedBroker, number: int) -> str:
    """How the migration ended: "carried", or the error of a call, or of the migration."""
    broker.again(number)
    with ThreadPoolExecutor(1) as pool:
        life = pool.submit(Life(pair, number, 16 << 10, PATIENCE))
        while not life.done():
            broker.has_ended()
            time.sleep(0.005)
        error = life.exception()
    how = "carried" if error is None else ""
    if isinstance(error, BusError):
        how = error.name
        assert how.startswith("org.vmferry.Error."), f"number {number}: {error!r}"  # others were called again: lives.py
    elif error:
        how = wait_until(lambda: errors(pair, broker, number), f"number {number}: {error!r}, and a migration that says so", 30)[0]
    forget(pair, broker)
    return how.rpartition(".")[2]


@pytest.mark.parametrize("what", LIBRARIES if LONG else ["allocations"])
@pytest.mark.parametrize("side", [0, 1], ids=["source", "destination"])
def test_each(workdir: Path, side: int, what: str) -> None:
    pair = Own(workdir, broker=StarvedBroker)
    try:
        broker = brokers(pair)[side]
        assert isinstance(broker, StarvedBroker)
        broker.what = what
        broker.again(0)
        begun, _ = broker.counts()
        assert try_one(pair, broker, 0) == "carried"
        (until, _), failed, ends = broker.counts(), 0, Counter[str]()
        numbers = range(FIRST or (1 if LONG else begun), min(LAST + 1, until) if LAST else until, STEP)
        for number in numbers:
            before = broker.ended
            how = try_one(pair, broker, number)
            if how != "carried":
                print(f"number {number}: {how}")
            ends[how] += 1
            failed += broker.counts()[1] or broker.ended > before
        print(f"{failed} of {until} {what} failed, of the numbers {numbers}, {begun} of them before it was ready: {dict(ends)}; "
              f"{broker.ended} times the broker ended and was started again")
        assert failed > 0
        broker.again(0)
        wait_until(lambda: not broker.list(), "nothing is left", 10)
        for one in brokers(pair):
            pair.note_baseline(one)
    except BaseException:
        close(pair, True)
        raise
    close(pair, False)
