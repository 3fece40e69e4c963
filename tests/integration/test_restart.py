# SPDX-License-Identifier: LGPL-2.1-or-later
"""A broker that is restarted, or killed, in the middle of things: no migration notices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vmlib.fake_qemu import FakeQemu
from vmlib.hosts import Hosts, Tunnel
from vmlib.managed import ManagedBroker


@pytest.fixture
def managed(workdir: Path) -> Iterator[Hosts]:
    with Hosts(workdir, broker=ManagedBroker) as pair:
        yield pair


@pytest.mark.parametrize("security", ["tls", "plain"])
@pytest.mark.parametrize("how", ["restart", "crash"])
def test_active(managed: Hosts, security: str, how: str) -> None:
    """Bytes on their way, brokers away and back on both sides, again and again."""
    tunnel = managed.connect(security=security)
    size = 24 << 20
    before = [migration.get_all() for migration in tunnel.ends]
    source, destination = tunnel.open_channel()
    with source, destination:
        there = source.send_pattern(1, size, shut=True)
        back = destination.send_pattern(2, size, shut=True)
        for broker in (*managed.brokers, *managed.brokers):
            getattr(broker, how)()
            destination.recv_pattern(1, size // 8, offset=getattr(tunnel, "at", 0))
            tunnel.at = getattr(tunnel, "at", 0) + size // 8  # type: ignore[attr-defined]
        for migration, was in zip(tunnel.ends, before):
            now = migration.get_all()
            for name in ("Id", "Vm", "Role", "Security", "OwnerUid", "Sockets", "StartedUsec", "Peer"):
                assert now[name] == was[name], name
            assert now["State"] == "active"
        assert destination.recv_pattern_until_eof(1, offset=size // 2) == size // 2
        assert source.recv_pattern_until_eof(2) == size
        there.result(20), back.result(20)
    sent, received = tunnel.assert_done()
    assert (sent, received) == (size + 1, size)
