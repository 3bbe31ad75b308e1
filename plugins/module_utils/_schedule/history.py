# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What each workload's last 90 days were like, in a form of a few hundred bytes: for a page that shows a whole fleet. And its drills, for a report."""

from __future__ import annotations

import typing as t

from .._backup.catalog import parse_created
from .._base import VoltError, show_time, tolerated
from . import days
from .held import Backup, Stock
from .job import Job
from .record import DIRECTORY as RECORDS, RunRecord
from .status import shown, unproved

#: How many backups are listed one by one: what a small chart can show.
MOST = 30
_DRILL = ("backup_id", "reason", "command", "loaded", "not_loaded", "remote", "total_size", "duration", "unstable_count")

Row = t.Dict[str, t.Any]


def history(known: t.Sequence[Job], stock: Stock, records: str = RECORDS) -> t.List[Row]:
    """A row for each workload that has a schedule or backups.

    :param known: the schedules. :param stock: the existing backups. :returns: `workload`, `day`, `days`, `kept` and `recent`.
    """
    by_name = {job.workload: job for job in known}
    return [_of(name, stock.backups(name, by_name.get(name)), stock.at, records) for name in sorted({*by_name, *stock.listed})]


def drills(known: t.Sequence[Job], records: str = RECORDS) -> t.List[Row]:
    """The recorded drills of each schedule, oldest first.

    :returns: `workload`, `drills` and `failure`, which failures stand, or None. Each drill has `at` in UTC and what `RunRecord.drilled` was given.
    """
    rows = []
    for job in known:
        with tolerated(VoltError):  # a record that cannot be read is told by the status
            note = RunRecord(job.workload, records).read()
            noted = note.get("drills", [])
            found = [{**{key: drill.get(key) for key in _DRILL}, "at": shown(drill["at"])} for drill in noted if drill.get("at") is not None]
            failures = " ".join(trouble.reason for trouble in unproved(note, job.remote))
            rows.append({"workload": job.workload, "drills": found, "failure": failures or None})
    return rows


def _of(workload: str, backups: t.Sequence[Backup], now: float, records: str) -> Row:
    last = days.day(now)
    log: days.Log = {}
    with tolerated(VoltError):  # a workload of that name never had a schedule, or its record cannot be read, which the status tells
        log = days.sound(RunRecord(workload, records).read().get("days"))
    there: days.Log = {}
    recent: t.List[t.Tuple[str, str, t.Any, t.Any]] = []
    for backup in backups:
        letter = _letter(backup)
        if letter is None or backup["created_at"] is None:
            continue
        moment = parse_created(t.cast(t.Any, backup))
        at = days.day(moment.timestamp())
        if (last - at).days >= days.DAYS and len(recent) >= MOST:
            break
        there[at.isoformat()] = days.better(letter, there.get(at.isoformat(), days.NOTHING))
        if len(recent) < MOST:
            recent.append((f"{show_time(moment)[:19]}Z", letter, backup["total_size"], backup["new_bytes"]))
    made = {at: days.better(log.get(at, days.NOTHING), there.get(at, days.NOTHING)) for at in {*log, *there}}
    times, letters, sizes, news = (list(column) for column in zip(*recent[::-1])) if recent else ([], [], [], [])
    value = {"created_at": times, "states": "".join(letters), "total_size": sizes, "new_bytes": news}
    return {"workload": workload, "day": last.isoformat(), "days": days.row(made, last), "kept": days.row(there, last), "recent": value}


def _letter(backup: Backup) -> t.Optional[str]:
    """The letter of a day that had nothing better; None for a backup of the future, which is of no day."""
    if backup["future"]:
        return None
    if not backup["complete"] or any(backup[word] for word in ("unsupported", "damaged", "suspect")):
        return "s"
    return "u" if backup["unstable"] else "g"
