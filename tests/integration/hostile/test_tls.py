# SPDX-License-Identifier: LGPL-2.1-or-later
"""Peers that would rather not have TLS 1.3 with this migration's key and ephemeral Diffie-Hellman.

The hostile ends are openssl's s_client and s_server, behind a preamble of ours.
"""

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vmlib.broker import wait_until
from vmlib.fake_qemu import FakeQemu
from vmlib.peer import PlainListener, PlainPeer
from vmlib.proxy import Proxy
from vmlib.scene import Scene, Victim
from vmlib.wire import TLS, Ticket, connect, derive, preamble, recv_exact, wait_eof

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
GOOD = ("-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256", "-groups", "X25519")
NO_CERTIFICATE = ("-nocert",)


def pump(a: socket.socket, b: socket.socket) -> None:
    def one(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    threads = [threading.Thread(target=one, args=pair, daemon=True) for pair in ((a, b), (b, a))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def key_of(ticket: Ticket, label: str = "vmferry control tls v1") -> str:
    return derive(ticket.secret, ticket.id, label).hex()


def tls(ticket: Ticket, **more: str) -> tuple[str, ...]:
    key = more.get("key", key_of(ticket))
    return ("-psk", key, "-psk_identity", more.get("identity", f"{ticket.id:016x}"))


def client(ticket: Ticket, *options: str) -> None:
    """s_client through a preamble of ours, until the other side ends it."""
    with socket.create_server(("127.0.0.1", 0)) as server, connect(ticket.endpoints[0]) as sock:
        sock.sendall(preamble(ticket.id))
        process = subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{server.getsockname()[1]}",
                                    "-noservername", *options], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        try:
            server.settimeout(30)
            near = server.accept()[0]
            with near:
                pump(near, sock)
        finally:
            process.terminate()
            process.communicate(timeout=10)


def good(scene: Scene, victim: Victim) -> None:
    """The right source still gets through."""
    outgoing = scene.outgoing(victim.ticket, "source")
    with scene.listen(victim) as listener, FakeQemu.connect(outgoing.migration.socket()) as source:
        source.send(b"memory")
        source.shut_wr()
        with listener.accept() as destination:
            assert destination.recv_until_eof() == b"memory"
            destination.shut_wr()
            assert source.recv_until_eof() == b""
        for migration in (victim.migration, outgoing.migration):
            assert migration.wait(20) == "done"


CLIENTS = {
    "wrong key": lambda t: (*GOOD, *tls(t, key="00" * 32)),
    "the secret itself": lambda t: (*GOOD, *tls(t, key=t.secret.hex())),
    "the key of plain": lambda t: (*GOOD, *tls(t, key=key_of(t, "vmferry control plain v1"))),
    "wrong identity": lambda t: (*GOOD, *tls(t, identity="0" * 16)),
    "no PSK": lambda t: GOOD,
    "TLS 1.2 with PSK": lambda t: ("-tls1_2", "-cipher", "PSK", *tls(t)),
    "TLS 1.2 with ECDHE-PSK": lambda t: ("-tls1_2", "-cipher", "ECDHE-PSK-AES128-CBC-SHA256", *tls(t)),
    "AES-256": lambda t: ("-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384", *tls(t)),
    "AES-128-CCM": lambda t: ("-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256", *tls(t)),
    "PSK without ECDHE": lambda t: ("-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256", "-allow_no_dhe_kex",
                                    "-groups", "ffdhe2048", *tls(t)),
    "P-256": lambda t: ("-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256", "-groups", "P-256", *tls(t)),
}


@needs_openssl
@pytest.mark.parametrize("name", CLIENTS)
def test_client(workdir: Path, name: str) -> None:
    """Refused in the handshake; the migration waits on for the right one."""
    with Scene(workdir) as scene:
        victim = scene.incoming(security=("s", "tls"))
        client(Ticket.decode(victim.ticket), *CLIENTS[name](Ticket.decode(victim.ticket)))
        wait_until(lambda: "failed to prove itself" in scene.broker.log(), "it is logged")
        victim.unharmed()
        good(scene, victim)


@needs_openssl
def test_client_that_is_right(workdir: Path) -> None:
    """What the others do would work with the right key: this test's own check. Then it speaks no frames."""
    with Scene(workdir) as scene:
        victim = scene.incoming(security=("s", "tls"))
        ticket = Ticket.decode(victim.ticket)
        with socket.create_server(("127.0.0.1", 0)) as server, connect(ticket.endpoints[0]) as sock:
            sock.sendall(preamble(ticket.id))
            process = subprocess.Popen(["openssl", "s_client", "-quiet", "-connect",
                                        f"127.0.0.1:{server.getsockname()[1]}", *GOOD, *tls(ticket)],
                                       stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                near = server.accept()[0]
                assert process.stdin
                process.stdin.write(b"no frame at all!")
                process.stdin.flush()
                with near:
                    pump(near, sock)
                victim.expect("ProtocolMismatch", "unknown frame")
            finally:
                process.terminate()
                process.communicate(timeout=10)


def test_plain_source_at_a_tls_destination(workdir: Path) -> None:
    """The same secret, but the ticket says `tls`: a source that changes it to `plain` proves nothing."""
    with Scene(workdir) as scene:
        victim = scene.incoming(security=("s", "tls"))
        ticket = Ticket.decode(victim.ticket)
        with pytest.raises((EOFError, ConnectionError, AssertionError)):
            PlainPeer.source(ticket)
        outgoing = scene.outgoing(ticket.but(security=1).encode(), "downgraded")
        outgoing.expect("PeerRejected")
        outgoing.migration.call("Forget")
        victim.unharmed()
        good(scene, victim)


def test_tls_source_at_a_plain_destination(workdir: Path) -> None:
    with Scene(workdir) as scene:
        victim = scene.incoming()
        ticket, connected = Ticket.decode(victim.ticket), threading.Event()
        way = scene.own(Proxy(ticket.endpoints[0], begin=connected))  # QEMU is there before it is rejected
        outgoing = scene.outgoing(ticket.but(security=TLS, endpoints=(way.endpoint,)).encode(), "upgraded")
        qemu = scene.qemu(outgoing)
        connected.set()
        outgoing.expect("PeerRejected")
        assert wait_eof(qemu.sock) == b""
        outgoing.migration.call("Forget")
        victim.unharmed()
        good(scene, victim)


def test_plain_destination_for_a_tls_source(workdir: Path) -> None:
    """What answers does not speak TLS: nothing falls back."""
    with Scene(workdir) as scene, PlainListener(security=TLS) as listener:
        outgoing = scene.outgoing(listener.ticket.encode())
        qemu = scene.qemu(outgoing)
        sock = listener.accept_raw()
        assert recv_exact(sock, 33)[32] == 22  # a TLS record of a handshake
        sock.sendall(b"\2" + bytes(95))
        outgoing.expect("PeerRejected")
        assert wait_eof(qemu.sock) == b""
        wait_eof(sock)
        sock.close()


@contextmanager
def server(ticket: Ticket, listener: PlainListener, *options: str) -> Iterator[None]:
    """s_server behind the listener, for one connection."""
    process = subprocess.Popen(["openssl", "s_server", "-accept", "127.0.0.1:0", *NO_CERTIFICATE, *options],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout
        said = next(line for line in process.stdout if line.startswith(b"ACCEPT "))
        port = int(said.rpartition(b":")[2])
        near = listener.accept_raw()
        with near:
            assert recv_exact(near, 32) == preamble(ticket.id)
            with socket.create_connection(("127.0.0.1", port)) as far:
                pump(near, far)
                yield
    finally:
        process.terminate()
        process.communicate(timeout=10)


SERVERS = {
    "wrong key": lambda t: (*GOOD, *tls(t, key="11" * 32)),
    "TLS 1.2": lambda t: ("-tls1_2", "-cipher", "PSK", *tls(t)),
    "AES-256": lambda t: ("-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384", *tls(t)),
    "no PSK": lambda t: ("-tls1_3",),
}


@needs_openssl
@pytest.mark.parametrize("name", SERVERS)
def test_server(workdir: Path, name: str) -> None:
    with Scene(workdir) as scene, PlainListener(security=TLS) as listener:
        outgoing = scene.outgoing(listener.ticket.encode())
        qemu = scene.qemu(outgoing)
        with server(listener.ticket, listener, *SERVERS[name](listener.ticket)):
            outgoing.expect("PeerRejected")
        assert wait_eof(qemu.sock) == b""
