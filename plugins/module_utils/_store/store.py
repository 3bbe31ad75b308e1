# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Reading a store: is this blob here, what does it say, and may its file be shared.

A store that does not exist yet reads as an empty one, so that check mode needs no special case.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import typing as t
from collections import OrderedDict

from .._base import Damaged, Interrupted, NotFound, VoltError, files, newer, nfs, show, store_errors
from . import codec, features, layout, original, pack
from .cache import STAT_CACHE, Cache
from .index import Index, Location, PackFile
from .lock import taken
from .object_states import object_bound
from .refs import Refs
from .rounds import Rounds
from .workspace import Workspace, dead_runs

#: Plain packs kept at hand: enough for the packs that one directory's files are spread over.
_KEEP = 48 << 20
#: The same for a walk through all backups, which needs the memory for what it finds.
WALKER = 12 << 20
#: Larger blobs are objects as a rule, and looked for there first.
_PACKED_USUALLY = 128 << 10
#: How often something is looked for while a collection moves files.
_TURNS = 5
#: Seconds for which a reader waits at the gate before it goes on without.
_BRIEFLY = 5.0
#: In place of a time: a file changed since it was last hashed.
UNCHECKED = 0


class Store:
    """A store opened for reading. `has` may be asked from several threads; `read` from one, except for objects."""

    def __init__(self, path: str, lock_timeout: float = 300, room: int = _KEEP, proves: bool = True) -> None:
        """:param proves: hash a file that changed since it was last hashed before it counts as here. Without, it is here and unchecked (`hashed`)."""
        self.path = os.path.abspath(path)
        self.lock_timeout = lock_timeout
        self.format = layout.look(self.path)
        self.index = Index(self.path, proves=proves)
        self.refs = Refs(self.path)
        self.cache = Cache(self.path)
        self.rounds = Rounds(self.cache)
        self._plain: t.OrderedDict[bytes, t.Tuple[bytes, int]] = OrderedDict()
        self._room = room
        self._shards: t.Dict[int, bool] = {}
        self._suffixes: t.Sequence[str] = codec.SUFFIXES  # the usual one of objects first

    @property
    def exists(self) -> bool:
        return self.format is not None

    def make(self) -> None:
        """Make the store, if there is none yet."""
        if not self.exists:
            layout.make(self.path)
            self.format = layout.look(self.path)

    def upgrade(self, *more: str) -> None:
        """Look at the format anew. Give a store of version 0.1.0 an id and claims, and any store the features that are asked for."""
        self.format = layout.look_anew(self.path)
        if not {features.CLAIMS, *more} <= set(self.format.required):
            with self.gate():
                self.format = found = layout.look_anew(self.path)
                with self.lock(alone=True), store_errors("writing its features"):
                    self.format = features.upgrade(self.path, found, *more)

    @property
    def has_claims(self) -> bool:
        """Whether runs say what they rely on. In a store of version 0.1.0 they hold the lock instead, until the first write of this version."""
        return self.format is not None and features.CLAIMS in self.format.required

    def refresh(self) -> None:
        """Look at the files anew: what others have written since is known from now on."""
        self.index = self.index.anew()

    def look_again(self) -> bool:
        """Whether a collection may have moved files since the last look; what lies in the trash is known from then on, too.

        What backups need is in the trash for a moment where a run came to rely on it while it was moved, and for longer where the collection was
        killed. It is not deleted there (see `gc`).
        """
        self.index.load()
        stamp = layout.trash_stamp(self.path)
        if stamp is not None and stamp == self.index.stamp and (self.index.knows_trash or len(stamp) < 2):
            return False
        index = self.index.again()
        index.load()
        self.index = index  # not before: other threads may look
        return True

    def rest(self) -> None:
        """Give back the memory that a walk took for what it read. Nothing is forgotten: what is asked for is read again."""
        self._plain.clear()
        self.index.rest()

    def steadily(self, look: t.Callable[[], None]) -> None:
        """Look for something, and again where it is Damaged and a collection may just have moved it."""
        for _turn in range(_TURNS):
            try:
                return look()
            except Damaged:
                if not self.look_again():
                    raise
        look()

    def lock(self, alone: bool = False) -> t.ContextManager[None]:
        """Wait for a collection of version 0.1.0, where one may be at work; `alone` for its runs, and for readers of this version, as well."""
        if self.has_claims:
            return contextlib.nullcontext()
        return taken(self.path, "lock", self.lock_timeout, exclusive=alone, write=alone)

    def gate(self) -> t.ContextManager[None]:
        """For the moment in which the features change, or a damaged file is replaced or moved away. No run begins meanwhile."""
        return taken(self.path, "gate", self.lock_timeout)

    @contextlib.contextmanager
    def holding(self, reference: str) -> t.Iterator[None]:
        """Keep what a backup needs while the context lasts, even if it is deleted meanwhile. Where the store cannot be written to: without.

        :param reference: the name of its manifest. NotFound where that is gone.
        """
        space = Workspace(self.path)
        try:
            try:
                space.make(_BRIEFLY)
                space.hold(reference)
            except FileNotFoundError:
                raise NotFound(f"Manifest {show(reference)} was deleted a moment ago; list the backups to see what is left.") from None
            except Interrupted:
                raise
            except (VoltError, OSError):
                pass
            yield
        finally:
            space.remove()

    def full_path(self, relative: str) -> str:
        return os.path.join(self.path, relative)

    # ---- presence

    def has(self, digest: bytes, size: int) -> bool:
        """Whether a blob is here, sound as far as is known, and of its size. :param size: -1 where it is not known."""
        return self.pack_of(digest, size) is not None

    def pack_of(self, digest: bytes, size: int) -> t.Optional[bytes]:
        """Name of the pack that has such a blob, empty where it is an object; None where it is not here."""
        usually_object = size > _PACKED_USUALLY
        if usually_object and self._object(digest, size) is not None:
            return b""
        place = self.index.find_told(digest)
        if place is None or size not in (-1, place[2]):
            if not usually_object and self._object(digest, size) is not None:
                return b""
            place = self.index.find(digest)  # last, for that may read packs
        return place[0] if place is not None and size in (-1, place[2]) else None

    def hashed(self, digest: bytes, size: int) -> t.Optional[int]:
        """When the file that has a blob was last hashed, as far as is known, in ns since 1970; UNCHECKED where it changed since, None where `has` is false.

        A file is hashed when it is made, so its ctime tells, and a verification when it comes by.
        """
        found = self._object(digest, size)
        if found is not None:
            return self._with_round(digest, found[1])
        pack = self.pack_of(digest, size)
        return self._pack_hashed(pack) if pack else None

    def packs_hashed(self, names: t.Collection[bytes]) -> t.Iterator[t.Optional[int]]:
        """The same of packs."""
        self.index.look_at(names)
        return map(self._pack_hashed, names)

    def _pack_hashed(self, name: bytes) -> t.Optional[int]:
        found = self.index.pack(name)
        return None if found is None else self._with_round(name, UNCHECKED if name in self.index.unchecked else found.state[1])

    def _with_round(self, name: bytes, moment: int) -> int:
        return max(moment, self.rounds.hashed(name)) if moment else moment

    def present(self, digest: bytes, size: int) -> None:
        """Damaged unless `has` says so, or Unsupported."""
        if not self.has(digest, size):
            self._check_supported()
            raise Damaged(f"Blob {digest.hex()} is missing or altered.")

    def _check_supported(self) -> None:
        """Unsupported where something that is not found may lie in what only a newer version can read."""
        for name in self.index.unsupported:
            raise newer(f"Pack {name.hex()} of store {self.path}")

    def known_packs(self, names: t.Collection[bytes]) -> t.Set[bytes]:
        """Those of these packs that are here."""
        self.index.look_at(names)
        return set(filter(self.index.pack, names))

    def object_form(self, digest: bytes, size: int = -1) -> t.Optional[t.Tuple[str, layout.State]]:
        """(suffix, state) of a sound object file; None where there is none.

        A file that is not as it was when last hashed, or that was not hashed as far as is known, is hashed now: an index is
        lost more easily than its loss is noticed. The outcome is remembered.
        """
        suspect = []
        for suffix, state in self._object_files(digest, size):
            if self.index.objects.find(digest) == state:
                return suffix, state
            suspect.append((suffix, state))
        for suffix, state in suspect:
            if self._prove(digest, suffix, state, size):
                return suffix, state
        return None

    def _object(self, digest: bytes, size: int) -> t.Optional[t.Tuple[int, int]]:
        """(size of the file of an object, when that was last hashed as its ctime tells or UNCHECKED); None where none counts as sound."""
        if not self.index.proves:
            known, found = self.index.objects.find(digest), []
            for suffix, state in self._object_files(digest, size, self._suffixes):
                if state == known:
                    if suffix != self._suffixes[0]:
                        self._suffixes = sorted(codec.SUFFIXES, key=suffix.__ne__)
                    return state
                found.append(state)
            for state in found:
                if layout.is_plausible(known, state):
                    return state[0], UNCHECKED
        form = self.object_form(digest, size)
        return form[1] if form is not None else None

    def _object_files(self, digest: bytes, size: int, suffixes: t.Sequence[str] = codec.SUFFIXES) -> t.Iterator[t.Tuple[str, layout.State]]:
        """(suffix, state) of the files of an object that may be sound."""
        for suffix in suffixes if self._has_shard(digest) else ():
            info = self._stat(digest, suffix)
            if info is None:
                continue
            if not stat.S_ISREG(info.st_mode) or (suffix == codec.NONE and size >= 0 and info.st_size != size):
                self.index.damaged[digest] = f"Object {digest.hex()} is damaged."  # to be replaced, not to be kept
                continue
            yield suffix, layout.state(info)

    def _stat(self, digest: bytes, suffix: str) -> t.Optional[os.stat_result]:
        """Of an object in its place, or in the trash if that is known; None where there is none."""
        try:
            return os.lstat(self.full_path(layout.object_path(digest, suffix)))
        except OSError:
            pass
        try:
            return os.lstat(self._moved(digest, suffix)) if self.index.trashed else None
        except OSError:
            return None

    def _moved(self, digest: bytes, suffix: str) -> str:
        """Where an object lies in the trash, if that is known; else where it belongs."""
        return self.index.trashed.get(digest.hex() + suffix) or self.full_path(layout.object_path(digest, suffix))

    def is_in_place(self, path: str) -> bool:
        """Whether a pack or object is where it belongs, and not in the trash alone. :param path: below the store."""
        full = self.full_path(path)
        nfs.look_anew(os.path.dirname(full))
        return os.path.lexists(full)

    def _has_shard(self, digest: bytes) -> bool:
        """Whether an object's directory is one: what lies behind a symlink is not the store's. Looked at once."""
        shard = digest[0]
        found = self._shards.get(shard)
        if not found:
            try:
                found = stat.S_ISDIR(os.lstat(self.full_path(f"objects/{shard:02x}")).st_mode)
            except OSError:
                return False  # it may come with the next object
            self._shards[shard] = found
        return found

    def _prove(self, digest: bytes, suffix: str, state: layout.State, size: int) -> bool:
        """Hash an object's file, unless this one has been found false before."""
        if self.index.objects.is_refuted(digest, state):
            return False
        try:
            path = layout.object_path(digest, suffix)
            place = self.full_path(path) if self.is_in_place(path) else self._moved(digest, suffix)
            self._read_file(place, digest, suffix, object_bound(suffix, state[0], size))
        except Damaged as error:
            self.index.objects.refuted(digest, state, error.message)
            return False
        self.index.objects.verified(digest, state)
        return True

    # ---- content

    def read(self, digest: bytes, limit: int) -> bytes:
        """A blob's bytes, hashed; Damaged where it is missing, altered, or longer than `limit`."""
        place = self.index.find(digest)
        if place is None:
            try:
                return self.read_object(digest, limit)
            except Damaged:
                for _turn in range(_TURNS):
                    if not self.look_again():
                        break
                    if self.index.find(digest) is not None:
                        return self.read(digest, limit)
                raise
        if place[2] > limit:
            raise Damaged(f"Blob {digest.hex()} is larger than expected.")
        try:
            data, start = self._plain.get(place[0]) or self._load(place)
            start += place[1]
            blob = data[start : start + place[2]]
            if hashlib.sha256(blob).digest() == digest:
                return blob
            raise Damaged(f"Blob {digest.hex()} is altered in pack {place[0].hex()}.")
        except Damaged as error:
            if isinstance(error, layout.Missing):
                if not self.look_again():  # it was collected: what is needed of it lies elsewhere
                    self.index.forget(place[0])
                return self.read(digest, limit)
            self.index.condemn(place[0], error.message)
            if self.index.find(digest) is not None or self.object_form(digest) is not None:
                return self.read(digest, limit)  # another copy may be sound
            raise

    def unpack(self, digest: bytes) -> t.Iterator[t.Tuple[bytes, memoryview]]:
        """(name, bytes) of all blobs of the pack that has this one, each to be hashed before it is believed. None where that pack cannot be read: `read`
        tells why."""
        place = self.index.find(digest)
        if place is None:
            return
        try:
            data = self.index.read_pack(place[0], t.cast(PackFile, self.index.pack(place[0])).suffix)
        except Damaged:
            return
        view = memoryview(data)
        for name, offset, length in pack.salvage(data):
            yield name, view[offset : offset + length]

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
        for path, suffix in self.object_files(digest):
            try:
                return self._read_file(path, digest, suffix, limit)
            except Damaged as error:
                if os.path.lexists(path):
                    self.index.objects.suspected(digest)
                trouble = error  # another form of the same blob may be sound
        if trouble is None:
            self._check_supported()
        raise trouble or Damaged(f"Blob {digest.hex()} is missing from the store.")

    def object_files(self, digest: bytes) -> t.Iterator[t.Tuple[str, str]]:
        """(path, suffix) of an object's files; where it has none in its place, of one in the trash, and then in its place once more."""
        found = False
        for turn in range(2):
            for suffix in codec.SUFFIXES if self._has_shard(digest) else ():
                path = self.full_path(layout.object_path(digest, suffix))
                if os.path.lexists(path):
                    found = True
                    yield path, suffix
            if found:
                return
            for suffix in codec.SUFFIXES if not turn else ():
                moved = layout.in_trash(self.path, digest.hex() + suffix)
                if moved is not None:
                    yield moved, suffix

    def read_form(self, digest: bytes, suffix: str, limit: int) -> bytes:
        """One form of an object, hashed; Damaged where it is not what its name says."""
        return self._read_file(self.full_path(layout.object_path(digest, suffix)), digest, suffix, limit)

    @staticmethod
    def _read_file(path: str, digest: bytes, suffix: str, limit: int) -> bytes:
        blob = codec.decompress(layout.read_blob_file(path, limit), suffix, limit)
        if hashlib.sha256(blob).digest() != digest:
            raise Damaged(f"Object {digest.hex()} is altered.")
        return blob

    def _load(self, place: Location) -> t.Tuple[bytes, int]:
        name = place[0]
        data = self.index.read_pack(name, t.cast(PackFile, self.index.pack(name)).suffix)
        try:
            entry = self._plain[name] = (data, pack.first_blob(data))
        except Damaged:
            pack.parse(data, name)  # which knows packs of a newer version
            raise
        while len(self._plain) > 1 and sum(len(kept) for kept, _start in self._plain.values()) > self._room:
            self._plain.popitem(last=False)
        return entry

    # ---- files that a target may share

    def open_plain(self, digest: bytes, size: int, verify: bool) -> int:
        """A descriptor of the plain file of an object that has been hashed in its present state (now, if need be); -1 where there is none.

        :param verify: hash it in any case; Damaged where it is altered.
        """
        form = self.object_form(digest, size)
        if form is None or form[0] != codec.NONE:
            return -1
        if verify:
            self.read_object(digest, size)
        try:
            return files.open_file(self.full_path(layout.object_path(digest, codec.NONE)))
        except OSError:
            return -1

    def is_plain(self, digest: bytes, size: int) -> bool:
        """Whether an object has a plain file, which a target may share."""
        form = self.object_form(digest, size)
        return form is not None and form[0] == codec.NONE

    def open_sample(self) -> int:
        """A descriptor of some file of the store, to try with it what a target's file system can do."""
        return files.open_file(self.full_path("format.json"))

    # ---- figures

    def occupied(self, digest: bytes, size: int) -> t.Optional[t.Tuple[int, float]]:
        """(plain bytes of a blob, bytes of the store's files that are its share); None where it is not here.

        :param size: its plain bytes, -1 where that is not known: then an object counts as large as its file.
        """
        place = self.index.find(digest)
        if place is not None:
            found = t.cast(PackFile, self.index.pack(place[0]))
            return place[2], (place[2] + pack.ENTRY.size) * found.state[0] / found.plain
        there = self._object(digest, size)
        if there is None:
            return None
        return (there[0] if size < 0 else size), there[0]

    def files_below(self, part: str) -> t.Tuple[int, int]:
        """How many files there are below a directory of the store, and their bytes; without those of the original Volt command."""
        count = size = 0
        place = self.full_path(part)
        for top, _directories, names in os.walk(place):
            for name in names:
                if part == "objects" and top == place and original.is_object(name):
                    continue
                try:
                    size += os.lstat(os.path.join(top, name)).st_size
                except FileNotFoundError:
                    continue  # emptied at this moment
                count += 1
        return count, size

    # ---- care

    def look_at_all(self) -> None:
        """Look at all packs, so that it is known which are false, and not only of those that are asked for."""
        self.index.look_at_all()

    @property
    def false_files(self) -> int:
        """How many packs and objects were found false since the last `refresh`, of those that were looked at."""
        return len(self.index.damaged)

    @property
    def has_newer_packs(self) -> bool:
        """Whether there are packs that only a newer version can read: what is missing may be there."""
        return bool(self.index.unsupported)

    def remember(self) -> None:
        """Write down what was found true or false, so that it need not be hashed again, and that the next listing does not promise what is false."""
        self.index.remember()

    def needs_compaction(self) -> bool:
        """Whether the index knows less or more than it should, or dead runs have left something."""
        return self.index.is_stale or any(dead_runs(self.path))

    def tidy(self, wanted: t.Container[str], age: float) -> None:
        """Remove stat caches other than the wanted ones, and what dead runs left half-written more than so many seconds ago."""
        for name in self.cache.names(STAT_CACHE):
            if name not in wanted:
                self.cache.remove(name)
        self.refs.sweep(age)
        self.cache.sweep(age)
        files.sweep(self.full_path("index"), age)
