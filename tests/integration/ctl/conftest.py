# SPDX-License-Identifier: LGPL-2.1-or-later
from collections.abc import Iterator
from pathlib import Path

import pytest
from vmlib.ctl import Terminal
from vmlib.hosts import Hosts
from vmlib.standins import Standins


@pytest.fixture
def terminal(workdir: Path) -> Iterator[Terminal]:
    with Terminal(workdir) as screen:
        yield screen


@pytest.fixture
def scene(hosts: Hosts, workdir: Path) -> Iterator[Standins]:
    scene = Standins(hosts, workdir)
    try:
        yield scene
    finally:
        scene.close()
