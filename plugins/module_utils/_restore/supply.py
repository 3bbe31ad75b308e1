# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The packed blobs that a restore needs, each pack read once.

After many backups, the files of one directory lie in packs of many runs. A restore that kept the last packs in memory read most packs again and
again. This one counts first which blobs it needs, and how often. When it reads a pack, it hashes all blobs in it that are needed, now or later, keeps
those, and drops each after its last use. Beyond `ROOM` bytes it drops the oldest; their packs are then read again.
"""

from __future__ import annotations

import hashlib
import struct
import typing as t

from .._store.table import Table
from .blobs import Blobs

#: Bytes of blobs that are kept for files to come. Of a remote, there are fewer: what was fetched lies on the disk, and the fetcher needs memory too.
ROOM, _AWAY = 128 << 20, 32 << 20
_COUNTS = struct.Struct("=II")  # how often a blob is needed, and how often it still is


class Uses:
    """How often each packed blob is needed. A million blobs take about 56 MB."""

    def __init__(self) -> None:
        self._counts = Table(_COUNTS.size)

    def __len__(self) -> int:
        return len(self._counts)

    def digest(self, position: int) -> bytes:
        """The blobs, in the order in which they were expected first."""
        return self._counts.digest(position)

    def expect(self, digest: bytes) -> None:
        """One more file has this content."""
        position = self._counts.find(digest)
        if position < 0:
            self._counts.add(digest, _COUNTS.pack(1, 1))
        else:
            wanted, left = _COUNTS.unpack(self._counts.value(position))
            self._counts.replace(position, _COUNTS.pack(wanted + 1, left + 1))

    def left(self, digest: bytes) -> int:
        """How often a blob is still needed."""
        position = self._counts.find(digest)
        return t.cast(int, _COUNTS.unpack(self._counts.value(position))[1]) if position >= 0 else 0

    def use(self, digest: bytes) -> int:
        """A blob was used; how often it is still needed."""
        position = self._counts.find(digest)
        if position < 0:
            return 0
        wanted, left = _COUNTS.unpack(self._counts.value(position))
        left = max(int(left) - 1, 0)
        self._counts.replace(position, _COUNTS.pack(wanted, left))
        return left

    def clear(self) -> None:
        """Forget all of it."""
        self._counts = Table(_COUNTS.size)

    def renew(self) -> None:
        """Begin again: nothing was used."""
        for position in range(len(self._counts)):
            wanted, _left = _COUNTS.unpack(self._counts.value(position))
            self._counts.replace(position, _COUNTS.pack(wanted, wanted))


class Supply:
    """Reads packed blobs for files.

    :param uses: of the blobs to come; others can be read too, and are not kept.
    """

    def __init__(self, store: Blobs, uses: Uses, room: t.Optional[int] = None) -> None:
        self._store, self._uses = store, uses
        self._room = room if room is not None else ROOM if store.exists else _AWAY
        self._kept: t.Dict[bytes, bytes] = {}  # in the order in which they came
        self._size = 0

    def read(self, digest: bytes, limit: int) -> bytes:
        """A blob, hashed; Damaged as of `Store.read`."""
        if digest not in self._kept and self._uses.left(digest):
            self._unpack(digest)
        blob = self._kept.pop(digest, None)
        left = self._uses.use(digest)
        if blob is None:
            return self._store.read(digest, limit)  # not in a pack, altered in it, or not expected
        if left:
            self._kept[digest] = blob
        else:
            self._size -= len(blob)
        while self._size > self._room:
            self._size -= len(self._kept.pop(next(iter(self._kept))))
        return blob

    def end(self) -> None:
        """Nothing more is read: give back the memory."""
        self._kept, self._size = {}, 0
        self._uses.clear()

    def renew(self) -> None:
        """Begin again, for a second attempt."""
        self._kept, self._size = {}, 0
        self._uses.renew()

    def _unpack(self, digest: bytes) -> None:
        """Keep what is needed of the pack that has a blob."""
        for name, blob in self._store.unpack(digest):
            if name not in self._kept and self._uses.left(name) and hashlib.sha256(blob).digest() == name:
                self._kept[name] = bytes(blob)
                self._size += len(blob)
