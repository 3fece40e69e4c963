# SPDX-License-Identifier: LGPL-2.1-or-later
"""A pytest plugin: why a test failed that was tried once more (pytest-rerunfailures) stands in the terminal summary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

HEADING = "why tests were tried once more"


class FirstTries:
    """pytest-rerunfailures only hands on the report of what failed. What was said after that, brokers' logs for
    instance, which fixtures print when they are torn down, is added to that one here, in the process that ran it."""

    def __init__(self) -> None:
        self._afterwards: list[tuple[str, str]] = []

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self) -> Iterator[None]:
        report: pytest.TestReport = (yield).get_result()  # type: ignore[misc, attr-defined]
        self._afterwards = []
        if report.when == "teardown":
            self._afterwards = [section for section in report.sections if "teardown" in section[0]]
            if report.failed:
                self._afterwards.append(("error at teardown", report.longreprtext))

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
        terminalreporter.write_sep("_", f"{report.nodeid} ({report.when})")
        terminalreporter.write_line(report.longreprtext)
        for title, text in report.sections:
            terminalreporter.write_sep("-", title)
            terminalreporter.write_line(text.rstrip("\n"))
