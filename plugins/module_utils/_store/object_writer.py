# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Large blobs into files of their own: by sharing the blocks of the source where the file system can, else compressed. Any thread may call."""

from __future__ import annotations

import os
import threading
import typing as t

from .._base import files, kernel, store_failure
from . import codec
from .index import STATE_SIZE, SUSPECT, state_record
from .store import Store
from .table import Table
from .workers import Counts
from .workspace import Workspace


class ObjectWriter:
    """The objects of one transaction; parameters as of BlobWriter.

    :param clones: whether blocks may be shared.
    """

    def __init__(
        self, store: Store, space: Workspace, counts: Counts, suffix: str, clones: bool, dry: bool, only: t.Optional[t.Container[bytes]]
    ) -> None:
        self._store, self._space, self._counts = store, space, counts
        self._suffix, self._dry, self._only = suffix, dry, only
        self._clones = clones and not dry
        self._no_clones: t.Set[int] = set()  # devices
        self._mutex = threading.Lock()
        self.known = Table(STATE_SIZE)

    def claim(self, digest: bytes, size: int) -> bool:
        """Whether a blob of content is new to store and transaction. The first to ask is told so and must add it."""
        if not self._is_new(digest, size):
            return False
        self._counts.add_new(size)
        return True

    def _is_new(self, digest: bytes, size: int) -> bool:
        """Whether an object is neither in the store nor promised by this transaction, which promises it now."""
        with self._mutex:
            if self.known.find(digest) >= 0:
                return False
        if self._only is not None and digest not in self._only:
            return False
        if self._store.has(digest, size):  # not under the mutex, for this may hash a file that the index does not know
            return False
        return self._promise(digest)

    def _promise(self, digest: bytes) -> bool:
        with self._mutex:
            if self.known.find(digest) >= 0:
                return False
            self.known.add(digest, state_record(SUSPECT))
            return True

    def add(self, digest: bytes, blob: bytes) -> None:
        """Write a blob that `claim` gave to us."""
        suffix, stored = codec.compress(blob, self._suffix)
        if not self._dry:
            self._space.write(os.path.join("objects", digest.hex() + suffix), stored)
        self._counts.add_stored(len(stored))

    def add_metadata(self, digest: bytes, blob: bytes) -> None:
        """Write a tree, a list or a table that is too long for a pack, unless it is known already."""
        if self._is_new(digest, len(blob)):
            self.add(digest, blob)

    def put_back(self, digest: bytes, blob: bytes) -> None:
        """Bring back a blob that the store has lost; counts as nothing new."""
        if self._promise(digest):
            self.add(digest, blob)

    def clone(self, digest: bytes, source: int, offset: int, length: int, whole: bool) -> bool:
        """Write a blob that `claim` gave to us by sharing the blocks of an open file; False where the file system will not."""
        path = self._space.path(os.path.join("objects", digest.hex()))
        try:
            fd = files.create_file(path)
        except OSError as error:
            raise store_failure("writing an object", error) from None
        try:
            if whole:
                kernel.clone(source, fd)
            else:
                kernel.clone_range(source, offset, length, fd, 0)
        except OSError as error:
            os.unlink(path)
            if error.errno in kernel.NO_CLONE:
                return False
            raise store_failure("cloning an object", error) from None
        finally:
            os.close(fd)
        self._counts.add_stored(length)
        return True

    def private_clone(self, source: int, device: int) -> t.Optional[int]:
        """A private, unchanging clone of an open file (a descriptor without a name), or None where blocks cannot be shared.

        :param device: the file's st_dev; what a file system cannot do is tried once.
        """
        if not self._clones or device in self._no_clones:
            return None
        try:
            fd = self._space.nameless()
        except OSError as error:
            if error.errno in kernel.NEVER_CLONES:
                self._no_clones.add(device)
                return None
            raise store_failure("cloning a file", error) from None
        try:
            kernel.clone(source, fd)
        except OSError as error:
            os.close(fd)
            if error.errno in kernel.NEVER_CLONES:
                self._no_clones.add(device)
            if error.errno in kernel.NO_CLONE:
                return None
            raise store_failure("cloning a file", error) from None
        return fd
