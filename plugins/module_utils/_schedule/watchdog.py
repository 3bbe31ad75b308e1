# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Ending a run that takes too long (`timeout`) or does not move on (`stall`).

A thread looks on. It first raises the failure in the main thread, which takes back what it has begun. A call that the kernel keeps, of a disk or a
server that is gone, cannot be taken back so: of what does not end in time then the thread itself tells, and the process ends as if it were killed,
once the kernel lets it (see `apart`). A later run sweeps what it left in the store, and its locks go with it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import typing as t

from .._base import Phase, Stalled, Standing, TimedOut, VoltError, held, show, stoppable
from .job import Job

#: Seconds that the main thread has to clean up and leave.
_GRACE = 30.0
#: Seconds from one look to the next at most.
_PAUSE = 5.0
#: Exit status of what has failed.
_FAILED = 1

Tell = t.Callable[[VoltError], None]


@contextlib.contextmanager
def watched(job: Job, standing: Standing, tell: Tell) -> t.Iterator[None]:
    """While the context lasts, the run of a job may take no longer and stand still no longer than the job allows: Stalled or TimedOut is raised.

    :param tell: takes the failure, where the main thread does not come back.
    """
    if not job.timeout and not job.stall:
        yield
        return
    with stoppable() as stop:
        dog = _Watchdog(job, standing, stop, tell)
        threading.Thread(target=dog.look_on, name="volt-watchdog", daemon=True).start()
        try:
            yield
        finally:
            dog.end()


class _Watchdog:
    """:param stop: raises an error in the main thread."""

    def __init__(self, job: Job, standing: Standing, stop: Tell, tell: Tell) -> None:
        self._job, self._standing, self._stop, self._tell = job, standing, stop, tell
        self._turn = threading.Lock()  # of who decides how the run ends
        self._over = threading.Event()

    def end(self) -> None:
        """The main thread has come out of its work. Where the thread ends the process already, this waits for that."""
        with held(), self._turn:
            self._over.set()

    def look_on(self) -> None:
        """The work of the thread."""
        failure = self._wait_for_failure()
        if failure is None:
            return
        with self._turn:
            if self._over.is_set():
                return
            self._stop(failure)
        self._over.wait(_GRACE)
        with self._turn:
            if self._over.is_set():
                return
            self._tell(failure)
            os._exit(_FAILED)

    def _wait_for_failure(self) -> t.Optional[VoltError]:
        """Why the run is to end; None once it is over."""
        job = self._job
        pause = min(_PAUSE, max(0.05, min(limit for limit in (job.timeout, job.stall) if limit) / 10))
        began = last = time.monotonic()
        still, before, seen = 0.0, self._standing.phase, None
        while not self._over.wait(pause):
            now, phase = time.monotonic(), self._standing.phase
            steps = phase.steps()
            # while a process is stopped, this thread does not run either: that is no stall
            still = still + min(now - last, 2 * pause) if phase is before and steps == seen else 0.0
            last, before, seen = now, phase, steps
            if job.stall and still >= job.stall + phase.patience:
                what = f"no progress for {int(still)} s while {_at(phase)}"
                way = "check that the file systems of that path and of the store respond, or raise `stall`"
                return Stalled(f"Workload {job.workload}: {what}; {way}.", **_details(phase, int(still)))
            if job.timeout and now - began >= job.timeout:
                what = f"the backup took longer than {job.timeout} s and was stopped while {_at(phase)}"
                return TimedOut(f"Workload {job.workload}: {what}; find out what takes so long, or raise `timeout`.", **_details(phase, job.timeout))
        return None


def _at(phase: Phase) -> str:
    path = phase.path()
    return f"{phase.name}, at {show(path)}" if path else phase.name


def _details(phase: Phase, seconds: int) -> t.Dict[str, t.Any]:
    return {"path": show(phase.path()) or None, "seconds": seconds}
