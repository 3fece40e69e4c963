# SPDX-License-Identifier: LGPL-2.1-or-later
"""Options and VM names that are not what they should be: refused, with their names, and nothing is made."""

import struct
from pathlib import Path
from typing import Any

import pytest

from vmlib.broker import BROKER, PATH, BusError, Client
from vmlib.scene import Scene
from vmlib.wire import Ticket

INVALID = "org.freedesktop.DBus.Error.InvalidArgs"
TYPES: dict[str, str] = {
    "streams": "as", "sockets": "a{ss}", "socket-owner": "s", "security": "s", "endpoints": "as", "endpoint": "s",
    "expire-usec": "t", "resume-timeout-usec": "t", "bandwidth-limit": "t", "expected-bytes": "t", "client-id": "s",
    "tie-to-caller": "b", "near-address": "s",
}
VALUES: list[tuple[str, Any]] = [
    ("s", "1"), ("t", 1), ("u", 1), ("x", -1), ("d", 1.0), ("b", True), ("as", ["a"]), ("a{ss}", {"a": "b"}),
    ("a{sv}", {"a": ("s", "b")}), ("v", ("s", "x")), ("(s)", ("x",)), ("ay", b"x"), ("o", "/x"), ("as", []),
]
OTHERS = {"endpoints": "StartOutgoing", "near-address": "StartOutgoing", "endpoint": "PrepareIncoming"}


def ticket() -> str:
    return Ticket(endpoints=("tcp:127.0.0.1:1",)).encode()


def call(scene: Scene, method: str, options: dict[str, tuple[str, Any]], vm: str = "victim") -> None:
    args = ("sa{sv}", vm, options) if method == "PrepareIncoming" else ("ssa{sv}", vm, ticket(), options)
    scene.broker.client.call(PATH, BROKER, method, *args)


def refused(scene: Scene, method: str, options: dict[str, tuple[str, Any]], *words: str, error: str = INVALID,
            vm: str = "victim") -> None:
    with pytest.raises(BusError) as info:
        call(scene, method, options, vm)
    assert error in (info.value.name, info.value.short), info.value
    for word in words:
        assert word in info.value.text, info.value.text
    assert len(scene.broker.list()) == 2


@pytest.mark.parametrize("method", ["PrepareIncoming", "StartOutgoing"])
@pytest.mark.parametrize("key", TYPES)
def test_every_wrong_type(workdir: Path, method: str, key: str) -> None:
    with Scene(workdir) as scene:
        for signature, value in VALUES:
            if OTHERS.get(key) == method:
                refused(scene, method, {key: (signature, value)}, f"'{key}'")
            elif signature != TYPES[key]:
                refused(scene, method, {key: (signature, value)}, f"'{key}'", f"'{signature}'", f"'{TYPES[key]}'")


@pytest.mark.parametrize("method", ["PrepareIncoming", "StartOutgoing"])
@pytest.mark.parametrize("key", ["", "Streams", "stream", "endpoin", "resume", "x" * 100_000, "%s%n", "expire-usec "],
                         ids=["empty", "upper", "singular", "short", "prefix", "enormous", "format", "space"])
def test_unknown(workdir: Path, method: str, key: str) -> None:
    with Scene(workdir) as scene:
        refused(scene, method, {key: ("s", "x")}, f"'{key[:50]}")
        refused(scene, method, {"security": ("s", "plain"), key: ("s", "x")}, f"'{key[:50]}")


class Twice(dict):  # type: ignore[type-arg]
    """A dictionary on the wire may have a key twice; Python's cannot."""

    def __init__(self, *pairs: tuple[str, tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs

    def items(self) -> Any:
        return self.pairs


@pytest.mark.parametrize("method", ["PrepareIncoming", "StartOutgoing"])
@pytest.mark.parametrize("key, first, second", [
    ("security", ("s", "plain"), ("s", "tls")), ("expire-usec", ("t", 10**7), ("t", 10**7)),
    ("sockets", ("a{ss}", {}), ("a{ss}", {})), ("streams", ("as", ["migrate"]), ("as", ["migrate"])),
    ("client-id", ("s", "a"), ("s", "a")),
])
def test_twice(workdir: Path, method: str, key: str, first: Any, second: Any) -> None:
    with Scene(workdir) as scene:
        refused(scene, method, Twice((key, first), (key, second)), f"'{key}'", "twice")


# Of the right type, and yet not possible: the option, its value, what the text must name.
RANGES: list[tuple[str, Any, str]] = [
    ("streams", [], "empty"), ("streams", [""], "''"), ("streams", ["../x"], "'../x'"), ("streams", ["Upper"], "Upper"),
    ("streams", ["1st"], "'1st'"), ("streams", ["a" * 32], "aaaa"), ("streams", ["a", "a"], "twice"),
    ("streams", [f"s{i}" for i in range(17)], "16"),
    ("sockets", {"migrate": "relative"}, "'relative'"),
    ("socket-owner", "", "''"), ("socket-owner", "nobody-of-that-name", "nobody-of-that-name"),
    ("socket-owner", "-1", "'-1'"), ("socket-owner", "4294967295", "4294967295"),
    ("socket-owner", "99999999999", "99999999999"), ("socket-owner", "root:no-such-group", "no-such-group"),
    ("socket-owner", "root:", "''"), ("socket-owner", ":root", ":root"), ("socket-owner", "x" * 1000, "USER"),
    ("security", "", "''"), ("security", "TLS", "'TLS'"), ("security", "none", "'none'"),
    ("endpoints", ["tcp:*:1"], "tcp:*:1"), ("endpoints", ["tcp:host.example:1"], "resolve"),
    ("endpoints", ["127.0.0.1"], "'127.0.0.1'"), ("endpoints", ["tcp:[::1:1"], "tcp:[::1:1"),
    ("endpoints", ["tcp:1.2.3.4:65536"], "65536"), ("endpoints", ["unix:x"], "absolute"),
    ("endpoints", ["unix:/" + "x" * 107], "long"), ("endpoints", ["vsock:x:1"], "CID"),
    ("endpoints", ["tcp:127.0.0.1:1"] * 17, "16"), ("endpoints", ["unix:/" + "x" * 200], "127"),
    ("endpoint", "", "''"), ("endpoint", "tcp:", "'tcp:'"), ("endpoint", "tcp:*", "host"),
    ("endpoint", "x" * 128, "127"),
    ("near-address", "", "''"), ("near-address", "host2", "'host2'"), ("near-address", "1.2.3.4:5", "'1.2.3.4:5'"),
    ("near-address", "fe80::1%eth0", "fe80::1%eth0"), ("near-address", "1" * 1000, "1111"),
    ("expire-usec", 0, "'expire-usec' is 0"), ("expire-usec", 99_999, "99999"),
    ("expire-usec", 86_400_000_001, "86400000001"), ("expire-usec", 2**64 - 1, "18446744073709551615"),
    ("resume-timeout-usec", 86_400_000_001, "86400000001"), ("client-id", "", "empty"),
    ("client-id", "x" * 129, "128"),
]


@pytest.mark.parametrize("method", ["PrepareIncoming", "StartOutgoing"])
def test_out_of_range(workdir: Path, method: str) -> None:
    with Scene(workdir) as scene:
        for key, value, word in RANGES:
            if OTHERS.get(key) != method:
                refused(scene, method, {key: (TYPES[key], value)}, key, word)
        disks = {"sockets": ("a{ss}", {"disks": "/tmp/x"})}
        refused(scene, method, disks, "'disks'", "'streams'", error="NoSuchStream")


@pytest.mark.parametrize("value", ["\x1b[31m", "a\nb", "\x7f"], ids=["escape", "newline", "del"])
def test_client_id_that_is_not_printable(workdir: Path, value: str) -> None:
    """It stands in messages and in the log, so it is a text for people as the VM's name is."""
    with Scene(workdir) as scene:
        refused(scene, "PrepareIncoming", {"client-id": ("s", value)}, "client-id")


@pytest.mark.parametrize("options, words", [
    ({"streams": ("as", ["x" * 39 + "é" * 10])}, "31 bytes"),
    ({"streams": ("as", ["x" * 38 + "💾" * 10])}, "31 bytes"),
    ({"endpoints": ("as", ["unix:/" + "x" * 33 + "é" * 100])}, "127 bytes"),
    ({"sockets": ("a{ss}", {"migrate": "/x" + "é" * 3000})}, "bytes"),
    ({"sockets": ("a{ss}", {"migrate": "/" + "é" * 3000})}, "bytes"),
], ids=["stream-2", "stream-4", "endpoint", "path-even", "path-odd"])
def test_text_that_is_cut_in_a_character(workdir: Path, options: dict[str, tuple[str, Any]], words: str) -> None:
    """An error whose text is not UTF-8 would never be sent, and its caller would wait for ever."""
    with Scene(workdir) as scene:
        client = Client(scene.broker.bus)
        try:
            with pytest.raises(BusError, match=words):
                client.call(PATH, BROKER, "PrepareIncoming", "sa{sv}", "victim", options, timeout=20)
        finally:
            client.close()


@pytest.mark.parametrize("value", ["unix:/a\nb", "unix:/\x1b[2J"], ids=["newline", "escape"])
def test_endpoint_that_is_not_printable(workdir: Path, value: str) -> None:
    """A ticket with it would be refused by StartOutgoing: PrepareIncoming must not make one."""
    with Scene(workdir) as scene:
        refused(scene, "PrepareIncoming", {"endpoints": ("as", [value])}, "endpoints")


@pytest.mark.parametrize("method", ["PrepareIncoming", "StartOutgoing"])
@pytest.mark.parametrize("vm, words", [("", "empty"), ("x" * 256, "256 bytes"), ("x" * 10_000_000, "10000000 bytes"),
                                       ("ä" * 128, "256 bytes"), ("a\nb", "control"), ("\x1b[2J", "control"),
                                       ("\x7f", "control"), ("\x85", "control"), ("a\tb", "control")],
                         ids=["empty", "long", "enormous", "utf8", "newline", "escape", "del", "c1", "tab"])
def test_vm_name(workdir: Path, method: str, vm: str, words: str) -> None:
    with Scene(workdir) as scene:
        refused(scene, method, {}, words, vm=vm)


def test_vm_name_that_is_just_possible(workdir: Path) -> None:
    with Scene(workdir) as scene:
        for vm in ("x" * 255, "ä" * 127, "../../etc/passwd", "%s%n%p", "a b", "-", "💾"):
            victim = scene.incoming(vm)
            assert victim.migration.get("Vm") == vm
            victim.migration.cancel()
            victim.expect("Cancelled", result="cancelled")


@pytest.mark.parametrize("bad", [b"\xff\xfe\xfd", b"\xc0\x80", b"\xed\xa0\x80"],
                         ids=["no-utf8", "overlong", "surrogate"])
def test_vm_name_that_is_not_utf8(workdir: Path, bad: bytes) -> None:
    """The bus ends the connection of who sends such a thing; the broker lives."""
    with Scene(workdir) as scene:
        client = Client(scene.broker.bus)
        sock = client.connection.sock
        vm = struct.pack("<I", len(bad)) + bad + b"\0"
        body = vm + bytes(-len(vm) % 4) + struct.pack("<I", 0)
        body += bytes(-(len(body)) % 8) if len(body) % 8 else b""
        fields = b""
        for code, kind, value in ((1, b"o", PATH), (2, b"s", BROKER), (3, b"s", "PrepareIncoming"),
                                  (6, b"s", "org.vmferry.Broker1"), (8, b"g", "sa{sv}")):
            fields += bytes(-len(fields) % 8) + bytes([code, 1]) + kind + b"\0"
            data = value.encode()
            fields += (bytes([len(data)]) if kind == b"g" else struct.pack("<I", len(data))) + data + b"\0"
        header = struct.pack("<cBBBIII", b"l", 1, 0, 1, len(body), 77, len(fields)) + fields
        sock.sendall(header + bytes(-len(header) % 8) + body)
        sock.settimeout(10)
        try:
            while sock.recv(4096):
                pass
        except ConnectionError:
            pass
        client.close()
        assert len(scene.broker.list()) == 2
