# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Which backups there are, by workload, however they were made: what `status` holds against what the notes of runs say."""

from __future__ import annotations

import time
import typing as t

from .._backup.catalog import parse_created
from .._backup.directory import OtherStore
from .._backup.manager import Manager, Query
from .._base import VoltError
from .job import Job

#: How many damaged backups a reason names.
_NAMED = 3


class Problem(t.NamedTuple):
    """Trouble of the host as a whole: `what` is a unit or a thing, `state` one of the states of schedules, `reason` a sentence."""

    what: str
    state: str
    reason: str


class Held(t.NamedTuple):
    """The backups of a workload.

    :ivar good: those to rely on: when each was made, in seconds since 1970. :ivar newest: the newest of them. :ivar damaged: ids of those that are.
    """

    good: t.Mapping[str, float] = {}
    newest: t.Optional[t.Mapping[str, t.Any]] = None
    damaged: t.Sequence[str] = ()
    damage: t.Optional[str] = None
    count: int = 0

    @property
    def newest_at(self) -> t.Optional[float]:
        return None if self.newest is None else self.good[self.newest["id"]]

    @property
    def harm(self) -> t.Optional[str]:
        """What to say of those that are damaged."""
        if not self.damaged:
            return None
        more = len(self.damaged) - _NAMED
        names = ", ".join(self.damaged[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        return (
            f"{len(self.damaged)} of {self.count} backup(s) are damaged: {names} ({(self.damage or '').rstrip('.')}); run volt_cas_verify with repair: true, or"
            " delete them."
        )


class Stock(t.NamedTuple):
    """What was found in the stores of some jobs.

    :ivar workloads: by name; a workload that is not there has no backups. :ivar unknown: workloads whose store or records cannot be read.
    :ivar at: when that was, in seconds since 1970.
    """

    workloads: t.Mapping[str, Held]
    unknown: t.Container[str]
    problems: t.Sequence[Problem]
    at: float

    def of(self, workload: str) -> t.Optional[Held]:
        """The backups of a workload; None where that cannot be known."""
        return None if workload in self.unknown else self.workloads.get(workload, Held())


def take_stock(jobs: t.Sequence[Job]) -> Stock:
    """All backups where jobs back up to, or where those of the host are if it has no jobs."""
    now = time.time()
    listed: t.Dict[str, t.List[t.Mapping[str, t.Any]]] = {}
    unknown: t.Set[str] = set()
    problems: t.List[Problem] = []
    places: t.Dict[t.Tuple[str, str], t.List[Job]] = {}
    for job in jobs:
        places.setdefault((job.store, job.backup_dir), []).append(job)
    managers = [(users[0].manager, [job.workload for job in users]) for users in places.values()]
    for manager, workloads in managers or [(Manager(None, None), [])]:
        try:
            for backup in manager.find(Query()):
                if not backup["foreign"]:
                    listed.setdefault(backup["workload_name"] or "", []).append(backup)
            lost = manager.unlisted()
        except VoltError as error:
            unknown.update(workloads)
            problems.append(Problem("store", "store missing" if isinstance(error, OtherStore) else "unreadable", error.message))
            continue
        if lost:
            reason = f"{len(lost)} backup(s) of the store have no record in {manager.backup_dir}, first {lost[0]}; run volt_cas_verify with repair: true."
            problems.append(Problem("records", "records missing", reason))
    found = {workload: _held(backups) for workload, backups in listed.items()}
    nameless = found.pop("", None)
    if nameless is not None and nameless.harm:
        problems.append(Problem("records", "damaged", nameless.harm))
    return Stock(found, unknown, problems, now)


def _held(backups: t.Sequence[t.Mapping[str, t.Any]]) -> Held:
    """:param backups: newest first."""
    good = {}
    newest = None
    for backup in backups:
        if backup["complete"] and not any(backup[word] for word in ("damaged", "suspect", "unsupported", "future")):
            good[backup["id"]] = parse_created(t.cast(t.Any, backup)).timestamp()
            newest = newest or backup
    damaged = [backup for backup in backups if backup["damaged"]]
    return Held(good, newest, [backup["id"] for backup in damaged], damaged[0]["damage"] if damaged else None, len(backups))
