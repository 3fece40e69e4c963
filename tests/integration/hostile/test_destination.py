# SPDX-License-Identifier: LGPL-2.1-or-later
"""A destination that made the ticket and then lies: what the source makes of its frames."""

import socket
import struct
import time
from pathlib import Path

import pytest

from vmlib.broker import BusError, hasty_helper, wait_until
from vmlib.fake_qemu import FakeQemu
from vmlib.peer import PlainListener, PlainPeer
from vmlib.quiet import all_heard
from vmlib.scene import NO_RESUME, Cast, Lie, Scene, offset, raw
from vmlib.wire import (ACK, ALL, CLOSE, FIN, HELLO, OPEN, OPENED, PING, PONG, REFUSED, frame, hello_payload,
                        recv_exact, wait_eof)


class Destination(Cast):
    """A source with its QEMU, and a destination of ours with channel 0 open; 5 bytes have gone each way.

    What is lost is given up at once.
    """

    def __init__(self, scene: Scene, **hello: int) -> None:
        self.listener: PlainListener = scene.own(PlainListener())
        self.victim = scene.outgoing(self.listener.ticket.encode(), **NO_RESUME)
        self.peer: PlainPeer = scene.own(self.listener.accept(**hello))
        self.qemu = scene.qemu(self.victim)
        assert self.peer.expect(OPEN).channel == 0
        _, self.channel = self.listener.accept_channel(self.peer)
        scene.own(self.channel)
        self.peer.send(OPENED, b"", 0)
        self.qemu.send(b"there")
        assert recv_exact(self.channel, 5) == b"there"
        self.channel.sendall(b"again")
        assert self.qemu.recv_exact(5) == b"again"
        assert self.peer.expect(ACK).number == 5

    def interrupted(self, *words: str, timeout: float = 20) -> None:
        """The peer is dialled again, and told on that connection that the migration was cancelled."""
        self.cut_off(*words, timeout=timeout)
        with self.listener.accept_raw() as again:
            self.victim.given_up(*words)
            peer = self.listener.prove(again, self.peer)
            peer.greet()
            with pytest.raises(AssertionError, match="ABORT: Cancelled: "):
                peer.expect(0)


FRAMES: dict[str, tuple[Lie, str]] = {
    "type 12": (raw(frame(12)), "unknown frame type"),
    "only the header of a frame too long": (raw(struct.pack("<HHI", PING, 1025, 0)), "longer than the limit"),
    "a second HELLO": (raw(frame(HELLO, hello_payload())), "a second HELLO"),
    "OPEN by the destination": (raw(frame(OPEN, bytes(4), 1)), "only the other side may send"),
    "PONG of another PING": (lambda peer: peer.send(PONG, offset(1)), "a PONG that answers no PING"),
    "ACK for a channel that never was": (lambda peer: peer.ack(1, 0), "(channel 1)"),
    "OPENED for a channel that never was": (lambda peer: peer.send(OPENED, b"", 1), "(channel 1)"),
    "REFUSED for a channel that never was": (lambda peer: peer.abort("LimitExceeded", "no", REFUSED, 1), "(channel 1)"),
    "ACK beyond what was sent": (lambda peer: peer.ack(0, 6), "ACK of more than was sent (channel 0)"),
    "ACK going backwards": (raw(frame(ACK, offset(5)), frame(ACK, offset(4))), "less than was acknowledged before"),
    "FIN at less than was sent": (lambda peer: peer.fin(0, 4), "FIN at less than was sent (channel 0)"),
    "a second FIN": (raw(frame(FIN, offset(5)), frame(FIN, offset(5))), "a second FIN"),
    "CLOSE of a channel not ended": (lambda peer: peer.close_channel(0), "CLOSE of a channel that has not ended"),
    "CLOSE of all": (lambda peer: peer.close_channel(), "CLOSE of a migration that has not ended"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frame(workdir: Path, name: str) -> None:
    lie, words = FRAMES[name]
    with Scene(workdir) as scene:
        cast = Destination(scene)
        lie(cast.peer)
        cast.lost("ProtocolMismatch", words)


GREETINGS: dict[str, tuple[Lie, str]] = {
    "OPENED before HELLO": (raw(frame(OPENED)), "a frame before HELLO"),
    "ACK before HELLO": (raw(frame(ACK, bytes(8))), "a frame before HELLO"),
    "PING before HELLO": (raw(frame(PING, bytes(8))), "a frame before HELLO"),
    "HELLO that is cut": (raw(frame(HELLO, hello_payload()[:-1])), "stream name"),
    "no channel": (raw(frame(HELLO, hello_payload(channels=0))), "allows no channel"),
    "version 2": (raw(frame(HELLO, hello_payload(version=2))), "Upgrade"),
}


@pytest.mark.parametrize("name", GREETINGS)
def test_greeting(workdir: Path, name: str) -> None:
    lie, words = GREETINGS[name]
    with Scene(workdir) as scene, PlainListener() as listener:
        victim = scene.outgoing(listener.ticket.encode())
        qemu = scene.qemu(victim)
        with listener.accept(greet=False) as peer:
            lie(peer)
            victim.expect("ProtocolMismatch", words)
        assert wait_eof(qemu.sock) == b""


def test_silence_instead_of_hello(workdir: Path) -> None:
    with Scene(workdir, helper=hasty_helper()) as scene, PlainListener() as listener:
        victim = scene.outgoing(listener.ticket.encode())
        qemu = scene.qemu(victim)
        with listener.accept(greet=False):
            victim.expect("Interrupted", "did not greet within 1 s")
        assert wait_eof(qemu.sock) == b""


def test_fin_of_more_than_is_sent_and_then_the_end(workdir: Path) -> None:
    with Scene(workdir) as scene:
        cast = Destination(scene)
        cast.peer.fin(0, 6)
        cast.channel.close()
        cast.interrupted("'migrate'", "5 bytes out and 5 in")


@pytest.mark.parametrize("how", ["channel", "channel-half", "control", "both", "in-mid-stream"])
def test_truncated_stream(workdir: Path, how: str) -> None:
    with Scene(workdir) as scene:
        cast = Destination(scene)
        if how == "in-mid-stream":
            there = cast.qemu.send_pattern(1, 32 << 20)
            recv_exact(cast.channel, 1 << 20)
        if how == "channel-half":
            cast.channel.shutdown(socket.SHUT_WR)
        if how in ("channel", "both", "in-mid-stream"):
            cast.channel.close()
        if how in ("control", "both"):
            cast.peer.close()
        cast.interrupted("lost")
        if how == "in-mid-stream":
            with pytest.raises(OSError):
                there.result(10)


def test_everything_but_the_last_ack(workdir: Path) -> None:
    """QEMU has ended, all bytes are sent; what was not acknowledged was not delivered."""
    with Scene(workdir) as scene:
        cast = Destination(scene)
        cast.qemu.shut_wr()
        assert cast.peer.expect(FIN).number == 5
        cast.peer.ack(0, 4)
        cast.peer.fin(0, 5)
        assert cast.qemu.recv_until_eof() == b""
        all_heard(scene.broker)
        assert cast.victim.migration.get("State") == "active"
        cast.peer.close()
        cast.interrupted("lost")


def test_refused_after_it_was_carried(workdir: Path) -> None:
    """Bytes of it are gone, so a REFUSED is a lie by then: no ledger could prove that migration done."""
    with Scene(workdir) as scene:
        cast = Destination(scene)
        second = scene.qemu(cast.victim)
        assert cast.peer.expect(OPEN).channel == 1
        _, channel = cast.listener.accept_channel(cast.peer)
        scene.own(channel)
        cast.peer.send(OPENED, b"", 1)
        second.send(b"multifd")
        assert recv_exact(channel, 7) == b"multifd"
        cast.peer.abort("LimitExceeded", "not any more", REFUSED, 1)
        cast.lost("ProtocolMismatch", "a refusal of a channel that is open (channel 1)")
        wait_eof(second.sock)


def test_refused_before_it_is_carried(workdir: Path) -> None:
    """Nothing has been taken from its QEMU, which sees an end: the others prove the migration done."""
    with Scene(workdir) as scene:
        cast = Destination(scene)
        second = scene.qemu(cast.victim)
        second.send(b"multifd")
        assert cast.peer.expect(OPEN).channel == 1
        cast.peer.abort("LimitExceeded", "no more than one", REFUSED, 1)
        assert wait_eof(second.sock) == b""
        wait_until(lambda: "The peer refused channel 1: no more than one" in scene.broker.log(), "it is logged")
        # Channel 0 ends as it should.
        cast.qemu.shut_wr()
        cast.peer.ack(0, 5)
        cast.peer.fin(0, 5)
        cast.peer.expect(CLOSE, 0)
        cast.peer.close_channel(0)
        cast.peer.expect(CLOSE, ALL)
        cast.peer.close_channel()
        assert cast.victim.migration.wait(20) == "done"
        assert cast.victim.migration.get("BytesSent") == 5
        cast.peer.close()


def test_refused_for_another_reason(workdir: Path) -> None:
    """It ends the migration with what the destination says."""
    with Scene(workdir) as scene:
        cast = Destination(scene)
        second = scene.qemu(cast.victim)
        assert cast.peer.expect(OPEN).channel == 1
        cast.peer.abort("SocketUnavailable", "there is no such QEMU", REFUSED, 1)
        cast.lost("SocketUnavailable", "there is no such QEMU", told=False)
        assert wait_eof(second.sock) == b""


@pytest.mark.parametrize("limit", ["ours", "theirs"])
def test_more_channels_than_allowed(workdir: Path, limit: str) -> None:
    """A QEMU that opens more connections than both allow sees the end of those; the first goes on."""
    args = ("--max-channels=1",) if limit == "ours" else ()
    with Scene(workdir, args=args) as scene:
        cast = Destination(scene, **({"channels": 1} if limit == "theirs" else {}))
        with FakeQemu.connect(cast.victim.migration.socket()) as second:
            assert wait_eof(second.sock) == b""
        wait_until(lambda: "max-channels" in scene.broker.log(), "the reason in the log")
        cast.qemu.send(b"go on")
        assert recv_exact(cast.channel, 5) == b"go on"
        cast.victim.migration.cancel()
        cast.victim.expect("Cancelled", result="cancelled")
        cast.peer.close()


@pytest.mark.parametrize("what", ["wrong key", "other channel", "other offset"])
def test_channel_connection(workdir: Path, what: str) -> None:
    """The source dials the channel; who answers there must be the same peer and say the right thing.

    Who is not the peer may be on the way to it, so that is a loss; the peer itself lies.
    """
    with Scene(workdir) as scene:
        cast = Destination(scene)
        second = scene.qemu(cast.victim)
        if what == "wrong key":
            with pytest.raises((EOFError, ConnectionError)):
                cast.listener.accept_channel(cast.peer, key=bytes(32))
        else:
            _, channel = cast.listener.accept_channel(cast.peer, offset=3 if what == "other offset" else 0,
                                                      number=0 if what == "other channel" else None)
            scene.own(channel)
        if what == "wrong key":
            cast.interrupted("channel's connection")
        else:
            cast.lost("ProtocolMismatch", "greeted channel 1 with what cannot be")
        assert wait_eof(second.sock) == b""


@pytest.mark.parametrize("cancel", [True, False], ids=["cancel", "silence"])
def test_peer_that_stalls(workdir: Path, cancel: bool) -> None:
    with Scene(workdir, helper=None if cancel else hasty_helper()) as scene:
        cast = Destination(scene)
        there = cast.qemu.send_pattern(3, 64 << 20)
        all_heard(scene.broker)
        begin = time.monotonic()
        if cancel:  # which is told before the silence is: that would be another end
            cast.victim.migration.cancel()
            cast.victim.expect("Cancelled", result="cancelled")
            wait_eof(cast.qemu.sock)
            cast.peer.close()
        else:
            cast.interrupted("not been heard of for 2 s")
            assert time.monotonic() - begin > 2
        with pytest.raises(OSError):
            there.result(10)


def test_wait_answers_with_the_error(workdir: Path) -> None:
    """Whoever waits learns the same, by the error's name."""
    with Scene(workdir) as scene:
        cast = Destination(scene)
        cast.peer.abort("SocketUnavailable", "QEMU is gone")
        with pytest.raises(BusError, match="QEMU is gone") as info:
            cast.victim.migration.wait(10)
        assert info.value.short == "SocketUnavailable"
        cast.lost("SocketUnavailable", told=False)
