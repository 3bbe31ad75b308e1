# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Notifies once of each problem: of those that no run finds, and of failures whose notification was not sent.

The unit `volt-cas-status` runs this every hour, and fails if there is a problem that was not notified: then this is notified as for any unit.
Problems have parts: a failure its time, damage the affected backups. A problem is notified again when it has a new part.

::

    a unit fails, its notification succeeds        told
    this finds a problem that is not told          pending; the unit fails
    the notification of this failure succeeds      what is pending is told
    no notification was sent, or it failed         found again within the hour
"""

from __future__ import annotations

import typing as t

from .._base import VoltError, one_line
from .ledger import Ledger, Notes, Parts
from .record import DIRECTORY as RECORDS, RunRecord
from .status import TROUBLE, failure_parts
from .survey import Survey
from .upkeep import TELLS

#: No trouble has more parts that count.
_MOST = 1000


class Found(VoltError):
    """There is a problem that was not notified."""

    code = "trouble"


def new_trouble(there: Survey, records: str = RECORDS) -> t.Optional[Found]:
    """The new problems, recorded as being notified; None if there are none."""
    reasons: t.Dict[str, str] = {}
    found: Parts = {}
    for name, state, reason, parts in _trouble(there):
        key = _key(name, state)
        reasons.setdefault(key, reason)
        found[key] = sorted({*found.get(key, ()), *(parts or [""])})[:_MOST]
    new: t.List[str] = []

    def compare(notes: Notes) -> Notes:
        told = {key: [part for part in parts if part in found[key]] for key, parts in notes.told.items() if key in found}
        new[:] = sorted(key for key, parts in found.items() if not set(parts) <= set(told.get(key, ())))
        return notes._replace(told=told, pending={key: found[key] for key in new})

    Ledger(records).change(compare)
    if not new:
        return None
    more = f" Also: {', '.join(new[1:])}." if new[1:] else ""
    return Found(one_line(f"{new[0]}: {reasons[new[0]]}{more}"))


def note_told(unit: str, workload: t.Optional[str], invocation: str, records: str = RECORDS) -> None:
    """The failure of a unit was notified.

    :param workload: whose unit it is, if it is one's. :param invocation: of the run that failed.
    """
    if workload is None:
        told = {_key(f"{unit}.service", "failed"): [invocation]}
    else:
        told = {_key(workload, "failed"): [*failure_parts(RunRecord(workload, records).read()), invocation]}
    own = f"{unit}.service" == TELLS
    Ledger(records).change(lambda notes: notes._replace(told={**notes.told, **(notes.pending if own else told)}, pending={} if own else notes.pending))


def _key(name: str, state: str) -> str:
    return f"{name} is {state}"


def _trouble(there: Survey) -> t.Iterator[t.Tuple[str, str, str, t.Sequence[str]]]:
    """Name, state, reason and parts of all that is wrong."""
    for row in (*there.schedules, *there.unscheduled):
        for trouble in row["troubles"]:
            if trouble.state in TROUBLE:
                yield row["workload"], trouble.state, trouble.reason, trouble.parts
    yield from there.problems
