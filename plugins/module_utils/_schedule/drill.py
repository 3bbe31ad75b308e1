# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The restore drill: only a restored backup is proved.

The newest backup of a workload is restored into its own directory. That tree is read again, and compared with the store byte by byte. Then dumps in
it are loaded, and a command of the user's checks it, both in a sandbox (`_proof`). The tree is removed. The outcome is recorded with the schedule's
runs, for `status`. A drill from a remote does the same with the copy there, and reads nothing from the store.

A drill that was killed leaves its directory, and the next one in the same place removes it, because no process holds a lock on it any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import time
import typing as t

from .._backup.ids import check_workload
from .._backup.manager import Manager
from .._backup.query import Query
from .._base import Closing, Damaged, NotFound, TargetError, TargetFull, UsageError, VoltError, brief, files, held, is_at, open_directory, parse, reason, show
from .._proof import trial
from .._restore.plan import RestoreRequest
from .._restore.remove import Remover
from . import job as jobs, leftovers
from .held import of_job
from .record import DIRECTORY as RECORDS, RunRecord

if t.TYPE_CHECKING:
    from .._backup.restore import Restored
    from .._remote.remote import Remote

SCRATCH = "/var/lib/volt/drill"
_ROOM = re.compile(r"volt-drill-[0-9a-f]{16}\Z")
#: Bytes that stay free beside what is restored.
_SPARE = 64 << 20
#: Dumps that a record names, and characters of a reason in it.
_NAMED, _BRIEF = 20, 300


class Drill(t.NamedTuple):
    """The result for a workload: `backup_id` is proved, unless `reason` has a failure. `noted`: recorded as the last proof of its schedule.

    `workload`: None for commits of a remote that cannot be read, and may be of any.
    `unstable_count`: files that may be inconsistent, because they changed during the backup; they are not proved. `dumps` and `command`: as
    `_proof.trial.Tried`. `remote` and `host`: where it was restored from, and the copy of which host; None for the store.
    """

    workload: t.Optional[str]
    backup_id: t.Optional[str]
    reason: t.Optional[str]
    total_size: int
    duration: int
    noted: bool
    unstable_count: int
    passed_over: t.List[t.Dict[str, str]]
    dumps: t.List[t.Dict[str, t.Any]]
    command: t.Optional[str]
    remote: t.Optional[str]
    host: t.Optional[str]


def failure(drills: t.Sequence[Drill]) -> t.Optional[VoltError]:
    """The exception if some of them failed."""
    bad = [drill for drill in drills if drill.reason is not None]
    if not bad:
        return None
    more = f" ({len(bad)} of {len(drills)} workloads failed)" if len(drills) > 1 else ""
    what = f"The drill of workload {bad[0].workload} failed: " if bad[0].workload is not None else ""
    return DrillFailed(f"{what}{bad[0].reason}{more}", drills=[drill._asdict() for drill in drills])


def passed_over(drill: Drill) -> str:
    """The newer backups that were skipped, each with its reason: these are not proved."""
    each = "; ".join(f"{one['id']} ({one['reason'].rstrip('.')})" for one in drill.passed_over)
    return f"{len(drill.passed_over)} newer backup(s) were skipped and not tested: {each}"


def unloaded(drill: Drill) -> t.Optional[str]:
    """The dumps that no server of this host could load: these are not proved."""
    each = [f"{dump['path']} ({dump['reason']})" for dump in drill.dumps if not dump["loaded"] and dump["reason"]]
    return f"{len(each)} dump(s) were not loaded: {'; '.join(each)}" if each and drill.reason is None else None


class DrillFailed(VoltError):
    """A backup could not be restored as it should be."""

    code = "drill"


class Copies(t.NamedTuple):
    """Where the copies of a host are. `host`: what it is called there; None for this host."""

    remote: Remote
    host: t.Optional[str] = None

    @property
    def are_ours(self) -> bool:
        """Whether this host has made them, as far as their name says."""
        return self.host is None or self.host in self.remote.ours()


class Driller:
    """Drills of one store.

    :param scratch: a directory with space for the largest workload; created and removed again if it does not exist.
    :param dry: report what would be restored, and write nothing. :param command: instead of those that the schedules declare.
    :param copies: restore these, and read nothing from the store.
    """

    def __init__(
        self,
        manager: Manager,
        scratch: str,
        dry: bool,
        directory: str = jobs.DIRECTORY,
        records: str = RECORDS,
        command: t.Optional[trial.Command] = None,
        copies: t.Optional[Copies] = None,
    ) -> None:
        if not os.path.isabs(parse(scratch)):
            raise UsageError(f"The scratch directory must be an absolute path (got {scratch!r}).")
        if command is not None:
            trial.check(command.words, "command")
            if command.limit < 1:
                raise UsageError("Option `command_timeout` must be at least 1 second.")
        self._manager, self._scratch, self._dry = manager, os.fsdecode(parse(scratch)), dry
        if os.path.lexists(self._scratch) and not os.path.isdir(self._scratch):
            raise UsageError(f"{scratch} is not a directory; choose another.")
        real = os.path.realpath(self._scratch)
        for kept in manager.places:
            if f"{real}/".startswith(f"{kept}/"):
                raise UsageError(f"The scratch directory {scratch} is inside {show(kept)}, where backups are kept; choose another.")
        self._directory, self._records, self._command, self._copies = directory, records, command, copies
        self._where = copies.remote.transport.where if copies is not None else None
        self._ours = copies is None or copies.are_ours

    def __call__(self, workloads: t.Sequence[str]) -> t.List[Drill]:
        """Each of these workloads, or of all that have backups. One that fails keeps no other from its turn."""
        names = [check_workload(name) for name in workloads]
        if self._copies is not None:
            return self._far(self._copies, names)
        names = names or self._manager.workloads()
        if not names:
            raise NotFound("There are no backups to restore; make one first, or set the right `store`.")
        return [self._drill(name) for name in names]

    def _far(self, copies: Copies, names: t.Sequence[str]) -> t.List[Drill]:
        """The same from a remote. Which copies there should be is not for the remote alone to say: it may have lost them."""
        unread: t.List[Drill] = []
        try:
            if copies.host is None or not names:
                host = copies.remote.whose(copies.host)
                self._copies = copies = copies._replace(host=host)
            if not names:
                names, unread = self._all(copies.remote, host)
        except VoltError as error:
            if error.code not in ("interrupted", UsageError.code):
                self._miss(names or [job.workload for job in self._scheduled()], error)
            raise
        return [self._drill(name) for name in names] + unread

    def _all(self, remote: Remote, host: str) -> t.Tuple[t.List[str], t.List[Drill]]:
        """The workloads of a host that have copies or should have some; and a failure where commits cannot be read that may be of others."""
        there, unread = remote.stock(host)
        copied = remote.copied(host) if self._ours else {}
        pushed = [job.workload for job in self._scheduled() if RunRecord(job.workload, self._records).read().get("success")]
        lost = [push for push in unread if push not in copied]
        reason = f"{len(lost)} commit(s) of host {host} on {self._where} cannot be read, and may be of workloads that were not tested" if lost else None
        failed = [] if reason is None else [self._failed(None, f"{reason} (first {lost[0]}: {unread[lost[0]]}); verify the remote.")]
        return sorted({*there, *copied.values(), *pushed}), failed

    def _scheduled(self) -> t.List[jobs.Job]:
        """The schedules of this host that copy to the remote, if it is their copies that are restored."""
        from .._remote.declared import may_mean  # only here: it takes time to import

        found = [self._job(name, None) for name in (jobs.declared(self._directory) if self._ours else [])]
        return [job for job in found if job is not None and job.remote is not None and may_mean(job.remote, t.cast(str, self._where))]

    def _failed(self, workload: t.Optional[str], why: str) -> Drill:
        """A drill that restored nothing."""
        return Drill(workload, None, why, 0, 0, False, 0, [], [], None, self._where, None if self._copies is None else self._copies.host)

    def _miss(self, workloads: t.Sequence[str], error: VoltError) -> None:
        """Record that there was nothing to restore, for those of these workloads that have a schedule."""
        for workload in workloads if not self._dry else ():
            if self._job(workload, None) is not None:
                self._note(self._failed(workload, error.message))

    def _drill(self, workload: str) -> Drill:
        began = time.monotonic_ns()
        backup, size, unstable = None, 0, 0
        passed: t.List[t.Dict[str, str]] = []
        found, why = trial.Tried([], None, None), None
        job = None
        try:
            with self._room() as place:
                target = show(place)
                foreseen, passed = self._foresee(workload, target)
                backup, size = foreseen["backup_id"], foreseen["total_size"]
                record = self._record(backup)
                unstable, job = record["unstable_count"] or 0, self._job(workload, record)
                if not self._dry:
                    self._prove(backup, target)
                    found = self._try(workload, record, place, job)
            why = found.reason
        except VoltError as error:
            if error.code == "interrupted":
                raise
            why, passed = error.message, error.details.get("skipped", passed)
        except OSError as error:
            why = f"{show(self._scratch)} cannot be used: {reason(error)}; choose another directory."
        drill = self._failed(workload, "")._replace(
            backup_id=backup, reason=why, total_size=size, duration=time.monotonic_ns() - began, unstable_count=unstable, passed_over=passed,
            dumps=found.dumps, command=found.command,
        )  # fmt: skip
        try:
            if backup is None and why is not None:
                job = self._job(workload, None)
            if job is None or self._dry:
                return drill
            self._note(drill)
            return drill._replace(noted=why is None)
        except VoltError as error:
            return drill._replace(reason=why or error.message)

    def _foresee(self, workload: str, target: str) -> t.Tuple[t.Dict[str, t.Any], t.List[t.Dict[str, str]]]:
        """What would be restored, and what is skipped; fails if there is not enough space."""
        found, passed = self._restore(None, RestoreRequest(target), workload, dry=True)
        place = os.statvfs(os.path.dirname(parse(target)))
        needed, free = found.restore["bytes_needed"] + _SPARE, place.f_bavail * place.f_frsize
        if needed > free:
            raise TargetFull(
                f"A drill of {found.restore['backup_id']} needs {needed} bytes in {show(self._scratch)}, but {free} are free; choose a directory"
                " with more space."
            )
        return found.restore, passed

    def _record(self, backup: str) -> t.Mapping[str, t.Any]:
        if self._copies is not None:
            from .._remote.remote import Meant

            return self._copies.remote.record(Meant(self._copies.host, backup))
        for record in self._manager.find(Query(id=backup)):
            return record
        raise NotFound(f"Backup {backup} was deleted while the drill began; run the drill again.")

    def _restore(
        self, backup: t.Optional[str], request: RestoreRequest, workload: t.Optional[str] = None, dry: bool = False
    ) -> t.Tuple[Restored, t.List[t.Dict[str, str]]]:
        """Restore a backup, or the newest good one of a workload; also what was passed over. What is at the target is read, whatever is known of it."""
        if self._copies is not None:
            from .._remote.remote import Meant  # only here: it takes time to import

            return self._copies.remote.restore(Meant(self._copies.host, backup, workload), request, dry=dry, alone=True)
        return self._manager.restore(backup, request, Query(workload=workload), dry=dry, reread=True)

    def _prove(self, backup: str, target: str) -> None:
        self._restore(backup, RestoreRequest(target))
        again, _passed = self._restore(backup, RestoreRequest(target, force=True, delete=True, diff_limit=1), dry=True)
        if again.changed:
            differ, which = again.diff["prepared"].strip(), "store" if self._copies is None else "remote"
            raise Damaged(f"The files restored from {backup} differ from the backup ({differ}); verify the {which}, and check the disk.")

    def _try(self, workload: str, record: t.Mapping[str, t.Any], place: str, job: t.Optional[jobs.Job]) -> trial.Tried:
        """Load the dumps, and run the command. :param place: the restored tree."""
        command = self._command
        if command is None and job is not None:
            command = trial.Command(job.drill_command, job.command_timeout)
        if command is not None:
            command = command._replace(environment={"VOLT_WORKLOAD": workload, "VOLT_BACKUP_ID": record["id"]})
        return trial.tried(os.path.dirname(place), record["dumps"], command, record["workload_mode"] == "container" and trial.is_root(place))

    def _job(self, workload: str, backup: t.Optional[t.Mapping[str, t.Any]]) -> t.Optional[jobs.Job]:
        """The schedule of a workload, if the backup is one of it. :param backup: None if there is none that could be restored."""
        if not self._ours:
            return None
        with contextlib.suppress(NotFound):
            job = jobs.load(workload, self._directory)
            if self._manager.places == job.manager.places and (backup is None or of_job(job)(backup)):
                return job
        return None

    def _note(self, drill: Drill) -> None:
        outcome = {
            "backup_id": drill.backup_id,
            "reason": None if drill.reason is None else brief(drill.reason, _BRIEF),
            "command": drill.command,
            "loaded": [dump["path"] for dump in drill.dumps if dump["loaded"]][:_NAMED],
            "not_loaded": brief(unloaded(drill), _BRIEF) if unloaded(drill) else None,
            "remote": None if drill.remote is None else brief(drill.remote, _BRIEF),
            **{name: getattr(drill, name) for name in ("total_size", "duration", "unstable_count")},
        }
        RunRecord(t.cast(str, drill.workload), self._records).drilled(outcome)

    # ---- room to restore to

    @contextlib.contextmanager
    def _room(self) -> t.Iterator[str]:
        """The target: in a new private directory that is always removed afterwards; in a dry run, its parent."""
        name = f"volt-drill-{secrets.token_hex(8)}"
        if self._dry:
            above = self._scratch
            while not os.path.lexists(above):
                above = os.path.dirname(above)
            yield os.path.join(above, name)
            return
        made = _missing(self._scratch)
        if made:
            os.makedirs(self._scratch, mode=0o700)
        top = open_directory(self._scratch, follow=True)
        try:
            open_to = files.exposed(os.path.realpath(self._scratch))
            if open_to is not None:
                raise TargetError(
                    f"Other users can write to {show(open_to)}; choose a scratch directory that only root or this user can write to."
                )
            self._sweep(top)
            os.mkdir(name, 0o700, dir_fd=top)
            room = open_directory(name, top)
            try:
                fcntl.flock(room, fcntl.LOCK_EX)
                if not is_at(room, os.path.join(self._scratch, name)):
                    raise TargetError(f"{show(self._scratch)}: another drill removed its directory; run the drill again.")
                yield os.path.join(self._scratch, name, "tree")
            finally:
                with held():
                    Remover(None).remove(top, os.fsencode(name), b"")
                    os.close(room)
        finally:
            os.close(top)
            leftovers.sweep(made)

    @staticmethod
    def _sweep(top: int) -> None:
        """Remove rooms of drills that are dead. What other users made is theirs, whatever its name."""
        for name in filter(_ROOM.match, os.listdir(top)):
            with contextlib.suppress(OSError), Closing(open_directory(name, top)) as room:  # else it is not ours to care for
                if os.fstat(room).st_uid == os.geteuid():
                    fcntl.flock(room, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    Remover(None).remove(top, os.fsencode(name), b"")


def _missing(path: str) -> t.List[str]:
    """A directory and those above it that do not exist, the deepest first."""
    found = []
    path = os.path.normpath(path)
    while not os.path.isdir(path):
        found.append(path)
        path = os.path.dirname(path)
    return found
