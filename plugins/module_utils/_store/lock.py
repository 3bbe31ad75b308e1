# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Kernel locks: many users side by side, one collector alone, and a gate so that neither starves.

A writer passes the *gate* (an exclusive lock, held for moments) before asking for the store's *lock*. One that wants
the store alone keeps the gate while it waits, so that no writer comes in before it: long enough to outlast ordinary runs, not so long that
the others give up. Readers, above all restores, do not pass the gate, so they do not wait for one that is only waiting. The kernel drops
both when a process dies, however it dies: there is no stale lock to break. Source: flock(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
import typing as t

from .._base import LockTimeout, StoreError, files, reason, store_failure, wait

#: Seconds for which the gate stays closed while a process waits for the store alone, and for which it is then open.
_PATIENCE, _PAUSE = 45.0, 1.0


def _open(path: str, write: bool) -> t.Optional[int]:
    try:
        return files.open_file(path, os.O_RDWR | os.O_CREAT if write else os.O_RDONLY)
    except OSError as error:
        if not write and error.errno in (errno.ENOENT, errno.EACCES):
            return None  # a store that was never written to, or that we may only look at: nothing to wait for
        raise (store_failure("opening its lock", error) if write else StoreError(f"Lock {path}: {reason(error)}.")) from None


class Lock:
    """The store's lock, held shared or exclusively while the context lasts.

    :param directory: the store.
    :param timeout: seconds to wait before LockTimeout.
    :param exclusive: alone. New writers then wait at the gate, `_PATIENCE` seconds at a time.
    :param write: False where nothing may be created (check mode, read-only media); a missing lock file is then no obstacle.
    :param gate: False for readers, which are let in whenever no process has the store alone, also while one waits for that.
    :param at_gate: called once while both gate and lock are held: the moment in which no other run starts or ends.
    """

    def __init__(
        self,
        directory: str,
        timeout: float,
        exclusive: bool = False,
        write: bool = True,
        gate: bool = True,
        at_gate: t.Optional[t.Callable[[], None]] = None,
    ) -> None:
        self._directory = directory
        self._timeout = timeout
        self._mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        self._write = write
        self._gate = gate
        self._at_gate = at_gate
        self._fd: t.Optional[int] = None

    def __enter__(self) -> Lock:
        deadline = time.monotonic() + self._timeout
        while self._mode == fcntl.LOCK_EX:
            turn = time.monotonic() + _PATIENCE
            if turn >= deadline:
                break
            try:
                return self._enter(turn)
            except LockTimeout:
                time.sleep(_PAUSE)  # a long run is at work: let those in who came after it, then close the gate again
        return self._enter(deadline)

    def _enter(self, deadline: float) -> Lock:
        gate = _open(os.path.join(self._directory, "gate"), self._write) if self._gate else None
        try:
            if gate is not None:
                wait(gate, fcntl.LOCK_EX, deadline, f"the gate of store {self._directory}")
            self._fd = _open(os.path.join(self._directory, "lock"), self._write)
            if self._fd is not None:
                wait(self._fd, self._mode, deadline, f"the lock of store {self._directory}")
            if self._at_gate is not None:
                self._at_gate()
        except BaseException:
            self.__exit__()
            raise
        finally:
            if gate is not None:
                os.close(gate)
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
