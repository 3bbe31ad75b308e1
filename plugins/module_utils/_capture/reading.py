# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Reading files that others may be writing: again when they change meanwhile, then with a note that they did.

Small files are read at once by the walking thread. Larger ones go to the run's workers; where the store's file system can share blocks,
a private clone is taken first, so that what is hashed is what is kept.
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

_TRIES = 3

Stamp = t.Tuple[int, int, int, int]


def stamp(info: os.stat_result) -> Stamp:
    """What tells one state of a file from another."""
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


class Vanished(Exception):
    """The name holds no regular file any more."""


class Content(t.NamedTuple):
    """A file as it was read. `steady` is False where it changed under every reading.

    `digest` is empty for an empty file, and for a chunked file, whose list of chunks is `chunk_list`, yet to be stored.
    """

    kind: int
    info: os.stat_result
    digest: bytes
    holes: chunks.Holes = ()
    steady: bool = True
    chunk_list: bytes = b""
    chunk_count: int = 0


def read_small(run: Transaction, fd: int, expected: os.stat_result) -> t.Optional[Content]:
    """Read a file that fits a pack, by the stat of the listing; None where it has outgrown that."""
    before = expected
    for _try in range(_TRIES):
        size = before.st_size
        if size > chunks.PACKED_MOST:
            return None
        data = os.read(fd, size + 1)
        after = os.fstat(fd)
        if len(data) == size and stamp(after) == stamp(before):
            return _small(run, fd, data, after, True)
        if not stat.S_ISREG(after.st_mode):
            raise Vanished
        os.lseek(fd, 0, os.SEEK_SET)
        before = after
    if before.st_size > chunks.PACKED_MOST:
        return None
    data = os.read(fd, chunks.PACKED_MOST)
    return _small(run, fd, data, os.fstat(fd), False)


def _small(run: Transaction, fd: int, data: bytes, info: os.stat_result, steady: bool) -> Content:
    if not data:
        return Content(FILE, resized(info, 0), b"", (), steady)
    holes: chunks.Holes = ()
    if info.st_blocks * 512 < len(data):
        holes = find_holes(fd, len(data))
    digest = hashlib.sha256(data).digest()
    run.blobs.add(digest, data)
    return Content(FILE, info if len(data) == info.st_size else resized(info, len(data)), digest, holes, steady)


def resized(info: os.stat_result, size: int) -> os.stat_result:
    """A stat with the size that was really read."""
    if info.st_size == size:
        return info
    fields = list(info)
    fields[stat.ST_SIZE] = size
    names = ("st_mtime_ns", "st_ctime_ns", "st_blocks", "st_rdev")
    return os.stat_result(fields, {name: getattr(info, name) for name in names})


def read_whole(run: Transaction, fd: int) -> Content:
    """Read a file that is one object, or in chunks where it has outgrown that. Closes `fd`. A worker's job."""
    clone: t.Optional[int] = None
    try:
        for attempt in range(_TRIES):
            before = os.fstat(fd)
            if before.st_size > chunks.WHOLE_MOST:
                break
            clone = run.objects.private_clone(fd, before.st_dev)
            source = fd if clone is None else clone
            data = _read_up_to(source, before.st_size)
            holes = find_holes(source, len(data)) if before.st_blocks * 512 < before.st_size else ()
            after = os.fstat(fd)
            steady = stamp(before) == stamp(after) and len(data) == before.st_size
            if steady or attempt == _TRIES - 1:
                if not data:
                    return Content(FILE, resized(after, 0), b"", (), steady)
                digest = hashlib.sha256(data).digest()
                if run.objects.claim(digest, len(data)) and not (
                    clone is not None and len(data) == os.fstat(clone).st_size and run.objects.clone(digest, clone, 0, len(data), True)
                ):
                    run.objects.add(digest, data)
                return Content(FILE, resized(after, len(data)), digest, holes, steady)
            if clone is not None:
                os.close(clone)
                clone = None
        return read_chunked(run, fd, None)
    finally:
        if clone is not None:
            os.close(clone)
        os.close(fd)


def _read_up_to(fd: int, size: int) -> bytes:
    pieces, offset = [], 0
    while offset < size:
        piece = os.pread(fd, size - offset, offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def read_chunked(run: Transaction, fd: int, progress: t.Optional[t.Callable[[int, int], None]]) -> Content:
    """Read a large file chunk by chunk, the workers hashing side by side. The walking thread's job, which keeps `fd`.

    :param progress: None where a worker itself reads, which must not wait for others.
    """
    for attempt in range(_TRIES):
        before = os.fstat(fd)
        clone = run.objects.private_clone(fd, before.st_dev)
        source = fd if clone is None else clone
        try:
            size = before.st_size
            holes = find_holes(source, size) if before.st_blocks * 512 < size else ()
            digests = bytearray()
            pending: t.List[Future[bytes]] = []
            count = 0
            try:
                for offset, length in chunks.spans(size, holes):
                    if progress is None:
                        digests += _chunk(run, source, offset, length, clone is not None)
                        count += 1
                        continue
                    pending.append(run.submit(_chunk, run, source, offset, length, clone is not None))
                    count += 1
                    progress(0, length)
                    while len(pending) > 64 or (pending and pending[0].done()):
                        digests += pending.pop(0).result()
                for future in pending:
                    digests += future.result()
            except BaseException:
                for future in pending:
                    if not future.cancel():
                        future.exception()  # a worker must not read a descriptor that is closed
                raise
        except _Shrunk:
            if attempt == _TRIES - 1:
                raise Vanished from None
            continue
        finally:
            if clone is not None:
                os.close(clone)
        after = os.fstat(fd)
        steady = stamp(before) == stamp(after)
        if steady or attempt == _TRIES - 1:
            return Content(CHUNKED, resized(after, size), b"", holes, steady, chunks.encode(size, holes, [bytes(digests)]), count)
    raise Vanished


class _Shrunk(Exception):
    """The file ended before its size."""


def _chunk(run: Transaction, fd: int, offset: int, length: int, cloned: bool) -> bytes:
    data = os.pread(fd, length, offset)
    if len(data) != length:
        raise _Shrunk
    digest = hashlib.sha256(data).digest()
    if run.objects.claim(digest, length) and not (cloned and run.objects.clone(digest, fd, offset, length, False)):
        run.objects.add(digest, data)
    return digest
