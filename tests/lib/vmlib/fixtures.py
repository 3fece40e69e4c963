# SPDX-License-Identifier: LGPL-2.1-or-later
"""pytest fixtures. A test directory gets them by `from vmlib.fixtures import *` in its conftest.py."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .qemu import postcopy_available, qemu_binary

__all__ = ["leave_out_late", "workdir", "needs_qemu", "needs_postcopy"]


def children() -> set[int]:
    """The processes that this one has started and not reaped, by any of its threads."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found |= {int(pid) for pid in (task / "children").read_text().split()}
        except (FileNotFoundError, ProcessLookupError):
            pass  # a thread that ended meanwhile
    return found


def open_fds() -> dict[int, str]:
    """This process's open FDs and what they are."""
    fds = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            fds[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            pass  # the directory's own
    return fds


def leave_out_late(config: pytest.Config, items: list[pytest.Item]) -> None:
    """For pytest_collection_modifyitems: tests of the mark long only run with $VMFERRY_LONG, those of the mark older with
    $VMFERRY_OLDER."""
    absent = [mark for mark in ("long", "older") if not os.environ.get(f"VMFERRY_{mark.upper()}")]
    late = [item for item in items if any(item.get_closest_marker(mark) for mark in absent)]
    if late:
        config.hook.pytest_deselected(items=late)
        items[:] = [item for item in items if item not in late]


@pytest.fixture
def workdir() -> Iterator[Path]:
    """A directory with a short path, fit for UNIX sockets. Afterwards no child, FD or socket may be left.

    It is the last to be torn down, when a test asks for it first or only through other fixtures.
    """
    before, fds = children(), open_fds()
    path = Path(tempfile.mkdtemp(prefix="vmf", dir="/tmp"))
    try:
        yield path
        assert not children() - before, f"left running: {children() - before}"
        left = {fd: what for fd, what in open_fds().items() if fd not in fds}
        assert not left, f"left open: {left}"
        sockets = [str(entry) for entry in path.rglob("*") if entry.is_socket()]
        assert not sockets, f"left behind: {sockets}"
    finally:
        shutil.rmtree(path)


@pytest.fixture
def needs_qemu() -> None:
    """Skips the test where there is no QEMU."""
    if qemu_binary() is None:
        pytest.skip("no qemu-system-x86_64")


@pytest.fixture
def needs_postcopy(needs_qemu: None) -> None:
    """Skips the test where a QEMU run as this user can't do post-copy."""
    if not postcopy_available():
        pytest.skip("userfaultfd is not allowed for this user (vm.unprivileged_userfaultfd)")
