# SPDX-License-Identifier: LGPL-2.1-or-later
"""All migrations at once: what List lets through, and vmferryctl watch without one."""

from __future__ import annotations

import json
import os
import signal

import pytest
from vmlib.broker import BROKER, PATH, BusError, wait_until
from vmlib.ctl import PROGRAM, Running, Terminal
from vmlib.hosts import Hosts, cancel_and_wait


def test_list_of_some(hosts: Hosts) -> None:
    """Each key of the filter, and several at once; what is no key is refused by name."""
    def names(**keys: tuple[str, object]) -> list[str]:
        found = hosts.destination.client.call(PATH, BROKER, "List", "a{sv}", {k.replace("_", "-"): v for k, v in keys.items()})
        return [one["Vm"][1] for one in found[0]]

    first, second = hosts.prepare("web1"), hosts.prepare("web2")
    first.cancel()
    first.wait_finished()
    assert names() == ["web1", "web2"]
    assert names(vm=("s", "web2")) == names(running=("b", True)) == names(state=("s", "waiting")) == ["web2"]
    assert names(running=("b", False)) == ["web1"]
    assert names(role=("s", "incoming"), owner_uid=("u", os.getuid())) == ["web1", "web2"]
    assert names(role=("s", "outgoing")) == names(owner_uid=("u", 4711)) == names(vm=("s", "web1"), running=("b", True)) == []
    for key, value, words in (("nonsense", ("s", "x"), "'nonsense'"), ("running", ("s", "yes"), "'running' is of another")):
        with pytest.raises(BusError, match=words):
            names(**{key: value})
    cancel_and_wait(second)


def test_watch_all(hosts: Hosts, terminal: Terminal) -> None:
    """A table that moves, the running ones first and the finished ones dim; Ctrl-C ends it well."""
    words = [str(PROGRAM), f"--address={hosts.destination.bus.address}", "watch"]
    terminal.resize(120)
    terminal.run(words)
    terminal.wait_for("^No migrations")
    first = hosts.prepare("web1")
    terminal.wait_for(r"\AVM .*\nweb1 +incoming +waiting")
    second = hosts.prepare("web2")
    cancel_and_wait(first)
    terminal.wait_for(r"\AVM .*\nweb2 +incoming +waiting .*\nweb1 +incoming +finished +.* cancelled ")

    def dim() -> list[bool]:
        return [line.startswith("\x1b[2m") for line in terminal.screen(colours=True).splitlines()[1:3]]

    wait_until(lambda: dim() == [False, True], "the finished one is dim, and it alone")
    terminal.key("C-c")
    terminal.wait_for(r"^(\^C)?\$ *$")
    terminal.type("echo status $?\n")
    terminal.wait_for("^status 0")
    cancel_and_wait(second)


def test_watch_all_on_a_pipe_and_as_json(hosts: Hosts) -> None:
    incoming = hosts.prepare()
    with Running(hosts.destination, "watch") as plain, Running(hosts.destination, "watch", "-j") as lines:
        assert plain.process.stdout and lines.process.stdout
        assert plain.process.stdout.readline() == "incoming web1  waiting  0 B  0 B/s\n"
        (one,) = json.loads(lines.process.stdout.readline())
        assert (one["Path"], one["State"]) == (incoming.path, "waiting")
        incoming.cancel()
        assert plain.process.stdout.readline().startswith("incoming web1  cancelled")
        for run in (plain, lines):
            run.process.send_signal(signal.SIGINT)
            run.end().succeeds()
    incoming.wait_finished()
