# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Telling people of trouble that no run finds: a backup that does not come, one that is damaged, a timer that was stopped, a store that is away.

The unit `volt-cas-status` asks for it every hour, and fails where there is trouble that it did not see before: then people are told as of any unit.
What failed by itself was told when it did.
"""

from __future__ import annotations

import json
import os
import typing as t

from .._base import VoltError, files, one_line
from . import public
from .record import unwritten
from .status import TROUBLE
from .survey import Survey

PATH = os.path.join(os.path.dirname(public.PATH), public.TOLD)
_MOST = 1 << 20


class Found(VoltError):
    """There is trouble that was not there before."""

    code = "trouble"


def new_trouble(there: Survey, path: str = PATH) -> t.Optional[Found]:
    """What to tell, and a note that it is told; None where there is nothing new."""
    found = {f"{name} is {state}": reason for name, state, reason in _trouble(there)}
    new = sorted(set(found) - _told(path))
    _note(path, sorted(found))
    if not new:
        return None
    first = found[new[0]]
    more = f" There is more: {', '.join(new[1:])}." if new[1:] else ""
    return Found(one_line(f"{new[0]}: {first or 'see volt-backup status.'}{more}"))


def _trouble(there: Survey) -> t.Iterator[t.Tuple[str, str, t.Optional[str]]]:
    """Name, state and reason of what nobody is told of otherwise."""
    for row in (*there.schedules, *there.unscheduled):
        if row["state"] in TROUBLE and row["state"] != "failed":
            yield row["workload"], row["state"], row["reason"]
    for problem in there.problems:
        if not (problem.state == "failed" and problem.what.endswith(".service")):
            yield problem.what, problem.state, problem.reason


def _told(path: str) -> t.Set[str]:
    try:
        return set(json.loads(files.read_file(path, _MOST)))
    except (OSError, ValueError, TypeError, RecursionError):
        return set()


def _note(path: str, found: t.Sequence[str]) -> None:
    try:
        os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
        files.write_file(path, json.dumps(found).encode())
    except OSError as error:
        raise unwritten(path, error) from None
