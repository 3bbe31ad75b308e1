# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Bring a host's schedules to their declared state: three files each, written if they differ, and one reload.

::

    check      the command exists and supports the format; sources exist (a schedule without one is skipped); systemd accepts new units
    compare    wanted and existing files; the diff shows the list of differences
    make       the store, once for a host, and directories
    stop       timers and services to remove
    write      differing files, each beside and renamed; then the links that `systemctl enable` makes
    reload     once, with timers stopped whose times changed; start
    remove     timer, service; update the metrics; the job last, so that the next run finds the rest of an interrupted removal

A timer whose lines change, or that systemd has not read again since they did, gets a new stamp. Otherwise systemd would find a slot of the
new lines in the past and start at once, on all hosts of a fleet. Source: systemd.timer(5), Persistent=.
"""

from __future__ import annotations

import errno
import os
import stat
import typing as t

from .._backup import host
from .._backup.guards import refuse_inside
from .._base import StoreError, Unsupported, UsageError, VoltError, files, parse, reason, tolerated
from . import command as commands, first, job as jobs, leftovers, metrics, notification as ways_, public, systemd, units, upkeep
from .destination import Destination, make_directory
from .first import First, firsts
from .job import Job
from .record import DIRECTORY as RECORDS, RunRecord, writing
from .survey import Survey, survey


class HostPaths(t.NamedTuple):
    """Where things are on a host."""

    units: str = systemd.UNITS
    jobs: str = jobs.DIRECTORY
    records: str = RECORDS
    stamps: str = systemd.STAMPS
    command: str = commands.PATH
    ways: str = ways_.PATH
    public: str = public.PATH


class HostWide(t.NamedTuple):
    """Settings of the host itself: units by name, and notifications. Units and settings that it lacks are removed."""

    units: t.Mapping[str, str]
    ways: ways_.Settings
    seed: str = ""


class Change(t.NamedTuple):
    """A file that differs; None if it does not exist or should not."""

    path: str
    before: t.Optional[str]
    after: t.Optional[str]
    mode: int


class Declaration:
    """Schedules of a host as they are to be.

    :param present: jobs that are to be there. :param absent: workloads whose schedule is to go. :param purge: all others go, too.
    :param manage: whether to call systemd. :param force: overwrite files of the same name that are not ours.
    :param wide: settings of the host itself; None does not change them.
    """

    def __init__(
        self, present: t.Sequence[Job], absent: t.Sequence[str], purge: bool, interpreter: str, manage: bool, force: bool, places: HostPaths,
        wide: t.Optional[HostWide] = None,
    ) -> None:  # fmt: skip
        self._places, self._manage, self._force, self._wide = places, manage, force, wide
        self._jobs = {job.workload: job for job in present}
        names = [*(job.workload for job in present), *absent]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(f"Workload {twice} is declared twice; give each schedule its own name.")
        there = {*jobs.declared(places.jobs), *units.installed(places.units)} if purge else set()
        self._purged = sorted(there - set(names))
        self._gone: t.List[str] = list(absent)
        self._interpreter = interpreter
        self.files: t.List[Change] = []
        self.retimed: t.Set[str] = set()
        self._links: t.List[t.Tuple[str, bool]] = []
        self._idle: t.List[str] = []
        self._stale = False
        self._again: t.Set[str] = set()  # timers whose files are correct, but that systemd must restart
        self._timers = {job.unit: job.enabled for job in present}  # whether each is to run
        self._timers.update((name[:-6], True) for name in (wide.units if wide else ()) if name.endswith(".timer"))
        self._going: t.List[str] = []  # units that go with something that is ours
        self._destination = Destination(())
        self._others: t.List[Job] = []  # jobs that are there and stay as they are
        self._firsts: t.List[First] = []
        self._metrics: t.Set[str] = set()  # those that schedules had until now
        self._taken: t.Set[str] = set()  # metrics whose path has a file of others
        self._sourceless: t.List[Job] = []  # jobs whose source is missing: these are left as they are, all others are declared

    def plan(self, dry: bool = False) -> t.List[str]:
        """Find all differences; whatever is wrong with the declaration is raised here, before anything is touched.

        :param dry: only warn about a missing command, because in a dry run the task that installs it wrote nothing either.
        :returns: warnings.
        """
        warnings: t.List[str] = []
        if self._manage and not systemd.running():
            raise systemd.SystemdError("systemd is not running on this host, but schedules need its timers; set `manage_units: false` to only write files.")
        if self._jobs:
            warnings += self._check_command(dry)
        for job in self._jobs.values():
            if job.real_source is not None:
                if job.enabled and not os.path.isdir(job.real_source):
                    self._sourceless.append(job)
                refuse_inside(job.real_source, job.store, job.backup_dir)
            self._taken |= {job.metrics} if job.metrics and metrics.is_to_be_taken(job.metrics, self._force) else set()
            warnings += filter(None, [jobs.coarse(job)])
        for job in [] if dry else self._sourceless:  # in a dry run, the task that creates them wrote nothing either
            del self._jobs[job.workload], self._timers[job.unit]
        lacking = ways_.lacking(self._wide.ways) if self._wide is not None else None
        if lacking is not None and self._manage and not dry:
            raise UsageError(lacking)
        warnings += filter(None, [lacking])
        warnings += self._settle()
        for job in self._jobs.values():
            self._compare(job)
        if self._wide is not None:
            self._compare_wide(self._wide)
        for name in self._purged:
            before = len(self.files)
            try:
                self._compare_gone(name)
            except (UsageError, Unsupported) as error:  # one that is odd does not keep the others
                del self.files[before:]
                warnings.append(f"The schedule of workload {name} is no longer declared, but could not be removed: {error.message}")
            else:
                self._gone.append(name)
        for name in list(self._gone):
            if name not in self._purged:
                self._compare_gone(name)
        warnings += self._tell_last()
        self._compare_host_file()
        self._validate()
        self._plan_states()
        warnings += self._left_to_others()
        going = [f"{unit}.{kind}" for unit in self._going for kind in ("service", "timer")]
        warnings += leftovers.drop_ins(self._places.units, going)
        for change in self.files:
            with writing(change.path):
                files.foresee_write(change.path)
        return warnings

    def failure(self) -> t.Optional[UsageError]:
        """The failure for schedules that could not be declared; in a dry run, the warning."""
        if not self._sourceless:
            return None
        missing = ", ".join(f"{job.workload} ({job.source})" for job in self._sourceless)
        return UsageError(
            f"Host {host.name()}: the source of {len(self._sourceless)} workload(s) is not a directory: {missing}; create it, or set `enabled:"
            " false`. These schedules are unchanged, all others were declared."
        )

    def _tell_last(self) -> t.List[str]:
        """A warning if none of the host's schedules is left."""
        going = [name for name in self._gone if f"volt-backup-{name}" in self._going]
        if not going or self._jobs or any(name not in self._gone for name in jobs.declared(self._places.jobs)):
            return []
        return [
            f"Host {host.name()} has no schedules left after this: {', '.join(going)} are removed, and there are no automatic backups from then on."
            " Existing backups and the history of runs stay."
        ]

    def _settle(self) -> t.List[str]:
        """Find the store of the jobs, and set its id in them; returns warnings."""
        before = self._load(jobs.declared(self._places.jobs))
        others = [job for job in before if job.workload not in (*self._jobs, *self._gone, *self._purged)]
        self._others = others
        self._destination = Destination(list(self._jobs.values()), before, others)
        self._jobs = {job.workload: job for job in self._destination.jobs}
        if (self._jobs or (self._wide and self._wide.units)) and not os.path.isdir(self._places.records):
            self._destination.steps.append(f"make directory {self._places.records}")
        return self._destination.warnings

    def _load(self, names: t.Iterable[str]) -> t.List[Job]:
        """The jobs that are there, as far as they can be read."""
        found = []
        for name in names:
            with tolerated(VoltError):
                found.append(jobs.load(name, self._places.jobs))
        return found

    def _compare_host_file(self) -> None:
        """It is removed with the last schedule."""
        stays = not self._jobs and any(name not in self._gone for name in jobs.declared(self._places.jobs))
        if not stays and self._differ(host.PATH, self._destination.host_file, host.MODE):
            self.files.insert(0, self.files.pop())  # it makes a directory that all may enter

    def _check_command(self, dry: bool) -> t.List[str]:
        path = self._places.command
        found = commands.read(path)
        if found is None:
            missing = f"The command {path} does not exist; install it with volt_runner first."
            if dry:
                return [missing]
            raise UsageError(missing)
        if found.job_format < jobs.FORMAT:
            raise UsageError(f"The command at {path} is of version {found.version}, too old for these job files; update it with volt_runner.")
        for store in sorted({job.store for job in self._jobs.values()}):
            try:
                lacking = commands.lacks(found, store)
            except StoreError:
                continue  # the run reports a store that cannot be read
            if lacking:
                raise UsageError(f"{commands.outdated(path, found, store, lacking)}.")
        return []

    def _paths(self, unit: str, workload: str) -> t.Tuple[str, str, str]:
        directory = self._places.units
        return jobs.path(workload, self._places.jobs), os.path.join(directory, f"{unit}.service"), os.path.join(directory, f"{unit}.timer")

    def _compare(self, job: Job) -> None:
        path, service, timer = self._paths(job.unit, job.workload)
        if self._differ(path, job.text(), 0o600):
            self._leaves_metrics(job.workload)
        self._differ(service, units.service(job, self._interpreter, self._places.command, self._places.records))
        if self._differ(timer, units.timer(job)):
            self.retimed.add(job.unit)

    def _compare_gone(self, name: str) -> None:
        unit = f"volt-backup-{name}"
        self._leaves_metrics(name)
        ours = [self._differ(path, None) for path in reversed(self._paths(unit, name))]
        if any(ours):
            self._going.append(unit)

    def _compare_wide(self, wide: HostWide) -> None:
        directory = self._places.units
        self._differ(self._places.ways, ways_.text(wide.ways), 0o600)
        setting = units.Setting(self._interpreter, wide.seed, self._backups() if wide.units else (), self._places.records)
        for name, text in wide.units.items():
            if self._differ(os.path.join(directory, name), units.host_wide(name, text, setting)) and name.endswith(".timer"):
                self.retimed.add(name[:-6])
        present = os.listdir(directory) if os.path.isdir(directory) else []
        for name in sorted(name for name in present if units.is_host_wide(name) and name not in wide.units):
            path = os.path.join(directory, name)
            if units.is_ours(path):
                self._differ(path, None)
                if name.endswith(".timer"):
                    self._going.append(name[:-6])

    def _backups(self) -> t.List[str]:
        """The places of the host's backups: of the declared and the other jobs, or as in the host file."""
        places = [place for job in (*self._jobs.values(), *self._others) for place in (job.store, job.backup_dir)]
        return list(dict.fromkeys(places)) or list(host.resolve(None, None))

    def _differ(self, path: str, after: t.Optional[str], mode: int = 0o644) -> bool:
        before, now = _read(path)
        if before is None and after is None:
            return False
        ours = before is None or before.startswith(units.OURS) or path in (self._places.ways, host.PATH)
        ours = ours or (path.endswith(".json") and self._is_job(t.cast(str, before), path))
        if not ours and not self._force:
            raise UsageError(f"{path} was not written by volt.backup; move it away, choose another workload name, or set `force: true`.")
        if before == after and now == mode:
            return False
        self.files.append(Change(path, before, after, mode))
        return True

    def _is_job(self, text: str, path: str) -> bool:
        """Whether a file is a job of ours; also a damaged one, if the service that runs it is ours. Unsupported for a newer one."""
        try:
            jobs.parse(text, path)
            return True
        except Unsupported as error:
            if self._force:
                return True
            raise Unsupported(f"{error.message[:-1]}, or set `force: true` to overwrite it.") from None
        except jobs.Older:
            return True
        except VoltError:
            return units.is_ours(os.path.join(self._places.units, f"volt-backup-{os.path.basename(path)[:-5]}.service"))

    def _validate(self) -> None:
        texts = {os.path.basename(change.path): change.after for change in self.files if change.after is not None and not change.path.endswith(".json")}
        for job in self._jobs.values():
            if job.on_calendar is not None and f"{job.unit}.timer" in texts:
                systemd.check_calendar(job.on_calendar)
        if texts and self._manage:
            # a timer is read together with its service
            for name in [name[:-6] for name in texts if name.endswith(".timer") and f"{name[:-6]}.service" not in texts]:
                texts[f"{name}.service"] = _read(os.path.join(self._places.units, f"{name}.service"))[0] or ""
            systemd.check_units(t.cast(t.Dict[str, str], texts))

    def _plan_states(self) -> None:
        self._links = [(unit, on) for unit, on in self._timers.items() if os.path.lexists(self._link(unit)) != on]
        if self._manage and self._timers:
            names = [f"{unit}.{kind}" for unit in self._timers for kind in ("timer", "service")]
            shown = systemd.show(names, "ActiveState", "SubState", "NeedDaemonReload")
            stale = {name for name, fields in shown.items() if fields.get("NeedDaemonReload") == "yes"}  # a run died before it did so
            self._stale = bool(stale)
            active = {name for name, fields in shown.items() if fields.get("ActiveState") == "active"}
            # a timer of slots always has a time to come, once systemd has read it
            elapsed = {f"{job.unit}.timer" for job in self._jobs.values() if job.slots and shown.get(f"{job.unit}.timer", {}).get("SubState") == "elapsed"}
            self._idle = [unit for unit, on in self._timers.items() if (f"{unit}.timer" in active - elapsed) != on]
            self._again = {unit for unit in self._timers if f"{unit}.timer" in stale | elapsed}
        self._firsts = firsts(job for job in self._jobs.values() if (job.unit, True) in self._links)

    def _left_to_others(self) -> t.List[str]:
        """A warning of first backups that do not start, because `manage_units` is false."""
        names = [begin.job.workload for begin in self._firsts if not self._manage]
        if not names:
            return []
        self._firsts = []
        return [f"`first_run` has no effect, because `manage_units` is false; call volt-backup run once for each of {', '.join(names)}."]

    def _link(self, unit: str) -> str:
        return os.path.join(self._places.units, "timers.target.wants", f"{unit}.timer")

    @property
    def changed(self) -> bool:
        return bool(self.files or self._links or self._idle or self._stale or self._taken or self._destination.steps)

    def diff(self) -> t.List[t.Dict[str, str]]:
        """Each file before and after, what is created for backups, and which timers are enabled and started."""
        shown = []
        for change in self.files:
            show = ways_.shown if change.path == self._places.ways else jobs.shown
            before, after = (show(text) for text in (change.before, change.after))
            shown.append({"before_header": change.path, "after_header": change.path, "before": before, "after": after})
        lines = [f"{step}\n" for step in (*self._destination.steps, *(f"replace {path}" for path in sorted(self._taken)))]
        lines += [f"{'enable' if on else 'disable'} {unit}.timer\n" for unit, on in self._links]
        lines += [f"{'start' if self._timers.get(unit, False) else 'stop'} {unit}.timer\n" for unit in self._idle]
        lines += [f"{begin.step}\n" for begin in self._firsts]
        lines += ["reload systemd\n"] if self._stale and not self.files else []
        return [*shown, {"prepared": "".join(lines)}] if lines else shown

    def apply(self) -> t.List[str]:
        """Carry out the plan; returns warnings."""
        going = [f"{unit}.timer" for unit in self._going]
        anew = self.retimed | self._again
        retimed = sorted(f"{unit}.timer" for unit in anew if os.path.lexists(os.path.join(self._places.units, f"{unit}.timer")))
        stop = sorted(f"{unit}.timer" for unit in self._idle if not self._timers.get(unit, False))
        if self._manage:
            if stop:
                systemd.call("systemctl", "stop", "--", *stop)
            first.forget(self._gone)
            if going:  # by their names: systemd knows those as well whose files are gone
                systemd.attempt("systemctl", "stop", "--", *going)
                systemd.attempt("systemctl", "stop", "--", *(f"{unit}.service" for unit in self._going), patience=None)  # post commands take their time
        for unit in self._going:
            commands.remove(self._link(unit))
        for unit in {*anew, *(unit for unit, on in self._links if on)}:
            self._stamp(unit)  # before the new lines are there: a run that died in between must not leave them with the old stamp
        self._destination.make()  # a service's view of the host is read-only but for these, so they must be there
        if self._jobs or (self._wide and self._wide.units):
            make_directory(self._places.records)
        for job in self._jobs.values():
            record = RunRecord(job.workload, self._places.records)
            if job.unit in self.retimed or (job.unit, True) in self._links or record.read().get("since") is None:
                record.declare()
        last = {jobs.path(name, self._places.jobs) for name in self._gone}
        for change in self.files:
            if change.path not in last:
                self._put(change)
        for unit, on in self._links:
            self._set_link(unit, on)
        if self._manage:
            if retimed:
                systemd.call("systemctl", "stop", "--", *retimed)  # not before all is written: a full disk must not leave them stopped
            if self.files or self._links or self._stale:
                systemd.call("systemctl", "daemon-reload")
            slices = [os.path.basename(change.path) for change in self.files if change.after is None and change.path.endswith(".slice")]
            if slices:
                systemd.attempt("systemctl", "stop", "--", *slices)  # nothing of ours is in it any more
            if going:
                systemd.attempt("systemctl", "reset-failed", "--", *going, *(f"{unit}.service" for unit in self._going))
            on = {unit for unit in {*self._idle, *anew} if self._timers.get(unit, False)}
            if on:
                systemd.call("systemctl", "start", "--", *sorted(f"{unit}.timer" for unit in on))
            for begin in self._firsts:
                begin.begin(RunRecord(begin.job.workload, self._places.records), (self._interpreter, self._places.command))
            if "volt-cas-failure@.service" in {os.path.basename(change.path) for change in self.files if change.after is None}:
                leftovers.forget_failures()
        for name in self._gone:
            RunRecord(name, self._places.records).retire()
        for unit in self._going:
            commands.remove(os.path.join(self._places.stamps, f"stamp-{unit}.timer"))
        return self._finish()

    def _finish(self) -> t.List[str]:
        """Update the metrics, and remove the jobs of removed schedules last, so that an interrupted removal can be finished; returns warnings."""
        records = self._places.records
        if self._wide is not None:
            upkeep.note_declared(self._wide.units, records)
        for path in self._taken:
            commands.remove(os.fsdecode(parse(path)))
        warnings = self._tell() if self.changed else []
        for name in self._gone:
            commands.remove(jobs.path(name, self._places.jobs))
        if not jobs.declared(self._places.jobs):
            upkeep.forget(records)
            if self._gone:
                leftovers.sweep((self._places.jobs, records, os.path.dirname(self._places.ways)))
        return warnings

    def _tell(self) -> t.List[str]:
        """What is there from now on: a schedule that is gone must not look like one that does not run. Warnings."""
        warnings = public.bring_up(self._survey, self._places.records, self._places.public, shared=False)
        used = {self._metrics_of(name) for name in jobs.declared(self._places.jobs) if name not in self._gone}
        for path in [path for path in self._metrics if not any(host.is_same(path, other) for other in used if other)]:
            try:
                metrics.remove(os.fsdecode(parse(path)))
            except VoltError as error:
                warnings.append(error.message)
        return warnings

    def _survey(self, ended: t.AbstractSet[str]) -> Survey:
        places = self._places
        return survey(places.jobs, places.records, places.units, places.command, ended, self._gone)

    def _leaves_metrics(self, name: str) -> None:
        """Metrics that a schedule had until now may be without one from now on."""
        was = self._metrics_of(name)
        if was is not None:
            self._metrics.add(was)

    def _metrics_of(self, name: str) -> t.Optional[str]:
        with tolerated(VoltError):
            return jobs.load(name, self._places.jobs).metrics
        return None

    def _put(self, change: Change) -> None:
        if change.after is None:
            commands.remove(change.path)
            return
        with writing(change.path):
            os.makedirs(os.path.dirname(change.path), mode=0o755 if change.mode & 0o044 else 0o700, exist_ok=True)
            text = self._destination.final(change.after)
            files.write_file(change.path, text.encode("utf-8", "surrogateescape"), mode=change.mode)

    def _set_link(self, unit: str, on: bool) -> None:
        link = self._link(unit)
        if not on:
            commands.remove(link)
            return
        with writing(link):
            os.makedirs(os.path.dirname(link), mode=0o755, exist_ok=True)
            os.symlink(os.path.join(self._places.units, f"{unit}.timer"), link)

    def _stamp(self, unit: str) -> None:
        path = os.path.join(self._places.stamps, f"stamp-{unit}.timer")
        with writing(path):
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            with open(path, "ab"):
                pass
            os.utime(path)


def _read(path: str) -> t.Tuple[t.Optional[str], int]:
    """Content and mode of a file; (None, 0) if there is none."""
    try:
        fd = files.open_file(path)
        with open(fd, encoding="utf-8", errors="surrogateescape") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{path} is not a regular file; move it away.")
            return file.read(), stat.S_IMODE(status.st_mode)
    except FileNotFoundError:
        return None, 0
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UsageError(f"{path} is a symbolic link (perhaps a masked unit); remove it, then run again.") from None
        raise VoltError(f"{path} cannot be read: {reason(error)}; run as root.") from None
