# SPDX-License-Identifier: LGPL-2.1-or-later
"""A VM's name finds only migrations of the caller's own: another user may have given a VM the same name."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from vmlib.broker import BusError, Migration
from vmlib.ctl import CANCELLED, DENIED, FAILED, TIMED_OUT, USAGE, Result, ctl
from vmlib.hostile_broker import ID, hostile, run_at
from vmlib.monitor import Monitor
from vmlib.polkit import Polkit, SystemBroker, available
from vmlib.users import NOBODY, User, as_user
from vmlib.wire import Ticket

root = pytest.mark.skipif(not available(), reason="needs root and polkitd")
LONG = {"expire-usec": ("t", 86_400_000_000)}


def paused_monitor(path: Path) -> Monitor:
    """Of a QEMU whose post-copy is paused; it only notes what it is told."""
    return Monitor(path, {"query-migrate": {"status": "postcopy-paused"}}, moves=False)


class Host:
    """A broker that root and another user share."""

    def __init__(self, workdir: Path, broker: SystemBroker, mallory: User) -> None:
        self.workdir, self.broker, self.mallory = workdir, broker, mallory

    def ctl(self, *words: str, stdin: str = "") -> Result:
        return ctl(None, *words, stdin=stdin, env=self.broker.environment())

    def theirs(self, vm: str, role: str = "incoming") -> Migration:
        """A migration of the other user's, for this VM."""
        if role == "incoming":
            return self.mallory.prepare(vm, LONG)
        ticket = Ticket(security=0, expiry=time.time_ns() // 1000 + 3_000_000_000)
        return self.mallory.outgoing(ticket.encode(), vm, LONG)

    def end(self, *migrations: Migration) -> None:
        for migration in migrations:
            migration.cancel()
            migration.wait_finished()


@pytest.fixture
def host(workdir: Path) -> Iterator[Host]:
    workdir.chmod(0o755)
    with SystemBroker(workdir, "a") as broker, Polkit(workdir, broker.bus), User(broker, NOBODY) as mallory:
        yield Host(workdir, broker, mallory)


def listen_there(migration: Migration) -> None:
    """What its owner can do: puts a socket of their own where the broker's is, in the directory that is theirs."""
    path = migration.socket()

    def swap() -> str:
        if os.path.exists(path):
            os.unlink(path)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            os.chmod(path, 0o777)
        return "done"

    assert as_user(NOBODY, swap) == "done"


@root
@pytest.mark.parametrize("role", ["outgoing", "incoming"])
def test_resume_by_name_uses_no_other_users_socket(host: Host, role: str) -> None:
    """Root's own one has ended, and another user has taken the name: QEMU hears nothing of that user's socket."""
    theirs = host.theirs("own-web1", role)
    listen_there(theirs)
    verb = "send" if role == "outgoing" else "receive"
    with paused_monitor(host.workdir / "qmp") as monitor:
        result = host.ctl(verb, "own-web1", f"--qmp={monitor.path}", "--resume")
        assert theirs.id in result.err and f"of user {NOBODY}" in result.err, result
        assert not [uri for uri in monitor.sockets() if theirs.id in uri], monitor.told
        for name in (theirs.id, f"{role}/{theirs.id}"):
            host.ctl(verb, name, f"--qmp={monitor.path}", "--resume").fails(DENIED, theirs.id, f"user {NOBODY}")
        assert not [uri for uri in monitor.sockets() if theirs.id in uri], monitor.told
    for entry in host.broker.list():
        if entry[4] == 0:
            host.ctl("cancel", entry[0])
    host.end(theirs)


@root
@pytest.mark.parametrize("role", ["outgoing", "incoming"])
def test_resume_of_ones_own(host: Host, role: str) -> None:
    """By name and by id, with another user's of the same name beside it where the broker lets that be."""
    own = host.broker.prepare("own-web1", LONG) if role == "incoming" else host.broker.outgoing(
        Ticket(security=0, expiry=time.time_ns() // 1000 + 3_000_000_000).encode(), "own-web1", LONG)
    try:
        theirs = [host.theirs("own-web1", role)]
    except BusError:
        theirs = []
    with paused_monitor(host.workdir / "qmp") as monitor:
        monitor.answers["query-migrate"] = {"status": "postcopy-paused"}
        # Each waits 10 s at the source, and a name is looked up alike in both roles.
        for name in ("own-web1", own.id, f"{role}/{own.id}") if role == "incoming" else ("own-web1",):
            monitor.told.clear()
            if role == "incoming":
                host.ctl("receive", name, f"--qmp={monitor.path}", "--resume").succeeds()
            else:  # the monitor never says that it goes on
                monitor.answers["migrate"] = {}
                monitor.answers["query-migrate"] = {"status": "postcopy-paused"}
                host.ctl("send", name, f"--qmp={monitor.path}", "--resume").fails(FAILED, "paused")
            assert monitor.sockets() == [f"unix:{own.socket()}"]
    host.end(own, *theirs)


@root
def test_socket_that_was_replaced(host: Host) -> None:
    """The migration is the caller's, but where its socket is another user can put one: QEMU is not told."""
    place = host.workdir / "place"
    place.mkdir()
    own = host.broker.outgoing(Ticket(security=0, expiry=time.time_ns() // 1000 + 3_000_000_000).encode(), "web1",
                               {**LONG, "sockets": ("a{ss}", {"migrate": f"{place}/s"})})
    with paused_monitor(host.workdir / "qmp") as monitor:
        words = ["send", "web1", f"--qmp={monitor.path}", "--resume"]
        os.chown(place, NOBODY, NOBODY)
        host.ctl(*words).fails(DENIED, f"{place}/s", f"user {NOBODY}")
        os.chown(place, 0, 0)
        place.chmod(0o777)
        host.ctl(*words).fails(DENIED, f"{place}/s")
        place.chmod(0o755)
        os.chown(place / "s", NOBODY, NOBODY)
        host.ctl(*words).fails(DENIED, f"{place}/s", f"user {NOBODY}")
        os.unlink(place / "s")
        host.ctl(*words).fails(FAILED, f"{place}/s", "No such file")
        assert monitor.sockets() == []
    host.end(own)


@root
def test_verbs_by_name_leave_others_alone(host: Host) -> None:
    theirs = host.theirs("own-web1")
    for words in (["wait"], ["status"], ["show"], ["watch"], ["cancel"], ["forget"], ["limit", "1M"]):
        host.ctl(words[0], "own-web1", *words[1:]).fails(
            FAILED, f"incoming/{theirs.id}", f"of user {NOBODY}", "waiting", "by its id")
    assert theirs.get("State") == "waiting" and theirs.get("BandwidthLimit") == 0
    host.ctl("limit", theirs.id, "1M").succeeds()
    assert theirs.get("BandwidthLimit") == 1 << 20
    host.ctl("cancel", f"incoming/{theirs.id}").succeeds()
    theirs.wait_finished()
    host.ctl("wait", theirs.id).fails(CANCELLED)


@root
def test_wait_tells_of_ones_own(host: Host) -> None:
    own = host.broker.prepare("own-web9", {"expire-usec": ("t", 100_000)})
    own.wait_finished()
    theirs = host.theirs("own-web9")
    host.end(theirs)
    result = host.ctl("wait", "own-web9").fails(TIMED_OUT, own.id)
    assert result.out == f"{own.id} own-web9 timed-out\n"
    assert host.ctl("show", "own-web9", "-p", "Id", "--value").out == f"{own.id}\n"


def test_several_of_a_name_are_listed(workdir: Path) -> None:
    """A broker that has more than one of a name, role and owner: none is taken."""
    with hostile(workdir, "web1", "active") as broker, paused_monitor(workdir / "qmp") as monitor:
        ids = ["00000000000000a1", "00000000000000a2"]
        broker.rows = lambda: [broker.row("outgoing", id) for id in ids]  # type: ignore[method-assign]
        words = [*(f"outgoing/{id}" for id in ids), f"of user {os.getuid()}", "active"]
        for verb in (["wait"], ["watch"], ["cancel"], ["limit", "1M"], ["forget"]):
            run_at(broker, verb[0], "web1", *verb[1:]).fails(USAGE, *words)
        run_at(broker, "send", "web1", f"--qmp={monitor.path}", "--resume").fails(USAGE, *words)
        assert len([line for line in run_at(broker, "status", "web1").out.splitlines() if "State" in line]) == 2
        assert monitor.sockets() == [] and not set(broker.calls) & {"Cancel", "Set", "Forget", "Wait"}


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_paths_of_a_hostile_broker(workdir: Path, resume: list[str]) -> None:
    """send, receive and migrate with monitors, for which what the broker says is the tunnel's."""
    status = "postcopy-paused" if resume else "none"
    with hostile(workdir) as broker, Monitor(workdir / "near", {"query-migrate": {"status": status}}, moves=False) as near, \
            Monitor(workdir / "far", {"query-migrate": {"status": status}, "query-status": {"status": "inmigrate"}},
                    moves=False) as far:
        broker.ticket = "vmferry1:AAAA"
        roles = ("incoming", "outgoing")
        broker.rows = lambda: [broker.row(role, vm="vm") for role in roles]  # type: ignore[method-assign]
        run_at(broker, "receive", "vm", f"--qmp={far.path}", *resume).fails(FAILED)
        run_at(broker, "send", "vm", f"--qmp={near.path}", *resume).fails(FAILED)
        run_at(broker, "migrate", "vm", broker.bus.address, f"--qmp={near.path}", f"--dst-qmp={far.path}",
            *resume).fails(FAILED)
        assert near.sockets() == far.sockets() == []
        run_at(broker, "cancel", ID, f"--qmp={near.path}")
        broker.state = "active"
        run_at(broker, "cancel", ID, f"--qmp={near.path}")
