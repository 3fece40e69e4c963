# SPDX-License-Identifier: LGPL-2.1-or-later
"""Migrations of every kind beside each other, for a while, under all that can go wrong at once: a network that resets,
swallows and mends, brokers that are killed and restarted, helpers that are killed, callers that cancel.

Only with $VMFERRY_LONG, for an hour or $VMFERRY_SECONDS. $VMFERRY_SEED is where its choices come from.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from vmlib.broker import BusError, Client, Migration
from vmlib.fake_qemu import FakeQemu, pattern
from vmlib.faulty import FaultyProxy
from vmlib.lives import SEC, Life, Own
from vmlib.managed import ManagedBroker
from vmlib.network import free_port
from vmlib.restarts import brokers, close

SECONDS = int(os.environ.get("VMFERRY_SECONDS", "3600"))
SEED = int(os.environ.get("VMFERRY_SEED", "0")) or int(time.time())
AT_ONCE = 8
SILENCE = 2.0  # seconds at most; shorter than the time-out for resuming by far
INTERFACE = "org.vmferry.Migration1"


class Storm:
    """What goes wrong meanwhile. `calm` is held by who makes a connection that nothing could take the place of."""

    def __init__(self, pair: Own, proxy: FaultyProxy, rng: random.Random) -> None:
        self.pair, self.proxy, self.rng = pair, proxy, rng
        self.calm = threading.Lock()
        self.over = threading.Event()
        self.deeds: Counter[str] = Counter()

    def run(self) -> None:
        deeds = [(6, self.reset), (4, self.silence), (3, self.kill_broker), (1, self.restart_broker),
                 (1, self.kill_helper)]
        while not self.over.wait(self.rng.uniform(0, 1)):
            deed = self.rng.choices([deed for _, deed in deeds], [weight for weight, _ in deeds])[0]
            deed()
            self.deeds[deed.__name__] += 1

    def reset(self) -> None:
        with self.calm:
            self.proxy.reset()

    def silence(self) -> None:
        with self.calm:
            self.proxy.silence(*self.rng.choice([(True, True), (True, False), (False, True)]))
            self.over.wait(self.rng.uniform(0, SILENCE))
            self.proxy.mend()

    def kill_broker(self) -> None:
        self.rng.choice(brokers(self.pair)).crash()

    def restart_broker(self) -> None:
        self.rng.choice(brokers(self.pair)).restart()

    def kill_helper(self) -> None:
        """Any of them, the gate as well; the migration of which it is may fail, and no other one."""
        with self.calm:
            helpers = self.rng.choice(brokers(self.pair)).helpers()
            if helpers:
                with suppress(ProcessLookupError):
                    os.kill(self.rng.choice(helpers), signal.SIGKILL)


class Voyage(Life):
    """One migration: 1 to 4 connections, up to 2 MiB each way, and perhaps a caller who cancels it."""

    def __init__(self, pair: Own, storm: Storm, number: int) -> None:
        super().__init__(pair, number, 0)
        self.storm, self.rng = storm, random.Random(f"{SEED} {number}")
        self.security = self.rng.choice(["tls", "plain"])
        self.sizes = [(self.rng.randrange(1, 2 << 20), self.rng.randrange(2 << 20))
                      for _ in range(self.rng.choice([1, 2, 4]))]
        self.is_cancelled = self.rng.random() < 0.1
        self.ends: list[Migration] = []

    def __call__(self) -> str:
        """What became of it."""
        with self.storm.calm:
            incoming = self._again(lambda: self.pair.prepare(
                self.vm, self.security, client_id=self.client_id, expire_usec=("t", 3600 * SEC)))
            outgoing = self._again(lambda: self.pair.start(
                incoming, self.vm, client_id=self.client_id, endpoint=("s", self.storm.proxy.endpoint)))
            self.ends = [incoming, outgoing]
            while self._look(outgoing)["State"] == "waiting":
                time.sleep(0.01)
        try:
            with ExitStack() as stack:
                self._carry(stack)
                self._assert_done(self._results())
            word = "done"
        except (AssertionError, OSError, EOFError, BusError) as error:
            word = self._explain(error)
        for migration in self.ends:
            self._again(lambda migration=migration: self._forget(migration))
        return word

    def _carry(self, stack: ExitStack) -> None:
        paths = [self._again(migration.socket) for migration in self.ends]
        listener = stack.enter_context(FakeQemu.listen(paths[0], backlog=8, timeout=60))
        pairs: list[tuple[FakeQemu, FakeQemu]] = []
        for _ in self.sizes:
            source = stack.enter_context(FakeQemu.connect(paths[1], timeout=60))
            source.send(pattern(self.number, 1))  # then the destination is dialled: in the order of the source's
            pairs.append((source, stack.enter_context(listener.accept())))
        if self.is_cancelled:
            self._again(lambda: self._call(self.rng.choice(self.ends), "Cancel"))
        pool = stack.enter_context(ThreadPoolExecutor(2 * len(pairs)))
        received, sent = [], []
        for (source, destination), (there, back) in zip(pairs, self.sizes):
            sent += [source.send_pattern(self.number, there - 1, 1, shut=True),
                     destination.send_pattern(self.number, back, shut=True)]
            received += [(pool.submit(destination.recv_pattern_until_eof, self.number), there),
                         (pool.submit(source.recv_pattern_until_eof, self.number), back)]
        self._watch([*sent, *(future for future, _ in received)], pairs)
        for future, size in received:
            assert future.result(60) == size
        for one in sent:
            one.result(60)

    def _watch(self, running: list[Future[Any]], pairs: list[tuple[FakeQemu, FakeQemu]]) -> None:
        """Until all is carried, or the migration has failed: QEMUs that nobody tells end then as well."""
        while not wait(running, 0.1, FIRST_EXCEPTION).done >= set(running):
            if any(one.done() and one.exception() for one in running) or self._has_failed():
                for pair in pairs:
                    for end in pair:
                        with suppress(OSError):
                            end.shut()
                return

    def _has_failed(self) -> bool:
        return any(found["Result"] not in ("", "done") for found in map(self._look, self.ends))

    def _results(self) -> list[dict[str, Any]]:
        """Once both have ended, or one not well."""
        end = time.monotonic() + 90
        while time.monotonic() < end and not self._has_failed():
            found = [self._look(migration) for migration in self.ends]
            if all(one["State"] == "finished" for one in found):
                return found
            time.sleep(0.02)
        return [self._look(migration) for migration in self.ends]

    def _assert_done(self, results: list[dict[str, Any]]) -> None:
        there, back = (sum(sizes) for sizes in zip(*self.sizes))
        assert [(found["Result"], found["BytesSent"], found["BytesReceived"]) for found in results] == [
            ("done", back, there), ("done", there, back)], results

    def _explain(self, error: BaseException) -> str:
        """It did not end as done: there is a reason, and both sides say so."""
        for migration in self.ends:
            if self._look(migration)["State"] != "finished":  # as a destination whose peer is gone
                self._again(lambda migration=migration: self._call(migration, "Cancel"))
        results = [self._again(lambda migration=migration: self._finished(migration)) for migration in self.ends]
        words = [found["Result"] for found in results]
        what = f"migration {self.number}: {results}, {error!r}"
        if any(found["ErrorName"].endswith(".HelperFailed") for found in results):
            return "helper killed"  # at its last moment the other side may have been done
        assert all(word in ("failed", "cancelled") for word in words), what
        assert self.is_cancelled and "cancelled" in words, what
        return "cancelled"

    def _look(self, migration: Migration) -> dict[str, Any]:
        return self._again(lambda: self._get(migration))

    @staticmethod
    def _get(migration: Migration) -> dict[str, Any]:
        client = Client(migration.broker.bus)
        try:
            return client.get_all(migration.path, INTERFACE)
        finally:
            client.close()

    @staticmethod
    def _call(migration: Migration, member: str) -> None:
        client = Client(migration.broker.bus)
        try:
            client.call(migration.path, INTERFACE, member)
        finally:
            client.close()

    def _forget(self, migration: Migration) -> None:
        try:
            self._call(migration, "Forget")
        except BusError as error:
            if not error.name.endswith(".UnknownObject"):  # the broker died once it had forgotten it
                raise


def sail(pair: Own, storm: Storm, pool: ThreadPoolExecutor) -> Counter[str]:
    """Migrations beside each other, until the time is over; what became of them."""
    until, number = time.monotonic() + SECONDS, 0
    running: set[Future[str]] = set()
    words: Counter[str] = Counter()
    while running or time.monotonic() < until:
        while len(running) < AT_ONCE and time.monotonic() < until:
            number += 1
            running.add(pool.submit(Voyage(pair, storm, number)))
        done, running = wait(running, return_when=FIRST_COMPLETED)
        words.update(one.result() for one in done)
        if number % 50 == 0:
            for broker in brokers(pair):
                broker.reap()
    return words


@pytest.mark.long
def test_soak(workdir: Path) -> None:
    print(f"VMFERRY_SEED={SEED}")
    port = free_port()
    pair = Own(workdir, listen=f"tcp:127.0.0.1:{port}", broker=ManagedBroker, args=("--max-migrations-per-user=200",))
    try:
        with FaultyProxy(("127.0.0.1", port)) as proxy, ThreadPoolExecutor(AT_ONCE + 1) as pool:
            storm = Storm(pair, proxy, random.Random(SEED))
            raging = pool.submit(storm.run)
            try:
                words = sail(pair, storm, pool)
            finally:
                storm.over.set()
            raging.result(60)
        print(f"{SECONDS} s: {dict(words)}; {dict(storm.deeds)}")
        assert words["done"] > 0 and words["helper killed"] <= storm.deeds["kill_helper"]
        for broker in brokers(pair):
            broker.restart()
    except BaseException:
        close(pair, True)
        raise
    close(pair, False)
