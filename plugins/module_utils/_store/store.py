# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Reading a store: is this blob here, what does it say, and may its file be shared.

A store that does not exist yet reads as an empty one, so that check mode needs no special case.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import typing as t
from collections import OrderedDict

from .._base.errors import Damaged, StoreError, reason
from . import codec, layout, pack
from .index import Index, Place, State
from .lock import Lock

#: Plain packs kept at hand: enough for the packs that one directory's files are spread over.
_KEEP = 48 << 20
#: The same for whoever walks through all backups, and needs the memory for what it finds.
WALKER = 12 << 20
#: No object is longer: a table of hard links may be as long as this.
OBJECT_MOST = 1 << 30


class Store:
    """A store opened for reading. `has_*` may be asked from several threads; `read` from one, except for objects."""

    def __init__(self, path: str, lock_timeout: float = 300, room: int = _KEEP) -> None:
        self.path = os.path.abspath(path)
        self.lock_timeout = lock_timeout
        self.exists = layout.exists(self.path)
        self.index = Index(self.path)
        self._plain: t.OrderedDict[bytes, t.Tuple[bytes, int]] = OrderedDict()
        self._plain_size = 0
        self._room = room
        self._shelves: t.Dict[int, bool] = {}
        self._mutex = threading.Lock()

    def lock(self) -> Lock:
        """The shared lock for somebody who only reads: not held up at the gate by who waits for the store alone."""
        return Lock(self.path, self.lock_timeout, write=False, gate=False)

    def full_path(self, relative: str) -> str:
        return os.path.join(self.path, relative)

    # ---- presence

    def has_large(self, digest: bytes, size: int) -> bool:
        """Whether a blob of object size is here: most likely as an object."""
        if self.object_form(digest, size) is not None:
            return True
        place = self.index.find(digest)
        return place is not None and place[2] == size

    def object_form(self, digest: bytes, size: int = -1) -> t.Optional[t.Tuple[str, State]]:
        """(suffix, state) of a sound object file; None where there is none.

        A file that is not as it was when last hashed, or that nobody has hashed as far as we remember, is hashed now: an index is
        lost more easily than its loss is noticed. The outcome is remembered.
        """
        doubtful = []
        for suffix in codec.SUFFIXES if self._has_shelf(digest) else ():
            try:
                info = os.lstat(self.full_path(layout.object_path(digest, suffix)))
            except OSError:
                continue
            if not stat.S_ISREG(info.st_mode) or (suffix == codec.NONE and size >= 0 and info.st_size != size):
                self.index.damaged[digest] = f"Object {digest.hex()} is not as it should be."  # to be replaced, not to be kept
                continue
            state = (info.st_size, info.st_ctime_ns)
            if self.index.object_state(digest) == state:
                return suffix, state
            doubtful.append((suffix, state))
        for suffix, state in doubtful:
            if self._prove(digest, suffix, state, size):
                return suffix, state
        return None

    def object_trusted(self, digest: bytes, size: int) -> t.Optional[str]:
        """The suffix of an object that has been hashed in its present state (now, if need be), so that its file may be linked."""
        form = self.object_form(digest, size)
        return form[0] if form is not None else None

    def _has_shelf(self, digest: bytes) -> bool:
        """Whether an object's directory is one: what lies behind a symlink is not the store's. Looked at once."""
        shelf = digest[0]
        found = self._shelves.get(shelf)
        if not found:
            try:
                found = stat.S_ISDIR(os.lstat(self.full_path(f"objects/{shelf:02x}")).st_mode)
            except OSError:
                return False  # it may come with the next object
            self._shelves[shelf] = found
        return found

    def _prove(self, digest: bytes, suffix: str, state: State, size: int) -> bool:
        """Hash an object's file, unless this one has been found false before."""
        if self.index.is_refuted(digest, state):
            return False
        try:
            self.read_form(digest, suffix, self.object_bound(suffix, state[0], size))
        except Damaged as error:
            self.index.object_refuted(digest, state, error.message)
            return False
        self.index.object_verified(digest, state)
        return True

    @staticmethod
    def object_bound(suffix: str, stored: int, size: int = -1) -> int:
        """How many plain bytes an object's file may have: what is known, else as much as the longest metadata. How well something
        compresses tells nothing: the chunk list of a disk image that is mostly zeros shrinks to a ten-thousandth."""
        if suffix == codec.NONE:
            return max(stored, 1)
        return max(size, pack.BLOB_MOST) if size >= 0 else OBJECT_MOST

    # ---- content

    def read(self, digest: bytes, limit: int) -> bytes:
        """A blob's bytes, hashed; Damaged where it is missing, altered, or longer than `limit`."""
        place = self.index.find(digest)
        if place is None:
            return self.read_object(digest, limit)
        if place[2] > limit:
            raise Damaged(f"Blob {digest.hex()} is larger than its place allows.")
        try:
            data, start = self._plain.get(place[0]) or self._load(place)
            start += place[1]
            blob = data[start : start + place[2]]
            if hashlib.sha256(blob).digest() == digest:
                return blob
            raise Damaged(f"Blob {digest.hex()} is altered in pack {place[0].hex()}.")
        except Damaged as error:
            self.index.condemn(place[0], error.message)
            if self.index.find(digest) is not None or self.object_form(digest) is not None:
                return self.read(digest, limit)  # another copy may be sound
            raise

    def read_object_first(self, digest: bytes, limit: int) -> bytes:
        """The same for blobs that are objects as a rule, and in a pack only by chance."""
        try:
            return self.read_object(digest, limit)
        except Damaged:
            if self.index.find(digest) is None:
                raise
            return self.read(digest, limit)

    def read_object(self, digest: bytes, limit: int) -> bytes:
        """A blob that lies in an object file; any thread may call this."""
        trouble: t.Optional[Damaged] = None
        for suffix in codec.SUFFIXES:
            if not self._has_shelf(digest) or not os.path.lexists(self.full_path(layout.object_path(digest, suffix))):
                continue
            try:
                return self.read_form(digest, suffix, limit)
            except Damaged as error:
                self.index.object_doubted(digest)
                trouble = error  # another form of the same blob may be sound
        raise trouble or Damaged(f"Blob {digest.hex()} is missing from the store.")

    def read_form(self, digest: bytes, suffix: str, limit: int) -> bytes:
        """One form of an object, hashed; Damaged where it is not what its name says."""
        path = self.full_path(layout.object_path(digest, suffix))
        blob = codec.decompress(layout.read_blob_file(path, limit), suffix, limit)
        if hashlib.sha256(blob).digest() != digest:
            raise Damaged(f"Object {digest.hex()} is altered.")
        return blob

    def _load(self, place: Place) -> t.Tuple[bytes, int]:
        name = place[0]
        data = self.index.read_pack(name, self.index.packs[name].suffix)
        entry = (data, pack.first_blob(data))
        self._plain[name] = entry
        self._plain_size += len(data)
        while self._plain_size > self._room and len(self._plain) > 1:
            _name, (old, _start) = self._plain.popitem(last=False)
            self._plain_size -= len(old)
        return entry

    # ---- references

    def references(self) -> t.List[str]:
        """Names of all manifests; StoreError where they cannot be listed, for that is not the same as none."""
        try:
            names = os.listdir(self.full_path("refs"))
        except FileNotFoundError:
            if self.exists:
                raise StoreError(f"Store {self.path} has no refs directory; put it back before anything else.") from None
            return []
        except OSError as error:
            raise StoreError(f"The manifests of store {self.path} cannot be listed: {reason(error)}.") from None
        return sorted(name[:-5] for name in names if name.endswith(".json") and not name.startswith("."))
