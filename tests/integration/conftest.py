# SPDX-License-Identifier: LGPL-2.1-or-later
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from vmlib.fixtures import *  # noqa: E402, F401, F403
from vmlib.hosts import Hosts  # noqa: E402
from vmlib.managed import ManagedBroker  # noqa: E402
from vmlib.restarts import close  # noqa: E402


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The folder qemu is of the mark qemu; tests of the mark long only run with $VMFERRY_LONG."""
    for item in items:
        if item.path.parent.name == "qemu":
            item.add_marker(pytest.mark.qemu)
    leave_out_late(config, items)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Lets a fixture know, when it is torn down, whether its test had failed."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "call":
        item.stash[FAILED] = report.failed


FAILED = pytest.StashKey[bool]()


@pytest.fixture
def hosts(workdir: Path, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    """Two brokers. At the end nothing of any migration may be left, and both must end well."""
    pair = Hosts(workdir)
    yield pair
    if request.node.stash.get(FAILED, False):
        pair.__exit__(True)  # says what the brokers logged
    else:
        pair.close()


@pytest.fixture
def managed(workdir: Path, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    """As hosts, with brokers that can be restarted."""
    pair = Hosts(workdir, broker=ManagedBroker)
    yield pair
    close(pair, request.node.stash.get(FAILED, False))
