# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The blobs of one backup on a remote, as a restore reads them. What the store of this host has of them is read there."""

from __future__ import annotations

import errno
import hashlib
import os
import typing as t
from collections import OrderedDict

from .._base import Damaged
from .._store import pack as local_pack
from .._store.store import Store
from . import names
from .fetcher import Fetcher, Wanted
from .keys import Keys
from .places import Places

#: Bytes of opened segments that are kept at hand: trees, mostly.
_ROOM = 32 << 20
#: A pack of which this share of the blobs is needed is fetched as a whole.
_MOSTLY = 0.5
_Opened = t.Tuple[bytes, t.Dict[bytes, t.Tuple[int, int]]]
_Place = t.Tuple[names.Pack, int]


class RemoteBlobs:
    """See `_restore.blobs.Blobs`.

    :param places: where the blobs are that the backup needs. :param everything: the whole backup will be read, and so all of its metadata.
    :param local: the store of this host, if there is one. :param others: where else the remote may have what is not, or not sound, in these places.
    """

    exists = False

    def __init__(
        self, fetcher: Fetcher, keys: Keys, places: Places, everything: bool, local: t.Optional[Store], others: t.Optional[t.Callable[[], Places]] = None
    ) -> None:
        self._fetcher, self._keys, self._places = fetcher, keys, places
        self._others: t.Union[None, Places, t.Callable[[], Places]] = others
        self._whole, self._local = everything, local  # until the content that is needed is known, metadata is read, and all of it
        self._segments: OrderedDict[_Place, _Opened] = OrderedDict()
        self._size = 0

    def has(self, digest: bytes, size: int) -> bool:
        if self._local is not None and self._local.has(digest, size):
            return True
        place = self._places.find(self._keys.blob_id(digest))
        return place is not None and not self._places.lacks(place[0]) or self._elsewhere(digest, {place}) is not None

    def present(self, digest: bytes, size: int) -> None:
        """Damaged unless `has` says so."""
        if not self.has(digest, size):
            place = self._places.find(self._keys.blob_id(digest))
            raise self._fetcher.lacks(place[0]) if place is not None else Damaged(f"Blob {digest.hex()} is not on the remote.")

    def read(self, digest: bytes, limit: int) -> bytes:
        if self._local is not None and self._local.has(digest, -1):
            try:
                return self._local.read(digest, limit)
            except Damaged:
                pass  # the remote has it, too
        place: t.Optional[_Place] = self._place(digest)
        tried: t.Set[t.Optional[_Place]] = set()
        first: t.Optional[Damaged] = None
        while place is not None:
            try:
                return self._blob(place, digest, limit)
            except Damaged as error:
                if self._fetcher.forget(place[0]):
                    continue
                first = first or error
            tried.add(place)
            place = self._elsewhere(digest, tried)
        raise first or Damaged(f"Blob {digest.hex()} is not on the remote.")

    read_object_first = read

    def unpack(self, digest: bytes) -> t.Iterator[t.Tuple[bytes, memoryview]]:
        if self._local is not None and self._local.has(digest, -1):
            yield from self._local.unpack(digest)
            return
        try:
            plain, lines = self._opened(self._place(digest), local_pack.PACK_MOST)
        except Damaged:
            return
        view = memoryview(plain)
        for name, (offset, length) in lines.items():
            yield name, view[offset : offset + length]

    def open_plain(self, _digest: bytes, _size: int, _verify: bool) -> int:
        return -1

    def is_plain(self, _digest: bytes, _size: int) -> bool:
        return False

    def open_sample(self) -> int:
        """OSError: nothing here is a file of this host."""
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    def expect(self, digests: t.Iterable[bytes]) -> None:
        """These will be read, in about this order: fetch them ahead."""
        self._whole = False
        found: t.Dict[names.Pack, t.Set[int]] = {}
        needed: t.Dict[names.Pack, int] = {}
        for digest in digests:
            place = self._places.find(self._keys.blob_id(digest))
            if place is None or place[0] in self._places.missing or self._local is not None and self._local.has(digest, -1):
                continue
            found.setdefault(place[0], set()).add(place[1])
            needed[place[0]] = needed.get(place[0], 0) + 1
        self._fetcher.expect(Wanted(pack, None if needed[pack] >= _MOSTLY * self._places.count(pack) else sorted(found[pack])) for pack in found)

    # ---- inside

    def _place(self, digest: bytes) -> _Place:
        place = self._places.find(self._keys.blob_id(digest))
        if place is None or place[0] in self._places.missing:
            place = self._elsewhere(digest, {place}) or place
        if place is None:
            raise Damaged(f"Blob {digest.hex()} is not on the remote.")
        return place

    def _elsewhere(self, digest: bytes, tried: t.Set[t.Optional[_Place]]) -> t.Optional[_Place]:
        """Another place of a blob than these, which its backup does not need as far as its commit says, or which was lost and sent again."""
        if tried != {None} and self._places.doubt():
            place = self._places.find(self._keys.blob_id(digest))
            if place is not None and place not in tried:
                return place
        if self._others is None:
            return None
        if callable(self._others):
            self._others = self._others()
        place = self._others.find(self._keys.blob_id(digest))
        if place is None or place[0] in self._others.missing:
            return None
        if place not in tried:
            return place
        return self._others.another(self._keys.blob_id(digest), {known[0] for known in tried if known is not None})  # it is there and not sound

    def _blob(self, place: _Place, digest: bytes, limit: int) -> bytes:
        opened = self._segments.get(place)
        if opened is None:
            opened = self._segments[place] = self._opened(place, limit)
            self._size += len(opened[0])
        self._segments.move_to_end(place)
        while self._size > _ROOM and len(self._segments) > 1:
            self._size -= len(self._segments.popitem(last=False)[1][0])
        plain, lines = opened
        offset, length = lines.get(digest, (0, -1))
        if length > limit:
            raise Damaged(f"Blob {digest.hex()} is larger than expected.")
        blob = plain[offset : offset + length] if length >= 0 else b""
        if hashlib.sha256(blob).digest() != digest:
            self._size -= len(self._segments.pop(place)[0])
            raise Damaged(f"Blob {digest.hex()} is altered in {place[0].name} of the remote.")
        return blob

    def _opened(self, place: _Place, limit: int) -> _Opened:
        pack, number = place
        try:
            contents, stored = self._fetcher.segment(pack, number, self._whole)
            plain, lines = contents.open(number, stored, limit)
        except Damaged as error:
            raise self._fetcher.naming(pack, error) from None
        return plain, {digest: (offset, length) for digest, offset, length in lines}
