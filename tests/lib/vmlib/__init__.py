# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests, benchmarks and the demo need to move a real guest between real QEMUs.

guest       builds the boot sector that notices harm, and judges what it printed
qmp         a QMP client
qemu        one QEMU process that runs the guest
migration   a source and a destination, and a migration from one to the other
fake_qemu   a stand-in for a QEMU's socket, with bytes that can be checked
gdbstub     writes a guest's memory, to prove that the guest's check can fail
bench       runs the benchmark for tests of it
relay       a byte relay between two UNIX sockets that keeps a log, for what a tunnel may expect of QEMU
supplied    a manager that brings all descriptors of a migration
restarts    two hosts whose brokers can be restarted
users       several users on one bus
calls       calls that are refused, or not waited for
polkit      a real polkitd on a private bus, a broker that asks it, and an agent that polkitd asks
docs        reads docs and sources
nspawn      two booted hosts, vmferry installed in each
fixtures    pytest fixtures: a work directory that must be left clean

Everything is synchronous, has a time-out wherever it waits, and is meant for one thread an object unless it
says otherwise. Needs Python 3.10 and, for the QEMUs, Linux.
"""
