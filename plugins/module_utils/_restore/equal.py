# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""One entry of a backup beside what is at a place.

Equal means: type, mode, owner, size, mtime, device, symlink target and extended attributes agree, as far as the file system there can hold them;
with `verify` the content as well, by its hash or by the stat cache of the target.
"""

from __future__ import annotations

import hashlib
import os
import stat
import typing as t

from .._base import Damaged, show
from .._format import chunks
from .._format.tree import CHUNKED, DIRECTORY, FILE, SYMLINK, Entry, Read
from .._fs import metadata
from .._fs.descent import Patience, find_holes, open_source
from .._fs.holding import Basics, Holder
from .content import chunk_at
from .known import Seen

#: Seconds that a comparison waits for one lease to be given back.
_LEASE = 60.0


class Comparer:
    """Tells whether what is at a place equals an entry, as far as the file system there can hold it.

    :param verify: whether content is looked at; else size and time suffice.
    :param known: tells the digest of a file's content by its stats, where it was hashed since they last changed; None where that is not known.
    :ivar seen: the files of which the content was found equal.
    :ivar learned: how many of them are news.
    """

    def __init__(
        self, read: Read, owners: metadata.Owners, holder: Holder, verify: bool, known: t.Callable[[os.stat_result], t.Optional[bytes]], seen: Seen
    ) -> None:
        self._read, self._owners, self._holder, self._verify, self._known, self.seen = read, owners, holder, verify, known, seen
        self._root = os.geteuid() == 0
        self.learned = 0

    def believe(self, known: t.Callable[[os.stat_result], t.Optional[bytes]]) -> None:
        """From here on, this is what tells the digest of a file's content."""
        self._known = known

    def alike(self, entry: Entry, info: os.stat_result, directory: int, name: bytes) -> bool:
        """Whether all of it agrees; the content, too, with `verify`. False also of what has just gone."""
        try:
            return self._alike(entry, info, directory, name)
        except FileNotFoundError:
            return False

    def _alike(self, entry: Entry, info: os.stat_result, directory: int, name: bytes) -> bool:
        if not self.fits(entry, info, directory):
            return False
        if entry.kind == SYMLINK and os.fsencode(os.readlink(name, dir_fd=directory)) != entry.extra.target:
            return False
        if not self.same_xattrs(entry, metadata.read_xattrs(metadata.beneath(directory, name)), info, directory):
            return False
        if not (self._verify and entry.is_file and entry.size):
            return True
        known = self._known(info) == entry.content
        if not known and not self._same_content(entry, directory, name):
            return False
        self.learned += self.seen.add(info, entry.content) and not known
        return True

    def fits(self, entry: Entry, info: os.stat_result, directory: int) -> bool:
        """What a stat alone can tell. :param directory: a descriptor of one on the same file system, which may be asked what it can hold."""
        if not same_type(entry, info) or entry.is_file and entry.size != info.st_size:
            return False
        if entry.extra.device != ((os.major(info.st_rdev), os.minor(info.st_rdev)) if stat.S_IFMT(info.st_mode) in _DEVICES else (0, 0)):
            return False
        wanted = self._basics(entry)
        return self._same_basics(wanted, info) or self._same_basics(self._holder.held(wanted, directory, info.st_dev), info)

    def _basics(self, entry: Entry) -> Basics:
        return Basics(*self._owners.local(entry), entry.mode, entry.mtime)

    def _same_basics(self, wanted: Basics, info: os.stat_result) -> bool:
        mode, same_owner = wanted.mode, (wanted.uid, wanted.gid) == (info.st_uid, info.st_gid)
        if not self._root and not same_owner:
            mode &= ~0o6000  # as a restore without root leaves it
        return (same_owner or not self._root) and mode == info.st_mode & 0o7777 and wanted.mtime == info.st_mtime_ns

    def same_xattrs(self, entry: Entry, found: metadata.Xattrs, info: os.stat_result, directory: int) -> bool:
        """Whether a file has the entry's attributes, as far as this user can set and see them, and the file system can hold them."""
        wanted = self.xattrs(entry)
        if not any(name == b"security.selinux" for name, _value in wanted):
            found = tuple(item for item in found if item[0] != b"security.selinux")  # the kernel gives a label by itself
        return wanted == found or bool(wanted) and self._holder.held_xattrs(wanted, directory, info.st_dev) == found

    def xattrs(self, entry: Entry) -> metadata.Xattrs:
        """The entry's attributes, as far as this user can set and see them."""
        wanted = self._owners.xattrs(entry)
        if self._root:
            return wanted
        return tuple(item for item in wanted if item[0].startswith((b"user.", b"system.posix_acl_")))

    def lacks(self, entry: Entry, directory: int, device: int) -> t.List[str]:
        """What of the entry a device cannot hold, by the names of `Skips`."""
        wanted = self._basics(entry)
        held = self._holder.held(wanted, directory, device)
        same = {"owner": held[:2] == wanted[:2], "mode": held.mode == wanted.mode, "mtime": held.mtime == wanted.mtime}
        missing = [name for name, is_same in same.items() if not is_same]
        if not self._root and (wanted.uid != os.geteuid() or wanted.gid not in (os.getegid(), *os.getgroups())):
            missing.append("owner")  # which without root is not even tried
        if entry.extra.xattrs:
            names = {name for name, _value in self._holder.held_xattrs(self._owners.xattrs(entry), directory, device)}
            missing += [show(name) for name, _value in entry.extra.xattrs if name not in names]
        return missing

    def at_hand(self, entry: Entry, directory: int, name: bytes) -> bytes:
        """For each chunk of a large file, whether the file at a place has it where it belongs: 1 or 0. A restore takes these from there. b"" for none."""
        if entry.kind != CHUNKED:
            return b""
        try:
            fd = open_source(os.fsdecode(name), directory, Patience(_LEASE))
        except OSError:
            return b""
        try:
            found = chunks.decode(self._read(entry.content, chunks.LIST_LIMIT), entry.size)
            return bytes(chunk_at(fd, offset, length, digest) is not None for offset, length, digest in found.chunks())
        except (OSError, Damaged):
            return b""
        finally:
            os.close(fd)

    def _same_content(self, entry: Entry, directory: int, name: bytes) -> bool:
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
                if chunk_at(fd, offset, length, digest) is None or not _zeros(fd, at, offset):
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
