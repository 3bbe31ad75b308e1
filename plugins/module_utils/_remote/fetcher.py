# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Packs of a remote, or parts of them: fetched ahead of the restore that reads them, and kept as long as they may be needed.

::

    plan     which segments of which packs will be read, in the order of their first use
    whole    a pack of which at least half is needed is one request
    parts    else its head, then the segments that are needed; ranges with less than 512 KiB between them are one request

As many requests run at once as the remote has jobs. At most `_AHEAD` packs wait to be read.
"""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import hashlib
import threading
import typing as t

from .._base import Damaged, Unsupported, VoltError
from .._restore.spool import Spool
from . import names, packs
from .keys import Keys, Parts
from .transport import Transport

#: Fetched packs that nothing was read of yet, at most; and where they are kept in memory.
_AHEAD, _FEW = 16, 2
#: Packs whose contents are at hand.
_CONTENTS = 8
#: Ranges with less between them are fetched as one.
_GAP = 512 << 10
#: Of a large pack of metadata, at least so much is read behind its head: trees of one path are near each other.
_TREES = 256 << 10
#: One that is not larger is read as a whole: the trees of a path lie here and there in it.
_FEW_TREES = 640 << 10
#: The first request of a pack that is read in parts, at least: all of a small pack. Its head is in there, unless it has thousands of blobs.
_FIRST = 72 << 10


class Wanted(t.NamedTuple):
    """What will be read of one pack."""

    pack: names.Pack
    #: None: all of it.
    segments: t.Optional[t.Sequence[int]]


class _Loaded:
    """What is here of a pack."""

    def __init__(self) -> None:
        self.contents: t.Optional[packs.Contents] = None
        self.form: t.Optional[Parts] = None
        self.parts: t.List[t.Tuple[int, int]] = []  # offset and length
        self.lock = threading.Lock()

    def part_with(self, start: int, end: int) -> t.Optional[t.Tuple[int, int]]:
        """The part that has a range."""
        return next((part for part in self.parts if part[0] <= start and end <= part[0] + part[1]), None)


class Fetcher:
    """Gives segments of packs. Use as a context: at its end, no request runs any more.

    :ivar fetched: bytes that came.
    """

    def __init__(self, transport: Transport, keys: Keys, jobs: int, spool: Spool) -> None:
        self._transport, self._keys, self._jobs, self._spool = transport, keys, jobs, spool
        self._loaded: t.Dict[names.Pack, _Loaded] = {}
        self._left: t.Dict[str, t.List[t.Tuple[int, int]]] = {}
        self._plan: t.Deque[Wanted] = collections.deque()
        self._running: t.Dict[names.Pack, concurrent.futures.Future[None]] = {}
        self._unread: t.Dict[names.Pack, None] = {}  # in the order of the plan
        self._pool: t.Optional[concurrent.futures.ThreadPoolExecutor] = None
        self._lock = threading.Lock()
        self._recent: t.Deque[_Loaded] = collections.deque()  # whose contents are at hand
        self.fetched = 0

    def __enter__(self) -> Fetcher:
        self._transport.pace.stopped.clear()
        return self

    def __exit__(self, *exception: object) -> None:
        if any(exception):
            self._transport.pace.stopped.set()  # else a request that is tried again holds up the end
        self._plan.clear()
        for future in self._running.values():
            future.cancel()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self._running.clear()
        self._unread.clear()

    def left(self, parts: t.Iterable[t.Tuple[str, int, int]]) -> None:
        """What an earlier restore has fetched: key, offset, length."""
        for key, offset, length in parts:
            self._left.setdefault(key, []).append((offset, length))

    def expect(self, wanted: t.Iterable[Wanted]) -> None:
        """Fetch these packs, in this order, ahead of the reader. What an earlier restore has left of others goes."""
        self._plan.extend(wanted)
        needed = {pack.sha256 for pack in self._loaded}.union(item.pack.sha256 for item in self._plan)
        for key in self._left.keys() - needed:
            for offset, _length in self._left.pop(key):
                self._spool.drop(key, offset)
        self._pool = self._pool or concurrent.futures.ThreadPoolExecutor(self._jobs)
        self._advance()

    def segment(self, pack: names.Pack, number: int, whole: bool = False) -> t.Tuple[packs.Contents, bytes]:
        """The contents of a pack, and a segment as it is stored there; Damaged where the pack is missing, or cannot be what it should be.

        :param whole: if it is to be fetched, fetch the whole pack.
        """
        try:
            return self._segment(pack, number, whole)
        except (Damaged, Unsupported) as error:
            if self.forget(pack):
                return self._segment(pack, number, whole)
            raise self._judged(pack, error) from None

    def _segment(self, pack: names.Pack, number: int, whole: bool) -> t.Tuple[packs.Contents, bytes]:
        found = self._here(pack, number)
        future = self._running.get(pack)
        if found is None and future is not None:
            try:
                future.result()
            finally:
                self._running.pop(pack, None)
            found = self._here(pack, number)
        if found is None:
            planned = next((wanted for wanted in self._plan if wanted.pack == pack), None)
            if planned is not None:
                self._plan.remove(planned)
            self._fetch(planned or Wanted(pack, None if whole else (number,)))
            found = self._here(pack, number)
        if found is None:  # it was dropped again at once, or the plan was of other segments
            self._fetch(Wanted(pack, (number,)))
            found = self._here(pack, number)
        while pack in self._unread:  # what was planned before it is not needed any more, or will be needed later
            del self._unread[next(iter(self._unread))]
        self._advance()
        if found is None:
            raise self._short(pack)
        return found

    def lacks(self, pack: names.Pack) -> Damaged:
        """The error for a pack that the remote does not have."""
        return Damaged(f"{self._transport.where}: {pack.name} is missing; restore that object from a copy of the remote.")

    def naming(self, pack: names.Pack, error: Damaged) -> Damaged:
        """An error of what is in a pack, with the name of the pack."""
        if pack.name in error.message:
            return error
        return Damaged(f"{self._transport.where}: {pack.name} is altered: {error.message} Restore that object from a copy of the remote.")

    def _short(self, pack: names.Pack) -> Damaged:
        return Damaged(f"{self._transport.where}: {pack.name} is shorter than it should be; restore that object from a copy of the remote.")

    def _judged(self, pack: names.Pack, error: VoltError) -> VoltError:
        """What an error means: what looks like a newer version's, and is not what the name of the pack says, is altered."""
        if isinstance(error, Unsupported) and hashlib.sha256(self._get(pack, 0, None)).hexdigest() != pack.sha256:
            return Damaged(f"{self._transport.where}: {pack.name} is altered; restore that object from a copy of the remote.")
        return error

    def contents(self, pack: names.Pack, blobs: int) -> packs.Contents:
        """What is in a pack, by its head; Damaged as of `segment`. :param blobs: how many there are, about; 0 where that is not known."""
        try:
            return self._head(pack, blobs)
        except Unsupported as error:
            if self.forget(pack):
                return self._head(pack, blobs)
            raise self._judged(pack, error) from None

    def _head(self, pack: names.Pack, blobs: int) -> packs.Contents:
        loaded = self._of(pack)
        found = self._contents(pack, loaded) or self._fetch_head(pack, loaded, packs.likely_head(blobs))
        if found is None:
            self._fetch(Wanted(pack, None))
            found = self._contents(pack, loaded)
        if found is None:
            raise self._short(pack)
        return found

    def forget(self, pack: names.Pack) -> bool:
        """Fetch a pack anew when it is read next; whether that may help: some of it is of an earlier restore, which may have been cut off as it wrote."""
        future = self._running.pop(pack, None)
        if future is not None and not future.cancel():
            concurrent.futures.wait([future])
        loaded = self._loaded.pop(pack, None)
        old = self._left.pop(pack.sha256, [])
        for offset, _length in {*old, *(loaded.parts if loaded is not None else ())}:
            self._spool.drop(pack.sha256, offset)
        return bool(old)

    # ---- inside

    def _advance(self) -> None:
        while self._plan and self._pool is not None and len(self._unread) < (_AHEAD if self._spool.on_disk else _FEW):
            wanted = self._plan.popleft()
            if wanted.pack in self._running:
                continue
            self._unread[wanted.pack] = None
            self._running[wanted.pack] = self._pool.submit(self._fetch, wanted)

    def _of(self, pack: names.Pack) -> _Loaded:
        with self._lock:
            if pack not in self._loaded:
                loaded = self._loaded[pack] = _Loaded()
                loaded.parts = list(self._left.get(pack.sha256, ()))
            return self._loaded[pack]

    def _here(self, pack: names.Pack, number: int) -> t.Optional[t.Tuple[packs.Contents, bytes]]:
        """What is asked for, if that was fetched and is still kept."""
        loaded = self._of(pack)
        contents = self._contents(pack, loaded)
        if contents is None:
            return None
        start, end = contents.place(number)
        data = self._read(pack, loaded, start, end)
        return None if data is None else (contents, data)

    def _contents(self, pack: names.Pack, loaded: _Loaded) -> t.Optional[packs.Contents]:
        found = loaded.contents
        if found is None:
            start = self._read(pack, loaded, 0, packs.HEADER)
            head = self._read(pack, loaded, 0, packs.head_size(start)) if start is not None else None
            found = self._remember(loaded, packs.Contents(head)) if head is not None else None
        return found

    def _remember(self, loaded: _Loaded, contents: packs.Contents) -> packs.Contents:
        """Have the contents of a pack at hand. Those of many packs would be 36 bytes for each blob; they are read again from the spool."""
        with self._lock:
            loaded.contents = contents
            self._recent.append(loaded)
            if len(self._recent) > _CONTENTS:
                self._recent.popleft().contents = None
        return contents

    def _read(self, pack: names.Pack, loaded: _Loaded, start: int, end: int) -> t.Optional[bytes]:
        part = loaded.part_with(start, end)
        if part is None:
            return None
        data = self._spool.read(pack.sha256, part[0], start - part[0], end - start)
        if data is None or len(data) != end - start:
            with loaded.lock:
                loaded.parts = [other for other in loaded.parts if other != part]
            return None
        return data

    def _fetch(self, wanted: Wanted) -> None:
        """Have what is wanted of a pack in the spool, as far as there is space."""
        pack, loaded = wanted.pack, self._of(wanted.pack)
        if wanted.segments is not None and self._fetch_parts(pack, loaded, wanted.segments):
            return
        contents = self._contents(pack, loaded)
        if contents is None or loaded.part_with(0, contents.end) is None:
            data = self._get(pack, 0, None)
            form = self._keys.opened(data)
            pieces = functools.partial(form.pieces, data) if form is not None else lambda: iter((self._keys.open_data(data),))
            self._keep(pack, loaded, 0, pieces, len(data))
            self._contents(pack, loaded)

    def _fetch_parts(self, pack: names.Pack, loaded: _Loaded, segments: t.Iterable[int]) -> bool:
        """False where the pack can only be fetched as a whole."""
        contents = self._contents(pack, loaded) or self._fetch_head(pack, loaded, 0)
        if contents is None:
            return False
        if pack.metadata and contents.end <= _FEW_TREES:
            segments = range(contents.segments)
        places = sorted(place for place in map(contents.place, segments) if loaded.part_with(*place) is None)
        while places:
            start, end = places.pop(0)
            while places and places[0][0] - end < _GAP:
                end = max(end, places.pop(0)[1])
            if pack.metadata:
                end = max(end, min(start + _TREES, contents.end))
            self._fetch_range(pack, loaded, start, end)
        return True

    def _fetch_head(self, pack: names.Pack, loaded: _Loaded, likely: int) -> t.Optional[packs.Contents]:
        """The contents of a pack; None where it cannot be read in parts. :param likely: how long its head is, if that is known."""
        length = max(_FIRST, self._keys.stored_size(likely))
        first = self._get(pack, 0, length)
        loaded.form = self._keys.opened(first)
        if loaded.form is None:
            return None
        data = loaded.form.first(first, len(first) < length)
        size = packs.head_size(data)
        self._keep(pack, loaded, 0, lambda: iter((data,)), len(data))
        if size > len(data):
            self._fetch_range(pack, loaded, 0, size)
        return self._contents(pack, loaded)

    def _fetch_range(self, pack: names.Pack, loaded: _Loaded, start: int, end: int) -> None:
        if loaded.form is None:
            loaded.form = self._keys.opened(self._get(pack, 0, _FIRST))
        if loaded.form is None or start >= end:
            return
        first, last = loaded.form.stored(start, end)
        offset, data = loaded.form.open(first, self._get(pack, first, last - first))
        self._keep(pack, loaded, offset, lambda: iter((data,)), len(data))

    def _get(self, pack: names.Pack, start: int, length: t.Optional[int]) -> bytes:
        data = self._transport.get(pack.name, start, length)
        with self._lock:
            self.fetched += len(data or b"")
        if data is None:
            raise self.lacks(pack)
        return data

    def _keep(self, pack: names.Pack, loaded: _Loaded, offset: int, pieces: t.Callable[[], t.Iterator[bytes]], size: int) -> None:
        part = offset, self._spool.write(pack.sha256, offset, pieces, size)
        with loaded.lock:
            loaded.parts.append(part)
