# SPDX-License-Identifier: LGPL-2.1-or-later
"""A source that holds the right ticket and then lies: what the destination makes of its frames."""

import select
import socket
import struct
import time
from pathlib import Path

import pytest

from vmlib.broker import hasty_helper, wait_until
from vmlib.fake_qemu import FakeQemu
from vmlib.peer import PlainPeer
from vmlib.quiet import all_heard
from vmlib.scene import NO_RESUME, Cast, Lie, Scene, offset, raw
from vmlib.wire import (ABORT, ACK, ALL, CHANNEL, CLOSE, ERRORS, FIN, HELLO, OPEN, OPENED, PING, PONG, REFUSED, Ticket,
                        Unproved, connect, derive, frame, hello_payload, preamble, prove_connecting, recv_exact,
                        wait_eof)


class Source(Cast):
    """A destination with its QEMU, and a source of ours with channel 0 open; 5 bytes have gone each way.

    What is lost is given up at once.
    """

    def __init__(self, scene: Scene) -> None:
        self.victim = scene.incoming(**NO_RESUME)
        listener = scene.listen(self.victim)
        self.peer = scene.own(PlainPeer.source(Ticket.decode(self.victim.ticket)))
        self.channel = scene.own(self.peer.open(0))
        self.channel.sendall(b"there")
        self.qemu: FakeQemu = scene.own(listener.accept())
        assert self.qemu.recv_exact(5) == b"there"
        self.qemu.send(b"again")
        assert recv_exact(self.channel, 5) == b"again"
        assert self.peer.expect(ACK).number == 5
        self.listener = listener

    def qemu_ends(self) -> None:
        assert self.qemu.recv_until_eof() == b""

    def interrupted(self, *words: str, timeout: float = 20) -> None:
        """It waits for another source, until it is cancelled."""
        self.cut_off(*words, timeout=timeout)
        self.victim.given_up(*words)
        self.peer.close()


# Each is sent when channel 0 is open and nothing is wrong yet.
FRAMES: dict[str, tuple[Lie, str]] = {
    "type 0": (raw(frame(0)), "unknown frame type"),
    "type 12": (raw(frame(12)), "unknown frame type"),
    "type 65535": (raw(frame(65535, b"x" * 8)), "unknown frame type"),
    "a frame one byte too long": (raw(frame(PING, bytes(1025))), "longer than the limit"),
    "only the header of a frame too long": (raw(struct.pack("<HHI", PING, 65535, 0)), "longer than the limit"),
    "a short PING": (raw(frame(PING, bytes(7))), "impossible length"),
    "a long ACK": (raw(frame(ACK, bytes(9))), "impossible length"),
    "a CLOSE with something in it": (raw(frame(CLOSE, b"x")), "impossible length"),
    "a PING of a channel": (raw(frame(PING, bytes(8), 1)), "a channel number where none belongs"),
    "an ACK of all": (raw(frame(ACK, bytes(8), ALL)), "an impossible channel number"),
    "a second HELLO": (raw(frame(HELLO, hello_payload())), "a second HELLO"),
    "OPENED by the source": (raw(frame(OPENED)), "only the other side may send"),
    "REFUSED by the source": (lambda peer: peer.abort("LimitExceeded", "no", REFUSED),
                              "a refusal of a channel that is open"),
    "REFUSED for a channel that never was": (lambda peer: peer.abort("LimitExceeded", "no", REFUSED, 1), "(channel 1)"),
    "PONG without PING": (lambda peer: peer.send(PONG, offset(1)), "a PONG that answers no PING"),
    "ABORT with no error": (raw(frame(ABORT, bytes(4))), "unknown error"),
    "ABORT with an unknown error": (raw(frame(ABORT, struct.pack("<I", 4711) + b"x")), "unknown error"),
    "ABORT with a text too long": (raw(frame(ABORT, struct.pack("<I", 3) + b"x" * 257)), "impossible length"),
    "ABORT with control characters": (raw(frame(ABORT, struct.pack("<I", 3) + b"a\x1b[2J")), "not printable"),
    "ABORT with a NUL": (raw(frame(ABORT, struct.pack("<I", 3) + b"a\0b")), "not printable"),
    "ABORT that is no UTF-8": (raw(frame(ABORT, struct.pack("<I", 3) + b"\xc0\x80")), "not printable"),
    "OPEN of a number that is taken": (raw(frame(OPEN, bytes(4), 0)), "opened channel 0 on stream 0"),
    "OPEN of a number that was skipped": (raw(frame(OPEN, bytes(4), 7), frame(OPEN, bytes(4), 6)),
                                          "opened channel 6 on stream 0"),
    "OPEN of all": (raw(frame(OPEN, bytes(4), ALL)), "an impossible channel number"),
    "OPEN of a stream that is none": (raw(frame(OPEN, struct.pack("<I", 1), 1)), "opened channel 1 on stream 1"),
    "OPEN of an impossible stream": (raw(frame(OPEN, struct.pack("<I", 16), 1)), "impossible stream"),
    "OPEN without a stream": (raw(frame(OPEN, b"", 1)), "impossible length"),
    "ACK for a channel that never was": (lambda peer: peer.ack(1, 0), "(channel 1)"),
    "FIN for a channel that never was": (lambda peer: peer.fin(9, 0), "(channel 9)"),
    "CLOSE for a channel that never was": (lambda peer: peer.close_channel(4), "(channel 4)"),
    "ACK beyond what was sent": (lambda peer: peer.ack(0, 6), "ACK of more than was sent (channel 0)"),
    "ACK of all there can be": (lambda peer: peer.ack(0, 2**64 - 1), "ACK of more than was sent (channel 0)"),
    "ACK going backwards": (raw(frame(ACK, offset(5)), frame(ACK, offset(4))), "less than was acknowledged before"),
    "FIN at less than was sent": (lambda peer: peer.fin(0, 4), "FIN at less than was sent (channel 0)"),
    "a second FIN": (raw(frame(FIN, offset(5)), frame(FIN, offset(5))), "a second FIN"),
    "a second FIN at more": (raw(frame(FIN, offset(5)), frame(FIN, offset(6))), "a second FIN"),
    "CLOSE of a channel not ended": (lambda peer: peer.close_channel(0), "CLOSE of a channel that has not ended"),
    "CLOSE after only one FIN": (raw(frame(FIN, offset(5)), frame(CLOSE)), "CLOSE of a channel that has not ended"),
    "CLOSE of all": (lambda peer: peer.close_channel(), "CLOSE of a migration that has not ended"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frame(workdir: Path, name: str) -> None:
    lie, words = FRAMES[name]
    with Scene(workdir) as scene:
        cast = Source(scene)
        lie(cast.peer)
        cast.lost("ProtocolMismatch", words)


# Each is the first thing after the proof.
GREETINGS: dict[str, tuple[Lie, str, str]] = {
    "OPEN before HELLO": (raw(frame(OPEN, bytes(4))), "ProtocolMismatch", "a frame before HELLO"),
    "PING before HELLO": (raw(frame(PING, bytes(8))), "ProtocolMismatch", "a frame before HELLO"),
    "CLOSE before HELLO": (raw(frame(CLOSE, b"", ALL)), "ProtocolMismatch", "a frame before HELLO"),
    "HELLO that is cut": (raw(frame(HELLO, hello_payload()[:15])), "ProtocolMismatch", "HELLO is too short"),
    "HELLO with more": (raw(frame(HELLO, hello_payload() + b"x")), "ProtocolMismatch", "HELLO is too long"),
    "no stream": (raw(frame(HELLO, hello_payload(()))), "ProtocolMismatch", "number of streams"),
    "17 streams": (raw(frame(HELLO, hello_payload(tuple(f"s{i}" for i in range(17))))), "ProtocolMismatch",
                   "number of streams"),
    "a stream twice": (raw(frame(HELLO, hello_payload(("migrate", "migrate")))), "ProtocolMismatch", "twice"),
    "a stream with a path in it": (raw(frame(HELLO, hello_payload(("../etc",)))), "ProtocolMismatch", "stream name"),
    "no channel": (raw(frame(HELLO, hello_payload(channels=0))), "ProtocolMismatch", "allows no channel"),
    "version 2": (raw(frame(HELLO, hello_payload(version=2))), "ProtocolMismatch", "speaks version 2"),
    "a stream not prepared": (raw(frame(HELLO, hello_payload(("migrate", "disks")))), "NoSuchStream", "'disks'"),
}


@pytest.mark.parametrize("name", GREETINGS)
def test_greeting(workdir: Path, name: str) -> None:
    lie, error, words = GREETINGS[name]
    with Scene(workdir) as scene:
        victim = scene.incoming()
        with PlainPeer.source(Ticket.decode(victim.ticket), greet=False) as peer:
            lie(peer)
            with pytest.raises(AssertionError, match=f"ABORT: {error}: "):
                peer.expect(0)
            victim.expect(error, words)


def test_every_frame_says_what_to_do(workdir: Path) -> None:
    """The message of a lie is for a person, who wants to know what to do about it."""
    with Scene(workdir) as scene:
        cast = Source(scene)
        cast.peer.ack(0, 99)
        message = cast.victim.expect("ProtocolMismatch")
        cast.peer.close()
        advice = ("Upgrade", "upgrade", "Start", "start", "Call", "Report", "report", "Try", "PrepareIncoming")
        assert any(word in message for word in advice), message


def test_fin_of_more_than_is_sent_and_then_the_end(workdir: Path) -> None:
    """A truncated stream that is announced as whole: never done."""
    with Scene(workdir) as scene:
        cast = Source(scene)
        cast.peer.fin(0, 6)
        cast.channel.close()
        cast.interrupted("'migrate'", "5 bytes out and 5 in")


@pytest.mark.parametrize("how", ["channel", "channel-half", "control", "both"])
def test_truncated_stream(workdir: Path, how: str) -> None:
    """An end without FIN is a loss, not an end."""
    with Scene(workdir) as scene:
        cast = Source(scene)
        if how == "channel-half":
            cast.channel.shutdown(socket.SHUT_WR)
        if how in ("channel", "both"):
            cast.channel.close()
        if how in ("control", "both"):
            cast.peer.close()
        cast.interrupted("lost")


def test_bytes_after_fin(workdir: Path) -> None:
    """What comes after the announced end never reaches QEMU."""
    with Scene(workdir) as scene:
        cast = Source(scene)
        cast.peer.fin(0, 5)
        assert cast.qemu.recv_until_eof() == b""
        cast.channel.sendall(b"more")
        cast.qemu.shut_wr()
        cast.peer.expect(FIN)
        cast.peer.ack(0, 5)
        cast.peer.expect(CLOSE, 0)
        cast.peer.close_channel(0)
        cast.peer.close_channel()
        assert cast.victim.migration.wait(20) == "done"
        assert cast.victim.migration.get("BytesReceived") == 5


def test_more_channels_than_allowed(workdir: Path) -> None:
    """Refused, each by name; those that are open go on."""
    with Scene(workdir, args=("--max-channels=2",)) as scene:
        cast = Source(scene)
        with cast.peer.open(1) as second:
            for number in (2, 3):
                cast.peer.send(OPEN, bytes(4), number)
                refused = cast.peer.expect(REFUSED, number)
                assert ERRORS[refused.number] == "LimitExceeded" and "2 channels" in refused.text
            second.sendall(b"still")
            with cast.listener.accept() as qemu:
                assert qemu.recv_exact(5) == b"still"
                cast.victim.migration.cancel()
                assert qemu.recv_until_eof() == b""
        cast.victim.expect("Cancelled", result="cancelled")
        cast.peer.close()


def test_numbers_may_be_skipped(workdir: Path) -> None:
    """What lies between was lost on the way with its connection; what comes then is a channel as any other."""
    with Scene(workdir) as scene:
        cast = Source(scene)
        with cast.peer.open(7) as second:
            second.sendall(b"seventh")
            with cast.listener.accept() as qemu:
                assert qemu.recv_exact(7) == b"seventh"
                cast.victim.migration.cancel()
                assert qemu.recv_until_eof() == b""
        cast.victim.expect("Cancelled", result="cancelled")
        cast.peer.close()


def test_channels_without_connections(workdir: Path) -> None:
    """OPENs whose connections never come hold places, not FDs, and QEMU hears nothing of them."""
    with Scene(workdir) as scene:
        cast = Source(scene)
        before = len(scene.broker.fds())
        cast.peer.send_raw(b"".join(frame(OPEN, bytes(4), number) for number in range(1, 256)))
        cast.peer.send(OPEN, bytes(4), 256)
        assert ERRORS[cast.peer.expect(REFUSED, 256).number] == "LimitExceeded"
        assert len(scene.broker.fds()) == before
        cast.qemu.send(b"go on")
        assert recv_exact(cast.channel, 5) == b"go on"
        cast.peer.close()
        cast.interrupted("lost")


@pytest.mark.parametrize("what", ["wrong key", "control key", "resume key", "offset", "huge offset", "twice",
                                  "reserved"])
def test_channel_connection(workdir: Path, what: str) -> None:
    """One that is not what it should be is closed, and nothing else happens."""
    with Scene(workdir) as scene:
        cast = Source(scene)
        ticket = cast.peer.ticket
        key = {"wrong key": bytes(32), "control key": derive(ticket.secret, ticket.id, "vmferry control plain v1"),
               "resume key": cast.peer.resume_key}
        said = {"offset": 5, "huge offset": 2**64 - 1}.get(what, 0)
        with connect(ticket.endpoints[0]) as sock:
            sock.sendall(preamble(ticket.id, CHANNEL))
            if what in key:
                with pytest.raises(Unproved):
                    prove_connecting(sock, key[what], ticket.id, CHANNEL)
                sock.shutdown(socket.SHUT_WR)
            else:
                prove_connecting(sock, cast.peer.channel_key, ticket.id, CHANNEL)
                sock.sendall(struct.pack("<IIQ", 0, what == "reserved", said))
            assert wait_eof(sock) == b""
        wait_until(lambda: "failed to prove itself" in scene.broker.log(), "it is logged")
        cast.qemu.send(b"go on")
        assert recv_exact(cast.channel, 5) == b"go on"
        cast.channel.sendall(b"go on")
        assert cast.qemu.recv_exact(5) == b"go on"
        cast.peer.close()
        cast.interrupted("lost")


@pytest.mark.load_sensitive(reason="the helper takes 2 s of our silence for a loss")
def test_channel_connection_of_an_unknown_channel(workdir: Path) -> None:
    """It may be early, so it is kept for a while, and answered when its OPEN comes; a hundred hinder nobody."""
    with Scene(workdir, helper=hasty_helper()) as scene:
        cast = Source(scene)
        parked = [scene.own(cast.peer.connect_channel(1000 + i, answered=False)) for i in range(100)]
        early = scene.own(cast.peer.connect_channel(1, answered=False))
        all_heard(scene.broker)
        cast.peer.send(OPEN, bytes(4), 1)
        assert recv_exact(early, 16) == struct.pack("<IIQ", 1, 0, 0)
        early.sendall(b"works")
        with cast.listener.accept() as qemu:
            assert qemu.recv_exact(5) == b"works"
            wait_until(lambda: (cast.peer.stay(0.1), all(has_ended(sock) for sock in parked))[1], "the parked ones are closed")
            early.sendall(b"still")
            assert qemu.recv_exact(5) == b"still"
            cast.peer.close()
            assert wait_eof(qemu.sock) == b""
        cast.interrupted("lost")


def has_ended(sock: socket.socket) -> bool:
    """Nothing has come over it before."""
    return bool(select.select([sock], [], [], 0)[0]) and wait_eof(sock) == b""


@pytest.mark.parametrize("what", ["offset", "stream"])
def test_early_channel_connection_that_lies(workdir: Path, what: str) -> None:
    """A channel that is yet to come has received nothing, and its OPEN has to be right."""
    with Scene(workdir) as scene:
        cast = Source(scene)
        sock = scene.own(cast.peer.connect_channel(1, int(what == "offset"), answered=False))
        if what == "offset":
            assert wait_eof(sock) == b""
            cast.qemu.send(b"go on")
            assert recv_exact(cast.channel, 5) == b"go on"
            cast.victim.migration.cancel()
            cast.victim.expect("Cancelled", result="cancelled")
            cast.peer.close()
        else:
            cast.peer.send(OPEN, struct.pack("<I", 1), 1)
            cast.lost("ProtocolMismatch", "opened channel 1 on stream 1")
            assert wait_eof(sock) == b""


def test_channel_connection_before_hello(workdir: Path) -> None:
    """There is no key that it could hold."""
    with Scene(workdir) as scene:
        victim = scene.incoming()
        ticket = Ticket.decode(victim.ticket)
        with connect(ticket.endpoints[0]) as sock:
            sock.sendall(preamble(ticket.id, CHANNEL) + b"\1" + bytes(63))
            assert wait_eof(sock) == b""
        victim.unharmed()
        victim.migration.cancel()
        victim.expect("Cancelled", result="cancelled")


@pytest.mark.load_sensitive(reason="a destination that is not pinged for a quarter of a second pings itself")
def test_pings_of_a_destination(workdir: Path) -> None:
    """One that is pinged knows that the source is there: its own PING only measures. Without any it asks."""
    with Scene(workdir, helper=hasty_helper()) as scene:
        cast = Source(scene)
        pings = 0
        for number in range(1, 8):
            cast.peer.send(PING, offset(number))
            assert cast.peer.expect(PONG).payload == offset(number)
            pings += cast.peer.stay(0.12)
        assert pings <= 1
        assert cast.peer.stay(1.2) >= 1
        cast.victim.migration.cancel()
        cast.victim.expect("Cancelled", result="cancelled")


def test_peer_that_does_not_read(workdir: Path) -> None:
    """A flood of PINGs whose answers nobody takes ends at a bound, and with it the migration."""
    with Scene(workdir) as scene:
        cast = Source(scene)
        cast.peer.sock.settimeout(5)
        try:
            for _ in range(4000):
                cast.peer.send_raw(frame(PING, offset(1)) * 1000)
        except OSError:
            pass
        cast.interrupted("does not read")


@pytest.mark.parametrize("cancel", [True, False], ids=["cancel", "silence"])
def test_peer_that_stalls(workdir: Path, cancel: bool) -> None:
    """It holds all its connections and says nothing: cancel works, and without one ten ticks are the limit."""
    with Scene(workdir, helper=None if cancel else hasty_helper()) as scene:
        cast = Source(scene)
        there = cast.qemu.send_pattern(3, 64 << 20)  # far more than fits anywhere
        all_heard(scene.broker)
        begin = time.monotonic()
        if cancel:  # which is told before the silence is: that would be another end
            cast.victim.migration.cancel()
            cast.victim.expect("Cancelled", result="cancelled")
            wait_eof(cast.qemu.sock)  # a reset, for what it had sent was not all read
            cast.peer.close()
        else:
            cast.interrupted("not been heard of for 2 s")
            assert time.monotonic() - begin > 2
        with pytest.raises(OSError):
            there.result(10)
        wait_until(lambda: scene.what_is()[1] == scene.before[1], "its helper is gone")
