# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Assemble: a tree of the store into a directory, new or in place.

New: everything is created under its own name in a private directory that no other user can enter; what has not changed may be linked from
the old tree instead of being copied. In place: each file grows in a private room, complete with its attributes, and is renamed to its name; what
is equal is not touched. Directories get their attributes and times when all in them is done. Nothing outside is reachable: every step is one
name below an open directory, on the mounts that were there at the first look.
"""

from __future__ import annotations

import errno
import os
import stat
import typing as t

from .._base import Closing, Damaged, Interrupted, TargetError, VoltError, files, kernel, show, target_errors, target_failure
from .._format import tree
from .._format.tree import DIRECTORY, FIFO, SOCKET, SYMLINK, Entry
from .._format.walk import Load, directories, join
from .._fs import metadata
from .._fs.descent import Trail, listing
from .._fs.exclusions import CACHEDIR_TAG
from .._fs.flags import NONE, Flags, carry, flags_at, read_flags
from .compare import Comparison, Selection
from .content import Filler
from .equal import Comparer
from .hard_links import Links
from .known import Seen
from .preserve import Preserve
from .remove import Remover
from .rooms import Rooms

_NODES = {FIFO: stat.S_IFIFO, SOCKET: stat.S_IFSOCK, tree.CHARACTER: stat.S_IFCHR, tree.BLOCK: stat.S_IFBLK}

#: As a restore names what it may not make.
_KINDS = {SYMLINK: "symlink", FIFO: "fifo", SOCKET: "socket", tree.CHARACTER: "device", tree.BLOCK: "device"}


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
    """Restores one tree. Use once.

    :ivar written: the regular files that were made in a fresh tree, with their content.
    :param salvage: told of each file whose content turns out to be lost on the way, and the restore goes on; None: that ends it.
    """

    def __init__(
        self, load: Load, filler: Filler, setter: metadata.Setter, comparer: Comparer, groups: t.List[t.List[bytes]], progress: t.Callable[[int, int], None],
        salvage: t.Optional[t.Callable[[bytes], None]] = None,
    ) -> None:  # fmt: skip
        self._load, self._filler, self._setter, self._comparer, self._groups = load, filler, setter, comparer, groups
        self._progress, self._salvage = progress, salvage
        self._links = Links([], -1, {}, {})
        self._new_directories: t.Set[bytes] = set()
        self._files = self._size = 0  # of what was looked at in place
        self.written: t.Optional[Seen] = None
        self.tally = Tally()

    def again(self) -> Assembler:
        """One for a second attempt, with nothing done yet."""
        self._filler.again()
        self._setter.skips = metadata.Skips()
        return Assembler(self._load, self._filler, self._setter, self._comparer, self._groups, self._progress, self._salvage)

    # ---- new

    def fresh(self, root: Entry, target: int, old: t.Optional[int], may_link: t.Callable[[bytes], bool]) -> None:
        """Fill an empty directory.

        :param target: a descriptor of it. :param old: of the tree that is replaced, or None: its flags are taken over, and its unchanged files may be linked.
        :param may_link: whether an old file at a path may be linked, all else agreeing.
        """
        with target_errors("writing the new tree"), Trail(os.dup(target)) as trail:
            self._links = Links(self._groups, target, {}, {})
            follower = Follower(old)
            mask = os.umask(0)  # no other user can enter this directory, and every mode is set outright
            try:
                self._fresh(root, trail, follower, may_link)
            finally:
                os.umask(mask)
                follower.close()

    def _fresh(self, root: Entry, trail: Trail, old: Follower, may_link: t.Callable[[bytes], bool]) -> None:
        device = os.fstat(trail.fd).st_dev
        self.written = Seen(device, 0)
        if old.fd >= 0:
            self._setter.skips.add(b"", carry(read_flags(old.fd), trail.fd))
        inherits = bool(metadata.read_xattrs(trail.fd))
        own = not inherits and self._setter.owns_new(os.fstat(trail.fd))
        for path, entry, leaving in directories(self._load, root):
            if leaving:
                self._directory(trail.fd, path, entry, inherits)
                if path:
                    trail.leave()
                    old.leave()
                continue
            if path:
                os.mkdir(entry.name, 0o700, dir_fd=trail.fd)
                trail.enter_on_mount(entry.name)
                old.enter(entry.name)
                if old.fd >= 0:
                    self._setter.skips.add(path, carry(read_flags(old.fd), trail.fd))
            for child in self._load(entry.content):
                if child.kind == DIRECTORY:
                    continue
                here = join(path, child.name)
                if not self._links.link(here, device, trail.fd, child.name):
                    if self._link_old(here, child, old.fd, trail.fd, may_link):
                        self.tally.unchanged += 1
                    elif not self._create(trail.fd, child.name, here, child, inherits, flags_at(old.fd, child.name) if old.fd >= 0 else NONE, old.fd, own):
                        continue
                    self._place(here, trail.fd, child.name)
                self.tally.size += child.size
                self._progress(1, child.size)

    def _place(self, path: bytes, directory: int, name: bytes) -> None:
        """Take note of a new file, and of links with others that are lost: to another mount, or beyond the limit."""
        if self._links.size(path) > 1 and self._links.placed(path, os.stat(name, dir_fd=directory, follow_symlinks=False)):
            self._setter.skips.add(path, ["hard link"])

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
        if os.stat(entry.name, dir_fd=directory, follow_symlinks=False).st_ino == info.st_ino:
            return True
        os.unlink(entry.name, dir_fd=directory)  # another user put a file of his in the place of that one
        return False

    # ---- in place

    def in_place(
        self, root: Entry, target: int, selection: Selection, preserve: Preserve, comparison: Comparison, mounted: t.Mapping[bytes, int], delete: bool,
        made: bool,
    ) -> None:  # fmt: skip
        """Make an existing directory equal to the tree, file by file; with `delete` also remove what the tree lacks. Directories in which nothing
        differs are not entered.

        :param mounted: mount points below the directory that may be entered, and ids of the mounts. :param made: the directory was made for this.
        """
        if made:
            self._new_directories.add(b"")
        self._links = Links(self._groups, target, comparison.anchors, mounted)
        try:
            with Trail(os.dup(target)) as trail, Rooms(mounted, self.tally.kept) as rooms:
                self._in_place(root, trail, rooms, selection, preserve, comparison, delete)
            self.tally.unchanged += comparison.files - self._files
            self._progress(comparison.files - self._files, comparison.size - self._size)
        except OSError as error:
            raise self._stopped(target_failure("restoring in place", error)) from None
        except VoltError as error:
            raise self._stopped(error) from None

    def _stopped(self, error: VoltError) -> VoltError:
        if isinstance(error, Interrupted):
            error = Interrupted(
                f"Stopped after {self.tally.done_count} path(s) were restored in place; the others are unchanged. Restore again to finish.",
                **error.details,
            )
        error.details.update(restored=self.tally.done, restored_count=self.tally.done_count)
        return error

    def _in_place(
        self, root: Entry, trail: Trail, rooms: Rooms, selection: Selection, preserve: Preserve, comparison: Comparison, delete: bool
    ) -> None:  # fmt: skip
        wanted_whole: t.List[bool] = []  # of each directory on the way down: whether all in it was asked for

        def look(path: bytes, _entry: Entry) -> bool:
            return selection.wants(path, wanted_whole[-1])[0] and comparison.differing.has(path)

        for path, entry, leaving in directories(self._load, root, look):
            if leaving:
                rooms.leave(path)
                if wanted_whole.pop() or path in self._new_directories:
                    self._settle_directory(trail, path, entry)
                else:
                    rooms.give_back(path, trail.fd)
                if path:
                    trail.leave()
                continue
            inside = selection.wants(path, wanted_whole[-1])[1] if path else selection.everything
            wanted_whole.append(inside)
            if path:
                self._enter(trail, rooms, path, entry)
            rooms.enter(path, trail.fd)
            fd = trail.fd
            items, names = listing(fd)
            live = {name: item[1] for name, item in zip(names, items)}
            present = set(live)
            entries = self._load(entry.content)
            for child in entries:
                here = join(path, child.name)
                info = live.pop(child.name, None)
                if child.kind != DIRECTORY and selection.wants(here, inside)[1]:
                    self._file(fd, rooms, here, child, info, comparison, preserve)
            for name in [name for name in live if rooms.sweep(fd, name)]:
                del live[name]
            tagged = any(item.name == CACHEDIR_TAG for item in entries)
            if delete and inside and live and not preserve.covers_inside(path, fd, present, tagged):
                rooms.make_writable(path, fd)
                self._delete(trail, path, live, preserve)

    def _enter(self, trail: Trail, rooms: Rooms, path: bytes, entry: Entry) -> None:
        try:
            info: t.Optional[os.stat_result] = os.stat(entry.name, dir_fd=trail.fd, follow_symlinks=False)
        except FileNotFoundError:
            info = None
        made = None
        if info is None or not stat.S_ISDIR(info.st_mode):
            rooms.make_writable(path.rpartition(b"/")[0], trail.fd)
            if info is not None:
                files.unlink(entry.name, trail.fd)
            made = rooms.make_directory(path.rpartition(b"/")[0], trail.fd, entry.name)
            self._new_directories.add(path)
            self.tally.did(path)
        try:
            found = trail.enter_on_mount(entry.name, rooms.mounted.get(path))
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise TargetError(f"{show(path)} in the target was mounted during the restore; unmount it, then restore again.") from None
            raise
        if made is not None and not os.path.samestat(found, made):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))  # exchanged just now

    def _settle_directory(self, trail: Trail, path: bytes, entry: Entry) -> None:
        info = os.fstat(trail.fd)
        found = metadata.read_xattrs(trail.fd)
        if self._comparer.fits(entry, info, trail.fd) and self._comparer.same_xattrs(entry, found, info, trail.fd):
            return
        self._directory(trail.fd, path, entry, bool(found))
        if path not in self._new_directories:
            self.tally.did(path)

    def _file(
        self, directory: int, rooms: Rooms, path: bytes, entry: Entry, info: t.Optional[os.stat_result], comparison: Comparison, preserve: Preserve
    ) -> None:  # fmt: skip
        if entry.is_file:
            self._files += 1
            self._size += entry.size
        same = info is not None and self._comparer.fits(entry, info, directory)  # of the rest, the comparison has just found all equal
        if same and comparison.differing.has(path):
            same = self._comparer.alike(entry, t.cast(os.stat_result, info), directory, entry.name)
        if same and path not in comparison.unequal_links:
            self._links.placed(path, t.cast(os.stat_result, info))
            self.tally.unchanged += entry.is_file
            self._progress(1, entry.size)
            return
        rooms.make_writable(path.rpartition(b"/")[0], directory)
        old = flags_at(directory, entry.name) if info is not None else NONE
        device = os.fstat(directory).st_dev
        for room, name in rooms.places(path.rpartition(b"/")[0], directory):
            try:
                if not self._links.link(path, device, room, name):
                    if not self._create(room, name, path, entry, True, old, directory):
                        return
                    self._place(path, room, name)
                if info is not None and stat.S_ISDIR(info.st_mode):
                    self._remove(directory, entry.name, path, preserve)  # empty, or to be deleted: the comparison saw to that
                    info = None
                os.rename(name, entry.name, src_dir_fd=room, dst_dir_fd=directory)
                break
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
            finally:
                # a rename between two names of one inode does nothing, without an error (rename(2))
                files.unlink(name, room)
        else:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
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
                self.tally.kept.append(show(here))  # mounted, or a subvolume
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

    def _create(self, directory: int, name: bytes, path: bytes, entry: Entry, strip: bool, flags: Flags, old: int, own: bool = False) -> bool:
        """Make a file, symlink, fifo, socket or device in a directory that is ours alone, complete with its attributes.

        False for what may not be made here, and for content that is lost while all else is salvaged.

        :param strip: a new file may have inherited attributes. :param flags: of the file that it replaces. :param old: a descriptor of the directory of that
            file, or -1. :param own: a new file has our owner and the mode that it is given.
        """
        if entry.is_file:
            try:
                self._regular(directory, name, path, entry, strip, flags, old, own)
            except Damaged:
                if self._salvage is None:
                    raise
                self._salvage(path)
                files.unlink(name, directory)
                return False
            return True
        try:
            if entry.kind == SYMLINK:
                os.symlink(entry.extra.target, name, dir_fd=directory)
            else:
                os.mknod(name, _NODES[entry.kind] | 0o600, os.makedev(*entry.extra.device), dir_fd=directory)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
                raise
            self._setter.skips.add(path, [_KINDS[entry.kind]])  # no privilege, or a file system without such
            return False
        if entry.kind == SYMLINK:
            self._setter.symlink(directory, name, entry, path)
        else:
            if strip:
                self._setter.strip(metadata.beneath(directory, name), entry.extra.xattrs)
            self._setter.special(directory, name, entry, path)
        return True

    def _regular(self, directory: int, name: bytes, path: bytes, entry: Entry, strip: bool, flags: Flags, old: int, own: bool) -> None:
        if self._filler.hardlinks and self._filler.hardlink(entry, directory, name, lambda info: self._comparer.fits(entry, info, directory)):
            self._hardlinked(directory, name, path, entry)
            return
        finished = own and self._setter.is_born(entry) and flags == NONE
        fd = files.create_file(name, directory, entry.mode if finished else 0o600)
        try:
            if flags != NONE:
                self._setter.skips.add(path, carry(flags, fd))
            self._filler.fill(fd, entry, old)
            if finished:
                metadata.set_time(fd, entry.mtime)
            else:
                if strip:
                    self._setter.strip(fd, entry.extra.xattrs)
                self._setter.file(fd, entry, path)
            if self.written is not None and entry.size:
                self.written.note(os.fstat(fd), entry.content)
        finally:
            os.close(fd)

    def _hardlinked(self, directory: int, name: bytes, path: bytes, entry: Entry) -> None:
        with Closing(files.open_file(name, directory=directory)) as fd:
            if not self._comparer.fits(entry, os.fstat(fd), directory):
                self._setter.file(fd, entry, path)

    def _directory(self, fd: int, path: bytes, entry: Entry, strip: bool) -> None:
        if strip:
            self._setter.strip(fd, entry.extra.xattrs)
        self._setter.file(fd, entry, path)


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
            self._trail.enter_on_mount(name)
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
