# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Reads files that others may be writing: again if they change meanwhile, then with a note of how they changed.

Small files are read at once by the walking thread. Larger ones go to the run's workers. If the store's file system can share blocks,
a private clone is read: it is the file at one moment, whatever is written later.

If a file only grows, an earlier reading is kept with which the last one starts. If it changes during each reading, the last
one is kept, and the file is unstable. Data that other readings stored is removed again.
"""

from __future__ import annotations

import hashlib
import os
import stat
import typing as t
from concurrent.futures import Future

from .._format import chunks
from .._format.tree import CHUNKED, FILE
from .._fs.descent import find_holes
from .._store.transaction import Transaction
from .databases import HEAD

_TRIES = 3
#: Most bytes of a file that says a wrong size. Such files are small; an endless one must not fill the store.
_UNSIZED_MOST = 1 << 30
#: How a file changed while it was read.
GROWN, UNSTABLE, UNSIZED = "grown", "unstable", "unsized"

Stamp = t.Tuple[int, int, int, int]


def stamp(info: os.stat_result) -> Stamp:
    """What distinguishes the states of a file."""
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


class Vanished(Exception):
    """The name is not a regular file any more."""


class Content(t.NamedTuple):
    """A file as it was read.

    `digest` is empty for an empty file, and for a chunked file, whose list of chunks is `chunk_list`, yet to be stored. `change` is empty
    for a file that stood still; GROWN: what is kept is how it began; UNSTABLE: it may be a mix of its states; UNSIZED: its size is not
    what its stat says, so the next scan must not believe that stat. `head` is how it begins, as far as signatures need it.
    """

    kind: int
    info: os.stat_result
    digest: bytes
    holes: chunks.Holes = ()
    change: str = ""
    chunk_list: bytes = b""
    chunk_count: int = 0
    head: bytes = b""


def _regular(fd: int) -> os.stat_result:
    """The stat of an open file; Vanished if it is not a regular one: it was replaced by something else."""
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        raise Vanished
    return info


def read_small(run: Transaction, fd: int, expected: os.stat_result) -> t.Optional[Content]:
    """Read a file that fits a pack, by the stat of the listing; None if it has become too large."""
    earlier: t.Optional[t.Tuple[bytes, os.stat_result, chunks.Holes]] = None
    for attempt in range(_TRIES):
        before = os.fstat(fd) if attempt else expected  # the listing may be too old for the file's length
        size = before.st_size
        if size > chunks.PACKED_MOST:
            return None
        data = os.pread(fd, size + 1, 0)
        holes = find_holes(fd, size) if before.st_blocks * 512 < size else ()
        after = os.fstat(fd)
        if stamp(after) == stamp(before):
            if len(data) == size:
                return _small(run, data, after, holes)
            return read_unsized(run, fd)
        if not stat.S_ISREG(after.st_mode):
            raise Vanished
        if earlier is not None and _has_grown(earlier[1], after) and data.startswith(earlier[0]):
            return _small(run, earlier[0], earlier[1], earlier[2], GROWN)
        earlier = (data[:size], before, holes) if attempt and len(data) >= size else None
    if os.fstat(fd).st_size > chunks.PACKED_MOST:
        return None
    data = os.pread(fd, chunks.PACKED_MOST, 0)
    return _small(run, data, os.fstat(fd), (), UNSTABLE)


def read_file(run: Transaction, fd: int, info: os.stat_result) -> Content:
    """Read a file of any size, by its stat, at once. Closes `fd`."""
    mine = True
    try:
        content = read_small(run, fd, info) if info.st_size <= chunks.PACKED_MOST else None
        if content is None and os.fstat(fd).st_size <= chunks.WHOLE_MOST:
            mine = False  # read_whole closes it
            content = read_whole(run, fd)
        return read_chunked(run, fd, None) if content is None else content
    finally:
        if mine:
            os.close(fd)


def _has_grown(before: os.stat_result, after: os.stat_result) -> bool:
    return before.st_ino == after.st_ino and 0 < before.st_size < after.st_size


def _small(run: Transaction, data: bytes, info: os.stat_result, holes: chunks.Holes, change: str = "") -> Content:
    if not data:
        return Content(FILE, resized(info, 0), b"", (), change)
    digest = hashlib.sha256(data).digest()
    run.blobs.add(digest, data)
    return Content(FILE, resized(info, len(data)), digest, _true_holes(data, holes), change, head=data[:HEAD])


def _true_holes(data: bytes, holes: chunks.Holes) -> chunks.Holes:
    """Those holes whose bytes were read as zeros: a hole that was punched after the reading would turn the others into zeros."""
    return tuple((offset, length) for offset, length in holes if data.count(0, offset, offset + length) == length)


def resized(info: os.stat_result, size: int) -> os.stat_result:
    """A stat with the size that was really read."""
    if info.st_size == size:
        return info
    fields = list(info)
    fields[stat.ST_SIZE] = size
    names = ("st_mtime_ns", "st_ctime_ns", "st_blocks", "st_rdev")
    return os.stat_result(fields, {name: getattr(info, name) for name in names})


def read_unsized(run: Transaction, fd: int) -> Content:
    """Read a file to its end whose stat has another size: those of the kernel, and of some file systems in user space.

    OSError if it does not end.
    """
    info = _regular(fd)
    pieces: t.List[bytes] = []
    found: t.List[t.Tuple[bytes, int]] = []
    size = 0
    while True:
        piece = _read_up_to(fd, chunks.CHUNK, size)
        pieces.append(piece)
        size += len(piece)
        last = len(piece) < chunks.CHUNK
        if last and size <= chunks.WHOLE_MOST:
            break
        if size > chunks.WHOLE_MOST:
            found += [(_stored(run, part), len(part)) for part in pieces if part]
            pieces = []
        if last:
            digests = [digest for digest, _length in found]
            return Content(CHUNKED, resized(info, size), b"", (), UNSIZED, chunks.encode(size, (), digests), len(digests))
        if size > _UNSIZED_MOST:
            for digest, length in found:
                run.objects.take_back(digest, length)
            raise OSError(f"its reported size is {info.st_size} bytes, but it has more than {_UNSIZED_MOST}")
    data = b"".join(pieces)
    if size <= chunks.PACKED_MOST:
        return _small(run, data, info, (), UNSIZED)
    return Content(FILE, resized(info, size), _stored(run, data), (), UNSIZED)


def _stored(run: Transaction, data: bytes) -> bytes:
    """The digest of bytes that are an object from now on."""
    digest = hashlib.sha256(data).digest()
    run.objects.save(digest, data)
    return digest


class _Source:
    """What a large file is read from: a private clone of it, or itself."""

    def __init__(self, run: Transaction, fd: int) -> None:
        self._file = fd
        self._clone: t.Optional[int] = None
        self.before = _regular(fd)
        for _try in range(_TRIES):
            self._clone = run.objects.private_clone(fd, self.before.st_dev)
            if self._clone is None:
                break
            moment = os.fstat(fd)
            if stamp(moment) == stamp(self.before):
                break
            self.before = moment  # written while it was cloned: the clone may be older or newer than that
            self.close()

    @property
    def fd(self) -> int:
        return self._file if self._clone is None else self._clone

    @property
    def cloned(self) -> bool:
        return self._clone is not None

    def holes(self) -> chunks.Holes:
        size = self.before.st_size
        return find_holes(self.fd, size) if self.before.st_blocks * 512 < size else ()

    def after(self) -> os.stat_result:
        """The file's stat after the reading; a clone does not change."""
        return self.before if self.cloned else os.fstat(self._file)

    def close(self) -> None:
        if self._clone is not None:
            os.close(self._clone)
            self._clone = None

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def read_whole(run: Transaction, fd: int) -> Content:
    """Read a file that is one object, or in chunks if it has become too large. Closes `fd`. A worker's job."""
    earlier: t.Optional[t.Tuple[bytes, os.stat_result, chunks.Holes]] = None
    try:
        for attempt in range(_TRIES):
            with _Source(run, fd) as source:
                before = source.before
                if before.st_size > chunks.WHOLE_MOST:
                    break
                holes = source.holes()
                data = _read_up_to(source.fd, before.st_size)
                exact = len(data) == before.st_size and (source.cloned or not os.pread(fd, 1, before.st_size))
                after = source.after()
                if stamp(before) == stamp(after):
                    return _whole(run, data, after, holes, "", source) if exact else read_unsized(run, fd)
                if earlier is not None and _has_grown(earlier[1], after) and data.startswith(earlier[0]):
                    return _whole(run, *earlier, GROWN, source)
                if attempt == _TRIES - 1:
                    return _whole(run, data, after, holes, UNSTABLE, source)
                earlier = (data, before, holes) if len(data) == before.st_size else None
        return read_chunked(run, fd, None)
    finally:
        os.close(fd)


def _whole(run: Transaction, data: bytes, info: os.stat_result, holes: chunks.Holes, change: str, source: _Source) -> Content:
    if not data:
        return Content(FILE, resized(info, 0), b"", (), change)
    digest = hashlib.sha256(data).digest()
    shares = source.cloned and len(data) == os.fstat(source.fd).st_size
    run.objects.save(digest, data, source.fd if shares else -1)
    return Content(FILE, resized(info, len(data)), digest, _true_holes(data, holes), change, head=data[:HEAD])


def _read_up_to(fd: int, size: int, start: int = 0) -> bytes:
    pieces, offset = [], 0
    while offset < size:
        piece = os.pread(fd, size - offset, start + offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


Progress = t.Optional[t.Callable[[int, int], None]]


def read_chunked(run: Transaction, fd: int, progress: Progress) -> Content:
    """Read a large file chunk by chunk, the workers hashing side by side. The walking thread's job, which keeps `fd`.

    :param progress: None if a worker reads, which must not wait for others.
    """
    superseded: t.List[_Chunk] = []
    earlier: t.Optional[_Reading] = None
    for attempt in range(_TRIES):
        with _Source(run, fd) as source:
            before, holes = source.before, source.holes()
            now = _Reading(before, holes, list(_chunks(run, source, holes, progress)))
            exact = now.end == before.st_size and (source.cloned or not os.pread(fd, 1, before.st_size))
            after = source.after()
            if stamp(before) == stamp(after):
                if not exact:
                    _take_back(run, superseded + now.chunks)
                    raise OSError(f"its reported size is {before.st_size} bytes, but it has {'more' if now.end == before.st_size else 'less'}")
                kept, info, change = now, after, ""
                break
            if earlier is not None and _has_grown(earlier.info, after) and now.begins_with(earlier, fd):
                superseded += now.chunks
                kept, info, change = earlier, earlier.info, GROWN
                break
            if attempt == _TRIES - 1:
                kept, info, change = now, after, UNSTABLE
                break
            superseded += now.chunks
            earlier = now if now.end == before.st_size else None
    size = kept.end
    found = [chunk for chunk in kept.chunks if chunk.offset < size]
    _take_back(run, superseded + kept.chunks[len(found) :], {chunk.digest for chunk in found})
    info = resized(info, size)
    if not size:
        return Content(FILE, info, b"", (), change)
    holes = tuple((offset, min(length, size - offset)) for offset, length in kept.holes if offset < size)
    # in a chunk that was cut short, holes may be all that is left; it was read all the same
    holes = _without(holes, [(chunk.offset, chunk.wanted) for chunk in found if chunk.filled or chunk.length < chunk.wanted])
    listed = chunks.encode(size, holes, [chunk.digest for chunk in found])
    return Content(CHUNKED, info, b"", holes, change, listed, len(found), os.pread(fd, HEAD, 0))


def _take_back(run: Transaction, superseded: t.Iterable[_Chunk], needed: t.Container[bytes] = ()) -> None:
    for chunk in superseded:
        if chunk.digest not in needed:
            run.objects.take_back(chunk.digest, chunk.length)


class _Chunk(t.NamedTuple):
    """One chunk as it was read; shorter if the file ended before. `filled`: a reported hole in it has data."""

    offset: int
    wanted: int
    length: int
    digest: bytes
    filled: bool


class _Reading:
    """One reading of a large file."""

    def __init__(self, info: os.stat_result, holes: chunks.Holes, found: t.List[_Chunk]) -> None:
        self.info, self.holes, self.chunks = info, holes, found

    @property
    def end(self) -> int:
        """The end of the file: at its size, or in the first short chunk."""
        return next((chunk.offset + chunk.length for chunk in self.chunks if chunk.length < chunk.wanted), self.info.st_size)

    def begins_with(self, earlier: _Reading, fd: int) -> bool:
        """Whether an earlier reading gave the same bytes and holes, as far as it went."""
        size = earlier.info.st_size
        if tuple((offset, min(length, size - offset)) for offset, length in self.holes if offset < size) != earlier.holes:
            return False
        now = {chunk.offset: chunk for chunk in self.chunks}
        for chunk in earlier.chunks:
            same = now.get(chunk.offset)
            if same is None or chunk.filled or same.filled:
                return False
            if same.length != chunk.length and hashlib.sha256(_read_up_to(fd, chunk.length, chunk.offset)).digest() != chunk.digest:
                return False
            if same.length == chunk.length and same.digest != chunk.digest:
                return False
        return True


def _without(holes: chunks.Holes, ranges: t.Sequence[t.Tuple[int, int]]) -> chunks.Holes:
    """Holes but for some ranges, which have data."""
    for start, length in ranges:
        found: t.List[t.Tuple[int, int]] = []
        for offset, size in holes:
            left, right = min(offset + size, start), max(offset, start + length)
            found += [(begin, end - begin) for begin, end in ((offset, left), (right, offset + size)) if begin < end]
        holes = tuple(found)
    return holes


def _chunks(run: Transaction, source: _Source, holes: chunks.Holes, progress: Progress) -> t.Iterator[_Chunk]:
    """Each chunk of a large file, stored."""

    def one(offset: int, length: int) -> _Chunk:
        data = _read_up_to(source.fd, length, offset)
        digest = hashlib.sha256(data).digest()
        filled = False
        at = offset
        for start, size in chunks.data_ranges(offset, offset + len(data), holes):
            filled = filled or data.count(0, at - offset, start - offset) != start - at
            at = start + size
        filled = filled or data.count(0, at - offset) != max(0, offset + len(data) - at)
        if data:
            run.objects.save(digest, data, source.fd if source.cloned and len(data) == length else -1, offset)
        return _Chunk(offset, length, len(data), digest, filled)

    return _side_by_side(run, one, chunks.spans(source.before.st_size, holes), progress)


def _side_by_side(
    run: Transaction, one: t.Callable[[int, int], t.Any], spans: t.Iterable[t.Tuple[int, int]], progress: Progress
) -> t.Iterator[t.Any]:
    """What a call gives for each span, in order; workers do it unless a worker asks (no progress)."""
    pending: t.List[Future[t.Any]] = []
    try:
        for offset, length in spans:
            if progress is None:
                yield one(offset, length)
                continue
            pending.append(run.submit(one, offset, length))
            progress(0, length)
            while len(pending) > 64 or (pending and pending[0].done()):
                yield pending.pop(0).result()
        while pending:
            yield pending.pop(0).result()
    finally:
        for future in pending:
            if not future.cancel():
                future.exception()  # a worker must not read a descriptor that is closed
