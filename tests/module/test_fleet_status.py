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

import pytest

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
    assert "needs dictionaries" in fleet_status([]) and "needs dictionaries" in fleet_status({}, {}, [])


FRESH = {"newest_age": 3600, "copied_age": 3600, "last_proved": moment(-3600), "backup_count": 3, "enabled": True}
WANTED = {"rpo": "26h", "drill_every": "7d", "copy_within": "1d12h"}


@pytest.mark.parametrize(
    "told, state, missed, reason",
    [
        ({}, "ok", [], None),
        ({"newest_age": 26 * 3600}, "ok", [], None),
        ({"newest_age": 27 * 3600}, "too old", ["rpo"], "The newest good backup is 1d3h old, and volt_rpo is 26h; run volt-backup run app."),
        ({"newest_age": None, "copied_age": None, "last_proved": None}, "too old", ["rpo"], "There is no good backup, and volt_rpo is 26h;"),
        ({"newest_age": None, "copied_age": None, "last_proved": None, "state": "waiting", "declared_at": moment(-3600)}, "waiting", [], None),
        ({"newest_age": None, "copied_age": None, "last_proved": None, "state": "waiting", "declared_at": moment(-27 * 3600)}, "too old", ["rpo"], "no good"),
        ({"last_proved": None}, "not proved", ["drill_every"], "It was never proved that it can be restored, and volt_drill_every is 7d; run the playbook"),
        ({"last_proved": moment(-8 * 86400 - 5)}, "not proved", ["drill_every"], "It was last proved 8d ago, and volt_drill_every is 7d;"),
        ({"last_proved": moment(8 * 86400)}, "not proved", ["drill_every"], "never proved"),
        ({"copied_age": None}, "not copied", ["copy_within"], "No backup has a copy elsewhere, and volt_copy_within is 1d12h;"),
        ({"copied_age": 2 * 86400}, "not copied", ["copy_within"], "The newest backup that has a copy is 2d old, and volt_copy_within is 1d12h;"),
        ({"copied_age": None, "last_proved": None, "newest_age": 9e9}, "too old", ["rpo", "copy_within", "drill_every"], "run app. No backup has a copy"),
        ({"state": "failed", "reason": "It broke.", "newest_age": 9e9}, "failed", ["rpo"], "It broke. The newest good backup is"),
        ({"state": "store missing", "reason": "It is away.", "newest_age": None, "backup_count": None}, "store missing", None, "It is away."),
        ({"newest_age": "soon", "backup_count": None}, "too old", ["rpo"], "There is no good backup"),
        ({"newest_age": -5}, "too old", ["rpo"], "There is no good backup"),
        ({"newest_age": True}, "too old", ["rpo"], "There is no good backup"),
        ({"state": "disabled", "enabled": False, "newest_age": 9e9}, "disabled", None, None),
    ],
)  # fmt: skip
def test_objectives(told: dict[str, Any], state: str, missed: list[str] | None, reason: str | None) -> None:
    """A schedule that misses one is in trouble, whatever the host calls it."""
    answer = fleet_status({"web": {"schedules": [row("app", **{"state": "ok", **FRESH, **told})]}}, {}, {"web": WANTED})
    (one,) = answer["rows"]
    assert one["state"] == state and one.get("missed") == missed and (reason is None) == (one["reason"] is None) and (reason or "") in (one["reason"] or "")
    assert bool(answer["troubled"]) == (state in ("failed", "store missing", "too old", "not proved", "not copied"))


def test_objectives_are_of_each_host_and_of_schedules() -> None:
    old = {**FRESH, "newest_age": 9 * 86400}
    answer = fleet_status({
        "a": {"schedules": [row("app", "ok", **old)], "workloads": [row("left", "no schedule", scheduled=False, **old)]},
        "b": {"schedules": [row("app", "ok", **old)]},
        "c": {"schedules": [row("app", "ok", **old)]}, "off": {"unreachable": True}, "none": {"schedules": []},
    }, {}, {"a": {"rpo": "1d"}, "b": {"rpo": "10d", "drill_every": None, "copy_within": ""}, "off": {"rpo": "1d"}, "none": {"rpo": "1d"}})  # fmt: skip
    assert answer["troubled"] == {"off": ["host unreachable"], "a": ["app too old"]}
    assert [one["state"] for one in answer["rows"]] == ["unreachable", "too old", "ok", "ok", "no schedule", "no schedules"]


@pytest.mark.parametrize(
    "given, why",
    [
        ({"rpo": "soon"}, "volt_rpo: Duration 'soon' is invalid; write it like 90m, 6h, 1d or 1d12h."),
        ({"drill_every": 7}, "volt_drill_every: Duration '7' is invalid"), ({"copy_within": "0h"}, "volt_copy_within: Duration 0 is too short"),
        ({"rpo": {"hours": 3}}, "volt_rpo: Duration"), ({"rpo": "9" * 30 + "w"}, "is too long"), ({"rto": "1h"}, "Objective rto is unknown"),
        ("26h", "not a dictionary"),
    ],
)  # fmt: skip
def test_an_objective_that_cannot_be_read(given: Any, why: str) -> None:
    """It is a problem of the host, and hides nothing else."""
    answer = fleet_status({"web": {"schedules": [row("app", "ok", **FRESH)]}}, {}, {"web": given})
    assert answer["troubled"] == {"web": ["objective invalid"]} and why in answer["trouble"][0] and answer["rows"][1]["state"] == "ok"


def test_a_host_that_lies() -> None:
    """Its row is right as far as it can be, it is limited, and other hosts have theirs."""
    wild = {
        "newest_age": -1e999, "copied_age": "old", "copied_at": 3, "last_proved": "9999-99-99", "next_elapse": ["x"], "reason": {"a": 1}, "enabled": "no",
        "total_size": float("nan"), "overdue": [], "failures": True, "more": "x" * 9999, "source": "a\u202eb\nc",
    }
    answer = fleet_status({
        "liar": {"schedules": [row("a" * 9999, "ok", **wild), row("b", "o\x1b[2J", reason="y" * 99999)], "workloads": 3, "problems": [{"state": 3}, 4]},
        "many": {"schedules": [row("w", "ok")] * 20000}, "text": "lies", "list": [], "fine": {"schedules": [row("app", "ok")]},
    })  # fmt: skip
    liar = {one["workload"]: one for one in answer["rows"] if one["host"] == "liar"}
    first = liar["a" * 199 + "…"]
    assert first["source"] == "a\\u202eb\\x0ac" and "more" not in first
    assert all(first[key] is None for key in wild if key not in ("source", "more"))
    assert liar["b"]["state"] == "o\\x1b[2J" and len(liar["b"]["reason"]) == 1000 and liar[None]["state"] == "not known"
    assert sum(one["host"] == "many" for one in answer["rows"]) == 1001 and answer["troubled"]["many"] == ["host not known"]
    assert answer["troubled"]["text"] == answer["troubled"]["list"] == ["host not known"] and "fine" not in answer["troubled"]
