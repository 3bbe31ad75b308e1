# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Small blobs into packs. All calls come from one thread, for the order of blobs decides the packs; workers compress and write them."""

from __future__ import annotations

import hashlib
import os
import typing as t
from concurrent.futures import Future

from . import claims, codec, layout, pack
from .layout import State
from .pack_tables import LOCATION_SIZE, SUSPECT, PackLine, pack_location, unpack_location
from .store import Store
from .table import Table
from .workers import Counts, Workers
from .workspace import Workspace

#: Packs of this transaction that are kept as they were read again.
_PLAIN = 4


class Sealed(t.NamedTuple):
    """A finished pack of a transaction; sizes in bytes."""

    name: bytes
    suffix: str
    plain: int
    stored: int


class BlobWriter:
    """The packs of one transaction.

    :param suffix: of the compression to use. :param dry: count and remember, and write nothing.
    :param only: where given, blobs that are not in it are taken for known: they are not wanted.
    """

    def __init__(
        self, store: Store, space: Workspace, workers: Workers, counts: Counts, suffix: str, dry: bool, only: t.Optional[t.Container[bytes]]
    ) -> None:
        self._store, self._space, self._workers, self._counts = store, space, workers, counts
        self._suffix, self._dry, self._only = suffix, dry, only
        self._builders = {kind: pack.Builder(kind) for kind in (pack.CONTENT, pack.METADATA)}
        self._open_number = {pack.CONTENT: 0, pack.METADATA: 1}
        self._numbers = 2
        self._relied: t.Set[bytes] = set()
        self._sealed: t.Dict[int, Sealed] = {}
        self._kept: t.Dict[int, t.Tuple[str, bytes]] = {}  # a dry one's metadata
        self._jobs: t.List[Future[None]] = []
        self._plain: t.Dict[int, bytes] = {}  # the packs that were last read again
        self.places = Table(LOCATION_SIZE)

    # ---- adding

    def has(self, digest: bytes) -> bool:
        """Whether a blob of pack size is in a pack of the store or of this transaction; remembers which pack we rely on.

        Objects are not asked: three system calls for each new file would cost more than the rare second copy.
        """
        if self.places.find(digest) >= 0:
            return True
        if self._only is not None and digest not in self._only:
            return True
        found = self._store.index.find(digest)
        while found is not None and found[0] not in self._relied:
            if self.rely_on([found[0]]):
                break
            self._store.index.forget(found[0])
            found = self._store.index.find(digest)
        return found is not None

    def rely_on(self, names: t.Iterable[bytes]) -> bool:
        """Rely on packs of the store, which stay from now on; False where one is not in its place, and may go."""
        new = [name for name in names if name not in self._relied]
        index = self._store.index
        if self._space.claims is not None:
            self._space.claims.add(claims.PACK, new)
        index.look_at(new)
        for name in new:
            known = index.pack(name)
            if known is None or self._space.claims is not None and not self._store.is_in_place(layout.pack_path(name, known.suffix)):
                return False
        self._relied.update(new)
        return True

    def add(self, digest: bytes, blob: bytes) -> bool:
        """Put a blob of content into the open pack; False where it is known already."""
        if self.has(digest):
            return False
        self._counts.add_new(len(blob))
        self.move(pack.CONTENT, digest, blob)
        return True

    def add_metadata(self, digest: bytes, blob: bytes) -> None:
        """Put a tree, a list or a table into the open pack, unless it is known already."""
        if not self.has(digest):
            self.move(pack.METADATA, digest, blob)

    def put_back(self, digest: bytes, blob: bytes) -> None:
        """Bring back a blob of content that the store has lost; counts as nothing new."""
        self.move(pack.CONTENT, digest, blob)

    def move(self, kind: int, digest: bytes, blob: bytes) -> None:
        """Put a blob into a new pack although an old one may have it, so that the old one can go."""
        if self.places.find(digest) >= 0:
            return
        builder = self._builders[kind]
        offset, ends = builder.add(digest, blob)
        self.places.add(digest, pack_location(self._open_number[kind], offset, len(blob)))
        if ends:
            self._seal(builder)

    def _seal(self, builder: pack.Builder) -> None:
        self._space.check()
        number = self._open_number[builder.kind]
        self._open_number[builder.kind] = self._numbers
        self._numbers += 1
        self._jobs = [job for job in self._jobs if not job.done() or job.result()]  # a failed one raises here
        self._jobs.append(self._workers.submit(self._write, number, builder.kind, builder.take()))

    def _write(self, number: int, kind: int, pieces: t.List[bytes]) -> None:
        """Finish a pack. A worker's job."""
        data = b"".join(pieces)
        pieces.clear()
        name = hashlib.sha256(data).digest()
        suffix, stored = codec.compress(data, self._suffix)
        if not self._dry:
            self._space.write(os.path.join("packs", f"{name.hex()}.pack{suffix}"), stored)
        elif kind == pack.METADATA:
            self._kept[number] = (suffix, stored)
        self._counts.add_stored(len(stored))
        self._sealed[number] = Sealed(name, suffix, len(data), len(stored))

    # ---- the end

    def finish(self) -> None:
        """Close the open packs and wait until everything is written; whatever failed in a thread is raised here."""
        for builder in self._builders.values():
            if builder:
                self._seal(builder)
        for job in self._jobs:
            job.result()
        self._jobs = []
        self._space.check()

    def relied_on(self) -> t.Set[bytes]:
        """The packs in which this transaction found or put what it needs; call `finish` first."""
        return self._relied.union(self.sealed())

    def sealed(self) -> t.Dict[bytes, int]:
        """The packs that it made, or would, with their sizes as stored; call `finish` first."""
        return {made.name: made.stored for made in self._sealed.values()}

    def lines(self, states: t.Mapping[str, State]) -> t.List[PackLine]:
        """For the index: the packs in the order in which `places` numbers them. `states` are those of the files, by name."""
        if not len(self.places):
            return []
        found: t.List[PackLine] = []
        for number in range(self._numbers):
            made = self._sealed.get(number)
            if made is None:
                found.append((b"\0" * 32, SUSPECT, 0))  # an open pack that nothing went into
            else:
                found.append((made.name, states[f"{made.name.hex()}.pack{made.suffix}"], made.plain))
        return found

    def read(self, digest: bytes) -> t.Optional[bytes]:
        """A metadata blob of this transaction, before it is committed; None where it is not one of ours. Call `finish` first."""
        position = self.places.find(digest)
        if position < 0:
            return None
        number, offset, length = unpack_location(self.places.value(position))
        data = self._plain.get(number) or self._read_pack(number)
        start = pack.first_blob(data) + offset
        return data[start : start + length]

    def _read_pack(self, number: int) -> bytes:
        if self._dry:
            suffix, stored = self._kept[number]
        else:
            made = self._sealed[number]
            suffix, stored = made.suffix, self._space.read(os.path.join("packs", f"{made.name.hex()}.pack{made.suffix}"))
        data = self._plain[number] = codec.decompress(stored, suffix, pack.PACK_MOST)
        while len(self._plain) > _PLAIN:
            del self._plain[next(iter(self._plain))]
        return data
