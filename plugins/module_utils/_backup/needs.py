# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Which packs and objects a backup needs, noted once: listing and pruning then look for these files, and read no trees.

::

    cache/<first 32 digits of the manifest's SHA-256>.needs     the names of the backup's parts
    cache/<random name>.part                                    packs and objects

A backup's parts together name all that it needs. They may name more, never less: what one of them names and is gone is looked for in the trees. So a
backup takes over the parts of the one before it, and adds a part for what that one does not refer to. With `_MOST` parts it gets a single new one.
Garbage collection takes out of the parts what it has moved to the trash.

All of this is derived. A file that is missing, altered or of another manifest is ignored, and written again after the trees were walked.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import struct
import typing as t
import zlib

from .._base import Damaged, VoltError, tolerated
from .._format.reachability import Reachability
from .._store.store import Store
from .._store.table import Table
from .records import Manifest

if t.TYPE_CHECKING:
    from .._store.transaction import Transaction

NEEDS, PART = ".needs", ".part"
_LIST_NAME, _PART_NAME = re.compile(r"[0-9a-f]{32}\.needs"), re.compile(r"[0-9a-f]{32}\.part")
#: There while a collection is under way, and after one that was killed.
_UNDER_WAY = "collection-under-way"
_HEAD = struct.Struct("<8sI")  # magic, CRC-32 of all behind it
_LIST_MAGIC, _PART_MAGIC = b"VOLTNEED", b"VOLTPART"
_NAME = 16  # bytes of a part's name
_COUNTS = struct.Struct("<QQ")  # packs, objects
_OBJECT = struct.Struct("<32sQ")  # digest, plain size or _UNKNOWN
_SIZE = struct.Struct("<Q")
_MOMENT = struct.Struct("<q")
_UNKNOWN = (1 << 64) - 1  # of trees and lists
_NOW = (1 << 63) - 1  # of nothing, which is always as it was
_DIGEST = 32
#: So many parts, and the next backup gets one of its own.
_MOST = 32
#: A part of 16 million objects; none is longer.
_FILE_MOST = 1 << 30


class _Part(t.NamedTuple):
    """Packs by name, and objects as `_OBJECT` has them, one behind the other."""

    packs: t.List[bytes]
    objects: t.Union[bytes, memoryview]

    def each_object(self) -> t.Iterator[t.Tuple[bytes, int]]:
        return t.cast(t.Iterator[t.Tuple[bytes, int]], _OBJECT.iter_unpack(self.objects))


class Needs:
    """What is noted of the backups of a store.

    :param writes: else what is learned is forgotten in the end.
    """

    def __init__(self, store: Store, writes: bool = True) -> None:
        self._store, self._cache, self._writes = store, store.cache, writes
        self._unwritten: t.Dict[str, bytes] = {}
        self._hashed: t.Dict[bytes, t.Optional[int]] = {}
        self._found = Table(_MOMENT.size)
        self._there: t.Set[str] = set()
        self._last: t.Dict[str, t.Tuple[str, Manifest]] = {}  # by workload

    def hashed(self, digest: str) -> t.Optional[int]:
        """When all that a backup needs was last hashed, in ns since 1970, as far as its list tells; UNCHECKED where some of it changed since. None where
        something may be missing, or there is no list.

        :param digest: SHA-256 of the backup's manifest, in hex.
        """
        return _oldest(self._part_hashed(name) for name in self._parts(digest) or [b""])

    def rest(self) -> None:
        """Forget which objects were looked at, 60 bytes for each."""
        self._found = Table(_MOMENT.size)

    def learn(self, digest: str, manifest: Manifest, near: t.Optional[t.Tuple[str, Manifest]] = None) -> None:
        """Note what a backup needs, which is all here; quietly not, where it is gone by now. Its manifest is there, so nothing of it is collected.

        :param near: another backup with much in common, and the digest of its manifest; by default the one of the same workload that was learned last.
        """
        with tolerated(VoltError):
            self._learn(digest, manifest, near or self._last.get(manifest.backup["workload_name"]))
            self._last[manifest.backup["workload_name"]] = digest, manifest

    def learn_first(self, digest: str, run: Transaction) -> None:
        """The same of a backup for which everything was read, so that its transaction was asked for each blob."""
        objects = bytearray()
        for name in run.objects.relied_on():
            objects += _OBJECT.pack(name, _UNKNOWN)
        self._write_list(digest, [], _Part(sorted(run.blobs.relied_on()), bytes(objects)))

    def _learn(self, digest: str, manifest: Manifest, near: t.Optional[t.Tuple[str, Manifest]]) -> None:
        # Between the moves to the trash and `end`, a part may name what was moved. A backup that stores such a blob again needs a part with it that stays.
        # Asked before the parts are read: a collection that begins after that finds the manifest, and takes nothing away that it needs.
        shared = near is not None and not self._cache.has(_UNDER_WAY)
        parts = self._parts(near[0]) if near is not None else None
        if near is None or not shared or parts is None or len(parts) >= _MOST or any(self._read(name) is None for name in parts):
            near, parts = None, []
        found = _Found(self._store, functools.partial(map, self._read_again, parts))
        reach = Reachability(self._store.read, found.content, found.metadata)
        if near is None:
            reach(manifest.root.content, manifest.links)
        else:
            reach.beyond(near[1].root, manifest.root, manifest.links)
        self._write_list(digest, parts, found.part())

    def _write_list(self, digest: str, parts: t.List[bytes], part: _Part) -> None:
        """:param parts: those that are there already. :param part: a further one, if there is anything in it or it is the only one."""
        if part.packs or part.objects or not parts:
            name = os.urandom(_NAME)
            self._write(name, part)
            parts = [*parts, name]
        self._write_file(_list_name(digest), _sealed(_LIST_MAGIC, bytes.fromhex(digest) + b"".join(parts)))

    # ---- around a collection

    def begin(self) -> None:
        """A collection begins: parts that are made from now on may name what it does not know of."""
        self._there = set(self._files(PART, _PART_NAME))
        try:
            self._cache.write(_UNDER_WAY, b"")
        except OSError:
            self.forget()

    def end(self, taken: Table, made: t.Sequence[bytes], manifests: t.Iterable[str]) -> None:
        """A collection ends: take out of the parts what it took away, and remove what is no longer used.

        :param taken: packs and objects. :param made: the packs that hold what is live of those taken. :param manifests: SHA-256 of each, in hex.
        """
        for file in self._there:
            self._drop(file, taken, made)
        self._sweep(manifests)
        self._cache.remove(_UNDER_WAY)

    def give_up(self) -> None:
        """A collection failed. Its parts still name what it took away, and no one takes these names out: backups may share them again."""
        self._cache.remove(_UNDER_WAY)

    def _drop(self, file: str, taken: Table, made: t.Sequence[bytes]) -> None:
        name = bytes.fromhex(file[: -len(PART)])
        part = self._read(name) if len(taken) else None
        if part is None:
            return
        packs = [pack for pack in part.packs if taken.find(pack) < 0]
        objects = bytearray()
        for item in part.each_object():
            if taken.find(item[0]) < 0:
                objects += _OBJECT.pack(*item)
        if len(packs) == len(part.packs) and len(objects) == len(part.objects):
            return
        if len(packs) < len(part.packs):
            packs = sorted({*packs, *made})
        self._write(name, _Part(packs, bytes(objects)))

    def _sweep(self, manifests: t.Iterable[str]) -> None:
        wanted = set(map(_list_name, manifests))
        used: t.Set[bytes] = set()
        for file in self._files(NEEDS, _LIST_NAME):
            parts = self._names(file)
            if parts is None or file not in wanted and self._is_old(parts):
                self._cache.remove(file)
            else:
                used.update(parts)
        for file in self._there:
            if bytes.fromhex(file[: -len(PART)]) not in used:
                self._cache.remove(file)

    def _is_old(self, parts: t.Iterable[bytes]) -> bool:
        """Whether a list is of a backup from before this collection: only those may be missing from its manifests because they were deleted."""
        return all(name.hex() + PART in self._there for name in parts)

    def forget(self) -> None:
        """Remove everything: what is missing must be looked for in the trees."""
        for file in [*self._files(NEEDS, _LIST_NAME), *self._files(PART, _PART_NAME)]:
            self._cache.remove(file)

    # ---- files

    def _files(self, ending: str, name: t.Pattern[str]) -> t.List[str]:
        """Our files of one kind. What has another name is not ours, as what a copying program left."""
        return list(filter(name.fullmatch, self._cache.names(ending)))

    def _part_hashed(self, name: bytes) -> t.Optional[int]:
        """When all that a part names was last hashed, as of `hashed`. Looked at once."""
        if name not in self._hashed:
            part = self._read(name)
            found = None if part is None else _oldest(self._store.packs_hashed(part.packs))
            if found is not None:
                found = _oldest(itertools.chain([found], map(self._object_hashed, t.cast(_Part, part).each_object())))
            self._hashed[name] = found
        return self._hashed[name]

    def _object_hashed(self, item: t.Tuple[bytes, int]) -> t.Optional[int]:
        digest, size = item
        position = self._found.find(digest)
        if position >= 0:
            return t.cast(int, _MOMENT.unpack(self._found.value(position))[0])
        hashed = self._store.hashed(digest, -1 if size == _UNKNOWN else size)
        if hashed is not None:
            self._found.add(digest, _MOMENT.pack(hashed))
        return hashed

    def _parts(self, digest: str) -> t.Optional[t.List[bytes]]:
        return self._names(_list_name(digest), bytes.fromhex(digest))

    def _names(self, file: str, digest: bytes = b"") -> t.Optional[t.List[bytes]]:
        """The parts that a list names; None where there is no list of this manifest."""
        view = _opened(_LIST_MAGIC, self._read_file(file))
        data = None if view is None else bytes(view)
        if data is None or not data.startswith(digest) or (len(data) - _DIGEST) % _NAME:
            return None
        return [data[at : at + _NAME] for at in range(_DIGEST, len(data), _NAME)]

    def _read(self, name: bytes) -> t.Optional[_Part]:
        data = _opened(_PART_MAGIC, self._read_file(name.hex() + PART))
        if data is None or len(data) < _COUNTS.size:
            return None
        packs, objects = _COUNTS.unpack_from(data)
        start = _COUNTS.size + packs * _DIGEST
        if start + objects * _OBJECT.size != len(data):
            return None
        return _Part([bytes(data[at : at + _DIGEST]) for at in range(_COUNTS.size, start, _DIGEST)], data[start:])

    def _read_again(self, name: bytes) -> _Part:
        """A part that was there; Damaged where a collection has removed it since, with the list of a backup that was deleted."""
        part = self._read(name)
        if part is None:
            raise Damaged(f"Part {name.hex()} of a list is gone.")
        return part

    def _write(self, name: bytes, part: _Part) -> None:
        body = _COUNTS.pack(len(part.packs), len(part.objects) // _OBJECT.size) + b"".join([*part.packs, part.objects])
        self._write_file(name.hex() + PART, _sealed(_PART_MAGIC, body))
        self._hashed.pop(name, None)

    def _read_file(self, name: str) -> t.Optional[bytes]:
        return self._unwritten.get(name) or self._cache.read(name, _FILE_MOST)

    def _write_file(self, name: str, data: bytes) -> None:
        """Write a file; where that cannot be done, it is kept in memory, and others walk the trees again."""
        if self._writes:
            try:
                self._cache.write(name, data)
                return
            except OSError:
                self._writes = False
        self._unwritten[name] = data


class _Found:
    """Gathers packs and objects, without those that are known."""

    def __init__(self, store: Store, known: t.Callable[[], t.Iterable[_Part]]) -> None:
        """:param known: asked once something was found: mostly, a backup needs what the one before it needs."""
        self._store, self._parts = store, known
        self._known_packs: t.Set[bytes] = set()
        self._known: t.Optional[Table] = None
        self._objects = Table(_SIZE.size)
        self._packs: t.Set[bytes] = set()

    def _load(self) -> Table:
        if self._known is None:
            self._known = Table(0)
            for part in self._parts():
                self._known_packs.update(part.packs)
                for digest, _size in part.each_object():
                    if self._known.find(digest) < 0:
                        self._known.add(digest, b"")
        return self._known

    def content(self, digest: bytes, size: int) -> None:
        pack, known = self._store.pack_of(digest, size), self._load()
        if pack is None:
            raise Damaged(f"Blob {digest.hex()} is missing or altered.")
        if pack:
            self._packs.add(pack)
        elif known.find(digest) < 0 and self._objects.find(digest) < 0:
            self._objects.add(digest, _SIZE.pack(size & _UNKNOWN))

    def metadata(self, digest: bytes) -> None:
        self.content(digest, -1)

    def part(self) -> _Part:
        objects = bytearray()
        for position in range(len(self._objects)):
            objects += self._objects.digest(position) + self._objects.value(position)
        return _Part(sorted(self._packs - self._known_packs), bytes(objects))


def _oldest(times: t.Iterable[t.Optional[int]]) -> t.Optional[int]:
    """The earliest of some times; None where one of them is."""
    oldest = _NOW
    for moment in times:
        if moment is None:
            return None
        oldest = min(oldest, moment)
    return oldest


def _list_name(digest: str) -> str:
    return digest[:32] + NEEDS


def _sealed(magic: bytes, body: bytes) -> bytes:
    return _HEAD.pack(magic, zlib.crc32(body)) + body


def _opened(magic: bytes, data: t.Optional[bytes]) -> t.Optional[memoryview]:
    """What `_sealed` closed; None for anything else."""
    if data is None or len(data) < _HEAD.size:
        return None
    body = memoryview(data)[_HEAD.size :]
    return body if _HEAD.unpack_from(data) == (magic, zlib.crc32(body)) else None
