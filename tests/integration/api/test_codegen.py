# SPDX-License-Identifier: LGPL-2.1-or-later
"""Code that GLib's and Qt's generators make of the shipped XML compiles, and works with a broker; so does busctl monitor."""

from __future__ import annotations

import json
import select
import subprocess
from pathlib import Path

from vmlib.broker import MIGRATION, ROOT, Broker, Migration, running, wait_until
from vmlib.hosts import cancel_and_wait

SOURCES = Path(__file__).parent / "codegen"
XML = [ROOT / "dbus" / f"org.vmferry.{name}.xml" for name in ("Broker1", "Migration1")]


def run(*words: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, timeout=120)
    assert done.returncode == 0, done
    return done.stdout


def flags(*packages: str) -> list[str]:
    return run("pkg-config", "--cflags", "--libs", *packages).split()


def end(broker: Broker) -> None:
    for *_, path in broker.list():
        cancel_and_wait(Migration(broker, path))


def test_gdbus_codegen(workdir: Path) -> None:
    run("gdbus-codegen", "--interface-prefix=org.vmferry.", "--c-namespace=Vmferry", "--generate-c-code=vmferry",
        "--c-generate-autocleanup=all", f"--output-directory={workdir}", *XML)
    run("cc", "-o", workdir / "client", f"-I{workdir}", SOURCES / "glib.c", workdir / "vmferry.c", *flags("gio-unix-2.0"))
    with Broker(workdir, "a") as broker:
        assert run(workdir / "client", broker.bus.address) == "web1 waiting ticket 1 descriptor\n"
        end(broker)


def test_qdbusxml2cpp(workdir: Path) -> None:
    moc = Path(run("pkg-config", "--variable=host_bins", "Qt5Core").strip()) / "moc"
    for name, xml in zip(("broker", "migration"), XML):
        run("qdbusxml2cpp", "-i", "vmferry-types.h", "-p", name, xml, cwd=workdir)
        run(moc, f"{name}.h", "-o", f"moc_{name}.cpp", cwd=workdir)
    parts = [SOURCES / "qt.cpp", *(f"{prefix}{name}.cpp" for name in ("broker", "migration") for prefix in ("", "moc_"))]
    (workdir / "all.cpp").write_text("".join(f'#include "{part}"\n' for part in parts))  # Qt's headers are long: once
    run("c++", "-fPIC", "-o", "client", f"-I{workdir}", f"-I{ROOT / 'tests' / 'examples'}", "all.cpp", *flags("Qt5DBus"),
        cwd=workdir)
    with Broker(workdir, "a") as broker:
        assert run(workdir / "client", broker.bus.address) == "web1 waiting ticket 1 descriptor migrate.sock 0 1\n"
        end(broker)


def test_busctl_monitor(workdir: Path) -> None:
    """A migration is there before anything of it changes; and what changes is readable."""
    with Broker(workdir, "a") as broker, running(
            ["busctl", f"--address={broker.bus.address}", "--json=short", "monitor", "org.vmferry.Broker1"]) as monitor:
        stdout = monitor.stdout
        assert stdout
        # That of systemd 252 says when it has begun, that of 257 does not: it has when it shows a call.
        wait_until(lambda: broker.get("Version") and select.select([stdout], [], [], 0)[0], "busctl monitors")
        migration = broker.prepare("web1")
        cancel_and_wait(migration)
        lines = [json.loads(stdout.readline())]
        while not (lines[-1].get("member") == "PropertiesChanged" and "finished" in json.dumps(lines[-1]["payload"])):
            lines.append(json.loads(stdout.readline()))
        monitor.terminate()
    said = [line["member"] for line in lines if line["type"] == "signal" and
            migration.path in (line["path"], str(line["payload"]["data"][0]))]
    assert said[0] == "InterfacesAdded" and "PropertiesChanged" in said[1:], said
    (changed,) = [line["payload"]["data"][1] for line in lines if line.get("path") == migration.path and
                  line.get("member") == "PropertiesChanged" and line["payload"]["data"][0] == MIGRATION and
                  "Result" in line["payload"]["data"][1]]
    assert changed["Result"] == {"type": "s", "data": "cancelled"}
