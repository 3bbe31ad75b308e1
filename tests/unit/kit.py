# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What several of these tests need: bytes that look random and are not, damage, and processes of their own."""

from __future__ import annotations

import functools
import gc
import hashlib
import multiprocessing
import os
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ansible_collections.volt.backup.plugins.module_utils._runner import archive


def noise(size: int, seed: object = 0) -> bytes:
    """Bytes without any pattern, the same for the same seed."""
    return hashlib.shake_128(repr(seed).encode()).digest(size)


@functools.cache
def command() -> bytes:
    """The archive of the command, made once a process: that takes 0.3 s, and hundreds of tests have it."""
    return archive.build()


def digest(blob: bytes) -> bytes:
    return hashlib.sha256(blob).digest()


def descriptors() -> list[str]:
    """The open descriptors of this process, without those that garbage of earlier tests holds open."""
    gc.collect()
    return sorted(os.listdir("/proc/self/fd"))


def cuts(blob: bytes, most: int = 200) -> Iterator[bytes]:
    """Every truncation of a short blob, and some of a long one."""
    for end in range(0, len(blob), max(1, len(blob) // most)):
        yield blob[:end]


def flips(blob: bytes, most: int = 400) -> Iterator[tuple[int, bytes]]:
    """(position, the blob with one bit of that byte turned), all over it."""
    for at in range(0, len(blob), max(1, len(blob) // most)):
        changed = bytearray(blob)
        changed[at] ^= 1 << (at % 8)
        yield at, bytes(changed)


@contextmanager
def within(seconds: float, megabytes: int = 200) -> Iterator[None]:
    """Hostile input must be cheap: far less than this is used by code that bounds what it does."""
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - started < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < megabytes << 10


class Child:
    """A function in a process of its own; `lines` are what it says by the pipe it is given."""

    def __init__(self, call: Callable[..., None], *arguments: Any) -> None:
        fork = multiprocessing.get_context("fork")
        self.lines, theirs = fork.Pipe()
        self.process = fork.Process(target=call, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()

    def hear(self, seconds: float = 10) -> Any:
        """What it says next."""
        if not self.lines.poll(seconds):
            raise AssertionError("the child says nothing")
        return self.lines.recv()

    def quiet(self, seconds: float = 0.15) -> bool:
        """Whether it says nothing for a while."""
        return not self.lines.poll(seconds)

    def tell(self, word: str = "go") -> None:
        self.lines.send(word)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.kill()
        self.lines.close()


class Journal:
    """A journal: the receiving end of its socket. Use as a context."""

    def __init__(self, path: str) -> None:
        self.end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.end.bind(path)
        self.end.setblocking(False)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.end.close()

    def taken(self) -> list[dict[str, list[str]]]:
        """The entries since it was last asked, each with the values of its fields."""
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(_fields(self.end.recv(1 << 20)))
        return found


def _fields(data: bytes) -> dict[str, list[str]]:
    """An entry, read as systemd's "Journal Native Protocol" says: a field is NAME=value, or NAME, its length in 8 bytes, and that many bytes."""
    found: dict[str, list[str]] = {}
    while data:
        head, _newline, data = data.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", data)
            value, after, data = data[8 : 8 + length], data[8 + length : 9 + length], data[9 + length :]
            assert after == b"\n"
        found.setdefault(name.decode("ascii"), []).append(value.decode())
    return found
