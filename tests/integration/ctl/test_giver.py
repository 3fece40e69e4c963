# SPDX-License-Identifier: LGPL-2.1-or-later
"""A broker that has its sockets given to their owners by the real vmferry-giver, started as systemd starts it."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmlib.broker import Broker, BusError, build_dir, wait_until
from vmlib.users import DAEMON, NOBODY

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class GiverSocket:
    """vmferry-giver.socket: a giver for each connection, which it has as descriptor 3."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.givers: list[subprocess.Popen[bytes]] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._run, name="giver-socket", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        program = build_dir() / "giver" / "vmferry-giver"
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                fd = connection.fileno()
                self.givers.append(subprocess.Popen(["bash", "-c", f'exec "$0" 3<&{fd}', str(program)], pass_fds=[fd],
                                                    start_new_session=True))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()
        self.path.unlink()
        for giver in self.givers:
            giver.kill()
            giver.wait(10)


@pytest.fixture
def givers(workdir: Path) -> Iterator[GiverSocket]:
    made = GiverSocket(workdir / "giver")
    yield made
    made.close()


@pytest.fixture
def broker(workdir: Path, givers: GiverSocket) -> Iterator[Broker]:
    # Without the right to do it itself: what it cannot have done stays root's.
    with Broker(workdir, "b", args=(f"--giver-socket={givers.path}",),
                wrapper=("setpriv", "--bounding-set=-chown", "--inh-caps=-chown")) as made:
        yield made


def owner_of(path: Path) -> tuple[int, int, int]:
    st = path.stat()
    return st.st_uid, st.st_gid, st.st_mode & 0o7777


def test_gives(broker: Broker, givers: GiverSocket) -> None:
    """Directories and sockets, with a group and without, by one giver, which goes with its broker."""
    for owner, found in ((str(NOBODY), (NOBODY, pwd.getpwuid(NOBODY).pw_gid, 0o700)), (f"{NOBODY}:{DAEMON}", (NOBODY, DAEMON, 0o770))):
        incoming = broker.prepare("web1", {"security": ("s", "plain"), "socket-owner": ("s", owner)})
        assert owner_of(Path(incoming.socket()).parent) == found
        outgoing = broker.outgoing(incoming.ticket or "", "web2", {"socket-owner": ("s", owner)})
        path = Path(outgoing.socket())
        assert owner_of(path.parent) == found
        assert owner_of(path) == (*found[:2], found[2] & 0o660)
        for migration in (outgoing, incoming):
            migration.cancel()
            migration.wait_finished()
    (giver,) = wait_until(lambda: givers.givers, "there is a giver")
    assert giver.poll() is None
    broker.stop()
    assert giver.wait(30) == 0


def test_killed(broker: Broker, givers: GiverSocket) -> None:
    """Another one takes its place; where there is none the caller is told."""
    wait_until(lambda: givers.givers, "there is a giver")
    givers.givers[0].kill()
    givers.givers[0].wait(10)
    options = {"socket-owner": ("s", str(NOBODY))}
    migration = broker.prepare("web1", options)
    assert owner_of(Path(migration.socket()).parent)[0] == NOBODY
    wait_until(lambda: len(givers.givers) == 2, "there is another one")
    migration.cancel()
    migration.wait_finished()
    os.rename(givers.path, f"{givers.path}.away")
    givers.givers[1].kill()
    givers.givers[1].wait(10)
    with pytest.raises(BusError, match="vmferry-giver.*systemctl status vmferry-giver.socket") as info:
        broker.prepare("web1", options)
    assert info.value.short == "SocketUnavailable"
    os.rename(f"{givers.path}.away", givers.path)
    broker.prepare("web1", options).cancel()
