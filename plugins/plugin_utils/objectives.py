# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the inventory demands of each host's backups, and whether a schedule meets it."""

from __future__ import annotations

from typing import Any

from ansible_collections.volt.backup.plugins.module_utils._base import VoltError, now, parse_span
from ansible_collections.volt.backup.plugins.module_utils._runner.scheduled import age

from . import told

#: By objective, the state of a schedule that misses it. The worst first.
MISSED = {"rpo": "too old", "copy_within": "not copied", "drill_every": "not proved"}
_PUSH = "run volt-backup push --all --remote REMOTE, and declare a remote for the schedule if it has none"


class Objectives:
    """Of one host. :ivar limits: seconds by objective. :ivar faults: what is wrong with the values, as sentences."""

    def __init__(self, given: Any) -> None:
        self.limits: dict[str, int] = {}
        self.faults: list[str] = []
        if not isinstance(given, dict):
            self.faults.append("The objectives are not a dictionary; give rpo, drill_every and copy_within.")
            return
        self._texts = {name: str(given[name]).strip() for name in MISSED if given.get(name) not in (None, "")}
        self.faults += [f"Objective {name} is unknown; use {', '.join(MISSED)}." for name in map(told.text, map(str, given)) if name not in MISSED]
        for name, value in self._texts.items():
            try:
                self.limits[name] = int(parse_span(value).total_seconds())
                if not self.limits[name]:
                    del self.limits[name]
                    raise VoltError("Duration 0 is too short; use a longer one.")
            except VoltError as error:
                self.faults.append(f"volt_{name}: {error.message}")

    def judge(self, row: dict[str, Any], is_trouble: bool) -> dict[str, Any]:
        """A schedule's row, in trouble if it misses an objective. A disabled schedule has none.

        :param is_trouble: whether it is in trouble already; then why its backups are unknown is told, and they are not judged.
        """
        if not self.limits or row.get("enabled") is False or row.get("backup_count") is None and is_trouble:
            return row
        missed = [(name, reason) for name in MISSED if name in self.limits for reason in [getattr(self, f"_{name}")(row)] if reason]
        row = {**row, "objectives": self.limits, "missed": [name for name, _reason in missed]}
        if not missed:
            return row
        reasons = " ".join(reason for _name, reason in missed)
        known = row.get("reason")
        if is_trouble:
            return {**row, "reason": f"{known} {reasons}" if known else reasons}
        return {**row, "state": MISSED[missed[0][0]], "reason": f"{reasons} {known}" if known else reasons}

    def _rpo(self, row: dict[str, Any]) -> str | None:
        old = row.get("newest_age")
        waits = since(row.get("declared_at")) if old is None else None  # a new schedule has time to make its first backup
        if self._met("rpo", old if waits is None else waits):
            return None
        what = "There is no good backup" if old is None else f"The newest good backup is {age(old)} old"
        return f"{what}, and volt_rpo is {self._texts['rpo']}; run volt-backup run {row['workload']}."

    def _drill_every(self, row: dict[str, Any]) -> str | None:
        proved = since(row.get("last_proved"))
        if row.get("newest_age") is None and proved is None or self._met("drill_every", proved):  # there is nothing to prove yet
            return None
        what = "It was never proved that it can be restored" if proved is None else f"It was last proved {age(proved)} ago"
        return f"{what}, and volt_drill_every is {self._texts['drill_every']}; run the playbook volt.backup.verify."

    def _copy_within(self, row: dict[str, Any]) -> str | None:
        old = row.get("copied_age")
        if row.get("newest_age") is None and old is None or self._met("copy_within", old):
            return None
        what = "No backup has a copy elsewhere" if old is None else f"The newest backup that has a copy is {age(old)} old"
        return f"{what}, and volt_copy_within is {self._texts['copy_within']}; {_PUSH}."

    def _met(self, name: str, old: int | None) -> bool:
        return old is not None and old <= self.limits[name]


def since(moment: Any) -> int | None:
    """Seconds since a time that a host returned; None if it returned none, or one that has not come yet."""
    at = told.seconds(moment)
    passed = None if at is None else int(now().timestamp()) - at
    return passed if passed is None or passed >= 0 else 0 if passed >= -60 else None
