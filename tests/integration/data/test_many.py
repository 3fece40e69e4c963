# SPDX-License-Identifier: LGPL-2.1-or-later
"""Very many migrations at once on one pair of brokers: each is carried, and nothing is left of any.

VMFERRY_LONG=1 makes it 1,000. What was measured is shown with `pytest -rP`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from vmlib.broker import Broker, wait_until
from vmlib.fake_qemu import FakeQemu, pattern
from vmlib.hosts import Hosts, Tunnel, fds

pytestmark = pytest.mark.qemu  # on the release build: a thousand pairs of helpers with sanitizers have no room

MIGRATIONS = 1000 if os.environ.get("VMFERRY_LONG") else 40
SIZE = 64 << 10
LIMITS = (f"--max-migrations={MIGRATIONS}", f"--max-migrations-per-user={MIGRATIONS}", "--max-windows-per-user=1048576")


def all_are(broker: Broker, state: str) -> bool:
    return [row[3] for row in broker.list()] == [state] * MIGRATIONS


def helper_memory(broker: Broker) -> int:
    """KiB of all its helpers, each page of several shared out between them."""
    return sum(int(line.split()[1]) for pid in broker.helpers()
               for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))


def assert_carried(number: int, source: FakeQemu, destination: FakeQemu) -> None:
    """The second half, both ways, and the ends."""
    for end in (source, destination):
        end.send(pattern(number, SIZE)[SIZE // 2:])
        end.shut_wr()
    for end in (destination, source):
        assert end.recv_pattern_until_eof(number) == SIZE
        end.close()


def test_at_once(workdir: Path) -> None:
    with Hosts(workdir, args=LIMITS) as hosts:
        began = time.monotonic()
        tunnels = []
        for number in range(MIGRATIONS):
            incoming = hosts.prepare(f"vm{number}", ("tls", "plain")[number % 2], expire_usec=("t", 600_000_000))
            tunnels.append(Tunnel(hosts.start(incoming, f"vm{number}"), incoming))
        for broker in hosts.brokers:
            wait_until(lambda broker=broker: all_are(broker, "connected"), "all are connected", 300)
        connected = time.monotonic()
        ends = [tunnel.open_channel() for tunnel in tunnels]
        for number, pair in enumerate(ends):
            for end in pair:
                end.send(pattern(number, SIZE)[: SIZE // 2])
        for broker in hosts.brokers:
            wait_until(lambda broker=broker: all_are(broker, "active"), "all are active", 60)
        print(f"{MIGRATIONS} migrations were connected after {connected - began:.0f} s, active after "
              f"{time.monotonic() - began:.0f} s")
        for broker in hosts.brokers:
            print(f"{broker.name}: {len(fds(broker))} descriptors, {helper_memory(broker) >> 10} MiB of helpers")
        for number, pair in enumerate(ends):
            assert_carried(number, *pair)
        for tunnel in tunnels:
            assert tunnel.assert_done(60) == (SIZE + 1, SIZE)
        hosts.assert_nothing_left(60)
        print(f"all were carried, and nothing was left, after {time.monotonic() - began:.0f} s")
