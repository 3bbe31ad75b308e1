# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of the filter fleet_status, a file of its own: Ansible loads all filters of a collection to find one, and this takes time to import."""

from __future__ import annotations

from typing import Any

from ansible_collections.volt.backup.plugins.module_utils._base import VoltError, now, one_line, parse_time
from ansible_collections.volt.backup.plugins.module_utils._runner.scheduled import age
from ansible_collections.volt.backup.plugins.module_utils._runner.screen import table
from ansible_collections.volt.backup.plugins.module_utils._schedule.status import STATES, TROUBLE

#: Of hosts that could not tell, or have less than they are meant to, before those that did; and of hosts that have nothing to tell, after them.
_MISSING = "not scheduled"
#: The list cannot be read, or finding workloads failed.
_UNKNOWN = "Which schedules this host should have is unknown; correct volt_schedule_workloads, a list of dictionaries, or fix why no workloads could be found."
_SILENT = ("unreachable", "not known", _MISSING)
_ORDER = (*_SILENT, *STATES, "no schedules")
_HEAD = ("HOST", "WORKLOAD", "STATE", "NEWEST", "COPIED", "PROVED", "NEXT", "WHY")
_COPIED = _HEAD.index("COPIED")


def fleet_table(results: dict[str, Any], declared: dict[str, Any]) -> dict[str, Any]:
    """One table of all hosts' schedules. :param results: of volt_backup_info by host. :param declared: the schedules that each host should have."""
    rows = sorted((row for host, result in results.items() for row in _rows(str(host), result or {}, declared.get(host, []))), key=_rank)
    cells = [_HEAD, *(_cells(row) for row in rows)]
    if not any(row.get("copied_at") for row in rows):  # there are no remotes
        cells = [(*line[:_COPIED], *line[_COPIED + 1 :]) for line in cells]
    lines = table(cells[0], cells[1:]).splitlines() if rows else ["No hosts."]
    bad = [row for row in rows if _is_trouble(row)]
    troubled: dict[str, list[str]] = {}
    for row in bad:
        troubled.setdefault(row["host"], []).append(f"{row['workload'] or row.get('what') or 'host'} {row['state']}")
    return {"table": lines, "rows": rows, "trouble": [_sentence(row) for row in bad], "troubled": troubled}


def _rows(host: str, result: dict[str, Any], declared: Any) -> list[dict[str, Any]]:
    if result.get("unreachable"):
        return [_host(host, "unreachable", result.get("msg"))]
    found = result.get("schedules")
    if not isinstance(found, list):
        return [_host(host, "not known", result.get("msg") or "The host returned no status.")]
    if not all(isinstance(row, dict) and isinstance(row.get("state"), str) and isinstance(row.get("workload"), str) for row in found):
        return [_host(host, "not known", "The host returned a status that cannot be read.")]
    others = [row for row in _dicts(result.get("workloads")) if not row.get("scheduled") and isinstance(row.get("state"), str)]
    there = {row["workload"] for row in found}
    if not (isinstance(declared, list) and all(isinstance(one, dict) for one in declared)):
        return [_host(host, "not known", _UNKNOWN)]
    missing = [str(one.get("workload")) for one in declared if one.get("state", "present") == "present" and one.get("workload") not in there]
    rows = [{**_host(host, "", None), **row} for row in (*found, *others)]
    rows += [{**_host(host, str(problem.get("state")), problem.get("reason")), "what": problem.get("what")} for problem in _dicts(result.get("problems"))]
    rows += [{**_host(host, _MISSING, "The host has no such schedule; run the playbook volt.backup.schedule."), "workload": name} for name in missing]
    return rows or [_host(host, "no schedules", None)]


def _dicts(value: Any) -> list[dict[str, Any]]:
    """The dictionaries in a list. Hosts with older versions return none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _host(host: str, state: str, why: Any) -> dict[str, Any]:
    reason = " ".join(str(why).split()).replace("Task failed: ", "", 1).rpartition("can be reached over ssh: ")[2] if why else None
    return {"host": host, "workload": None, "state": state, "overdue": False, "reason": reason}


def _is_trouble(row: dict[str, Any]) -> bool:
    """An unknown state, which a later version added, is trouble too."""
    return row["state"] in TROUBLE or row["state"] in _SILENT or row["state"] not in _ORDER


def _rank(row: dict[str, Any]) -> tuple[int, str, str]:
    return _ORDER.index(row["state"]) if row["state"] in _ORDER else -1, row["host"], row["workload"] or ""


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Relative times, so that the table fits a terminal. The rows have absolute times."""
    state = row["state"].upper() if _is_trouble(row) else row["state"]
    proved, wait = _since(row.get("last_proved")), _since(row.get("next_elapse"))
    coming = "-" if wait is None else age(max(-wait, 0))
    ages = age(row.get("newest_age")), age(row.get("copied_age")), age(proved)
    return row["host"], row["workload"] or "-", state, *ages, coming, str(row.get("reason") or "")


def _since(moment: Any) -> int | None:
    """Seconds since a time that a host returned."""
    try:
        return int((now() - parse_time(str(moment))).total_seconds())
    except VoltError:
        return None


def _sentence(row: dict[str, Any]) -> str:
    name = f"{row['host']}: " + (f"{row['workload']} " if row["workload"] else "")
    return one_line(f"{name}{row['state']}" + (f" ({row['reason']})" if row.get("reason") else ""))
