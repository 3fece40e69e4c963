# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tickets, and the peer protocol's records and proof in `plain`, written a second time: a test of the description
as much as of the program. peer.py holds whole peers."""

from __future__ import annotations

import base64
import hmac
import os
import socket
import struct
import time
from dataclasses import dataclass, field, replace
from typing import Any

VERSION = 1
TLS, PLAIN = 0, 1
CONTROL, CHANNEL, RESUME = 1, 2, 3
HELLO, OPEN, OPENED, REFUSED, ACK, FIN, CLOSE, ABORT, PING, PONG = range(1, 11)
ALL = 0xFFFFFFFF
MARKS = 2  # a bit of HELLO's features
ERRORS = ("", "NoSuchMigration", "VmBusy", "InvalidTicket", "TicketExpired", "TicketUsed", "PeerUnreachable",
          "PeerRejected", "ProtocolMismatch", "SecurityMismatch", "SocketUnavailable", "PathNotAllowed",
          "PathTooLong", "NoSuchStream", "LimitExceeded", "HelperFailed", "Interrupted", "Cancelled", "TimedOut")


class Rejected(Exception):
    """The other side's gate said no, in clear; .error is its name."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


class Unproved(Exception):
    """The other side does not hold the key."""


@dataclass(frozen=True)
class Ticket:
    """What a ticket says. Made without arguments it is a good one for a destination of our own."""

    id: int = field(default_factory=lambda: int.from_bytes(os.urandom(8), "little") | 1)
    secret: bytes = field(default_factory=lambda: os.urandom(32), repr=False)
    security: int = PLAIN
    endpoints: tuple[str, ...] = ()
    expiry: int = field(default_factory=lambda: time.time_ns() // 1000 + 60_000_000)

    def but(self, **changes: Any) -> "Ticket":
        """The same with something changed; encode() makes it whole again."""
        return replace(self, **changes)

    def body(self) -> bytes:
        head = struct.pack("<BBHQQ", self.security, len(self.endpoints), 0, self.id, self.expiry) + self.secret
        return head + b"".join(bytes([len(e)]) + e.encode() for e in self.endpoints)

    def encode(self, body: bytes | None = None) -> str:
        """Its text; `body` stands for another one, under a right MAC."""
        data = self.body() if body is None else body
        data += hmac.digest(self.secret, data, "sha256")[:16]
        return "vmferry1:" + base64.urlsafe_b64encode(data).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "Ticket":
        assert text.startswith("vmferry1:")
        digits = text.removeprefix("vmferry1:")
        data = base64.urlsafe_b64decode(digits + "=" * (-len(digits) % 4))
        security, count, zero, number, expiry = struct.unpack_from("<BBHQQ", data)
        secret, at, endpoints = data[20:52], 52, []
        for _ in range(count):
            endpoints.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        assert zero == 0 and hmac.digest(secret, data[:at], "sha256")[:16] == data[at:]
        return cls(number, secret, security, tuple(endpoints), expiry)


def derive(secret: bytes, id: int, label: str) -> bytes:
    """HKDF-SHA-256 (RFC 5869) of 32 bytes; the id, 8 bytes little-endian, is the salt."""
    key = hmac.digest(struct.pack("<Q", id), secret, "sha256")
    return hmac.digest(key, label.encode() + b"\1", "sha256")


def preamble(id: int, kind: int = CONTROL, version: int = VERSION, number: int = 0, key: bytes = b"") -> bytes:
    """With a number it has a mark; `key` is that of the connection."""
    head = struct.pack("<8sHHIQ", b"VMFERRY\n", version, kind, number, id)
    if number == 0:
        return head + bytes(8)
    return head + hmac.digest(derive(key, id, "vmferry preamble v1"), head, "sha256")[:8]


def preamble_of(said: bytes) -> tuple[int, int]:
    """The id and the kind that it begins with."""
    _, _, kind, _, id = struct.unpack_from("<8sHHIQ", said)
    return id, kind


def rejection(error: str, version: int = VERSION) -> bytes:
    return struct.pack("<8sHHI16x", b"\0VMFREJ\n", version, 0, ERRORS.index(error))


def connect(endpoint: str, timeout: float = 20) -> socket.socket:
    """A connection to "tcp:HOST:PORT" or "unix:PATH"."""
    kind, rest = endpoint.split(":", 1)
    if kind == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        sock.connect(rest)
        return sock
    host, port = rest.rsplit(":", 1)
    sock = socket.create_connection((host.strip("[]"), int(port)), timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def recv_exact(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise EOFError(f"EOF after {len(data)} of {size} bytes")
        data += chunk
    return bytes(data)


def wait_eof(sock: socket.socket, timeout: float = 20) -> bytes:
    """All until the end, be it orderly or a reset; TimeoutError where there is none."""
    sock.settimeout(timeout)
    data = bytearray()
    try:
        while chunk := sock.recv(65536):
            data += chunk
    except ConnectionError:
        pass
    return bytes(data)


def _mac(key: bytes, label: bytes, id: int, kind: int, nonces: bytes) -> bytes:
    return hmac.digest(key, label + struct.pack("<QI", id, kind) + nonces, "sha256")


def prove_connecting(sock: socket.socket, key: bytes, id: int, kind: int, nonce: bytes | None = None) -> bytes:
    """The connecting side's half of the proof; returns the exported key."""
    nonce = nonce or os.urandom(32)
    sock.sendall(b"\1" + bytes(31) + nonce)
    first = recv_exact(sock, 1)
    if first == b"\0":
        magic, _, _, error = struct.unpack("<8sHHI16x", first + recv_exact(sock, 31))
        assert magic == b"\0VMFREJ\n"
        raise Rejected(ERRORS[error])
    answer = first + recv_exact(sock, 95)
    assert answer[:32] == b"\2" + bytes(31), answer[:32]
    nonces = nonce + answer[32:64]
    if not hmac.compare_digest(_mac(key, b"server", id, kind, nonces), answer[64:]):
        raise Unproved
    sock.sendall(_mac(key, b"client", id, kind, nonces))
    return _mac(key, b"export", id, kind, nonces)


def prove_accepting(sock: socket.socket, key: bytes, id: int, kind: int) -> bytes:
    """The accepting side's half."""
    hello = recv_exact(sock, 64)
    assert hello[:32] == b"\1" + bytes(31), hello[:32]
    nonces = hello[32:] + os.urandom(32)
    sock.sendall(b"\2" + bytes(31) + nonces[32:] + _mac(key, b"server", id, kind, nonces))
    if not hmac.compare_digest(_mac(key, b"client", id, kind, nonces), recv_exact(sock, 32)):
        raise Unproved
    return _mac(key, b"export", id, kind, nonces)


@dataclass(frozen=True)
class Frame:
    type: int
    channel: int
    payload: bytes

    @property
    def number(self) -> int:
        """The offset, cookie, stream or error that it carries."""
        return int.from_bytes(self.payload[: 8 if self.type in (ACK, FIN, PING, PONG) else 4], "little")

    @property
    def text(self) -> str:
        """Of a REFUSED or ABORT."""
        return self.payload[4:].decode()


def frame(type: int, payload: bytes = b"", channel: int = 0) -> bytes:
    return struct.pack("<HHI", type, len(payload), channel) + payload


def hello_payload(streams: tuple[str, ...] = ("migrate",), channels: int = 256, version: int = VERSION,
                  features: int = 0) -> bytes:
    names = b"".join(bytes([len(name)]) + name.encode() for name in streams)
    return struct.pack("<IIII", version, features, channels, len(streams)) + names
