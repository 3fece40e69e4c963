# SPDX-License-Identifier: LGPL-2.1-or-later
"""TLS records of ours, as another implementation sees them: openssl's s_client and s_server, across new keys of either."""

import fcntl
import random
import re
import shutil
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from vmlib.broker import build_dir, wait_until

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
KEY = b"a key of thirty-two bytes ......".hex()
SUITES = {"AES-128-GCM": "TLS_AES_128_GCM_SHA256", "ChaCha20-Poly1305": "TLS_CHACHA20_POLY1305_SHA256"}
# The libraries as the program that is tested names them. IPsec-MB has one cipher.
CIPHERS = [(suite, library) for suite in SUITES for library in ("GnuTLS", "OpenSSL", "IPsec-MB")
           if (suite, library) != ("ChaCha20-Poly1305", "IPsec-MB")]
PART = 1 << 17
BEGIN = b"<the data>"
# No letter, for openssl takes a line that begins with some of them for a command.
DATA = bytes(random.Random(1).choices(b"0123456789", k=8 << 20))
NEVER = 1 << 24


class Reader(threading.Thread):
    """All that comes to openssl, behind what it says itself."""

    def __init__(self, process: subprocess.Popen) -> None:
        super().__init__(daemon=True)
        self.process, self.data = process, bytearray()
        self.start()

    def run(self) -> None:
        while data := self.process.stdout.read1(1 << 16):
            self.data += data

    def text(self) -> bytes:
        # s_server writes of KeyUpdates between the data: "Read BLOCK", "SSL_do_handshake -> 1".
        return re.sub(rb"[A-Z][^\n]*\n", b"", bytes(self.data).partition(BEGIN)[2])[:len(DATA)]


def unread(process: subprocess.Popen) -> int:
    return struct.unpack("i", fcntl.ioctl(process.stdin, termios.FIONREAD, b"\0" * 4))[0]


def say(process: subprocess.Popen, data: bytes) -> None:
    process.stdin.write(data)
    process.stdin.flush()


def talk(process: subprocess.Popen, reader: Reader, updates: bool) -> bytes:
    """8 MiB to our end and back, with a new key of openssl's, that asks for one of ours or does not, in between."""
    say(process, BEGIN)
    # s_server reads nothing while it writes: it never has more to write than the connection holds.
    for at in range(0, len(DATA), PART):
        say(process, DATA[at:at + PART])
        wait_until(lambda end=at + PART: len(reader.data) >= end and len(reader.text()) >= end, "all comes back", 60)
        if updates and at in (1 << 20, 4 << 20, 7 << 20):
            say(process, b"k\n" if at == 4 << 20 else b"K\n")
            wait_until(lambda: unread(process) == 0, "openssl reads the command")
    return reader.text()


@contextmanager
def running(*arguments: object, **options: Any) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen([str(argument) for argument in arguments], stdout=subprocess.PIPE, **options)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def echo(*arguments: object) -> AbstractContextManager[subprocess.Popen]:
    return running(build_dir() / "tests/echo/vmferry-echo", *arguments, text=True)


@pytest.fixture(autouse=True)
def of_this_build(library: str) -> None:
    with echo("connect", 0, library, NEVER) as ours:
        ours.communicate(timeout=10)
    if ours.returncode == 77:
        pytest.skip(f"build: without {library}")


def options(suite: str) -> list[str]:
    return ["-tls1_3", "-ciphersuites", SUITES[suite], "-psk", KEY, "-psk_identity", "0123456789abcdef"]


def openssl(*arguments: str) -> AbstractContextManager[subprocess.Popen]:
    return running("openssl", *arguments, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)


def end(process: subprocess.Popen, ours: subprocess.Popen) -> None:
    """Openssl closes; our end has counted all that came."""
    process.stdin.close()
    process.terminate()
    process.wait(30)
    total = ours.communicate(timeout=30)[0].split()[-1]
    assert ours.returncode == 0 and int(total) == len(BEGIN) + len(DATA)


@pytest.mark.parametrize(("updates", "renewal"), [(False, NEVER), (True, 100)], ids=["", "new-keys"])
@pytest.mark.parametrize(("suite", "library"), CIPHERS)
def test_client(suite: str, library: str, updates: bool, renewal: int) -> None:
    with echo("accept", 0, library, renewal) as ours:
        port = ours.stdout.readline().strip()
        with openssl("s_client", "-connect", f"127.0.0.1:{port}", "-brief", "-noservername", *options(suite)) as process:
            assert talk(process, Reader(process), updates) == DATA
            end(process, ours)


@pytest.mark.parametrize(("updates", "renewal"), [(False, NEVER), (True, 100)], ids=["", "new-keys"])
@pytest.mark.parametrize(("suite", "library"), CIPHERS)
def test_server(suite: str, library: str, updates: bool, renewal: int) -> None:
    with openssl("s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-nocert", *options(suite)) as process:
        reader = Reader(process)
        said = wait_until(lambda: re.search(rb"ACCEPT 127\.0\.0\.1:(\d+)\n", bytes(reader.data)), "s_server listens")
        with echo("connect", int(said[1]), library, renewal) as ours:
            assert talk(process, reader, updates) == DATA
            end(process, ours)
