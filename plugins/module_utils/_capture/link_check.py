# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Hard links after the walk: names that may not be of one file are looked at again.

Inode numbers are used again while a walk runs, and a file can be written between the visits of two of its names. So a group is doubtful
where its names were seen in different states, or where the file system does not tell when a file was made. Of a doubtful group one name
is opened and held, so that its inode cannot be used again; a name that then leads to the same inode is the same file. One reading of the
held file serves them all, and takes the place of their entries in the trees. A name that leads elsewhere by now is a file of its own: it
keeps the entry that it has, and is told of.
"""

from __future__ import annotations

import os
import stat
import typing as t

from .._base import open_directory
from .._format import chunks, tree
from .._format.walk import replaced
from .._fs import metadata
from .._store.transaction import Transaction
from . import reading
from .file_saver import FileSaver
from .stat_cache import Stats
from .state import LinkGroup, Notes, describe

Groups = t.List[t.List[bytes]]


class LinkCheck:
    """One check. Use once, when all directories are settled.

    :param root: a descriptor of the source.
    """

    def __init__(self, run: Transaction, notes: Notes, saver: FileSaver, root: int) -> None:
        self._run, self._notes, self._saver, self._root = run, notes, saver, root
        self._groups: Groups = []
        self._entries: t.Dict[bytes, tree.Entry] = {}

    def settle(self, root: tree.Entry) -> t.Tuple[Groups, tree.Entry, Stats]:
        """(groups of names of one file, the root's entry, what the new entries add to the totals).

        :param root: the entry of the source, with its tree.
        """
        for key, group in self._notes.link_groups.items():
            if len(group) < 2:
                continue
            steady = self._notes.is_steady(key)
            if steady and key[2] >= 0:
                self._groups.append(group.paths)
            else:
                self._look_again(group, key[:2], steady)
        if not self._entries:
            return self._groups, root, Stats()
        self._run.finish()  # the trees of this walk can be read from then on

        def load(digest: bytes) -> t.List[tree.Entry]:
            return tree.load(self._run.read, digest)

        def save(entries: t.Sequence[tree.Entry]) -> bytes:
            return tree.store(self._run.add_metadata, entries)

        found = replaced(load, save, root, self._entries)
        for entry in self._entries.values():
            self._notes.uids.add(entry.uid)
            self._notes.gids.add(entry.gid)
        pairs = [(self._entries[path], old) for path, old in found.old.items()]
        size = sum(new.size - old.size for new, old in pairs)
        blobs = sum(self._notes.count_blobs(new) - self._notes.count_blobs(old) for new, old in pairs)
        return self._groups, found.root, Stats(size=size, blobs=blobs)

    def _look_again(self, group: LinkGroup, inode: t.Tuple[int, int], steady: bool) -> None:
        left = group.paths
        while left:
            first, left = left[0], left[1:]
            held = self._hold(first)
            if held < 0:
                self._lose(first)
                continue
            try:
                info = os.fstat(held)
                names = [first, *(path for path in left if self._leads_to(path, info))]
                if (info.st_dev, info.st_ino) != inode:
                    self._lose(first)
                    continue
                left = [path for path in left if path not in set(names)]
                if len(names) < 2:
                    self._lose(first)
                    continue
                self._groups.append(names)
                if not steady or reading.stamp(info) != group.stamp:
                    self._read(held, info, names)
            finally:
                os.close(held)

    def _lose(self, path: bytes) -> None:
        self._notes.unstable.append(path)

    def _read(self, held: int, info: os.stat_result, names: t.List[bytes]) -> None:
        """Give all names of a held file one entry."""
        entry = self._entry(held, info, names[0])
        for path in names if entry is not None else ():
            self._entries[path] = t.cast(tree.Entry, entry)._replace(name=path.rpartition(b"/")[2])

    def _entry(self, held: int, info: os.stat_result, path: bytes) -> t.Optional[tree.Entry]:
        kind = stat.S_IFMT(info.st_mode)
        place = f"/proc/self/fd/{held}"
        try:
            if kind != stat.S_IFREG:
                extra: t.Dict[str, t.Any] = {}
                if kind == stat.S_IFLNK:
                    extra["target"] = os.readlink(b"", dir_fd=held)
                elif kind in (stat.S_IFCHR, stat.S_IFBLK):
                    extra["device"] = (os.major(info.st_rdev), os.minor(info.st_rdev))
                return describe(info, metadata.SPECIAL[kind], b"", metadata.read_xattrs(place), **extra)
            fd = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None  # what the walk found of each name stands
        mine = True
        try:
            xattrs = metadata.read_xattrs(fd)
            content = reading.read_small(self._run, fd, info) if info.st_size <= chunks.PACKED_MOST else None
            if content is None and os.fstat(fd).st_size <= chunks.WHOLE_MOST:
                mine = False  # read_whole closes it
                content = reading.read_whole(self._run, fd)
            if content is None:
                content = reading.read_chunked(self._run, fd, None)
        except (OSError, reading.Vanished):
            return None
        finally:
            if mine:
                os.close(fd)
        if content.change == reading.UNSTABLE:
            self._notes.unstable.append(path)
        return self._saver.entry(b"", content, xattrs)

    def _hold(self, path: bytes) -> int:
        """A descriptor that keeps a file's inode from being used again; -1 where the name is gone."""
        above, _slash, name = path.rpartition(b"/")
        try:
            directory = self._directory(above)
            try:
                return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            finally:
                os.close(directory)
        except OSError:
            return -1

    def _leads_to(self, path: bytes, held: os.stat_result) -> bool:
        above, _slash, name = path.rpartition(b"/")
        try:
            directory = self._directory(above)
            try:
                return os.path.samestat(os.stat(name, dir_fd=directory, follow_symlinks=False), held)
            finally:
                os.close(directory)
        except OSError:
            return False

    def _directory(self, path: bytes) -> int:
        """A descriptor of a directory below the source; no symbolic link on the way is followed."""
        fd = os.dup(self._root)
        try:
            for name in path.split(b"/") if path else ():
                below = open_directory(name, fd)
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        return fd
