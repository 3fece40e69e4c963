# SPDX-License-Identifier: LGPL-2.1-or-later
"""All that is no fit descriptor, and too many that are; test_fds.py has what managers do with good ones."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call
from vmlib.broker import MIGRATION, NAME, BusError, Client, settled, wait_until
from vmlib.fake_qemu import FakeQemu
from vmlib.hosts import Hosts, assert_learns, fds, more
from vmlib.quiet import all_heard
from vmlib.supplied import NO_PATH, NO_PORT, start


# ---- What is refused ----


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        a = socket.create_connection(server.getsockname())
        return a, server.accept()[0]


def a_file(stack: ExitStack, workdir: Path) -> object:
    return stack.enter_context(open(workdir / "file", "w+b")).fileno()


def a_pipe(stack: ExitStack, workdir: Path) -> object:
    ends = os.pipe()
    for end in ends:
        stack.callback(os.close, end)
    return ends[0]


def a_directory(stack: ExitStack, workdir: Path) -> object:
    fd = os.open(workdir, os.O_RDONLY | os.O_DIRECTORY)
    stack.callback(os.close, fd)
    return fd


def an_o_path(stack: ExitStack, workdir: Path) -> object:
    fd = os.open(workdir, os.O_PATH)
    stack.callback(os.close, fd)
    return fd


def an_o_path_of_a_socket(stack: ExitStack, workdir: Path) -> object:
    listener = stack.enter_context(FakeQemu.listen(workdir / "listener"))
    fd = os.open(listener.path, os.O_PATH)
    stack.callback(os.close, fd)
    return fd


def a_datagram_socket(stack: ExitStack, workdir: Path) -> object:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    stack.enter_context(b)
    return stack.enter_context(a)


def a_seqpacket_socket(stack: ExitStack, workdir: Path) -> object:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stack.enter_context(b)
    return stack.enter_context(a)


def a_udp_socket(stack: ExitStack, workdir: Path) -> object:
    sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.connect(("127.0.0.1", 9))
    return sock


def an_unconnected_socket(stack: ExitStack, workdir: Path) -> object:
    return stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))


def an_unconnected_tcp_socket(stack: ExitStack, workdir: Path) -> object:
    return stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))


def a_listening_socket(stack: ExitStack, workdir: Path) -> object:
    sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    sock.bind(b"")  # a name of the kernel's choice, without a file
    sock.listen()
    return sock


def a_closed_peer(stack: ExitStack, workdir: Path) -> object:
    a, b = socket.socketpair()
    b.close()
    return stack.enter_context(a)


def a_closed_tcp_peer(stack: ExitStack, workdir: Path) -> object:
    a, b = tcp_pair()
    b.close()
    assert a.recv(1, socket.MSG_PEEK) == b""  # the end of it has arrived
    return stack.enter_context(a)


def a_tcp_socket(stack: ExitStack, workdir: Path) -> object:
    a, b = tcp_pair()
    stack.enter_context(b)
    return stack.enter_context(a)


WRONG = [
    (a_file, "no socket"),
    (a_pipe, "no socket"),
    (a_directory, "no socket"),
    (an_o_path, "O_PATH"),
    (an_o_path_of_a_socket, "O_PATH"),
    (a_datagram_socket, "not a stream socket"),
    (a_seqpacket_socket, "not a stream socket"),
    (a_udp_socket, "not a stream socket"),
    (an_unconnected_socket, "not connected"),
    (an_unconnected_tcp_socket, "not"),  # for a stream, that it is no UNIX socket comes first
    (a_listening_socket, "a listening socket"),
    (a_closed_peer, "other end is closed"),
    (a_closed_tcp_peer, "not"),
]


class Giver:
    """One migration of a role that descriptors are given to, with the broker's descriptors before it."""

    def __init__(self, hosts: Hosts, role: str) -> None:
        tunnel = start(hosts)
        self.tunnel = tunnel
        self.migration = tunnel.incoming if role == "incoming" else tunnel.outgoing
        self.broker = self.migration.broker
        self.before = settled(lambda: fds(self.broker), 0.05)  # what it closes, it closes soon

    def give(self, member: str, fd: object) -> None:
        self.migration.call(member, *(("h", fd) if member == "AddPeerConnection" else ("sh", "migrate", fd)))

    def to_helper(self, member: str) -> bool:
        """Whether what is given goes on to the helper at once, so that its pace is the only limit here."""
        return (member == "AddStream") == (self.migration.get("Role") == "outgoing")

    def assert_refused(self, member: str, fd: object, word: str, error: str = "org.freedesktop.DBus.Error.InvalidArgs",
                       ) -> None:
        with pytest.raises(BusError) as refusal:
            self.give(member, fd)
        assert refusal.value.name == error and word in refusal.value.text, refusal.value

    def assert_none_leaked(self) -> None:
        wait_until(lambda: not more(fds(self.broker), self.before), f"before: {self.before}, now: {fds(self.broker)}")
        assert self.migration.get("State") == "waiting"

    def close(self) -> None:
        for migration in self.tunnel.ends:
            migration.cancel()
            migration.wait_finished()


@pytest.fixture(params=["incoming", "outgoing"])
def giver(hosts: Hosts, request: pytest.FixtureRequest) -> Iterator[Giver]:
    it = Giver(hosts, request.param)
    yield it
    it.close()


MEMBERS = pytest.mark.parametrize("member", ["AddStream", "AddPeerConnection"])


@MEMBERS
@pytest.mark.parametrize("make,word", WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_wrong(giver: Giver, member: str, make: Callable[[ExitStack, Path], object], word: str) -> None:
    with ExitStack() as stack:
        giver.assert_refused(member, make(stack, giver.broker.workdir), word)
    giver.assert_none_leaked()


def test_tcp_is_no_stream(giver: Giver) -> None:
    with ExitStack() as stack:
        giver.assert_refused("AddStream", a_tcp_socket(stack, giver.broker.workdir), "not a UNIX socket")
    giver.assert_none_leaked()


@MEMBERS
def test_the_bus_itself(giver: Giver, member: str) -> None:
    giver.assert_refused(member, giver.broker.client.connection.sock, "a connection to the bus")
    giver.assert_none_leaked()


@MEMBERS
def test_the_same_twice(giver: Giver, member: str) -> None:
    """Also as a copy, and also as the other kind."""
    a, b = socket.socketpair()
    with a, b, a.dup() as copy:
        giver.give(member, a)
        for again in (a, copy):
            for other in ("AddStream", "AddPeerConnection"):
                giver.assert_refused(other, again, "was given before")


@MEMBERS
def test_the_same_to_two_migrations(giver: Giver, hosts: Hosts, member: str) -> None:
    """Both would read from it."""
    other = giver.broker.prepare("web2", {"sockets": NO_PATH, "endpoints": NO_PORT})
    a, b = socket.socketpair()
    with a, b:
        other.call("AddStream", "sh", "migrate", a)
        giver.assert_refused(member, a, f"was given before, to migration {other.id}")
        other.cancel()
        other.wait_finished()
    a, b = socket.socketpair()
    with a, b:
        giver.give(member, a)


@MEMBERS
def test_vsock(giver: Giver, member: str) -> None:
    """A peer may be connected by it; QEMU is not."""
    with socket.socket(socket.AF_VSOCK) as listener, socket.socket(socket.AF_VSOCK) as a:
        try:
            listener.bind((1, socket.VMADDR_PORT_ANY))  # the loopback's CID
            listener.listen()
            a.connect(listener.getsockname())
        except OSError as error:
            pytest.skip(f"kernel: no vsock loopback: {error}")
        with listener.accept()[0]:
            if member == "AddStream":
                giver.assert_refused(member, a, "not a UNIX socket")
            else:
                giver.give(member, a)


@MEMBERS
def test_half_closed(giver: Giver, member: str) -> None:
    """A QEMU may have said all that it has to say, and still listens. A peer connection needs both directions."""
    a, b = socket.socketpair()
    with a, b:
        b.shutdown(socket.SHUT_WR)
        if member == "AddStream":
            giver.give(member, a)
        else:
            giver.assert_refused(member, a, "other end is closed")


def test_no_such_stream(giver: Giver) -> None:
    a, b = socket.socketpair()
    with a, b:
        for member, arguments in (("AddStream", ("sh", "disks", a)), ("OpenStream", ("s", "disks"))):
            with pytest.raises(BusError) as refusal:
                giver.migration.call(member, *arguments)
            assert refusal.value.short == "NoSuchStream" and "'disks'" in refusal.value.text
    giver.assert_none_leaked()


@MEMBERS
def test_finished(hosts: Hosts, member: str) -> None:
    it = Giver(hosts, "incoming")
    it.close()
    wait_until(lambda: not it.broker.helpers(), "its helper has ended")
    all_heard(it.broker)  # what it had of it is closed as well
    before = fds(it.broker)
    a, b = socket.socketpair()
    with a, b:
        it.assert_refused(member, a, "is finished", "org.vmferry.Error.NoSuchMigration")
    wait_until(lambda: not more(fds(it.broker), before), "none leaked")


# ---- Floods ----


def flood(giver: Giver, member: str, given: list[object]) -> list[str]:
    """All calls at once, on a connection of their own; the errors' names, "" for none."""
    client = Client(giver.broker.bus)
    try:
        address = DBusAddress(giver.migration.path, bus_name=NAME, interface=MIGRATION)
        waiting = []
        for fd in given:
            signature, body = ("h", (fd,)) if member == "AddPeerConnection" else ("sh", ("migrate", fd))
            serial = next(client.connection.outgoing_serial)
            client.connection.send(new_method_call(address, member, signature, body), serial=serial)
            waiting.append(serial)
        names: dict[int, str] = {}
        while len(names) < len(given):
            reply = client.connection.receive(timeout=30)
            fields = reply.header.fields
            if reply.header.message_type in (MessageType.error, MessageType.method_return):
                names[fields[HeaderFields.reply_serial]] = str(fields.get(HeaderFields.error_name, ""))
        return [names[serial] for serial in waiting]
    finally:
        client.close()


@MEMBERS
def test_flood_of_wrong_ones(giver: Giver, member: str) -> None:
    with ExitStack() as stack:
        pipe = a_pipe(stack, giver.broker.workdir)
        assert flood(giver, member, [pipe] * 300) == ["org.freedesktop.DBus.Error.InvalidArgs"] * 300
    giver.assert_none_leaked()


@MEMBERS
def test_flood_of_right_ones(giver: Giver, member: str) -> None:
    """Taken as far as the limits go; the others are refused by name, and none is kept when it is over."""
    with ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(300)]
        for a, b in pairs:
            stack.callback(a.close)
            stack.enter_context(b)
        errors = flood(giver, member, [a for a, _ in pairs])
        assert set(errors) == {"", "org.vmferry.Error.LimitExceeded"} or giver.to_helper(member)
        assert set(errors) <= {"", "org.vmferry.Error.LimitExceeded"} and errors[:64] == [""] * 64
        if not giver.to_helper(member):
            # The control connection's place in the queue is free when the helper has asked for that, sooner or later.
            assert errors.count("") <= 64 + (giver.migration.get("Role") == "outgoing"), errors
        # What was refused was not given: it can be brought again.
        again = [a for error, (a, _) in zip(errors, pairs) if error]
        assert set(flood(giver, member, again)) <= {"", "org.vmferry.Error.LimitExceeded"}
        for a, _ in pairs:
            a.close()
        giver.close()
        for error, (_, b) in zip(errors, pairs):
            b.settimeout(10)
            assert_learns(FakeQemu(b))
    wait_until(lambda: not giver.broker.helpers(), "its helper has ended")
    wait_until(lambda: len([what for what in fds(giver.broker) if what == "socket:"]) <= len(giver.before), "none is kept")


@pytest.mark.parametrize("count", [2, 16, 17, 253, 300])
def test_more_descriptors_than_a_call_takes(giver: Giver, count: int) -> None:
    """The broker refuses a message with more than its method takes, the bus one with more than 16 (it cuts its caller
    off), the kernel one with more than 253."""
    a, b = socket.socketpair()
    client = Client(giver.broker.bus)
    try:
        with a, b, pytest.raises((BusError, OSError)) as refusal:
            client.call(giver.migration.path, MIGRATION, "AddPeerConnection", "ah", [a] * count)
    finally:
        client.close()
    if count <= 16:
        assert isinstance(refusal.value, BusError) and "expecting 'h'" in refusal.value.text, refusal.value
    giver.assert_none_leaked()
