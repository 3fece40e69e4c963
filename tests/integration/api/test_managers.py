# SPDX-License-Identifier: LGPL-2.1-or-later
"""The examples of an ordinary manager move a real guest, through a network that is lost for a moment."""

from __future__ import annotations

import re
import sys
import threading

import pytest
from vmlib.broker import ROOT, Migration, build_dir, running, wait_until
from vmlib.hosts import Hosts, cancel_and_wait
from vmlib.migration import CONVERGE, NEVER_CONVERGE, Pair
from vmlib.proxy import Proxy

EXAMPLES = ROOT / "tests" / "examples"
MANAGERS = {"c": [build_dir() / "tests" / "examples" / "manager"], "python": [sys.executable, EXAMPLES / "manager.py"],
            "shell": [EXAMPLES / "manager.sh"]}


@pytest.mark.qemu
@pytest.mark.parametrize("language", MANAGERS)
def test_manager_moves_a_real_guest(hosts: Hosts, needs_qemu: None, language: str) -> None:
    other = hosts.prepare("other")  # opens the port, so that the proxy can be told of it
    (endpoint,) = hosts.destination.get("Endpoints")
    passes, lines = threading.Event(), []  # type: ignore[var-annotated]
    passes.set()
    with Pair(hosts.workdir, 32, parameters=NEVER_CONVERGE) as pair, Proxy(endpoint, begin=passes) as proxy:
        pair.source.wait_sweeps()
        words = [*MANAGERS[language], hosts.source.bus.address, hosts.destination.bus.address, pair.source.qmp_path,
                 pair.destination.qmp_path, proxy.endpoint]
        with running(words) as manager:
            reader = threading.Thread(target=lambda: [lines.append(line.rstrip()) for line in manager.stdout or ()], daemon=True)
            reader.start()
            wait_until(lambda: any(line[3] == "active" for line in hosts.source.list()), "it is active", 20)
            outgoing = Migration(hosts.source, hosts.source.list()[0][5])
            wait_until(lambda: outgoing.get("Phase") == "pre-copy", "the manager reports", 20)
            passes.clear()
            proxy.cut()
            wait_until(lambda: any("interrupted" in line for line in lines), "the manager says that it is interrupted", 20)
            passes.set()
            wait_until(lambda: outgoing.get("Reconnects") == 1 and outgoing.get("State") == "active", "it goes on", 20)
            pair.source.set_parameters(CONVERGE)
            status = manager.wait(60)
            reader.join(60)
            assert (status, manager.stderr.read()) == (0, ""), lines  # type: ignore[union-attr]
        moved = lines.index("outcome moved")
        # What the outcome and the end change is heard of after it, in as many signals as the broker sends.
        assert any("phase pre-copy" in line for line in lines) and lines[-1] == "result done", lines
        assert all(re.fullmatch("(state (active|finished)|phase (pre-copy|switchover)).*", line) for line in lines[moved + 1:-1]), lines
        pair.assert_unharmed()
    (incoming,) = [line[5] for line in hosts.destination.list() if line[1] == "web1"]
    for migration in (outgoing, Migration(hosts.destination, incoming)):
        assert migration.wait_finished()["Outcome"] == "moved"
    cancel_and_wait(other)
