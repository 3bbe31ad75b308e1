# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The state of a host's schedules, one row each.

A schedule is *overdue* when a slot has begun, the allowed time has passed, and no good backup was made since, scheduled or not. A successful run
counts only while its backup exists. For calendars, systemd is asked: the first time after the last backup is when one was due. If that is unknown, the
row says so. A schedule that is disabled by its declaration is no problem; one that was stopped by hand is. A run has failed if its record or systemd
says so of the service: a run may be killed, or not even start, without a record. Times in the future come from a wrong clock and are ignored.
"""

from __future__ import annotations

import datetime
import os
import time
import typing as t

from .._base import Unsupported, VoltError, parse, show_time
from . import command as commands, job as jobs, systemd, units as units_
from .held import Held, Stock, Trouble
from .job import Job
from .record import AHEAD, DIRECTORY as RECORDS, STOPPED, Note, RunRecord, failed_drills, is_due

#: Worst first, in which order they are listed.
STATES = (
    "failed", "overdue", "stopped", "unreadable", "unsupported", "store missing", "records missing", "source missing", "damaged", "not proved",
    "stale", "running", "ok", "waiting", "disabled", "no schedule",
)  # fmt: skip
TROUBLE = frozenset(STATES[: STATES.index("running")])

_TOLERANCE = (300, 3600)
_TIMER = ("LoadState", "ActiveState", "SubState", "LastTriggerUSec", "NextElapseUSecRealtime", "UnitFileState")
_SERVICE = ("ActiveState", "Result", "InvocationID")


Row = t.Dict[str, t.Any]


def load(directory: str = jobs.DIRECTORY, units_at: str = systemd.UNITS) -> t.Tuple[t.List[Job], t.List[Row]]:
    """The jobs of the host, and rows for those that cannot be read."""
    known: t.List[Job] = []
    broken: t.List[Row] = []
    for name in jobs.declared(directory):
        try:
            known.append(jobs.load(name, directory))
        except VoltError as error:
            state = "unsupported" if isinstance(error, Unsupported) else "unreadable"
            broken.append(_broken(name, state, error.message))
    there = {*(job.workload for job in known), *(row["workload"] for row in broken)}
    for name in units_.installed(units_at):
        if name not in there:
            broken.append(_broken(name, "unreadable", f"Its job file {jobs.path(name, directory)} is missing; declare the schedule again."))
    return known, broken


def status(known: t.Sequence[Job], stock: Stock, records: str = RECORDS, command: str = commands.PATH, ended: t.Container[str] = ()) -> t.List[Row]:
    """How schedules are doing.

    :param stock: the existing backups. :param ended: workloads whose run counts as ended, because it is at its last line; and ids of runs of units that
        were there, whose units may still be about to end.
    :returns: for each `workload`, `state`, `overdue`, `reason`, `last_success`, `last_failure`, `next_elapse` (times in UTC, or None), and so on.
    """
    found: t.List[Row] = []
    notes = {job.workload: RunRecord(job.workload, records).read() for job in known}  # before systemd is asked: a run that begins meanwhile does not count yet
    units = [f"{job.unit}.{kind}" for job in known for kind in ("timer", "service")]
    shown = systemd.show(units, *dict.fromkeys(_TIMER + _SERVICE)) if known and systemd.running() else None
    mounts = systemd.failed_mounts([f"{job.unit}.service" for job in known]) if shown is not None else {}
    now = time.time()
    outdated = {store: _outdated(store, command) for store in {job.store for job in known}}
    for job in known:
        record = RunRecord(job.workload, records)
        timer, service = ({} if shown is None else shown.get(f"{job.unit}.{kind}", {}) for kind in ("timer", "service"))
        note, busy = notes[job.workload], record.busy()
        if job.workload in ended or service.get("ActiveState") == "deactivating" and service.get("InvocationID") in ended:
            service, busy = {}, False
        if _is_unended(note) and not busy:
            note = record.read()  # it has ended meanwhile
        away = mounts.get(f"{job.unit}.service")
        held = stock.of(job)
        seen = _Seen(job, note, busy, None if shown is None else timer, service, held, stock.at, now, away, outdated[job.store])
        found.append(_judge(seen if job.on_calendar is None else seen._replace(times=_times(seen))))
    return found


def rank(row: Row) -> t.Tuple[int, str]:
    """The order of rows: those in trouble first."""
    return STATES.index(row["state"]), row["workload"]


def warnings(rows: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[str]:
    """The problems of all schedules of a host together."""
    if systemd.running() or not any(row["enabled"] for row in rows):
        return []
    return ["systemd is not running on this host, so no schedule starts; let another program call volt-backup run for each of them."]


def _outdated(store: str, command: str) -> t.Optional[str]:
    """Why the command on this host cannot use a store, if it cannot: a newer version has been at work there."""
    try:
        found = commands.read(command)
        lacking = commands.lacks(found, store) if found is not None else []
        return f"{commands.outdated(command, t.cast(commands.CommandStamp, found), store, lacking)}." if lacking else None
    except Unsupported as error:
        return error.message
    except VoltError:
        return None  # a store or command that cannot be read fails the run, which reports it


def _empty(workload: str) -> t.Dict[str, t.Any]:
    keys = ("source", "interval", "on_calendar", "remote", "reason", "declared_at", "last_success", "last_failure", "last_proved", "proved_id")
    keys += ("copy_proved_at", "next_elapse", "backup_id", "duration", "new_bytes", "total_size", "unstable_count", *of_held(None, 0))
    return {"workload": workload, "state": "", "overdue": False, "enabled": True, "failures": 0, "troubles": [], **dict.fromkeys(keys)}


def _broken(workload: str, state: str, reason: str) -> Row:
    return {**_empty(workload), "state": state, "reason": reason, "troubles": [Trouble(state, reason)]}


class _Seen(t.NamedTuple):
    """The facts of a schedule: `timer` and `service` from systemd, None and empty if it does not run; `held` None if not known.

    :ivar away: mounts that it needs and that failed. :ivar outdated: why the command cannot use the store, if it cannot.
    :ivar times: of a calendar, the first two at which a backup is due that does not exist yet; none if unknown.
    """

    job: Job
    note: Note
    busy: bool
    timer: t.Optional[t.Dict[str, str]]
    service: t.Mapping[str, str]
    held: t.Optional[Held]
    held_at: float
    now: float
    away: t.Optional[t.Sequence[str]]
    outdated: t.Optional[str]
    times: t.Sequence[float] = ()

    @property
    def runs(self) -> bool:
        return self.job.enabled and (self.service.get("ActiveState") in ("activating", "deactivating") or _is_unended(self.note) and self.busy)

    @property
    def due(self) -> t.Optional[float]:
        """The last slot whose allowed time has passed: a slot that has only just begun would hide those that were missed before."""
        if self.job.slots is not None:
            return self.job.slots.begun(self.now - self.patience)
        return self.times[0] if self.times else None

    @property
    def patience(self) -> float:
        return _patience(self.job.interval if self.job.interval is not None else _step(self.times))

    @property
    def since(self) -> float:
        """The time after which a missing backup may be due; 0 if unknown."""
        return max(self.made, _past(self.note.get("since"), self.now), _past(self.note.get("began"), self.now) if self.runs else 0.0)

    @property
    def made(self) -> float:
        """When the last good backup was made, by its run's record if that backup still exists."""
        success = self.note.get("success", {})
        at = _past(success.get("at"), self.now)
        if self.held is None:
            return at
        there = success.get("backup_id") in self.held.good or at >= self.held_at  # the latter was made while the backups were listed
        return max(at if there else 0.0, self.held.newest_at or 0.0)

    @property
    def late(self) -> bool:
        due = self.due if self.job.enabled and (self.note or self.made) else None
        return due is not None and due > _past(self.note.get("since"), self.now) and self.made < due and self.now > due + self.patience


def _judge(seen: _Seen) -> Row:
    job, note, now = seen.job, seen.note, seen.now
    success, failure, proved = (note.get(key, {}) for key in ("success", "failure", "proved"))
    troubles = list(_troubles(seen))
    state, why = (troubles[0].state, " ".join(trouble.reason for trouble in troubles)) if troubles else _state(seen)
    return {
        **_empty(job.workload),
        "state": state,
        "overdue": seen.late,
        "enabled": job.enabled,
        "reason": why,
        "troubles": troubles,
        "source": job.source,
        "interval": job.interval,
        "on_calendar": job.on_calendar,
        "remote": job.remote,
        "declared_at": shown(note.get("since")),
        "last_success": shown(success.get("at")),
        "last_failure": shown(failure.get("at")),
        "last_proved": shown(proved.get("at")),
        "proved_id": proved.get("backup_id"),
        "copy_proved_at": shown(note.get("copy_proved", {}).get("at")),
        "next_elapse": next_elapse(job, seen.timer, note, now) if job.enabled else None,
        "failures": note.get("failures", 0),
        **of_held(seen.held, now),
        **{key: success.get(key) for key in ("backup_id", "duration", "new_bytes", "total_size", "unstable_count")},
    }


def _troubles(seen: _Seen) -> t.Iterator[Trouble]:
    """All that is wrong with a schedule, the worst first: one must not hide another, which comes later or stays."""
    job, note = seen.job, seen.note
    if job.enabled:
        yield from _failures(seen)
        if seen.outdated is not None and not seen.runs:
            yield Trouble("unsupported", seen.outdated)
        good = note.get("success", {}).get("at")
        if seen.late and not (seen.runs and _past(note.get("began"), seen.now) >= t.cast(float, seen.due)):  # a hanging run does not count
            yield Trouble("overdue", " ".join(filter(None, (f"No backup was made since the one due at {shown(seen.due)}.", _others(seen)))))
        elif not (seen.late or seen.runs) and good and seen.held is not None and not (seen.held.harm or seen.made) and good < seen.held_at:
            why = f"No good backup of {job.workload} is left, although a run succeeded at {shown(good)}; run volt-backup run {job.workload}."
            yield Trouble("overdue", why)
        if seen.timer is not None:
            again = "declare the schedule again"
            why = systemd.stopped(f"{job.unit}.timer", seen.timer, again) or systemd.unloaded(f"{job.unit}.service", seen.service, again)
            yield from [Trouble("stopped", why)] if why else []
        yield from _missing(seen)
    if seen.held is not None and seen.held.harm:
        yield Trouble("damaged", seen.held.harm, sorted(seen.held.damaged))
    yield from unproved(note, job.remote)


def unproved(note: Note, remote: t.Optional[str]) -> t.Iterator[Trouble]:
    """The drills whose failure stands, see `failed_drills`: for the state, the metrics and the report."""
    for drill in failed_drills(note, remote):
        which = f"The drill of {shown(drill.get('at'))}{' from ' + drill['remote'] if drill.get('remote') else ''}"
        yield Trouble("not proved", f"{which} failed: {drill['reason']}", [str(drill.get("at"))])


def _failures(seen: _Seen) -> t.Iterator[Trouble]:
    """Why the last run failed, if it did; failures are distinguished by their time."""
    job, note, service = seen.job, seen.note, seen.service
    failure, unended = note.get("failure", {}), _is_unended(note)
    if seen.away:
        yield Trouble("failed", systemd.of_mounts(seen.away), failure_parts(note))
    elif seen.runs:
        return
    elif service.get("ActiveState") == "failed":
        known = failure.get("invocation") == service.get("InvocationID") and failure.get("reason")
        parts = failure_parts(note) if known else [service.get("InvocationID", "")]
        yield Trouble("failed", known or f"{job.unit}.service failed ({service.get('Result')}); see journalctl -u {job.unit}.", parts)
    elif unended or note.get("failures"):
        yield Trouble("failed", STOPPED if unended else failure.get("reason") or STOPPED, failure_parts(note))


def failure_parts(note: Note) -> t.List[str]:
    """What distinguishes the last recorded failure from those before it."""
    return [str(note.get("began") if _is_unended(note) else note.get("failure", {}).get("at"))]


def _state(seen: _Seen) -> t.Tuple[str, t.Optional[str]]:
    """State of a schedule without a problem, and its reason."""
    good = seen.note.get("success", {})
    if not seen.job.enabled:
        return "disabled", None
    if seen.runs:
        return "running", None
    said = []
    if seen.job.on_calendar is not None and seen.since and not seen.times:
        said.append("This host cannot compute the times of `on_calendar`, so this is never overdue; declare `interval` instead.")
    if not (seen.made or good.get("at")):
        return "waiting", " ".join([*said, *filter(None, [_others(seen)])]) or None
    if good.get("unstable_count"):
        said.append(f"The last backup is unstable: {good['unstable_count']} file(s) changed while it was made.")
    return "ok", " ".join(said) or None


def _others(seen: _Seen) -> t.Optional[str]:
    number = seen.held.others if seen.held is not None else 0
    return f"{number} backup(s) of that name belong to another host or source and do not count." if number else None


def of_held(held: t.Optional[Held], now: float) -> Row:
    """The fields of a row about backups, scheduled or not."""
    newest, at = (None, None) if held is None else (held.newest, held.newest_at)
    copied, copied_at = (None, None) if held is None else (held.copied, held.copied_at)
    return {
        "newest_id": newest["id"] if newest else None,
        "newest_at": shown(at),
        "newest_type": newest["type"] if newest else None,
        "newest_age": None if at is None else max(0, int(now - at)),
        "copied_id": copied["id"] if copied else None,
        "copied_at": shown(copied_at),
        "copied_age": None if copied_at is None else max(0, int(now - copied_at)),
        "backup_count": held.count if held is not None else None,
        "damaged_count": len(held.damaged) if held is not None else None,
    }


def _missing(seen: _Seen) -> t.Iterator[Trouble]:
    """Problems of the next run, or a lost record of earlier ones."""
    job = seen.job
    try:
        job.manager.check_store()
    except VoltError as error:
        if error.code == "store":
            yield Trouble("store missing", error.message)  # the run reports everything else
            return
    if job.source is not None and not os.path.isdir(parse(job.source)):
        yield Trouble("source missing", f"{job.source} is no longer a directory.")
    elif not seen.note:
        yield Trouble("records missing", f"The record of the runs of {job.workload} is missing or damaged; the next run creates it again.")


def _times(seen: _Seen) -> t.List[float]:
    """Of a schedule by calendar: see `_Seen`."""
    calendar, after = str(seen.job.on_calendar), seen.since
    times = systemd.coming(calendar, 2, after) if after else []
    last, following = (systemd.moment((seen.timer or {}).get(name, "")) for name in ("LastTriggerUSec", "NextElapseUSecRealtime"))
    if times or last is None or last <= after:
        return times
    # A systemd older than 244 only has the timer's last start. For a fine calendar that may be one slot too late.
    step = following - last if following is not None and following > last else None
    missed = step is not None and seen.now <= last + _patience(step) and last - step > after
    due = last - t.cast(float, step) if missed else last
    return [due] if step is None else [due, due + step]


def _step(times: t.Sequence[float]) -> t.Optional[float]:
    return times[1] - times[0] if len(times) > 1 else None


def deadline(job: Job, now: float) -> t.Optional[float]:
    """When a schedule will be overdue without further runs; None if unknown.

    A timer whose service runs still shows the time of that start, so the calendar itself is asked.
    """
    if not job.enabled:
        return None
    coming = systemd.coming(str(job.on_calendar), 2) if job.slots is None else [job.slots.coming(now)]
    return coming[0] + _patience(_step(coming) if job.interval is None else job.interval) if coming else None


def _is_unended(note: Note) -> bool:
    return note.get("began") is not None and note.get("ended") is None


def _patience(interval: t.Optional[float]) -> float:
    """Seconds that a run may take before a backup is overdue: half the interval, but neither very few nor more than an hour."""
    least, most = _TOLERANCE
    return most if interval is None else min(max(interval / 2, least), most)


def _past(moment: t.Optional[float], now: float) -> float:
    """A recorded time; long ago if there is none, or a clock was wrong."""
    return moment if moment is not None and moment <= now + AHEAD else 0.0


def next_elapse(job: Job, timer: t.Optional[t.Dict[str, str]], note: Note, now: float) -> t.Optional[str]:
    """When the next backup is due: computed from slots; for a calendar's times systemd is asked."""
    if timer is not None and (timer.get("ActiveState") != "active" or timer.get("SubState") == "elapsed"):
        return None
    if job.slots is not None:
        return shown((job.slots.timer if is_due(note, job.slots, now) else job.slots).coming(now))
    return shown(systemd.moment((timer or {}).get("NextElapseUSecRealtime", "")))


def shown(moment: t.Optional[float]) -> t.Optional[str]:
    """A time in seconds since 1970 as it is shown."""
    return None if moment is None else show_time(datetime.datetime.fromtimestamp(moment, datetime.timezone.utc))
