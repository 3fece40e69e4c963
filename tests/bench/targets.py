# SPDX-License-Identifier: LGPL-2.1-or-later
"""What vmferry is to reach beside its peers of the same run, each target by name; medians throughout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Rows = list[dict[str, Any]]

KINDS = ("plain", "tls")
PSS_MIB = {"plain": 3.0, "tls": 6.0}
TOLERANCE = 1.25  # "as direct": and some ms, since QEMU counts whole ones
TOLERANCE_MS = 3


@dataclass(frozen=True)
class Verdict:
    name: str
    met: bool | None  # None: it was not measured
    text: str

    @property
    def word(self) -> str:
        return "not measured" if self.met is None else "met" if self.met else "missed"


def median(row: dict[str, Any], key: str) -> float:
    return float(row[key]["median"])


def row_of(rows: Rows, name: str, mode: str | None = None) -> dict[str, Any] | None:
    return next((row for row in rows if row["name"] == name and row.get("mode") == mode), None)


def peers_of(rows: Rows, kind: str, mode: str | None = None) -> Rows:
    return [row for row in rows if row["peer"] and row["kind"] == kind and row.get("mode") == mode]


def at_least(name: str, ours: float, times: float, theirs: float, of: str, unit: str) -> Verdict:
    return Verdict(name, ours >= times * theirs,
                   f"{ours:.2f} {unit}; at least {times:g} × {of}, {theirs:.2f}: {ratio(ours, theirs)}")


def at_most(name: str, ours: float, times: float, theirs: float, of: str, unit: str) -> Verdict:
    return Verdict(name, ours <= times * theirs,
                   f"{ours:.2f} {unit}; at most {times:g} × {of}, {theirs:.2f}: {ratio(ours, theirs)}")


def ratio(ours: float, theirs: float) -> str:
    return f"{ours / theirs:.2f} ×" if theirs else "–"


def missing(*names: str) -> Iterator[Verdict]:
    for name in names:
        yield Verdict(name, None, "its figures are not there")


def stream(rows: Rows) -> Iterator[Verdict]:
    for kind, rate, cpu in (("plain", 1.0, 1.0), ("tls", 1.5, 0.7)):
        ours, peers = row_of(rows, f"vmferry-{kind}"), peers_of(rows, kind)
        if not ours or not peers:
            yield from missing(f"{kind}-throughput", f"{kind}-cpu", f"{kind}-resuming")
            continue
        fastest = max(peers, key=lambda row: median(row, "gib_per_s"))
        yield at_least(f"{kind}-throughput", median(ours, "gib_per_s"), rate, median(fastest, "gib_per_s"),
                       fastest["name"], "GiB/s")
        least = min(peers, key=lambda row: median(row, "cpu_s_per_gib"))
        yield at_most(f"{kind}-cpu", median(ours, "cpu_s_per_gib"), cpu, median(least, "cpu_s_per_gib"), least["name"],
                      "CPU-s/GiB")
        without = row_of(rows, f"vmferry-{kind}-no-resume")
        if without:
            yield at_most(f"{kind}-resuming", median(ours, "cpu_s_per_gib"), 1.05, median(without, "cpu_s_per_gib"),
                          without["name"], "CPU-s/GiB")
        else:
            yield from missing(f"{kind}-resuming")
    ours, floor = row_of(rows, "vmferry-tls"), row_of(rows, "gnutls-floor")
    if ours and floor:
        yield at_most("tls-floor", median(ours, "cpu_s_per_gib"), 1.3, median(floor, "cpu_s_per_gib"), "gnutls-floor",
                      "CPU-s/GiB")
    else:
        yield from missing("tls-floor")


def pages(rows: Rows) -> Iterator[Verdict]:
    for kind in KINDS:
        ours, peers = row_of(rows, f"vmferry-{kind}"), peers_of(rows, kind)
        if not ours or not peers:
            yield from missing(f"{kind}-page-p50", f"{kind}-page-p99", f"{kind}-page-busy")
            continue
        best = min(peers, key=lambda row: median(row, "idle_p50_us"))
        for which in ("p50", "p99"):
            key = f"idle_{which}_us"
            yield at_most(f"{kind}-page-{which}", median(ours, key), 1.0, median(best, key), best["name"], "µs")
        yield at_most(f"{kind}-page-busy", median(ours, "busy_p99_us"), 3.0, median(ours, "idle_p99_us"),
                      "its own p99 idle", "µs")


def qemu(rows: Rows) -> Iterator[Verdict]:
    for kind in KINDS:
        for mode in ("precopy", "postcopy"):
            ours = row_of(rows, f"vmferry-{kind}", mode)
            peers = [row for row in peers_of(rows, kind, mode) if row["name"] != "qemu-tls"]
            reference, times = ("direct-tcp", 1.5) if kind == "plain" else ("qemu-tls", 1.0)
            other = row_of(rows, reference, mode)
            fastest = min(peers, key=lambda row: median(row, "total_ms"), default=None)
            for name, them in ((f"{kind}-{mode}-peers", fastest), (f"{kind}-{mode}-{reference}", other)):
                if not ours or not them:
                    yield from missing(name)
                    continue
                yield at_most(name, median(ours, "total_ms"), 1.0 if them is not other else times,
                              median(them, "total_ms"), them["name"], "ms in all")
        ours, direct = row_of(rows, f"vmferry-{kind}", "postcopy"), row_of(rows, "direct-tcp", "postcopy")
        if not ours or not direct:
            yield from missing(f"{kind}-postcopy-downtime")
            continue
        a, b = median(ours, "downtime_ms"), median(direct, "downtime_ms")
        yield Verdict(f"{kind}-postcopy-downtime", a <= TOLERANCE * b + TOLERANCE_MS,
                      f"{a:.0f} ms; as direct-tcp, {b:.0f} ms (at most {TOLERANCE:g} × and {TOLERANCE_MS} ms)")


def start(rows: Rows) -> Iterator[Verdict]:
    for kind in KINDS:
        ours = next((row for row in rows if row["security"] == kind), None)
        if ours:
            for name, key, most in (("start", "warm_ms", 5), ("start-at-once", "at_once_ms", 100)):
                took = median(ours, key)
                yield Verdict(f"{kind}-{name}", took <= most, f"{took:.1f} ms; at most {most} ms")
        else:
            yield from missing(f"{kind}-start", f"{kind}-start-at-once")


def memory(rows: Rows) -> Iterator[Verdict]:
    for kind, most in PSS_MIB.items():
        ours = next((row for row in rows if row["security"] == kind), None)
        if ours:
            yield Verdict(f"{kind}-memory", ours["idle_mib"] <= most, f"{ours['idle_mib']:.2f} MiB; at most {most:g} MiB")
        else:
            yield from missing(f"{kind}-memory")


def many(rows: Rows) -> Iterator[Verdict]:
    if not rows or "Get" not in rows[0].get("running", {}):
        yield from missing("many-set-up", "many-get")
        return
    row = rows[0]
    yield Verdict("many-set-up", not row["errors"] and row["migrations"] >= 1000,
                  f"{row['migrations']} migrations, {len(row['errors'])} errors; 1000 and none")
    p99 = row["running"]["Get"]["p99_ms"]
    yield Verdict("many-get", p99 <= 10, f"Get p99 {p99:.1f} ms while they run; at most 10 ms")


SECTIONS: dict[str, Callable[[Rows], Iterator[Verdict]]] = {
    "stream": stream, "pages": pages, "qemu": qemu, "start": start, "memory": memory, "many": many,
}


def check(sections: dict[str, Rows]) -> list[Verdict]:
    """Of every target of these sections, whether it could be measured or not."""
    return [verdict for name, of in SECTIONS.items() if name in sections for verdict in of(sections[name])]
