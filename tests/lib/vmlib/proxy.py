# SPDX-License-Identifier: LGPL-2.1-or-later
"""A way to a peer port that remembers what went over it, and can be cut: somebody on the network."""

import socket
import threading
import time
from contextlib import suppress

from .wire import connect

_KEPT = 64 << 10


class Proxy:
    """Relays each connection to `endpoint`. What the connecting sides said first is in `said`, one a connection.

    What it relays comes `delay` seconds late. A new connection waits while `begin` is not set.
    """

    def __init__(self, endpoint: str, delay: float = 0, begin: threading.Event | None = None) -> None:
        self._target = endpoint
        self._begin = begin
        self._delay = delay
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp:127.0.0.1:{self._listener.getsockname()[1]}"
        self.said: list[bytearray] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near = self._listener.accept()[0]
            except OSError:
                return
            if self._begin:
                self._begin.wait()
            far = connect(self._target, 60)
            far.settimeout(None)  # one way may well be silent for ever
            said = bytearray()
            with self._lock:
                self._sockets += [near, far]
                self.said.append(said)
            self._start(self._flow, near, far, said)
            self._start(self._flow, far, near, None)

    def _flow(self, here: socket.socket, there: socket.socket, said: bytearray | None) -> None:
        try:
            while data := here.recv(65536):
                if said is not None and len(said) < _KEPT:
                    said += data
                time.sleep(self._delay)
                there.sendall(data)
            there.shutdown(socket.SHUT_WR)
        except OSError:
            for sock in (here, there):  # as a reset reaches both
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Ends all connections. New ones go through, and get nowhere before all of the old ones have ended."""
        with self._lock:
            for sock in self._sockets:
                with suppress(OSError):  # it has ended already
                    sock.shutdown(socket.SHUT_RDWR)
            self._sockets = []

    def close(self) -> None:
        if self._begin:
            self._begin.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self.cut()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
