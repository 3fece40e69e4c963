#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A helper that lies to its broker: says READY, is started, and when something comes on its stdin sends what
$VMFERRY_ROGUE names. common/message.h has the structs. tests/integration/hostile/test_helper.py drives it."""

import os
import socket
import struct
import sys
import time

END, READY, ARRIVED, NEED_PEER, NEED_QEMU, STATE, RESULT, LOG = 10, 32, 33, 34, 35, 36, 37, 38
CONNECTED, ACTIVE = 1, 2
DONE, FAILED = 1, 2


def message(type: int, body: bytes = b"", version: int = 1) -> bytes:
    return struct.pack("<II", type, version) + body


def text(value: bytes, size: int = 320) -> bytes:
    return value[:size].ljust(size, b"\0")


def state(number: int, peer: bytes = b"tcp:192.0.2.1:1") -> bytes:
    return message(STATE, struct.pack("<II", number, 0) + text(peer, 128))


def result(outcome: int, error: int, why: bytes = b"because") -> bytes:
    return message(RESULT, struct.pack("<II", outcome, error) + text(why))


def log(priority: int, line: bytes) -> bytes:
    return message(LOG, struct.pack("<II", priority, 0) + text(line))


def need_peer(serial: int, kind: int = 1) -> bytes:
    return message(NEED_PEER, struct.pack("<II", serial, kind))


def need_qemu(channel: int, stream: int) -> bytes:
    return message(NEED_QEMU, struct.pack("<II", channel, stream))


ARRIVED_BODY = struct.pack("<QII", 1, 1, 0)
# Each is a list of messages; one that is a tuple has that many descriptors with it.
LIES: dict[str, list[bytes | tuple[bytes, int]]] = {
    "nothing-in-it": [b""],
    "short-header": [b"\1\2\3"],
    "type-0": [message(0)],
    "type-99": [message(99)],
    "type-huge": [message(0xFFFFFFFF)],
    "another-version": [message(LOG, struct.pack("<II", 6, 0) + text(b"hello"), version=2)],
    "too-short": [state(CONNECTED)[:-1]],
    "too-long": [state(CONNECTED) + b"x"],
    "enormous": [state(CONNECTED) + bytes(60000)],
    "a-message-of-the-broker": [message(END, struct.pack("<II", 17, 0) + text(b"x"))],
    "ready-twice": [message(READY)],
    "arrived-from-a-relay": [(message(ARRIVED, ARRIVED_BODY), 1)],
    "a-descriptor-with-state": [(state(CONNECTED), 1)],
    "many-descriptors": [(state(CONNECTED), 200)],
    "state-waiting": [state(0)],
    "state-finished": [state(4)],
    "state-unknown": [state(77)],
    "unprintable-peer": [state(CONNECTED, b"\x1b]0;x\7")],
    "unterminated-peer": [state(CONNECTED, b"x" * 128)],
    "result-none": [result(0, 0)],
    "result-unknown": [result(9, 0)],
    "done-with-an-error": [result(DONE, 8)],
    "failed-without-one": [result(FAILED, 0)],
    "error-unknown": [result(FAILED, 4711)],
    "unprintable-result": [result(FAILED, 8, b"\x80\xff")],
    "unterminated-result": [result(FAILED, 8, b"x" * 320)],
    "need-qemu-of-a-bad-stream": [need_qemu(0, 1)],
    "need-qemu-of-a-huge-stream": [need_qemu(0, 0xFFFFFFFF)],
    "need-qemu-twice": [need_qemu(0, 0), need_qemu(1, 0)],
    "need-peer-of-a-bad-kind": [need_peer(1, 7)],
    "need-peer-flood": [need_peer(i + 1, 2) for i in range(2000)],
    "unprintable-log": [log(6, b"a\nforged line")],
    "unterminated-log": [log(6, b"y" * 320)],
    "log-of-a-bad-priority": [log(0xFFFFFFFF, b"still only a line")],
    "result-twice": [result(FAILED, 8, b"the first"), result(DONE, 0, b"")],
    "state-after-result": [result(FAILED, 8, b"the first"), state(ACTIVE)],
    "result-and-never-ends": [result(FAILED, 8, b"the first")],
}


def end_listening(sock: socket.socket) -> None:
    sock.setblocking(False)
    while True:
        try:
            fds = socket.recv_fds(sock, 4096, 1)[1]
        except BlockingIOError:
            break
        for fd in fds:
            socket.socket(fileno=fd).shutdown(socket.SHUT_RDWR)
    sys.exit(7)


def main() -> None:
    sock = socket.socket(fileno=3)
    deed = os.environ["VMFERRY_ROGUE"]
    if deed == "never-ready":
        time.sleep(60)
    if deed == "early":  # before READY nothing else may come
        sock.send(state(CONNECTED))
        time.sleep(60)
    if deed == "gone":
        sys.exit(7)
    sock.send(message(READY))
    sys.stdin.buffer.raw.read(1)  # type: ignore[attr-defined]
    if deed == "end-listening":  # a gate: with START_GATE come the listeners
        end_listening(sock)
    if deed == "noisy":
        with open(2, "wb", buffering=0, closefd=False) as errors:
            for i in range(500):
                try:
                    errors.write(b"vmferryd: forged %d\x1b[2J\n" % i)
                except BrokenPipeError:
                    break
                time.sleep(0.001)
    for lie in LIES.get(deed, []):
        data, count = lie if isinstance(lie, tuple) else (lie, 0)
        try:
            socket.send_fds(sock, [data], [0] * count) if count else sock.send(data)
        except OSError:
            break
    time.sleep(60)  # it does not end by itself


if __name__ == "__main__":
    main()
