# SPDX-License-Identifier: LGPL-2.1-or-later
"""What owners report: progress and outcome, on both hosts, in signals, after restarts and cancels."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from vmlib.broker import MIGRATION, Broker, BusError, Client, Migration, wait_until
from vmlib.calls import answer, post
from vmlib.hosts import Hosts, Tunnel, assert_failed, cancel_and_wait
from vmlib.proxy import Proxy
from vmlib.signals import Signals

MANY = 1000 if os.environ.get("VMFERRY_LONG") else 12

PROGRESS: dict[str, tuple[str, Any]] = {
    "phase": ("s", "pre-copy"), "pass": ("u", 2), "memory-total": ("t", 1000), "memory-remaining": ("t", 250),
    "dirty-rate": ("t", 7), "expected-downtime-usec": ("t", 30000), "disk-total": ("t", 90),
    "disk-remaining": ("t", 5)}
MOVED: dict[str, tuple[str, Any]] = {
    "downtime-usec": ("t", 6000), "total-usec": ("t", 1100000), "host": ("s", "host2"), "run-state": ("s", "running")}


def progress(migration: Migration, **changes: tuple[str, Any]) -> None:
    migration.call("ReportProgress", "a{sv}", {**PROGRESS, **{key.replace("_", "-"): v for key, v in changes.items()}})


def report(migration: Migration, outcome: str, **details: tuple[str, Any]) -> None:
    migration.call("Report", "sa{sv}", outcome, details)


@pytest.fixture
def tunnel(hosts: Hosts) -> Iterator[Tunnel]:
    one = hosts.connect()
    yield one
    if one.outgoing.get("State") != "finished":
        cancel_and_wait(one.outgoing)
        one.incoming.wait_finished()


def carry(tunnel: Tunnel) -> None:
    """All of it, as QEMU does: both close their sockets in the end."""
    source, destination = tunnel.open_channel()
    with source, destination:
        pass


def test_a_moved_vm_is_known_at_both_hosts(tunnel: Tunnel) -> None:
    progress(tunnel.outgoing)
    carry(tunnel)
    report(tunnel.outgoing, "moved", **{k: v for k, v in MOVED.items()})
    tunnel.assert_done()
    for migration, by in zip(tunnel.ends, ("owner", "peer")):
        found = migration.get_all()
        assert found["Outcome"] == "moved"
        details = {key: value for key, (_, value) in found["Details"].items()}
        assert {key: details[key] for key in MOVED} == {key: value for key, (_, value) in MOVED.items()}
        assert details["told-by"] == by
    assert tunnel.outgoing.get("Progress") == 1.0


def test_the_end_waits_for_the_outcome_of_who_reports(tunnel: Tunnel) -> None:
    progress(tunnel.outgoing)
    carry(tunnel)
    wait_until(lambda: all(c[4] == "closed" for m in tunnel.ends for c in m.get("Channels")), "all is carried")
    for migration in tunnel.ends:
        migration.wait_state("active")  # the counters are a page, and are there before the state's message
    report(tunnel.outgoing, "moved")
    tunnel.assert_done()


def test_without_a_report_it_ends_at_once(tunnel: Tunnel) -> None:
    carry(tunnel)
    tunnel.assert_done()
    assert [m.get("Outcome") for m in tunnel.ends] == ["", ""]
    report(tunnel.outgoing, "moved")  # late, and so known here alone
    assert [m.get("Outcome") for m in tunnel.ends] == ["moved", ""]


def test_a_cancel_through_qemu_is_a_cancel_at_both_hosts(tunnel: Tunnel) -> None:
    """The QEMUs have closed their sockets before the broker hears of the cancel."""
    progress(tunnel.outgoing)
    carry(tunnel)
    report(tunnel.outgoing, "not-moved", reason=("s", "cancelled in pre-copy"))
    tunnel.outgoing.cancel()
    for migration in tunnel.ends:
        found = assert_failed(migration, "cancelled", "Cancelled")
        assert found["Outcome"] == "not-moved"
        assert found["Details"]["reason"] == ("s", "cancelled in pre-copy")
        assert found["Progress"] < 1


def test_a_reporter_that_is_gone_holds_nothing_up_for_long(tunnel: Tunnel) -> None:
    progress(tunnel.outgoing)
    begin = time.monotonic()
    carry(tunnel)
    tunnel.assert_done(timeout=30)
    assert time.monotonic() - begin > 4
    assert tunnel.outgoing.get("Outcome") == ""


def test_progress_is_what_was_reported(tunnel: Tunnel) -> None:
    progress(tunnel.outgoing)
    found = tunnel.outgoing.get_all()
    assert (found["Phase"], found["Progress"]) == ("pre-copy", 0.75)
    assert found["Details"] == {key: value for key, value in PROGRESS.items() if key != "phase"}
    progress(tunnel.outgoing, memory_remaining=("t", 500))
    assert tunnel.outgoing.get("Progress") == 0.75  # never back within a pass
    progress(tunnel.outgoing, memory_remaining=("t", 500), **{"pass": ("u", 3)})
    assert tunnel.outgoing.get("Progress") == 0.5
    progress(tunnel.outgoing, memory_remaining=("t", 0), phase=("s", "finishing"))
    assert tunnel.outgoing.get("Progress") == 0.99
    assert tunnel.incoming.get("Phase") == ""  # each host's owner reports at their own


def test_signals(hosts: Hosts, tunnel: Tunnel) -> None:
    """Once a second, the last word always; the outcome at once."""
    path = tunnel.outgoing.path
    with closing(Signals(hosts.source.bus)) as signals:
        began = time.monotonic()
        for i in range(8):
            progress(tunnel.outgoing, memory_remaining=("t", 900 - i))
            time.sleep(0.26)
        signals.wait(lambda _: 0.107 in [round(p, 3) for p in signals.changes(path, "Progress")], "the last report")
        assert len(signals.changes(path, "Progress")) <= time.monotonic() - began + 2
        report(tunnel.outgoing, "unknown")
        signals.wait(lambda _: signals.changes(path, "Outcome") == ["unknown"], "the outcome")


def wakes(broker: Broker, seconds: float = 3) -> int:
    """How often its loop wakes up in that time."""
    def slept() -> int:
        found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", Path(f"/proc/{broker.pid}/status").read_text(), re.M)
        assert found
        return int(found[1])

    before = slept()
    time.sleep(seconds)
    return slept() - before


def test_many(workdir: Path) -> None:
    """While nothing happens they wake the broker up no more, with a subscriber or without; and then a signal a second."""
    few = 5 + MANY // 50
    with Hosts(workdir, args=(f"--max-migrations={MANY + 8}",)) as hosts:
        tunnels = [hosts.connect(f"vm{i}") for i in range(MANY)]
        assert min(wakes(hosts.source) for _ in range(2)) < few
        with closing(Signals(hosts.source.bus)) as signals:
            began = time.monotonic()
            for i in range(3):
                for tunnel in tunnels:
                    progress(tunnel.outgoing, memory_remaining=("t", 900 - i))
                time.sleep(0.26)
            for tunnel in tunnels:
                signals.wait(lambda _: 0.102 in [round(p, 3) for p in signals.changes(tunnel.outgoing.path, "Progress")],
                             "the last report", 60)
            spent = time.monotonic() - began
            counts = [len(signals.changes(tunnel.outgoing.path, "Progress")) for tunnel in tunnels]
            print(f"{MANY} migrations: at most {max(counts)} signals of one in {spent:.1f} s")
            assert max(counts) <= spent + 2
            assert min(wakes(hosts.source) for _ in range(2)) < few
        for tunnel in tunnels:
            tunnel.outgoing.cancel()
        for tunnel in tunnels:
            for end in (tunnel.outgoing, tunnel.incoming):
                end.wait_finished()


def test_reconnects_are_signalled_and_nothing_comes_before_the_object(hosts: Hosts) -> None:
    with closing(Signals(hosts.source.bus)) as signals:
        tunnel = hosts.connect()
        signals.wait(lambda _: "connected" in signals.changes(tunnel.outgoing.path, "State"), "it is connected")
        members = [s.member for s in signals.seen]
        assert members.index("InterfacesAdded") < members.index("PropertiesChanged")
        signals.wait(lambda _: signals.changes(tunnel.outgoing.path, "Reconnects"), "that is signalled, too")
    cancel_and_wait(tunnel.outgoing)
    tunnel.incoming.wait_finished()


@pytest.mark.parametrize("signature, arguments, words", [
    ("sa{sv}", ("gone", {}), "'moved', 'not-moved', 'lost' or 'unknown'"),
    ("sa{sv}", ("moved", {"downtime": ("t", 1)}), "no key 'downtime'"),
    ("sa{sv}", ("moved", {"reason": ("t", 1)}), "must be of type 's'"),
    ("a{sv}", ({"phase": ("s", "flying")},), "'pre-copy'"),
    ("a{sv}", ({"pass": ("t", 1)},), "must be of type 'u'"),
])
def test_what_is_refused(tunnel: Tunnel, signature: str, arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(BusError) as refused:
        tunnel.outgoing.call("Report" if signature[0] == "s" else "ReportProgress", signature, *arguments)
    assert refused.value.short == "org.freedesktop.DBus.Error.InvalidArgs" and words in str(refused.value)


def test_reports_come_too_often(tunnel: Tunnel) -> None:
    with closing(Client(tunnel.outgoing.broker.bus)) as client:
        serials = [post(client, tunnel.outgoing.path, MIGRATION, "ReportProgress", "a{sv}", PROGRESS) for _ in range(40)]
        errors = [answer(client, serial)[0] for serial in serials]
    assert errors[:8] == [""] * 8 and "org.vmferry.Error.LimitExceeded" in errors[8:], errors


def test_a_long_reason_is_cut_and_cleaned(tunnel: Tunnel) -> None:
    report(tunnel.outgoing, "lost", reason=("s", "é\x1b[31m" + "x" * 1000))
    reason = tunnel.outgoing.get("Details")["reason"][1]
    assert reason.startswith("é?[31mxx") and len(reason.encode()) == 255
    wait_until(lambda: tunnel.incoming.get("Details").get("reason") == ("s", reason), "the peer knows it")


@pytest.mark.parametrize("how", ["restart", "crash"])
def test_a_broker_that_is_started_again_knows_it(managed: Hosts, how: str) -> None:
    tunnel = managed.connect()
    source, destination = tunnel.open_channel()
    with source, destination:
        progress(tunnel.outgoing)
        for broker in managed.brokers:
            getattr(broker, how)()
        assert tunnel.outgoing.get("Progress") == 0.75
        progress(tunnel.outgoing, phase=("s", "finishing"))
        report(tunnel.outgoing, "moved", host=("s", "host2"))
        wait_until(lambda: tunnel.incoming.get("Outcome") == "moved", "the peer knows it")
        for broker in managed.brokers:
            getattr(broker, how)()
        assert [m.get("Outcome") for m in tunnel.ends] == ["moved", "moved"]
    tunnel.assert_done()
    for broker in managed.brokers:
        getattr(broker, how)()
    assert [m.get("Outcome") for m in tunnel.ends] == ["moved", "moved"]


def test_it_is_told_while_the_network_is_away(hosts: Hosts) -> None:
    incoming = hosts.prepare()
    with Proxy(f"tcp:127.0.0.1:{hosts.destination.peer_port()}") as proxy:
        outgoing = hosts.start(incoming, endpoint=("s", proxy.endpoint))
        outgoing.wait_state("connected")
        proxy.cut()
        report(outgoing, "not-moved")
        wait_until(lambda: incoming.get("Outcome") == "not-moved", "the peer knows it")
        cancel_and_wait(outgoing)
        incoming.wait_finished()


def test_what_is_printed_of_it_in_the_log(hosts: Hosts, tunnel: Tunnel) -> None:
    progress(tunnel.outgoing)
    carry(tunnel)
    report(tunnel.outgoing, "moved", **MOVED)
    tunnel.assert_done()
    assert "The VM has moved (told by its owner). It took 1100 ms, and stood still for 6 ms of it." in hosts.source.log()
    assert "The VM has moved (told by the source's owner)." in hosts.destination.log()
    assert "carried: " in hosts.source.log() and "done: " not in hosts.source.log()
