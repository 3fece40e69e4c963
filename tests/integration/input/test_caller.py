# SPDX-License-Identifier: LGPL-2.1-or-later
"""Another user on the bus: may look, may do nothing, and finds no secret anywhere."""

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jeepney import DBusAddress, new_method_call

from vmlib import broker as harness
from vmlib.broker import BROKER, MIGRATION, NAME, PATH, PROPERTIES, Bus, BusError, Client, wait_until
from vmlib.peer import PlainListener
from vmlib.scene import Scene
from vmlib.users import NOBODY, OpenBus, as_user
from vmlib.wire import PLAIN, Ticket, derive

DENIED = "org.freedesktop.DBus.Error.AccessDenied"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")


@pytest.fixture(autouse=True)
def open_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "Bus", OpenBus)


def as_nobody(run: Callable[[], Any]) -> Any:
    return as_user(NOBODY, run)


def attempts(bus: Bus, calls: list[tuple[Any, ...]]) -> list[tuple[str, str]]:
    """What each call comes to: the error's name and text, or ("", "")."""

    def run() -> list[tuple[str, str]]:
        client, found = Client(bus), []
        for call in calls:
            try:
                client.call(*call, timeout=10)
                found.append(("", ""))
            except BusError as error:
                found.append((error.name, error.text))
        client.close()
        return found

    return [tuple(one) for one in as_nobody(run)]  # type: ignore[misc]


def test_every_method_is_denied(workdir: Path) -> None:
    with Scene(workdir) as scene:
        victim = scene.incoming()
        path = victim.migration.path
        calls = [
            (PATH, BROKER, "PrepareIncoming", "sa{sv}", "mine", {}),
            (PATH, BROKER, "StartOutgoing", "ssa{sv}", "mine", victim.ticket, {}),
            (path, MIGRATION, "Cancel"), (path, MIGRATION, "Forget"), (path, MIGRATION, "OpenStream", "s", "migrate"),
            (path, MIGRATION, "AddStream", "sh", "migrate", 0), (path, MIGRATION, "AddPeerConnection", "h", 0),
            (path, PROPERTIES, "Set", "ssv", MIGRATION, "BandwidthLimit", ("t", 1)),
        ]
        for call, (name, text) in zip(calls, attempts(scene.broker.bus, calls), strict=True):
            assert name == DENIED, (call, name, text)
            assert str(NOBODY) in text
            assert path not in call or victim.migration.id in text
        assert len(scene.broker.list()) == 3
        assert victim.migration.get("BandwidthLimit") == 0
        victim.unharmed()
        victim.migration.cancel()
        victim.expect("Cancelled", result="cancelled")
        assert attempts(scene.broker.bus, [(path, MIGRATION, "Forget")])[0][0] == DENIED


def test_everything_may_be_read(workdir: Path) -> None:
    """And what is read holds no secret."""
    with Scene(workdir) as scene:
        victim = scene.incoming()

        def run() -> Any:
            client = Client(scene.broker.bus)
            found = [client.get_all(PATH, BROKER), client.get_all(victim.migration.path, MIGRATION),
                     client.call(PATH, BROKER, "ListMigrations"),
                     client.call(PATH, BROKER, "GetMigration", "ss", "incoming", victim.migration.id),
                     client.call(PATH, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"),
                     client.call(victim.migration.path, "org.freedesktop.DBus.Introspectable", "Introspect")]
            client.close()
            return found

        found = as_nobody(run)
        assert found[0]["ActiveMigrations"] == 3 and found[1]["Vm"] == "victim" and len(found[2][0]) == 3
        assert not leaks(victim.ticket, json.dumps(found).encode())
        victim.migration.cancel()
        victim.expect("Cancelled", result="cancelled")


def leaks(ticket: str, data: bytes) -> list[str]:
    """The forms of the ticket's secret that are in there."""
    secret = Ticket.decode(ticket).secret
    number = Ticket.decode(ticket).id
    forms = {"ticket": ticket.encode(), "part of it": ticket[40:60].encode(), "raw": secret,
             "hex": secret.hex().encode(),
             "HEX": secret.hex().upper().encode(), "base64": base64.b64encode(secret)[:40],
             "key": derive(secret, number, "vmferry control plain v1"),
             "key hex": derive(secret, number, "vmferry control plain v1").hex().encode()}
    return [name for name, form in forms.items() if form in data]


@pytest.mark.parametrize("security", ["plain", "tls"])
def test_no_secret_anywhere(workdir: Path, security: str) -> None:
    """From PrepareIncoming to the end: signals, properties, log, command lines, environments; and errors about it."""
    with Scene(workdir) as scene:
        monitor = Client(scene.broker.bus)
        rule = f"type='signal',sender='{NAME}'"
        bus = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
        monitor.connection.send_and_get_reply(new_method_call(bus, "AddMatch", "s", (rule,)), timeout=5)
        victim = scene.incoming(security=("s", security))
        seen = bytearray()
        outgoing = scene.outgoing(victim.ticket, "source")
        with pytest.raises(BusError) as info:
            scene.outgoing(victim.ticket, "again")
        seen += str(info.value).encode()
        outgoing.migration.wait_state("connected")
        for pid in (scene.broker.pid, *scene.broker.helpers()):
            for name in ("cmdline", "environ", "comm"):
                seen += Path(f"/proc/{pid}/{name}").read_bytes()
        for migration in (victim.migration, outgoing.migration):
            seen += json.dumps(migration.get_all()).encode()
        outgoing.migration.cancel()
        for migration in (victim.migration, outgoing.migration):
            seen += json.dumps(migration.wait_finished()).encode()
        with pytest.raises(TimeoutError):
            while True:
                message = monitor.connection.receive(timeout=0.5)
                seen += repr(message).encode()
        monitor.close()
        seen += scene.broker.log().encode()
        assert b"MigrationNew" in seen and victim.migration.id.encode() in seen
        assert leaks(victim.ticket, bytes(seen)) == []
        assert leaks(victim.ticket, f"x{victim.ticket}".encode())  # the search itself finds it
        for migration in (victim.migration, outgoing.migration):
            path = Path(migration.get("Sockets")["migrate"])
            assert not path.exists() and PLAIN == 1


def test_sockets_are_closed_to_others(workdir: Path) -> None:
    """The directory and the socket are their owner's alone."""
    with Scene(workdir) as scene:
        listener = scene.own(PlainListener())  # nobody accepts: the source waits
        victim = scene.outgoing(listener.ticket.encode())
        path = Path(victim.migration.socket())
        assert path.parent.stat().st_mode & 0o777 == 0o700 and path.stat().st_mode & 0o777 == 0o600

        def run() -> str:
            import socket

            with socket.socket(socket.AF_UNIX) as sock:
                try:
                    sock.connect(str(path))
                except OSError as error:
                    return type(error).__name__
            return "connected"

        assert as_nobody(run) == "PermissionError"
        victim.migration.cancel()
        victim.expect("Cancelled", result="cancelled")


def test_helper_belongs_to_nobody(workdir: Path) -> None:
    """It has given up root, all groups and capabilities; it cannot gain any, be dumped or traced."""
    with Scene(workdir) as scene:
        for pid in scene.broker.helpers():
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            assert status["Uid"].split() == status["Gid"].split() == [str(NOBODY)] * 4
            assert status["Groups"].strip() == ""
            for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                assert int(status[name], 16) == 0, name
            assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
            assert Path(f"/proc/{pid}/environ").stat().st_uid == 0  # not dumpable: its /proc is root's

        def run() -> list[str]:
            found = []
            for pid in scene.broker.helpers():
                for name in ("environ", "mem", "fd"):
                    try:
                        open(f"/proc/{pid}/{name}", "rb").close() if name != "fd" else os.listdir(f"/proc/{pid}/fd")
                        found.append(name)
                    except PermissionError:
                        pass
            return found

        assert as_nobody(run) == []


def test_limit_of_a_user(workdir: Path) -> None:
    """It counts the caller's own and not root's; the broker here runs as that user, or nobody but root could call."""
    broker = harness.build_dir() / "broker" / "vmferryd"
    if not os.access(broker, os.X_OK) or any(not p.stat().st_mode & 1 for p in broker.parents):
        pytest.skip(f"{broker} is not for everybody")
    setpriv = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    os.chown(workdir, NOBODY, NOBODY)
    with Scene(workdir, bystander=False, wrapper=setpriv, args=("--max-migrations-per-user=2",)) as scene:
        options = {"security": ("s", "plain")}
        calls = [(PATH, BROKER, "PrepareIncoming", "sa{sv}", f"vm{i}", options) for i in range(3)]
        outcomes = attempts(scene.broker.bus, calls)
        assert [name for name, _ in outcomes] == ["", "", "org.vmferry.Error.LimitExceeded"]
        assert "--max-migrations-per-user=" in outcomes[2][1] and str(NOBODY) in outcomes[2][1]
        for number in range(3):  # root is not counted
            scene.incoming(f"root{number}", **{"socket-owner": ("s", str(NOBODY))})
        for entry in scene.broker.list():
            scene.broker.client.call(entry[5], MIGRATION, "Cancel")
        wait_until(lambda: scene.broker.get("ActiveMigrations") == 0, "all have ended")
