# SPDX-License-Identifier: LGPL-2.1-or-later
"""A network that comes back in time: QEMU notices nothing."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from pathlib import Path

import pytest
from vmlib.broker import Broker, hasty_helper, wait_until
from vmlib.fake_qemu import FakeQemu
from vmlib.faulty import FaultyProxy
from vmlib.hosts import Hosts, Tunnel
from vmlib.network import Network, ip
from vmlib.quiet import all_heard
from vmlib.supplied import NO_PORT, add_peers

SIZE = 64 << 20


@pytest.mark.parametrize("security", ["tls", "plain"])
@pytest.mark.parametrize("limit", [0, 16 << 20])
def test_cut_and_mended(workdir: Path, security: str, limit: int) -> None:
    rounds = int(os.environ.get("VMFERRY_ROUNDS", "2"))
    rng = random.Random(7)
    with (Network() as network,
          Broker(workdir, "a", netns=network.a, helper=hasty_helper()) as a,
          Broker(workdir, "b", netns=network.b, listen=f"tcp:{network.address_b}:0",
                 helper=hasty_helper()) as b):
        incoming = b.prepare(options={"security": ("s", security)})
        assert incoming.ticket
        outgoing = a.outgoing(incoming.ticket, options={"bandwidth-limit": ("t", limit)})
        with FakeQemu.listen(incoming.socket()) as listener, FakeQemu.connect(outgoing.socket()) as source:
            source.send_pattern(1, 1)
            with listener.accept() as destination:
                sent = source.send_pattern(1, SIZE - 1, offset=1, shut=True)
                back = destination.send_pattern(2, SIZE // 16, shut=True)
                got: list[int] = []
                readers = [threading.Thread(target=lambda: got.append(destination.recv_pattern_until_eof(1))),
                           threading.Thread(target=lambda: got.append(source.recv_pattern_until_eof(2)))]
                for reader in readers:
                    reader.start()
                for i in range(rounds):
                    time.sleep(rng.uniform(0.05, 0.3))
                    network.cut()
                    time.sleep(2 if i == 0 else rng.uniform(0.1, 2))  # TCP gets over the short ones by itself
                    network.mend()
                for reader in readers:
                    reader.join(120)
                sent.result(10), back.result(10)
                assert sorted(got) == [SIZE // 16, SIZE]
        assert outgoing.wait() == "done" and incoming.wait() == "done"
        if limit:  # else it may have been over before the first cut
            assert outgoing.get("Reconnects") >= 1 and incoming.get("Reconnects") >= 1
        assert outgoing.get("BytesSent") == incoming.get("BytesReceived") == SIZE


@pytest.mark.parametrize("security", ["tls", "plain"])
@pytest.mark.story
def test_source_with_another_address(workdir: Path, security: str) -> None:
    """As after DHCP, or with a VPN that is up again: the secret is who the peer is, not its address."""
    other = "10.77.0.77"
    with (Network() as network,
          Broker(workdir, "a", netns=network.a, helper=hasty_helper()) as a,
          Broker(workdir, "b", netns=network.b, listen=f"tcp:{network.address_b}:0",
                 helper=hasty_helper()) as b):
        incoming = b.prepare(options={"security": ("s", security)})
        assert incoming.ticket
        outgoing = a.outgoing(incoming.ticket)
        with FakeQemu.listen(incoming.socket()) as listener, FakeQemu.connect(outgoing.socket()) as source:
            source.send_pattern(1, 1000).result(10)
            with listener.accept() as destination:
                destination.recv_pattern(1, 1000)
                assert network.address_a in incoming.get("Peer")
                ip("-n", network.a, "address", "delete", f"{network.address_a}/24", "dev", "veth0")
                ip("-n", network.a, "address", "add", f"{other}/24", "dev", "veth0")
                sent = source.send_pattern(1, SIZE, offset=1000, shut=True)
                back = destination.send_pattern(2, 1000, shut=True)
                assert destination.recv_pattern_until_eof(1, offset=1000) == SIZE
                assert source.recv_pattern_until_eof(2) == 1000
                sent.result(10), back.result(10)
        assert outgoing.wait() == "done" and incoming.wait() == "done"
        # On a busy machine the hasty helpers may take a pause for a loss as well.
        assert outgoing.get("Reconnects") >= 1 and other in incoming.get("Peer")


@pytest.mark.parametrize("security", ["tls", "plain"])
def test_peer_connections_are_supplied_again(hosts: Hosts, security: str) -> None:
    """A manager that brings the peer connections sees State change, on both hosts, and brings new ones."""
    incoming = hosts.prepare(security=security, endpoints=NO_PORT)
    outgoing = hosts.start(incoming)
    tunnel = Tunnel(outgoing, incoming)
    kept = add_peers(tunnel, 2)
    with FakeQemu.listen(incoming.socket()) as listener, FakeQemu.connect(outgoing.socket()) as source:
        source.send_pattern(1, 1000).result(10)
        with listener.accept() as destination:
            destination.recv_pattern(1, 1000)
            for round_ in range(3):
                for sock in kept:
                    sock.shutdown(socket.SHUT_RDWR)
                    sock.close()
                # Once before the destination can have noticed.
                for migration in tunnel.ends if round_ != 1 else (outgoing,):
                    migration.wait_state("interrupted")
                kept = add_peers(tunnel, 2)
                at = 1000 * (round_ + 1)
                source.send_pattern(1, 1000, offset=at).result(10)
                destination.recv_pattern(1, 1000, at)
                for migration in tunnel.ends:
                    migration.wait_state("active")
                    wait_until(lambda m=migration: m.get("Reconnects") == round_ + 1, "the reconnect is counted")
            source.shut_wr()
            assert destination.recv_until_eof() == b""
            destination.shut_wr()
            assert source.recv_until_eof() == b""
    assert outgoing.wait() == "done" and incoming.wait() == "done"
    for sock in kept:
        sock.close()


@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("security", ["tls", "plain"])
def test_last_end_while_cut(hosts: Hosts, security: str, side: str) -> None:
    """Everything is delivered and one side has ended; the other QEMU ends while the hosts do not hear each other."""
    incoming = hosts.prepare(security=security)
    with FaultyProxy(("127.0.0.1", hosts.destination.peer_port())) as proxy:
        outgoing = hosts.start(incoming, endpoint=("s", proxy.endpoint))
        with FakeQemu.listen(incoming.socket()) as listener, FakeQemu.connect(outgoing.socket()) as source:
            source.send_pattern(1, 5000).result(10)
            with listener.accept() as destination:
                destination.recv_pattern(1, 5000)
                first, last = (destination, source) if side == "source" else (source, destination)
                first.shut_wr()
                assert last.recv_until_eof() == b""
                all_heard(*hosts.brokers)
                proxy.silence()
                proxy.reset()
                for migration in (outgoing, incoming):
                    migration.wait_state("interrupted")
                last.shut_wr()
                all_heard(*hosts.brokers)
                proxy.mend()
                assert outgoing.wait(30) == "done" and incoming.wait(30) == "done"
                assert first.recv_until_eof() == b""
