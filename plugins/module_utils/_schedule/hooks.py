# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The parts of a run around the backup: the user's commands before and after it, its result in record and journal, the metrics.

A unit has its own lines for this, outside of its hardening. `hook pre` records that a run begins and runs the pre command. `hook post` records
why a run failed if the run could not, runs the post command, and writes the result to the journal.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import typing as t

from .._backup import host
from .._base import VoltError, brief, process, reason, tolerated
from . import job as jobs, journal, public, systemd
from .job import Job
from .record import RunRecord
from .units import HOOKED

#: In the environment of a command before or after a backup: of which workload.
WITHIN = "VOLT_BACKUP_WITHIN"

Complain = t.Callable[[str], None]
Facts = t.Mapping[str, t.Any]


class HookFailed(VoltError):
    """A command of the user's failed or took too long."""

    code = "hook"


def pre(workload: str, complain: Complain) -> None:
    """Before a run of a unit."""
    record = RunRecord(workload)
    job = load_job(workload, record)
    if not is_due(job, record):
        return
    record.begin(invocation(workload))
    begun(job, complain)
    _tidy(job)
    try:
        call(job, "pre")
    except VoltError as error:
        note_failure(record, error, {"workload": workload}, invocation(workload))
        raise


def post(workload: str, result: str, complain: Complain) -> str:
    """After a run of a unit, successful or not; returns what to print.

    :param result: systemd's SERVICE_RESULT.
    """
    record = RunRecord(workload)
    job = load_job(workload, record)
    try:
        return _post(job, record, result, complain)
    finally:
        _tidy(job)
        public.publish(complain, ended={workload}, invocation=invocation(workload))


def _tidy(job: Job) -> None:
    """The directories for snapshots are there before a run, which may write nowhere else, and are empty after it. No container stays paused."""
    if job.snapshot != "none" and job.real_source is not None:
        from .._sources import snapshot

        snapshot.make_places(job.real_source)
    if job.quiesce != "none":
        from .._sources import quiesce

        quiesce.resume_left()


def _post(job: Job, record: RunRecord, result: str, complain: Complain) -> str:
    """The post command runs even if something else fails here, because a pre command may have stopped something."""
    this = invocation(job.workload)
    note, facts = record.read(), {"workload": job.workload}
    if result == "success" and note.get("run") != this:
        return ""  # nothing was due
    failure: t.Optional[VoltError] = None
    wrong: t.List[VoltError] = []
    if result != "success":
        # the run's own reason is better, unless it was ended before it could record one
        known = note.get("failure", {})
        why = f"The service ended with {result} ({os.environ.get('EXIT_CODE', '')} {os.environ.get('EXIT_STATUS', '')})."
        failure = VoltError(known["reason"] if known.get("invocation") == this else why)
        try:
            note_failure(record, failure, facts, this)
        except VoltError as error:
            wrong.append(error)
    try:
        call(job, "post", failure)
    except VoltError as error:
        wrong.append(error)
        note_failure(record, error, facts, this)
    if failure is not None or wrong:
        announce(job, "failure", {"reason": (failure or wrong[-1]).message}, complain)
    if wrong:
        raise wrong[-1]
    if failure is not None:
        return ""
    success = note.get("success", {})
    announce(job, "success", told_of(success), complain)
    facts = success.get("facts", facts)
    if journal.connected() and journal.send("success", line(facts), facts):
        return ""
    return line(facts) + "\n"


def begun(job: Job, complain: Complain) -> None:
    """Let others know that a run has begun."""
    public.publish(_hush, hardened=in_unit(job.workload) and not job.has_pre)
    announce(job, "start", {}, complain)


def _hush(_text: str) -> None:
    """Files that cannot be written now are reported at the end of the run."""


def announce(job: Job, event: str, facts: Facts, complain: Complain) -> None:
    """Call the address that a job has for an event: start, success or failure. That it does not answer makes no backup bad."""
    url: t.Optional[str] = getattr(job, f"on_{event}_url")
    if url is None:
        return
    from . import send  # only here: see there

    try:
        send.call(url, {**dict.fromkeys(jobs.FACTS), "workload": job.workload, "host": host.name(), "event": event, **facts})
    except send.NotSent as error:
        complain(f"The on_{event}_url of workload {job.workload} could not be called: {error}; check the URL.")


def told_of(success: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """The values for URLs after a successful run."""
    seconds = success.get("duration")
    told = {"backup_id": success.get("backup_id"), "size": success.get("total_size")}
    return {**told, "duration": None if seconds is None else f"{seconds / 1e9:.3f}"}


def load_job(workload: str, record: RunRecord) -> Job:
    """The job of a workload; if a line of its unit cannot read it, that is recorded as a failure."""
    try:
        return jobs.load(workload)
    except VoltError as error:
        if in_unit(workload):
            with tolerated(VoltError):
                record.fail(error, invocation(workload))
        raise


def in_unit(workload: str) -> bool:
    """Whether we are a line of the workload's own unit; a shell that some unit started is none."""
    return os.environ.get(HOOKED) in (workload, "unit")  # the latter in units of the first versions


def invocation(workload: str) -> str:
    """The id of this run of the unit; empty for a run by hand."""
    return os.environ.get("INVOCATION_ID", "") if in_unit(workload) else ""


def is_due(job: Job, record: RunRecord) -> bool:
    """Whether a start of the unit means anything. Where the timer knows the slots, all do."""
    return job.slots is None or not job.slots.ticks or record.due(job.slots)


def line(facts: Facts) -> str:
    """The facts of a run as one line."""
    return " ".join(f"{name}={fact}" for name, fact in facts.items())


def note_failure(record: RunRecord, failure: VoltError, facts: Facts, this: str, after_all: bool = False) -> None:
    """Record a failure, and write it to the journal unless the same run already has one."""
    if record.fail(failure, this, after_all) and journal.connected():
        # what went wrong is printed as well, so this need not be there twice if the journal does not take it
        told = {**facts, "reason": failure.message}
        journal.send("failure", line(told), told)


def call(job: Job, hook: str, failure: t.Optional[VoltError] = None) -> None:
    """Run a command of the job's, if it has one; HookFailed if it fails or does not end in time. What it prints goes where we print.

    StoreError before a backup whose store is away.
    """
    command = job.pre_command if hook == "pre" else job.post_command
    if not command:
        return
    if hook == "pre":
        job.manager.check_store()  # do not stop or dump anything for a backup that cannot be made
    told = {"VOLT_WORKLOAD": job.workload, "VOLT_SOURCE": job.source or "", "VOLT_HOOK": hook}
    if hook == "post":
        told.update(VOLT_RESULT="failure" if failure else "success", VOLT_REASON=brief(failure.message, 4000) if failure else "")
    # what it starts, such as a run of another workload, does not belong to our unit
    inherited = {name: value for name, value in os.environ.items() if name not in (HOOKED, "INVOCATION_ID")}
    inherited[WITHIN] = job.workload
    began = time.time()
    try:
        with journal.stream() if journal.connected() else contextlib.nullcontext() as errors:
            done = process.run(command, {**inherited, **told}, patience=job.command_timeout, errors=errors)
    except subprocess.TimeoutExpired:
        raise HookFailed(
            f"The {hook}_command of workload {job.workload} did not end within {job.command_timeout} s and was stopped; fix it, or raise `command_timeout`."
        ) from None
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise HookFailed(f"The {hook}_command of workload {job.workload} cannot be run ({command[0]}: {why}); fix or remove it.") from None
    if done.status:
        last = _last_line(began)
        said = f", output: {last.rstrip('.')}" if last else ""
        raise HookFailed(f"The {hook}_command of workload {job.workload} failed ({command[0]}: {done.how}{said}); see its output in the journal.")


def _last_line(began: float) -> t.Optional[str]:
    """The last error line of a command, if it went to the journal."""
    if not journal.connected():
        return None
    systemd.attempt("journalctl", "--sync")
    return systemd.last_words(os.environ.get("INVOCATION_ID", ""), f"--since=@{int(began)}", f"--priority={journal.WARNING}..{journal.WARNING}")
