# SPDX-License-Identifier: LGPL-2.1-or-later
"""The sockets of libvirt's QEMUs: one path for both hosts, the user as whom libvirt runs QEMU, and who may have them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmlib import polkit as harness
from vmlib.broker import Broker, BusError, wait_until
from vmlib.fake_qemu import FakeQemu
from vmlib.polkit import Polkit, SystemBroker
from vmlib.users import DAEMON, NOBODY, User, being

LAYOUT = {"layout": ("s", "libvirt:web1")}
PLAIN = {"security": ("s", "plain")}

pytestmark = pytest.mark.skipif(not harness.available(), reason="needs root and polkitd")


@pytest.fixture
def broker(workdir: Path) -> Iterator[SystemBroker]:
    """libvirt's user is "daemon". Where SELinux is off, a label changes nothing."""
    config = "[Broker]\nLibvirtUser=no-such-user daemon\nLibvirtSocketLabel=system_u:system_r:svirt_socket_t:s0\n"
    with SystemBroker(workdir, "a", config=config) as one:
        yield one
        wait_until(lambda: not list((one.runtime_dir / "libvirt").iterdir()), "its directories are gone", 10)


def end(*migrations: object) -> None:
    for migration in migrations:
        migration.call("Cancel")  # type: ignore[attr-defined]
        wait_until(lambda: migration.get("State") == "finished", "it is finished", 10)  # type: ignore[attr-defined]
        migration.call("Forget")  # type: ignore[attr-defined]


def test_one_path_and_libvirts_user(broker: SystemBroker) -> None:
    options = {**LAYOUT, **PLAIN, "streams": ("as", ["migrate", "disks", "libvirt"])}
    incoming = broker.prepare("web1", options)
    sockets = incoming.get("Sockets")
    directory = broker.runtime_dir / "libvirt" / incoming.id
    assert sockets == {"migrate": f"{directory}/migrate.tunnelmigrate.dest.web1",
                       "disks": f"{directory}/disks.tunnelmigrate.dest.web1", "libvirt": ""}
    assert (directory.stat().st_uid, directory.stat().st_mode & 0o7777) == (DAEMON, 0o700)
    # Both ends of one host would share the directory.
    with pytest.raises(BusError, match="is there already"):
        broker.outgoing(incoming.ticket, "web1", {key: options[key] for key in ("layout", "streams")})
    end(incoming)


@pytest.mark.parametrize("uid, taken", [(DAEMON, True), (0, True), (NOBODY, False)])
def test_who_is_taken_for_qemu(broker: SystemBroker, workdir: Path, uid: int, taken: bool) -> None:
    with Broker(workdir, "b") as other:
        incoming = other.prepare("web1", PLAIN)
        outgoing = broker.outgoing(incoming.ticket, "web1", LAYOUT)
        path = outgoing.get("Sockets")["migrate"]
        if uid == NOBODY:  # the modes keep others out already
            os.chmod(os.path.dirname(path), 0o777)
            os.chmod(path, 0o777)
        with FakeQemu.listen(incoming.socket()) as listener, being(uid), FakeQemu.connect(path) as qemu:
            if taken:
                qemu.send(b"memory")
                with listener.accept() as there:
                    assert there.recv_exact(6) == b"memory"
            else:
                assert qemu.recv_until_eof() == b""
        end(outgoing, incoming)


def test_polkit_is_asked_for_libvirt(broker: SystemBroker, workdir: Path) -> None:
    with Polkit(workdir, broker.bus) as polkit, User(broker, NOBODY) as nobody:
        with pytest.raises(BusError, match="of libvirt's VM 'web1'.*org.vmferry.Broker1.libvirt"):
            nobody.prepare("web1", LAYOUT)
        migration = nobody.prepare("own1", LAYOUT)
        assert [one[:2] for one in polkit.asked()] == [("libvirt", "web1"), ("libvirt", "own1")]
        # The path is not the caller's to name, and the user neither.
        assert Path(migration.get("Sockets")["migrate"]).parent.stat().st_uid == DAEMON
        end(migration)
        with pytest.raises(BusError, match="with 'layout' only root names one"):
            nobody.prepare("own1", {**LAYOUT, "socket-owner": ("s", str(NOBODY))})


def test_what_a_killed_broker_left_goes(workdir: Path) -> None:
    with Broker(workdir, "a") as broker:
        migration = broker.prepare("web1", LAYOUT)
        path = Path(migration.socket())
        with FakeQemu.listen(path):
            broker.kill()
        broker.start()
        wait_until(lambda: not path.parent.exists(), "the directory is gone", 10)
