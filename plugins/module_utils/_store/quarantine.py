# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Mending a store: false files go to quarantine/, and what is still good in there, or in the trash, can be taken again.

Nothing is deleted. What lies in quarantine/ is for a person to look at, and to remove.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import time
import typing as t

from .._base import Closing, Damaged, UsageError, files, is_regular, open_file, store_errors
from . import codec, layout, pack
from .object_states import OBJECT_MOST
from .scrub import StoreFile, forms
from .store import Store
from .table import Table

#: Bytes that a disk reads or does not read together.
_SECTOR = 4096
_PLACE = struct.Struct("=IQQ")  # file, offset in its plain bytes, length; length 0 for a whole object


class Quarantine:
    """A place for what one repair takes out; made when it is needed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._relative = f"quarantine/{time.time_ns():020d}-{os.getpid()}"

    def take(self, files: t.Sequence[StoreFile]) -> t.List[str]:
        """Move files that were found false, unless they have been replaced meanwhile; what was moved, as paths below the store."""
        moved: t.List[str] = []
        for file in files:
            with self._store.gate():  # at which a run replaces it
                if file in forms(self._store, file.kind, file.name):
                    moved.append(self.move(self._store.full_path(file.path), file.kind))
        return moved

    def move(self, path: str, kind: str) -> str:
        """Move one file, which no process may be using; where it lies now, below the store."""
        directory = os.path.join(self._store.path, self._relative, kind)
        name = os.path.basename(path)
        with store_errors(f"moving {name} to quarantine"):
            os.makedirs(directory, mode=0o700, exist_ok=True)
            if os.stat(directory).st_dev != os.lstat(path).st_dev:  # sidecars may be kept on another file system
                files.write_file(os.path.join(directory, name), layout.read_blob_file(path, 1 << 30))
                os.unlink(path)
            else:
                os.rename(path, os.path.join(directory, name))
            files.sync_directory(directory)
            files.sync_directory(os.path.dirname(path))
        return f"{self._relative}/{kind}/{name}"


class Remains:
    """The blobs in quarantine and trash, each hashed before it is given out."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._files: t.List[t.Tuple[str, str]] = []  # path, suffix
        self._places = Table(_PLACE.size)
        self._last: t.Tuple[int, bytes] = (-1, b"")
        for place in ("quarantine", "trash"):
            for top, _directories, names in os.walk(store.full_path(place)):
                for name in sorted(names):
                    self._learn(os.path.join(top, name), name)

    def _learn(self, path: str, name: str) -> None:
        for pattern, kind in ((layout.OBJECT_NAME, "objects"), (layout.PACK_NAME, "packs")):
            match = pattern.match(name)
            if match is None:
                continue
            self._files.append((path, match[2]))
            number = len(self._files) - 1
            if kind == "objects":
                self._add(bytes.fromhex(match[1]), number, 0, 0)
            else:
                for digest, offset, length in pack.salvage(self._plain(number)):
                    self._add(digest, number, offset, length)

    def _add(self, digest: bytes, number: int, offset: int, length: int) -> None:
        blob = self._plain(number)[offset : offset + length] if length else self._plain(number)
        if self._places.find(digest) < 0 and hashlib.sha256(blob).digest() == digest:
            self._places.add(digest, _PLACE.pack(number, offset, length))

    def _plain(self, number: int) -> bytes:
        """A file's plain bytes, as many as can be had; the last one is kept at hand."""
        if self._last[0] != number:
            path, suffix = self._files[number]
            try:
                stored = layout.read_blob_file(path, 1 << 30)
            except (Damaged, UsageError):
                stored = _readable(path)
            try:
                data = codec.decompress(stored, suffix, OBJECT_MOST)
            except (Damaged, UsageError):
                data = codec.beginning(stored, suffix, pack.PACK_MOST)
            self._last = (number, data)
        return self._last[1]

    def get(self, digest: bytes) -> t.Optional[bytes]:
        """A blob, or None."""
        position = self._places.find(digest)
        if position < 0:
            return None
        number, offset, length = _PLACE.unpack(self._places.value(position))
        plain = self._plain(number)
        blob = plain[offset : offset + length] if length else plain
        return blob if hashlib.sha256(blob).digest() == digest else None


def _readable(path: str) -> bytes:
    """A pack's stored bytes, with zeros in place of those that the disk cannot read; none where that cannot be."""
    stored = bytearray()
    with contextlib.suppress(OSError), Closing(open_file(path)) as fd:
        info = os.fstat(fd)
        size = info.st_size if is_regular(fd) and info.st_size <= pack.PACK_MOST else 0
        for start in range(0, size, _SECTOR):
            part = b""
            with contextlib.suppress(OSError):
                part = os.pread(fd, _SECTOR, start)
            stored += part.ljust(min(_SECTOR, size - start), b"\0")
    return bytes(stored)
