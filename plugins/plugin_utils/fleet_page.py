# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page of the filter fleet_page: a file that a browser opens, with all that it needs in it, and the same as JSON.

The rows are JSON in the page, in a short form, and a script makes as much of a table of them as is looked at: a table of 5,000 rows with their charts takes
a browser seconds. Without scripts, the page has the problems and a plain table. What hosts returned is checked by `told`. It goes into the page only as
escaped text, or as JSON without the signs that HTML knows.
"""

from __future__ import annotations

import datetime
from typing import Any

from ansible_collections.volt.backup.plugins.module_utils._base import now, show_time
from ansible_collections.volt.backup.plugins.module_utils._runner.scheduled import age
from ansible_collections.volt.backup.plugins.module_utils._schedule import days
from ansible_collections.volt.backup.plugins.module_utils._schedule.history import MOST as RECENT

from . import pages, told
from .fleet_table import fleet_rows, is_trouble

#: How many problems, and how many rows of the plain table, are in the page as HTML.
_LISTED, _PLAIN = 20, 1000
#: Heights in a small chart, a digit each, and a missing value.
_HEIGHTS, _GAP = "0123456789abcdefghijklmnopqrstuvwxyz", "_"
_AGE_MOST = 100 * 366 * 86400
#: The letters that a day can have.
_DAY = frozenset("gusf-")

#: What to do, by state, where the reason does not say it: the table in docs/operations.md in short.
_ADVICE = {
    "failed": "Fix the reason, then run volt-backup run WORKLOAD on the host.",
    "overdue": "Look at journalctl -u volt-backup-WORKLOAD on the host.",
    "stopped": "Run systemctl enable --now volt-backup-WORKLOAD.timer on the host, or the playbook volt.backup.schedule.",
    "unreadable": "Run the playbook volt.backup.schedule.",
    "unsupported": "Update the command on the host with the role volt_runner.",
    "store missing": "Mount the disk of the store.",
    "records missing": "The next run starts a new history. volt-backup verify --repair restores the records of backups.",
    "source missing": "Create or mount the source directory, or remove the schedule.",
    "damaged": "Run volt-backup verify --repair on the host, then delete what it cannot repair.",
    "stale": "Run volt-backup status on the host as root.",
    "unreachable": "Check that the host is on and that Ansible can connect to it.",
    "not known": "Run ansible-playbook volt.backup.status --limit HOST -v.",
    "invalid": "Correct the variable in the inventory.",
}
_UNKNOWN = ("unreachable", "not known", "invalid")


def fleet_page(results: dict[str, Any], declared: dict[str, Any], objectives: dict[str, Any]) -> dict[str, Any]:
    """The page and its JSON, by the names of these forms. The parameters are those of `fleet_rows`."""
    made = now()
    rows = fleet_rows(results, declared, objectives)
    past = {host: _histories(result, made.date()) for host, result in results.items()}
    full = [{**row, "trouble": is_trouble(row), "history": past.get(row["host"], {}).get(row["workload"])} for row in rows]
    return {"html": _html(full, len(results), made), "json": _value(full, len(results), made)}


def _value(rows: list[dict[str, Any]], hosts: int, made: datetime.datetime) -> dict[str, Any]:
    """For programs."""
    bad = [row for row in rows if row["trouble"]]
    return {
        "format": 1, "made_at": show_time(made), "hosts": hosts, "hosts_in_trouble": len({row["host"] for row in bad}), "trouble": len(bad),
        "days": days.DAYS, "last_day": made.date().isoformat(), "rows": rows,
    }  # fmt: skip


def _html(rows: list[dict[str, Any]], hosts: int, made: datetime.datetime) -> str:
    """For people."""
    bad = [(at, row) for at, row in enumerate(rows) if row["trouble"]]
    return pages.rendered(
        "fleet.html.j2",
        "fleet.js",
        _compact(rows, made),
        made=f"{made:%Y-%m-%d %H:%M} UTC",
        hosts=hosts,
        count=sum(row["workload"] is not None for row in rows),
        bad=len(bad),
        bad_hosts=len({row["host"] for _at, row in bad}),
        kinds={row["state"]: _kind(row) for row in rows},
        listed=[{**row, "at": at, "advice": _advice(row)} for at, row in bad[:_LISTED]],
        plain=[{**row, "newest": age(row.get("newest_age"))} for row in rows[:_PLAIN]],
        left=max(0, len(rows) - _PLAIN),
    )


def _advice(row: dict[str, Any]) -> str | None:
    """What to do. The script makes the same of it."""
    text = _ADVICE.get(row["state"]) if row["workload"] or row["state"] in _UNKNOWN else None
    return text and text.replace("WORKLOAD", row["workload"] or "").replace("HOST", row["host"])


def _kind(row: dict[str, Any]) -> str:
    """How a state is drawn."""
    if row["state"] in _UNKNOWN:
        return "unknown"
    return "bad" if row["trouble"] else {"ok": "good", "running": "busy"}.get(row["state"], "calm")


#: The keys of a row in the page, in their order; see `_short`.
_KEYS = (
    "host", "workload", "state", "trouble", "reason", "newest", "next", "proved", "copied", "rpo", "drill", "copy", "size", "fresh", "sizes", "news", "days",
    "kept", "count", "damaged", "source", "every", "success", "failure", "failures", "newest_id", "what", "missed",
)  # fmt: skip


def _compact(rows: list[dict[str, Any]], made: datetime.datetime) -> dict[str, Any]:
    """The rows in as few letters as can be: each a list, with numbers for states and hosts."""
    hosts = {name: number for number, name in enumerate(dict.fromkeys(row["host"] for row in rows))}
    states = {name: number for number, name in enumerate(dict.fromkeys(row["state"] for row in rows))}
    kinds = {row["state"]: _kind(row) for row in rows}
    at = int(made.timestamp())
    return {
        "made": at, "day": made.date().isoformat(), "keys": _KEYS, "hosts": [told.text(name) for name in hosts],
        "states": [[name, kinds[name], _ADVICE.get(name)] for name in states],
        "rows": [_short(row, hosts[row["host"]], states[row["state"]], at) for row in rows],
    }  # fmt: skip


def _short(row: dict[str, Any], host: int, state: int, made: int) -> list[Any]:
    limits, past = row.get("objectives") or {}, row.get("history") or {}
    recent = past.get("recent") or {}
    sizes, news = recent.get("total_size") or [], recent.get("new_bytes") or []
    times = [told.seconds(row.get(key)) for key in ("next_elapse", "last_proved", "last_success", "last_failure")]
    upcoming, proved, success, failure = times
    passed = proved is not None and proved <= made + 60
    short = [
        host, row["workload"], state, int(row["trouble"]), row.get("reason"), _limited(row.get("newest_age")), upcoming,
        max(made - proved, 0) if passed and proved is not None else None, _limited(row.get("copied_age")),
        limits.get("rpo"), limits.get("drill_every"), limits.get("copy_within"),
        sizes[-1] if sizes else row.get("total_size"), news[-1] if news else row.get("new_bytes"), _heights(sizes, False), _heights(news, True),
        past.get("days"), past.get("kept"), row.get("backup_count"), row.get("damaged_count"), row.get("source"), row.get("interval") or row.get("on_calendar"),
        success, failure, row.get("failures"), row.get("newest_id"), row.get("what"), row.get("missed"),
    ]  # fmt: skip
    while short[-1] is None:
        short.pop()
    return short


def _limited(seconds: int | None) -> int | None:
    return None if seconds is None else min(seconds, _AGE_MOST)


def _heights(values: list[int | None], from_zero: bool) -> str | None:
    """A digit for each value. The lowest is 0, or, where all are near to each other, a tenth below the highest, so that noise stays small."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    top = max(known)
    low = 0 if from_zero else min(*known, top - top // 10)
    steps = len(_HEIGHTS) - 1
    return "".join(_GAP if value is None else _HEIGHTS[steps * (value - low) // (top - low) if top > low else 0] for value in values)


def _histories(result: Any, today: datetime.date) -> dict[str, dict[str, Any]]:
    """What a host returned of the past, by workload, with the days as of today."""
    rows = told.dicts(result.get("history") if isinstance(result, dict) else None)
    return {name: _history(row, today) for row in rows for name in [told.text(row.get("workload"))] if name is not None}


def _history(row: dict[str, Any], today: datetime.date) -> dict[str, Any]:
    recent = row.get("recent")
    lists = recent if isinstance(recent, dict) else {}
    states = told.text(lists.get("states"), RECENT) or ""
    found = {
        "created_at": [told.moment(value) for value in told.items(lists.get("created_at"))[-RECENT:]],
        "states": states if set(states) <= _DAY else "",
        "total_size": [told.number(value) for value in told.items(lists.get("total_size"))[-RECENT:]],
        "new_bytes": [told.number(value) for value in told.items(lists.get("new_bytes"))[-RECENT:]],
    }
    return {"days": _shifted(row, "days", today), "kept": _shifted(row, "kept", today), "recent": found}


def _shifted(row: dict[str, Any], key: str, today: datetime.date) -> str | None:
    """The letters of the last days up to today: a host asked a moment before midnight has yesterday as its last."""
    letters, last = row.get(key), told.seconds(row.get("day"))
    if not isinstance(letters, str) or len(letters) != days.DAYS or last is None or not set(letters) <= _DAY:
        return None
    late = (today - datetime.date(1970, 1, 1)).days - last // 86400
    return (letters + days.NOTHING * late)[late:] if 0 <= late < days.DAYS else letters[:late].rjust(days.DAYS, days.NOTHING) if -2 < late < 0 else None
