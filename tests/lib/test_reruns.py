# SPDX-License-Identifier: LGPL-2.1-or-later
"""Of a test that is tried once more the run tells why, and all that was said with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from vmlib.broker import ROOT
from vmlib.reruns import HEADING

TESTS = '''
from pathlib import Path
import pytest

def first(name):
    path = Path(__file__).with_name(name)
    if path.exists():
        return False
    path.touch()
    return True

@pytest.fixture
def scene():
    yield
    print("said at the end")
    assert not first("scene"), "failed at the end"

def test_call(scene):
    print("said by the test")
    assert not first("call"), "failed the first time"

@pytest.fixture
def late():
    yield
    assert not first("late"), "failed only at the end"

def test_teardown(late):
    pass

def test_good():
    print("nobody wants to know")
'''


@pytest.mark.parametrize("workers", [0, 2])
def test_first_failure_is_told(workdir: Path, workers: int) -> None:
    (workdir / "conftest.py").write_text('pytest_plugins = ["vmlib.reruns"]\n')
    (workdir / "test_it.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-B", "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", f"--rootdir={workdir}",
         "-c", "/dev/null", "-n", str(workers), "--reruns", "1", str(workdir)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests" / "lib")}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and ", 2 rerun" in done.stdout, done.stdout + done.stderr
    said = done.stdout.partition(HEADING)[2]
    for words in ("test_it.py::test_call (call)", "AssertionError: failed the first time", "said by the test",
                  "said at the end", "AssertionError: failed at the end", "test_it.py::test_teardown (teardown)",
                  "AssertionError: failed only at the end"):
        assert said.count(words) == 1, done.stdout
    assert "nobody wants to know" not in said
