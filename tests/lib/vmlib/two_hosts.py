# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two hosts with real QEMUs, each in a network namespace with a broker and an sshd of its own."""

from __future__ import annotations

import re
from pathlib import Path

from .broker import Broker, wait_until
from .ctl import Result, Running, ctl, wait_all_finished
from .migration import Pair
from .network import Network
from .sshd import Sshd


class Scene:
    """Two namespaces with a broker, an sshd and a QEMU in each; `far_listens` is where the second broker does."""

    def __init__(self, workdir: Path, network: Network, pair: Pair, far_listens: str) -> None:
        self.network, self.pair = network, pair
        self.a = Broker(workdir, "a", netns=network.a, listen=f"tcp:{network.address_a}:0")
        self.b = Broker(workdir, "b", netns=network.b, listen=far_listens)
        hosts = (("host1", self.a, network.a, network.address_a), ("host2", self.b, network.b, network.address_b))
        self.sshds = [Sshd(workdir, ("ip", "netns", "exec", netns), address, name, broker.bus.address, proxied=True)
                      for name, broker, netns, address in hosts]
        config = workdir / "ssh_config"
        config.write_text("".join(sshd.config.read_text() for sshd in self.sshds))
        self.third = {"VMFERRY_SSH": f"ssh -F {config}"}  # from outside, through the namespaces' doors
        self.env = {"VMFERRY_SSH": f"ssh -F {workdir}/ssh_config_a"}
        self.config_a = workdir / "ssh_config_a"
        self.config_a.write_text(re.sub(r"  ProxyCommand .*\n", "", config.read_text()))
        self.prefix = ("ip", "netns", "exec", network.a)
        pair.source.set_parameters({"downtime-limit": 300})  # or pre-copy would come to its end at once
        pair.source.wait_sweeps(2)

    def share(self, settings: str) -> None:
        """The user's ssh at the first host is set so."""
        config = self.config_a
        config.write_text(config.read_text() + f"Host *\n{settings}\n")

    @property
    def words(self) -> list[str]:
        return ["migrate", "web1", "host2", f"--qmp={self.pair.source.qmp_path}",
                f"--dst-qmp={self.pair.destination.qmp_path}"]

    def migrate(self, *args: str) -> Result:
        return ctl(self.a, *self.words, *args, env=self.env, prefix=self.prefix, timeout=150)

    def begin(self, *args: str) -> Running:
        return Running(self.a, *self.words, *args, env=self.env, prefix=self.prefix)

    def at(self, broker: Broker, *args: str, stdin: str = "") -> Result:
        netns = self.network.a if broker is self.a else self.network.b
        return ctl(broker, *args, stdin=stdin, env=self.env, prefix=("ip", "netns", "exec", netns), timeout=150)

    def wait_in_postcopy(self) -> None:
        wait_until(lambda: self.pair.destination.status() == "running", "the guest to run at the destination", 60)

    def judge(self, result: Result) -> None:
        result.succeeds()
        assert re.search(r"^web1: done after .*; it stood still for .*", result.err, re.M), result
        self.pair.assert_unharmed()
        for broker in (self.a, self.b):
            for _, _, _, state, _, path in broker.list():
                assert state == "finished"
                assert broker.client.get(path, "org.vmferry.Migration1", "Result") == "done"

    def close(self) -> None:
        for sshd in self.sshds:
            sshd.close()
        try:
            wait_all_finished(self.a, self.b)
        finally:
            for broker in (self.a, self.b):
                broker.close()
