# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which failed test is tried once more; and of one that is, the run tells why, and all that was said with it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from vmlib.broker import ROOT
from vmlib.reruns import HEADING

TESTS = '''
from pathlib import Path
import pytest

pytestmark = pytest.mark.load_sensitive(reason="it is about them")

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

ONE = '''
from pathlib import Path
import pytest

{mark}
def test_it():
    path = Path(__file__).with_name("tried")
    first = not path.exists()
    path.touch()
    assert not first, "{words}"
'''

SENSITIVE = '@pytest.mark.load_sensitive(reason="it is about time")'
OVERLOADED, IDLE = "-1", "1e9"


def run(workdir: Path, text: str, limit: str, workers: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs tests on a machine that is overloaded above this limit."""
    (workdir / "conftest.py").write_text(
        f'from vmlib import reruns\nreruns.PRESSURE_LIMIT = reruns.LOAD_LIMIT = {limit}\n'
        'pytest_plugins = ["vmlib.reruns"]\n')
    (workdir / "test_it.py").write_text(text)
    return subprocess.run(
        [sys.executable, "-B", "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", f"--rootdir={workdir}",
         "-c", "/dev/null", "-n", str(workers), f"--junitxml={workdir}/report.xml", str(workdir)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests" / "lib")}, capture_output=True, text=True, timeout=180)


@pytest.mark.parametrize("workers", [0, 2])
def test_first_failure_is_told(workdir: Path, workers: int) -> None:
    done = run(workdir, TESTS, OVERLOADED, workers)
    assert done.returncode == 0 and ", 2 rerun" in done.stdout, done.stdout + done.stderr
    said = done.stdout.partition(HEADING)[2]
    for words in ("test_it.py::test_call (call): ", "AssertionError: failed the first time", "said by the test",
                  "said at the end", "AssertionError: failed at the end", "test_it.py::test_teardown (teardown): ",
                  "AssertionError: failed only at the end"):
        assert said.count(words) == 1, done.stdout
    assert "nobody wants to know" not in said
    figure = r"it is about them; (CPU pressure \d+%|load average [\d.]+ per processor), limit -1"
    assert re.search(rf"^RERUN test_it.py::test_call \(call\): {figure}", said, re.M), said
    assert len(re.findall(rf'<property name="rerun" value="{figure}', (workdir / "report.xml").read_text())) == 2


@pytest.mark.parametrize("mark, limit", [
    pytest.param("", OVERLOADED, id="load"),
    pytest.param(SENSITIVE, IDLE, id="mark")])
def test_failure_that_is_excused(workdir: Path, mark: str, limit: str) -> None:
    done = run(workdir, ONE.format(mark=mark, words="late"), limit)
    assert done.returncode == 0 and re.search(r"\b1 passed\b.*, 1 rerun\b", done.stdout), done.stdout + done.stderr
    assert ("it is about time; " in done.stdout) == bool(mark), done.stdout


STOPPED = '''
import os, subprocess
from pathlib import Path

def test_it():
    path = Path(__file__).with_name("tried")
    if not path.exists():
        path.touch()
        subprocess.run(["sh", "-c", f"kill -STOP {os.getpid()}; sleep 1.5; kill -CONT {os.getpid()}; sleep 0.3"])
        assert False
'''


def test_failure_of_a_machine_that_stood_still(workdir: Path) -> None:
    done = run(workdir, STOPPED, IDLE)
    assert done.returncode == 0 and re.search(r"RERUN .*: stood still for \d+\.\d s", done.stdout), done.stdout + done.stderr


@pytest.mark.parametrize("mark, limit, words", [
    pytest.param("", IDLE, "late", id="neither"),
    pytest.param(SENSITIVE, OVERLOADED, "PatternMismatch", id="harm")])
def test_failure_that_stays_one(workdir: Path, mark: str, limit: str, words: str) -> None:
    done = run(workdir, ONE.format(mark=mark, words=words), limit)
    assert done.returncode == 1 and "1 failed" in done.stdout and "RERUN" not in done.stdout, done.stdout + done.stderr


def test_mark_needs_a_reason(workdir: Path) -> None:
    done = run(workdir, ONE.format(mark="@pytest.mark.load_sensitive", words=""), OVERLOADED)
    assert done.returncode != 0 and "needs a reason" in done.stdout + done.stderr
