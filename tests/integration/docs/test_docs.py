# SPDX-License-Identifier: LGPL-2.1-or-later
"""The docs say what the code does: names, types, numbers and defaults are held against sources and programs."""

from __future__ import annotations

import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest
from vmlib.broker import BROKER, MIGRATION, ROOT, build_dir
from vmlib.docs import DOCS, define, error_names, flat, page, section, source, sources, terms

PAGES = sorted(path.name for path in DOCS.glob("*.rst"))
RST2MAN = shutil.which("rst2man") or shutil.which("rst2man.py")


# ---- The pages as such ----


def test_texts_of_the_page_for_cockpit(tmp_path: Path) -> None:
    """What translators get is what the page says."""
    new = tmp_path / "vmferry.pot"
    subprocess.run([ROOT / "cockpit" / "update-texts", new], check=True)
    assert new.read_text() == (ROOT / "cockpit" / "vmferry.pot").read_text()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.skipif(RST2MAN is None, reason="no rst2man")
def test_page_compiles(name: str, tmp_path: Path) -> None:
    assert RST2MAN
    out = tmp_path / name.removesuffix(".rst")
    utf8 = ("--input-encoding=utf-8", "--output-encoding=utf-8")
    done = subprocess.run([RST2MAN, "--strict", *utf8, str(DOCS / name), str(out)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    title, number = name.removesuffix(".rst").rsplit(".", 1)
    assert re.search(rf'^\.TH "?{re.escape(title)}"? "?{number}"?', out.read_text(), re.M | re.I), "another section"


def test_meson_builds_each_page() -> None:
    build = (DOCS / "meson.build").read_text()
    assert sorted(f"{name}.rst" for name in re.findall(r"'([\w.-]+\.\d)'", build)) == PAGES


@pytest.mark.parametrize("name", PAGES)
def test_pages_that_are_named_are_there(name: str) -> None:
    ours = {tuple(page.removesuffix(".rst").rsplit(".", 1)) for page in PAGES}
    for title, number in re.findall(r"\*\*([\w.-]+)\*\*\\?\s*\((\d)\)", page(name)):
        if "vmferry" in title:
            assert (title, number) in ours, f"{title}({number}) is named"


@pytest.mark.parametrize("name", ["threat-model.md", "architecture.md", "design.md", "hand-over.md"])
def test_files_that_are_named_are_there(name: str) -> None:
    named = set(re.findall(r"`((?:broker|common|ctl|helper|giver|dbus|docs)/[\w./-]+)`", page(name)))
    assert named and not [path for path in named if not (ROOT / path).exists()]


def test_performance_names_the_defaults() -> None:
    window = define("DEFAULT_WINDOW_MIB", "broker/config/config.h")
    text = flat(page("performance.md"))
    assert f"the window is {window} MiB" in text and f"default of {window} MiB fills" in text
    rows = re.findall(r"\| ([\d.]+) Gb/s \| ([\d.]+) ms \| ([\d.]+) MiB \|", page("performance.md"))
    assert rows
    for rate, round_trip, mib in rows:
        assert abs(float(rate) * 1e9 / 8 * float(round_trip) / 1e3 / (1 << 20) / float(mib) - 1) < 0.05
    assert [float(mib) > window for _, _, mib in rows].count(True) == 2  # "but the last two"


# ---- vmferryd(8) ----


def options_of_help(program: str) -> dict[str, tuple[str, str]]:
    """By option: its argument, and its default as --help says it."""
    path = build_dir() / program
    text = subprocess.run([path, "--help"], capture_output=True, text=True, check=True, timeout=20).stdout
    found = {}
    for match in re.finditer(r"^ +(?:-\w, )?(--[\w-]+)(?:=(\w+))? +(.*(?:\n {20,}.*)*)", text, re.M):
        default = re.search(r"\(default ([^,)]+)", match[3])
        found[match[1]] = (match[2] or "", default[1] if default else "")
    assert found
    return found


def options_of_page(name: str, title: str) -> dict[str, tuple[str, str]]:
    found = {}
    for match in re.finditer(r"^(?:-\w, )?(--[\w-]+)(?:=(\w+))?\n((?:  .*\n|\n)+)", section(page(name), title), re.M):
        default = re.search(r"Default: ``([^`]+)``", flat(match[3]))
        found[match[1]] = (match[2] or "", default[1] if default else "")
    return found


@pytest.mark.story
def test_vmferryd_options() -> None:
    there, said = options_of_help("broker/vmferryd"), options_of_page("vmferryd.8.rst", "OPTIONS")
    assert {key: value[0] for key, value in there.items()} == {key: value[0] for key, value in said.items()}
    for key, (_, default) in there.items():
        if key != "--helper":  # the page says where the default is told: it hangs on the prefix
            assert said[key][1] == default, f"the default of {key}"


def settings_of_code() -> dict[str, dict[str, str]]:
    """By key: all that a row of the table says, with "range" where it is a number."""
    found: dict[str, dict[str, str]] = {}
    table = re.search(r"settings\[\] = \{\n(.*?)^\};", source("broker/config/settings.c"), re.M | re.S)
    for row in table[1].split("\n    {") if table else []:
        fields = dict(re.findall(r'\.(\w+) = "(.*?)",', row))
        limits = re.search(r"(?:NUMBER|LARGE)\(\w+, (\w+), (\w+), (?:(\w+), )?", row)
        if limits:
            ends = [end if end.isdigit() else str(define(end, "broker/config/config.h")) for end in limits.groups()[:2]]
            fields["range"] = f"{ends[0]} to {ends[1]}"
        found[fields["key"]] = fields
    assert len(found) > 10
    return found


def default_of_setting(fields: dict[str, str]) -> str:
    return options_of_help("broker/vmferryd")["--" + fields["option"]][1]


def test_settings() -> None:
    """The page has each setting in the order of the code, with its range, its option and its default."""
    said, options = terms(section(page("vmferryd.conf.5.rst"), "SETTINGS")), page("vmferryd.8.rst")
    there = settings_of_code()
    assert list(said) == [f"``{key}=``" for key in there]
    for key, fields in there.items():
        text = said[f"``{key}=``"]
        assert text.endswith(f"Default: ``{default_of_setting(fields)}``"), key
        assert fields.get("range", "") in text, key
        assert f"--{fields['option']}={fields['argument']}\n  *{key}=*." in options, key
    assert f"up to {define('CONFIG_LISTEN_MAX', 'broker/config/config.h')} endpoints" in said["``Listen=``"]


def test_example_of_settings() -> None:
    """It has each setting as a comment with its default; without the '#' the broker takes all of it."""
    lines = [line for line in source("docs/vmferryd.conf").splitlines() if re.match(r"#\w+=", line)]
    assert lines == [f"#{key}={default_of_setting(fields)}" for key, fields in settings_of_code().items()]
    assert not re.search(r"^[^#\n[]", source("docs/vmferryd.conf"), re.M)


def test_window_suits_the_helper() -> None:
    low, high = (define(f"WINDOW_{end}", "common/message.h") for end in ("MIN", "MAX"))
    range_ = settings_of_code()["WindowMiB"]["range"].split(" to ")
    assert low <= int(range_[0]) << 20 and int(range_[1]) << 20 <= high, "what the broker allows, the helper takes"
    pending = settings_of_code()["MaxGateConnections"]["range"].split(" to ")
    assert int(pending[1]) == define("GATE_PENDING_MAX", "helper/limits.h")


def test_port_of_endpoints() -> None:
    text = flat(page("vmferryd.8.rst"))
    assert f"May be given up to {define('CONFIG_LISTEN_MAX', 'broker/config/config.h')} times" in text
    assert f"A port that is left out is {define('ENDPOINT_PORT', 'common/address.h')}." in text


@pytest.mark.parametrize("name", ["helper", "giver"])
def test_options_of_services(name: str) -> None:
    there, said = options_of_help(f"{name}/vmferry-{name}"), options_of_page(f"vmferry-{name}.8.rst", "INVOCATION")
    assert set(there) == set(said)


def test_helper_limits() -> None:
    headers = ("helper/sandbox.c", "helper/limits.h", "common/stats.h",
               "common/message.h")
    assert f"**RLIMIT_NOFILE** at most {define('FDS_MAX', *headers)}" in flat(page("vmferry-helper.8.rst"))
    assert f"at most {define('FDS_MAX', *headers)} descriptors" in flat(page("threat-model.md"))
    pending, deadline = (define(f"DEFAULT_GATE_{name}", "broker/config/config.h") for name in ("PENDING", "DEADLINE"))
    text = flat(page("vmferry-helper.8.rst"))
    assert f"It keeps at most {pending} connections" in text and f"Each has {deadline // 1000} seconds" in text


def test_threat_model_numbers() -> None:
    text = flat(page("threat-model.md"))
    peers, resume, silence = (define(name, "helper/limits.h", "common/stats.h")
                              for name in ("PEERS_MAX", "SILENCE_RESUME", "SILENCE_MAX"))
    assert f"A relay keeps {peers} that" in text
    assert f"{resume} s of silence on the control connection ({silence} s without resuming)" in text
    calls = [define(name, "broker/config/config.h") for name in ("DEFAULT_CALLS_PER_USER", "DEFAULT_MAX_CALLS")]
    assert "At most {} calls of one bus connection, and {} in all".format(*calls) in text
    asked = [define(name, "broker/bus/caller.c") for name in ("ASKED_PER_USER", "ASKED_MAX")]
    assert "for polkit {} of a user, and {} in all".format(*asked) in text
    give_up = re.search(r"give_up = (\d+)", source("broker/net/endpoint.c"))
    assert give_up and f"TCP gives up after {int(give_up[1]) // 1000} s" in text


@pytest.mark.parametrize(("name", "after", "groups"), [
    ("vmferry-helper.8.rst", "SANDBOX\n=======", ("Moving bytes", "Event loop", "Memory, its end")),
    ("threat-model.md", "## What the sandbox allows", ("| moving bytes |", "| event loop |", "| process |")),
])
def test_system_calls(name: str, after: str, groups: tuple[str, ...]) -> None:
    """Both lists of what the sandbox allows are that of the code, sanitizers apart."""
    code = re.sub(r"^#if SANITIZED\n.*?^#endif", "", source("helper/sandbox.c"), flags=re.S | re.M)
    allowed = set(re.findall(r"\b(?:SYSCALL(?:32)?|SCMP_SYS)\((?!name)(\w+)\)", code))
    assert len(allowed) > 30
    text = re.split(r"^Not on the list|^So a helper", page(name).split(after)[1], flags=re.M)[0]
    assert not [call for call in allowed if not re.search(rf"\b{call}\b", text)], "allowed, but not listed"
    for group in groups:
        found = re.search(rf"^{re.escape(group)}([^;\n]*(?:\n {{10,}}[^;\n]*)?)", text, re.M)
        assert found
        listed = set(re.findall(r"\w+", found[1]))
        assert len(listed) > 5 and listed <= allowed, "listed, but not allowed"


def test_worst_use_of_system_calls() -> None:
    """The threat model has a row for each call that is allowed, and none for others but the one that is explained."""
    code = re.sub(r"^#if SANITIZED\n.*?^#endif", "", source("helper/sandbox.c"), flags=re.S | re.M)
    table = page("threat-model.md").split("| call | what the filter lets pass |")[1].split("\n\n")[0]
    rows = [re.findall(r"\w+", re.sub(r"\(.*?\)", "", row)) for row in re.findall(r"^\| ([^|]+) \|", table, re.M)]
    listed = [call for row in rows for call in row]
    assert len(listed) == len(set(listed))
    assert set(listed) - {"sendto"} == set(re.findall(r"\bSYSCALL\((?!name)(\w+)\)", code)) and "sendto" in listed


# ---- org.vmferry.Broker1(5) ----

BROKER_PAGE = "org.vmferry.Broker1.5.rst"
SECTIONS = {
    (BROKER, "method"): "Methods of the broker",
    (BROKER, "property"): "Properties of the broker",
    (BROKER, "signal"): "Signals of the broker",
    (MIGRATION, "method"): "Methods of a migration",
    (MIGRATION, "property"): "Properties of a migration",
}


def members_of_xml(interface: str, kind: str) -> Iterator[str]:
    """As the page writes them: "GetMigration(s role, s id) → (o migration)"."""
    node = ElementTree.fromstring(source(f"dbus/{interface}.xml")).find(f"./interface[@name='{interface}']")
    assert node is not None
    for member in node.findall(kind):
        if kind == "property":
            yield f"{member.get('name')} {member.get('type')}"
            continue
        args: dict[str, list[str]] = {"in": [], "out": []}
        for arg in member.findall("arg"):
            side = arg.get("direction", "in" if kind == "method" else "out")
            args["in" if kind == "signal" else side].append(f"{arg.get('type')} {arg.get('name')}")
        back = f" → ({', '.join(args['out'])})" if args["out"] else ""
        yield f"{member.get('name')}({', '.join(args['in'])}){back}"


@pytest.mark.parametrize(("interface", "kind"), SECTIONS)
def test_members(interface: str, kind: str) -> None:
    said = terms(section(page(BROKER_PAGE), SECTIONS[interface, kind]))
    assert set(said) == {f"``{member}``" for member in members_of_xml(interface, kind)}
    assert all(said.values())


def test_no_other_signals() -> None:
    assert not list(members_of_xml(MIGRATION, "signal"))


def test_properties_that_are_polled() -> None:
    """The page says which ones have no signal."""
    node = ElementTree.fromstring(source(f"dbus/{MIGRATION}.xml"))
    emits: dict[str, list[str]] = {"true": [], "false": [], "const": []}
    for member in node.iter("property"):
        note = member.find("annotation[@name='org.freedesktop.DBus.Property.EmitsChangedSignal']")
        emits[note.get("value", "") if note is not None else "true"].append(member.get("name", ""))
    text = flat(section(page(BROKER_PAGE), "Properties of a migration"))
    assert f"*{emits['false'][0]}* to *{emits['false'][-1]}* are polled" in text
    names = list(terms(section(page(BROKER_PAGE), "Properties of a migration")))
    last = [re.findall(r"\w+", name)[0] for name in names[-len(emits["false"]):]]
    assert last == emits["false"]
    found = re.search(r"no signal tells of changes\. Of ((?:\*\w+\*(?:, | and )?)+) the signal", text)
    assert found and set(re.findall(r"\*(\w+)\*", found[1])) == set(emits["true"])


def options_of_code() -> dict[str, tuple[str, str]]:
    """By key: its type, and which method has it."""
    roles = {"IN | OUT": "both", "IN": "PrepareIncoming", "OUT": "StartOutgoing"}
    rows = re.findall(r'^ +\{"([\w-]+)", "([^"]+)", ([A-Z| ]+), read_\w+\},', source("broker/bus/options.c"), re.M)
    assert len(rows) >= 12
    return {key: (type_, roles[role]) for key, type_, role in rows}


def options_of_broker_page() -> dict[str, tuple[str, str, str]]:
    found = {}
    for term, text in terms(section(page(BROKER_PAGE), "OPTIONS")).items():
        match = re.fullmatch(r"``([\w-]+)`` \(``([^`]+)``, (\w+)\)", term)
        assert match, term
        found[match[1]] = (match[2], match[3], text)
    return found


def test_call_options() -> None:
    said = options_of_broker_page()
    assert {key: value[:2] for key, value in said.items()} == options_of_code()
    for key, (_, _, text) in said.items():
        assert "Default: " in text, f"{key} has no default"


def test_call_option_numbers() -> None:
    said = {key: value[2] for key, value in options_of_broker_page().items()}
    low, high, expire = (define(name, "broker/config/config.h") for name in ("EXPIRE_MIN", "EXPIRE_MAX", "DEFAULT_EXPIRE"))
    assert f"{low} to {high}" in said["expire-usec"] and f"Default: ``{expire}``" in said["expire-usec"]
    resume = said["resume-timeout-usec"]
    assert f"up to {high}" in resume and f"Default: ``{define('DEFAULT_RESUME', 'broker/config/config.h')}``" in resume
    limits = [define(f"SILENCE_{which}", "helper/limits.h") for which in ("MAX", "RESUME")]
    assert "after {} seconds of silence instead of {}".format(*limits) in resume
    streams, name = (define(macro, "common/message.h") for macro in ("MESSAGE_STREAMS_MAX", "MESSAGE_STREAM_MAX"))
    assert f"1 to {streams} different names" in said["streams"] and f"up to {name - 2} of" in said["streams"]
    assert f"up to {define('TICKET_ENDPOINTS_MAX', 'broker/net/ticket.h')} endpoints" in said["endpoints"]
    assert f"at most {define('QEMU_SOCKET_PATH_MAX', 'broker/sockets/qemu-socket.h') - 1} bytes" in said["sockets"]
    longest = re.search(r"CLIENT_ID_MAX = (\d+)", source("broker/bus/options.c"))
    assert longest and f"1 to {longest[1]} bytes" in said["client-id"]
    default = re.search(r'\.streams = \{"(\w+)"\}', source("broker/bus/options.c"))
    assert default and f"Default: ``{default[1]}``" in said["streams"]


def test_broker_page_numbers() -> None:
    text = flat(page(BROKER_PAGE))
    limits = ("FINISHED_KEPT", "FINISHED_MAX", "CONNECTED_IDLE")
    kept, many, idle = (define(name, "broker/config/config.h") for name in limits)
    assert f"stays for {kept // 60_000_000} minutes" in text and f"Of finished ones {many} are kept" in text
    assert f"Lasts {idle // 60_000_000} minutes at most, unless QEMU connects" in text
    assert f"At most {define('WAITERS_MAX', 'broker/bus/waiters.h')} calls may wait" in text
    assert f"up to {define('QUEUE_MAX', 'broker/migration/queue.h')} may be ready" in text
    assert f"when {define('STATS_CHANNELS_MAX', 'common/stats.h')} are listed" in text
    peers, seen = define("QUEUE_MAX", "broker/migration/queue.h"), define("SUPPLIED_SEEN_MAX", "broker/sockets/supplied.h")
    assert f"up to {peers} may wait" in text and f"can be given {seen} sockets" in text
    deadline = define("PEER_DEADLINE", "helper/limits.h") // 1000000
    assert f"and then has {deadline} seconds" in text
    silence = [define(f"SILENCE_{which}", "helper/limits.h") for which in ("RESUME", "MAX")]
    assert "not heard of for {} seconds ({} without resuming)".format(*silence) in text
    features = re.search(r"features\[\] = \{([^}]*)\}", sources("broker"))
    assert features
    said = terms(section(page(BROKER_PAGE), "Properties of the broker"))["``Features as``"]
    assert re.findall(r"\*([\w-]+)\*", said) == re.findall(r'"([\w-]+)"', features[1])


def test_authorization() -> None:
    """The actions are those of the code and of the policy, and the page has the time-outs."""
    text = section(page(BROKER_PAGE), "WHO MAY DO WHAT")
    actions = re.findall(r'\[ACTION_\w+\] = "([\w.-]+)"', source("broker/bus/authorize.c"))
    assert actions and re.findall(r"^``(org[\w.-]+)``", text, re.M) == actions
    assert re.findall(r'<action id="([^"]+)"', source("dbus/org.vmferry.Broker1.policy")) == actions
    times = dict(re.findall(r"(\w+_TIMEOUT) = (\d+)", source("broker/bus/authorize.c")))
    assert f"does not answer within {int(times['ANSWER_TIMEOUT']) // 1000000} seconds" in flat(text)
    assert f"for up to {int(times['INTERACTIVE_TIMEOUT']) // 60000000} minutes" in flat(text)
    for detail in re.findall(r'"a\{ss\}", 3, (.*?)\);', source("broker/bus/authorize.c"), re.S)[0].split('"')[1::2]:
        assert f"*{detail}*" in text


def test_errors() -> None:
    said = terms(section(page(BROKER_PAGE), "ERRORS"))
    assert list(said) == [f"``{name}``" for name in error_names()]
    assert all(said.values())


def test_states_and_results() -> None:
    text = section(page(BROKER_PAGE), "STATES AND RESULTS")
    states = re.findall(r'\[STATE_\w+\] = "([\w-]+)"', sources("broker"))
    results = re.findall(r'\[VF_RESULT_\w+\] = "([\w-]+)"', source("common/error.c"))
    assert states and re.findall(r"^([\w-]+)\n  \S", text, re.M) == states
    assert results and re.findall(r"^  ([\w-]+)\n    \S", text, re.M) == results


def test_time_to_end() -> None:
    """What a broker may take that ends by itself: the page says it, and the units leave it."""
    text = source("broker/lifecycle.c")
    heard, answered = (int(re.search(rf"{name} = (\d+)000000,", text)[1])  # type: ignore[index]
                       for name in ("HEARD_MAX", "LEAVE_MAX"))
    said = flat(page("vmferryd.8.rst"))
    assert f"systemd has heard that ({heard} seconds at most)" in said
    assert f"waits for polkit may take {answered} seconds more" in said
    for unit in ("units/vmferryd.service.in", "units/user/vmferryd.service.in"):
        left = re.search(r"^TimeoutStopSec=(\d+)s$", source(unit), re.M)
        assert left and heard + answered < int(left[1])
