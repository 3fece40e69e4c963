#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""CPU per GiB and GiB/s of vmferry's tunnels beside their peers, in one run, interleaved.

    sudo tests/bench/bench.py [--gib 2] [--rounds 5] [--only NAME,…] [--json FILE] [--check]

pump.c writes and reads as QEMU does. Each round runs every tunnel once, each time afresh, starting at another
one. CPU is what the kernel charged to the tunnel's processes, both ends, from just before the transfer to
just after it; the pumps' own is not in it. Rate is from the first byte written to the end read at the sink.
Everything is in a network namespace of the run's own, so that TCP's congestion control can be chosen.
"""

import argparse
import contextlib
import ctypes
import fcntl
import importlib.util
import json
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tunnels  # noqa: E402
from tunnels import BenchError, Spec, Tunnel  # noqa: E402

GIB = 1024**3
CLOCK_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
VERIFY_MIB = 32

# Issue 2's rough speed: ours must not need more CPU than this peer, and over TLS must be faster too.
TARGETS = [("vmferry-plain", "socket-proxyd", False), ("vmferry-tls", "socat-openssl", True)]


# --- the run's own network ----------------------------------------------------------------------------------


def enter_network_namespace(congestion: str) -> None:
    CLONE_NEWNET = 0x40000000
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) < 0:
        raise BenchError(f"can't make a network namespace: {os.strerror(ctypes.get_errno())} (run it as root)")

    SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        (flags,) = struct.unpack_from("16xH", fcntl.ioctl(s, SIOCGIFFLAGS, struct.pack("16s16x", b"lo")))
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))

    if congestion != "system":
        try:
            with open("/proc/sys/net/ipv4/tcp_congestion_control", "w", encoding="ascii") as f:
                f.write(congestion)
        except OSError as e:
            raise BenchError(f"congestion control {congestion}: {e.strerror}") from e


def congestion_control() -> str:
    with open("/proc/sys/net/ipv4/tcp_congestion_control", encoding="ascii") as f:
        return f.read().strip()


# --- one transfer -------------------------------------------------------------------------------------------


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes and of the children that they have waited for."""
    total = 0.0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
                # The name, in brackets, may hold anything; utime stime cutime cstime are fields 14 to 17.
                fields = f.read().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # waited for: in its parent's sum from now on
        total += sum(int(ticks) for ticks in fields[11:15]) * CLOCK_TICK_S
    return total


def start_pump(pump: str, *args: str) -> subprocess.Popen:
    return subprocess.Popen([pump, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


def pump_result(pump: subprocess.Popen, timeout_s: float) -> dict:
    try:
        out, _ = pump.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as e:
        raise BenchError(f"no end of the transfer within {timeout_s:.0f} s") from e
    if pump.returncode != 0:
        raise BenchError(f"pump failed with status {pump.returncode}")
    return json.loads(out)


def transfer(spec: Spec, pump: str, mib: int, verify: bool) -> dict:
    timeout_s = 30 + mib / 20  # 20 MiB/s: slower is stuck
    extra = ["--verify"] if verify else []
    tunnel: Tunnel = spec.make()

    with tempfile.TemporaryDirectory(prefix="vmferry-bench-") as workdir, contextlib.ExitStack() as stack:
        dst = os.path.join(workdir, "dst.sock")
        sink = start_pump(pump, "sink", "--listen", dst, *extra)
        stack.callback(tunnels.end_process, sink)
        tunnels.wait_unix_listener(dst)

        stack.callback(tunnel.stop)
        src = tunnel.start(workdir, dst)

        before = cpu_seconds(tunnel.pids())
        source = start_pump(pump, "source", "--connect", src, "--mib", str(mib), *extra)
        stack.callback(tunnels.end_process, source)
        sent = pump_result(source, timeout_s)
        received = pump_result(sink, timeout_s)
        time.sleep(0.05)  # what the tunnel does after the end is its cost as well
        cpu = cpu_seconds(tunnel.pids()) - before

    if (sent["bytes"], sent["hash"]) != (received["bytes"], received["hash"]):
        raise BenchError(f"sent {sent['bytes']} bytes ({sent['hash']}), received {received['bytes']} ({received['hash']})")
    seconds = (received["end_ns"] - sent["start_ns"]) / 1e9
    return {
        "seconds": seconds,
        "gib_per_s": sent["bytes"] / GIB / seconds,
        "cpu_s_per_gib": cpu * GIB / sent["bytes"],
        "note": tunnel.note,
    }


# --- the table ----------------------------------------------------------------------------------------------


def spread(values: list[float]) -> dict:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": values}


def summarize(specs: list[Spec], rounds: dict[str, list[dict]]) -> list[dict]:
    rows = [
        {
            "name": spec.name,
            "kind": spec.kind,
            "peer": spec.peer,
            "note": rounds[spec.name][-1]["note"],
            "cpu_s_per_gib": spread([r["cpu_s_per_gib"] for r in rounds[spec.name]]),
            "gib_per_s": spread([r["gib_per_s"] for r in rounds[spec.name]]),
        }
        for spec in specs
    ]
    for row in rows:
        peers = [peer for peer in rows if peer["peer"] and peer["kind"] == row["kind"]]
        if row["kind"] == "direct" or not peers:
            continue
        least = min(peer["cpu_s_per_gib"]["median"] for peer in peers)
        fastest = max(peer["gib_per_s"]["median"] for peer in peers)
        row["cpu_ratio"] = row["cpu_s_per_gib"]["median"] / least if least else None
        row["rate_ratio"] = row["gib_per_s"]["median"] / fastest
    return rows


def markdown(rows: list[dict]) -> str:
    def cell(values: dict) -> str:
        return f"{values['median']:.2f} ({values['min']:.2f}–{values['max']:.2f})"

    def ratio(row: dict, key: str) -> str:
        return f"{row[key]:.2f} ×" if row.get(key) is not None else "–"

    lines = [
        "| tunnel | kind | CPU-s/GiB, median (min–max) | to best peer | GiB/s, median (min–max) | to best peer | note |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['name']} | {row['kind']} | {cell(row['cpu_s_per_gib'])} | {ratio(row, 'cpu_ratio')} "
        f"| {cell(row['gib_per_s'])} | {ratio(row, 'rate_ratio')} | {row['note']} |"
        for row in rows
    ]
    return "\n".join(lines)


def missed_targets(rows: list[dict]) -> list[str]:
    by_name = {row["name"]: row for row in rows}
    missed = []
    for ours, peer, faster in TARGETS:
        if ours not in by_name or peer not in by_name:
            missed.append(f"{ours} against {peer}: not measured")
            continue
        a, b = by_name[ours], by_name[peer]
        for key, bad in (
            ("cpu_s_per_gib", a["cpu_s_per_gib"]["median"] > b["cpu_s_per_gib"]["median"]),
            ("gib_per_s", faster and a["gib_per_s"]["median"] <= b["gib_per_s"]["median"]),
        ):
            if bad:
                missed.append(f"{ours}: {key} {a[key]['median']:.3f}, {peer}: {b[key]['median']:.3f}")
    return missed


# --- the run ------------------------------------------------------------------------------------------------


def load_ours() -> None:
    """vmferry's own tunnels register themselves; without the file there are only the peers."""
    if importlib.util.find_spec("vmferry_tunnel"):
        importlib.import_module("vmferry_tunnel")


def choose(only: str | None) -> list[Spec]:
    if only is None:
        return [spec for spec in tunnels.REGISTRY.values() if spec.default]
    names = only.split(",")
    unknown = [name for name in names if name not in tunnels.REGISTRY]
    if unknown:
        raise BenchError(f"no tunnel {', '.join(unknown)}; there are {', '.join(tunnels.REGISTRY)}")
    return [tunnels.REGISTRY[name] for name in names]


def compile_pump(directory: str) -> str:
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pump.c")
    pump = os.path.join(directory, "pump")
    subprocess.run(["cc", "-std=c17", "-O2", "-Wall", "-Wextra", "-o", pump, source], check=True)
    return pump


def run(args: argparse.Namespace) -> int:
    specs = choose(args.only)
    enter_network_namespace(args.congestion)
    conditions = {
        "gib": args.gib,
        "rounds": args.rounds,
        "congestion_control": congestion_control(),
        "kernel": os.uname().release,
        "cpus": len(os.sched_getaffinity(0)),
    }

    rounds: dict[str, list[dict]] = {spec.name: [] for spec in specs}
    with tempfile.TemporaryDirectory(prefix="vmferry-bench-") as directory:
        pump = args.pump or compile_pump(directory)
        for number in range(args.rounds + 1):
            for i in range(len(specs)):
                spec = specs[(i + number) % len(specs)]
                verify = number == 0  # and warm up: every byte is compared, nothing is counted
                try:
                    result = transfer(spec, pump, VERIFY_MIB if verify else round(args.gib * 1024), verify)
                except (BenchError, OSError, subprocess.SubprocessError) as e:
                    raise BenchError(f"{spec.name}, round {number}: {e}") from e
                if verify:
                    continue
                rounds[spec.name].append(result)
                print(
                    f"round {number}/{args.rounds}  {spec.name:24} {result['cpu_s_per_gib']:5.2f} CPU-s/GiB "
                    f"{result['gib_per_s']:6.2f} GiB/s",
                    file=sys.stderr,
                )

    rows = summarize(specs, rounds)
    print(
        f"{args.rounds} rounds × {args.gib:g} GiB, TCP {conditions['congestion_control']} on loopback, "
        f"{conditions['cpus']} CPUs, Linux {conditions['kernel']}\n\n{markdown(rows)}"
    )
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump({"conditions": conditions, "tunnels": rows}, f, indent=2)
            f.write("\n")

    missed = missed_targets(rows) if args.check else []
    for line in missed:
        print(f"bench: target missed: {line}", file=sys.stderr)
    return 1 if missed else 0


def main() -> int:
    load_ours()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=2, help="GiB a transfer (default 2)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default 5)")
    parser.add_argument("--only", metavar="NAME,…", help=f"of {', '.join(tunnels.REGISTRY)}")
    parser.add_argument("--congestion", default="reno", help="TCP's congestion control, or “system” (default reno)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--pump", metavar="FILE", help="a pump that is built already (default: compile it)")
    parser.add_argument("--check", action="store_true", help="fail where vmferry misses its targets")
    args = parser.parse_args()
    if args.rounds < 1 or round(args.gib * 1024) < 1:
        parser.error("at least one round, of at least a MiB")

    def ended(number: int, _frame) -> None:
        sys.exit(128 + number)  # an exception, so that all is stopped and removed on the way out

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ended)
    try:
        return run(args)
    except (BenchError, subprocess.CalledProcessError) as e:
        print(f"bench: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
