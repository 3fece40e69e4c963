#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""An ordinary manager, by dasbus: moves a VM in pre-copy, tells how far it is, and what became of it.

    manager.py SOURCE_BUS DESTINATION_BUS SOURCE_QMP DESTINATION_QMP [ENDPOINT]

The buses are D-Bus addresses, the QMPs the UNIX sockets of two monitors; the destination QEMU was started with
`-incoming defer`. With ENDPOINT the destination is dialled there, and not where the ticket says.
"""

import json
import socket
import sys

from dasbus.connection import AddressedMessageBus
from dasbus.error import DBusError
from dasbus.loop import EventLoop
from dasbus.typing import Str, UInt32, UInt64, get_native, get_variant
from gi.repository import GLib

BROKER, OBJECT = "org.vmferry.Broker1", "/org/vmferry/Broker1"


class Qemu:
    """A monitor of QEMU."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        self.replies = self.sock.makefile("r")
        self.replies.readline()  # its greeting
        self("qmp_capabilities")

    def __call__(self, command, **arguments):
        self.sock.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while "event" in (reply := json.loads(self.replies.readline())):
            pass
        if "error" in reply:
            sys.exit(f"{command}: {reply['error']['desc']}")
        return reply["return"]


class Manager:
    def __init__(self, source_bus, destination_bus, source_qmp, destination_qmp, endpoint=None):
        self.loop = EventLoop()
        self.source_qemu, self.destination_qemu = Qemu(source_qmp), Qemu(destination_qmp)
        source, destination = AddressedMessageBus(source_bus), AddressedMessageBus(destination_bus)

        # The destination's QEMU listens on its socket before the source's connects to the other one.
        path, ticket = destination.get_proxy(BROKER, OBJECT).PrepareIncoming("web1", {})
        self.incoming = destination.get_proxy(BROKER, path)
        self.destination_qemu("migrate-incoming", uri=f"unix:{self.incoming.Sockets['migrate']}")
        options = {"endpoint": get_variant(Str, endpoint)} if endpoint else {}
        path = source.get_proxy(BROKER, OBJECT).StartOutgoing("web1", ticket, options)
        self.outgoing = source.get_proxy(BROKER, path)
        self.outgoing.PropertiesChanged.connect(self.on_changed)
        self.source_qemu("migrate", uri=f"unix:{self.outgoing.Sockets['migrate']}")
        GLib.timeout_add(500, self.look)

    def on_changed(self, interface, changed, invalidated):
        """State and Phase, as every client sees them."""
        changed = {name: get_native(value) for name, value in changed.items()}
        if changed.get("State") == "interrupted":
            # Nothing is lost, and the VM is started nowhere: QEMU waits, and goes on when the network is back. What
            # would end it is Cancel, or QEMU's connections that are closed after resume-timeout-usec.
            print(f"interrupted: {changed['ErrorMessage']}", flush=True)
        elif "State" in changed:
            print(f"state {changed['State']}", flush=True)
        if "Phase" in changed:
            print(f"phase {changed['Phase']}, {changed['Progress']:.0%}", flush=True)
        if changed.get("State") == "finished":
            self.loop.quit()

    def look(self):
        """Twice a second: what QEMU says goes to the broker, until there is an outcome."""
        info = self.source_qemu("query-migrate")
        status, ram = info.get("status", "none"), info.get("ram", {})
        if status in ("completed", "failed", "cancelled"):
            return self.report(status, info)
        phase = {"none": "setup", "setup": "setup", "active": "pre-copy"}.get(status, "switchover")
        try:
            self.outgoing.ReportProgress({
                "phase": get_variant(Str, phase), "memory-total": get_variant(UInt64, ram.get("total", 0)),
                "memory-remaining": get_variant(UInt64, ram.get("remaining", 0)),
                "pass": get_variant(UInt32, ram.get("dirty-sync-count", 0))})
        except DBusError as error:  # it is finished, say; QEMU tells the rest
            print(error, file=sys.stderr)
        return GLib.SOURCE_CONTINUE

    def report(self, status, info):
        """Where the VM is, both QEMUs know together; one of them alone does not."""
        there = self.destination_qemu("query-status")["status"] if status == "completed" else "not asked"
        if there == "inmigrate":  # it is still to start
            return GLib.SOURCE_CONTINUE
        moved = there in ("running", "paused")
        here = self.source_qemu("query-status")["status"]
        outcome = "moved" if moved else "not-moved" if here in ("running", "paused") else "unknown"
        details = {"run-state": get_variant(Str, there if moved else here),
                   "downtime-usec": get_variant(UInt64, info.get("downtime", 0) * 1000 if moved else 0)}
        self.outgoing.Report(outcome, details)
        if not moved:
            self.outgoing.Cancel()
        print(f"outcome {outcome}", flush=True)
        return GLib.SOURCE_REMOVE

    def run(self):
        self.loop.run()
        print(f"result {self.outgoing.Result}", flush=True)
        return 0 if self.outgoing.Outcome == "moved" else 1


if __name__ == "__main__":
    sys.exit(Manager(*sys.argv[1:]).run())
