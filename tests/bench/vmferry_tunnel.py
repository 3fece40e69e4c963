# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferry as one of the benchmark's tunnels: two brokers on private buses, driven over D-Bus."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from tunnels import Spec, Tunnel, register  # noqa: E402
from vmlib.broker import Broker  # noqa: E402


class Vmferry(Tunnel):
    """UNIX → helper → TCP → helper → UNIX."""

    security = "tls"
    resume: dict[str, tuple[str, int]] = {}  # the default: what is on its way is kept, to be sent again

    def __init__(self) -> None:
        super().__init__()
        self.brokers: list[Broker] = []

    def start(self, workdir: str, dst_socket_path: str) -> str:
        for name in ("a", "b"):
            self.brokers.append(Broker(Path(workdir), name))
        source, destination = self.brokers
        incoming = destination.prepare(
            options={"security": ("s", self.security), "sockets": ("a{ss}", {"migrate": dst_socket_path}), **self.resume})
        assert incoming.ticket
        outgoing = source.outgoing(incoming.ticket, options=dict(self.resume))
        outgoing.wait_state("connected")
        return outgoing.socket()

    def pids(self) -> list[int]:
        found = []
        for broker in self.brokers:
            found += [broker.pid, *broker.helpers()]
        return found

    def stop(self) -> None:
        for broker in self.brokers:
            broker.close()


class VmferryPlain(Vmferry):
    security = "plain"


class VmferryPlainNoResume(VmferryPlain):
    resume = {"resume-timeout-usec": ("t", 0)}


class VmferryTlsNoResume(Vmferry):
    resume = {"resume-timeout-usec": ("t", 0)}


register(Spec("vmferry-plain", "plain", VmferryPlain, peer=False))
register(Spec("vmferry-tls", "tls", Vmferry, peer=False))
register(Spec("vmferry-plain-no-resume", "plain", VmferryPlainNoResume, peer=False))
register(Spec("vmferry-tls-no-resume", "tls", VmferryTlsNoResume, peer=False))
