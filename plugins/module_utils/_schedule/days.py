# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What came of each day: a letter a day, in UTC. Retention deletes most backups of earlier days, so the record of runs keeps these letters.

::

    g  a good backup was made        s  only one that is suspect, incomplete or damaged
    u  only an unstable one          f  a run failed, and there is no backup
    -  nothing is known of the day
"""

from __future__ import annotations

import datetime
import typing as t

#: How many days are kept.
DAYS = 90
#: The best first: a day is as good as the best that it had.
_LETTERS = "gusf"
NOTHING = "-"

Log = t.Dict[str, str]


def day(moment: float) -> datetime.date:
    """The day of a time in seconds since 1970."""
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).date()


def better(one: str, other: str) -> str:
    """The letter of a day that had both."""
    return min(one, other, key=(_LETTERS + NOTHING).index)


def noted(log: t.Any, moment: float, letter: str) -> Log:
    """The log with one more run.

    :param log: as it was read, whatever that is. :param moment: when the run began, in seconds since 1970.
    """
    today = day(moment)
    first = today - datetime.timedelta(days=DAYS - 1)
    found = {at: kept for at, kept in sound(log).items() if first <= datetime.date.fromisoformat(at) <= today}
    name = today.isoformat()
    return {**found, name: better(letter, found.get(name, NOTHING))}


def sound(log: t.Any) -> Log:
    """The days of a log that can be read."""
    return {at: letter for at, letter in log.items() if _is_day(at) and letter in list(_LETTERS)} if isinstance(log, dict) else {}


def row(log: Log, last: datetime.date) -> str:
    """The letters of the last `DAYS` days, oldest first."""
    return "".join(log.get((last - datetime.timedelta(days=back)).isoformat(), NOTHING) for back in range(DAYS - 1, -1, -1))


def _is_day(text: t.Any) -> bool:
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except (TypeError, ValueError):
        return False
