# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Members of a tar archive in the format pax, as GNU tar reads them.

What a ustar header cannot hold is in the records of a header before it: long paths, large numbers, times with nanoseconds, attributes, ACLs. Bytes are
written as they are, also where they are not UTF-8: so does GNU tar.

Source: POSIX.1-2017, pax, EXTENDED DESCRIPTION; the manual of GNU tar, "Storing Sparse Files" and "Extended attributes"; star(5), SCHILY records.
"""

from __future__ import annotations

import struct
import typing as t

from .._format import tree
from .._format.tree import Entry
from .._fs import acl

BLOCK = 512
#: An archive is as long as a number of these.
_RECORD = 20 * BLOCK
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_TYPES = {tree.DIRECTORY: b"5", tree.SYMLINK: b"2", tree.FIFO: b"6", tree.CHARACTER: b"3", tree.BLOCK: b"4"}
_LINK = b"1"
_ACLS = {acl.ACCESS: b"SCHILY.acl.access", acl.DEFAULT: b"SCHILY.acl.default"}

Ranges = t.Sequence[t.Tuple[int, int]]


class Member(t.NamedTuple):
    """What is written of an entry. :ivar path: in the archive. :ivar link: the path of the member that this is a hard link to."""

    path: bytes
    entry: Entry
    user: bytes = b""
    group: bytes = b""
    link: bytes = b""


def head(member: Member, size: int = 0) -> bytes:
    """What comes before the content of a member. :param size: of that content."""
    return _head(member, member.path, size, [])


def sparse_head(member: Member, data: Ranges) -> bytes:
    """The same for a file with holes. :param data: offset and length of what has content, ascending; only that follows."""
    size = member.entry.size
    ranges = [*data] if data and sum(data[-1]) == size else [*data, (size, 0)]
    numbers = [len(ranges), *(number for pair in ranges for number in pair)]
    listed = "".join(f"{number}\n" for number in numbers).encode()
    listed += padding(len(listed))
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", member.path), (b"GNU.sparse.realsize", b"%d" % size)]
    return _head(member, b"./GNUSparseFile.0/file", len(listed) + sum(length for _offset, length in data), records) + listed


def padding(size: int) -> bytes:
    """What follows so many bytes of content."""
    return bytes(-size % BLOCK)


def end(size: int) -> bytes:
    """What ends an archive. :param size: of all before."""
    return bytes(2 * BLOCK + (-size - 2 * BLOCK) % _RECORD)


def _head(member: Member, path: bytes, size: int, records: t.List[t.Tuple[bytes, bytes]]) -> bytes:
    entry, link = member.entry, member.link or member.entry.extra.target
    kind = _LINK if member.link else _TYPES.get(entry.kind, b"0")
    plain = _Plain(records)
    name, link = plain.text(b"path", path, 100), plain.text(b"linkpath", link, 100)
    user, group = plain.text(b"uname", member.user, 31), plain.text(b"gname", member.group, 31)
    numbers = plain.number(b"uid", entry.uid, 7), plain.number(b"gid", entry.gid, 7), plain.number(b"size", size, 11), plain.time(entry)
    if not member.link:
        records += [_attribute(*pair) for pair in entry.extra.xattrs]
    header = _header(name, entry.mode, numbers, kind, link, (user, group), entry.extra.device)
    if not records:
        return header
    data = b"".join(_record(*record) for record in records)
    more = _header(b"././@PaxHeader", 0o644, (0, 0, len(data), 0), b"x", b"", (b"", b""), (0, 0))
    return more + data + padding(len(data)) + header


class _Plain:
    """Values for a ustar header. What does not fit becomes a record."""

    def __init__(self, records: t.List[t.Tuple[bytes, bytes]]) -> None:
        self._records = records

    def text(self, name: bytes, value: bytes, most: int) -> bytes:
        if len(value) > most or not value.isascii():
            self._records.append((name, value))
        return value[:most]

    def number(self, name: bytes, value: int, digits: int) -> int:
        if value < 8**digits:
            return value
        self._records.append((name, b"%d" % value))
        return 0

    def time(self, entry: Entry) -> int:
        if not entry.nanos and 0 <= entry.seconds < 8**11:
            return entry.seconds
        whole, nanos = divmod(abs(entry.mtime), 1_000_000_000)
        self._records.append((b"mtime", b"%s%d.%09d" % (b"-" if entry.mtime < 0 else b"", whole, nanos)))
        return min(max(entry.seconds, 0), 8**11 - 1)


def _attribute(name: bytes, value: bytes) -> t.Tuple[bytes, bytes]:
    text = acl.text(value) if name in _ACLS else None
    if text is not None:
        return _ACLS[name], text
    return b"SCHILY.xattr." + name.replace(b"%", b"%25").replace(b"=", b"%3D"), value


def _record(name: bytes, value: bytes) -> bytes:
    """A record begins with its length, which counts itself."""
    rest = b" " + name + b"=" + value + b"\n"
    size = len(rest)
    while len(b"%d" % size) + len(rest) != size:
        size = len(b"%d" % size) + len(rest)
    return b"%d" % size + rest


def _header(
    name: bytes, mode: int, numbers: t.Tuple[int, int, int, int], kind: bytes, link: bytes, owner: t.Tuple[bytes, bytes], device: t.Tuple[int, int]
) -> bytes:  # fmt: skip
    """:param numbers: owner, group, size, time."""
    uid, gid, size, seconds = numbers
    fields = [
        name, b"%07o" % mode, b"%07o" % uid, b"%07o" % gid, b"%011o" % size, b"%011o" % seconds, b" " * 8, kind, link, b"ustar\00000", *owner,
        *map(_device, device), b"",
    ]  # fmt: skip
    fields[6] = b"%06o\0 " % sum(_HEADER.pack(*fields))
    return _HEADER.pack(*fields)


def _device(number: int) -> bytes:
    """A device number, in binary where it has too many digits, as GNU tar writes it."""
    return b"%07o" % number if number < 8**7 else b"\x80" + number.to_bytes(7, "big")
