# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Ends a run that takes too long (`timeout`) or makes no progress (`stall`).

A thread watches the run. It first raises the failure in the main thread, which cleans up. That is impossible while the kernel blocks a call, for
example on a dead disk or server. If the main thread does not end in time, this thread reports the failure, and the process ends as if killed
when the kernel allows it (see `apart`). A later run removes its files in the store, and its locks end with it.
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
    """Raises Stalled or TimedOut in the context if the run of a job stalls or takes longer than the job allows.

    :param tell: called with the failure if the main thread does not respond.
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
            # a stopped process does not run this thread either: that is not a stall
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
