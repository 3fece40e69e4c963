# SPDX-License-Identifier: LGPL-2.1-or-later
"""A user who may make migrations names paths: the root broker does for him only what he could do himself."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from vmlib import polkit as harness
from vmlib.broker import BusError, Migration, wait_until
from vmlib.fake_qemu import FakeQemu
from vmlib.managed import ManagedBroker
from vmlib.peer import PlainPeer
from vmlib.polkit import Polkit, SystemBroker
from vmlib.users import DAEMON, NOBODY, User, being
from vmlib.wire import Ticket

NOT_ALLOWED = "org.vmferry.Error.PathNotAllowed"
PLAIN: dict[str, tuple[str, Any]] = {"security": ("s", "plain")}

pytestmark = pytest.mark.skipif(not harness.available(), reason="needs root and polkitd")


class Stage:
    """A broker, a user who may make migrations on it, a directory of his, and a socket that is not his."""

    def __init__(self, workdir: Path, stack: ExitStack, make: type[SystemBroker] = SystemBroker, **broker: Any) -> None:
        self.workdir = workdir
        self.stack = stack
        self.allowed = workdir / "users" / str(NOBODY)
        self.allowed.mkdir(parents=True)
        os.chown(self.allowed, NOBODY, NOBODY)
        config = f"[Broker]\nAllowedDirectories={workdir}/users/%U\n"
        self.broker = stack.enter_context(make(workdir, "b", config=config, **broker))
        self.polkit = stack.enter_context(Polkit(workdir, self.broker.bus))
        self.user = stack.enter_context(User(self.broker, NOBODY))
        self.treasure = self.listen(workdir / "treasure")
        self.path = Path(self.treasure.getsockname())

    def listen(self, path: Path, uid: int = 0) -> socket.socket:
        sock = self.stack.enter_context(socket.socket(socket.AF_UNIX))
        with being(uid):
            sock.bind(str(path))
            sock.listen()
        sock.setblocking(False)
        self.stack.callback(path.unlink, missing_ok=True)
        return sock

    def untouched(self, sock: socket.socket | None = None) -> None:
        """Nobody has connected to what is not the user's."""
        with pytest.raises(BlockingIOError):
            (sock or self.treasure).accept()

    def refused(self, call: Any, *args: Any, error: str = NOT_ALLOWED) -> str:
        with pytest.raises(BusError) as info:
            call(*args)
        assert info.value.name == error, info.value
        assert not self.broker.list()
        self.untouched()
        return info.value.text

    def arrives(self, migration: Migration) -> None:
        """The source has a channel for it, whose QEMU has said something: the broker looks for the local QEMU."""
        peer = self.stack.enter_context(PlainPeer.source(Ticket.decode(migration.ticket or "")))
        self.stack.enter_context(peer.open(0)).sendall(b"memory")

    def fails(self, migration: Migration, error: str, *words: str) -> None:
        found = migration.wait_finished()
        assert found["ErrorName"] == f"org.vmferry.Error.{error}", found
        for word in words:
            assert word in found["ErrorMessage"], found["ErrorMessage"]


class RestartedBroker(ManagedBroker, SystemBroker):
    pass


@pytest.fixture
def stage(workdir: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(workdir, stack)


def at(path: Path | str) -> dict[str, tuple[str, Any]]:
    return {**PLAIN, "sockets": ("a{ss}", {"migrate": str(path)})}


def sent(path: Path | str) -> dict[str, tuple[str, Any]]:
    return {"sockets": ("a{ss}", {"migrate": str(path)})}


def ticket(*endpoints: str) -> str:
    return Ticket(endpoints=endpoints or ("tcp:127.0.0.1:1",)).encode()


def waiting() -> str:
    """A ticket whose peer connections a manager is to bring: none comes, and the migration waits."""
    return Ticket(endpoints=()).encode()


# ---- To connect to ----


def test_outside(stage: Stage) -> None:
    """Also where the name only begins like an allowed one."""
    for path in (stage.path, f"{stage.allowed}x/s", stage.workdir / "users" / str(DAEMON) / "s", stage.allowed):
        text = stage.refused(stage.user.prepare, "own", at(path))
        assert str(path) in text and "AllowedDirectories=" in text and str(NOBODY) in text


@pytest.mark.parametrize("what, words", [
    ("dots", "leads out"), ("link", "symbolic link"), ("linked directory", "symbolic link"),
    ("root's socket", "does not belong"), ("another's socket", "does not belong"),
    ("another's directory", "does not belong"), ("another's process", f"runs as uid 0, not as uid {NOBODY}"),
])
def test_to_connect_to(stage: Stage, what: str, words: str) -> None:
    path, sock = stage.allowed / "qemu.sock", stage.treasure
    if what == "dots":
        path = stage.allowed / ".." / ".." / "treasure"
    elif what == "link":
        path.symlink_to(stage.path)
    elif what == "linked directory":
        (stage.allowed / "d").symlink_to(stage.workdir)
        path = stage.allowed / "d" / "treasure"
    elif what == "another's directory":
        (stage.allowed / "d").mkdir(mode=0o777)
        path = stage.allowed / "d" / "qemu.sock"
        sock = stage.listen(path)
        os.chown(path, NOBODY, NOBODY)
    elif what == "another's process":
        sock = stage.listen(path)
        os.chown(path, NOBODY, NOBODY)
    else:
        stage.allowed.chmod(0o777)
        sock = stage.listen(path, DAEMON if what == "another's socket" else 0)
    migration = stage.user.prepare("own", at(path))
    stage.arrives(migration)
    stage.fails(migration, "PathNotAllowed", str(path), words)
    if what == "another's process":
        with sock.accept()[0] as connection:  # who listens is seen only then; it got nothing
            connection.settimeout(10)
            assert connection.recv(1) == b""
    stage.untouched(sock)
    stage.untouched()


@pytest.mark.parametrize("named", [True, False])
def test_after_a_restart(workdir: Path, named: bool) -> None:
    """A broker that takes a migration over uses its paths as the one before it did."""
    with ExitStack() as stack:
        stage = Stage(workdir, stack, RestartedBroker)
        path = stage.allowed / "qemu.sock"
        migration = stage.user.prepare("own", at(path) if named else PLAIN)
        stage.broker.crash()  # type: ignore[attr-defined]
        path = Path(migration.socket())
        with being(NOBODY):
            path.symlink_to(stage.path)
        stage.arrives(migration)
        stage.fails(migration, "PathNotAllowed", str(path), "symbolic link")
        stage.untouched()
        path.unlink()


def test_mount_point(workdir: Path) -> None:
    """Below the allowed directory nothing of another file system: a user may mount there."""
    (workdir / "else").mkdir()
    mount = workdir / "users" / str(NOBODY) / "m"
    wrapper = ("unshare", "--mount", "--propagation=private", "sh", "-c",
               f'mkdir {mount} && mount --bind {workdir}/else {mount} && exec "$@"', "sh")
    with ExitStack() as stack:
        stage = Stage(workdir, stack, wrapper=wrapper)
        for path in (workdir / "else", mount):
            os.chown(path, NOBODY, NOBODY)
        stage.listen(workdir / "else" / "s", NOBODY)
        migration = stage.user.prepare("own", at(mount / "s"))
        stage.arrives(migration)
        stage.fails(migration, "PathNotAllowed", "mount point")


@pytest.mark.parametrize("what", ["link", "root's socket"])
def test_default_path(stage: Stage, what: str) -> None:
    """The directory that the broker made for him is his, too: what he puts there is looked at."""
    migration = stage.user.prepare("own", PLAIN)
    path = Path(migration.socket())
    sock = stage.treasure
    if what == "link":
        path.symlink_to(stage.path)
    else:
        sock = stage.listen(path)
    stage.arrives(migration)
    stage.fails(migration, "PathNotAllowed", str(path))
    stage.untouched(sock)
    path.unlink(missing_ok=True)


def test_own_socket(stage: Stage) -> None:
    (stage.allowed / "deep").mkdir()
    os.chown(stage.allowed / "deep", NOBODY, NOBODY)
    path = stage.allowed / "deep" / "qemu.sock"
    sock = stage.listen(path, NOBODY)
    migration = stage.user.prepare("own", at(path))
    stage.arrives(migration)
    connection = wait_until(lambda: accepted(sock), "the broker connects")
    with connection:
        connection.settimeout(10)
        assert connection.recv(6) == b"memory"
    migration.cancel()
    migration.wait_finished()


def accepted(sock: socket.socket) -> socket.socket | None:
    try:
        return sock.accept()[0]
    except BlockingIOError:
        return None


# ---- To listen on ----


@pytest.mark.parametrize("what", ["outside", "dots", "linked directory", "root's directory", "another's directory"])
def test_to_listen_on(stage: Stage, what: str) -> None:
    """Nothing is made, and nothing is changed where it would have been."""
    elsewhere = stage.workdir / "elsewhere"
    elsewhere.mkdir(mode=0o777)
    path = elsewhere / "s"
    if what == "dots":
        path = stage.allowed / ".." / ".." / "elsewhere" / "s"
    elif what == "linked directory":
        (stage.allowed / "d").symlink_to(elsewhere)
        path = stage.allowed / "d" / "s"
    elif what != "outside":
        elsewhere = stage.allowed / "d"
        elsewhere.mkdir(mode=0o777)
        if what == "another's directory":
            os.chown(elsewhere, DAEMON, DAEMON)
        path = elsewhere / "s"
    text = stage.refused(stage.user.outgoing, ticket(), "own", sent(path))
    assert str(path) in text
    assert not list(elsewhere.iterdir())


def test_to_listen_on_own(stage: Stage) -> None:
    path = stage.allowed / "qemu.sock"
    migration = stage.user.outgoing(waiting(), "own", sent(path))
    st = path.stat()
    assert (st.st_uid, st.st_mode & 0o777) == (NOBODY, 0o600)
    for uid in (0, DAEMON):  # only the user's own QEMU is taken for it
        path.chmod(0o666)
        with being(uid):
            stranger = FakeQemu.connect(path)
        with stranger:
            assert stranger.recv_until_eof() == b""
        wait_until(lambda: f"by uid {uid} was closed" in stage.broker.log(), "it is said why")
    migration.cancel()
    migration.wait_finished()
    assert not path.exists()


def test_what_is_removed(stage: Stage) -> None:
    """The user moves another's things to where his socket was: at the end they are there still."""
    mine, theirs = stage.allowed / "d", stage.workdir / "theirs"
    for path in (mine, theirs):
        path.mkdir()
    os.chown(mine, NOBODY, NOBODY)
    kept = stage.listen(theirs / "s")
    migration = stage.user.outgoing(waiting(), "own", sent(mine / "s"))
    mine.rename(stage.allowed / "away")
    mine.symlink_to(theirs)
    migration.cancel()
    migration.wait_finished()
    assert Path(kept.getsockname()).is_socket()
    (stage.allowed / "away" / "s").unlink()
    mine.unlink()
    (stage.allowed / "away").rename(mine)
    migration = stage.user.outgoing(waiting(), "own2", sent(mine / "s"))
    (mine / "s").unlink()
    (theirs / "s").rename(mine / "s")  # only root can do that, and it is root's
    migration.cancel()
    migration.wait_finished()
    assert (mine / "s").is_socket()
    (mine / "s").unlink()


# ---- To dial ----


@pytest.mark.parametrize("by", ["option", "ticket"])
def test_endpoint(stage: Stage, by: str) -> None:
    """A forged ticket is as good as an option: neither leads to another's socket."""
    unix = f"unix:{stage.path}"
    if by == "option":
        text = stage.refused(stage.user.outgoing, ticket(), "own", {"endpoint": ("s", unix)})
    else:
        text = stage.refused(stage.user.outgoing, ticket(unix), "own")
    assert str(stage.path) in text and "AllowedDirectories=" in text


def test_endpoint_beside_others(stage: Stage) -> None:
    """A ticket that also names TCP can be used, but not by that path."""
    migration = stage.user.outgoing(ticket(f"unix:{stage.path}", "tcp:127.0.0.1:1"), "own")
    stage.fails(migration, "PeerUnreachable", "AllowedDirectories=", "Connection refused")
    stage.untouched()


@pytest.mark.parametrize("what, words", [("link", "symbolic link"), ("root's socket", "does not belong"),
                                         ("dots", "leads out"), ("another's process", "does not belong")])
def test_endpoint_in_own_directory(stage: Stage, what: str, words: str) -> None:
    path, sock = stage.allowed / "peer", stage.treasure
    if what == "link":
        path.symlink_to(stage.path)
    elif what == "dots":
        path = stage.allowed / ".." / ".." / "treasure"
    else:
        sock = stage.listen(path)
        if what == "another's process":
            os.chown(path, NOBODY, NOBODY)
    migration = stage.user.outgoing(ticket(f"unix:{path}"), "own")
    stage.fails(migration, "PeerUnreachable", words)
    if what == "another's process":
        with sock.accept()[0] as connection:
            connection.settimeout(10)
            assert connection.recv(1) == b"", "not even a preamble"
    stage.untouched(sock)


def test_own_endpoint(stage: Stage) -> None:
    sock = stage.listen(stage.allowed / "peer", NOBODY)
    migration = stage.user.outgoing(ticket(f"unix:{stage.allowed}/peer"), "own")
    with wait_until(lambda: accepted(sock), "the broker dials") as connection:
        connection.settimeout(10)
        assert len(connection.recv(32, socket.MSG_WAITALL)) == 32
    migration.cancel()
    migration.wait_finished()


# ---- Whose the sockets are ----


@pytest.mark.parametrize("owner, good", [("0", False), ("root", False), (str(DAEMON), False), ("nobody", False),
                                         (str(NOBODY), True), ("nobody:0", False), ("nobody:nogroup", False)])
def test_socket_owner(stage: Stage, owner: str, good: bool) -> None:
    options = {**PLAIN, "socket-owner": ("s", owner)}
    if good:
        migration = stage.user.prepare("own", options)
        assert Path(migration.socket()).parent.stat().st_uid == NOBODY
        migration.cancel()
        migration.wait_finished()
    else:
        text = stage.refused(stage.user.prepare, "own", options, error="org.freedesktop.DBus.Error.AccessDenied")
        assert "'socket-owner'" in text and str(NOBODY) in text


# ---- The rest of the policy ----


@contextmanager
def configured(workdir: Path, config: str) -> Iterator[SystemBroker]:
    with SystemBroker(workdir, "b", f"[Broker]\n{config}") as broker:
        yield broker


def test_no_directory_is_allowed(workdir: Path) -> None:
    with configured(workdir, "AllowedDirectories=\n") as broker, Polkit(workdir, broker.bus), \
            User(broker, NOBODY) as user:
        with pytest.raises(BusError, match="AllowedDirectories="):
            user.prepare("own", at(workdir / "s"))
        broker.prepare("root", at(workdir / "s")).cancel()


def test_plain_is_not_allowed(workdir: Path) -> None:
    """Not for root either."""
    with configured(workdir, "AllowPlain=no\n") as broker:
        for call in (lambda: broker.prepare("a", PLAIN), lambda: broker.outgoing(ticket(), "a")):
            with pytest.raises(BusError, match="AllowPlain=") as info:
                call()
            assert info.value.short == "SecurityMismatch"
        broker.prepare("a").cancel()
