# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Names of workloads, backups and types as users give them, checked before anything else happens."""

from __future__ import annotations

import datetime
import re
import typing as t

from .._base import UsageError

TYPES = ("manual", "scheduled", "snapshot", "pre-deploy")

_WORKLOAD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,200}\Z")


def is_workload(name: str) -> bool:
    """Whether a text can be a workload's name."""
    return _WORKLOAD.match(name) is not None


def check_workload(name: str) -> str:
    """A workload's name, or UsageError."""
    if not is_workload(name):
        raise UsageError(
            f"Workload name {name!r} is invalid; use 1 to 128 letters, digits, dots, dashes and underscores, starting with a letter or digit."
        )
    return name


def check_type(kind: str) -> str:
    if kind not in TYPES:
        raise UsageError(f"Backup type {kind!r} is unknown; use one of {', '.join(TYPES)}.")
    return kind


def is_id(backup: str) -> bool:
    """Whether a text can be a backup's id."""
    return _ID.match(backup) is not None


def check_id(backup: str) -> str:
    """A backup's id, or UsageError for what can be none."""
    if not is_id(backup):
        raise UsageError(f"{backup!r} is not a valid backup id; copy one from the list of backups.")
    return backup


def new_id(workload: str, created: datetime.datetime, kind: str, number: int) -> str:
    """<workload>-<YYYYMMDD-HHMMSS>-<type>, from the second of one second on with a number."""
    text = f"{workload}-{created:%Y%m%d-%H%M%S}-{kind}"
    return text if number == 1 else f"{text}-{number}"


def matches_tags(tags: t.Iterable[str], wanted: t.Iterable[str]) -> bool:
    """Whether all wanted tags are there."""
    return set(wanted) <= set(tags)
