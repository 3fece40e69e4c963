#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measures 'vmferryctl migrate DOMAIN HOST' beside libvirt's own ways, on two booted hosts, interleaved, in one run.

    sudo VMFERRY_BUILD=$PWD/build-test tests/bench/libvirt.py [--rounds=N] [--update-docs]

Idle domains of 256 MiB go to and fro between two hosts with Debian's libvirt (tests/lib/vmlib): one whose memory is empty, and
one that uses 192 MiB of it. What counts is the time that the command takes, and the CPU that it and all daemons of both hosts
take, QEMU left out.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from vmlib.libvirt import Libvirt  # noqa: E402
from vmlib.nspawn import Host, TwoHosts, available  # noqa: E402

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
TICK = os.sysconf("SC_CLK_TCK")
FILL = "/var/lib/libvirt/images/fill.bin"
_DOMAIN = """
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os><features><acpi/></features>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/><memballoon model='none'/></devices>
  {more}
</domain>
"""
_LOADER = ("<qemu:commandline><qemu:arg value='-device'/>"
           f"<qemu:arg value='loader,file={FILL},addr=0x2000000,force-raw=on'/></qemu:commandline>")
DOMAINS = {"empty": "", "used": _LOADER}
VIRSH = ["virsh", "migrate", "{vm}", "qemu+ssh://{host}/system", "--live", "--p2p", "--persistent", "--undefinesource"]
WAYS: dict[str, list[str]] = {
    "**vmferryctl migrate**": ["vmferryctl", "migrate", "{vm}", "{host}", "--quiet"],
    "virsh, `--tunnelled` (over ssh)": [*VIRSH, "--tunnelled"],
    "virsh, native TCP, in clear": VIRSH,
    "virsh, native, `--tls`": [*VIRSH, "--tls"],
}


def make_certificates(hosts: TwoHosts) -> None:
    """QEMU's, which --tls wants, in the place where it looks for them."""
    where = hosts.shared
    subprocess.run(["sh", "-ec", f"""
        cd {where}; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca \
            -keyout ca.key -out ca.pem 2> /dev/null
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=host -keyout host.key -out host.csr 2> /dev/null
        echo subjectAltName=DNS:host-a,DNS:host-b > names
        openssl x509 -req -in host.csr -CA ca.pem -CAkey ca.key -days 2 -extfile names -out host.pem 2> /dev/null"""], check=True)
    for host in hosts:
        host.run("sh", "-ec", f"""
            mkdir -p /etc/pki/qemu; cd /etc/pki/qemu; cp {where}/ca.pem ca-cert.pem
            for end in client server; do cp {where}/host.pem $end-cert.pem; cp {where}/host.key $end-key.pem; done
            chmod 644 *""")


def cgroup_cpu(host: Host, name: str) -> float:
    path = host.outside(f"/sys/fs/cgroup/{name}/cpu.stat")
    return int(path.read_text().split()[1]) / 1e6 if path.exists() else 0


def daemons_cpu(host: Host) -> float:
    """All but QEMU, which is in the group of its libvirtd; so that one is asked itself, with the ssh that it has started."""
    times = host.run("sh", "-c", "cat /proc/$(systemctl show -P MainPID libvirtd)/stat").stdout.rpartition(")")[2].split()
    libvirtd = sum(int(times[i]) for i in range(11, 15)) / TICK
    groups = sum(cgroup_cpu(host, name) for name in ("system.slice", "user.slice", "vmferry.slice", "init.scope"))
    return groups - cgroup_cpu(host, "system.slice/libvirtd.service") + libvirtd


def children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_cpu(hosts: TwoHosts, move: Callable[[], None]) -> tuple[float, float]:
    """The wall time and the CPU of a move."""
    before = sum(daemons_cpu(host) for host in hosts)
    children, began = children_cpu(), time.monotonic()
    move()
    wall, command = time.monotonic() - began, children_cpu() - children
    time.sleep(1)  # helpers and sessions end
    return wall, sum(daemons_cpu(host) for host in hosts) - before + command


Results = dict[tuple[str, str], list[tuple[float, float]]]


def measure(rounds: int) -> Results:
    found: Results = {(way, vm): [] for vm in DOMAINS for way in WAYS}
    with TwoHosts() as hosts, Libvirt(hosts):
        make_certificates(hosts)
        for host in hosts:
            host.default_spares()
            host.run("sh", "-ec", f"head -c 192M /dev/urandom > {FILL}; chmod 644 {FILL}; chmod 711 /var/lib/libvirt/images")
        for vm, more in DOMAINS.items():
            hosts.a.run("virsh", "-q", "define", "/dev/stdin", stdin=_DOMAIN.format(name=vm, more=more))
            hosts.a.run("virsh", "-q", "start", vm)
        time.sleep(5)  # their firmware has found nothing to start
        here, there = hosts.a, hosts.b
        for number in range(rounds + 1):
            for way, command in WAYS.items():
                for vm in DOMAINS:
                    argv = [word.format(vm=vm, host=f"host-{there.name}") for word in command]
                    result = measure_cpu(hosts, lambda argv=argv, host=here: host.run(*argv, timeout=120))  # type: ignore[misc]
                    if number > 0:  # the first one fills caches
                        found[way, vm].append(result)
                        print(f"{way}, {vm}: {result[0]:.2f} s, {result[1]:.2f} CPU-s", flush=True)
                here, there = there, here
        for vm in DOMAINS:
            here.run("virsh", "-q", "destroy", vm)
    return found


def cell(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def table(found: Results) -> str:
    lines = ["| | empty: seconds | empty: CPU-s | 192 MiB used: seconds | 192 MiB used: CPU-s |", "|---|---|---|---|---|"]
    for way in WAYS:
        cells = [cell([one[i] for one in found[way, vm]]) for vm in DOMAINS for i in (0, 1)]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    rounds = len(next(iter(found.values())))
    return "\n".join([f"{rounds} rounds, interleaved; medians, least and most. Load average of the machine meanwhile: "
                      f"{os.getloadavg()[2]:.0f}, with {os.cpu_count()} CPUs.", "", *lines])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--update-docs", action="store_true", help="writes the table into docs/performance.md")
    options = parser.parse_args()
    if why := available():
        print(why, file=sys.stderr)
        return 1
    text = table(measure(options.rounds))
    print(text)
    if options.update_docs:
        page = DOCUMENT.read_text()
        DOCUMENT.write_text(re.sub(r"(<!-- bench:libvirt -->\n).*?(<!-- /bench -->)", lambda m: f"{m[1]}{text}\n{m[2]}", page,
                                   flags=re.S))
    return 0


if __name__ == "__main__":
    sys.exit(main())
