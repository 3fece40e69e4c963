# SPDX-License-Identifier: LGPL-2.1-or-later
"""StartOutgoing with tickets that are not what they should be: refused by name, and nothing is made."""

import string
import time
from pathlib import Path

import pytest

from vmlib.broker import BusError
from vmlib.fake_qemu import FakeQemu
from vmlib.scene import Scene
from vmlib.wire import TLS, Ticket

# The same in each process that collects the tests, and good until 2100.
GOOD = Ticket(0x0123456789ABCDEF, bytes(range(32)), endpoints=("tcp:127.0.0.1:1", "unix:/tmp/nobody"),
              expiry=4_102_444_800_000_000)
DIGITS = string.ascii_letters + string.digits + "-_"


def refused(scene: Scene, ticket: str, error: str, *words: str) -> None:
    with pytest.raises(BusError) as info:
        scene.outgoing(ticket)
    assert info.value.short == error, (ticket, info.value)
    for word in words:
        assert word in info.value.text, info.value.text
    assert GOOD.encode()[9:40] not in info.value.text
    assert len(scene.broker.list()) == 2  # the bystander's


def test_cut_at_every_length(workdir: Path) -> None:
    text = GOOD.encode()
    with Scene(workdir) as scene:
        for length in range(len(text)):
            refused(scene, text[:length], "InvalidTicket", "PrepareIncoming")
        for more in ("A", "=", "==", "\n", " ", "A" * 4000):
            refused(scene, text + more, "InvalidTicket", "PrepareIncoming")


def test_changed_in_every_byte(workdir: Path) -> None:
    """In the text by a digit of the alphabet and by one that is none; the prefix's number is the version."""
    text = GOOD.encode()
    with Scene(workdir) as scene:
        for i, old in enumerate(text):
            new = DIGITS[(DIGITS.index(old) + 1) % len(DIGITS)] if old in DIGITS else "."
            for digit in (new, "*"):
                changed = text[:i] + digit + text[i + 1 :]
                error = "ProtocolMismatch" if i == 7 and digit.isdigit() else "InvalidTicket"
                refused(scene, changed, error)


@pytest.mark.parametrize("text", [
    "", "vmferry1:", "vmferry:", "vmferry1", "hello", "VMFERRY1:" + GOOD.encode()[9:], " " + GOOD.encode(),
    "vmferry1:" + "A" * 100, "vmferry1:" + "_" * 5000, "x" * 1_000_000, "vmferry1:%s%n", "vmferry1:é",
    "vmferryX:" + GOOD.encode()[9:], "vmferry-1:" + GOOD.encode()[9:],
], ids=["empty", "prefix", "no-number", "no-colon", "hello", "upper", "space", "zeros", "huge", "enormous", "format",
        "utf8", "letter", "minus"])
def test_no_ticket_at_all(workdir: Path, text: str) -> None:
    with Scene(workdir) as scene:
        refused(scene, text, "InvalidTicket", "vmferry1:")


@pytest.mark.parametrize("version", ["0", "2", "11", "01", "99999999999999999999"])
def test_another_version(workdir: Path, version: str) -> None:
    with Scene(workdir) as scene:
        refused(scene, f"vmferry{version}:" + GOOD.encode()[9:], "ProtocolMismatch", "vmferry1:", "Upgrade")


def body(ticket: Ticket, at: int, value: bytes) -> str:
    """The ticket with other bytes in it, under a right MAC: made by somebody who knows how."""
    data = bytearray(ticket.body())
    data[at : at + len(value)] = value
    return ticket.encode(bytes(data))


@pytest.mark.parametrize("text", [
    body(GOOD, 0, b"\2"),  # a security that does not exist
    body(GOOD, 1, b"\0"),  # no endpoint
    body(GOOD, 1, b"\3"),  # more than there are
    body(GOOD, 1, b"\1"),  # fewer
    body(GOOD, 1, b"\xff"),
    body(GOOD, 2, b"\1"),  # a reserved bit
    body(GOOD, 52, b"\0"),  # an empty endpoint
    body(GOOD, 52, b"\xff"),  # one that is longer than the ticket
    body(GOOD, 53, b"\0"),  # a NUL in it
    body(GOOD, 53, b"\x1b"),
    body(GOOD, 53, b"\xff"),
    GOOD.encode(GOOD.body() + b"x"),
], ids=["security", "none", "more", "fewer", "255", "reserved", "empty", "long", "nul", "escape", "utf8", "tail"])
def test_nonsense_under_a_right_mac(workdir: Path, text: str) -> None:
    with Scene(workdir) as scene:
        refused(scene, text, "InvalidTicket")


@pytest.mark.parametrize("endpoint", ["tcp:localhost:1", "http://a", "tcp:*:1", "tcp:127.0.0.1:99999", "unix:relative"])
def test_endpoint_that_is_none(workdir: Path, endpoint: str) -> None:
    """A ticket can name one that this broker cannot dial; the error names it."""
    with Scene(workdir) as scene:
        try:
            victim = scene.outgoing(GOOD.but(endpoints=(endpoint,)).encode())
        except BusError as error:
            assert error.short in ("InvalidTicket", "PeerUnreachable") and endpoint in error.text
            return
        victim.expect("PeerUnreachable", endpoint)


@pytest.mark.parametrize("ago", [1, 3600, 10**9])
def test_expired(workdir: Path, ago: int) -> None:
    with Scene(workdir) as scene:
        ticket = GOOD.but(expiry=time.time_ns() // 1000 - ago * 1_000_000)
        refused(scene, ticket.encode(), "TicketExpired", f"{ticket.id:016x}", "PrepareIncoming", "expire-usec")


def test_expires_at_the_destination(workdir: Path) -> None:
    """Its migration times out, and whoever comes later with the ticket learns that it has expired."""
    with Scene(workdir) as scene:
        victim = scene.incoming(**{"expire-usec": ("t", 300_000)})
        victim.expect("TimedOut", "No source connected", "expire-usec", result="timed-out")
        with pytest.raises(BusError) as info:
            scene.outgoing(victim.ticket)
        assert info.value.short == "TicketExpired"
        # Its own text says later: the destination's clock decides.
        late = scene.outgoing(Ticket.decode(victim.ticket).but(expiry=GOOD.expiry).encode())
        late.expect("TicketExpired", "PrepareIncoming")


@pytest.mark.story
def test_used_twice_on_one_host(workdir: Path) -> None:
    """While the first one waits, and after it failed; the VM's name does not matter."""
    with Scene(workdir) as scene:
        ticket = GOOD.but(endpoints=("unix:/nonexistent/vmferry.sock",)).encode()
        first = scene.outgoing(ticket, "first")
        for vm in ("first-again", "second"):
            with pytest.raises(BusError, match="PrepareIncoming") as info:
                scene.outgoing(ticket, vm)
            assert info.value.short == "TicketUsed" and first.migration.id in info.value.text
        first.expect("PeerUnreachable", "/nonexistent/vmferry.sock")
        with pytest.raises(BusError) as info:
            scene.outgoing(ticket, "third")
        assert info.value.short == "TicketUsed"


@pytest.mark.parametrize("in_ticket, wanted", [(0, "plain"), (1, "tls")])
def test_security_that_does_not_match(workdir: Path, in_ticket: int, wanted: str) -> None:
    with Scene(workdir) as scene:
        with pytest.raises(BusError, match="plain") as info:
            scene.outgoing(GOOD.but(security=in_ticket).encode(), security=("s", wanted))
        assert info.value.short == "SecurityMismatch" and "tls" in info.value.text and "Prepare" in info.value.text
        assert TLS == 0


def test_unreachable_peer(workdir: Path) -> None:
    """Every endpoint that was tried stands in the error, with why it did not work."""
    with Scene(workdir) as scene:
        deaf, endpoint = scene.deaf()  # or it would be over before its QEMU comes
        victim = scene.outgoing(GOOD.but(endpoints=(endpoint, *GOOD.endpoints)).encode())
        with FakeQemu.connect(victim.migration.socket()) as qemu:
            deaf.close()
            victim.expect("PeerUnreachable", f"{endpoint}: Connection refused", "tcp:127.0.0.1:1: Connection refused",
                          "unix:/tmp/nobody: No such file", "port open")
            assert qemu.at_eof()


def test_many_unreachable_endpoints(workdir: Path) -> None:
    with Scene(workdir) as scene:
        endpoints = tuple(f"unix:/nonexistent/{i:02}/{'x' * 80}" for i in range(16))
        victim = scene.outgoing(GOOD.but(endpoints=endpoints).encode())
        victim.expect("PeerUnreachable", endpoints[0])
