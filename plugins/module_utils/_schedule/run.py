# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""A scheduled backup: what a unit runs, and what a run by hand does.

::

    in a unit                           create; prune; record the result
    by hand, the workload has a unit    start that, wait, report its result; so hooks of two runs never mix
    by hand, it has none                wait for the workload's lock; pre command; as above; post command in any case
    takes too long, or stalls           ended by its watchdog, then handled as a failure: so a separate process makes the backup

A timer that only ticks starts a unit that exits again: nothing is done before a slot has begun.
"""

from __future__ import annotations

import os
import time
import typing as t

from .._backup.create import CreateRequest
from .._backup.guards import suspect, unstable
from .._backup.manager import Manager
from .._backup.query import Query
from .._base import Incomplete, Interrupted, Phase, Standing, Suspect, Unstable, Unsupported, UsageError, VoltError, reason, unexpected
from . import hooks, public, systemd
from .apart import Answer, apart
from .job import Job
from .record import RunRecord
from .watchdog import watched

#: Errors of a unit's run that have an exit status of their own.
_BY_CODE: t.Dict[str, t.Type[VoltError]] = {kind.code: kind for kind in (Incomplete, Suspect, Unstable, Unsupported)}


class Ran(t.NamedTuple):
    """What came of a run: the result for programs, one line for people, and what makes it a failure."""

    value: t.Dict[str, t.Any]
    line: str
    failure: t.Optional[VoltError] = None


def run(workload: str, if_due: bool, complain: hooks.Complain) -> Ran:
    """Run the scheduled backup of a workload.

    :param if_due: exit if no backup has become due since the last run. :param complain: called for problems that do not fail the run.
    """
    record = RunRecord(workload)
    job = hooks.load_job(workload, record)
    if hooks.in_unit(workload):
        return _run_in_unit(job, record, complain)
    if os.environ.get(hooks.WITHIN) == workload:
        raise UsageError(f"A `pre_command` or `post_command` of {workload} cannot back up {workload}; remove that from the command.")
    if if_due and not record.due(job.slots):
        return _not_due(job)
    if _has_unit(job):
        return _run_unit(job, record)
    return _run_by_hand(job, record, complain)


def _not_due(job: Job) -> Ran:
    return Ran({"changed": False, "due": False}, f"Workload {job.workload} is not due yet.\n")


def _has_unit(job: Job) -> bool:
    """Whether systemd has a unit to run the job, and we are not in it: one that does not know of hooks is not to wait for itself."""
    service = f"{job.unit}.service"
    if not systemd.running() or systemd.show([service], "LoadState").get(service, {}).get("LoadState") != "loaded":
        return False
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
            return not any(line.rstrip("\n").endswith(f"/{service}") for line in file)
    except OSError:
        return True


def _run_in_unit(job: Job, record: RunRecord, complain: hooks.Complain) -> Ran:
    invocation = hooks.invocation(job.workload)
    with record.alone():
        if not record.is_run_of(invocation):
            if job.has_pre or not hooks.is_due(job, record):  # if there is a pre command, its hook found that no backup is due
                return _not_due(job)
            record.begin(invocation)
            hooks.begun(job, complain)
        ran, failure = _try_apart(job)
        if failure is None and ran is not None:
            record.succeed(_success(ran, job), invocation)
        elif failure is not None:
            hooks.note_failure(record, failure, _facts(ran, job), invocation)
    if failure is not None and ran is None:
        raise failure
    return t.cast(Ran, ran)._replace(failure=failure, line="")  # the post hook reports it after all else succeeded


def _run_unit(job: Job, record: RunRecord) -> Ran:
    """Start the unit, after any current run of it has ended, and report its result."""
    service = f"{job.unit}.service"
    _wait(service)
    before = record.read().get("run")
    record.ask()
    try:
        complaint = systemd.attempt("systemctl", "start", "--", service, patience=None)
        _wait(service)  # one who stops it ends the start before it has ended
    except Interrupted as error:
        raise Interrupted(f"{error.message.partition(';')[0]}; the run continues in {service}, and systemctl stop ends it.", **error.details) from None
    note = record.read()
    manager = job.manager
    success, failure = note.get("success", {}), note.get("failure", {})
    invocation = note.get("run") if note.get("run") != before else None
    if invocation is None:
        record.unask()
        missing = systemd.missing_mount(service)
        if missing is not None:
            raise missing
        raise VoltError(f"{service} ran nothing: {complaint or 'see its log'}; see journalctl -u {job.unit}, or declare the schedule again.")
    if success.get("invocation") == invocation and systemd.show([service], "ActiveState")[service].get("ActiveState") != "failed":
        facts = success.get("facts", {})
        value = {"backup": _found(manager, success["backup_id"]), "changed": True, "warnings": [], "pruned": facts.get("pruned", 0)}
        return Ran(value, hooks.line(facts) + "\n")
    known = failure if failure.get("invocation") == invocation else {}
    why = known.get("reason") or f"{service} failed{f' ({complaint})' if complaint else ''}; see journalctl -u {job.unit}."
    details = {"backup": _found(manager, known["backup_id"])} if known.get("backup_id") else {}
    failed = _BY_CODE.get(known.get("code", ""), VoltError)(why, **details)
    failed.code = known.get("code") or failed.code
    raise failed


def _wait(service: str) -> None:
    """Until a unit does nothing."""
    while systemd.show([service], "ActiveState")[service].get("ActiveState") in ("activating", "deactivating"):
        time.sleep(0.5)


def _found(manager: Manager, backup: str) -> t.Optional[t.Mapping[str, t.Any]]:
    found = manager.find(Query(id=backup))
    return found[0] if found else None


def _run_by_hand(job: Job, record: RunRecord, complain: hooks.Complain) -> Ran:
    """The whole run without a unit: on a host without systemd, or whose units are managed by something else."""
    ran: t.Optional[Ran] = None
    failure: t.Optional[VoltError] = None
    with record.alone():
        record.begin()
        hooks.begun(job, complain)
        try:
            hooks.call(job, "pre")
            ran, failure = _try_apart(job)
        except VoltError as error:
            failure = error
        succeeded = failure is None
        try:
            if succeeded:
                record.succeed(_success(t.cast(Ran, ran), job), "")
            else:
                hooks.note_failure(record, t.cast(VoltError, failure), _facts(ran, job), "")
        except VoltError as error:  # for example a full disk; the post command still runs
            failure = failure or error
        try:
            hooks.call(job, "post", failure)
        except VoltError as error:
            failure = failure or error
            hooks.note_failure(record, error, _facts(ran, job), "", after_all=succeeded)
        finally:
            told = {"reason": failure.message} if failure is not None else hooks.told_of(record.read().get("success", {}))
            hooks.announce(job, "success" if failure is None else "failure", told, complain)
            public.publish(complain, ended={job.workload})
    if failure is not None and ran is None:
        raise failure
    return t.cast(Ran, ran)._replace(failure=failure)


def _try_apart(job: Job) -> t.Tuple[t.Optional[Ran], t.Optional[VoltError]]:
    """As `_try`, in a separate process."""
    try:
        return t.cast("t.Tuple[t.Optional[Ran], t.Optional[VoltError]]", apart(lambda answer: _try(job, answer)))
    except VoltError as error:
        return None, error
    except OSError as error:
        return None, VoltError(f"Workload {job.workload} was not backed up, because no process can be started: {reason(error)}; fix that, then run again.")


def _try(job: Job, answer: Answer) -> t.Tuple[t.Optional[Ran], t.Optional[VoltError]]:
    """Back up; returns the result so far and the failure. Nothing is raised, because later steps must run in any case.

    :param answer: called with both if this can never return.
    """
    standing = Standing()
    try:
        with watched(job, standing, lambda failure: answer((None, failure))):
            ran = _back_up(job, standing)
        return ran, ran.failure
    except VoltError as error:
        return None, error
    except OSError as error:
        return None, VoltError(f"Workload {job.workload} was not backed up: {reason(error)}; fix that, then run again.")
    except Exception as error:  # a bug of ours
        return None, VoltError(f"Workload {job.workload} was not backed up, because of a bug in volt-backup ({type(error).__name__}: {error}); report it.")


def _back_up(job: Job, standing: t.Optional[Standing] = None) -> Ran:
    standing = standing or Standing()
    manager = job.manager
    request = CreateRequest(
        workload=job.workload,
        source=job.source,
        type="scheduled",
        workload_mode=job.workload_mode,
        tags=job.tags,
        exclude=job.exclude,
        exclude_caches=job.exclude_caches,
        one_file_system=job.one_file_system,
        unstable_ok=job.unstable_ok,
        max_shrink=job.max_shrink,
        max_churn=job.max_churn,
        command=job.command,
        command_file=job.command_file,
        dumps=job.dumps,
        snapshot=job.snapshot,
        snapshot_size=job.snapshot_size,
        quiesce=job.quiesce,
        compression=job.compression,
    )
    made = manager.create(request, standing=standing)
    backup = made.backup
    value: t.Dict[str, t.Any] = {"backup": backup, "changed": True, "warnings": made.warnings, "pruned": 0, "pushed": []}
    failure: t.Optional[VoltError] = None
    if backup["suspect"]:
        failure = suspect({"backup": backup})
    elif not backup["complete"]:
        lacks = f"lacks {backup['skipped_count']} path(s) that could not be read"
        failure = Incomplete(f"Backup {backup['id']} {lacks}; it is kept, and nothing was pruned.", backup=backup)
    elif backup["unstable"] and job.fail_on_unstable:
        failure = unstable({"backup": backup})
    elif job.keep is not None:
        standing.phase = Phase("deleting older backups", patience=job.lock_timeout)
        try:
            value["pruned"] = len(manager.prune(job.workload, job.keep, ["scheduled"]).removed)
        except VoltError as error:
            failure = type(error)(f"Backup {backup['id']} was made, but older ones could not be pruned: {error.message}")
    if job.remote is not None and not backup["suspect"]:
        try:
            value["pushed"], lost = _copy(job, manager, standing)
            value["warnings"] = [*made.warnings, *lost]
        except VoltError as error:
            value["warnings"] = [*made.warnings, *error.details.get("warnings", ())]
            lacking = type(error)(f"Backup {backup['id']} was made, but not all copies were: {error.message}", backup=backup)
            failure = lacking if failure is None else type(failure)(f"{failure.message} {lacking.message}", **failure.details)
    ran = Ran(value, "", failure)
    return ran._replace(line=hooks.line(_facts(ran, job)) + "\n")


def _copy(job: Job, manager: Manager, standing: Standing) -> t.Tuple[t.List[t.Dict[str, t.Any]], t.List[str]]:
    """Copy the scheduled backups that the remote does not have: what failed before is made up for. What was done, and warnings."""
    from .._remote.declared import resolve
    from .._remote.remote import Remote, Which, told

    standing.phase = Phase("connecting to the remote")
    try:
        remote = Remote(manager, resolve(t.cast(str, job.remote)))
        done = remote.push(Which(workload=job.workload, type="scheduled"), standing=standing)
        return told(done), remote.warnings
    except OSError as error:  # else it would pass for the backup's
        raise unexpected(error) from None


def _facts(ran: t.Optional[Ran], job: Job) -> t.Dict[str, t.Any]:
    """The facts of a run, by name."""
    if ran is None:
        return {"workload": job.workload}
    backup = ran.value["backup"]
    return {
        "workload": job.workload,
        "backup": backup["id"],
        "complete": str(backup["complete"]).lower(),
        "unstable": backup["unstable_count"],
        "files": backup["file_count"],
        "size": backup["total_size"],
        "new": backup["new_bytes"],
        "stored": backup["stored_bytes"],
        "seconds": f"{backup['duration'] / 1e9:.3f}",
        "pruned": ran.value["pruned"],
        **({"pushed": len(ran.value["pushed"])} if job.remote is not None else {}),
        **({"quiesced": len(backup["quiesced"])} if job.quiesce != "none" else {}),
    }


def _success(ran: Ran, job: Job) -> t.Dict[str, t.Any]:
    """What is noted of a run that succeeded."""
    backup = ran.value["backup"]
    kept = {key: backup[key] for key in ("duration", "total_size", "new_bytes", "stored_bytes", "unstable_count")}
    return {"backup_id": backup["id"], **kept, "facts": _facts(ran, job)}
