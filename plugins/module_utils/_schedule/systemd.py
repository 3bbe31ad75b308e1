# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The calls to systemd that schedules need: few, each for many units at once."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import tempfile
import typing as t

from .._base import UsageError, VoltError, brief, process, reason
from . import journal

UNITS = "/etc/systemd/system"
STAMPS = "/var/lib/systemd/timers"
_CALENDAR = re.compile(r"[A-Za-z0-9*/.,:~_+ -]+\Z")
_AT_ONCE = 200
_PATIENCE, _SHORT = 300.0, 20.0
#: How our command begins what it complains of.
OURS = "volt-backup: "


class SystemdError(VoltError):
    """systemd is absent, or refused."""

    code = "systemd"


class MountFailed(VoltError):
    """A mount that a run needs has failed, so that systemd did not start it."""

    code = "mount_failed"


def running() -> bool:
    """Whether systemd is this host's init. Source: sd_booted(3)."""
    return os.path.isdir("/run/systemd/system")


def call(*words: str) -> str:
    """Run a program of systemd; its output, or SystemdError with its error output."""
    done = _run(*words)
    if done.status:
        raise SystemdError(f"{' '.join(words[:3])} failed: {_complaint(done)}")
    return done.output


def attempt(*words: str, patience: t.Optional[float] = _PATIENCE) -> t.Optional[str]:
    """Run one that may fail, for example because there is nothing to undo; its error output, or None.

    :param patience: seconds; None for as long as it takes.
    """
    done = _run(*words, patience=patience)
    return _complaint(done) if done.status else None


def _run(*words: str, patience: t.Optional[float] = _PATIENCE, zone: t.Optional[str] = "UTC") -> process.Ended:
    """:param zone: time zone; None for the host's."""
    plain = {**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    plain.pop("TZ", None)
    plain.update({} if zone is None else {"TZ": zone})
    try:
        return process.run(words, plain, patience=patience, capture=True)
    except subprocess.TimeoutExpired:
        raise SystemdError(f"{words[0]} did not respond within {patience:.0f} s; check systemd on the host.") from None
    except OSError as error:
        raise SystemdError(f"{words[0]} cannot be run: {reason(error)}; use `manage_units: false` on a host without systemd.") from None


def _complaint(done: process.Ended) -> str:
    return brief(" ".join((done.errors or done.output).split()), 500) or done.how


def show(names: t.Sequence[str], *properties: str) -> t.Dict[str, t.Dict[str, str]]:
    """Properties of units by name. Unknown units have them too: systemd returns the defaults."""
    found: t.Dict[str, t.Dict[str, str]] = {}
    for start in range(0, len(names), _AT_ONCE):
        text = call("systemctl", "show", "--property=" + ",".join(("Id", *properties)), "--", *names[start : start + _AT_ONCE])
        for block in text.split("\n\n"):
            fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            if fields.get("Id"):
                found[fields["Id"]] = fields
    return found


def unloaded(name: str, fields: t.Mapping[str, str], again: str) -> t.Optional[str]:
    """Why a unit that is to be there cannot start, if it cannot: a sentence.

    :param fields: of it, LoadState among them. :param again: what else fixes it.
    """
    state = fields.get("LoadState", "loaded")
    if state == "masked":
        return f"{name} is masked, so it never starts; unmask it, or {again}."
    if state == "not-found":
        return f"{name} is missing; {again}."
    return None if state == "loaded" else f"systemd cannot read {name} ({state}); {again}."


def stopped(name: str, fields: t.Mapping[str, str], again: str) -> t.Optional[str]:
    """Why a timer that is to run does not, if it does not. Parameters as before, with ActiveState, SubState and UnitFileState."""
    why = unloaded(name, fields, again)
    if why is not None:
        return why
    if fields.get("ActiveState") != "active":
        return f"{name} is not active; start it, or {again}."
    if fields.get("SubState") == "elapsed":
        return f"{name} has no future time; set times that recur."
    if fields.get("UnitFileState") == "disabled":
        return f"{name} is disabled, so it does not start with the host; enable it, or {again}."
    return None


def failed_mounts(services: t.Sequence[str], down: t.Container[str] = ("failed",)) -> t.Dict[str, t.List[str]]:
    """Where the mounts belong that services require and that have failed, by service.

    :param down: states of a mount that count.
    """
    required = {name: fields.get("Requires", "").split() for name, fields in (show(services, "Requires") if services else {}).items()}
    mounts = sorted({unit for units in required.values() for unit in units if unit.endswith(".mount")})
    shown = show(mounts, "ActiveState", "Where") if mounts else {}
    away = {unit: fields.get("Where") or unit for unit, fields in shown.items() if fields.get("ActiveState") in down}
    found = {name: [away[unit] for unit in units if unit in away] for name, units in required.items()}
    return {name: places for name, places in found.items() if places}


def missing_mount(service: str) -> t.Optional[MountFailed]:
    """Why a service was not started that is not active and has not failed, if a mount is why."""
    places = failed_mounts([service], ("failed", "inactive")).get(service)
    return MountFailed(of_mounts(places)) if places else None


def of_mounts(places: t.Sequence[str]) -> str:
    """The message about mounts that failed."""
    return f"Mount {', '.join(places)} failed, so nothing was backed up; mount it, or fix its unit, then run again."


def last_words(invocation: str, *options: str) -> t.Optional[str]:
    """The last line that our command, or one of the user's, printed in a run of a unit; None if the journal does not tell.

    :param options: of journalctl, to choose among lines.
    """
    if not invocation:
        return None
    words = ["journalctl", "--quiet", "--no-pager", "--output=cat", "--lines=1", f"--identifier={journal.IDENTIFIER}", *options]
    words += [f"_SYSTEMD_INVOCATION_ID={invocation}", "_TRANSPORT=stdout"]  # no entries, which were not printed
    try:
        done = _run(*words, patience=_SHORT)
    except SystemdError:
        return None
    return brief(" ".join(done.output.split()) if not done.status else "", 500) or None


def plain(line: str) -> str:
    """A line of our command's without its name."""
    return line[len(OURS) :] if line.startswith(OURS) else line


def check_calendar(text: str) -> str:
    """A calendar expression; UsageError for an invalid one. Without systemd on the host only its characters are checked."""
    if not _CALENDAR.match(text) or not text.strip():
        raise UsageError(f"Calendar expression {text!r} is invalid; see systemd.time(7), for example 'Mon..Fri 03:00 UTC'.")
    try:
        done = _run("systemd-analyze", "calendar", "--", text)
    except SystemdError:
        return text
    if done.status:
        raise UsageError(f"Calendar expression {text!r} is invalid ({_complaint(done)}); see systemd.time(7).")
    if re.search(r"^\s*Next elapse: never$", done.output, re.MULTILINE):
        raise UsageError(f"Calendar expression {text!r} has no future time; see systemd.time(7).")
    return text


def period(calendar: str) -> t.Optional[float]:
    """The least seconds between two of the next times of a calendar expression; None if unknown."""
    times = coming(calendar, 10)
    return min((later - earlier for earlier, later in zip(times, times[1:])), default=None)


def coming(calendar: str, count: int, after: t.Optional[float] = None) -> t.List[float]:
    """Times of a calendar expression, in seconds since 1970; none if unknown.

    :param after: the first ones after this moment; None for the next ones from now on.
    """
    base = [] if after is None else [f"--base-time=@{int(after)}"]
    try:
        # in the host's time zone, as a timer has it: with another one each time is also shown in UTC
        done = _run("systemd-analyze", "calendar", f"--iterations={count}", *base, "--", calendar, zone=None)
    except SystemdError:
        return []
    times = [moment(text) for text in re.findall(r"^ *(?:Next elapse|Iter[a-z.]* #\d+|\(in UTC\)): (.*)$", done.output, re.MULTILINE)]
    return [time for time in times if time is not None]


def moment(text: str) -> t.Optional[float]:
    """A time that systemd shows in UTC, in seconds since 1970."""
    match = re.match(r"[A-Z][a-z]{2} (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC\Z", text)
    if not match:
        return None
    return datetime.datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=datetime.timezone.utc).timestamp()


def check_units(texts: t.Mapping[str, str]) -> None:
    """Let systemd check units before they are installed; SystemdError with its objections."""
    with tempfile.TemporaryDirectory(prefix="volt-backup-") as directory:
        paths = []
        for name, text in texts.items():
            paths.append(os.path.join(directory, name))
            with open(paths[-1], "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(text)
        for start in range(0, len(paths), _AT_ONCE):
            try:
                done = _run("systemd-analyze", "verify", *paths[start : start + _AT_ONCE])
            except SystemdError:
                return  # not there
            # it also speaks of other units of the host, which are none of our business
            against = [line for line in done.errors.splitlines() if directory in line or any(line.startswith(f"{name}:") for name in texts)]
            if done.status and against:
                raise SystemdError(f"systemd rejects a unit: {' '.join(against)[:500].replace(directory + '/', '')}")
