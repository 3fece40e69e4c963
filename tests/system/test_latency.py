# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long it takes from StartOutgoing to the first byte at the destination. Prints its figures.

The destination is ready when systemd has started what PrepareIncoming needs: the migration's helper and, for the first
one, the gate. A StartOutgoing that comes sooner waits for that. Each host has as many helpers waiting as were needed at
once before: one in the first round, in which those of many at once are started while they wait, and all in the others.

VMFERRY_LONG=1 makes it more samples.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from vmlib.broker import settled
from vmlib.fake_qemu import FakeListener, FakeQemu
from vmlib.hosts import cancel_and_wait
from vmlib.nspawn import HostMigration, TwoHosts

ROUNDS = {1: 40, 20: 5} if os.environ.get("VMFERRY_LONG") else {1: 3, 20: 2}  # of so many at once
CONF, SPARES = "/etc/vmferry/vmferryd.conf.d/test.conf", "[Broker]\nMaxSpareHelpers=24\n"
LIMIT = {1: 1.0, 20: 10.0}  # seconds; far above what is measured, for a machine that has other things to do


def received(listener: FakeListener) -> float:
    with listener.accept() as peer:
        peer.recv_exact(1)
        return time.monotonic()


def settle(hosts: TwoHosts) -> None:
    """No host starts or ends helpers any more, and those that there are have had the time to get ready."""
    settled(lambda: [host.helpers() for host in hosts], 1)


def first_bytes(hosts: TwoHosts, at_once: int, ready: bool) -> list[float]:
    """The seconds that each of so many migrations took; ready: the destination has all its helpers."""
    settle(hosts)
    with ExitStack() as stack, ThreadPoolExecutor(at_once) as pool:
        incoming: list[HostMigration] = [hosts.b.broker.prepare(f"vm{i}") for i in range(at_once)]
        listeners = [stack.enter_context(FakeQemu.listen(migration.socket())) for migration in incoming]
        arrivals = [pool.submit(received, listener) for listener in listeners]
        if ready:
            settle(hosts)
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
    with hosts.a.configured(CONF, SPARES), hosts.b.configured(CONF, SPARES):
        for host in hosts:
            host.broker.get("Version")
        rounds = [first_bytes(hosts, at_once, ready) for _ in range(ROUNDS[at_once])]
    first, times = sorted(rounds[0]), sorted(value for one in rounds[1:] for value in one)
    with capsys.disabled():
        after = "once the destination is ready" if ready else "at once after PrepareIncoming"
        print(f"\nfirst byte, {at_once} {after}: ", end="")
        print("; ".join(f"{name}: median {row[len(row) // 2] * 1e3:.0f} ms, p99 {row[len(row) * 99 // 100] * 1e3:.0f} ms "
                        f"of {len(row)}" for name, row in (("first round", first), ("others", times))))
    assert times[len(times) // 2] < LIMIT[at_once]
