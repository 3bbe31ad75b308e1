# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""tmp/<run>/: where a transaction writes until all of it is durable and gets its final names.

The directory is locked while the process lives. What a dead one left is removed by the next transaction, which can tell, because the kernel
dropped the dead one's lock. `living` names the directories of runs that are alive.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import typing as t

from .._base import StoreError, files, is_at, store_failure
from . import layout
from .index import run_name


class Workspace:
    """The private directory of one transaction; of a dry one, no directory at all.

    :ivar name: of the run; empty before `make`. :ivar fd: of the directory, for syncing its file system.
    :ivar failure: why nothing more is worth writing, or None.
    """

    def __init__(self, store: str) -> None:
        self._store = store
        self._directory = ""
        self.name = ""
        self.fd = -1
        self.failure: t.Optional[StoreError] = None

    def make(self) -> None:
        """Sweep the dead, then show that we live. Called where no other transaction begins."""
        tmp = os.path.join(self._store, "tmp")
        try:
            for name in layout.DIRECTORIES:
                if name != "refs":  # losing the manifests is no small thing; all else may be deleted or comes again
                    os.makedirs(os.path.join(self._store, name), mode=0o700, exist_ok=True)
            for entry in os.listdir(tmp):
                _sweep(os.path.join(tmp, entry))
            while self.fd < 0:
                self._show(tmp)
            for name in ("objects", "packs"):
                os.mkdir(self.path(name), 0o700)
        except OSError as error:
            raise store_failure("beginning a run", error) from None

    def _show(self, tmp: str) -> None:
        """Make the directory and lock it. Without effect if another run took it for a dead one's, which happens only if the gate was removed."""
        self.name = run_name(self._store)
        self._directory = os.path.join(tmp, self.name)
        os.mkdir(self._directory, 0o700)
        try:
            fd = files.open_directory(self._directory)
        except FileNotFoundError:
            return
        fcntl.flock(fd, fcntl.LOCK_EX)  # others hold it for a moment only, to see whether we live
        if is_at(fd, self._directory):
            self.fd = fd
        else:
            os.close(fd)

    def remove(self) -> None:
        """Remove the directory with all that has not got its final name; nothing is written from now on."""
        self.failure = self.failure or StoreError("The run has ended.")
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def path(self, relative: str) -> str:
        return os.path.join(self._directory, relative)

    def check(self) -> None:
        """Raise what made an earlier write fail."""
        if self.failure is not None:
            raise self.failure

    def write(self, relative: str, data: bytes) -> None:
        """Write a new file; any thread."""
        try:
            fd = files.create_file(self.path(relative))
            try:
                files.write_all(fd, data)
            finally:
                os.close(fd)
        except OSError as error:
            self.failure = store_failure("writing new data", error)
            raise self.failure from None

    def read(self, relative: str) -> bytes:
        """A file that this run wrote."""
        try:
            with open(self.path(relative), "rb") as file:
                return file.read()
        except OSError as error:
            raise store_failure("reading new data again", error) from None

    def nameless(self) -> int:
        """A descriptor of a new file without a name, which is gone when it is closed. OSError where the file system has none."""
        return os.open(self._directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)


def _sweep(path: str) -> None:
    """Remove what a dead run left; a living one holds its lock."""
    try:
        fd = files.open_directory(path)
    except OSError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    except OSError:
        pass
    finally:
        os.close(fd)


def living(store: str) -> t.List[str]:
    """Names of the runs that are alive at the store of this path; StoreError where that cannot be told."""
    found = []
    tmp = os.path.join(store, "tmp")
    try:
        names = os.listdir(tmp)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise store_failure("checking for other runs", error) from None
    for name in sorted(names):
        try:
            fd = files.open_directory(os.path.join(tmp, name))
        except OSError:
            continue  # it has just ended, or is no run's
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            found.append(name)
        except OSError as error:
            raise store_failure("checking for other runs", error) from None
        finally:
            os.close(fd)
    return found
