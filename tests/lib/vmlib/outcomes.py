# SPDX-License-Identifier: LGPL-2.1-or-later
"""The ways in which a migration that vmferryctl drives can end; and what everybody says of it, which is the same at both hosts.

    way = WAYS["ctrl-c"]
    with stage.begin(*way.options) as run:
        way.deed(stage, run)
        run.end(90)
    for end in stage.ends():
        way.judge(end)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .broker import Migration, wait_until
from .ctl import Result, Running
from .hosts import kill
from .migration import Pair
from .qemu import Qemu


@dataclass(frozen=True)
class End:
    """One of its two ends, the source's first: its migration, and whom to ask there."""

    migration: Migration
    ctl: Callable[..., Result]
    log: Callable[[], str]


class Stage(Protocol):
    """Where it happens."""

    pair: Pair

    def begin(self, *options: str) -> Running: ...

    def ends(self) -> tuple[End, End]:
        """Once there are any."""

    def cut(self) -> None:
        """The network is away, until mend()."""

    def mend(self) -> None: ...


HALTED = ("paused", "recovering")  # from one to the other and back, as often as QEMU is told to go on
Deed = Callable[[Stage, Running], None]


def wait_phase(stage: Stage, phase: str) -> None:
    for end in stage.ends():
        wait_until(lambda: end.migration.get("Phase") == phase, f"{phase} is told", 30)


def nothing(stage: Stage, run: Running) -> None:
    """It moves by itself."""


def interrupt(stage: Stage, run: Running) -> None:
    wait_phase(stage, "pre-copy")
    run.interrupt()


def cancel_elsewhere(stage: Stage, run: Running) -> None:
    wait_phase(stage, "pre-copy")
    stage.ends()[1].migration.cancel()


def killed(qemu: Callable[[Pair], Qemu], phase: str) -> Deed:
    def deed(stage: Stage, run: Running) -> None:
        wait_phase(stage, phase)
        kill(qemu(stage.pair).pid)

    return deed


def pause_and_recover(stage: Stage, run: Running) -> None:
    """The network is away for longer than the tunnel bridges, and post-copy waits for it."""
    ends = stage.ends()
    wait_until(lambda: ends[0].migration.get("Phase") in ("pre-copy", "post-copy"), "it runs", 30)
    stage.pair.source.set_parameters({"max-postcopy-bandwidth": 1 << 20})  # so that there is something left to cut off
    wait_phase(stage, "post-copy")
    stage.cut()
    for end in ends:
        end.migration.wait_state("interrupted")
    wait_until(lambda: ends[0].migration.get("Phase") in HALTED, "it is told that it is paused", 30)
    for end in ends:
        assert end.migration.get("Outcome") == "" and row(end, "state,outcome") == ["interrupted"]
    (phase,) = row(ends[0], "phase")
    assert phase in HALTED
    stage.mend()
    stage.pair.source.set_parameters({"max-postcopy-bandwidth": 0})


def row(end: End, columns: str) -> list[str]:
    """What list says of it."""
    lines = end.ctl("list", "--all", "--no-legend", f"--columns=id,{columns}").succeeds().out.splitlines()
    (line,) = [line for line in lines if line.startswith(f"{end.migration.id} ")]
    return line.split()[1:]


def totals(ctl: Callable[..., Result]) -> dict[str, int]:
    """Those of the figures that tell of all migrations."""
    text = ctl("metrics").succeeds().out
    return {name: int(n) for name, n in re.findall(r"^(vmferry_migrations_total\{.*\}|vmferry_downtime_seconds_count) (\d+)$",
                                                   text, re.M)}


@dataclass(frozen=True)
class Way:
    options: tuple[str, ...]
    deed: Deed
    outcome: str
    results: tuple[str, ...]  # what the tunnel may say
    status: int | None  # of wait; None: it follows the tunnel's result
    log: str

    def judge(self, end: End, before: dict[str, int]) -> None:
        """before: the totals before it began."""
        migration = end.migration
        found = migration.wait_finished(30)
        vm, role, outcome = found["Vm"], found["Role"], self.outcome
        assert found["Outcome"] == outcome and found["Result"] in self.results, found
        assert (found["Progress"] == 1) == (outcome == "moved") and found["Phase"] != "", found
        assert self.log in end.log()
        text = end.ctl("status", migration.id).succeeds().out
        assert f"State: finished: {outcome}\n" in text and f"Outcome: {outcome}, told by the owner" in text
        waited = end.ctl("wait", migration.id)
        status = {"cancelled": 3}.get(found["Result"], 1) if self.status is None else self.status
        assert (waited.out, waited.status) == (f"{migration.id} {vm} {outcome}\n", status), waited
        assert row(end, "vm,state,outcome") == [vm, "finished", outcome]
        figures = end.ctl("metrics").succeeds().out
        assert re.search(rf'^vmferry_migration_state_info{{id="{migration.id}",.*,outcome="{outcome}"}} 1$', figures, re.M), figures
        gained = {f'vmferry_migrations_total{{role="{role}",outcome="{outcome}"}}': 1}
        if outcome == "moved":
            assert found["Details"]["downtime-usec"][1] > 0
            gained["vmferry_downtime_seconds_count"] = 1
        assert {name: n - before.get(name, 0) for name, n in totals(end.ctl).items() if n != before.get(name, 0)} == gained


SLOW = ("--bandwidth=8M",)
POSTCOPY = (*SLOW, "--postcopy=after 1")
ANY = ("cancelled", "failed", "done")
MOVED, STAYED, LOST = "The VM has moved", "The VM was not moved", "The VM is lost"
WAYS = {
    "moved": Way(("--downtime-limit=9s",), nothing, "moved", ("done",), 0, MOVED),
    "ctrl-c": Way(SLOW, interrupt, "not-moved", ("cancelled",), 3, STAYED),
    "cancelled-elsewhere": Way(SLOW, cancel_elsewhere, "not-moved", ("cancelled",), 3, STAYED),
    "source-killed": Way(SLOW, killed(lambda pair: pair.source, "pre-copy"), "lost", ANY, 1, LOST),
    "destination-killed": Way(SLOW, killed(lambda pair: pair.destination, "pre-copy"), "not-moved", ANY, None, STAYED),
    "source-killed-in-post-copy": Way(POSTCOPY, killed(lambda pair: pair.source, "post-copy"), "lost", ANY, 1, LOST),
    "paused-and-recovered": Way(("--bandwidth=32M", "--postcopy=auto", "--resume-timeout=1"), pause_and_recover, "moved", ("done",), 0, MOVED),
}
