# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two brokers on private buses of this machine, and a pair of QEMUs that vmferryctl moves a guest between."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .broker import Broker, Migration, wait_until
from .ctl import Result, Running, ctl, wait_all_finished
from .guest import assert_unharmed
from .hosts import Hosts
from .migration import Pair

MIB = 64


class Scene:
    """The QEMUs were told nothing about migration yet."""

    def __init__(self, hosts: Hosts, workdir: Path, extra: Sequence[str] = ()) -> None:
        self.hosts = hosts
        self.pair = Pair(workdir, MIB, extra=extra)
        for qemu in (self.pair.source, self.pair.destination):
            qemu.set_parameters({"downtime-limit": 300, "max-bandwidth": 128 << 20})
            qemu.set_capabilities({"events": False})
        self.pair.source.wait_sweeps(2)
        self.before = self.settings()

    def settings(self) -> tuple[Any, Any]:
        return (self.pair.source.execute("query-migrate-capabilities"),
                self.pair.source.execute("query-migrate-parameters"))

    @property
    def near(self) -> str:
        return f"--qmp={self.pair.source.qmp_path}"

    @property
    def far(self) -> str:
        return f"--qmp={self.pair.destination.qmp_path}"

    @property
    def migrate(self) -> list[str]:
        """The words of 'migrate' from one bus to the other."""
        return ["migrate", "web1", self.hosts.destination.bus.address, self.near,
                f"--dst-qmp={self.pair.destination.qmp_path}"]

    def begin(self, *args: str) -> Running:
        return Running(self.hosts.source, *self.migrate, *args)

    def migration(self, broker: Broker) -> Migration:
        """That of web1, once there is one; the last one."""
        def found() -> list[str]:
            return [path for _, vm, _, _, _, path in broker.list() if vm == "web1"]

        return Migration(broker, wait_until(found, "there is one")[-1])

    def wait_phase(self, phase: str) -> None:
        for broker in self.hosts.brokers:
            wait_until(lambda: self.migration(broker).get("Phase") == phase, f"{phase} is told", 30)

    def receive(self, *args: str) -> str:
        return ctl(self.hosts.destination, "receive", "web1", self.far, *args).succeeds().out

    def send(self, ticket: str, *args: str) -> Result:
        return ctl(self.hosts.source, "send", "web1", self.near, *args, stdin=ticket, timeout=120)

    def judge_moved(self, result: Result) -> None:
        """It says so, and is right."""
        result.succeeds()
        summary = r"^web1: done after [\d.]+ m?s; it stood still for [\d.]+ m?s; [\d.]+ MiB sent\."
        assert re.search(summary, result.err, re.M), result
        self.assert_done()

    def assert_done(self) -> None:
        self.pair.assert_unharmed()
        for broker in self.hosts.brokers:
            ((_, _, _, state, _, path),) = broker.list()[-1:]
            assert state == "finished" and broker.client.get(path, "org.vmferry.Migration1", "Result") == "done"

    def assert_stayed(self) -> None:
        """The guest runs on at the source, QEMU is as it was, and no migration goes on."""
        wait_all_finished(*self.hosts.brokers)
        self.pair.source.wait_sweeps(2)
        assert_unharmed(self.pair.source.serial())
        assert self.settings() == self.before
