# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the host's kernel may not have: tests of tests/unit and tests/integration, in a machine whose kernel has it.

The machine is booted once, runs all of them, and each test here looks for what became of one. VMFERRY_LONG=1 adds some
of those that other kernels run as well.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from vmlib.broker import ROOT, build_dir
from vmlib.machine import missing, run

LONG = bool(os.environ.get("VMFERRY_LONG"))
UNITS = ("helper-relay-flow-pipe", *(("helper-sandbox-use",) if LONG else ()))
INTEGRATION = ("data/test_relay.py::test_vsock_endpoint", "api/test_fds_refused.py::test_vsock",
               *(("data/test_tracing.py::test_helper_opens_nothing",) if LONG else ()))
# How confined.py moves a guest, and over which connections.
CONFINED = {"parallel-disks": "disks migrate migrate migrate", "post-copy": "migrate", **({"pre-copy": "migrate"} if LONG else {})}
LIMIT = 900  # seconds

Results = dict[str, list[ElementTree.Element]]


def without_libvirt() -> str:
    """Why there is no profile of libvirt's to be tested; "" where there is."""
    if not Path("/usr/lib/libvirt/virt-aa-helper").exists() or not shutil.which("apparmor_parser"):
        return "libvirt or AppArmor's tools are not installed"
    return ""


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """The directory with what the unit tests said, and the cases of the integration tests, by file and function."""
    if why := missing():
        pytest.skip(why)
    work = tmp_path_factory.mktemp("vm")
    tests = ROOT / "tests"
    script = [f"export VMFERRY_BUILD={shlex.quote(str(build_dir()))} CMOCKA_MESSAGE_OUTPUT=TAP"]
    script += [f'"$VMFERRY_BUILD/tests/unit/test-{name}" > /mnt/{name}.tap 2>&1' for name in UNITS]
    script.append(shlex.join([sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short",
                              "--junitxml=/mnt/report.xml", "-c", str(tests / "pytest.ini"), "--durations=5",
                              *(str(tests / "integration" / name) for name in INTEGRATION)]))
    if not without_libvirt():
        script.append(shlex.join([sys.executable, "-B", str(tests / "vm" / "confined.py"), *CONFINED]) + " > /mnt/confined.json")
        script.append("dmesg | grep apparmor=.DENIED > /mnt/denied")
    script.append("true")  # what failed is found in the report
    (work / "script").write_text("\n".join(script) + "\n")
    console = run(build_dir() / "tests" / "vm" / "machine-init", work, ["/bin/sh", "/mnt/script"], LIMIT)
    print(console)
    found: Results = {}
    for case in ElementTree.parse(work / "report.xml").iter("testcase"):
        folder, module = case.get("classname", "").split(".")[-2:]
        name = f"{folder}/{module}.py::{case.get('name', '').partition('[')[0]}"
        found.setdefault(name, []).append(case)
    return work, found


@pytest.mark.parametrize("name", UNITS)
def test_unit(results: tuple[Path, Results], name: str) -> None:
    said = (results[0] / f"{name}.tap").read_text()
    plan = re.search(r"^1\.\.([1-9]\d*)$", said, re.MULTILINE)
    assert plan and len(re.findall(r"^ok ", said, re.MULTILINE)) == int(plan[1]), said


@pytest.mark.parametrize("name", INTEGRATION)
def test_integration(results: tuple[Path, Results], name: str) -> None:
    cases = [case for function, found in results[1].items() if f"{function}::".startswith(f"{name}::")
             for case in found]
    assert cases
    for case in cases:
        for outcome in ("failure", "error", "skipped"):
            if (element := case.find(outcome)) is not None:
                pytest.fail(f"{case.get('name')}: {outcome}: {element.get('message')}\n{element.text or ''}")


@pytest.mark.skipif(bool(without_libvirt()), reason=without_libvirt() or "-")
@pytest.mark.parametrize("way", CONFINED)
def test_apparmor(results: tuple[Path, Results], way: str) -> None:
    """QEMUs under libvirt's profile move a guest, and none of what they need of vmferry is denied to them."""
    said = json.loads((results[0] / "confined.json").read_text())[way]
    assert re.fullmatch(rf"moved by {CONFINED[way]} as libvirt-\S+ \(enforce\)", said), said


@pytest.mark.skipif(bool(without_libvirt()), reason=without_libvirt() or "-")
def test_apparmor_denies(results: tuple[Path, Results]) -> None:
    """It was another VM's socket, and one that is not of libvirt's layout, that they were kept from making; nothing else."""
    lines = (results[0] / "denied").read_text()
    names = re.findall(r'name="((?:/run/libvirt|/run/vmferry|/var/lib/libvirt)/[^"]*)"', lines)
    assert len(names) == 2 * len(CONFINED), lines
    for name in names:
        assert re.fullmatch(r"/run/libvirt/vmferry/\w+/migrate\.tunnelmigrate\.dest\.web2|/run/vmferry/migrate\.sock", name), lines
