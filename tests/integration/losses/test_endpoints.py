# SPDX-License-Identifier: LGPL-2.1-or-later
"""A peer has many addresses, and other hosts may have some of them as well: what answers there is not the peer yet."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from vmlib.broker import Broker
from vmlib.faulty import FaultyProxy
from vmlib.hosts import Hosts, Tunnel, assert_failed
from vmlib.network import free_port


@pytest.fixture
def other(workdir: Path) -> Iterator[Broker]:
    """A third host, whose port is open, for it expects another VM."""
    with Broker(workdir, "o", listen="tcp:127.0.0.1:0") as broker:
        incoming = broker.prepare("web2", {"expire-usec": ("t", 300_000_000)})
        yield broker
        incoming.call("Cancel")
        incoming.wait_finished()


def endpoint(broker: Broker) -> str:
    return str(broker.get("Endpoints")[0])


def connect(hosts: Hosts, *endpoints: str, **options) -> Tunnel:  # type: ignore[no-untyped-def]
    incoming = hosts.prepare(endpoints=("as", list(endpoints)), **options)
    outgoing = hosts.start(incoming)
    for migration in (outgoing, incoming):
        migration.wait_state("connected")
    return Tunnel(outgoing, incoming)


def carry(tunnel: Tunnel) -> None:
    source, destination = tunnel.open_channel()
    with source, destination:
        source.send(b"memory")
        assert destination.recv_exact(6) == b"memory"
    tunnel.assert_done()


def test_who_answers_first_is_not_the_peer(workdir: Path, other: Broker) -> None:
    port = free_port()
    with Hosts(workdir, listen=f"tcp:127.0.0.1:{port}") as hosts:
        carry(connect(hosts, endpoint(other), f"tcp:127.0.0.1:{port}"))


def test_neither_is_the_peer(hosts: Hosts, other: Broker) -> None:
    incoming = hosts.prepare(endpoints=("as", [endpoint(other), "tcp:127.0.0.1:1"]))
    properties = assert_failed(hosts.start(incoming), "failed", "PeerUnreachable", "PeerRejected")
    assert "127.0.0.1:1: Connection refused; what answered is not the peer" in properties["ErrorMessage"]
    incoming.call("Cancel")
    incoming.wait_finished()


def test_lost_network_and_another_host_that_answers(workdir: Path, other: Broker) -> None:
    """What another host says is not what the peer says: it has not given the migration up."""
    port = free_port()
    with FaultyProxy(("127.0.0.1", port)) as proxy, Hosts(workdir, listen=f"tcp:127.0.0.1:{port}") as hosts:
        tunnel = connect(hosts, proxy.endpoint, endpoint(other))
        source, destination = tunnel.open_channel()
        with source, destination:
            proxy.silence()
            for end in tunnel.ends:
                end.wait_state("interrupted", 20)
            log = len(other.log().split("is not expected here"))
            deadline = time.monotonic() + 30
            while len(other.log().split("is not expected here")) < log + 4:  # more often than REJECTIONS_MAX
                assert time.monotonic() < deadline, other.log()
                time.sleep(0.05)
            assert all(end.get("State") == "interrupted" for end in tunnel.ends)
            proxy.mend()
            for end in tunnel.ends:
                end.wait_state("active", 30)
            source.send(b"memory")
            assert destination.recv_exact(6) == b"memory"
        tunnel.assert_done()


@pytest.mark.load_sensitive(reason="a channel opens within a second")
def test_dead_addresses_cost_a_channel_nothing(workdir: Path) -> None:
    """15 that swallow what is sent there stand before the right one."""
    port = free_port()
    with ExitStack() as stack, Hosts(workdir, listen=f"tcp:127.0.0.1:{port}") as hosts:
        dead = []
        for _ in range(15):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            for _ in range(2):  # its queue is full: what comes is dropped
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(listener.getsockname())
            dead.append(f"tcp:127.0.0.1:{listener.getsockname()[1]}")
        began = time.monotonic()
        tunnel = connect(hosts, *dead, f"tcp:127.0.0.1:{port}")
        assert time.monotonic() - began > 1  # each was tried
        times = []
        with ExitStack() as qemus:
            for _ in range(5):  # the best one counts
                began = time.monotonic()
                for qemu in tunnel.open_channel():
                    qemus.enter_context(qemu)
                times.append(time.monotonic() - began)
        tunnel.assert_done()
        assert min(times) < 1, times
