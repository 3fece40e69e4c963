# SPDX-License-Identifier: LGPL-2.1-or-later
"""Migrations one after the other: what the brokers hold stays the same.

VMFERRY_LONG=1 makes it 10,000. What was measured is shown with `pytest -rP`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from vmlib.broker import Broker
from vmlib.fake_qemu import FakeQemu
from vmlib.hosts import Hosts, fds

MIGRATIONS = int(os.environ.get("VMFERRY_MIGRATIONS", "0")) or (10000 if os.environ.get("VMFERRY_LONG") else 60)
WARM = 20  # after which all that is kept for reuse is there
GROWTH_MAX = 1024  # KiB of a broker, over all of them
SIZE = 4096


def resident(broker: Broker) -> int:
    """KiB."""
    status = Path(f"/proc/{broker.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))


def is_sanitized(broker: Broker) -> bool:
    """Then what was freed is kept."""
    return "libasan" in Path(f"/proc/{broker.pid}/maps").read_text()


def one(hosts: Hosts, number: int) -> None:
    security = "tls" if number % 2 else "plain"
    incoming = hosts.prepare(f"vm{number}", security)
    with FakeQemu.listen(incoming.socket()) as listener:
        outgoing = hosts.start(incoming, f"vm{number}")
        with FakeQemu.connect(outgoing.socket()) as source:
            there = source.send_pattern(number, SIZE, shut=True)
            with listener.accept() as destination:
                back = destination.send_pattern(number + 1, SIZE, shut=True)
                assert destination.recv_pattern_until_eof(number) == SIZE
                assert source.recv_pattern_until_eof(number + 1) == SIZE
                there.result(20), back.result(20)
    for migration in (outgoing, incoming):
        assert migration.wait() == "done"
        migration.call("Forget")


def test_in_a_row(workdir: Path) -> None:
    with Hosts(workdir) as hosts:
        for number in range(WARM):
            one(hosts, number)
        before = {broker: resident(broker) for broker in hosts.brokers}
        began = time.monotonic()
        for number in range(WARM, MIGRATIONS):
            one(hosts, number)
        took = time.monotonic() - began
        for broker in hosts.brokers:
            grown = resident(broker) - before[broker]
            print(f"{broker.name}: {MIGRATIONS} migrations in {took:.0f} s, {len(fds(broker))} descriptors, "
                  f"{grown:+} KiB to {before[broker]} KiB")
            assert is_sanitized(broker) or grown <= GROWTH_MAX
