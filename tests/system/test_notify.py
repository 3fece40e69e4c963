# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferry-notify.service of a user: off by default; once it is started it tells of this user's migrations alone."""

import json
import re
import shutil
from pathlib import Path

from vmlib import notifications
from vmlib.broker import BROKER, MIGRATION, PATH, wait_until
from vmlib.nspawn import Host, TwoHosts

UNIT = "vmferry-notify.service"
SHOWN = "/run/user/4101/shown"


def cancelled(host: Host, vm: str, user: str | None = None) -> None:
    """A migration that ends at once."""
    found = re.match(r'os "(\S+)"', host.call(PATH, BROKER, "PrepareIncoming", "sa{sv}", vm, "0", user=user))
    assert found
    host.call(found[1], MIGRATION, "Cancel", user=user)


def test_unit(hosts: TwoHosts) -> None:
    host, script = hosts.a, hosts.shared / "notifications.py"
    shutil.copy(Path(notifications.__file__), script)

    def alices(*words: str, check: bool = True) -> str:
        return host.run(words[0], "--user", "--machine=alice@", *words[1:], check=check).stdout.strip()

    host.run("usermod", "-aG", "vmferry", "alice")
    host.systemctl("start", "user@4101.service")
    try:
        assert alices("systemctl", "is-enabled", UNIT, check=False) == "disabled"
        alices("systemd-run", "--quiet", "--unit=desktop", "python3", str(script), "unix:path=/run/user/4101/bus", SHOWN)
        alices("systemctl", "start", UNIT)
        wait_until(lambda: "is told" in host.journal_text(f"_SYSTEMD_USER_UNIT={UNIT}"), "it follows the broker")
        cancelled(host, "root1")
        cancelled(host, "alice1", user="alice")
        shown = wait_until(lambda: host.run("cat", SHOWN, check=False).stdout, "a notification")
        assert [json.loads(line)["title"] for line in shown.splitlines()] == ["The migration of VM 'alice1' was cancelled"]
        assert alices("systemctl", "is-active", UNIT) == "active"
        alices("systemctl", "stop", UNIT)
        assert alices("systemctl", "show", "--property=Result", "--value", UNIT) == "success"
    finally:
        host.systemctl("stop", "user@4101.service")
        host.run("gpasswd", "-d", "alice", "vmferry")
