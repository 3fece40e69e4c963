# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real QEMUs, and something dies in the middle: where the guest lives then, and who learns of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from vmlib.guest import assert_unharmed
from vmlib.hosts import Hosts, Tunnel, assert_failed, assert_peer_lost, cancel_and_wait, kill, relay_of
from vmlib.migration import NEVER_CONVERGE, Pair
from vmlib.qemu import MigrationFailed

MIB = 64
RETURN_PATH = {"return-path": True}
SLOW = {**NEVER_CONVERGE, "max-postcopy-bandwidth": 16 << 20}

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("needs_qemu")]

needs_postcopy = pytest.mark.usefixtures("needs_postcopy")


class Scene:
    """A pair, a tunnel, and the helpers' pids; a second migration of stand-ins runs beside it."""

    def __init__(self, hosts: Hosts, pair: Pair) -> None:
        self.hosts, self.pair = hosts, pair
        self.beside = hosts.connect("bystander")
        self.near, self.far = self.beside.open_channel()
        resume = {"resume_timeout_usec": ("t", 0)}  # QEMU learns of a lost peer at once
        self.there, incoming = relay_of(hosts.destination, lambda: hosts.prepare(**resume))
        self.here, outgoing = relay_of(hosts.source, lambda: hosts.start(incoming, **resume))
        self.tunnel = Tunnel(outgoing, incoming)
        for end in self.tunnel.ends:
            end.wait_state("connected")
        pair.source.wait_sweeps(1)

    def begin(self, until: str) -> None:
        """Runs until the source has begun to wait, is in the middle of a pre-copy, or of a post-copy."""
        if until == "postcopy":
            self.pair.enable_postcopy()
        if until != "setup":
            self.pair.listen(f"unix:{self.tunnel.incoming.socket()}")
        self.pair.begin(f"unix:{self.tunnel.outgoing.socket()}")
        if until == "setup":
            self.tunnel.outgoing.broker.get("Version")
        elif until == "precopy":
            self.pair.wait_transferred(8 << 20)
        else:
            self.pair.begin_postcopy()

    def source_runs_on(self) -> None:
        """The migration failed, and the guest goes on where it was."""
        with pytest.raises(MigrationFailed) as failed:
            self.pair.source.wait_migration({"completed"}, 30)
        assert failed.value.state in ("failed", "cancelled")
        self.pair.source.wait_sweeps(2)
        assert_unharmed(self.pair.source.serial())

    def ends_agree(self) -> None:
        """Where QEMU was killed with all of its socket read, its end looks like any other, and the ledgers agree."""
        there, here = (end.wait_finished() for end in self.tunnel.ends)
        assert there["Result"] == here["Result"]
        if there["Result"] == "done":
            self.tunnel.assert_done()
        else:
            self.tunnel.assert_failed("failed", "SocketUnavailable")

    def end(self) -> None:
        """The bystander never noticed."""
        sent = self.near.send_pattern(4, 1 << 20, shut=True)
        assert self.far.recv_pattern_until_eof(4) == 1 << 20
        sent.result(10)
        self.near.close()
        self.far.close()
        self.beside.assert_done()
        for broker in self.hosts.brokers:
            assert broker.process.poll() is None


@pytest.fixture
def scene(hosts: Hosts, workdir: Path) -> Iterator[Scene]:
    with Pair(workdir, MIB, RETURN_PATH, parameters=SLOW) as pair:
        scene = Scene(hosts, pair)
        yield scene
        scene.end()


@pytest.mark.parametrize("until", ["setup", "precopy"])
def test_source_qemu_killed(scene: Scene, until: str) -> None:
    """The guest is gone with it; the destination must not run half of it."""
    scene.begin(until)
    scene.pair.source.kill()
    if until == "setup":
        scene.tunnel.incoming.cancel()
    else:
        assert scene.pair.destination.wait_exit() != 0
    for end in scene.tunnel.ends:
        end.wait_finished()


@pytest.mark.parametrize("until", ["setup", "precopy"])
def test_destination_qemu_killed(scene: Scene, until: str) -> None:
    scene.begin(until)
    scene.pair.destination.kill()
    if until == "setup":
        scene.tunnel.incoming.cancel()
    scene.source_runs_on()
    if until == "setup":
        for end in scene.tunnel.ends:
            assert end.wait_finished()["Result"] == "cancelled", end.get_all()
    else:
        scene.ends_agree()


@needs_postcopy
def test_destination_qemu_killed_in_postcopy(scene: Scene) -> None:
    """The guest is lost with it; the source learns, and does not run an old state on by itself."""
    scene.begin("postcopy")
    scene.pair.destination.kill()
    with pytest.raises(MigrationFailed) as paused:
        scene.pair.source.wait_migration({"completed"}, 30)
    assert paused.value.state == "postcopy-paused"
    scene.ends_agree()


@needs_postcopy
def test_source_qemu_killed_in_postcopy(scene: Scene) -> None:
    """The destination learns that pages will not come: it pauses, and waits to be recovered."""
    scene.begin("postcopy")
    scene.pair.source.kill()
    with pytest.raises(MigrationFailed) as paused:
        scene.pair.destination.wait_migration({"completed"}, 30)
    assert paused.value.state == "postcopy-paused"
    for end in scene.tunnel.ends:
        end.wait_finished()


@pytest.mark.parametrize("side", ["source", "destination"])
def test_helper_killed_in_precopy(scene: Scene, side: str) -> None:
    """A tunnel that is dead in the middle: the guest goes on at the source, and both QEMUs know."""
    scene.begin("precopy")
    kill(scene.here if side == "source" else scene.there)
    scene.source_runs_on()
    assert scene.pair.destination.wait_exit() != 0
    own, peer = scene.tunnel.ends if side == "source" else reversed(scene.tunnel.ends)
    assert_failed(own, "failed", "HelperFailed")
    assert_peer_lost(peer)
    cancel_and_wait(peer)


@needs_postcopy
@pytest.mark.parametrize("side", ["source", "destination"])
def test_helper_killed_in_postcopy(scene: Scene, side: str) -> None:
    """Both QEMUs pause; over a new migration of the same tunnel they go on, and no page is lost."""
    scene.begin("postcopy")
    kill(scene.here if side == "source" else scene.there)
    for qemu in (scene.pair.source, scene.pair.destination):
        qemu.wait_migration({"postcopy-paused"}, 30)
    own, peer = scene.tunnel.ends if side == "source" else reversed(scene.tunnel.ends)
    assert_failed(own, "failed", "HelperFailed")
    assert_peer_lost(peer)
    cancel_and_wait(peer)
    again = scene.hosts.connect()
    scene.pair.source.set_parameters({"max-postcopy-bandwidth": 0})
    scene.pair.recover(f"unix:{again.outgoing.socket()}", f"unix:{again.incoming.socket()}")
    scene.pair.wait_completed()
    scene.pair.assert_unharmed()
    again.assert_done()


@pytest.mark.parametrize("who", ["incoming", "outgoing"])
def test_cancelled_in_precopy(scene: Scene, who: str) -> None:
    scene.begin("precopy")
    getattr(scene.tunnel, who).cancel()
    scene.source_runs_on()
    assert scene.pair.destination.wait_exit() != 0
    scene.tunnel.assert_failed("cancelled", "Cancelled")


@needs_postcopy
@pytest.mark.parametrize("who", ["incoming", "outgoing"])
def test_cancelled_in_postcopy(scene: Scene, who: str) -> None:
    """Both QEMUs pause: the guest isn't lost, it can be recovered over another migration."""
    scene.begin("postcopy")
    getattr(scene.tunnel, who).cancel()
    for qemu in (scene.pair.source, scene.pair.destination):
        qemu.wait_migration({"postcopy-paused"}, 30)
    scene.tunnel.assert_failed("cancelled", "Cancelled")


def test_tunnel_is_gone_before_the_source_begins(scene: Scene) -> None:
    """QEMU cannot connect any more, and says so."""
    path = scene.tunnel.outgoing.socket()
    scene.tunnel.incoming.cancel()
    scene.tunnel.assert_failed("cancelled", "Cancelled")
    with pytest.raises(MigrationFailed, match="No such file"):
        scene.pair.begin(f"unix:{path}")
        scene.pair.source.wait_migration({"completed"})
    scene.pair.source.wait_sweeps(1)
