# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Assemble: a tree of the store into a directory, new or in place.

New: everything is created under its own name in a private directory that no other user can enter; what has not changed may be linked from
the old tree instead of being copied. In place: each file is written beside its name, completed, and renamed; what is equal is not
touched. Directories get their attributes and times when all in them is done. Nothing outside is reachable: every step is one name
below an open directory.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import typing as t

from .._base import Interrupted, VoltError, create_file, kernel, open_directory, open_file, show, target_failure
from .._format import tree
from .._format.tree import DIRECTORY, FIFO, SOCKET, SYMLINK, Entry
from .._format.walk import directories, join
from .._fs import metadata
from .._fs.descent import Trail, listing
from .._fs.exclusions import CACHEDIR_TAG
from .compare import Comparer, Comparison, Selection, same_type
from .content import Filler
from .preserve import Preserve
from .remove import Remover

_NODES = {FIFO: stat.S_IFIFO, SOCKET: stat.S_IFSOCK, tree.CHARACTER: stat.S_IFCHR, tree.BLOCK: stat.S_IFBLK}


#: Names beside which files are written in place; the holder of the target's lock may remove such as are left.
DEBRIS = re.compile(rb"\.volt-restore\.[0-9a-f]{16}\.\d+\Z")


class Links:
    """Hard-link groups while they are being restored: where the first member of each was put."""

    def __init__(self, groups: t.List[t.List[bytes]], root: int, anchors: t.Mapping[int, bytes]) -> None:
        """:param anchors: members that are in place already and will not be touched, by number of their group."""
        self._group_of = {path: number for number, paths in enumerate(groups) for path in paths}
        self._sizes = [len(paths) for paths in groups]
        self._placed = dict(anchors)
        self._root = root

    def size(self, path: bytes) -> int:
        """How many names the backup gives the file at a path."""
        group = self._group_of.get(path)
        return 1 if group is None else self._sizes[group]

    def first(self, path: bytes) -> t.Optional[bytes]:
        """The member of the path's group that is in place already; the path itself becomes it where there is none."""
        group = self._group_of.get(path)
        if group is None:
            return None
        first = self._placed.setdefault(group, path)
        return None if first == path else first

    def link(self, first: bytes, directory: int, name: bytes) -> bool:
        """Give the first member a further name; False at the file system's limit of links."""
        parent, _slash, last = first.rpartition(b"/")
        fd = _open_below(self._root, parent)
        try:
            os.link(last, name, src_dir_fd=fd, dst_dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno == errno.EMLINK:
                return False
            raise
        finally:
            os.close(fd)
        return True


def _open_below(root: int, path: bytes) -> int:
    """Open a directory part by part, so that no symlink leads astray and no path is too long."""
    fd = os.dup(root)
    for part in path.split(b"/") if path else ():
        try:
            below = open_directory(part, fd)
        finally:
            os.close(fd)
        fd = below
    return fd


class Tally:
    """What was done, for the result and for the list in an error."""

    def __init__(self) -> None:
        self.unchanged = self.removed = self.size = 0
        self.done: t.List[str] = []
        self.done_count = 0
        self.kept: t.List[str] = []

    def did(self, path: bytes) -> None:
        self.done_count += 1
        if len(self.done) < 1000:
            self.done.append(show(path))


class Assembler:
    """Restores one tree. Use once."""

    def __init__(
        self, load: tree.Loader, filler: Filler, setter: metadata.Setter, comparer: Comparer, groups: t.List[t.List[bytes]],
        progress: t.Callable[[int, int], None],
    ) -> None:  # fmt: skip
        self._load, self._filler, self._setter, self._comparer, self._groups = load, filler, setter, comparer, groups
        self._progress = progress
        self._temporary = b".volt-restore." + os.urandom(8).hex().encode() + b"."
        self._links = Links([], -1, {})
        self._count = 0
        self._new_directories: t.Set[bytes] = set()
        self.tally = Tally()

    def again(self) -> Assembler:
        """One for a second attempt, with nothing done yet."""
        self._filler.linked = self._filler.copied = self._setter.refused = 0
        return Assembler(self._load, self._filler, self._setter, self._comparer, self._groups, self._progress)

    # ---- new

    def fresh(self, root: Entry, target: int, old: t.Optional[int], may_link: t.Callable[[bytes], bool]) -> None:
        """Fill an empty directory.

        :param target: a descriptor of it. :param old: of the tree whose unchanged files may be linked, or None.
        :param may_link: whether an old file at a path may be linked, all else agreeing.
        """
        try:
            with Trail(os.dup(target)) as trail:
                self._links = Links(self._groups, target, {})
                follower = Follower(old)
                mask = os.umask(0)  # no other user can enter this directory, and every mode is set outright
                try:
                    self._fresh(root, trail, follower, may_link)
                finally:
                    os.umask(mask)
                    follower.close()
        except OSError as error:
            raise target_failure("writing the new tree", error) from None

    def _fresh(self, root: Entry, trail: Trail, old: Follower, may_link: t.Callable[[bytes], bool]) -> None:
        inherits = bool(metadata.read_xattrs(trail.fd))
        own = not inherits and self._setter.owns_new(os.fstat(trail.fd))
        for path, entry, leaving in directories(self._load, root):
            if leaving:
                self._directory(trail.fd, entry, inherits)
                if path:
                    trail.leave()
                    old.leave()
                continue
            if path:
                os.mkdir(entry.name, 0o700, dir_fd=trail.fd)
                trail.enter(entry.name)
                old.enter(entry.name)
            for child in self._load(entry.content):
                if child.kind == DIRECTORY:
                    continue
                here = join(path, child.name)
                first = self._links.first(here)
                if first is not None and self._links.link(first, trail.fd, child.name):
                    pass
                elif self._link_old(here, child, old.fd, trail.fd, may_link):
                    self.tally.unchanged += 1
                else:
                    self._create(trail.fd, child.name, child, inherits, own)
                self.tally.size += child.size
                self._progress(1, child.size)

    def _link_old(self, path: bytes, entry: Entry, old: int, directory: int, may_link: t.Callable[[bytes], bool]) -> bool:
        """Take an unchanged file over from the old tree: one inode, and no byte is copied."""
        if old < 0 or not entry.is_file or not may_link(path):
            return False
        try:
            info = os.stat(entry.name, dir_fd=old, follow_symlinks=False)
            if not self._comparer.alike(entry, info, old, entry.name):
                return False
            if info.st_nlink > self._links.size(path):
                return False  # it has another name, too: perhaps in the store
            os.link(entry.name, entry.name, src_dir_fd=old, dst_dir_fd=directory, follow_symlinks=False)
        except OSError:
            return False
        return True

    # ---- in place

    def in_place(self, root: Entry, target: int, selection: Selection, preserve: Preserve, comparison: Comparison, delete: bool) -> None:
        """Make an existing directory equal to the tree, file by file; with `delete` also remove what the tree lacks."""
        self._links = Links(self._groups, target, comparison.anchors)
        try:
            with Trail(os.dup(target)) as trail:
                self._in_place(root, trail, selection, preserve, comparison.unequal_links, delete)
        except OSError as error:
            raise self._stopped(target_failure("restoring in place", error)) from None
        except VoltError as error:
            raise self._stopped(error) from None

    def _stopped(self, error: VoltError) -> VoltError:
        if isinstance(error, Interrupted):
            error = Interrupted(
                f"Stopped after {self.tally.done_count} path(s) were restored in place, each whole, the rest as it was; restore again to finish.",
                **error.details,
            )
        error.details.update(restored=self.tally.done, restored_count=self.tally.done_count)
        return error

    def _in_place(
        self, root: Entry, trail: Trail, selection: Selection, preserve: Preserve, unequal_links: t.Set[bytes], delete: bool
    ) -> None:
        wanted_whole: t.List[bool] = []  # of each directory on the way down: whether all in it was asked for

        def look(path: bytes, _entry: Entry) -> bool:
            return selection.wants(path, wanted_whole[-1])[0]

        for path, entry, leaving in directories(self._load, root, look):
            if leaving:
                if wanted_whole.pop() or path in self._new_directories:
                    self._settle_directory(trail, path, entry)
                if path:
                    trail.leave()
                continue
            inside = selection.wants(path, wanted_whole[-1])[1] if path else selection.everything
            wanted_whole.append(inside)
            if path:
                self._enter(trail, path, entry)
            fd = trail.fd
            items, names = listing(fd)
            live = {name: item[1] for name, item in zip(names, items)}
            present = set(live)
            for child in self._load(entry.content):
                here = join(path, child.name)
                info = live.pop(child.name, None)
                if child.kind != DIRECTORY and selection.wants(here, inside)[1]:
                    self._file(fd, here, child, info, here in unequal_links, preserve)
            for name in [name for name in live if DEBRIS.match(name) and not stat.S_ISDIR(live[name].st_mode)]:
                del live[name]
                _unlink(name, fd)
            tagged = any(item.name == CACHEDIR_TAG for item in self._load(entry.content))
            if delete and inside and live and not preserve.covers_inside(path, fd, present, tagged):
                self._delete(trail, path, live, preserve)

    def _enter(self, trail: Trail, path: bytes, entry: Entry) -> None:
        try:
            info: t.Optional[os.stat_result] = os.stat(entry.name, dir_fd=trail.fd, follow_symlinks=False)
        except FileNotFoundError:
            info = None
        if info is not None and not stat.S_ISDIR(info.st_mode):
            os.unlink(entry.name, dir_fd=trail.fd)
            info = None
        if info is None:
            os.mkdir(entry.name, 0o700, dir_fd=trail.fd)
            self._new_directories.add(path)
            self.tally.did(path)
        trail.enter(entry.name)

    def _settle_directory(self, trail: Trail, path: bytes, entry: Entry) -> None:
        info = os.fstat(trail.fd)
        found = metadata.read_xattrs(trail.fd)
        wanted = self._comparer.xattrs(entry)
        if self._comparer.fits(entry, info) and self._comparer.visible(found, entry) == wanted:
            return
        self._directory(trail.fd, entry, found != wanted)
        if path not in self._new_directories:
            self.tally.did(path)

    def _file(
        self, directory: int, path: bytes, entry: Entry, info: t.Optional[os.stat_result], relink: bool, preserve: Preserve
    ) -> None:
        same = info is not None and same_type(entry, info) and self._comparer.alike(entry, info, directory, entry.name)
        if same and not relink:
            self._links.first(path)
            self.tally.unchanged += entry.is_file
            self._progress(1, entry.size)
            return
        self._count += 1
        beside = self._temporary + str(self._count).encode()
        try:
            first = self._links.first(path)
            if (first is None or not self._links.link(first, directory, beside)) and not self._create(directory, beside, entry, True):
                return
            if info is not None and stat.S_ISDIR(info.st_mode):
                self._remove(directory, entry.name, path, preserve)  # empty, or to be deleted: the comparison saw to that
            os.rename(beside, entry.name, src_dir_fd=directory, dst_dir_fd=directory)
            # a rename between two names of one inode does nothing, without an error (rename(2))
            _unlink(beside, directory)
        except BaseException:
            _unlink(beside, directory)
            raise
        self.tally.did(path)
        self.tally.size += entry.size
        self._progress(1, entry.size)

    def _delete(self, trail: Trail, path: bytes, live: t.Dict[bytes, os.stat_result], preserve: Preserve) -> None:
        device = os.fstat(trail.fd).st_dev
        for name, info in live.items():
            here = join(path, name)
            if preserve.covers_extraneous(path, name, info.st_mode):
                continue
            if stat.S_ISDIR(info.st_mode) and info.st_dev != device:
                self.tally.kept.append(show(here))  # mounted
                continue
            self._remove(trail.fd, name, here, preserve)

    def _remove(self, directory: int, name: bytes, path: bytes, preserve: Preserve) -> None:
        remover = Remover(preserve)
        remover.remove(directory, name, path)
        self.tally.removed += remover.removed
        self.tally.kept += map(show, remover.kept)
        if remover.removed:
            self.tally.did(path)

    def sync(self, target: int) -> None:
        try:
            kernel.syncfs(target)
        except OSError as error:
            raise self._stopped(target_failure("making the restored files durable", error)) from None

    # ---- one thing

    def _create(self, directory: int, name: bytes, entry: Entry, strip: bool, own: bool = False) -> bool:
        """Make a file, symlink, fifo, socket or device under a new name, complete with its attributes; False for a device that we may not make.

        :param strip: a new file may have inherited attributes. :param own: a new file has our owner and the mode that it is given.
        """
        if entry.kind == SYMLINK:
            os.symlink(entry.extra.target, name, dir_fd=directory)
            self._setter.symlink(directory, name, entry)
        elif entry.is_file:
            if self._filler.hardlinks and self._filler.hardlink(entry, directory, name, lambda info: self._comparer.fits(entry, info)):
                self._hardlinked(directory, name, entry)
                return True
            finished = own and self._setter.is_born(entry)
            fd = create_file(name, directory, entry.mode if finished else 0o600)
            try:
                self._filler.fill(fd, entry)
                if finished:
                    os.utime(fd, ns=(entry.mtime, entry.mtime))
                    return True
                if strip:
                    self._setter.strip(fd, entry.extra.xattrs)
                self._setter.file(fd, entry)
            finally:
                os.close(fd)
        else:
            try:
                os.mknod(name, _NODES[entry.kind] | 0o600, os.makedev(*entry.extra.device), dir_fd=directory)
            except PermissionError:
                if entry.kind not in (tree.CHARACTER, tree.BLOCK):
                    raise  # pipes and sockets need no privilege
                self._setter.refused += 1
                return False
            if strip:
                self._setter.strip(metadata.beneath(directory, name), entry.extra.xattrs)
            self._setter.special(directory, name, entry)
        return True

    def _hardlinked(self, directory: int, name: bytes, entry: Entry) -> None:
        fd = open_file(name, directory=directory)
        try:
            if not self._comparer.fits(entry, os.fstat(fd)):
                self._setter.file(fd, entry)
        finally:
            os.close(fd)

    def _directory(self, fd: int, entry: Entry, strip: bool) -> None:
        if strip:
            self._setter.strip(fd, entry.extra.xattrs)
        self._setter.file(fd, entry)


class Follower:
    """Goes along in another tree as far as that has the same directories; `fd` is -1 where it has not."""

    def __init__(self, root: t.Optional[int]) -> None:
        self._trail = Trail(root) if root is not None else None
        self._lost = 0

    @property
    def fd(self) -> int:
        return -1 if self._trail is None or self._lost else self._trail.fd

    def enter(self, name: bytes) -> None:
        if self._trail is None or self._lost:
            self._lost += 1
            return
        try:
            self._trail.enter(name)
        except OSError:
            self._lost = 1

    def leave(self) -> None:
        if self._lost:
            self._lost -= 1
        elif self._trail is not None:
            self._trail.leave()

    def close(self) -> None:
        if self._trail is not None:
            self._trail.close()


def _unlink(name: bytes, directory: int) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
