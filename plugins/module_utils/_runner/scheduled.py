# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The words of the command that timers call, and the one that tells how they fare. Each is an entry of WORDS.

::

    run W       in a unit: create; prune; note the outcome
                by hand, where the workload has a unit: start that, wait, tell what became of it; so no two runs ever mix their hooks
                by hand, where it has none: wait for the workload's turn; pre command; as above; post command, whatever came before
    hook ...    lines of a unit of their own, outside of its hardening. pre: note that a run begins, run the pre command
                post: note why a run failed that could not; run the post command; tell the journal how all of it went
    status      all schedules of the host
    drill       restore the newest backups to where nobody looks, and note that they could be

A timer that only ticks starts a unit that leaves again: none of its lines does anything before a slot has begun.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import time
import typing as t

from .._backup import create
from .._backup.manager import Manager, Query
from .._base.errors import Incomplete, Interrupted, UsageError, VoltError, reason
from .._base.text import parse, show
from .._schedule import drill, job as jobs, journal, process, status, systemd
from .._schedule.job import Job
from .._schedule.record import RunRecord
from .._schedule.units import HOOKED
from . import screen
from .upkeep import Arguments, Command, Outcome

#: In the environment of a command before or after a backup: of which workload.
_WITHIN = "VOLT_BACKUP_WITHIN"


class HookFailed(VoltError):
    """A command of the user's failed or took too long."""

    code = "hook"


# ---- run


def _run_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("workload", metavar="WORKLOAD")
    made.add_argument("--if-due", action="store_true", help="leave unless a backup has become due since the last run")


def _run(args: Arguments, _manager: Manager) -> Outcome:
    record = RunRecord(args.workload)
    job = _job(args.workload, record)
    if _in_unit(job.workload):
        return _run_in_unit(job, record)
    if os.environ.get(_WITHIN) == job.workload:
        raise UsageError(f"A command before or after a backup of {job.workload} cannot back up {job.workload}; take that out of it.")
    if args.if_due and not record.due(job.slots):
        return _not_due(job)
    if _has_unit(job):
        return _run_unit(job, record)
    return _run_by_hand(job, record)


def _has_unit(job: Job) -> bool:
    """Whether systemd has a unit to run the job, and we are not in it: one that does not know of hooks is not to wait for itself."""
    service = _service(job)
    if not systemd.running() or systemd.show([service], "LoadState").get(service, {}).get("LoadState") != "loaded":
        return False
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
            return not any(line.rstrip("\n").endswith(f"/{service}") for line in file)
    except OSError:
        return True


def _job(workload: str, record: RunRecord) -> Job:
    """The job; where a unit cannot read it, that is noted."""
    try:
        return jobs.load(workload)
    except VoltError as error:
        if _in_unit(workload):
            with contextlib.suppress(VoltError):
                record.fail(error, _invocation(workload))
        raise


def _service(job: Job) -> str:
    return f"{job.unit}.service"


def _not_due(job: Job) -> Outcome:
    return Outcome({"changed": False, "due": False}, lambda: f"Workload {job.workload} is not due yet.\n")


def _is_due(job: Job, record: RunRecord) -> bool:
    """Whether a start of the unit means anything. Where the timer knows the slots, all do."""
    return job.slots is None or not job.slots.ticks or record.due(job.slots)


def _run_in_unit(job: Job, record: RunRecord) -> Outcome:
    invocation = _invocation(job.workload)
    with record.alone():
        if not record.is_run_of(invocation):
            if job.pre_command or not _is_due(job, record):  # whoever runs the pre command has seen that it is not due
                return _not_due(job)
            record.begin(invocation)
        done, failure = _try(job)
        if failure is None and done is not None:
            record.succeed(_success(done, job), invocation)
        elif failure is not None:
            _failed(record, failure, _facts(done, job), invocation)
    if failure is not None and done is None:
        raise failure
    return t.cast(Outcome, done)._replace(failure=failure, text=lambda: "")  # the post hook tells it, once all has gone well


def _run_unit(job: Job, record: RunRecord) -> Outcome:
    """Start the unit, once whoever runs it now has done so, and tell what became of it."""
    service = _service(job)
    _wait(service)
    before = record.read().get("run")
    record.ask()
    try:
        complaint = systemd.attempt("systemctl", "start", "--", service, patience=None)
        _wait(service)  # who stops it ends the start before it has ended
    except Interrupted as error:
        raise Interrupted(f"{error.message.partition(';')[0]}; the run goes on in {service}, and systemctl stop ends it.", **error.details) from None
    note = record.read()
    manager = Manager(job.store, job.backup_dir, job.lock_timeout)
    success, failure = note.get("success", {}), note.get("failure", {})
    run = note.get("run") if note.get("run") != before else None
    if run is None:
        record.unask()
        raise VoltError(f"{service} ran nothing: {complaint or 'see its own lines'}; see journalctl -u {job.unit}, or declare the schedule again.")
    if success.get("invocation") == run and systemd.show([service], "ActiveState")[service].get("ActiveState") != "failed":
        facts = success.get("facts", {})
        value = {"backup": _found(manager, success["backup_id"]), "changed": True, "warnings": [], "pruned": facts.get("pruned", 0)}
        return Outcome(value, lambda: _line(facts) + "\n")
    known = failure if failure.get("invocation") == run else {}
    why = known.get("reason") or f"{service} failed{f' ({complaint})' if complaint else ''}; see journalctl -u {job.unit}."
    details = {"backup": _found(manager, known["backup_id"])} if known.get("backup_id") else {}
    error = (Incomplete if known.get("code") == Incomplete.code else VoltError)(why, **details)
    error.code = known.get("code") or error.code
    raise error


def _wait(service: str) -> None:
    """Until a unit does nothing."""
    while systemd.show([service], "ActiveState")[service].get("ActiveState") in ("activating", "deactivating"):
        time.sleep(0.5)


def _found(manager: Manager, backup: str) -> t.Optional[t.Dict[str, t.Any]]:
    found = manager.find(Query(id=backup))
    return found[0] if found else None


def _run_by_hand(job: Job, record: RunRecord) -> Outcome:
    """All of it, where nobody else does any of it: on a host without systemd, or whose units somebody else manages."""
    done: t.Optional[Outcome] = None
    failure: t.Optional[VoltError] = None
    with record.alone():
        record.begin()
        try:
            _call(job, "pre")
            done, failure = _try(job)
        except VoltError as error:
            failure = error
        succeeded = failure is None
        try:
            if succeeded:
                record.succeed(_success(t.cast(Outcome, done), job), "")
            else:
                _failed(record, t.cast(VoltError, failure), _facts(done, job), "")
        except VoltError as error:  # a full disk, say; the post command runs all the same
            failure = failure or error
        try:
            _call(job, "post", failure)
        except VoltError as error:
            failure = failure or error
            _failed(record, error, _facts(done, job), "", after_all=succeeded)
        finally:
            _tell_metrics(job)
    if failure is not None and done is None:
        raise failure
    return t.cast(Outcome, done)._replace(failure=failure)


def _try(job: Job) -> t.Tuple[t.Optional[Outcome], t.Optional[VoltError]]:
    """Back up; what came of it, as far as it came, and what went wrong. Nothing is raised, for what comes after must come in any case."""
    try:
        done = _back_up(job)
        return done, done.failure
    except VoltError as error:
        return None, error
    except OSError as error:
        return None, VoltError(f"Workload {job.workload} was not backed up: {reason(error)}.")
    except Exception as error:  # a bug of ours
        return None, VoltError(f"Workload {job.workload} was not backed up, by a fault of volt-backup ({type(error).__name__}: {error}); report it.")


def _back_up(job: Job) -> Outcome:
    manager = Manager(job.store, job.backup_dir, job.lock_timeout)
    _refuse_emptied(job, manager)
    made = manager.create(
        create.CreateRequest(
            job.workload, job.source, "scheduled", job.workload_mode, job.tags, None, job.exclude, job.exclude_caches, job.one_file_system, job.compression
        )
    )
    backup = made.backup
    value: t.Dict[str, t.Any] = {"backup": backup, "changed": True, "warnings": made.warnings, "pruned": 0}
    outcome = Outcome(value, lambda: _line(_facts(outcome, job)) + "\n")
    if not backup["complete"]:
        lacks = f"lacks {backup['skipped_count']} path(s) that could not be read"
        return outcome._replace(failure=Incomplete(f"Backup {backup['id']} {lacks}; it is kept, and nothing was pruned.", backup=backup))
    if job.keep is not None:
        try:
            value["pruned"] = len(manager.prune(job.workload, job.keep, ["scheduled"]).removed)
        except VoltError as error:
            return outcome._replace(failure=type(error)(f"Backup {backup['id']} was made, but older ones could not be pruned: {error.message}"))
    return outcome


def _refuse_emptied(job: Job, manager: Manager) -> None:
    """A file system that is not mounted looks like an empty directory. Backups of that would be green, and push the good ones out."""
    with contextlib.suppress(OSError):  # what cannot be listed is told of by the backup itself
        if not os.listdir(parse(job.source)):
            newest = manager.find(Query(job.workload, "scheduled", limit=1))
            if newest and newest[0]["file_count"] and newest[0]["source_path"] == show(os.path.realpath(parse(job.source))):
                raise VoltError(
                    f"Source {job.source} is empty, and {newest[0]['id']} of it is not; mount what belongs there. If it is meant to be empty, back it up once"
                    f" with volt-backup create {job.workload} --type scheduled --source {job.source}."
                )


def _facts(done: t.Optional[Outcome], job: Job) -> t.Dict[str, t.Any]:
    """What there is to say of a run, each fact under its name."""
    if done is None:
        return {"workload": job.workload}
    backup = done.value["backup"]
    return {
        "workload": job.workload,
        "backup": backup["id"],
        "complete": str(backup["complete"]).lower(),
        "files": backup["file_count"],
        "size": backup["total_size"],
        "new": backup["new_bytes"],
        "stored": backup["stored_bytes"],
        "seconds": f"{backup['duration'] / 1e9:.3f}",
        "pruned": done.value["pruned"],
    }


def _line(facts: t.Dict[str, t.Any]) -> str:
    return " ".join(f"{name}={fact}" for name, fact in facts.items())


def _failed(record: RunRecord, failure: VoltError, facts: t.Dict[str, t.Any], invocation: str, after_all: bool = False) -> None:
    """Note a failure, and tell the journal unless one of the same run came before it."""
    if record.fail(failure, invocation, after_all) and journal.connected():
        # what went wrong is printed as well, so this need not be there twice if the journal does not take it
        journal.send("failure", _line({**facts, "reason": failure.message}), {**facts, "reason": failure.message})


def _tell_metrics(job: Job) -> None:
    """Whoever looks at figures sees this run in them. That they cannot be written makes no backup bad."""
    if job.metrics is not None:
        try:
            status.write_metrics(os.fsdecode(parse(job.metrics)))
        except VoltError as error:
            screen.complain(error.message)


def _success(done: Outcome, job: Job) -> t.Dict[str, t.Any]:
    """What is noted of a run that succeeded."""
    backup = done.value["backup"]
    kept = {key: backup[key] for key in ("duration", "total_size", "new_bytes", "stored_bytes")}
    return {"backup_id": backup["id"], **kept, "facts": _facts(done, job)}


# ---- hook


def _hook_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("hook", choices=("pre", "post"))
    made.add_argument("workload", metavar="WORKLOAD")


def _hook(args: Arguments, _manager: Manager) -> Outcome:
    record = RunRecord(args.workload)
    job = _job(args.workload, record)
    invocation = _invocation(job.workload)
    if args.hook == "pre":
        if _is_due(job, record):
            record.begin(invocation)
            try:
                _call(job, "pre")
            except VoltError as error:
                _failed(record, error, {"workload": job.workload}, invocation)
                raise
        return Outcome({"changed": False}, str)
    try:
        return _post(job, record, invocation, os.environ.get("SERVICE_RESULT", "success"))
    finally:
        _tell_metrics(job)


def _post(job: Job, record: RunRecord, invocation: str, result: str) -> Outcome:
    """After a run of a unit, however it went. The post command runs whatever else fails here, for a pre command may have stopped something."""
    note, facts = record.read(), {"workload": job.workload}
    if result == "success" and note.get("run") != invocation:
        return Outcome({"changed": False}, str)  # nothing was due
    failure: t.Optional[VoltError] = None
    wrong: t.List[VoltError] = []
    if result != "success":
        # the run itself knows better why it failed, unless it was ended before it could say so
        known = note.get("failure", {})
        why = f"The service ended with {result} ({os.environ.get('EXIT_CODE', '')} {os.environ.get('EXIT_STATUS', '')})."
        failure = VoltError(known["reason"] if known.get("invocation") == invocation else why)
        try:
            _failed(record, failure, facts, invocation)
        except VoltError as error:
            wrong.append(error)
    try:
        _call(job, "post", failure)
    except VoltError as error:
        wrong.append(error)
        _failed(record, error, facts, invocation)
    if wrong:
        raise wrong[-1]
    text = ""
    if failure is None:
        facts = note.get("success", {}).get("facts", facts)
        if not (journal.connected() and journal.send("success", _line(facts), facts)):
            text = _line(facts) + "\n"
    return Outcome({"changed": False}, lambda: text)


def _in_unit(workload: str) -> bool:
    """Whether we are a line of the workload's own unit; a shell that some unit started is none."""
    return os.environ.get(HOOKED) in (workload, "unit")  # the latter in units of the first versions


def _invocation(workload: str) -> str:
    """What tells this run of the unit from others; empty for a run by hand."""
    return os.environ.get("INVOCATION_ID", "") if _in_unit(workload) else ""


def _call(job: Job, hook: str, failure: t.Optional[VoltError] = None) -> None:
    """Run a command of the job's, if it has one; HookFailed if it fails or does not end in time. What it prints goes where we print."""
    command = job.pre_command if hook == "pre" else job.post_command
    if not command:
        return
    told = {"VOLT_WORKLOAD": job.workload, "VOLT_SOURCE": job.source, "VOLT_HOOK": hook}
    if hook == "post":
        told.update(VOLT_RESULT="failure" if failure else "success", VOLT_REASON=failure.message if failure else "")
    # what it may start, such as a run of another workload, is none of our unit
    inherited = {name: value for name, value in os.environ.items() if name not in (HOOKED, "INVOCATION_ID")}
    inherited[_WITHIN] = job.workload
    try:
        done = process.run(command, {**inherited, **told}, patience=job.command_timeout)
    except subprocess.TimeoutExpired:
        raise HookFailed(
            f"The {hook}_command of workload {job.workload} did not end within {job.command_timeout} s and was ended; mend it, or raise command_timeout."
        ) from None
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise HookFailed(f"The {hook}_command of workload {job.workload} cannot be run ({command[0]}: {why}); mend or remove it.") from None
    if done.status:
        raise HookFailed(f"The {hook}_command of workload {job.workload} failed ({command[0]}: {done.how}); see what it printed.")


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


COMMANDS = (
    Command("run", "run the scheduled backup of a workload now", _run_options, _run),
    Command("hook", "what a unit calls around a run", _hook_options, _hook),
    Command("status", "tell how the schedules of this host are doing", _status_options, _status),
    Command("drill", "restore the newest backups to a scratch directory, compare, and remove them again", _drill_options, _drill),
)
