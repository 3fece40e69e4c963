# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest moves from one QEMU to another through two brokers and two helpers, and one can watch. Run by tools/demo."""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "lib"))

from vmlib.broker import Broker, BusError, Migration, build_dir  # noqa: E402
from vmlib.guest import MAX_MIB, GuestHarmed, count_sweeps  # noqa: E402
from vmlib.migration import MigrationFailed, Outcome, Pair  # noqa: E402
from vmlib.qemu import QemuDied, postcopy_available  # noqa: E402
from vmlib.qmp import QmpError  # noqa: E402

USAGE = """Usage: sudo tools/demo [OPTION…]

Moves a running VM from one QEMU to another through vmferry, and shows each step. The guest in it writes to
all of its memory without end and checks what it wrote. All happens on this machine: two private D-Buses,
two brokers, two QEMUs, and a tunnel over TCP on the loopback interface. Nothing is left behind.

  --precopy     the VM goes on at the source until all is sent (default: post-copy, where it goes on
                at the destination early and fetches the pages that are missing)
  --plain       the tunnel's bytes go in clear (default: TLS 1.3 with the ticket's key)
  --mem MiB     how much memory the guest writes to (default 256)
  --verbose     show QEMU's command lines, and the brokers' logs at the end
  -h, --help    show this text

The exit status is 0 only if the migration is done, both ledgers agree, and the guest is unharmed.
"""

VM = "web1"


class Trouble(Exception):
    """The demo did not show what it promises; the text says what."""


class Screen:
    """What goes to the terminal: steps, and what is said in them."""

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose
        self._tty = sys.stdout.isatty()
        self._steps = 0

    def step(self, text: str) -> None:
        self._steps += 1
        print(f"\n{self._style('1')}{self._steps}. {text}{self._style('0')}", flush=True)

    def say(self, text: str = "") -> None:
        print(f"   {text}" if text else "", flush=True)

    def call(self, host: str, what: str) -> None:
        """Something that one could type or send oneself."""
        self.say(f"{self._style('36')}{host + ':':<13}{what}{self._style('0')}")

    def reply(self, text: str) -> None:
        self.say(f"{'':<13}→ {text}")

    def _style(self, code: str) -> str:
        return f"\x1b[{code}m" if self._tty else ""


def start_brokers(screen: Screen, stack: contextlib.ExitStack, workdir: Path) -> tuple[Broker, Broker]:
    screen.step("Two hosts: a D-Bus and a vmferryd on each")
    brokers = []
    for host in ("source", "destination"):
        broker = Broker(workdir, host, listen="tcp:127.0.0.1:0")
        stack.enter_context(broker)
        screen.call(host, f"vmferryd --address={broker.bus.address} --listen={broker.listen}")
        screen.reply(f"pid {broker.pid}, version {broker.get('Version')}, features {' '.join(broker.get('Features'))}")
        brokers.append(broker)
    return brokers[0], brokers[1]


def start_qemus(screen: Screen, stack: contextlib.ExitStack, workdir: Path, size: int) -> Pair:
    screen.step("Two QEMUs: one runs the guest, the other waits for it")
    pair = stack.enter_context(Pair(workdir, size, {"return-path": True}))
    for host, qemu in (("source", pair.source), ("destination", pair.destination)):
        incoming = " -incoming defer" if host == "destination" else ""
        screen.call(host, f"qemu-system-x86_64 -m {size + 8}M … -drive file=guest-{size}.img …{incoming}")
        screen.reply(f"pid {qemu.pid}")
        if screen.verbose:
            screen.say(f"{'':<13}  {' '.join(qemu.command)}")
    screen.say(f"The guest writes to {size} MiB again and again, and checks on each sweep what it wrote on the last.")
    pair.source.wait_sweeps(3, timeout=120)
    screen.say(f"It runs at the source: {count_sweeps(pair.source.serial())} sweeps, none wrong.")
    return pair


def move(screen: Screen, pair: Pair, source: Broker, destination: Broker,
         options: argparse.Namespace) -> tuple[Migration, Migration, Outcome]:
    """One command does it all; the helpers are named while it runs."""
    screen.step("One command moves it: both brokers, both QEMUs")
    how = ["--downtime-limit=60s"] if options.precopy else ["--postcopy"]
    security = ["--security=plain"] if options.plain else []
    words = [f"--address={source.bus.address}", "migrate", VM, destination.bus.address,
             f"--qmp={pair.source.qmp_path}", f"--dst-qmp={pair.destination.qmp_path}", *how, *security]
    screen.call("source", f"vmferryctl {shlex.join(words)}")
    screen.say("The destination's broker makes a ticket, the source's takes it, and their sandboxed helpers meet. The")
    screen.say("ticket holds where to dial and a secret: it is all that two hosts need, no PKI, no files.")
    process = subprocess.Popen([build_dir() / "ctl" / "vmferryctl", *words])
    try:
        named = False
        while process.poll() is None:
            if not named and source.helpers() and len(destination.helpers()) > 1:
                pids = ", ".join(str(pid) for broker in (source, destination) for pid in broker.helpers())
                screen.say(f"Helpers carry the bytes (pids {pids}, with the gate); the brokers read none.")
                named = True
            time.sleep(0.005)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(30)
    if process.returncode != 0:
        raise Trouble(f"vmferryctl's exit status is {process.returncode}")
    outgoing, incoming = (Migration(broker, broker.list()[-1][5]) for broker in (source, destination))
    return outgoing, incoming, pair.wait_completed()


def judge(screen: Screen, pair: Pair, outgoing: Migration, incoming: Migration, outcome: Outcome) -> None:
    screen.step("Done? Both brokers and the guest must say so")
    for host, migration in (("source", outgoing), ("destination", incoming)):
        screen.call(host, f"vmferryctl --address={migration.broker.bus.address} wait {VM}")
        try:
            screen.reply(migration.wait())
        except BusError as error:
            raise Trouble(f"the migration failed at the {host}: {error}") from error
    before = count_sweeps(pair.source.serial())
    pair.assert_unharmed(3)
    after = count_sweeps(pair.destination.serial())
    there, here = outgoing.get_all(), incoming.get_all()

    screen.step("What it came to")
    screen.say(f"total time     {outcome.total_ms:>15,} ms")
    screen.say(f"downtime       {outcome.downtime_ms:>15,} ms   (no CPU of the VM ran)")
    screen.say(f"{'ledgers':<15}{'BytesSent':>15}{'BytesReceived':>18}")
    for host, properties in (("source", there), ("destination", here)):
        screen.say(f"  {host:<13}{properties['BytesSent']:>15,}{properties['BytesReceived']:>18,}")
    screen.say(f"guest          {before} sweeps at the source, {after} at the destination; none lost, no byte wrong")
    if there["BytesSent"] != here["BytesReceived"] or there["BytesReceived"] != here["BytesSent"]:
        raise Trouble("the ledgers do not agree: what one side sent is not what the other received")
    if there["BytesSent"] == 0:
        raise Trouble("nothing went through the tunnel")
    screen.say("The ledgers agree in both directions: what one side took from its QEMU, the other gave to its own.")


def show(options: argparse.Namespace, screen: Screen, workdir: Path) -> None:
    mode = "pre-copy" if options.precopy else "post-copy"
    how = "in clear" if options.plain else "over TLS"
    print(f"vmferry: VM '{VM}' moves from one QEMU to another while it runs, in {mode}, through a tunnel {how}.")
    with contextlib.ExitStack() as stack:
        brokers = start_brokers(screen, stack, workdir)
        if screen.verbose:
            stack.callback(show_logs, screen, brokers)
        pair = start_qemus(screen, stack, workdir, options.mem)
        outgoing, incoming, outcome = move(screen, pair, *brokers, options)
        judge(screen, pair, outgoing, incoming, outcome)
        for migration in (outgoing, incoming):
            migration.call("Forget")


def show_logs(screen: Screen, brokers: tuple[Broker, Broker]) -> None:
    screen.step("The brokers' logs")
    for broker in brokers:
        for line in broker.log().splitlines():
            screen.say(f"{broker.name + ':':<13}{line}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/demo", usage=USAGE, add_help=False)
    for flag in ("--precopy", "--plain", "--verbose"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--mem", type=int, default=256)
    options = parser.parse_args()
    if not 16 <= options.mem <= MAX_MIB:
        parser.error(f"--mem takes 16 to {MAX_MIB} MiB")
    return options


def check_machine(options: argparse.Namespace) -> None:
    found = re.search(r"MemAvailable: +(\d+)", Path("/proc/meminfo").read_text())
    if found and int(found[1]) >> 10 < 2 * options.mem + 512:
        raise Trouble(f"two VMs of {options.mem} MiB do not fit into this machine's free memory; give a smaller --mem")
    if not options.precopy and not postcopy_available():
        raise Trouble("this kernel has no userfaultfd, which post-copy needs; --precopy goes without")


def on_signal(number: int, frame: FrameType | None) -> None:
    # Once: a second one must not cut the cleaning up short.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    options = read_options()
    screen = Screen(options.verbose)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    workdir = Path(tempfile.mkdtemp(prefix="vmf", dir="/tmp"))
    why: Any = None
    try:
        check_machine(options)
        show(options, screen, workdir)
    except KeyboardInterrupt:
        why = "interrupted"
    except (Trouble, BusError, MigrationFailed, QemuDied, QmpError, GuestHarmed, AssertionError, OSError) as error:
        why = f"{type(error).__name__}: {error}" if not isinstance(error, Trouble) else error
    finally:
        shutil.rmtree(workdir, ignore_errors=True)
    if why:
        screen.say()
        print(f"It did not work: {why}.", file=sys.stderr)
        return 1
    screen.say()
    print("It worked.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
