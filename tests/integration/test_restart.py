# SPDX-License-Identifier: LGPL-2.1-or-later
"""A broker that is restarted, or killed, in the middle of things: no migration notices."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import FAILED
from vmlib.broker import BusError, Client, Migration, wait_until
from vmlib.fake_qemu import FakeQemu
from vmlib.hosts import Hosts, Tunnel, assert_failed, cancel_and_wait, files, kill, starttime
from vmlib.managed import ManagedBroker
from vmlib.proxy import Proxy

SEC = 1_000_000
CONSTANT = ("Id", "Vm", "Role", "Security", "OwnerUid", "Sockets", "StartedUsec")
how = pytest.mark.parametrize("how", ["restart", "crash"])


def assert_empty(broker: ManagedBroker) -> None:
    """Nothing of any migration is left in the store."""
    wait_until(lambda: not broker.store.entries(), f"an empty store: {broker.store.names()}", 10)
    assert broker.store.refused == []


@pytest.fixture
def managed(workdir: Path, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    pair = Hosts(workdir, broker=ManagedBroker)
    yield pair
    close(pair, request.node.stash.get(FAILED, False))


def close(pair: Hosts, failed: bool) -> None:
    """At the end nothing may be left, in the store neither."""
    try:
        if not failed:
            pair.assert_nothing_left()
            for broker in brokers(pair):
                assert_empty(broker)
    except BaseException:
        failed = True
        raise
    finally:
        for broker in brokers(pair):
            if failed:
                print(f"---- vmferryd {broker.name}\n{broker.log()}")
            broker.close()


def brokers(pair: Hosts) -> tuple[ManagedBroker, ManagedBroker]:
    source, destination = pair.brokers
    assert isinstance(source, ManagedBroker) and isinstance(destination, ManagedBroker)
    return source, destination


def carry(source: FakeQemu, destination: FakeQemu, size: int = 1 << 20) -> None:
    """Both ways, to the end."""
    there = source.send_pattern(1, size, shut=True)
    back = destination.send_pattern(2, size, shut=True)
    assert destination.recv_pattern_until_eof(1) == size
    assert source.recv_pattern_until_eof(2) == size
    there.result(20), back.result(20)


# ---- Each state ----


@pytest.mark.parametrize("security", ["tls", "plain"])
@how
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
            assert now["BytesSent"] > 0 and now["BytesReceived"] > 0
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
    failed: list[str] = []

    def wait() -> None:
        try:
            tunnel.outgoing.wait()
        except BusError as error:
            failed.append(error.name)

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.2)
    getattr(managed.source, how)()
    waiter.join(20)
    assert failed == ["org.freedesktop.DBus.Error.NoReply"]
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
        time.sleep(0.3)
        for _ in range(3):
            managed.destination.crash()  # type: ignore[attr-defined]
        with FakeQemu.listen(tunnel.incoming.socket()) as listener, listener.accept() as destination:
            assert destination.recv_pattern_until_eof(1) == 1 << 20
            destination.shut_wr()
            assert source.recv_until_eof() == b""
        sent.result(20)
    tunnel.assert_done()


def test_supplied(managed: Hosts) -> None:
    """Connections that managers bring, before and after; those that nobody has needed yet are not lost."""
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
    far.close()
    for broker in managed.brokers:
        broker.crash()  # type: ignore[attr-defined]
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
    """`systemctl stop` empties the store: helpers go on without a broker to their end, and a new one begins anew."""
    tunnel, idle = managed.connect(), managed.connect("idle")
    source, destination = tunnel.open_channel()
    with source, destination:
        for broker in brokers(managed):
            assert broker.stop() == 0
            broker.store.clear()
        carry(source, destination, 8 << 20)
    for broker in brokers(managed):
        wait_until(lambda: not broker.helpers(), f"no helpers of {broker.name}")
        assert f"Migration {tunnel.incoming.id} ended without its broker: done" in broker.log()
        assert broker is managed.destination or f"Migration {idle.incoming.id} ended without its broker: failed" in broker.log()
        broker.start()
        assert broker.list() == []
        assert files(broker) == []


# ---- A store that is not as it should be ----


def memory(data: bytes, sealed: bool = True) -> int:
    import fcntl

    fd = os.memfd_create("vmferry-state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    if sealed:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0xF)
    return fd


@pytest.mark.parametrize("what", ["garbage", "empty", "cut", "unsealed", "newer", "another's", "link", "missing"])
def test_garbage(managed: Hosts, what: str) -> None:
    """It ends that migration, with all that it has, and no other."""
    tunnel, bystander = managed.connect(), managed.connect("other")
    source_broker, _ = brokers(managed)
    source_broker.kill_only()
    store = source_broker.store
    entries = dict(store.entries())
    mine = f"out-{tunnel.outgoing.id}"
    name = next(name for name in entries if name.startswith(f"{mine}-state."))
    record = os.pread(entries[name], 1 << 20, 0)
    changed = {
        "garbage": os.urandom(1000),
        "empty": b"",
        "cut": record[:-3],
        "unsealed": record,
        "newer": record[:10] + b"\x02\0" + record[12:],
        "another's": record.replace(bytes.fromhex(tunnel.outgoing.id)[::-1], b"\1" * 8),
    }
    if what in changed:
        store.remove(name)
        store.put(name, memory(changed[what], sealed=what != "unsealed"))
    elif what == "link":
        store.remove(f"{mine}-link")
    else:
        store.remove(name)
    store.put("whatever", os.open("/dev/null", os.O_RDONLY))
    store.put("out-nonsense-link", os.open("/dev/null", os.O_RDONLY))
    store.put("in-0123456789abcdef-link", os.open("/dev/null", os.O_RDONLY))
    store.put("x" * 200, os.open("/dev/null", os.O_RDONLY))
    source_broker.start()
    if what == "link":
        assert "FD store" in assert_failed(tunnel.outgoing, "failed", "HelperFailed")["ErrorMessage"]
    else:
        with pytest.raises(BusError):
            tunnel.outgoing.get("State")
        assert what == "missing" or f"'{name}' cannot be used" in source_broker.log()
    properties = tunnel.incoming.wait_finished()
    if what != "link":
        assert "lost in a restart" in properties["ErrorMessage"]
    assert not any(name.startswith(mine) and "state" not in name for name in store.names())
    assert not {"whatever", "out-nonsense-link", "in-0123456789abcdef-link", "x" * 200} & set(store.names())
    source, destination = bystander.open_channel()
    with source, destination:
        carry(source, destination)
    bystander.assert_done()


def test_record_of_a_newer_version(managed: Hosts) -> None:
    """What an upgraded broker adds is passed over by an older one, which was put back in its place."""
    tunnel = managed.connect()
    source_broker, _ = brokers(managed)
    source_broker.kill_only()
    store = source_broker.store
    name, fd = next((name, fd) for name, fd in store.entries() if "-state." in name)
    record = os.pread(fd, 1 << 20, 0) + b"\xfe\xff\x03\0new"
    record = record[:8] + b"\x07\0" + record[10:12] + len(record).to_bytes(4, "little") + record[16:]
    store.remove(name)
    store.put(name, memory(record))
    source_broker.start()
    source, destination = tunnel.open_channel()
    with source, destination:
        carry(source, destination)
    tunnel.assert_done()


def test_store_is_full(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the limit is known a migration that would not outlive a restart is refused."""
    monkeypatch.setenv("FDSTORE", "12")
    with ManagedBroker(workdir, "d", limit=12) as broker:
        first = broker.prepare("a")
        second = broker.prepare("b", {"client-id": ("s", "b")})
        with pytest.raises(BusError, match="FileDescriptorStoreMax=") as full:
            broker.prepare("c")
        assert full.value.short == "LimitExceeded"
        broker.crash()
        assert [migration.get("State") for migration in (first, second)] == ["waiting"] * 2
        second.cancel()
        second.wait_finished()
        broker.prepare("c").cancel()  # finished ones make room
        first.cancel()
        for row in broker.list():
            Migration(broker, row[5]).wait_finished()
        assert broker.store.refused == []


def test_store_takes_less_than_it_says(workdir: Path) -> None:
    """systemd closes what is too much, and tells nobody: that migration is lost with the broker, others are not."""
    with ManagedBroker(workdir, "d", limit=7) as broker:
        first = broker.prepare("a")
        second = broker.prepare("b")
        broker.store.drain()
        assert broker.store.refused != []
        broker.crash()
        assert first.get("State") == "waiting"
        assert second.path not in [row[5] for row in broker.list()] or second.get("State") == "finished"
        first.cancel()
        first.wait_finished()


# ---- At any instant ----


class Life:
    """A whole migration, whose calls are repeated as a manager would whom the broker has died under."""

    def __init__(self, pair: Hosts, number: int, size: int) -> None:
        self.pair, self.vm, self.size = pair, f"vm{number}", size
        self.client_id = ("s", self.vm)

    def __call__(self) -> tuple[int, int]:
        incoming = self._make(lambda: self.pair.prepare(self.vm, client_id=self.client_id, expire_usec=("t", 300 * SEC)))
        outgoing = self._make(lambda: self.pair.start(incoming, self.vm, client_id=self.client_id,
                                                      expire_usec=("t", 300 * SEC)))
        paths = [self._again(lambda: migration.socket()) for migration in (incoming, outgoing)]
        with FakeQemu.listen(paths[0], timeout=120) as listener:
            source = FakeQemu.connect(paths[1], timeout=120)
            with source:
                there = source.send_pattern(1, self.size, shut=True)
                with listener.accept() as destination:
                    back = destination.send_pattern(2, self.size, shut=True)
                    assert destination.recv_pattern_until_eof(1) == self.size
                    assert source.recv_pattern_until_eof(2) == self.size
                    there.result(60), back.result(60)
        for migration in (incoming, outgoing):
            found = self._again(lambda: self._finished(migration))
            assert (found["Result"], found["ErrorMessage"]) == ("done", ""), found
            assert found["BytesSent"] == found["BytesReceived"] == self.size
        return self.size, self.size

    def _finished(self, migration: Migration) -> dict[str, object]:
        client = Client(migration.broker.bus)
        try:
            end = time.monotonic() + 60
            while True:
                found = client.get_all(migration.path, "org.vmferry.Migration1")
                if found["State"] == "finished" or time.monotonic() > end:
                    return found
                time.sleep(0.05)
        finally:
            client.close()

    _make = staticmethod(lambda call: Life._again(call))

    @staticmethod
    def _again(call):  # type: ignore[no-untyped-def]
        end = time.monotonic() + 60
        while True:
            try:
                return call()
            except (BusError, OSError, EOFError, ConnectionError) as error:
                if isinstance(error, BusError) and not error.name.startswith("org.freedesktop.DBus.Error."):
                    raise
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)


class Own(Hosts):
    """Calls on connections of their own, for they come from many threads and over many brokers."""

    def prepare(self, vm: str = "web1", security: str = "plain", **options):  # type: ignore[no-untyped-def,override]
        return self._call(self.destination, "PrepareIncoming", "sa{sv}", vm, {"security": ("s", security), **named(options)})

    def start(self, incoming, vm: str = "web1", **options):  # type: ignore[no-untyped-def,override]
        return self._call(self.source, "StartOutgoing", "ssa{sv}", vm, incoming.ticket, named(options))

    @staticmethod
    def _call(broker, member, signature, *args):  # type: ignore[no-untyped-def]
        client = Client(broker.bus)
        try:
            reply = client.call("/org/vmferry/Broker1", "org.vmferry.Broker1", member, signature, *args)
        finally:
            client.close()
        return Detached(broker, *reply)


class Detached(Migration):
    def socket(self, stream: str = "migrate") -> str:
        client = Client(self.broker.bus)
        try:
            return client.get(self.path, "org.vmferry.Migration1", "Sockets")[stream]
        finally:
            client.close()


def named(options):  # type: ignore[no-untyped-def]
    return {key.replace("_", "-"): value for key, value in options.items()}


@pytest.mark.parametrize("n, rounds", [(1, 30), (50, 6)])
def test_killed_at_any_instant(workdir: Path, n: int, rounds: int) -> None:
    """Both brokers die at random instants of the lives of migrations, from the first call to the last result."""
    rng = random.Random(int(os.environ.get("VMFERRY_SEED", "1")))
    limits = ("--max-migrations-per-user=200",)
    pair = Own(workdir, broker=ManagedBroker, args=limits)
    try:
        with ThreadPoolExecutor(n) as pool:
            deaths, number = 0, 0
            while deaths < rounds:
                lives = [pool.submit(Life(pair, number + i, 256 << 10)) for i in range(n)]
                number += n
                while not all(life.done() for life in lives):
                    time.sleep(rng.uniform(0, 0.25 if n == 1 else 1))
                    broker = rng.choice(brokers(pair))
                    (broker.restart if rng.random() < 0.2 else broker.crash)()
                    deaths += 1
                for life in lives:
                    life.result()
    except BaseException:
        close(pair, True)
        raise
    close(pair, False)
