# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest moves from one QEMU to another through two brokers and two helpers, and one can watch. Run by tools/demo."""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "lib"))

from vmlib.broker import Broker, BusError, Migration  # noqa: E402
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
  --verbose     show whole replies, and the brokers' logs at the end
  -h, --help    show this text

The exit status is 0 only if the migration is done, both ledgers agree, and the guest is unharmed.
"""

VM = "web1"


class Trouble(Exception):
    """The demo did not show what it promises; the text says what."""


class Screen:
    """What goes to the terminal: steps, what is said in them, and one line that is drawn again and again."""

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose
        self._tty = sys.stdout.isatty()
        self._steps = 0
        self._drawn = False
        self._plain_at = 0.0
        self._phase = ""

    def step(self, text: str) -> None:
        self._settle()
        self._steps += 1
        print(f"\n{self._style('1')}{self._steps}. {text}{self._style('0')}", flush=True)

    def say(self, text: str = "") -> None:
        self._settle()
        print(f"   {text}" if text else "", flush=True)

    def call(self, host: str, what: str) -> None:
        """Something that one could type or send oneself."""
        self.say(f"{self._style('36')}{host + ':':<13}{what}{self._style('0')}")

    def reply(self, text: str) -> None:
        self.say(f"{'':<13}→ {text if self.verbose else shorten(text)}")

    def progress(self, phase: str, text: str) -> None:
        """The live line; where there is no terminal, a line a second and one for each new phase."""
        line = f"{phase:<18}{text}"
        if self._tty:
            print(f"\r   {line}\x1b[K", end="", flush=True)
            self._drawn = True
        elif phase != self._phase or time.monotonic() - self._plain_at >= 1:
            self.say(line)
            self._plain_at = time.monotonic()
        self._phase = phase

    def _settle(self) -> None:
        if self._drawn:
            print()
        self._drawn = False

    def _style(self, code: str) -> str:
        return f"\x1b[{code}m" if self._tty else ""


def shorten(text: str) -> str:
    return re.sub(r"(vmferry1:.{12})[\w-]+", r"\1…", text)


def mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"


def busctl(screen: Screen, host: str, path: str, interface: str, member: str, arguments: str = "") -> None:
    """Shows the call as one would make it by hand."""
    screen.call(host, f"busctl call org.vmferry.Broker1 {path} \\")
    screen.say(f"{'':<13}    org.vmferry.{interface} {member} {shorten(arguments)}".rstrip())


class Meter:
    """Bytes per second over the last second or so."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def rate(self, size: int) -> float:
        now = time.monotonic()
        self._seen = [entry for entry in self._seen if now - entry[0] < 1] + [(now, size)]
        (then, before) = self._seen[0]
        return (size - before) / (now - then) if now - then > 0.05 else 0.0


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


def connect(screen: Screen, source: Broker, destination: Broker, security: str) -> tuple[Migration, Migration]:
    screen.step("The destination expects the VM, and gives a ticket")
    option = f"1 security s {security}"
    busctl(screen, "destination", "/org/vmferry/Broker1", "Broker1", "PrepareIncoming", f"'sa{{sv}}' {VM} {option}")
    incoming = destination.prepare(VM, {"security": ("s", security)})
    assert incoming.ticket
    screen.reply(incoming.path)
    screen.reply(incoming.ticket)
    screen.say("The ticket holds where to dial and a secret. It is all that the two hosts need: no PKI, no files.")

    screen.step("The source takes the ticket; the two helpers meet")
    busctl(screen, "source", "/org/vmferry/Broker1", "Broker1", "StartOutgoing",
           f"'ssa{{sv}}' {VM} {incoming.ticket} 0")
    outgoing = source.outgoing(incoming.ticket, VM)
    screen.reply(outgoing.path)
    for migration in (outgoing, incoming):
        migration.wait_state("connected")
    helpers = ", ".join(str(pid) for broker in (source, destination) for pid in broker.helpers())
    screen.say(f"State is 'connected' at both, over {outgoing.get('Security')}; the peer is {outgoing.get('Peer')}.")
    screen.say(f"Sandboxed helpers carry the bytes (pids {helpers}, with the gate); the brokers read none.")
    return outgoing, incoming


def begin(screen: Screen, pair: Pair, outgoing: Migration, incoming: Migration, precopy: bool) -> None:
    screen.step("QEMU listens at the destination and connects at the source")
    if not precopy:
        pair.enable_postcopy()
        screen.call("both", 'QMP  migrate-set-capabilities {"postcopy-ram": true}')
    screen.call("destination", f'QMP  migrate-incoming {{"uri": "unix:{incoming.socket()}"}}')
    pair.listen(f"unix:{incoming.socket()}")
    screen.call("source", f'QMP  migrate {{"uri": "unix:{outgoing.socket()}"}}')
    pair.begin(f"unix:{outgoing.socket()}")


PHASES = {"setup": "setup", "active": "pre-copy", "device": "pre-copy", "postcopy-active": "post-copy",
          "completed": "completed"}


def watch(screen: Screen, pair: Pair, outgoing: Migration, size: int, precopy: bool) -> Outcome:
    """Draws the live line until QEMU says that it is done; goes over to post-copy on the way."""
    meter, began, switched = Meter(), time.monotonic(), precopy
    while True:
        info = pair.source.query_migrate()
        status = info.get("status", "setup")
        sent, received = outgoing.get("BytesSent"), outgoing.get("BytesReceived")
        screen.progress(PHASES.get(status, status),
                        f"to the destination {mib(sent):>11}   back {mib(received):>9}   "
                        f"{mib(int(meter.rate(sent))):>11}/s   {time.monotonic() - began:5.1f} s")
        if status == "completed":
            break
        if status in ("failed", "cancelled", "postcopy-paused"):
            raise Trouble(f"QEMU says that the migration is {status}: {info.get('error-desc', 'no reason given')}")
        if time.monotonic() - began > 60 + size:
            raise Trouble("the migration does not come to an end")
        if not switched and info.get("ram", {}).get("transferred", 0) > (size << 20) // 2:
            screen.call("source", "QMP  migrate-start-postcopy")
            pair.source.start_postcopy()
            switched = True
        time.sleep(0.05)
    return pair.wait_completed()


def judge(screen: Screen, pair: Pair, outgoing: Migration, incoming: Migration, outcome: Outcome) -> None:
    screen.step("Done? Both brokers and the guest must say so")
    for host, migration in (("source", outgoing), ("destination", incoming)):
        busctl(screen, host, migration.path, "Migration1", "Wait")
        try:
            screen.reply(f'"{migration.wait()}"')
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
    mode, security = ("pre-copy" if options.precopy else "post-copy"), ("plain" if options.plain else "tls")
    how = "in clear" if options.plain else "over TLS"
    print(f"vmferry: VM '{VM}' moves from one QEMU to another while it runs, in {mode}, through a tunnel {how}.")
    with contextlib.ExitStack() as stack:
        brokers = start_brokers(screen, stack, workdir)
        if screen.verbose:
            stack.callback(show_logs, screen, brokers)
        pair = start_qemus(screen, stack, workdir, options.mem)
        outgoing, incoming = connect(screen, *brokers, security)
        begin(screen, pair, outgoing, incoming, options.precopy)
        outcome = watch(screen, pair, outgoing, options.mem, options.precopy)
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
