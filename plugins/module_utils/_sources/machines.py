# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Machines of systemd-nspawn: which running ones use a source, and how they are paused, stopped and started.

systemd-machined has a file for each running machine, which names its first process. What the machine uses is told by the mounts of that process, as
the kernel has them; no file in the machine counts.

A machine is paused by the freezer of its control group. `systemctl freeze` does the same to a whole unit, but the unit can be the service that
systemd-nspawn itself runs in: frozen with the machine, it misses its watchdog, and systemd before version 254 kills it (measured: 247 and 252). So only
the group `payload` is frozen, in which systemd-nspawn puts the processes of the machine.

A machine is stopped with the service whose main process is its systemd-nspawn, since that can start it again.
Sources: systemd-nspawn(1), systemd-machined.service(8), the kernel's cgroup-v2.rst.
"""

from __future__ import annotations

import os
import re
import shlex
import time
import typing as t

from .._base import SourceError, files
from .._fs.mounts import PSEUDO, Mount, is_within, mounts, parsed, place_of
from . import runtimes
from .runtimes import NSPAWN, Container, meet

#: Where systemd-machined has a file for each machine, and a symbolic link `unit:<unit>` to it.
_MACHINES = "/run/systemd/machines"
#: The group of a machine's processes, in that of its unit.
_PAYLOAD = "payload"
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.(?:scope|service)\Z")
#: Of a service: what it is, and which units stop with it.
_STOP_TOO = ("RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf", "PropagatesStopTo")
_FACTS = ",".join(("MainPID", "LoadState", "Transient", "CanStart", "CanStop", *_STOP_TOO))
#: Seconds that processes may take to freeze, or to end once their service has stopped.
_PATIENCE = 30.0
_MOST = 1 << 20

#: A path on a file system: the device, and the path from its root.
Spot = t.Tuple[int, bytes]


def using(source: bytes, way: str) -> t.List[Container]:
    """Running machines that can write to a directory of the source, or to one above it; not those that are paused.

    :raises SourceError: one of them cannot be kept still in this way.
    """
    leaders = [(name, leader) for name in sorted(files.names_in(_MACHINES)) for leader in [_leader(name)] if leader]
    seen = mounts() if leaders else []
    read = read_spots(source, seen)
    found = []
    for name, leader in leaders:
        if not any(one[0] == other[0] and meet(one[1], other[1]) for one in _written_spots(leader, seen) for other in read):
            continue
        unit, group = _place(name, leader, seen)
        if not _is_frozen(group):
            found.append(Container(NSPAWN, _freezable(name, unit, group) if way == "pause" else _service(name, leader), name, group=group))
    return found


def attempt(machine: Container, word: str) -> str:
    """Why a machine could not be paused, unpaused, stopped or started; empty where it could."""
    if word in ("stop", "start"):
        why = runtimes.attempt(["systemctl", "--no-ask-password", word, "--", machine.id])
        return why or ("" if word == "start" or _becomes(machine.group, "populated 0") else f"{machine.id} has stopped, but processes of the machine run on")
    state = "1" if word == "pause" else "0"
    why = runtimes.attempt(["tee", f"{machine.group}/cgroup.freeze"], stdin=state.encode())
    if word == "unpause" and not os.path.lexists(machine.group):
        return ""  # it has ended meanwhile
    return why or ("" if _becomes(machine.group, f"frozen {state}") else f"its processes do not {'freeze' if word == 'pause' else 'thaw'}")


def is_down(machine: Container, way: str) -> bool:
    """Whether a machine waits. SourceError where systemd does not answer. :param way: in which it was made to wait: pause or stop."""
    if way == "pause":
        return _is_frozen(machine.group)
    return runtimes.ask(["systemctl", "show", "--property=ActiveState", "--value", "--", machine.id]).strip() in ("inactive", "failed", "deactivating")


def remedy(machine: Container, word: str) -> str:
    """What a user runs to resume a machine."""
    return f"systemctl start {shlex.quote(machine.id)}" if word == "start" else f"echo 0 >{shlex.quote(f'{machine.group}/cgroup.freeze')}"


def _leader(name: str) -> str:
    """The first process of a machine that systemd-nspawn runs, by its number; else nothing."""
    if name.startswith(".") or ":" in name:
        return ""  # a file that is being written, or a link
    told = _told(name)
    leader = told.get("LEADER", "")
    return leader if told.get("SERVICE") == "systemd-nspawn" and leader.isdigit() else ""


def _told(name: str) -> t.Dict[str, str]:
    """What systemd-machined writes of a machine."""
    return dict(line.partition("=")[::2] for line in _lines(f"{_MACHINES}/{name}"))


def _lines(path: str) -> t.List[str]:
    """The lines of a file of the kernel's or of systemd's; none if what it tells of has ended."""
    try:
        return os.fsdecode(files.read_file(path, _MOST)).splitlines()
    except OSError:
        return []


def read_spots(source: bytes, seen: t.Sequence[Mount]) -> t.List[Spot]:
    """What is read of a source: itself, and the mounts below it."""
    spots = [place_of(source, seen)]
    spots += [(mount.device, mount.root) for mount in seen if mount.kind not in PSEUDO and mount.point != source and is_within(mount.point, source)]
    return [(device, plain(path)) for device, path in spots]


def _written_spots(leader: str, seen: t.Sequence[Mount]) -> t.List[Spot]:
    """What a machine can write to: the directories that it has mounted, and the disk image that a file system of it lies in.

    The list is read by a program, because the unit of a schedule lacks the capabilities to read that of a process that has more.
    """
    try:
        content = runtimes.ask(["cat", f"/proc/{leader}/mountinfo"])
    except SourceError:
        if os.path.lexists(f"/proc/{leader}"):
            raise
        return []  # it has ended
    spots: t.List[Spot] = []
    for mount in parsed(content.encode()):
        if mount.writable and mount.kind not in PSEUDO:
            spots.append((mount.device, mount.root))
            spots += [(device, plain(path)) for device, path in (place_of(os.path.normpath(file), seen) for file in _files_of(mount))]
    return spots


def _files_of(mount: Mount) -> t.Iterator[bytes]:
    """The paths on the host of what holds the data of a mount: a disk image, or the upper directory of an overlay."""
    block = f"/sys/dev/block/{os.major(mount.device)}:{os.minor(mount.device)}"
    for path in (f"{block}/loop/backing_file", f"{block}/../loop/backing_file"):  # the latter of a partition
        yield from (os.fsencode(line) for line in _lines(path))
    if mount.kind == "overlay":
        yield from (option[9:] for option in mount.options.split(b",") if option.startswith(b"upperdir=/"))


def plain(path: bytes) -> bytes:
    """A path as the output of a program has it, where other bytes than UTF-8 are all alike: then a machine too many waits, none too few."""
    return path.decode("utf-8", "replace").encode()


def _place(name: str, leader: str, seen: t.Sequence[Mount]) -> t.Tuple[str, str]:
    """The unit of a machine's processes, and the directory of their control group; empty where they have none that is theirs alone."""
    top = next((os.fsdecode(mount.point) for mount in seen if mount.kind == "cgroup2" and mount.root == b"/"), "")
    for line in _lines(f"/proc/{leader}/cgroup"):
        hierarchy, _controllers, path = (*line.split(":", 2), "", "")[:3]
        parts = path.split("/")
        for number, part in enumerate(parts):
            # The first one from above: what follows, the machine can have named.
            if _UNIT.match(part) and _machine_of(part) == name:
                alone = hierarchy == "0" and top and parts[number + 1 : number + 2] == [_PAYLOAD]
                return part, f"{top.rstrip('/')}{'/'.join(parts[:number + 1])}/{_PAYLOAD}" if alone else ""
    return "", ""


def _machine_of(unit: str) -> str:
    try:
        return os.readlink(f"{_MACHINES}/unit:{unit}")
    except OSError:
        return ""


def _freezable(name: str, unit: str, group: str) -> str:
    """The unit of a machine that can be paused."""
    if not (group and os.path.lexists(f"{group}/cgroup.freeze")):
        raise SourceError(f"Machine {name} cannot be paused: the host does not have it in a control group of version 2; set `quiesce: stop`.")
    return unit


def _service(name: str, leader: str) -> str:
    """The service that a machine is stopped and started with: its main process is the systemd-nspawn of the machine, and a file describes it."""
    if os.path.basename(_told(name).get("ROOT", "")).startswith(".#"):  # a copy that systemd-nspawn removes when the machine stops
        raise SourceError(f"Machine {name} cannot be stopped: it is ephemeral, so its files would be removed; set `quiesce: pause`.")
    (parent, *_more) = [line.split()[1] for line in _lines(f"/proc/{leader}/status") if line.startswith("PPid:")] or [""]
    groups = [part for line in _lines(f"/proc/{parent}/cgroup") for part in line.split("/") if _UNIT.match(part) and part.endswith(".service")]
    for service in groups[-1:]:
        told = dict(line.partition("=")[::2] for line in runtimes.ask(["systemctl", "show", f"--property={_FACTS}", "--", service]).splitlines())
        others = " ".join(told.get(fact, "") for fact in _STOP_TOO).split()
        if others:
            raise SourceError(f"Machine {name} cannot be stopped: {others[0]} would stop with {service}; set `quiesce: pause`.")
        if told.get("MainPID") == parent and [told.get(fact) for fact in ("LoadState", "Transient", "CanStart", "CanStop")] == ["loaded", "no", "yes", "yes"]:
            return service
    raise SourceError(f"Machine {name} cannot be stopped: no service that can start it again runs it; start it with machinectl, or set `quiesce: pause`.")


def _events(group: str) -> t.List[str]:
    """What the kernel tells of a control group; of one that has ended, as of an empty one."""
    return (_lines(f"{group}/cgroup.events") if group else []) or ["populated 0", "frozen 0"]


def _is_frozen(group: str) -> bool:
    """Whether a machine is to be frozen; "frozen 1" in its events comes only once each process is, and one that waits for a disk can take long."""
    return bool(group) and _lines(f"{group}/cgroup.freeze") == ["1"]


def _becomes(group: str, state: str) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while state not in _events(group):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
