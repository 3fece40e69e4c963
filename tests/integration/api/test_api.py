# SPDX-License-Identifier: LGPL-2.1-or-later
"""The D-Bus API of brokers: what a manager sees of migrations, and how it ends them."""

import os
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from vmlib.broker import BROKER, MIGRATION, PATH, Broker, BusError, Client, Migration, wait_until
from vmlib.calls import answer, post
from vmlib.hosts import Hosts, Tunnel, assert_failed, assert_learns
from vmlib.quiet import all_heard
from vmlib.signals import Signals

OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
SEC = 1_000_000


# Finding them.


def test_list_and_get(hosts: Hosts) -> None:
    broker = hosts.destination
    assert broker.list() == []
    assert broker.get("ActiveMigrations") == 0
    incoming = hosts.prepare("web1")
    assert broker.list() == [(incoming.id, "web1", "incoming", "waiting", 0, incoming.path)]
    assert broker.get("ActiveMigrations") == 1
    assert broker.client.call(PATH, BROKER, "GetMigration", "ss", "incoming", incoming.id) == (incoming.path,)
    assert incoming.path == f"{PATH}/incoming/{incoming.id}"
    for role, name, error in (("outgoing", incoming.id, "NoSuchMigration"), ("incoming", "0" * 16, "NoSuchMigration"),
                              ("sideways", incoming.id, "org.freedesktop.DBus.Error.InvalidArgs")):
        with pytest.raises(BusError) as refused:
            broker.client.call(PATH, BROKER, "GetMigration", "ss", role, name)
        assert refused.value.short == error
    incoming.cancel()
    incoming.wait_finished()
    assert [entry[3] for entry in broker.list()] == ["finished"]
    assert broker.get("ActiveMigrations") == 0


def test_object_manager(hosts: Hosts) -> None:
    broker = hosts.destination

    def managed() -> dict[str, dict[str, object]]:
        objects: dict[str, dict[str, object]] = broker.client.call(PATH, OBJECT_MANAGER, "GetManagedObjects")[0]
        return {path: interfaces for path, interfaces in objects.items() if MIGRATION in interfaces}

    assert managed() == {}
    first, second = hosts.prepare("web1"), hosts.prepare("web2")
    objects = managed()
    assert set(objects) == {first.path, second.path}
    assert objects[first.path][MIGRATION]["Vm"] == ("s", "web1")
    for migration in (first, second):
        migration.cancel()
        migration.wait_finished()
    first.call("Forget")
    assert set(managed()) == {second.path}


def test_signals(hosts: Hosts) -> None:
    with Signals(hosts.source.bus) as signals:
        tunnel = hosts.connect()
        outgoing = tunnel.outgoing
        assert signals.wait_member("MigrationNew").body == (outgoing.path,)
        added = signals.wait_member("InterfacesAdded", outgoing.path)
        assert added.path == PATH
        assert added.body[1][MIGRATION]["Vm"] == ("s", "web1")
        source, destination = tunnel.open_channel()
        with source, destination:
            source.shut_wr()
            destination.shut_wr()
            tunnel.assert_done()
        signals.wait(lambda _: "done" in signals.changes(outgoing.path, "Result"), "the result")
        assert signals.changes(outgoing.path, "State") == ["connected", "active", "finished"]
        assert signals.changes(outgoing.path, "Peer")[-1].startswith("tcp:127.0.0.1:")
        outgoing.call("Forget")
        assert signals.wait_member("MigrationRemoved").body == (outgoing.path, "done")
        assert MIGRATION in signals.wait_member("InterfacesRemoved", outgoing.path).body[1]
        assert signals.wait(lambda _: signals.changes(PATH, "ActiveMigrations")[-2:] == [1, 0], "the count") is True


@pytest.mark.story
def test_properties_of_a_whole_life(hosts: Hosts) -> None:
    incoming = hosts.prepare(expected_bytes=("t", 200))
    outgoing = hosts.start(incoming, expected_bytes=("t", 200))
    tunnel = Tunnel(outgoing, incoming)
    source, destination = tunnel.open_channel()
    with source, destination:
        source.send(b"x" * 99)
        destination.recv_exact(99)
        wait_until(lambda: outgoing.get("Progress") == 0.5, "half of it")
        wait_until(lambda: incoming.get("Channels") == [("migrate", 0, 0, 100, "open")], "all to be counted")
        assert outgoing.get("FinishedUsec") == 0
        source.shut_wr()
        destination.shut_wr()
    tunnel.assert_done()
    for end, role in ((outgoing, "outgoing"), (incoming, "incoming")):
        properties = end.get_all()
        assert (properties["Id"], properties["Role"], properties["State"]) == (incoming.id, role, "finished")
        assert properties["StartedUsec"] <= properties["FinishedUsec"] <= time.time_ns() // 1000
        assert (properties["Progress"], properties["Rate"], properties["Reconnects"]) == (1.0, 0, 0)
        assert [channel[4] for channel in properties["Channels"]] == ["closed"]
        for words in ("helper: connection: greeting → up", "helper: channel 0: open → proved", "active → finished"):
            assert f"({properties['Vm']}): {words}" in end.broker.log()


# Wait() and Forget().


def test_wait_answers_late(hosts: Hosts) -> None:
    tunnel = hosts.connect()
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(Client(end.broker.bus))) for end in tunnel.ends * 3]
        waiting = [(client, post(client, end.path, MIGRATION, "Wait")) for client, end in zip(clients, tunnel.ends * 3)]
        all_heard(hosts.source, hosts.destination)
        for client, serial in waiting:
            with pytest.raises(TimeoutError):
                answer(client, serial, timeout=0)
        source, destination = tunnel.open_channel()
        with source, destination:
            source.shut_wr()
            destination.shut_wr()
        assert [answer(client, serial) for client, serial in waiting] == [("", "")] * 6
    assert [end.wait() for end in tunnel.ends] == ["done", "done"]


def test_wait_answers_with_the_error(hosts: Hosts) -> None:
    incoming = hosts.prepare()
    with closing(Client(incoming.broker.bus)) as client:
        waiting = post(client, incoming.path, MIGRATION, "Wait")
        all_heard(hosts.destination)
        incoming.cancel()
        name, text = answer(client, waiting)
    with pytest.raises(BusError) as again:
        incoming.wait()
    for error in (BusError(name, text), again.value):
        assert error.short == "Cancelled"
        assert incoming.id in error.text and "web1" in error.text


def test_who_waits_may_go(hosts: Hosts) -> None:
    """A caller that vanishes in its Wait() harms nobody."""
    tunnel = hosts.connect()
    client = Client(hosts.source.bus)
    with pytest.raises(TimeoutError):
        client.call(tunnel.outgoing.path, MIGRATION, "Wait", timeout=0.2)
    client.close()
    tunnel.outgoing.cancel()
    tunnel.assert_failed("cancelled", "Cancelled")


def test_too_many_wait(hosts: Hosts) -> None:
    incoming = hosts.prepare()
    clients = [Client(hosts.destination.bus) for _ in range(65)]
    for client in clients[:-1]:
        post(client, incoming.path, MIGRATION, "Wait")
        client.get(incoming.path, MIGRATION, "Id")  # is answered after the broker has read the call
    with pytest.raises(BusError) as refused:
        clients[-1].call(incoming.path, MIGRATION, "Wait")
    assert refused.value.short == "LimitExceeded"
    for client in clients:
        client.close()
    incoming.cancel()
    incoming.wait_finished()


def test_forget(hosts: Hosts) -> None:
    incoming = hosts.prepare()
    with pytest.raises(BusError, match="Wait for its end"):
        incoming.call("Forget")
    incoming.cancel()
    incoming.wait_finished()
    incoming.call("Forget")
    for member in ("Forget", "Cancel", "Wait"):
        with pytest.raises(BusError) as gone:
            incoming.call(member)
        assert gone.value.short in ("NoSuchMigration", "org.freedesktop.DBus.Error.UnknownObject")
    assert hosts.destination.list() == []


# Ends.


@pytest.mark.parametrize("who", ["incoming", "outgoing"])
@pytest.mark.parametrize("state", ["connected", "active"])
def test_cancel(hosts: Hosts, state: str, who: str) -> None:
    tunnel = hosts.connect()
    qemus = tunnel.open_channel() if state == "active" else ()
    getattr(tunnel, who).cancel()
    side = "destination" if who == "incoming" else "source"
    tunnel.assert_failed("cancelled", "Cancelled")
    for end in tunnel.ends:
        assert f"Cancelled at the {side} by uid 0" in end.get("ErrorMessage")
    for qemu in qemus:
        assert_learns(qemu)
        qemu.close()


@pytest.mark.parametrize("who", ["incoming", "outgoing"])
@pytest.mark.parametrize("round", range(10))
def test_cancel_in_full_flow(hosts: Hosts, who: str, round: int) -> None:
    """Whatever is under way then: both ends know that it was cancelled, and by whom."""
    tunnel = hosts.connect(security=("tls", "plain")[round % 2])
    source, destination = tunnel.open_channel()
    there, back = source.send_pattern(1, 1 << 30), destination.send_pattern(2, 1 << 30)
    time.sleep(0.05 * round)
    getattr(tunnel, who).cancel()
    for qemu, future in ((source, there), (destination, back)):
        assert_learns(qemu)
        with pytest.raises(OSError):
            future.result(10)
        qemu.close()
    tunnel.assert_failed("cancelled", "Cancelled")


def test_cancel_of_one_that_waits(hosts: Hosts) -> None:
    incoming = hosts.prepare()
    incoming.cancel()
    assert_failed(incoming, "cancelled", "Cancelled")
    assert incoming.ticket
    with pytest.raises(BusError) as failed:
        hosts.source.outgoing(incoming.ticket).wait()
    assert failed.value.short in ("TicketUsed", "PeerUnreachable")


def test_cancel_twice(hosts: Hosts) -> None:
    tunnel = hosts.connect()
    for _ in range(2):
        for end in tunnel.ends:
            end.cancel()
    tunnel.assert_failed("cancelled", "Cancelled")


def test_incoming_expires(hosts: Hosts) -> None:
    incoming = hosts.prepare(expire_usec=("t", SEC // 4))
    properties = assert_failed(incoming, "timed-out", "TimedOut")
    assert properties["FinishedUsec"] - properties["StartedUsec"] >= SEC // 5  # two clocks
    assert "expire-usec" in properties["ErrorMessage"]
    with pytest.raises(BusError, match="expired") as refused:
        hosts.start(incoming)
    assert refused.value.short == "TicketExpired"


def test_outgoing_expires(hosts: Hosts) -> None:
    """The destination is there but does not answer."""
    incoming = hosts.prepare()
    helpers = hosts.destination.helpers()
    for pid in helpers:
        os.kill(pid, 19)
    outgoing = hosts.start(incoming, expire_usec=("t", SEC // 2))
    assert_failed(outgoing, "timed-out", "TimedOut")
    for pid in helpers:
        os.kill(pid, 18)
    incoming.cancel()
    incoming.wait_finished()


@pytest.mark.load_sensitive(reason="it is connected within 4 s")
def test_connected_ones_do_not_expire(hosts: Hosts) -> None:
    began = time.monotonic()
    incoming = hosts.prepare(expire_usec=("t", 4 * SEC))
    tunnel = Tunnel(hosts.start(incoming), incoming)
    for end in tunnel.ends:
        end.wait_state("connected")
    time.sleep(max(began + 5 - time.monotonic(), 0))
    assert [end.get("State") for end in tunnel.ends] == ["connected", "connected"]
    tunnel.outgoing.cancel()
    tunnel.assert_failed("cancelled", "Cancelled")


# Options that say how a migration and its caller belong together.


def test_client_id(hosts: Hosts) -> None:
    """The same call again finds the same migration, until its ticket has served."""
    key = {"client_id": ("s", "job 4711")}
    incoming = hosts.prepare(**key)
    again = hosts.prepare(**key)
    assert (again.path, again.ticket) == (incoming.path, incoming.ticket)
    with pytest.raises(BusError, match="is of VM 'web1'"):
        hosts.prepare("web2", **key)
    outgoing = hosts.start(incoming, **key)
    assert hosts.start(incoming, **key).path == outgoing.path
    outgoing.wait_state("connected")
    incoming.wait_state("connected")
    with pytest.raises(BusError) as refused:
        hosts.prepare(**key)
    assert refused.value.short == "TicketUsed"
    assert len(hosts.source.list()) == len(hosts.destination.list()) == 1
    outgoing.cancel()
    Tunnel(outgoing, incoming).assert_failed("cancelled", "Cancelled")


@pytest.mark.parametrize("tied", [True, False])
def test_tie_to_caller(hosts: Hosts, tied: bool) -> None:
    client = Client(hosts.destination.bus)
    path, ticket = client.call(PATH, BROKER, "PrepareIncoming", "sa{sv}", "web1", {"tie-to-caller": ("b", tied)})
    incoming = Migration(hosts.destination, path, ticket)
    outgoing = hosts.start(incoming)
    outgoing.wait_state("connected")
    client.close()
    if tied:
        Tunnel(outgoing, incoming).assert_failed("cancelled", "Cancelled")
        assert "tie-to-caller" in incoming.get("ErrorMessage")
    else:
        all_heard(*hosts.brokers)
        assert incoming.get("State") == "connected"
        outgoing.cancel()
        Tunnel(outgoing, incoming).assert_failed("cancelled", "Cancelled")


def test_vm_is_busy(hosts: Hosts) -> None:
    incoming = hosts.prepare("web1")
    with pytest.raises(BusError, match=incoming.id) as refused:
        hosts.prepare("web1")
    assert refused.value.short == "VmBusy"
    incoming.cancel()
    incoming.wait_finished()
    hosts.prepare("web1").cancel()
    wait_until(lambda: hosts.destination.get("ActiveMigrations") == 0, "both have ended")


def test_a_ticket_serves_once(hosts: Hosts) -> None:
    tunnel = hosts.connect()
    with pytest.raises(BusError) as refused:
        hosts.start(tunnel.incoming, "other")
    assert refused.value.short == "TicketUsed"
    tunnel.outgoing.cancel()
    tunnel.assert_failed("cancelled", "Cancelled")


def test_security_must_match(hosts: Hosts) -> None:
    incoming = hosts.prepare(security="plain")
    with pytest.raises(BusError) as refused:
        hosts.start(incoming, security=("s", "tls"))
    assert refused.value.short == "SecurityMismatch"
    incoming.cancel()
    incoming.wait_finished()


def test_limit_of_migrations(workdir: Path) -> None:
    with Broker(workdir, "a", args=("--max-migrations=2",)) as broker:
        assert broker.get("MaxMigrations") == 2
        made = [broker.prepare(f"vm{number}") for number in range(2)]
        with pytest.raises(BusError, match="max-migrations") as refused:
            broker.prepare("vm2")
        assert refused.value.short == "LimitExceeded"
        made[0].cancel()
        made[0].wait_finished()
        made[0] = broker.prepare("vm2")
        for migration in made:
            migration.cancel()
            migration.wait_finished()


def test_finished_limit_is_not_settable(hosts: Hosts) -> None:
    incoming = hosts.prepare()
    incoming.set_limit(5_000_000)
    assert incoming.get("BandwidthLimit") == 5_000_000
    incoming.cancel()
    incoming.wait_finished()
    with pytest.raises(BusError, match="finished"):
        incoming.set_limit(1)


def test_the_secret_stays_in_the_reply(hosts: Hosts) -> None:
    """Neither log, property nor signal has the ticket."""
    with Signals(hosts.destination.bus) as signals:
        tunnel = hosts.connect()
        assert tunnel.incoming.ticket
        secret = tunnel.incoming.ticket.removeprefix("vmferry1:")[24:60]
        tunnel.outgoing.cancel()
        tunnel.assert_failed("cancelled", "Cancelled")
        signals.wait(lambda _: signals.changes(tunnel.incoming.path, "Result"), "the end")
        seen = repr(signals.seen)
    for broker in hosts.brokers:
        seen += broker.log() + repr(broker.client.call(PATH, OBJECT_MANAGER, "GetManagedObjects"))
    assert secret not in seen
