# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One table of what hosts told, and of those that told nothing."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from typing import Any

#: In a process of its own: who has imported the filter is a control node to Ansible from then on, and modules behave differently there.
CALL = """
import json, sys
from ansible.errors import AnsibleFilterError
from ansible_collections.volt.backup.plugins.filter.fleet_status import fleet_status
try:
    print(json.dumps(fleet_status(*json.load(sys.stdin))))
except AnsibleFilterError as error:
    print(json.dumps(str(error)))
"""


def fleet_status(*arguments: Any) -> Any:
    """What the filter makes of it; a text is an error."""
    return json.loads(subprocess.run([sys.executable, "-c", CALL], input=json.dumps(arguments), stdout=subprocess.PIPE, text=True, check=True).stdout)


def row(workload: str, state: str, **more: Any) -> dict[str, Any]:
    return {"workload": workload, "state": state, "overdue": False, "reason": None, **more}


def moment(seconds: int) -> str:
    """So long from now."""
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)).isoformat()


def test_trouble_comes_first() -> None:
    told = fleet_status({
        "fine": {"schedules": [row("b", "ok", last_proved=moment(-3 * 86400 - 7300), next_elapse=moment(4 * 3600 + 90)), row("a", "running")]},
        "bare": {"schedules": []},
        "sick": {"schedules": [row("c", "ok"), row("d", "overdue", reason="No run."), row("e", "failed", reason="It broke.")]},
        "newer": {"schedules": [row("f", "exploded")]},
        "worn": {
            "schedules": [row("a", "ok", newest_age=7300)],
            "workloads": [
                row("a", "no schedule", scheduled=True), row("h", "no schedule", scheduled=False), row("w", "damaged", scheduled=False, reason="Bad."),
            ],
            "problems": [{"what": "volt-cas-gc.timer", "state": "stopped", "reason": "It is not active."}],
        },
        "off": {"unreachable": True, "msg": "Task failed: no route\n to host"},
        "odd": {"failed": True, "msg": "Python 3.9 or newer is needed."},
        "silent": None,
        "hostile": {"schedules": [{"workload": "x"}, 3]},
        "less": {"schedules": [row("a", "ok")]},
    }, {"less": [{"workload": "a"}, {"workload": "b", "state": "present"}, {"workload": "c", "state": "absent"}], "off": [{"workload": "d"}]})  # fmt: skip
    assert [(one["host"], one["workload"]) for one in told["rows"]] == [
        ("newer", "f"), ("off", None), ("hostile", None), ("odd", None), ("silent", None), ("less", "b"), ("sick", "e"), ("sick", "d"),
        ("worn", None), ("worn", "w"), ("fine", "a"), ("fine", "b"), ("less", "a"), ("sick", "c"), ("worn", "a"), ("worn", "h"), ("bare", None),
    ]  # fmt: skip
    assert told["trouble"] == [
        "newer: f exploded", "off: unreachable (no route to host)",
        "hostile: not known (The host returned a status that cannot be read.)", "odd: not known (Python 3.9 or newer is needed.)",
        "silent: not known (The host returned no status.)",
        "less: b not scheduled (The host has no such schedule; run the playbook volt.backup.schedule.)",
        "sick: e failed (It broke.)", "sick: d overdue (No run.)", "worn: stopped (It is not active.)", "worn: w damaged (Bad.)",
    ]  # fmt: skip
    assert len(told["table"]) == 18 and told["table"][1].split()[:3] == ["newer", "f", "EXPLODED"]
    assert told["table"][12].split() == ["fine", "b", "ok", "-", "3d2h", "4h1m"] and "2h1m" in told["table"][15]
    assert told["troubled"]["worn"] == ["volt-cas-gc.timer stopped", "w damaged"] and told["troubled"]["off"] == ["host unreachable"]
    assert "fine" not in told["troubled"]


def test_copies_have_a_column_once_there_are_any() -> None:
    rows = [row("a", "ok", newest_age=60, copied_age=7300, copied_at=moment(-7300)), row("b", "ok", newest_age=60, copied_at=None)]
    assert "COPIED" not in fleet_status({"web": {"schedules": rows[1:]}})["table"][0]
    head, *lines = fleet_status({"web": {"schedules": rows}})["table"]
    assert head.split()[3:5] == ["NEWEST", "COPIED"] and [line.split()[4] for line in lines] == ["2h1m", "-"]


def test_nothing() -> None:
    assert fleet_status({}) == {"table": ["No hosts."], "rows": [], "trouble": [], "troubled": {}}
    assert "two dictionaries" in fleet_status([])
