# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The tree format: one directory as one blob.

::

    8 bytes   "VOLTTREE"
    4 x u32   count of entries, bytes of names, count of digests, bytes of extras
    names     each followed by a NUL, in ascending byte order
    kinds     count x u8    f file, F chunked file, d directory, l symlink, p fifo, s socket, c and b devices
    modes     count x u16   permission bits with setuid, setgid, sticky
    uids      count x u32
    gids      count x u32
    seconds   count x i64   modification time
    nanos     count x u32
    sizes     count x u64   of files; 0 for all else
    digests   32 bytes for each entry with content: files that are not empty, chunked files, directories
    extras    for each entry that has any: u32 position, then fields (u8 tag, u32 length, bytes), then tag 0
              1 symlink target; 2 device (u32 major, u32 minor); 3 extended attribute (u16 length of name, name, value), by
              name; 4 holes (u64 offset, u64 length each)

Integers are little-endian. Columns, not rows: they are decoded in bulk and compress better. Nothing depends on inode, device,
access time or the order in which a file system lists, so the same directory gives the same bytes on every host.

A tree above 1 MiB is cut into parts, each a tree of its own, under a list ("VOLTPART", u32 count, a digest each). A part ends after a name
whose CRC-32 has its low 12 bits zero, and at 1 MiB in any case: a new file changes one part.
"""

from __future__ import annotations

import contextlib
import operator
import struct
import typing as t
import zlib

from .._base import Damaged, newer
from . import magic
from .chunks import check_holes

FILE, CHUNKED, DIRECTORY, SYMLINK, FIFO, SOCKET, CHARACTER, BLOCK = b"fFdlpscb"

_HEADER = struct.Struct("<8sIIII")
_FIELD = struct.Struct("<BI")
#: Tags of fields from 1 to here are known.
_TAGS = 4
_KINDS = frozenset(b"fFdlpscb")
_FIXED = 1 + 2 + 4 + 4 + 8 + 4 + 8
_MAJORS = _MINORS = 1 << 31  # far more than a kernel has, and not too much for the C library
_PART_SIZE = 1 << 20
_PART_MASK = 0xFFF
#: The longest tree blob that is read: a part with large extended attributes may exceed `_PART_SIZE` by far.
BLOB_LIMIT = 64 << 20
#: Bytes of all attributes of one entry, names and values: more than any file system but XFS has, and far from BLOB_LIMIT.
XATTRS_MOST = 16 << 20


class Extra(t.NamedTuple):
    """What few entries have."""

    target: bytes = b""
    device: t.Tuple[int, int] = (0, 0)
    xattrs: t.Tuple[t.Tuple[bytes, bytes], ...] = ()
    holes: t.Tuple[t.Tuple[int, int], ...] = ()


NOTHING = Extra()


class Entry(t.NamedTuple):
    """One line of a directory. `content` is a digest, or empty."""

    name: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    seconds: int
    nanos: int
    size: int
    content: bytes
    extra: Extra = NOTHING

    @property
    def mtime(self) -> int:
        """Modification time in ns since the epoch."""
        return self.seconds * 1_000_000_000 + self.nanos

    @property
    def is_file(self) -> bool:
        return self.kind in (FILE, CHUNKED)


def encode(entries: t.Sequence[Entry]) -> bytes:
    """One tree (or part); entries ascending by name."""
    if not entries:
        return _HEADER.pack(magic.TREE, 0, 0, 0, 0)
    names, kinds, modes, uids, gids, seconds, nanos, sizes, contents, extras = zip(*entries)
    count = len(entries)
    block = b"\0".join(names) + b"\0"
    digests = b"".join(contents)
    tail = b"".join(_encode_extra(i, extra) for i, extra in enumerate(extras) if extra is not NOTHING and extra != NOTHING)
    return b"".join(
        (
            _HEADER.pack(magic.TREE, count, len(block), len(digests) // 32, len(tail)),
            block,
            bytes(kinds),
            struct.pack(f"<{count}H", *modes),
            struct.pack(f"<{count}I", *uids),
            struct.pack(f"<{count}I", *gids),
            struct.pack(f"<{count}q", *seconds),
            struct.pack(f"<{count}I", *nanos),
            struct.pack(f"<{count}Q", *sizes),
            digests,
            tail,
        )
    )


def _encode_extra(position: int, extra: Extra) -> bytes:
    fields = []
    if extra.target:
        fields.append((1, extra.target))
    if extra.device != (0, 0):
        fields.append((2, struct.pack("<II", *extra.device)))
    for name, value in extra.xattrs:
        fields.append((3, struct.pack("<H", len(name)) + name + value))
    if extra.holes:
        fields.append((4, b"".join(struct.pack("<QQ", *hole) for hole in extra.holes)))
    return struct.pack("<I", position) + b"".join(_FIELD.pack(tag, len(data)) + data for tag, data in fields) + b"\0"


def decode(blob: bytes) -> t.List[Entry]:
    """The entries of one tree or part; Damaged for anything that `encode` cannot write or that no directory can contain."""
    with _reading():
        return list(map(Entry, *_columns(blob)))


class References(t.NamedTuple):
    """What a tree (or part) refers to: (digest, size) of files and of chunked files, digests of subdirectories; and its first and last name."""

    files: t.List[t.Tuple[bytes, int]]
    chunked: t.List[t.Tuple[bytes, int]]
    directories: t.List[bytes]
    first: bytes
    last: bytes


def references(blob: bytes) -> References:
    """The same checks as `decode`, without making entries: for walks through whole backups."""
    with _reading():
        columns = _columns(blob)
    found: t.Dict[int, t.List[t.Tuple[bytes, int]]] = {FILE: [], CHUNKED: [], DIRECTORY: []}
    for kind, size, content in zip(columns.kinds, columns.sizes, columns.contents):
        if content:
            found[kind].append((content, size))
    names = columns.names or [b""]
    return References(found[FILE], found[CHUNKED], [digest for digest, _size in found[DIRECTORY]], names[0], names[-1])


class Picked(t.NamedTuple):
    """What was looked for in a tree (or part), and its subdirectories."""

    entries: t.List[Entry]
    directories: t.List[t.Tuple[bytes, bytes]]  # name, digest


_NOTHING_PICKED = Picked([], [])


def pick(blob: bytes, names: t.Pattern[bytes]) -> Picked:
    """The entries with certain names. Most trees of a backup have none, nor a subdirectory: of these, only the names are looked at.

    :param names: is searched in all names, with a NUL before the first and after each; a match begins with the NUL before a name and ends before the next.
    """
    with _reading():
        magic.check(blob, magic.TREE, "A tree")
        _magic, count, size, digests, extras = _HEADER.unpack_from(blob)
        start = _HEADER.size
        framed = b"\0" + blob[start : start + size]
        found = names.search(framed)
        if found is None:
            kinds = blob[start + size : start + size + count]
            if DIRECTORY not in kinds:
                return _NOTHING_PICKED
            if digests == count:  # so each entry has one
                first = len(blob) - extras - 32 * count
                places = zip(kinds, _names(framed[1:], count), range(first, len(blob), 32))
                return Picked([], [(name, blob[place : place + 32]) for kind, name, place in places if kind == DIRECTORY])
        columns = _columns(blob)
        numbers, number, end = [], 0, 0
        for match in names.finditer(framed) if found is not None else ():
            number, end = number + framed.count(b"\0", end, match.start()), match.start()
            numbers.append(number)
        if len(numbers) < count:
            entries = [Entry._make(column[number] for column in columns) for number in numbers]
        else:
            entries = list(map(Entry, *columns))
        return Picked(entries, [pair for kind, *pair in zip(columns.kinds, columns.names, columns.contents) if kind == DIRECTORY])  # type: ignore[misc]


@contextlib.contextmanager
def _reading() -> t.Iterator[None]:
    try:
        yield
    except (struct.error, IndexError, ValueError) as error:
        raise Damaged(f"A tree is encoded incorrectly: {error}.") from None


class _Columns(t.NamedTuple):
    """A tree taken apart and checked, before its entries are made."""

    names: t.List[bytes]
    kinds: t.Tuple[int, ...]
    modes: t.Tuple[int, ...]
    uids: t.Tuple[int, ...]
    gids: t.Tuple[int, ...]
    seconds: t.Tuple[int, ...]
    nanos: t.Tuple[int, ...]
    sizes: t.Tuple[int, ...]
    contents: t.List[bytes]
    extras: t.List[Extra]


def _columns(blob: bytes) -> _Columns:
    magic.check(blob, magic.TREE, "A tree")
    _magic, count, block_size, digest_count, extras_size = _HEADER.unpack_from(blob)
    if len(blob) != _HEADER.size + block_size + _FIXED * count + 32 * digest_count + extras_size:
        raise ValueError("lengths disagree")
    offset = _HEADER.size
    block = blob[offset : offset + block_size]
    offset += block_size
    names = _names(block, count)

    values = struct.unpack_from(f"<{count}B{count}H{count}I{count}I{count}q{count}I{count}Q", blob, offset)
    kinds, modes, uids, gids, seconds, nanos, sizes = (values[at * count : (at + 1) * count] for at in range(7))
    offset += _FIXED * count
    if not _KINDS.issuperset(kinds):
        if all(chr(kind).isalpha() for kind in kinds):
            raise newer("A tree with an unknown type of entry")
        raise ValueError("an invalid type")
    if count and not (max(modes) <= 0o7777 and max(nanos) < 1_000_000_000):
        raise ValueError("a value out of range")
    contents = []
    for kind, size in zip(kinds, sizes):
        if size and kind == FILE or kind == DIRECTORY or kind == CHUNKED:
            contents.append(blob[offset : offset + 32])
            offset += 32
        else:
            contents.append(b"")
    if offset + extras_size != len(blob):
        raise ValueError("the digests do not match the entries")
    extras = [NOTHING] * count
    for position, extra in _extras(blob, offset):
        extras[position] = extra
    for kind, size, extra in zip(kinds, sizes, extras) if extras_size or SYMLINK in kinds else ():
        if extra.holes:
            check_holes(extra.holes, size)
        if kind == SYMLINK and not extra.target:
            raise ValueError("a symlink without target")
    return _Columns(names, kinds, modes, uids, gids, seconds, nanos, sizes, contents, extras)


def _names(block: bytes, count: int) -> t.List[bytes]:
    """Split and check names: they are hostile until no separator, no dot name, no repetition is among them."""
    if not block:
        if count:
            raise ValueError("names are missing")
        return []
    framed = b"\0" + block
    if block[-1:] != b"\0" or b"/" in block or b"\0\0" in framed or b"\0.\0" in framed or b"\0..\0" in framed:
        raise ValueError("an invalid name")
    names = block[:-1].split(b"\0")
    if len(names) != count or not all(map(operator.lt, names, names[1:])):
        raise ValueError("names are not sorted")
    return names


def _extras(blob: bytes, offset: int) -> t.Iterator[t.Tuple[int, Extra]]:
    while offset < len(blob):
        (position,) = struct.unpack_from("<I", blob, offset)
        offset += 4
        target, device, holes = b"", (0, 0), ()  # type: t.Tuple[bytes, t.Tuple[int, int], t.Tuple[t.Tuple[int, int], ...]]
        xattrs: t.List[t.Tuple[bytes, bytes]] = []
        while blob[offset]:
            tag, length = _FIELD.unpack_from(blob, offset)
            offset += _FIELD.size
            data = blob[offset : offset + length]
            offset += length
            if len(data) != length:
                raise ValueError("a field is truncated")
            if tag == 1 and b"\0" not in data:
                target = data
            elif tag == 2:
                device = t.cast("t.Tuple[int, int]", struct.unpack("<II", data))
                if device[0] >= _MAJORS or device[1] >= _MINORS:
                    raise ValueError("an invalid device number")
            elif tag == 3:
                (size,) = struct.unpack_from("<H", data)
                if not 0 < size <= len(data) - 2 or b"\0" in data[2 : 2 + size]:
                    raise ValueError("an attribute has an invalid name")
                xattrs.append((data[2 : 2 + size], data[2 + size :]))
            elif tag == 4:
                holes = tuple(t.cast("t.Iterable[t.Tuple[int, int]]", struct.iter_unpack("<QQ", data)))
            elif tag > _TAGS:
                raise newer("A tree with an unknown field")
            else:
                raise ValueError("a target with a NUL")
        offset += 1
        yield position, Extra(target, device, tuple(xattrs), holes)


def store(add: t.Callable[[bytes], bytes], entries: t.Sequence[Entry]) -> bytes:
    """Encode a directory and hand its blobs to `add` (bytes -> digest); the digest of its tree, or of its list of parts."""
    if _FIXED * len(entries) <= _PART_SIZE:
        blob = encode(entries)
        if len(blob) <= _PART_SIZE:
            return add(blob)
        del blob
    digests, start, size = [], 0, 0
    for end, entry in enumerate(entries, 1):
        size += _FIXED + 33 + len(entry.name)
        if entry.extra is not NOTHING:
            size += len(_encode_extra(0, entry.extra))
        if zlib.crc32(entry.name) & _PART_MASK == 0 or size >= _PART_SIZE or end == len(entries):
            digests.append(add(encode(entries[start:end])))
            start, size = end, 0
    return add(magic.PARTS + struct.pack("<I", len(digests)) + b"".join(digests))


def part_digests(blob: bytes) -> t.Optional[t.List[bytes]]:
    """The digests in a list of parts; None for a tree."""
    if blob[:8] != magic.PARTS:
        return None
    (count,) = struct.unpack_from("<I", blob, 8) if len(blob) >= 12 else (0,)
    if not count or len(blob) != 12 + 32 * count:
        raise Damaged("A list of tree parts is truncated.")
    return [blob[start : start + 32] for start in range(12, len(blob), 32)]


Read = t.Callable[[bytes, int], bytes]


class Loader:
    """Loads directories, and keeps the last ones: a restore reads each several times.

    :param read: (digest, limit) -> bytes.
    """

    _ROOM = 50_000  # entries

    def __init__(self, read: Read) -> None:
        self.read = read
        self._kept: t.Dict[bytes, t.List[Entry]] = {}
        self._size = 0

    def __call__(self, digest: bytes) -> t.List[Entry]:
        """All entries of a directory; not to be changed."""
        found = self._kept.get(digest)
        if found is None:
            found = self._kept[digest] = load(self.read, digest)
            self._size += len(found)
            while self._size > self._ROOM and len(self._kept) > 1:
                self._size -= len(self._kept.pop(next(iter(self._kept))))
        return found


def load(read: Read, digest: bytes) -> t.List[Entry]:
    """All entries of a directory; `read` is (digest, limit) -> bytes."""
    blob = read(digest, BLOB_LIMIT)
    parts = part_digests(blob)
    if parts is None:
        return decode(blob)
    entries: t.List[Entry] = []
    for part in parts:
        more = decode(read(part, BLOB_LIMIT))
        if entries and more and more[0].name <= entries[-1].name:
            raise Damaged("The parts of a tree overlap.")
        entries += more
    return entries
