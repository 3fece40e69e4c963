# SPDX-License-Identifier: LGPL-2.1-or-later
"""The figures as Markdown: a table a section, with whose names docs/performance.md marks where each goes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import targets

Rows = list[dict[str, Any]]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def cell(row: dict[str, Any], key: str, digits: int = 2) -> str:
    """The median, and the quartiles."""
    if key not in row:
        return "–"
    return "{median:.{d}f} ({q1:.{d}f}–{q3:.{d}f})".format(d=digits, **row[key])


def bold(row: dict[str, Any]) -> str:
    return row["name"] if row.get("peer", not row["name"].startswith("vmferry")) else f"**{row['name']}**"


def ratio(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:.2f} ×" if row.get(key) is not None else "–"


def stream(rows: Rows) -> str:
    return table(["tunnel", "kind", "GiB/s", "to the fastest peer", "CPU-s/GiB", "to the thriftiest peer", "note"],
                 [[bold(row), row["kind"], cell(row, "gib_per_s"), ratio(row, "rate_ratio"), cell(row, "cpu_s_per_gib"),
                   ratio(row, "cpu_ratio"), row["note"]] for row in rows])


def pages(rows: Rows) -> str:
    return table(["tunnel", "kind", "idle: p50, µs", "p99, µs", "beside a stream: p50, µs", "p99, µs"],
                 [[bold(row), row["kind"], *(cell(row, f"{state}_{which}_us", 0) for state in ("idle", "busy")
                                             for which in ("p50", "p99"))] for row in rows])


def qemu(rows: Rows) -> str:
    def fault(row: dict[str, Any] | None, which: str) -> str:
        return f"{row[f'fault_{which}_us'] / 1000:.2f}" if row and f"fault_{which}_us" in row else "–"

    lines = []
    for name in dict.fromkeys(row["name"] for row in rows):
        pre, post = (targets.row_of(rows, name, mode) for mode in ("precopy", "postcopy"))
        any_row = pre or post
        assert any_row
        lines.append([bold(any_row), any_row["kind"], *(cell(row or {}, key, 0) for row in (pre, post)
                                                        for key in ("total_ms", "downtime_ms")),
                      fault(post, "p50"), fault(post, "p99"), str(post.get("faults", "–")) if post else "–",
                      cell(post or {}, "stall_ms", 0)])
    return table(["tunnel", "kind", "pre-copy: total, ms", "downtime, ms", "post-copy: total, ms", "downtime, ms",
                  "fault p50, ms", "fault p99, ms", "faults", "all faults of a migration, ms"], lines)


def start(rows: Rows) -> str:
    return table(["security", "the pair's first migration, ms", "those that follow, ms", "20 at once, the first time, ms",
                  "those that follow, ms"],
                 [[row["security"], f"{row['first_ms']:.1f}",
                   *(cell(row, key, 1) for key in ("warm_ms", "at_once_cold_ms", "at_once_ms"))] for row in rows])


def distance(rows: Rows) -> str:
    trips = sorted({row["trip_ms"] for row in rows})
    names = list(dict.fromkeys(row["name"] for row in rows))

    def at(name: str, trip: float) -> str:
        row = next((row for row in rows if (row["name"], row["trip_ms"]) == (name, trip)), None)
        if not row:
            return "–"
        return f"{row['gib_per_s']['median']:.2f}" if name == "direct-tcp" else f"{row['to_direct']['median']:.2f} ×"

    return table(["tunnel", *(f"{trip:g} ms" for trip in trips)],
                 [[f"{name}, GiB/s" if name == "direct-tcp" else f"**{name}**", *(at(name, trip) for trip in trips)]
                  for name in names])


def memory(rows: Rows) -> str:
    return table(["security", "one idle channel, MiB", "after a stream, MiB", "all buffers full, MiB"],
                 [[row["security"], *(f"{row[f'{key}_mib']:.2f}" for key in ("idle", "after", "full"))] for row in rows])


def many(rows: Rows) -> str:
    def latency(row: dict[str, Any], phase: str) -> list[str]:
        return [f"{row[phase][call]['p50_ms']:.1f} / {row[phase][call]['p99_ms']:.1f}" if call in row[phase] else "–"
                for call in ("Get", "GetAll")]

    return table(["migrations", "errors", "connected after, s", "PSS of all helpers, MiB", "of both brokers, MiB",
                  "while they are set up: Get p50 / p99, ms", "GetAll", "while they run: Get p50 / p99, ms", "GetAll"],
                 [[str(row["migrations"]), str(len(row["errors"])), f"{row['setup_s']:.1f}",
                   f"{row['helpers_pss_mib']:.0f}", f"{row['brokers_pss_mib']:.1f}", *latency(row, "setup"),
                   *latency(row, "running")] for row in rows])


def scaling(rows: Rows) -> str:
    return table(["tunnel", "cores", "channels", "GiB/s", "CPU-s/GiB"],
                 [[bold(row), str(row["cores"]), str(row["channels"]), cell(row, "gib_per_s"),
                   cell(row, "cpu_s_per_gib")] for row in rows])


def conditions(found: dict[str, Any]) -> str:
    return ("{rounds} rounds of {gib:g} GiB, interleaved; medians, and quartiles in brackets. TCP with {congestion} over a "
            "veth between two network namespaces (the machine's own: {system_congestion}). {cpu}, {cpus} CPUs, Linux "
            "{kernel}, QEMU {qemu} (TCG). vmferry {version}, with resuming on; {seconds:.0f} s in all.").format(**found)


def verdicts(sections: dict[str, Rows]) -> str:
    return table(["target", "", "figures"],
                 [[found.name, found.word if found.met else f"**{found.word}**", found.text]
                  for found in targets.check(sections)])


TABLES: dict[str, tuple[str, Callable[[Rows], str]]] = {
    "stream": ("A stream", stream),
    "pages": ("A page request", pages),
    "qemu": ("Real QEMU", qemu),
    "distance": ("Distance: throughput over round trips, to direct TCP", distance),
    "start": ("Start: StartOutgoing until the first byte", start),
    "memory": ("Memory of a helper (PSS)", memory),
    "many": ("Very many migrations at once", many),
    "scaling": ("Channels and cores", scaling),
    "system": ("A stream, with the machine's own congestion control", stream),
}

PLOTTED = {"stream": "Throughput and CPU", "pages": "Round trip of a page request", "qemu": "Total time with real QEMU",
           "scaling": "Throughput over channels and cores"}


def markdown(data: dict[str, Any], plots: str = "") -> dict[str, str]:
    """By marker: what goes there. The plots are in that directory beside it."""
    made = {"conditions": conditions(data["conditions"])}
    if targets.check(data["sections"]):
        made["targets"] = verdicts(data["sections"])
    for name, rows in data["sections"].items():
        if rows:
            made[name] = TABLES[name][1](rows)
            if name in PLOTTED:
                made[name] += f"\n\n![{PLOTTED[name]}]({plots}{name}.png)"
    return made


def whole(data: dict[str, Any]) -> str:
    """One document of its own."""
    made = markdown(data)
    parts = ["# vmferry beside its peers", made["conditions"]]
    for name, (title, _) in TABLES.items():
        if name in made:
            parts += [f"## {title}", made[name]]
    if "targets" in made:
        parts += ["## Targets", made["targets"]]
    if data["failures"]:
        parts += ["## What failed", table(["section", "tunnel", "error"],
                                          [[one["section"], one["tunnel"], one["error"].replace("|", "\\|")]
                                           for one in data["failures"]])]
    return "\n\n".join(parts) + "\n"


MARKER = re.compile(r"(<!-- bench:(\w+) -->\n)(.*?)(<!-- /bench -->)", re.S)


def update(document: Path, data: dict[str, Any]) -> None:
    """Fills what is between the document's markers; a section that was not measured stays as it was."""
    made = markdown(data, f"{document.stem}/")
    if set(data["sections"]) != set(TABLES):
        for name in ("targets", "conditions"):  # they are of a whole run
            made.pop(name, None)

    def fill(match: re.Match[str]) -> str:
        begin, name, old, end = match.groups()
        return begin + (f"{made[name]}\n" if name in made else old) + end

    document.write_text(MARKER.sub(fill, document.read_text(encoding="utf-8")), encoding="utf-8")
