# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sockets whose close(2) waits for as long as the test likes: TCP with SO_LINGER, and data that nobody reads."""

from __future__ import annotations

import os
import signal
import socket
import struct
import traceback
from collections.abc import Callable
from pathlib import Path

from .broker import Broker, wait_until

SECONDS = 1_000_000


class Lingering:
    """The other ends of such sockets. A process of its own has each of them, for its exit does not linger, and a
    close of ours would."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._peers: list[socket.socket] = []

    def _make(self, uid: int) -> socket.socket:
        if uid:
            os.seteuid(uid)
        sock = socket.create_connection(self._server.getsockname())
        if uid:
            os.seteuid(0)
        sock.setblocking(False)
        try:
            while True:
                sock.send(b"x" * 65536)
        except BlockingIOError:
            pass
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, SECONDS))
        return sock

    def pass_on(self, use: Callable[[socket.socket], None], uid: int = 0) -> None:
        """Another process makes one, as this user if it is not 0, does this with it, and ends. What use() raises is
        raised here as OSError."""
        errors, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            sock = self._make(uid)  # and kept: it must not be closed here
            try:
                use(sock)
                status = 0
            except OSError as error:
                os.write(theirs, str(error.errno).encode())
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(theirs)
        self._peers.append(self._server.accept()[0])
        with os.fdopen(errors) as pipe:
            number = pipe.read()
        _, status = os.waitpid(child, 0)
        if number:
            raise OSError(int(number), os.strerror(int(number)))
        assert status == 0

    def let_go(self) -> None:
        """All of them close now."""
        for peer in self._peers:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
        self._peers.clear()

    def __enter__(self) -> "Lingering":
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()
        self._server.close()


def while_it_sleeps(broker: Broker, act: Callable[[], None]) -> None:
    """The bus, which passes descriptors on, is to close its own copies before the broker does: it would be the bus that
    hangs else. So the broker sleeps until that was done."""
    bus = Path(f"/proc/{broker.bus.process.pid}/fd")
    before = len(list(bus.iterdir()))
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        act()
        wait_until(lambda: len(list(bus.iterdir())) <= before, "the bus has passed it on")
    finally:
        os.kill(broker.pid, signal.SIGCONT)
