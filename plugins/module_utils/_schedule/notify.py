# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Notifies people that a unit failed: by a command, mail, a webhook, or all of them.

`volt-cas-failure@.service` calls this. Every setting is tried. Errors are reported at the end, without the secrets in the settings.
"""

from __future__ import annotations

import os
import typing as t

from .._backup import host
from .._backup.ids import is_workload
from .._base import VoltError, brief, tolerated
from . import hooks, job as jobs, notification, public, status, systemd, upkeep, watch
from .record import RunRecord

Facts = t.Dict[str, t.Any]


class NotTold(VoltError):
    """A notification could not be sent."""

    code = "notify"


#: By which ways people are told: those that start programs of the host, those that speak to a server, or both.
PROGRAMS, NETWORK = "programs", "network"
#: No fact that is sent is longer. Paths and words of programs may be in it, so each is one line.
_MOST = 4000


def notify(unit: t.Optional[str], complain: t.Callable[[str], None], by: t.Collection[str] = (PROGRAMS, NETWORK)) -> t.Tuple[Facts, t.List[str]]:
    """Send a notification of a unit's failure, or without a unit a test: (the text, the settings used).

    The unit that calls this does so twice: hardened, by ways that need the network, and then outside of that, by the host's programs.
    """
    every = notification.load()
    settings = {name: way for name, way in every.items() if (PROGRAMS if notification.is_program(every, name) else NETWORK) in by}
    workload = _workload(unit)
    if workload and NETWORK in by:
        with tolerated(VoltError):  # the notification is sent even if it cannot be recorded
            note_failure(workload, t.cast(str, unit), complain)
    facts = facts_of(unit or "test")
    if unit is None:
        facts.update(text=f"This is a test of volt-backup on {facts['host']}; nothing failed.", event="test", reason="This is a test.")
    used = [name for name in notification.NAMES if name in settings]
    if unit is None and not used:
        raise NotTold(f"No notification is configured: {notification.PATH} does not exist. Set volt_schedule_on_failure of the role volt_schedule.")
    told = bool(settings) or not every
    try:
        tell(settings, facts)
    except NotTold as error:
        told = len(error.details["ways"]) < len(settings)
        raise
    finally:
        if unit is not None and told:
            with tolerated(VoltError):  # what is not recorded is notified again
                watch.note_told(unit, workload, _invocation(unit))
        if unit is not None and PROGRAMS in by:
            public.publish(complain)
    if unit is None and systemd.running():
        systemd.attempt("systemctl", "reset-failed", "--", "volt-cas-failure@*.service")  # the problem there is fixed
    return facts, used


def _workload(unit: t.Optional[str]) -> t.Optional[str]:
    """The workload whose unit this is."""
    name = unit[len("volt-backup-") :] if unit and unit.startswith("volt-backup-") else ""
    return name if is_workload(name) else None


def facts_of(unit: str) -> Facts:
    """What is known of a unit's failure."""
    here = host.name()
    workload = _workload(unit)
    note = RunRecord(workload).read() if workload else {}
    failure = note.get("failure", {})
    why = brief((failure.get("reason") if workload else _of_unit(unit)) or f"See journalctl -u {unit}.", _MOST)
    success = note.get("success", {}).get("at")
    return {
        "text": f"{_what(unit, workload)} on {here}: {why}",
        "event": "failure",
        "host": here,
        "unit": unit,
        "workload": workload,
        "reason": why,
        "source": _source(workload) if workload else None,
        "failures": note.get("failures"),
        "last_success": status.shown(success),
    }


def _what(unit: str, workload: t.Optional[str]) -> str:
    """What happened, in a few words."""
    if f"{unit}.service" == upkeep.TELLS:
        return "Trouble with backups"
    return f"{f'Backup of {workload}' if workload else unit} failed"


def _of_unit(unit: str) -> t.Optional[str]:
    """The last output of a unit of the host itself, and how it ended."""
    words = systemd.last_words(_invocation(unit))
    result = _monitored(unit).get("MONITOR_SERVICE_RESULT") or _shown(unit, "Result") or "success"
    return systemd.plain(words) if words else (f"The service ended with {result}; see journalctl -u {unit}." if result != "success" else None)


def _invocation(unit: str) -> str:
    """The facts of the failed run, if known."""
    return _monitored(unit).get("MONITOR_INVOCATION_ID") or _shown(unit, "InvocationID")


def _monitored(unit: str) -> t.Mapping[str, str]:
    """The result of the failed run from systemd, which may not be the last. Source: systemd.exec(5)."""
    return os.environ if os.environ.get("MONITOR_UNIT") == f"{unit}.service" else {}


def _shown(unit: str, name: str) -> str:
    service = f"{unit}.service"
    return systemd.show([service], name).get(service, {}).get(name, "") if systemd.running() else ""


def _source(workload: str) -> t.Optional[str]:
    with tolerated(VoltError):
        source = jobs.load(workload).source
        return None if source is None else brief(source, _MOST)
    return None


def note_failure(workload: str, unit: str, complain: t.Callable[[str], None]) -> None:
    """Note a failure that no line of the unit could, and call the address for it: of one that was killed, whose command is gone, or that systemd did
    not start."""
    failure = _unnoted(workload, unit)
    if failure is not None:
        RunRecord(workload).fail(*failure)
        hooks.announce(jobs.load(workload), "failure", {"reason": failure[0].message}, complain)


def _unnoted(workload: str, unit: str) -> t.Optional[t.Tuple[VoltError, str]]:
    """Such a failure, and of which run of the unit."""
    name = f"{unit}.service"
    shown = systemd.show([name], "ActiveState", "InvocationID", "Result").get(name, {}) if systemd.running() else {}
    if shown.get("ActiveState") == "failed":
        invocation = shown.get("InvocationID", "")
        if invocation and RunRecord(workload).read().get("failure", {}).get("invocation") != invocation:
            return VoltError(f"{name} failed ({shown.get('Result')}) without recording a reason; see journalctl -u {unit}."), invocation
    elif shown.get("ActiveState") == "inactive":  # else another run has come since
        missing = systemd.missing_mount(name)
        if missing is not None:
            return missing, ""
    return None


def tell(settings: notification.Settings, facts: Facts) -> None:
    """Tell by all settings; NotTold names those that failed."""
    against = {}
    for name in notification.NAMES:
        if settings.get(name):
            from . import send  # only here: see there

            try:
                send.send(settings, name, facts)
            except send.NotSent as error:
                against[name] = f"{name}: {error}"
    if against:
        raise NotTold(f"The notification could not be sent by {'; '.join(against.values())}. It said: {facts['text']}", ways=list(against))
