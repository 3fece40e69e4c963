# SPDX-License-Identifier: LGPL-2.1-or-later
"""A relay that holds each new connection back for a random time, to bring into disorder what must keep its order.

What it may disturb differs by its place:

between QEMU and a tunnel's end   each connection is made at once and in order; only its bytes come late
between the tunnel's ends         the connections come late, too, so that they overtake each other (overtake=True)
"""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from .network import free_port

Address = Path | int  # a UNIX socket's path, or a TCP port of 127.0.0.1

_CHUNK = 256 << 10


class DelayingRelay:
    """Relays each connection to `target`; `address` is where it listens: the path, or with port 0 the port it got.

    The n-th connection waits for the n-th of a row of random times from 0 to `most` seconds that `seed` begins; so
    does each direction of it. cut() ends all connections and refuses new ones until mend(). close() ends it and
    removes its socket; a `with` does so too.
    """

    def __init__(self, listen: Address, target: Address, seed: int, most: float = 0.3, overtake: bool = False) -> None:
        self.address = listen
        self.connections = 0
        self._target = target
        self._overtake = overtake
        self._random = random.Random(seed)
        self._most = most
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.mend()

    def mend(self) -> None:
        """Listens (again)."""
        if self.address == 0:
            self.address = free_port()
        self._listener = _socket(self.address)
        if isinstance(self.address, int):
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(_name(self.address))
        self._listener.listen(512)
        self._acceptor = self._start(self._accept, self._listener)

    def cut(self) -> None:
        """All connections end, and none can be made."""
        self._stop_listening()
        with self._lock:
            for sock in self._sockets:
                _shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        self._ended.set()
        self.cut()
        for thread in self._threads:
            thread.join(10.0)
        for sock in self._sockets:
            sock.close()

    def __enter__(self) -> "DelayingRelay":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stop_listening(self) -> None:
        _shutdown(self._listener, socket.SHUT_RDWR)  # wakes accept()
        self._acceptor.join(10.0)
        self._listener.close()
        if isinstance(self.address, Path):
            self.address.unlink(missing_ok=True)

    def _start(self, target: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, name="delay", daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near = listener.accept()[0]
            except OSError:
                return
            far = _socket(self._target)
            with self._lock:
                self._sockets += [near, far]
                self.connections += 1
            delays = [self._random.uniform(0, self._most) for _ in range(3)]
            if self._overtake:
                self._start(self._connect_late, near, far, delays)
            elif self._connect(near, far):
                self._begin(near, far, delays)

    def _connect_late(self, near: socket.socket, far: socket.socket, delays: list[float]) -> None:
        if not self._ended.wait(delays[0]) and self._connect(near, far):
            self._begin(near, far, delays)

    def _connect(self, near: socket.socket, far: socket.socket) -> bool:
        try:
            far.connect(_name(self._target))
        except OSError:
            _shutdown(near, socket.SHUT_RDWR)
            return False
        for sock in (near, far):
            if sock.family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return True

    def _begin(self, near: socket.socket, far: socket.socket, delays: list[float]) -> None:
        self._start(self._flow, near, far, delays[1])
        self._start(self._flow, far, near, delays[2])

    def _flow(self, from_: socket.socket, to: socket.socket, delay: float) -> None:
        self._ended.wait(delay)
        buffer = memoryview(bytearray(_CHUNK))
        try:
            while n := from_.recv_into(buffer):
                to.sendall(buffer[:n])
            _shutdown(to, socket.SHUT_WR)
        except OSError:  # an abrupt end is passed on as one
            _shutdown(to, socket.SHUT_RDWR)
            _shutdown(from_, socket.SHUT_RDWR)


def _socket(address: Address) -> socket.socket:
    return socket.socket(socket.AF_INET if isinstance(address, int) else socket.AF_UNIX, socket.SOCK_STREAM)


def _name(address: Address) -> tuple[str, int] | str:
    return ("127.0.0.1", address) if isinstance(address, int) else str(address)


def _shutdown(sock: socket.socket, how: int) -> None:
    try:
        sock.shutdown(how)
    except OSError:
        pass  # it has ended already
