# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long it takes from StartOutgoing to the first byte at the destination. Prints its figures.

VMFERRY_LONG=1 makes it more samples.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from vmlib.broker import wait_until
from vmlib.fake_qemu import FakeListener, FakeQemu
from vmlib.hosts import cancel_and_wait
from vmlib.nspawn import HostMigration, TwoHosts

ROUNDS = {1: 40, 20: 4} if os.environ.get("VMFERRY_LONG") else {1: 8, 20: 1}  # of so many at once
LIMIT = {1: 1.0, 20: 10.0}  # seconds; far above what is measured, for a machine that has other things to do


def received(listener: FakeListener) -> float:
    with listener.accept() as peer:
        peer.recv_exact(1)
        return time.monotonic()


def first_bytes(hosts: TwoHosts, at_once: int) -> list[float]:
    """The seconds that each of so many migrations took."""
    wait_until(lambda: len(hosts.a.helpers()) == 1, "the spare is there")
    time.sleep(0.3)  # and has had the time to get ready, which nobody else is told
    with ExitStack() as stack, ThreadPoolExecutor(at_once) as pool:
        incoming: list[HostMigration] = [hosts.b.broker.prepare(f"vm{i}") for i in range(at_once)]
        listeners = [stack.enter_context(FakeQemu.listen(migration.socket())) for migration in incoming]
        arrivals = [pool.submit(received, listener) for listener in listeners]
        outgoing, begun = [], []
        for i, migration in enumerate(incoming):
            begun.append(time.monotonic())
            outgoing.append(hosts.a.broker.outgoing(migration.ticket or "", f"vm{i}"))
            path = hosts.a.outside(f"/run/vmferry/outgoing/{migration.id}/migrate.sock")
            stack.enter_context(FakeQemu.connect(path)).send(b"x")
        times = [arrival.result(30) - since for arrival, since in zip(arrivals, begun)]
        for pair in zip(outgoing, incoming):
            for end in pair:
                cancel_and_wait(end)
                end.call("Forget")
        return times


@pytest.mark.parametrize("at_once", ROUNDS)
def test_first_byte(hosts: TwoHosts, at_once: int, capsys: pytest.CaptureFixture[str]) -> None:
    for host in hosts:
        host.broker.get("Version")
    times = sorted(value for _ in range(ROUNDS[at_once]) for value in first_bytes(hosts, at_once))
    median, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    with capsys.disabled():
        print(f"\nfirst byte, {at_once} at once: median {median * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms of {len(times)}")
    assert median < LIMIT[at_once]
