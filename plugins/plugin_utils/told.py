# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host returned, checked: a host may be broken into, or have another version. Each value has its type and a limited size, or is None."""

from __future__ import annotations

import datetime
import re
from typing import Any, Callable

from ansible_collections.volt.backup.plugins.module_utils._base import VoltError, brief, parse_time

#: No host has more schedules than this, or more workloads, or more problems.
MOST = 1000
#: Letters of a reason, and of a name.
LONGEST, _NAME = 1000, 200
_MOST_NUMBER = (1 << 63) - 1
_TIME = 40
#: Signs that are not seen and change how the rest is shown, and what is no character.
_HIDDEN = re.compile("[\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufff9-\uffff\U000e0000-\U000e0fff]")


def text(value: Any, most: int = _NAME) -> str | None:
    """One line of text, of limited length, with escapes for what is not seen. None for what is no text."""
    if not isinstance(value, str):
        return None
    return brief(_HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", value[: most + 1]), most)


def number(value: Any) -> int | None:
    """A whole number from 0, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if 0 <= value <= _MOST_NUMBER else None  # which NaN is not either


def moment(value: Any) -> str | None:
    """A time that can be read, or None."""
    return str(value) if seconds(value) is not None else None


def seconds(value: Any) -> int | None:
    """The same in seconds since 1970."""
    if not isinstance(value, str) or len(value) > _TIME:
        return None
    try:
        return int((parse_time(value) - datetime.datetime.fromtimestamp(0, datetime.timezone.utc)).total_seconds())
    except (VoltError, OverflowError):
        return None


def dicts(value: Any) -> list[dict[str, Any]]:
    """The dictionaries in a list, as many as a host may have. Hosts with older versions return none."""
    return [item for item in items(value) if isinstance(item, dict)]


def items(value: Any) -> list[Any]:
    """A list, as long as one may be; an empty one for anything else."""
    return value[:MOST] if isinstance(value, list) else []


def cut(result: dict[str, Any], *names: str) -> list[str]:
    """Of which lists of these names a host returned more than is read, as sentences."""
    counts = {name: len(result[name]) for name in names if isinstance(result.get(name), list)}
    return [f"The host returned {count} {name}; the first {MOST} are shown." for name, count in counts.items() if count > MOST]


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _reason(value: Any) -> str | None:
    return text(value, LONGEST)


#: Of the keys of a row, what they are.
_KINDS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("workload", "state", "source", "on_calendar", "newest_id", "newest_type", "copied_id", "proved_id", "backup_id", "what"), text),
    **dict.fromkeys(("newest_age", "copied_age", "backup_count", "damaged_count", "duration", "new_bytes", "total_size", "unstable_count"), number),
    **dict.fromkeys(("interval", "failures"), number),
    **dict.fromkeys(("last_success", "last_failure", "last_proved", "copy_proved_at", "newest_at", "copied_at", "next_elapse", "declared_at"), moment),
    **dict.fromkeys(("overdue", "enabled", "scheduled"), _flag),
    "reason": _reason,
}


def row(value: dict[str, Any]) -> dict[str, Any]:
    """A row of a status, with the keys that are known."""
    return {key: kind(value[key]) for key, kind in _KINDS.items() if key in value}
