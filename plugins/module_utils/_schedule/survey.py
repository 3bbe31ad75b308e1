# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The whole state of a host: its schedules, the existing backups, and the problems of the host itself. Never ok if there is a problem."""

from __future__ import annotations

import os
import time
import typing as t

from .._backup.manager import Manager
from .._base import parse
from . import command as commands, job as jobs, status, systemd, upkeep
from .held import Held, Problem, Stock, Trouble, take_stock
from .ledger import Ledger
from .record import DIRECTORY as RECORDS
from .status import Row

#: Seconds for which a look at a host holds: where a unit looks every hour, and where nobody knows when the next one looks.
_WATCHED, _ALONE = 2 * 3600, 25 * 3600


class Survey(t.NamedTuple):
    """What was found.

    :ivar schedules: a row each, those in trouble first. :ivar workloads: a row for each workload that has backups.
    :ivar problems: of the host itself. :ivar metrics: files that its jobs name. :ivar at: when that was.
    :ivar deadline: until when it is valid without further runs. :ivar places: the stores of the schedules, as `Manager.places`.
    :ivar known: the schedules that can be read. :ivar stock: the existing backups.
    """

    schedules: t.List[Row]
    workloads: t.List[Row]
    problems: t.List[Problem]
    metrics: t.List[str]
    at: float
    deadline: float
    places: t.List[t.Tuple[str, str]]
    known: t.List[jobs.Job]
    stock: Stock

    @property
    def unscheduled(self) -> t.List[Row]:
        """Rows of workloads that have backups and no schedule."""
        return [row for row in self.workloads if not row["scheduled"]]

    @property
    def warnings(self) -> t.List[str]:
        """The problems of the schedules together."""
        return status.warnings(self.schedules)

    @property
    def trouble(self) -> t.List[str]:
        """What is in trouble, by its name."""
        rows = [row["workload"] for row in (*self.schedules, *self.unscheduled) if row["state"] in status.TROUBLE]
        return [*rows, *dict.fromkeys(problem.what for problem in self.problems)]

    def value(self) -> t.Dict[str, t.Any]:
        """The same for programs."""
        schedules, workloads = ([{key: item for key, item in row.items() if key != "troubles"} for row in rows] for rows in (self.schedules, self.workloads))
        return {
            "schedules": schedules,
            "count": len(schedules),
            "workloads": workloads,
            "problems": [{"what": problem.what, "state": problem.state, "reason": problem.reason} for problem in self.problems],
            "trouble": self.trouble,
        }


def survey(
    directory: str = jobs.DIRECTORY,
    records: str = RECORDS,
    units_at: str = systemd.UNITS,
    command: str = commands.PATH,
    ended: t.Container[str] = (),
    without: t.Container[str] = (),
    named: t.Optional[Manager] = None,
) -> Survey:
    """Look at everything.

    :param ended: see `status.status`. :param without: workloads whose schedule is about to go.
    :param named: the manager of a requested place, which is checked in addition to those of the schedules.
    """
    known, rows = status.load(directory, units_at)
    known = [job for job in known if job.workload not in without]
    rows = [row for row in rows if row["workload"] not in without]
    stock = take_stock(known, named)
    now = time.time()
    rows += status.status(known, stock, records, command, ended)
    by_name = {row["workload"]: row for row in rows}
    until = [moment for moment in (status.deadline(job, now) for job in known) if moment is not None]
    until += [now + _WATCHED] if upkeep.is_watched(units_at) else []
    told = {trouble.reason for row in rows for trouble in row["troubles"]}  # a schedule's own problems are not reported twice
    files = list(dict.fromkeys(job.metrics for job in known if job.metrics))
    notes = Ledger(records).read()
    unwritten = filter(None, (_of_metrics(path, notes.metrics.get(path)) for path in files))
    found = [*stock.problems, *upkeep.problems(notes, units_at), *unwritten]
    return Survey(
        sorted(rows, key=status.rank),
        _workloads(stock.workloads(known), by_name, now),
        [problem for problem in found if problem.reason not in told],
        files,
        now,
        min(until, default=now + _ALONE),
        [job.manager.places for job in known],
        known,
        stock,
    )


def _workloads(there: t.Mapping[str, Held], scheduled: t.Container[str], now: float) -> t.List[Row]:
    rows = []
    for name, held in sorted(there.items()):
        troubles = [Trouble("damaged", held.harm, sorted(held.damaged))] if held.harm else []
        more = {"state": "damaged" if held.harm else "no schedule", "reason": held.harm, "troubles": troubles, "scheduled": name in scheduled}
        times = {"newest_timestamp": held.newest_at, "copied_timestamp": held.copied_at}
        rows.append({"workload": name, **more, **status.of_held(held, now), **times, "suspect_count": held.suspect})
    return sorted(rows, key=status.rank)


def _of_metrics(path: str, failed: t.Optional[str]) -> t.Optional[Problem]:
    """What kept the file from being written last, or will next time. Who looks may have other rights than who writes, so no right is tried here.

    :param failed: the error of the last write, if it failed.
    """
    place = os.fsdecode(parse(path))
    directory = os.path.dirname(place)
    if not os.path.isdir(directory):
        why = f"{directory} is not a directory"
    elif os.path.isdir(place):
        why = "it is a directory"
    elif failed is not None:
        return Problem("metrics", "failed", failed, [failed])
    else:
        return None
    return Problem("metrics", "failed", f"The metrics file {path} cannot be written: {why}; fix that, or declare another path.")
