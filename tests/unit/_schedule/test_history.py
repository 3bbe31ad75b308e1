# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each day was like: also of days whose backups are gone, and whatever a record holds."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base import VoltError
from ansible_collections.volt.backup.plugins.module_utils._schedule import days
from ansible_collections.volt.backup.plugins.module_utils._schedule.held import Stock
from ansible_collections.volt.backup.plugins.module_utils._schedule.history import MOST, history
from ansible_collections.volt.backup.plugins.module_utils._schedule.record import RunRecord

#: Noon of a day.
NOW = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.timezone.utc).timestamp()
DAY = 86400


def backup(ago: float, **more: Any) -> dict[str, Any]:
    """A good backup of so many days ago, or one that is otherwise."""
    at = datetime.datetime.fromtimestamp(NOW - ago * DAY, datetime.timezone.utc)
    states = dict.fromkeys(("unsupported", "damaged", "future", "suspect", "unstable"), False)
    return {"created_at": at.isoformat(), "complete": True, "total_size": 100, "new_bytes": 1, **states, **more}


def told(tmp_path: Path, *backups: dict[str, Any]) -> dict[str, Any]:
    (row,) = history([], Stock({"app": [(("", ""), one) for one in backups]}, (), (), NOW), str(tmp_path))
    return row


def test_a_day_is_as_good_as_its_best_backup(tmp_path: Path) -> None:
    row = told(
        tmp_path, backup(-3, future=True), backup(0), backup(0.1, damaged=True), backup(1, unstable=True), backup(1.1, suspect=True), backup(3, complete=False),
        backup(89), backup(95), {**backup(96), "created_at": None, "damaged": True},
    )  # fmt: skip
    assert row["days"] == row["kept"] == "g" + "-" * 85 + "s-ug" and row["day"] == "2026-11-24" and len(row["days"]) == days.DAYS
    recent = row["recent"]
    assert recent["states"] == "ggssusg" and recent["created_at"][-1] == "2026-11-24T12:00:00Z" and recent["created_at"] == sorted(recent["created_at"])
    assert recent["total_size"] == [100] * 7 and recent["new_bytes"] == [1] * 7
    assert told(tmp_path)["recent"] == {"created_at": [], "states": "", "total_size": [], "new_bytes": []}


def test_it_stays_small(tmp_path: Path) -> None:
    row = told(tmp_path, *(backup(number / 20) for number in range(4000)))
    assert row["days"] == "g" * 90 and [len(values) for values in row["recent"].values()] == [MOST] * 4
    assert row["recent"]["created_at"][-1].startswith("2026-11-24T12:00")


def test_days_whose_backups_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retention deletes them; the record of runs knows what came of each day."""
    record = RunRecord("app", str(tmp_path))
    outcomes = ["g", "u", "f", "s", "gf"]
    for ago, outcome in zip(range(100, 0, -1), outcomes * 20):
        monkeypatch.setattr("time.time", lambda ago=ago: NOW - ago * DAY)
        for letter in outcome:
            record.begin()
            if letter in "gu":
                record.succeed({"backup_id": "x", "unstable_count": int(letter == "u")}, "")
            else:
                record.fail(VoltError("It broke.", **({"backup": {"id": "y"}} if letter == "s" else {})), "")
    row = told(tmp_path, backup(2))
    assert row["days"] == ("gufsg" * 20)[11:-2] + "gg-" and row["kept"] == "-" * 87 + "g--"
    assert len(record.read()["days"]) == 90


@pytest.mark.parametrize(
    "log", [None, 3, [], {"2026-11-24": 3}, {"2026-11-24": "gg"}, {"2026-11-24": ""}, {"yesterday": "g"}, {"20261124": "g"}, {"9999-99-99": "g"}]
)
def test_a_log_that_cannot_be_read(tmp_path: Path, log: Any) -> None:
    (tmp_path / "app.json").write_text(json.dumps({"days": log}))
    assert told(tmp_path)["days"] == "-" * 90
    assert days.noted(log, NOW, "f") == {"2026-11-24": "f"}
    assert days.noted({"2026-11-25": "g", "2026-08-26": "g", "2026-08-27": "g"}, NOW, "f") == {"2026-08-27": "g", "2026-11-24": "f"}


@pytest.mark.parametrize("at", [1e30, -1e12, float("nan"), float("inf")])
def test_a_time_that_is_none_is_of_a_damaged_record(tmp_path: Path, at: float) -> None:
    """The record counts as empty, and what reads it goes on."""
    for note in ({"drills": [{"at": at}]}, {"success": {"at": at}}, {"proved": {"at": at, "backup_id": "app-1"}}):
        (tmp_path / "app.json").write_text(json.dumps(note))
        assert RunRecord("app", str(tmp_path)).read() == {}
