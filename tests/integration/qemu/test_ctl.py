# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferryctl moves a real guest: on two private buses, on pipes and on terminals."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from vmlib.broker import wait_until
from vmlib.ctl import CANCELLED, FAILED, PROGRAM, Terminal, ctl, wait_all_finished
from vmlib.hosts import Hosts, kill
from vmlib.one_host import MIB, Scene
from vmlib.qemu import Qemu, qemu_binary

SLOW = "--bandwidth=8M"  # the guest's memory takes many seconds then

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("needs_qemu")]
needs_postcopy = pytest.mark.usefixtures("needs_postcopy")


@pytest.fixture
def scene(hosts: Hosts, workdir: Path) -> Iterator[Scene]:
    scene = Scene(hosts, workdir)
    with scene.pair:
        yield scene


# A pre-copy that must not converge before post-copy is asked for.
POSTCOPY = pytest.param(["--postcopy", "--downtime-limit=1ms"], marks=needs_postcopy)
AFTER = pytest.param(["--postcopy=after 1"], marks=needs_postcopy)
AUTO = pytest.param(["--postcopy=auto"], marks=needs_postcopy)


@pytest.mark.parametrize("how", [["--downtime-limit=60s"], ["--downtime-limit=60s", "--multifd=3"], POSTCOPY, AFTER,
                                 AUTO])
def test_receive_and_send(scene: Scene, how: list[str]) -> None:
    at_destination = [word for word in how if not word.startswith("--downtime")]
    ticket = scene.receive(*at_destination)
    result = scene.send(ticket, *how)
    scene.judge_moved(result)
    channels = scene.hosts.source.client.get(scene.hosts.source.list()[0][5], "org.vmferry.Migration1", "Channels")
    assert len(channels) == (4 if "--multifd=3" in how else 1)
    if "--postcopy" in how:
        assert scene.pair.source.query_migrate()["ram"]["postcopy-bytes"] > 0


@pytest.mark.parametrize("how", [["--downtime-limit=60s"], POSTCOPY, AUTO])
def test_migrate(scene: Scene, how: list[str]) -> None:
    result = ctl(scene.hosts.source, *scene.migrate, *how, timeout=120)
    scene.judge_moved(result)
    assert "At the destination it is running" in result.err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")
def test_qemus_that_gave_up_their_rights(hosts: Hosts, workdir: Path) -> None:
    """Root made their monitors' sockets, and another user is to open the tunnel's."""
    workdir.chmod(0o711)
    known = subprocess.run([qemu_binary() or "", "-help"], capture_output=True, text=True, check=True).stdout
    scene = Scene(hosts, workdir, ("-runas", "nobody") if "\n-runas " in known else ("-run-with", "user=nobody"))
    with scene.pair:
        scene.judge_moved(ctl(hosts.source, *scene.migrate, "--downtime-limit=60s", timeout=120))


@needs_postcopy
def test_migrate_through_connections_that_were_brought(scene: Scene) -> None:
    """--ssh between two buses of one host: nothing listens, nothing is dialled."""
    result = ctl(scene.hosts.source, *scene.migrate, "--ssh", "--postcopy")
    scene.judge_moved(result)
    assert scene.hosts.destination.get("Endpoints") == ["tcp:127.0.0.1:0"]
    assert ctl(scene.hosts.source, "show", "web1", "-p", "Peer", "--value").out == "unix:\n"


def test_multifd_through_connections_that_were_brought(scene: Scene) -> None:
    scene.judge_moved(ctl(scene.hosts.source, *scene.migrate, "--ssh", "--multifd=3", "--downtime-limit=60s"))


def test_json(scene: Scene) -> None:
    record = ctl(scene.hosts.source, *scene.migrate, "--downtime-limit=60s", "-j", "-q").succeeds()
    assert record.err == ""
    value = record.json()
    assert value["Result"] == "done" and value["Qemu"]["Status"] == "completed" and value["Qemu"]["TotalMsec"] > 0
    assert set(value) - {"Qemu"} == set(ctl(scene.hosts.source, "status", "web1", "-j").json())


# ---- Progress ----


@needs_postcopy
@pytest.mark.load_sensitive(reason="looks at the terminal so often that it sees more than six figures")
@pytest.mark.parametrize("columns", [80, 40])
def test_progress_on_a_terminal(scene: Scene, workdir: Path, columns: int) -> None:
    """The line is one line, changes, never says 100 %, and is gone in the end."""
    with Terminal(workdir, columns) as terminal:
        terminal.run([str(PROGRAM), f"--address={scene.hosts.source.bus.address}", *scene.migrate, "--bandwidth=12M",
                      "--postcopy=after 3"])
        numbers = r"[\d.]+ [KMG]?i?B"
        line = (rf"^web1  pre-copy  \d+ %  {numbers}  {numbers}/s  (dirty {numbers}/s  )?left {numbers}$" if columns == 80
                else rf"^web1  pre-copy  \d+ %  {numbers}/s(  left {numbers})?$")
        text = terminal.wait_for(line)
        assert len(re.findall(r"^web1  pre-copy", text, re.M)) == 1
        seen, phases = set(), set()
        while not re.search(r"web1: done after", text):
            for row in re.findall(r"^web1  .*", text, re.M):
                assert len(row) < columns, row
                seen.update(re.findall(r" (\d+) %", row))
                phases.add(row.split("  ")[1])
            assert "100 %" not in text
            text = terminal.screen()
        assert len(seen) > 6 and {"pre-copy", "post-copy"} <= phases, (seen, phases)
        assert not re.search(r"^web1  ", text, re.M), "the line is gone"
    scene.assert_done()


@needs_postcopy
def test_progress_on_a_pipe(scene: Scene) -> None:
    """A line for each phase, and one each ten seconds."""
    with scene.begin("--bandwidth=4M", "--postcopy=after 11") as run:
        scene.pair.source.wait_migration({"postcopy-active"}, 60)
        scene.pair.source.set_parameters({"max-postcopy-bandwidth": 32 << 20})  # and not over before it is seen
        result = run.end()
    scene.judge_moved(result)
    lines = [line.split("  ")[1] for line in result.err.splitlines() if line.startswith("web1  ")]
    assert [line for line in lines if line not in ("setup", "device")][:3] == ["pre-copy", "pre-copy", "post-copy"], result
    assert "\r" not in result.err and "\x1b" not in result.err and "100 %" not in result.err


# ---- Ctrl-C ----


def test_ctrl_c_in_precopy(scene: Scene) -> None:
    with scene.begin(SLOW) as run:
        scene.pair.wait_transferred(4 << 20)
        run.interrupt()
        run.end().fails(CANCELLED, "web1", "was not moved", "runs on at the source")
    scene.pair.destination.wait_exit()
    scene.assert_stayed()


def test_ctrl_c_on_a_terminal(scene: Scene, workdir: Path) -> None:
    with Terminal(workdir) as terminal:
        terminal.run([str(PROGRAM), f"--address={scene.hosts.source.bus.address}", *scene.migrate, SLOW])
        terminal.wait_for(r"^web1  pre-copy")
        terminal.key("C-c")
        terminal.wait_for(r"^vmferryctl: Cancelled: VM 'web1' was not moved; it runs on at the source\.")
        terminal.type("echo status $?\n")
        terminal.wait_for(r"^status 3$")
    scene.pair.destination.wait_exit()
    scene.assert_stayed()


def test_ctrl_c_before_qemu_begins(scene: Scene) -> None:
    """The destination's helper is stopped, so that the two cannot meet."""
    with scene.begin() as run:
        def prepared() -> bool:
            return bool(scene.hosts.destination.list())
        wait_until(prepared, "the destination prepared")
        run.interrupt()
        result = run.end()
    if "could" in result.err or "Nothing has happened" in result.err:
        result.fails(CANCELLED, "web1", "Nothing has happened")
    else:
        result.fails(CANCELLED, "web1")  # it had connected by then
    scene.assert_stayed()


@needs_postcopy
def test_ctrl_c_in_postcopy(scene: Scene) -> None:
    """The guest would be lost: it goes on by itself."""
    with scene.begin("--postcopy", SLOW) as run:
        wait_until(lambda: scene.pair.destination.status() == "running", "the guest to run at the destination", 60)
        run.interrupt()
        run.end().fails(FAILED, "web1", "post-copy", "goes on by itself", "vmferryctl watch", "--resume")
    scene.pair.source.set_parameters({"max-postcopy-bandwidth": 0})
    scene.pair.wait_completed()
    for broker in scene.hosts.brokers:
        ctl(broker, "wait", "web1").succeeds()
    scene.assert_done()


@needs_postcopy
def test_cancel_asks_qemu(scene: Scene) -> None:
    with scene.begin("--postcopy", SLOW) as run:
        wait_until(lambda: scene.pair.destination.status() == "running", "the guest to run at the destination", 60)
        run.interrupt()
        run.end()
    ctl(scene.hosts.source, "cancel", "web1", scene.near).fails(FAILED, "web1", "postcopy-active", "lose the guest")
    ctl(scene.hosts.destination, "cancel", "web1", scene.far).fails(FAILED, "web1", "postcopy", "lose the guest")
    scene.pair.source.set_parameters({"max-postcopy-bandwidth": 0})
    scene.pair.wait_completed()
    for broker in scene.hosts.brokers:
        ctl(broker, "wait", "web1").succeeds()
    scene.assert_done()


def test_cancel_in_precopy(scene: Scene) -> None:
    """By another vmferryctl, at the destination: the one that drives it says what happened."""
    with scene.begin(SLOW) as run:
        scene.pair.wait_transferred(4 << 20)
        ctl(scene.hosts.destination, "cancel", "web1", "--force").succeeds()
        run.end().fails(CANCELLED, "web1", "was not moved", "runs on at the source", "Cancelled at the destination")
    scene.pair.destination.wait_exit()
    scene.assert_stayed()


def test_cancel_in_precopy_at_the_source(scene: Scene) -> None:
    """The same, at the source."""
    with scene.begin(SLOW) as run:
        scene.pair.wait_transferred(4 << 20)
        ctl(scene.hosts.source, "cancel", "web1", "--force").succeeds()
        run.end().fails(CANCELLED, "web1", "was not moved", "runs on at the source", "Cancelled")
    scene.pair.destination.wait_exit()
    scene.assert_stayed()


# ---- What goes wrong ----


def test_qemu_refuses_a_capability(scene: Scene) -> None:
    scene.pair.source.set_capabilities({"x-ignore-shared": True})
    scene.before = scene.settings()
    ctl(scene.hosts.source, *scene.migrate, "--postcopy").fails(FAILED, "migrate-set-capabilities", "ostcopy is not",
                                                                  str(scene.pair.source.qmp_path))
    assert not scene.hosts.source.list() and not scene.hosts.destination.list()
    scene.assert_stayed()


@needs_postcopy
def test_destination_refuses_a_capability(scene: Scene) -> None:
    scene.pair.destination.set_capabilities({"x-ignore-shared": True})
    ctl(scene.hosts.destination, "receive", "web1", scene.far, "--postcopy").fails(
        FAILED, "migrate-set-capabilities", "ostcopy is not", str(scene.pair.destination.qmp_path))
    assert not scene.hosts.destination.list()


def test_multifd_and_postcopy(scene: Scene) -> None:
    ctl(scene.hosts.source, *scene.migrate, "--postcopy", "--multifd=2").fails(FAILED, "--multifd", "--postcopy", "10.1 can do that")
    scene.assert_stayed()


def test_monitor_is_taken(scene: Scene) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(scene.pair.source.qmp_path))
        assert b"QMP" in other.recv(4096)
        ctl(scene.hosts.source, *scene.migrate).fails(FAILED, str(scene.pair.source.qmp_path), "another client")
    assert not scene.hosts.source.list() and not scene.hosts.destination.list()
    scene.assert_stayed()


def test_the_wrong_qemu(scene: Scene) -> None:
    ctl(scene.hosts.destination, "receive", "web1", scene.near).fails(FAILED, "'running'", "-incoming defer")
    ctl(scene.hosts.source, "send", "web1", scene.far, stdin="vmferry1:x").fails(FAILED, "waits for a VM to come in")
    ctl(scene.hosts.source, "send", "web1", scene.near, "--resume", stdin="vmferry1:x").fails(
        FAILED, "cannot be resumed", "'none'")
    scene.assert_stayed()


def test_sent_twice(scene: Scene) -> None:
    scene.judge_moved(ctl(scene.hosts.source, *scene.migrate, "--downtime-limit=60s"))
    ctl(scene.hosts.source, "send", "web1", scene.near, stdin="vmferry1:x").fails(FAILED, "sent it away already")


def test_destination_qemu_dies(scene: Scene) -> None:
    with scene.begin(SLOW) as run:
        scene.pair.wait_transferred(4 << 20)
        scene.pair.destination.kill()
        run.end().fails(FAILED, "web1", "was not moved", "runs on at the source", "QEMU says")
    scene.assert_stayed()


def test_source_qemu_dies(scene: Scene) -> None:
    with scene.begin(SLOW) as run:
        scene.pair.wait_transferred(4 << 20)
        scene.pair.source.kill()
        run.end().fails(FAILED, "closed the connection", "cancelled")
    wait_all_finished(*scene.hosts.brokers)


def test_incoming_that_was_not_deferred(scene: Scene, workdir: Path) -> None:
    with Qemu(workdir, workdir / f"guest-{MIB}.img", MIB + 8, "other", incoming=f"unix:{workdir}/in") as other:
        ctl(scene.hosts.destination, "receive", "web1", f"--qmp={other.qmp_path}").fails(
            FAILED, "migrate-incoming", str(other.qmp_path))
    assert not scene.hosts.destination.list(), "it is forgotten again"


# ---- Recovery ----


def pause_postcopy(scene: Scene) -> None:
    """The destination's helper dies under it; both QEMUs know."""
    kill(scene.hosts.source.helpers()[-1])


@needs_postcopy
def test_resume_with_a_new_ticket(scene: Scene) -> None:
    with scene.begin("--postcopy", SLOW, "--resume-timeout=0") as run:
        wait_until(lambda: scene.pair.destination.status() == "running", "the guest to run at the destination", 60)
        pause_postcopy(scene)
        run.end().fails(FAILED, "web1", "paused", "stands still", "--resume")
    for qemu in (scene.pair.source, scene.pair.destination):
        qemu.wait_migration({"postcopy-paused"}, 30)
    scene.pair.source.set_parameters({"max-postcopy-bandwidth": 0})
    for broker in scene.hosts.brokers:  # what is left of the tunnel at the other side
        ctl(broker, "cancel", "web1", "--force")
        ctl(broker, "wait", "-q", "web1")
    ticket = scene.receive("--resume")
    assert ticket.startswith("vmferry1:")
    scene.judge_moved(scene.send(ticket, "--resume"))


@needs_postcopy
def test_resume_with_migrate(scene: Scene) -> None:
    with scene.begin("--postcopy", SLOW, "--resume-timeout=0") as run:
        wait_until(lambda: scene.pair.destination.status() == "running", "the guest to run at the destination", 60)
        pause_postcopy(scene)
        run.end().fails(FAILED, "web1", "paused", "--resume")
    scene.pair.destination.wait_migration({"postcopy-paused"}, 30)
    scene.pair.source.set_parameters({"max-postcopy-bandwidth": 0})
    scene.judge_moved(ctl(scene.hosts.source, *scene.migrate, "--resume"))
