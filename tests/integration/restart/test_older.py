# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferry as it was before, in the build directory $VMFERRY_OLDER: at the other end, before an upgrade, and after it again."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from vmlib.broker import build_dir
from vmlib.faulty import FaultyProxy
from vmlib.hosts import Hosts, Tunnel
from vmlib.managed import ManagedBroker
from vmlib.restarts import brokers

pytestmark = pytest.mark.older
SECURITIES = pytest.mark.parametrize("security", ["tls", "plain"])
SIZE, STEP = 64 << 20, 8 << 20


def older() -> Path:
    return Path(os.environ["VMFERRY_OLDER"])


def connect(stack: ExitStack, hosts: Hosts, security: str) -> tuple[FaultyProxy, Tunnel]:
    """A migration that is connected through a proxy, which resets its connections."""
    incoming = hosts.prepare(security=security)
    proxy = stack.enter_context(FaultyProxy(("127.0.0.1", hosts.destination.peer_port())))
    return proxy, Tunnel(hosts.start(incoming, endpoint=("s", proxy.endpoint)), incoming)


@SECURITIES
@pytest.mark.parametrize("old", ["source", "destination"])
def test_other_end(workdir: Path, security: str, old: str) -> None:
    """A stream in each direction, and the network lost three times meanwhile: each byte, once."""

    class Mixed(ManagedBroker):
        def __init__(self, workdir: Path, name: str, **arguments: object) -> None:
            super().__init__(workdir, name, build=older() if name == old[0] else build_dir(), **arguments)

    with ExitStack() as stack:
        hosts = stack.enter_context(Hosts(workdir, broker=Mixed))
        proxy, tunnel = connect(stack, hosts, security)
        source, destination = tunnel.open_channel()
        with source, destination:
            there = source.send_pattern(1, SIZE, shut=True)
            back = destination.send_pattern(2, SIZE, shut=True)
            at = 0
            for _ in range(3):
                destination.recv_pattern(1, STEP, offset=at)
                source.recv_pattern(2, STEP, offset=at)
                at += STEP
                proxy.reset()
            assert destination.recv_pattern_until_eof(1, offset=at) == SIZE - at
            assert source.recv_pattern_until_eof(2, offset=at) == SIZE - at
            there.result(20), back.result(20)
        assert tunnel.outgoing.get("Reconnects") >= 1
        assert tunnel.assert_done() == (SIZE + 1, SIZE)


@SECURITIES
@pytest.mark.parametrize("way", ["upgrade", "back"])
def test_replaced(workdir: Path, security: str, way: str) -> None:
    """Both brokers become this one while a migration of the older one's helpers runs; or the older one, and this one again,
    while one of this one's helpers runs. Then the network is lost."""
    first, *then = [older(), build_dir()] if way == "upgrade" else [build_dir(), older(), build_dir()]
    with ExitStack() as stack:
        hosts = stack.enter_context(Hosts(workdir, broker=ManagedBroker, build=first))
        proxy, tunnel = connect(stack, hosts, security)
        source, destination = tunnel.open_channel()
        with source, destination:
            there = source.send_pattern(1, SIZE, shut=True)
            at = 0
            for build in then:
                for broker in brokers(hosts):
                    broker.build = build
                    broker.restart()
                    destination.recv_pattern(1, STEP, offset=at)
                    at += STEP
                    assert all(end.get("State") == "active" for end in tunnel.ends)
            proxy.reset()
            assert destination.recv_pattern_until_eof(1, offset=at) == SIZE - at
            destination.shut_wr()
            assert source.recv_until_eof() == b""
            there.result(20)
        assert tunnel.outgoing.get("Reconnects") >= 1
        assert tunnel.assert_done() == (SIZE + 1, 0)
        for broker in brokers(hosts):  # the older one may have had descriptors of its own
            hosts.note_baseline(broker)
