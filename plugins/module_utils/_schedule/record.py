# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The results of a workload's runs: one small file for each workload, which `status` and `run --if-due` read.

A run records that it began, and then how it ended. A killed run records nothing. So whatever comes next (ExecStopPost, the notifier, or the
next run) finds a run that began and did not end, and records the failure. Only a successful run records a success.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import time
import typing as t

from .._backup.ids import check_workload
from .._base import Closing, VoltError, directory_lock, files, lock_file, reason, show, tolerated
from . import days
from .command import remove
from .slots import Slots

DIRECTORY = "/var/lib/volt/schedules"
#: Seconds: how long to wait to note something; how far ahead of the clock a note may be and be believed.
#: No record has more bytes.
_MOST = 1 << 20
_PATIENCE, AHEAD = 60.0, 60.0
#: Drills that are remembered: more than two months of them, one a day. Beside these, the last one of so many places, whatever its age.
_DRILLS, _PLACES = 70, 20
#: What became of a run that noted its beginning and nothing else.
STOPPED = "It was stopped before it could record a reason."

Note = t.Dict[str, t.Any]
#: Values in a note and in its parts that are numbers, and those that are texts, where they are there.
_NUMBERS = ("since", "asked", "began", "ended", "at", "duration", "total_size", "new_bytes", "unstable_count", "failures")
_TIMES = ("since", "began", "ended", "at")
#: No number is as great, and no time, which is in the year 5138.
_MOST_NUMBER, _LAST = 1 << 63, 10**11
_TEXTS = ("run", "invocation", "reason", "code", "backup_id", "remote")


class RunRecord:
    """The outcomes of one workload's runs."""

    def __init__(self, workload: str, directory: str = DIRECTORY) -> None:
        self._path = os.path.join(directory, f"{check_workload(workload)}.json")

    def read(self) -> Note:
        """What is noted; empty before the first run. Times are in seconds since 1970.

        `since`: when the times were declared. `asked`, `began`, `ended`, and `run`, which tells runs of a unit apart, of the last run.
        `success`, `earlier` (the success before it), `failure`, each with `at` and `invocation`; `failures` since the last success; `drills`, and
        `proved`, the last of them that found nothing wrong; `copy_proved`, the same of those from a remote; `days`, see `days`.
        A damaged file counts as empty, and the next run rewrites it.
        """
        try:
            note = json.loads(files.read_file(self._path, _MOST))
        except (FileNotFoundError, ValueError, RecursionError):
            return {}
        except OSError as error:
            raise VoltError(f"{self._path} cannot be read: {reason(error)}; run as root.") from None
        return note if _is_sound(note) else {}

    def declare(self) -> None:
        """From now on the workload has other times than before, or has times at all."""
        with self._noting() as note:
            note["since"] = time.time()

    def ask(self) -> None:
        """A run is requested, without regard to the slots."""
        with self._noting() as note:
            note["asked"] = True

    def unask(self) -> None:
        """It is not wanted any more."""
        with self._noting() as note:
            note["asked"] = None

    def begin(self, invocation: str = "") -> None:
        """A run begins, and has its turn. An earlier one that never ended has failed.

        :param invocation: id of a run of a unit; systemd's INVOCATION_ID.
        """
        with self._noting() as note:
            if note.get("began") is not None and note.get("ended") is None:
                _fail(note, STOPPED, "", VoltError.code)
            note.update(began=time.time(), ended=None, run=invocation, asked=None)

    def is_run_of(self, invocation: str) -> bool:
        """Whether the last run that began is this one of a unit."""
        return bool(invocation) and self.read().get("run") == invocation

    def succeed(self, success: Note, invocation: str) -> None:
        """The run that began has succeeded."""
        with self._noting() as note:
            now = time.time()
            note.update(ended=now, success={**success, "at": now, "invocation": invocation}, earlier=note.get("success", {}), failures=0)
            note["days"] = days.noted(note.get("days"), _begun(note, now), "u" if success.get("unstable_count") else "g")

    def fail(self, failure: VoltError, invocation: str, after_all: bool = False) -> bool:
        """A run or its hooks failed. The first reason for a unit's run is kept; returns whether it is this one.

        :param after_all: the run succeeded, and then a later step failed. In a unit its invocation shows that.
        """
        with self._noting() as note:
            first = not invocation or note.get("failure", {}).get("invocation") != invocation
            if after_all or (invocation and note.get("success", {}).get("invocation") == invocation):
                note["success"] = note.get("earlier", {})  # no run that failed counts as a success
            if first:
                _fail(note, failure.message, invocation, failure.code, failure.details.get("backup", {}).get("id"))
            return first

    def drilled(self, outcome: Note) -> None:
        """A backup was restored: `backup_id`, and `reason` if that proved nothing; `remote`, unless it was from the store."""
        with self._noting() as note:
            done = {**outcome, "at": time.time()}
            note["drills"] = _kept([*note.get("drills", []), done])
            if done["reason"] is None:
                note["proved"] = {key: done[key] for key in ("at", "backup_id")}
                if done.get("remote") is not None:
                    note["copy_proved"] = note["proved"]

    def due(self, slots: t.Optional[Slots]) -> bool:
        """Whether a run is wanted: a slot has begun since the last run did, or it was asked for."""
        return is_due(self.read(), slots, time.time())

    @contextlib.contextmanager
    def _noting(self) -> t.Iterator[Note]:
        """The record, to be changed: one process at a time, because a hook does not hold the workload's lock."""
        with writing(self._path), noting(os.path.dirname(self._path)):
            note = self.read()
            yield note
            files.write_file(self._path, (json.dumps(note, indent=1) + "\n").encode())

    @contextlib.contextmanager
    def alone(self) -> t.Iterator[None]:
        """One run of the workload at a time: a second waits for as long as the first takes."""
        path = f"{self._path[:-5]}.lock"
        with writing(path):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = lock_file(path, fcntl.LOCK_EX, math.inf, f"the run lock of workload {os.path.basename(path)[:-5]}")
        with Closing(t.cast(int, fd)):
            yield

    def busy(self) -> bool:
        """Whether a run holds the lock: the record does not show that, because a run that ended by a power cut records nothing."""
        try:
            fd = files.open_file(f"{self._path[:-5]}.lock")
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except OSError:
            return True
        finally:
            os.close(fd)

    def retire(self) -> None:
        """The schedule is removed. What is noted of its runs stays: it may come back, or have gone by mistake.

        A run that still has the turn keeps the file by which others wait for it.
        """
        path = f"{self._path[:-5]}.lock"
        with tolerated(VoltError):  # a run holds the lock, or the file is not a lock
            fd = lock_file(path, fcntl.LOCK_EX, -math.inf, path, write=False)
            if fd is not None:
                with Closing(fd):
                    remove(path)  # while it is locked: a run that waits for it looks whether it is still there


@contextlib.contextmanager
def noting(directory: str) -> t.Iterator[None]:
    """One at a time among those who read notes in order to write."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    with directory_lock(directory, _PATIENCE):
        yield


def failed_drills(note: Note, remote: t.Optional[str]) -> t.List[Note]:
    """The drills whose failure stands, the newest first: the last one of the store, and of each remote that the schedule uses.

    The newest of all counts from wherever it was; an older failure of a remote that is not used any more does not. :param remote: of the schedule.
    """
    seen: t.List[t.Optional[str]] = []
    found = []
    for drill in reversed(note.get("drills", [])):
        place = drill.get("remote")
        if any(_is_same(place, other) for other in seen):
            continue
        seen.append(place)
        if drill.get("reason") and (len(seen) == 1 or place is None or _is_used(place, remote)):
            found.append(drill)
    return found


def _is_used(place: str, remote: t.Optional[str]) -> bool:
    from .._remote.declared import may_mean  # only here: it takes time to import

    return remote is not None and may_mean(remote, place)


def _is_same(one: t.Optional[str], other: t.Optional[str]) -> bool:
    """Whether two drills were from one place. None is the store."""
    if one == other or one is None or other is None:
        return one == other
    from .._remote import url  # only here: it takes time to import

    with tolerated(VoltError):  # a URL that was too long to be recorded
        return url.same(one, other)
    return False


def _kept(drills: t.Sequence[Note]) -> t.List[Note]:
    """Those of these drills that are remembered, oldest first: one place's must not push out what another's last one found."""
    last = {drill.get("remote"): number for number, drill in enumerate(drills)}
    older = len(drills) - _DRILLS
    return [drill for number, drill in enumerate(drills) if number >= older or last[drill.get("remote")] == number][-_DRILLS - _PLACES :]


def is_due(note: Note, slots: t.Optional[Slots], now: float) -> bool:
    """The same as `Record.due`, of a record that was read. A time in the future comes from a wrong clock and does not delay a run."""
    began = note.get("began")
    return slots is None or bool(note.get("asked")) or began is None or began > now + AHEAD or slots.begun(now) > began


@contextlib.contextmanager
def writing(path: str) -> t.Iterator[None]:
    """An error of the system in the context is a failure to write a file of a schedule."""
    try:
        yield
    except OSError as error:
        raise VoltError(f"{show(path)} cannot be written: {reason(error)}; fix that, then run again.") from None


def _fail(note: Note, why: str, invocation: str, code: str, backup: t.Optional[str] = None) -> None:
    now, number = time.time(), note.get("failures")
    failure = {"at": now, "reason": why, "invocation": invocation, "code": code, "backup_id": backup}
    note.update(ended=now, failure=failure, failures=(number if isinstance(number, int) else 0) + 1)
    note["days"] = days.noted(note.get("days"), _begun(note, now), "s" if backup is not None else "f")


def _begun(note: Note, now: float) -> float:
    """When the run that ends began, as far as that can be believed."""
    began = note.get("began")
    return began if began is not None and now - 86400 * days.DAYS < began <= now else now


def _is_sound(note: t.Any) -> bool:
    """Whether a note has the shape that we give it."""
    if not isinstance(note, dict) or not isinstance(note.get("drills", []), list):
        return False
    return all(map(_is_part, (note, *(note.get(key, {}) for key in ("success", "earlier", "failure", "proved", "copy_proved")), *note.get("drills", []))))


def _is_part(part: t.Any) -> bool:
    if not isinstance(part, dict):
        return False
    numbers = all(part.get(key) is None or isinstance(part[key], (int, float)) and 0 <= part[key] < _MOST_NUMBER for key in _NUMBERS)
    times = numbers and all(part.get(key) is None or part[key] < _LAST for key in _TIMES)
    return times and all(part.get(key) is None or isinstance(part[key], str) for key in _TEXTS)
