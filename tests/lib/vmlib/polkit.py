# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real polkitd on a private bus, and a broker that takes that bus for the system's.

polkitd finds its rules and actions in fixed places; it runs in a mount namespace in which these are ours.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from jeepney import DBusAddress, new_method_call

from .broker import ROOT, Broker, wait_until
from .users import OpenBus

POLKITD = "/usr/lib/polkit-1/polkitd"
POLICY = ROOT / "dbus" / "org.vmferry.Broker1.policy"
MOUNTS = """set -e
mount --bind "$0/rules" /etc/polkit-1/rules.d
mount --bind "$0/none" /usr/share/polkit-1/rules.d
mount --bind "$0/actions" /usr/share/polkit-1/actions
exec "$1"
"""
# What VM a call is about decides.
RULES = """
polkit.addRule(function (action, subject) {
    var vm = action.lookup("vm");
    polkit.log(["asked", action.id, vm, action.lookup("role"), action.lookup("peer"), subject.user].join("|"));
    if (action.id.indexOf("org.vmferry.Broker1.") !== 0)
        return polkit.Result.NO;
    if (vm.indexOf("auth") === 0)
        return polkit.Result.AUTH_ADMIN;
    if (vm.indexOf("all") === 0)
        return polkit.Result.YES;
    if (vm.indexOf("own") === 0 && action.id !== "org.vmferry.Broker1.manage")
        return polkit.Result.YES;
    return polkit.Result.NO;
});
"""


def available() -> bool:
    return os.geteuid() == 0 and os.access(POLKITD, os.X_OK) and shutil.which("unshare") is not None


class Polkit:
    """A polkitd on this bus. VMs named all… may be made and managed by everybody, own… only made; auth… takes a
    password; the rest is denied."""

    def __init__(self, workdir: Path, bus: OpenBus) -> None:
        self.bus = bus
        self.workdir = workdir / "polkit"
        for name in ("rules", "none", "actions"):
            (self.workdir / name).mkdir(parents=True, exist_ok=True)
        (self.workdir / "rules" / "10-test.rules").write_text(RULES)
        shutil.copy(POLICY, self.workdir / "actions")
        self.log_path = self.workdir / "log"
        self.start()

    def start(self) -> None:
        """(Again) after close()."""
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--propagation=private", "sh", "-c", MOUNTS, str(self.workdir), POLKITD],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": self.bus.address})
        wait_until(self._ready, "polkitd is ready", 20)

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.log()
        with self.bus.connect() as connection:
            bus = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
            call = new_method_call(bus, "NameHasOwner", "s", ("org.freedesktop.PolicyKit1",))
            return bool(connection.send_and_get_reply(call, timeout=10).body[0])

    def log(self) -> str:
        return self.log_path.read_text()

    def asked(self) -> list[tuple[str, ...]]:
        """Of each question: the action's last word, the VM, the role, the peer and who wants it."""
        found = re.findall(r"asked\|org\.vmferry\.Broker1\.([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|(\w+)", self.log())
        return [tuple(one) for one in found]

    def pause(self) -> None:
        """It is there and does not answer."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def __enter__(self) -> "Polkit":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class SystemBroker(Broker):
    """A broker on the system bus, which is a private one; the host's configuration does not count."""

    def __init__(self, workdir: Path, name: str, config: str = "[Broker]\n", **broker: Any) -> None:
        self.config_path = workdir / f"{name}-vmferryd.conf"
        self.config_path.write_text(config)
        super().__init__(workdir, name, bus_type=OpenBus, **broker)

    def bus_options(self) -> list[str]:
        return [f"--config={self.config_path}"]

    def environment(self) -> dict[str, str]:
        return {"DBUS_SYSTEM_BUS_ADDRESS": self.bus.address}
