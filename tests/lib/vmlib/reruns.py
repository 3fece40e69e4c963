# SPDX-License-Identifier: LGPL-2.1-or-later
"""A pytest plugin: which failed tests are tried once more (by pytest-rerunfailures), and what is said of them.

One that has the mark load_sensitive is, and any if the machine was overloaded, or stood still, while it ran; but never
one that found harm. The terminal summary has a line RERUN for each, with the load, and why it failed the first time. The JUnit report
has the load as the property "rerun".
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HEADING = "tests that were tried once more"

# The share of the time for which something on this machine waited for a processor: of the test's own, or of the last ten
# seconds where it was shorter. A guess: above that a test waits for a processor most of the time.
PRESSURE_LIMIT = 0.85
# Where the kernel does not say that: the processes per processor that ran or wished to, in the last minute.
LOAD_LIMIT = 3.0

# No load explains these: harm to a guest or a byte, a report of a sanitizer or valgrind, a program that crashed. (What is
# left of a case that failed, valgrind calls lost.)
HARM = re.compile(r"GuestHarmed|PatternMismatch|Sanitizer|runtime error|SIGSYS|SIGSEGV|SIGABRT|failed with exception|"
                  r"== Invalid |uninitialised")

PRESSURE = Path("/proc/pressure/cpu")

# A thread that only sleeps was not run for so many seconds: a virtual machine that stands still has no pressure.
STALL_LIMIT = 1.0


class Stalls(threading.Thread):
    """Notes when this process was not run: the time, and the seconds."""

    def __init__(self) -> None:
        super().__init__(name="stalls", daemon=True)
        self.seen: list[tuple[float, float]] = []
        self.start()

    def run(self) -> None:
        last = time.monotonic()
        while True:
            time.sleep(0.1)
            now = time.monotonic()
            if now - last > STALL_LIMIT:
                self.seen.append((now, now - last))
            last = now

    def longest(self, since: float) -> float:
        return max((seconds for at, seconds in self.seen if at >= since), default=0.0)


class Load:
    """The load of the machine from now on."""

    _stalls: Stalls | None = None

    def __init__(self) -> None:
        Load._stalls = Load._stalls or Stalls()
        self._began, self._waited = time.monotonic(), self._read("total")

    @staticmethod
    def _read(name: str) -> float | None:
        """Of what waited for a processor: "total" in µs since the machine started, "avg10" in per cent."""
        try:
            found = re.search(rf"^some .*\b{name}=([\d.]+)", PRESSURE.read_text(), re.M)
        except OSError:
            return None
        return float(found[1]) if found else None

    def until_now(self) -> tuple[bool, str]:
        """Is the machine overloaded? And the figure that says so."""
        stalled = Load._stalls.longest(self._began) if Load._stalls else 0.0
        if stalled > 0:
            return True, f"stood still for {stalled:.1f} s, limit {STALL_LIMIT} s"
        took, waited, recent = time.monotonic() - self._began, self._read("total"), self._read("avg10")
        if waited is None or recent is None or self._waited is None:
            load = os.getloadavg()[0] / (os.cpu_count() or 1)
            return load > LOAD_LIMIT, f"load average {load:.1f} per processor, limit {LOAD_LIMIT}"
        share = (waited - self._waited) / 1e6 / took if took > 10 else recent / 100
        return share > PRESSURE_LIMIT, f"CPU pressure {share:.0%}, limit {PRESSURE_LIMIT:.0%}"


class Condition:
    """What pytest-rerunfailures asks after each phase of a test: is it to be tried again?"""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def __bool__(self) -> bool:
        return self._item.stash.get(EXCUSE, "") != ""


LOAD = pytest.StashKey[Load]()
# The figure for which a failure is excused; empty once one was not. Absent while nothing failed.
EXCUSE = pytest.StashKey[str]()


class FirstTries:
    """pytest-rerunfailures only hands on the report of what failed. What was said after that, brokers' logs for
    instance, which fixtures print when they are torn down, is added to that one here, in the process that ran it."""

    def __init__(self) -> None:
        self._afterwards: list[tuple[str, str]] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if mark := item.get_closest_marker("load_sensitive"):
                if not mark.kwargs.get("reason"):
                    raise pytest.UsageError(f"{item.nodeid}: the mark load_sensitive needs a reason")
            item.add_marker(pytest.mark.flaky(reruns=1, condition=Condition(item)))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if figure := item.stash.get(EXCUSE, ""):
            item.user_properties.append(("rerun", figure))
            del item.stash[EXCUSE]
        item.stash[LOAD] = Load()

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        report: pytest.TestReport = (yield).get_result()  # type: ignore[misc, attr-defined]
        self._afterwards = []
        if report.when == "teardown":
            self._afterwards = [section for section in report.sections if "teardown" in section[0]]
            if report.failed:
                self._afterwards.append(("error at teardown", report.longreprtext))
        if report.failed:
            overloaded, figure = item.stash[LOAD].until_now()
            if mark := item.get_closest_marker("load_sensitive"):
                figure = f"{mark.kwargs['reason']}; {figure}"
            excused = (mark or overloaded) and not HARM.search(report.longreprtext) and item.stash.get(EXCUSE, figure) != ""
            item.stash[EXCUSE] = figure if excused else ""
            report.sections.append(("load", figure))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.outcome == "rerun":
            if report.when != "teardown":
                report.sections += self._afterwards
            self._afterwards = []


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(FirstTries(), "vmferry-first-tries")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.getreports("rerun")
    if reports:
        terminalreporter.section(HEADING)
    for report in reports:
        figure = next((text for title, text in report.sections if title == "load"), "")
        terminalreporter.write_line(f"RERUN {report.nodeid} ({report.when}): {figure}")
        terminalreporter.write_line(report.longreprtext)
        for title, text in report.sections:
            if title != "load":
                terminalreporter.write_sep("-", title)
                terminalreporter.write_line(text.rstrip("\n"))
