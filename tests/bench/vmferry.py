# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferry as one of the bench's tunnels: a broker a host, each on a private bus, driven over D-Bus."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lab import Lab, descendants
from tunnels import Spec, Tunnel, register
from vmlib.broker import Broker, Migration


class Brokers:
    """One on host a, one on host b. close() ends both."""

    def __init__(self, lab: Lab, directory: Path, *args: str) -> None:
        with ExitStack() as stack:
            with lab.inside("a"):
                self.a = stack.enter_context(Broker(directory, "a", args=args))
            with lab.inside("b"):
                self.b = stack.enter_context(Broker(directory, "b", listen=f"tcp:{lab.address_b}:0", args=args))
            self._stack = stack.pop_all()

    def prepare(self, security: str, destination: str, vm: str = "web1", **more: tuple[str, Any]) -> Migration:
        """At b, for a destination that listens, or will, at this path."""
        options: dict[str, tuple[str, Any]] = {"security": ("s", security),
                                               "sockets": ("a{ss}", {"migrate": destination}), **more}
        return self.b.prepare(vm, options)

    def helpers(self) -> list[int]:
        """All of both, the gates among them."""
        return [pid for broker in (self.a, self.b) for pid in descendants([broker.pid]) if pid != broker.pid]

    def close(self) -> None:
        self._stack.close()


class Vmferry(Tunnel):
    """UNIX → helper → TCP → helper → UNIX. Everything as it is by default, but for the brokers' further arguments; without
    resuming nothing is kept for it."""

    def __init__(self, lab: Lab, security: str, resuming: bool = True, args: tuple[str, ...] = ()) -> None:
        super().__init__(lab)
        self.args = args
        self.security = security
        self.options: dict[str, tuple[str, Any]] = {} if resuming else {"resume-timeout-usec": ("t", 0)}
        self.brokers: Brokers | None = None

    def start(self, destination: str) -> str:
        self.brokers = Brokers(self.lab, self.directory, *self.args)
        self.incoming = self.brokers.prepare(self.security, destination, **self.options)
        assert self.incoming.ticket
        self.outgoing = self.brokers.a.outgoing(self.incoming.ticket, options=self.options)
        self.outgoing.wait_state("connected")
        return self.outgoing.socket()

    def pids(self) -> list[int]:
        """The brokers and their helpers; not the buses."""
        assert self.brokers
        return [self.brokers.a.pid, self.brokers.b.pid]

    def stop(self) -> None:
        if self.brokers:
            self.brokers.close()


register(Spec("vmferry-plain", "plain", lambda lab: Vmferry(lab, "plain"), peer=False))
register(Spec("vmferry-tls", "tls", lambda lab: Vmferry(lab, "tls"), peer=False))
for kind in ("plain", "tls"):
    register(Spec(f"vmferry-{kind}-no-resume", kind, lambda lab, kind=kind: Vmferry(lab, kind, resuming=False),
                  peer=False, sections=frozenset({"stream"})))
