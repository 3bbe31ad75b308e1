# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""A tree beside a directory that exists: what a restore would have to do, found out without doing it.

Equal means: type, mode, owner, size, mtime, device, symlink target, extended attributes and hard-link groups agree; with `verify`
the content is hashed as well.
"""

from __future__ import annotations

import hashlib
import os
import stat
import typing as t

from .._base import TargetError, UsageError, open_directory, reason, show
from .._format import chunks, tree
from .._format.diff import ADDED, CHANGED, REMOVED, Changes
from .._format.tree import CHUNKED, DIRECTORY, FILE, SYMLINK, Entry, Read
from .._format.walk import Load, find, join
from .._fs import metadata
from .._fs.descent import Patience, Trail, find_holes, listing, open_source
from .._fs.exclusions import CACHEDIR_TAG
from .preserve import Preserve

#: Seconds that a comparison waits for one lease to be given back.
_LEASE = 60.0


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
            raise UsageError("An empty path names nothing; give paths as the backup's contents show them, or none for everything.")
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise UsageError(f"Path {show(path)} leads out of the backup; give paths as the backup's contents show them.")
        return b"/".join(parts)

    def wants(self, path: bytes, inside: bool) -> t.Tuple[bool, bool]:
        """(whether to look at a path at all, whether it is itself asked for). `inside`: its directory was asked for."""
        if inside or self.everything:
            return True, True
        if path in self._exact:
            return True, True
        return path in self._above, False

    def check(self, load: Load, root: Entry) -> None:
        """UsageError for paths that a backup does not have."""
        missing = [path for path in sorted(self._exact) if find(load, root, path) is None]
        if missing:
            raise UsageError(f"The backup has no {show(missing[0])}; see its contents.", paths=[show(path) for path in missing])


class Comparer:
    """Tells whether what is at a place equals an entry."""

    def __init__(self, read: Read, read_object: Read, owners: metadata.Owners, verify: bool) -> None:
        self._read, self._read_object, self._owners, self._verify = read, read_object, owners, verify
        self._root = os.geteuid() == 0

    def alike(self, entry: Entry, info: os.stat_result, directory: int, name: bytes) -> bool:
        """Whether all but the content agrees (and the content, with `verify`)."""
        if not self.fits(entry, info):
            return False
        if entry.kind == SYMLINK and os.fsencode(os.readlink(name, dir_fd=directory)) != entry.extra.target:
            return False
        if self.xattrs(entry) != self.visible(metadata.read_xattrs(metadata.beneath(directory, name)), entry):
            return False
        return not (self._verify and entry.is_file) or self.same_content(entry, directory, name)

    def fits(self, entry: Entry, info: os.stat_result) -> bool:
        """What a stat alone can tell."""
        if not same_type(entry, info):
            return False
        uid, gid = self._owners.local(entry) if self._root else (info.st_uid, info.st_gid)
        return (
            entry.mode == info.st_mode & 0o7777
            and (uid, gid) == (info.st_uid, info.st_gid)
            and entry.mtime == info.st_mtime_ns
            and (not entry.is_file or entry.size == info.st_size)
            and entry.extra.device == ((os.major(info.st_rdev), os.minor(info.st_rdev)) if stat.S_IFMT(info.st_mode) in _DEVICES else (0, 0))
        )

    def xattrs(self, entry: Entry) -> metadata.Xattrs:
        """The entry's attributes, as far as this user can set and see them."""
        if self._root:
            return entry.extra.xattrs
        return tuple(item for item in entry.extra.xattrs if item[0].startswith((b"user.", b"system.posix_acl_")))

    def visible(self, found: metadata.Xattrs, entry: Entry) -> metadata.Xattrs:
        """A label that the kernel gives by itself is no difference where the backup has none."""
        if any(name == b"security.selinux" for name, _value in entry.extra.xattrs):
            return found
        return tuple(item for item in found if item[0] != b"security.selinux")

    def same_content(self, entry: Entry, directory: int, name: bytes) -> bool:
        """Hash a file of the right size; False also where it cannot be read."""
        try:
            fd = open_source(os.fsdecode(name), directory, Patience(_LEASE))
        except OSError:
            return False
        try:
            if os.fstat(fd).st_size != entry.size:
                return False
            if entry.kind == FILE:
                data = os.pread(fd, entry.size + 1, 0)
                return not entry.size or hashlib.sha256(data).digest() == entry.content
            found = chunks.decode(self._read(entry.content, chunks.LIST_LIMIT), entry.size)
            at = 0
            for offset, length, digest in found.chunks():
                if hashlib.sha256(os.pread(fd, length, offset)).digest() != digest or not _zeros(fd, at, offset):
                    return False
                at = offset + length
            return _zeros(fd, at, entry.size)
        except OSError:
            return False
        finally:
            os.close(fd)


_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
_TYPES = {**metadata.SPECIAL, stat.S_IFDIR: DIRECTORY, stat.S_IFREG: FILE}


def same_type(entry: Entry, info: os.stat_result) -> bool:
    kind = _TYPES.get(stat.S_IFMT(info.st_mode))
    return kind == (FILE if entry.kind == CHUNKED else entry.kind)


def _zeros(fd: int, start: int, end: int) -> bool:
    for offset, length in chunks.data_ranges(start, end, find_holes(fd, end)):
        for at in range(offset, offset + length, chunks.CHUNK):
            if any(os.pread(fd, min(chunks.CHUNK, offset + length - at), at)):
                return False
    return True


class Comparison:
    """What differs between a backup and a target.

    :ivar changes: paths to add, change and remove (what the backup lacks and does not leave alone).
    :ivar size: bytes of file content that would have to be written.
    :ivar unequal_links: files whose hard links are not those of the backup.
    :ivar anchors: for each hard-link group that has a sound member, that member: the others are to be linked with it.
    :ivar blocked: directories with content where the backup has something else: to restore that, the content must go.
    :ivar guarded: places where the backup has something, and the target something that must not go: what the backup leaves alone,
        or a mount point.
    """

    def __init__(self, limit: int) -> None:
        self.changes = Changes(limit)
        self.size = 0
        self.unequal_links: t.Set[bytes] = set()
        self.anchors: t.Dict[int, bytes] = {}
        self.blocked: t.List[bytes] = []
        self.guarded: t.List[bytes] = []


class TargetComparer:
    """Walks a tree and a target side by side. Use once."""

    def __init__(
        self, load: tree.Loader, comparer: Comparer, preserve: Preserve, selection: Selection, groups: t.List[t.List[bytes]], limit: int,
        shared_links: bool, mounted: t.Container[bytes],
    ) -> None:  # fmt: skip
        """:param shared_links: files may share an inode with others that are equal (restored as hard links into the store).
        :param mounted: mount points below the target."""
        self._mounted = mounted
        self._load, self._comparer, self._preserve, self._selection = load, comparer, preserve, selection
        self._group_of = {path: number for number, paths in enumerate(groups) for path in paths}
        self._inodes: t.Dict[bytes, t.Tuple[int, int]] = {}
        self._shared_links = shared_links
        self._counted: t.Set[bytes] = set()
        self._keeps: t.List[bool] = []
        self._in_the_way: t.Set[bytes] = set()
        self.result = Comparison(limit)

    def __call__(self, root: Entry, target: t.Optional[int]) -> Comparison:
        """:param target: a descriptor of the target directory, None where there is none; closed at the end."""
        self._selection.check(self._load, root)
        result = self.result
        todo: t.List[t.Tuple[bytes, t.Optional[Entry], bool, bool]] = []
        if target is None:
            result.changes.add(ADDED, b"")
            self._descend(b"", root, self._selection.everything, None, todo)
            while todo:
                path, entry, _live, inside = todo.pop()
                self._descend(path, t.cast(Entry, entry), inside, None, todo)
        else:
            with Trail(target) as trail:
                if self._selection.everything and not self._same_directory(root, os.fstat(trail.fd), trail.fd):
                    result.changes.add(CHANGED, b"")
                self._descend(b"", root, self._selection.everything, trail, todo)
                while todo:
                    path, entry, live, inside = todo.pop()
                    if entry is _UP:
                        trail.leave()
                        if live:
                            self._up(path)
                        continue
                    if live:
                        try:
                            trail.enter(path.rpartition(b"/")[2])
                        except OSError as error:
                            raise TargetError(f"{show(path)} in the target cannot be entered: {reason(error)}.") from None
                        todo.append((path, _UP, entry is None, False))
                        if entry is None:
                            self._keeps.append(False)
                    self._descend(path, entry, inside, trail if live else None, todo)
        self._check_links()
        return result

    def _same_directory(self, entry: Entry, info: os.stat_result, fd: int) -> bool:
        comparer = self._comparer
        found = metadata.read_xattrs(fd)
        return comparer.fits(entry, info) and comparer.xattrs(entry) == comparer.visible(found, entry)

    def _descend(
        self, path: bytes, entry: t.Optional[Entry], inside: bool, trail: t.Optional[Trail],
        todo: t.List[t.Tuple[bytes, t.Optional[Entry], bool, bool]],
    ) -> None:  # fmt: skip
        """Compare what is in one directory. `entry` is None for one that the backup lacks, `trail` for one that the target lacks."""
        entries = self._load(entry.content) if entry is not None else []
        live: t.Dict[bytes, os.stat_result] = {}
        fd = -1
        if trail is not None:
            fd = trail.fd
            items, names = listing(fd)
            live = {name: item[1] for name, item in zip(names, items)}
        result, below = self.result, []
        for item in entries:
            here = join(path, item.name)
            look, wanted = self._selection.wants(here, inside)
            if not look:
                continue
            info = live.pop(item.name, None)
            if info is None:
                result.changes.add(ADDED, here)
                result.size += item.size
                if item.kind == DIRECTORY:
                    below.append((here, item, False, wanted))
                continue
            if not same_type(item, info):
                result.changes.add(CHANGED, here)
                result.size += item.size
                if here in self._mounted or self._preserve.covers(path, item.name, stat.S_ISDIR(info.st_mode)):
                    result.guarded.append(here)
                elif stat.S_ISDIR(info.st_mode):
                    self._blocked(here, item.name, fd)
                    below.append((here, None, True, True))
                elif item.kind == DIRECTORY:
                    below.append((here, item, False, wanted))
                continue
            if wanted and not self._comparer.alike(item, info, fd, item.name):
                result.changes.add(CHANGED, here)
                self._counted.add(here)
                if item.kind != DIRECTORY and here in self._mounted:
                    result.guarded.append(here)
                if item.is_file:
                    result.size += item.size
            if item.kind == DIRECTORY:
                below.append((here, item, True, wanted))
            elif info.st_nlink > 1 or here in self._group_of:
                self._inodes[here] = (info.st_dev, info.st_ino)
        if inside and live:
            tagged = any(item.name == CACHEDIR_TAG for item in entries)
            self._extra(path, live, self._preserve.covers_inside(path, fd, live.keys() | {item.name for item in entries}, tagged), below)
        todo += reversed(below)

    def _extra(self, path: bytes, live: t.Dict[bytes, os.stat_result], hollow: bool, below: t.List[t.Any]) -> None:
        """What the target has and the backup lacks; what the backup never looked at keeps its directory, too."""
        for name, info in live.items():
            directory = stat.S_ISDIR(info.st_mode)
            if hollow or self._preserve.covers_extraneous(path, name, info.st_mode):
                if self._keeps:
                    self._keeps[-1] = True
            elif directory:
                below.append((join(path, name), None, True, True))
            else:
                self.result.changes.add(REMOVED, join(path, name))

    def _up(self, path: bytes) -> None:
        """Leave a directory that the backup lacks."""
        keeps = self._keeps.pop()
        if path in self._in_the_way:
            if keeps:
                self.result.guarded.append(path)
        elif not keeps:
            self.result.changes.add(REMOVED, path)
        elif self._keeps:
            self._keeps[-1] = True

    def _blocked(self, path: bytes, name: bytes, directory: int) -> None:
        self._in_the_way.add(path)
        fd = open_directory(name, directory)
        try:
            if os.listdir(fd):
                self.result.blocked.append(path)
        finally:
            os.close(fd)

    def _check_links(self) -> None:
        """Files are linked with just those that the backup says; else they count as changed."""
        sharing: t.Dict[t.Tuple[int, int], int] = {}
        for inode in self._inodes.values():
            sharing[inode] = sharing.get(inode, 0) + 1
        claimed: t.Dict[t.Tuple[int, int], int] = {}
        wrong, anchors = self.result.unequal_links, self.result.anchors
        for path in sorted(self._inodes):
            group, inode = self._group_of.get(path), self._inodes[path]
            if group is None:
                if sharing[inode] > 1 and not self._shared_links:
                    wrong.add(path)
            elif path not in self._counted and group not in anchors and claimed.setdefault(inode, group) == group:
                anchors[group] = path
        for path, inode in self._inodes.items():
            anchor = anchors.get(self._group_of.get(path, -1))
            if path in self._group_of and (anchor is None or self._inodes[anchor] != inode):
                wrong.add(path)
        for path in sorted(wrong - self._counted):
            self.result.changes.add(CHANGED, path)


_UP = Entry(b"", 0, 0, 0, 0, 0, 0, 0, b"")
