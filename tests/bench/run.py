# SPDX-License-Identifier: LGPL-2.1-or-later
"""One run of the bench: what it is to measure, how often, and what has failed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tunnels
from lab import BenchError, Lab
from tunnels import Spec

KINDS = ("direct", "plain", "tls", "floor")


@dataclass
class Run:
    lab: Lab
    rounds: int
    gib: float
    quick: bool
    only: frozenset[str]  # tunnels; empty: all
    failures: list[dict[str, str]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def mib(self) -> int:
        return max(round(self.gib * 1024), 1)

    @property
    def swept_mib(self) -> int:
        """Of the guest of a post-copy."""
        return 32 if self.quick else 192

    @property
    def still_mib(self) -> int:
        """Of the guest of a pre-copy, beside what it sweeps."""
        return 32 if self.quick else 768

    @property
    def fewer_rounds(self) -> int:
        """For what takes longer, or matters less."""
        return max(1, (self.rounds + 1) // 2)

    @property
    def more_rounds(self) -> int:
        """For what differs more from round to round than from tunnel to tunnel."""
        return max(1, self.rounds * 3 // 2)

    def specs(self, section: str) -> list[Spec]:
        """The tunnels that are asked for and can be measured there."""
        found = [spec for spec in tunnels.REGISTRY.values()
                 if (section in spec.sections or section == "scaling") and (not self.only or spec.name in self.only)]
        return sorted(found, key=lambda spec: (KINDS.index(spec.kind), not spec.peer))  # as the tables have them

    def ours(self) -> list[str]:
        """The securities that are asked for."""
        return [name for name in ("plain", "tls") if not self.only or f"vmferry-{name}" in self.only]

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", file=sys.stderr, flush=True)

    def fail(self, section: str, name: str, error: object) -> None:
        known = isinstance(error, (BenchError, str))
        text = " ".join(str(error).split() if known else [f"{type(error).__name__}:", *str(error).split()])[:2000]
        self.failures.append({"section": section, "tunnel": name, "error": text})
        self.say(f"{section}: {name}: FAILED: {text}")

    def interleave(self, section: str, specs: list[Spec], rounds: int,
                   once: Callable[[Spec, int], dict[str, Any] | None],
                   tell: Callable[[dict[str, Any]], str]) -> dict[str, list[dict[str, Any]]]:
        """Each round measures every tunnel once, each time afresh, starting at another one. A tunnel that fails is out
        of the rounds that follow; a result of None is not counted. A peer may fail once (stunnel loses a guest now and
        then); ours may not."""
        found: dict[str, list[dict[str, Any]]] = {spec.name: [] for spec in specs}
        left = list(specs)
        excused: set[str] = set()

        def try_once(spec: Spec, number: int) -> dict[str, Any] | None:
            try:
                return once(spec, number)
            except Exception as error:
                if not spec.peer or spec.name in excused:
                    raise
                excused.add(spec.name)
                self.say(f"{section}: {spec.name}: failed, and is tried once more: {error}"[:500])
                return once(spec, number)

        for number in range(rounds):
            turn = number % len(left) if left else 0
            for spec in left[turn:] + left[:turn]:
                try:
                    result = try_once(spec, number)
                except Exception as error:  # whatever it is, it costs this tunnel its figures, and not the run
                    self.fail(section, spec.name, error)
                    left.remove(spec)
                    continue
                if result is not None:
                    found[spec.name].append(result)
                    self.say(f"{section} {number + 1}/{rounds}  {spec.name:20} {tell(result)}")
        return found
