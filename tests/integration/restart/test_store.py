# SPDX-License-Identifier: LGPL-2.1-or-later
"""A restarted broker whose FD store is not as it should be."""

from __future__ import annotations

import fcntl
import os
import resource
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from vmlib.broker import BusError, Migration, wait_until
from vmlib.hosts import Hosts, assert_failed
from vmlib.managed import ManagedBroker
from vmlib.restarts import brokers, carry
from vmlib.supplied import NO_PATH


def memory(data: bytes, sealed: bool = True) -> int:
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
    wait_until(lambda: not any(name.startswith(mine) and "state" not in name for name, _ in store.entries()), "it has nothing")
    nobodys = {"whatever", "out-nonsense-link", "in-0123456789abcdef-link", "x" * 200}
    wait_until(lambda: not nobodys & {name for name, _ in store.entries()}, "what is nobody's is gone")
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


def test_large_store(managed: Hosts) -> None:
    """As many as FileDescriptorStoreMax= has: what is not known takes no more than its share of time."""
    tunnel = managed.connect()
    source_broker, _ = brokers(managed)
    source_broker.kill_only()
    store, mine = source_broker.store, f"out-{tunnel.outgoing.id}"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        number = next(int(name.rpartition(".")[2]) for name in store.names() if name.startswith(f"{mine}-state."))
        for i in range(1000):  # newer records of a real one that are no good; and what is nobody's
            store.put(f"{mine}-state.{number + 1 + i}", memory(b""))
        for i in range(4096 - len(store.names())):
            store.put(f"in-{i // 4 + 1:016x}-" + ("state.1", "link", "sock.0.1", "page")[i % 4], memory(b""))
        assert len(store.entries()) == 4096
        source_broker.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert tunnel.outgoing.get("State") == "connected"
    wait_until(lambda: all(name.startswith((mine, "gate", "listen")) for name, _ in store.entries()), "all else is gone")
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


def test_sockets_need_no_room(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many sockets are brought, what changes of a migration can still be stored."""
    monkeypatch.setenv("FDSTORE", "12")
    with ManagedBroker(workdir, "d", limit=12) as broker, ExitStack() as stack:
        migration = broker.prepare("a", {"sockets": NO_PATH})
        broker.store.drain()
        before = broker.store.names()
        for _ in range(12):
            stack.enter_context(closing(migration.call("OpenStream", "s", "migrate")[0]))
        broker.store.drain()
        assert broker.store.names() == before and "The FD store is full" not in broker.log()
        migration.set_limit(12345)
        broker.crash()
        assert broker.store.refused == []
        assert migration.get("BandwidthLimit") == 12345
        migration.cancel()
        migration.wait_finished()
