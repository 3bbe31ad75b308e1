# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Saves the entries of one directory: from the last scan if they are unchanged, else by reading them."""

from __future__ import annotations

import errno
import os
import stat
import threading
import typing as t
from array import array

from .._base import Damaged, Interrupted, Progress, Unsupported, VoltError, reason
from .._format import chunks, tree
from .._fs import metadata
from .._fs.descent import Item, Patience, open_source
from .._store.transaction import Transaction
from . import databases, reading
from .state import Directory, FutureEntry, Notes, Slot, describe
from .write_back import WriteBack

#: What opening or reading a regular file says when it is none any more.
_ANOTHER = (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENOTDIR, errno.ESPIPE)


#: Seconds in all that a run waits for leases to be given back: a holder may have as many as it likes.
_LEASES = 120.0


#: In place of a name and its stat that are not needed any more: those of a million files take more memory than all else.
_TAKEN: Item = "", os.stat_result([0] * 10)


class _Read(t.NamedTuple):
    """A reading of a file. `content` waits for the result; None if nothing was read."""

    slot: Slot
    content: t.Optional[t.Callable[[], reading.Content]] = None

    def stamp(self) -> t.Optional[reading.Stamp]:
        """The state of the file that was read; waits for a worker. None if nothing was read, or the file changed."""
        try:
            content = self.content() if self.content is not None else None
        except Interrupted:
            raise
        except (OSError, VoltError, reading.Vanished):
            return None
        return None if content is None or content.change else reading.stamp(content.info)


class FileSaver:
    """Makes the slots of directories. One a walk.

    :ivar here: the current directory of the walk; None before the first. :ivar at: the position in it, -1 for the directory itself.
    :ivar reading: the paths of files that workers read, by their threads, the oldest first.
    """

    def __init__(self, run: Transaction, notes: Notes, progress: Progress, write_back: WriteBack) -> None:
        self._run, self._notes, self._progress, self._write_back = run, notes, progress, write_back
        self._first: t.Dict[t.Tuple[int, int], _Read] = {}
        self._patience = Patience(_LEASES)
        self.here: t.Optional[Directory] = None
        self.at = -1
        self.reading: t.Dict[int, t.Tuple[Directory, int]] = {}

    def __call__(self, here: Directory, fd: int) -> None:
        """Fill `here.slots`; a subdirectory's slot is its old entry or None, for the walk to complete."""
        old_entries, old_positions, old_numbers = self._last(here)
        numbers = array("q", here.numbers)
        files = size = 0
        for position, (name, info) in enumerate(here.items):
            self.at = position
            kind = stat.S_IFMT(info.st_mode)
            raw = here.names[position]
            old = old_positions.get(raw, -1)
            slot: Slot = None
            if old >= 0 and old_numbers[4 * old : 4 * old + 4] == numbers[4 * position : 4 * position + 4]:
                slot = self._reusable(old_entries.get(raw), kind)
            if kind == stat.S_IFDIR:
                here.subdirectories.append(position)
            else:
                if info.st_nlink > 1:
                    here.linked.append(position)
                    self._notes.link(here, fd, position)
                if kind == stat.S_IFREG:
                    files += 1
                    slot = slot or self._regular(here, fd, position, name, info)
                    if info.st_size <= chunks.WHOLE_MOST:
                        size += info.st_size
                else:
                    slot = slot or self._special(here, fd, position, name, info, kind)
                here.items[position] = _TAKEN
            here.slots.append(slot)
        self._progress(files, size)

    def _last(self, here: Directory) -> t.Tuple[t.Dict[bytes, tree.Entry], t.Dict[bytes, int], array]:
        """What the last scan knew of this directory: entries and positions by name, and the numbers."""
        if here.record is None:
            return {}, {}, array("q")
        facts = here.record.facts
        try:
            entries = {entry.name: entry for entry in tree.load(self._run.store.read, facts.tree)}
        except (Damaged, Unsupported):
            return {}, {}, array("q")  # everything is read again, and stored again where it is missing
        return entries, here.record.positions(), array("q", facts.numbers)

    def _reusable(self, entry: t.Optional[tree.Entry], kind: int) -> t.Optional[tree.Entry]:
        """An old entry, if it is of the same type and all its content is still stored."""
        if entry is None:
            return None
        if kind != stat.S_IFREG:
            return entry if entry.kind == metadata.SPECIAL.get(kind, tree.DIRECTORY) else None
        if entry.kind == tree.CHUNKED:
            count = count_chunks(self._run, entry.content, entry.size)
            self._notes.chunk_counts[entry.content] = count
            return entry if count >= 0 else None
        if entry.kind != tree.FILE:
            return None
        if entry.size > chunks.PACKED_MOST:
            return entry if self._run.objects.has(entry.content, entry.size) else None
        return entry if not entry.size or self._run.blobs.has(entry.content) else None

    def _regular(self, here: Directory, fd: int, position: int, name: str, info: os.stat_result) -> Slot:
        if info.st_nlink == 1:
            return self._read(here, fd, position, name, info).slot
        inode = (info.st_dev, info.st_ino)
        first = self._first.get(inode)
        # One reading serves all names, if it was of the file in the very state in which this name is listed.
        if first is not None and first.stamp() == reading.stamp(info):
            entry = first.slot.settle() if isinstance(first.slot, FutureEntry) else first.slot
            return None if entry is None else entry._replace(name=here.names[position])
        first = self._first[inode] = self._read(here, fd, position, name, info)
        return first.slot

    def _read(self, here: Directory, directory: int, position: int, name: str, info: os.stat_result) -> _Read:
        try:
            fd = open_source(name, directory, self._patience)
        except OSError as error:
            return _Read(self._missing(here, position, error))
        mine = True
        try:
            self._write_back.read(fd, info.st_dev)
            xattrs = self._attributes(here, position, fd)
            content = None
            if info.st_size <= chunks.PACKED_MOST:
                content = reading.read_small(self._run, fd, info)
            if content is None and os.fstat(fd).st_size <= chunks.WHOLE_MOST:
                mine = False  # the worker closes it
                future = self._run.submit(self._read_whole, here, position, fd)
                return _Read(FutureEntry(future, lambda: self._arrived(here, position, info, future.result, xattrs)), future.result)
            if content is None:
                content = reading.read_chunked(self._run, fd, self._progress)
                if len(content.chunk_list) > chunks.LIST_LIMIT:
                    raise OSError("it has more chunks and holes than a chunk list can hold")
        except reading.Vanished:
            here.suspect.append(position)
            return _Read(None)
        except OSError as error:
            return _Read(self._missing(here, position, error))
        finally:
            if mine:
                os.close(fd)
        found = content
        if content.kind == tree.FILE:
            return _Read(self._entry(here, position, info, content, xattrs), lambda: found)
        # the list of chunks is packed when its directory is, because the order decides the packs
        return _Read(FutureEntry(None, lambda: self._entry(here, position, info, found, xattrs)), lambda: found)

    def _read_whole(self, here: Directory, position: int, fd: int) -> reading.Content:
        """A worker's job."""
        thread = threading.get_ident()
        self.reading[thread] = (here, position)
        try:
            return reading.read_whole(self._run, fd)
        finally:
            del self.reading[thread]

    def _attributes(self, here: Directory, position: int, place: metadata.PathOrDescriptor) -> metadata.Xattrs:
        """The extended attributes; if they cannot be read, the file is kept without them, and the backup is incomplete."""
        try:
            return metadata.read_xattrs(place)
        except OSError as error:
            if error.errno in _ANOTHER:
                raise
            self._notes.no_attributes(here, position, reason(error))
            return ()

    def _arrived(
        self, here: Directory, position: int, info: os.stat_result, result: t.Callable[[], reading.Content], xattrs: metadata.Xattrs
    ) -> t.Optional[tree.Entry]:
        try:
            content = result()
        except VoltError:
            raise
        except reading.Vanished:
            here.suspect.append(position)
            return None
        except OSError as error:
            return self._missing(here, position, error)
        return self._entry(here, position, info, content, xattrs)

    def _entry(
        self, here: Directory, position: int, info: os.stat_result, content: reading.Content, xattrs: metadata.Xattrs
    ) -> tree.Entry:
        """:param info: of the listing."""
        change = content.change
        if change or databases.kind_of(here.names[position], content.head):
            change = self._notes.judge(here.path_of(position), content)
        if change:
            self._notes.changed(here, position, change)
        if info.st_nlink > 1 and reading.stamp(content.info) != reading.stamp(info):
            self._notes.doubt_links(info)
        return self.entry(here.names[position], content, xattrs)

    def entry(self, name: bytes, content: reading.Content, xattrs: metadata.Xattrs) -> tree.Entry:
        """The entry of a file that was read; stores the list of its chunks, if it has one."""
        size = content.info.st_size
        if content.kind == tree.CHUNKED:
            digest = self._run.add_metadata(content.chunk_list)
            self._notes.chunk_counts[digest] = content.chunk_count
            return describe(content.info, tree.CHUNKED, name, xattrs)._replace(size=size, content=digest)
        holes = {"holes": content.holes} if content.holes else {}
        return describe(content.info, tree.FILE, name, xattrs, **holes)._replace(size=size, content=content.digest)

    def _special(self, here: Directory, fd: int, position: int, name: str, info: os.stat_result, kind: int) -> Slot:
        extra: t.Dict[str, t.Any] = {}
        try:
            if kind == stat.S_IFLNK:
                extra["target"] = os.fsencode(os.readlink(name, dir_fd=fd))
            elif kind in (stat.S_IFCHR, stat.S_IFBLK):
                extra["device"] = (os.major(info.st_rdev), os.minor(info.st_rdev))
            xattrs = self._attributes(here, position, metadata.beneath(fd, name))
        except OSError as error:
            return self._missing(here, position, error)
        return describe(info, metadata.SPECIAL[kind], here.names[position], xattrs, **extra)

    def _missing(self, here: Directory, position: int, error: OSError) -> None:
        """It vanished or became something else, which the next run will see; or it is there and cannot be read."""
        if error.errno in _ANOTHER:
            here.suspect.append(position)
        else:
            self._notes.unreadable(here, position, reason(error))


def count_chunks(run: Transaction, digest: bytes, size: int) -> int:
    """How many chunks a chunked file has, or -1 if not all of them are stored."""
    if not run.blobs.has(digest) and not run.objects.has(digest, -1):  # a list above 8 MiB is an object
        return -1
    try:
        found = chunks.decode(run.store.read(digest, chunks.LIST_LIMIT), size)
    except (Damaged, Unsupported):
        return -1
    whole = all(run.objects.has(chunk, length) for _offset, length, chunk in found.chunks())
    return len(found.digests) if whole else -1
