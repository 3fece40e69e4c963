# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest, a QEMU that runs it, a QEMU that waits for it, and the way from one to the other."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import guest
from .qemu import MigrationFailed, Qemu

# The guest dirties its whole region several times a second, so no amount of rounds makes a pre-copy converge:
# it ends when what is left, which is the region, can be sent within the downtime limit. A long limit therefore
# gives two rounds, whatever the link's speed. NEVER_CONVERGE keeps a pre-copy going until something ends it, a
# switch to post-copy, say; it doesn't slow post-copy down, which has max-postcopy-bandwidth (0, the default: none).
CONVERGE: dict[str, Any] = {"max-bandwidth": 10 << 30, "downtime-limit": 60_000}  # bytes/s; ms
NEVER_CONVERGE: dict[str, Any] = {"max-bandwidth": 64 << 20, "downtime-limit": 1}


@dataclass(frozen=True)
class Outcome:
    """What a completed migration cost, as the source's query-migrate tells it."""

    total_ms: int
    downtime_ms: int
    setup_ms: int
    ram: dict[str, Any]  # "transferred" (bytes), "mbps", "dirty-sync-count", "postcopy-requests", …


def downtime_of(info: dict[str, Any]) -> int:
    """Milliseconds; as vmferryctl reads it (qemu_downtime() in ctl/qemu/qemu.h)."""
    downtime, total = int(info["downtime"]), int(info["total-time"])
    return downtime if downtime <= total else int(total > 0)


class Pair:
    """A source that runs the guest, and a destination with `incoming="defer"`.

    `mib` is what the guest sweeps. `capabilities` and `parameters` are set at both ends, before anything is
    sent. `prefixes` are what the source's and the destination's command lines begin with. close() ends both QEMUs; a
    `with` does so too.

    The short way is precopy() or postcopy(); the long way, for tests that break things, is listen(), begin(),
    begin_postcopy(), wait_completed().
    """

    def __init__(
        self,
        workdir: Path,
        mib: int = 64,
        capabilities: dict[str, bool] | None = None,
        parameters: dict[str, Any] | None = None,
        name: str = "vm",
        extra: Sequence[str] = (),
        prefixes: tuple[Sequence[str], Sequence[str]] = ((), ()),
    ) -> None:
        self._parameters = parameters or {}
        image = guest.build_guest(workdir, mib)
        ram = guest.vm_mib(mib)
        self.source = Qemu(workdir, image, ram, f"{name}-src", extra=extra, prefix=prefixes[0])
        try:
            self.destination = Qemu(workdir, image, ram, f"{name}-dst", incoming="defer", extra=extra, prefix=prefixes[1])
        except BaseException:
            self.source.close()
            raise
        try:
            for end in (self.destination, self.source):
                end.set_capabilities({"events": True, **(capabilities or {})})
                end.set_parameters({**CONVERGE, **self._parameters})
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends both QEMUs. Harmless when done twice."""
        self.source.close()
        self.destination.close()

    def precopy(self, source_uri: str, destination_uri: str, timeout: float = 60.0) -> Outcome:
        """A whole pre-copy. The destination listens at `destination_uri`, the source connects to `source_uri`."""
        self.listen(destination_uri)
        self.begin(source_uri)
        return self.wait_completed(timeout)

    def postcopy(self, source_uri: str, destination_uri: str, timeout: float = 60.0) -> Outcome:
        """A whole migration that goes over to post-copy early, so that most of the memory moves in post-copy."""
        self.enable_postcopy()
        self.listen(destination_uri)
        self.begin(source_uri)
        self.begin_postcopy(timeout)
        return self.wait_completed(timeout)

    def enable_postcopy(self) -> None:
        """Allows post-copy at both ends, and keeps the pre-copy before it from completing.

        Raises QmpError where the destination may not use userfaultfd: see postcopy_available().
        """
        for end in (self.destination, self.source):
            end.set_capabilities({"postcopy-ram": True})
        self.source.set_parameters({**NEVER_CONVERGE, **self._parameters})

    def listen(self, destination_uri: str) -> None:
        """Makes the destination listen."""
        self.destination.listen(destination_uri)

    def begin(self, source_uri: str) -> None:
        """Makes the source connect and begin; doesn't wait."""
        self.source.migrate(source_uri)

    def begin_postcopy(self, timeout: float = 60.0) -> None:
        """Goes over to post-copy once the first memory was sent. Returns when the guest runs at the destination.

        Only from then on is a cut recoverable: the source says "postcopy-active" earlier, while the devices' state
        is yet to be sent, and what is cut then fails, or is lost.
        """
        self.wait_transferred(1 << 20, timeout)
        self.source.start_postcopy()
        self.source.wait_migration({"postcopy-active", "completed"}, timeout)
        self.destination.wait_until(lambda: self.destination.status() == "running", "the guest to run", timeout)

    def recover(self, source_uri: str, destination_uri: str) -> None:
        """Resumes a post-copy that is paused at both ends, over a new connection. Doesn't wait for its end."""
        self.destination.recover(destination_uri)
        self.source.resume(source_uri)

    def wait_transferred(self, size: int, timeout: float = 60.0) -> None:
        """Waits until the source has sent `size` bytes of memory; raises MigrationFailed where it ends before."""

        def sent() -> bool:
            info = self.source.query_migrate()
            if int(info.get("ram", {}).get("transferred", 0)) >= size:
                return True
            if info.get("status") in ("completed", "failed", "cancelled"):
                raise MigrationFailed(f"migration {info}: {self.source.diagnosis()}", info["status"])
            return False

        self.source.wait_until(sent, f"{size} bytes to be sent", timeout)

    def wait_completed(self, timeout: float = 60.0) -> Outcome:
        """Waits until both ends say that it is done and the guest runs at the destination."""
        deadline = time.monotonic() + timeout
        info = self.source.wait_migration({"completed"}, timeout)
        left = max(deadline - time.monotonic(), 1.0)
        self.destination.wait_migration({"completed"}, left)
        self.destination.wait_until(lambda: self.destination.status() == "running", "the guest to run", left)
        return Outcome(info["total-time"], downtime_of(info), info["setup-time"], info["ram"])

    def serial(self) -> str:
        """All that the guest printed: at the source, then at the destination."""
        return self.source.serial() + self.destination.serial()

    def assert_unharmed(self, sweeps: int = 2) -> None:
        """After a completed migration: waits for `sweeps` more sweeps at the destination, and judges the whole row."""
        self.destination.wait_sweeps(sweeps)
        guest.assert_unharmed(self.serial())
