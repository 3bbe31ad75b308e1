# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directories that stand for those of a host with schedules."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from ansible_collections.volt.backup.plugins.module_utils._schedule import job as jobs, survey
from ansible_collections.volt.backup.plugins.module_utils._schedule.declare import Declaration, HostPaths, HostWide
from ansible_collections.volt.backup.plugins.module_utils._schedule.held import take_stock
from ansible_collections.volt.backup.plugins.module_utils._schedule.job import Job
from ansible_collections.volt.backup.plugins.module_utils._schedule.record import RunRecord

from .. import kit

DEFAULTS: dict[str, Any] = {
    "interval": "6h", "on_calendar": None, "max_keep": 0, "keep": None, "randomized_delay": "5m", "jitter_seed": "host", "enabled": True,
    "exclude": [], "exclude_caches": False, "one_file_system": False, "unstable_ok": [], "fail_on_unstable": False, "max_shrink": 50, "max_churn": 5,
    "command": [], "command_file": None, "dumps": [], "snapshot": "none", "snapshot_size": None, "quiesce": "none",
    "tags": [], "remote": None, "push_to_cdn": False,
    "workload_mode": None, "compression": "auto", "pre_command": [], "post_command": [], "drill_command": [],
    "command_timeout": 600, "timeout": None, "stall": "15m",
    "nice": 10, "io_class": "idle", "first_run": "slot", "requires_mounts": True, "on_start_url": None, "on_success_url": None, "on_failure_url": None,
}  # fmt: skip


class Host:
    """Directories of a host, and what is declared for it."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.source = top / "srv"
        self.source.mkdir()
        self.places = HostPaths(*(str(top / name) for name in ("units", "jobs", "records", "stamps", "volt-backup", "notify.json", "run/status.json")))
        Path(self.places.command).write_bytes(kit.command())

    def job(self, workload: str = "app", **options: Any) -> Job:
        given = {**DEFAULTS, "workload": workload, "source": str(self.source), **options}
        return jobs.from_options(given, store=str(self.top / "cas"), backup_dir=str(self.top / "backups"), lock_timeout=300)

    def plan(self, *present: Job, absent: tuple[str, ...] = (), purge: bool = False, force: bool = False, wide: HostWide | None = None) -> Declaration:
        declaration = Declaration(present, absent, purge, sys.executable, False, force, self.places, wide)
        declaration.plan()
        return declaration

    def declare(self, *present: Job, **more: Any) -> Declaration:
        declaration = self.plan(*present, **more)
        declaration.apply()
        return declaration

    def files(self) -> list[str]:
        tops = [self.top / name for name in ("units", "jobs", "records", "stamps")]
        return sorted(str(path.relative_to(self.top)) for top in tops for path in top.rglob("*") if not path.is_dir())

    def left(self) -> list[str]:
        """The same, but for the history of runs, which outlives a schedule."""
        return [name for name in self.files() if not name.startswith("records/")]

    def unit(self, name: str) -> Path:
        return Path(self.places.units) / name

    def record(self, workload: str = "app") -> RunRecord:
        return RunRecord(workload, self.places.records)

    def rows(self) -> dict[str, dict[str, Any]]:
        """What `status` says, by workload."""
        return {row["workload"]: row for row in self.survey().schedules}

    def survey(self, believe: bool = True) -> survey.Survey:
        """All there is to say.

        :param believe: what runs noted, whether they made backups or not.
        """

        def blind(jobs: Any, _named: Any) -> Any:
            return take_stock(jobs)._replace(unknown=[job.workload for job in jobs])

        with contextlib.ExitStack() as stack:
            if believe:
                stack.enter_context(mock.patch.object(survey, "take_stock", blind))
            return survey.survey(self.places.jobs, self.places.records, self.places.units)
