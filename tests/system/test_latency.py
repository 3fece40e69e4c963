# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long it takes from StartOutgoing to the first byte at the destination. Prints its figures.

The source has one helper waiting, its spare. The destination is ready when systemd has started what PrepareIncoming
needs: the migration's helper and, for the first one, the gate. A StartOutgoing that comes sooner waits for that.

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


def settle(hosts: TwoHosts, *counts: int) -> None:
    """Each host has so many helpers, and they have had the time to get ready, which nobody else is told."""
    for host, count in zip(hosts, counts):
        wait_until(lambda: len(host.helpers()) == count, f"{count} helpers on {host.name}: {host.helpers()}")
    time.sleep(0.3)


def first_bytes(hosts: TwoHosts, at_once: int, ready: bool) -> list[float]:
    """The seconds that each of so many migrations took; ready: the destination has all its helpers."""
    settle(hosts, 1, 1)
    with ExitStack() as stack, ThreadPoolExecutor(at_once) as pool:
        incoming: list[HostMigration] = [hosts.b.broker.prepare(f"vm{i}") for i in range(at_once)]
        listeners = [stack.enter_context(FakeQemu.listen(migration.socket())) for migration in incoming]
        arrivals = [pool.submit(received, listener) for listener in listeners]
        if ready:
            settle(hosts, 1, at_once + 2)  # the gate's and the spare
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


@pytest.mark.parametrize("ready", [True, False], ids=["ready", "immediately"])
@pytest.mark.parametrize("at_once", ROUNDS)
@pytest.mark.load_sensitive(reason="a first byte arrives within a second")
def test_first_byte(hosts: TwoHosts, at_once: int, ready: bool, capsys: pytest.CaptureFixture[str]) -> None:
    for host in hosts:
        host.broker.get("Version")
    times = sorted(value for _ in range(ROUNDS[at_once]) for value in first_bytes(hosts, at_once, ready))
    median, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    with capsys.disabled():
        after = "once the destination is ready" if ready else "at once after PrepareIncoming"
        print(f"\nfirst byte, {at_once} {after}: median {median * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms of {len(times)}")
    assert median < LIMIT[at_once]
