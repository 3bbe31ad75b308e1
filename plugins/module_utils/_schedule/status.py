# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""How a host's schedules are doing: for people, for monitoring, for Prometheus.

A schedule is *overdue* when a slot has begun, time enough has passed, and no run has succeeded since. Where only systemd knows the
times, its last start of the timer stands for the slot. What is switched off by the declaration is no trouble; what was stopped by
hand is. A run has failed where its note says so, and where systemd says so of the service: a run may be ended, or not even start,
without a note. Times of the future are those of a clock that was wrong, and say nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import time
import typing as t

from .._base import StoreError, Unsupported, VoltError, files, parse, show_time
from . import command as commands, job as jobs, systemd, units as units_
from .job import Job
from .record import AHEAD, DIRECTORY as RECORDS, STOPPED, Note, RunRecord, is_due, noting, unwritten

#: Worst first, in which order they are listed. The first seven are trouble.
STATES = ("failed", "overdue", "stopped", "unreadable", "unsupported", "store missing", "source missing", "running", "ok", "waiting", "disabled")
TROUBLE = frozenset(STATES[:7])

_TOLERANCE = (300, 3600)


def _seconds(note: Note) -> t.Optional[float]:
    duration = note.get("success", {}).get("duration")
    return None if duration is None else duration / 1e9


_METRICS = (
    ("last_success_timestamp_seconds", "When the last successful run ended.", lambda note: note.get("success", {}).get("at")),
    ("last_failure_timestamp_seconds", "When the last failed run ended.", lambda note: note.get("failure", {}).get("at")),
    ("last_duration_seconds", "How long the last successful backup took.", _seconds),
    ("last_size_bytes", "Size of the content of the last successful backup.", lambda note: note.get("success", {}).get("total_size")),
    ("last_new_bytes", "Content that was new in the last successful backup.", lambda note: note.get("success", {}).get("new_bytes")),
    ("last_unstable_files", "Files of the last successful backup that may be torn.", lambda note: note.get("success", {}).get("unstable_count")),
    ("last_proved_timestamp_seconds", "When a backup was last restored in a drill, and was as it should be.", lambda note: note.get("proved", {}).get("at")),
    ("failures", "Runs that have failed since the last success.", lambda note: note.get("failures", 0)),
    ("declared_timestamp_seconds", "Since when it has the times that it has.", lambda note: note.get("since")),
)
_TIMER = ("ActiveState", "SubState", "LastTriggerUSec", "NextElapseUSecRealtime")
_SERVICE = ("ActiveState", "Result", "InvocationID")


def status(
    directory: str = jobs.DIRECTORY, records: str = RECORDS, units_at: str = systemd.UNITS, command: str = commands.PATH
) -> t.List[t.Dict[str, t.Any]]:
    """All schedules of the host, those in trouble first.

    :returns: for each `workload`, `state`, `overdue`, `reason`, `last_success`, `last_failure`, `next_elapse` (times in UTC, or None), and so on.
    """
    found: t.List[t.Dict[str, t.Any]] = []
    known: t.List[Job] = []
    for name in jobs.declared(directory):
        try:
            known.append(jobs.load(name, directory))
        except VoltError as error:
            state = "unsupported" if isinstance(error, Unsupported) else "unreadable"
            found.append({**_empty(name), "state": state, "reason": error.message})
    notes = {job.workload: RunRecord(job.workload, records).read() for job in known}  # before systemd is asked: a run that begins meanwhile is none yet
    units = [f"{job.unit}.{kind}" for job in known for kind in ("timer", "service")]
    shown = systemd.show(units, *dict.fromkeys(_TIMER + _SERVICE)) if known and systemd.running() else None
    now = time.time()
    outdated = {store: _outdated(store, command) for store in {job.store for job in known}}
    for job in known:
        record = RunRecord(job.workload, records)
        timer, service = ({} if shown is None else shown.get(f"{job.unit}.{kind}", {}) for kind in ("timer", "service"))
        note, busy = notes[job.workload], record.busy()
        if _is_unended(note) and not busy:
            note = record.read()  # it has ended meanwhile
        row = _judge(job, note, busy, None if shown is None else timer, service, now)
        why = outdated[job.store] if job.enabled and row["state"] not in ("failed", "running") else None
        found.append(row if why is None else {**row, "state": "unsupported", "reason": why})
    for name in units_.installed(units_at):
        if name not in {row["workload"] for row in found}:
            found.append({**_empty(name), "state": "unreadable", "reason": f"Its job file {jobs.path(name, directory)} is gone; declare the schedule again."})
    return sorted(found, key=lambda row: (STATES.index(row["state"]), row["workload"]))


def warnings(rows: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[str]:
    """What is to be said of the schedules of a host as a whole."""
    if systemd.running() or not any(row["enabled"] for row in rows):
        return []
    return ["systemd does not run this host, so it starts none of its schedules; let another program call volt-backup run for each of them."]


def _outdated(store: str, command: str) -> t.Optional[str]:
    """Why the command on this host cannot use a store, if it cannot: a newer version has been at work there."""
    try:
        found = commands.read(command)
        lacking = commands.lacks(found, store) if found is not None else []
        return f"{commands.outdated(command, t.cast(commands.CommandStamp, found), store, lacking)}." if lacking else None
    except Unsupported as error:
        return error.message
    except VoltError:
        return None  # a store or command that cannot be read fails the run, which tells why


def _empty(workload: str) -> t.Dict[str, t.Any]:
    keys = ("source", "interval", "on_calendar", "reason", "last_success", "last_failure", "last_proved", "proved_id", "next_elapse")
    keys += ("backup_id", "duration", "new_bytes", "total_size", "unstable_count")
    return {"workload": workload, "state": "", "overdue": False, "enabled": True, "failures": 0, **dict.fromkeys(keys)}


def _judge(
    job: Job, note: Note, busy: bool, timer: t.Optional[t.Dict[str, str]], service: t.Mapping[str, str], now: float
) -> t.Dict[str, t.Any]:
    """:param timer: what systemd says of it; None where it does not run. :param service: the same; empty where it does not run."""
    success, failure, proved = (note.get(key, {}) for key in ("success", "failure", "proved"))
    good, bad = success.get("at"), failure.get("at")
    # the last slot for which it is time: to look at one that has only just begun would forget those that were missed before
    due = job.slots.begun(now - _patience(job)) if job.slots is not None else _moment((timer or {}).get("LastTriggerUSec", ""))
    late = due is not None and due > _past(note.get("since"), now) and _past(good, now) < due and now > due + _patience(job)
    unended = _is_unended(note)
    running = service.get("ActiveState") in ("activating", "deactivating") or unended and busy
    following = next_elapse(job, timer, note, now)
    why = None
    if not job.enabled:
        state, late = "disabled", False
    elif running:
        state = "overdue" if late and _past(note.get("began"), now) < t.cast(float, due) else "running"  # one that hangs is no comfort
    elif service.get("ActiveState") == "failed":
        known = failure.get("invocation") == service.get("InvocationID") and failure.get("reason")
        state, why = "failed", known or f"{job.unit}.service failed ({service.get('Result')}); see journalctl -u {job.unit}."
    elif unended:
        state, why = "failed", STOPPED
    elif note.get("failures"):
        state, why = "failed", failure.get("reason")
    elif late:
        state = "overdue"
    elif timer is not None and timer.get("ActiveState") != "active":
        state, why = "stopped", f"{job.unit}.timer is not active; start it, or declare the schedule again."
    elif timer is not None and timer.get("SubState") == "elapsed":
        state, why = "stopped", f"{job.unit}.timer has no time to come; declare the schedule with times that come again."
    else:
        state, why = _missing(job) or ("ok" if good else "waiting", None)
    if state == "ok" and success.get("unstable_count"):
        why = f"The last backup is unstable: {success['unstable_count']} file(s) were written while it was made."
    if state == "overdue":
        why = f"No run has succeeded since it was due at {_shown(due)}."
    return {
        **_empty(job.workload),
        "state": state,
        "overdue": late,
        "enabled": job.enabled,
        "reason": why,
        "source": job.source,
        "interval": job.interval,
        "on_calendar": job.on_calendar,
        "last_success": _shown(good),
        "last_failure": _shown(bad),
        "last_proved": _shown(proved.get("at")),
        "proved_id": proved.get("backup_id"),
        "next_elapse": following if job.enabled else None,
        "failures": note.get("failures", 0),
        **{key: success.get(key) for key in ("backup_id", "duration", "new_bytes", "total_size", "unstable_count")},
    }


def _missing(job: Job) -> t.Optional[t.Tuple[str, str]]:
    """State and reason, where the next run will lack something."""
    try:
        job.manager.check_store()
    except StoreError as error:
        return "store missing", error.message
    except VoltError:
        pass  # the run tells it
    if not os.path.isdir(parse(job.source)):
        return "source missing", f"{job.source} is no directory any more."
    return None


def _is_unended(note: Note) -> bool:
    return note.get("began") is not None and note.get("ended") is None


def _patience(job: Job) -> float:
    """Seconds that a run may take before a backup is overdue: half the interval, but neither very few nor more than an hour."""
    least, most = _TOLERANCE
    return most if job.interval is None else min(max(job.interval / 2, least), most)


def _past(moment: t.Optional[float], now: float) -> float:
    """A time that was noted; long ago where none was, or a clock was wrong."""
    return moment if moment is not None and moment <= now + AHEAD else 0.0


def next_elapse(job: Job, timer: t.Optional[t.Dict[str, str]], note: Note, now: float) -> t.Optional[str]:
    """When the next backup is due: computed from slots; for a calendar's times systemd is asked."""
    if timer is not None and (timer.get("ActiveState") != "active" or timer.get("SubState") == "elapsed"):
        return None
    if job.slots is not None:
        return _shown((job.slots.timer if is_due(note, job.slots, now) else job.slots).coming(now))
    return _shown(_moment((timer or {}).get("NextElapseUSecRealtime", "")))


def _moment(text: str) -> t.Optional[float]:
    """A time as systemctl shows it when it is told to speak of UTC, in seconds since 1970."""
    match = re.match(r"[A-Z][a-z]{2} (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC\Z", text)
    if not match:
        return None
    return datetime.datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=datetime.timezone.utc).timestamp()


def _shown(moment: t.Optional[float]) -> t.Optional[str]:
    return None if moment is None else show_time(datetime.datetime.fromtimestamp(moment, datetime.timezone.utc))


def write_metrics(path: str, directory: str = jobs.DIRECTORY, records: str = RECORDS, without: t.Container[str] = ()) -> None:
    """A file for Prometheus' node exporter, of all schedules; written whole or not at all.

    What is overdue is for the one who reads it to say, for the file stays as it is when no run comes: hence the interval.

    :param without: workloads whose schedule is about to go.
    """
    names = [name for name in jobs.declared(directory) if name not in without]
    known: t.Dict[str, Job] = {}
    for name in names:
        with contextlib.suppress(VoltError):
            known[name] = jobs.load(name, directory)
    try:
        with noting(records):  # else of two runs that end together the one that looked first may write last
            notes = {name: RunRecord(name, records).read() for name in names}
            lines = _gauge("interval_seconds", "Time from one slot to the next.", {name: job.interval for name, job in known.items()})
            lines += _gauge("enabled", "Whether it backs up by itself.", {name: int(job.enabled) for name, job in known.items()})
            for metric, about, value in _METRICS:
                lines += _gauge(metric, about, {name: value(note) for name, note in notes.items()})
            files.write_file(path, ("\n".join(lines) + "\n").encode(), mode=0o644)
    except OSError as error:
        raise unwritten(path, error) from None


def _gauge(metric: str, about: str, values: t.Mapping[str, t.Any]) -> t.List[str]:
    name = f"volt_backup_{metric}"
    head = [f"# HELP {name} {about}", f"# TYPE {name} gauge"]
    return head + [f'{name}{{workload="{workload}"}} {value}' for workload, value in values.items() if value is not None]
