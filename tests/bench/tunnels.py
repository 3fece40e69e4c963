# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the bench can measure: one class a tunnel, and the registry of them.

A tunnel of your own: subclass Tunnel, and register() an instance of Spec at import; bench.py imports
vmferry_tunnel.py from this directory when it is there.
"""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

PROXYD = "/lib/systemd/systemd-socket-proxyd"
SOCAT_BUFFER = 256 * 1024
READY_TIMEOUT_S = 15


class BenchError(Exception):
    """Something that makes the run's figures worthless; the message says what."""


class Tunnel:
    """One tunnel, for one transfer. start(), then stop() whatever happened in between."""

    # What to say of it beside the figures (a cipher, a missing half-close); may be set as late as in stop().
    note = ""

    def __init__(self) -> None:
        self.children: list[subprocess.Popen] = []

    def start(self, workdir: str, dst_socket_path: str) -> str:
        """Makes a tunnel to dst_socket_path, where the sink listens already, with its files in workdir.
        Returns the path of the UNIX socket that the source is to connect to, once that listens."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        """The tunnel's own processes, both ends; asked before and after the transfer. A child that has ended
        counts in its parent, if that waited for it, so the parent is to be listed where children may end."""
        return [child.pid for child in self.children]

    def stop(self) -> None:
        """Ends every process by its pid. CPU times have been read by then."""
        for child in self.children:
            end_process(child)
        self.children.clear()

    def spawn(self, argv: list[str], **kwargs) -> subprocess.Popen:
        """Not reaped until stop(): a process that ends with its connection keeps its CPU time in /proc."""
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, **kwargs)
        self.children.append(child)
        return child


def end_process(child: subprocess.Popen) -> None:
    if child.returncode is None:
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"timed out waiting for {what}")
        time.sleep(0.01)


def wait_unix_listener(path: str) -> None:
    """Looks, and doesn't connect: several tunnels serve one connection and end."""

    def listens() -> bool:
        with open("/proc/net/unix", encoding="ascii", errors="replace") as table:
            # Num RefCount Protocol Flags Type St Inode Path; flag 0x10000 is __SO_ACCEPTCON
            rows = (line.split(maxsplit=7) for line in table)
            return any(len(row) == 8 and row[3] == "00010000" and row[7].rstrip("\n") == path for row in rows)

    wait_until(listens, f"a listener on {path}")


def wait_tcp_listener(port: int) -> None:
    def listens() -> bool:
        rows = []
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            with open(table, encoding="ascii") as f:
                rows += [line.split() for line in f][1:]
        return any(int(row[1].split(":")[1], 16) == port and row[3] == "0A" for row in rows)

    wait_until(listens, f"a listener on TCP port {port}")


class DirectUnix(Tunnel):
    """No tunnel: what the source and the sink cost each other."""

    def start(self, workdir: str, dst_socket_path: str) -> str:
        return dst_socket_path


class SocketProxyd(Tunnel):
    """systemd-socket-proxyd at both ends. It moves bytes by splice() through a pipe."""

    note = "no half-close"

    def start(self, workdir: str, dst_socket_path: str) -> str:
        src = os.path.join(workdir, "proxyd.sock")
        with socket.socket() as tcp:
            tcp.bind(("127.0.0.1", 0))
            tcp.listen()
            port = tcp.getsockname()[1]
            self._proxyd(tcp, dst_socket_path)
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(src)
            unix.listen()
            self._proxyd(unix, f"127.0.0.1:{port}")
        return src

    def _proxyd(self, listener: socket.socket, target: str) -> None:
        # Socket activation by hand: FD 3, and the pid that exec() keeps.
        become = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3);"
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
            "os.execv(sys.argv[2], sys.argv[2:])"
        )
        child = self.spawn(
            [sys.executable, "-c", become, str(listener.fileno()), PROXYD, target], pass_fds=[listener.fileno()]
        )
        # The figures are not to count Python's start.
        wait_until(lambda: _command(child.pid) == "systemd-socket-", "systemd-socket-proxyd to start")


def _command(pid: int) -> str:
    with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as f:
        return f.read().rstrip("\n")


class Socat(Tunnel):
    """A pair of socat over TCP."""

    def start(self, workdir: str, dst_socket_path: str) -> str:
        src = os.path.join(workdir, "socat.sock")
        port = free_port()
        self._socat(f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr", f"UNIX-CONNECT:{dst_socket_path}")
        wait_tcp_listener(port)
        self._socat(f"UNIX-LISTEN:{src}", f"TCP:127.0.0.1:{port}")
        wait_unix_listener(src)
        return src

    def _socat(self, *addresses: str, **kwargs) -> None:
        self.spawn(["socat", "-b", str(SOCAT_BUFFER), *addresses], **kwargs)


class SocatOpenssl(Socat):
    """A pair of socat over TLS, unauthenticated; `ciphersuite` or else OpenSSL's first choice."""

    def __init__(self, ciphersuite: str | None) -> None:
        super().__init__()
        self.ciphersuite = ciphersuite

    def start(self, workdir: str, dst_socket_path: str) -> str:
        src = os.path.join(workdir, "socat.sock")
        cert = os.path.join(workdir, "cert.pem")
        key = os.path.join(workdir, "key.pem")
        config = os.path.join(workdir, "openssl.cnf")
        self.log = os.path.join(workdir, "socat.log")
        port = free_port()

        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-subj", "/CN=bench", "-days", "2", "-keyout", key, "-out", cert],
            check=True, stdin=subprocess.DEVNULL, capture_output=True,
        )
        # socat's cipher= is for TLS up to 1.2 alone; the library's own configuration reaches TLS 1.3.
        with open(config, "w", encoding="ascii") as f:
            f.write("openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = tls\n[tls]\n")
            f.write("MinProtocol = TLSv1.3\n")
            if self.ciphersuite:
                f.write(f"Ciphersuites = {self.ciphersuite}\n")
        env = os.environ | {"OPENSSL_CONF": config}

        self._socat(
            f"OPENSSL-LISTEN:{port},bind=127.0.0.1,reuseaddr,cert={cert},key={key},verify=0",
            f"UNIX-CONNECT:{dst_socket_path}", env=env,
        )
        wait_tcp_listener(port)
        with open(self.log, "wb") as log:
            self.spawn(
                ["socat", "-d", "-d", "-b", str(SOCAT_BUFFER), f"UNIX-LISTEN:{src}",
                 f"OPENSSL:127.0.0.1:{port},verify=0"],
                env=env, stderr=log,
            )
        wait_unix_listener(src)
        return src

    def stop(self) -> None:
        super().stop()
        if os.path.exists(getattr(self, "log", "")):
            with open(self.log, encoding="utf-8", errors="replace") as f:
                words = re.findall(r"SSL (?:proto version used|connection using):? (\S+)", f.read())
            self.note = " ".join(words)


@dataclass(frozen=True)
class Spec:
    """A tunnel's place in the table."""

    name: str
    kind: str  # "direct", "plain" or "tls": compared with the peers of its kind
    make: Callable[[], Tunnel]
    peer: bool = True  # False: ours, which is compared with the peers and is none itself
    default: bool = True  # False: measured only where --only names it


REGISTRY: dict[str, Spec] = {}


def register(spec: Spec) -> None:
    REGISTRY[spec.name] = spec


register(Spec("direct-unix", "direct", DirectUnix))
register(Spec("socket-proxyd", "plain", SocketProxyd))
register(Spec("socat", "plain", Socat))
register(Spec("socat-openssl", "tls", lambda: SocatOpenssl("TLS_AES_128_GCM_SHA256")))
register(Spec("socat-openssl-default", "tls", lambda: SocatOpenssl(None)))
