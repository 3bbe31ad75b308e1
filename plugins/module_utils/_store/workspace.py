# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""tmp/<run>/: where a transaction writes until all of it is durable and gets its final names, and where a run says what it relies on.

A run lives while the file `claims` in its directory is locked (see `claims`). The next run removes the directories of dead ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import typing as t

from .._base import Closing, LockLost, LockTimeout, StoreError, files, held, is_at, lock_file, nfs, store_errors, store_failure, wait
from . import claims, layout
from .claims import Claims
from .lock import taken
from .refs import ENDING, MANIFEST_MOST
from .table import run_name

_DEAD = ".dead"


class Workspace:
    """The private directory of one run; of a dry one, no directory at all.

    :ivar name: of the run; empty before `make`. :ivar fd: of the directory, for syncing its file system. :ivar claims: what the run relies on; None for
        a dry one. :ivar failure: why nothing more is worth writing, or None.
    """

    def __init__(self, store: str) -> None:
        self._store = store
        self._directory = ""
        self._claims_fd = -1
        self._old_lock: t.Optional[int] = None
        self.claims: t.Optional[Claims] = None
        self.name = ""
        self.fd = -1
        self.failure: t.Optional[StoreError] = None

    def make(self, timeout: float) -> None:
        """Show that we live, and sweep the dead. Runs begin beside each other: many may do so in the same second.

        :param timeout: seconds to wait for the gate.
        """
        tmp = os.path.join(self._store, "tmp")
        with store_errors("beginning a run"):
            _sweep(self._store)
            with taken(self._store, "gate", timeout, exclusive=False):
                deadline, old = time.monotonic() + timeout, os.path.join(self._store, "lock")
                # a process of version 0.1.0 may have opened the store before it got claims
                self._old_lock = lock_file(old, fcntl.LOCK_SH, deadline, f"the lock of store {self._store}", write=False)
                for name in layout.DIRECTORIES:
                    if name != "refs":  # losing the manifests is no small thing; all else may be deleted or comes again
                        os.makedirs(os.path.join(self._store, name), mode=0o700, exist_ok=True)
                while self.fd < 0:
                    self._show(tmp, time.monotonic() + timeout)

    def _show(self, tmp: str, deadline: float) -> None:
        """Make the directory and lock its claims. Without effect if another run took it for a dead one's, which happens only if the gate was removed."""
        self.name = run_name(self._store)
        directory = os.path.join(tmp, self.name)
        with held():  # a signal in between would leave it
            os.mkdir(directory, 0o700)
            self._directory = directory
        path, what = self.path(claims.NAME), f"the claims of run {self.name}"
        opened = []
        try:
            with contextlib.suppress(FileNotFoundError):
                opened.append(files.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND))
                opened.append(files.open_directory(directory))
            for fd in opened:
                wait(fd, fcntl.LOCK_EX, deadline, what)  # others hold it for a moment only, to see whether we live; version 0.1.0 looks at the directory
            if len(opened) == 2 and is_at(opened[0], path):
                self._claims_fd, self.fd = opened
                self.claims = Claims(self._claims_fd, directory)
                opened = []
        finally:
            for fd in opened:
                os.close(fd)

    def check_claims(self) -> None:
        """LockLost where a collection could not see what we rely on, because our directory was removed."""
        if self.claims is not None:
            self.claims.check()
        nfs.look_anew(self._directory)
        if not is_at(self._claims_fd, self.path(claims.NAME)):
            raise LockLost(
                f"Store {self._store}: the directory tmp/{self.name} was removed during this run; find out what removes it, then run again.", store=self._store
            )

    def hold(self, name: str) -> None:
        """Keep what the backup of a manifest needs until this run ends. FileNotFoundError where the manifest is gone; OSError."""
        source = os.path.join(self._store, "refs", name + ENDING)
        if not os.path.lexists(self.path(name + ENDING)):
            files.copy_small(source, self.path(name + ENDING), MANIFEST_MOST)
        nfs.look_anew(os.path.join(self._store, "refs"))
        os.lstat(source)  # there after the copy was: a collection that misses the one finds the other

    def remove(self) -> None:
        """Remove the directory with all that has not got its final name; nothing is written from now on."""
        with held():  # a signal in between would leave the rest
            self._remove()

    def _remove(self) -> None:
        self.failure = self.failure or StoreError("The run has ended.")
        if self.fd >= 0:
            os.close(self.fd)  # first: a locked directory without claims would be a run of version 0.1.0
        if self._directory:
            _remove_tree(self._directory)
        for fd in (self._claims_fd, self._old_lock):
            if fd is not None and fd >= 0:
                os.close(fd)
        if self._directory:
            files.quietly(os.rmdir, self._directory)  # on NFS, an open file is there until it is closed
        self.fd = self._claims_fd = -1
        self._old_lock = self.claims = None

    def path(self, relative: str) -> str:
        return os.path.join(self._directory, relative)

    def make_directory(self, name: str) -> None:
        with store_errors("beginning a run"):
            os.mkdir(self.path(name), 0o700)

    def check(self) -> None:
        """Raise what made an earlier write fail."""
        if self.failure is not None:
            raise self.failure

    def write(self, relative: str, data: bytes) -> None:
        """Write a new file; any thread."""
        try:
            with Closing(files.create_file(self.path(relative))) as fd:
                files.write_all(fd, data)
        except OSError as error:
            self.failure = store_failure("writing new data", error)
            raise self.failure from None

    def read(self, relative: str) -> bytes:
        """A file that this run wrote."""
        with store_errors("reading new data again"), open(self.path(relative), "rb") as file:
            return file.read()

    def nameless(self) -> int:
        """A descriptor of a new file without a name, which is gone when it is closed. OSError where the file system has none."""
        return os.open(self._directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)


def dead_runs(store: str) -> t.Iterator[str]:
    """Paths of what dead runs left under tmp/. A living one holds a lock: of its claims, or in version 0.1.0 of its directory."""
    tmp = os.path.join(store, "tmp")
    for name in files.names_in(tmp):
        path = os.path.join(tmp, name)
        with contextlib.suppress(OSError):
            try:
                fd = claims.open_claims(path)
            except FileNotFoundError:
                fd = files.open_directory(path)
            with Closing(fd):
                dead = not claims.is_locked(fd)
            if dead:
                yield path


def _sweep(store: str) -> None:
    """Remove what dead runs left. A run that is just beginning looks dead, so that is settled at the gate; where others are there, a later run sweeps."""
    if not any(dead_runs(store)):
        return
    try:
        with taken(store, "gate", 0):
            dead = [path for path in map(_set_apart, dead_runs(store)) if path]
    except LockTimeout:
        return
    for path in dead:
        _remove_tree(path)


def _set_apart(path: str) -> t.Optional[str]:
    """Rename what a dead run left, so that removing it can take its time; None where that fails."""
    if path.endswith(_DEAD):
        return path
    try:
        os.rename(path, path + _DEAD)
    except OSError:
        return None
    return path + _DEAD


def _remove_tree(path: str) -> None:
    """Remove a directory with all below it, as far as that works."""
    import shutil  # only here: a start should not wait for what it brings

    shutil.rmtree(path, ignore_errors=True)
