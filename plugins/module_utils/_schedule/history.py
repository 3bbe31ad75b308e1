# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What each workload's last 90 days were like, in a form of a few hundred bytes: for a page that shows a whole fleet."""

from __future__ import annotations

import contextlib
import typing as t

from .._backup.catalog import parse_created
from .._base import VoltError
from . import days
from .held import Backup, Stock
from .job import Job
from .record import DIRECTORY as RECORDS, RunRecord

#: How many backups are listed one by one: what a small chart can show.
MOST = 30

Row = t.Dict[str, t.Any]


def history(known: t.Sequence[Job], stock: Stock, records: str = RECORDS) -> t.List[Row]:
    """A row for each workload that has a schedule or backups.

    :param known: the schedules. :param stock: the existing backups. :returns: `workload`, `day`, `days`, `kept` and `recent`.
    """
    by_name = {job.workload: job for job in known}
    return [_of(name, stock.backups(name, by_name.get(name)), stock.at, records) for name in sorted({*by_name, *stock.listed})]


def _of(workload: str, backups: t.Sequence[Backup], now: float, records: str) -> Row:
    last = days.day(now)
    log: days.Log = {}
    with contextlib.suppress(VoltError):  # a workload of that name never had a schedule, or its record cannot be read, which the status tells
        log = days.sound(RunRecord(workload, records).read().get("days"))
    there: days.Log = {}
    recent: t.List[Row] = []
    for backup in backups:
        state = _state(backup)
        if state == "future" or backup["created_at"] is None:
            continue
        at = days.day(parse_created(t.cast(t.Any, backup)).timestamp())
        if (last - at).days >= days.DAYS and len(recent) >= MOST:
            break
        there[at.isoformat()] = days.better(_LETTERS[state], there.get(at.isoformat(), days.NOTHING))
        if len(recent) < MOST:
            recent.append({"created_at": backup["created_at"], "state": state, "total_size": backup["total_size"], "new_bytes": backup["new_bytes"]})
    made = {at: days.better(log.get(at, days.NOTHING), there.get(at, days.NOTHING)) for at in {*log, *there}}
    return {"workload": workload, "day": last.isoformat(), "days": days.row(made, last), "kept": days.row(there, last), "recent": recent[::-1]}


#: By state, the letter of a day that had nothing better.
_LETTERS = {"good": "g", "unstable": "u", "suspect": "s", "incomplete": "s", "damaged": "s", "unsupported": "s"}


def _state(backup: Backup) -> str:
    """The state of a backup in a word, the worst first."""
    for word in ("unsupported", "damaged", "future", "suspect"):
        if backup[word]:
            return word
    if not backup["complete"]:
        return "incomplete"
    return "unstable" if backup["unstable"] else "good"
