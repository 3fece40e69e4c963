# SPDX-License-Identifier: LGPL-2.1-or-later
"""TLS that the kernel does. Where the host's has none, tests/vm runs these in a machine whose kernel has."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import pytest
from vmlib.broker import Broker
from vmlib.fake_qemu import FakeQemu
from vmlib.faulty import FaultyProxy
from vmlib.hosts import Hosts, Tunnel
from vmlib.ktls import TLS_RX, missing, opened, refused_helper
from vmlib.supplied import NO_PORT, add_peers

SAID = "The kernel does the TLS of this migration's channels."
SIZE = 8 << 20


@pytest.fixture(autouse=True)
def needs_kernel() -> None:
    if why := missing():
        pytest.skip(why)


def carry(source: FakeQemu, destination: FakeQemu) -> None:
    """Writes of all sizes, one after the other, and then much at once; both directions."""
    rng = random.Random(5)
    at = 0
    for size in (1, 8, 4096, 4104, 16383, 16384, 16385, 65536, *(rng.randrange(1, 200000) for _ in range(8))):
        sent = [source.send_pattern(1, size, at), destination.send_pattern(2, size, at)]
        destination.recv_pattern(1, size, at)
        source.recv_pattern(2, size, at)
        for future in sent:
            future.result(10)
        at += size
    sent = [source.send_pattern(1, SIZE, at, shut=True), destination.send_pattern(2, SIZE // 4, at, shut=True)]
    assert destination.recv_pattern_until_eof(1, at) == SIZE
    assert source.recv_pattern_until_eof(2, at) == SIZE // 4
    for future in sent:
        future.result(10)
    source.close()
    destination.close()


def since(before: tuple[int, int]) -> tuple[int, int]:
    now = opened()
    return now[0] - before[0], now[1] - before[1]


def test_both_ends(hosts: Hosts) -> None:
    before = opened()
    tunnel = hosts.connect()
    assert since(before) == (0, 0), "the control connection is the helper's own"
    carry(*tunnel.open_channel())
    tunnel.assert_done()
    assert since(before) == (2, 2)
    for broker in hosts.brokers:
        assert broker.log().count(SAID) == 1


@pytest.mark.parametrize("refused", ["source", "destination"])
def test_one_end(workdir: Path, refused: str) -> None:
    """The other one has GnuTLS do it, and neither can tell."""
    helpers = {refused: {"helper": refused_helper(workdir)}}
    with (Broker(workdir, "s", listen="tcp:127.0.0.1:0", **helpers.get("source", {})) as a,
          Broker(workdir, "d", listen="tcp:127.0.0.1:0", **helpers.get("destination", {})) as b):
        before = opened()
        incoming = b.prepare()
        assert incoming.ticket
        tunnel = Tunnel(a.outgoing(incoming.ticket), incoming)
        carry(*tunnel.open_channel())
        tunnel.assert_done()
        assert since(before) == (1, 1)
        assert (SAID in a.log(), SAID in b.log()) == (refused != "source", refused != "destination")


@pytest.mark.parametrize("refused", ["source", "destination"])
def test_half_way(workdir: Path, refused: str) -> None:
    """It encrypts for one end and does not decrypt: that connection is lost, and the next one does without."""
    helpers = {refused: {"helper": refused_helper(workdir, TLS_RX)}}
    with (Broker(workdir, "s", listen="tcp:127.0.0.1:0", **helpers.get("source", {})) as a,
          Broker(workdir, "d", listen="tcp:127.0.0.1:0", **helpers.get("destination", {})) as b):
        incoming = b.prepare()
        assert incoming.ticket
        tunnel = Tunnel(a.outgoing(incoming.ticket), incoming)
        carry(*tunnel.open_channel())
        tunnel.assert_done()
        assert [end.get("Reconnects") for end in tunnel.ends] == [1, 1]
        assert SAID not in (a if refused == "source" else b).log()


def test_several_channels(hosts: Hosts) -> None:
    before = opened()
    tunnel = hosts.connect()
    channels = [tunnel.open_channel() for _ in range(4)]
    sent = [source.send_pattern(i, SIZE // 4, shut=True) for i, (source, _) in enumerate(channels)]
    for i, (source, destination) in enumerate(channels):
        assert destination.recv_pattern_until_eof(i) == SIZE // 4
        destination.shut_wr()
        assert source.recv_until_eof() == b""
        sent[i].result(10)
        source.close()
        destination.close()
    tunnel.assert_done()
    assert since(before) == (8, 8)
    assert hosts.source.log().count(SAID) == 1


@pytest.mark.parametrize("refused", [False, True])
def test_cuts(workdir: Path, refused: bool) -> None:
    """In the middle of records, and with a peer that reads slowly. Not a byte is lost or comes twice."""
    rounds = 4
    helper = {"helper": refused_helper(workdir)} if refused else {}
    with (Broker(workdir, "s", listen="tcp:127.0.0.1:0", **helper) as a,
          Broker(workdir, "d", listen="tcp:127.0.0.1:0") as b):
        before = opened()
        incoming = b.prepare()
        assert incoming.ticket
        with FaultyProxy(("127.0.0.1", b.peer_port())) as proxy:
            outgoing = a.outgoing(incoming.ticket, options={"endpoint": ("s", proxy.endpoint)})
            tunnel = Tunnel(outgoing, incoming)
            with FakeQemu.listen(incoming.socket()) as listener, FakeQemu.connect(outgoing.socket()) as source:
                sent = source.send_pattern(1, SIZE, shut=True)
                with listener.accept() as destination:
                    at = 0
                    for i in range(rounds):
                        destination.recv_pattern(1, SIZE // 10, at)
                        at += SIZE // 10
                        proxy.reset()
                        back = destination.send_pattern(2, 100000, i * 100000)
                        source.recv_pattern(2, 100000, i * 100000)
                        back.result(10)
                    destination.shut_wr()
                    assert destination.recv_pattern_until_eof(1, at) == SIZE - at
                    assert source.recv_until_eof() == b""
                    sent.result(10)
            tunnel.assert_done()
            assert outgoing.get("Reconnects") == incoming.get("Reconnects") == rounds
            assert since(before) == ((rounds + 1) * (1 if refused else 2),) * 2


def test_what_cannot_be_resumed(hosts: Hosts) -> None:
    """There the helper keeps TLS, for a key that is worn out would be the end."""
    before = opened()
    incoming = hosts.prepare(resume_timeout_usec=("t", 0))
    outgoing = hosts.start(incoming, resume_timeout_usec=("t", 0))
    tunnel = Tunnel(outgoing, incoming)
    carry(*tunnel.open_channel())
    tunnel.assert_done()
    assert since(before) == (0, 0)


def test_supplied(hosts: Hosts) -> None:
    """A socket that somebody else holds, too, would be read in clear by him."""
    before = opened()
    incoming = hosts.prepare(endpoints=NO_PORT)
    tunnel = Tunnel(hosts.start(incoming), incoming)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept = add_peers(tunnel, 2, lambda: tcp_pair(listener))
    carry(*tunnel.open_channel())
    tunnel.assert_done()
    assert since(before) == (0, 0)
    for sock in kept:
        sock.close()


def tcp_pair(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    one = socket.create_connection(listener.getsockname())
    return one, listener.accept()[0]
