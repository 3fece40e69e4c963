# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferryctl migrate --disks: a VM moves with a raw and a qcow2 disk, to both of which its guest writes all the time.

The guest (tests/guest/disk-guest.S) reads what it wrote a lap before, so that a write that was lost is told. Afterwards the
images must be equal but for what the guest wrote at the destination, and after a failure the source's must be in order.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vmlib.broker import wait_until
from vmlib.ctl import CANCELLED, FAILED, Result, Running, ctl, wait_all_finished
from vmlib.guest import DISK_SOURCE, assemble, assert_unharmed, count_sweeps
from vmlib.hosts import Hosts, kill
from vmlib.qemu import Qemu
from vmlib.qmp import QmpError

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("needs_qemu")]
needs_postcopy = pytest.mark.usefixtures("needs_postcopy")

RAM = 32  # MiB
SIZE = 256 << 20
FILLED = 40  # MiB, beside what the guest writes
FORMATS = {"disk0": "raw", "disk1": "qcow2"}
ENV = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
SLOW = "--bandwidth=500K"  # of some MiB that are not zero


def image_tool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, words)], env=ENV, capture_output=True, text=True, timeout=60)


def make_image(path: Path, kind: str, filled: bool) -> None:
    assert image_tool("qemu-img", "create", "-q", "-f", kind, path, str(SIZE)).returncode == 0
    # Not where the guest writes: it goes to COUNT places, STRIDE sectors apart, from the begin on.
    commands = [f"write -q -P {n + 1} {140 + 2 * n}M 1M" for n in range(FILLED)] if filled else []
    if commands:
        assert image_tool("qemu-io", "-f", kind, *(word for one in commands for word in ("-c", one)), path).returncode == 0


class Scene:
    def __init__(self, hosts: Hosts, workdir: Path) -> None:
        self.hosts = hosts
        self.images = {(name, end): workdir / f"{name}-{end}" for name in FORMATS for end in ("near", "far")}
        for (name, end), path in self.images.items():
            make_image(path, FORMATS[name], end == "near")
        sector = assemble(workdir, DISK_SOURCE)
        self.source = Qemu(workdir, sector, RAM, "src", extra=self._disks("near"))
        try:
            self.destination = Qemu(workdir, sector, RAM, "dst", incoming="defer", extra=self._disks("far"))
        except BaseException:
            self.source.close()
            raise
        self.source.wait_sweeps(2)

    def _disks(self, end: str) -> list[str]:
        words = ["-boot", "a"]
        for name, kind in FORMATS.items():
            words += ["-blockdev", f"driver={kind},node-name={name},file.driver=file,file.filename={self.images[name, end]}",
                      "-device", f"virtio-blk-pci,drive={name},id=the-{name}"]
        return words

    @property
    def words(self) -> list[str]:
        return ["migrate", "web1", self.hosts.destination.bus.address, f"--qmp={self.source.qmp_path}",
                f"--dst-qmp={self.destination.qmp_path}"]

    def unexported(self, export: str) -> bool:
        """Removed, where no client uses it."""
        try:
            self.destination.execute("block-export-del", id=export)
        except QmpError as error:
            assert "in use" in str(error), error
            return False
        return True

    def migrate(self, *args: str) -> Result:
        return ctl(self.hosts.source, *self.words, *args, timeout=150)

    def begin(self, *args: str) -> Running:
        return Running(self.hosts.source, *self.words, *args)

    def serial(self) -> str:
        return self.source.serial() + self.destination.serial()

    def wait_mirroring(self) -> None:
        def mirroring() -> bool:
            """All have begun: until then the source's QEMU may be about to connect to the destination's."""
            jobs = self.source.execute("query-jobs")
            return len(jobs) == len(FORMATS) and any(job["current-progress"] for job in jobs)

        wait_until(mirroring, "the disks are copied", 60)

    def wait_memory(self) -> None:
        wait_until(lambda: self.source.query_migrate().get("status") == "active", "the memory goes", 60)

    def leave_before_switchover(self) -> None:
        """vmferryctl is killed while the memory goes; then QEMU waits for what it would have said next."""
        with self.begin("--disks", SLOW) as run:
            self.wait_memory()
            run.process.kill()
            run.process.wait()
        self.source.set_parameters({"max-bandwidth": 1 << 30})
        wait_until(lambda: self.source.query_migrate()["status"] == "pre-switchover", "QEMU waits", 60)

    def goes_on_at(self, qemu: Qemu) -> None:
        """There, and without harm; it has read all that it wrote before."""
        before = count_sweeps(qemu.serial())
        wait_until(lambda: count_sweeps(qemu.serial()) > before + 1, "the guest goes on", 60)
        assert_unharmed(self.serial())

    def nothing_left(self, *qemus: Qemu) -> None:
        for qemu in qemus:
            for what in ("query-jobs", "query-block-exports"):
                wait_until(lambda: qemu.execute(what) == [], f"nothing to be left in {what}")
            wait_until(lambda: not [node for node in qemu.execute("query-named-block-nodes")
                                    if node["node-name"].startswith("vmferry")], "no node to be left")

    def arrived(self) -> None:
        """The guest runs there; what it did not write to there since is equal, and both images are whole."""
        self.goes_on_at(self.destination)
        self.nothing_left(self.source, self.destination)
        assert self.source.status() == "postmigrate"
        self.destination.execute("stop")
        self.close()
        for name, kind in FORMATS.items():
            self.check(name, "near")
            self.check(name, "far")
            for n in range(FILLED):
                pattern = f"read -q -P {n + 1} {140 + 2 * n}M 1M"
                done = image_tool("qemu-io", "-f", kind, "-c", pattern, self.images[name, "far"])
                assert done.returncode == 0 and "fail" not in done.stdout, done

    def stayed(self) -> None:
        """As if nothing had been tried."""
        self.goes_on_at(self.source)
        self.nothing_left(self.source)
        self.source.execute("stop")
        self.close()
        for name in FORMATS:
            self.check(name, "near")

    def check(self, name: str, end: str) -> None:
        if FORMATS[name] == "qcow2":
            done = image_tool("qemu-img", "check", "-q", self.images[name, end])
            assert done.returncode == 0, done

    def close(self) -> None:
        self.source.close()
        self.destination.close()


@pytest.fixture
def scene(hosts: Hosts, workdir: Path) -> Iterator[Scene]:
    made = Scene(hosts, workdir)
    try:
        yield made
        wait_all_finished(*hosts.brokers)
    finally:
        made.close()


WAYS = [[], ["--postcopy"], ["--multifd=2"], ["--security=plain", "--postcopy=auto"]]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: " ".join(way) or "pre-copy")
def test_moves(scene: Scene, needs_postcopy: None, way: list[str]) -> None:
    done = scene.migrate("--disks", *way).succeeds()
    assert "At the destination it is running" in done.err and " disks  " in done.err, done
    scene.arrived()


@pytest.mark.long
@pytest.mark.parametrize("n", range(20))
def test_moves_again(scene: Scene, needs_postcopy: None, n: int) -> None:
    scene.migrate("--disks", *WAYS[n % 2]).succeeds()
    scene.arrived()


def test_equal_when_it_stands_still(scene: Scene) -> None:
    """A VM that is stopped writes nothing at the destination: source and copy are equal in each byte."""
    scene.source.execute("stop")
    scene.migrate("--disks").succeeds()
    assert scene.destination.status() == "paused"
    scene.close()
    for name, kind in FORMATS.items():
        done = image_tool("qemu-img", "compare", "-f", kind, "-F", kind, scene.images[name, "near"], scene.images[name, "far"])
        assert done.returncode == 0, done


def test_some_of_them(scene: Scene) -> None:
    """Only what is named; the other one's image stays as it was."""
    before = scene.images["disk1", "far"].read_bytes()
    scene.source.execute("stop")
    scene.migrate("--disks=disk0").succeeds()
    scene.close()
    assert scene.images["disk1", "far"].read_bytes() == before
    assert image_tool("qemu-img", "compare", scene.images["disk0", "near"], scene.images["disk0", "far"]).returncode == 0


def test_refused(scene: Scene) -> None:
    scene.migrate("--disks=disk0,disk7").fails(FAILED, "no disk 'disk7'")
    scene.stayed()


def test_shared(hosts: Hosts, workdir: Path) -> None:
    """An image that both have open, as on shared storage."""
    image = workdir / "shared"
    make_image(image, "raw", True)
    sector = assemble(workdir, DISK_SOURCE)
    disk = ["-blockdev", f"driver=raw,node-name=disk0,file.driver=file,file.filename={image}",
            "-device", "virtio-blk-pci,drive=disk0"]
    with Qemu(workdir, sector, RAM, "src", extra=disk) as source, \
            Qemu(workdir, sector, RAM, "dst", incoming="defer", extra=disk) as destination:
        words = ["migrate", "web1", hosts.destination.bus.address, f"--qmp={source.qmp_path}",
                 f"--dst-qmp={destination.qmp_path}"]
        ctl(hosts.source, *words, "--disks").fails(FAILED, "'disk0'", "both hosts share")
        assert source.status() == "running" and source.execute("query-jobs") == []
        assert destination.execute("query-block-exports") == []
        ctl(hosts.source, *words).succeeds()
    wait_all_finished(*hosts.brokers)


# What goes wrong.


def test_cancelled_while_disks_go(scene: Scene) -> None:
    """The destination's QEMU was told nothing yet but to serve its images, and is used again."""
    with scene.begin("--disks", "--security=plain") as run:
        scene.wait_mirroring()
        run.interrupt()
        run.end().fails(CANCELLED, "runs on at the source")
    scene.nothing_left(scene.source, scene.destination)
    assert scene.destination.status() == "inmigrate"
    scene.migrate("--disks").succeeds()
    scene.arrived()


@pytest.mark.parametrize("way", [[], ["--postcopy=after 60"]], ids=["pre-copy", "post-copy"])
def test_cancelled_while_memory_goes(scene: Scene, needs_postcopy: None, way: list[str]) -> None:
    with scene.begin("--disks", SLOW, *way) as run:
        scene.wait_memory()
        run.interrupt()
        run.end().fails(CANCELLED, "runs on at the source")
    scene.stayed()


def kill_helper(scene: Scene, run: Running) -> None:
    kill(scene.hosts.source.helpers()[-1])


def kill_destination(scene: Scene, run: Running) -> None:
    scene.destination.kill()


@pytest.mark.parametrize("moment", ["disks", "memory"])
@pytest.mark.parametrize("what", [kill_helper, kill_destination])
def test_lost(scene: Scene, what: Callable[[Scene, Running], None], moment: str) -> None:
    with scene.begin("--disks", SLOW) as run:
        (scene.wait_mirroring if moment == "disks" else scene.wait_memory)()
        what(scene, run)
        result = run.end(60)
        assert result.status == FAILED, result
    scene.stayed()


def test_killed_while_disks_go(scene: Scene) -> None:
    """Nothing drives it any more: QEMU goes on copying. Once the tunnel has ended the same command begins anew."""
    with scene.begin("--disks") as run:
        scene.wait_mirroring()
        run.process.kill()
        run.process.wait()
    ctl(scene.hosts.source, "cancel", "web1", f"--qmp={scene.source.qmp_path}").succeeds()
    wait_all_finished(*scene.hosts.brokers)
    scene.migrate("--disks").succeeds()
    scene.arrived()


@pytest.mark.parametrize("ends", ["resume", "cancel"])
def test_killed_while_memory_goes(scene: Scene, ends: str) -> None:
    """Once all is copied the VM stands still until one comes that goes on, or takes it back."""
    scene.leave_before_switchover()
    if ends == "resume":
        scene.migrate("--resume").succeeds()
        scene.arrived()
    else:
        ctl(scene.hosts.source, "cancel", "web1", f"--qmp={scene.source.qmp_path}").succeeds()
        scene.goes_on_at(scene.source)


@pytest.mark.parametrize("at", ["the first job", "all jobs", "the server"])
def test_killed_before_it_says_go_on(scene: Scene, at: str) -> None:
    """The copies are equal and their jobs go, as vmferryctl has them go; then it is killed, and the VM stands still."""
    scene.leave_before_switchover()
    names = [job["id"] for job in scene.source.execute("query-jobs")]
    assert len(names) == len(FORMATS)
    for name in names:
        scene.source.execute("block-job-cancel", device=name)
    wait_until(lambda: {job["status"] for job in scene.source.execute("query-jobs")} == {"concluded"}, "all have ended", 60)
    for name in names[:1] if at == "the first job" else names:
        scene.source.execute("job-dismiss", id=name)
        scene.source.execute("blockdev-del", **{"node-name": name})
    if at == "the server":
        for name in names:
            wait_until(lambda: scene.unexported(name), "the client of an export has said its last word", 60)
        scene.destination.execute("nbd-server-stop")
    assert scene.source.status() == "finish-migrate"
    scene.migrate("--resume").succeeds()
    scene.arrived()
