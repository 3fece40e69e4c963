# SPDX-License-Identifier: LGPL-2.1-or-later
"""What goes on without vmferryctl, how one takes it over, and what programs and people are told meanwhile: stand-ins."""

from __future__ import annotations

import json
import signal

import pytest
from vmlib.ctl import CANCELLED, FAILED, USAGE, ctl
from vmlib.hosts import Hosts
from vmlib.standins import ACTIVE, Standins


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_goes_away(scene: Standins, how: signal.Signals) -> None:
    """QEMU goes on, and --attach takes it over with the options that it had."""
    with scene.run("--postcopy=auto") as run:
        run.process.send_signal(how)
        run.end().fails(FAILED, "goes on without vmferryctl", "--attach", "stands still until then")
    assert "migrate_cancel" not in scene.source.asked and "cont" not in scene.destination.asked
    scene.source.wait_served(1)
    scene.complete("paused")
    result = ctl(scene.hosts.source, "migrate", "--attach", "web1").succeeds()
    assert "At the destination it is running" in result.err and "cont" in scene.destination.asked
    assert scene.source.asked.count("migrate") == 1
    ctl(scene.hosts.source, "migrate", "--attach", "web1").fails(FAILED, "No 'migrate' of VM 'web1'", "--resume")


def test_nothing_to_attach_to(hosts: Hosts) -> None:
    ctl(hosts.source, "migrate", "--attach", "web7").fails(FAILED, "web7", "--resume")


def test_sequence(scene: Standins) -> None:
    with scene.run("--json=seq", "-q") as run:
        scene.complete()
        lines = [json.loads(line) for line in run.end().succeeds().out.splitlines()]
    assert len(lines) >= 2 and {"Vm", "Phase", "Progress", "BytesSent", "Remaining"} <= set(lines[0])
    assert [line.get("Final", False) for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["Qemu"]["Status"] == "completed"


def test_sequence_of_a_cancelled_one(scene: Standins) -> None:
    with scene.run("--json=seq", "-q") as run:
        run.interrupt()
        last = json.loads(run.end().fails(CANCELLED).out.splitlines()[-1])
    assert last["Final"] and last["ExitStatus"] == CANCELLED and last["Error"] == "cancelled"
    assert last["Phase"] == "pre-copy" and last["Source"] == "running" and "runs on" in last["ErrorMessage"]


def test_sequence_of_what_did_not_begin(scene: Standins) -> None:
    result = ctl(scene.hosts.source, *scene.words[:3], f"--qmp={scene.source.path}", "--dst-qmp=/nonexistent", "--json=seq")
    last = json.loads(result.fails(FAILED, "/nonexistent").out)
    assert last["Phase"] == "connecting" and last["Source"] == "running" and last["Destination"] is None


def test_sequence_of_a_send_that_did_not_begin(hosts: Hosts) -> None:
    result = ctl(hosts.source, "send", "web1", "--qmp=/nonexistent", "--json=seq", stdin="vmferry1:x")
    last = json.loads(result.fails(FAILED, "/nonexistent").out)
    assert last["Final"] and last["Phase"] == "connecting" and last["Source"] is None


def test_dry_run(scene: Standins) -> None:
    result = ctl(scene.hosts.source, *scene.words, "--dry-run", "--multifd=2").succeeds()
    assert "Would tell QEMU" in result.err and "migrate-set-parameters" in result.err and "Nothing was changed" in result.err
    for monitor in (scene.source, scene.destination):
        assert all(name.startswith("query-") or name == "qmp_capabilities" for name in monitor.asked), monitor.asked
    assert scene.hosts.source.list() == [] == scene.hosts.destination.list()


def test_verbose(scene: Standins) -> None:
    with scene.run("--verbose") as run:
        scene.complete()
        said = run.end().succeeds().err
    for word in ("PrepareIncoming of 'web1'", "StartOutgoing of 'web1'", "migrate-incoming {", "migrate {"):
        assert word in said, said


def test_one_monitor_for_both(scene: Standins) -> None:
    words = [*scene.words[:3], f"--qmp={scene.source.path}", f"--dst-qmp={scene.source.path}"]
    ctl(scene.hosts.source, *words).fails(USAGE, "the same monitor", str(scene.source.path))


def test_precopy_without_an_end(scene: Standins) -> None:
    with scene.run() as run:
        scene.source.answers["query-migrate"] = {**ACTIVE, "status": "device", "ram": {**ACTIVE["ram"], "dirty-sync-count": 9}}
        scene.source.wait_asked("query-migrate", scene.source.asked.count("query-migrate") + 3)
        scene.complete()
        assert "pass 9: the guest writes faster than the link: --postcopy=auto" in run.end().succeeds().err


@pytest.mark.parametrize(("words", "said"), [
    (["migrate", "web1", "h", "--qmp=/x", "--dst-qmp=/y", "--downtime-limit=300"], "300ms or 300s?"),
    (["migrate", "web1", "h", "--qmp=/x", "--dst-qmp=/y", "--postcopy", "auto"], "write --postcopy=auto"),
    (["migrate", "web1", "--qmp=/x", "--dst-qmp=/y"], "migrate VM HOST"),
    (["list", "--json=seq"], "--json=seq is for"),
])
def test_words_that_are_wrong(words: list[str], said: str) -> None:
    ctl(None, *words).fails(USAGE, said)


def test_properties(hosts: Hosts) -> None:
    incoming = hosts.prepare()
    assert ctl(hosts.destination, "show", "web1", "-p", "State", "-j").succeeds().json() == {"State": "waiting"}
    ctl(hosts.destination, "show", "web1", "-p", "Sate").fails(USAGE, "Did you mean 'State'?")
    ctl(hosts.destination, "show", "web1", "-p", "Sate", "-j").fails(USAGE, "Did you mean 'State'?")
    ctl(hosts.destination, "forget", "web1").fails(FAILED, "only a finished one", "Wait for its end")
    incoming.call("Cancel")
    incoming.wait_finished()
