#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A whole migration with descriptors only: no path, no port, no file.

    fd_client.py SOURCE_BUS DESTINATION_BUS SOURCE_QMP DESTINATION_QMP [plain]

The buses are D-Bus addresses, the QMPs the UNIX sockets of two monitors; the destination QEMU was started with
`-incoming defer`. What connects the two hosts is a socketpair here; a manager brings an ssh channel's socket, say.
"""

import array
import json
import socket
import sys

from jeepney import DBusAddress, MessageType, new_method_call
from jeepney.io.blocking import open_dbus_connection

BROKER = "/org/vmferry/Broker1"


class Host:
    """A bus with a broker on it."""

    def __init__(self, address):
        self.bus = open_dbus_connection(address, enable_fds=True, auth_timeout=20)

    def call(self, path, interface, member, signature="", *args):
        address = DBusAddress(path, bus_name="org.vmferry.Broker1", interface=f"org.vmferry.{interface}")
        reply = self.bus.send_and_get_reply(new_method_call(address, member, signature or None, args), timeout=60)
        if reply.header.message_type == MessageType.error:
            sys.exit(f"{member}: {reply.body[0]}")
        return reply.body

    def migration(self, path, member, *args):
        return self.call(path, "Migration1", member, *args)


def qmp(path, *commands):
    """Runs commands (name, arguments, and a descriptor or None) on a monitor."""
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile("r") as replies:
        sock.connect(path)
        replies.readline()  # its greeting
        for name, arguments, fd in (("qmp_capabilities", {}, None), *commands):
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd is not None else []
            sock.sendmsg([json.dumps({"execute": name, "arguments": arguments}).encode()], ancillary)
            while "event" in (reply := json.loads(replies.readline())):
                pass
            if "error" in reply:
                sys.exit(f"{name}: {reply['error']['desc']}")


def main(source_bus, destination_bus, source_qmp, destination_qmp, security="tls"):
    source, destination = Host(source_bus), Host(destination_bus)
    options = {"endpoints": ("as", []), "sockets": ("a{ss}", {"migrate": ""}), "security": ("s", security)}
    incoming, ticket = destination.call(BROKER, "Broker1", "PrepareIncoming", "sa{sv}", "web1", options)
    del options["endpoints"]
    (outgoing,) = source.call(BROKER, "Broker1", "StartOutgoing", "ssa{sv}", "web1", ticket, options)

    for _ in range(2):  # one peer connection for control, and one for each channel
        here, there = socket.socketpair()
        with here, there:
            source.migration(outgoing, "AddPeerConnection", "h", here)
            destination.migration(incoming, "AddPeerConnection", "h", there)

    for host, path, monitor, command in ((destination, incoming, destination_qmp, "migrate-incoming"),
                                         (source, outgoing, source_qmp, "migrate")):
        (stream,) = host.migration(path, "OpenStream", "s", "migrate")
        with stream.to_socket() as sock:
            qmp(monitor, ("getfd", {"fdname": "tunnel"}, sock.fileno()), (command, {"uri": "fd:tunnel"}, None))

    for host, path in ((source, outgoing), (destination, incoming)):
        print(*host.migration(path, "Wait"))


if __name__ == "__main__":
    main(*sys.argv[1:])
