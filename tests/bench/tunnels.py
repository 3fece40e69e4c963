# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the bench can measure: one class a tunnel, and the registry of them.

A tunnel of your own: subclass Tunnel, and register() a Spec for it in a module that bench.py imports.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lab import BenchError, Lab, end_process


class Tunnel:
    """One tunnel, for one measurement. start(), then stop() whatever happened in between.

    Addresses are a UNIX socket's path, or tcp:A.B.C.D:PORT. The source is on host a, the destination on host b.
    """

    # What to say of it beside the figures (a cipher, a missing half-close); may be set as late as in stop().
    note = ""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.directory = lab.directory()
        self.children: list[subprocess.Popen[Any]] = []

    def destination(self) -> str:
        """Where the destination is to listen, before start()."""
        return self.path("dst")

    def start(self, destination: str) -> str:
        """Makes a tunnel to where the destination listens, or will; returns where the source is to connect to, once
        that listens."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        """The tunnel's own processes, both ends; their descendants count as well."""
        return [child.pid for child in self.children]

    def stop(self) -> None:
        """Ends every process by its pid. What they have cost has been read by then."""
        for child in self.children:
            end_process(child)
        self.children.clear()

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def write(self, name: str, text: str, mode: int = 0o644) -> str:
        """A file of its own; returns its path."""
        path = self.directory / name
        path.write_text(text, encoding="ascii")
        path.chmod(mode)
        return str(path)

    def spawn(self, host: str, argv: list[str], **kwargs: Any) -> subprocess.Popen[Any]:
        """On that host. Its words go to a log that a failure shows. A session of its own, as the brokers have: where the
        kernel divides cores among sessions (sched_autogroup_enabled), all tunnels get as much."""
        if not shutil.which(argv[0]):
            raise BenchError(f"{argv[0]} is not installed: tools/install-deps bench")
        log = self.directory / f"{host}.log"
        with open(log, "ab") as out, self.lab.inside(host):
            child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True,
                                     **{"stdout": out, "stderr": out, **kwargs})
        self.children.append(child)
        return child

    def log(self) -> str:
        """The last that its programs have said."""
        return "\n".join(path.read_text(errors="replace")[-1000:] for path in sorted(self.directory.glob("*.log")))


class DirectUnix(Tunnel):
    """No tunnel: what the source and the destination cost each other."""

    def start(self, destination: str) -> str:
        return destination


class DirectTcp(Tunnel):
    """No tunnel, and no security: QEMU's tcp:."""

    def destination(self) -> str:
        return f"tcp:{self.lab.address_b}:{self.lab.free_port()}"

    def start(self, destination: str) -> str:
        return destination


ALL = frozenset({"stream", "system", "pages", "qemu"})


@dataclass(frozen=True)
class Spec:
    """A tunnel's place in the tables."""

    name: str
    kind: str  # "direct", "plain", "tls" or "floor": compared with the peers of its kind
    make: Callable[[Lab], Tunnel]
    peer: bool = True  # False: ours, which is compared with the peers and is none itself
    sections: frozenset[str] = field(default=ALL)  # what it can be measured in


REGISTRY: dict[str, Spec] = {}


def register(spec: Spec) -> None:
    REGISTRY[spec.name] = spec


register(Spec("direct-unix", "direct", DirectUnix))
register(Spec("direct-tcp", "direct", DirectTcp))
