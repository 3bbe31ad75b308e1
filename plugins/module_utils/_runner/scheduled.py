# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The words of the command that timers call, and the one that tells how they fare. Each is an entry of WORDS.

::

    run W       wait for the workload's turn; pre command; create; prune; note the outcome; post command, whatever came before
    hook ...    in a unit these are lines of its own, outside of the service's hardening: due, pre, post; `run` then leaves them alone
    status      all schedules of the host
    drill       restore the newest backups to where nobody looks, and note that they could be
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import typing as t

from .._backup import create
from .._backup.manager import Manager
from .._schedule import drill, job as jobs, journal, status
from .._schedule.job import Job
from .._schedule.record import Record
from .._schedule.units import HOOKED
from .._store.errors import Incomplete, VoltError, reason
from .._tree.names import parse
from . import screen
from .upkeep import Arguments, Outcome, Word

#: Seconds between asking a command to end and ending it.
_GRACE = 10.0


class HookFailed(VoltError):
    """A command of the user's failed or took too long."""

    code = "hook"


# ---- run


def _run_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("workload", metavar="WORKLOAD")
    made.add_argument("--if-due", action="store_true", help="leave unless a backup has become due since the last run")


def _run(args: Arguments, _manager: Manager) -> Outcome:
    job = jobs.load(args.workload)
    record = Record(job.workload)
    with record.alone():
        if args.if_due and not record.due(job.slots):
            return Outcome({"changed": False, "due": False}, lambda: f"Workload {job.workload} is not due yet.\n")
        record.begin()
        by_hand = os.environ.get(HOOKED) != "unit"
        done: t.Optional[Outcome] = None
        failure: t.Optional[VoltError] = None
        try:
            if by_hand:
                _call(job, "pre")
            done = _back_up(job)
            failure = done.failure
        except VoltError as error:
            failure = error
        except OSError as error:
            failure = VoltError(f"Workload {job.workload} was not backed up: {reason(error)}.")
        facts = _facts(done.value) if done else {"workload": job.workload}
        told = False
        if failure is not None:
            _failed(record, failure, facts)
        elif done is not None:
            record.succeed(_success(done.value["backup"]), _invocation())
            told = journal.connected() and journal.send("success", _line(facts), facts)
        if by_hand:
            try:
                _call(job, "post", failure)
            except VoltError as error:
                _failed(record, error, facts, after_all=failure is None)
                failure = failure or error
            _tell_metrics(job)
    if failure is not None and done is None:
        raise failure
    text = "" if told else _line(facts) + "\n"
    return t.cast(Outcome, done)._replace(failure=failure, text=lambda: text)


def _back_up(job: Job) -> Outcome:
    manager = Manager(job.store, job.backup_dir, job.lock_timeout)
    made = manager.create(
        create.Request(
            job.workload, job.source, "scheduled", job.workload_mode, job.tags, None, job.exclude, job.exclude_caches, job.one_file_system, job.compression
        )
    )
    backup = made.backup
    value: t.Dict[str, t.Any] = {"backup": backup, "changed": True, "warnings": made.warnings, "pruned": None}
    if not backup["complete"]:
        lacks = f"lacks {backup['skipped_count']} path(s) that could not be read"
        failure = Incomplete(f"Backup {backup['id']} {lacks}; it is kept, and nothing was pruned.", backup=backup)
        return Outcome(value, str, failure)
    if job.keep is not None:
        try:
            done = manager.prune(job.workload, job.keep, ["scheduled"])
        except VoltError as error:
            return Outcome(value, str, type(error)(f"Backup {backup['id']} was made, but older ones could not be pruned: {error.message}"))
        value["pruned"] = {"kept": done.kept, "removed": done.removed}
    return Outcome(value, str)


def _facts(value: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    """What there is to say of a backup, each fact under its name."""
    backup, pruned = value["backup"], value["pruned"]
    return {
        "workload": backup["workload_name"],
        "backup": backup["id"],
        "complete": str(backup["complete"]).lower(),
        "files": backup["file_count"],
        "size": backup["total_size"],
        "new": backup["new_bytes"],
        "stored": backup["stored_bytes"],
        "seconds": f"{backup['duration'] / 1e9:.3f}",
        "pruned": len(pruned["removed"]) if pruned else 0,
    }


def _line(facts: t.Dict[str, t.Any]) -> str:
    return " ".join(f"{name}={fact}" for name, fact in facts.items())


def _failed(record: Record, failure: VoltError, facts: t.Dict[str, t.Any], after_all: bool = False) -> None:
    """Note a failure, and tell the journal unless one of the same run came before it."""
    if record.fail(failure.message, _invocation(), after_all) and journal.connected():
        # what went wrong is printed as well, so this need not be there twice if the journal does not take it
        journal.send("failure", _line({**facts, "reason": failure.message}), {**facts, "reason": failure.message})


def _tell_metrics(job: Job) -> None:
    """Whoever looks at figures sees this run in them. That they cannot be written makes no backup bad."""
    if job.metrics is not None:
        try:
            status.write_metrics(os.fsdecode(parse(job.metrics)))
        except VoltError as error:
            screen.complain(error.message)


def _success(backup: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    return {"backup_id": backup["id"], **{key: backup[key] for key in ("duration", "total_size", "new_bytes", "stored_bytes")}}


# ---- hook


def _hook_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("hook", choices=("due", "pre", "post"))
    made.add_argument("workload", metavar="WORKLOAD")


def _hook(args: Arguments, _manager: Manager) -> Outcome:
    job = jobs.load(args.workload)
    record = Record(job.workload)
    nothing = Outcome({"changed": False}, str)
    if args.hook == "due":
        return nothing._replace(status=int(not record.due(job.slots)))
    failure: t.Optional[VoltError] = None
    facts = {"workload": job.workload}
    if args.hook == "post":
        result = os.environ.get("SERVICE_RESULT", "success")
        if result == "exec-condition":
            return nothing  # nothing was due
        if result != "success":
            # the run itself knows better why it failed, unless it was ended before it could say so
            failure = VoltError(f"The service ended with {result} ({os.environ.get('EXIT_CODE', '')} {os.environ.get('EXIT_STATUS', '')}).")
            _failed(record, failure, facts)
    try:
        _call(job, args.hook, failure)
    except VoltError as error:
        _failed(record, error, facts)
        raise
    finally:
        if args.hook == "post":
            _tell_metrics(job)
    return nothing


def _invocation() -> str:
    """What tells this run of the unit from others; empty for a run by hand, also from a shell that some unit started."""
    return os.environ.get("INVOCATION_ID", "") if os.environ.get(HOOKED) == "unit" else ""


def _call(job: Job, hook: str, failure: t.Optional[VoltError] = None) -> None:
    """Run a command of the job's, if it has one; HookFailed if it fails or does not end in time. What it prints goes where we print."""
    command = job.pre_command if hook == "pre" else job.post_command
    if not command:
        return
    told = {"VOLT_WORKLOAD": job.workload, "VOLT_SOURCE": job.source, "VOLT_HOOK": hook}
    if hook == "post":
        told.update(VOLT_RESULT="failure" if failure else "success", VOLT_REASON=failure.message if failure else "")
    try:
        child = subprocess.Popen(list(command), stdin=subprocess.DEVNULL, env={**os.environ, **told}, start_new_session=True)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise HookFailed(f"The {hook}_command of workload {job.workload} cannot be run ({command[0]}: {why}); mend or remove it.") from None
    try:
        status_ = child.wait(job.command_timeout)
    except subprocess.TimeoutExpired:
        _end(child)
        raise HookFailed(
            f"The {hook}_command of workload {job.workload} did not end within {job.command_timeout} s and was ended; mend it, or raise command_timeout."
        ) from None
    except BaseException:
        _end(child)
        raise
    if status_:
        how = f"exit status {status_}" if status_ > 0 else f"signal {-status_}"
        raise HookFailed(f"The {hook}_command of workload {job.workload} failed ({command[0]}: {how}); see what it printed above.")


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End a command with all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE)


# ---- status


def _status_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("--check", action="store_true", help="exit 1 when a schedule is failing, overdue or stopped; for monitoring")
    made.add_argument("--metrics", metavar="FILE", help="also write them for Prometheus' node exporter")


def _status(args: Arguments, _manager: Manager) -> Outcome:
    rows = status.status()
    if args.metrics:
        status.write_metrics(args.metrics)
    trouble = [row["workload"] for row in rows if row["state"] in status.TROUBLE]
    value = {"schedules": rows, "count": len(rows), "trouble": trouble, "changed": False}
    return Outcome(value, lambda: _told(rows), status=int(bool(args.check and trouble)))


def _told(rows: t.List[t.Dict[str, t.Any]]) -> str:
    if not rows:
        return "No schedules.\n"
    cells = [(row["workload"], row["state"].upper() if row["state"] in status.TROUBLE else row["state"], _when(row["last_success"]),
              _when(row["last_failure"]), _when(row["last_proved"]), _when(row["next_elapse"]), row["reason"] or "") for row in rows]  # fmt: skip
    return screen.table(("WORKLOAD", "STATE", "LAST SUCCESS (UTC)", "LAST FAILURE", "LAST PROVED", "NEXT", "WHY"), cells)


def _when(text: t.Optional[str]) -> str:
    return text[:19].replace("T", " ") if text else "-"


# ---- drill


def _drill_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("workloads", metavar="WORKLOAD", nargs="*", help="of these (default: of all that have backups)")
    made.add_argument("--scratch", default=drill.SCRATCH, metavar="DIR", help="where to restore to, and remove it again (default: %(default)s)")
    made.add_argument("--dry-run", action="store_true", help="say what would be restored, write nothing")


def _drill(args: Arguments, manager: Manager) -> Outcome:
    done = drill.Driller(manager, args.scratch, args.dry_run)(args.workloads)
    value = {"drills": [one._asdict() for one in done], "changed": False}
    return Outcome(value, lambda: _drilled(done, args.dry_run), drill.failure(done))


def _drilled(done: t.List[drill.Drill], dry: bool) -> str:
    word = "would be restored" if dry else "proved"
    rows = [(one.workload, one.backup_id or "-", "FAILED" if one.reason else word, screen.size(one.total_size), screen.span(one.duration), one.reason or "")
            for one in done]  # fmt: skip
    return screen.table(("WORKLOAD", "BACKUP", "", "SIZE", "TOOK", "WHY"), rows, right=(3, 4))


WORDS = (
    Word("run", "run the scheduled backup of a workload now", _run_options, _run),
    Word("hook", "what a unit calls around a run", _hook_options, _hook),
    Word("status", "tell how the schedules of this host are doing", _status_options, _status),
    Word("drill", "restore the newest backups to a scratch directory, compare, and remove them again", _drill_options, _drill),
)
