# SPDX-License-Identifier: LGPL-2.1-or-later
"""A helper that somebody took over: what it may not do kills it, what it may not say ends it, and only its migration.

The helpers are started through tests/rogue/choose, which lets another program stand in once.
"""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from vmlib.broker import wait_until
from vmlib.chooser import LIES, Chooser
from vmlib.peer import PlainListener, PlainPeer
from vmlib.quiet import all_heard
from vmlib.scene import Scene, Victim
from vmlib.wire import OPEN, Ticket, recv_exact, wait_eof

DEEDS = ("socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "open", "openat", "unlink", "exec",
         "fork", "clone3", "mmap-exec", "mprotect-exec", "pkey-mprotect", "memfd", "ptrace", "kill", "prctl", "setuid",
         "seccomp", "io-uring", "fcntl", "dup", "process-vm-readv", "i386", "x32")

# Calls that are allowed, in forms that are not; tests/rogue/arguments.c.
ARGUMENTS = ("sendto", "sendto-fastopen", "sendmsg-fastopen", "sendmsg-zerocopy", "sendmsg-oob", "recvmsg-errqueue",
             "recvmsg-oob", "recvfrom-errqueue", "shutdown-read", "splice-offset", "splice-more", "setsockopt-fastopen",
             "setsockopt-linger", "setsockopt-ulp", "getsockopt-pidfd", "getsockopt-zerocopy", "fcntl-owner",
             "fcntl-flags", "fcntl-pipe-size", "lseek-set", "timerfd-cancel", "futex-requeue", "futex-lock-pi",
             "madvise-mergeable", "mremap-fixed", "sendmmsg", "recvmmsg", "sendfile", "vmsplice", "ioctl",
             "prlimit", "pidfd-getfd")
GATE_ARGUMENTS = ("sendto-fastopen", "sendmsg-fastopen", "gate-shutdown-both", "gate-splice", "gate-setsockopt-tls")

SO_PASSRIGHTS = 83


@contextmanager
def hostile(workdir: Path, bystander: bool = True) -> Iterator[tuple[Scene, Chooser]]:
    """A scene whose helpers are chosen."""
    chooser = Chooser(workdir)
    try:
        with Scene(workdir, bystander, helper=chooser.script) as scene:
            yield scene, chooser
    finally:
        chooser.close()


@pytest.mark.parametrize("deed", DEEDS + ARGUMENTS)
def test_forbidden_call(workdir: Path, deed: str) -> None:
    """In the middle of a stream: dead by SIGSYS, and everybody who has to know knows."""
    with hostile(workdir) as (scene, chooser), PlainListener() as listener:
        chooser.rogue(deed)
        victim = scene.outgoing(listener.ticket.encode())
        with listener.accept() as peer:
            qemu = scene.qemu(victim)
            peer.expect(OPEN)
            _, channel = listener.accept_channel(peer)
            scene.own(channel)
            qemu.send(b"there")
            assert recv_exact(channel, 5) == b"there"
            chooser.act()
            victim.expect("HelperFailed", "SIGSYS", "forbids", "start the migration anew")
            assert wait_eof(qemu.sock) == wait_eof(channel) == b""
            peer.eof()


def test_forbidden_call_of_a_destination(workdir: Path) -> None:
    with hostile(workdir) as (scene, chooser):
        chooser.rogue("openat")
        victim = scene.incoming()
        with scene.listen(victim) as listener, PlainPeer.source(Ticket.decode(victim.ticket)) as peer:
            with peer.open(0) as channel:
                channel.sendall(b"x")
                with listener.accept() as qemu:
                    assert qemu.recv_exact(1) == b"x"
                    chooser.act()
                    victim.expect("HelperFailed", "SIGSYS")
                    assert wait_eof(qemu.sock) == b""
                wait_eof(channel)
            peer.eof()


def new_gate(scene: Scene) -> int:
    """Kills the gate, which was started first; the pid of the one that comes after it."""
    gate, *relays = scene.broker.helpers()
    os.kill(gate, signal.SIGKILL)
    (new,) = wait_until(lambda: set(scene.broker.helpers()) - {gate, *relays}, "a new gate")
    return int(new)


def settled(scene: Scene) -> None:
    """Every helper has been chosen: what is next is for the one that is started next."""
    for pid in scene.broker.helpers():
        wait_until(lambda: Path(f"/proc/{pid}/comm").read_text() == "helper\n", "the helper is chosen")


@pytest.mark.parametrize("deed", ("socket", "openat", "exec", *GATE_ARGUMENTS))
def test_forbidden_call_of_the_gate(workdir: Path, deed: str) -> None:
    """A new gate takes over; who waits in the backlog does not even notice."""
    with hostile(workdir, bystander=False) as (scene, chooser):
        victim = scene.incoming()
        settled(scene)
        chooser.rogue(deed)
        gate = new_gate(scene)
        chooser.act()
        wait_until(lambda: gate not in scene.broker.helpers(), "the gate is dead")
        with scene.listen(victim) as listener, PlainPeer.source(Ticket.decode(victim.ticket)) as peer:
            with peer.open(0) as channel:
                channel.sendall(b"x")
                with listener.accept() as qemu:
                    assert qemu.recv_exact(1) == b"x"
                victim.migration.cancel()
        victim.expect("Cancelled", result="cancelled")
        victim.migration.call("Forget")  # its source might come to hear of it: so long there is a gate
        wait_until(lambda: not scene.broker.helpers(), "no helper is left")
        assert "The gate was killed by SIGSYS" in scene.broker.log(), scene.broker.log()


# What the message says of each lie that is not simply "HelperFailed, a message that is not permitted".
OTHERWISE = {
    "log-of-a-bad-priority": None,  # a priority is no more than that
    "unprintable-log": None,
    "unterminated-log": None,
    "result-twice": ("ProtocolMismatch", "the first"),
    "state-after-result": ("ProtocolMismatch", "the first"),
    "result-and-never-ends": ("ProtocolMismatch", "the first"),
}


def lie(scene: Scene, chooser: Chooser, deed: str, incoming: bool) -> Victim:
    chooser.liar(deed)
    if incoming:
        return scene.incoming()
    return scene.outgoing(Ticket(endpoints=(scene.deaf()[1],)).encode())


@pytest.mark.parametrize("deed", LIES)
def test_lying_helper(workdir: Path, deed: str) -> None:
    """One bad message ends it, whatever else it does, and the broker believes nothing of it."""
    with hostile(workdir) as (scene, chooser):
        victim = lie(scene, chooser, deed, incoming=deed.startswith("need-qemu"))
        qemu = None if victim.ticket else scene.qemu(victim)
        chooser.act()
        expected = OTHERWISE.get(deed, ("HelperFailed", "Its helper"))
        if expected is None:
            all_heard(scene.broker)
            victim.unharmed()
            assert "\nforged line" not in scene.broker.log() and "yyyy" not in scene.broker.log()
            victim.migration.cancel()
            victim.expect("Cancelled", result="cancelled")
        else:
            victim.expect(*expected)
            assert victim.migration.get("BytesSent") == 0
        if qemu:
            wait_eof(qemu.sock)
        assert scene.broker.client.call(victim.migration.path, "org.vmferry.Migration1", "Forget") == ()


@pytest.mark.load_sensitive(reason="the broker answers within a second")
def test_helper_that_dials_without_end(workdir: Path) -> None:
    """Each of its dials fails at once, so they never add up: the broker has time for everybody else all the same."""
    with hostile(workdir) as (scene, chooser):
        chooser.liar("need-peer-flood")
        victim = scene.outgoing(Ticket(endpoints=("tcp:127.0.0.1:1",)).encode())
        chooser.act()
        for _ in range(20):
            begin = time.monotonic()
            scene.broker.list()
            assert time.monotonic() - begin < 1
        victim.migration.cancel()
        assert victim.migration.wait_finished()["Result"] in ("cancelled", "failed")


@pytest.mark.parametrize("deed, words", [("gone", "ended with exit status 7"), ("early", "not permitted"),
                                         ("never-ready", "did not start within 20 s")])
def test_helper_that_never_gets_ready(workdir: Path, deed: str, words: str) -> None:
    with hostile(workdir) as (scene, chooser):
        victim = lie(scene, chooser, deed, incoming=True)
        victim.expect("HelperFailed", words, timeout=40)


def test_lying_gate(workdir: Path) -> None:
    """What only a relay may say ends a gate too; the next one works."""
    with hostile(workdir, bystander=False) as (scene, chooser):
        victim = scene.incoming()
        settled(scene)
        chooser.liar("state-waiting")
        gate = new_gate(scene)
        chooser.act()
        wait_until(lambda: gate not in scene.broker.helpers(), "the gate is dead")
        with PlainPeer.source(Ticket.decode(victim.ticket)):
            victim.migration.wait_state("connected")
            victim.migration.cancel()
        victim.expect("Cancelled", result="cancelled")
        victim.migration.call("Forget")  # its source might come to hear of it: so long there is a gate
        wait_until(lambda: not scene.broker.helpers(), "no helper is left")
        assert "The gate sent a message that is not permitted (STATE)" in scene.broker.log(), scene.broker.log()


@pytest.mark.parametrize("role", ["incoming", "outgoing"])
def test_killed_helper(workdir: Path, role: str) -> None:
    """SIGKILL for one: HelperFailed for its migration."""
    with Scene(workdir) as scene, PlainListener() as listener:
        victim = scene.outgoing(listener.ticket.encode()) if role == "outgoing" else scene.incoming()
        (helper,) = set(scene.broker.helpers()) - set(scene.before[1])
        qemu = scene.qemu(victim) if role == "outgoing" else None
        os.kill(helper, signal.SIGKILL)
        victim.expect("HelperFailed", "SIGKILL", "start the migration anew")
        if qemu:
            wait_eof(qemu.sock)


def test_killed_gate(workdir: Path) -> None:
    """There is a new one at once, for the same port; the migrations beside it notice nothing."""
    with Scene(workdir, bystander=False) as scene:
        victim, other = scene.incoming(), scene.incoming("other")
        relays = scene.broker.helpers()[1:]  # in the order of their starts
        new_gate(scene)
        assert set(relays) < set(scene.broker.helpers())
        with PlainPeer.source(Ticket.decode(victim.ticket)):
            victim.migration.wait_state("connected")
            for one in (victim, other):
                one.migration.cancel()
                one.expect("Cancelled", result="cancelled")
        assert "The gate was killed by SIGKILL" in scene.broker.log(), scene.broker.log()


def test_what_a_helper_writes(workdir: Path) -> None:
    """It has no descriptor of the broker's log: its lines are named as such, cleaned, and counted."""
    with hostile(workdir) as (scene, chooser):
        victim = lie(scene, chooser, "noisy", incoming=True)
        chooser.act()
        wait_until(lambda: "(No more is taken from it.)" in scene.broker.log(), "all is said")
        lines = [line for line in scene.broker.log().splitlines() if "forged" in line]
        assert len(lines) == 100 and "\x1b" not in scene.broker.log()
        assert all(line.startswith("vmferryd: A helper wrote: vmferryd: forged") for line in lines), lines
        victim.unharmed()
        victim.migration.cancel()
        victim.expect("Cancelled", result="cancelled")


@pytest.mark.parametrize("listen", ["tcp:127.0.0.1:0", "tcp:*:0", "unix:{}/peers.sock"])
def test_gate_that_ends_listening(workdir: Path, listen: str) -> None:
    """Its successor has a listener that listens, at the address that the tickets name."""
    chooser = Chooser(workdir)
    with closing(chooser), Scene(workdir, bystander=False, helper=chooser.script,
                                 listen=listen.format(workdir)) as scene:
        victim = scene.incoming()
        endpoints = scene.broker.get("Endpoints")
        settled(scene)
        chooser.liar("end-listening")
        gate = new_gate(scene)
        chooser.act()
        wait_until(lambda: gate not in scene.broker.helpers(), "the gate is dead")
        wait_until(lambda: "It was opened anew" in scene.broker.log(), "the port is healed")
        assert scene.broker.get("Endpoints") == endpoints
        other = scene.incoming("other")
        for one in (victim, other):
            ticket = Ticket.decode(one.ticket)
            assert ticket.endpoints == Ticket.decode(victim.ticket).endpoints
            with PlainPeer.source(ticket):
                one.migration.wait_state("connected")
                one.migration.cancel()
            one.expect("Cancelled", result="cancelled")


def takes_descriptors(sock: socket.socket) -> bool:
    """Whether the other end can be sent one."""
    try:
        socket.send_fds(sock, [b"x"], [sock.fileno()])
    except PermissionError:
        return False
    return True


def test_no_descriptors_from_qemu(workdir: Path) -> None:
    """A QEMU, or a peer on this host, has no way to hand a helper what it is not to have."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            ours.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
        except OSError:
            pytest.skip("the kernel has no SO_PASSRIGHTS")
        assert not takes_descriptors(theirs)
    with Scene(workdir) as scene, PlainListener() as deaf:
        victim = scene.outgoing(deaf.ticket.encode())
        with deaf.accept():
            assert not takes_descriptors(scene.qemu(victim).sock)
            victim.migration.cancel()
        victim.expect("Cancelled", result="cancelled")
        other = scene.incoming("other")
        with scene.listen(other) as listener, PlainPeer.source(Ticket.decode(other.ticket)) as peer:
            with peer.open(0) as channel:
                channel.sendall(b"x")
                with listener.accept() as qemu:
                    assert qemu.recv_exact(1) == b"x" and not takes_descriptors(qemu.sock)
                    other.migration.cancel()
        other.expect("Cancelled", result="cancelled")
