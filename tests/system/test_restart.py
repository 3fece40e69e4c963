# SPDX-License-Identifier: LGPL-2.1-or-later
"""Brokers that are restarted, killed or stopped under the real service manager, in the middle of migrations.

VMFERRY_LONG=1 makes it more of each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from vmlib.broker import BusError, Migration, wait_until
from vmlib.fake_qemu import FakeListener, FakeQemu
from vmlib.migration import CONVERGE, NEVER_CONVERGE, Pair
from vmlib.nspawn import DROPIN, Host, TwoHosts

UNIT = "vmferryd.service"
LONG = bool(os.environ.get("VMFERRY_LONG"))
TIMES = 10 if LONG else 2  # restarts, and kills, of each broker under one guest
AT_ONCE = 50 if LONG else 10
SECONDS = 20 if LONG else 10  # that each of them takes at least
CRASHES = 20 if LONG else 6
CONSTANT = ("Id", "Vm", "Role", "Security", "OwnerUid", "Sockets", "StartedUsec", "HelperUnit")


def stored(host: Host) -> int:
    return int(host.show(UNIT, "NFileDescriptorStore"))


def restart(host: Host) -> None:
    host.systemctl("restart", UNIT)


def kill(host: Host) -> None:
    pid = host.broker_pid
    host.systemctl("kill", "--kill-who=main", "--signal=KILL", UNIT)
    wait_until(lambda: host.broker_pid not in (0, pid) and host.show(UNIT, "ActiveState") == "active",
               f"another vmferryd on {host.name}")


def daemon(verb: str) -> Callable[[Host], None]:
    def act(host: Host) -> None:
        host.systemctl(verb)

    return act


def stop(host: Host) -> None:
    host.systemctl("stop", UNIT)
    assert not host.broker_pid


def all_of(migration: Migration) -> dict[str, Any]:
    """All properties."""
    return migration.broker.client.get_all(migration.path, "org.vmferry.Migration1")


def get(migration: Migration, name: str) -> Any:
    return migration.broker.client.get(migration.path, "org.vmferry.Migration1", name)


def everything(migration: Migration) -> dict[str, Any]:
    """What never changes."""
    found = all_of(migration)
    return {name: found[name] for name in CONSTANT}


def socket_of(host: Host, migration: Migration) -> str:
    return str(host.outside(get(migration, "Sockets")["migrate"]))


@contextmanager
def clean(hosts: TwoHosts) -> Iterator[None]:
    """At the end nothing is left: no helper but the spare, no file, nothing in the store, nothing that has failed."""
    for host in hosts:
        stop(host)
    yield
    for host in hosts:
        for row in host.broker.list():
            Migration(host.broker, row[5]).call("Forget")  # type: ignore[arg-type]
        wait_until(lambda: stored(host) == 0, f"an empty store of {host.name}: {stored(host)}")
        wait_until(lambda: len(host.units("vmferry-helper@*")) <= 1, f"no helper but the spare on {host.name}")
        assert host.run("find", "/run/vmferry/incoming", "/run/vmferry/outgoing", "-mindepth", "1",
                        check=False).stdout == ""
        assert host.failed_units() == []
        stop(host)


@pytest.mark.parametrize("mode", ["precopy", "postcopy"])
def test_live_guest(needs_postcopy: None, hosts: TwoHosts, mode: str) -> None:
    """Restarts, kills, daemon-reload and daemon-reexec on each host while a guest migrates."""
    workdir = hosts.shared / f"restart-{mode}"
    workdir.mkdir()
    with clean(hosts), Pair(workdir, 64, {"return-path": True},
                            prefixes=(hosts.a.enter_light, hosts.b.enter_light)) as pair:
        pair.source.wait_sweeps(1)
        incoming = hosts.b.broker.prepare()
        outgoing = hosts.a.broker.outgoing(incoming.ticket or "")
        if mode == "postcopy":
            pair.enable_postcopy()
            pair.source.set_parameters({"max-postcopy-bandwidth": 1 << 20})  # it is to last
        pair.source.set_parameters({**NEVER_CONVERGE, "max-bandwidth": 8 << 20})
        pair.listen(f"unix:{get(incoming, 'Sockets')['migrate']}")
        pair.begin(f"unix:{get(outgoing, 'Sockets')['migrate']}")
        pair.wait_transferred(1 << 20)
        ends = ((hosts.a, outgoing), (hosts.b, incoming))
        wait_until(lambda: all(get(migration, "State") == "active" for _, migration in ends), "both are active")
        before = [everything(migration) for _, migration in ends]
        for act in (*[restart] * TIMES, *[kill] * TIMES, daemon("daemon-reload"), daemon("daemon-reexec"), restart, kill):
            for host in hosts:
                act(host)
            assert pair.source.query_migrate()["status"] == "active"
        assert [everything(migration) for _, migration in ends] == before
        assert [get(migration, "State") for _, migration in ends] == ["active"] * 2
        if mode == "postcopy":
            pair.begin_postcopy()
            for act in (*[restart] * TIMES, *[kill] * TIMES):
                for host in hosts:
                    act(host)
            assert pair.source.query_migrate()["status"] == "postcopy-active"
            assert [everything(migration) for _, migration in ends] == before
            pair.source.set_parameters({"max-postcopy-bandwidth": 0})
        else:
            pair.source.set_parameters(CONVERGE)
        pair.wait_completed(120)
        pair.assert_unharmed()
        for _, migration in ends:
            wait_until(lambda: get(migration, "State") == "finished", "it is finished")
            assert get(migration, "Result") == "done"
        assert get(outgoing, "BytesSent") == get(incoming, "BytesReceived") > 0
        assert get(outgoing, "BytesReceived") == get(incoming, "BytesSent")


def test_many_at_once(hosts: TwoHosts) -> None:
    """Each with bytes on its way in both directions."""
    n, size = AT_ONCE, 1 << 20
    with clean(hosts), ExitStack() as stack:
        pairs, ends = [], []
        options = {"security": ("s", "plain"), "expire-usec": ("t", 600_000_000)}
        for i in range(n):
            incoming = hosts.b.broker.prepare(f"vm{i}", options)
            outgoing = hosts.a.broker.outgoing(incoming.ticket or "", f"vm{i}",
                                               {"bandwidth-limit": ("t", size // SECONDS)})
            listener = stack.enter_context(listen_at(hosts.b, incoming))
            source = stack.enter_context(FakeQemu.connect(socket_of(hosts.a, outgoing), timeout=120))
            there = source.send_pattern(i, size, shut=True)
            destination = stack.enter_context(listener.accept())
            pairs.append((source, destination, there, destination.send_pattern(1000 + i, size, shut=True)))
            ends += [outgoing, incoming]
        before = [everything(migration) for migration in ends]
        for act in (*[restart] * 2, *[kill] * 2, daemon("daemon-reload"), daemon("daemon-reexec"), kill):
            for host in hosts:
                act(host)
        assert [everything(migration) for migration in ends] == before
        for i, (source, destination, there, back) in enumerate(pairs):
            assert destination.recv_pattern_until_eof(i) == size
            assert source.recv_pattern_until_eof(1000 + i) == size
            there.result(60), back.result(60)
        for migration in ends:
            wait_until(lambda: get(migration, "State") == "finished", "it is finished")
            found = all_of(migration)
            assert (found["Result"], found["BytesSent"], found["BytesReceived"]) == ("done", size, size)


def listen_at(host: Host, migration: Migration) -> FakeListener:
    return FakeQemu.listen(socket_of(host, migration), timeout=120)


def test_result_while_stopping(hosts: TwoHosts) -> None:
    """A crash loop: the broker dies again and again as soon as it is there, while the migration ends."""
    with clean(hosts):
        incoming = hosts.b.broker.prepare("web1", {"security": ("s", "plain")})
        outgoing = hosts.a.broker.outgoing(incoming.ticket or "")
        with listen_at(hosts.b, incoming) as listener, \
                FakeQemu.connect(socket_of(hosts.a, outgoing)) as source:
            there = source.send_pattern(1, 1 << 20, shut=True)
            with listener.accept() as destination:
                for _ in range(CRASHES):
                    for host in hosts:
                        host.systemctl("kill", "--kill-who=main", "--signal=KILL", UNIT, check=False)
                assert destination.recv_pattern_until_eof(1) == 1 << 20
                destination.shut_wr()
                assert source.recv_until_eof() == b""
            there.result(20)
        for host in hosts:
            wait_until(lambda: host.broker_pid and host.show(UNIT, "ActiveState") == "active", "it is back")
        for migration in (outgoing, incoming):
            wait_until(lambda: get(migration, "Result") == "done", "it is done")


def test_stop(hosts: TwoHosts) -> None:
    """systemd 252 forgets what is stored: the helpers go on to their end by themselves, and nothing is lost."""
    if hosts.a.show(UNIT, "FileDescriptorStorePreserve") == "yes":
        return stop_and_start(hosts)
    with clean(hosts):
        incoming = hosts.b.broker.prepare("web1", {"security": ("s", "plain")})
        outgoing = hosts.a.broker.outgoing(incoming.ticket or "")
        with listen_at(hosts.b, incoming) as listener, \
                FakeQemu.connect(socket_of(hosts.a, outgoing)) as source:
            source.send_pattern(1, 1 << 20).result(20)
            with listener.accept() as destination:
                for host in hosts:
                    stop(host)
                there = source.send_pattern(1, 8 << 20, offset=1 << 20, shut=True)
                back = destination.send_pattern(2, 1 << 20, shut=True)
                assert destination.recv_pattern_until_eof(1) == 9 << 20
                assert source.recv_pattern_until_eof(2) == 1 << 20
                there.result(20), back.result(20)
        for host, migration in ((hosts.a, outgoing), (hosts.b, incoming)):
            wait_until(lambda: host.units("vmferry-helper@*") == [], "no helper is left")
            said = f"Migration {migration.id} ended without its broker: done"
            wait_until(lambda: said in host.journal_text("--grep", "ended without", "-n", "50"), "its helper says so", 30)
            with pytest.raises(BusError):
                get(migration, "State")
            assert host.broker.list() == []


def stop_and_start(hosts: TwoHosts) -> None:
    """From systemd 254 on what is stored stays: one migration in the middle of its bytes, one that nobody has begun.

    ("tools/test trixie" has such a systemd.) It stays while the unit is loaded, so something must refer to that.
    """
    with clean(hosts):
        incoming = hosts.b.broker.prepare("web1", {"security": ("s", "plain")})
        outgoing = hosts.a.broker.outgoing(incoming.ticket or "")
        waiting = hosts.b.broker.prepare("web2", {"expire-usec": ("t", 600_000_000)})
        with listen_at(hosts.b, incoming) as listener, FakeQemu.connect(socket_of(hosts.a, outgoing)) as source:
            source.send_pattern(1, 1 << 20).result(20)
            with listener.accept() as destination:
                for host in hosts:
                    stop(host)
                    assert stored(host) > 0
                there = source.send_pattern(1, 1 << 20, offset=1 << 20)
                destination.recv_pattern(1, 2 << 20)
                there.result(20)
                for host in hosts:
                    host.systemctl("start", UNIT)
                wait_until(lambda: get(outgoing, "State") == get(incoming, "State") == "active", "both are active")
                source.send_pattern(1, 1 << 20, offset=2 << 20, shut=True).result(20)
                destination.recv_pattern(1, 1 << 20, offset=2 << 20)
                destination.shut_wr()
                assert source.recv_until_eof() == b""
        for migration in (outgoing, incoming):
            wait_until(lambda: get(migration, "Result") == "done", "it is done")
        late = hosts.a.broker.outgoing(waiting.ticket or "", "web2")
        wait_until(lambda: get(late, "State") == get(waiting, "State") == "connected", "its ticket still serves")
        late.call("Cancel")
        for migration in (late, waiting):
            wait_until(lambda: get(migration, "State") == "finished", "it is finished")


def test_watchdog(hosts: TwoHosts) -> None:
    """A broker that hangs is aborted by systemd, and followed by one that goes on."""
    with hosts.b.configured(DROPIN, "[Service]\nWatchdogSec=2s\n"), clean(hosts):
        incoming = hosts.b.broker.prepare("web1", {"security": ("s", "plain"), "expire-usec": ("t", 600_000_000)})
        before = everything(incoming) if get(incoming, "HelperUnit") else None
        pid = hosts.b.broker_pid
        hosts.b.systemctl("kill", "--kill-who=main", "--signal=STOP", UNIT)
        wait_until(lambda: hosts.b.broker_pid not in (0, pid) and hosts.b.show(UNIT, "ActiveState") == "active",
                   "the watchdog", 90)
        assert get(incoming, "State") == "waiting"
        assert before is None or everything(incoming) == before
        outgoing = hosts.a.broker.outgoing(incoming.ticket or "")
        wait_until(lambda: get(outgoing, "State") == get(incoming, "State") == "connected", "they are connected")
        outgoing.call("Cancel")
        for migration in (outgoing, incoming):
            wait_until(lambda: get(migration, "State") == "finished", "it is finished")

