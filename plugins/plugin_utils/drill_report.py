# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of the filter drill_report: what drills proved in a period, when, how long that took, and what was not proved.

What hosts returned is checked by `told`, as for the page of the fleet.
"""

from __future__ import annotations

import datetime
from typing import Any

from ansible_collections.volt.backup.plugins.module_utils._base import now, show_time
from ansible_collections.volt.backup.plugins.module_utils._runner.scheduled import age
from ansible_collections.volt.backup.plugins.module_utils._runner.screen import size

from . import pages, told

#: What became of a workload, those first that need a look.
FAILED, UNTRIED, UNKNOWN, PROVED = "failed", "not tried", "not known", "proved"
_ORDER = (FAILED, UNKNOWN, UNTRIED, PROVED)
_NO_SCHEDULE = "It has backups but no schedule, so its drills are not recorded."
_NO_DRILL = "There was no drill in this period; run the playbook volt.backup.verify."
#: Dumps of a drill that are named, and drills that are listed one by one for people.
_DUMPS, _LISTED = 20, 1000


def drill_report(results: dict[str, Any], period: int) -> dict[str, Any]:
    """The report and its JSON, by the names of these forms.

    :param results: of volt_backup_info with schedules and drills, by host. :param period: days.
    """
    made = now()
    first = made - datetime.timedelta(days=period)
    rows = sorted((row for host, result in results.items() for row in _rows(str(host), result, first, made)), key=_rank)
    counts = {state: sum(row["state"] == state for row in rows) for state in _ORDER}
    value = {
        "format": 1, "made_at": show_time(made), "from": show_time(first), "days": period, "hosts": len(results), "workloads": len(rows),
        "counts": {state.replace(" ", "_"): count for state, count in counts.items()},
        "drills": sum(len(row["drills"]) for row in rows), "rows": rows,
    }  # fmt: skip
    return {"html": _html(value, counts, first, made), "json": value}


def _rows(host: str, result: Any, first: datetime.datetime, made: datetime.datetime) -> list[dict[str, Any]]:
    found = result if isinstance(result, dict) else {}
    schedules = [row for row in map(told.row, told.dicts(found.get("schedules"))) if row.get("workload")]
    if not isinstance(found.get("schedules"), list) or not isinstance(found.get("drills"), list):
        why = "The host could not be reached." if found.get("unreachable") else told.text(found.get("msg"), told.LONGEST) or "The host returned no drills."
        return [_row(host, None, UNKNOWN, why, None, [])]
    noted = {row["workload"]: row for row in told.dicts(found["drills"]) if isinstance(row.get("workload"), str)}
    rows = [_judged(host, row, noted.get(row["workload"], {}), first, made) for row in schedules]
    there = {row["workload"] for row in schedules}
    others = {told.text(row.get("workload")) for row in told.dicts(found.get("workloads"))} - there - {None}
    rows += [{**_row(host, name, UNTRIED, _NO_SCHEDULE, None, []), "scheduled": False} for name in sorted(map(str, others))]
    return rows + [_row(host, None, UNKNOWN, text, None, []) for text in told.cut(found, "schedules", "workloads", "drills")]


def _judged(host: str, schedule: dict[str, Any], noted: dict[str, Any], first: datetime.datetime, made: datetime.datetime) -> dict[str, Any]:
    """:param noted: the schedule's drills, and which failures stand: a good drill of one place does not undo the failure of another."""
    drills, failure = [_drill(one) for one in told.dicts(noted.get("drills"))], told.text(noted.get("failure"), told.LONGEST)
    within = [drill for drill in drills if drill["at"] is not None and first.timestamp() <= told.seconds(drill["at"]) <= made.timestamp() + 60]
    proved = schedule.get("last_proved")
    within.sort(key=lambda drill: told.seconds(drill["at"]) or 0)
    reason = failure or (within[-1]["reason"] if within else None)
    if not within and reason is None:
        return _row(host, schedule["workload"], UNTRIED, _NO_DRILL, proved, [])
    return _row(host, schedule["workload"], PROVED if reason is None else FAILED, reason, proved, within)


def _row(host: str, workload: str | None, state: str, reason: str | None, proved: str | None, drills: list[dict[str, Any]]) -> dict[str, Any]:
    row = {"host": told.text(host), "workload": workload, "scheduled": workload is not None, "state": state, "reason": reason}
    return {**row, "last_proved": proved, "drills": drills}


def _drill(value: dict[str, Any]) -> dict[str, Any]:
    command = value.get("command")
    return {
        "at": told.moment(value.get("at")),
        "backup_id": told.text(value.get("backup_id")),
        "reason": None if value.get("reason") is None else told.text(value["reason"], told.LONGEST) or "It failed for a reason that cannot be read.",
        "command": command if command in ("passed", "failed") else None,
        "loaded": [text for text in map(told.text, told.items(value.get("loaded"))[:_DUMPS]) if text is not None],
        "not_loaded": told.text(value.get("not_loaded"), told.LONGEST),
        "remote": told.text(value.get("remote")),
        **{key: told.number(value.get(key)) for key in ("total_size", "duration", "unstable_count")},
    }


def _rank(row: dict[str, Any]) -> tuple[int, str, str]:
    return _ORDER.index(row["state"]), row["host"], row["workload"] or ""


def _html(value: dict[str, Any], counts: dict[str, int], first: datetime.datetime, made: datetime.datetime) -> str:
    rows = value["rows"]
    each = sorted((_line(row, drill) for row in rows for drill in row["drills"]), key=lambda line: str(line["at"]), reverse=True)
    return pages.rendered(
        "report.html.j2",
        None,
        None,
        period=f"{first:%Y-%m-%d} to {made:%Y-%m-%d}",
        made=f"{made:%Y-%m-%d %H:%M} UTC",
        counts=counts,
        total=len(rows),
        hosts=value["hosts"],
        drills=value["drills"],
        open=[row for row in rows if row["state"] != PROVED],
        proved=[_shown(row) for row in rows if row["state"] == PROVED],
        each=each[:_LISTED],
        left=max(0, len(each) - _LISTED),
    )


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A proved workload: its last drill, and what that leaves open."""
    last = row["drills"][-1]
    unstable = f"{last['unstable_count']} unstable file(s)" if last["unstable_count"] else None
    failures = sum(drill["reason"] is not None for drill in row["drills"])
    return {**_line(row, last), "count": len(row["drills"]), "failures": failures, "open": [text for text in (unstable, last["not_loaded"]) if text]}


def _line(row: dict[str, Any], drill: dict[str, Any]) -> dict[str, Any]:
    took = drill["duration"]
    return {
        **drill,
        "host": row["host"],
        "workload": row["workload"],
        "when": (drill["at"] or "")[:16].replace("T", " "),
        "took": "-" if took is None else "under 1s" if took < 1_000_000_000 else age(took // 1_000_000_000),
        "size": "-" if drill["total_size"] is None else size(drill["total_size"]),
    }
