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
import threading
from pathlib import Path
from typing import Any

from jeepney import DBusAddress, HeaderFields, MessageType, new_error, new_method_call, new_method_return

from .broker import ROOT, Broker, wait_until
from .users import NOBODY, OpenBus, User, being

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
    if (vm.indexOf("peer") === 0 && action.id !== "org.vmferry.Broker1.manage")
        return action.lookup("peer") === "supplied" ? polkit.Result.NO : polkit.Result.YES;
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


class Agent:
    """An authentication agent for this process, of the user whose connection it has: it says yes or no.

    It is polkit's own protocol, less the password: what pkttyagent's set-uid helper would tell polkitd after asking
    for it, we tell it as root.
    """

    NAME = "org.freedesktop.PolicyKit1"
    AUTHORITY = DBusAddress("/org/freedesktop/PolicyKit1/Authority", NAME, "org.freedesktop.PolicyKit1.Authority")

    def __init__(self, user: User, says: str) -> None:
        self.says = says
        self.root = user.bus.connect()
        self.connection = user.client.connection
        self.seen: list[tuple[str, str]] = []
        self.cancelled = threading.Event()
        self.begun = threading.Event()
        stat = Path("/proc/self/stat").read_text().rsplit(") ", 1)[1].split()
        subject = ("unix-process", {"pid": ("u", os.getpid()), "start-time": ("t", int(stat[19])),
                                    "uid": ("i", user.uid)})
        message = new_method_call(self.AUTHORITY, "RegisterAuthenticationAgent", "(sa{sv})ss",
                                  (subject, "C", "/agent"))
        with being(user.uid):  # polkitd looks at whose process this is
            reply = self.connection.send_and_get_reply(message, timeout=10)
        assert reply.header.message_type != MessageType.error, reply.body

    def serve(self, serial: int, timeout: float = 30) -> tuple[str, str]:
        """Serves until the answer to this call is there: as calls.answer()."""
        while True:
            message = self.connection.receive(timeout=timeout)
            fields = message.header.fields
            if message.header.message_type == MessageType.method_call:
                self.on_call(message, fields[HeaderFields.member])
            elif fields.get(HeaderFields.reply_serial) == serial:
                if message.header.message_type == MessageType.error:
                    return str(fields[HeaderFields.error_name]), str(message.body[0])
                return "", ""

    def on_call(self, message: Any, member: str) -> None:
        if member == "CancelAuthentication":
            self.cancelled.set()
        elif member == "BeginAuthentication":
            action, text, _, _, cookie, _ = message.body
            self.seen.append((action, text))
            self.begun.set()
            if self.says == "nothing":
                return
            if self.says == "no":
                self.connection.send(new_error(message, self.NAME + ".Error.Cancelled", "s", ("no",)))
                return
            identity = ("unix-user", {"uid": ("u", 0)})
            response = new_method_call(self.AUTHORITY, "AuthenticationAgentResponse2", "us(sa{sv})",
                                       (NOBODY, cookie, identity))
            reply = self.root.send_and_get_reply(response, timeout=10)
            assert reply.header.message_type != MessageType.error, reply.body
        self.connection.send(new_method_return(message))

    def close(self) -> None:
        self.root.close()


class Belated:
    """Has polkit's name, and answers when it is told to: what a polkitd with a fault (CVE-2021-3560) might say."""

    def __init__(self, broker: SystemBroker) -> None:
        self.connection = broker.bus.connect()
        bus = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
        request = new_method_call(bus, "RequestName", "su", ("org.freedesktop.PolicyKit1", 0))
        assert self.connection.send_and_get_reply(request, timeout=10).body == (1,)

    def call(self, member: str) -> Any:
        """The next call of that name."""
        while True:
            message = self.connection.receive(timeout=20)
            if message.header.fields.get(HeaderFields.member) == member:
                return message

    def close(self) -> None:
        self.connection.close()
