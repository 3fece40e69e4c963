# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferry-protocol(7) says what the code does."""

from __future__ import annotations

import re

from vmlib.docs import define, error_names, flat, page, section, source, sources

PROTOCOL_PAGE = "vmferry-protocol.7.rst"
LIMITS = {  # row of the table: the macro, and what one of the row's units is in the macro's
    "Until the preamble is whole": ("DEFAULT_GATE_DEADLINE", "s", 1000),
    "Connections without a preamble, at once": ("DEFAULT_GATE_PENDING", "", 1),
    "Until a connection is proved and has its channel": ("PEER_DEADLINE", "s", 1000000),
    "Connections of a migration that are not there, at once": ("PEERS_MAX", "", 1),
    "From one PING of the source to the next": ("TICK", "s", 1000000),
    "From one PING of the destination to the next": ("TRIP", "s", 1000000),
    "Silence on the control connection": ("SILENCE_RESUME", "s", 1),
    "The same where nothing is resumed": ("SILENCE_MAX", "s", 1),
    "Until a lost network loses QEMU its connections": ("DEFAULT_RESUME", "s", 1000000),
    "From a failed try to resume to the next, at first": ("REDIAL_FIRST", "ms", 1000),
    "The same at last": ("REDIAL_MAX", "s", 1000000),
    "Until a delivered byte is acknowledged": ("ACK_DELAY", "ms", 1000),
    "Delivered bytes that are acknowledged at once": ("FLOW_ACK_STEP", "KiB", 1 << 10),
    "Bytes of a flow that are not acknowledged": ("DEFAULT_WINDOW_MIB", "MiB", 1),
    "Bytes of a flow between peer and QEMU": ("FLOW_BUFFER", "MiB", 1 << 20),
    "Until a silent channel is connected to QEMU": ("DIAL_GRACE", "ms", 1000),
    "Until the destination QEMU accepts": ("DEFAULT_QEMU_TIMEOUT", "s", 1000000),
    "For the last frame to reach the peer": ("LINGER", "s", 1000000),
    "Channels at once": ("DEFAULT_MAX_CHANNELS", "", 1),
}


def rows(text: str) -> list[list[str]]:
    """The rows of all simple tables."""
    lines = (line for line in text.splitlines() if re.match(r"[^\s=].* {2,}\S", line))
    return [re.split(r" {2,}", line.strip()) for line in lines]


def test_frames() -> None:
    numbers = re.findall(r"^ +FRAME_(\w+) = (\d+),", source("helper/protocol/frame.h"), re.M)
    assert len(numbers) == 11
    table = rows(section(page(PROTOCOL_PAGE), "CONTROL CONNECTION"))
    said = [row[:2] for row in table if row[0].isupper() and row[1].isdigit()]
    assert said == [list(pair) for pair in numbers]


def test_frames_permitted() -> None:
    """The table of the page is that of frame_not_permitted()."""
    table = re.search(r"permitted\[FRAME_MAX_TYPE_\] = \{(.*?)\};", source("helper/protocol/frame.c"), re.S)
    assert table
    whom = {"BOTH": "yes", "SOURCE": "from the source", "DESTINATION": "from the destination"}
    there = {}
    for name, bits in re.findall(r"\[FRAME_(\w+)\] = ([A-Z| ]+)", table[1]):
        words = bits.split(" | ")
        there[name] = tuple(whom[words[-1]] if when in words else "no" for when in ("BEFORE", "AFTER"))
    said = {}
    for row in rows(section(page(PROTOCOL_PAGE), "When what is permitted")):
        for name in row[0].split(", "):
            said[name] = tuple(row[1:])
    del said["From a side whose HELLO"]
    assert said == there


def test_error_numbers() -> None:
    said = [row for row in rows(section(page(PROTOCOL_PAGE), "ERRORS")) if row[0].isdigit()]
    assert said == [[str(number), name] for number, name in enumerate(error_names(), 1)]


def test_keys_and_labels() -> None:
    """Every label that goes into a key is on the page as it stands."""
    text = page(PROTOCOL_PAGE)
    derived = re.findall(r'"(vmferry [\w ]+ v1)"', source("helper/session/session.c") + source("helper/session/frames.c"))
    assert len(derived) == 4
    exporter = re.findall(r'label\[\] = "([\w-]+)"', source("helper/carrier/tls.c"))
    proofs = set(re.findall(r'mac_of\(proof, "(\w+)"', source("helper/protocol/proof.c")))
    assert exporter and proofs == {"server", "client", "export"}
    for label in derived + exporter + [f'MAC("{label}")' for label in proofs]:
        assert label in text, label


def test_magics() -> None:
    for name in ("preamble_magic", "rejection_magic"):
        found = re.search(rf"{name}\[8\] = \{{(.*?)\}}", source("helper/protocol/greeting.c"))
        assert found
        values = [re.fullmatch(r"'(\\n|.)'|(\d+)", item.strip()) for item in found[1].split(",")]
        data = bytes(ord(v[1].replace("\\n", "\n")) if v[1] else int(v[2]) for v in values if v)
        assert len(data) == 8 and data.hex(" ") in page(PROTOCOL_PAGE)


def test_preamble_kinds() -> None:
    enum = re.search(r"enum peer_kind \{(.*?)\};", source("common/message.h"), re.S)
    kinds = dict(re.findall(r"PEER_(\w+) = (\d+),", enum[1])) if enum else {}
    assert kinds == {"ANY": "0", "CONTROL": "1", "CHANNEL": "2", "RESUME": "3"}
    said = re.search(r"Kind: 1 control connection, 2 channel connection, 3 resume", flat(page(PROTOCOL_PAGE)))
    assert said and "kind (1, 2 or 3)" in page(PROTOCOL_PAGE)


def test_resuming_numbers() -> None:
    """The prose says what the table says."""
    text = flat(page(PROTOCOL_PAGE))
    names = ("PEERS_MAX", "SILENCE_RESUME", "SILENCE_MAX", "REDIAL_FIRST", "REDIAL_MAX")
    peers, resume, silence, first, last = (define(name, "helper/limits.h", "common/stats.h")
                                           for name in names)
    assert f"at most {peers} that are not there yet" in text
    assert f"for {resume} seconds takes it for lost; for {silence} seconds where" in text
    assert f"at once, then {first // 1000} ms after that" in text and f"up to {last // 1000000} seconds" in text
    assert f"{define('DEFAULT_RESUME', 'broker/config/config.h') // 1000000} seconds unless the option says" in text
    assert f"its window, {define('DEFAULT_WINDOW_MIB', 'broker/config/config.h')} MiB unless" in text


def test_protocol_numbers() -> None:
    text = flat(page(PROTOCOL_PAGE))
    version = define("PROTOCOL_VERSION", "helper/protocol/wire.h")
    assert f"peer protocol of vmferry, version {version}:" in text
    assert f"in bytes, at most {define('FRAME_PAYLOAD_MAX', 'helper/protocol/frame.h')}." in text
    assert f"then 0 to {define('FRAME_TEXT_MAX', 'helper/protocol/frame.h')} bytes of printable text" in text
    for name in ("PREAMBLE_SIZE", "REJECTION_SIZE"):
        assert define(name, "helper/protocol/greeting.h") == 32
    assert define("CHANNEL_HELLO_SIZE", "helper/protocol/greeting.h") == 16


def test_limits() -> None:
    said = {row[0]: row[1] for row in rows(section(page(PROTOCOL_PAGE), "TIMES AND LIMITS")) if len(row) == 2}
    for what, (macro, unit, factor) in LIMITS.items():
        value = define(macro, "helper/limits.h", "helper/relay/flow.h", "broker/config/config.h", "common/stats.h")
        assert said[what] == f"{value // factor} {unit}".strip(), what
    dial = re.search(r"DIAL_TIMEOUT = (\d+)", sources("broker"))
    ring = re.search(r"CONTROL_RING\s+\(\(size_t\)(\d+) \* 1024\)", source("helper/limits.h"))
    assert dial and said["Until an endpoint is connected to"] == f"{int(dial[1]) // 1000000} s"
    assert ring and said["Frames that wait to be sent"] == f"{ring[1]} KiB"
    assert set(said) - set(LIMITS) <= {"What", "Until an endpoint is connected to", "Frames that wait to be sent"}
