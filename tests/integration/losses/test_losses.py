# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happens when something is gone: a helper, a broker, a QEMU, a peer connection. With stand-ins for the QEMUs.

In each case the other QEMU must learn of it, both sides must say why, and a second migration, which runs beside
it, must not notice.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmlib.broker import Broker, BusError, wait_until
from vmlib.fake_qemu import FakeQemu
from vmlib.hosts import (Hosts, Tunnel, assert_failed, assert_learns, assert_peer_lost, cancel_and_wait, files,
                         has_ended, kill, relay_of)
from vmlib.quiet import all_heard

SIZE = 4 << 20


@pytest.fixture
def bystander(hosts: Hosts) -> Iterator[None]:
    """A migration that runs before and goes on after."""
    tunnel = hosts.connect("bystander")
    source, destination = tunnel.open_channel()
    yield
    sent = source.send_pattern(5, SIZE, shut=True)
    assert destination.recv_pattern_until_eof(5) == SIZE
    sent.result(10)
    source.close()
    destination.close()
    tunnel.assert_done()


def begin(hosts: Hosts, security: str = "tls") -> tuple[Tunnel, int, int]:
    """A migration whose channels end with its peer, and its two helpers' pids: the source's, the destination's."""
    resume = {"resume_timeout_usec": ("t", 0)}
    there, incoming = relay_of(hosts.destination, lambda: hosts.prepare(security=security, **resume))
    here, outgoing = relay_of(hosts.source, lambda: hosts.start(incoming, **resume))
    for end in (outgoing, incoming):
        end.wait_state("connected")
    return Tunnel(outgoing, incoming), here, there


@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize("state", ["connected", "active"])
@pytest.mark.parametrize("side", ["source", "destination"])
def test_helper_killed(hosts: Hosts, side: str, state: str) -> None:
    tunnel, here, there = begin(hosts)
    qemus = tunnel.open_channel() if state == "active" else ()
    kill(here if side == "source" else there)
    own, peer = tunnel.ends if side == "source" else reversed(tunnel.ends)
    assert "was killed by SIGKILL" in assert_failed(own, "failed", "HelperFailed")["ErrorMessage"]
    assert_peer_lost(peer)
    for qemu in qemus:
        assert_learns(qemu)
        qemu.close()
    cancel_and_wait(peer)


@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize("side", ["source", "destination"])
def test_helper_killed_in_full_flow(hosts: Hosts, side: str) -> None:
    tunnel, here, there = begin(hosts)
    source, destination = tunnel.open_channel()
    sending = source.send_pattern(1, 1 << 30), destination.send_pattern(2, 1 << 30)
    time.sleep(0.2)
    kill(here if side == "source" else there)
    own, peer = tunnel.ends if side == "source" else reversed(tunnel.ends)
    assert_failed(own, "failed", "HelperFailed")
    assert_peer_lost(peer)
    for qemu, future in zip((source, destination), sending):
        assert_learns(qemu)
        with pytest.raises(OSError):
            future.result(10)
        qemu.close()
    cancel_and_wait(peer)


@pytest.mark.usefixtures("bystander")
def test_waiting_helper_killed(hosts: Hosts) -> None:
    pid, incoming = relay_of(hosts.destination, lambda: hosts.prepare())
    kill(pid)
    assert_failed(incoming, "failed", "HelperFailed")
    with pytest.raises(BusError) as failed:
        hosts.start(incoming).wait()
    assert failed.value.short in ("TicketUsed", "PeerRejected")


def test_helper_that_does_not_start(workdir: Path) -> None:
    """Each with its own message: there is none, it ends at once, it says nothing."""
    for name, script, word in (("none", None, "Cannot start"), ("ends", "exit 3", "status 3|Broken pipe"),
                               ("hangs", "exec sleep 60", "did not start")):
        helper = workdir / name
        if script:
            helper.write_text(f"#!/bin/sh\n{script}\n")
            helper.chmod(0o755)
        with Broker(workdir, f"b{name[0]}", helper=helper) as broker:
            with pytest.raises(BusError, match=word) as failed:
                migration = broker.prepare()
                migration.wait()
            assert failed.value.short == "HelperFailed"
            wait_until(lambda: not broker.helpers(), "no helper")
            assert files(broker) == []



# The broker.


@pytest.mark.parametrize("how", ["killed", "stopped"])
@pytest.mark.parametrize("side", ["source", "destination"])
def test_broker_gone(hosts: Hosts, side: str, how: str) -> None:
    """What runs goes on to its end without it; the other broker says done. Started again, it begins clean."""
    tunnel, here, there = begin(hosts)
    source, destination = tunnel.open_channel()
    sent = source.send_pattern(1, SIZE, shut=False)
    destination.recv_pattern(1, SIZE // 2)
    broker: Broker = getattr(hosts, side)
    if how == "killed":
        broker.kill()
    else:
        assert broker.stop() == 0
    destination.recv_pattern(1, SIZE // 2, SIZE // 2)
    sent.result(10)
    source.shut_wr()
    assert destination.recv_until_eof() == b""
    answered = destination.send_pattern(2, SIZE, shut=True)
    assert source.recv_pattern_until_eof(2) == SIZE
    answered.result(10)
    source.close()
    destination.close()
    other = tunnel.incoming if side == "source" else tunnel.outgoing
    assert other.wait_finished()["Result"] == "done"
    for pid in (here, there):
        wait_until(lambda: has_ended(pid), "the helpers end", 10)
    broker.start()
    hosts.note_baseline(broker)
    assert broker.list() == []
    assert files(broker) == []
    again = hosts.connect("web1")
    again.outgoing.cancel()
    again.assert_failed("cancelled", "Cancelled")


@pytest.mark.parametrize("side", ["source", "destination"])
def test_broker_gone_before_anything_runs(hosts: Hosts, side: str) -> None:
    """Nothing runs yet that would be lost: the helper goes too, and the peer says so."""
    tunnel, here, there = begin(hosts)
    broker: Broker = getattr(hosts, side)
    broker.kill()
    other = tunnel.incoming if side == "source" else tunnel.outgoing
    assert_failed(other, "failed", "HelperFailed", "Interrupted")
    for pid in (here, there):
        wait_until(lambda: has_ended(pid), "the helpers end", 10)
    broker.start()
    hosts.note_baseline(broker)
    assert files(broker) == []


def test_bus_gone(workdir: Path) -> None:
    """Without its bus a broker ends, and leaves no socket."""
    broker = Broker(workdir, "a")
    broker.prepare()
    broker.bus.process.terminate()
    broker.process.wait(30)
    broker.client.close()
    assert files(broker) == []
    broker.bus.close()


def test_second_broker_on_the_same_directory(workdir: Path) -> None:
    with Broker(workdir, "a") as broker:
        with pytest.raises(AssertionError, match="Another vmferryd has it"):
            Broker(workdir, "b", args=(f"--runtime-dir={broker.runtime_dir}",))


# The QEMUs.


@pytest.mark.usefixtures("bystander")
def test_destination_qemu_dies(hosts: Hosts) -> None:
    """In full flow: the source's QEMU gets an error, not a clean end, and both sides name the destination's."""
    tunnel, _, _ = begin(hosts)
    source, destination = tunnel.open_channel()
    sending = source.send_pattern(1, 1 << 30)
    destination.recv_pattern(1, SIZE)
    destination.close()
    with pytest.raises(OSError):
        sending.result(20)
    source.close()
    tunnel.assert_failed("failed", "SocketUnavailable")
    for end in tunnel.ends:
        assert "QEMU closed its connection" in end.get("ErrorMessage")


@pytest.mark.usefixtures("bystander")
def test_source_qemu_dies(hosts: Hosts) -> None:
    """A killed process's socket gives an EOF as a closed one does: what came reaches the destination, no byte more."""
    tunnel, _, _ = begin(hosts)
    source, destination = tunnel.open_channel()
    sent = source.send_pattern(1, SIZE)
    sent.result(10)
    source.close()
    assert destination.recv_pattern_until_eof(1) == SIZE
    destination.close()
    tunnel.assert_done()


@pytest.mark.usefixtures("bystander")
def test_destination_qemu_never_comes(workdir: Path, hosts: Hosts) -> None:
    tunnel, _, _ = begin(hosts)
    with FakeQemu.connect(tunnel.outgoing.socket()) as source:
        source.send(b"anybody there?")
        all_heard(*hosts.brokers)
        tunnel.incoming.cancel()
        assert_learns(source)
    tunnel.assert_failed("cancelled", "Cancelled")


def test_destination_qemu_comes_too_late(workdir: Path) -> None:
    with Hosts(workdir, args=("--qemu-timeout=1",)) as hosts:
        tunnel = hosts.connect()
        with FakeQemu.connect(tunnel.outgoing.socket()) as source:
            source.send(b"anybody there?")
            assert_learns(source)
        tunnel.assert_failed("failed", "SocketUnavailable")
        for end in tunnel.ends:
            assert tunnel.incoming.id in end.get("ErrorMessage") and "migrate.sock" in end.get("ErrorMessage")


@pytest.mark.parametrize("what", ["file", "directory", "link", "link on the way"])
def test_destination_socket_is_none(hosts: Hosts, workdir: Path, what: str) -> None:
    path = workdir / "q"
    if what == "file":
        path.write_text("")
    elif what == "directory":
        path.mkdir()
    elif what == "link":
        path.symlink_to(workdir / "elsewhere")
    else:
        (workdir / "there").mkdir()
        (workdir / "l").symlink_to(workdir / "there")
        path = workdir / "l" / "q"
    incoming = hosts.prepare(sockets=("a{ss}", {"migrate": str(path)}))
    tunnel = Tunnel(hosts.start(incoming), incoming)
    tunnel.outgoing.wait_state("connected")
    with FakeQemu.connect(tunnel.outgoing.socket()) as source:
        source.send(b"x")
        assert_learns(source)
    tunnel.assert_failed("failed", "PathNotAllowed" if what.startswith("link") else "SocketUnavailable")


# The peer.


def test_nobody_listens(hosts: Hosts) -> None:
    incoming = hosts.prepare(endpoints=("as", ["tcp:127.0.0.1:1"]))
    outgoing = hosts.start(incoming)
    properties = assert_failed(outgoing, "failed", "PeerUnreachable")
    assert "tcp:127.0.0.1:1" in properties["ErrorMessage"] and "refused" in properties["ErrorMessage"]
    incoming.cancel()
    incoming.wait_finished()


@pytest.mark.long
def test_frozen_peer_is_noticed(hosts: Hosts) -> None:
    """A peer whose helper hangs: after its silence the source's QEMU learns of it. Later the two find each other."""
    tunnel, _, there = begin(hosts)
    source, destination = tunnel.open_channel()
    os.kill(there, 19)
    source.sock.settimeout(40)
    assert_learns(source)
    tunnel.outgoing.wait_state("interrupted")
    assert "not been heard of for 10 s" in tunnel.outgoing.get("ErrorMessage")
    os.kill(there, 18)
    assert_learns(destination)
    wait_until(lambda: all(end.get("Reconnects") for end in tunnel.ends), "they are connected", 20)
    assert [end.get("State") for end in tunnel.ends] == ["interrupted"] * 2  # nothing goes on without new channels
    tunnel.outgoing.cancel()
    tunnel.assert_failed("cancelled", "Cancelled")
    source.close()
    destination.close()


@pytest.mark.parametrize("rest", [0, 8])
def test_qemu_leaves_something_unread(hosts: Hosts, rest: int) -> None:
    """On a connection beside its main one, as QEMU 10 does on the preempted pages' one: the main one goes on to its end.
    What the socket took is delivered; a short rest that it did not take is spared then."""
    tunnel = hosts.connect()
    main = tunnel.open_channel()
    source, destination = tunnel.open_channel()
    if rest == 0:
        source.send(b"12345678")
        wait_until(lambda: [one[3] for one in tunnel.incoming.get("Channels")] == [1, 9], "it is delivered")
    destination.close()
    assert source.at_eof(), "QEMU at the source hears of it"
    source.send(bytes(rest))
    main[0].send(b"memory")
    assert main[1].recv_exact(6) == b"memory"
    main[1].send(b"thanks")
    assert main[0].recv_exact(6) == b"thanks"
    for qemu in (*main, source):
        qemu.close()
    tunnel.assert_done()
    assert ("did not take the last 8 bytes" in hosts.destination.log()) == (rest == 8)
