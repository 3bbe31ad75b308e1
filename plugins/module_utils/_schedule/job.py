# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The job file: what a timer's run does, as written by the module.

It is JSON, only root can read it, and it has a `format`. A command that is older than the format rejects the job, and the module does not
declare one for such a command. A file of an older format is simply declared again. The command trusts the file, because only root can write it,
but checks its structure.
"""

from __future__ import annotations

import json
import os
import re
import typing as t

from .._backup import brake, guards, host
from .._backup.ids import check_workload, is_workload
from .._backup.manager import Manager
from .._backup.retention import parse_policy
from .._base import NotFound, UsageError, VoltError, files, newer, parse as parse_path, parse_span, reason
from .._fs.exclusions import Exclusions
from .._remote import declared as remotes
from .._store import codec
from . import notification, systemd
from .slots import DAY, Slots, parse_slots, phase

FORMAT = 1
DIRECTORY = "/etc/volt/backup"
#: No job file has more bytes.
_MOST = 1 << 20
NICE = range(-20, 20)
#: No span of time is longer; systemd could not take one that is much longer.
_LONGEST = 366 * 86400
#: Options that hold addresses to call. They are secrets: who has one can call it.
URLS = ("on_start_url", "on_success_url", "on_failure_url")
#: What addresses may name in braces.
FACTS = ("workload", "host", "event", "backup_id", "reason", "duration", "size")
#: Rules of retention that keep one backup in so many seconds, the finest first.
_PERIODS = {"hourly": 3600, "daily": DAY, "weekly": 7 * DAY, "monthly": 28 * DAY, "yearly": 365 * DAY}
_PLACE = re.compile(r"\{([^{}]*)\}")
#: What is no part of a secret.
_NAME = re.compile(r"[a-z_ -]{1,16}", re.IGNORECASE)
#: Options that a job takes over as they are.
_SAME = (
    "source", "exclude", "exclude_caches", "one_file_system", "unstable_ok", "fail_on_unstable", "max_shrink", "max_churn", "command", "command_file",
    "dumps", "snapshot", "snapshot_size", "quiesce", "tags", "workload_mode",
    "compression", "remote", "pre_command", "post_command", "drill_command", "command_timeout", "nice", "io_class", "enabled", "requires_mounts", *URLS,
)  # fmt: skip


class Older(VoltError):
    """A job file of a format that is no longer read; it is ours, and can be rewritten."""


class Job(t.NamedTuple):
    """A schedule, checked. Names as in the contract; either `interval` and `phase` in seconds, or `on_calendar`. Without `source`, only what programs
    write is backed up.

    `timeout` and `stall` are in seconds, and 0 for none. `first_after`: seconds from the declaration to the first backup; None for its slot.
    """

    workload: str
    source: t.Optional[str] = None
    interval: t.Optional[int] = None
    phase: int = 0
    on_calendar: t.Optional[str] = None
    keep: t.Optional[t.Dict[str, t.Any]] = None
    exclude: t.Sequence[str] = ()
    exclude_caches: bool = False
    one_file_system: bool = False
    unstable_ok: t.Sequence[str] = ()
    fail_on_unstable: bool = False
    max_shrink: int = brake.MAX_SHRINK
    max_churn: int = brake.MAX_CHURN
    command: t.Sequence[str] = ()
    command_file: t.Optional[str] = None
    dumps: t.Sequence[t.Mapping[str, t.Any]] = ()
    snapshot: str = "none"
    snapshot_size: t.Optional[str] = None
    quiesce: str = "none"
    tags: t.Sequence[str] = ()
    workload_mode: t.Optional[str] = None
    compression: str = "auto"
    remote: t.Optional[str] = None
    pre_command: t.Sequence[str] = ()
    post_command: t.Sequence[str] = ()
    drill_command: t.Sequence[str] = ()
    command_timeout: int = 600
    timeout: int = 0
    stall: int = 900
    nice: int = 10
    io_class: str = "idle"
    enabled: bool = True
    store: str = host.STORE
    backup_dir: str = host.BACKUP_DIR
    store_id: t.Optional[str] = None
    lock_timeout: int = 300
    metrics: t.Optional[str] = None
    requires_mounts: bool = True
    first_after: t.Optional[int] = None
    on_start_url: t.Optional[str] = None
    on_success_url: t.Optional[str] = None
    on_failure_url: t.Optional[str] = None

    @property
    def has_pre(self) -> bool:
        """Whether there is anything to do before a run."""
        return bool(self.pre_command or self.on_start_url or self.snapshot != "none")

    @property
    def real_source(self) -> t.Optional[bytes]:
        """Where its source is, with symbolic links followed."""
        return None if self.source is None else os.path.realpath(parse_path(self.source))

    @property
    def slots(self) -> t.Optional[Slots]:
        return None if self.interval is None else Slots(self.interval, self.phase)

    @property
    def manager(self) -> Manager:
        """The manager for its store and backup directory."""
        return Manager(self.store, self.backup_dir, self.lock_timeout, self.store_id)

    @property
    def unit(self) -> str:
        """Name of its units, without their suffix."""
        return f"volt-backup-{self.workload}"

    def text(self) -> str:
        """The file's content."""
        return json.dumps({"format": FORMAT, **self._asdict()}, indent=1, sort_keys=True) + "\n"


def check(job: Job) -> Job:
    """The same job; UsageError if it is invalid."""
    check_workload(job.workload)
    if job.keep is not None:
        parse_policy(job.keep)
    Exclusions(job.exclude)
    Exclusions(job.unstable_ok)
    brake.check_percent("max_shrink", job.max_shrink)
    brake.check_percent("max_churn", job.max_churn)
    guards.check_still(job.snapshot, job.snapshot_size, job.quiesce)
    if job.source is None and not job.snapshot == job.quiesce == "none":
        raise UsageError(f"Workload {job.workload} has no `source`, which `snapshot` and `quiesce` need; set it, or set them to none.")
    if job.source is None and not (job.command or job.dumps):
        raise UsageError(f"Workload {job.workload} has nothing to back up; set `source`, `command` or `dumps`.")
    if job.command or job.command_file or job.dumps:
        from .._sources.prepare import Asked, prepare  # only here: most schedules do without it, and it leads to much

        prepare(Asked(job.command, job.command_file, job.dumps), None if job.source is None else parse_path(job.source))
    if job.remote is not None:
        remotes.check_text(job.remote)
    if job.nice not in NICE:
        raise UsageError(f"Option nice of workload {job.workload} must be from -20 to 19 (got {job.nice}).")
    if job.command_timeout < 1:
        raise UsageError(f"Option `command_timeout` of workload {job.workload} must be at least 1 second.")
    for name, limit in (("timeout", job.timeout), ("stall", job.stall)):
        if not 0 <= limit <= _LONGEST:
            raise UsageError(f"Option {name} of workload {job.workload} must be at most 366d; write it like 90m or 6h, or 0 for none.")
    if not all(isinstance(getattr(job, name), (str, type(None))) for name in URLS):
        raise TypeError(URLS)
    for name, command in (("pre_command", job.pre_command), ("post_command", job.post_command), ("drill_command", job.drill_command)):
        if command and not os.path.isabs(command[0]):
            raise UsageError(f"Option {name} of workload {job.workload} must start with the absolute path of a program (got {command[0]!r}).")
        if any("\0" in word for word in command):
            raise UsageError(f"Option {name} of workload {job.workload} contains a NUL character; remove it.")
    return job


def from_options(options: t.Mapping[str, t.Any], **shared: t.Any) -> Job:
    """A job as a user declares it, in the words of the module; UsageError if it is invalid."""
    workload = check_workload(options["workload"])
    if options["source"] is not None and not os.path.isabs(parse_path(options["source"])):
        raise UsageError(f"Source {options['source']!r} of workload {workload} must be an absolute path.")
    if bool(options["interval"]) == bool(options["on_calendar"]):
        raise UsageError(f"Workload {workload} has no time to run; set either `interval` or `on_calendar`.")
    slots = parse_slots(options["interval"], options["randomized_delay"], options["jitter_seed"], workload) if options["interval"] else None
    keep = {name: value for name, value in (options["keep"] or {}).items() if value is not None} or None
    if options["max_keep"]:
        if keep is not None or options["max_keep"] < 0:
            raise UsageError(f"Workload {workload}: retention is set wrongly; set either `max_keep`, 0 or more, or `keep`.")
        keep = {"last": options["max_keep"]}
    codec.choose(options["compression"])
    for name in URLS:  # not in a job file: an address that cannot be called keeps no backup from being made
        _check_url(name, options[name], workload)
    if options["push_to_cdn"] != (options["remote"] is not None):
        raise UsageError(f"Workload {workload}: `push_to_cdn` and `remote` need each other; set both, or neither.")
    if options["remote"] is not None:
        remotes.resolve(options["remote"])  # not in `check`: a remote that is no longer declared keeps no backup from being made
    same = {name: options[name] for name in _SAME if options[name] is not None}
    when = {"interval": slots.interval, "phase": slots.phase} if slots else {"on_calendar": options["on_calendar"].strip()}
    limits = {name: _limit(options[name]) for name in ("timeout", "stall")}
    first = _first_after(options["first_run"], slots, options["jitter_seed"], workload)
    return check(Job(**{**same, **shared, **when, **limits, "workload": workload, "keep": keep, "first_after": first}))


def _first_after(first_run: str, slots: t.Optional[Slots], seed: str, workload: str) -> t.Optional[int]:
    """Seconds from the declaration to the first backup: spread over the interval, or over a day of a calendar."""
    spread = phase(seed, f"first {workload}", slots.interval if slots else DAY)
    return {"slot": None, "now": 0, "spread": spread}[first_run]


def _check_url(name: str, url: t.Optional[str], workload: str) -> None:
    """UsageError for an invalid URL, without quoting it."""
    if url is None:
        return
    unknown = sorted(set(_PLACE.findall(url)) - set(FACTS))
    if unknown:
        said = unknown[0] if _NAME.fullmatch(unknown[0]) else "..."
        raise UsageError(f"Option {name} of workload {workload} has {{{said}}}, which is unknown; use one of {', '.join(FACTS)}.")
    plain = _PLACE.sub("1", url)
    if "{" in plain or "}" in plain:
        raise UsageError(f"Option {name} of workload {workload} has an unmatched brace; write %7B for {{ and %7D for }}.")
    if not notification.is_address(plain):
        raise UsageError(f"Option {name} of workload {workload} {notification.ADDRESS}.")


def _limit(text: t.Optional[str]) -> int:
    """Seconds that something may take; 0, for no limit, if nothing or 0 is given."""
    form = (text or "").strip()
    return 0 if form in ("", "0") else int(parse_span(form).total_seconds())


def parse(text: str, name: str) -> Job:
    """A job from its file's content; VoltError for an invalid one, Older and Unsupported for other formats."""
    try:
        value = json.loads(text)
        number = value.pop("format")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise VoltError(f"{name} is not a job file of volt.backup; declare the schedule again with `force: true`, or move the file away.") from None
    if not isinstance(number, int) or isinstance(number, bool):
        raise VoltError(f"{name} is not a job file of volt.backup; declare the schedule again with `force: true`, or move the file away.")
    if number > FORMAT:
        raise newer(f"{name} (job format {number})")
    if number < FORMAT:
        raise Older(f"{name} was written by an older version (job format {number}); declare the schedule again.")
    unknown = sorted(set(value) - set(Job._fields))
    try:
        if unknown:
            raise UsageError(f"{unknown[0]} is unknown.")
        job = check(Job(**value))
        if (job.interval is None) == (job.on_calendar is None) or (job.interval is not None and not 0 <= job.phase < job.interval):
            raise UsageError("it has no time to run.")
        return job
    except (TypeError, ValueError, AttributeError):
        raise VoltError(f"{name} is damaged; declare the schedule again.") from None
    except UsageError as error:
        raise VoltError(f"{name} is damaged ({error.message}); declare the schedule again.") from None


def coarse(job: Job) -> t.Optional[str]:
    """The warning if the finest rule is coarser than the interval: each run would delete the backup before it."""
    keep = job.keep or {}
    rules = [name for name in _PERIODS if keep.get(name)]
    every = (systemd.period(t.cast(str, job.on_calendar)) if job.interval is None else job.interval) if rules else None
    if every is None or every >= _PERIODS[rules[0]] or (keep.get("last") or 0) > 1:
        return None
    if keep.get("within") and parse_span(keep["within"]).total_seconds() >= every:
        return None
    return (
        f"Workload {job.workload} is backed up every {every // 60:.0f} minutes, but the finest rule in keep is {rules[0]}, so a run deletes the backup before"
        " it. Add last or within to keep."
    )


def shown(content: t.Optional[str]) -> str:
    """What a diff may show of a job file."""
    try:
        value = json.loads(content or "")
        hidden = {name: "(secret)" for name in URLS if value.get(name)}
        return json.dumps({**value, **hidden}, indent=1, sort_keys=True) + "\n" if hidden else content or ""
    except (ValueError, AttributeError, TypeError):
        return content or ""


def path(workload: str, directory: str = DIRECTORY) -> str:
    return os.path.join(directory, f"{check_workload(workload)}.json")


def load(workload: str, directory: str = DIRECTORY) -> Job:
    """The job of a workload; NotFound if none is declared."""
    place = path(workload, directory)
    try:
        job = parse(files.read_file(place, _MOST).decode(), place)
    except FileNotFoundError:
        raise NotFound(f"Workload {workload} has no schedule ({place} is missing); declare one with volt_backup_schedule.") from None
    except UnicodeDecodeError:
        raise VoltError(f"{place} is not a job file of volt.backup; move it away.") from None
    except OSError as error:
        raise VoltError(f"{place} cannot be read: {reason(error)}; run as root.") from None
    if job.workload != workload:
        raise VoltError(f"{place} is the job of workload {job.workload}; declare the schedule again.")
    return job


def is_declared(workload: str) -> bool:
    """Whether a workload has a job file. False for users who cannot read the directory."""
    return os.path.lexists(path(workload))


def declared(directory: str = DIRECTORY) -> t.List[str]:
    """Workloads with a job file."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise VoltError(f"{directory} cannot be read: {reason(error)}; run as root.") from None
    return sorted(name[:-5] for name in names if name.endswith(".json") and is_workload(name[:-5]))  # others are not ours
