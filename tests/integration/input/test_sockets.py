# SPDX-License-Identifier: LGPL-2.1-or-later
"""Paths of QEMU's sockets that cannot work: refused at once where that can be known, else by a deadline."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vmlib.broker import BusError
from vmlib.peer import PlainPeer
from vmlib.scene import NO_RESUME, Scene, Victim
from vmlib.wire import FIN, Ticket, wait_eof

FAST = ("--qemu-timeout=1",)


def ticket() -> str:
    return Ticket(endpoints=("tcp:127.0.0.1:1",)).encode()


def at(path: Path | str) -> dict[str, tuple[str, Any]]:
    return {"sockets": ("a{ss}", {"migrate": str(path)})}


def refused(scene: Scene, path: Path | str, error: str, *words: str, incoming: bool = False) -> None:
    with pytest.raises(BusError) as info:
        scene.incoming(**at(path)) if incoming else scene.outgoing(ticket(), **at(path))
    assert info.value.short == error, info.value
    for word in (str(path)[:100], *words):
        assert word in info.value.text, info.value.text


@pytest.mark.parametrize("incoming", [True, False])
@pytest.mark.parametrize("length", [108, 200, 4000, 5000, 100_000])
def test_path_too_long(workdir: Path, incoming: bool, length: int) -> None:
    with Scene(workdir) as scene:
        refused(scene, "/" + "x" * (length - 1), "PathTooLong", "'migrate'", "107", "'sockets'", incoming=incoming)


def test_longest_path(workdir: Path) -> None:
    with Scene(workdir) as scene:
        path = workdir / ("x" * (107 - len(str(workdir)) - 1))
        victim = scene.outgoing(Ticket(endpoints=("unix:/nonexistent",)).encode(), **at(path))
        victim.expect("PeerUnreachable")
        assert not path.exists()


def test_runtime_dir_too_long(workdir: Path) -> None:
    long = workdir / ("d" * 90)
    with Scene(workdir, bystander=False, args=(f"--runtime-dir={long}",)) as scene:
        for make in (scene.incoming, lambda: scene.outgoing(ticket())):
            with pytest.raises(BusError, match="'sockets'") as info:
                make()
            assert info.value.short == "PathTooLong" and str(long) in info.value.text


def test_missing_directory(workdir: Path) -> None:
    with Scene(workdir) as scene:
        refused(scene, workdir / "none" / "qemu.sock", "SocketUnavailable", "directory is not there")


@pytest.mark.parametrize("what", ["file", "directory", "socket", "symlink", "dangling", "fifo"])
def test_something_is_there(workdir: Path, what: str) -> None:
    """It stays as it is."""
    path = workdir / "qemu.sock"
    with Scene(workdir) as scene:
        if what == "file":
            path.write_text("precious")
        elif what == "directory":
            path.mkdir()
        elif what == "socket":
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(str(path))
        elif what == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to(workdir / ("none" if what == "dangling" else "h.log"))
        before = path.lstat()
        refused(scene, path, "SocketUnavailable", "something is there already")
        assert path.lstat() == before and not (workdir / "none").exists()
        if what == "socket":
            path.unlink()


@pytest.mark.parametrize("path", ["/", "/tmp/", "/tmp/.", "/tmp/.."])
def test_path_that_names_nothing(workdir: Path, path: str) -> None:
    with Scene(workdir) as scene:
        refused(scene, path, "SocketUnavailable")


def test_symlink_on_the_way(workdir: Path) -> None:
    (workdir / "real").mkdir()
    (workdir / "link").symlink_to(workdir / "real")
    with Scene(workdir) as scene:
        refused(scene, workdir / "link" / "qemu.sock", "PathNotAllowed", "symbolic link")
        assert not list((workdir / "real").iterdir())


def test_default_path_is_gone_with_the_refusal(workdir: Path) -> None:
    """Two streams, the second impossible: the first one's socket and the directory are taken back."""
    with Scene(workdir) as scene:
        options = {"streams": ("as", ["migrate", "disks"]), "sockets": ("a{ss}", {"disks": "/nonexistent/x"})}
        for _ in range(3):
            with pytest.raises(BusError, match="/nonexistent/x"):
                scene.outgoing(ticket(), **options)
        scene.assert_clean()


@contextmanager
def unlinked(*paths: Path) -> Iterator[None]:
    """What of them is there afterwards, and is no directory, goes."""
    try:
        yield
    finally:
        for path in paths:
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)


def arrives(scene: Scene, victim: Victim) -> PlainPeer:
    """A source with one channel whose QEMU has said something."""
    peer: PlainPeer = scene.own(PlainPeer.source(Ticket.decode(victim.ticket)))
    channel = scene.own(peer.open(0))
    channel.sendall(b"memory")
    return peer


@pytest.mark.parametrize("what", ["nothing", "no-directory", "bound", "stale"])
def test_qemu_that_does_not_listen(workdir: Path, what: str) -> None:
    """Tried until the deadline; both sides and the message then say where, and what to start."""
    path = workdir / "dst.sock"
    if what == "no-directory":
        path = workdir / "none" / "dst.sock"
    with Scene(workdir, args=FAST) as scene:
        if what in ("bound", "stale"):
            sock = scene.own(socket.socket(socket.AF_UNIX))
            sock.bind(str(path))
            if what == "stale":
                sock.close()
        victim = scene.incoming(**at(path))
        peer = arrives(scene, victim)
        begin = time.monotonic()
        victim.expect("SocketUnavailable", str(path), "'migrate'", f"-incoming unix:{path}")
        assert time.monotonic() - begin > 0.5  # and not after QemuTimeoutSec as it is without FAST
        with pytest.raises(AssertionError, match="ABORT: SocketUnavailable"):
            peer.expect(FIN)
        peer.close()
        path.unlink(missing_ok=True)


def test_qemu_that_listens_late(workdir: Path) -> None:
    with Scene(workdir, args=("--qemu-timeout=10",)) as scene:
        victim = scene.incoming(**NO_RESUME)
        peer = arrives(scene, victim)
        time.sleep(1)
        with scene.listen(victim) as listener, listener.accept() as qemu:
            assert qemu.recv_exact(6) == b"memory"
            peer.close()
            assert wait_eof(qemu.sock) == b""
        victim.given_up("lost")


@pytest.mark.parametrize("what, error, words", [
    ("file", "SocketUnavailable", "no socket"), ("directory", "SocketUnavailable", "no socket"),
    ("fifo", "SocketUnavailable", "no socket"), ("symlink", "PathNotAllowed", "symbolic link"),
    ("symlink-on-the-way", "PathNotAllowed", "symbolic link"), ("datagram", "SocketUnavailable", "dst.sock"),
    ("file-on-the-way", "SocketUnavailable", "dst.sock"),
])
def test_no_socket_at_the_destination(workdir: Path, what: str, error: str, words: str) -> None:
    """Nothing to wait for: said at once."""
    path, real = workdir / "dst.sock", workdir / "real.sock"
    with Scene(workdir) as scene, socket.socket(socket.AF_UNIX) as sock, unlinked(real, path):
        sock.bind(str(real))
        sock.listen()
        if what == "file":
            path.write_text("x")
        elif what == "directory":
            path.mkdir()
        elif what == "fifo":
            os.mkfifo(path)
        elif what == "symlink":
            path.symlink_to(real)
        elif what == "symlink-on-the-way":
            (workdir / "link").symlink_to(workdir)
            path = workdir / "link" / "real.sock"
        elif what == "file-on-the-way":
            (workdir / "f").write_text("x")
            path = workdir / "f" / "dst.sock"
        else:
            scene.own(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)).bind(str(path))
        victim = scene.incoming(**at(path))
        peer = arrives(scene, victim)
        begin = time.monotonic()
        victim.expect(error, str(path), words)
        assert time.monotonic() - begin < 20  # and not after QemuTimeoutSec=, which is 30 here
        peer.close()
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.accept()


def test_socket_of_somebody_else(workdir: Path) -> None:
    """What listens there runs as another user than the socket's owner: a confused deputy is not had."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to be two users")
    workdir.chmod(0o755)
    with Scene(workdir) as scene:
        victim = scene.incoming(**at(workdir / "dst.sock"), **{"socket-owner": ("s", "nobody")})
        with socket.socket(socket.AF_UNIX) as sock:
            (workdir / "d").mkdir(mode=0o777)
            (workdir / "d").chmod(0o777)
            os.setresuid(-1, 1, 0)  # listen(2) takes the credentials of the moment
            try:
                sock.bind(str(workdir / "d" / "s"))
                sock.listen()
            finally:
                os.setresuid(-1, 0, 0)
            (workdir / "d" / "s").rename(workdir / "dst.sock")
            peer = arrives(scene, victim)
            victim.expect("PathNotAllowed", "uid 1", "socket-owner", str(workdir / "dst.sock"))
            peer.close()
        (workdir / "dst.sock").unlink()
