# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The first backup of a workload that does not wait for its first slot: at once, or at its own time within the interval.

Its own time is a transient timer of systemd, which disappears when it has elapsed and at a reboot. After a reboot the slots remain.
"""

from __future__ import annotations

import typing as t

from . import systemd
from .held import take_stock
from .job import Job
from .record import RunRecord


def _unit(workload: str) -> str:
    return f"volt-first-{workload}"


class First(t.NamedTuple):
    """The first backup of a job, so many seconds after its declaration."""

    job: Job
    after: int

    @property
    def step(self) -> str:
        """Its line in a diff."""
        return f"start {self.job.unit}.service" + (f" in {self.after} s" if self.after else "")

    def begin(self, record: RunRecord, words: t.Sequence[str]) -> None:
        """:param words: call the command."""
        if not self.after:
            record.ask()
            systemd.call("systemctl", "start", "--no-block", "--", f"{self.job.unit}.service")
            return
        forget([self.job.workload])
        when = (f"--on-active={self.after}s", "--timer-property=AccuracySec=1s")
        systemd.call("systemd-run", "--quiet", f"--unit={_unit(self.job.workload)}", *when, "--", *words, "run", "--quiet", self.job.workload)


def firsts(jobs: t.Iterable[Job]) -> t.List[First]:
    """Of jobs that have begun to be there: the first backups of those that have none yet and are not to wait for a slot."""
    wanted = [(job, job.first_after) for job in jobs if job.enabled and job.first_after is not None]
    found = []
    for job, after in wanted:
        held = take_stock([job]).of(job)
        if held is None or not held.good:
            found.append(First(job, t.cast(int, after)))
    return found


def forget(workloads: t.Sequence[str]) -> None:
    """Cancel first backups that have not started."""
    if workloads:
        systemd.attempt("systemctl", "stop", "--", *(f"{_unit(name)}.{kind}" for name in workloads for kind in ("timer", "service")))
