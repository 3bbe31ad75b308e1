# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Who uses a target: what runs on it as its root, and what other mount namespaces have mounted below it.

A container's mounts are in a namespace of its own, and ours shows none of them. Yet to remove a directory takes down what is mounted on it
elsewhere, and to exchange a root leaves the container with the old one. A place is compared by device and by path in the file system, which all
namespaces agree on. Sources: mount_namespaces(7), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._base import show
from .._fs import mounts
from .._fs.mounts import Mount, is_within, layers_of

#: As many are named where others only have files open.
_NAMED = 5


class Users(t.NamedTuple):
    """Sentences. `blocking`: a restore would take away what they stand on. `holding`: they keep the old files, and go on with them."""

    blocking: t.List[str]
    holding: t.List[str]


def users_of(target: bytes) -> Users:
    """Who uses a directory, as far as we may look.

    :param target: a real, absolute path.
    """
    found = Users([], [])
    ours = mounts.mounts()
    look = _Look(target, mounts.place_of(target, ours), ours, found)
    look.layers(ours, "here")
    own, root, here = os.readlink("/proc/self/ns/mnt"), _identity("/"), _identity(os.fsdecode(target))
    seen = set()
    for number in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        process = f"/proc/{number}"
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if number == os.getpid():
                continue
            namespace, top = os.readlink(f"{process}/ns/mnt"), _identity(f"{process}/root")
            if namespace != own and (namespace, top) not in seen:  # what it sees of its mounts hangs on its root, too
                seen.add((namespace, top))
                look.namespace(mounts.mounts(str(number)), _name(number))
            if top != root and _leads_below(f"{process}/root", here):
                found.blocking.append(f"{_name(number)} has its root directory in it")
            elif _leads_below(f"{process}/cwd", here) or top == root and _holds(process, target):
                found.holding.append(_name(number))
    return Users(list(dict.fromkeys(found.blocking)), found.holding)


def holding_warning(target: bytes, names: t.List[str]) -> t.Optional[str]:
    """What to tell of those who only have files open there."""
    if not names:
        return None
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more} had {show(target)} open before the restore and may still use the old files; restart these processes."


class _Look:
    """Compares mount namespaces with a place."""

    def __init__(self, target: bytes, place: t.Tuple[int, bytes], ours: t.Sequence[Mount], found: Users) -> None:
        self._target, self._place, self._found = target, place, found
        self._ours = {(mount.place, mount.device, mount.root) for mount in ours}

    def namespace(self, theirs: t.Sequence[Mount], name: str) -> None:
        """Another namespace: who has the target for a root, or something mounted below it that we do not see."""
        blocking = self._found.blocking
        for mount in theirs:
            what = (mount.place, mount.device, mount.root)
            if mount.point == b"/" and what not in self._ours and self._is_in((mount.device, mount.root)):
                blocking.append(f"the container of {name} has its root directory in it")
            elif what not in self._ours and not mount.is_itself and self._is_below(mount.place):
                blocking.append(f"the container of {name} has {show(mount.point)} mounted in it")
        self.layers([mount for mount in theirs if (mount.place, mount.device, mount.root) not in self._ours], f"in the container of {name}")

    def layers(self, seen: t.Sequence[Mount], where: str) -> None:
        """Overlays that are made of the target: to change a layer below them has no defined result."""
        for mount in seen:
            if mount.kind == "overlay" and any(is_within(layer, self._target) for layer in layers_of(mount.options)):
                self._found.blocking.append(f"the overlay at {show(mount.point)} {where} uses it")

    def _is_in(self, place: t.Tuple[int, bytes]) -> bool:
        return place[0] == self._place[0] and is_within(place[1], self._place[1])

    def _is_below(self, place: t.Tuple[int, bytes]) -> bool:
        return self._is_in(place) and place[1] != self._place[1]


def _holds(process: str, target: bytes) -> bool:
    """Whether a process with our root runs a program of a directory, or has files of it open."""
    with contextlib.suppress(OSError):
        links = [f"{process}/exe", *(f"{process}/fd/{fd}" for fd in os.listdir(f"{process}/fd"))]
        for link in links:
            with contextlib.suppress(OSError):
                if is_within(os.readlink(os.fsencode(link)), target):
                    return True
    return False


def _leads_below(link: str, top: t.Tuple[int, int]) -> bool:
    """Whether a link of /proc leads to a directory or below it, by whatever path: found out by going up from there."""
    fd = os.open(link, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        before = None
        while True:
            info = os.fstat(fd)
            here = info.st_dev, info.st_ino
            if here == top:
                return True
            if here == before:
                return False
            before = here
            above = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = above
    finally:
        os.close(fd)


def _identity(path: str) -> t.Tuple[int, int]:
    info = os.stat(path)
    return info.st_dev, info.st_ino


def _name(number: int) -> str:
    """A process as people know it. Its name is its own choice, so it is shown as a path is."""
    try:
        with open(f"/proc/{number}/comm", "rb") as file:
            return f"{show(file.read(64).strip())} (process {number})"
    except OSError:
        return f"process {number}"
