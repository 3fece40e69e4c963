# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferryctl and QEMUs that do not answer for a while, or have another run state in the end: stand-ins."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest
from vmlib.broker import wait_until
from vmlib.ctl import CANCELLED, DONE, FAILED, PROGRAM, Running, Terminal
from vmlib.monitor import Monitor
from vmlib.standins import ACTIVE, COMPLETED, Standins


def test_silence_is_shown(scene: Standins, workdir: Path) -> None:
    with Terminal(workdir, 120) as terminal:
        scene.source.answers["query-migrate"] = {}
        terminal.run([str(PROGRAM), f"--address={scene.hosts.source.bus.address}", *scene.words])
        scene.source.wait_asked("migrate")
        scene.source.answers["query-migrate"] = ACTIVE
        terminal.wait_for(r"^web1  pre-copy")
        scene.source.hold("query-migrate")
        terminal.wait_for(r"^web1  .*QEMU has not answered for \d+ s$")
        scene.destination.hold("query-migrate")
        scene.complete()
        terminal.wait_for(r"^web1  finishing .*QEMU at unix:.* has not answered for \d+ s$")
        scene.destination.release()
        text = terminal.wait_for(r"At the destination it is running")
        assert "has not answered" not in text and "vmferryctl:" not in text, text


def test_ctrl_c_waits_for_the_answer(scene: Standins) -> None:
    with scene.begin() as run:
        run.interrupt()
        with pytest.raises(subprocess.TimeoutExpired):
            run.process.wait(2)
        assert "migrate_cancel" not in scene.source.asked and scene.state() != "finished"
        scene.source.release()
        result = run.end().fails(CANCELLED, "was not moved", "runs on at the source")
    assert "is not cancelled before it does" in result.err
    assert "migrate_cancel" in scene.source.asked


def test_ctrl_c_that_came_too_late(scene: Standins) -> None:
    """While QEMU was silent it came to its end."""
    with scene.begin() as run:
        run.interrupt()
        with pytest.raises(subprocess.TimeoutExpired):
            run.process.wait(1)
        scene.complete()
        assert "At the destination it is running" in run.end().succeeds().err
    assert "migrate_cancel" not in scene.source.asked


def test_second_ctrl_c_leaves(scene: Standins) -> None:
    """Nothing is cut, and nothing is said about where the VM is."""
    with scene.begin() as run:
        run.interrupt()
        status = Path(f"/proc/{run.process.pid}/status")
        wait_until(lambda: not int(re.findall(r"ShdPnd:\s+(\w+)", status.read_text())[0], 16) & 2,
                   "it has read the first one: two that nobody has read are one")
        with pytest.raises(subprocess.TimeoutExpired):
            run.process.wait(1)
        run.interrupt()
        result = run.end(20).fails(FAILED, "has not answered for", "is not cancelled", "vmferryctl watch")
    assert "runs on" not in result.err
    assert scene.state() != "finished"
    assert "migrate_cancel" not in scene.source.asked


def test_ctrl_c_after_postcopy_was_asked_for(scene: Standins) -> None:
    with scene.begin("--postcopy") as run:
        assert "migrate-start-postcopy" in scene.source.asked
        run.interrupt()
        run.end(20).fails(FAILED, "has not answered for", "is not cancelled", "goes on by itself")
    assert scene.state() != "finished"


def test_cancel_waits_for_the_answer(scene: Standins) -> None:
    with scene.begin() as run:
        run.process.send_signal(signal.SIGKILL)  # its monitor is free then
        run.process.wait()
        scene.source.release()
        scene.source.wait_served(1)
        scene.source.hold("query-migrate")
        times = scene.source.asked.count("query-migrate")
        with Running(scene.hosts.source, "cancel", "web1", f"--qmp={scene.source.path}") as cancel:
            scene.source.wait_asked("query-migrate", times + 1)
            with pytest.raises(subprocess.TimeoutExpired):
                cancel.process.wait(4)
            assert scene.state() != "finished"
            scene.source.release()
            result = cancel.end().succeeds()
    assert "has not answered for 3 s. Nothing is cancelled before it does" in result.err
    assert "migrate_cancel" in scene.source.asked


# ---- The run state ----


@pytest.mark.parametrize(("before", "after", "status", "words"), [
    ("running", "running", DONE, "At the destination it is running"),
    ("paused", "paused", DONE, "At the destination it is paused"),
    ("io-error", "paused", DONE, "At the destination it is paused"),
    ("running", "paused", DONE, "At the destination it is running"),
    ("running", "io-error", FAILED, "says that it is 'io-error'. Look at QEMU's log there, then tell it 'cont'"),
    ("paused", "running", FAILED, "was 'paused' at the source, and is running at"),
])
@pytest.mark.parametrize("postcopy", [[], ["--postcopy"]])
def test_run_state(scene: Standins, before: str, after: str, status: int, words: str, postcopy: list[str]) -> None:
    scene.source.answers["query-status"] = {"status": before}
    with scene.begin("-j", *postcopy) as run:
        scene.source.answers["query-status"] = {"status": "postmigrate"}
        scene.complete(after)
        result = run.end()
    if status == DONE:
        assert words in result.succeeds().err
    else:
        result.fails(status, words)
    told = "cont" in scene.destination.asked
    assert told == ((before, after) == ("running", "paused"))
    assert ("migrate-start-postcopy" in scene.source.asked) == (bool(postcopy) and before == "running")
    assert ("goes without post-copy" in result.err) == (bool(postcopy) and before != "running")
    qemu = result.json()["Qemu"]
    assert qemu["SourceRunState"] == before and qemu["RunState"] == ("running" if told else after)


def test_destination_that_is_gone_in_the_end(scene: Standins) -> None:
    """Before it was told to start the VM."""
    with scene.begin() as run:
        scene.destination.close()
        scene.source.answers["query-migrate"] = COMPLETED
        scene.source.release()
        run.end().fails(FAILED, "QEMU at the source says that VM 'web1' has moved", "has ended. It had not been told to start",
                        "stands still at the source as well", "'cont'")
    scene.destination = Monitor(scene.destination.path)


def test_destination_that_is_gone_when_it_starts_the_vm(scene: Standins) -> None:
    """It may have run there: nothing is said that would start it at the source."""
    with scene.begin() as run:
        scene.destination.hold("cont")
        scene.complete("paused")
        scene.destination.wait_asked("cont")
        scene.destination.close()
        result = run.end().fails(FAILED, "has moved, but the one at", "has ended", "before you start it anywhere")
    assert "tell" not in result.err
    scene.destination = Monitor(scene.destination.path)
