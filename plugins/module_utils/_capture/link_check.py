# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Hard links after the walk: checks names again that may not be the same file.

Inode numbers are used again while a walk runs, and a file can change between the visits of two of its names. So a group is checked again if
its names were seen in different states, or if the file system has no birth times. One name of such a group is opened and held, so that its
inode cannot be used again. A name that then leads to the same inode is the same file. One reading of the held file is used for all of them and
replaces their entries in the trees. A name that leads elsewhere is a separate file, and so are all names of a file that cannot be read again:
they keep their entries, and are reported.
"""

from __future__ import annotations

import os
import stat
import typing as t

from .._base import Closing, open_real
from .._format import chunks, tree
from .._format.walk import replaced
from .._fs import metadata
from .._store.transaction import Transaction
from . import reading
from .file_saver import FileSaver, count_chunks
from .stat_cache import Stats
from .state import LinkGroup, Notes, describe

Groups = t.List[t.List[bytes]]


class LinkCheck:
    """One check. Use once, when all directories are settled.

    :param root: a descriptor of the source. :ivar at: the current path.
    """

    def __init__(self, run: Transaction, notes: Notes, saver: FileSaver, root: int) -> None:
        self._run, self._notes, self._saver, self._root = run, notes, saver, root
        self._groups: Groups = []
        self._entries: t.Dict[bytes, tree.Entry] = {}
        self._open, self._open_path = -1, b""
        self.at = b""

    def __enter__(self) -> LinkCheck:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def settle(self, root: tree.Entry) -> t.Tuple[Groups, tree.Entry, Stats]:
        """(groups of names of one file, the root's entry, what the new entries add to the totals).

        :param root: the entry of the source, with its tree.
        """
        self._notes.join_undated()
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
        load = tree.Loader(self._run.read)

        def save(entries: t.Sequence[tree.Entry]) -> bytes:
            return tree.store(self._run.add_metadata, entries)

        found = replaced(load, save, root, self._entries)
        self._notes.add_owners(self._entries.values())
        pairs = [(self._entries[path], old) for path, old in found.old.items()]
        size = sum(new.size - old.size for new, old in pairs)
        blobs = sum(self._count_blobs(new) - self._count_blobs(old) for new, old in pairs)
        return self._groups, found.root, Stats(size=size, blobs=blobs)

    def _count_blobs(self, entry: tree.Entry) -> int:
        """How many blobs of content a file has. Lists of chunks in directories that did not change were not counted by the walk."""
        if entry.kind != tree.CHUNKED:
            return int(entry.kind == tree.FILE and entry.size > 0)
        known = self._notes.chunk_counts.get(entry.content)
        return count_chunks(self._run, entry.content, entry.size) if known is None else known

    def _look_again(self, group: LinkGroup, inode: t.Tuple[int, int], steady: bool) -> None:
        paths = group.paths
        names = [path for path in paths if self._inode_of(path) == inode]
        held = self._hold(names[0]) if len(names) > 1 else -1
        together: t.Set[bytes] = set()
        if held >= 0:
            with Closing(held):
                info = os.fstat(held)
                if (info.st_dev, info.st_ino) == inode:
                    names = [path for path in names if self._inode_of(path) == inode]  # once more: now the number is not used again
                    if len(names) > 1 and self._settle_names(held, info, names, steady and reading.stamp(info) == group.stamp):
                        together = set(names)
        self._notes.unstable += [path for path in paths if path not in together]

    def _settle_names(self, held: int, info: os.stat_result, names: t.List[bytes], known: bool) -> bool:
        """Give all names of a held file one entry; False if it cannot be read. :param known: their entries are equal already."""
        if not known:
            entry = self._entry(held, info, names[0])
            if entry is None:
                return False
            for path in names:
                self._entries[path] = entry._replace(name=path.rpartition(b"/")[2])
        self._groups.append(names)
        return True

    def _entry(self, held: int, info: os.stat_result, path: bytes) -> t.Optional[tree.Entry]:
        kind = stat.S_IFMT(info.st_mode)
        place = f"/proc/self/fd/{held}"
        try:
            xattrs = metadata.read_xattrs(place, follow=True)
            if kind != stat.S_IFREG:
                extra: t.Dict[str, t.Any] = {}
                if kind == stat.S_IFLNK:
                    extra["target"] = os.readlink(b"", dir_fd=held)
                elif kind in (stat.S_IFCHR, stat.S_IFBLK):
                    extra["device"] = (os.major(info.st_rdev), os.minor(info.st_rdev))
                return describe(info, metadata.SPECIAL[kind], b"", xattrs, **extra)
            content = reading.read_file(self._run, os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), info)
        except (OSError, reading.Vanished):
            return None
        if len(content.chunk_list) > chunks.LIST_LIMIT:
            return None
        change = self._notes.judge(path, content)
        if change == reading.UNSTABLE:
            self._notes.unstable.append(path)
        elif change == reading.GROWN:
            self._notes.grown.append(path)
        return self._saver.entry(b"", content, xattrs)

    def _hold(self, path: bytes) -> int:
        """A descriptor that keeps a file's inode from being used again; -1 if the name is gone."""
        self.at = path
        try:
            return os.open(path.rpartition(b"/")[2], os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory(path.rpartition(b"/")[0]))
        except OSError:
            return -1

    def _inode_of(self, path: bytes) -> t.Optional[t.Tuple[int, int]]:
        """(device, inode) that a name leads to; None if it is gone."""
        self.at = path
        above, _slash, name = path.rpartition(b"/")
        try:
            info = os.stat(name, dir_fd=self._directory(above), follow_symlinks=False)
        except OSError:
            return None
        return info.st_dev, info.st_ino

    def _directory(self, path: bytes) -> int:
        """A descriptor of a directory below the source, which stays open until another one is asked for. No symbolic link on the way is followed."""
        if path == self._open_path and self._open >= 0:
            return self._open
        self.close()
        self._open, self._open_path = open_real(path, self._root), path
        return self._open

    def close(self) -> None:
        if self._open >= 0:
            os.close(self._open)
        self._open = -1
