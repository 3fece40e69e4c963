# SPDX-License-Identifier: LGPL-2.1-or-later
"""Descriptors whose close(2) waits without end: the broker answers meanwhile, and nothing is left of them afterwards."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from jeepney import DBusAddress, HeaderFields, new_method_call
from vmlib.broker import BROKER, MIGRATION, NAME, PATH, Broker, BusError, Client, settled, wait_until
from vmlib.held_lock import HeldLock
from vmlib.hosts import Hosts, fds, more
from vmlib.lingering import Lingering, while_it_sleeps
from vmlib.silent_fuse import SilentFuse
from vmlib.supplied import NO_PATH, NO_PORT

THREADS, SHARE = 16, 4  # RELEASE_THREADS, RELEASE_SHARE
pytestmark = pytest.mark.load_sensitive(reason="the broker answers others within 0.1 s")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be several users")
TENANTS = range(60001, 60001 + THREADS // SHARE)  # that can hold up all of them together


def assert_answers(broker: Broker) -> None:
    """Another client's calls are answered as ever."""
    client = Client(broker.bus)
    times = []
    for _ in range(200):
        begun = time.monotonic()
        client.get(PATH, BROKER, "Version")
        times.append(time.monotonic() - begun)
    client.close()
    assert sorted(times)[len(times) // 2] < 0.1, times  # the machine may be busy; one that hangs is never answered


def send(broker: Broker, path: str, member: str, signature: str, *args: object) -> None:
    """A call, whose answer is not waited for, on a connection of its own."""
    connection = broker.bus.connect()
    connection.send(new_method_call(DBusAddress(path, bus_name=NAME, interface=MIGRATION), member, signature, args))
    connection.close()


def add_stream(broker: Broker, path: str, sock: socket.socket) -> None:
    """Refused: it is no UNIX socket."""
    send(broker, path, "AddStream", "sh", "migrate", sock)


def to_no_object(broker: Broker, path: str, sock: socket.socket) -> None:
    send(broker, PATH + "/incoming/0000000000000001", "AddPeerConnection", "h", sock)


def to_no_method(broker: Broker, path: str, sock: socket.socket) -> None:
    send(broker, path, "Dance", "h", sock)


def with_a_wrong_signature(broker: Broker, path: str, sock: socket.socket) -> None:
    send(broker, path, "Cancel", "h", sock)


def nested(broker: Broker, path: str, sock: socket.socket) -> None:
    """In the queue of a socket that is good but for its stream's name."""
    ours, theirs = socket.socketpair()
    socket.send_fds(ours, [b"x"], [sock.fileno()])
    send(broker, path, "AddStream", "sh", "nosuch", theirs)


def five_deep(broker: Broker, path: str, sock: socket.socket) -> None:
    """In a queue that is in a queue, and so on."""
    for _ in range(5):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        socket.send_fds(ours, [b"x"], [sock.fileno()])
        sock = theirs
    send(broker, path, "AddPeerConnection", "h", sock)


def not_accepted(broker: Broker, path: str, sock: socket.socket) -> None:
    """In the queue of a connection that waits to be accepted."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("")
        listener.listen()
        client.connect(listener.getsockname())
        socket.send_fds(client, [b"x"], [sock.fileno()])
        send(broker, path, "AddStream", "sh", "migrate", listener)


def taken(broker: Broker, path: str, sock: socket.socket) -> None:
    """A peer connection that the helper gets, and finds to be none."""
    send(broker, path, "AddPeerConnection", "h", sock)


def beside_the_arguments(broker: Broker, path: str, sock: socket.socket) -> None:
    """No argument says which one it is."""
    connection = broker.bus.connect()
    message = new_method_call(DBusAddress(path, bus_name=NAME, interface=MIGRATION), "Nothing")
    message.header.fields[HeaderFields.unix_fds] = 1
    socket.send_fds(connection.sock, [message.serialise(serial=100)], [sock.fileno()])


WAYS = [add_stream, to_no_object, to_no_method, with_a_wrong_signature, nested, five_deep, not_accepted,
        beside_the_arguments]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_of_a_caller(hosts: Hosts, way: Callable[[Broker, str, socket.socket], None]) -> None:
    broker = hosts.destination
    migration = hosts.prepare()
    path = migration.path
    before = settled(lambda: fds(broker), 0.3)
    with Lingering() as lingering:
        while_it_sleeps(broker, lambda: lingering.pass_on(lambda sock: way(broker, path, sock)))
        wait_until(lambda: "1 of 16 threads hang" in broker.log(), "it hangs")
        assert_answers(broker)
        wait_until(lambda: not more(fds(broker), before), "the broker has given it away")
        lingering.let_go()
        wait_until(lambda: "that did not close are closed" in broker.log(), "it is closed")
    wait_until(lambda: not more(fds(broker), before), "nothing is left")
    migration.cancel()
    migration.wait_finished()


def test_one_that_the_helper_has(hosts: Hosts) -> None:
    """It closes its own, or ends; what the broker does goes on."""
    broker = hosts.destination
    migration = hosts.prepare(endpoints=NO_PORT)
    with Lingering() as lingering:
        while_it_sleeps(broker, lambda: lingering.pass_on(lambda sock: taken(broker, migration.path, sock)))
        assert_answers(broker)
        migration.cancel()
        assert_answers(broker)
        assert migration.wait_finished()["Result"] == "cancelled"


def test_of_fuse(hosts: Hosts, workdir: Path) -> None:
    """A file whose file system does not answer the broker, but all others."""
    broker = hosts.destination
    migration = hosts.prepare()
    path = migration.path
    before = settled(lambda: fds(broker), 0.3)
    mountpoint = workdir / "fuse"
    mountpoint.mkdir()
    try:
        fuse = SilentFuse(mountpoint, broker.pid)
    except OSError as error:
        pytest.skip(f"kernel: no FUSE here: {error}")
    with fuse:
        def give() -> None:
            with open(fuse.file, "rb") as file:
                send(broker, path, "AddPeerConnection", "h", file)

        while_it_sleeps(broker, give)
        wait_until(lambda: "1 of 16 threads hang" in broker.log(), "it hangs")
        assert_answers(broker)
        fuse.let_go()
        wait_until(lambda: "that did not close are closed" in broker.log(), "it is closed")
    wait_until(lambda: not more(fds(broker), before), "nothing is left")
    migration.cancel()
    migration.wait_finished()


def test_of_a_qemu(hosts: Hosts) -> None:
    """A connection with such a one in its queue, which the broker closes: it is beyond the limit."""
    incoming = hosts.prepare()
    outgoing = hosts.start(incoming)
    outgoing.wait_state("connected")
    broker, path = hosts.source, outgoing.socket()

    def connect(sock: socket.socket) -> None:
        qemu = socket.socket(socket.AF_UNIX)
        qemu.connect(path)
        socket.send_fds(qemu, [b"x"], [sock.fileno()])

    with Lingering() as lingering:
        try:
            while_it_sleeps(broker, lambda: lingering.pass_on(connect))
        except OSError as error:
            if error.errno != errno.EPERM:
                raise
            outgoing.cancel()
            pytest.skip("kernel: it refuses descriptors before they are in the queue (SO_PASSRIGHTS)")
        assert_answers(broker)
        os.kill(broker.helper_of(outgoing), 9)
        outgoing.wait_finished()
        assert_answers(broker)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        return ours, server.accept()[0]


@pytest.mark.parametrize("make_pair", [socket.socketpair, tcp_pair])
def test_a_lock_that_a_caller_holds(hosts: Hosts, make_pair: Callable[[], tuple[socket.socket, socket.socket]]) -> None:
    """The broker asks nothing of the socket that would wait for it."""
    incoming = hosts.prepare(endpoints=NO_PORT, sockets=NO_PATH)
    outgoing = hosts.start(incoming)
    ours, theirs = make_pair()
    try:
        held = HeldLock(theirs)
    except OSError as error:
        pytest.skip(f"kernel: {error}")
    with ours, theirs:
        with held:
            for migration in (incoming, outgoing):
                migration.call("AddPeerConnection", "h", theirs, timeout=5)
            for broker in hosts.brokers:
                assert_answers(broker)
        for migration in (outgoing, incoming):
            migration.cancel()
            migration.wait_finished()


def flood(broker: Broker, path: str, *whose: tuple[Lingering, int, int]) -> None:
    """Of each so many, as this user. All at once: a broker that is stopped while threads hang leaves its closes."""
    def act() -> None:
        for lingering, uid, n in whose:
            for _ in range(n):
                lingering.pass_on(lambda sock: to_no_method(broker, path, sock), uid)

    while_it_sleeps(broker, act)


def passed_as(broker: Broker, path: str, uid: int) -> socket.socket:
    """The other end of a socket of this user's that was passed: it ends when the broker has closed that."""
    os.seteuid(uid)
    ours, theirs = socket.socketpair()
    os.seteuid(0)
    to_no_method(broker, path, theirs)
    theirs.close()
    ours.settimeout(20)
    return ours


@needs_root
def test_one_user(hosts: Hosts) -> None:
    """Of its share of the threads all hang, and what it passes besides waits; nothing that others pass does."""
    broker = hosts.destination
    migration = hosts.prepare(endpoints=NO_PORT, sockets=NO_PATH)
    before = settled(lambda: fds(broker), 0.3)
    with Lingering() as lingering:
        flood(broker, migration.path, (lingering, TENANTS[0], 3 * SHARE))
        wait_until(lambda: f" {SHARE} of 16 threads hang" in broker.log(), "its share hangs")
        wait_until(lambda: f"uid {TENANTS[0]} passed does not close" in broker.log(), "it is said whose they are")
        with passed_as(broker, migration.path, TENANTS[0]) as waits:
            with passed_as(broker, migration.path, TENANTS[1]) as closed:
                assert closed.recv(1) == b""
            ours, theirs = socket.socketpair()
            with ours, theirs:
                migration.call("AddStream", "sh", "migrate", theirs)
            assert_answers(broker)
            assert not select.select([waits], [], [], 0)[0]
            lingering.let_go()
            assert waits.recv(1) == b""
    migration.cancel()
    migration.wait_finished()
    wait_until(lambda: not more(fds(broker), before), "nothing is left")


@needs_root
def test_all_threads(hosts: Hosts) -> None:
    """No more are let in, and that is said, until one has let go."""
    broker = hosts.destination
    migration = hosts.prepare(endpoints=NO_PORT, sockets=NO_PATH)
    before = settled(lambda: fds(broker), 0.3)
    ours, theirs = socket.socketpair()
    with ours, theirs, Lingering() as lingering:
        flood(broker, migration.path, *((lingering, uid, SHARE + 1) for uid in TENANTS))
        wait_until(lambda: "16 of 16 threads hang" in broker.log(), "all hang")
        assert_answers(broker)
        for call in (("AddStream", "sh", "migrate", theirs), ("AddPeerConnection", "h", theirs)):
            with pytest.raises(BusError, match="takes no descriptor now: too many that were passed before") as refused:
                migration.call(*call)
            assert refused.value.short == "LimitExceeded"
        assert_answers(broker)
        lingering.let_go()
        wait_until(lambda: "that did not close are closed" in broker.log(), "they are closed")
        wait_until(lambda: not more(fds(broker), before), "nothing is left")
        migration.call("AddStream", "sh", "migrate", theirs)
    migration.cancel()
    migration.wait_finished()


def test_the_end(hosts: Hosts) -> None:
    """The broker ends as ever while some hang and others wait: a process that exits does not linger."""
    broker = hosts.destination
    path = hosts.prepare().path
    with Lingering() as lingering:
        flood(broker, path, (lingering, 0, SHARE + 2))
        wait_until(lambda: "4 of 16 threads hang" in broker.log(), "all hang")
        assert broker.stop() == 0
        broker.start()
