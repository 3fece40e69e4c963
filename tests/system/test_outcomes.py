# SPDX-License-Identifier: LGPL-2.1-or-later
"""However a migration between two booted hosts ends: both hosts, their journals with the catalog and the page say the same.

$VMFERRY_LONG walks all ways to an end, otherwise one for each outcome, and a recovery.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from vmlib.broker import wait_until
from vmlib.browser import Browser
from vmlib.cockpit import Cockpit, installed
from vmlib.ctl import Result, Running
from vmlib.migration import Pair
from vmlib.nspawn import Host, HostMigration, TwoHosts
from vmlib.outcomes import WAYS, End, totals
from vmlib.page import Page
from vmlib.sshd import Sshd

NAMES = list(WAYS) if os.environ.get("VMFERRY_LONG") else ["ctrl-c", "source-killed-in-post-copy", "paused-and-recovered"]
SUBJECTS = {"moved": "VM {} has moved to the other host", "not-moved": "VM {} was not moved", "lost": "VM {} was lost",
            "unknown": "What became of VM {} is not known"}


def ask(host: Host, *words: str) -> Result:
    done = host.run("vmferryctl", *words, check=False)
    return Result(["vmferryctl", *words], done.returncode, done.stdout, done.stderr)


class Stage:
    """A QEMU on each host; vmferryctl runs on the first one."""

    def __init__(self, hosts: TwoHosts, sshd: Sshd, vm: str) -> None:
        self.hosts, self.vm, self._env = hosts, vm, sshd.env()
        self.cut, self.mend = hosts.cut, hosts.mend
        workdir = Path(tempfile.mkdtemp(dir=hosts.shared))
        self.pair = Pair(workdir, 64, prefixes=(hosts.a.enter_light, hosts.b.enter_light))
        self.pair.source.set_parameters({"downtime-limit": 300, "max-bandwidth": 128 << 20})
        self.pair.source.wait_sweeps(1)

    def begin(self, *options: str) -> Running:
        return Running(None, "migrate", self.vm, "hostb", f"--qmp={self.pair.source.qmp_path}",
                       f"--dst-qmp={self.pair.destination.qmp_path}", *options, env=self._env,
                       prefix=tuple(self.hosts.a.enter_light), program="vmferryctl")

    def ends(self) -> tuple[End, End]:
        here, there = (self._end(host) for host in self.hosts)
        return here, there

    def _end(self, host: Host) -> End:
        def found() -> list[str]:
            return [path for _, vm, _, _, _, path in host.broker.list() if vm == self.vm]

        migration = HostMigration(host.broker, wait_until(found, "there is one")[0])  # type: ignore[arg-type]
        return End(migration, partial(ask, host),
                   lambda: host.journal_text("--unit=vmferryd", f"VMFERRY_MIGRATION={migration.id}"))


@pytest.fixture
def sshd(hosts: TwoHosts) -> Iterator[Sshd]:
    workdir = Path(tempfile.mkdtemp(dir=hosts.shared))
    with Sshd(workdir, tuple(hosts.b.enter_light), hosts.b.address, "hostb", path="/usr/bin:/bin") as sshd:
        yield sshd


@pytest.fixture
def page(needs_postcopy: None, hosts: TwoHosts, tmp_path: Path) -> Iterator[Page]:
    installed(hosts.a)
    with Cockpit(hosts.a) as cockpit, Browser(tmp_path) as browser:
        yield Page(browser, cockpit.url)


def test_all_say_the_same(page: Page, hosts: TwoHosts, sshd: Sshd) -> None:
    for name in NAMES:
        way = WAYS[name]
        before = [totals(partial(ask, host)) for host in hosts]
        stage = Stage(hosts, sshd, name)
        with stage.pair, stage.begin(*way.options) as run:
            way.deed(stage, run)
            run.end(90)
            for end, host, old in zip(stage.ends(), hosts, before):
                way.judge(end, old)
                explained(host, end, name, way.outcome)
        wait_until(lambda: (name, way.outcome) in page.rows(), f"the page has {name}")
    page.photograph("ends")


def explained(host: Host, end: End, vm: str, outcome: str) -> None:
    """The catalog says this of it, and none of the other ends."""
    text = host.journal_text("-x", f"VMFERRY_MIGRATION={end.migration.id}")
    for word, subject in SUBJECTS.items():
        assert (f"Subject: {subject.format(vm)}\n" in text) == (word == outcome), text
