# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two network namespaces with a veth between them: two hosts' network, which can be cut."""

from __future__ import annotations

import ctypes
import os
import random
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

CLONE_NEWNET = 0x40000000


def enter(netns: str) -> None:
    """Takes the calling thread, and it alone, into a namespace of `ip netns`."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{netns}", "rb") as file:
        if libc.setns(file.fileno(), CLONE_NEWNET) < 0:
            raise OSError(ctypes.get_errno(), f"setns to {netns}: {os.strerror(ctypes.get_errno())}")


def free_port() -> int:
    """A TCP port that nobody listens on, of those that the kernel gives nobody by itself: whoever is to bind it has time."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    chance = random.SystemRandom()  # processes beside this one look for some as well
    while True:
        with suppress(OSError), socket.create_server(
                ("127.0.0.1", chance.randrange(20000, lowest) if lowest > 21000 else 0)) as server:
            return int(server.getsockname()[1])


def ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True, text=True)


class Network:
    """Namespaces `a` and `b`, with the addresses 10.77.0.1 and 10.77.0.2. Needs root; removes all at close()."""

    address_a = "10.77.0.1"
    address_b = "10.77.0.2"
    _count = 0

    def __init__(self) -> None:
        Network._count += 1
        tag = f"vf{os.getpid()}-{Network._count}"
        self.a, self.b = f"{tag}a", f"{tag}b"
        self._link = "veth0"  # by this name in both namespaces
        try:
            for name in (self.a, self.b):
                ip("netns", "add", name)
            ip("-n", self.a, "link", "add", self._link, "type", "veth", "peer", "name", self._link, "netns", self.b)
            for name, address in ((self.a, self.address_a), (self.b, self.address_b)):
                ip("-n", name, "address", "add", f"{address}/24", "dev", self._link)
                ip("-n", name, "link", "set", "lo", "up")
                ip("-n", name, "link", "set", self._link, "up")
        except subprocess.CalledProcessError as error:
            self.close()
            raise RuntimeError(error.stderr) from error

    def cut(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        ip("-n", self.a, "link", "set", self._link, "down")

    def mend(self) -> None:
        ip("-n", self.a, "link", "set", self._link, "up")

    def kill_connections(self) -> None:
        """Every TCP connection of `a` fails at once, without a word to its other end."""
        subprocess.run(["ip", "netns", "exec", self.a, "ss", "-tK", "state", "established"], check=True, capture_output=True)

    def close(self) -> None:
        for name in (self.a, self.b):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def __enter__(self) -> "Network":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
