# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree format: what goes in comes out, the same bytes on every host, and whatever else is Damaged."""

from __future__ import annotations

import contextlib
import re
import struct
import zlib

import pytest
from ansible_collections.volt.backup.plugins.module_utils._base.errors import Damaged, Unsupported
from ansible_collections.volt.backup.plugins.module_utils._format import tree
from ansible_collections.volt.backup.plugins.module_utils._format.tree import Entry, Extra
from hypothesis import given, strategies as st

from ..kit import cuts, digest, flips, noise, within

D = b"d" * 32
CONTENT = {tree.FILE: D, tree.CHUNKED: D, tree.DIRECTORY: D}


def make(name: bytes, kind: int = tree.FILE, size: int = 1, **more: object) -> Entry:
    size = size if kind in (tree.FILE, tree.CHUNKED) else 0
    extra = Extra(target=b"t") if kind == tree.SYMLINK else tree.NOTHING
    content = b"" if kind == tree.FILE and not size else CONTENT.get(kind, b"")
    return Entry(name, kind, 0o644, 1, 2, 3, 4, size, content, extra)._replace(**more)  # type: ignore[arg-type]


NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b".."))
U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
DEVICE = st.integers(0, 2**31 - 1)
TEXT = st.binary(min_size=1, max_size=30).filter(lambda text: b"\0" not in text)
XATTRS = st.dictionaries(TEXT, st.binary(max_size=40), max_size=3).map(lambda found: tuple(sorted(found.items())))


@st.composite
def entries(draw: st.DrawFn) -> list[Entry]:
    found = []
    for name in sorted(draw(st.sets(NAMES, max_size=8))):
        kind = draw(st.sampled_from(list(b"fFdlpscb")))
        size = draw(st.integers(0 if kind == tree.FILE else 1, 2**63)) if kind in (tree.FILE, tree.CHUNKED) else 0
        extra = Extra(
            target=draw(TEXT) if kind == tree.SYMLINK else b"",
            device=(draw(DEVICE), draw(DEVICE)) if kind in (tree.CHARACTER, tree.BLOCK) else (0, 0),
            xattrs=draw(XATTRS),
            holes=((0, 1),) if kind == tree.FILE and size > 1 and draw(st.booleans()) else (),
        )
        content = draw(st.binary(min_size=32, max_size=32)) if kind in CONTENT and (size or kind != tree.FILE) else b""
        found.append(
            Entry(name, kind, draw(st.integers(0, 0o7777)), draw(U32), draw(U32), draw(st.integers(-(2**63), 2**63 - 1)),
                  draw(st.integers(0, 999_999_999)), size, content, extra)
        )  # fmt: skip
    return found


@given(entries())
def test_round_trip(found: list[Entry]) -> None:
    blob = tree.encode(found)
    assert tree.decode(blob) == found
    assert tree.encode(tree.decode(blob)) == blob


@given(entries(), st.sampled_from([rb"[^\0]*", rb"[^\0]", rb"none of these"]), st.booleans())
def test_picked_by_name(found: list[Entry], name: bytes, only_directories: bool) -> None:
    found = [entry for entry in found if entry.kind == tree.DIRECTORY or not only_directories]
    picked = tree.pick(tree.encode(found), re.compile(rb"\0(?:" + name + rb")(?=\0)", re.DOTALL))
    assert picked.entries == [entry for entry in found if re.fullmatch(name, entry.name, re.DOTALL)]
    assert [tuple(pair) for pair in picked.directories] == [(entry.name, entry.content) for entry in found if entry.kind == tree.DIRECTORY]


@given(st.binary(max_size=200))
def test_rubbish_is_not_picked_from(data: bytes) -> None:
    for blob in (data, b"VOLTTREE" + data, b"VOLTTREE" + struct.pack("<IIII", 1, 2, 1, 0) + b"a\0" + b"d" + data):
        with contextlib.suppress(Damaged, Unsupported):
            tree.pick(blob, re.compile(rb"\0[^\0]*(?=\0)"))
            tree.pick(blob, re.compile(rb"\0none(?=\0)"))


def test_form() -> None:
    """Byte by byte, as the format says."""
    found = [
        Entry(b"a", tree.FILE, 0o4755, 1, 2, -3, 4, 5, D, Extra(xattrs=((b"user.x", b"v"),), holes=((0, 4),))),
        Entry(b"b", tree.BLOCK, 0o600, 0, 0, 0, 0, 0, b"", Extra(device=(8, 1))),
        Entry(b"c", tree.SYMLINK, 0o777, 0, 0, 1 << 33, 999_999_999, 0, b"", Extra(target=b"to")),
    ]
    columns = b"fbl" + struct.pack("<3H", 0o4755, 0o600, 0o777) + struct.pack("<3I3I", 1, 0, 0, 2, 0, 0)
    columns += struct.pack("<3q3I3Q", -3, 0, 1 << 33, 4, 0, 999_999_999, 5, 0, 0)
    extras = b"\0\0\0\0" + b"\3" + struct.pack("<IH", 9, 6) + b"user.xv" + b"\4" + struct.pack("<IQQ", 16, 0, 4) + b"\0"
    extras += b"\1\0\0\0" + b"\2" + struct.pack("<III", 8, 8, 1) + b"\0"
    extras += b"\2\0\0\0" + b"\1" + struct.pack("<I", 2) + b"to" + b"\0"
    assert tree.encode(found) == b"VOLTTREE" + struct.pack("<4I", 3, 6, 1, len(extras)) + b"a\0b\0c\0" + columns + D + extras


def test_empty_directory() -> None:
    blob = tree.encode([])
    assert blob == b"VOLTTREE" + bytes(16) and tree.decode(blob) == []


@given(st.binary(max_size=200))
def test_rubbish(data: bytes) -> None:
    for blob in (data, b"VOLTTREE" + data):
        try:
            tree.decode(blob)
        except Damaged:
            pass


SAMPLE = tree.encode(
    [make(b"a"), make(b"d", tree.DIRECTORY), make(b"l", tree.SYMLINK), make(b"x", extra=Extra(xattrs=((b"user.n", b"v"),))),
     make(b"z", tree.CHARACTER, extra=Extra(device=(1, 3)))]
)  # fmt: skip


def test_truncated_and_extended() -> None:
    for blob in (*cuts(SAMPLE, len(SAMPLE)), SAMPLE + b"\0", SAMPLE + SAMPLE, b""):
        with pytest.raises(Damaged):
            tree.decode(blob)


def test_bit_flips() -> None:
    """The blob's digest is the guard; here only Damaged, or another tree that a directory could have, may come out."""
    for _at, blob in flips(SAMPLE, len(SAMPLE)):
        try:
            found = tree.decode(blob)
        except (Damaged, Unsupported):
            continue
        names = [item.name for item in found]
        assert names == sorted(set(names)) and not {b"", b".", b".."} & set(names) and b"/" not in b"".join(names)


BAD_NAMES: dict[str, list[bytes]] = {
    "empty": [b""],
    "empty between": [b"a", b"", b"b"],
    "dot": [b"."],
    "dot dot": [b".."],
    "dot dot last": [b"+", b".."],
    "dot dot between": [b"-", b"..", b"a"],
    "slash": [b"a/b"],
    "absolute": [b"/etc"],
    "climbing": [b"../../etc"],
    "twice": [b"a", b"a"],
    "wrong order": [b"b", b"a"],
    "prefix after": [b"ab", b"a"],
    "order as text, not bytes": [b"\xff", b"\xc3\xa9"],
}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_hostile_names(name: str) -> None:
    with pytest.raises(Damaged):
        tree.decode(tree.encode([make(raw) for raw in BAD_NAMES[name]]))


@pytest.mark.parametrize("name", [b"...", b".a", b"a.", b"..a", b"a\nb", b"\xff\xfe", b"-rf", b" ", b"*", b"\\", b"x" * 255])
def test_names_that_linux_allows(name: bytes) -> None:
    assert tree.decode(tree.encode([make(name)]))[0].name == name


def header(count: int = 0, names: int = 0, digests: int = 0, extras: int = 0, rest: bytes = b"", magic: bytes = b"VOLTTREE") -> bytes:
    return magic + struct.pack("<4I", count, names, digests, extras) + rest


def one(kind: int = tree.FILE, extras: bytes = b"", digests: int = 1, mode: int = 0o644, nanos: int = 0, size: int = 1) -> bytes:
    row = bytes([kind]) + struct.pack("<HIIqIQ", mode, 0, 0, 0, nanos, size)
    return header(1, 2, digests, len(extras), b"a\0" + row + D * digests + extras)


def field(tag: int, data: bytes, position: int = 0, length: int | None = None) -> bytes:
    return struct.pack("<IBI", position, tag, len(data) if length is None else length) + data + b"\0"


FORGED = {
    "another magic": header(magic=b"NOTATREE"),
    "a chunk list": header(magic=b"VOLTCHNK"),
    "a list of parts": header(magic=b"VOLTPART"),
    "absurd count": header(0xFFFFFFFF),
    "absurd names": header(0, 0xFFFFFFFF),
    "absurd digests": header(0, 0, 0xFFFFFFFF),
    "absurd extras": header(0, 0, 0, 0xFFFFFFFF),
    "sizes that wrap around 32 bits": header(138_547_333, 0, 0, 0),
    "names without entries": header(0, 2, rest=b"a\0"),
    "entries without names": header(1, 0, rest=bytes(31)),
    "more names than entries": header(1, 4, rest=b"a\0b\0" + b"p" + bytes(30)),
    "names without an end": header(1, 1, rest=b"a" + b"p" + bytes(30)),
    "kind nought": one(0),
    "mode of a whole stat": one(mode=0o100644),
    "a second of nanoseconds": one(nanos=1_000_000_000),
    "a digest too many": one(digests=2),
    "a digest too few": one(digests=0),
    "a digest for an empty file": one(size=0),
    "a digest for a fifo": one(tree.FIFO),
    "a directory without a tree": one(tree.DIRECTORY, digests=0),
    "a symlink without a target": one(tree.SYMLINK, digests=0),
    "a target with a NUL": one(tree.SYMLINK, field(1, b"a\0b"), digests=0),
    "extras for nobody": one(extras=field(3, b"\1\0nv", position=1)),
    "extras far away": one(extras=field(3, b"\1\0nv", position=0xFFFFFFFF)),
    "extras cut short": one(extras=b"\0\0\0"),
    "extras without an end": one(extras=b"\0\0\0\0"),
    "a field cut short": one(extras=field(3, b"\1\0nv", length=100)),
    "a field of 4 GiB": one(extras=field(3, b"\1\0nv", length=0xFFFFFFFF)),
    "a device of another length": one(tree.BLOCK, field(2, b"1234567"), digests=0),
    "half a hole": one(extras=field(4, bytes(15))),
    "an attribute without a length": one(extras=field(3, b"\1")),
    "an attribute shorter than its name": one(extras=field(3, b"\xff\xffab")),
    "an attribute without a name": one(extras=field(3, b"\0\0value")),
    "an attribute's name with a NUL": one(extras=field(3, b"\3\0a\0bvalue")),
    "a hole behind the end": one(extras=field(4, struct.pack("<QQ", 1, 5))),
    "an empty hole": one(extras=field(4, struct.pack("<QQ", 0, 0)), size=5),
    "holes that overlap": one(extras=field(4, struct.pack("<QQQQ", 0, 3, 1, 3)), size=5),
}


NEWER = {
    "another magic": header(magic=b"VOLTTRE2"),
    "another kind": one(ord("x")),
    "another field": one(extras=field(9, b"")),
}


@pytest.mark.parametrize("name", NEWER)
def test_trees_of_a_newer_version(name: str) -> None:
    """The digest says that it was written so."""
    for read in (tree.decode, tree.references):
        with pytest.raises(Unsupported, match="written by a newer version; update volt.backup"):
            read(NEWER[name])


@pytest.mark.parametrize("name", FORGED)
def test_forged(name: str) -> None:
    with within(0.1, 20), pytest.raises(Damaged):
        tree.decode(FORGED[name])


# ---- parts


class Blobs(dict):
    """A store in a dict."""

    def add(self, blob: bytes) -> bytes:
        self[digest(blob)] = blob
        return digest(blob)

    def read(self, name: bytes, limit: int) -> bytes:
        if name not in self or len(self[name]) > limit:
            raise Damaged("not here")
        return self[name]


def directory(count: int, *more: bytes) -> list[Entry]:
    names = sorted({*(b"file-%08d" % number for number in range(count)), *more})
    return [make(name, content=digest(name)) for name in names]


@pytest.mark.parametrize(("count", "parts"), [(0, False), (1, False), (12_000, False), (14_000, True), (50_000, True)])
def test_store_and_load(count: int, parts: bool) -> None:
    blobs, found = Blobs(), directory(count)
    name = tree.store(blobs.add, found)
    assert tree.load(blobs.read, name) == found
    assert (tree.part_digests(blobs[name]) is not None) == parts
    assert len(tree.encode(found)) > 1 << 20 if parts else len(blobs) == 1
    assert all(len(blob) <= (1 << 20) + 200 for blob in blobs.values())


def test_a_new_file_changes_one_part() -> None:
    blobs = Blobs()
    tree.store(blobs.add, directory(40_000))
    before = len(blobs)
    assert before > 5
    for name in (b"file-00020000x", b"aaa", b"zzz"):
        tree.store(blobs.add, directory(40_000, name))
    assert len(blobs) - before == 2 * 3  # a part and a list, each time


def test_parts_end_where_the_format_says() -> None:
    blobs, found = Blobs(), directory(30_000)
    name = tree.store(blobs.add, found)
    parts = [tree.decode(blobs[part]) for part in tree.part_digests(blobs[name]) or ()]
    ends = {part[-1].name for part in parts[:-1]}
    marked = {item.name for item in found[:-1] if zlib.crc32(item.name) & 0xFFF == 0}
    assert marked <= ends and all(len(tree.encode(part)) > 900_000 for part in parts if part[-1].name in ends - marked)


def test_large_attributes_end_parts_early() -> None:
    found = [item._replace(extra=Extra(xattrs=((b"user.big", noise(60_000)),))) for item in directory(60)]
    blobs = Blobs()
    name = tree.store(blobs.add, found)
    assert tree.load(blobs.read, name) == found
    assert all(len(blob) < (1 << 20) + 70_000 for blob in blobs.values())


LIST = b"VOLTPART" + struct.pack("<I", 2) + D + D
BAD_LISTS = {
    "empty": b"VOLTPART" + struct.pack("<I", 0),
    "magic alone": b"VOLTPART",
    "absurd count": b"VOLTPART" + b"\xff" * 4 + D,
    "cut short": LIST[:-1],
    "too long": LIST + b"\0",
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_bad_lists_of_parts(name: str) -> None:
    with pytest.raises(Damaged):
        tree.part_digests(BAD_LISTS[name])


@pytest.mark.parametrize("names", [(b"b", b"a"), (b"a", b"a")])
def test_parts_in_the_wrong_order(names: tuple[bytes, bytes]) -> None:
    blobs = Blobs()
    parts = [blobs.add(tree.encode([make(name)])) for name in names]
    name = blobs.add(b"VOLTPART" + struct.pack("<I", 2) + b"".join(parts))
    with pytest.raises(Damaged, match="overlap"):
        tree.load(blobs.read, name)


def test_an_empty_part_does_not_hide_an_overlap() -> None:
    blobs = Blobs()
    parts = [blobs.add(tree.encode([make(name)] if name else [])) for name in (b"b", b"", b"a")]
    name = blobs.add(b"VOLTPART" + struct.pack("<I", 3) + b"".join(parts))
    with pytest.raises(Damaged, match="overlap"):
        tree.load(blobs.read, name)


def test_a_list_within_a_list_is_refused() -> None:
    """Else a list that names itself, were there one, would have no end."""
    blobs = Blobs()
    inner = blobs.add(b"VOLTPART" + struct.pack("<I", 1) + blobs.add(tree.encode([make(b"a")])))
    outer = blobs.add(b"VOLTPART" + struct.pack("<I", 1) + inner)
    with pytest.raises(Damaged):
        tree.load(blobs.read, outer)


def test_loader_keeps_the_last_ones_within_bounds() -> None:
    blobs, reads = Blobs(), []

    def read(name: bytes, limit: int) -> bytes:
        reads.append(name)
        return blobs.read(name, limit)

    loader = tree.Loader(read)
    names = [tree.store(blobs.add, directory(9000, b"own-%d" % number)) for number in range(7)]
    assert [loader(name) for name in names] == [tree.load(blobs.read, name) for name in names]
    reads.clear()
    loader(names[-1])
    assert reads == []
    loader(names[0])
    assert len(reads) == 1
    assert sum(map(len, loader._kept.values())) <= loader._ROOM
