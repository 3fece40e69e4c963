# SPDX-License-Identifier: LGPL-2.1-or-later
"""Throughput and CPU: a stream as QEMU writes it, from the first byte written to the end read.

CPU is what the kernel charged to the tunnel's processes, both ends, from just before the transfer to just after it; the
pump's own is not in it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from lab import GIB, BenchError, Lab, cpu_seconds, end_process, reply_lines, spread
from run import Run
from tunnels import Spec, Tunnel

VERIFY_MIB = 16


@contextlib.contextmanager
def pumped(lab: Lab, tunnel: Tunnel, *serve: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The tunnel with a `pump serve` behind it: the source's address and the serving pump."""
    destination = tunnel.destination()
    with contextlib.ExitStack() as stack:
        with lab.inside("b"):
            sink = start_pump(lab, "serve", destination, *serve)
        stack.callback(end_process, sink)
        lab.wait_listener(destination)
        stack.callback(tunnel.stop)
        try:
            yield tunnel.start(destination), sink
        except BenchError as error:
            said = tunnel.log()
            raise BenchError(f"{error}; it said: {said}" if said else str(error)) from error


def start_pump(lab: Lab, *args: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([lab.pump, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


def transfer(lab: Lab, tunnel: Tunnel, mib: int, verify: bool = False, channels: int = 1) -> dict[str, Any]:
    """One transfer over that many channels at once, and what it cost."""
    timeout = 30 + mib / 20  # 20 MiB/s: slower is stuck
    extra = ["--verify"] if verify else []
    with pumped(lab, tunnel, "--connections", str(channels), *extra) as (address, sink):
        before = cpu_seconds(tunnel.pids())
        with lab.inside("a"):
            source = start_pump(lab, "stream", address, "--mib", str(mib), "--channels", str(channels), *extra)
        try:
            sent = reply_lines(source, timeout)
        finally:
            end_process(source)
        received = [line for line in reply_lines(sink, timeout) if line["kind"] == "stream"]
        time.sleep(0.05)  # what the tunnel does after the end is its cost as well
        cpu = cpu_seconds(tunnel.pids()) - before

    def bytes_of(lines: list[dict[str, Any]]) -> list[tuple[int, str]]:
        return sorted((line["bytes"], line["hash"]) for line in lines)

    if bytes_of(sent) != bytes_of(received):
        raise BenchError(f"sent {bytes_of(sent)}, received {bytes_of(received)}")
    total = sum(line["bytes"] for line in sent)
    seconds = (max(line["end_ns"] for line in received) - min(line["start_ns"] for line in sent)) / 1e9
    return {"gib_per_s": total / GIB / seconds, "cpu_s_per_gib": cpu * GIB / total, "note": tunnel.note}


def rows(specs: list[Spec], found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row a tunnel: medians, and what is to be said of its kind's best peer."""
    made = [{"name": spec.name, "kind": spec.kind, "peer": spec.peer, "note": found[spec.name][-1]["note"],
             **{key: spread([one[key] for one in found[spec.name]]) for key in ("gib_per_s", "cpu_s_per_gib")}}
            for spec in specs if found.get(spec.name)]
    for row in made:
        peers = [peer for peer in made if peer["peer"] and peer["kind"] == row["kind"]]
        if row["kind"] not in ("plain", "tls") or not peers:
            continue
        least = min(peer["cpu_s_per_gib"]["median"] for peer in peers)
        row["cpu_ratio"] = row["cpu_s_per_gib"]["median"] / least if least else None
        row["rate_ratio"] = row["gib_per_s"]["median"] / max(peer["gib_per_s"]["median"] for peer in peers)
    return made


def measure(run: Run) -> list[dict[str, Any]]:
    """All tunnels, under the congestion control that the run is fixed to."""
    specs = run.specs("stream")

    def once(spec: Spec, number: int) -> dict[str, Any] | None:
        tunnel = spec.make(run.lab)
        if number == 0:  # warm up, and compare every byte; nothing is counted
            transfer(run.lab, tunnel, VERIFY_MIB, verify=True)
            return None
        return transfer(run.lab, tunnel, run.mib)

    return rows(specs, run.interleave("stream", specs, run.rounds + 1, once, tell))


def measure_system(run: Run) -> list[dict[str, Any]]:
    """The same with the machine's own congestion control; fewer rounds, less volume."""
    specs = run.specs("system")
    fixed = run.lab.congestion
    run.lab.set_congestion("system")
    try:
        found = run.interleave("system", specs, min(run.fewer_rounds, 2),
                               lambda spec, _: transfer(run.lab, spec.make(run.lab), max(run.mib // 4, 1)), tell)
    finally:
        run.lab.set_congestion(fixed)
    return rows(specs, found)


def tell(result: dict[str, Any]) -> str:
    return f"{result['cpu_s_per_gib']:5.2f} CPU-s/GiB {result['gib_per_s']:6.2f} GiB/s"


# --- scaling ---

SCALED = ("direct-tcp", "vmferry-tls", "go-mtls", "vmferry-plain")


def measure_scaling(run: Run) -> list[dict[str, Any]]:
    """Over channels, and over cores: pumps and tunnel together get the first so many of what there is."""
    cpus = sorted(os.sched_getaffinity(0))
    cores = [n for n in (1, 2, 4, 8, 16) if n <= len(cpus)]
    channels = (1, 2) if run.quick else (1, 2, 4)
    specs = [spec for spec in run.specs("scaling") if spec.name in SCALED]
    found: dict[tuple[str, int, int], list[dict[str, Any]]] = {}

    def once(spec: Spec, _: int, n_cores: int, n_channels: int) -> dict[str, Any]:
        os.sched_setaffinity(0, cpus[:n_cores])
        try:
            result = transfer(run.lab, spec.make(run.lab), max(run.mib // 2, 1), channels=n_channels)
        finally:
            os.sched_setaffinity(0, cpus)
        found.setdefault((spec.name, n_cores, n_channels), []).append(result)
        return result

    for n_cores in cores:
        for n_channels in channels:
            run.interleave(f"scaling, {n_cores} cores, {n_channels} channels", specs, min(run.fewer_rounds, 2),
                           lambda spec, number, c=n_cores, k=n_channels: once(spec, number, c, k), tell)
    return [{"name": name, "cores": n_cores, "channels": n_channels,
             **{key: spread([one[key] for one in results]) for key in ("gib_per_s", "cpu_s_per_gib")}}
            for (name, n_cores, n_channels), results in sorted(found.items(), key=lambda item: item[0])]
