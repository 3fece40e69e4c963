# SPDX-License-Identifier: LGPL-2.1-or-later
"""Channels beside the first one have threads of their own in the helper; VMFERRY_ROUNDS: more cuts."""

from __future__ import annotations

import os
import random
import threading
import time
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path

import pytest
from vmlib.broker import build_dir
from vmlib.fake_qemu import FakeQemu
from vmlib.faulty import FaultyProxy
from vmlib.hosts import Hosts, Tunnel, relay_of

SECURITIES = pytest.mark.parametrize("security", ["tls", "plain"])
ROUNDS = int(os.environ.get("VMFERRY_ROUNDS", "4"))
SIZE = 24 << 20
MILLISECOND = 1_000_000  # ns
OF_SANITIZER = "tsan" in build_dir().name  # ThreadSanitizer has a thread of its own


def run_times(helper: int) -> list[int]:
    """Of each of its threads, the first one first: ns on a processor (proc_pid_schedstat)."""
    tasks = sorted(Path(f"/proc/{helper}/task").iterdir(), key=lambda task: (task.name != str(helper), int(task.name)))
    return [int((task / "schedstat").read_text().split()[0]) for task in tasks]


def carry(pairs: list[tuple[FakeQemu, FakeQemu]], size: int) -> list["Future[None]"]:
    """Through all channels at once, in both directions; the readers compare every byte."""
    sent = []
    for i, (source, destination) in enumerate(pairs):
        sent += [source.send_pattern(i, size, shut=True), destination.send_pattern(100 + i, size // 16, shut=True)]
    return sent


def check(pairs: list[tuple[FakeQemu, FakeQemu]], size: int) -> None:
    for i, (source, destination) in enumerate(pairs):
        assert destination.recv_pattern_until_eof(i) == size
        assert source.recv_pattern_until_eof(100 + i) == size // 16


def feed(source: FakeQemu, data: bytes) -> None:
    source.send(data)
    source.shut_wr()


def open_channels(tunnel: Tunnel, n: int, stack: ExitStack) -> list[tuple[FakeQemu, FakeQemu]]:
    pairs = [tunnel.open_channel() for _ in range(n)]
    for pair in pairs:
        for end in pair:
            stack.enter_context(end)
    return pairs


@SECURITIES
def test_channels_have_threads(hosts: Hosts, security: str) -> None:
    """The first channel is the first thread's; those beside it are others'."""
    b, incoming = relay_of(hosts.destination, lambda: hosts.prepare(security=security))
    a, outgoing = relay_of(hosts.source, lambda: hosts.start(incoming))
    tunnel = Tunnel(outgoing, incoming)
    for migration in tunnel.ends:
        migration.wait_state("connected")
    processors = min(8, len(os.sched_getaffinity(0)))
    with ExitStack() as stack:
        first, *others, last = open_channels(tunnel, 4, stack)
        before = {helper: run_times(helper) for helper in (a, b)}
        assert [len(times) for times in before.values()] == [1 + processors + OF_SANITIZER] * 2
        sent = carry([first], SIZE)
        check([first], SIZE)
        for helper in (a, b):
            idle = zip(before[helper][1:], run_times(helper)[1:])
            assert all(now - then < MILLISECOND for then, now in idle), "a worker worked for the first channel"
        sent += carry(others, SIZE)
        check(others, SIZE)
        for helper in (a, b):
            spent = [now - then for then, now in zip(before[helper], run_times(helper))]
            assert sum(ns > MILLISECOND for ns in spent[1:]) == min(2, processors), spent
        sent += carry([last], 16)  # until now the migration was not to end
        check([last], 16)
        for future in sent:
            future.result(10)
    tunnel.assert_done()


@SECURITIES
def test_one_that_stands_still(hosts: Hosts, security: str) -> None:
    """Nobody reads one channel; those before and after it, on its thread too, go on to their ends."""
    tunnel = hosts.connect(security=security)
    with ExitStack() as stack:
        pairs = open_channels(tunnel, 10, stack)
        stuck = pairs.pop(4)
        filling = stuck[0].send_pattern(50, SIZE, shut=True)
        sent = carry(pairs, 1 << 20)
        check(pairs, 1 << 20)
        assert not filling.done()
        back = stuck[1].send_pattern(51, 1000, shut=True)
        assert stuck[1].recv_pattern_until_eof(50) == SIZE
        assert stuck[0].recv_pattern_until_eof(51) == 1000
        for future in [*sent, filling, back]:
            future.result(10)
    tunnel.assert_done()


@SECURITIES
def test_cuts(hosts: Hosts, security: str) -> None:
    """Six channels in full flow both ways, while all connections are reset again and again: every byte, once."""
    rng = random.Random(11)
    incoming = hosts.prepare(security=security)
    with FaultyProxy(("127.0.0.1", hosts.destination.peer_port())) as proxy, ExitStack() as stack:
        outgoing = hosts.start(incoming, endpoint=("s", proxy.endpoint))
        tunnel = Tunnel(outgoing, incoming)
        pairs = open_channels(tunnel, 6, stack)
        outgoing.set_limit(SIZE * 2)  # else it is over before the first cut
        sent = carry(pairs, SIZE)
        for i in range(ROUNDS):
            time.sleep(rng.uniform(0.05, 0.4))
            proxy.reset()
            if i == ROUNDS // 2:
                outgoing.set_limit(0)
        check(pairs, SIZE)
        for future in sent:
            future.result(30)
        reconnects = outgoing.get("Reconnects")
        assert tunnel.assert_done(40) == (6 * SIZE + 6, 6 * (SIZE // 16))
    assert reconnects >= 1


@SECURITIES
def test_ends_all_at_once(hosts: Hosts, security: str) -> None:
    """The destination closed first, so the last acknowledgement and the end come together, to threads that are busy."""
    tunnel = hosts.connect(security=security)
    data = random.Random(5).randbytes(150_000)
    with ExitStack() as stack:
        first = open_channels(tunnel, 1, stack)[0]
        for _ in range(10 * ROUNDS):
            with ExitStack() as round_stack:
                pairs = open_channels(tunnel, 8, round_stack)
                for source, destination in pairs:
                    destination.shut_wr()
                    assert source.recv_until_eof() == b""
                feeders = [threading.Thread(target=feed, args=(source, data), daemon=True) for source, _ in pairs]
                for feeder in feeders:
                    feeder.start()
                for _, destination in pairs:
                    assert destination.recv_until_eof() == data
                for feeder in feeders:
                    feeder.join(10)
        assert tunnel.outgoing.get("State") == "active", tunnel.outgoing.get("ErrorMessage")
        sent = carry([first], 16)
        check([first], 16)
        for future in sent:
            future.result(10)
    tunnel.assert_done()


@SECURITIES
def test_cancel_under_load(hosts: Hosts, security: str) -> None:
    """What a thread has in hand does not open a channel again whose migration is over."""
    for i in range(ROUNDS):
        tunnel = hosts.connect(f"vm{i}", security)
        with ExitStack() as stack:
            pairs = open_channels(tunnel, 5, stack)
            sent = [source.send_pattern(1, 1 << 30) for source, _ in pairs]
            for _, destination in pairs:
                destination.recv_pattern(1, 1 << 20)
            tunnel.outgoing.call("Cancel")
            for migration in tunnel.ends:
                migration.wait_finished()
            for _ in range(10):
                for migration in tunnel.ends:
                    assert {channel[4] for channel in migration.get("Channels")} == {"lost"}
            for future in sent:
                assert isinstance(future.exception(10), OSError)
