# SPDX-License-Identifier: LGPL-2.1-or-later
"""A TCP proxy that does to connections what networks do: delays, limits, resets, and swallows one direction or both."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import deque
from typing import Any

from .network import enter

CHUNK = 256 * 1024


class _Half:
    """One direction of one connection: what is on its way, and when it may arrive."""

    def __init__(self, source: socket.socket, sink: socket.socket, towards_target: bool) -> None:
        self.source, self.sink, self.towards_target = source, sink, towards_target
        self.queue: deque[tuple[float, bytes]] = deque()
        self.queued = 0
        self.ended = False


class FaultyProxy:
    """Listens on loopback and forwards to `target`. close() ends its thread and all connections.

    netns: a namespace of `ip netns` to do so in.
    delay: seconds that each byte takes, one way; rate: bytes/s in each direction, 0 = as fast as it goes.
    """

    def __init__(self, target: tuple[str, int], netns: str | None = None, delay: float = 0.0, rate: int = 0) -> None:
        self.target, self.netns, self.delay, self.rate = target, netns, delay, rate
        self._halves: list[_Half] = []
        self._lock = threading.Lock()
        self._refuses = False
        self._swallow = {True: False, False: False}  # by direction: towards the target or back
        self._budget = {True: 0.0, False: 0.0}
        self._filled = time.monotonic()
        self._end = False
        self._listener: socket.socket
        self._listens = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        if not self._listens.wait(10):
            raise RuntimeError("the proxy does not listen")
        self.port: int = self._listener.getsockname()[1]
        self.endpoint = f"tcp:127.0.0.1:{self.port}"

    def reset(self) -> None:
        """All connections end at once, by RST."""
        with self._lock:
            for half in self._halves:
                half.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._close_all()

    def silence(self, towards_target: bool = True, back: bool = True) -> None:
        """What comes in these directions from now on is lost for ever; connections that are made now, too."""
        with self._lock:
            self._swallow = {True: towards_target, False: back}

    def refuse(self) -> None:
        """All connections end at once, and so do new ones."""
        with self._lock:
            self._refuses = True
        self.reset()

    def mend(self) -> None:
        """As before; the connections that lost something are gone."""
        with self._lock:
            self._refuses = False
            self._swallow = {True: False, False: False}
            self._close_all()

    def _close_all(self) -> None:
        for half in self._halves:
            half.source.close()
            half.sink.close()
        self._halves.clear()

    def _accept(self) -> None:
        try:
            near, _ = self._listener.accept()
        except BlockingIOError:
            return
        try:
            if self._refuses:
                raise ConnectionRefusedError
            far = socket.create_connection(self.target, timeout=1)
        except OSError:
            near.close()
            return
        for end in (near, far):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._halves += [_Half(near, far, True), _Half(far, near, False)]

    def _fill_budget(self, now: float) -> None:
        if self.rate:
            for way in self._budget:
                self._budget[way] = min(self._budget[way] + (now - self._filled) * self.rate, self.rate * 0.02)
        self._filled = now

    def _receive(self, half: _Half) -> bool:
        limit = CHUNK if not self.rate else int(min(CHUNK, self._budget[half.towards_target]))
        if half.ended or limit <= 0 or half.queued > max(16 * CHUNK, self.rate * self.delay * 2):
            return False
        try:
            data = half.source.recv(limit)
        except BlockingIOError:
            return False
        if not data:
            half.ended = True
        elif not self._swallow[half.towards_target]:
            half.queue.append((time.monotonic() + self.delay, data))  # it came after the turn had begun
            half.queued += len(data)
        self._budget[half.towards_target] -= len(data)
        return bool(data)

    @staticmethod
    def _deliver(half: _Half, now: float) -> bool:
        moved = False
        while half.queue and half.queue[0][0] <= now:
            due, data = half.queue.popleft()
            try:
                n = half.sink.send(data)
            except BlockingIOError:
                n = 0
            half.queued -= n
            moved = moved or n > 0
            if n < len(data):
                half.queue.appendleft((due, data[n:]))
                break
        if half.ended and not half.queue:
            raise EOFError
        return moved

    def _half_ended(self, half: _Half) -> None:
        """This direction is over; the sockets go with the other."""
        self._halves.remove(half)
        try:
            half.sink.shutdown(socket.SHUT_WR)
        except OSError:  # it has gone already
            self._connection_ended(half)
            return
        if not any(other.source is half.sink for other in self._halves):
            half.source.close()
            half.sink.close()

    def _connection_ended(self, half: _Half) -> None:
        self._halves = [other for other in self._halves if other.source not in (half.source, half.sink)]
        half.source.close()
        half.sink.close()

    def _turn(self) -> bool:
        now = time.monotonic()
        self._fill_budget(now)
        self._accept()
        busy = False
        for half in list(self._halves):
            try:
                busy = self._receive(half) or busy
                busy = self._deliver(half, now) or busy
            except EOFError:
                self._half_ended(half)
            except OSError:
                self._connection_ended(half)
        return busy

    def _run(self) -> None:
        if self.netns:
            enter(self.netns)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.setblocking(False)
        self._listens.set()
        while not self._end:
            with self._lock:
                busy = self._turn()
            if not busy:
                time.sleep(0.0005 if self._halves else 0.005)

    def close(self) -> None:
        self._end = True
        self._thread.join(10)
        with self._lock:
            self._close_all()
        self._listener.close()

    def __enter__(self) -> "FaultyProxy":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
