# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two hosts with a stand-in for QEMU each, which migrate for as long as the source's says so."""

from __future__ import annotations

from pathlib import Path

from .ctl import Running, wait_all_finished
from .hosts import Hosts
from .monitor import Monitor

ACTIVE = {"status": "active", "ram": {"total": 1000, "remaining": 500, "transferred": 500}}
COMPLETED = {"status": "completed", "total-time": 5, "downtime": 1}


class Standins:
    """`source` and `destination` are the monitors, `words` those of 'migrate' from one to the other."""

    def __init__(self, hosts: Hosts, workdir: Path) -> None:
        self.hosts = hosts
        self.source = Monitor(workdir / "s.qmp")
        self.destination = Monitor(workdir / "d.qmp", {"query-status": {"status": "inmigrate"}})
        self.words = ["migrate", "web1", hosts.destination.bus.address, f"--qmp={self.source.path}",
                      f"--dst-qmp={self.destination.path}"]

    def begin(self, *args: str) -> Running:
        """It is under way, and from now on the source is silent."""
        running = self.run(*args)
        try:
            self.source.hold("query-migrate")
            self.source.wait_asked("query-migrate", self.source.asked.count("query-migrate") + 1)
        except BaseException:
            running.process.kill()
            raise
        return running

    def run(self, *args: str) -> Running:
        """It is under way."""
        self.source.answers["query-migrate"] = {}
        running = Running(self.hosts.source, *self.words, *args)
        try:
            self.source.wait_asked("migrate")
            self.source.answers["query-migrate"] = ACTIVE
            self.destination.wait_connected()
            self.source.wait_asked("query-migrate", self.source.asked.count("query-migrate") + 2)
        except BaseException:
            running.process.kill()
            raise
        return running

    def complete(self, state: str = "running") -> None:
        self.destination.answers.update({"query-migrate": COMPLETED, "query-status": {"status": state}})
        self.source.answers["query-migrate"] = COMPLETED
        self.source.release()

    def state(self) -> str:
        return str(self.hosts.source.list()[-1][3])

    def close(self) -> None:
        self.source.close()
        self.destination.close()
        wait_all_finished(*self.hosts.brokers)
