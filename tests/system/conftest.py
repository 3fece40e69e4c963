# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two booted hosts for all tests of a session; each test must leave them as it found them.

The hosts are in vmlib/nspawn.py. A test takes `hosts` and has hosts.a and hosts.b.
"""
from collections.abc import Iterator

import pytest

from vmlib.domains import *  # noqa: F401, F403
from vmlib.fixtures import *  # noqa: F401, F403
from vmlib.nspawn import Host, TwoHosts, available


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.system)
    leave_out_late(config, items)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """What the journals of both hosts said during a test that failed."""
    outcome = yield
    report = outcome.get_result()
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    begins = item.stash.get(BEGINS, None)
    if report.failed and begins:
        for host, cursor in begins:
            report.sections.append((f"journal of host {host.name}",
                                    host.journal_text(f"--after-cursor={cursor}", "-n", "200")))


FAILED = pytest.StashKey[bool]()
BEGINS = pytest.StashKey[list[tuple[Host, str]]]()


@pytest.fixture(scope="session")
def booted() -> Iterator[TwoHosts]:
    if why := available():
        pytest.skip(why)
    with TwoHosts() as hosts:
        yield hosts


@pytest.fixture
def hosts(booted: TwoHosts, request: pytest.FixtureRequest) -> Iterator[TwoHosts]:
    """The two hosts; afterwards no migration, socket, failed unit or helper but a spare may be left.

    After a failure that is seen to, so that the next test has nothing of it.
    """
    begins = [(host, host.journal_cursor()) for host in booted]
    request.node.stash[BEGINS] = begins
    yield booted
    try:
        if not request.node.stash.get(FAILED, False):
            for host in booted:
                host.clean()
            return
    except BaseException:
        booted.reset()
        raise
    booted.reset()
