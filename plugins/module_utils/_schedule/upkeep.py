# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Problems of the host's own units: those that collect and verify, and those that send notifications.

Which units should exist is recorded when they are declared, and the results of their runs when they end: systemd does not know removed units,
and forgets failures at a reboot.
"""

from __future__ import annotations

import os
import typing as t

from . import systemd, units
from .held import Problem
from .ledger import Ledger, Notes
from .record import DIRECTORY as RECORDS

#: Fails where it has found trouble, which is told for itself.
TELLS = "volt-cas-status.service"
_PROPERTIES = ("LoadState", "ActiveState", "SubState", "Result", "UnitFileState", "InvocationID")
#: Those that tell of failures: one for each unit that failed; and one that shows whether there can be any.
_TELLERS, _TELLER = "volt-cas-failure@*.service", "volt-cas-failure@volt-cas-status.service"
_AGAIN = "run the role volt_schedule again"


def note_declared(names: t.Iterable[str], records: str = RECORDS) -> None:
    """Which units are to be there: one that somebody removes is missed by that."""
    wanted = sorted(names)
    Ledger(records).change(lambda notes: notes._replace(units=wanted, ended={name: how for name, how in notes.ended.items() if name in wanted}))


def forget(records: str = RECORDS) -> None:
    """No schedule is left: the notes of the host are removed, unless units of the host stay."""
    if not Ledger(records).read().units:
        Ledger(records).forget()


def note_ended(unit: str, records: str = RECORDS) -> None:
    """Record how a run of a unit ended. A line of the unit itself calls this; systemd passes the result. Source: systemd.exec(5), $SERVICE_RESULT."""
    result, invocation = os.environ.get("SERVICE_RESULT", "success"), os.environ.get("INVOCATION_ID", "")
    why = None
    if result != "success":
        systemd.attempt("journalctl", "--sync")
        why = systemd.last_words(invocation)
    ended = {"result": result, "invocation": invocation, "reason": why or ""}
    Ledger(records).change(lambda notes: notes._replace(ended={**notes.ended, unit: ended}))


def problems(notes: Notes, directory: str = systemd.UNITS) -> t.List[Problem]:
    """Trouble of the units of the host itself: of those that were declared, and of others of ours in a directory."""
    if not systemd.running():
        return []
    present = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    ours = [name for name in present if units.is_host_wide(name) and units.is_ours(os.path.join(directory, name))]
    names = sorted({*notes.units, *ours})
    found = [_missing(name, os.path.join(directory, name)) for name in names if name not in ours]
    asked = [name for name in ours if "@" not in name and not name.endswith(".slice")]
    tellers = [_TELLER, _TELLERS] if any("@" in name for name in ours) else [_TELLERS]
    shown = systemd.show([*asked, *tellers], *_PROPERTIES) if names else {}
    for name, fields in sorted(shown.items()):
        why = systemd.stopped(name, fields, _AGAIN) if name.endswith(".timer") else systemd.unloaded(name, fields, _AGAIN)
        if why is not None:
            found.append(Problem(name, "stopped", why))
        elif not name.endswith(".timer"):
            found += _of_service(name, fields, notes.ended.get(name, {}))
    return found


def is_watched(directory: str = systemd.UNITS) -> bool:
    """Whether a unit looks for trouble every hour."""
    return systemd.running() and units.is_ours(os.path.join(directory, TELLS.replace(".service", ".timer")))


def _missing(name: str, path: str) -> Problem:
    """Problem of a declared unit whose file is missing or changed."""
    state = "masked" if os.path.islink(path) else "loaded" if os.path.lexists(path) else "not-found"
    why = systemd.unloaded(name, {"LoadState": state}, _AGAIN) or f"{name} was replaced by another unit; move {path} away, and {_AGAIN}."
    return Problem(name, "stopped", why)


def _of_service(name: str, fields: t.Mapping[str, str], ended: t.Mapping[str, str]) -> t.Iterator[Problem]:
    """:param ended: how its last run ended, as far as that is noted."""
    result = fields.get("Result") or "success"  # it remains until the next run begins
    invocation, words = fields.get("InvocationID", ""), None
    if result == "success" and fields.get("ActiveState") != "failed":
        result, invocation, words = str(ended.get("result", "success")), str(ended.get("invocation", "")), str(ended.get("reason", ""))
        if result == "success":
            return
    if name == TELLS:
        return
    unit = name[: -len(".service")]
    why = systemd.last_words(invocation) if words is None else words
    told = f": {systemd.plain(why).rstrip('.')}" if why else ""
    if "@" in name:
        of = unit.partition("@")[2]  # without parts: each attempt to notify is another run
        yield Problem(name, "failed", f"The notification that {of} failed could not be sent ({result}){told}; fix that, then run volt-backup notify --test.")
    else:
        yield Problem(name, "failed", f"{name} failed ({result}){told}; see journalctl -u {unit}, fix it, then start {name}.", [invocation])
