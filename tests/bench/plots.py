# SPDX-License-Identifier: LGPL-2.1-or-later
"""The figures as PNG, by gnuplot."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]

HEAD = """set terminal pngcairo size {width},{height} font "DejaVu Sans,10"
set output "{path}"
set style fill solid 0.8 border -1
set boxwidth 0.7
set grid ytics
set xtics rotate by -40 nomirror scale 0
set bmargin 9
set rmargin 9
"""
OURS, PEERS = "#1f6f8b", "#c9c9c9"


def block(name: str, lines: list[str]) -> str:
    return f"${name} << END\n" + "\n".join(lines) + "\nEND\n"


def bars(name: str, rows: Rows, key: str) -> str:
    """Index, median, quartiles, colour, name."""
    lines = []
    for i, row in enumerate(rows):
        figure = row[key]
        colour = int((OURS if row["name"].startswith("vmferry") else PEERS)[1:], 16)
        lines.append(f"{i} {figure['median']} {figure['q1']} {figure['q3']} {colour} \"{row['name']}\"")
    return block(name, lines)


def plot_bars(name: str) -> str:
    return (f"plot ${name} using 1:2:5:xtic(6) with boxes lc rgb variable notitle, "
            f"${name} using 1:3:(0):($4-$3) with vectors nohead lw 3 lc rgb 'black' notitle\n")


def stream(rows: Rows) -> tuple[int, int, str]:
    tunnels = [row for row in rows if row["kind"] in ("plain", "tls", "floor")]
    return 1100, 520, (
        bars("rate", rows, "gib_per_s") + bars("cpu", tunnels, "cpu_s_per_gib") + "set multiplot layout 1,2\n"
        "set title 'Throughput, GiB/s (more is better)'\nset yrange [0:*]\n" + plot_bars("rate") +
        "set title 'CPU of both ends, s/GiB (less is better)'\n" + plot_bars("cpu") + "unset multiplot\n")


def pages(rows: Rows) -> tuple[int, int, str]:
    lines = ["\"" + row["name"] + "\" " + " ".join(str(row[f"{state}_{which}_us"]["median"])
                                                   for state in ("idle", "busy") for which in ("p50", "p99"))
             for row in rows]
    titles = ("idle, p50", "idle, p99", "beside a stream, p50", "beside a stream, p99")
    return 1100, 520, block("data", lines) + (
        "set title 'Round trip of a page request, µs (less is better; logarithmic)'\nset logscale y\n"
        "set style data histograms\nset style histogram clustered gap 1\nset boxwidth 0.9\n"
        "set key outside top center horizontal\n"
        "plot " + ", ".join(f"$data using {i + 2}:xtic(1) title '{title}'" for i, title in enumerate(titles)) + "\n")


def qemu(rows: Rows) -> tuple[int, int, str]:
    made = {mode: [row for row in rows if row["mode"] == mode] for mode in ("precopy", "postcopy")}
    made = {mode: some for mode, some in made.items() if some}
    text = "".join(bars(mode, some, "total_ms") for mode, some in made.items())
    text += f"set multiplot layout 1,{len(made)}\nset yrange [0:*]\n"
    for mode in made:
        title = {"precopy": "Pre-copy", "postcopy": "Post-copy"}[mode]
        text += f"set title '{title} of a busy guest: total time, ms (less is better)'\n" + plot_bars(mode)
    return 1100, 520, text + "unset multiplot\n"


def scaling(rows: Rows) -> tuple[int, int, str]:
    places = sorted({(row["cores"], row["channels"]) for row in rows})
    names = list(dict.fromkeys(row["name"] for row in rows))
    found = {(row["name"], row["cores"], row["channels"]): row["gib_per_s"]["median"] for row in rows}
    lines = [f"\"{cores} core{'s' * (cores > 1)}, {channels} ch.\" "
             + " ".join(str(found.get((name, cores, channels), "NaN")) for name in names) for cores, channels in places]
    return 800, 480, block("data", lines) + (
        "set title 'Throughput over cores and channels, GiB/s'\nset yrange [0:*]\nset style data histograms\n"
        "set style histogram clustered gap 1\nset boxwidth 0.9\nset key outside top center horizontal\n"
        "plot " + ", ".join(f"$data using {i + 2}:xtic(1) title '{name}'" for i, name in enumerate(names)) + "\n")


PLOTS: dict[str, Callable[[Rows], tuple[int, int, str]]] = {
    "stream": stream, "pages": pages, "qemu": qemu, "scaling": scaling,
}


def draw(sections: dict[str, Rows], directory: Path) -> list[Path]:
    """A file a section that has figures."""
    made = []
    for name, plot in PLOTS.items():
        if not sections.get(name):
            continue
        path = directory / f"{name}.png"
        width, height, text = plot(sections[name])
        script = HEAD.format(width=width, height=height, path=path) + text
        subprocess.run(["gnuplot"], input=script.encode(), check=True)
        made.append(path)
    return made
