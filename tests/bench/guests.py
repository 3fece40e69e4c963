# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real QEMUs (TCG): total time and downtime of a pre-copy and of a post-copy, and how long the guest waits for a page.

Pre-copy: a guest that never stops writing to a small part of its memory; the rest is full and still. Post-copy: one that
sweeps all of its memory, and goes over when the first MiB is there. The destination QEMU's own trace says when a fault
was taken and when its page was placed.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

from lab import BenchError, Lab, percentile, spread, wait_until
from run import Run
from tunnels import DirectTcp, Spec, register
from vmlib import guest
from vmlib.migration import NEVER_CONVERGE, downtime_of
from vmlib.qemu import Qemu, postcopy_available

MODES = ("precopy", "postcopy")
STILL_AT_MIB = 64  # where the still memory begins: above what the guest sweeps in a pre-copy
SWEPT_MIB = 16  # in a pre-copy
DOWNTIME_LIMIT_MS = 300  # QEMU's default
UNLIMITED = 10 << 30  # bytes/s: as fast as it goes
PLACED = re.compile(r"@([\d.]+):(postcopy_ram_fault_thread_request|postcopy_place_page)\D*(?:host=|HVA=|)0x([0-9a-f]+)")


class QemuTls(DirectTcp):
    """No tunnel: QEMU's own TLS, with certificates, over TCP."""


register(Spec("qemu-tls", "tls", QemuTls, sections=frozenset({"qemu"})))


def still_memory(lab: Lab, ram: int, still: int) -> list[str]:
    """The options of a QEMU whose memory is filled there with pages that differ. What the guest writes is its own."""
    path = lab.workdir / f"still-{ram}-{still}"
    if not path.exists():
        with open(path, "wb") as file:
            file.truncate(ram << 20)
            file.seek(STILL_AT_MIB << 20)
            for _ in range(still):
                file.write(os.urandom(1 << 20))
            file.flush()
            os.fsync(file.fileno())  # now, and not while something is measured
    # By the name that a QEMU without it gives to its memory.
    return ["-object", f"memory-backend-file,id=pc.ram,size={ram}M,mem-path={path},share=off",
            "-machine", "memory-backend=pc.ram"]


def tls(lab: Lab, host: str, endpoint: str) -> list[str]:
    return ["-object", f"tls-creds-x509,id=tls,dir={lab.tls.qemu(host)},endpoint={endpoint},verify-peer=on"]


def uri(address: str) -> str:
    return address if address.startswith("tcp:") else f"unix:{address}"


def migrate(run: Run, spec: Spec, mode: str) -> dict[str, Any]:
    """One migration of a fresh guest."""
    lab = run.lab
    tunnel = spec.make(lab)
    secure = isinstance(tunnel, QemuTls)
    precopy = mode == "precopy"
    swept, still = (SWEPT_MIB, run.still_mib) if precopy else (run.swept_mib, 0)
    ram = guest.vm_mib(STILL_AT_MIB + still if precopy else swept)
    image = guest.build_guest(tunnel.directory, swept)
    trace = tunnel.directory / "trace"

    at_source = tls(lab, "a", "client") if secure else []
    at_destination = tls(lab, "b", "server") if secure else []
    if still:
        at_source += still_memory(lab, ram, still)
    if not precopy:
        at_destination += ["-msg", "timestamp=on", "-D", str(trace), "-trace", "postcopy_ram_fault_thread_request",
                           "-trace", "postcopy_place_page"]

    with contextlib.ExitStack() as stack:
        with lab.inside("a"):
            source = stack.enter_context(Qemu(tunnel.directory, image, ram, "a", extra=at_source))
        with lab.inside("b"):
            target = stack.enter_context(Qemu(tunnel.directory, image, ram, "b", incoming="defer",
                                              extra=at_destination))
        for qemu in (source, target):
            qemu.set_capabilities({"events": True, "postcopy-ram": not precopy})
            if secure:
                qemu.set_parameters({"tls-creds": "tls"})
        source.set_parameters({**NEVER_CONVERGE, "max-bandwidth": UNLIMITED,
                               **({"downtime-limit": DOWNTIME_LIMIT_MS} if precopy else {})})
        source.wait_sweeps(2)

        destination = tunnel.destination()
        target.listen(uri(destination))
        stack.callback(tunnel.stop)
        address = tunnel.start(destination)
        source.migrate(uri(address))
        if not precopy:
            source.wait_until(lambda: int(source.query_migrate().get("ram", {}).get("transferred", 0)) > 1 << 20,
                              "the first MiB", 60)
            source.start_postcopy()
        source.wait_migration({"completed"}, 120)
        # QEMU says so a moment before it has worked out how long it took.
        info = wait_until(lambda: (now := source.query_migrate()).get("total-time") and now, "the migration's figures")
        target.wait_migration({"completed"}, 30)
        target.wait_sweeps(1)
        guest.assert_unharmed(source.serial() + target.serial())
    return {"total_ms": info["total-time"], "downtime_ms": downtime_of(info),
            "mib": info["ram"]["transferred"] / (1 << 20), "faults_us": [] if precopy else faults(trace)}


def faults(trace: Path) -> list[float]:
    """How long each page that was asked for took to be placed."""
    asked: dict[int, float] = {}
    took = []
    for when, what, where in PLACED.findall(trace.read_text(errors="replace")):
        page = int(where, 16) & ~0xFFF
        if what == "postcopy_ram_fault_thread_request":
            asked.setdefault(page, float(when))
        elif page in asked:
            took.append((float(when) - asked.pop(page)) * 1e6)
    return took


def measure(run: Run) -> list[dict[str, Any]]:
    specs = run.specs("qemu")
    rows = []
    for mode in MODES:
        if mode == "postcopy" and not postcopy_available():
            run.fail("qemu", mode, BenchError("kernel: userfaultfd is not allowed here"))
            continue

        def once(spec: Spec, _: int, mode: str = mode) -> dict[str, Any]:
            return migrate(run, spec, mode)

        rounds = run.more_rounds if mode == "precopy" else run.rounds
        found = run.interleave(f"qemu {mode}", specs, rounds, once, tell)
        for spec in specs:
            if not found[spec.name]:
                continue
            row: dict[str, Any] = {"name": spec.name, "kind": spec.kind, "peer": spec.peer, "mode": mode}
            for key in ("total_ms", "downtime_ms", "mib"):
                row[key] = spread([one[key] for one in found[spec.name]])
            every = [took for one in found[spec.name] for took in one["faults_us"]]
            if every:
                row["faults"] = len(every)
                row["stall_ms"] = spread([sum(one["faults_us"]) / 1e3 for one in found[spec.name]])
                row["fault_p50_us"], row["fault_p99_us"] = percentile(every, 50), percentile(every, 99)
            rows.append(row)
    return rows


def tell(result: dict[str, Any]) -> str:
    text = f"total {result['total_ms']:5} ms, downtime {result['downtime_ms']:4} ms, {result['mib']:.0f} MiB"
    every = result["faults_us"]
    return text + (f", {len(every)} faults, p50 {percentile(every, 50):.0f} µs" if every else "")
