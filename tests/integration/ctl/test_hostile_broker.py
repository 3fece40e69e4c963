# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferryctl and a broker that is hostile, as another host's may be: nothing reaches the terminal, nothing crashes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from vmlib.ctl import FAILED, Running
from vmlib.hostile_broker import ID, TEXT, Variant, assert_clean, hostile, run_at

VERBS = [["list"], ["status"], ["status", ID], ["show"], ["show", ID], ["wait", ID], ["watch", ID], ["metrics"],
         ["receive", "vm"], ["send", "vm"], ["check"], ["cancel", ID], ["cancel", "--force", ID], ["limit", ID, "1M"],
         ["forget", ID], ["wait", TEXT], ["status", "none"]]
JSON = [["list"], ["status"], ["status", ID], ["show", ID], ["wait", ID], ["receive", "vm"], ["check"]]


@pytest.mark.parametrize("state", ["waiting", "finished", "active", TEXT])
def test_texts(workdir: Path, state: str) -> None:
    """All verbs: no control character in what they print, and no line that the broker made."""
    with hostile(workdir, state=state) as broker:
        for verb in VERBS:
            if verb[0] != "watch" or state == "finished":
                run_at(broker, *verb)
        for verb in JSON:
            json.loads(run_at(broker, "-j", *verb).out or "null")
        assert "PWNED" in run_at(broker, "list", "--all").out, "its texts are shown, all the same"


def test_watch(workdir: Path) -> None:
    with hostile(workdir) as broker:
        for words in (["watch", ID], ["-j", "watch", ID]):
            with Running(None, f"--address={broker.bus.address}", *words) as watching:
                stream = watching.process.stdout if "-j" in words else watching.process.stderr
                assert stream
                assert_clean(stream.readline())
                watching.interrupt()
                result = watching.end().fails(FAILED, "Not watched any more")
                assert_clean(result.out + result.err)


def test_a_ticket_is_a_ticket(workdir: Path) -> None:
    """What receive prints alone on standard output, for other programs to read, is that and nothing else."""
    with hostile(workdir) as broker:
        run_at(broker, "receive", "vm").fails(FAILED, "no", "ticket")
        for ticket in ("", "hello", "vmferry1:AAAA\nx", "vmferry1:" + "A" * 5000, "vmferry1:A A"):
            broker.ticket = ticket
            assert run_at(broker, "receive", "vm").fails(FAILED, "ticket").out == ""
        broker.ticket = "vmferry1:AbC-_9"
        assert run_at(broker, "receive", "vm").succeeds().out == "vmferry1:AbC-_9\n"


def test_metrics_are_openmetrics(workdir: Path) -> None:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    names = [TEXT, "\n# EOF\n", 'a"} 1\nvmferry_evil 1', "\\", "\\n", "a\\\"b", "{}", "", "日本", " "]
    for state in ("waiting", "finished"):
        with hostile(workdir, state=state) as broker:
            for name in names:
                broker.migration["Vm"] = ("s", name)
                broker.rows = lambda: [broker.row("incoming")]  # type: ignore[method-assign]
                text = run_at(broker, "metrics", "--openmetrics").succeeds().out
                families = {family.name: family for family in text_string_to_metric_families(text)}
                assert "vmferry_evil" not in families
                (sample,) = families["vmferry_migration_rate_bytes"].samples
                assert sample.labels["id"] == ID
                printable = re.sub("[\x00-\x1f\x7f\x9b\u200f-\u202e\u2066]", "", name)
                assert sample.labels["vm"].replace("?", "") == printable


WRONG: list[Variant] = [
    ("s", "text"), ("u", 7), ("d", 1e300), ("d", -1e300), ("d", float("nan")), ("d", float("inf")), ("d", -5.0),
    ("as", ["x", "y"]), ("a(sutts)", []), ("a{ss}", {}), ("a{sv}", {"x": ("v", ("s", "y"))}), ("ai", [-1, 1]),
    ("t", 2**64 - 1), ("x", -2**63), ("b", True), ("y", 255), ("o", "/x"), ("g", "a{sv}"), ("(ss)", ("a", "b")),
    ("aas", [["x"], []]), ("a(sutts)", [("a", 1, 2**64 - 1, 2**64 - 1, "b")] * 3), ("v", ("v", ("s", "x"))),
]


def kinds(value: Variant) -> str:
    return f"{value[0]}-{str(value[1])[:12]}"


@pytest.mark.parametrize("value", WRONG, ids=kinds)
def test_types(workdir: Path, value: Variant) -> None:
    """Each property is of a type, or has a value, that is not the contract's."""
    with hostile(workdir, "x", "finished") as broker:
        good: dict[str, Any] = dict(broker.migration)
        everything = [["status", ID], ["show", ID], ["watch", ID], ["metrics"], ["wait", ID], ["-j", "status", ID]]
        broker.migration = {key: value for key in good}
        broker.broker = {key: value for key in broker.broker}
        for verb in [*everything[:2], ["metrics"], ["status"], ["show"], ["check"], ["-j", "show"], ["wait", "-j", ID]]:
            run_at(broker, *verb)
        for key in good:
            broker.migration = {**good, key: value}
            if key in ("Channels", "Sockets", "Progress", "BytesSent", "StartedUsec", "Vm"):
                for verb in everything:
                    run_at(broker, *verb)


@pytest.mark.parametrize("signature", ["s", "a{sv}", "a{uv}", "as", "", "v", "a{ss}", "u"])
def test_answers_of_another_type(workdir: Path, signature: str) -> None:
    """Replies that are not those of the methods."""
    from jeepney import new_method_return

    bodies: dict[str, tuple[Any, ...]] = {"s": ("x",), "a{sv}": ({},), "a{uv}": ({1: ("s", "x")},), "as": (["x"],),
                                          "": (), "v": (("s", "x"),), "a{ss}": ({"State": "finished"},), "u": (7,)}
    with hostile(workdir) as broker:
        whole = broker.answer
        for only in ("ListMigrations", "GetAll", "PrepareIncoming", "StartOutgoing", "Wait"):
            broker.answer = (  # type: ignore[method-assign]
                lambda message, member, only=only: new_method_return(message, signature, bodies[signature])
                if member == only else whole(message, member))
            for verb in VERBS:
                if verb[0] != "watch":
                    run_at(broker, *verb)
