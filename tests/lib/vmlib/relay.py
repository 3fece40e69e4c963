# SPDX-License-Identifier: LGPL-2.1-or-later
"""A byte relay between two UNIX sockets that keeps a log: what does QEMU really do with its connection?

It is the plainest tunnel that is right, and serves as the reference for ours: two flows a connection, an EOF
passed on per direction, nothing coalesced.
"""

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 256 << 10


@dataclass(frozen=True)
class FlowEnd:
    """How one direction ended, and when (time.monotonic())."""

    sender: str  # "source" or "destination"
    connection: int
    how: str  # "EOF", or the name of the exception
    where: str  # "read" or "write"
    size: int  # bytes relayed
    at: float


class Relay:
    """Relays each connection made to `listen_path` to `target_path`, dialled when the connection comes.

    `ends` fills in the order in which the flows end. close() cuts what still runs, waits for the threads and
    removes the listening socket; a `with` does so too.
    """

    def __init__(self, listen_path: Path, target_path: Path) -> None:
        self.ends: list[FlowEnd] = []
        self._lock = threading.Lock()
        self._path = listen_path
        self._target = target_path
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(listen_path))
        self._listener.listen(16)
        self._start(self._accept)

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_ends(self, n: int, timeout: float = 30.0) -> list[FlowEnd]:
        """Waits until `n` flows have ended; returns them, the first to end first."""
        deadline = time.monotonic() + timeout
        while len(self.ends) < n:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"only {len(self.ends)} of {n} flows ended: {self.ends}")
            time.sleep(0.01)
        return list(self.ends)

    def cut(self) -> None:
        """Shuts all connections down, as a lost network would be told to QEMU. Goes on listening."""
        with self._lock:
            for sock in self._sockets:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it has ended already

    def close(self) -> None:
        """Ends the relay. Harmless when done twice."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        except OSError:
            pass
        self.cut()
        for thread in self._threads:
            thread.join(10.0)
        self._listener.close()
        for sock in self._sockets:
            sock.close()
        self._path.unlink(missing_ok=True)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="relay", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        connection = 0
        while True:
            try:
                near = self._listener.accept()[0]
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with self._lock:
                self._sockets += [near, far]
            far.connect(str(self._target))
            self._start(self._flow, "source", connection, near, far)
            self._start(self._flow, "destination", connection, far, near)
            connection += 1

    def _flow(self, sender: str, connection: int, from_: socket.socket, to: socket.socket) -> None:
        size, how, where = 0, "EOF", "read"
        buffer = memoryview(bytearray(_CHUNK))
        try:
            while n := from_.recv_into(buffer):
                where = "write"
                to.sendall(buffer[:n])
                where = "read"
                size += n
        except OSError as error:
            how = type(error).__name__
        with self._lock:
            self.ends.append(FlowEnd(sender, connection, how, where, size, time.monotonic()))
        try:
            to.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other side is gone
