# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""A tree beside a directory that exists: what a restore would have to do, found out without doing it.

What makes one thing equal is `equal`'s to say. Hard links are looked at here: files are linked with just those that the backup names, as far as
mounts and the limit of links allow.
"""

from __future__ import annotations

import errno
import os
import stat
import typing as t

from .._base import Closing, TargetError, UsageError, open_directory, reason, show
from .._format.diff import ADDED, CHANGED, REMOVED, Changes
from .._format.tree import DIRECTORY, Entry
from .._format.walk import Load, cut, find, join
from .._fs import metadata
from .._fs.descent import Trail
from .._fs.exclusions import CACHEDIR_TAG
from .._fs.flags import flags_at, read_flags
from .equal import Comparer, same_type
from .preserve import Preserve
from .rooms import is_left
from .space import Space

#: Where a comparison is to go: length of the directory's path and name of what is in it (see `cut`), the backup's entry of that, whether the target has a
#: directory there, whether it was asked for.
_Todo = t.Tuple[int, bytes, t.Optional[Entry], bool, bool]
#: A directory in which nothing differs. Nothing is added to it.
_EQUAL: t.Dict[bytes, t.Any] = {}
#: What fpathconf(3) says of a file system that it does not know, and how few links no file system stops at.
_UNKNOWN, _LINKS_FEW = 127, 1000


class Selection:
    """The part of a tree that a restore is about: all of it, or some paths with what is below them."""

    def __init__(self, paths: t.Iterable[bytes]) -> None:
        self._paths = [self.clean(path) for path in paths]
        self._above = {b"/".join(parts[:n]) for parts in (path.split(b"/") for path in self._paths) for n in range(len(parts))}
        self._exact = set(self._paths)
        self.everything = not self._paths or b"" in self._exact

    @staticmethod
    def clean(path: bytes) -> bytes:
        """A path below the root as its parts joined; UsageError for one that leads out, or says nothing."""
        if not path:
            raise UsageError("A path is empty; use paths as listed in the backup's contents, or none for everything.")
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise UsageError(f"Path {show(path)} contains `..`; use paths as listed in the backup's contents.")
        return b"/".join(parts)

    def wants(self, path: bytes, inside: bool) -> t.Tuple[bool, bool]:
        """(whether to look at a path at all, whether it is itself asked for). `inside`: its directory was asked for."""
        if inside or self.everything or path in self._exact:
            return True, True
        return path in self._above, False

    def check(self, load: Load, root: Entry) -> None:
        """UsageError for paths that a backup does not have."""
        missing = [path for path in sorted(self._exact) if find(load, root, path) is None]
        if missing:
            raise UsageError(f"The backup has no path {show(missing[0])}; list its contents.", paths=[show(path) for path in missing])


class Differing:
    """The paths at which something differs, as a tree of names: kept as paths, those of a deep tree take the square of its depth."""

    def __init__(self) -> None:
        self._names: t.Dict[bytes, t.Any] = {}
        self._last: t.Tuple[bytes, t.Optional[t.Dict[bytes, t.Any]]] = b"", self._names

    def add(self, path: bytes, whole: bool = False) -> None:
        """:param whole: so does all below it."""
        if not path:
            return
        above, _slash, name = path.rpartition(b"/")
        here = self._below(above, lambda node, part: node.setdefault(part, {}))
        if here is not None:
            here[name] = None if whole else here.get(name, {})
            if whole:
                self._last = b"", self._names

    def has(self, path: bytes) -> bool:
        """Whether something differs at a path or below it."""
        if not path:
            return True
        above, _slash, name = path.rpartition(b"/")
        here = self._below(above, lambda node, part: node.get(part, _EQUAL))
        return here is None or name in here

    def _below(self, path: bytes, step: t.Callable[[t.Dict[bytes, t.Any], bytes], t.Any]) -> t.Optional[t.Dict[bytes, t.Any]]:
        """What differs in a directory; None if all does. A walk goes on from the last one: from the top, a deep tree takes the square of its depth."""
        above, here = self._last
        if above and path.startswith(above) and path[len(above) : len(above) + 1] in (b"", b"/"):
            rest = path[len(above) + 1 :]
        else:
            here, rest = self._names, path
        for part in rest.split(b"/") if rest else ():
            if here is None or here is _EQUAL:
                return here
            here = step(here, part)
        if here is not _EQUAL:
            self._last = path, here
        return here


class Comparison:
    """What differs between a backup and a target.

    :ivar changes: paths to add, change and remove (what the backup lacks and does not leave alone). :ivar differing: all of them.
    :ivar files: files of the backup that were asked for. :ivar size: their bytes.
    :ivar space: what would have to be written.
    :ivar unequal_links: files whose hard links are not those of the backup.
    :ivar anchors: for each hard-link group that has a sound member, that member and its inode: the others are to be linked with it. By group and device.
    :ivar blocked: directories with content where the backup has something else: to restore that, the content must go.
    :ivar guarded: places where the backup has something, and the target something that must not go: what the backup leaves alone,
        or a mount point.
    :ivar immutable: what differs and may not be written, by its inode flags.
    :ivar read_only: directories on a read-only file system, in which something differs.
    :ivar subvolumes: directories of another device than the one above, without a mount: Btrfs subvolumes.
    :ivar left: rooms of restores that died.
    :ivar lacks: what the target cannot hold, where that was asked for.
    """

    def __init__(self, limit: int, space: Space) -> None:
        self.changes = Changes(limit)
        self.differing = Differing()
        self.files = self.size = 0
        self.space = space
        self.unequal_links: t.Set[bytes] = set()
        self.anchors: t.Dict[t.Tuple[int, int], t.Tuple[bytes, int]] = {}
        self.blocked: t.List[bytes] = []
        self.guarded: t.List[bytes] = []
        self.immutable: t.List[bytes] = []
        self.read_only: t.List[bytes] = []
        self.subvolumes: t.List[bytes] = []
        self.left: t.List[bytes] = []
        self.lacks = metadata.Skips()

    def differs(self, kind: str, path: bytes, whole: bool = False) -> None:
        """:param whole: so does all below the path."""
        self.changes.add(kind, path)
        self.differing.add(path, whole)


class TargetComparer:
    """Walks a tree and a target side by side. Use once."""

    def __init__(
        self, load: Load, comparer: Comparer, preserve: Preserve, selection: Selection, groups: t.List[t.List[bytes]], limit: int,
        shared_links: bool, mounted: t.Mapping[bytes, int], strict: int, writes_all: bool, far: bool,
    ) -> None:  # fmt: skip
        """:param shared_links: files may share an inode with others that are equal (restored as hard links into the store).
        :param mounted: mount points below the target, and ids of the mounts. :param strict: a descriptor of a directory where the target is or will
            be, to find out what it cannot hold; -1 where that does not matter.
        :param writes_all: what is equal is written as well, for nothing is taken over from the old tree. :param far: the content is on a remote, so it
            matters which chunks of large files are at the target."""
        self._mounted, self._strict, self._writes_all, self._far = mounted, strict, writes_all, far
        self._load, self._comparer, self._preserve, self._selection = load, comparer, preserve, selection
        self._group_of = {path: number for number, paths in enumerate(groups) for path in paths}
        self._inodes: t.Dict[bytes, t.Tuple[int, int]] = {}
        self._shared_links = shared_links
        self._counted: t.Set[bytes] = set()
        self._keeps: t.List[bool] = []
        self._in_the_way: t.Set[bytes] = set()
        self._looked_at: t.Optional[bytes] = None
        self.result = Comparison(limit, Space(self._group_of))

    def __call__(self, root: Entry, target: t.Optional[int]) -> Comparison:
        """:param target: a descriptor of the target directory, None where there is none; closed at the end."""
        self._selection.check(self._load, root)
        result = self.result
        if self._strict >= 0 and self._selection.everything:
            result.lacks.add(b"", self._comparer.lacks(root, self._strict, os.fstat(self._strict).st_dev))
        todo: t.List[_Todo] = []
        path = b""
        self._links_most = links_most(target) if target is not None else 0
        if target is None:
            result.differs(ADDED, b"")
            self._descend(b"", root, self._selection.everything, None, todo)
            while todo:
                length, name, entry, _live, inside = todo.pop()
                path = cut(path, length, name)
                self._descend(path, t.cast(Entry, entry), inside, None, todo)
        else:
            with Trail(target) as trail:
                if self._selection.everything and not self._same_directory(root, os.fstat(trail.fd), trail.fd):
                    result.differs(CHANGED, b"")
                self._descend(b"", root, self._selection.everything, trail, todo)
                while todo:
                    length, name, entry, live, inside = todo.pop()
                    path = cut(path, length, name)
                    if entry is _UP:
                        trail.leave()
                        if live:
                            self._up(path)
                        continue
                    if live and not self._enter(trail, path):
                        live = False  # gone since its directory was listed
                        if entry is None:
                            continue
                        result.differs(CHANGED, path, True)
                    if live:
                        todo.append((len(path), b"", _UP, entry is None, False))
                        if entry is None:
                            self._keeps.append(False)
                    self._descend(path, entry, inside, trail if live else None, todo)
        self._check_links()
        return result

    def _enter(self, trail: Trail, path: bytes) -> bool:
        """Go down; False where there is no longer a directory."""
        device = os.fstat(trail.fd).st_dev
        try:
            info = trail.enter_on_mount(path.rpartition(b"/")[2], self._mounted.get(path))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return False
            if error.errno == errno.EXDEV:
                raise TargetError(f"{show(path)} in the target was mounted during the restore; unmount it, then restore again.") from None
            raise TargetError(f"{show(path)} in the target cannot be opened: {reason(error)}; fix that, then run again.") from None
        if info.st_dev != device and path not in self._mounted:
            self.result.subvolumes.append(path)
        return True

    def _same_directory(self, entry: Entry, info: os.stat_result, fd: int) -> bool:
        return self._comparer.fits(entry, info, fd) and self._comparer.same_xattrs(entry, metadata.read_xattrs(fd), info, fd)

    def _descend(
        self, path: bytes, entry: t.Optional[Entry], inside: bool, trail: t.Optional[Trail],
        todo: t.List[_Todo],
    ) -> None:  # fmt: skip
        """Compare what is in one directory. `entry` is None for one that the backup lacks, `trail` for one that the target lacks."""
        entries = self._load(entry.content) if entry is not None else []
        fd = trail.fd if trail is not None else -1
        live = _names(fd) if trail is not None else set()
        result, below = self.result, []
        for item in entries:
            here = join(path, item.name)
            look, wanted = self._selection.wants(here, inside)
            if not look:
                continue
            info = None
            if item.name in live:
                live.remove(item.name)
                info = _stat(fd, item.name, here)
            if wanted and item.is_file:
                result.files += 1
                result.size += item.size
            if wanted and self._strict >= 0:
                place = fd if fd >= 0 else self._strict
                result.lacks.add(here, self._comparer.lacks(item, place, os.fstat(place).st_dev))
            if info is None:
                result.differs(ADDED, here, True)
                result.space.add(here, item)
                self._note_closed(path, fd)
                if item.kind == DIRECTORY:
                    below.append((len(path), item.name, item, False, wanted))
                continue
            if not same_type(item, info):
                result.differs(CHANGED, here, True)
                result.space.add(here, item)
                self._note_immutable(here, fd, item.name)
                self._note_closed(path, fd)
                if self._is_in_the_way(path, item.name, info, fd):
                    below.append((len(path), item.name, None, True, True))
                elif item.kind == DIRECTORY and here not in result.guarded[-1:]:
                    below.append((len(path), item.name, item, False, wanted))
                continue
            if wanted and not self._comparer.alike(item, info, fd, item.name):
                result.differs(CHANGED, here)
                self._counted.add(here)
                if item.kind != DIRECTORY and here in self._mounted:
                    result.guarded.append(here)
                self._note_immutable(here, fd, item.name)
                result.space.add(here, item, self._comparer.at_hand(item, fd, item.name) if self._far else b"")
            elif self._writes_all:
                result.space.add(here, item, self._comparer.at_hand(item, fd, item.name) if self._far else b"")
            if item.kind == DIRECTORY:
                below.append((len(path), item.name, item, True, wanted))
            elif info.st_nlink > 1 or here in self._group_of:
                self._inodes[here] = (info.st_dev, info.st_ino)
        if inside and live:
            tagged = any(item.name == CACHEDIR_TAG for item in entries)
            self._extra(path, fd, live, self._preserve.covers_inside(path, fd, live, tagged), below)
        todo += reversed(below)

    def _is_in_the_way(self, path: bytes, name: bytes, info: os.stat_result, fd: int) -> bool:
        """Whether a directory is where the backup has something else, so that what is in it would have to go. What must not go is noted."""
        here, directory = join(path, name), stat.S_ISDIR(info.st_mode)
        apart = directory and info.st_dev != os.fstat(fd).st_dev  # mounted, or a subvolume
        if apart and here not in self._mounted:
            self.result.subvolumes.append(here)
        if apart or here in self._mounted or self._preserve.covers(path, name, directory):
            self.result.guarded.append(here)
            return False
        if directory:
            self._blocked(here, name, fd)
        return directory

    def _extra(self, path: bytes, fd: int, live: t.Set[bytes], hollow: bool, below: t.List[t.Any]) -> None:
        """What the target has and the backup lacks; what the backup never looked at keeps its directory, too."""
        device = os.fstat(fd).st_dev
        for name in sorted(live):
            info = _stat(fd, name, join(path, name))
            if info is None:
                continue
            directory = stat.S_ISDIR(info.st_mode)
            if directory and is_left(fd, name):
                self.result.left.append(join(path, name))
                self.result.differing.add(path)
            elif directory and info.st_dev != device and join(path, name) not in self._mounted:
                self.result.subvolumes.append(join(path, name))
                if self._keeps:
                    self._keeps[-1] = True
            elif hollow or self._preserve.covers_extraneous(path, name, info.st_mode):
                if self._keeps:
                    self._keeps[-1] = True
            elif directory:
                below.append((len(path), name, None, True, True))
            else:
                self.result.differs(REMOVED, join(path, name))

    def _note_immutable(self, path: bytes, directory: int, name: bytes) -> None:
        """A file that is to be replaced, or a directory that is to be changed."""
        if flags_at(directory, name).is_immutable:
            self.result.immutable.append(path)

    def _note_closed(self, path: bytes, fd: int) -> None:
        """A directory in which something is to be made or replaced."""
        if fd < 0 or path == self._looked_at:
            return
        self._looked_at = path
        if read_flags(fd).is_immutable:
            self.result.immutable.append(path)
        if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
            self.result.read_only.append(path)

    def _up(self, path: bytes) -> None:
        """Leave a directory that the backup lacks."""
        keeps = self._keeps.pop()
        if path in self._in_the_way:
            if keeps:
                self.result.guarded.append(path)
        elif not keeps:
            self.result.differs(REMOVED, path)
        elif self._keeps:
            self._keeps[-1] = True

    def _blocked(self, path: bytes, name: bytes, directory: int) -> None:
        self._in_the_way.add(path)
        with Closing(open_directory(name, directory)) as fd:
            if os.listdir(fd):
                self.result.blocked.append(path)

    def _check_links(self) -> None:
        """Files are linked with just those that the backup says; else they count as changed. No link leads across a mount."""
        sharing: t.Dict[t.Tuple[int, int], int] = {}
        for inode in self._inodes.values():
            sharing[inode] = sharing.get(inode, 0) + 1
        spread = self._spread(sharing)
        claimed: t.Dict[t.Tuple[int, int], int] = {}
        wrong, anchors = self.result.unequal_links, self.result.anchors
        for path in sorted(self._inodes):
            group, inode = self._group_of.get(path), self._inodes[path]
            if group is None:
                if sharing[inode] > 1 and not self._shared_links:
                    wrong.add(path)
            elif path not in self._counted and (group, inode[0]) not in anchors and claimed.setdefault(inode, group) == group:
                anchors[group, inode[0]] = path, inode[1]
        for path, inode in self._inodes.items():
            group = self._group_of.get(path)
            anchor = None if group is None else anchors.get((group, inode[0]))
            if group is not None and (anchor is None or anchor[1] != inode[1]) and group not in spread:
                wrong.add(path)
        for path in sorted(wrong - self._counted):
            self.result.differs(CHANGED, path)

    def _spread(self, sharing: t.Mapping[t.Tuple[int, int], int]) -> t.Set[int]:
        """Groups of more names than the file system allows one file: each of their files but one has all the names that it may."""
        files: t.Dict[int, t.Set[t.Tuple[int, int]]] = {}
        names: t.Dict[int, int] = {}
        for path, inode in self._inodes.items():
            group = self._group_of.get(path)
            if group is not None:
                files.setdefault(group, set()).add(inode)
                names[group] = names.get(group, 0) + 1
        found = set()
        for group, inodes in files.items():
            counts = sorted(sharing[inode] for inode in inodes)
            if len(counts) > 1 and counts[-1] >= self._links_most and counts[1] == counts[-1] and sum(counts) == names[group]:
                found.add(group)
        return found


def _names(directory: int) -> t.Set[bytes]:
    """What is in a directory, which may have a million entries. Each is looked at when it is compared, for their stats would take 400 MB."""
    with os.scandir(directory) as entries:
        return {os.fsencode(entry.name) for entry in entries}


def _stat(directory: int, name: bytes, path: bytes) -> t.Optional[os.stat_result]:
    """None for what is gone since the directory was listed."""
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TargetError(f"{show(path)} in the target cannot be compared: {reason(error)}; fix that, then run again.") from None


def links_most(directory: int) -> int:
    """How many names a file may have on a directory's file system, at least."""
    try:
        most = os.fpathconf(directory, "PC_LINK_MAX")
    except (OSError, ValueError):
        return _LINKS_FEW
    return _LINKS_FEW if most <= _UNKNOWN else most


_UP = Entry(b"", 0, 0, 0, 0, 0, 0, 0, b"")
