# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Blobs into files: by sharing blocks or inodes where that was asked for and is possible, else by a copy that is hashed on its way.

Of a large file that is there already, a restore takes the chunks that it has where they belong: on a file system that can share blocks none of them is
written, and none is fetched from a remote. They are hashed in the new file, or on their way there, for others may write to the old one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import typing as t

from .._base import Closing, Damaged, TargetError, files, kernel, target_failure
from .._format import chunks
from .._format.tree import CHUNKED, Entry
from .._fs.descent import Patience, open_source
from .blobs import Blobs, exactly
from .supply import Supply, Uses

#: After more chunks in a row than the first that an old file has not, some are not looked for in it, at most the second: else one that is all different
#: is read in vain.
_PATIENCE, _PASSED_OVER = 4, 16


class Filler:
    """Fills open, empty files.

    :param link: auto, reflink, hardlink or copy.
    :param verify: hash also what is shared rather than copied. :param uses: the packed blobs that will be asked for.
    :ivar linked: files whose content is shared with the store, wholly or in part.
    :ivar copied: all other files.
    """

    def __init__(self, store: Blobs, link: str, verify: bool, uses: Uses) -> None:
        self._store, self._verify = store, verify
        self._supply = Supply(store, uses)
        self._clones = link in ("auto", "reflink")
        self._clones_old = True
        self.hardlinks = link == "hardlink"
        self.linked = self.copied = 0

    def again(self) -> None:
        """Begin again, for a second attempt."""
        self.linked = self.copied = 0
        self._supply.renew()

    def end(self) -> None:
        """Everything is written: give back the memory."""
        self._supply.end()

    def fill(self, fd: int, entry: Entry, old: int = -1) -> None:
        """Write the content of a file entry; the file keeps its holes. :param old: the directory of a file of that name which it replaces, or -1."""
        if entry.kind == CHUNKED:
            replaced = _open_old(entry.name, old)
            try:
                shared = self._chunks(fd, entry, replaced)
            finally:
                if replaced >= 0:
                    os.close(replaced)
        elif entry.size > chunks.PACKED_MOST and self._clone(fd, entry.content, entry.size, 0, entry.size):
            _punch(fd, entry.extra.holes)
            shared = True
        else:
            shared = False
            if entry.size:
                read = self._supply.read if entry.size <= chunks.PACKED_MOST else self._store.read_object_first
                _write(fd, exactly(read, entry.content, entry.size), 0, entry.extra.holes)
                if entry.extra.holes:
                    os.ftruncate(fd, entry.size)
        self.linked += shared
        self.copied += not shared

    def _chunks(self, fd: int, entry: Entry, old: int) -> bool:
        """Write a large file by its chunks; whether it shares blocks with the store. :param old: a descriptor of the file that it replaces, or -1."""
        found = chunks.decode(self._store.read(entry.content, chunks.LIST_LIMIT), entry.size)
        os.ftruncate(fd, entry.size)
        shared, missed, pause = False, 0, 0
        for offset, length, digest in found.chunks():
            if self._clone(fd, digest, length, offset, entry.size):
                shared = True
                continue
            if old >= 0 and not pause:
                if self._take(fd, old, offset, length, digest, found.holes):
                    missed = 0
                    continue
                missed += 1
                pause = min(max(missed - _PATIENCE, 0), _PASSED_OVER) if self._store.exists else 0  # what a remote need not send is worth a look
            else:
                pause = max(pause - 1, 0)
            data = self._store.read_object_first(digest, length)
            if len(data) != length:
                raise Damaged(f"Chunk {digest.hex()} does not have the expected size.")
            _write(fd, data, offset, found.holes)
        if shared:
            _punch(fd, found.holes)
        return shared

    def _take(self, fd: int, old: int, offset: int, length: int, digest: bytes, holes: chunks.Holes) -> bool:
        """Have a chunk from the old file, if it is there.

        Blocks are shared only where neither file has a hole: a hole must not become data, nor data a hole, and what turns out to be different is overwritten
        as a whole.
        """
        if self._clones_old and _is_data(old, offset, length) and [*chunks.data_ranges(offset, offset + length, holes)] == [(offset, length)]:
            try:
                kernel.clone_range(old, offset, length, fd, offset)
                return chunk_at(fd, offset, length, digest) is not None
            except OSError as error:  # it is not aligned, or cannot be read
                self._clones_old = error.errno not in kernel.NEVER_CLONES
        try:
            data = chunk_at(old, offset, length, digest)
        except OSError:
            return False
        if data is not None:
            _write(fd, data, offset, holes)
        return data is not None

    def _clone(self, fd: int, digest: bytes, size: int, offset: int, end: int) -> bool:
        """Share an object's blocks at an offset; False where that cannot be, for this object or at all."""
        if not self._clones:
            return False
        source = self._store.open_plain(digest, size, self._verify)
        if source < 0:
            return False
        try:
            if size == end:
                kernel.clone(source, fd)
            else:
                kernel.clone_range(source, 0, size, fd, offset)
            return True
        except OSError as error:
            if error.errno in kernel.NEVER_CLONES:
                self._clones = False
            if error.errno in kernel.NO_CLONE:
                return False
            raise
        finally:
            os.close(source)

    def hardlink(self, entry: Entry, directory: int, name: bytes, fits: t.Callable[[os.stat_result], bool]) -> bool:
        """Make `name` a second name of the entry's object; False where a copy is due.

        An inode has one owner, mode and time: an object that already serves as another file is linked only if `fits` says that
        nothing would change. Objects with no other name take the entry's metadata.
        """
        if not self.hardlinks or entry.kind == CHUNKED or entry.size <= chunks.PACKED_MOST or entry.extra.holes:
            return False
        fd = self._store.open_plain(entry.content, entry.size, self._verify)
        if fd < 0:
            return False
        try:
            info = os.fstat(fd)
            if info.st_nlink > 1 and not fits(info):
                return False
            os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=directory, follow_symlinks=True)
        except OSError as error:
            if error.errno in (errno.EMLINK, errno.EPERM):
                return False
            if error.errno == errno.EXDEV:
                raise TargetError("Hard links are not possible, because the target and the store are on different file systems; use `link: auto`.") from None
            raise
        finally:
            os.close(fd)
        self.linked += 1
        return True


def chunk_at(fd: int, offset: int, length: int, digest: bytes) -> t.Optional[bytes]:
    """The bytes at a place of a file, if they are a chunk's."""
    data = os.pread(fd, length, offset)
    return data if len(data) == length and hashlib.sha256(data).digest() == digest else None


def _is_data(fd: int, offset: int, length: int) -> bool:
    """Whether a range of a file has no hole."""
    try:
        return os.lseek(fd, offset, os.SEEK_HOLE) >= offset + length
    except OSError:  # it ends before
        return False


def _open_old(name: bytes, directory: int) -> int:
    """A descriptor of a file, or -1 where there is none that can be read."""
    try:
        if directory < 0 or not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            return -1
        return open_source(os.fsdecode(name), directory, Patience(0))
    except OSError:
        return -1


def _write(fd: int, data: bytes, offset: int, holes: chunks.Holes) -> None:
    """Write a piece of a file, save where it has holes."""
    if not holes:
        _pwrite(fd, data, offset)
        return
    view = memoryview(data)
    for start, length in chunks.data_ranges(offset, offset + len(data), holes):
        _pwrite(fd, view[start - offset : start - offset + length], start)


def _pwrite(fd: int, data: t.Any, offset: int) -> None:
    written = os.pwrite(fd, data, offset)
    if written != len(data):
        view = memoryview(data)
        while written < len(view):
            written += os.pwrite(fd, view[written:], offset + written)


def _punch(fd: int, holes: chunks.Holes) -> None:
    """Make the holes that a clone of whole blobs does not have."""
    for offset, length in holes:
        kernel.punch(fd, offset, length)


def probe(store: Blobs, link: str, directory: int) -> None:
    """Refuse, before anything is written, a kind of link that this pair of places cannot have.

    :param directory: a descriptor of a private directory on the target's file system.
    """
    if link not in ("reflink", "hardlink") or not store.exists:
        return
    with Closing(store.open_sample()) as sample:
        try:
            if link == "hardlink":
                os.link(f"/proc/self/fd/{sample}", b"probe", dst_dir_fd=directory, follow_symlinks=True)
            else:
                with Closing(files.create_file(b"probe", directory)) as fd:
                    kernel.clone(sample, fd)
        except OSError as error:
            raise _unsuitable(link, error) from None
        finally:
            files.unlink(b"probe", directory)


def foresee(store: Blobs, link: str, directory: int) -> None:
    """The same for check mode: nothing that has a name is written.

    :param directory: a descriptor of one on the target's file system.
    """
    if link not in ("reflink", "hardlink") or not store.exists:
        return
    try:
        if link == "reflink":
            _try_clone(store, directory)
            return
        with Closing(store.open_sample()) as sample:
            if files.mount_id(sample) != files.mount_id(directory):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    except OSError as error:
        raise _unsuitable(link, error) from None


def clones(store: Blobs, link: str, directory: int) -> bool:
    """Whether files below a directory can share blocks with the store's, and are to."""
    if link not in ("auto", "reflink") or not store.exists:
        return False
    try:
        return _try_clone(store, directory)
    except OSError:
        return False


def _try_clone(store: Blobs, directory: int) -> bool:
    """Clone a file of the store into one that has no name; False where there are none such, so that it cannot be told. OSError where it fails."""
    try:
        nameless = files.create_nameless(directory)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            return False
        raise
    with Closing(nameless), Closing(store.open_sample()) as sample:
        kernel.clone(sample, nameless)
        return True


def _unsuitable(link: str, error: OSError) -> TargetError:
    if error.errno in kernel.NO_CLONE:
        return TargetError(f"The target's file system cannot share data with the store by {link}; use `link: auto` or `link: copy`.")
    return target_failure("trying its file system", error)
