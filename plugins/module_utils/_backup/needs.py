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

import contextlib
import re
import secrets
import struct
import typing as t
import zlib

from .._base import Damaged, VoltError
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
_UNKNOWN = (1 << 64) - 1  # of trees and lists
_DIGEST = 32
#: So many parts, and the next backup gets one of its own.
_MOST = 32
#: A part of 16 million objects; none is longer.
_FILE_MOST = 1 << 30


class _Part(t.NamedTuple):
    """Packs by name, and objects as `_OBJECT` has them, one behind the other."""

    packs: t.List[bytes]
    objects: bytes

    def each_object(self) -> t.Iterator[t.Tuple[bytes, int]]:
        return t.cast(t.Iterator[t.Tuple[bytes, int]], _OBJECT.iter_unpack(self.objects))


class Needs:
    """What is noted of the backups of a store."""

    def __init__(self, store: Store) -> None:
        self._store, self._cache = store, store.cache
        self._whole: t.Dict[bytes, bool] = {}
        self._found = Table(0)
        self._there: t.Set[str] = set()
        self._last: t.Dict[str, t.Tuple[str, Manifest]] = {}  # by workload
        self._closed = False  # nothing can be written: all trees would be walked again for each backup, and in vain

    def is_whole(self, digest: str) -> bool:
        """Whether all is there that a backup needs, as far as its list tells. False where it may not be, or there is no list.

        :param digest: SHA-256 of the backup's manifest, in hex.
        """
        parts = self._parts(digest)
        return bool(parts) and all(map(self._is_there, t.cast(t.List[bytes], parts)))

    def learn(self, digest: str, manifest: Manifest, near: t.Optional[t.Tuple[str, Manifest]] = None) -> None:
        """Note what a backup needs, which is all here; quietly not, where that cannot be done. Its manifest is there, so nothing of it is
        collected.

        :param near: another backup with much in common, and the digest of its manifest; by default the one of the same workload that was learned last.
        """
        if self._closed:
            return
        with contextlib.suppress(VoltError):
            try:
                self._learn(digest, manifest, near or self._last.get(manifest.backup["workload_name"]))
                self._last[manifest.backup["workload_name"]] = digest, manifest
            except OSError:
                self._closed = True

    def learn_first(self, digest: str, run: Transaction) -> None:
        """The same of a backup for which everything was read, so that its transaction was asked for each blob."""
        objects = bytearray()
        for name in run.objects.relied_on():
            objects += _OBJECT.pack(name, _UNKNOWN)
        with contextlib.suppress(OSError):
            self._write_list(digest, [], _Part(sorted(run.blobs.relied_on()), bytes(objects)))

    def _learn(self, digest: str, manifest: Manifest, near: t.Optional[t.Tuple[str, Manifest]]) -> None:
        # Between the moves to the trash and `end`, a part may name what was moved. A backup that stores such a blob again needs a part with it that stays.
        # Asked before the parts are read: a collection that begins after that finds the manifest, and takes nothing away that it needs.
        shared = near is not None and not self._cache.has(_UNDER_WAY)
        parts = self._parts(near[0]) if near is not None else None
        known = [self._read(name) for name in parts or ()]
        if near is None or not shared or parts is None or len(parts) >= _MOST or None in known:
            near, parts, known = None, [], []
        found = _Found(self._store, t.cast(t.List[_Part], known))
        reach = Reachability(self._store.read, found.content, found.metadata)
        if near is None:
            reach(manifest.root.content, manifest.links)
        else:
            reach.beyond(near[1].root, manifest.root, manifest.links)
        self._write_list(digest, parts, found.part())

    def _write_list(self, digest: str, parts: t.List[bytes], part: _Part) -> None:
        """:param parts: those that are there already. :param part: a further one, if there is anything in it or it is the only one."""
        if part.packs or part.objects or not parts:
            name = secrets.token_bytes(_NAME)
            self._write(name, part)
            parts = [*parts, name]
        self._cache.write(_list_name(digest), _sealed(_LIST_MAGIC, bytes.fromhex(digest) + b"".join(parts)))

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
        part = self._read(name)
        if part is None:
            return
        packs = [pack for pack in part.packs if taken.find(pack) < 0]
        objects = b"".join(_OBJECT.pack(*item) for item in part.each_object() if taken.find(item[0]) < 0)
        if len(packs) == len(part.packs) and len(objects) == len(part.objects):
            return
        if len(packs) < len(part.packs):
            packs = sorted({*packs, *made})
        with contextlib.suppress(OSError):  # then it names what is gone, and the trees are walked
            self._write(name, _Part(packs, objects))

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

    def _is_there(self, name: bytes) -> bool:
        """Whether all that a part names is there. Looked at once."""
        whole = self._whole.get(name)
        if whole is None:
            part = self._read(name)
            whole = part is not None and self._store.has_packs(part.packs) and all(map(self._has_object, part.each_object()))
            self._whole[name] = whole
        return whole

    def _has_object(self, item: t.Tuple[bytes, int]) -> bool:
        digest, size = item
        if self._found.find(digest) < 0:
            if not self._store.has(digest, -1 if size == _UNKNOWN else size):
                return False
            self._found.add(digest, b"")
        return True

    def _parts(self, digest: str) -> t.Optional[t.List[bytes]]:
        return self._names(_list_name(digest), bytes.fromhex(digest))

    def _names(self, file: str, digest: bytes = b"") -> t.Optional[t.List[bytes]]:
        """The parts that a list names; None where there is no list of this manifest."""
        data = _opened(_LIST_MAGIC, self._cache.read(file, _FILE_MOST))
        if data is None or not data.startswith(digest) or (len(data) - _DIGEST) % _NAME:
            return None
        return [data[at : at + _NAME] for at in range(_DIGEST, len(data), _NAME)]

    def _read(self, name: bytes) -> t.Optional[_Part]:
        data = _opened(_PART_MAGIC, self._cache.read(name.hex() + PART, _FILE_MOST))
        if data is None or len(data) < _COUNTS.size:
            return None
        packs, objects = _COUNTS.unpack_from(data)
        start = _COUNTS.size + packs * _DIGEST
        if start + objects * _OBJECT.size != len(data):
            return None
        return _Part([data[at : at + _DIGEST] for at in range(_COUNTS.size, start, _DIGEST)], data[start:])

    def _write(self, name: bytes, part: _Part) -> None:
        body = _COUNTS.pack(len(part.packs), len(part.objects) // _OBJECT.size) + b"".join(part.packs) + part.objects
        self._cache.write(name.hex() + PART, _sealed(_PART_MAGIC, body))
        self._whole.pop(name, None)


class _Found:
    """Gathers packs and objects, without those that are known."""

    def __init__(self, store: Store, known: t.List[_Part]) -> None:
        self._store = store
        self._known_packs = {pack for part in known for pack in part.packs}
        self._known, self._objects = Table(0), Table(_SIZE.size)
        for part in known:
            for digest, _size in part.each_object():
                if self._known.find(digest) < 0:
                    self._known.add(digest, b"")
        self._packs: t.Set[bytes] = set()

    def content(self, digest: bytes, size: int) -> None:
        pack = self._store.pack_of(digest, size)
        if pack is None:
            raise Damaged(f"Blob {digest.hex()} is missing or altered.")
        if pack:
            self._packs.add(pack)
        elif self._known.find(digest) < 0 and self._objects.find(digest) < 0:
            self._objects.add(digest, _SIZE.pack(size & _UNKNOWN))

    def metadata(self, digest: bytes) -> None:
        self.content(digest, -1)

    def part(self) -> _Part:
        objects = bytearray()
        for position in range(len(self._objects)):
            objects += self._objects.digest(position) + self._objects.value(position)
        return _Part(sorted(self._packs - self._known_packs), bytes(objects))


def _list_name(digest: str) -> str:
    return digest[:32] + NEEDS


def _sealed(magic: bytes, body: bytes) -> bytes:
    return _HEAD.pack(magic, zlib.crc32(body)) + body


def _opened(magic: bytes, data: t.Optional[bytes]) -> t.Optional[bytes]:
    """What `_sealed` closed; None for anything else."""
    if data is None or len(data) < _HEAD.size or _HEAD.unpack_from(data) != (magic, zlib.crc32(data[_HEAD.size :])):
        return None
    return data[_HEAD.size :]
