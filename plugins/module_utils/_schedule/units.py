# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The texts of units. A service is hardened as far as a complete backup by root allows.

Not used, and why: PrivateTmp and PrivateDevices replace /tmp and /dev by other directories, ProtectKernelModules and ProtectKernelLogs make
files unreadable, and ProtectProc hides processes, so the backup would have other content. Three capabilities are kept: CAP_DAC_READ_SEARCH to
read files of others, CAP_FOWNER to do so without changing access times, and CAP_SYS_ADMIN because trusted.* attributes are invisible without
it. Hooks run outside of this, because dumps and runuser need more.
Sources: systemd.exec(5), systemd.service(5), systemd.timer(5), xattr(7).
"""

from __future__ import annotations

import os
import re
import typing as t

from .._backup import host
from .._backup.ids import is_workload
from .._base import UsageError, VoltError, open_file, parse, show
from .._remote import declared as remotes, url
from . import journal
from .job import Job
from .slots import phase

#: How each file of ours begins.
OURS = "# Written by volt.backup; changes are overwritten."
MARK = f"{OURS} Declare the schedule with volt_backup_schedule instead."
#: Texts of units of the host as a whole may hold these: the interpreter; the first one of the host that works, for those that tell of failures;
#: minute and second within an hour, by seed; how a service is hardened that works on the store, and one that speaks to servers.
PYTHON, ANY_PYTHON, SPREAD, HARDENED, HARDENED_NETWORK = "@PYTHON@", "@ANY_PYTHON@", "@SPREAD@", "@HARDENED@", "@HARDENED_NETWORK@"
#: Where a run writes what those learn who are not root (see `public`).
RUNTIME = "/run/volt"
_HOST = re.compile(r"volt-backup\.slice\Z|volt-cas-[a-z]+@?\.(?:service|timer)\Z")
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|([^\s"]\S*)')
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})|\\.|%%|\$\$")
_OF_WORKLOAD = re.compile(r"volt-backup-(.+)\.(?:service|timer)\Z")
#: In the environment of a unit, with its workload: its ExecStartPre= and ExecStopPost= lines run the hooks, so `run` does not.
HOOKED = "VOLT_BACKUP_HOOKS"
#: Seconds after which systemd ends a run that should have ended by itself (see `watchdog`): the last resort, where all of its process hangs.
_SPARE = 300

_ALONE = """\
PrivateNetwork=yes
IPAddressDeny=any
RestrictAddressFamilies=AF_UNIX
"""
#: AF_NETLINK to look up names.
_NETWORK = """\
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
"""
_HARDENED = """\
CapabilityBoundingSet={capabilities}
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
{network}RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
DevicePolicy=closed
KeyringMode=private
UMask=0077
"""
_CAPABILITIES = "CAP_DAC_READ_SEARCH CAP_FOWNER CAP_SYS_ADMIN"
#: For programs that write dumps: as other users, whose processes and directories a run must be able to end and remove.
_PROGRAMS = " CAP_SETUID CAP_SETGID CAP_CHOWN CAP_KILL"
#: Where the copy of a SQLite database is made.
_SCRATCH = "/var/tmp"
#: Becomes the first interpreter that is new enough and works; $0 is the one that other units have. An upgrade may have taken that away.
_FIRST_OF = (
    'for python in "$0" /usr/bin/python3 /usr/bin/python3.[0-9] /usr/bin/python3.[0-9][0-9] /usr/local/bin/python3 /usr/libexec/platform-python; do'
    ' "$python" -I -c "import sys, json, zipfile; sys.exit(sys.version_info < (3, 9))" 2>/dev/null && exec "$python" "$@";'
    ' done; echo "volt-backup: No Python 3.9 or newer works on this host; install one." >&2; exit 1'
)


def service(job: Job, interpreter: str, command: str, state: str) -> str:
    """The service of a job.

    :param interpreter: Python's path. :param command: path of volt-backup. :param state: the directory of the records.
    """
    call = f"{word(interpreter)} {word(command)}"
    remote = _remote(job)
    network = remote is not None and remote.kind != url.DIRECTORY
    lines = [
        MARK,
        "[Unit]",
        f"Description=Back up workload {job.workload}",
        f"After=local-fs.target remote-fs.target time-sync.target{' network-online.target' if network else ''}",
        *(["Wants=network-online.target"] if network else []),
        f"OnFailure=volt-cas-failure@{job.unit}.service",
        "StartLimitIntervalSec=0",  # it may be run by hand as often as anyone likes
        *_mounts(job),
        "",
        "[Service]",
        "Type=oneshot",
        "Slice=volt-backup.slice",
        f"SyslogIdentifier={journal.IDENTIFIER}",
        f"Environment={HOOKED}={job.workload}",
    ]
    if job.has_pre:
        lines.append(f"ExecStartPre=+{call} hook pre {job.workload}")
    lines += [
        f"ExecStart={call} run {job.workload}",
        # also without a command: it notes how the run ended, which one that was killed could not
        f"ExecStopPost=+{call} hook post {job.workload}",
        f"TimeoutStartSec={job.timeout + job.command_timeout + _SPARE if job.timeout else 'infinity'}",
        "KillMode=process",  # it hands a signal on; else the unit would not end for as long as the kernel keeps a process that hangs
        f"TimeoutStopSec={job.command_timeout + 90}",
        f"Nice={job.nice}",
    ]
    if job.io_class != "none":
        lines.append(f"IOSchedulingClass={job.io_class}")
    # the remote need not be mounted: the backup is made, and the copy fails
    places = (job.store, job.backup_dir, *([remote.path] if remote is not None and remote.path else []))
    text = hardened((*places, *_written(job)), state, network=network or bool(job.command or job.dumps), programs=bool(job.command or job.dumps))
    if job.snapshot != "none" and job.real_source is not None:  # they are shown in mounts of the run's own
        from .._sources import snapshot

        text = text.replace("RestrictNamespaces=yes\n", "RestrictNamespaces=mnt\n").replace("=@system-service\n", "=@system-service @mount\n")
        allowed = "".join(f"DeviceAllow={device}\n" for device in snapshot.devices_of(job.real_source))
        text = text.replace("DevicePolicy=closed\n", f"DevicePolicy=closed\n{allowed}")
    if job.command:  # it may be any program, and some compile code for themselves
        text = text.replace("MemoryDenyWriteExecute=yes\n", "")
    return "\n".join([*lines, text])


def _written(job: Job) -> t.Iterator[str]:
    """Where a backup writes outside of its store: snapshots into a directory of their own, SQLite beside each database, as any of its users must."""
    paths = [dump["sqlite"]["path"] for dump in job.dumps if dump.get("sqlite")]
    for path in paths:
        yield os.path.dirname(os.path.join(job.source or "/", path))
    if paths:
        yield _SCRATCH
    if job.snapshot != "none" and job.real_source is not None:
        from .._sources import snapshot

        yield from map(show, snapshot.places_of(job.real_source))


def _remote(job: Job) -> t.Optional[url.Place]:
    """Where a job's copies go, with a path as users write paths."""
    try:
        place = url.parse(remotes.resolve(job.remote).url) if job.remote is not None else None
    except VoltError:  # it is not declared any more: the run will say so
        return None
    return place._replace(path=show(place.path)) if place is not None else None


def _mounts(job: Job) -> t.List[str]:
    """The mounts that a run needs. A given path may lead to another file system than that of its parent."""
    if not job.requires_mounts:
        return []
    paths = [os.path.normpath(os.fsdecode(parse(place))) for place in (job.source, job.store, job.backup_dir) if place is not None]
    paths = list(dict.fromkeys([*paths, *map(os.path.realpath, paths)]))
    return [f"RequiresMountsFor={' '.join(word(path, variables=False) for path in paths)}"]


def hardened(places: t.Iterable[str], state: str, network: bool = False, reads: bool = True, programs: bool = False) -> str:
    """How a service is hardened.

    :param places: where it may write besides its records, as users write paths. :param state: the directory of the records.
    :param network: whether it speaks to servers. :param reads: whether it may read all files, as a backup must.
    :param programs: whether it starts programs as other users.
    """
    # A dash: if a disk is missing, the run must still start and report it.
    paths = [*(f"-{os.fsdecode(parse(place))}" for place in places), f"-{RUNTIME}", state]
    writes = " ".join(word(path, variables=False) for path in paths)
    ways = {"network": _NETWORK if network else _ALONE, "capabilities": (_CAPABILITIES if reads else "") + (_PROGRAMS if programs else "")}
    return f"ReadWritePaths={writes}\n{_HARDENED.format(**ways)}"


def installed(directory: str) -> t.List[str]:
    """Workloads with a service or a timer of ours in a directory of units."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    found = {match[1] for match in map(_OF_WORKLOAD.match, names) if match and is_workload(match[1])}
    return sorted(name for name in found if any(is_ours(os.path.join(directory, f"volt-backup-{name}.{kind}")) for kind in ("service", "timer")))


def users(directory: str, command: str) -> t.List[str]:
    """Services of ours in a directory of units that start a command, by whatever path."""
    found = []
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        path = os.path.join(directory, name)
        if name.startswith("volt-") and name.endswith(".service") and is_ours(path):
            with open(open_file(path), encoding="utf-8", errors="surrogateescape") as file:
                started = _paths(file.read())
            if any(host.is_same(show(said), show(command)) for said in started):
                found.append(name)
    return found


def _paths(text: str) -> t.Set[str]:
    """The absolute paths in the commands of a unit, those in a script of a shell among them."""
    lines = [line.partition("=")[2] for line in text.replace("\\\n", " ").splitlines() if line.startswith("Exec")]
    said = [each for line in lines for each in words(line.lstrip("@-:+!|"))]
    return {part for whole in said for part in (whole, *(piece.strip("\"';") for piece in whole.split())) if os.path.isabs(part)}


def is_ours(path: str) -> bool:
    """Whether a file begins as those do that we write. What others put there, such as the link of a masked unit, is none."""
    try:
        fd = open_file(path)
        with open(fd, "rb") as file:
            return file.read(len(OURS)) == OURS.encode()
    except OSError:
        return False


def is_host_wide(name: str) -> bool:
    """Whether a name can be that of a unit of the host itself."""
    return _HOST.match(name) is not None


class Setting(t.NamedTuple):
    """Facts of a host for its own units: `places` are those of the backups, `state` that of the records."""

    interpreter: str
    seed: str
    places: t.Sequence[str]
    state: str


def host_wide(name: str, text: str, setting: Setting) -> str:
    """A unit of the host itself, as its author wrote it; UsageError for a name that is not for such units."""
    if not is_host_wide(name):
        raise UsageError(f"Unit {name!r} is not allowed in `host_units`; use volt-backup.slice, or volt-cas-NAME with .service or .timer.")
    python = word(setting.interpreter)
    later = phase(setting.seed, name, 3600)
    for mark, meant in (
        (PYTHON, python),
        (ANY_PYTHON, f"/bin/sh -c {word(_FIRST_OF)} {python}"),
        (SPREAD, f"{later // 60:02d}:{later % 60:02d}"),
        (HARDENED, hardened(setting.places, setting.state).strip()),
        (HARDENED_NETWORK, hardened((), setting.state, network=True, reads=False).strip()),
    ):
        text = text.replace(mark, meant)
    return f"{OURS}\n{text.strip()}\n"


def timer(job: Job) -> str:
    """The timer of a job. `AccuracySec` is short, because slots are already spread."""
    lines = job.slots.calendar() if job.slots is not None else [str(job.on_calendar)]
    return "\n".join(
        [
            MARK,
            "[Unit]",
            f"Description=Start backups of workload {job.workload}",
            "",
            "[Timer]",
            *(f"OnCalendar={line}" for line in lines),
            "Persistent=true",
            "AccuracySec=1s",
            "",
            "[Install]",
            "WantedBy=timers.target",
            "",
        ]
    )


def word(text: str, variables: bool = True) -> str:
    """One word of a unit's line, with specifiers, quotes, blanks and variables escaped."""
    if all(char.isascii() and (char.isalnum() or char in "/._-+:@,=") for char in text):
        return text
    quoted: t.List[str] = []
    for byte in text.encode("utf-8", "surrogateescape"):
        char = chr(byte)
        if char == "%":
            quoted.append("%%")
        elif char == "$" and variables:
            quoted.append("$$")
        elif char in '"\\':
            quoted.append("\\" + char)
        elif 32 <= byte < 127:
            quoted.append(char)
        else:
            quoted.append(f"\\x{byte:02x}")
    return '"' + "".join(quoted) + '"'


def words(line: str) -> t.List[str]:
    """The words of a unit's line, as `word` writes them."""
    return [_plain(match[1]) if match[2] is None else match[2] for match in _WORD.finditer(line)]


def _plain(quoted: str) -> str:
    raw = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]) if match[1] else match[0][-1:], quoted.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")
