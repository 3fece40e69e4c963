# SPDX-License-Identifier: LGPL-2.1-or-later
"""The broker and its helpers as services: how they come, how they are confined, and how they go.

VMFERRY_LONG=1 makes it more of each.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from vmlib.broker import BROKER, MIGRATION, PATH, settled, wait_until
from vmlib.hosts import Tunnel, assert_failed, cancel_and_wait
from vmlib.nspawn import DROPIN, Host, HostMigration, TwoHosts

LONG = bool(os.environ.get("VMFERRY_LONG"))
MANY = 200 if LONG else 20  # migrations, one after the other


def carry(tunnel: Tunnel, size: int = 1 << 20) -> None:
    """Bytes both ways through a connected tunnel, and its good end."""
    source, destination = tunnel.open_channel()
    with source, destination:
        there, back = source.send_pattern(1, size, shut=True), destination.send_pattern(2, size, shut=True)
        assert destination.recv_pattern_until_eof(1) == source.recv_pattern_until_eof(2) == size
        there.result(20)
        back.result(20)
    tunnel.assert_done()


# How they are confined.


def exposure(host: Host, unit: str) -> float:
    said = host.run("systemd-analyze", "security", "--no-pager", unit, check=False).stdout
    found = re.search(rf"exposure level for {unit}: (\d+\.\d)", said)
    assert found, said
    return float(found[1])


def test_exposure(hosts: TwoHosts) -> None:
    """What systemd-analyze thinks of the units; it rises where something is taken out of them."""
    for host in hosts:
        helper = host.broker.prepare()
        assert exposure(host, helper.unit()) <= 0.4
        assert exposure(host, giver_of(host)) <= 0.7
        helper.cancel()
        helper.wait_finished()
        assert exposure(host, "vmferryd.service") <= 1.6


def giver_of(host: Host) -> str:
    """The unit of who gives sockets away for the broker that runs."""
    (unit,) = wait_until(lambda: host.units("vmferry-giver@*"), "there is a giver")
    return unit


def status_of(host: Host, unit: str) -> dict[str, str]:
    """/proc/PID/status of its main process."""
    lines = host.run("cat", f"/proc/{host.show(unit, 'MainPID')}/status").stdout.splitlines()
    return dict(line.split(":\t", 1) for line in lines)


def test_verify(hosts: TwoHosts) -> None:
    both = ["vmferryd.service", "vmferry-helper.socket", "vmferry-helper@1.service", "vmferry.slice"]
    giver = ["vmferry-giver.socket", "vmferry-giver@1.service"]
    for scope, user, units in (("system", None, both + giver), ("user", "alice", both)):
        done = hosts.a.run("env", "XDG_RUNTIME_DIR=/tmp", "systemd-analyze", "verify", f"--{scope}",
                           *(f"/usr/lib/systemd/{scope}/{unit}" for unit in units), user=user)
        assert (done.stdout, done.stderr) == ("", "")


def test_helper_is_alone(hosts: TwoHosts) -> None:
    """Of two helpers each has its own uid, no capability, no network and no more than its seccomp filter permits."""
    first, second = (hosts.connect(f"web{i}") for i in range(2))
    try:
        uids = []
        for migration in (first.outgoing, second.outgoing):
            assert isinstance(migration, HostMigration)
            pid, status = hosts.a.show(migration.unit(), "MainPID"), status_of(hosts.a, migration.unit())
            assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
            uids.append(int(status["Uid"].split()[0]))
            links = hosts.a.run("nsenter", "-t", pid, "-n", "ip", "-o", "link").stdout.splitlines()
            assert len(links) == 1 and " lo:" in links[0]
        assert len(set(uids)) == 2 and all(61184 <= uid <= 65519 for uid in uids), uids
    finally:
        for tunnel in (first, second):
            tunnel.outgoing.cancel()
            for end in tunnel.ends:
                end.wait_finished()


def test_sockets_are_the_broker_s(hosts: TwoHosts) -> None:
    for host in hosts:
        host.get(PATH, BROKER, "Version")
        for name in ("helper", "giver"):
            done = host.run("socat", "-u", "/dev/null", f"unix-connect:/run/vmferry/{name}.sock,type=5", user="alice",
                            check=False)
            assert done.returncode != 0 and "Permission denied" in done.stderr
        assert host.run("stat", "--format=%U:%a", "/run/vmferry/giver.sock").stdout == "root:600\n"


def test_capabilities(hosts: TwoHosts) -> None:
    """The broker may pass by modes, the giver may change owners; neither may more, and neither is root."""
    for host in hosts:
        host.get(PATH, BROKER, "Version")
        for unit, capability in (("vmferryd.service", CAP_DAC_OVERRIDE), (giver_of(host), CAP_CHOWN)):
            status = status_of(host, unit)
            assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {f"{1 << capability:016x}"}
            assert "0" not in status["Uid"].split() + status["Gid"].split()
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


CAP_CHOWN, CAP_DAC_OVERRIDE = 0, 1
# To be root by, where modes do not count.
WRITTEN, READ = ("/run/systemd/system", "/run/udev", "/run/sudo", "/run/polkit-1"), ("/etc/shadow", "/etc/gshadow", "/etc/ssh")


@contextmanager
def there(host: Host, *paths: str) -> Iterator[None]:
    """Directories that are there for as long as the block lasts."""
    made = [path for path in paths if host.run("test", "-e", path, check=False).returncode != 0]
    try:
        host.run("mkdir", "-p", *paths)
        yield
    finally:
        for path in made:
            host.run("rm", "-rf", path)


def test_out_of_reach(hosts: TwoHosts) -> None:
    """What the broker cannot write or read in its mounts, though no mode counts for it; what it needs it can."""
    host = hosts.b
    host.systemctl("stop", "vmferryd.service")
    with there(host, *WRITTEN, "/etc/ssh", "/etc/ssh/below"):
        host.get(PATH, BROKER, "Version")
        within = ("nsenter", "-t", str(host.broker_pid), "-m", "--")
        for path in WRITTEN:
            done = host.run(*within, "touch", f"{path}/planted", check=False)
            assert done.returncode != 0 and "Read-only file system" in done.stderr, done
        for path in READ:  # a node without any right, and empty, stands for it
            assert host.run(*within, "stat", "--format=%a", path).stdout == "0\n"
        assert not host.run(*within, "find", "/etc/ssh", "-mindepth", "1").stdout
        assert not host.run(*within, "cat", "/etc/shadow", check=False).stdout
        migration = host.broker.prepare("named", {"socket-owner": ("s", "alice:bob")})
        found = host.run("stat", "--format=%U:%G:%a", f"/run/vmferry/incoming/{migration.id}").stdout
        assert found == "alice:bob:770\n"
        migration.cancel()
        migration.wait_finished()
        migration.call("Forget")
        host.systemctl("stop", "vmferryd.service")


def test_giver_killed(hosts: TwoHosts) -> None:
    """Nobody notices: the next socket is given away by another one. Where there can be none the caller is told why."""
    host = hosts.b
    host.broker.prepare("first").cancel()
    pid, giver = host.broker_pid, giver_of(host)
    host.systemctl("kill", "--signal=KILL", giver)
    wait_until(lambda: giver not in host.units("vmferry-giver@*"), "it is gone")
    migration = host.broker.prepare("second")
    assert host.run("stat", "--format=%U", f"/run/vmferry/incoming/{migration.id}").stdout == "root\n"
    migration.cancel()
    migration.wait_finished()
    other = hosts.a.broker.prepare("other")
    ticket = other.ticket or ""
    begins = host.journal_cursor()
    host.run("rm", "/run/vmferry/giver.sock")
    try:
        host.systemctl("kill", "--signal=KILL", giver_of(host))
        said = host.call(PATH, BROKER, "PrepareIncoming", "sa{sv}", "third", "0", check=False)
        assert "Cannot make the directory /run/vmferry/incoming/" in said, said
        assert "vmferry-giver" in said and "systemctl status vmferry-giver.socket" in said, said
        host.run("mkdir", "/run/given")
        said = host.call(PATH, BROKER, "StartOutgoing", "ssa{sv}", "third", ticket, "1", "sockets", "a{ss}", "1", "migrate",
                         "/run/given/sock", check=False)
        assert "Cannot make the socket /run/given/sock: vmferry-giver" in said, said
        assert "systemctl status vmferry-giver.socket" in said, said
        host.systemctl("stop", "vmferry-giver.socket")
        assert host.broker_pid == pid
    finally:
        host.run("rm", "-rf", "/run/given")
        host.systemctl("restart", "vmferry-giver.socket")
    host.broker.prepare("fourth").cancel()
    assert host.broker_pid == pid
    other.cancel()
    other.wait_finished()
    lines = [entry["MESSAGE"] for entry in host.journal_since(begins, _SYSTEMD_UNIT="vmferryd.service", PRIORITY="3")]
    assert lines and all("giver" in line for line in lines)


def test_bus_policy(hosts: TwoHosts) -> None:
    """A user reads, and calls what is listed; the rest, and the name, the bus denies him."""
    for host in hosts:
        assert host.busctl("call", "org.vmferry.Broker1", PATH, BROKER, "ListMigrations", user="alice") == "a(ssssuo) 0\n"
        assert "0.1" in host.busctl("get-property", "org.vmferry.Broker1", PATH, BROKER, "Version", user="alice")
        assert PATH in host.busctl("tree", "org.vmferry.Broker1", user="alice")
        assert host.busctl("call", "org.vmferry.Broker1", PATH, BROKER, "List", "a{sv}", "0", user="alice") == "aa{sv} 0\n"
        for method in ("Report", "ReportProgress"):  # the broker is asked, and knows no such object
            said = host.busctl("call", "org.vmferry.Broker1", PATH, MIGRATION, method, "sa{sv}", "x", "0", user="alice", check=False)
            assert "denied" not in said.lower() and "rejected" not in said.lower(), said
        said = host.busctl("call", "org.vmferry.Broker1", PATH, BROKER, "Reload", user="alice", check=False)
        assert "denied" in said.lower() or "rejected" in said.lower(), said
        for call in ((BROKER, "Unheard"), (MIGRATION, "Unheard"), ("org.example.Other", "Wait")):
            said = host.busctl("call", "org.vmferry.Broker1", PATH, *call, user="alice", check=False)
            assert "denied" in said.lower() or "rejected" in said.lower(), said
            said = host.busctl("call", "org.vmferry.Broker1", PATH, *call, check=False)
            assert "denied" not in said.lower() and "rejected" not in said.lower(), said
        said = host.run("systemd-run", "--quiet", "--pipe", "--wait", "--uid=bob", "dbus-test-tool", "echo",
                        "--system", "--name=org.vmferry.Broker1", check=False)
        assert said.returncode != 0


def test_memory(hosts: TwoHosts) -> None:
    """What the helpers may use has an end, each by itself and all together."""
    hosts.a.get(PATH, BROKER, "Version")
    (spare,) = wait_until(hosts.a.helpers, "the spare is there")
    assert [hosts.a.show(spare, name) for name in ("MemoryHigh", "MemoryMax")] == [str(1400 << 20), str(1536 << 20)]
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < int(hosts.a.show("vmferry.slice", "MemoryMax")) <= total // 4 + (1 << 20)


CONFIG = "/etc/vmferry/vmferryd.conf.d/test.conf"


def test_reload(hosts: TwoHosts) -> None:
    """New settings count while a migration goes on; of a wrong file nothing does, and systemctl says so."""
    host, unit = hosts.b, "vmferryd.service"
    try:
        tunnel = hosts.connect(expire_usec=("t", 600_000_000))
        pid, begins = host.broker_pid, host.journal_cursor()
        host.run("mkdir", "-p", CONFIG.rpartition("/")[0])
        host.run("tee", CONFIG, stdin="[Broker]\nMaxMigrations=7\n")
        host.systemctl("reload", unit)
        assert host.get(PATH, BROKER, "MaxMigrations") == 7
        host.run("tee", CONFIG, stdin="[Broker]\nMaxMigrations=8\nWindowMiB=0\n")
        assert host.run("systemctl", "reload", unit, check=False).returncode != 0
        assert host.get(PATH, BROKER, "MaxMigrations") == 7 and host.broker_pid == pid
        said = [entry["MESSAGE"] for entry in host.journal_since(begins, _SYSTEMD_UNIT=unit)]
        assert any(f"{CONFIG}:3: WindowMiB=0 is no number from 1 to 1024" in line for line in said), said
        assert host.show(unit, "ActiveState") == "active"
        carry(tunnel)
    finally:
        host.run("rm", "-f", CONFIG)
    host.systemctl("reload", unit)
    assert host.get(PATH, BROKER, "MaxMigrations") == 256


# How they come and go. (How the broker goes by itself: test_idle.py.)


@pytest.mark.parametrize("what", [
    "ExecStart=\nExecStart=/nothing/vmferryd",  # 203
    "ExecStart=\nExecStart=/bin/sh -c 'exit 127'",
    "User=nothing",  # 217
    "ExecStart=\nExecStart=/usr/libexec/vmferry/vmferryd --runtime-dir=/proc/nothing",  # before it is ready
])
def test_broken_installation(hosts: TwoHosts, what: str) -> None:
    """What no start mends is tried once, and again with the next call; when it is mended that one is answered."""
    host = hosts.a
    with host.configured(DROPIN, f"[Service]\n{what}\n"):
        host.systemctl("start", "vmferryd.service", check=False)
        assert [host.show("vmferryd.service", name) for name in ("ActiveState", "NRestarts")] == ["failed", "0"]
    assert host.get(PATH, BROKER, "ActiveMigrations") == 0
    assert host.failed_units() == []


def test_watchdog(hosts: TwoHosts) -> None:
    """A broker that hangs is ended and started again."""
    with hosts.a.configured(DROPIN, "[Service]\nWatchdogSec=1s\n"):
        hosts.a.broker.get("Version")
        pid = hosts.a.broker_pid
        hosts.a.run("kill", "-STOP", str(pid))
        wait_until(lambda: hosts.a.broker_pid not in (0, pid), "another one is there", 60)
        assert hosts.a.broker.get("ActiveMigrations") == 0
    assert hosts.a.failed_units() == []


def test_helper_killed(hosts: TwoHosts) -> None:
    """Its migration fails, and no other one."""
    begins = hosts.a.journal_cursor()
    killed, other = hosts.connect("killed"), hosts.connect("other")
    assert isinstance(killed.outgoing, HostMigration)
    unit = killed.outgoing.unit()
    with channel_of(killed) as lost:
        hosts.a.systemctl("kill", "--signal=KILL", unit)
        found = assert_failed(killed.outgoing, "failed", "HelperFailed")
        assert unit in found["ErrorMessage"]
        lost()
    cancel_and_wait(killed.incoming)
    carry(other)
    wait_until(lambda: unit not in hosts.a.helpers(), "the unit is gone")
    assert hosts.a.failed_units() == []
    lines = [entry for entry in hosts.a.journal_since(begins, _SYSTEMD_UNIT="vmferryd.service")
             if int(entry["PRIORITY"]) <= 3]
    assert len(lines) == 1 and "killed" in lines[0]["MESSAGE"] and unit in lines[0]["MESSAGE"]


@contextmanager
def channel_of(tunnel: Tunnel) -> Iterator[Callable[[], None]]:
    """A channel through it; what is yielded says that the source's QEMU has lost it."""
    source, destination = tunnel.open_channel()
    with source, destination:
        yield lambda: wait_until(source.at_eof, "the source's QEMU learns of it")


def test_spare_killed(hosts: TwoHosts) -> None:
    """The next migration does without."""
    hosts.a.broker.get("Version")
    wait_until(lambda: len(hosts.a.helpers()) == 1, "there is a spare")
    (spare,) = hosts.a.helpers()
    hosts.a.systemctl("kill", "--signal=KILL", spare)
    wait_until(lambda: spare not in hosts.a.helpers(), "it is gone")  # until then it may be handed to a migration
    carry(hosts.connect())


def test_many(hosts: TwoHosts) -> None:
    """After many migrations nothing is left but the spare."""
    def what_is(host: Host) -> tuple[int, str, str]:
        pid = host.broker_pid
        fds = host.run("find", f"/proc/{pid}/fd", "-mindepth", "1").stdout
        return fds.count("\n"), host.show("vmferryd", "NFileDescriptorStore"), host.run("ls", "-R", "/run/vmferry").stdout

    carry(hosts.connect())
    for host in hosts:
        host.clean()
    before = [settled(lambda host=host: what_is(host), 1) for host in hosts]
    for i in range(MANY):
        tunnel = hosts.connect(f"vm{i}", ("tls", "plain")[i % 2])
        carry(tunnel, 4096)
        for end in tunnel.ends:
            end.call("Forget")
    for host, was in zip(hosts, before):
        host.clean()
        wait_until(lambda: what_is(host) == was, f"before: {was}, now: {what_is(host)}")


# What an admin sees.


def test_catalog(hosts: TwoHosts) -> None:
    """Prepared, connected, finished, cancelled, failed: one line each, which says which, and is explained."""
    begins = hosts.b.journal_cursor()
    done, cancelled = hosts.connect("good"), hosts.b.broker.prepare("unwanted")
    carry(done)
    cancelled.cancel()
    cancelled.wait_finished()
    expired = hosts.b.broker.prepare("late", {"expire-usec": ("t", 100_000)})
    expired.wait_finished()
    for migration, subjects in ((done.incoming, ["prepared", "has reached the other host", "has carried all of its bytes"]),
                                (cancelled, ["prepared", "cancelled"]), (expired, ["prepared", "has failed"])):
        lines = [entry for entry in hosts.b.journal_since(begins, VMFERRY_MIGRATION=migration.id) if "MESSAGE_ID" in entry]
        assert len(lines) == len(subjects), lines
        explained = hosts.b.journal_text("-x", f"VMFERRY_MIGRATION={migration.id}")
        vm = migration.get("Vm")
        for line, subject in zip(lines, subjects):
            assert line["VMFERRY_VM"] == vm and vm in line["MESSAGE"] and migration.id in line["MESSAGE"]
            assert line["VMFERRY_ROLE"] == "incoming"
            assert re.search(rf"Subject: .*{vm} .*{subject}", explained), explained
        assert "@VMFERRY" not in explained
    assert isinstance(done.incoming, HostMigration)
    assert done.incoming.id in hosts.b.journal_text(f"OBJECT_SYSTEMD_UNIT={done.incoming.unit()}")


def test_denied(hosts: TwoHosts) -> None:
    """polkit is asked, and each no is a line that says who wanted what; members of the group vmferry need not ask."""
    call = ("call", "org.vmferry.Broker1", PATH, BROKER, "PrepareIncoming", "sa{sv}", "web1", "0")
    for host in hosts:
        begins = host.journal_cursor()
        said = host.busctl("--allow-interactive-authorization=no", *call, user="bob", check=False)
        assert "authent" in said.lower() or "may not" in said, said
        lines = host.journal_since(begins, VMFERRY_UID="4102")
        assert [line["VMFERRY_METHOD"] for line in lines] == ["PrepareIncoming"] or "authent" in said.lower(), lines
        host.run("usermod", "-aG", "vmferry", "bob")
        try:
            path = host.busctl(*call, user="bob").split('"')[1]
            host.busctl("call", "org.vmferry.Broker1", path, MIGRATION, "Cancel", user="bob")
            wait_until(lambda: host.get(path, MIGRATION, "State") == "finished", "it is cancelled")
        finally:
            host.run("gpasswd", "-d", "bob", "vmferry")


def test_user(hosts: TwoHosts) -> None:
    """A user's own broker, by the user's own service manager and bus."""
    host = hosts.a
    host.systemctl("start", "user@4101.service")
    environment = ("env", "XDG_RUNTIME_DIR=/run/user/4101", "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/4101/bus")
    try:
        said = host.run(*environment, "busctl", "--user", "call", "org.vmferry.Broker1", PATH, BROKER, "PrepareIncoming",
                        "sa{sv}", "mine", "0", user="alice").stdout
        path = said.split('"')[1]
        unit = wait_until(lambda: host.run(*environment, "busctl", "--user", "get-property", "org.vmferry.Broker1", path,
                                           MIGRATION, "HelperUnit", user="alice").stdout.split('"')[1], "its unit")
        said = host.run(*environment, "systemctl", "--user", "show", "-P", "ActiveState", unit, user="alice").stdout
        assert said == "active\n"
        assert host.run("find", "/run/user/4101/vmferry/incoming", "-mindepth", "1", user="alice").stdout
    finally:
        host.systemctl("stop", "user@4101.service")
