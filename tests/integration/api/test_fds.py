# SPDX-License-Identifier: LGPL-2.1-or-later
"""Descriptors from managers: whole migrations with no path and no port; test_fds_refused.py has what is refused."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from vmlib.broker import ROOT, build_dir
from vmlib.fake_qemu import FakeQemu, pattern
from vmlib.hosts import Hosts, assert_learns
from vmlib.migration import Pair
from vmlib.supplied import add_peers, add_streams, start

EXAMPLES = ROOT / "tests" / "examples"
SECURITIES = pytest.mark.parametrize("security", ["tls", "plain"])


# ---- The example clients ----


@pytest.mark.qemu
@SECURITIES
def test_python_client_moves_a_real_guest(hosts: Hosts, needs_qemu: None, security: str) -> None:
    with Pair(hosts.workdir, 32) as pair:
        pair.source.wait_sweeps()
        run = subprocess.run(
            [sys.executable, EXAMPLES / "fd_client.py", hosts.source.bus.address, hosts.destination.bus.address,
             pair.source.qmp_path, pair.destination.qmp_path, security],
            capture_output=True, text=True, timeout=60)
        assert (run.returncode, run.stdout, run.stderr) == (0, "done\ndone\n", "")
        pair.wait_completed()
        pair.assert_unharmed()
    for broker in hosts.brokers:  # nothing but the migration's empty directory was made
        assert [path for path in broker.runtime_dir.rglob("*") if path.is_socket()] == []
        assert not any("INET" in what for what in broker.fds())


@contextmanager
def gdbus_client(hosts: Hosts) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Runs it beside what is done with the two QEMUs' sockets, which are closed at the end; it must have gone well.

    GLib 2.74's gdbus passes descriptors (`h` arguments are numbers of its own), but keeps none that it gets.
    """
    with ExitStack() as stack:
        # 3 and 4: what the two brokers get. 5 to 8: two peer connections, both ends of each.
        pairs = [socket.socketpair() for _ in range(4)]
        for pair in pairs:
            for sock in pair:
                stack.callback(sock.close)
        # Those which are given must be above those which they become.
        given = [fcntl.fcntl(sock, fcntl.F_DUPFD, 20) for sock in (pairs[0][1], pairs[1][1], *pairs[2], *pairs[3])]
        try:
            numbers = " ".join(f"{to}<&{fd} {fd}<&-" for to, fd in zip(range(3, 9), given))
            client = stack.enter_context(subprocess.Popen(
                ["bash", "-c", f'exec "$0" "$@" {numbers}', EXAMPLES / "fd-client.sh", hosts.source.bus.address,
                 hosts.destination.bus.address],
                pass_fds=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        finally:
            for fd in given:
                os.close(fd)
        stack.callback(client.kill)  # where something else went wrong
        for _, theirs in pairs[:2]:
            theirs.close()
        for pair in pairs[2:]:
            for sock in pair:
                sock.close()
        yield pairs[0][0], pairs[1][0]
        said, complaint = client.communicate(timeout=30)
        assert (client.returncode, complaint) == (0, ""), complaint
        assert said.endswith("('done',)\n('done',)\n"), said


def test_gdbus_client(hosts: Hosts) -> None:
    size = 3 << 20
    with gdbus_client(hosts) as sockets:
        source, destination = (FakeQemu(sock) for sock in sockets)
        sent = source.send_pattern(1, size, shut=True)
        back = destination.send_pattern(2, 1000, shut=True)
        assert destination.recv_pattern_until_eof(1) == size
        assert source.recv_pattern_until_eof(2) == 1000
        sent.result(10)
        back.result(10)


@pytest.mark.qemu
def test_gdbus_client_moves_a_real_guest(hosts: Hosts, needs_qemu: None) -> None:
    with Pair(hosts.workdir, 32) as pair:
        pair.source.wait_sweeps()
        with gdbus_client(hosts) as sockets:
            for qemu, sock in zip((pair.source, pair.destination), sockets):
                qemu.qmp.execute_with_fd("getfd", sock.fileno(), fdname="tunnel")
                sock.close()
            pair.precopy("fd:tunnel", "fd:tunnel")
        pair.assert_unharmed()
    assert not any("INET" in what for broker in hosts.brokers for what in broker.fds())


def test_c_client(hosts: Hosts) -> None:
    data = pattern(5, 5 << 20)
    run = subprocess.run([build_dir() / "tests" / "examples" / "fd-client", hosts.source.bus.address,
                          hosts.destination.bus.address], input=data, capture_output=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, b"source: done\ndestination: done\n")
    assert run.stdout == data


@SECURITIES
def test_many_channels_over_peers_that_come_late(hosts: Hosts, security: str) -> None:
    """Each channel waits for the peer connection that its manager brings; what is given first is used first."""
    tunnel = start(hosts, security)
    kept = add_peers(tunnel, 1)
    for migration in tunnel.ends:
        migration.wait_state("connected")
    with ExitStack() as stack:
        for sock in kept:
            stack.callback(sock.close)
        pairs = []
        for _ in range(5):
            source, destination, given = add_streams(tunnel)
            for thing in (source, destination, *given):
                stack.callback(thing.close)
            pairs.append((source, destination))
        for index, (source, _) in enumerate(pairs):
            source.send(bytes([index]))
        assert all(channel[4] == "opening" for channel in tunnel.outgoing.get("Channels"))
        for index, (source, destination) in enumerate(pairs):
            for sock in add_peers(tunnel, 1):
                sock.close()
            assert destination.recv_exact(1) == bytes([index])
        for source, destination in pairs:
            destination.shut_wr()
            assert source.recv_until_eof() == b""
            source.shut_wr()
            assert destination.recv_until_eof() == b""
        tunnel.assert_done()


# ---- The manager keeps a copy ----


@SECURITIES
def test_o_nonblock_flips_while_bytes_move(hosts: Hosts, security: str) -> None:
    """The flag belongs to the description, which whoever passed a socket still shares."""
    size = 24 << 20
    tunnel = start(hosts, security)
    kept = add_peers(tunnel, 3)
    source, destination, given = add_streams(tunnel)
    second = add_streams(tunnel)
    kept += given + second[2]
    over = threading.Event()

    def flip() -> None:
        while not over.is_set():
            for sock in kept:
                fcntl.fcntl(sock, fcntl.F_SETFL, fcntl.fcntl(sock, fcntl.F_GETFL) ^ os.O_NONBLOCK)
            time.sleep(0.0005)

    flipping = threading.Thread(target=flip)
    flipping.start()
    try:
        there = source.send_pattern(1, size, shut=True)
        back = destination.send_pattern(2, size, shut=True)
        received = threading.Thread(target=lambda: source.recv_pattern_until_eof(2))
        received.start()
        assert destination.recv_pattern_until_eof(1) == size
        received.join(30)
        there.result(10)
        back.result(10)
    finally:
        over.set()
        flipping.join()
    second[0].close()
    second[1].close()
    assert tunnel.assert_done() == (size, size)
    for thing in (source, destination, *kept):
        thing.close()


@SECURITIES
def test_a_blocking_socket_blocks_nobody(hosts: Hosts, security: str) -> None:
    """With everything set to blocking, one channel that nobody reads does not stop the other, nor the end."""
    tunnel = start(hosts, security)
    kept = add_peers(tunnel, 3)
    first, second = add_streams(tunnel), add_streams(tunnel)
    kept += first[2] + second[2]
    first[0].send(b"1")
    second[0].send(b"2")
    assert (first[1].recv_exact(1), second[1].recv_exact(1)) == (b"1", b"2")
    for sock in kept:
        sock.setblocking(True)
    for qemu in first[:2]:  # full, in both directions
        qemu.sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            qemu.send(bytes(64 << 20))
    for qemu, other in (second[:2], second[1::-1]):
        sent = qemu.send_pattern(3, 4 << 20)
        other.recv_pattern(3, 4 << 20)
        sent.result(10)
    tunnel.outgoing.cancel()
    for qemu in (*first[:2], *second[:2]):
        qemu.sock.settimeout(10)
        assert_learns(qemu)
    tunnel.assert_failed("cancelled", "Cancelled")
    for thing in (*first[:2], *second[:2], *kept):
        thing.close()
