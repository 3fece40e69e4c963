# SPDX-License-Identifier: LGPL-2.1-or-later
"""What people use instead: pairs of relays, UNIX → TCP on the source host, TCP → UNIX on the destination host.

Each takes any number of connections, since a migration has more than one.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from lab import BenchError, Lab, read, wait_until
from tunnels import Spec, Tunnel, register

PROXYD = "/lib/systemd/systemd-socket-proxyd"
BUFFER = 256 * 1024


class Pair(Tunnel):
    """Two relays that listen by themselves; the destination's is up before the source's is started."""

    def start(self, destination: str) -> str:
        self.port = self.lab.free_port()
        self.tcp = f"{self.lab.address_b}:{self.port}"
        source = self.path("src")
        self.start_b(destination)
        self.lab.wait_listener(f"tcp:{self.tcp}")
        self.start_a(source)
        self.lab.wait_listener(source)
        return source

    def start_a(self, source: str) -> None:
        """Listens at the path `source`, and connects to self.tcp."""
        raise NotImplementedError

    def start_b(self, destination: str) -> None:
        """Listens at self.tcp, and connects to the path `destination`."""
        raise NotImplementedError


class SocketProxyd(Tunnel):
    """systemd-socket-proxyd moves bytes by splice() through a pipe."""

    note = "no half-close"

    def start(self, destination: str) -> str:
        if not Path(PROXYD).exists():
            raise BenchError(f"{PROXYD} is not installed: tools/install-deps bench")
        source = self.path("src")
        with self.lab.inside("b"):
            tcp = socket.create_server((self.lab.address_b, 0))
        with tcp:
            self._proxyd("b", tcp, destination)
            target = f"{self.lab.address_b}:{tcp.getsockname()[1]}"
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(source)
            unix.listen()
            self._proxyd("a", unix, target)
        return source

    def _proxyd(self, host: str, listener: socket.socket, target: str) -> None:
        # Socket activation by hand: FD 3, and the pid that exec() keeps.
        become = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3);"
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
            "os.execv(sys.argv[2], sys.argv[2:])"
        )
        fd = listener.fileno()
        child = self.spawn(host, [sys.executable, "-c", become, str(fd), PROXYD, target], pass_fds=[fd])
        # The figures are not to count Python's start.
        wait_until(lambda: read(f"/proc/{child.pid}/comm") == "systemd-socket-", "systemd-socket-proxyd to start")


class Socat(Pair):
    def __init__(self, lab: Lab, buffer: int | None = None) -> None:
        super().__init__(lab)
        self.command = ["socat", *(["-b", str(buffer)] if buffer else [])]

    def start_b(self, destination: str) -> None:
        self.spawn("b", [*self.command, f"TCP-LISTEN:{self.port},bind={self.lab.address_b},reuseaddr,fork,nodelay",
                         f"UNIX-CONNECT:{destination}"])

    def start_a(self, source: str) -> None:
        self.spawn("a", [*self.command, f"UNIX-LISTEN:{source},fork", f"TCP:{self.tcp},nodelay"])


class SocatOpenssl(Pair):
    """socat's TLS, by OpenSSL: TLS 1.3, the certificates of both ends verified."""

    def __init__(self, lab: Lab, ciphersuite: str) -> None:
        super().__init__(lab)
        # socat's cipher= is for TLS up to 1.2 alone; the library's own configuration reaches TLS 1.3.
        config = self.write("openssl.cnf", "openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = tls\n"
                            f"[tls]\nMinProtocol = TLSv1.3\nCiphersuites = {ciphersuite}\n")
        self.environment = os.environ | {"OPENSSL_CONF": config}

    def start_b(self, destination: str) -> None:
        tls = self.lab.tls
        self.spawn("b", ["socat", "-b", str(BUFFER),
                         f"OPENSSL-LISTEN:{self.port},bind={self.lab.address_b},reuseaddr,fork,nodelay,"
                         f"cert={tls.cert('b')},key={tls.key('b')},cafile={tls.ca}",
                         f"UNIX-CONNECT:{destination}"], env=self.environment)

    def start_a(self, source: str) -> None:
        tls = self.lab.tls
        self.spawn("a", ["socat", "-d", "-d", "-b", str(BUFFER), f"UNIX-LISTEN:{source},fork",
                         f"OPENSSL:{self.tcp},nodelay,cert={tls.cert('a')},key={tls.key('a')},cafile={tls.ca}"],
                   env=self.environment)

    def stop(self) -> None:
        super().stop()
        words = re.findall(r"SSL (?:proto version used|connection using):? (\S+)", self.log())
        self.note = " ".join(dict.fromkeys(words))


class Ssh(Tunnel):
    """ssh -L, from a UNIX socket to a UNIX socket."""

    def __init__(self, lab: Lab, cipher: str | None = None) -> None:
        super().__init__(lab)
        self.cipher = cipher

    def start(self, destination: str) -> str:
        source, port = self.path("src"), self.lab.free_port()
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it to be there, and its unit is not who starts it here
        for name in ("host", "user"):
            self._keygen(name)
        self.write("known", f"[{self.lab.address_b}]:{port} {read(self.path('host.pub'))}\n")
        self.write("sshd_config", "\n".join((
            f"Port {port}", f"ListenAddress {self.lab.address_b}", f"HostKey {self.path('host')}", "UsePAM no",
            f"AuthorizedKeysFile {self.path('user.pub')}", "StrictModes no", "PermitRootLogin prohibit-password",
            "PasswordAuthentication no", "AllowStreamLocalForwarding yes", "PidFile none", "")))
        self.spawn("b", ["/usr/sbin/sshd", "-D", "-e", "-f", self.path("sshd_config")])
        self.lab.wait_listener(f"tcp:{self.lab.address_b}:{port}")
        # Verbose, so that its log tells the cipher.
        self.spawn("a", ["ssh", "-v", "-F", "none", "-N", "-i", self.path("user"), "-p", str(port),
                         "-o", f"UserKnownHostsFile={self.path('known')}", "-o", "BatchMode=yes",
                         "-o", "ExitOnForwardFailure=yes", *(["-c", self.cipher] if self.cipher else []),
                         "-L", f"{source}:{destination}", f"root@{self.lab.address_b}"])
        self.lab.wait_listener(source)
        return source

    def _keygen(self, name: str) -> None:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", self.path(name)],
                       check=True, stdin=subprocess.DEVNULL)

    def stop(self) -> None:
        super().stop()
        found = re.search(r"client->server cipher: (\S+)", Path(self.path("a.log")).read_text(errors="replace"))
        self.note = found[1] if found else ""


class Stunnel(Pair):
    """stunnel with TLS 1.3, the certificates of both ends verified."""

    def start_b(self, destination: str) -> None:
        self._stunnel("b", f"accept = {self.tcp}\nconnect = {destination}\n")

    def start_a(self, source: str) -> None:
        self._stunnel("a", f"client = yes\naccept = {source}\nconnect = {self.tcp}\n")

    def _stunnel(self, host: str, service: str) -> None:
        tls = self.lab.tls
        config = self.write(f"stunnel-{host}.conf", "foreground = yes\npid =\nsyslog = no\ndebug = 6\n"
                            "socket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n"
                            f"[bench]\ncert = {tls.cert(host)}\nkey = {tls.key(host)}\nCAfile = {tls.ca}\n"
                            f"verifyChain = yes\nsslVersionMin = TLSv1.3\n{service}")
        self.spawn(host, ["stunnel4", config])

    def stop(self) -> None:
        super().stop()
        found = re.search(r"(TLS\S+) ciphersuite: (\S+)", Path(self.path("a.log")).read_text(errors="replace"))
        self.note = f"{found[1]} {found[2]}" if found else ""


class Haproxy(Pair):
    """haproxy in TCP mode, with TLS 1.3 between the two, or without."""

    def __init__(self, lab: Lab, secure: bool) -> None:
        super().__init__(lab)
        self.secure = secure
        self.note = "TLSv1.3" if secure else ""

    def start_b(self, destination: str) -> None:
        tls = self.lab.tls
        secure = f" ssl crt {tls.both('b')} ca-file {tls.ca} verify required ssl-min-ver TLSv1.3" if self.secure else ""
        self._haproxy("b", f"{self.tcp}{secure}", f"unix@{destination}")

    def start_a(self, source: str) -> None:
        tls = self.lab.tls
        secure = f" ssl crt {tls.both('a')} ca-file {tls.ca} verify required" if self.secure else ""
        self._haproxy("a", f"unix@{source}", f"{self.tcp}{secure}")

    def _haproxy(self, host: str, bind: str, server: str) -> None:
        config = self.write(f"haproxy-{host}.cfg", "global\n  maxconn 64\ndefaults\n  mode tcp\n  timeout connect 10s\n"
                            "  timeout client 1h\n  timeout server 1h\n"
                            f"listen bench\n  bind {bind}\n  server other {server}\n")
        self.spawn(host, ["/usr/sbin/haproxy", "-db", "-f", config])


class Go(Pair):
    """tests/bench/goproxy, in Go: io.Copy each way, plain or over mutual TLS."""

    def __init__(self, lab: Lab, secure: bool) -> None:
        super().__init__(lab)
        self.secure = secure

    def start_b(self, destination: str) -> None:
        self._go("b", "listen", f"tcp:{self.tcp}", f"unix:{destination}")

    def start_a(self, source: str) -> None:
        self._go("a", "connect", f"unix:{source}", f"tcp:{self.tcp}")

    def _go(self, host: str, side: str, listen: str, connect: str) -> None:
        if not self.lab.goproxy:
            raise BenchError("Go is not installed: tools/install-deps bench")
        tls = self.lab.tls
        secure = ["-tls", side, "-cert", tls.cert(host), "-key", tls.key(host), "-ca", tls.ca] if self.secure else []
        self.spawn(host, [self.lab.goproxy, "-listen", listen, "-connect", connect, *secure])


class Floor(Pair):
    """tests/bench/floor.c: TLS by GnuTLS and nothing else, or not even that. One connection, one direction."""

    def __init__(self, lab: Lab, *args: str) -> None:
        super().__init__(lab)
        self.args = args
        self.note = "no TLS, copies" if args else "AES-128-GCM"

    def start_b(self, destination: str) -> None:
        self.spawn("b", [self.lab.floor, "out", self.lab.address_b, str(self.port), destination, *self.args])

    def start_a(self, source: str) -> None:
        self.spawn("a", [self.lab.floor, "in", source, self.lab.address_b, str(self.port), *self.args])


register(Spec("socat", "plain", Socat))
register(Spec("socat-256k", "plain", lambda lab: Socat(lab, BUFFER)))
register(Spec("socket-proxyd", "plain", SocketProxyd))
register(Spec("haproxy", "plain", lambda lab: Haproxy(lab, False)))
register(Spec("go", "plain", lambda lab: Go(lab, False)))
register(Spec("ssh", "tls", Ssh))
register(Spec("ssh-aes128-gcm", "tls", lambda lab: Ssh(lab, "aes128-gcm@openssh.com")))
register(Spec("stunnel", "tls", Stunnel))
register(Spec("haproxy-tls", "tls", lambda lab: Haproxy(lab, True)))
register(Spec("socat-openssl-256k", "tls", lambda lab: SocatOpenssl(lab, "TLS_AES_128_GCM_SHA256")))
register(Spec("go-mtls", "tls", lambda lab: Go(lab, True)))
register(Spec("io-floor", "floor", lambda lab: Floor(lab, "io"), sections=frozenset({"stream"})))
register(Spec("gnutls-floor", "floor", Floor, sections=frozenset({"stream"})))
