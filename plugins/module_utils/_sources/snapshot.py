# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""A source as it was at one moment: snapshots of its file systems, shown together at a private place.

::

    mounts of our own, which end with the process, however it ends
    for the mount that the source is on, and each one below it that is read
        it can make snapshots: make one
        it cannot, or fails: the live directory, and the backup says which and why; with `require` that is an error
    show all of them at the place, as they lie in the source

The place has the same names, inodes and times as the source, so paths are recorded as those of the source and the stat cache is the same.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import time
import typing as t

from .._base import SourceError, kernel, open_real, show, show_time
from .._capture.capture import View
from .._fs.exclusions import Exclusions
from .._fs.mounts import PSEUDO, SNAPSHOTS, Kinds, Mount, MountsBelow, answers, is_within, mounts, place_of
from . import btrfs, lvm, storage, zfs

#: The kind of a part that is read while it is in use; and of one that is shown without being read, so that the walk sees what is mounted there.
NOT_STILL, UNREAD = "none", ""
#: How many parts a message names that have the same reason.
_NAMED = 5
#: Seconds that a mount may take to answer.
_ANSWER = 60.0


class Part(t.NamedTuple):
    """A file system, or a subvolume, of a source: its path in the source, how it is kept still, and a descriptor of the directory to show, -1 before.

    `taken`: when its snapshot was made, in ns; 0 where there is none. `why`: why there is none, if it should have one.
    """

    path: bytes
    kind: str
    shown: int = -1
    taken: int = 0
    why: str = ""

    def record(self, source: bytes) -> t.Dict[str, t.Optional[str]]:
        """As the record of a backup has it."""
        taken = datetime.datetime.fromtimestamp(self.taken / 1e9, datetime.timezone.utc) if self.taken else None
        return {"path": _path(source, self), "kind": self.kind, "taken_at": show_time(taken) if taken else None}


class Taken(t.NamedTuple):
    """`view` is None where the source is read as it lies. `parts` are for the backup's record; `warnings` name what is not of one moment."""

    view: t.Optional[View]
    parts: t.List[t.Dict[str, t.Optional[str]]]
    warnings: t.List[str]


class Programs(t.NamedTuple):
    """Snapshots of a run that programs of the system make."""

    zfs: zfs.Snapshots
    lvm: lvm.Snapshots


@contextlib.contextmanager
def taken(source: bytes, place: bytes, need: bool, exclude: t.Optional[Exclusions], size: t.Optional[str]) -> t.Iterator[Taken]:
    """A source at one moment, for as long as the context lasts.

    :param source: a real path. :param place: an empty directory of ours. :param exclude: what is not read; None where only one file system is.
    :param need: SourceError where something cannot be kept still; otherwise it is read as it lies, with a warning.
    :param size: of a classic snapshot of LVM; None for the usual one.
    """
    place = os.path.realpath(place)
    with contextlib.ExitStack() as stack:
        parts = [Part(b"", NOT_STILL)]
        view = None
        try:
            kernel.own_mounts()  # first: what is opened before belongs to other mounts, and cannot be shown in ours
            moment = time.time_ns()
            found = _mounts_of(source)
            programs = Programs(zfs.Snapshots(stack, place), lvm.Snapshots(stack, place, size))
            wanted = [mount for mount in found if _start(source, mount) == source or _is_read(source, mount, exclude)]
            programs.zfs.take(wanted)
            programs.lvm.take(wanted)
            parts = [part for mount in found for part in _parts(stack, source, mount, exclude, programs)]
            _refuse(source, parts if need else ())
            if any(part.kind not in (NOT_STILL, UNREAD) for part in parts):
                view = _shown(stack, source, place, parts, moment)
        except OSError as error:
            stack.close()
            parts = [Part(b"", NOT_STILL, why=storage.why(error))]
            _refuse(source, parts if need else ())
        live = _told(source, parts)
        told = [f"No snapshot could be made of {live}; these files were read while they were in use."] if live else []
        yield Taken(view, [part.record(source) for part in parts if part.kind != UNREAD], told)


def places_of(source: bytes) -> t.List[bytes]:
    """The directories that snapshots of a source are made in. :param source: a real path."""
    try:
        tops = [_top(source, mount) for mount in _mounts_of(source)]
    except OSError:  # the run will say so
        return []
    return [os.path.join(top, SNAPSHOTS) for top in tops if top is not None]


def make_places(source: bytes) -> None:
    """Make these directories, before the file system is read-only to the run, and remove what runs left that were killed."""
    for place in places_of(source):
        with contextlib.suppress(OSError):
            btrfs.tidy(place)
    with contextlib.suppress(OSError):  # the run will say so
        lvm.tidy(mount.device for mount in _mounts_of(source))
    with contextlib.suppress(OSError):
        zfs.tidy(_mounts_of(source))


def devices_of(source: bytes) -> t.List[str]:
    """What a unit must allow itself for snapshots of a source (systemd.resource-control(5), DeviceAllow=). :param source: a real path."""
    with contextlib.suppress(OSError):  # the run will say so
        if any(lvm.group_of(mount.device) is not None for mount in _mounts_of(source)):
            return ["block-device-mapper r"]
    return []


def _refuse(source: bytes, parts: t.Sequence[Part]) -> None:
    live = _told(source, parts)
    if live:
        raise SourceError(f"Source {show(source)}: no snapshot can be made of {live}; exclude it, move it to Btrfs, ZFS or LVM, or set `snapshot: auto`.")


def _told(source: bytes, parts: t.Sequence[Part]) -> str:
    """Which parts are read while they are in use, and why."""
    by_reason: t.Dict[str, t.List[str]] = {}
    for part in parts:
        if part.kind == NOT_STILL:
            by_reason.setdefault(part.why, []).append(_path(source, part))
    said = []
    for why, paths in by_reason.items():
        more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        said.append(f"{', '.join(paths[:_NAMED])}{more}{f' ({why})' if why else ''}")
    return ", ".join(said)


def _path(source: bytes, part: Part) -> str:
    return show(os.path.join(source, part.path) if part.path else source)


def _shown(stack: contextlib.ExitStack, source: bytes, place: bytes, parts: t.Sequence[Part], moment: int) -> View:
    """Show all parts at a place, as they lie in the source. By descriptors: users may exchange what paths lead to."""
    view = View(place, MountsBelow(source, os.stat(source).st_dev), _identities(source, parts), moment)
    _show(place, -1, parts[0].shown)
    stack.callback(kernel.unmount, place)  # with all that is mounted below it
    top = _hold(place)
    stack.callback(os.close, top)
    for part in parts[1:]:
        _show(part.path, top, part.shown)
    return view


def _show(path: bytes, top: int, shown: int) -> None:
    """Show a directory or file at a path, read-only."""
    for call in (lambda target: kernel.bind(_link(shown), target), kernel.make_read_only):  # the second is of what lies on top by then
        fd = _hold(path, top)
        try:
            call(_link(fd))
        finally:
            os.close(fd)


def _hold(path: bytes, top: int = -1) -> int:
    """A descriptor of a file or directory, which is not opened itself. No link is followed."""
    above, _slash, name = path.rpartition(b"/")
    if not name:
        return os.open(b"/", os.O_PATH | os.O_CLOEXEC)
    directory = open_real(above, top, os.O_PATH)
    try:
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    finally:
        os.close(directory)


def _link(fd: int) -> bytes:
    return b"/proc/self/fd/%d" % fd


def _mounts_of(source: bytes) -> t.List[Mount]:
    """The mount that a source is on, and those below it, in the order of mounting."""
    seen = [mount for mount in mounts() if not mount.is_itself]
    own = [mount for mount in seen if is_within(source, mount.point)]
    top = max(own, key=lambda mount: (len(mount.point), seen.index(mount)))
    return [top, *(mount for mount in seen if mount.point != source and is_within(mount.point, source))]


def _is_read(source: bytes, mount: Mount, exclude: t.Optional[Exclusions]) -> bool:
    """Whether the walk reads what is on a mount below the source. :param exclude: None where it reads one file system only."""
    if exclude is None or mount.kind in PSEUDO:
        return False
    return not _is_excluded(source, mount, exclude)


def _is_excluded(source: bytes, mount: Mount, exclude: Exclusions) -> bool:
    names = os.path.relpath(mount.point, source).split(b"/")
    return any(exclude.excludes(b"/".join(names[:end]), names[end], True) for end in range(len(names)))


def _parts(stack: contextlib.ExitStack, source: bytes, mount: Mount, exclude: t.Optional[Exclusions], programs: Programs) -> t.Iterator[Part]:
    """What a mount shows of the source. Subvolumes below are file systems of their own."""
    start = _start(source, mount)
    path = b"" if start == source else os.path.relpath(start, source)
    if path and not _is_read(source, mount, exclude):
        excluded = exclude is not None and _is_excluded(source, mount, exclude)
        if not excluded and not mount.is_remote:  # others are never accessed, neither by the walk nor here
            yield _live(stack, path, UNREAD, start)
        return
    if mount.is_remote and not answers(mount.point, _ANSWER):
        return  # the walk finds that out, too, and says so
    if zfs.is_still(mount):
        yield _live(stack, path, zfs.KIND, start)
        return
    try:
        yield from list(_still(stack, source, mount, path, exclude, programs))
    except OSError as error:
        yield _live(stack, path, NOT_STILL, start, storage.why(error))


def _still(stack: contextlib.ExitStack, source: bytes, mount: Mount, path: bytes, exclude: t.Optional[Exclusions], programs: Programs) -> t.Iterator[Part]:
    """What a mount shows of the source, by a snapshot if it can have one. :param path: where that is in the source."""
    if mount.kind == "btrfs":
        yield from _subvolumes(stack, source, mount, path, exclude)
        return
    start = _start(source, mount)
    kind, made = (zfs.KIND, programs.zfs) if mount.kind == zfs.KIND else ("lvm", programs.lvm)
    root = made.root(mount)
    if root is None:
        yield _live(stack, path, NOT_STILL, start, made.lacks.get(mount.device, ""))
        return
    shown = _hold(os.path.relpath(place_of(start, [mount])[1], b"/"), root)
    stack.callback(os.close, shown)
    yield Part(path, kind, shown, made.taken[mount.device])


def _subvolumes(stack: contextlib.ExitStack, source: bytes, mount: Mount, path: bytes, exclude: t.Optional[Exclusions]) -> t.Iterator[Part]:
    """What a mount of Btrfs shows of the source. :param path: where that is in the source."""
    start = _start(source, mount)
    top = _top(source, mount)
    if top is None:
        yield _live(stack, path, NOT_STILL, start)
        return
    inside = os.path.relpath(start, top)
    inside = b"" if inside == b"." else inside
    below = [found for found in btrfs.nested(top) if _is_below(found, inside)]
    made: t.Dict[bytes, int] = {}
    taken = time.time_ns()
    if not btrfs.is_read_only(top):
        made = stack.enter_context(btrfs.snapshot(top, below if exclude is not None else ()))
    if b"" in made:
        shown = open_real(inside, made[b""])
        stack.callback(os.close, shown)
        yield Part(path, "btrfs", shown, taken)
    else:  # it is still already, and no snapshot could be made in it
        yield _live(stack, path, "btrfs", start)
    for found in below:
        where, live = os.path.join(path, os.path.relpath(found, inside or b".")), os.path.join(top, found)
        if exclude is None:
            yield _live(stack, where, UNREAD, live)
        elif found in made:
            yield Part(where, "btrfs", made[found], taken)
        elif btrfs.is_read_only(live):
            yield _live(stack, where, "btrfs", live)
        else:  # below a subvolume that is read-only
            taken = time.time_ns()
            yield Part(where, "btrfs", stack.enter_context(btrfs.snapshot(live, ()))[b""], taken)


def _live(stack: contextlib.ExitStack, path: bytes, kind: str, where: bytes, why: str = "") -> Part:
    """A part that is shown as it lies. OSError if it is gone meanwhile, with the reason why it has no snapshot where that is known."""
    try:
        fd = _hold(where)
    except OSError as error:
        raise OSError(error.errno, why or error.strerror) from None
    stack.callback(os.close, fd)
    return Part(path, kind, fd, why=why)


def _start(source: bytes, mount: Mount) -> bytes:
    """Where the part of a source begins that is on a mount."""
    return source if is_within(source, mount.point) else mount.point


def _top(source: bytes, mount: Mount) -> t.Optional[bytes]:
    """The root of the subvolume that this part is in, None where there is none to be reached."""
    return btrfs.top_of(_start(source, mount), mount.point) if mount.kind == "btrfs" else None


def _is_below(path: bytes, top: bytes) -> bool:
    return not top or path.startswith(top + b"/")


def _identities(source: bytes, parts: t.Iterable[Part]) -> t.Dict[int, int]:
    """By st_dev of what is shown: the identity of the live file system, as the stat cache knows it."""
    kinds, found = Kinds(), {}
    for part in parts:
        if part.kind == UNREAD:
            continue
        live = _hold(os.path.join(source, part.path) if part.path else source)
        try:
            found[os.fstat(part.shown).st_dev] = kinds.identity(live, os.fstat(live).st_dev)
        finally:
            os.close(live)
    return found
