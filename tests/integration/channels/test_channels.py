# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many connections of a stand-in QEMU in one migration: their number, order, silence, and limits."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from vmlib.broker import Broker, Migration, wait_until
from vmlib.delay import DelayingRelay
from vmlib.fake_qemu import FakeListener, FakeQemu
from vmlib.hosts import Hosts, Tunnel, assert_failed, assert_learns
from vmlib.quiet import all_heard
from vmlib.rates import assert_held

SECURITIES = pytest.mark.parametrize("security", ["tls", "plain"])


def number(index: int) -> bytes:
    """What a source sends first, so that its channel can be told from the others."""
    return struct.pack("<Q", index)


def read_number(qemu: FakeQemu) -> int:
    return int(struct.unpack("<Q", qemu.recv_exact(8))[0])


def channels(migration: Migration) -> list[tuple[str, int, str]]:
    """Stream, number and state of each."""
    return sorted((c[0], c[1], c[4]) for c in migration.get("Channels"))


def end_both(*pairs: tuple[FakeQemu, FakeQemu]) -> None:
    """Each pair says goodbye as QEMU does: the destination closes first."""
    for source, destination in pairs:
        destination.shut_wr()
        assert source.recv_until_eof() == b""
        source.shut_wr()
        assert destination.recv_until_eof() == b""
        source.close()
        destination.close()


@contextmanager
def hosts_of(source: Broker, destination: Broker) -> Iterator[None]:
    """For brokers that differ: the same promise as the fixture's."""
    with source, destination:
        yield
        for broker in (source, destination):
            for *_, path in broker.list():
                Migration(broker, path).call("Forget")
            wait_until(lambda: not broker.helpers(), f"no helpers of {broker.name}")


def supply_peer(outgoing: Migration, incoming: Migration) -> None:
    """One peer connection, as a manager brings it."""
    a, b = socket.socketpair()
    with a, b:
        incoming.call("AddPeerConnection", "h", b)
        outgoing.call("AddPeerConnection", "h", a)


class SlowRelay(DelayingRelay):
    """Its first connection takes a second to get through."""

    def _connect_late(self, near: socket.socket, far: socket.socket, delays: list[float]) -> None:
        super()._connect_late(near, far, [1.0 if self.connections == 1 else 0, 0, 0])


# ---- How many ----


@SECURITIES
def test_256_channels_and_no_more(hosts: Hosts, security: str) -> None:
    size = 100_001
    tunnel = hosts.connect(security=security)
    with ExitStack() as stack:
        listener = stack.enter_context(FakeQemu.listen(tunnel.incoming.socket(), backlog=16))
        sources = [stack.enter_context(FakeQemu.connect(tunnel.outgoing.socket())) for _ in range(256)]
        there = [source.send_pattern(index, size) for index, source in enumerate(sources)]
        destinations = [stack.enter_context(listener.accept()) for _ in range(256)]
        back = [destination.send_pattern(1000 + index, size) for index, destination in enumerate(destinations)]

        # All are open at once; one more is closed, not left in silence, and the others are none the worse.
        wait_until(lambda: channels(tunnel.outgoing) == [("migrate", n, "open") for n in range(256)], "256 channels")
        with FakeQemu.connect(tunnel.outgoing.socket()) as too_many:
            assert_learns(too_many)
        wait_until(lambda: "256 channels are the limit (max-channels)" in hosts.source.log(), "the reason in the log")
        assert "LimitExceeded" in hosts.source.log()

        for index, (source, destination) in enumerate(zip(sources, destinations)):
            destination.recv_pattern(index, size)
            source.recv_pattern(1000 + index, size)
        for future in there + back:
            future.result(20)
        end_both(*zip(sources, destinations))
    assert tunnel.assert_done() == (256 * size, 256 * size)
    for migration in tunnel.ends:
        assert channels(migration) == [("migrate", n, "closed") for n in range(256)]


@SECURITIES
def test_256_connections_before_there_is_a_peer(hosts: Hosts, security: str) -> None:
    incoming = hosts.prepare(security=security)
    port = hosts.destination.peer_port()
    with ExitStack() as stack:
        listener = stack.enter_context(FakeQemu.listen(incoming.socket(), backlog=1))
        # It takes the control connection one second to get through, and QEMU is faster.
        relay = stack.enter_context(SlowRelay(0, port, seed=1, overtake=True))
        outgoing = hosts.start(incoming, endpoint=("s", f"tcp:127.0.0.1:{relay.address}"))
        sources = [stack.enter_context(FakeQemu.connect(outgoing.socket())) for _ in range(256)]
        for index, source in enumerate(sources):
            source.send(number(index))
        for index in range(256):
            destination = stack.enter_context(listener.accept())
            assert read_number(destination) == index
            end_both((sources[index], destination))
        Tunnel(outgoing, incoming).assert_done()


@SECURITIES
def test_fewer_channels_at_the_destination(workdir: Path, security: str) -> None:
    source, destination = Broker(workdir, "s"), Broker(workdir, "d", args=("--max-channels=4",))
    with hosts_of(source, destination), ExitStack() as stack:
        incoming = destination.prepare(options={"security": ("s", security), "endpoints": ("as", [])})
        outgoing = source.outgoing(incoming.ticket or "")
        listener = stack.enter_context(FakeQemu.listen(incoming.socket(), backlog=16))
        # Six before the source can know: the destination refuses two of them.
        sources = [stack.enter_context(FakeQemu.connect(outgoing.socket())) for _ in range(6)]
        for index, qemu in enumerate(sources[:4]):
            qemu.send(number(index))
        for _ in range(7):
            supply_peer(outgoing, incoming)
        destinations = [stack.enter_context(listener.accept()) for _ in range(4)]
        assert [read_number(qemu) for qemu in destinations] == [0, 1, 2, 3]
        for refused in sources[4:]:
            assert_learns(refused)
        wait_until(lambda: "The destination allows 4 channels at once" in source.log(), "the destination's reason")
        # From then on the source knows.
        with FakeQemu.connect(outgoing.socket()) as too_many:
            assert_learns(too_many)
        wait_until(lambda: "4 channels are the limit (max-channels)" in source.log(), "the reason in the log")
        end_both(*zip(sources, destinations))
        Tunnel(outgoing, incoming).assert_done()


def test_channels_one_after_the_other(hosts: Hosts) -> None:
    """The limit is of those at once: a migration that lives long has more of them in all."""
    tunnel = hosts.connect(security="plain")
    first = tunnel.open_channel()
    for _ in range(300):
        end_both(tunnel.open_channel())
    end_both(first)
    there, back = tunnel.assert_done()
    assert (there, back) == (301, 0)
    assert len(tunnel.outgoing.get("Channels")) == 256


# ---- Which is which ----


@SECURITIES
@pytest.mark.story
def test_two_streams(hosts: Hosts, security: str) -> None:
    """The destination may name them in another order, and more of them."""
    incoming = hosts.prepare(security=security, streams=("as", ["disks", "control", "migrate"]))
    outgoing = hosts.start(incoming, streams=("as", ["migrate", "disks"]))
    assert set(outgoing.get("Sockets")) == {"migrate", "disks"}
    assert set(incoming.get("Sockets")) == {"migrate", "disks", "control"}
    with ExitStack() as stack:
        pairs = []
        listeners = {name: stack.enter_context(FakeQemu.listen(incoming.socket(name))) for name in ("migrate", "disks")}
        sources = {"migrate": [], "disks": []}  # type: dict[str, list[FakeQemu]]
        for index in range(8):
            name = ("migrate", "disks")[index % 2]
            source = stack.enter_context(FakeQemu.connect(outgoing.socket(name)))
            sources[name].append(source)
            source.send(number(index))
        for name, parity in (("disks", 1), ("migrate", 0)):  # neither waits for the other
            for nth in range(4):
                destination = stack.enter_context(listeners[name].accept())
                assert read_number(destination) == 2 * nth + parity
                pairs.append((sources[name][nth], destination))
        # That a channel is open both hear after its bytes have arrived.
        opened = sorted((("migrate", "disks")[index % 2], index, "open") for index in range(8))
        wait_until(lambda: channels(outgoing) == channels(incoming) == opened, "all are open")
        end_both(*pairs)
    Tunnel(outgoing, incoming).assert_done()


def test_stream_that_is_not_prepared(hosts: Hosts) -> None:
    incoming = hosts.prepare()
    outgoing = hosts.start(incoming, streams=("as", ["migrate", "disks"]))
    for migration in (incoming, outgoing):
        found = assert_failed(migration, "failed", "NoSuchStream")
        assert "'disks'" in found["ErrorMessage"]


@SECURITIES
@pytest.mark.parametrize("seed", range(3))
def test_order_survives_delays(hosts: Hosts, security: str, seed: int) -> None:
    """The peer connections overtake each other, some sources speak late: the n-th is the n-th all the same."""
    chance = random.Random(seed)
    incoming = hosts.prepare(security=security, streams=("as", ["migrate", "disks"]))
    with ExitStack() as stack:
        relay = stack.enter_context(DelayingRelay(0, hosts.destination.peer_port(), seed, overtake=True))
        outgoing = hosts.start(incoming, streams=("as", ["migrate", "disks"]),
                               endpoint=("s", f"tcp:127.0.0.1:{relay.address}"))
        names = [chance.choice(["migrate", "disks"]) for _ in range(31)] + ["migrate"]
        listeners = {name: stack.enter_context(FakeQemu.listen(incoming.socket(name))) for name in set(names)}
        sources = [stack.enter_context(FakeQemu.connect(outgoing.socket(name))) for name in names]
        speakers = list(enumerate(sources))
        chance.shuffle(speakers)

        def speak() -> None:
            for index, source in speakers:
                time.sleep(chance.uniform(0, 0.03))
                source.send(number(index))

        pairs = []
        speaking = threading.Thread(target=speak)
        speaking.start()
        try:
            for name in listeners:
                for index in [i for i, n in enumerate(names) if n == name]:
                    destination = stack.enter_context(listeners[name].accept())
                    assert read_number(destination) == index
                    destination.send(number(index))
                    assert read_number(sources[index]) == index
                    pairs.append((sources[index], destination))
        finally:
            speaking.join()
        end_both(*pairs)
        Tunnel(outgoing, incoming).assert_done()


# ---- Silence, and a QEMU that is slow to accept ----


@SECURITIES
def test_silent_channel_is_connected_after_a_grace(hosts: Hosts, security: str) -> None:
    """As NBD and the preempt channel are: the destination's QEMU speaks first."""
    tunnel = hosts.connect(security=security)
    with FakeQemu.listen(tunnel.incoming.socket()) as listener:
        begin = time.monotonic()
        source = FakeQemu.connect(tunnel.outgoing.socket())
        destination = listener.accept()
        assert time.monotonic() - begin > 0.09  # and it comes
    destination.send(b"NBDMAGIC")
    assert source.recv_exact(8) == b"NBDMAGIC"
    source.send(b"IHAVEOPT")
    assert destination.recv_exact(8) == b"IHAVEOPT"
    end_both((source, destination))
    assert tunnel.assert_done() == (8, 8)


def test_speaking_channel_waits_for_a_silent_one_before_it(hosts: Hosts) -> None:
    tunnel = hosts.connect()
    with FakeQemu.listen(tunnel.incoming.socket()) as listener:
        sources = [FakeQemu.connect(tunnel.outgoing.socket()) for _ in range(2)]
        sources[1].send(number(1))
        destinations = [listener.accept() for _ in range(2)]
        assert read_number(destinations[1]) == 1
        sources[0].send(number(0))
        assert read_number(destinations[0]) == 0
    end_both(*zip(sources, destinations))
    tunnel.assert_done()


@pytest.mark.parametrize("backlog", [0, 1])
def test_small_backlog(hosts: Hosts, backlog: int) -> None:
    """connect(2) gives EAGAIN while it is full."""
    tunnel = hosts.connect()
    with FakeQemu.listen(tunnel.incoming.socket(), backlog) as listener:
        sources = [FakeQemu.connect(tunnel.outgoing.socket()) for _ in range(12)]
        for index, source in enumerate(sources):
            source.send(number(index))
        destinations = []
        for index in range(12):
            time.sleep(0.05)
            destinations.append(listener.accept())
            assert read_number(destinations[-1]) == index
    end_both(*zip(sources, destinations))
    tunnel.assert_done()


@SECURITIES
def test_destination_binds_late(hosts: Hosts, security: str) -> None:
    tunnel = hosts.connect(security=security)
    sources = [FakeQemu.connect(tunnel.outgoing.socket()) for _ in range(3)]
    there = [source.send_pattern(index, 1 << 20) for index, source in enumerate(sources)]
    all_heard(*hosts.brokers)
    with FakeQemu.listen(tunnel.incoming.socket()) as listener:
        destinations = [listener.accept() for _ in range(3)]
    for index, destination in enumerate(destinations):
        destination.recv_pattern(index, 1 << 20)
        there[index].result(10)
    end_both(*zip(sources, destinations))
    tunnel.assert_done()


def test_destination_never_binds(workdir: Path) -> None:
    source, destination = Broker(workdir, "s"), Broker(workdir, "d", args=("--qemu-timeout=1",))
    with hosts_of(source, destination):
        incoming = destination.prepare()
        outgoing = source.outgoing(incoming.ticket or "")
        with FakeQemu.connect(outgoing.socket()) as qemu:
            qemu.send(b"QEVM")
            assert_learns(qemu)
        for migration in (incoming, outgoing):
            found = assert_failed(migration, "failed", "SocketUnavailable")
            assert incoming.socket() in found["ErrorMessage"]


# ---- The bandwidth limit ----


class Counter(threading.Thread):
    """Takes all that comes to a destination, and counts."""

    def __init__(self, qemu: FakeQemu) -> None:
        super().__init__(daemon=True)
        self.qemu = qemu
        self.taken = 0
        self.start()

    def run(self) -> None:
        buffer = bytearray(1 << 16)
        while n := self.qemu.sock.recv_into(buffer):
            self.taken += n


def rates_of(counters: list[Counter], seconds: float) -> list[float]:
    """What each takes, in bytes/s, over the next seconds."""
    begin, before = time.monotonic(), [counter.taken for counter in counters]
    time.sleep(seconds)
    after, took = [counter.taken for counter in counters], time.monotonic() - begin
    return [(b - a) / took for a, b in zip(before, after)]


@SECURITIES
@pytest.mark.load_sensitive(reason="measures rates and answer times")
def test_bandwidth_limit_is_shared(hosts: Hosts, security: str) -> None:
    """Four channels that would send for ever share it evenly; the return path does not know of it."""
    limit = 12_000_000
    incoming = hosts.prepare(security=security)
    tunnel = Tunnel(hosts.start(incoming, bandwidth_limit=("t", limit)), incoming)
    with ExitStack() as stack:
        pairs = [tunnel.open_channel() for _ in range(5)]
        for pair in pairs:
            for qemu in pair:
                stack.enter_context(qemu)
        asking, asked = pairs.pop()
        futures = [source.send_pattern(index, 64 << 20) for index, (source, _) in enumerate(pairs)]
        counters = [Counter(destination) for _, destination in pairs]
        time.sleep(0.5)  # the first sip

        answers: list[float] = []

        def ask() -> None:
            while len(answers) < 100:
                begin = time.monotonic()
                asked.send(b"?" * 8)
                asking.recv_exact(8)
                answers.append(time.monotonic() - begin)
                time.sleep(0.01)

        asker = threading.Thread(target=ask, daemon=True)
        asker.start()
        rates = rates_of(counters, 2)
        asker.join(10)
        assert sum(rates) <= limit * 1.05, rates
        assert all(rate == pytest.approx(sum(rates) / 4, rel=0.2) for rate in rates), rates
        assert sorted(answers)[50] < 0.01 and max(answers) < 0.2, sorted(answers)

        assert_held(lambda: sum(rates_of(counters, 1)), limit)
        tunnel.outgoing.set_limit(2 * limit)
        time.sleep(0.2)
        assert_held(lambda: sum(rates_of(counters, 1)), 2 * limit)
        tunnel.outgoing.set_limit(0)
        for future in futures:
            future.result(30)
        for source, _ in pairs:
            source.shut_wr()
        for counter in counters:
            counter.join(20)
            assert counter.taken == 64 << 20
        for _, destination in pairs:
            destination.shut_wr()
        end_both((asking, asked))
        tunnel.assert_done()


@SECURITIES
@pytest.mark.load_sensitive(reason="measures a rate")
def test_bandwidth_limit_on_a_channel_that_was_idle(hosts: Hosts, security: str) -> None:
    tunnel = hosts.connect(security=security)
    source, destination = tunnel.open_channel()
    with source, destination:
        for limit in (12_000_000, 24_000_000):
            tunnel.outgoing.set_limit(limit)
            took = []  # it is never faster; slower only while the machine is busy
            while not took or took[-1] > 0.6 and len(took) < 4:
                time.sleep(0.1)
                sent = source.send_pattern(1, limit // 2)
                begin = time.monotonic()
                destination.recv_pattern(1, limit // 2)
                took.append(time.monotonic() - begin)
                sent.result(10)
            assert min(took) == pytest.approx(0.5, rel=0.2), took
        end_both((source, destination))
    tunnel.assert_done()


def test_connections_that_end_at_once(hosts: Hosts) -> None:
    """A QEMU that closes at once, again and again: each is a channel that ends; the migration goes on."""
    tunnel = hosts.connect()
    first = tunnel.open_channel()
    with FakeQemu.listen(tunnel.incoming.socket(), backlog=16) as listener:
        for _ in range(20):
            FakeQemu.connect(tunnel.outgoing.socket()).close()
            accept_and_close(listener)
    end_both(first)
    tunnel.assert_done()


def accept_and_close(listener: FakeListener) -> None:
    with listener.accept() as qemu:
        assert qemu.recv_until_eof() == b""
