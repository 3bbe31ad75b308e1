# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The status of a host's schedules for users without root: a file that each run writes, without notes, sources and reasons.

::

    /run/volt/               root:volt 2750, so that files get the group without the right to change owners
    /run/volt/status.json    root:volt 0640 {"format", "written", "deadline", and the part of a survey that the group may read}
    /run/volt/lock           root 0600, locked while one looks; says when the last look began, and which runs it took for ended
    /run/volt/<workload>.ended    root 0600, locked while a run is at its last line; contains the id of the run of the unit

The role volt_runner creates the group; without it, only root can read the file. It contains when it was written and until when it is valid: until
the next update or backup is due. A file that cannot be updated is removed, because it would be trusted.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import json
import math
import os
import time
import typing as t

from .._base import Closing, LockTimeout, StoreError, Unsupported, VoltError, check_format, files, lock_file, open_file, parse, reason, tolerated
from . import job as jobs, metrics, units
from .apart import apart
from .ledger import Ledger
from .record import AHEAD, DIRECTORY as RECORDS, writing
from .status import shown
from .survey import Survey, survey

PATH = f"{units.RUNTIME}/status.json"
#: Beside it.
LOCK = "lock"
#: Ends the name of a file beside it that says of a workload that its run is at its last line, see `_marked`.
_MARK = ".ended"
GROUP = "volt"
FORMAT = 1
_MOST = 16 << 20
#: No id of a run of a unit has more characters.
_LONGEST = 64
#: Seconds that one may take to look, and to wait for its turn.
_PATIENCE = 60.0
#: What of a row may be known.
_ROW = (
    "workload", "state", "overdue", "enabled", "interval", "on_calendar", "failures", "last_success", "last_failure", "last_proved", "copy_proved_at",
    "next_elapse",
    "newest_at", "newest_type", "newest_age", "copied_at", "copied_age", "backup_count", "damaged_count", "duration", "total_size", "scheduled",
)  # fmt: skip


def is_needed() -> bool:
    """Whether this user cannot read the schedules themselves."""
    return os.path.isdir(jobs.DIRECTORY) and not os.access(jobs.DIRECTORY, os.R_OK | os.X_OK)


def read(path: str = PATH) -> t.Dict[str, t.Any]:
    """The content of the file, in the form of `Survey.value`. A missing or stale file is a problem among the others."""
    try:
        value = json.loads(files.read_file(path, _MOST))
        check_format(value["format"], FORMAT, path)
        found = {name: list(value[name]) for name in ("schedules", "workloads", "problems", "trouble")}
        written, deadline = float(value["written"]), float(value["deadline"])
    except FileNotFoundError:
        why = f"{path} does not exist, because no run has ended since this host started; wait for the next one, or run volt-backup status as root."
        found, written, deadline = {"schedules": [], "workloads": [], "problems": [], "trouble": []}, 0.0, math.inf
        _add(found, why)
    except PermissionError:
        raise VoltError(f"{path} cannot be read; run as root, or join the group {GROUP}.") from None
    except Unsupported:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise VoltError(f"{path} cannot be read ({reason(error) if isinstance(error, OSError) else 'it is damaged'}); run as root.") from None
    now = time.time()
    if now > deadline or written > now + AHEAD:
        _add(found, f"{path} is stale: it was written at {shown(written)} and was valid until {shown(deadline)}; run volt-backup status as root.")
    return {**found, "count": len(found["schedules"]), "written_at": written, "holds_until": None if math.isinf(deadline) else deadline}


def _add(found: t.Dict[str, t.List[t.Any]], why: str) -> None:
    found["problems"].append({"what": "status.json", "state": "stale", "reason": why})
    found["trouble"].append("status.json")


def write(there: Survey, path: str = PATH) -> None:
    """Write the file, or remove it if there is nothing to publish."""
    with writing(path):
        try:
            if there.schedules or there.problems:
                _write(_text(there), path)
            else:
                _drop(path)
        except OSError:
            files.quietly(os.unlink, path)
            raise


def _write(text: str, path: str) -> None:
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o750, exist_ok=True)
    group = _group()
    status = os.stat(directory)
    if (status.st_gid, status.st_mode & 0o7777) != (group, 0o2750):
        with contextlib.suppress(PermissionError):
            os.chown(directory, 0, group)
            os.chmod(directory, 0o2750)
    files.write_file(path, text.encode(), mode=0o640)


def _drop(path: str) -> None:
    """Remove the file, and the locks that runs leave beside it (`_sources`), but not those that a run holds."""
    directory = os.path.dirname(path)
    files.unlink(path)
    files.unlink(os.path.join(directory, LOCK))
    for name in files.names_in(directory):
        if name.endswith(_MARK):
            files.quietly(os.unlink, os.path.join(directory, name))
    for lock in [os.path.join(directory, name) for name in files.names_in(directory) if name.endswith(".lock")]:
        with contextlib.suppress(OSError), Closing(open_file(lock)) as fd:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(lock)
    with contextlib.suppress(OSError):  # not empty, or not there
        os.rmdir(directory)


def _group() -> int:
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return 0


def _text(there: Survey) -> str:
    """The file's content."""
    value = there.value()
    rows = {name: [{key: row[key] for key in _ROW if key in row} for row in value[name]] for name in ("schedules", "workloads")}
    problems = [{"what": problem.what, "state": problem.state, "reason": None} for problem in there.problems]
    told = {"format": FORMAT, "written": there.at, "deadline": there.deadline, **rows, "problems": problems, "trouble": value["trouble"]}
    return json.dumps(told, indent=1) + "\n"


def bring_up(
    look: t.Callable[[t.AbstractSet[str]], Survey] = lambda ended: survey(ended=ended),
    records: str = RECORDS,
    path: str = PATH,
    hardened: bool = False,
    ended: t.AbstractSet[str] = frozenset(),
    invocation: str = "",
    shared: bool = True,
) -> t.List[str]:
    """Update this file and the metrics; returns a sentence for each that could not be written.

    Of many runs that end together, one looks for all that wait meanwhile: each look takes in the whole host.

    :param look: gets the workloads whose run is at its last line, and runs of units that were. :param ended: the workloads of this run.
    :param invocation: which run of a unit it is; empty for one by hand.
    :param hardened: this is a service without the right to write in directories of others, so the metrics are left to who comes after it.
    :param shared: the look of another run will do as well.
    """
    against: t.List[str] = []
    came = time.monotonic_ns()
    try:
        with _marked(path, ended, invocation), _turn(path) as turn:
            if turn is not None and shared and _last_look(turn).serves(_Look(came, hardened, ended)):
                return [] if hardened else list(Ledger(records).read().metrics.values())
            mine = _Look(time.monotonic_ns(), hardened, ended | _ended(path))
            if turn is not None:
                _note(turn, "")  # if this look fails, it removes the status, so no run may rely on the look before
            there = look(mine.ended)
            if not hardened and _write_metrics(there, records, against):
                del against[:]
                there = look(mine.ended)  # every run reports whether they can be written
                _write_metrics(there, records, against)
            write(there, path)
            if turn is not None:
                mine.note(turn)
    except VoltError as error:
        against.append(error.message)
    return against


class _Look(t.NamedTuple):
    """One look at the host: when it began (CLOCK_MONOTONIC, ns), whether it left out the metrics, and whose run it took for ended."""

    began: int
    hardened: bool
    ended: t.AbstractSet[str]

    def serves(self, other: _Look) -> bool:
        """Whether one that came then, and waited since, need not look as well."""
        return self.began > other.began and self.hardened <= other.hardened and other.ended <= self.ended

    def note(self, lock: int) -> None:
        """Write it into the lock's file, for those that wait."""
        _note(lock, " ".join([str(self.began), str(int(self.hardened)), *sorted(self.ended)]))


def _last_look(lock: int) -> _Look:
    """The one that a lock's file tells of; one before all others if it tells of none, or of one before the last boot."""
    try:
        began, hardened, *ended = os.pread(lock, _MOST, 0).decode().split(" ")
        found = _Look(int(began), hardened != "0", frozenset(ended))
        return found if found.began <= time.monotonic_ns() else _NONE
    except (OSError, ValueError):
        return _NONE


_NONE = _Look(-1, True, frozenset())


@contextlib.contextmanager
def _marked(path: str, ended: t.Iterable[str], invocation: str) -> t.Iterator[None]:
    """Let others know whose run is at its last line: a file for each beside the status, which is locked meanwhile.

    The unit of a run ends a little later than this process. So its file stays, and names the run.
    """
    directory = os.path.dirname(path)
    with contextlib.ExitStack() as marks:
        for workload in ended:
            mark = os.path.join(directory, f"{workload}{_MARK}")
            with tolerated(OSError, VoltError):
                os.makedirs(directory, mode=0o750, exist_ok=True)
                fd = t.cast(int, lock_file(mark, fcntl.LOCK_EX, time.monotonic() + 1, mark))
                marks.callback(os.close, fd)
                if not invocation:
                    marks.callback(files.quietly, os.unlink, mark)
                _note(fd, invocation)
        yield


def _ended(path: str) -> t.Set[str]:
    """Whose run is at its last line, as others say that are alive; and the runs of units that were. What another one left that died is removed."""
    directory, found = os.path.dirname(path), set()
    for mark in [os.path.join(directory, name) for name in files.names_in(directory) if name.endswith(_MARK)]:
        with contextlib.suppress(OSError), Closing(open_file(mark)) as fd:
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found.add(os.path.basename(mark)[: -len(_MARK)])
                continue
            invocation = os.read(fd, _LONGEST).decode("ascii", "replace")
            if invocation:
                found.add(invocation)
            else:
                os.unlink(mark)
    return found


def _note(lock: int, text: str) -> None:
    """Let the file of a lock have a text, for others."""
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, text.encode(), 0)


def _write_metrics(there: Survey, records: str, against: t.List[str]) -> bool:
    """Write them, and note which ones could not be; whether these are others than before."""
    failed = {}
    for place in there.metrics:
        try:
            metrics.write(metrics.text(there, records), os.fsdecode(parse(place)))
        except VoltError as error:
            failed[place] = error.message
    against += failed.values()
    before = Ledger(records).read().metrics
    Ledger(records).change(lambda notes: notes._replace(metrics=failed))
    return before != failed


@contextlib.contextmanager
def _turn(path: str) -> t.Iterator[t.Optional[int]]:
    """One at a time: of two runs that end together, the one that looked first must not write last. Who cannot make the directory has no one beside it.

    Gives a descriptor of the lock's file.
    """
    directory = os.path.dirname(path)
    fd = None
    try:
        os.makedirs(directory, mode=0o750, exist_ok=True)
        # a file of root's, and not the directory, which each of the group could keep locked
        fd = lock_file(os.path.join(directory, LOCK), fcntl.LOCK_EX, time.monotonic() + _PATIENCE, f"the lock of {path}")
    except LockTimeout:
        raise
    except (OSError, StoreError):
        pass
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def _try(ended: t.AbstractSet[str], invocation: str, hardened: bool) -> t.List[str]:
    try:
        return bring_up(hardened=hardened, ended=ended, invocation=invocation)
    except Exception as error:  # one of the system's, or a bug of ours
        return [f"The status could not be written to {PATH} ({type(error).__name__}: {error}); run volt-backup status to see it."]


def publish(complain: t.Callable[[str], None], ended: t.AbstractSet[str] = frozenset(), invocation: str = "", hardened: bool = False) -> None:
    """The same, by a separate process: a store or source that does not respond must not keep a unit from ending. A failure does not affect the backup.

    :param complain: called for what could not be written. Other parameters: see `bring_up`.
    """
    try:
        against = apart(lambda _answer: _try(ended, invocation, hardened), _PATIENCE, "that writes the status")
    except VoltError as error:
        against = [error.message]
    for text in against:
        complain(text)
