# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bytes through two brokers and two helpers, with stand-ins for the QEMUs: every way in, both ways, the ledgers."""

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from vmlib.broker import Broker, BusError, Migration, wait_until
from vmlib.fake_qemu import FakeQemu
from vmlib.hosts import Hosts, Tunnel, kill
from vmlib.quiet import all_heard
from vmlib.rates import assert_held
from vmlib.signals import Signals

SIZE = (4 << 20) + 12345
BACK = (1 << 20) + 77

both = pytest.mark.parametrize("security", ["tls", "plain"])


def carry(source: FakeQemu, destination: FakeQemu, there: int = SIZE, back: int = BACK) -> None:
    """Both directions at once; each ends by itself."""
    sent = source.send_pattern(1, there, shut=True)
    answered = destination.send_pattern(2, back, shut=True)
    assert destination.recv_pattern_until_eof(1) == there
    assert source.recv_pattern_until_eof(2) == back
    sent.result(10)
    answered.result(10)
    source.close()
    destination.close()


@both
@pytest.mark.story
def test_both_directions(hosts: Hosts, security: str) -> None:
    tunnel = hosts.connect(security=security)
    source, destination = tunnel.open_channel()
    carry(source, destination)
    assert tunnel.assert_done() == (SIZE + 1, BACK)
    for end in tunnel.ends:
        assert end.get("Security") == security
        assert end.wait() == "done"


@both
def test_each_direction_ends_by_itself(hosts: Hosts, security: str) -> None:
    tunnel = hosts.connect(security=security)
    source, destination = tunnel.open_channel()
    with source, destination:
        source.shut_wr()
        assert destination.recv_until_eof() == b""
        all_heard(*hosts.brokers)
        destination.send(b"after the source's end")
        assert source.recv_exact(22) == b"after the source's end"
        assert tunnel.incoming.get("State") == "active"
        destination.shut_wr()
        assert source.recv_until_eof() == b""
    tunnel.assert_done()


@both
def test_destination_ends_first(hosts: Hosts, security: str) -> None:
    """As QEMU does: SHUT on the return path, and then the source closes."""
    tunnel = hosts.connect(security=security)
    source, destination = tunnel.open_channel()
    with source, destination:
        destination.shut_wr()
        assert source.recv_until_eof() == b""
        sent = source.send_pattern(3, SIZE, shut=True)
        assert destination.recv_pattern_until_eof(3) == SIZE
        sent.result(10)
    assert tunnel.assert_done() == (SIZE + 1, 0)


def test_nothing_is_read_that_has_no_room(hosts: Hosts) -> None:
    """A destination that doesn't read stops the source; nothing is lost when it goes on."""
    tunnel = hosts.connect()
    source, destination = tunnel.open_channel()
    with source, destination:
        size = 64 << 20
        sent = source.send_pattern(1, size, shut=True)
        held = wait_until_still(lambda: tunnel.outgoing.get("BytesSent"))
        assert held < size // 2
        assert not sent.done()
        assert destination.recv_pattern_until_eof(1) == size
        destination.shut_wr()
        sent.result(10)
    tunnel.assert_done()


def wait_until_still(read: Any) -> int:
    """Waits until a counter has not moved for half a second."""
    value, since = read(), time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.05)
        if (now := read()) != value:
            value, since = now, time.monotonic()
    return value


def test_silence_is_no_loss(hosts: Hosts) -> None:
    tunnel = hosts.connect()
    source, destination = tunnel.open_channel()
    with source, destination:
        time.sleep(17 if os.environ.get("VMFERRY_LONG") else 3)
        source.send(b"still here")
        assert destination.recv_exact(10) == b"still here"
        wait_until(lambda: tunnel.outgoing.get("RoundTripUsec") > 0, "it is measured")
        source.shut_wr()
        destination.shut_wr()
    tunnel.assert_done()


def test_several_channels(hosts: Hosts) -> None:
    """They come to the destination in the source's order, and each keeps its own bytes."""
    tunnel = hosts.connect()
    sources: list[FakeQemu] = []
    with FakeQemu.listen(tunnel.incoming.socket(), backlog=8) as listener:
        for number in range(5):
            sources.append(FakeQemu.connect(tunnel.outgoing.socket()))
            sources[-1].send(bytes([number]))
        destinations = [listener.accept() for _ in sources]
    futures = [source.send_pattern(number, SIZE, shut=True) for number, source in enumerate(sources)]
    for number, destination in enumerate(destinations):
        assert destination.recv_exact(1) == bytes([number])
        assert destination.recv_pattern_until_eof(number) == SIZE
        destination.close()
    for future in futures:
        future.result(10)
    wait_until(lambda: [one[:4] for one in sorted(tunnel.outgoing.get("Channels"))] ==
               [("migrate", number, SIZE + 1, 0) for number in range(5)], "each is counted by itself")
    for source in sources:
        source.close()
    assert tunnel.assert_done() == (5 * (SIZE + 1), 0)


def test_silent_channel_is_connected(hosts: Hosts) -> None:
    """A channel on which nothing comes (the preempt channel) reaches the destination all the same."""
    tunnel = hosts.connect()
    with FakeQemu.listen(tunnel.incoming.socket()) as listener:
        with FakeQemu.connect(tunnel.outgoing.socket()) as source, listener.accept() as destination:
            destination.send(b"server first")
            assert source.recv_exact(12) == b"server first"
            source.shut_wr()
            destination.shut_wr()
            assert destination.recv_until_eof() == b""
    tunnel.assert_done()


# The ways in.


@both
def test_sockets_of_the_caller(hosts: Hosts, workdir: Path, security: str) -> None:
    near, far = workdir / "near", workdir / "far"
    with FakeQemu.listen(far) as listener:
        incoming = hosts.prepare(security=security, sockets=("a{ss}", {"migrate": str(far)}))
        outgoing = hosts.start(incoming, sockets=("a{ss}", {"migrate": str(near)}))
        assert (outgoing.get("Sockets"), incoming.get("Sockets")) == ({"migrate": str(near)}, {"migrate": str(far)})
        source = FakeQemu.connect(near)
        source.send(b"x")
        destination = listener.accept()
        destination.recv_exact(1)
        carry(source, destination)
    Tunnel(outgoing, incoming).assert_done()
    wait_until(lambda: not near.exists(), "vmferry removes the socket that it made")


@both
def test_open_stream(hosts: Hosts, security: str) -> None:
    tunnel = hosts.connect(security=security)
    destination = open_stream(tunnel.incoming)
    source = open_stream(tunnel.outgoing)
    carry(source, destination)
    assert tunnel.assert_done() == (SIZE, BACK)


def test_open_stream_is_taken_late(hosts: Hosts) -> None:
    """The destination's end is opened when the source's bytes wait already."""
    tunnel = hosts.connect()
    source = open_stream(tunnel.outgoing)
    source.send(b"early")
    all_heard(*hosts.brokers)
    destination = open_stream(tunnel.incoming)
    assert destination.recv_exact(5) == b"early"
    carry(source, destination)
    tunnel.assert_done()


def open_stream(migration: Migration, stream: str = "migrate") -> FakeQemu:
    """OpenStream(); the socket is blocking for its new owner, as QEMU expects it."""
    (handle,) = migration.call("OpenStream", "s", stream)
    sock = socket.socket(fileno=handle.to_raw_fd())
    assert os.get_blocking(sock.fileno())
    return FakeQemu(sock)


def test_open_stream_is_refused(hosts: Hosts) -> None:
    tunnel = hosts.connect()
    for end in tunnel.ends:
        with pytest.raises(BusError, match="no stream 'disks'") as refused:
            end.call("OpenStream", "s", "disks")
        assert refused.value.short == "NoSuchStream"
    tunnel.outgoing.cancel()
    for end in tunnel.ends:
        end.wait_finished()
        with pytest.raises(BusError, match="finished"):
            end.call("OpenStream", "s", "migrate")


def test_destination_binds_late(hosts: Hosts) -> None:
    tunnel = hosts.connect()
    source = FakeQemu.connect(tunnel.outgoing.socket())
    sent = source.send_pattern(1, SIZE, shut=True)
    all_heard(*hosts.brokers)
    with FakeQemu.listen(tunnel.incoming.socket()) as listener, listener.accept() as destination:
        assert destination.recv_pattern_until_eof(1) == SIZE
    sent.result(10)
    source.close()
    tunnel.assert_done()


def test_source_connects_before_the_peer_is_there(hosts: Hosts) -> None:
    """The source's socket is there from the start, and what is written to it waits."""
    incoming = hosts.prepare()
    (gate, relay) = sorted(hosts.destination.helpers())
    for pid in (gate, relay):
        os.kill(pid, 19)
    outgoing = hosts.start(incoming)
    source = FakeQemu.connect(outgoing.socket())
    sent = source.send_pattern(1, SIZE, shut=True)
    all_heard(hosts.source)
    assert outgoing.get("State") == "waiting"
    for pid in (gate, relay):
        os.kill(pid, 18)
    with FakeQemu.listen(incoming.socket()) as listener, listener.accept() as destination:
        assert destination.recv_pattern_until_eof(1) == SIZE
    sent.result(10)
    source.close()
    Tunnel(outgoing, incoming).assert_done()


# The ways between the hosts.


@both
def test_unix_endpoint(workdir: Path, security: str) -> None:
    with Hosts(workdir, listen=f"unix:{workdir}/port") as hosts:
        tunnel = hosts.connect(security=security)
        assert tunnel.outgoing.get("Peer") == f"unix:{workdir}/port"
        carry(*tunnel.open_channel())
        tunnel.assert_done()
        hosts.assert_nothing_left()
        wait_until(lambda: not (workdir / "port").exists(), "the port is closed")


def test_vsock_endpoint(workdir: Path) -> None:
    local = 1  # VMADDR_CID_LOCAL
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((local, socket.VMADDR_PORT_ANY))
        except OSError:
            pytest.skip("kernel: no vsock loopback (CONFIG_VSOCKETS_LOOPBACK)")
        port = probe.getsockname()[1]
    with Hosts(workdir, listen=f"vsock:{local}:{port}") as hosts:
        tunnel = hosts.connect()
        carry(*tunnel.open_channel())
        tunnel.assert_done()


def test_ipv6_endpoint(workdir: Path) -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("kernel: no IPv6")
    with Hosts(workdir, listen="tcp:[::1]:0") as hosts:
        tunnel = hosts.connect()
        assert tunnel.outgoing.get("Peer").startswith("tcp:[::1]:")
        carry(*tunnel.open_channel())
        tunnel.assert_done()


def test_dual_stack_endpoint(workdir: Path) -> None:
    """tcp:* listens for both; the ticket has this host's addresses, and one that works is found."""
    with Hosts(workdir, listen="tcp:*:0") as hosts:
        incoming = hosts.prepare()
        port = hosts.destination.get("Endpoints")[0].rsplit(":", 1)[1]
        outgoing = hosts.start(incoming, endpoint=("s", f"tcp:127.0.0.1:{port}"))
        tunnel = Tunnel(outgoing, incoming)
        outgoing.wait_state("connected")
        carry(*tunnel.open_channel())
        tunnel.assert_done()


def test_second_endpoint_is_tried(hosts: Hosts) -> None:
    """The first one of the ticket leads nowhere."""
    first = hosts.prepare("other")
    port = hosts.destination.get("Endpoints")[0].rsplit(":", 1)[1]
    incoming = hosts.prepare(endpoints=("as", ["tcp:127.0.0.1:1", f"tcp:127.0.0.1:{port}"]))
    outgoing = hosts.start(incoming)
    outgoing.wait_state("connected")
    outgoing.cancel()
    first.cancel()
    for migration in (first, incoming, outgoing):
        migration.wait_finished()


# The bandwidth limit.


@pytest.mark.load_sensitive(reason="measures rates")
def test_bandwidth_limit_is_held(hosts: Hosts) -> None:
    """Within 5 % over a second or so; set at the start, changed while bytes flow, and taken away."""
    incoming = hosts.prepare()
    outgoing = hosts.start(incoming, bandwidth_limit=("t", 4_000_000))
    outgoing.wait_state("connected")
    tunnel = Tunnel(outgoing, incoming)
    source, destination = tunnel.open_channel()
    with source, destination:
        size = 256 << 20
        sent = source.send_pattern(1, size)
        received = destination_reads(destination)
        assert_held(lambda: measure(outgoing), 4_000_000)
        with Signals(hosts.source.bus) as signals:
            outgoing.set_limit(12_000_000)
            signals.wait(lambda _: signals.changes(outgoing.path, "BandwidthLimit") == [12_000_000], "the change")
        assert outgoing.get("BandwidthLimit") == 12_000_000
        assert_held(lambda: measure(outgoing), 12_000_000)
        assert outgoing.get("Rate") == pytest.approx(12_000_000, rel=0.2)
        outgoing.set_limit(1_000_000)
        assert_held(lambda: measure(outgoing), 1_000_000)
        outgoing.set_limit(0)
        sent.result(30)
        source.shut_wr()
        received.result(30)
        destination.shut_wr()
    tunnel.assert_done()


def measure(migration: Migration) -> float:
    """Bytes per second, over a second and a half, once a change has had its time to take hold."""
    time.sleep(0.3)
    before, since = migration.get("BytesSent"), time.monotonic()
    time.sleep(1.5)
    after, now = migration.get("BytesSent"), time.monotonic()
    return (after - before) / (now - since)


def destination_reads(destination: FakeQemu) -> Any:
    """Reads all beside what follows."""

    def run() -> None:
        while destination.sock.recv(1 << 20):
            pass

    pool = ThreadPoolExecutor(1)
    future = pool.submit(run)
    pool.shutdown(wait=False)
    return future


# Many.


def test_two_migrations_at_once(hosts: Hosts) -> None:
    """They share a port and nothing else: what ends one doesn't touch the other."""
    first, second = hosts.connect("web1"), hosts.connect("web2", "plain")
    ends = first.open_channel(), second.open_channel()
    sent = ends[1][0].send_pattern(9, SIZE, shut=True)
    first.outgoing.cancel()
    first.assert_failed("cancelled", "Cancelled")
    assert ends[1][1].recv_pattern_until_eof(9) == SIZE
    sent.result(10)
    for pair in ends:
        for qemu in pair:
            qemu.close()
    second.assert_done()


def test_hundred_migrations(hosts: Hosts) -> None:
    """One after the other, some of which fail: nothing adds up."""
    for number in range(100 if os.environ.get("VMFERRY_LONG") else 20):
        tunnel = hosts.connect(f"vm{number}", ("tls", "plain")[number % 2])
        source, destination = tunnel.open_channel()
        if number % 5 == 4:
            tunnel.incoming.cancel()
            tunnel.assert_failed("cancelled", "Cancelled")
            source.close()
            destination.close()
        else:
            carry(source, destination, 100_000, 1000)
            tunnel.assert_done()
        for end in tunnel.ends:
            end.call("Forget")
    hosts.assert_nothing_left()


def test_dead_gate_is_replaced(hosts: Hosts) -> None:
    incoming = hosts.prepare()
    gate = min(hosts.destination.helpers())
    kill(gate)
    outgoing = hosts.start(incoming)
    tunnel = Tunnel(outgoing, incoming)
    outgoing.wait_state("connected")
    carry(*tunnel.open_channel())
    tunnel.assert_done()
    assert "The gate was killed by SIGKILL" in hosts.destination.log()


def test_port_is_open_only_while_it_is_needed(hosts: Hosts) -> None:
    broker: Broker = hosts.destination
    assert broker.helpers() == []
    incoming = hosts.prepare()
    host, port = broker.get("Endpoints")[0].removeprefix("tcp:").rsplit(":", 1)
    with socket.create_connection((host, int(port)), 30):
        pass
    outgoing = hosts.start(incoming)
    carry(*Tunnel(outgoing, incoming).open_channel())
    Tunnel(outgoing, incoming).assert_done()

    def refuses() -> bool:
        try:
            socket.create_connection((host, int(port)), 30).close()
        except ConnectionRefusedError:
            return True
        return False

    wait_until(refuses, "the port is closed, and with it what the gate has of it")
