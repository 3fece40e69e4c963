# SPDX-License-Identifier: LGPL-2.1-or-later
"""tools/bench works for every tunnel, and what it writes can be read. How fast anything is, no test says."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from vmlib.bench import SECTIONS, TUNNELS, bench, measure, names, needs_root
from vmlib.broker import ROOT

DOCUMENT = ROOT / "docs" / "performance.md"
pytestmark = pytest.mark.qemu  # on the release build: its programs are measured, not checked

FLOORS = ("io-floor", "gnutls-floor")
NO_RESUME = ("vmferry-plain-no-resume", "vmferry-tls-no-resume")


@needs_root
def test_stream(workdir: Path) -> None:
    (rows,) = measure(workdir, "stream").values()
    assert names(rows) == sorted((*TUNNELS, *FLOORS, *NO_RESUME))
    for row in rows:
        assert row["gib_per_s"]["median"] > 0 and len(row["gib_per_s"]["values"]) == 1
    notes = {row["name"]: row["note"] for row in rows}
    assert "aes128-gcm" in notes["ssh-aes128-gcm"] and "chacha20" in notes["ssh"]
    assert "TLSv1.3" in notes["stunnel"] and notes["socat-openssl-256k"] == "TLSv1.3 TLS_AES_128_GCM_SHA256"


@needs_root
def test_pages(workdir: Path) -> None:
    (rows,) = measure(workdir, "pages").values()
    assert names(rows) == sorted(TUNNELS)
    for row in rows:
        for state in ("idle", "busy"):
            assert 0 < row[f"{state}_p50_us"]["median"] <= row[f"{state}_p99_us"]["median"]


@needs_root
def test_start_and_memory(workdir: Path) -> None:
    found = measure(workdir, "start", "memory")
    for rows in found.values():
        assert [row["security"] for row in rows] == ["plain", "tls"]
    for row in found["memory"]:
        assert row["idle_mib"] > 0 and row["full_mib"] > 0
        if row["security"] == "tls":  # what is kept in pipes is in no process
            assert row["full_mib"] > row["idle_mib"]


@needs_root
def test_many(workdir: Path) -> None:
    (rows,) = measure(workdir, "many").values()
    assert rows[0]["migrations"] == 20 and rows[0]["errors"] == []
    assert rows[0]["running"]["Get"]["count"] > 0 and rows[0]["running"]["GetAll"]["count"] > 0


@needs_root
def test_scaling_and_system(workdir: Path) -> None:
    found = measure(workdir, "scaling", "system", "direct-tcp", "vmferry-tls")
    assert {(row["name"], row["channels"]) for row in found["scaling"]} == {
        (name, channels) for name in ("direct-tcp", "vmferry-tls") for channels in (1, 2)}
    assert names(found["system"]) == ["direct-tcp", "vmferry-tls"]


@needs_root
@pytest.mark.long
def test_distance(workdir: Path) -> None:
    (rows,) = measure(workdir, "distance", "vmferry-tls").values()
    assert names(rows) == ["direct-tcp", "vmferry-tls, 4 MiB", "vmferry-tls, 64 MiB", "vmferry-tls, grows to 32 MiB"]
    assert {row["trip_ms"] for row in rows} == {0.2, 2.0, 10.0, 50.0}
    for row in rows:
        assert row["gib_per_s"]["median"] > 0 and row["to_direct"]["median"] > 0


@needs_root
@pytest.mark.long
def test_check_names_each_target(workdir: Path) -> None:
    """Met or missed, that is not for a test to say."""
    status, out, err = bench("--quick", "--check", "--only=start,memory", f"--output={workdir}/out")
    assert status in (0, 1), err
    verdicts = dict(reversed(line.split()[:2]) for line in out.splitlines())
    assert set(verdicts) == {f"{kind}-{what}" for kind in ("plain", "tls") for what in ("start", "start-at-once", "memory")}
    assert set(verdicts.values()) <= {"met", "missed"} and (status == 0) == ("missed" not in verdicts.values())
    # Nothing of this was asked of a run that has not got it.
    data = json.loads((workdir / "out" / "bench.json").read_text())
    data["sections"]["start"] = data["sections"]["start"][:1]
    (workdir / "out" / "bench.json").write_text(json.dumps(data))
    status, out, err = bench(f"--from={workdir}/out", f"--output={workdir}/again", "--check")
    assert status == 1 and re.search(r"^not measured +tls-start ", out, re.M), out + err


@needs_root
def test_documents_are_filled(workdir: Path) -> None:
    document = workdir / "performance.md"
    document.write_text(DOCUMENT.read_text())
    before = document.read_text()
    status, _, err = bench("--quick", "--only=pages,direct-unix,vmferry-plain", f"--output={workdir}/out",
                           f"--update-docs={document}")
    assert status == 0, err
    text = document.read_text()
    (filled,) = re.findall(r"<!-- bench:pages -->\n(.*?)<!-- /bench -->", text, re.S)
    assert "| **vmferry-plain** |" in filled and "](performance/pages.png)" in filled
    assert (workdir / "performance" / "pages.png").exists()
    # The rest is as it was, and once more changes nothing.
    outside = re.compile(r"<!-- bench:pages -->\n.*?<!-- /bench -->", re.S)
    assert outside.sub("", text) == outside.sub("", before)
    status, _, err = bench(f"--from={workdir}/out", f"--output={workdir}/out", f"--update-docs={document}")
    assert status == 0 and document.read_text() == text, err


def test_the_document_has_a_place_for_each_table() -> None:
    found = re.findall(r"<!-- bench:(\w+) -->\n[^\0]*?<!-- /bench -->", DOCUMENT.read_text())
    assert sorted(found) == sorted((*SECTIONS, "conditions", "libvirt", "targets"))


def test_help_names_all() -> None:
    text = subprocess.run([ROOT / "tools" / "bench", "--help"], check=True, capture_output=True, text=True).stdout
    for name in (*SECTIONS, *TUNNELS, *FLOORS, "qemu-tls"):
        assert re.search(rf"[ ,;.]{name}[,;.\n]", text), name


@pytest.mark.parametrize("arguments, word", [
    (["--only=stream,nonsense"], "nonsense"), (["--rounds=0"], "--rounds"), (["--gib=x"], "--gib"),
    (["--nonsense"], "--nonsense"), (["--quick", "--update-docs"], "--quick"),
])
def test_bad_arguments(arguments: list[str], word: str) -> None:
    status, out, err = bench(*arguments)
    assert (status, out) == (2, "") and word in err and "--help" in err and len(err.splitlines()) == 1


@needs_root
def test_unknown_congestion_control(workdir: Path) -> None:
    status, _, err = bench("--quick", "--only=start", "--congestion=nonsense", f"--output={workdir}/out")
    assert status == 1 and "nonsense" in err and "reno" in err
