# SPDX-License-Identifier: LGPL-2.1-or-later
"""Peers of our own, in `plain`, which say what they want.

    peer = PlainPeer.source(Ticket.decode(text))      # against a real destination
    channel = peer.open(0)
    channel.send(b"…")
    peer.fin(0, 3)

    with PlainListener() as listener:                 # against a real source: StartOutgoing(listener.ticket.encode())
        peer = listener.accept()
        number = peer.expect(OPEN).channel
        channel = listener.accept_channel(peer)

Blocking, with a time-out on everything. Whatever a hostile peer may want to say can be said: send_raw(),
and the parts (preamble(), prove_connecting(), …) one by one.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import Any

from .wire import (ABORT, ACK, ALL, CHANNEL, CLOSE, CONTROL, ERRORS, FIN, HELLO, OPEN, PING, PONG, RESUME, Frame,
                   Ticket, connect, derive, frame, hello_payload, preamble, prove_accepting, prove_connecting,
                   recv_exact, wait_eof)


class PlainPeer:
    """A proved control connection. Answers PINGs whenever it waits for a frame, unless .pongs is false."""

    def __init__(self, sock: socket.socket, ticket: Ticket, exported: bytes) -> None:
        self.sock = sock
        self.ticket = ticket
        self.exported = exported
        self.channel_key = derive(exported, ticket.id, "vmferry channel v1")
        self.resume_key = derive(exported, ticket.id, "vmferry resume v1")
        self.pongs = True

    @classmethod
    def source(cls, ticket: Ticket, greet: bool = True, mark: int = 0, **hello: Any) -> "PlainPeer":
        """Connects to the ticket's first endpoint and proves itself; with greet, HELLOs are exchanged."""
        sock = connect(ticket.endpoints[0])
        try:
            key = derive(ticket.secret, ticket.id, "vmferry control plain v1")
            sock.sendall(preamble(ticket.id, number=mark, key=key))
            peer = cls(sock, ticket, prove_connecting(sock, key, ticket.id, CONTROL))
            if greet:
                peer.greet(**hello)
        except BaseException:
            sock.close()
            raise
        return peer

    def resume(self, greet: bool = True, key: bytes | None = None, mark: int = 0, **hello: Any) -> "PlainPeer":
        """As the source, after the loss of this one: the control connection that follows it."""
        sock = connect(self.ticket.endpoints[0])
        try:
            sock.sendall(preamble(self.ticket.id, RESUME, number=mark, key=self.resume_key))
            exported = prove_connecting(sock, key or self.resume_key, self.ticket.id, RESUME)
            peer = PlainPeer(sock, self.ticket, exported)
            peer.resume_key = self.resume_key  # it stays that of the first
            if greet:
                peer.greet(**hello)
        except BaseException:
            sock.close()
            raise
        return peer

    def greet(self, **hello: Any) -> Frame:
        self.send(HELLO, hello_payload(**hello))
        return self.expect(HELLO)

    def send_raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send(self, type: int, payload: bytes = b"", channel: int = 0) -> None:
        self.send_raw(frame(type, payload, channel))

    def ack(self, channel: int, offset: int) -> None:
        self.send(ACK, struct.pack("<Q", offset), channel)

    def fin(self, channel: int, total: int) -> None:
        self.send(FIN, struct.pack("<Q", total), channel)

    def close_channel(self, channel: int = ALL) -> None:
        self.send(CLOSE, b"", channel)

    def abort(self, error: str, text: str, type: int = ABORT, channel: int = 0) -> None:
        self.send(type, struct.pack("<I", ERRORS.index(error)) + text.encode(), channel)

    def recv(self) -> Frame:
        """The next frame, whatever it is."""
        type, size, channel = struct.unpack("<HHI", recv_exact(self.sock, 8))
        return Frame(type, channel, recv_exact(self.sock, size))

    def expect(self, type: int, channel: int | None = None) -> Frame:
        """The next frame of this type; others but ABORT are passed over, and PINGs answered."""
        end = time.monotonic() + 20
        while True:
            assert time.monotonic() < end, f"no frame of type {type} came"
            got = self.recv()
            if got.type == PING and self.pongs:
                self.send(PONG, got.payload)
            if got.type == type and channel in (None, got.channel):
                return got
            assert got.type != ABORT, f"ABORT: {ERRORS[got.number]}: {got.text}"

    def stay(self, seconds: float) -> int:
        """Answers PINGs for so long; returns how many came."""
        end, pings = time.monotonic() + seconds, 0
        while select.select([self.sock], [], [], max(0.0, end - time.monotonic()))[0]:
            got = self.recv()
            if got.type == PING:
                self.send(PONG, got.payload)
                pings += 1
            assert got.type != ABORT, f"ABORT: {ERRORS[got.number]}: {got.text}"
        return pings

    def open(self, number: int, stream: int = 0, offset: int = 0, theirs: int = 0) -> socket.socket:
        """As the source: OPEN, and the channel's connection."""
        self.send(OPEN, struct.pack("<I", stream), number)
        return self.connect_channel(number, offset, theirs=theirs)

    def connect_channel(self, number: int, offset: int = 0, key: bytes | None = None, theirs: int = 0,
                        answered: bool = True, mark: int = 0) -> socket.socket:
        """The channel's connection alone; EOFError, or a reset, where the other side refuses it.

        We have received `offset` bytes, and the other side `theirs`. It answers only once it has taken our OPEN:
        without `answered` nobody waits for that. The preamble's mark has the number `mark`; 0: there is none.
        """
        sock = connect(self.ticket.endpoints[0])
        try:
            sock.sendall(preamble(self.ticket.id, CHANNEL, number=mark, key=self.channel_key))
            prove_connecting(sock, key or self.channel_key, self.ticket.id, CHANNEL)
            sock.sendall(struct.pack("<IIQ", number, 0, offset))
            if answered:
                assert struct.unpack("<IIQ", recv_exact(sock, 16)) == (number, 0, theirs)
        except BaseException:
            sock.close()
            raise
        return sock

    def eof(self, timeout: float = 20) -> None:
        """Waits for the other side's end."""
        wait_eof(self.sock, timeout)

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> "PlainPeer":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class PlainListener:
    """A destination of our own, with a ticket to it."""

    def __init__(self, **ticket: Any) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.settimeout(20)
        self.ticket = Ticket(endpoints=(f"tcp:127.0.0.1:{self.sock.getsockname()[1]}",), **ticket)

    def accept_raw(self) -> socket.socket:
        """A connection, its preamble not read."""
        sock = self.sock.accept()[0]
        sock.settimeout(20)
        return sock

    def prove(self, sock: socket.socket, before: PlainPeer | None = None) -> PlainPeer:
        """A connection that was accepted, from its preamble on, is such a one."""
        kind = RESUME if before else CONTROL
        assert recv_exact(sock, 32) == preamble(self.ticket.id, kind)
        key = before.resume_key if before else derive(self.ticket.secret, self.ticket.id,
                                                      "vmferry control plain v1")
        peer = PlainPeer(sock, self.ticket, prove_accepting(sock, key, self.ticket.id, kind))
        if before:
            peer.resume_key = before.resume_key
        return peer

    def accept(self, greet: bool = True, before: PlainPeer | None = None, **hello: Any) -> PlainPeer:
        """The source's control connection; the one that follows `before`, where that was lost."""
        sock = self.accept_raw()
        try:
            peer = self.prove(sock, before)
            if greet:
                peer.greet(**hello)
        except BaseException:
            sock.close()
            raise
        return peer

    def accept_channel(self, peer: PlainPeer, offset: int = 0, number: int | None = None,
                       key: bytes | None = None, theirs: int = 0) -> tuple[int, socket.socket]:
        """The next channel connection, and which channel it is; `offset` and `number` are what we say.

        The source has received `theirs` bytes.
        """
        sock = self.accept_raw()
        try:
            assert recv_exact(sock, 32) == preamble(self.ticket.id, CHANNEL)
            prove_accepting(sock, key or peer.channel_key, self.ticket.id, CHANNEL)
            channel, zero, received = struct.unpack("<IIQ", recv_exact(sock, 16))
            assert (zero, received) == (0, theirs)
            sock.sendall(struct.pack("<IIQ", channel if number is None else number, 0, offset))
        except BaseException:
            sock.close()
            raise
        return channel, sock

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> "PlainListener":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def persistent(ticket: Ticket) -> PlainPeer:
    """In a flood a connection may be dropped for a newer one: then another is tried."""
    end = time.monotonic() + 20
    while True:
        try:
            return PlainPeer.source(ticket)
        except (EOFError, ConnectionError):
            assert time.monotonic() < end, "no connection gets through"
            time.sleep(0.05)
