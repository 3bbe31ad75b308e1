# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""From candidates to workloads: resolved, named, compared with each other, measured."""

from __future__ import annotations

import os
import pwd
import re
import stat
import typing as t

from .._backup.ids import is_workload
from .._base import UsageError, brief, parse, show
from . import engines, machines
from .candidate import VOLUME, Candidate, Search
from .disk import AWAY, Disk, Unfit
from .images import images, look
from .size import Measure

KINDS = (*machines.MODES, VOLUME)

Finder = t.Callable[[Search], t.Iterable[Candidate]]
#: All of them look, whatever kinds are wanted: what is found must not depend on that. Volt's come first, see `find`.
FINDERS: t.Sequence[Finder] = (
    machines.volt_containers,
    machines.volt_vms,
    machines.nspawn,
    engines.docker_volumes,
    engines.podman_volumes,
    engines.compose,
)
#: What a pattern of exclusions takes as it stands.
_PLAIN = re.compile(r"[A-Za-z0-9_.@+=,-]+\Z")


class FindRequest(t.NamedTuple):
    """What to look for. Names as in the contract."""

    kinds: t.Collection[str] = KINDS
    sizes: bool = True
    users: t.Sequence[str] = ()
    compose_dirs: t.Sequence[str] = ()


#: The name by which checks from outside know it.
Request = FindRequest


class Spot(t.NamedTuple):
    """Where a candidate really is: a directory to back up, and what to leave out of it; for a disk image, its name in there."""

    source: str
    exclude: t.Tuple[str, ...] = ()
    image: t.Optional[str] = None


#: How many words of a workload's own, such as the names of its containers, are told.
_MOST_NAMES = 1000


class Found(t.NamedTuple):
    """What a look has brought."""

    workloads: t.List[t.Dict[str, t.Any]]
    left_out: t.List[t.Dict[str, str]]
    warnings: t.List[str]
    #: Whether what was not found is not there.
    complete: bool = True


def find(request: FindRequest, root: str = "/", home: t.Optional[t.Callable[[str], t.Tuple[str, str]]] = None) -> Found:
    """Search a host. :param root: its root directory. :param home: returns the name and home directory of a user.

    One directory may be several workloads, such as a project and a volume bound to it: to drop one because of the other would end
    its history on the day the other comes. Only a container that Volt shows to systemd as well is one thing twice.
    """
    disk = Disk(root)
    search = Search(disk, dict((home or _home)(user) for user in request.users), [_absolute(path) for path in request.compose_dirs])
    for place in (*search.homes.values(), *search.projects):  # a file refers to it
        if disk.is_bare(place):
            disk.leave(place, f"it is empty; {AWAY}")
    chosen: t.Dict[str, t.List[t.Tuple[Candidate, Spot]]] = {}
    of_volt: t.Dict[Spot, str] = {}
    for finder in FINDERS:
        for candidate in finder(search):
            spot = _resolve(disk, candidate)
            if spot is None:
                continue
            if candidate.runtime == "nspawn" and spot in of_volt:
                disk.leave(candidate.path, f"it is the same as {of_volt[spot]}", trouble=False)
                continue
            if candidate.runtime == "volt":
                of_volt[spot] = candidate.workload
            same = chosen.setdefault(candidate.workload, [])
            if spot not in [other for _candidate, other in same]:
                same.append((candidate, spot))
    measure = Measure()
    workloads = []
    for name in sorted(chosen):
        (candidate, spot), *others = chosen[name]
        if others:
            paths = [show(other.path) for other, _spot in chosen[name]]
            for other, _spot in chosen[name]:
                disk.leave(other.path, f"{' and '.join(paths)} would all be named workload {name}; rename all but one")
        elif candidate.kind in request.kinds:
            workloads.append(_tell(disk, candidate, spot, measure if request.sizes else None))
    return Found(workloads, disk.left_out, disk.warnings, disk.complete)


def _home(user: str) -> t.Tuple[str, str]:
    """How a user is named in workloads, and the home directory."""
    try:
        entry = pwd.getpwnam(user)
    except (KeyError, ValueError):
        raise UsageError(f"User {user!r} does not exist on this host; remove it from users.") from None
    # A dot in a user's name could make two users' workloads equal; ids are not names.
    return (str(entry.pw_uid) if "." in user else user), entry.pw_dir


def _absolute(text: str) -> str:
    """A directory as a user gives it."""
    path = os.fsdecode(parse(text))
    if not path.startswith("/"):
        raise UsageError(f"`compose_dirs` must be absolute paths (got {text!r}).")
    return path


def _resolve(disk: Disk, candidate: Candidate) -> t.Optional[Spot]:
    """The real path of a candidate; None, and a note, if it cannot be backed up."""
    if not (candidate.name and is_workload(candidate.workload)):
        disk.leave(candidate.path, f"{show(candidate.workload)!r} is not a valid workload name; choose a name and declare it yourself")
        return None
    try:
        here = disk.reach(candidate.path)
        kind = os.lstat(disk.real(here)).st_mode
        if not candidate.is_image:
            if not stat.S_ISDIR(kind):
                raise Unfit("it is not a directory")
            if here == "/":
                raise Unfit("it is the whole host")
            return Spot(here)
        if not stat.S_ISREG(kind):
            raise Unfit("it is not a disk image")
        source, _slash, name = here.rpartition("/")
        if not _PLAIN.match(name):
            raise Unfit("its file name has characters that cannot be written as an exclusion pattern")
        return Spot(source or "/", ("/*", f"!/{name}"), name)
    except FileNotFoundError:
        # Deleted meanwhile; or a file refers to it, but it does not exist.
        disk.leave(candidate.path, "it does not exist", trouble=candidate.runtime != "nspawn")
    except (OSError, Unfit) as error:
        disk.leave(candidate.path, error)
    return None


def _tell(disk: Disk, candidate: Candidate, spot: Spot, measure: t.Optional[Measure]) -> t.Dict[str, t.Any]:
    """A workload as users see it. `schedule` has only options of a schedule."""
    pictures, size = [], None
    if spot.image is not None:
        path = f"{spot.source}/{spot.image}"
        try:
            size = os.lstat(disk.real(path)).st_size if measure else None
        except OSError:
            pass
        image = look(disk, path)
        pictures = [image] if image else []
    else:
        if candidate.has_images:
            pictures = images(disk, spot.source)
        if measure:
            size = measure.tree(disk.real(spot.source)).size
            if measure.lacking:
                disk.warn(spot.source, f"has {measure.lacking} directories that cannot be read and are not in its size; run as root")
    source = show(spot.source)
    return {
        "workload": candidate.workload,
        "name": brief(show(candidate.name)),
        "runtime": candidate.runtime,
        "user": candidate.user,
        "kind": candidate.kind,
        "path": show(candidate.path),
        "source": source,
        "size": size,
        "images": pictures,
        "config": None if candidate.config is None else show(candidate.config),
        "binds": [brief(path) for path in candidate.binds[:_MOST_NAMES]],
        "containers": None if candidate.containers is None else [brief(show(name)) for name in candidate.containers[:_MOST_NAMES]],
        "schedule": {
            "workload": candidate.workload,
            "source": source,
            "workload_mode": candidate.kind,
            **({"exclude": list(spot.exclude)} if spot.exclude else {}),  # an empty list would override the default exclusions
            **({"quiesce": candidate.quiesce} if candidate.quiesce else {}),
        },
    }
