# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stand-in for a QEMU's migration socket: bytes that can be checked, sent and received at will.

    destination = FakeQemu.listen(path)             # a FakeListener
    source = FakeQemu.connect(other_path)
    sent = source.send_pattern(seed=1, size=64 << 20)       # a Future: it runs beside what follows
    peer = destination.accept()
    assert peer.recv_pattern_until_eof(seed=1) == 64 << 20
"""

import os
import random
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

_BLOCK = 256 << 10
_CHUNK = 64 << 10


class PatternMismatch(AssertionError):
    """What came is not what was sent. The message has the first wrong offset."""


def pattern(seed: int, size: int, offset: int = 0) -> bytes:
    """`size` bytes, from `offset` on, of the endless pseudo-random stream number `seed` (0 to 2^32 - 1).

    The stream has no period that a relay could hide a lost, swapped or repeated block in.
    """
    first, last = offset // _BLOCK, -(-(offset + size) // _BLOCK)
    blocks = b"".join(random.Random(seed << 64 | number).randbytes(_BLOCK) for number in range(first, last))
    skip = offset - first * _BLOCK
    return blocks if skip == 0 and len(blocks) == size else blocks[skip : skip + size]


class FakeQemu:
    """One connected stream socket, which it takes. Every call has the socket's time-out, and raises TimeoutError.

    One thread may send while another receives.
    """

    def __init__(self, sock: socket.socket, timeout: float = 30.0) -> None:
        self.sock = sock
        self.sock.settimeout(timeout)

    @classmethod
    def connect(cls, path: Path | str, timeout: float = 30.0) -> "FakeQemu":
        """Connects to a UNIX socket, as a source QEMU does: at once, with no second try."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(str(path))
        except BaseException:
            sock.close()
            raise
        return cls(sock, timeout)

    @staticmethod
    def listen(path: Path | str, backlog: int = 1, timeout: float = 30.0) -> "FakeListener":
        """Listens at a UNIX socket, as a destination QEMU does."""
        return FakeListener(Path(path), backlog, timeout)

    def __enter__(self) -> "FakeQemu":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Sends all of `data`."""
        self.sock.sendall(data)

    def send_pattern(self, seed: int, size: int, offset: int = 0, shut: bool = False) -> "Future[None]":
        """Begins to send pattern(seed, size, offset), in a thread; then half-closes if `shut`.

        The caller waits with result(timeout), which raises what sending raised.
        """

        def run() -> None:
            at, end = offset, offset + size
            while at < end:
                step = min(_BLOCK - at % _BLOCK, end - at)
                self.sock.sendall(pattern(seed, step, at))
                at += step
            if shut:
                self.shut_wr()

        return _in_thread(run)

    def recv_exact(self, size: int) -> bytes:
        """Receives exactly `size` bytes; raises EOFError where the peer ends before."""
        data = bytearray()
        while len(data) < size:
            chunk = self.sock.recv(size - len(data))
            if not chunk:
                raise EOFError(f"EOF after {len(data)} of {size} bytes")
            data += chunk
        return bytes(data)

    def recv_until_eof(self) -> bytes:
        """Receives all until the peer's end; raises ConnectionResetError on an abrupt one."""
        chunks = []
        while chunk := self.sock.recv(_CHUNK):
            chunks.append(chunk)
        return b"".join(chunks)

    def recv_pattern(self, seed: int, size: int, offset: int = 0) -> None:
        """Receives `size` bytes, which must be pattern(seed, size, offset)."""
        at, end = offset, offset + size
        while at < end:
            step = min(_BLOCK - at % _BLOCK, end - at)
            _compare(self.recv_exact(step), pattern(seed, step, at), at)
            at += step

    def recv_pattern_until_eof(self, seed: int, offset: int = 0) -> int:
        """Receives until the peer's end; all must be of pattern(seed). Returns how many bytes came."""
        at = offset
        while True:
            step = _BLOCK - at % _BLOCK
            data = bytearray()
            while len(data) < step and (chunk := self.sock.recv(step - len(data))):
                data += chunk
            _compare(bytes(data), pattern(seed, len(data), at), at)
            at += len(data)
            if len(data) < step:
                return at - offset

    def at_eof(self) -> bool:
        """Waits for the next byte or the end; True if it is the end. Takes no byte."""
        return self.sock.recv(1, socket.MSG_PEEK) == b""

    def shut_wr(self) -> None:
        """Half-closes: the peer gets an EOF, and may go on sending."""
        self.sock.shutdown(socket.SHUT_WR)

    def shut(self) -> None:
        """Shuts both directions down, as QEMU does when it cancels or on an error."""
        self.sock.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Closes abruptly. Over TCP the peer gets a RST; over UNIX a ECONNRESET only where bytes were left unread."""
        if self.sock.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Closes. Harmless when done twice."""
        self.sock.close()


class FakeListener:
    """A listening UNIX socket. close() removes it; a `with` does so too."""

    def __init__(self, path: Path, backlog: int, timeout: float) -> None:
        self.path = path
        self._timeout = timeout
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(timeout)
        try:
            self._sock.bind(str(path))
            self._sock.listen(backlog)
        except BaseException:
            self._sock.close()
            raise

    def __enter__(self) -> "FakeListener":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def accept(self) -> FakeQemu:
        """Waits for the next connection."""
        return FakeQemu(self._sock.accept()[0], self._timeout)

    def close(self) -> None:
        """Stops listening and removes the socket. Harmless when done twice."""
        self._sock.close()
        self.path.unlink(missing_ok=True)


def _compare(got: bytes, wanted: bytes, offset: int) -> None:
    if got != wanted:
        wrong = len(os.path.commonprefix([got, wanted]))
        raise PatternMismatch(f"wrong byte at offset {offset + wrong}")


def _in_thread(run: Callable[[], None]) -> "Future[None]":
    future: Future[None] = Future()

    def body() -> None:
        try:
            run()
        except BaseException as error:  # it belongs to whoever asks for the result
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=body, name="fake-qemu-send", daemon=True).start()
    return future
