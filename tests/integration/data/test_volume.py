# SPDX-License-Identifier: LGPL-2.1-or-later
"""A large stream through a network that is cut again and again, or that is slow and far away.

VMFERRY_LONG=1 makes it 50 GiB with a cut every second. What was measured is shown with `pytest -rP`.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
from vmlib.broker import Broker, Migration, wait_until
from vmlib.faulty import FaultyProxy
from vmlib.network import Network, free_port
from vmlib.pump import Pump, build_pump

pytestmark = pytest.mark.qemu  # on the release build: what the sanitizers add to memory is not ours

LONG = bool(os.environ.get("VMFERRY_LONG"))
MIB = 50 * 1024 if LONG else 256
GROWTH = 1 << 20  # bytes; of a helper's memory, from the first quarter of a long stream to the last
WINDOW = 4 << 20
BESIDE = 2 << 20  # bytes; what a helper takes beside its window for channels, handshakes and records
ENOUGH = 50  # samples in a quarter of the stream, so that each quarter has seen the window full after a cut


def helper_memory(broker: Broker) -> int:
    """What the helpers of a broker hold for themselves (the private part of their memory), in bytes."""
    total = 0
    for pid in broker.helpers():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Private_Dirty:", "Private_Clean:")):
                    total += int(line.split()[1]) * 1024
    return total


def prepare(b: Broker, workdir: Path, security: str) -> Migration:
    return b.prepare(options={"security": ("s", security), "sockets": ("a{ss}", {"migrate": str(workdir / "sink.sock")})})


def start(a: Broker, ticket: str | None, **options: tuple[str, str]) -> Migration:
    assert ticket
    outgoing = a.outgoing(ticket, options=options)
    outgoing.wait_state("connected")
    return outgoing


@pytest.mark.parametrize("security", ["tls", "plain"])
def test_cut_every_second(workdir: Path, security: str) -> None:
    pump = build_pump(workdir)
    with (Network() as network,
          Broker(workdir, "a", netns=network.a) as a,
          Broker(workdir, "b", netns=network.b, listen=f"tcp:{network.address_b}:0") as b,
          Pump(pump, "serve", str(workdir / "sink.sock"), "--verify") as sink):
        incoming = prepare(b, workdir, security)
        outgoing = start(a, incoming.ticket)
        cuts, samples = 0, []
        idle = (helper_memory(a), helper_memory(b))
        began = time.monotonic()
        with Pump(pump, "stream", str(outgoing.socket()), "--mib", str(MIB), "--verify") as source:
            while source.running:
                time.sleep(1 if LONG else 0.3)
                network.kill_connections()
                cuts += 1
                samples.append((helper_memory(a), helper_memory(b)))
                assert time.monotonic() - began < 60 + MIB / 20, f"stuck after {outgoing.get('BytesSent')} bytes"
            sent, received = source.result(10), sink.result(60)
        wait_until(lambda: outgoing.get("Result") != "", "the result", 60)
        assert outgoing.wait() == "done" and incoming.wait() == "done"
        assert (sent["bytes"], sent["hash"]) == (received["bytes"], received["hash"])
        assert outgoing.get("BytesSent") == incoming.get("BytesReceived") == sent["bytes"]
        quarter = len(samples) // 4
        print(f"{security}: {MIB} MiB, {cuts} cuts, {outgoing.get('Reconnects')} reconnects, "
              f"{time.monotonic() - began:.0f} s; private memory {idle[0] >> 10} and {idle[1] >> 10} KiB before, "
              f"at most {max(s[0] for s in samples) >> 10} KiB at the source, {max(s[1] for s in samples) >> 10} KiB at the "
              "destination")
        for end in (0, 1):
            assert max(sample[end] for sample in samples) <= idle[end] + WINDOW + BESIDE
            if quarter >= ENOUGH:
                first, last = samples[:quarter], samples[-quarter:]
                assert max(s[end] for s in last) <= max(s[end] for s in first) + GROWTH
        assert outgoing.get("Reconnects") > 0


def seconds_through(pump: Path, mib: int, address: str, sink: Pump) -> float:
    with Pump(pump, "stream", address, "--mib", str(mib)) as source:
        sent, received = source.result(240), sink.result(60)
    assert sent["bytes"] == received["bytes"]
    return float(received["end_ns"] - sent["start_ns"]) / 1e9


def seconds_by_tcp(pump: Path, mib: int, delay: float, rate: int) -> float:
    """The same over one TCP connection through the same kind of proxy."""
    port = free_port()
    with Pump(pump, "serve", f"tcp:127.0.0.1:{port}") as sink:
        wait_until(lambda: f":{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text(), "the sink's port", 10)
        with FaultyProxy(("127.0.0.1", port), delay=delay, rate=rate) as proxy:
            return seconds_through(pump, mib, proxy.endpoint, sink)


def seconds_by_vmferry(workdir: Path, pump: Path, mib: int, delay: float, rate: int, security: str,
                       window: int) -> float:
    options = (f"--window={window}",)
    with (Broker(workdir, "a", args=options) as a, Broker(workdir, "b", args=options) as b,
          Pump(pump, "serve", str(workdir / "sink.sock")) as sink):
        incoming = prepare(b, workdir, security)
        port = int(b.get("Endpoints")[0].rsplit(":", 1)[1])  # known as soon as somebody is expected
        with FaultyProxy(("127.0.0.1", port), delay=delay, rate=rate) as proxy:
            outgoing = start(a, incoming.ticket, endpoint=("s", proxy.endpoint))
            took = seconds_through(pump, mib, str(outgoing.socket()), sink)
            assert outgoing.wait() == "done" and incoming.wait() == "done"
            assert outgoing.get("Reconnects") == 0  # slow is not lost
            assert outgoing.get("RoundTripUsec") >= delay * 2e6
    return took


@pytest.mark.parametrize("security", ["tls", "plain"])
@pytest.mark.parametrize("rate", [20 << 20, 60 << 20], ids=["20MiB/s", "60MiB/s"])
def test_far_and_slow(workdir: Path, security: str, rate: int) -> None:
    """50 ms each way. Not judged by time, but told: the window is bandwidth × round trip and a little more."""
    delay, mib = 0.05, (rate >> 20) * (20 if LONG else 3)
    pump = build_pump(workdir)
    direct = seconds_by_tcp(pump, mib, delay, rate)
    for window in (4, 16):
        took = seconds_by_vmferry(workdir, pump, mib, delay, rate, security, window)
        print(f"{security}, {rate >> 20} MiB/s, 100 ms round trip, {mib} MiB: TCP {mib / direct:.1f} MiB/s, vmferry with "
              f"--window={window} {mib / took:.1f} MiB/s")
