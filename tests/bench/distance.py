# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stream over a link that has a round trip: what does the window cost there?

Two TUN devices, one in each host's namespace, and distance.c between them, which holds each packet back. TCP's buffers may
grow to 64 MiB, and packets have the 9,000 bytes of jumbo frames: smaller ones make the relay the bound, and with ones of
64 KiB Linux 6.18 was seen to keep TCP's receive window of a channel in `tls` at 150 KiB.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import streams
from lab import Lab, end_process, ip, spread
from run import Run
from tunnels import DirectTcp, Spec, Tunnel
from vmferry import Vmferry

TRIPS_MS = (0.2, 2.0, 10.0, 50.0)
WINDOWS = {"4 MiB": ("--window-growth=0",), "grows to 32 MiB": (), "64 MiB": ("--window=64", "--window-growth=0")}
NEAR, FAR = "10.79.0.1", "10.79.0.2"
BUFFERS = "4096 131072 67108864"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
MOST_S = 3.0  # that a stream is to take: a slow one is shorter


def open_tun(lab: Lab, host: str, address: str) -> int:
    """A device of that host's; it is gone when its descriptor is closed."""
    space = lab.network.a if host == "a" else lab.network.b
    with lab.inside(host):
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"far0", IFF_TUN | IFF_NO_PI))
        for name in ("tcp_rmem", "tcp_wmem"):
            Path(f"/proc/sys/net/ipv4/{name}").write_text(BUFFERS, encoding="ascii")
    ip("-n", space, "link", "set", "far0", "mtu", "9000", "txqueuelen", "10000")
    ip("-n", space, "address", "add", f"{address}/24", "dev", "far0")
    ip("-n", space, "link", "set", "far0", "up")
    return fd


@contextlib.contextmanager
def far(lab: Lab, program: str, trip_ms: float) -> Iterator[None]:
    """The hosts are so far from each other meanwhile; tunnels are made over that link."""
    with contextlib.ExitStack() as stack:
        fds = []
        for host, address in (("a", NEAR), ("b", FAR)):
            fds.append(open_tun(lab, host, address))
            stack.callback(os.close, fds[-1])
        relay = subprocess.Popen([program, str(round(trip_ms * 500)), *map(str, fds)], stdin=subprocess.DEVNULL, pass_fds=fds)
        stack.callback(end_process, relay)
        lab.address_a, lab.address_b = NEAR, FAR
        stack.callback(lambda: (delattr(lab, "address_a"), delattr(lab, "address_b")))
        yield


def specs(run: Run) -> list[Spec]:
    """Direct TCP, and vmferry with each window."""
    found = [Spec("direct-tcp", "direct", DirectTcp)]
    for security in run.ours():
        for name, args in WINDOWS.items():
            def make(lab: Lab, security: str = security, args: tuple[str, ...] = args) -> Tunnel:
                return Vmferry(lab, security, args=args)
            found.append(Spec(f"vmferry-{security}, {name}", security, make, peer=False))
    return found


def measure(run: Run) -> list[dict[str, Any]]:
    rows = []
    program = run.lab.compile("distance", "-pthread")
    for trip in TRIPS_MS:
        with far(run.lab, program, trip):
            volume: dict[str, int] = {}

            def once(spec: Spec, number: int) -> dict[str, Any] | None:
                tunnel = spec.make(run.lab)
                if number == 0:  # what its rate is, roughly
                    first = streams.transfer(run.lab, tunnel, max(run.mib // 16, 1))
                    volume[spec.name] = max(1, min(run.mib, round(first["gib_per_s"] * MOST_S * 1024)))
                    return None
                return streams.transfer(run.lab, tunnel, volume[spec.name])

            wanted = specs(run)
            found = run.interleave(f"distance, {trip:g} ms", wanted, run.fewer_rounds + 1, once, streams.tell)
        rows += [{"name": spec.name, "trip_ms": trip,
                  "gib_per_s": spread([one["gib_per_s"] for one in found[spec.name]]),
                  "to_direct": spread([one["gib_per_s"] / direct["gib_per_s"]
                                       for one, direct in zip(found[spec.name], found["direct-tcp"])])}
                 for spec in wanted if found[spec.name] and found["direct-tcp"]]
    return rows
