# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Times and durations as users write them, checked before anything else happens."""

from __future__ import annotations

import datetime
import re

from .errors import UsageError

#: How far ahead of the clock a time may be and be believed: clocks are set while programs run. What is further ahead is of the future.
AHEAD = datetime.timedelta(seconds=60)

_SPAN = re.compile(r"(?:\d+(?:s|m|h|d|w))+\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def is_future(moment: datetime.datetime) -> bool:
    """Whether a time has not come yet: the clock was wrong when it was taken, or is wrong now."""
    return moment > now() + AHEAD


def show_time(moment: datetime.datetime) -> str:
    """RFC 3339 in UTC, with microseconds."""
    return moment.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime.datetime:
    """A date or time of ISO 8601; UTC without a zone."""
    form = text.strip()
    if form[-1:] in "zZ" and form:
        form = form[:-1] + "+00:00"
    try:
        moment = datetime.datetime.fromisoformat(re.sub(r"\.(\d{6})\d+", r".\1", form))
    except ValueError:
        raise UsageError(f"Time {text!r} is invalid; write it like 2026-11-23 or 2026-11-23T10:00:00Z.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)


def parse_span(text: str) -> datetime.timedelta:
    """A span of time such as 90m, 6h, 1d or 1d12h."""
    form = str(text).strip()
    if not _SPAN.match(form):
        raise UsageError(f"Duration {text!r} is invalid; write it like 90m, 6h, 1d or 1d12h.")
    try:
        return datetime.timedelta(seconds=sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(\D)", form)))
    except (OverflowError, ValueError):  # Python reads no number of thousands of digits
        raise UsageError(f"Duration {text!r} is too long; use a shorter one.") from None
