# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the VM runs when vmferryctl drives both QEMUs, and what it says of that: stand-ins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vmlib.ctl import BOTH_RUN, CANCELLED, FAILED, Running, ctl
from vmlib.monitor import Monitor
from vmlib.standins import ACTIVE, COMPLETED, Standins

DEVICE = {**ACTIVE, "status": "device"}
POSTCOPY = {**ACTIVE, "status": "postcopy-active"}
PAUSED = {**ACTIVE, "status": "postcopy-paused"}


def arrive(scene: Standins, state: str = "paused", migration: dict[str, Any] = COMPLETED) -> None:
    """The destination has all of it; the source has not heard of that yet."""
    scene.destination.answers.update({"query-migrate": migration, "query-status": {"status": state}})


def fail(scene: Standins, **status: Any) -> None:
    scene.source.answers.update({"query-migrate": {"status": "failed", "error-desc": "Broken pipe"},
                                 "query-status": {"status": "running"}, **status})


@pytest.mark.story
def test_starts_after_the_source_is_done(scene: Standins) -> None:
    with scene.run() as run:
        arrive(scene)
        scene.source.answers["query-migrate"] = DEVICE
        scene.source.wait_asked("query-migrate", scene.source.asked.count("query-migrate") + 3)
        assert "cont" not in scene.destination.asked
        scene.source.answers["query-migrate"] = COMPLETED
        assert "At the destination it is running" in run.end().succeeds().err
    asked = scene.destination.asked
    assert asked.index("stop") < asked.index("migrate-incoming") < asked.index("cont")
    assert asked.count("cont") == asked.count("stop") == 1


def test_starts_when_postcopy_has_begun(scene: Standins) -> None:
    with scene.run("--postcopy") as run:
        scene.source.wait_asked("migrate-start-postcopy")
        arrive(scene, migration=POSTCOPY)
        scene.source.wait_asked("query-migrate", scene.source.asked.count("query-migrate") + 3)
        assert "cont" not in scene.destination.asked
        scene.source.answers["query-migrate"] = POSTCOPY
        scene.destination.wait_asked("cont")
        scene.complete()
        run.end().succeeds()


def test_failed_while_the_destination_has_all(scene: Standins) -> None:
    with scene.run() as run:
        arrive(scene)
        fail(scene)
        run.end().fails(FAILED, "was not moved; it runs on at the source; QEMU at", "has all of it as well (paused)",
                        "end that one", "Broken pipe")
    assert "cont" not in scene.destination.asked


def test_cancelled_while_the_destination_has_all(scene: Standins) -> None:
    with scene.run() as run:
        arrive(scene)
        run.interrupt()
        run.end().fails(CANCELLED, "was not moved; it runs on at the source", "has all of it as well (paused)")
    assert "cont" not in scene.destination.asked


@pytest.mark.parametrize("end", ["source", "destination"])
def test_cancelled_by_another_client(scene: Standins, end: str) -> None:
    """What QEMU says then comes of that, and is no reason."""
    with scene.run() as run:
        ctl(getattr(scene.hosts, end), "cancel", "web1", "--force").succeeds()
        fail(scene, **{"query-migrate": {"status": "failed", "error-desc": "Bad file descriptor"}})
        result = run.end().fails(CANCELLED, f"runs on at the source. Cancelled at the {end} by uid")
    assert "Bad file descriptor" not in result.err and "Migration " not in result.err


def test_cancelled_by_another_client_of_qemu(scene: Standins) -> None:
    """However the tunnel takes that."""
    with scene.run() as run:
        scene.destination.end_stream()
        scene.source.answers["query-migrate"] = {"status": "cancelled"}
        run.end().fails(CANCELLED, "runs on at the source. QEMU says: cancelled. The QEMU that waited")


@pytest.mark.parametrize("how", ["failed", "cancelled"])
def test_both_run(scene: Standins, how: str) -> None:
    """Something else has started it at the destination."""
    with scene.run() as run:
        arrive(scene, "running")
        if how == "failed":
            fail(scene)
        else:
            run.interrupt()
        run.end().fails(BOTH_RUN, "VM 'web1' ran on both hosts", "runs on at the source", "told to stop")
    assert scene.destination.asked[-1] == "stop" or "stop" in scene.destination.asked[-4:]


def test_neither_runs(scene: Standins) -> None:
    with scene.run() as run:
        fail(scene, **{"query-status": {"status": "internal-error"}})
        run.end().fails(FAILED, "at the source QEMU says that it is 'internal-error'")


# ---- A QEMU is gone ----


def test_source_gone_in_precopy(scene: Standins) -> None:
    with scene.run() as run:
        scene.source.event("SHUTDOWN", guest=True, reason="guest-shutdown")
        scene.source.close()
        run.end().fails(FAILED, "QEMU at the source has ended (guest-shutdown)", "does not run any more")
    scene.source = Monitor(scene.source.path)


def test_source_gone_when_all_has_arrived(scene: Standins) -> None:
    with scene.run() as run:
        arrive(scene)
        scene.source.close()
        run.end().fails(FAILED, "it stands still ('paused')", "Make sure that it has ended", "'cont'")
    assert "cont" not in scene.destination.asked
    scene.source = Monitor(scene.source.path)


def postcopy(scene: Standins, *args: str) -> Running:
    """The VM runs at the destination."""
    run = scene.run(*(args or ("--postcopy",)))
    arrive(scene, migration=POSTCOPY)
    scene.source.answers["query-migrate"] = {**POSTCOPY, "ram": {**ACTIVE["ram"], "dirty-sync-count": 9}}
    scene.destination.wait_asked("cont")
    return run


def test_another_client_cancels_postcopy(scene: Standins) -> None:
    with postcopy(scene) as run:
        scene.destination.answers.update({"query-migrate": PAUSED, "query-status": {"status": "running"}})
        scene.source.answers.update({"query-migrate": {"status": "cancelled"}, "query-status": {"status": "postmigrate"}})
        result = run.end().fails(FAILED, "was in post-copy when QEMU at the source gave it up ('cancelled')", "is lost")
    assert "runs at" not in result.err and "must be started anew" not in result.err


def test_source_gone_in_postcopy(scene: Standins) -> None:
    with postcopy(scene) as run:
        scene.destination.answers["query-migrate"] = PAUSED
        scene.source.close()
        run.end().fails(FAILED, "closed the connection", "VM 'web1' had come to", "is lost")
    scene.source = Monitor(scene.source.path)


def test_source_gone_in_postcopy_when_all_has_arrived(scene: Standins) -> None:
    with postcopy(scene) as run:
        scene.destination.answers["query-migrate"] = COMPLETED
        scene.source.close()
        run.end().fails(FAILED, "has all of its memory", "says that it is 'running'")
    scene.source = Monitor(scene.source.path)


@pytest.mark.parametrize("how", ["--postcopy", "--postcopy=auto"])
def test_destination_gone_in_postcopy(scene: Standins, how: str) -> None:
    with postcopy(scene, how) as run:
        scene.destination.close()
        scene.source.answers["query-migrate"] = PAUSED
        result = run.end().fails(FAILED, "is gone", "is lost")
    assert "nothing is lost" not in result.err
    scene.destination = Monitor(scene.destination.path)


def test_guest_ends_in_postcopy(scene: Standins) -> None:
    with postcopy(scene) as run:
        scene.destination.event("SHUTDOWN", guest=True, reason="guest-shutdown")
        scene.destination.close()
        scene.source.answers["query-migrate"] = PAUSED
        run.end().fails(FAILED, "has ended by itself", "guest-shutdown")
    scene.destination = Monitor(scene.destination.path)


def test_paused_while_both_are_there(scene: Standins) -> None:
    with postcopy(scene) as run:
        scene.destination.answers["query-migrate"] = PAUSED
        scene.source.answers["query-migrate"] = PAUSED
        run.end().fails(FAILED, "is paused", "stands still, and nothing is lost: QEMU at", "'postcopy-paused'",
                        "--resume")


def test_last_word_is_lost_in_postcopy(scene: Standins) -> None:
    with postcopy(scene) as run:
        scene.destination.answers["query-migrate"] = COMPLETED
        scene.source.answers["query-migrate"] = PAUSED
        run.end().fails(FAILED, "has come to", "'running'", "did not hear of it")


def test_ctrl_c_before_the_hand_over_of_postcopy(scene: Standins) -> None:
    """The first one waits until the VM runs at the destination; the second one says that it does not."""
    with scene.run("--postcopy") as run:
        scene.source.wait_asked("migrate-start-postcopy")
        run.interrupt()
        scene.source.wait_asked("query-migrate", scene.source.asked.count("query-migrate") + 3)
        assert run.process.poll() is None
        run.interrupt()
        run.end().fails(FAILED, "in the middle of its hand-over", "'active'", "--resume")
    assert "migrate_cancel" not in scene.source.asked


# ---- 'send' alone ----


def test_send_names_what_may_differ(scene: Standins) -> None:
    """The destination's QEMU has ended, and no reason is known here."""
    ticket = ctl(scene.hosts.destination, "receive", "web1", f"--qmp={scene.destination.path}").succeeds().out
    with Running(scene.hosts.source, "send", "web1", f"--qmp={scene.source.path}", "--postcopy", stdin=ticket) as run:
        scene.source.wait_asked("migrate")
        fail(scene)
        run.end().fails(FAILED, "Broken pipe", "--postcopy and --multifd= must be given to 'receive' as here")


@pytest.mark.parametrize(("stopped", "status"), [(False, FAILED), (True, BOTH_RUN)])
def test_send_cannot_ask_the_destination(scene: Standins, stopped: bool, status: int) -> None:
    ticket = ctl(scene.hosts.destination, "receive", "web1", f"--qmp={scene.destination.path}").succeeds().out
    assert scene.destination.asked.index("stop") < scene.destination.asked.index("migrate-incoming")
    with Running(scene.hosts.source, "send", "web1", f"--qmp={scene.source.path}", stdin=ticket) as run:
        scene.source.wait_asked("migrate")
        scene.source.answers["query-migrate"] = ACTIVE
        scene.source.wait_asked("query-migrate", scene.source.asked.count("query-migrate") + 2)
        if stopped:
            scene.source.event("STOP")
        fail(scene)
        run.end().fails(status, "at the source", *(["may run at the destination", "query-status"] if stopped else []))


@pytest.mark.parametrize("done", [True, False])
def test_receive_starts_it_when_the_tunnel_is_done(scene: Standins, done: bool) -> None:
    """Not when it ends otherwise: then the source may not have let go."""
    ticket = ctl(scene.hosts.destination, "receive", "web1", f"--qmp={scene.destination.path}").succeeds().out
    socket = ctl(scene.hosts.source, "send", "web1", stdin=ticket).succeeds().out.strip()
    scene.source.begin("migrate", socket)
    scene.destination.wait_connected()
    arrive(scene, migration={"status": "completed", "total-time": 5})
    served = scene.destination.asked.count("query-status")
    scene.destination.wait_asked("query-status", served + 5)
    assert "cont" not in scene.destination.asked
    if done:
        scene.source.end_stream()
        scene.destination.wait_asked("cont")
    else:
        ctl(scene.hosts.source, "cancel", "web1", "--force").succeeds()
    scene.destination.wait_served(1)
    assert scene.destination.asked.count("cont") == done


def test_receive_starts_a_postcopy(scene: Standins) -> None:
    """And sets QEMU back once all has arrived."""
    scene.destination.answers["query-migrate-capabilities"] = [{"capability": "postcopy-ram", "state": False}]
    ctl(scene.hosts.destination, "receive", "web1", f"--qmp={scene.destination.path}", "--postcopy").succeeds()
    arrive(scene, migration=POSTCOPY)
    scene.destination.wait_asked("cont")
    scene.destination.answers["query-migrate"] = COMPLETED
    scene.destination.answers["query-status"] = {"status": "running"}
    scene.destination.wait_served(1)
    assert scene.destination.told[-1] == (
        "migrate-set-capabilities", {"capabilities": [{"capability": "postcopy-ram", "state": False}]})
    ctl(scene.hosts.destination, "cancel", "web1").succeeds()


# ---- A vmferryctl that has ended ----


@pytest.mark.parametrize("tunnel", [True, False])
def test_resume_finishes_the_hand_over(scene: Standins, tunnel: bool) -> None:
    """Whether the tunnel is there any more, or not."""
    with scene.run() as run:
        run.process.kill()
        run.end()
        scene.source.wait_served(1)
        scene.complete("paused")
        if not tunnel:
            for broker in scene.hosts.brokers:
                ctl(broker, "cancel", "web1", "--force").succeeds()
                ctl(broker, "wait", "web1", "-q")
        result = ctl(scene.hosts.source, *scene.words, "--resume").succeeds()
    assert "At the destination it is running" in result.err and "cont" in scene.destination.asked
    assert scene.source.asked.count("migrate") == 1


def test_resume_follows_what_goes_on(scene: Standins) -> None:
    with scene.run() as run:
        run.process.kill()
        run.end()
        scene.source.wait_served(1)
        arrive(scene, "inmigrate", ACTIVE)
        with Running(scene.hosts.source, *scene.words, "--resume") as again:
            scene.source.wait_asked("query-migrate", scene.source.asked.count("query-migrate") + 4)
            assert "cont" not in scene.destination.asked
            scene.complete("paused")
            assert "At the destination it is running" in again.end().succeeds().err
    assert scene.source.asked.count("migrate") == 1


# ---- cancel ----


@pytest.mark.parametrize("status", ["setup", "active", "wait-unplug", "pre-switchover", "device"])
def test_cancel_in_each_status(scene: Standins, status: str, workdir: Path) -> None:
    with scene.run() as run:
        run.process.kill()
        run.end()
        scene.source.wait_served(1)
        scene.source.answers["query-migrate"] = {**ACTIVE, "status": status}
        ctl(scene.hosts.source, "cancel", "web1", f"--qmp={scene.source.path}").succeeds()
    assert "migrate_cancel" in scene.source.asked


# ---- Capabilities ----


def capabilities(**states: bool) -> list[dict[str, Any]]:
    return [{"capability": name.replace("_", "-"), "state": state} for name, state in states.items()]


def told(monitor: Monitor) -> list[dict[str, bool]]:
    return [{one["capability"]: one["state"] for one in arguments["capabilities"]}
            for name, arguments in monitor.told if name == "migrate-set-capabilities"]


def test_capabilities_are_set_and_put_back(scene: Standins) -> None:
    scene.source.answers["query-migrate-capabilities"] = capabilities(
        events=False, postcopy_ram=True, pause_before_switchover=True, x_colo=True, xbzrle=True, multifd=False,
        zero_blocks=True, late_block_activate=False)
    scene.destination.answers["query-migrate-capabilities"] = capabilities(
        events=True, postcopy_ram=False, pause_before_switchover=False, x_colo=False, xbzrle=False, multifd=True,
        zero_blocks=False, late_block_activate=False)
    with scene.run() as run:
        scene.complete("paused")
        run.end().succeeds()
    near = {"events": True, "postcopy-ram": False, "pause-before-switchover": False, "x-colo": False}
    far = {"multifd": False, "xbzrle": True, "late-block-activate": True}
    assert told(scene.source) == [near, {name: not state for name, state in near.items()}]
    assert told(scene.destination) == [far, {name: not state for name, state in far.items()}]


def test_parameters_are_put_back(scene: Standins) -> None:
    """Also numbers that are larger than most programs take."""
    scene.source.answers["query-migrate-parameters"] = {"max-bandwidth": 2**64 - 1}
    with scene.run() as run:
        scene.complete("paused")
        run.end().succeeds()
    assert [arguments for name, arguments in scene.source.told if name == "migrate-set-parameters"] == [
        {"max-bandwidth": 1 << 40}, {"max-bandwidth": 2**64 - 1}]


def test_capability_that_the_destination_lacks(scene: Standins) -> None:
    scene.source.answers["query-migrate-capabilities"] = capabilities(x_ignore_shared=True)
    ctl(scene.hosts.source, *scene.words).fails(FAILED, "'x-ignore-shared' on", "does not know")
    assert not scene.hosts.source.list() and not told(scene.source) and "stop" not in scene.destination.asked


def test_tls_at_one_end(scene: Standins) -> None:
    scene.source.answers["query-migrate-parameters"] = {"tls-creds": "tls0"}
    ctl(scene.hosts.source, *scene.words).fails(FAILED, "'tls-creds'", "'tls0'", "at the source")
    assert not scene.hosts.source.list()
