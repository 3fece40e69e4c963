# SPDX-License-Identifier: LGPL-2.1-or-later
"""The two hosts themselves: vmlib/nspawn.py."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from vmlib.broker import wait_until
from vmlib.nspawn import TwoHosts, remove_cgroup


def test_buses(hosts: TwoHosts) -> None:
    for host, name in ((hosts.a, "dbus-daemon"), (hosts.b, "dbus-broker-lau")):
        pid = host.show("dbus.service", "MainPID")
        assert host.run("cat", f"/proc/{pid}/comm").stdout.strip() == name
        assert host.run("hostname").stdout == f"host-{host.name}\n"
        assert host.failed_units() == []


def test_users(hosts: TwoHosts) -> None:
    assert hosts.a.run("id", "-un", user="alice").stdout == "alice\n"
    for host in hosts:  # polkit has an opinion
        said = host.busctl("call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
                           "org.freedesktop.systemd1.Manager", "Reexecute", user="bob", check=False)
        assert "Interactive authentication required" in said


def test_network(hosts: TwoHosts) -> None:
    """From a to b, and cut, and mended."""
    talk = ["socat", "-T1", "-", f"tcp:{hosts.b.address}:7,connect-timeout=1"]
    echo = subprocess.Popen([*hosts.b.enter_light, "socat", "tcp-listen:7,fork", "exec:cat"])
    try:
        wait_until(lambda: hosts.a.run(*talk, stdin="hello", check=False).stdout == "hello", "an echo")
        hosts.cut()
        try:
            assert hosts.a.run(*talk, stdin="hello", check=False).returncode != 0
        finally:
            hosts.mend()
        wait_until(lambda: hosts.a.run(*talk, stdin="hello", check=False).stdout == "hello", "an echo again")
    finally:
        echo.kill()
        echo.wait(10)


def test_hosts_end_with_their_maker(tmp_path: Path) -> None:
    """However it ends: no process of theirs is left."""
    pids = tmp_path / "pids"
    code = f"from vmlib.nspawn import *; h = TwoHosts(); open({str(pids)!r}, 'w').write(" \
           "f'{h.a.leader} {h.b.leader} {h.shared} {h.a.cgroup} {h.b.cgroup}\\n'); import time; time.sleep(600)"
    maker = subprocess.Popen([sys.executable, "-B", "-c", code],
                             env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "lib")})
    try:
        wait_until(lambda: pids.exists() and pids.read_text().endswith("\n"), "the hosts are up", 60)
    finally:
        maker.send_signal(signal.SIGKILL)
        maker.wait(10)
    *leaders, shared, cgroup_a, cgroup_b = pids.read_text().split()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in leaders), "the hosts are gone", 30)
    shutil.rmtree(shared)
    for cgroup in (cgroup_a, cgroup_b):
        wait_until(lambda: remove_cgroup(Path(cgroup)), "its control group is empty", 30)
