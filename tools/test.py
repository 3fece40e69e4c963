# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds, tests and counts. Run by tools/test, which installs what this needs."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/lib")]

import cross  # noqa: E402
from model.run import run as search_model  # noqa: E402
from roots import CACHE, copy_tree, in_root, make_root  # noqa: E402
from sim.mutations import run as break_rules, stale  # noqa: E402
from sim.run import simulate  # noqa: E402
from vmlib.reruns import HARM, Load  # noqa: E402

USAGE = """Usage: tools/test [--quick] [--long] [PART…]

Checks everything, or the parts that are named:

  format        clang-format finds nothing to change; the includes run down the layers
  model         the model of the peer protocol (docs/model), searched whole, and with each of its rules broken
  sim           two helpers in a world of one number (tests/sim): seeds that found something once, and new ones
  unit          unit tests, and the fuzzers over their corpora, under ASan and UBSan
  fuzz          each fuzzer for 5 seconds (--long: 60) over mutations that are others in every run, under ASan and UBSan
  valgrind      the unit tests under valgrind
  integration   brokers, helpers and stand-ins for QEMU on private buses, under ASan and UBSan
  qemu          real QEMUs and strace, with the release build
  system        the Debian package, and two hosts booted with systemd-nspawn, each with it installed; needs root
  vm            a virtual machine with Debian's kernel, for what this one's may lack: TLS, vsock to itself; needs root

  stories       one test of each folder of integration and qemu, under ASan and UBSan; only where it is named
  fresh         what README.md tells to type, on two hosts with little more than debootstrap's smallest choice; only where it
                is named; needs root and Debian's archive
  trixie        unit, integration, qemu, system and fresh in a root of Debian 13 that debootstrap makes, with its compiler,
                libraries and QEMU; only where it is named; needs root, and some 4 GB in /var/cache/vmferry-test
  older         an earlier commit's programs at the other end, and before an upgrade; only where it is named, with the commit:
                VMFERRY_COMMIT=COMMIT tools/test older
  cross         builds for arm64, armhf and i386 with Debian's cross compilers, and the unit tests, under QEMU; only where it is
                named; needs root, and some 2 GB in /var/cache/vmferry-test

  --quick       format, unit and stories: under three minutes once it is built, for those who work on the code
  --long        more rounds, and the tests that take their time
  -h, --help    show this text

The last line is "N passed, N failed, N skipped"; the exit status is 0 only if nothing failed. Where CI=true is in
the environment, a test that is skipped counts as failed, unless the machine's kernel is the reason ("kernel: …").
A test that fails is tried once more if it judges by time (the mark load_sensitive) or if the machine was overloaded, or
stood still, while it ran, but never if it found harm to a guest or a byte, a crash or a sanitizer's report. It is listed
as RERUN, with the load, and why it failed the first time at the end of its part. Any other test that fails has failed.
"""

SANITIZED = ("build-test-asan", ("-Dbuildtype=debugoptimized", "-Db_sanitize=address,undefined", "-Dwerror=true",
                                 "-Dtests=true"))
RELEASE = ("build-test", ("-Dbuildtype=release", "-Dwerror=true", "-Dprefix=/usr", "-Dtests=true"))

VALGRIND = ("valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full",
            "--errors-for-leak-kinds=definite,indirect", "--child-silent-after-fork=yes")
CPUS = max(2, os.cpu_count() or 2)
PYTEST_LIMIT = 3600  # seconds; only a run that hangs is to take as long
ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:abort_on_error=1",
    "LC_ALL": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass
class Count:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    bad: list[str] = field(default_factory=list)  # what failed, and what must not be skipped
    reruns: list[str] = field(default_factory=list)  # what was tried once more, and the load that was the reason

    def add(self, other: "Count") -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.bad += other.bad
        self.reruns += other.reruns

    def fail(self, what: str) -> None:
        self.failed += 1
        self.bad.append(what)

    def skip(self, what: str, why: str) -> None:
        """In CI everything is there, so that only the kernel can be a reason."""
        if os.environ.get("CI") == "true" and not why.startswith("kernel:"):
            self.fail(f"{what} (skipped: {why or 'no reason given'})")
        else:
            self.skipped += 1

    def line(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def run(command: list[str], environment: dict[str, str] | None = None, quiet: bool = False,
        limit: float | None = None) -> tuple[int, str]:
    """Its exit status (-1 where it ran past the limit), and what it said where it is to be quiet."""
    try:
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **ENVIRONMENT, **(environment or {})}, text=True,
                              errors="replace", timeout=limit, stdout=subprocess.PIPE if quiet else None,
                              stderr=subprocess.STDOUT if quiet else None, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return -1, f"ran longer than {limit} s"
    return done.returncode, done.stdout or ""


class BuildFailed(Exception):
    pass


def build(what: tuple[str, tuple[str, ...]]) -> Path:
    """Its directory, up to date."""
    directory, options = ROOT / what[0], list(what[1])
    fresh = not (directory / "build.ninja").exists()
    configure = ["meson", "setup", str(directory), str(ROOT)] if fresh else ["meson", "configure", str(directory)]
    for command in ([*configure, *options], ["ninja", "-C", str(directory)]):
        status, text = run(command, quiet=True)
        if status != 0:
            print(text)
            raise BuildFailed(" ".join(command))
    return directory


# The parts.


def check_format() -> Count:
    count = Count()
    status, listed = run(["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "*.c", "*.h"],
                         quiet=True)
    files = [name for name in listed.splitlines() if (ROOT / name).exists()]
    if status != 0 or not files:
        count.fail(f"the list of C files: {listed.strip()}")
        return count
    with ThreadPoolExecutor(CPUS) as pool:
        checked = pool.map(lambda name: run(["clang-format", "--dry-run", "-Werror", name], quiet=True), files)
    for name, (status, text) in zip(files, checked):
        if status == 0:
            count.passed += 1
        else:
            print("\n".join(text.splitlines()[:12]))
            count.fail(f"{name} is not as clang-format wants it")
    status, text = run([str(ROOT / "tools/check-layers"), "--quiet"], quiet=True)
    if status == 0:
        count.passed += 1
    else:
        print(text)
        count.fail("the includes do not run down the layers: tools/check-layers")
    return count


def check_model() -> Count:
    """A test is a configuration in which nothing may be found, or a broken rule of which something must come."""
    count = Count()
    count.passed, bad = search_model([], bool(os.environ.get("VMFERRY_LONG")), False)
    for what in bad:
        count.fail(what)
    return count


def check_sim() -> Count:
    """A test is a schedule; in the long run also a rule of the code that is broken, of which something must come (in
    each run it is seen that the code still has it)."""
    long = bool(os.environ.get("VMFERRY_LONG"))
    sanitized, count = build(SANITIZED) / "tests/sim/vmferry-sim", Count()
    count.passed, bad = simulate(str(sanitized), 10000, 60, failing=(1000, 600 if long else 8))
    if long:
        passed, more = simulate(str(build(RELEASE) / "tests/sim/vmferry-sim"), 1000000, 3600)
        found, missed = break_rules([])
        count.passed += passed + len(found)
        bad += more + [f"not found: {name}" for name in missed]
    bad += [f"the code does not have the rule once: {name}" for name in stale()]
    for what in bad:
        count.fail(f"sim: {what}")
    return count


def run_meson(directory: Path, log: str, names: list[str], wrapper: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """What meson's log has of each test; nothing if there is no log."""
    arguments = ["--wrapper", " ".join(wrapper), "--timeout-multiplier", "5"] if wrapper else []
    for old in (directory / "meson-logs").glob(f"{log}*.json"):
        old.unlink()
    _, text = run(["meson", "test", "-C", str(directory), "--no-rebuild", "--logbase", log, *arguments, *names],
                  quiet=True)
    logs = list((directory / "meson-logs").glob(f"{log}*.json"))  # with a wrapper, meson adds its name
    if not logs:
        print(text)
    return read_log(logs[0]) if logs else {}


def read_log(path: Path) -> dict[str, dict[str, Any]]:
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return {entry["name"].rpartition(" / ")[2]: entry for entry in entries}


def count_log(found: dict[str, dict[str, Any]], excuse: Callable[[str], str] = lambda what: "") -> Count:
    """What meson's log says of all tests; the output of those that failed is shown. One that has an excuse counts as skipped."""
    count = Count()
    for name, entry in found.items():
        one = count_program(name, entry)
        bad, one.bad, one.failed = one.bad, [], 0
        for what in bad:
            if why := excuse(what):
                one.skip(what, why)
            else:
                one.fail(what)
        if one.failed:
            print(f"---- {name}: {entry['result']}\n{said(entry)}")
        count.add(one)
    return count


def said(entry: dict[str, Any]) -> str:
    return f"{entry.get('stdout') or ''}{entry.get('stderr') or ''}"


def failed(count: Count) -> list[str]:
    """Without what must not be skipped."""
    return [what for what in count.bad if "(skipped: " not in what]


def why_again(entry: dict[str, Any], load: Load) -> str:
    """Why a program is tried once more, as a test of pytest is (vmlib/reruns.py); empty if it is not."""
    crashed = entry["returncode"] < 0 and entry["result"] != "TIMEOUT"
    overloaded, figure = load.until_now()
    return figure if overloaded and not crashed and not HARM.search(said(entry)) else ""


def meson_tests(directory: Path, log: str, names: list[str], wrapper: tuple[str, ...] = ()) -> Count:
    """Runs tests of a build directory; counts the cases of those that say them (in TAP), else the programs."""
    load = Load()
    found = run_meson(directory, log, names, wrapper)
    again = {name: why for name, entry in found.items()
             if failed(count_program(name, entry)) and (why := why_again(entry, load))}
    if again:
        for name in again:
            print(f"---- {name}, the first time: {found[name]['result']}\n{said(found[name])}")
        found |= run_meson(directory, f"{log}-again", list(again), wrapper)
    count = count_log(found)
    count.reruns = [f"{log} {name}: {why}" for name, why in again.items()]
    if not found:
        count.fail(f"meson test ({log})")
    return count


TAP = re.compile(r"(?P<bad>not )?ok\b *(?P<what>.*?)(?: *# *(?P<skip>SKIP)\S* *(?P<why>.*))?$")


def count_program(name: str, entry: dict[str, Any]) -> Count:
    """One program of a meson test log. (cmocka 1.1.5 says "not ok" of a case that it skips.)"""
    count = Count()
    lines = (entry.get("stdout") or "").splitlines()
    cases = [match for match in map(TAP.match, lines) if match]
    for case in cases:
        what = f"{name}: {case['what'] or case['why']}"
        if case["skip"]:
            count.skip(what, case["why"])
        elif case["bad"]:
            count.fail(what)
        else:
            count.passed += 1
    plan = next((int(line[3:].split()[0]) for line in lines if re.match(r"1\.\.\d", line)), None)
    if entry["result"] == "SKIP" and not cases:
        why = [line for line in lines + (entry.get("stderr") or "").splitlines() if line.startswith("kernel:")]
        count.skip(name, why[0] if why else "no reason given")
    elif entry["result"] != "OK" and not count.failed and (entry["returncode"] != 0 or plan != len(cases)):
        count.fail(f"{name} ({entry['result']}, exit status {entry['returncode']})")
    elif plan is None:
        count.passed += 1
    return count


def tests_of(directory: Path, suites: set[str]) -> list[str]:
    """The names of the build directory's tests in these suites."""
    _, text = run(["meson", "introspect", "--tests", str(directory)], quiet=True)
    return [test["name"] for test in json.loads(text) if {suite.rpartition(":")[2] for suite in test["suite"]} & suites]


def check_unit() -> Count:
    directory = build(SANITIZED)
    return meson_tests(directory, "unit", tests_of(directory, {"unit", "fuzz"}))


def check_fuzz() -> Count:
    """A test is a fuzzer. All run at once; in the long run as many as there are processors."""
    directory, count = build(SANITIZED), Count()
    tests = tests_of(directory, {"fuzz"})
    seconds, workers = (60, os.cpu_count()) if os.environ.get("VMFERRY_LONG") else (5, len(tests))
    seed = time.time_ns() // 1000

    def fuzz(test: str) -> tuple[str, int, str]:
        name = test.removeprefix("fuzz-")
        return (test, *run([str(directory / "tests/fuzz" / test), f"{seconds}s", str(ROOT / "tests/fuzz/corpus" / name),
                            str(seed)], quiet=True, limit=seconds + 60))

    with ThreadPoolExecutor(workers) as pool:
        for test, status, text in pool.map(fuzz, tests):
            print(f"  {test:16}{text.strip()}", flush=True)
            if status == 0:
                count.passed += 1
            else:
                count.fail(f"{test}: exit status {status}")
    return count


def check_valgrind() -> Count:
    directory = build(RELEASE)
    count = meson_tests(directory, "valgrind", tests_of(directory, {"unit"}), VALGRIND)
    # What says that valgrind is no place for it was counted where it ran.
    return Count(count.passed, len(failed(count)), 0, failed(count), count.reruns)


def pytest(directory: Path, log: str, marks: str, where: tuple[str, ...] = ("tests/lib", "tests/integration"),
           workers: int = CPUS, dist: str = "load") -> Count:
    report = directory / f"{log}.xml"
    report.unlink(missing_ok=True)
    count = Count()
    with tempfile.TemporaryDirectory(prefix="vmf-test-") as temporary:
        status, text = run([sys.executable, "-B", "-m", "pytest", "-q", "--no-header", "--tb=short",
                            "-p", "no:cacheprovider", f"--basetemp={temporary}/t",
                            "-n", str(workers), "--dist", dist, "-m", marks, f"--junitxml={report}",
                            "--durations=5", *where],
                           {"VMFERRY_BUILD": str(directory)}, limit=PYTEST_LIMIT)
    if not report.exists():
        count.fail(f"pytest ({log}): {text or f'exit status {status}'}")
        return count
    for case in ElementTree.parse(report).iter("testcase"):
        what = f"{'/'.join(case.get('classname', '').split('.')[-2:])}::{case.get('name')}"
        count.reruns += [f"{what}: {found.get('value')}" for found in case.iter("property") if found.get("name") == "rerun"]
        for found in case.iter("property"):
            if found.get("name") == "figure":  # what a test has searched
                print(f"  {what}: {found.get('value')}", flush=True)
        if case.find("failure") is not None or case.find("error") is not None:
            count.fail(what)
        elif (skipped := case.find("skipped")) is not None:
            count.skip(what, skipped.get("message", ""))
        else:
            count.passed += 1
    if status != 0 and not count.failed:
        count.fail(f"pytest ({log}): exit status {status}")
    return count


def check_integration() -> Count:
    """Two workers a processor: most of these tests wait most of the time."""
    return pytest(build(SANITIZED), "integration", "not qemu and not tracing", workers=2 * CPUS)


def check_stories() -> Count:
    return pytest(build(SANITIZED), "stories", "story")


def check_qemu() -> Count:
    return pytest(build(RELEASE), "qemu", "qemu or tracing")


def check_system() -> Count:
    """Two workers: each boots hosts of its own. What a file sets up on them it sets up once."""
    return pytest(build(RELEASE), "system", "system", ("tests/system",), 2, "loadfile")


def check_vm() -> Count:
    """One worker: the machine is booted once a worker."""
    return pytest(build(RELEASE), "vm", "vm", ("tests/vm",), workers=1)


def check_older() -> Count:
    count, commit = Count(), os.environ.get("VMFERRY_COMMIT")
    if not commit:
        count.fail("older: which commit? VMFERRY_COMMIT is not set")
        return count
    with tempfile.TemporaryDirectory(prefix="vmf-older-") as temporary:
        tree, older = f"{temporary}/tree", f"{temporary}/build"
        if not prepared(count, f"older: VMFERRY_COMMIT='{commit}'", {
            "git clone": lambda: run(["git", "-c", "safe.directory=*", "clone", "-q", str(ROOT), tree], quiet=True),
            "git checkout": lambda: run(["git", "-C", tree, "checkout", "-q", "--detach", f"{commit}^{{commit}}"], quiet=True),
            "meson setup": lambda: run(["meson", "setup", older, tree, "-Dbuildtype=release"], quiet=True),
            "ninja": lambda: run(["ninja", "-C", older], quiet=True),
        }):
            return count
        os.environ["VMFERRY_OLDER"] = older
        return pytest(build(RELEASE), "older", "older")


TRIXIE = CACHE / "trixie"
TRIXIE_PARTS = ("unit", "integration", "qemu", "system", "fresh")


def prepared(count: Count, part: str, steps: dict[str, Callable[[], tuple[int, str]]]) -> bool:
    """Takes one step after the other; False at the first that fails, whose output is shown."""
    for step, act in steps.items():
        status, text = act()
        if status != 0:
            print(text)
            count.fail(f"{part}: {step}")
            return False
    return True


def check_trixie() -> Count:
    """The same files in a root of Debian 13, where they are built and tested by this very program."""
    count = Count()
    if not prepared(count, "trixie", {
        "debootstrap": lambda: make_root("trixie", TRIXIE),
        "copy": lambda: copy_tree(ROOT, TRIXIE),
        "tools/install-deps": lambda: in_root(TRIXIE, "/vmferry", "tools/install-deps", "test", "bench"),
    }):
        return count
    status, text = in_root(TRIXIE, "/vmferry", "/usr/bin/python3", "-B", "tools/test.py", *TRIXIE_PARTS, show=True)
    found = re.search(r"^(\d+) passed, (\d+) failed, (\d+) skipped\s*\Z", text, re.M)
    if not found:
        count.fail(f"trixie: exit status {status}")
        return count
    count.passed, count.skipped = int(found[1]), int(found[3])
    for what in re.findall(r"^  (\S.*)$", text.rpartition("Failed:\n")[2], re.M) if int(found[2]) else []:
        count.fail(f"trixie: {what}")
    return count


# What a host has beside debootstrap's smallest choice: it can be booted, has a network, ssh, users' sessions, and a QEMU.
HOST_PACKAGES = ("systemd-sysv", "dbus", "dbus-broker", "dbus-user-session", "libpam-systemd", "iproute2", "procps",
                 "openssh-server", "openssh-client", "qemu-system-x86")


def check_fresh() -> Count:
    """README's lines on hosts of this machine's release of Debian, which have nothing of what is installed here."""
    count = Count()
    release = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.M)
    root = CACHE / f"fresh-{release[1] if release else 'stable'}"
    os.environ["VMFERRY_BUILD"] = str(build(RELEASE))
    from vmlib.package import package
    # The hosts have no way to the archive: what apt is to install on them is there already.
    prepare = "apt-get update -q && apt-get install -q -y --no-install-recommends " + " ".join(HOST_PACKAGES) + \
        " && apt-get clean && apt-get install -q -y --download-only /root/vmferry.deb && rm /root/vmferry.deb"
    if not prepared(count, "fresh", {
        "debootstrap": lambda: make_root(root.name.removeprefix("fresh-"), root),
        "copy": lambda: run(["cp", str(package()), str(root / "root/vmferry.deb")], quiet=True),
        "apt-get": lambda: in_root(root, "/", "env", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", prepare),
    }):
        return count
    os.environ["VMFERRY_HOSTS"] = str(root)
    try:
        return pytest(build(RELEASE), "fresh", "system", ("tests/system/test_readme.py",), 1)
    finally:
        del os.environ["VMFERRY_HOSTS"]


def check_cross() -> Count:
    """The unit tests with other machines' compilers and libraries, in a root of Debian 12; QEMU runs them."""
    count, root = Count(), CACHE / "cross"
    if not prepared(count, "cross", {
        "debootstrap": lambda: make_root("bookworm", root),
        "copy": lambda: copy_tree(ROOT, root),
        "apt-get": lambda: cross.install(root),
    }):
        return count
    for machine in cross.MACHINES:
        if not prepared(count, machine.debian, {"build": lambda: cross.build(machine, root),
                                                "meson test": lambda: cross.run_units(machine, root)}):
            continue
        one = count_log(read_log(machine.log(root)), machine.excuse)
        one.bad = [f"{machine.debian}: {what}" for what in one.bad]
        print(f"  {machine.debian}: {one.line()}", flush=True)
        count.add(one)
    return count


PARTS: dict[str, Callable[[], Count]] = {
    "format": check_format,
    "model": check_model,
    "sim": check_sim,
    "unit": check_unit,
    "fuzz": check_fuzz,
    "valgrind": check_valgrind,
    "integration": check_integration,
    "qemu": check_qemu,
    "system": check_system,
    "vm": check_vm,
    "stories": check_stories,
    "fresh": check_fresh,
    "trixie": check_trixie,
    "older": check_older,
    "cross": check_cross,
}
ONLY_NAMED = ("stories", "fresh", "trixie", "older", "cross")
NEED_ROOT = ("fresh", "trixie", "cross")
QUICK = ["format", "unit", "stories"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/test", usage=USAGE, add_help=False)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS])
    options = parser.parse_args()
    if options.long:
        os.environ["VMFERRY_LONG"] = "1"
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):  # ignored below nohup(1), or in the background of a shell
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    total = Count()
    parts = options.parts or (QUICK if options.quick else [name for name in PARTS if name not in ONLY_NAMED])
    for name in parts:
        print(f"==== {name}", flush=True)
        began = time.monotonic()
        count = Count()
        try:
            if name in NEED_ROOT and os.geteuid() != 0:
                count.skip(name, "needs root")
            else:
                count = PARTS[name]()
        except BuildFailed as error:
            count.fail(f"{name}: the build failed: {error}")
        print(f"==== {name}: {count.line()} in {time.monotonic() - began:.0f} s\n", flush=True)
        total.add(count)
    for what in total.reruns:
        print(f"RERUN {what}")
    if total.bad:
        print("Failed:")
        for what in total.bad:
            print(f"  {what}")
    print(total.line())
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
