# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The existing backups by workload, scheduled or not. `status` compares them with the records of runs.

A backup belongs to a schedule if this host made it from the schedule's source, or from none, if that has none: a store may have backups of that name from
other hosts and sources.
"""

from __future__ import annotations

import itertools
import os
import time
import typing as t

from .._backup.catalog import parse_created
from .._backup.directory import OtherStore
from .._backup.guards import NO_SOURCE
from .._backup.host import made_here
from .._backup.manager import Manager
from .._backup.query import Query
from .._base import VoltError, parse, show
from .job import Job

#: How many damaged backups a reason names.
_NAMED = 3

Backup = t.Mapping[str, t.Any]


class Trouble(t.NamedTuple):
    """Something that is wrong with a workload: a state of schedules, and a sentence. What has more `parts` than before is news."""

    state: str
    reason: str
    parts: t.Sequence[str] = ()


class Problem(t.NamedTuple):
    """Trouble of the host itself: `what` is a unit or a thing."""

    what: str
    state: str
    reason: str
    parts: t.Sequence[str] = ()


class Held(t.NamedTuple):
    """The backups of a workload.

    :ivar good: those to rely on: when each was made, in seconds since 1970. :ivar newest: the newest of them. :ivar copied: the newest of them
        that has a copy on a remote. :ivar damaged: ids of those that are.
    :ivar others: how many of the same name a schedule cannot rely on, since they are of another host or source.
    :ivar suspect: how many suspect ones are newer than the newest good one.
    """

    good: t.Mapping[str, float] = {}
    newest: t.Optional[Backup] = None
    damaged: t.Sequence[str] = ()
    damage: t.Optional[str] = None
    count: int = 0
    others: int = 0
    copied: t.Optional[Backup] = None
    suspect: int = 0

    @property
    def newest_at(self) -> t.Optional[float]:
        return None if self.newest is None else self.good[self.newest["id"]]

    @property
    def copied_at(self) -> t.Optional[float]:
        return None if self.copied is None else self.good[self.copied["id"]]

    @property
    def harm(self) -> t.Optional[str]:
        """The message about the damaged ones."""
        if not self.damaged:
            return None
        more = len(self.damaged) - _NAMED
        names = ", ".join(self.damaged[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        return (
            f"{len(self.damaged)} of {self.count} backup(s) are damaged: {names} ({(self.damage or '').rstrip('.')}); run volt_cas_verify with repair: true, or"
            " delete them."
        )


Place = t.Tuple[str, str]


class Stock(t.NamedTuple):
    """What was found in the stores of some jobs.

    :ivar listed: backups by workload, each with its place, newest first. :ivar unknown: workloads whose store or records cannot be read.
    :ivar at: when that was, in seconds since 1970.
    """

    listed: t.Mapping[str, t.Sequence[t.Tuple[Place, Backup]]]
    unknown: t.Container[str]
    problems: t.Sequence[Problem]
    at: float

    def of(self, job: Job) -> t.Optional[Held]:
        """The backups of a schedule; None if unknown."""
        if job.workload in self.unknown:
            return None
        place, wanted = job.manager.places, of_job(job)
        return _held(self.listed.get(job.workload, ()), lambda there, backup: there == place and wanted(backup))

    def backups(self, workload: str, job: t.Optional[Job] = None) -> t.List[Backup]:
        """All of a workload, newest first, whatever their state; with its schedule, those that are the schedule's."""
        found = self.listed.get(workload, ())
        if job is None:
            return [backup for _place, backup in found]
        place, wanted = job.manager.places, of_job(job)
        return [backup for there, backup in found if there == place and (backup["manifest_sha256"] is None or wanted(backup))]

    def workloads(self, known: t.Sequence[Job]) -> t.Dict[str, Held]:
        """By name: the backups of a schedule, else all that bear a name."""
        scheduled = {job.workload: self.of(job) for job in known}
        return {name: scheduled.get(name) or _held(found) for name, found in sorted(self.listed.items())}


def take_stock(jobs: t.Sequence[Job], named: t.Optional[Manager] = None) -> Stock:
    """All backups in the places of the jobs, or in those of the host if it has no jobs.

    :param named: the manager of a store that the user named; it is always included.
    """
    now = time.time()
    listed: t.Dict[str, t.List[t.Tuple[Place, Backup]]] = {}
    unknown: t.Set[str] = set()
    problems: t.List[Problem] = []
    places: t.Dict[Place, t.Tuple[Manager, t.List[str]]] = {}
    for job in jobs:
        places.setdefault(job.manager.places, (job.manager, []))[1].append(job.workload)
    if named is not None and named.is_named:
        places.setdefault(named.places, (named, []))
    for place, (manager, workloads) in places.items() or [(("", ""), (Manager(None, None), []))]:
        try:
            found = [(place, t.cast(Backup, backup)) for backup in manager.find(Query()) if not backup["foreign"]]
            lost = manager.unlisted()
        except VoltError as error:
            unknown.update(workloads)
            problems.append(Problem("store", "store missing" if isinstance(error, OtherStore) else "unreadable", error.message))
            continue
        if lost:
            reason = f"{len(lost)} backup(s) in the store have no record in {manager.backup_dir}, first {lost[0]}; run volt_cas_verify with repair: true."
            problems.append(Problem("records", "records missing", reason, lost))
        for one in found:
            listed.setdefault(one[1]["workload_name"] or "", []).append(one)
        nameless = _held(listed.pop("", []))
        if nameless.harm:
            problems.append(Problem("records", "damaged", nameless.harm, sorted(nameless.damaged)))
    for backups in listed.values():
        backups.sort(key=lambda one: one[1]["created_at"] or "", reverse=True)
    return Stock(listed, unknown, problems, now)


def of_job(job: Job) -> t.Callable[[Backup], bool]:
    """Tells whether a backup of the workload's name is of the schedule's source, and of this host."""
    own = made_here()
    if job.source is None:
        return lambda backup: own(backup) and backup["source_path"] == NO_SOURCE
    path = os.path.abspath(parse(job.source))
    asked, real = show(path), show(os.path.realpath(path))

    def wanted(backup: Backup) -> bool:
        return own(backup) and (backup.get("source_asked") == asked or backup["source_path"] in (asked, real))

    return wanted


def _held(found: t.Sequence[t.Tuple[Place, Backup]], wanted: t.Callable[[Place, Backup], bool] = lambda _place, _backup: True) -> Held:
    """:param found: newest first. :param wanted: the good ones; damaged ones count in any case."""
    sound = [one for one in found if one[1]["complete"] and not any(one[1][word] for word in ("damaged", "suspect", "unsupported", "future"))]
    own = [backup for place, backup in sound if wanted(place, backup)]
    good = {backup["id"]: parse_created(t.cast(t.Any, backup)).timestamp() for backup in own}
    damaged = [backup for _place, backup in found if backup["damaged"]]
    why = damaged[0]["damage"] if damaged else None
    copied = next((backup for backup in own if backup["copies"]), None)
    newest = own[0] if own else None
    newer = itertools.takewhile(lambda one: one[1] is not newest, found)
    suspect = sum(bool(backup["suspect"]) and wanted(place, backup) for place, backup in newer)
    return Held(good, newest, [backup["id"] for backup in damaged], why, len(found), len(sound) - len(own), copied, suspect)
