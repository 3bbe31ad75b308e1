# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The store of a host's schedules: what a declaration creates there, and what it records of it.

The first declaration with an enabled schedule creates the store, and no later one does. Its id is then in the jobs and in the host file, so an
unmounted disk is not mistaken for a store that was never created. A new store gets its id when it is created, so a diff shows `(new)`.
"""

from __future__ import annotations

import os
import typing as t

from .._backup import host
from .._backup.directory import OtherStore
from .._base import UsageError, parse, show
from .job import Job
from .record import writing

NEW = "(new)"


class Destination:
    """Store and backup directories of the jobs that are to be there.

    :param present: these jobs. :param before: jobs that are there now, theirs among them. :param others: those that are not changed.
    :ivar jobs: the same jobs with the store's id. :ivar steps: what will be created, a line each. :ivar warnings: about stores that nothing needs yet.
    """

    def __init__(self, present: t.Sequence[Job], before: t.Sequence[Job] = (), others: t.Sequence[Job] = ()) -> None:
        self.steps: t.List[str] = []
        self.warnings: t.List[str] = []
        self.jobs: t.List[Job] = []
        self._active: t.Dict[str, Job] = {}  # by backup directory: one of the jobs that need it and the store
        self._idle: t.List[str] = []  # directories for those that are disabled
        self._id: t.Optional[str] = None
        self._present, self._others = present, others
        self._home = self._agree() if present else None
        known = next((old.store_id for old in before if present and old.store_id and host.is_same(old.store, present[0].store)), None)
        told = [job._replace(store_id=known) for job in present]
        for job in told:
            if job.enabled:
                self._active.setdefault(job.backup_dir, job)
        for job in self._active.values():
            begun = job.manager.begin(dry=True, name=False)
            self._id = begun.store_id or NEW
            self._add(begun.steps)
        if told and not self._active:
            self._look(told[0])
        self.jobs = [job._replace(store_id=self._id) for job in present]

    def _look(self, job: Job) -> None:
        """If all are disabled, no store is created, and a missing one is no failure. A unit that is started by hand finds its directories."""
        try:
            self._id = job.manager.check_store()
        except OtherStore as error:
            self._id = error.details["store_id"]
            self.warnings.append(error.message)
            return
        places = (os.fsdecode(parse(place)) for one in self._present for place in (one.store, one.backup_dir))
        self._idle = [place for place in places if not os.path.isdir(place)]
        self._add([f"make directory {show(place)}" for place in self._idle])

    def _add(self, steps: t.Sequence[str]) -> None:
        self.steps += [step for step in steps if step not in self.steps]

    def _agree(self) -> host.Home:
        """The places for the host file, without an id so far; UsageError for another store than that of other schedules."""
        first, found = self._present[0], host.read()
        for job in self._present:
            if not host.is_same(job.store, first.store):
                raise UsageError(f"Schedules are declared for two stores, {first.store} and {job.store}; use one store for all schedules of a host.")
        if found is not None and host.is_same(found.store, first.store):
            used = any(host.is_same(job.backup_dir, found.backup_dir) for job in (*self._present, *self._others))
            return host.Home(found.store, found.backup_dir if used else first.backup_dir)
        using = [job.workload for job in self._others if found is not None and host.is_same(job.store, found.store)]
        if found is not None and using:
            raise UsageError(
                f"The backups of this host are in the store {found.store} (schedules {', '.join(using)}), but {first.store} is a different one; use the first"
                " store, or remove these schedules, or declare all schedules in one task."
            )
        return host.Home(first.store, first.backup_dir)

    @property
    def host_file(self) -> t.Optional[str]:
        """The content of the host file, if there are jobs."""
        return None if self._home is None else self._home._replace(store_id=self._id).text()

    def make(self) -> None:
        """Create what was planned."""
        for job in self._active.values():
            self._id = job.manager.begin(name=False).store_id
        for place in self._idle:
            make_directory(place)

    def final(self, text: str) -> str:
        """The text of a file, with the id that the store has got."""
        return text.replace(f'"store_id": "{NEW}"', f'"store_id": "{self._id}"')


def make_directory(path: str) -> None:
    """Create a directory that only root can read, if there is none."""
    with writing(path):
        os.makedirs(path, mode=0o700, exist_ok=True)
