# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Kernel locks: many users side by side, one collector alone, and a gate so that neither starves.

A writer passes the *gate* (an exclusive lock, held for moments) before asking for the store's *lock*. One that wants
the store alone keeps the gate while it waits, so that no writer comes in before it: long enough to outlast ordinary runs, not so long that
the others give up. Readers, above all restores, do not pass the gate, so they do not wait for one that is only waiting. The kernel drops
both when a process dies, however it dies: there is no stale lock to break. Source: flock(2).

The files `lock` and `gate` can be removed. A process that gets the lock of a removed file takes it again, on the file that has the name now. A run that
already holds the lock of a removed file does not know it. So a process that has the store alone looks for live runs (`workspace.living`), and stops if there
are any.
"""

from __future__ import annotations

import fcntl
import os
import time
import typing as t

from .._base import LockTimeout, lock_file

#: Seconds for which the gate stays closed while a process waits for the store alone, and for which it is then open.
_PATIENCE, _PAUSE = 45.0, 1.0


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
        gate = self._take("gate", fcntl.LOCK_EX, deadline) if self._gate else None
        try:
            self._fd = self._take("lock", self._mode, deadline)
            if self._at_gate is not None:
                self._at_gate()
        except BaseException:
            self.__exit__()
            raise
        finally:
            if gate is not None:
                os.close(gate)
        return self

    def _take(self, name: str, mode: int, deadline: float) -> t.Optional[int]:
        return lock_file(os.path.join(self._directory, name), mode, deadline, f"the {name} of store {self._directory}", self._write)

    def __exit__(self, *_exception: object) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
