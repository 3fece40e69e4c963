# SPDX-License-Identifier: LGPL-2.1-or-later
"""How much a user may have on the system bus: calls that wait for polkit, migrations, channels."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from vmlib import polkit as harness
from vmlib.broker import BROKER, MIGRATION, PATH, PROPERTIES, BusError, Migration, wait_until
from vmlib.calls import LIMIT, answer, gone, post, refused
from vmlib.fake_qemu import FakeQemu
from vmlib.polkit import Polkit, SystemBroker
from vmlib.users import DAEMON, NOBODY, User, being

PLAIN: dict[str, tuple[str, Any]] = {"security": ("s", "plain")}

pytestmark = pytest.mark.skipif(not harness.available(), reason="needs root and polkitd")


def test_calls_of_a_user(workdir: Path) -> None:
    """Those that wait for polkit, over however many connections; root and others are none the worse."""
    config = "[Broker]\nMaxCallsPerUser=3\nMaxCalls=5\n"
    with SystemBroker(workdir, "a", config) as broker, Polkit(workdir, broker.bus) as polkit, ExitStack() as stack:
        polkit.pause()
        nobody = [stack.enter_context(User(broker, NOBODY)) for _ in range(2)]
        daemon = stack.enter_context(User(broker, DAEMON))
        call = (PATH, BROKER, "PrepareIncoming", "sa{sv}")
        waiting = [(nobody[i % 2], post(nobody[i % 2].client, *call, f"own{i}", PLAIN)) for i in range(3)]
        gone(broker.prepare("no", PLAIN))
        text = refused(nobody[0].prepare, "own", PLAIN, error=LIMIT)
        assert "3 calls of uid 65534" in text and "MaxCallsPerUser=" in text
        waiting += [(daemon, post(daemon.client, *call, f"own-d{i}", PLAIN)) for i in range(3)]
        gone(broker.prepare("no", PLAIN))  # MaxCalls= is for those that polkit was not asked about yet
        polkit.go_on()
        assert [answer(user.client, serial) for user, serial in waiting] == [("", "")] * 6
        gone(*(Migration(broker, entry[5]) for entry in broker.list()))


def test_calls_that_wait_for_polkit(workdir: Path) -> None:
    """Whatever MaxCallsPerUser= says, 16 of a user and 64 in all; root needs no polkit, and is refused nothing."""
    with SystemBroker(workdir, "a") as broker, Polkit(workdir, broker.bus) as polkit, ExitStack() as stack:
        victim = broker.prepare("all", PLAIN)
        call = (victim.path, PROPERTIES, "Set", "ssv", MIGRATION, "BandwidthLimit", ("t", 1 << 20))
        polkit.pause()
        users = [stack.enter_context(User(broker, uid)) for uid in (NOBODY, DAEMON, 2, 3, 4)]
        waiting = [(user, post(user.client, *call)) for user in users[:4] for _ in range(16)]
        for user in users[:4]:
            assert "16 calls of uid" in refused(user.client.call, *call, error=LIMIT)
        assert "64 calls wait for polkit" in refused(users[4].client.call, *call, error=LIMIT)
        victim.set_limit(1)
        polkit.go_on()
        assert [answer(user.client, serial) for user, serial in waiting] == [("", "")] * 64
        assert victim.get("BandwidthLimit") == 1 << 20
        gone(victim)


LONG = "x" * (1 << 20)


@pytest.mark.parametrize("member,signature,args,word", [
    ("PrepareIncoming", "sa{sv}", ("own", {"sockets": ("a{ss}", {"migrate": "/" + LONG})}), "PathTooLong"),
    ("PrepareIncoming", "sa{sv}", ("own", {"socket-owner": ("s", LONG)}), "InvalidArgs"),
    ("PrepareIncoming", "sa{sv}", ("own", {"socket-owner": ("s", "root:" + LONG)}), "InvalidArgs"),
    ("PrepareIncoming", "sa{sv}", ("own", {"client-id": ("s", LONG)}), "InvalidArgs"),
    ("PrepareIncoming", "sa{sv}", ("own", {"whatever": ("s", LONG)}), "InvalidArgs"),
    ("StartOutgoing", "ssa{sv}", ("own", "vmferry1:" + LONG, {}), "InvalidTicket"),
    ("OpenStream", "s", (LONG,), "NoSuchStream"),
    ("Set", "ssv", (MIGRATION, "BandwidthLimit", ("s", LONG)), "InvalidArgs"),
])
def test_long_calls(workdir: Path, member: str, signature: str, args: tuple[Any, ...], word: str) -> None:
    """They are not held until polkit has answered."""
    with SystemBroker(workdir, "a") as broker, Polkit(workdir, broker.bus) as polkit, User(broker, NOBODY) as nobody:
        victim = broker.prepare("no", PLAIN)
        polkit.pause()
        path, interface = {"OpenStream": (victim.path, MIGRATION), "Set": (victim.path, PROPERTIES)}.get(
            member, (PATH, BROKER))
        with pytest.raises(BusError) as refusal:
            nobody.client.call(path, interface, member, signature, *args)
        assert refusal.value.name.endswith("." + word) and len(refusal.value.text) < 1000
        polkit.go_on()
        assert not polkit.asked()
        gone(victim)


def test_calls_of_a_connection(workdir: Path) -> None:
    config = "[Broker]\nMaxCallsPerUser=2\n"
    with SystemBroker(workdir, "a", config) as broker, Polkit(workdir, broker.bus) as polkit:
        polkit.pause()
        with User(broker, NOBODY) as nobody:
            serials = [post(nobody.client, PATH, BROKER, "PrepareIncoming", "sa{sv}", f"own{i}", PLAIN)
                       for i in range(4)]
            # Of these four each is one too many in its turn, or waits; the last can only be refused.
            name, text = answer(nobody.client, serials[-1])
            assert name == LIMIT and "MaxCallsPerUser=" in text
        polkit.go_on()


def test_migrations_of_a_user(workdir: Path) -> None:
    config = "[Broker]\nMaxMigrationsPerUser=2\nMaxMigrations=4\n"
    with SystemBroker(workdir, "a", config) as broker, Polkit(workdir, broker.bus), User(broker, NOBODY) as nobody:
        made = [nobody.prepare(f"own{i}", PLAIN) for i in range(2)]
        text = refused(nobody.prepare, "own2", PLAIN, error=LIMIT)
        assert "2 migrations of uid 65534" in text and "MaxMigrationsPerUser=" in text
        made += [broker.prepare(f"no{i}", PLAIN) for i in range(2)]
        assert "MaxMigrations=" in refused(broker.prepare, "no2", PLAIN, error=LIMIT)
        gone(*made)


def test_channels_of_a_user(workdir: Path) -> None:
    """QEMU's connections and sockets that were handed over are counted together, over all migrations of the user."""
    config = "[Broker]\nMaxChannelsPerUser=3\nMaxChannelsInAll=5\n"
    with SystemBroker(workdir, "a", config) as broker, Polkit(workdir, broker.bus), User(broker, NOBODY) as nobody, \
            ExitStack() as stack:
        incoming = [nobody.prepare(f"own{i}", PLAIN) for i in range(2)]
        # Three wait at the destination; a fourth is one too many, wherever it is to go.
        for migration in (incoming[0], incoming[0], incoming[1]):
            stack.enter_context(closing(migration.call("OpenStream", "s", "migrate")[0]))
        for migration in incoming:
            text = refused(migration.call, "OpenStream", "s", "migrate", error=LIMIT)
            assert "uid 65534 may have 3 channels" in text and "MaxChannelsPerUser=" in text
        a, b = (stack.enter_context(closing(end)) for end in socket.socketpair())
        assert "MaxChannelsPerUser=" in refused(incoming[0].call, "AddStream", "sh", "migrate", a.fileno(), error=LIMIT)
        # Root has two more, which is the limit of all.
        other = broker.prepare("no", PLAIN)
        for _ in range(2):
            stack.enter_context(closing(other.call("OpenStream", "s", "migrate")[0]))
        assert "MaxChannelsInAll=" in refused(other.call, "AddStream", "sh", "migrate", a.fileno(), error=LIMIT)
        gone(*incoming)
        other.call("AddStream", "sh", "migrate", a.fileno())  # the same socket: it had not been taken before
        gone(other)


def test_memory_of_a_user(workdir: Path) -> None:
    """The window of each channel counts: large ones are fewer."""
    with SystemBroker(workdir, "a", "[Broker]\nWindowMiB=16\nMaxWindowsPerUserMiB=40\n") as broker, \
            Polkit(workdir, broker.bus), User(broker, NOBODY) as nobody, ExitStack() as stack:
        incoming = [nobody.prepare(f"own{i}", PLAIN) for i in range(2)]
        for migration in incoming:
            stack.enter_context(closing(migration.call("OpenStream", "s", "migrate")[0]))
        for migration in incoming:
            text = refused(migration.call, "OpenStream", "s", "migrate", error=LIMIT)
            assert "uid 65534 may have 40 MiB" in text and "16 MiB for each" in text and "MaxWindowsPerUserMiB=" in text
        other = broker.prepare("no", PLAIN)
        for _ in range(4):  # root has as many as it wants
            stack.enter_context(closing(other.call("OpenStream", "s", "migrate")[0]))
        gone(other, *incoming)


def test_connections_of_a_user(workdir: Path) -> None:
    """QEMU's own are closed when there are too many, and it is said why; those that are open go on."""
    config = "[Broker]\nMaxChannelsPerUser=4\n"
    with SystemBroker(workdir, "a", config) as broker, Polkit(workdir, broker.bus), User(broker, NOBODY) as nobody, \
            ExitStack() as stack:
        incoming = nobody.prepare("own-in", PLAIN)
        outgoing = nobody.outgoing(incoming.ticket or "", "own-out")
        with being(NOBODY):
            listener = stack.enter_context(FakeQemu.listen(incoming.socket()))
        for number in (1, 2):
            with being(NOBODY):
                source = stack.enter_context(FakeQemu.connect(outgoing.socket()))
            source.send(b"memory")
            assert stack.enter_context(listener.accept()).recv_exact(6) == b"memory"
            wait_until(lambda: len(outgoing.get("Channels")) == number == len(incoming.get("Channels")), "both count it")
        with being(NOBODY):
            late = stack.enter_context(FakeQemu.connect(outgoing.socket()))
        assert late.recv_until_eof() == b""
        wait_until(lambda: "was closed: uid 65534 may have 4 channels" in broker.log(), "the log says so")
        wait_until(lambda: [channel[4] for channel in outgoing.get("Channels")] == ["open", "open"], "the others are open")
        gone(outgoing, incoming)


def test_connections_in_all(workdir: Path) -> None:
    """At the destination the migration ends by it: its source's QEMU is connected already."""
    with SystemBroker(workdir, "a") as source, \
            SystemBroker(workdir, "b", "[Broker]\nMaxChannelsInAll=1\n") as destination, ExitStack() as stack:
        incoming = destination.prepare("no", PLAIN)
        outgoing = source.outgoing(incoming.ticket or "", "no")
        listener = stack.enter_context(FakeQemu.listen(incoming.socket()))
        for number in range(2):
            qemu = stack.enter_context(FakeQemu.connect(outgoing.socket()))
            qemu.send(b"memory")
            if number == 0:
                assert stack.enter_context(listener.accept()).recv_exact(6) == b"memory"
        for migration in (incoming, outgoing):
            found = migration.wait_finished()
            assert found["ErrorName"] == LIMIT and "MaxChannelsInAll=" in found["ErrorMessage"]
            gone(migration)
