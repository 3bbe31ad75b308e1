# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""When backups are due: slots at k x interval + phase, in UTC, and the calendar lines for them.

Days in UTC have 86,400 seconds here, as in POSIX time, so an interval that divides a day always gives the same times of day.
Daylight saving, the end of a month or a reboot do not change them. Source: systemd.time(7), "Calendar Events".
"""

from __future__ import annotations

import hashlib
import math
import typing as t

from .._base import UsageError, parse_span

DAY = 86400
_LONGEST = 366 * DAY


class Slots(t.NamedTuple):
    """Moments at which backups are due. Both in seconds; the phase is less than the interval."""

    interval: int
    phase: int

    def begun(self, moment: float) -> int:
        """The last slot up to a moment, in seconds since 1970."""
        return int((moment - self.phase) // self.interval) * self.interval + self.phase

    def coming(self, moment: float) -> int:
        """The first slot after a moment."""
        return self.begun(moment) + self.interval

    @property
    def ticks(self) -> bool:
        """Whether a timer can only tick often enough to meet all slots, and most ticks are none."""
        return DAY % self.interval != 0

    @property
    def timer(self) -> Slots:
        """When the timer starts: at the slots, or at ticks among which they are."""
        step = math.gcd(self.interval, DAY)
        return Slots(step, self.phase % step)

    def calendar(self) -> t.List[str]:
        """Calendar lines: the slots of every day, or the ticks."""
        step, phase = self.timer
        hours_at: t.Dict[int, t.List[int]] = {}
        for second in range(phase, DAY, step):
            hours_at.setdefault(second % 3600 // 60, []).append(second // 3600)
        minutes_in: t.Dict[t.Tuple[int, ...], t.List[int]] = {}
        for minute in sorted(hours_at):
            minutes_in.setdefault(tuple(hours_at[minute]), []).append(minute)
        # an interval is of whole minutes, so there is but one second
        return [f"*-*-* {_among(hours, 24)}:{_among(minutes, 60)}:{self.phase % 60:02d} UTC" for hours, minutes in minutes_in.items()]


def _among(numbers: t.Sequence[int], all_of: int) -> str:
    return "*" if len(numbers) == all_of else ",".join(f"{number:02d}" for number in numbers)


def parse_slots(interval: str, delay: str, seed: str, workload: str) -> Slots:
    """Slots of a workload; UsageError for an interval or a delay that gives none.

    :param delay: the maximum phase. :param seed: differs between hosts.
    """
    every = parse_span(interval)
    spread = parse_span(delay)
    seconds = int(every.total_seconds())
    if seconds < 60 or seconds % 60 or seconds > _LONGEST:
        raise UsageError(f"Interval {interval!r} must be whole minutes from 1m to 366d; write it like 90m, 6h or 1d.")
    if spread >= every:
        raise UsageError(f"The `randomized_delay` {delay!r} must be less than the `interval` {interval!r}; set a shorter one, or 0s for none.")
    return Slots(seconds, phase(seed, workload, int(spread.total_seconds())))


def phase(seed: str, workload: str, delay: int) -> int:
    """Seconds by which a workload's slots come later: the same for good, and another for another host or workload."""
    digest = hashlib.sha256(f"{seed}\0{workload}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % delay if delay else 0
