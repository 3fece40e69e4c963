# SPDX-License-Identifier: LGPL-2.1-or-later
"""Users on booted hosts: the bus's policy, polkit and the service's sandbox together. Rules: tests/integration has more."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from vmlib.broker import BROKER, MIGRATION, PATH, PROPERTIES, BusError, Migration, wait_until
from vmlib.calls import DENIED, gone, managing, refused
from vmlib.fake_qemu import FakeQemu
from vmlib.nspawn import Host, TwoHosts
from vmlib.users import User
from vmlib.wire import Ticket

ALICE, BOB = "alice", "bob"
UIDS = {ALICE: 4101, BOB: 4102}
HOME = "/run/user/4101"  # alice's
TREASURE = "/run/treasure.sock"  # root's
RULES = "/etc/polkit-1/rules.d/10-test.rules"
RULE = """
polkit.addRule(function (action, subject) {
    var what = action.id.replace("org.vmferry.Broker1.", "");
    if (what == action.id)
        return polkit.Result.NOT_HANDLED;
    if (what == "manage" ? action.lookup("vm") == "lent" : subject.user == "alice")
        return polkit.Result.YES;
    return polkit.Result.NO;
});
"""


def restart_polkit(host: Host) -> None:
    """It watches its rules, but tells nobody when it has read them. As often as one likes."""
    host.systemctl("reset-failed", "polkit.service", check=False)  # it need not be loaded
    host.systemctl("restart", "polkit.service")


@pytest.fixture
def ruled(hosts: TwoHosts) -> Iterator[TwoHosts]:
    """alice may make migrations, and everybody manage that of the VM "lent".

    Her directory is mounted when the brokers run already, as at a login.
    """
    with ExitStack() as stack:
        for host in hosts:
            stack.callback(restart_polkit, host)
            stack.callback(host.run, "rm", RULES)
            host.run("tee", RULES, stdin=RULE)
            restart_polkit(host)
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


# ---- Who may ----


def user(host: Host, name: str, member: bool = True) -> User:
    """On the bus; as a member of the group vmferry, for the bus alone: polkit looks the groups up."""
    group = int(host.run("getent", "group", "vmferry").stdout.split(":")[2])
    return User(host.broker, UIDS[name], (group,) if member else ())  # type: ignore[arg-type]


def test_denied_without_yes(ruled: TwoHosts) -> None:
    """No call that does something is obeyed: to root's migration, to another user's, or to make one."""
    for host in ruled:
        with user(host, ALICE) as alice, user(host, BOB) as bob, ExitStack() as stack:
            of_root, of_alice = host.broker.prepare("web1"), alice.prepare("web2")
            pair = [stack.enter_context(closing(end)) for end in socket.socketpair()]
            for who, migration in ((alice, of_root), (bob, of_root), (bob, of_alice)):
                for call in (*managing(migration.path, pair[0].fileno()), (migration.path, MIGRATION, "Wait"),
                             (migration.path, MIGRATION, "Forget")):
                    text = refused(who.client.call, *call)
                    assert "polkit says no (org.vmferry.Broker1.manage)" in text and migration.id in text, (call, text)
                found = who.client.get_all(migration.path, MIGRATION)
                assert (found["State"], found["BandwidthLimit"]) == ("waiting", 0)
                assert str(migration.ticket) not in str(found)
            assert "prepare-incoming" in refused(bob.prepare, "web3")
            assert "start-outgoing" in refused(bob.outgoing, of_root.ticket, "web3")
            assert len(host.broker.list()) == 2
            gone(of_root, of_alice)


def test_allowed_with_yes(ruled: TwoHosts) -> None:
    """The rule goes by the VM, which the real polkit hears from the broker."""
    for host in ruled:
        with user(host, BOB) as bob, ExitStack() as stack:
            lent = host.broker.prepare("lent")
            for call in managing(lent.path, -1):
                if "h" in (call[3:4] or ("",))[0]:  # one end for each that takes one
                    pair = [stack.enter_context(closing(end)) for end in socket.socketpair()]
                    call = (*call[:-1], pair[0].fileno())
                for item in bob.client.call(*call):
                    item.close()
            lent.wait_finished()
            refused(bob.client.call, lent.path, MIGRATION, "Wait", error="org.vmferry.Error.Cancelled")
            bob.client.call(lent.path, MIGRATION, "Forget")
            assert host.broker.list() == []


def test_own_ticket(ruled: TwoHosts) -> None:
    """The client-id that leads to a ticket again is that of a user."""
    again = {"client-id": ("s", "mine")}
    for host in ruled:
        with user(host, ALICE) as alice:
            of_root = host.broker.prepare("web1", again)
            same = alice.prepare("web1")  # nor is a name that of one user
            own = alice.prepare("web2", again)
            assert own.id != of_root.id and alice.prepare("web2", again).ticket == own.ticket
            gone(of_root, same, own)


def test_without_polkit(ruled: TwoHosts) -> None:
    """Root needs none; whoever else would have to ask it may not."""
    for host in ruled:
        host.systemctl("mask", "--runtime", "--now", "polkit.service")
        try:
            with user(host, ALICE) as alice:
                of_root = host.broker.prepare("web1")
                for call in (lambda: alice.prepare("web2"), lambda: alice.outgoing(of_root.ticket or "", "web2")):
                    refused(call)
                gone(of_root)
        finally:
            host.systemctl("unmask", "--runtime", "polkit.service")
            host.systemctl("start", "polkit.service")


# ---- What alice names, and could not use herself ----


@contextmanager
def listening(host: Host, path: str, owner: str = "root") -> Iterator[socket.socket]:
    """A socket of that owner's, on which a process of root's listens. Nobody may have connected in the end."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(host.outside(path)))
        try:
            host.run("chown", owner, path)
            sock.listen()
            sock.setblocking(False)
            yield sock
            with pytest.raises(BlockingIOError):
                sock.accept()
        finally:
            host.run("rm", path)


def sockets(path: str) -> dict[str, tuple[str, Any]]:
    return {"sockets": ("a{ss}", {"migrate": path})}


PATH_NOT_ALLOWED = "org.vmferry.Error.PathNotAllowed"
AT_ONCE: list[tuple[str, dict[str, tuple[str, Any]], str]] = [
    # Of which method ("both", or it alone), options, and the error.
    ("both", sockets(TREASURE), PATH_NOT_ALLOWED),
    ("both", sockets("/run/user/4102/qemu.sock"), PATH_NOT_ALLOWED),
    ("both", sockets(f"{HOME}x/qemu.sock"), PATH_NOT_ALLOWED),
    ("both", sockets("/run/vmferry/helper.sock"), PATH_NOT_ALLOWED),
    ("both", {"socket-owner": ("s", "root")}, DENIED),
    ("both", {"socket-owner": ("s", "bob")}, DENIED),
    ("both", {"socket-owner": ("s", "alice:vmferry")}, DENIED),
    ("outgoing", sockets(f"{HOME}/../4102/s"), PATH_NOT_ALLOWED),
    ("outgoing", sockets(f"{HOME}/link/s"), PATH_NOT_ALLOWED),
    ("outgoing", sockets(f"{HOME}/of-root/s"), PATH_NOT_ALLOWED),
    ("outgoing", sockets(f"{HOME}/of-bob/s"), PATH_NOT_ALLOWED),
    ("outgoing", {"endpoint": ("s", f"unix:{TREASURE}")}, PATH_NOT_ALLOWED),
    ("outgoing", {"endpoint": ("s", "unix:/run/dbus/system_bus_socket")}, PATH_NOT_ALLOWED),
]


def test_refused_at_once(ruled: TwoHosts) -> None:
    host = ruled.b
    for name in ("of-root", "of-bob"):
        host.run("mkdir", "-m", "0777", f"{HOME}/{name}")
    host.run("chown", "bob", f"{HOME}/of-bob")
    host.run("ln", "-s", "/run", f"{HOME}/link", user=ALICE)
    try:
        with user(host, ALICE) as alice, listening(host, TREASURE):
            for method, options, error in AT_ONCE:
                text = refused(alice.outgoing, Ticket().encode(), "web1", options, error=error)
                assert method == "outgoing" or refused(alice.prepare, "web1", options, error=error) == text
            refused(alice.outgoing, Ticket(endpoints=(f"unix:{TREASURE}",)).encode(), "web1", error=PATH_NOT_ALLOWED)
        assert host.run("find", HOME, "/run", "-maxdepth", "2", "-name", "s").stdout == "", "nothing is made"
        assert host.broker.list() == []
    finally:
        host.run("rm", "-r", *(f"{HOME}/{name}" for name in ("of-root", "of-bob", "link")))


# What becomes of alice's socket until the broker connects to it: a command, who listens there, and the error.
LATER = {
    "dots": (f"{HOME}/../../treasure.sock", [], "", "leads out"),
    "link": (f"{HOME}/qemu.sock", ["ln", "-s", TREASURE, f"{HOME}/qemu.sock"], "", "symbolic link"),
    "linked directory": (f"{HOME}/d/treasure.sock", ["ln", "-s", "/run", f"{HOME}/d"], "", "symbolic link"),
    "root's": (f"{HOME}/qemu.sock", [], "root", "does not belong"),
    "bob's": (f"{HOME}/qemu.sock", [], BOB, "does not belong"),
    "default": ("", ["ln", "-s", TREASURE], "", "symbolic link"),
}


@pytest.mark.parametrize("what", LATER)
def test_refused_later(ruled: TwoHosts, what: str) -> None:
    """A socket that is not hers where hers was to be is not connected to, and her migration fails."""
    path, command, listener, words = LATER[what]
    host = ruled.b
    with user(host, ALICE) as alice, listening(host, TREASURE), ExitStack() as stack:
        migration = alice.prepare("web1", sockets(path) if path else {})
        if not path:
            path = migration.socket()
            command = [*command, path]
            stack.callback(host.run, "rmdir", path.rpartition("/")[0])  # with her link in it, it stayed
        if command:
            host.run(*command, user=ALICE)
            stack.callback(host.run, "rm", "-f", command[-1])
        if listener:
            stack.enter_context(listening(host, path, listener))
        failed = arrive(ruled, migration)
        assert failed["ErrorName"] == PATH_NOT_ALLOWED and words in failed["ErrorMessage"] and path in failed["ErrorMessage"]


def arrive(hosts: TwoHosts, migration: Migration) -> dict[str, Any]:
    """Its source's QEMU says something, so that the broker looks for its own; how that failed."""
    outgoing = hosts.a.broker.outgoing(migration.ticket or "")
    with FakeQemu.connect(outgoing.socket()) as source:
        source.send(b"memory")
        found = migration.wait_finished()
        outgoing.wait_finished()
    gone(outgoing, migration)
    return found


def test_another_listens(ruled: TwoHosts) -> None:
    """Whose the process is at a socket of hers is seen once it is connected to; it gets nothing."""
    path = f"{HOME}/qemu.sock"
    with user(ruled.b, ALICE) as alice, listening(ruled.b, path, ALICE) as sock:
        failed = arrive(ruled, alice.prepare("web1", sockets(path)))
        assert failed["ErrorName"] == PATH_NOT_ALLOWED and "runs as uid 0, not as uid 4101" in failed["ErrorMessage"]
        with sock.accept()[0] as connection:
            connection.settimeout(10)
            assert connection.recv(1) == b""


def test_another_connects(ruled: TwoHosts) -> None:
    """Only her own QEMU is taken for it, even where the mode of her socket lets others in."""
    host, path = ruled.a, f"{HOME}/qemu.sock"
    with user(host, ALICE) as alice:
        migration = alice.outgoing(Ticket(endpoints=()).encode(), "web1", sockets(path))
        refused_to = ("socat", "-u", "/dev/null", f"unix-connect:{path}")
        assert host.run(*refused_to, user=BOB, check=False).returncode != 0
        with FakeQemu.connect(host.outside(path)) as stranger:
            assert stranger.recv_until_eof() == b""
        gone(migration)
    assert host.run("ls", HOME).stdout == ""


def test_descriptors(ruled: TwoHosts) -> None:
    """Of what alice brings to her own migration nothing but a connected stream socket is taken; two the bus refuses."""
    with user(ruled.b, ALICE) as alice, ExitStack() as stack:
        migration = alice.prepare("web1")
        file = stack.enter_context(open("/dev/null", "rb"))
        listener, plain = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        listener.bind("")
        listener.listen()
        datagram = [stack.enter_context(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)][0]
        for fd in (file, listener, plain, datagram, alice.client.connection.sock):
            for call in (("AddStream", "sh", "migrate", fd.fileno()), ("AddPeerConnection", "h", fd.fileno())):
                with pytest.raises(BusError) as info:
                    alice.client.call(migration.path, MIGRATION, *call)
                assert info.value.name == "org.freedesktop.DBus.Error.InvalidArgs", info.value
        refused(alice.client.call, migration.path, MIGRATION, "AddPeerConnection", "hh", file.fileno(), plain.fileno())
        refused(alice.client.call, migration.path, MIGRATION, "OpenStream", "sh", "migrate", file.fileno())
        assert migration.get("State") == "waiting"
        gone(migration)


def test_only_the_group_brings_descriptors(ruled: TwoHosts) -> None:
    """Whoever else sends the broker a descriptor has it refused by the bus, whatever the call and the path."""
    for host in ruled:
        with user(host, ALICE, member=False) as alice, ExitStack() as stack:
            migration = alice.prepare("web1")
            end, other = (stack.enter_context(closing(end)) for end in socket.socketpair())
            for path in (migration.path, f"{PATH}/incoming/0123456789abcdef", "/"):
                for call in (("AddStream", "sh", "migrate", end.fileno()), ("AddPeerConnection", "h", end.fileno()),
                             ("Cancel", "h", end.fileno())):
                    text = refused(alice.client.call, path, MIGRATION, *call)
                    assert "polkit" not in text and "journal" not in text, text
            text = refused(alice.client.call, "/", PROPERTIES, "GetAll", "h", end.fileno())
            (stream,) = alice.client.call(migration.path, MIGRATION, "OpenStream", "s", "migrate")
            stream.close()
            assert migration.get("State") == "waiting"
            gone(migration)
        with user(host, ALICE) as member, ExitStack() as stack:
            end, other = (stack.enter_context(closing(end)) for end in socket.socketpair())
            migration = member.prepare("web2")
            member.client.call(migration.path, MIGRATION, "AddPeerConnection", "h", end.fileno())
            gone(migration)
