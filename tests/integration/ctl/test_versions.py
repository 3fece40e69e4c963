# SPDX-License-Identifier: LGPL-2.1-or-later
"""What vmferryctl tells a QEMU, by its version, and states that older ones do not have: stand-ins that say which they
are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vmlib.ctl import FAILED, Running
from vmlib.standins import ACTIVE, Standins


def told(scene: Standins, version: tuple[int, int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of 'migrate' and of 'migrate-incoming'."""
    scene.source.version = scene.destination.version = version
    with scene.run() as run:
        scene.complete()
        run.end().succeeds()
    return dict(scene.source.told)["migrate"], dict(scene.destination.told)["migrate-incoming"]


@pytest.mark.parametrize("version", [(7, 2), (8, 1)])
def test_before_channels(scene: Standins, version: tuple[int, int]) -> None:
    for arguments in told(scene, version):
        assert list(arguments) == ["uri"]


@pytest.mark.parametrize("version", [(8, 2), (10, 0), (11, 1)])
def test_channels(scene: Standins, version: tuple[int, int]) -> None:
    for arguments in told(scene, version):
        assert list(arguments) == ["channels"]


def test_a_destination_that_failed_says_why(scene: Standins) -> None:
    """One that something else has told to stay."""
    scene.source.version = scene.destination.version = (10, 0)
    with scene.run() as run:
        scene.destination.answers["query-migrate"] = {"status": "failed", "error-desc": "load of migration failed"}
        scene.source.answers["query-migrate"] = {"status": "failed", "error-desc": "Broken pipe"}
        run.end().fails(FAILED, "was not moved; it runs on at the source; QEMU at",
                        "says: load of migration failed; end it, and start it anew before the next try")


@pytest.mark.parametrize("state", ["device", "wait-unplug", "postcopy-recover-setup", "unheard-of"])
def test_states(scene: Standins, state: str) -> None:
    """They are shown, and none is an end."""
    with scene.run("--json=seq") as run:
        scene.source.answers["query-migrate"] = {**ACTIVE, "status": state}
        phase = "post-copy" if state.startswith("postcopy") else state
        assert run.process.stdout
        assert any(json.loads(line.lstrip("\x1e")).get("Phase") == phase for line in iter(run.process.stdout.readline, ""))
        scene.complete()
        run.end().succeeds()


@pytest.mark.parametrize(("version", "can"), [((7, 2), False), ((10, 0), False), ((10, 1), True), ((11, 1), True)])
def test_multifd_with_postcopy(scene: Standins, version: tuple[int, int], can: bool) -> None:
    scene.source.version = scene.destination.version = version
    names = ("postcopy-ram", "multifd")
    for end in (scene.source, scene.destination):
        end.answers["query-migrate-capabilities"] = [{"capability": name, "state": False} for name in names]
    if not can:
        with Running(scene.hosts.source, *scene.words, "--postcopy", "--multifd=2") as run:
            run.end().fails(FAILED, f"is version {version[0]}.{version[1]}", "10.1 can do that")
        assert "migrate" not in scene.source.asked
        return
    with scene.run("--postcopy", "--multifd=2") as run:
        scene.complete()
        run.end().succeeds()
    for end in (scene.source, scene.destination):
        set_on = dict(end.told[::-1])["migrate-set-capabilities"]["capabilities"]
        assert {one["capability"] for one in set_on if one["state"]} == set(names)
