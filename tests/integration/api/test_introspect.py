# SPDX-License-Identifier: LGPL-2.1-or-later
"""The shipped XML is what the broker really offers, and every property has a true value."""

from __future__ import annotations

import os
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from vmlib.broker import BROKER, MIGRATION, PATH, ROOT, Broker

INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"


def members(xml: str, interface: str) -> set[tuple[str, ...]]:
    """An interface's methods, signals and properties with all that their callers depend on."""
    found = set()
    node = ElementTree.fromstring(xml).find(f"./interface[@name='{interface}']")
    assert node is not None, f"{interface} is not there"
    for member in node:
        # Whether a method's arguments are sensitive is for the bus library; an absent annotation is the default.
        notes = {a.get("name", ""): a.get("value", "") for a in member.findall("annotation")}
        emits = notes.get("org.freedesktop.DBus.Property.EmitsChangedSignal", "true")
        args = [f"{a.get('direction', 'out')} {a.get('type')} {a.get('name')}" for a in member.findall("arg")]
        found.add((member.tag, member.get("name", ""), member.get("type", ""), member.get("access", ""),
                   emits if member.tag == "property" else "", *args))
    return found


@pytest.mark.parametrize("interface", [BROKER, MIGRATION])
def test_xml_is_live_introspection(workdir: Path, interface: str) -> None:
    with Broker(workdir, "a") as broker:
        migration = broker.prepare("web1")
        path = PATH if interface == BROKER else migration.path
        (live,) = broker.client.call(path, INTROSPECTABLE, "Introspect")
        shipped = (ROOT / "dbus" / f"{interface}.xml").read_text()
        assert members(live, interface) == members(shipped, interface)


def test_broker_properties(workdir: Path) -> None:
    with Broker(workdir, "a", args=("--max-migrations=7",)) as broker:
        values = broker.client.get_all(PATH, BROKER)
        assert values["Version"].count(".") == 2
        assert {"tls", "plain"} <= set(values["Features"])
        assert values["Endpoints"] == ["tcp:127.0.0.1:0"]
        assert values["MaxMigrations"] == 7
        assert values["ActiveMigrations"] == 0
        broker.prepare("web1")
        (endpoint,) = broker.get("Endpoints")
        assert endpoint.startswith("tcp:127.0.0.1:") and not endpoint.endswith(":0")
        assert broker.get("ActiveMigrations") == 1


def test_waiting_migration_properties(workdir: Path) -> None:
    with Broker(workdir, "a") as broker:
        migration = broker.prepare("web1", {"bandwidth-limit": ("t", 12345), "security": ("s", "plain")})
        started = migration.get("StartedUsec")
        assert abs(started / 1e6 - time.time()) < 10
        assert migration.get_all() == {
            "Id": migration.id, "Vm": "web1", "Role": "incoming", "Security": "plain", "OwnerUid": os.getuid(),
            "Sockets": {"migrate": f"{broker.runtime_dir}/incoming/{migration.id}/migrate.sock"},
            "StartedUsec": started, "State": "waiting", "Result": "", "ErrorName": "", "ErrorMessage": "",
            "Peer": "", "HelperUnit": "", "FinishedUsec": 0, "GivesUpUsec": 0, "BandwidthLimit": 12345, "BytesSent": 0,
            "BytesReceived": 0, "Rate": 0, "Channels": [], "RoundTripUsec": 0, "Reconnects": 0, "Progress": -1.0,
            "Outcome": "", "Phase": "", "RemainingUsec": 0, "Details": {},
        }
