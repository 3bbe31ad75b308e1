# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One table of what hosts told, and of those that told nothing."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.volt.backup.plugins.filter.fleet_status import fleet_status


def row(workload: str, state: str, **more: Any) -> dict[str, Any]:
    return {"workload": workload, "state": state, "overdue": False, "reason": None, **more}


def test_trouble_comes_first() -> None:
    told = fleet_status({
        "fine": {"schedules": [row("b", "ok", last_success="2026-11-24T01:02:03.000000Z"), row("a", "running")]},
        "bare": {"schedules": []},
        "sick": {"schedules": [row("c", "ok"), row("d", "overdue", reason="No run."), row("e", "failed", reason="It broke.")]},
        "newer": {"schedules": [row("f", "exploded")]},
        "off": {"unreachable": True, "msg": "Task failed: no route\n to host"},
        "odd": {"failed": True, "msg": "Python 3.9 or newer is needed."},
        "silent": None,
    })  # fmt: skip
    assert [(one["host"], one["workload"]) for one in told["rows"]] == [
        ("newer", "f"), ("off", None), ("odd", None), ("silent", None), ("sick", "e"), ("sick", "d"),
        ("fine", "a"), ("fine", "b"), ("sick", "c"), ("bare", None),
    ]  # fmt: skip
    assert told["trouble"] == [
        "newer: f exploded", "off: unreachable (no route to host)", "odd: not known (Python 3.9 or newer is needed.)",
        "silent: not known (The host was not asked.)", "sick: e failed (It broke.)", "sick: d overdue (No run.)",
    ]  # fmt: skip
    assert len(told["table"]) == 11 and told["table"][1].split()[:3] == ["newer", "f", "EXPLODED"]
    assert "2026-11-24 01:02" in told["table"][8]


def test_nothing() -> None:
    assert fleet_status({}) == {"table": ["No hosts."], "rows": [], "trouble": []}
    with pytest.raises(AnsibleFilterError):
        fleet_status([])
