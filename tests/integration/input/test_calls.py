# SPDX-License-Identifier: LGPL-2.1-or-later
"""Methods called at the wrong time, on what is not there, too often, or when something is missing."""

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from jeepney import DBusAddress, MessageType, new_method_call

from vmlib.broker import BROKER, MIGRATION, NAME, PATH, PROPERTIES, BusError, Client, settled, wait_until
from vmlib.peer import PlainListener
from vmlib.scene import Scene
from vmlib.wire import Ticket

INVALID = "org.freedesktop.DBus.Error.InvalidArgs"


def fails(error: str, *words: str) -> Any:
    """A context in which a call fails with this error, which has these words."""

    class Fails:
        def __enter__(self) -> None:
            pass

        def __exit__(self, kind: Any, value: Any, _: Any) -> bool:
            assert kind is BusError, f"{error} expected: {value!r}"
            assert error in (value.name, value.short), value
            for word in words:
                assert word in value.text, value.text
            return True

    return Fails()


def ticket(endpoint: str = "tcp:127.0.0.1:1") -> str:
    return Ticket(endpoints=(endpoint,)).encode()


def test_vm_is_busy_and_free_again(workdir: Path) -> None:
    """Once for each role; a refused or failed call takes no place (CVE-2014-8136 had its analogue in libvirt)."""
    with Scene(workdir) as scene:
        victim = scene.incoming("web1")
        with fails("VmBusy", "'web1'", victim.migration.id, "waiting", "cancel"):
            scene.incoming("web1")
        for options in ({"security": ("s", "x")}, {"sockets": ("a{ss}", {"migrate": "/" + "x" * 200})}):
            for vm in ("web1", "web2"):
                with pytest.raises(BusError):
                    scene.incoming(vm, **options)
        for bad in ("x", Ticket(expiry=1, endpoints=("tcp:127.0.0.1:1",)).encode()):
            with pytest.raises(BusError):
                scene.outgoing(bad, "web1")
        with fails("SocketUnavailable"):
            scene.outgoing(ticket(), "web1", **{"sockets": ("a{ss}", {"migrate": "/nonexistent/x"})})
        assert len(scene.broker.list()) == 3
        with PlainListener() as listener:
            outgoing = scene.outgoing(listener.ticket.encode(), "web1")  # the other role is free
            with fails("VmBusy", "'web1'", "outgoing", outgoing.migration.id):
                scene.outgoing(ticket(), "web1")
            outgoing.migration.cancel()
            outgoing.expect("Cancelled", "source", result="cancelled")
        victim.migration.cancel()
        victim.expect("Cancelled", "destination", result="cancelled")
        for _ in range(3):
            again = scene.incoming("web1")
            again.migration.cancel()
            again.expect("Cancelled", result="cancelled")


def test_get_migration(workdir: Path) -> None:
    with Scene(workdir) as scene:
        client = scene.broker.client
        assert scene.bystander
        good = scene.bystander.incoming
        assert client.call(PATH, BROKER, "GetMigration", "ss", "incoming", good.id) == (good.path,)
        for role in ("", "Incoming", "source", "x" * 100_000):
            with fails(INVALID, role[:100], "'incoming' or 'outgoing'"):
                client.call(PATH, BROKER, "GetMigration", "ss", role, good.id)
        for number in ("", "0" * 16, good.id.upper() + "0", good.id[:15], "../" + good.id, "%s", "x" * 100_000):
            with fails("NoSuchMigration", number[:100], "ListMigrations"):
                client.call(PATH, BROKER, "GetMigration", "ss", "incoming", number)


def test_method_and_argument_that_are_none(workdir: Path) -> None:
    with Scene(workdir) as scene:
        client = scene.broker.client
        for path, interface, member, signature, args in (
                (PATH, BROKER, "Nothing", "", ()), (PATH, "org.vmferry.Other", "PrepareIncoming", "", ()),
                (PATH, BROKER, "PrepareIncoming", "", ()), (PATH, BROKER, "PrepareIncoming", "s", ("x",)),
                (PATH, BROKER, "StartOutgoing", "sa{sv}", ("x", {})), (PATH, BROKER, "GetMigration", "t", (1,)),
                ("/", BROKER, "ListMigrations", "", ()), (PATH + "/incoming", MIGRATION, "Cancel", "", ()),
                (PATH + "/incoming/x", MIGRATION, "Cancel", "", ()), (PATH, MIGRATION, "Cancel", "", ())):
            with pytest.raises(BusError, match="org.freedesktop.DBus.Error.Unknown|InvalidArgs|NoSuchMigration"):
                client.call(path, interface, member, signature, *args)


def test_running_migration(workdir: Path) -> None:
    with Scene(workdir) as scene:
        victim = scene.incoming()
        with fails("VmBusy", victim.migration.id, "'victim'", "waiting", "Cancel"):
            victim.migration.call("Forget")
        for stream in ("disks", "", "MIGRATE", "x" * 10_000):
            with fails("NoSuchStream", victim.migration.id, "'victim'", f"'{stream[:100]}"):
                victim.migration.call("OpenStream", "s", stream)
        for value in (("s", "1"), ("u", 1), ("d", 1.0)):
            with fails(INVALID, "BandwidthLimit", "'t'"):
                scene.broker.client.call(victim.migration.path, PROPERTIES, "Set", "ssv", MIGRATION, "BandwidthLimit",
                                         value)
        for name in ("State", "Vm", "OwnerUid", "BytesSent"):
            with pytest.raises(BusError):
                scene.broker.client.call(victim.migration.path, PROPERTIES, "Set", "ssv", MIGRATION, name, ("s", "x"))
        victim.migration.cancel()
        victim.migration.cancel()  # twice is once
        victim.expect("Cancelled", result="cancelled")
        victim.migration.cancel()  # and too late is nothing
        victim.expect("Cancelled", result="cancelled")


def test_finished_and_vanished_migration(workdir: Path) -> None:
    with Scene(workdir) as scene:
        victim = scene.incoming()
        victim.migration.cancel()
        victim.expect("Cancelled", result="cancelled")
        with fails("Cancelled", victim.migration.id):
            victim.migration.wait()
        with fails("NoSuchMigration", victim.migration.id, "finished"):
            victim.migration.call("OpenStream", "s", "migrate")
        with fails("NoSuchMigration", victim.migration.id, "finished"):
            victim.migration.set_limit(1)
        victim.migration.call("Forget")
        for member, signature, args in (("Cancel", "", ()), ("Wait", "", ()), ("Forget", "", ()),
                                        ("OpenStream", "s", ("migrate",))):
            with pytest.raises(BusError, match="Unknown|NoSuchMigration"):
                victim.migration.call(member, signature, *args)
        with pytest.raises(BusError, match="Unknown|NoSuchMigration"):
            victim.migration.get("State")
        with pytest.raises(BusError, match="Unknown|NoSuchMigration"):
            victim.migration.set_limit(1)


def test_vanishes_between_call_and_answer(workdir: Path) -> None:
    """Calls cross on the bus: what was asked for an object that goes meanwhile has an answer all the same."""
    with Scene(workdir) as scene:
        client = scene.broker.client
        for _ in range(20):
            victim = scene.incoming()
            victim.migration.cancel()
            victim.migration.wait_finished()
            address = DBusAddress(victim.migration.path, bus_name=NAME, interface=MIGRATION)
            members = ("Forget", "Forget", "Cancel", "Wait", "Forget")
            serials = []
            for member in members:
                message = new_method_call(address, member)
                serial = next(client.connection.outgoing_serial)
                client.connection.send(message, serial=serial)
                serials.append(serial)
            kinds = [client.connection.receive(timeout=10).header.message_type for _ in members]
            assert kinds[0] == MessageType.method_return and MessageType.error in kinds
        assert len(scene.broker.list()) == 2


def test_limit_of_migrations(workdir: Path) -> None:
    """The refusal names the setting; a place that is given back can be taken."""
    limit, option = 2, "--max-migrations"
    with Scene(workdir, bystander=False, args=(f"{option}={limit}",)) as scene:
        first = [scene.incoming(f"vm{i}") for i in range(limit)]
        before = settled(scene.what_is, 0.05)
        for make in (lambda: scene.incoming("more"), lambda: scene.outgoing(ticket(), "more")):
            with fails("LimitExceeded", str(limit), option):
                make()
        wait_until(lambda: scene.is_as(before), "what the refused calls opened is closed")
        assert scene.broker.get("ActiveMigrations") == limit
        first[0].migration.cancel()
        first[0].expect("Cancelled", result="cancelled")
        scene.incoming("more").migration.cancel()
        first[1].migration.cancel()
        wait_until(lambda: scene.broker.get("ActiveMigrations") == 0, "all have ended")


def test_waiters(workdir: Path) -> None:
    """64 may wait for one migration; all of them are answered, also those whose caller has gone."""
    with Scene(workdir) as scene:
        victim = scene.incoming()
        gone = Client(scene.broker.bus)
        address = DBusAddress(victim.migration.path, bus_name=NAME, interface=MIGRATION)
        waiting = Client(scene.broker.bus)
        for client, n in ((gone, 10), (waiting, 54)):
            for _ in range(n):
                client.connection.send(new_method_call(address, "Wait"))
            client.get(victim.migration.path, MIGRATION, "Id")  # is answered after the broker has read those calls
        with fails("LimitExceeded", "64", victim.migration.id):
            victim.migration.wait()
        gone.close()
        victim.migration.cancel()
        answers = 0
        while answers < 54:  # the bus' own signals come between them
            answers += waiting.connection.receive(timeout=30).header.message_type == MessageType.error
        waiting.close()
        victim.expect("Cancelled", result="cancelled")


def test_supplied_sockets(workdir: Path) -> None:
    """OpenStream before the source has come: so many may wait, and they are closed with the migration."""
    with Scene(workdir) as scene:
        victim = scene.incoming()
        ends = []
        with fails("LimitExceeded", "'migrate'", "64"):
            for _ in range(65):
                (fd,) = victim.migration.call("OpenStream", "s", "migrate")
                ends.append(scene.own(socket.socket(fileno=fd.to_raw_fd())))
        assert len(ends) == 64
        victim.migration.cancel()
        victim.expect("Cancelled", result="cancelled")
        assert all(end.recv(1) == b"" for end in ends)


@pytest.mark.parametrize("times", [2000])
def test_flood_of_streams(workdir: Path, times: int) -> None:
    """A source's OpenStream without end: the channels' limit bounds what it costs, and others are served."""
    with Scene(workdir, args=("--max-channels=8",)) as scene, PlainListener() as listener:
        victim = scene.outgoing(listener.ticket.encode())
        with listener.accept() as peer:
            for _ in range(times // 10):
                try:
                    (fd,) = victim.migration.call("OpenStream", "s", "migrate")
                    fd.close()
                except BusError as error:
                    assert error.short in ("LimitExceeded", "HelperFailed"), error
            wait_until(lambda: len(scene.broker.fds()) < len(scene.before[0]) + 40, "few are open")
            victim.migration.cancel()
            peer.eof()
        victim.expect("Cancelled", result="cancelled")


def test_flood_of_descriptors(workdir: Path) -> None:
    """Calls that carry FDs which nobody asked for: none of them stays."""
    with Scene(workdir) as scene:
        client = Client(scene.broker.bus)
        address = DBusAddress(PATH, bus_name=NAME, interface=BROKER)
        with open("/dev/null", "rb") as null:
            for _ in range(100):
                message = new_method_call(address, "PrepareIncoming", "sa{sv}",
                                          ("x", {"no-such": ("ah", [null] * 15)}))
                reply = client.connection.send_and_get_reply(message, timeout=10)
                assert reply.header.message_type == MessageType.error
        client.close()


def test_peer_port_in_use(workdir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        listen = f"tcp:127.0.0.1:{server.getsockname()[1]}"
        with Scene(workdir, bystander=False, listen=listen) as scene:
            for _ in range(3):
                with fails("SocketUnavailable", listen, "in use", "--listen="):
                    scene.incoming()
            assert scene.broker.list() == []
            server.close()
            victim = scene.incoming()  # free again: so is the VM
            victim.migration.cancel()
            victim.expect("Cancelled", result="cancelled")


@pytest.mark.parametrize("what", ["missing", "directory", "not-executable", "true", "text"])
def test_helper_that_is_none(workdir: Path, what: str) -> None:
    path = workdir / "no-helper"
    if what == "directory":
        path.mkdir()
    elif what in ("not-executable", "text"):
        path.write_text("hello\n")
        path.chmod(0o755 if what == "text" else 0o644)
    elif what == "true":
        path = Path("/bin/true")
    with Scene(workdir, bystander=False, helper=path) as scene:
        for make in (scene.incoming, lambda: scene.outgoing(ticket("unix:/nonexistent"))):
            try:
                victim = make()
            except BusError as error:
                assert error.short == "HelperFailed" and str(path) in error.text and "--helper=" in error.text
            else:
                victim.expect("HelperFailed", "exit status 0")
                victim.migration.call("Forget")
        assert scene.broker.list() == []


def test_cancel_while_it_dials(workdir: Path) -> None:
    """A peer that never answers holds nobody up."""
    server = socket.create_server(("127.0.0.1", 0), backlog=0)
    fillers = [socket.socket() for _ in range(3)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(server.getsockname())
    with Scene(workdir) as scene:
        victim = scene.outgoing(ticket(f"tcp:127.0.0.1:{server.getsockname()[1]}"))
        qemu = scene.qemu(victim)
        qemu.send(b"impatient")
        victim.migration.cancel()
        victim.expect("Cancelled", "source", result="cancelled")
        with pytest.raises((ConnectionResetError, EOFError)):
            qemu.recv_exact(1)
    for sock in (server, *fillers):
        sock.close()


def test_calls_at_once(workdir: Path) -> None:
    """Eight clients make and end migrations beside each other."""
    with Scene(workdir) as scene:
        errors: list[BaseException] = []

        def run(number: int) -> None:
            client = Client(scene.broker.bus)
            try:
                for i in range(10):
                    options = {"security": ("s", "plain")}
                    path, _ = client.call(PATH, BROKER, "PrepareIncoming", "sa{sv}", f"vm{number}-{i}", options)
                    client.call(path, MIGRATION, "Cancel")
                    with fails("Cancelled"):
                        client.call(path, MIGRATION, "Wait")
                    client.call(path, MIGRATION, "Forget")
            except BaseException as error:  # for the main thread
                errors.append(error)
            finally:
                client.close()

        threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not errors, errors
        assert len(scene.broker.list()) == 2
