# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What a walk finds: the current directory, and the notes about the whole."""

from __future__ import annotations

import os
import typing as t
from array import array
from concurrent.futures import Future

from .._base import kernel
from .._format.tree import NOTHING, Entry, Extra
from .._format.walk import join
from .._fs import acl
from .._fs.descent import Item
from .._fs.exclusions import Skipped
from .._fs.metadata import Xattrs
from . import databases
from .reading import GROWN, UNSTABLE, Content, Stamp, stamp
from .stat_cache import DirectoryRecord, Known


class FutureEntry:
    """An entry that a worker is still reading; `settle` waits for it, and returns None if there is none."""

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
    :ivar suspect: positions that the next scan must not trust.
    :ivar known: once settled, its record: the old one if nothing changed.
    """

    def __init__(self, name: bytes, parent: t.Optional[Directory], record: t.Optional[DirectoryRecord], device: int, system: int) -> None:
        self.name, self.parent, self.record, self.device, self.system = name, parent, record, device, system
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

    @property
    def path(self) -> bytes:
        """Relative to the source. Not kept: the paths of a deep tree together are as long as the square of its depth."""
        parts = []
        here: t.Optional[Directory] = self
        while here is not None:
            parts.append(here.name)
            here = here.parent
        return b"/".join(reversed(parts[:-1]))  # without the source's own name, which is empty

    def path_of(self, position: int) -> bytes:
        return join(self.path, self.names[position])


class LinkGroup:
    """The names of one inode that a walk came by.

    :ivar stamp: of the first. :ivar steady: all were seen in that state.
    """

    def __init__(self, first: Stamp) -> None:
        self.stamp, self.steady = first, True
        self._names: t.List[t.Tuple[Directory, bytes]] = []

    def __len__(self) -> int:
        return len(self._names)

    def add(self, here: Directory, name: bytes) -> None:
        self._names.append((here, name))

    def join(self, other: LinkGroup) -> None:
        """Take the names of another group, which may be of the same file."""
        self.steady = self.steady and other.steady and self.stamp == other.stamp
        self._names += other._names

    @property
    def paths(self) -> t.List[bytes]:
        return [join(here.path, name) for here, name in self._names]


class Notes:
    """What one walk gathers about the whole tree.

    :ivar grown: files that only grew, of which an earlier reading is kept. :ivar unstable: files that changed under each reading, and names
        whose hard links were lost because their files changed during the walk.
    """

    def __init__(self) -> None:
        self.skipped: t.List[Skipped] = []
        self.grown: t.List[bytes] = []
        self.unstable: t.List[bytes] = []
        self.mounts: t.Set[bytes] = set()  # mount points whose content is in the backup
        self.databases: t.Dict[bytes, databases.Found] = {}  # files of databases that were read, and of which
        self.uids: t.Set[int] = set()
        self.gids: t.Set[int] = set()
        self.chunk_counts: t.Dict[bytes, int] = {}  # by chunk list
        self.link_groups: t.Dict[t.Tuple[int, int, int], LinkGroup] = {}  # by device, inode and birth (-1: unknown)
        self._doubted: t.Set[t.Tuple[int, int]] = set()

    def add_owners(self, entries: t.Iterable[Entry]) -> t.Tuple[t.Set[int], t.Set[int]]:
        """Note the users and groups that own some entries or that their ACLs name, which are returned: a restore goes by their names."""
        uids, gids = set(), set()
        for entry in entries:
            uids.add(entry.uid)
            gids.add(entry.gid)
            if entry.extra.xattrs:
                users, groups = acl.ids(entry.extra.xattrs)
                uids |= users
                gids |= groups
        self.uids |= uids
        self.gids |= gids
        return uids, gids

    def link(self, here: Directory, fd: int, position: int) -> None:
        """A name of a file that has others. Inode numbers are used again while a walk runs: a file is known by its birth as well."""
        name, info = here.items[position]
        key = (info.st_dev, info.st_ino, kernel.birth(fd, name, info.st_ino))
        group = self.link_groups.get(key)
        if group is None:
            group = self.link_groups[key] = LinkGroup(stamp(info))
        elif group.stamp != stamp(info):
            group.steady = False
        group.add(here, here.names[position])

    def join_undated(self) -> None:
        """A name of a file whose birth could not be told may be one of each file with its inode number: these are one group."""
        undated = {key[:2]: group for key, group in self.link_groups.items() if key[2] < 0}
        for key in [key for key in self.link_groups if key[2] >= 0 and key[:2] in undated] if undated else ():
            undated[key[:2]].join(self.link_groups.pop(key))

    def doubt_links(self, info: os.stat_result) -> None:
        """What was read under a name was not in the state in which the name was listed."""
        self._doubted.add((info.st_dev, info.st_ino))

    def is_steady(self, key: t.Tuple[int, int, int]) -> bool:
        """Whether all names of a file were seen, and it was read, in one state."""
        return self.link_groups[key].steady and key[:2] not in self._doubted

    def judge(self, path: bytes, content: Content) -> str:
        """How a file changed while it was read. A database file never counts as grown: its header may refer to pages that the copy lacks."""
        kind = databases.kind_of(path.rpartition(b"/")[2], content.head)
        if kind:
            self.databases[path] = databases.Found(kind, content.info.st_dev, content.info.st_ino)
        return UNSTABLE if kind and content.change == GROWN else content.change

    def unreadable(self, here: Directory, position: int, detail: str) -> None:
        self.skipped.append(Skipped(here.path_of(position), "unreadable", detail))
        here.suspect.append(position)

    def no_attributes(self, here: Directory, position: int, detail: str) -> None:
        self.skipped.append(Skipped(here.path_of(position), "attributes", detail))
        here.suspect.append(position)

    def changed(self, here: Directory, position: int, change: str) -> None:
        """A file changed, or its stat proves nothing about its content: the next scan reads it again."""
        if change == GROWN:
            self.grown.append(here.path_of(position))
        elif change == UNSTABLE:
            self.unstable.append(here.path_of(position))
        here.suspect.append(position)


def describe(info: os.stat_result, kind: int, name: bytes, xattrs: Xattrs = (), **extra: t.Any) -> Entry:
    """An entry from a stat; content is for the caller to add."""
    seconds, nanos = divmod(info.st_mtime_ns, 1_000_000_000)
    more = Extra(xattrs=xattrs, **extra) if xattrs or extra else NOTHING
    return Entry(name, kind, info.st_mode & 0o7777, info.st_uid, info.st_gid, seconds, nanos, 0, b"", more)


def numbers_of(items: t.Sequence[Item], system: int) -> bytes:
    """Inode, size, mtime and ctime of each entry: what distinguishes its states.

    An inode number means something within its file system only, so that system's `identity` is mixed into it.
    """
    flat = [n for _name, i in items for n in (i.st_ino ^ system, i.st_size, i.st_mtime_ns, i.st_ctime_ns)]
    try:
        return array("q", flat).tobytes()
    except OverflowError:  # inodes of 64 bits, times beyond 2262
        return array("Q", [n & 0xFFFFFFFFFFFFFFFF for n in flat]).tobytes()
