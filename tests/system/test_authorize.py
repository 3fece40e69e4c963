# SPDX-License-Identifier: LGPL-2.1-or-later
"""Users on booted hosts: the bus's policy, polkit and the service's sandbox together. Rules: tests/integration has more."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from vmlib.broker import BROKER, MIGRATION, PATH, wait_until
from vmlib.nspawn import Host, TwoHosts

ALICE = "alice"
HOME = "/run/user/4101"  # alice's
RULES = "/etc/polkit-1/rules.d/10-test.rules"
RULE = """
polkit.addRule(function (action, subject) {
    if (action.id.indexOf("org.vmferry.Broker1.") !== 0)
        return;
    if (subject.user == "alice" && action.id != "org.vmferry.Broker1.manage")
        return polkit.Result.YES;
});
"""


@pytest.fixture
def ruled(hosts: TwoHosts) -> Iterator[TwoHosts]:
    """alice may; alice's directory is mounted when the brokers run already, as at a login."""
    with ExitStack() as stack:
        for host in hosts:
            stack.callback(host.systemctl, "restart", "polkit.service")
            stack.callback(host.run, "rm", RULES)
            host.run("tee", RULES, stdin=RULE)
            host.systemctl("restart", "polkit.service")
            host.call(PATH, BROKER, "ListMigrations")
            host.run("mkdir", HOME)
            stack.callback(host.run, "rmdir", HOME)
            host.run("mount", "-t", "tmpfs", "-o", "mode=0700,uid=4101,gid=4101", "tmpfs", HOME)
            stack.callback(host.run, "umount", HOME)
        yield hosts


def prepare(host: Host, user: str | None, vm: str, *options: str, check: bool = True) -> tuple[str, str]:
    """Without a user, as root. The path and the ticket; with check=False ("", what busctl said)."""
    said = host.call(PATH, BROKER, "PrepareIncoming", "sa{sv}", vm, *(options or ("0",)), user=user, check=check)
    found = re.fullmatch(r'os "(\S+)" "(\S+)"\n', said)
    return (found[1], found[2]) if found else ("", said)


@contextmanager
def echoing(host: Host, path: str) -> Iterator[None]:
    """A stand-in for alice's QEMU: sends back what comes."""
    echo = subprocess.Popen([*host.enter_light, "setpriv", "--reuid=4101", "--regid=4101", "--clear-groups",
                             "socat", f"unix-listen:{path}", "exec:cat"])
    try:
        wait_until(lambda: host.run("test", "-S", path, check=False).returncode == 0, "it listens")
        yield
    finally:
        echo.terminate()
        echo.wait(10)


@pytest.mark.parametrize("group", ["", ":vmferry"])
def test_socket_owner(hosts: TwoHosts, group: str) -> None:
    """Root has them made for alice, or for her and a group: theirs by owner and mode, and nobody else's."""
    owner, (directory, socket) = ("socket-owner", "s", f"alice{group}"), (("700", "600"), ("770", "660"))[bool(group)]
    ours = "vmferry" if group else "alice"
    incoming, ticket = prepare(hosts.b, None, "web1", "1", *owner)
    said = hosts.a.call(PATH, BROKER, "StartOutgoing", "ssa{sv}", "web1", ticket, "1", *owner)
    outgoing = said.split('"')[1]
    for host, path in ((hosts.a, outgoing), (hosts.b, incoming)):
        below = f"/run/vmferry/{path.removeprefix(PATH + '/')}"
        assert host.run("stat", "--format=%U %G %a", below).stdout == f"alice {ours} {directory}\n"
    here = hosts.a.get(outgoing, MIGRATION, "Sockets")["migrate"]
    assert hosts.a.run("stat", "--format=%U %G %a", here).stdout == f"alice {ours} {socket}\n"
    refused = hosts.a.run("socat", "-u", "/dev/null", f"unix-connect:{here}", user="bob", check=False)
    assert refused.returncode != 0 and "Permission denied" in refused.stderr
    with echoing(hosts.b, hosts.b.get(incoming, MIGRATION, "Sockets")["migrate"]):
        assert hosts.a.run("socat", "-t10", "-", f"unix-connect:{here}", user=ALICE, stdin="memory").stdout == "memory"
    for host, path in ((hosts.a, outgoing), (hosts.b, incoming)):
        assert host.call(path, MIGRATION, "Wait") == 's "done"\n'


@pytest.mark.parametrize("named", [False, True])
def test_migration_of_a_user(ruled: TwoHosts, named: bool) -> None:
    """From alice's QEMU to alice's QEMU, at the broker's paths and at her own ones."""
    own = ("1", "sockets", "a{ss}", "1", "migrate", f"{HOME}/qemu.sock") if named else ("0",)
    incoming, ticket = prepare(ruled.b, ALICE, "web1", *own)
    said = ruled.a.call(PATH, BROKER, "StartOutgoing", "ssa{sv}", "web1", ticket, *own, user=ALICE)
    outgoing = said.split('"')[1]
    here, there = (host.get(path, MIGRATION, "Sockets")["migrate"]
                   for host, path in ((ruled.a, outgoing), (ruled.b, incoming)))
    assert (here == f"{HOME}/qemu.sock") == named
    assert ruled.a.run("stat", "--format=%U %a", here).stdout == "alice 600\n"
    with echoing(ruled.b, there):
        assert ruled.a.run("socat", "-t10", "-", f"unix-connect:{here}", user=ALICE, stdin="memory").stdout == "memory"
    for host, path in ((ruled.a, outgoing), (ruled.b, incoming)):
        assert host.call(path, MIGRATION, "Wait", user=ALICE) == 's "done"\n'
        host.call(path, MIGRATION, "Forget", user=ALICE)
    for host in ruled:
        assert not host.run("ls", HOME).stdout, "its socket is gone"
