# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The metrics: a file for Prometheus' node exporter, with all schedules of a host and the problems of the host itself."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from .._base import UsageError, VoltError, files, one_line, parse, show
from . import command
from .record import DIRECTORY as RECORDS, Note, RunRecord, writing
from .status import TROUBLE, unproved
from .survey import Survey

_NAME = "volt_backup_"
#: How each file of ours begins.
_HEAD = f"# HELP {_NAME}".encode()


def _seconds(note: Note) -> t.Optional[float]:
    duration = note.get("success", {}).get("duration")
    return None if duration is None else duration / 1e9


def _is_known(row: t.Mapping[str, t.Any]) -> bool:
    """Whether a workload has a schedule that can be read."""
    return row["interval"] is not None or row["on_calendar"] is not None


_METRICS = (
    ("last_success_timestamp_seconds", "When the last successful run ended.", lambda note: note.get("success", {}).get("at")),
    ("last_failure_timestamp_seconds", "When the last failed run ended.", lambda note: note.get("failure", {}).get("at")),
    ("last_duration_seconds", "How long the last successful backup took.", _seconds),
    ("last_size_bytes", "Size of the content of the last successful backup.", lambda note: note.get("success", {}).get("total_size")),
    ("last_new_bytes", "Content that was new in the last successful backup.", lambda note: note.get("success", {}).get("new_bytes")),
    ("last_unstable_files", "Files of the last successful backup that may be inconsistent.", lambda note: note.get("success", {}).get("unstable_count")),
    ("last_proved_timestamp_seconds", "When a restore drill last succeeded.", lambda note: note.get("proved", {}).get("at")),
    ("last_copy_proved_timestamp_seconds", "When a drill from a remote last succeeded.", lambda note: note.get("copy_proved", {}).get("at")),
    ("failures", "Runs that have failed since the last success.", lambda note: note.get("failures", 0)),
    ("declared_timestamp_seconds", "When the times of its schedule last changed.", lambda note: note.get("since")),
)
#: Of a workload's row in a survey.
_ROWS = (
    ("interval_seconds", "Time from one scheduled run to the next.", lambda row: row.get("interval")),
    ("enabled", "Whether its schedule is enabled.", lambda row: int(row["enabled"]) if _is_known(row) else None),
    ("has_remote", "Whether its schedule copies backups to a remote.", lambda row: int(row["remote"] is not None) if _is_known(row) else None),
    ("overdue", "Whether a backup was overdue when this was written.", lambda row: int(row["overdue"])),
    ("trouble", "Whether it had a problem when this was written.", lambda row: int(row["state"] in TROUBLE)),
)
_BACKUPS = (
    ("newest_timestamp_seconds", "When the newest good backup was made, scheduled or not.", lambda row: row["newest_timestamp"]),
    ("copied_timestamp_seconds", "When the newest good backup that a remote has was made.", lambda row: row["copied_timestamp"]),
    ("damaged", "Backups that are damaged.", lambda row: row["damaged_count"]),
    ("suspect", "Suspect backups that are newer than the newest good one.", lambda row: row["suspect_count"]),
)
#: Of a store's file system.
_STORES: t.Tuple[t.Tuple[str, str, t.Callable[[os.statvfs_result], int]], ...] = (
    ("store_size_bytes", "Size of the file system of a store.", lambda found: found.f_blocks * found.f_frsize),
    ("store_free_bytes", "Space that is free there.", lambda found: found.f_bavail * found.f_frsize),
)


def text(there: Survey, records: str = RECORDS) -> str:
    """The file's content.

    The reader decides what is overdue, because the file does not change if no run comes. So it has the interval and when it was written.

    :param there: a survey.
    """
    rows = {row["workload"]: row for row in there.schedules}
    notes = {name: RunRecord(name, records).read() for name in rows}
    lines: t.List[str] = []
    for metric, about, value in _ROWS:
        lines += _gauge(metric, about, {name: value(row) for name, row in rows.items()})
    for metric, about, value in _METRICS:
        lines += _gauge(metric, about, {name: value(note) for name, note in notes.items()})
    failed = {name: int(any(unproved(note, rows[name]["remote"]))) if note.get("drills") else None for name, note in notes.items()}
    lines += _gauge("drill_failed", "Whether a restore drill failed and was not repeated.", failed)
    for metric, about, value in _BACKUPS:
        lines += _gauge(metric, about, {row["workload"]: value(row) for row in there.workloads})
    lines += _gauge("host_trouble", "Problems of the host itself, 1 for each.", {problem.what: 1 for problem in there.problems}, "what")
    stores = _stores(there)
    for metric, about, number in _STORES:
        lines += _gauge(metric, about, {store: number(found) for store, found in stores.items()}, "store")
    lines += _gauge("valid_until_timestamp_seconds", "Until when this is to be written again.", {"": there.deadline})
    lines += _gauge("written_timestamp_seconds", "When this was written.", {"": time.time()})
    return "\n".join(lines) + "\n"


def _stores(there: Survey) -> t.Dict[str, os.statvfs_result]:
    """The file systems of the stores that are there, by their shown paths."""
    found = {}
    for store in sorted({store for store, _backup_dir in there.places}):
        with contextlib.suppress(OSError):
            found[show(store)] = os.statvfs(store)
    return found


def is_foreign(path: str) -> bool:
    """Whether the path has a file that we did not write."""
    try:
        with open(files.open_file(path), "rb") as file:
            return file.read(len(_HEAD)) != _HEAD
    except FileNotFoundError:
        return False
    except OSError:
        return True


def is_to_be_taken(shown: str, force: bool) -> bool:
    """Whether the path of declared metrics has a file of others; UsageError if it must not be overwritten."""
    path = os.fsdecode(parse(shown))
    if not os.path.isdir(os.path.dirname(path)):
        raise UsageError(f"The directory of the metrics file {shown} does not exist; create it, or omit the metrics.")
    if os.path.isdir(path) or not is_foreign(path):
        return False
    if not force:
        raise UsageError(f"The metrics file {shown} was not written by volt.backup; choose another, move it away, or set `force: true`.")
    return True


def write(content: str, path: str) -> None:
    """Write the file, whole or not at all; never in the place of another's."""
    if not os.path.isdir(path) and is_foreign(path):
        raise VoltError(f"{show(path)} was not written by volt.backup and is not changed; move it away, or choose another metrics file.")
    with writing(path):
        files.write_file(path, content.encode(), mode=0o644)


def remove(path: str) -> None:
    """Take the file away, if it is ours."""
    if not is_foreign(path):
        command.remove(path)


def _gauge(metric: str, about: str, values: t.Mapping[str, t.Any], label: str = "workload") -> t.List[str]:
    """:param values: by the label's values; by none at all, an empty one."""
    name = f"{_NAME}{metric}"
    head = [f"# HELP {name} {about}", f"# TYPE {name} gauge"]
    return head + [f"{name}{_label(label, key)} {value}" for key, value in values.items() if value is not None]


def _label(label: str, value: str) -> str:
    if not value:
        return ""
    escaped = one_line(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'{{{label}="{escaped}"}}'
