# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two hosts booted with systemd-nspawn, a veth between them, vmferry's package installed in each.

    with TwoHosts() as hosts:
        hosts.a.systemctl("start", "vmferryd")
        print(hosts.b.busctl("get-property", NAME, PATH, BROKER, "Version"))

Each host is an overlay of this machine's root, so what is installed here is installed there; what it writes is in
memory. With $VMFERRY_HOSTS it is one of that directory instead, in which vmferry is not installed yet. Host `a` has dbus-daemon, host `b` dbus-broker. Each has the users alice and bob, and runs no service of this
machine's that a test does not need. The directory `shared` is the same in both hosts and out here.

Everything is gone when the hosts are closed, or when the process that booted them ends, however it does: mounts and
files are in a mount namespace that only nspawn is in.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from jeepney.io.blocking import DBusConnection, open_dbus_connection

from .broker import BROKER, NAME, PATH, Client, Migration, variants, wait_until
from .hosts import Tunnel, named
from .package import package

DROPIN = "/run/systemd/system/vmferryd.service.d/test.conf"
LOWER = os.environ.get("VMFERRY_HOSTS", "/")
_ROOT = "/run/root"  # of the host, in the mount namespace
_MASKED = (
    "console-getty.service", "getty.target", "systemd-firstboot.service", "systemd-networkd.socket",
)
_USERS = {"alice": 4101, "bob": 4102}
_BUSES = {"a": "dbus", "b": "dbus-broker"}
_PREPARE = f"""
set -e
lower=$1; shift
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir /run/upper /run/work {_ROOT}
mount -t overlay -o lowerdir=$lower,upperdir=/run/upper,workdir=/run/work overlay {_ROOT}
echo mounted
read go
echo $$ > "$1/cgroup.procs"
shift
exec "$@"
"""


_SPARES = "/usr/lib/vmferry/vmferryd.conf.d/00-test.conf"


def available() -> str:
    """Why this machine can't boot hosts; "" where it can."""
    if os.geteuid() != 0:
        return "needs root"
    if shutil.which("systemd-nspawn") is None:
        return "no systemd-nspawn"
    if _cgroup2() is None:
        return "kernel: no cgroup v2 is mounted"
    return ""


class Host:
    """One booted host."""

    def __init__(self, name: str, shared: Path, lower: str = LOWER) -> None:
        self.name = name
        self.shared = shared
        self.leader = 0  # the pid, out here, of its PID 1
        self.address = f"10.78.0.{1 if name == 'a' else 2}"
        self._broker: HostBroker | None = None
        self._console = (shared / f"console-{name}").open("wb")
        group = _cgroup2()
        assert group
        self.cgroup = group / f"vmf-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.cgroup.mkdir()
        # fmt: off
        command = [
            "systemd-nspawn", "--quiet", f"--directory={_ROOT}", "--boot", "--register=no", "--keep-unit",
            "--private-network", f"--machine=host-{name}", "--console=pipe", f"--bind={shared}",
            # What services in the hosts may use that nspawn does not let through by itself.
            "--system-call-filter=userfaultfd @memlock",
        ]
        # fmt: on
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--propagation=private", "sh", "-c", _PREPARE, "sh", lower, str(self.cgroup),
             *command],
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}, stdin=subprocess.PIPE,
            stdout=self._console, stderr=self._console, preexec_fn=die_with_parent, start_new_session=True)

    # Making it.

    def prepare(self) -> None:
        """Makes this host a host of its own; it is not booted yet."""
        self._wait(lambda: b"mounted" in self._said(), "the host's root is mounted", 60)
        root = Path(f"/proc/{self._process.pid}/root{_ROOT}")
        units = root / "etc/systemd/system"
        (root / "etc/machine-id").unlink(missing_ok=True)
        (root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
        (root / "var/lib/dbus/machine-id").unlink(missing_ok=True)
        for name in (".bashrc", ".bash_profile", ".profile"):  # a command by ssh is to run nothing of this machine's root
            (root / "root" / name).unlink(missing_ok=True)
        (root / "etc/hostname").write_text(f"host-{self.name}\n")
        for wants in [*units.glob("*.wants"), *root.glob("etc/rc?.d")]:  # whatever is enabled on this machine
            shutil.rmtree(wants)
        for unit in _MASKED:
            (units / unit).unlink(missing_ok=True)
            (units / unit).symlink_to("/dev/null")
        (units / "dbus.service").unlink(missing_ok=True)
        (units / "dbus.service").symlink_to(f"/lib/systemd/system/{_BUSES[self.name]}.service")
        journal = root / "etc/systemd/journald.conf.d"
        journal.mkdir(parents=True, exist_ok=True)
        (journal / "test.conf").write_text("[Journal]\nStorage=volatile\nRateLimitBurst=0\n")
        sysusers = root / "etc/sysusers.d"
        sysusers.mkdir(exist_ok=True)
        (sysusers / "test.conf").write_text("".join(f"u {name} {uid}\n" for name, uid in _USERS.items()))
        (root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)  # it would keep packages from restarting what they bring
        self._outside("systemd-sysusers", f"--root={_ROOT}")

    def boot(self) -> None:
        assert self._process.stdin
        self._process.stdin.write(b"go\n")
        self._process.stdin.close()

    def wait_booted(self) -> None:
        """Until its PID 1 says that all is up, and nothing has failed."""
        def leader() -> int:
            for pid in _children(self._process.pid):
                with suppress(ProcessLookupError):  # it has just ended, which exists() does not take for an answer
                    if Path(f"/proc/{pid}/root/run/systemd/private").exists():
                        return pid
            return 0

        self.leader = self._wait(leader, f"host {self.name} boots", 180)
        state = self.run("systemctl", "is-system-running", "--wait", check=False, timeout=240).stdout.strip()
        assert state == "running", f"host {self.name} is {state}: {self.failed_units()}\n{self.journal_text('-n', '50')}"

    def install(self, deb: Path | None = None) -> None:
        """Installs the package, or up- or downgrades to another version of it."""
        copy = self.shared / f"install-{self.name}.deb"
        shutil.copy(deb or package(), copy)
        # Its dependencies are there. Of the triggers only the journal's catalog is needed: the manual's index takes its
        # time, and the bus must have been reloaded by the package itself, after it made the user.
        self.run("dpkg", "--force-downgrade", "--no-triggers", "--install", str(copy), timeout=300)
        self.run("dpkg", "--triggers-only", "systemd", timeout=300)
        copy.unlink()
        # So that it is known how many helpers there are without a migration.
        self.run("mkdir", "-p", _SPARES.rpartition("/")[0])
        self.run("tee", _SPARES, stdin="[Broker]\nMaxSpareHelpers=1\n")

    def default_spares(self) -> None:
        """As many helpers are kept ready as a user's host keeps."""
        self.run("rm", "-f", _SPARES)
        self.systemctl("stop", "vmferryd.service")

    def purge(self) -> None:
        self.run("rm", "-f", _SPARES)
        self.run("rmdir", "--parents", "--ignore-fail-on-non-empty", _SPARES.rpartition("/")[0], check=False)  # or none is there
        listed = self.run("dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", "vmferry*").stdout
        self.run("dpkg", "--no-triggers", "--purge", *re.findall("^(.*) installed$", listed, re.M))
        self.run("dpkg", "--triggers-only", "systemd", timeout=300)

    def _outside(self, *argv: str, **environment: str) -> None:
        """In its mount namespace, but not in its root."""
        done = subprocess.run(["nsenter", "-t", str(self._process.pid), "-m", *argv], capture_output=True, text=True,
                              env={**os.environ, **environment}, timeout=300)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"

    def _said(self) -> bytes:
        return Path(self._console.name).read_bytes()

    def _wait(self, condition: Any, what: str, timeout: float = 20) -> Any:
        def checked() -> Any:
            assert self._process.poll() is None, f"{what}: nspawn ended: {self._said().decode(errors='replace')}"
            return condition()

        return wait_until(checked, what, timeout)

    # Using it.

    @property
    def enter(self) -> list[str]:
        """What to put before a command so that it runs on this host. Such a process has a parent out here, nsenter."""
        return ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "--"]

    @property
    def enter_light(self) -> list[str]:
        """The same, but with the pids of out here: the command is the process itself, and can be killed by its pid."""
        return ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "--"]

    def run(self, *argv: str, user: str | None = None, check: bool = True, timeout: float = 60,
            stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, as root or as alice or bob."""
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
        done = subprocess.run([*self.enter, *become, *argv], input=stdin, capture_output=True, text=True,
                              errors="replace", timeout=timeout,
                              env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                   "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"})
        assert not check or done.returncode == 0, \
            f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def systemctl(self, *argv: str, check: bool = True) -> str:
        return self.run("systemctl", *argv, check=check).stdout

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", f"--property={name}", "--value", "--", unit).strip()

    def busctl(self, *argv: str, user: str | None = None, check: bool = True) -> str:
        """busctl's standard output; with check=False, where it failed, its standard error."""
        done = self.run("busctl", *argv, user=user, check=check)
        return done.stdout if done.returncode == 0 else done.stderr

    def call(self, path: str, interface: str, member: str, *argv: str, user: str | None = None,
             check: bool = True) -> str:
        """A call of the broker's, by busctl."""
        return self.busctl("call", NAME, path, interface, member, *argv, user=user, check=check)

    def get(self, path: str, interface: str, name: str) -> Any:
        """A property of the broker's, by busctl."""
        return json.loads(self.busctl("--json=short", "get-property", NAME, path, interface, name))["data"]

    def outside(self, path: str | Path) -> Path:
        """The path by which a file of this host is reached from out here, a UNIX socket for instance."""
        return Path(f"/proc/{self.leader}/root{path}")

    def failed_units(self) -> list[str]:
        listed = self.systemctl("list-units", "--failed", "--plain", "--no-legend", "--all")
        return [line.split()[0] for line in listed.splitlines()]

    def units(self, pattern: str) -> list[str]:
        """The loaded units of this name, "vmferry-helper@*"."""
        listed = self.systemctl("list-units", "--plain", "--no-legend", "--all", pattern)
        return [line.split()[0] for line in listed.splitlines()]

    def journal(self, *argv: str) -> list[dict[str, Any]]:
        """Journal entries, the oldest first; arguments as journalctl's ("-u", "vmferryd", "-p", "notice", …)."""
        self.run("journalctl", "--sync")
        return [json.loads(line) for line in self.run("journalctl", "-o", "json", "--all", "-q", *argv).stdout.splitlines()]

    def journal_since(self, cursor: str, **fields: str) -> list[dict[str, Any]]:
        """The entries after a cursor, with these fields. (journalctl loses the first where it has to look for fields.)"""
        return [entry for entry in self.journal(f"--after-cursor={cursor}")
                if all(str(entry.get(name)) == value for name, value in fields.items())]

    def journal_text(self, *argv: str) -> str:
        self.run("journalctl", "--sync", check=False)
        return self.run("journalctl", "--no-pager", "-q", *argv, check=False).stdout

    def journal_cursor(self) -> str:
        """For --after-cursor=."""
        entries = self.journal("-n", "1")
        return str(entries[-1]["__CURSOR"])

    @property
    def broker(self) -> "HostBroker":
        """The broker on this host's system bus, by D-Bus from out here, as root."""
        if self._broker is None:
            self._broker = HostBroker(self)
        return self._broker

    @property
    def broker_pid(self) -> int:
        """The pid, on the host, of its vmferryd; 0 where there is none. Activates nothing."""
        return int(self.show("vmferryd.service", "MainPID"))

    @contextmanager
    def configured(self, path: str, text: str) -> Iterator[None]:
        """A file for as long as the block lasts; the broker is started anew by the next call, before and after."""
        self.run("mkdir", "-p", path.rpartition("/")[0])
        self.run("tee", path, stdin=text)
        try:
            self.systemctl("daemon-reload")
            self.systemctl("stop", "vmferryd.service")
            yield
        finally:
            self.run("rm", path)
            self.systemctl("daemon-reload")
            self.systemctl("stop", "vmferryd.service")

    def helpers(self) -> list[str]:
        """The units of helpers that run, the gate and the spare among them."""
        return self.units("vmferry-helper@*")

    def files(self) -> list[str]:
        """What there is of migrations below /run/vmferry."""
        found = self.run("find", "/run/vmferry", "-mindepth", "2").stdout
        return sorted(found.splitlines())

    def clean(self) -> None:
        """Nothing of any migration is left. A broker that runs goes on."""
        if self.broker_pid:
            wait_until(lambda: all(state == "finished" for _, _, _, state, _, _ in self.broker.list()),
                       f"all have finished: {self.broker.list()}")  # what was cancelled may be about to
            for *_, path in self.broker.list():
                Migration(self.broker, path).call("Forget")  # type: ignore[arg-type]
        wait_until(lambda: len(self.helpers()) <= 1, f"only the spare is left: {self.helpers()}")
        wait_until(lambda: not self.files(), f"no file is left: {self.files()}")
        assert self.failed_units() == []

    def reset(self) -> None:
        """Ends what there is of vmferry, whatever state it is in, so that nothing is left."""
        if self._broker:
            self._broker.close()
            self._broker = None
        for what in ("vmferryd.service", "vmferry-helper@*.service"):
            self.systemctl("kill", "--signal=KILL", what, check=False)
            self.systemctl("stop", what, check=False)
        self.systemctl("clean", "--what=fdstore", "vmferryd.service", check=False)  # which systemd 254 and later keep
        self.run("find", "/run/vmferry", "-mindepth", "2", "-delete", check=False)
        self.systemctl("reset-failed")

    def close(self) -> None:
        if self._broker:
            self._broker.close()
        if self._process.stdin:
            self._process.stdin.close()  # where it was not booted it ends by this
        if self.leader and self._process.poll() is None:
            os.kill(self.leader, signal.SIGKILL)  # with a PID 1 all others of its namespace go, and then nspawn
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
        # A host that did not come up has no leader yet, and does not end with its nspawn.
        (self.cgroup / "cgroup.kill").write_text("1")
        self._process.kill()
        self._process.wait(20)
        self._console.close()
        wait_until(lambda: remove_cgroup(self.cgroup), f"{self.cgroup} is empty", 20)


class HostBus:
    """A host's system bus, as vmlib.broker.Client wants it."""

    def __init__(self, host: Host) -> None:
        # By a descriptor of its directory other users than root get there, too: see vmlib.users.being().
        self._directory = os.open(host.outside("/run/dbus"), os.O_PATH | os.O_DIRECTORY)

    def connect(self) -> DBusConnection:
        return open_dbus_connection(f"unix:path=/proc/self/fd/{self._directory}/system_bus_socket", enable_fds=True,
                                    auth_timeout=20)

    def close(self) -> None:
        os.close(self._directory)


class HostMigration(Migration):
    """A migration whose sockets are named by their paths out here, for stand-ins for QEMU."""

    broker: "HostBroker"  # type: ignore[assignment]

    def socket(self, stream: str = "migrate") -> str:
        return str(self.broker.host.outside(super().socket(stream)))

    def unit(self) -> str:
        """Its helper's, once systemd has said it."""
        return str(wait_until(lambda: self.get("HelperUnit"), f"{self.path} has a unit"))


class HostBroker:
    """The broker of a host for vmlib.broker.Migration, for tests that make many calls."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.bus: Any = HostBus(host)
        self.client = Client(self.bus)

    def prepare(self, vm: str = "web1", options: dict[str, tuple[str, Any]] | None = None) -> HostMigration:
        path, ticket = self.client.call(PATH, BROKER, "PrepareIncoming", "sa{sv}", vm, variants(options))
        return HostMigration(self, path, ticket)  # type: ignore[arg-type]

    def outgoing(self, ticket: str, vm: str = "web1", options: dict[str, tuple[str, Any]] | None = None) -> HostMigration:
        (path,) = self.client.call(PATH, BROKER, "StartOutgoing", "ssa{sv}", vm, ticket, variants(options))
        return HostMigration(self, path)  # type: ignore[arg-type]

    def list(self) -> list[tuple[Any, ...]]:
        return self.client.call(PATH, BROKER, "ListMigrations")[0]

    def get(self, name: str) -> Any:
        return self.client.get(PATH, BROKER, name)

    def close(self) -> None:
        self.client.close()
        self.bus.close()


class TwoHosts:
    """Hosts `a` (10.78.0.1) and `b` (10.78.0.2), booted, with a network between them."""

    def __init__(self, lowers: tuple[str, str] = (LOWER, LOWER), install: bool = LOWER == "/") -> None:
        """lowers: the root that each is an overlay of; install: vmferry's package is not there yet."""
        with ExitStack() as stack:  # not closed by hand: an error while it closes would hide the first one
            self.shared = Path(tempfile.mkdtemp(prefix="vmf", dir="/tmp"))
            stack.callback(shutil.rmtree, self.shared)
            self.shared.chmod(0o755)
            self.a, self.b = (self._host(stack, name, lower) for name, lower in zip("ab", lowers))
            for step in (Host.prepare, Host.boot, Host.wait_booted, *([Host.install] if install else [])):
                for host in self:
                    step(host)
            self._connect()
            self._stack = stack.pop_all()

    def _host(self, stack: ExitStack, name: str, lower: str) -> Host:
        host = Host(name, self.shared, lower)
        stack.callback(host.close)
        return host

    def __iter__(self) -> Iterator[Host]:
        return iter((self.a, self.b))

    def _connect(self) -> None:
        """(Again) after break_network()."""
        _ip("link", "add", "peer0", "netns", str(self.a.leader), "type", "veth",
            "peer", "name", "peer0", "netns", str(self.b.leader))
        for host in self:
            host.run("ip", "address", "add", f"{host.address}/24", "dev", "peer0")
            host.run("ip", "link", "set", "peer0", "up")
        for host in self:
            wait_until(lambda: '"UP"' in host.run("ip", "-j", "link", "show", "peer0").stdout and
                       '"operstate":"UP"' in host.run("ip", "-j", "link", "show", "peer0").stdout, "the link is up")

    def connect(self, vm: str = "web1", security: str = "tls", **options: tuple[str, Any]) -> Tunnel:
        """A migration from a to b that is connected and carries nothing yet; options as in vmlib.hosts."""
        incoming = self.b.broker.prepare(vm, {"security": ("s", security), **named(options)})
        outgoing = self.a.broker.outgoing(incoming.ticket or "", vm, named(options))
        for migration in (outgoing, incoming):
            migration.wait_state("connected")
        return Tunnel(outgoing, incoming)

    def cut(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        self.a.run("ip", "link", "set", "peer0", "down")

    def mend(self) -> None:
        self.a.run("ip", "link", "set", "peer0", "up")

    def reset(self) -> None:
        """After a failure: see Host.reset()."""
        self.mend()
        for host in self:
            host.reset()

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> "TwoHosts":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ip(*argv: str) -> None:
    done = subprocess.run(["ip", *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _cgroup2() -> Path | None:
    """This process's own group in the unified hierarchy, wherever that is mounted."""
    mounts = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    where = next((fields[4] for fields in mounts if fields[fields.index("-") + 1] == "cgroup2"), None)
    own = next((line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")), None)
    return Path(where + own) if where and own else None


def remove_cgroup(group: Path) -> bool:
    """Whether it could be removed: no process is left in it."""
    try:
        for path, _, _ in os.walk(group, topdown=False):
            os.rmdir(path)
    except OSError:
        return False
    return True


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def die_with_parent() -> None:
    """Through execve(2), too: prctl(2), PR_SET_PDEATHSIG. On SIGTERM nspawn shuts its host down."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
