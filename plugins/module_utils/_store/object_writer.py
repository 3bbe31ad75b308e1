# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Large blobs into files of their own: by sharing the blocks of the source where the file system can, else compressed. Any thread may call."""

from __future__ import annotations

import os
import threading
import typing as t

from .._base import files, kernel, nfs, store_failure
from . import claims, codec, layout
from .object_states import STATE_SIZE, state_record
from .pack_tables import SUSPECT
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
        self._more: t.Dict[bytes, int] = {}  # how often `save` was asked for what this transaction brings already
        self._taken_back: t.Set[bytes] = set()
        self._sizes: t.Dict[bytes, int] = {}  # a dry one's objects, as they would be stored
        self.known = Table(STATE_SIZE)
        self._found = Table(0)  # in the store

    def save(self, digest: bytes, blob: bytes, source: int = -1, offset: int = 0) -> None:
        """Write a blob of content, unless it is in the store or in this transaction.

        :param source: an open file to share blocks with, from `offset` on; -1 for none.
        """
        self._counts.step()
        if not self._is_new(digest, len(blob)):
            return
        self._counts.add_new(len(blob))
        if source < 0 or not self._clone(digest, source, offset, len(blob)):
            self._add(digest, blob)

    def take_back(self, digest: bytes, size: int) -> None:
        """Undo one `save`: what is written goes, unless another file of this transaction asked for the same."""
        with self._mutex:
            if self.known.find(digest) < 0 or digest in self._taken_back:
                return  # the store has it
            more = self._more.pop(digest, 0)
            if more > 1:
                self._more[digest] = more - 1
            if more:
                return
            self._taken_back.add(digest)
            if self._dry:
                self._counts.take_back(size, self._sizes.pop(digest, 0))
                return
            for suffix in sorted({"", self._suffix}):
                path = self._space.path(os.path.join("objects", digest.hex() + suffix))
                try:
                    stored = os.stat(path).st_size
                    os.unlink(path)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise store_failure("removing an object", error) from None
                self._counts.take_back(size, stored)

    def brings(self, digest: bytes) -> bool:
        """Whether this transaction brings a blob."""
        return self.known.find(digest) >= 0 and digest not in self._taken_back

    def relied_on(self) -> t.Iterator[bytes]:
        """The objects that this transaction was asked for, whether it brings them or the store had them; and some blobs that are in packs."""
        for position in range(len(self.known)):
            digest = self.known.digest(position)
            if digest not in self._taken_back:
                yield digest
        yield from map(self._found.digest, range(len(self._found)))

    def read(self, digest: bytes, limit: int) -> t.Optional[bytes]:
        """A blob that this transaction has written and not yet committed; None for any other, and where it is dry."""
        if self._dry or not self.brings(digest):
            return None
        for suffix in (self._suffix, ""):
            name = os.path.join("objects", digest.hex() + suffix)
            if os.path.exists(self._space.path(name)):
                return codec.decompress(self._space.read(name), suffix, limit)
        return None

    def _is_new(self, digest: bytes, size: int) -> bool:
        """Whether an object is neither in the store nor promised by this transaction, which promises it now."""
        with self._mutex:
            if self._is_promised(digest):
                return False
        if self._only is not None and digest not in self._only:
            return False
        return not self.has(digest, size) and self._promise(digest)

    def has(self, digest: bytes, size: int) -> bool:
        """Whether the store has a blob, as an object or by chance in a pack. It stays from now on. :param size: in bytes."""
        with self._mutex:
            if self._found.find(digest) >= 0:
                return True
        if self._space.claims is not None:
            self._space.claims.add(claims.OBJECT, [digest])
        if not self._is_there(digest, size):  # not under the mutex, for this may hash a file that the index does not know
            return False
        with self._mutex:
            if self._found.find(digest) < 0:
                self._found.add(digest, b"")
        return True

    def _is_there(self, digest: bytes, size: int) -> bool:
        nfs.look_anew(self._store.full_path(f"objects/{digest.hex()[:2]}"))
        pack = self._store.pack_of(digest, size)
        if self._space.claims is None or pack is None:
            return pack is not None
        if pack:
            self._space.claims.add(claims.PACK, [pack])
            found = self._store.index.pack(pack)
            return found is not None and self._store.is_in_place(layout.pack_path(pack, found.suffix))
        form = self._store.object_form(digest, size) if self._store.index.trashed else None
        return form is None or self._store.is_in_place(layout.object_path(digest, form[0]))

    def _is_promised(self, digest: bytes) -> bool:
        """Whether this transaction brings a blob; counts that one more asks. Called under the mutex."""
        if digest in self._taken_back or self.known.find(digest) < 0:
            return False
        self._more[digest] = self._more.get(digest, 0) + 1
        return True

    def _promise(self, digest: bytes) -> bool:
        with self._mutex:
            if self._is_promised(digest):
                return False
            if digest in self._taken_back:
                self._taken_back.remove(digest)
            else:
                self.known.add(digest, state_record(SUSPECT))
            return True

    def _add(self, digest: bytes, blob: bytes) -> None:
        """Write a blob that is promised."""
        suffix, stored = codec.compress(blob, self._suffix)
        if self._dry:
            self._sizes[digest] = len(stored)
        else:
            self._space.write(os.path.join("objects", digest.hex() + suffix), stored)
        self._counts.add_stored(len(stored))

    def add_metadata(self, digest: bytes, blob: bytes) -> None:
        """Write a tree, a list or a table that is too long for a pack, unless it is known already."""
        if self._is_new(digest, len(blob)):
            self._add(digest, blob)

    def put_back(self, digest: bytes, blob: bytes) -> None:
        """Bring back a blob that the store has lost; counts as nothing new."""
        if self._promise(digest):
            self._add(digest, blob)

    def _clone(self, digest: bytes, source: int, offset: int, length: int) -> bool:
        """Write a blob that is promised by sharing the blocks of an open file; False where the file system will not."""
        path = self._space.path(os.path.join("objects", digest.hex()))
        try:
            fd = files.create_file(path)
        except OSError as error:
            raise store_failure("writing an object", error) from None
        try:
            if not offset and length == os.fstat(source).st_size:
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
