# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What runs rely on, so that a collection keeps it and no process waits for another.

A run lives while it holds the lock (flock(2)) of `tmp/<run>/claims`. Before it relies on a pack or an object, it appends the name of that file there, and
then looks whether the file is in its place. Before it moves its own new files into place, it appends their names as well. A collection first moves files
to the trash and then reads the claims. So either the run sees that the file is gone, and stores its content again, or the collection sees the claim, and
puts the file back.

A reader that needs a backup for long has a copy of its manifest in its directory under tmp/, which counts as a manifest until the reader ends.

Claims are synced only on NFS, so that other hosts see them: after a power cut, no run lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import threading
import typing as t

from .._base import Closing, LockLost, LockTimeout, files, kernel, nfs, store_errors, store_failure
from .table import Table

NAME = "claims"
OBJECT, PACK = b"o", b"p"
_RECORD = 1 + 32  # kind, name
_PIECE = _RECORD << 15
#: So many are written at once: the names of a million new files need not be in memory twice.
_AT_ONCE = 10_000


class Claims:
    """The claims of one run. Any thread.

    :param fd: of its file, locked; closed by its owner. :param run: the directory of the run.
    """

    def __init__(self, fd: int, run: str) -> None:
        self._fd = fd
        self._is_nfs = nfs.is_nfs(run)
        self._mutex = threading.Lock()

    def add(self, kind: bytes, names: t.Iterable[bytes]) -> None:
        """Claim files by kind and name. Only what is looked for after this can be relied on."""
        names = iter(names)
        try:
            with self._mutex:
                for data in iter(lambda: b"".join(kind + name for name in itertools.islice(names, _AT_ONCE)), b""):
                    files.write_all(self._fd, data)
                    if self._is_nfs:
                        os.fsync(self._fd)  # a collection on another host does not see it before
        except OSError as error:
            if self._is_nfs and error.errno in nfs.LOST:
                with contextlib.suppress(OSError):
                    kernel.syncfs(self._fd)  # the kernel tells one sync of it: this one, and not that of the next run
                raise LockLost("The lock of this run was lost, because the NFS server was out of reach for too long; run again.") from None
            raise store_failure("noting what it relies on", error) from None

    def check(self) -> None:
        """LockLost where collections on other hosts may have taken us for dead. Only a write tells."""
        if self._is_nfs:
            self.add(PACK, [bytes(32)])


class Claimed:
    """The claims of all runs that live, as a collection reads them; what was claimed once stays claimed.

    :ivar packs: names of packs. :ivar objects: of objects.
    """

    def __init__(self, store: str) -> None:
        self._tmp = os.path.join(store, "tmp")
        self._read: t.Dict[str, int] = {}
        self.packs, self.objects = Table(0), Table(0)

    def read(self) -> bool:
        """Read what came since the last call; whether any run lives. StoreError where that cannot be done."""
        lives = False
        for run in files.list_stored(self._tmp):
            with store_errors("checking for other runs"):
                try:
                    fd = open_claims(os.path.join(self._tmp, run))
                except (FileNotFoundError, NotADirectoryError):
                    self._check_old(run)
                    continue  # it has just ended, or has not claimed anything yet
                with Closing(fd):
                    if is_locked(fd):
                        lives = True
                        self._take(run, fd)
        return lives

    def _check_old(self, run: str) -> None:
        """LockTimeout where a run lives that claims nothing: version 0.1.0 had opened the store before it got claims."""
        try:
            fd = files.open_directory(os.path.join(self._tmp, run))
        except OSError:
            return
        with Closing(fd):
            # a run of this version may begin or end at this moment: it has claims while its directory is locked
            if is_locked(fd) and not os.path.lexists(os.path.join(self._tmp, run, NAME)) and is_locked(fd):
                raise LockTimeout(f"A run of version 0.1.0 is using the store (tmp/{run}); wait until it ends, then run again.")

    def _take(self, run: str, fd: int) -> None:
        at = self._read.get(run, 0)
        while True:
            data = os.pread(fd, _PIECE, at)
            whole = len(data) - len(data) % _RECORD  # the rest is being written: its run has not looked yet
            for start in range(0, whole, _RECORD):
                table = self.packs if data[start : start + 1] == PACK else self.objects
                name = data[start + 1 : start + _RECORD]
                if table.find(name) < 0:
                    table.add(name, b"")
            at += whole
            if len(data) < _PIECE:
                break
        self._read[run] = at


def open_claims(run: str) -> int:
    """A descriptor of the claims of a run, by the path of its directory. OSError where there are none."""
    nfs.look_anew(run)  # a moment ago there may have been none
    return files.open_file(os.path.join(run, NAME))


def is_locked(fd: int) -> bool:
    """Whether another process holds the lock of an open file or directory. OSError where that cannot be told."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False
