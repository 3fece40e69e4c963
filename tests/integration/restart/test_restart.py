# SPDX-License-Identifier: LGPL-2.1-or-later
"""A broker that is restarted, or killed, in the middle of things: no migration notices.

test_store.py has what is wrong with the FD store, test_killed.py deaths at any instant.
"""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from vmlib.broker import MIGRATION, BusError, Client, Migration, wait_until
from vmlib.calls import answer, post
from vmlib.fake_qemu import FakeQemu
from vmlib.hosts import Hosts, Tunnel, assert_failed, cancel_and_wait, files, kill, starttime
from vmlib.managed import ManagedBroker
from vmlib.proxy import Proxy
from vmlib.quiet import all_heard
from vmlib.restarts import brokers, carry

SEC = 1_000_000
CONSTANT = ("Id", "Vm", "Role", "Security", "OwnerUid", "Sockets", "StartedUsec")
how = pytest.mark.parametrize("how", ["restart", "crash"])


# ---- Each state ----


@pytest.mark.parametrize("security", ["tls", "plain"])
@how
@pytest.mark.story
def test_active(managed: Hosts, security: str, how: str) -> None:
    """Bytes on their way, brokers away and back on both sides, again and again."""
    tunnel = managed.connect(security=security)
    size, step, at = 24 << 20, 3 << 20, 0
    before = [migration.get_all() for migration in tunnel.ends]
    source, destination = tunnel.open_channel()
    with source, destination:
        there = source.send_pattern(1, size, shut=True)
        back = destination.send_pattern(2, size, shut=True)
        for broker in (*managed.brokers, *managed.brokers):
            getattr(broker, how)()
            destination.recv_pattern(1, step, offset=at)
            at += step
        for migration, was in zip(tunnel.ends, before):
            now = migration.get_all()
            assert [now[name] for name in (*CONSTANT, "Peer")] == [was[name] for name in (*CONSTANT, "Peer")]
            assert now["State"] == "active"
            wait_until(lambda: migration.get("BytesSent") > 0 and migration.get("BytesReceived") > 0, "bytes move")
        assert destination.recv_pattern_until_eof(1, offset=at) == size - at
        assert source.recv_pattern_until_eof(2) == size
        there.result(20), back.result(20)
    assert tunnel.assert_done() == (size + 1, size)


@how
def test_waiting(managed: Hosts, how: str) -> None:
    """A ticket is good after a restart: the port, the gate and the helper that holds its secret are the same."""
    incoming = managed.prepare()
    endpoints = managed.destination.get("Endpoints")
    getattr(managed.destination, how)()
    assert managed.destination.get("Endpoints") == endpoints
    outgoing = managed.start(incoming)
    for migration in (incoming, outgoing):
        migration.wait_state("connected")
    # The source's listener is there, too, and what connects while nobody is has to wait.
    source_broker, destination_broker = brokers(managed)
    path = outgoing.socket()
    source_broker.kill_only()
    with FakeQemu.listen(incoming.socket()) as listener, FakeQemu.connect(path) as source:
        sent = source.send_pattern(1, 1 << 20, shut=True)
        source_broker.start()
        getattr(managed.destination, how)()
        with listener.accept() as destination:
            assert destination.recv_pattern_until_eof(1) == 1 << 20
            destination.shut_wr()
            assert source.recv_until_eof() == b""
        sent.result(20)
    Tunnel(outgoing, incoming).assert_done()


@how
def test_connected(managed: Hosts, how: str) -> None:
    tunnel = managed.connect()
    for broker in managed.brokers:
        getattr(broker, how)()
    for migration in tunnel.ends:
        assert migration.get("State") == "connected"
    with FakeQemu.listen(tunnel.incoming.socket()) as listener, FakeQemu.connect(tunnel.outgoing.socket()) as source:
        source.send(b"")
        pool = ThreadPoolExecutor(1)
        accepted = pool.submit(listener.accept)
        source.send_pattern(1, 1 << 20, shut=True).result(20)
        with accepted.result(20) as destination:
            assert destination.recv_pattern_until_eof(1) == 1 << 20
            destination.shut_wr()
            assert source.recv_until_eof() == b""
        pool.shutdown()
    tunnel.assert_done()


@pytest.mark.parametrize("after", ["restart", "start"])
def test_result_while_away(managed: Hosts, after: str) -> None:
    """Both brokers are dead when it ends: its result, and what was counted, is there when they are back."""
    tunnel = managed.connect()
    source, destination = tunnel.open_channel()
    with source, destination:
        for broker in brokers(managed):
            broker.kill_only()
        carry(source, destination, 4 << 20)
    for broker in brokers(managed):
        broker.start()
        if after == "restart":
            broker.restart()
    for migration in tunnel.ends:
        assert migration.wait() == "done"
    assert tunnel.assert_done() == ((4 << 20) + 1, 4 << 20)
    # And it stays readable, channels and all, over another one.
    before = [migration.get_all() for migration in tunnel.ends]
    for broker in brokers(managed):
        broker.crash()
    assert [migration.get_all() for migration in tunnel.ends] == before
    assert [channel[4] for channel in before[0]["Channels"]] == ["closed"]
    assert tunnel.incoming.wait() == "done"


def test_failure_while_away(managed: Hosts) -> None:
    """Why it failed is not lost either."""
    tunnel = managed.connect()
    source, destination = tunnel.open_channel()
    managed.source.kill_only()  # type: ignore[attr-defined]
    with source, destination:
        tunnel.incoming.cancel()
        tunnel.incoming.wait_finished()
    managed.source.start()
    properties = assert_failed(tunnel.outgoing, "cancelled", "Cancelled")
    assert "at the destination by uid" in properties["ErrorMessage"]
    with pytest.raises(BusError, match="Cancelled at the destination"):
        tunnel.outgoing.wait()


@how
def test_wait_again(managed: Hosts, how: str) -> None:
    """Who waits is cut off with the broker, and may wait again."""
    tunnel = managed.connect()
    client = Client(managed.source.bus)
    serial = post(client, tunnel.outgoing.path, MIGRATION, "Wait")
    client.get(tunnel.outgoing.path, MIGRATION, "Id")  # is answered after the broker has read the call
    getattr(managed.source, how)()
    assert answer(client, serial)[0] == "org.freedesktop.DBus.Error.NoReply"
    client.close()
    tunnel.outgoing.cancel()
    with pytest.raises(BusError, match="Cancelled"):
        tunnel.outgoing.wait()
    for migration in tunnel.ends:
        migration.wait_finished()


# ---- What it knows of them ----


@how
def test_options(managed: Hosts, how: str) -> None:
    incoming = managed.prepare(client_id=("s", "again"), expected_bytes=("t", 4 << 20))
    ticket = incoming.ticket
    getattr(managed.destination, how)()
    assert managed.prepare(client_id=("s", "again"), expected_bytes=("t", 4 << 20)).ticket == ticket
    outgoing = managed.start(incoming, bandwidth_limit=("t", 1 << 20), expected_bytes=("t", 4 << 20))
    outgoing.wait_state("connected")
    outgoing.set_limit(2 << 20)
    for broker in managed.brokers:
        getattr(broker, how)()
    assert (outgoing.get("BandwidthLimit"), incoming.get("BandwidthLimit")) == (2 << 20, 0)
    tunnel = Tunnel(outgoing, incoming)
    source, destination = tunnel.open_channel()
    with source, destination:
        begin = time.monotonic()
        carry(source, destination, 4 << 20)
        assert time.monotonic() - begin > 1.5  # the limit holds
        assert outgoing.get("Progress") in (0.99, 1.0)
    tunnel.assert_done()
    with pytest.raises(BusError) as used:  # the ticket has served, and is nowhere any more
        managed.prepare(client_id=("s", "again"))
    assert used.value.short == "TicketUsed"


def test_no_secret_is_kept(managed: Hosts) -> None:
    """Only where a client-id may ask for it again, only until it has served, and in memory that is sealed."""
    _, destination = brokers(managed)

    def records() -> list[bytes]:
        found = []
        for name, fd in destination.store.entries():
            if "-state." in name:
                assert os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:")
                with pytest.raises(OSError):
                    os.pwrite(fd, b"x", 0)
                found.append(os.pread(fd, 1 << 20, 0))
        return found

    incoming = managed.prepare()
    assert len(records()) == 1 and b"vmferry1:" not in records()[0]
    other = managed.prepare("web2", client_id=("s", "again"))
    assert sum(b"vmferry1:" in record for record in records()) == 1
    outgoing = managed.start(other, "web2")
    outgoing.wait_state("connected")
    wait_until(lambda: not any(b"vmferry1:" in record for record in records()), "the ticket is gone")
    for migration in (incoming, outgoing, other):
        if migration.get("State") != "finished":
            migration.cancel()
            migration.wait_finished()
    other.wait_finished()


@how
@pytest.mark.load_sensitive(reason="a time-out of 7 s, to 2 s")
def test_expiry(managed: Hosts, how: str) -> None:
    """The time does not begin anew."""
    incoming = managed.prepare(expire_usec=("t", 7 * SEC))
    begin = time.monotonic()
    for _ in range(3):
        getattr(managed.destination, how)()
    assert_failed(incoming, "timed-out", "TimedOut")
    assert 6 < time.monotonic() - begin < 9


def test_tie_to_caller(managed: Hosts) -> None:
    """A caller that goes while the broker is away takes his migration with him; one that stays does not."""
    stays, goes = Client(managed.destination.bus), Client(managed.destination.bus)
    made = [client.call("/org/vmferry/Broker1", "org.vmferry.Broker1", "PrepareIncoming", "sa{sv}", vm,
                        {"tie-to-caller": ("b", True)})[0] for client, vm in ((stays, "stays"), (goes, "goes"))]
    _, destination = brokers(managed)
    destination.kill_only()
    goes.close()
    destination.start()
    assert_failed(Migration(destination, made[1]), "cancelled", "Cancelled")
    assert Migration(destination, made[0]).get("State") == "waiting"
    stays.close()
    assert_failed(Migration(destination, made[0]), "cancelled", "Cancelled")


# ---- Requests under way ----


def test_qemu_that_listens_late(managed: Hosts) -> None:
    """The destination's broker dies while it tries to reach QEMU; the next one tries on."""
    tunnel = managed.connect()
    with FakeQemu.connect(tunnel.outgoing.socket()) as source:
        sent = source.send_pattern(1, 1 << 20, shut=True)
        all_heard(*managed.brokers)
        for _ in range(3):
            managed.destination.crash()  # type: ignore[attr-defined]
        with FakeQemu.listen(tunnel.incoming.socket()) as listener, listener.accept() as destination:
            assert destination.recv_pattern_until_eof(1) == 1 << 20
            destination.shut_wr()
            assert source.recv_until_eof() == b""
        sent.result(20)
    tunnel.assert_done()


def test_supplied(managed: Hosts) -> None:
    """Connections that managers bring, before and after. Those that nobody has needed yet wait in the helpers: the
    service manager keeps no open file of another process."""
    incoming = managed.prepare(endpoints=("as", []), sockets=("a{ss}", {"migrate": ""}))
    outgoing = managed.start(incoming, sockets=("a{ss}", {"migrate": ""}))
    for broker in managed.brokers:
        broker.crash()  # type: ignore[attr-defined]
    pairs = [socket.socketpair() for _ in range(2)]
    for a, b in pairs:
        outgoing.call("AddPeerConnection", "h", a)
        incoming.call("AddPeerConnection", "h", b)
    for migration in (incoming, outgoing):
        migration.wait_state("connected")
    qemu, far = socket.socketpair()
    incoming.call("AddStream", "sh", "migrate", far)
    with pytest.raises(BusError, match="given before"):
        incoming.call("AddStream", "sh", "migrate", far)
    for broker in managed.brokers:
        broker.crash()  # type: ignore[attr-defined]
        assert not any(what in name for name in broker.store.names()  # type: ignore[attr-defined]
                       for what in ("-sock.", "-ours.", "-peer."))
    far.close()
    (handle,) = outgoing.call("OpenStream", "s", "migrate")
    with FakeQemu(socket.socket(fileno=handle.to_raw_fd())) as source, FakeQemu(qemu) as destination:
        carry(source, destination)
    for a, b in pairs:
        a.close()
        b.close()
    Tunnel(outgoing, incoming).assert_done()


@pytest.mark.parametrize("security", ["tls", "plain"])
def test_cut_while_away(managed: Hosts, security: str) -> None:
    """The network goes while both brokers are dead: the source's helper asks for a connection that nobody can make."""
    incoming = managed.prepare(security=security)
    with Proxy(managed.destination.get("Endpoints")[0]) as proxy:
        outgoing = managed.start(incoming, endpoint=("s", proxy.endpoint))
        outgoing.wait_state("connected")
        tunnel = Tunnel(outgoing, incoming)
        source, destination = tunnel.open_channel()
        with source, destination:
            there = source.send_pattern(1, 8 << 20, shut=True)
            destination.recv_pattern(1, 1 << 20)
            for broker in brokers(managed):
                broker.kill_only()
            proxy.cut()
            time.sleep(0.5)
            for broker in brokers(managed):
                broker.start()
            assert destination.recv_pattern_until_eof(1, offset=1 << 20) == 7 << 20
            destination.shut_wr()
            assert source.recv_until_eof() == b""
            there.result(20)
        tunnel.assert_done()
        assert outgoing.get("Reconnects") == 1


# ---- Ends ----


@how
def test_cancel(managed: Hosts, how: str) -> None:
    tunnel = managed.connect()
    source, destination = tunnel.open_channel()
    with source, destination:
        for broker in managed.brokers:
            getattr(broker, how)()
        tunnel.outgoing.cancel()
        tunnel.assert_failed("cancelled", "Cancelled")


@how
def test_helper_dies(managed: Hosts, how: str) -> None:
    """Before its broker is back, and after."""
    for before in (True, False):
        tunnel, bystander = managed.connect(f"web{before}"), managed.connect(f"other{before}")
        source_broker, _ = brokers(managed)
        victim = helper_of(source_broker, tunnel.outgoing, bystander.outgoing)
        if before:
            source_broker.kill_only()
            kill(victim)
            source_broker.start()
        else:
            getattr(source_broker, how)()
            kill(victim)
        properties = assert_failed(tunnel.outgoing, "failed", "HelperFailed")
        assert "Its helper " in properties["ErrorMessage"]
        cancel_and_wait(tunnel.incoming)  # it would wait for a source that comes back
        assert bystander.outgoing.get("State") == "connected"
        bystander.outgoing.cancel()
        for migration in bystander.ends:
            migration.wait_finished()


def helper_of(broker: ManagedBroker, migration: Migration, other: Migration) -> int:
    """The older of the two of a source broker."""
    assert migration.get("StartedUsec") < other.get("StartedUsec")
    return min(broker.helpers(), key=starttime)


def test_gate_dies_while_away(managed: Hosts) -> None:
    incoming = managed.prepare()
    _, destination = brokers(managed)
    destination.kill_only()
    kill(min(destination.helpers(), key=starttime))  # the gate comes before the first relay
    destination.start()
    outgoing = managed.start(incoming)
    for migration in (incoming, outgoing):
        migration.wait_state("connected")
    outgoing.cancel()
    for migration in (incoming, outgoing):
        migration.wait_finished()


def test_stop(managed: Hosts) -> None:
    """`systemctl stop` empties the store: helpers go on without a broker to their end, and a new one begins anew. What
    became of them only their unit's log says (tests/system/test_restart.py): here their stderr was the broker's."""
    tunnel = managed.connect()
    managed.connect("idle")
    source, destination = tunnel.open_channel()
    with source, destination:
        for broker in brokers(managed):
            assert broker.stop() == 0
            broker.store.clear()
        carry(source, destination, 8 << 20)
    for broker in brokers(managed):
        wait_until(lambda: not broker.helpers(), f"no helpers of {broker.name}")
        broker.start()
        assert broker.list() == []
        assert files(broker) == []
