# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tree as a value, to be held against what comes out of a backup of it; and calls of the engine that must end in bounded time and memory.

    before = model.snapshot(source); ...; assert not model.unlike(before, model.snapshot(target))

    for step, outcome in model.bounded([("list", manager.find), ...]): assert outcome.fine, outcome

The oracle has the last word where a test ends; this is quick, and bears to be asked after every step.
"""

from __future__ import annotations

import gc
import hashlib
import os
import pickle
import resource
import select
import signal
import stat
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, AnyStr, NoReturn

from ansible_collections.volt.backup.plugins.module_utils._base.errors import VoltError

Snapshot = dict[bytes, tuple]


def snapshot(top: str | os.PathLike[str], left_out: Callable[[bytes], bool] = lambda _name: False) -> Snapshot:
    """Types, modes, owners, times, attributes, content and hard links of all below a directory, itself included.

    :param left_out: told each name; what it holds true of is passed over with all below.
    """
    found: Snapshot = {}
    groups: dict[int, list[bytes]] = {}
    todo = [b""]
    top_path = os.fsencode(top)
    while todo:
        relative = todo.pop()
        path = os.path.join(top_path, relative) if relative else top_path
        info = os.lstat(path)
        what: object = None
        if stat.S_ISREG(info.st_mode):
            with open(path, "rb") as stream:
                what = info.st_size, hashlib.file_digest(stream, "sha256").digest()
        elif stat.S_ISLNK(info.st_mode):
            what = os.readlink(path)
        elif stat.S_ISDIR(info.st_mode):
            todo += [os.path.join(relative, name) for name in os.listdir(path) if not left_out(name)]
        if not stat.S_ISDIR(info.st_mode) and info.st_nlink > 1:
            groups.setdefault(info.st_ino, []).append(relative)
        attributes = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(os.listxattr(path, follow_symlinks=False)))
        found[relative] = (stat.filemode(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns, what, attributes)
    for members in groups.values():
        if len(members) > 1:
            for member in members:
                found[member] += (tuple(sorted(members)),)
    return found


def unlike(wanted: Snapshot, found: Snapshot) -> list[str]:
    """What differs, for a message."""
    return [f"{path!r}: {wanted.get(path)} / {found.get(path)}" for path in sorted({*wanted, *found}) if wanted.get(path) != found.get(path)][:5]


def states(top: AnyStr | os.PathLike[AnyStr]) -> dict[AnyStr, tuple[int, ...]]:
    """Inode, size, mode and change time of all below a directory: to show that nothing was written there."""
    found = {}
    for here, directories, names in os.walk(top):
        for name in directories + names:
            info = os.lstat(os.path.join(here, name))
            found[os.path.join(here, name)] = (info.st_ino, info.st_size, info.st_mode, info.st_ctime_ns)
    return found


# ---- bounded calls


@dataclass(frozen=True)
class Outcome:
    """How a call ended: `done`, `refused` with a sentence, `crashed` with a traceback, or `stuck`."""

    how: str
    value: Any
    seconds: float
    peak: int  # bytes of resident memory, at most so far

    @property
    def fine(self) -> bool:
        return self.how in ("done", "refused")


Step = tuple[str, Callable[[], Any]]


def bounded(steps: Sequence[Step], memory: int = 1536 << 20, seconds: float = 30) -> dict[str, Outcome]:
    """Run calls one after the other in a forked child with little memory; a call that takes too long ends it."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _serve(steps, memory, writer)
    os.close(writer)
    outcomes: dict[str, Outcome] = {}
    try:
        for name, _call in steps:
            began = time.monotonic()
            data = _receive(reader, began + seconds)
            if data is None:
                outcomes[name] = Outcome("stuck", f"no end after {time.monotonic() - began:.1f} s", time.monotonic() - began, 0)
                break
            outcomes[name] = pickle.loads(data)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
    return outcomes


def _serve(steps: Sequence[Step], memory: int, writer: int) -> NoReturn:
    try:
        os.setsid()
        with open("/proc/self/statm", encoding="ascii") as stream:
            used = int(stream.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
        for _name, call in steps:
            began = time.monotonic()
            how, value = "done", None
            try:
                value = call()
            except VoltError as error:
                how, value = "refused", error.message
            except BaseException:
                how, value = "crashed", traceback.format_exc()[-3000:]
            gc.collect()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
            data = pickle.dumps(Outcome(how, value, time.monotonic() - began, peak))
            os.write(writer, struct.pack("=I", len(data)) + data)
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(0)


def _receive(reader: int, until: float) -> bytes | None:
    """One message, or None where none comes in time, or ever."""
    size = _read(reader, 4, until)
    return None if size is None else _read(reader, struct.unpack("=I", size)[0], until)


def _read(reader: int, size: int, until: float) -> bytes | None:
    """So many bytes and not one more: the next message may be there as well."""
    data = b""
    while len(data) < size:
        ready, _write, _error = select.select([reader], [], [], max(0.0, until - time.monotonic()))
        piece = os.read(reader, size - len(data)) if ready else b""
        if not piece:
            return None
        data += piece
    return data


def tick(place: str | os.PathLike[str]) -> None:
    """Wait until the kernel's clock of file times has moved on: what is written now has another change time than all before."""
    path = os.path.join(os.fspath(place), ".tick")

    def stamp() -> int:
        with open(path, "wb"):
            return os.stat(path).st_ctime_ns

    before = stamp()
    while stamp() == before:
        time.sleep(0.001)
    os.unlink(path)
