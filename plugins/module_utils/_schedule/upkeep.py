# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What is wrong with the units of a host as a whole: those that collect and verify, and those that tell people of failures."""

from __future__ import annotations

import os
import typing as t

from . import systemd, units
from .held import Problem

#: Fails where it has found trouble, which is told for itself.
TELLS = "volt-cas-status.service"
_PROPERTIES = ("ActiveState", "SubState", "Result", "UnitFileState", "InvocationID")
#: Those that tell of failures: one for each unit that failed.
_TELLERS = "volt-cas-failure@*.service"


def problems(directory: str = systemd.UNITS) -> t.List[Problem]:
    """Trouble of the units of the host as a whole that lie in a directory and are ours."""
    if not systemd.running() or not os.path.isdir(directory):
        return []
    names = [name for name in sorted(os.listdir(directory)) if units.is_host_wide(name) and units.is_ours(os.path.join(directory, name))]
    asked = [name for name in names if "@" not in name and not name.endswith(".slice")]
    shown = systemd.show([*asked, _TELLERS], *_PROPERTIES) if names else {}
    found = [_of_timer(name, fields) if name.endswith(".timer") else _of_service(name, fields) for name, fields in sorted(shown.items())]
    return [problem for problem in found if problem is not None]


def _of_timer(name: str, fields: t.Mapping[str, str]) -> t.Optional[Problem]:
    if fields.get("ActiveState") != "active":
        return Problem(name, "stopped", f"{name} is not active; start it, or run the role volt_schedule again.")
    if fields.get("SubState") == "elapsed":
        return Problem(name, "stopped", f"{name} has no time to come; give it times that come again.")
    if fields.get("UnitFileState") == "disabled":
        return Problem(name, "stopped", f"{name} is disabled, so it does not start with the host; enable it, or run the role volt_schedule again.")
    return None


def _of_service(name: str, fields: t.Mapping[str, str]) -> t.Optional[Problem]:
    result = fields.get("Result") or "success"  # it stands until the next run begins
    if (result == "success" and fields.get("ActiveState") != "failed") or name == TELLS:
        return None
    unit = name[: -len(".service")]
    why = systemd.last_words(fields.get("InvocationID", ""))
    told = f": {systemd.plain(why).rstrip('.')}" if why else ""
    parts = [fields.get("InvocationID", "")]
    if "@" in name:
        parts = []  # each attempt is another run
        of = unit.partition("@")[2]
        return Problem(name, "failed", f"Nobody was told that {of} failed ({result}){told}; mend that, then run volt-backup notify --test.", parts)
    return Problem(name, "failed", f"{name} failed ({result}){told}; see journalctl -u {unit}, mend it, then start {name}.", parts)
