# SPDX-License-Identifier: LGPL-2.1-or-later
"""One machine for all tests of a session."""

import pytest

from vmlib.fixtures import *  # noqa: F401, F403


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.vm)
