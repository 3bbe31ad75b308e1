# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The commands that timers call, and those that show the state of schedules. Each is an entry of COMMANDS.

::

    run W       the scheduled backup of a workload, in its unit or by hand (_schedule.run)
    hook ...    lines of a unit around a run (_schedule.hooks)
    status      all schedules of the host, its backups, and what is wrong with the host itself
    drill       restore the newest backups, or their copies on a remote, to a scratch directory, and note that they could be
    notify      tell people that a unit failed (_schedule.notify)
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._backup.manager import Manager
from .._base import NoStore, StoreError, UsageError, VoltError
from .._version import VERSION
from . import screen
from .remotes import REMOTE, opened
from .upkeep import Arguments, Command, Options, Outcome, argument, expect, words

if t.TYPE_CHECKING:
    from .._schedule import drill, survey

#: As the playbook's table has it too.
age = screen.age

# ---- run


def _run_options() -> Options:
    return (
        argument("workload", metavar="WORKLOAD", help="a workload that has a schedule"),
        argument("--if-due", action="store_true", help="exit unless a backup is due"),
    )


def _run(args: Arguments, _manager: Manager) -> Outcome:
    from .._schedule import run

    ran = run.run(args.workload, args.if_due, screen.complain)
    return Outcome(ran.value, lambda: ran.line, ran.failure)


# ---- hook


def _hook_options() -> Options:
    return (
        argument("hook", choices=("pre", "post"), help="before or after the run"),
        argument("workload", metavar="WORKLOAD", help="the workload of the calling unit"),
    )


def _hook(args: Arguments, _manager: Manager) -> Outcome:
    from .._schedule import hooks

    text = ""
    if args.hook == "pre":
        hooks.pre(args.workload, screen.complain)
    else:
        text = hooks.post(args.workload, os.environ.get("SERVICE_RESULT", "success"), screen.complain)
    return Outcome({"changed": False}, lambda: text)


# ---- status


def _status_options() -> Options:
    from .._schedule import public

    return (
        argument("--check", action="store_true", help="exit 1 if there is any problem; for monitoring"),
        argument("--metrics", metavar="FILE", help="also write metrics for Prometheus' node exporter"),
        argument("--publish", action="store_true", help=f"also update {public.PATH} and the metrics files; called by units"),
        argument("--ended", metavar="UNIT", help="record how this unit's run ended; called by the unit"),
        argument("--tell", action="store_true", help="exit 1 for new problems outside of backup runs; called by a unit"),
    )


def _status(args: Arguments, manager: Manager) -> Outcome:
    from .._schedule import job as jobs, metrics, public, survey, upkeep, watch

    failure: t.Optional[VoltError] = None
    if public.is_needed():
        if manager.is_named:
            raise VoltError(f"{jobs.DIRECTORY} cannot be read, and {public.PATH} only covers the host's own store; run as root, or omit the store.")
        if args.metrics or args.publish or args.tell or args.ended:
            raise VoltError(f"{jobs.DIRECTORY} cannot be read; run as root.")
        value = public.read()
    else:
        if args.ended:
            upkeep.note_ended(args.ended)
        if args.publish:
            public.publish(screen.complain)
        found = _expect_named(manager, survey.survey(named=manager))
        value = {**found.value(), "warnings": found.warnings}
        if args.metrics:
            metrics.write(metrics.text(found), args.metrics)
        failure = watch.new_trouble(found) if args.tell else None
    return Outcome({**value, "changed": False}, lambda: _told(value), failure, int(bool(args.check and value["trouble"])))


def _expect_named(manager: Manager, found: survey.Survey) -> survey.Survey:
    """With what is to be said where a store was named and there is none: on a host without schedules, NoStore. One that is known and away is told of anyway."""
    from .._schedule import held

    lack = None
    with contextlib.suppress(StoreError):
        lack = manager.lack() if manager.is_named and manager.places not in found.places else None
    if not isinstance(lack, NoStore):
        return found
    if not found.schedules:
        raise lack
    return found._replace(problems=[*found.problems, held.Problem("store", "store missing", lack.message)])


def _told(value: t.Dict[str, t.Any]) -> str:
    """Schedules, what has backups and no schedule, and the host's own trouble, a line each."""
    from .._schedule import status

    rows = [*value["schedules"], *(row for row in value["workloads"] if not row["scheduled"])]
    rows += [{"workload": problem["what"], **problem} for problem in value["problems"]]
    if not rows:
        return "No schedules.\n"
    times = ["newest_at", "last_success", "last_failure", "last_proved", "next_elapse"]
    heads = ["NEWEST", "SUCCESS", "FAILURE", "PROVED", "NEXT"]
    if any(row.get("copied_at") for row in rows):  # else there are no remotes
        times.insert(1, "copied_at")
        heads.insert(1, "COPIED")
    cells = [(row["workload"], row["state"].upper() if row["state"] in status.TROUBLE else row["state"],
              *(screen.ago(row.get(name)) for name in times), screen.speak(row.get("reason") or "")) for row in rows]  # fmt: skip
    return screen.fitted(("WORKLOAD", "STATE", *heads, "WHY"), cells)


# ---- version


def _version(_args: Arguments, _manager: Manager) -> Outcome:
    from .._schedule import job as jobs
    from .._store import features

    value = {"changed": False, "version": VERSION, "job_format": jobs.FORMAT, "features": sorted(features.KNOWN)}
    return Outcome(value, lambda: f"volt-backup {VERSION}\n")


# ---- drill


def _drill_options() -> Options:
    from .._schedule import drill

    return (
        argument("workloads", metavar="WORKLOAD", nargs="*", help="workloads (default: all with backups)"),
        argument("--scratch", default=drill.SCRATCH, metavar="DIR", help="scratch directory (default: %(default)s)"),
        argument("--command", type=words, metavar="WORDS", help="judge each tree by a command (default: that of the schedule; quoted as in a shell)"),
        argument("--command-timeout", type=int, default=600, metavar="SECONDS", help="how long that may take (default: %(default)s)"),
        argument("--host", metavar="NAME", help="with --remote, whose copies are restored (default: those of this host)"),
        *REMOTE,
        argument("--dry-run", action="store_true", help="show what would be restored, write nothing"),
    )


def _drill(args: Arguments, manager: Manager) -> Outcome:
    from .._proof import trial
    from .._schedule import drill

    copies = drill.Copies(opened(args, manager), args.host) if args.remote is not None else None
    if copies is None and (args.host or args.identity):
        raise UsageError("--host and --identity are for a remote; add --remote, or omit them.")
    if copies is None and len(args.workloads) == 1:  # one of several keeps no other from its turn
        expect(manager, args.workloads[0])
    command = None if args.command is None else trial.Command(args.command, args.command_timeout)
    done = drill.Driller(manager, args.scratch, args.dry_run, command=command, copies=copies)(args.workloads)
    value = {"drills": [one._asdict() for one in done], "changed": False}
    return Outcome(value, lambda: _drilled(done, args.dry_run), drill.failure(done))


def _drilled(done: t.List[drill.Drill], dry: bool) -> str:
    from .._schedule import drill

    word = "would be restored" if dry else "proved"
    rows = [(one.workload or "-", one.backup_id or "-", "FAILED" if one.reason else _but(word, one), screen.size(one.total_size),
             screen.span(one.duration), screen.speak(one.reason or "")) for one in done]  # fmt: skip
    notes = [f"{one.workload}: {screen.speak(drill.passed_over(one))}.\n" for one in done if one.passed_over]
    notes += [f"{one.workload}: {screen.speak(t.cast(str, drill.unloaded(one)))}.\n" for one in done if drill.unloaded(one)]
    return screen.fitted(("WORKLOAD", "BACKUP", "", "SIZE", "TOOK", "WHY"), rows, right=(3, 4)) + "".join(notes)


def _but(word: str, one: drill.Drill) -> str:
    unstable = f", except {one.unstable_count} unstable path(s)" if one.unstable_count else ""
    newer = f", but not {len(one.passed_over)} newer backup(s)" if one.passed_over else ""
    return ("copy " if one.remote else "") + word + unstable + newer


# ---- notify


def _notify_options() -> Options:
    from .._schedule import notify

    return (
        argument("unit", metavar="UNIT", nargs="?", help="the unit that failed"),
        argument("--by", choices=(notify.PROGRAMS, notify.NETWORK), help="notify only by these (default: by all)"),
        argument("--test", action="store_true", help="send a test notification"),
    )


def _notify(args: Arguments, _manager: Manager) -> Outcome:
    from .._schedule import notify

    if bool(args.unit) == args.test:
        raise UsageError("No unit was given; give the unit that failed, or --test.")
    facts, used = notify.notify(args.unit, screen.complain, [args.by] if args.by else (notify.PROGRAMS, notify.NETWORK))
    told = f"Notified by {', '.join(used)}." if used else "No notification is configured."
    return Outcome({"changed": False, "told": used, **facts}, lambda: f"{facts['text']} {told}\n")


COMMANDS = (
    Command("run", "run the scheduled backup of a workload now", _run_options, _run, reads=False),
    Command("hook", "commands before and after a run; called by units", _hook_options, _hook, reads=False),
    Command("status", "show the state of this host's schedules", _status_options, _status, reads=False),
    Command("drill", "restore the newest backups to a scratch directory, compare, and remove them again", _drill_options, _drill),
    Command("version", "print the version", lambda: (), _version, reads=False),
    Command("notify", "send a notification that a unit failed; called by units", _notify_options, _notify, reads=False),
)
