# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What a walk finds: the directory under way, and the notes that outlive it."""

from __future__ import annotations

import os
import typing as t
from array import array
from concurrent.futures import Future

from .._format.tree import NOTHING, Entry, Extra
from .._format.walk import join
from .._fs.descent import Item
from .._fs.exclusions import Skipped
from .._fs.metadata import Xattrs
from .stat_cache import DirectoryRecord, Known


class FutureEntry:
    """An entry that a worker is still reading; `settle` waits for it, and gives None where there is none after all."""

    def __init__(self, future: t.Optional[Future[t.Any]], settle: t.Callable[[], t.Optional[Entry]]) -> None:
        self._future, self._settle = future, settle
        self._result: t.Optional[Entry] = None
        self._settled = False

    def done(self) -> bool:
        return self._future is None or self._future.done()

    def settle(self) -> t.Optional[Entry]:
        if not self._settled:
            self._result, self._settled = self._settle(), True
        return self._result


#: What stands in a directory's line-up: an entry, one to come, or none (it vanished, or cannot be read).
Slot = t.Union[Entry, FutureEntry, None]


class Directory:
    """A directory under way.

    :ivar device: st_dev. :ivar system: identity of its file system.
    :ivar same: nothing in the directory itself differs from the last scan; then `slots` stay empty.
    :ivar suspect: positions that the next scan must not believe.
    :ivar known: once settled, its record: the old one where nothing at all changed.
    """

    def __init__(self, path: bytes, parent: t.Optional[Directory], record: t.Optional[DirectoryRecord], device: int, system: int) -> None:
        self.path, self.parent, self.record, self.device, self.system = path, parent, record, device, system
        self.items: t.List[Item] = []
        self.names: t.List[bytes] = []
        self.numbers = b""
        self.slots: t.List[Slot] = []
        self.same = False
        self.suspect: t.List[int] = []
        self.untrusted = False  # stats prove nothing on its file system
        self.subdirectories: t.List[int] = []
        self.linked: t.List[int] = []
        self.children: t.List[t.Optional[Directory]] = []
        self.digest = b""
        self.known: Known = None

    def path_of(self, position: int) -> bytes:
        return join(self.path, self.names[position])


class Notes:
    """What one walk gathers about the whole tree."""

    def __init__(self) -> None:
        self.skipped: t.List[Skipped] = []
        self.changed: t.List[bytes] = []
        self.uids: t.Set[int] = set()
        self.gids: t.Set[int] = set()
        self.chunk_counts: t.Dict[bytes, int] = {}  # by chunk list
        self._inodes: t.Dict[t.Tuple[int, int], t.List[bytes]] = {}

    def link(self, info: os.stat_result, path: bytes) -> None:
        self._inodes.setdefault((info.st_dev, info.st_ino), []).append(path)

    def groups(self) -> t.List[t.List[bytes]]:
        return [paths for paths in self._inodes.values() if len(paths) > 1]

    def unreadable(self, here: Directory, position: int, detail: str) -> None:
        self.skipped.append(Skipped(here.path_of(position), "unreadable", detail))
        here.suspect.append(position)

    def unsteady(self, here: Directory, position: int) -> None:
        self.changed.append(here.path_of(position))
        here.suspect.append(position)


def describe(info: os.stat_result, kind: int, name: bytes, xattrs: Xattrs = (), **extra: t.Any) -> Entry:
    """An entry from a stat; content is for the caller to add."""
    seconds, nanos = divmod(info.st_mtime_ns, 1_000_000_000)
    more = Extra(xattrs=xattrs, **extra) if xattrs or extra else NOTHING
    return Entry(name, kind, info.st_mode & 0o7777, info.st_uid, info.st_gid, seconds, nanos, 0, b"", more)


def identity(fd: int) -> int:
    """A number for the file system that a directory lies on (statfs(2): f_fsid), to mix with inode numbers."""
    return os.fstatvfs(fd).f_fsid & ((1 << 62) - 1)


def numbers_of(items: t.Sequence[Item], system: int) -> bytes:
    """Inode, size, mtime and ctime of each entry: what tells one state of it from another.

    An inode number means something within its file system only, so that system's `identity` is mixed into it.
    """
    flat = [n for _name, i in items for n in (i.st_ino ^ system, i.st_size, i.st_mtime_ns, i.st_ctime_ns)]
    try:
        return array("q", flat).tobytes()
    except OverflowError:  # inodes of 64 bits, times beyond 2262
        return array("Q", [n & 0xFFFFFFFFFFFFFFFF for n in flat]).tobytes()
