# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Where each blob is, and whether the files that hold blobs are still what they were.

Derived knowledge, kept in `index/` as tables (see `table`): *pack tables* name the blobs of packs, and in their appendix the packs
with size and ctime as they were when last hashed; *object tables* the same for objects. A file whose size or ctime is another
now, or that nobody remembers, is hashed before it is believed; one that fails is taken for absent, so the next backup stores its content anew. Packs that
no table names are read: the whole index can be lost.

A run adds one table of each sort, and folds smaller neighbours into it, so that there are few, of growing sizes.
"""

from __future__ import annotations

import os
import stat
import struct
import typing as t

from . import codec, layout, pack
from .errors import Damaged, StoreError, UsageError, reason
from .table import Doubtful, Table

_PLACE = struct.Struct("=III")  # number of the pack in the table's appendix, offset behind the pack's table, length
_STATE = struct.Struct("=Qq")  # size of the file, ctime in ns
_PACK = struct.Struct("=32sQq")

State = t.Tuple[int, int]
Place = t.Tuple[bytes, int, int]


class PackFile(t.NamedTuple):
    """A sound pack file: the form it has, and its state when last hashed."""

    suffix: str
    state: State


class _PackTable:
    """A table with the names of the packs that its records point into."""

    def __init__(self, table: Table, path: t.Optional[str]) -> None:
        self.table = table
        self.path = path
        self.packs = [(name, (size, ctime)) for name, size, ctime in _PACK.iter_unpack(table.appendix)]


class Index:
    """What is known of one store. Made anew by each command; not kept true while others work."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._packs: t.Optional[t.Dict[bytes, PackFile]] = None
        self._tables: t.List[_PackTable] = []
        self._objects: t.Optional[t.List[t.Tuple[Table, str]]] = None
        self._verified: t.Dict[bytes, State] = {}
        self._refuted: t.Set[t.Tuple[bytes, State]] = set()
        self._read_anew: t.List[bytes] = []
        self.damaged: t.Dict[bytes, str] = {}

    # ---- packs

    @property
    def packs(self) -> t.Dict[bytes, PackFile]:
        """Every sound pack of the store."""
        self.load()
        return t.cast("t.Dict[bytes, PackFile]", self._packs)

    def find(self, digest: bytes) -> t.Optional[Place]:
        """(pack, offset behind its table, length) of a packed blob."""
        packs = self._packs if self._packs is not None else self.packs
        for entry in self._tables:
            position = entry.table.find(digest)
            if position >= 0:
                number, offset, length = _PLACE.unpack(entry.table.value(position))
                name = entry.packs[number][0]
                if name in packs:
                    return name, offset, length
        return None

    def load(self) -> None:
        """List the packs, once; later calls are free."""
        if self._packs is not None:
            return
        for path in self._files("packs-"):
            try:
                self._tables.append(_PackTable(Table.load(path, _PLACE.size), path))
            except (Doubtful, OSError):
                continue  # what it told is told by the packs
        known: t.Dict[bytes, State] = {}
        for entry in reversed(self._tables):  # oldest first: the newest word on a pack counts
            known.update(entry.packs)
        named = set(known)
        packs: t.Dict[bytes, PackFile] = {}
        self._packs = packs
        strange = []
        for name, suffix, state in self._list_packs():
            if name in packs:
                continue  # a second form of a sound pack
            if known.get(name) == state:
                packs[name] = PackFile(suffix, state)
                self.damaged.pop(name, None)
            else:
                strange.append((name, suffix, state))
        recovered = Table(_PLACE.size)
        numbers: t.List[t.Tuple[bytes, State]] = []
        for name, suffix, state in strange:
            if name in packs:
                continue
            try:
                entries = pack.parse(self.read_pack(name, suffix), name)
            except Damaged as error:
                self.damaged[name] = error.message
                continue
            packs[name] = PackFile(suffix, state)
            self.damaged.pop(name, None)
            self._read_anew.append(name)
            if name not in named:
                for digest, offset, length in entries:
                    if recovered.find(digest) < 0:
                        recovered.add(digest, _PLACE.pack(len(numbers), offset, length))
                numbers.append((name, state))
        if numbers:
            recovered.appendix = _pack_names(numbers)
            self._tables.append(_PackTable(recovered, None))

    def _list_packs(self) -> t.Iterator[t.Tuple[bytes, str, State]]:
        top = os.path.join(self._path, "packs")
        try:
            with os.scandir(top) as found:  # what lies behind a symlink is not the store's
                shelves = [shelf.name for shelf in found if shelf.is_dir(follow_symlinks=False)]
            for directory in shelves:
                with os.scandir(os.path.join(top, directory)) as entries:
                    for entry in entries:
                        match = layout.PACK_NAME.match(entry.name)
                        if match and entry.name[:2] == directory:
                            info = entry.stat(follow_symlinks=False)
                            yield bytes.fromhex(match[1]), match[2], (info.st_size, info.st_ctime_ns)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not os.path.lexists(top):
                return
            # a listing that fails must never look like an empty store
            raise StoreError(f"The packs of store {self._path} cannot be listed: {reason(error)}.") from None

    def read_pack(self, name: bytes, suffix: str) -> bytes:
        """The plain bytes of a pack file, within bounds but not yet hashed; Damaged where there are none."""
        path = os.path.join(self._path, layout.pack_path(name, suffix))
        return codec.decompress(read_bounded(path, 2 * pack.PACK_MOST), suffix, pack.PACK_MOST)

    def condemn(self, name: bytes, message: str) -> None:
        """Believe no more in a pack: its file looks as it should, but its bytes are not those it is named by."""
        self.damaged[name] = message
        self.packs.pop(name, None)

    # ---- objects

    def object_state(self, digest: bytes) -> t.Optional[State]:
        """Size and ctime that an object's file had when it was last hashed, if anybody remembers."""
        state = self._verified.get(digest)
        if state is not None:
            return state
        if self._objects is None:
            loaded = []  # another thread must not see half of it
            for path in self._files("objects-"):
                try:
                    loaded.append((Table.load(path, _STATE.size), path))
                except (Doubtful, OSError):
                    continue
            self._objects = loaded
        for table, _path in self._objects:
            position = table.find(digest)
            if position >= 0:
                return t.cast(State, _STATE.unpack(table.value(position)))
        return None

    def object_verified(self, digest: bytes, state: State) -> None:
        """Remember that an object was hashed and found true in this state; the next run writes it down."""
        self._verified[digest] = state

    def object_refuted(self, digest: bytes, state: State, message: str) -> None:
        """Remember that an object was hashed and found false in this state, so that nobody reads it again in vain."""
        self._refuted.add((digest, state))
        self.damaged[digest] = message

    def is_refuted(self, digest: bytes, state: State) -> bool:
        return (digest, state) in self._refuted

    # ---- writing

    def tables(self, run: str, packs: t.List[t.Tuple[bytes, State]], places: t.Optional[Table], objects: Table) -> t.Iterator[
        t.Tuple[str, Table, t.List[str]]
    ]:
        """The tables to write at the end of a run: (file name, table, files it makes superfluous).

        :param packs: the run's packs in the order in which `places` numbers them.
        :param places: digest -> (number, offset, length) of the run's packed blobs.
        :param objects: digest -> state of the run's objects.
        """
        known = self.packs
        fold = self._foldable([(len(entry.table), entry) for entry in self._tables], len(places) if places else 0)
        fold += [entry for entry in self._tables if entry.path is None and entry not in fold]
        renewed = [(name, known[name].state) for name in self._read_anew]
        if packs or renewed or any(entry.path is None for entry in fold):
            names = list(packs)
            result = places if places is not None else Table(_PLACE.size)
            for entry in fold:
                shift = len(names)
                names += entry.packs
                for position in range(len(entry.table)):
                    number, offset, length = _PLACE.unpack(entry.table.value(position))
                    digest = entry.table.digest(position)
                    if entry.packs[number][0] in known and result.find(digest) < 0:
                        result.add(digest, _PLACE.pack(shift + number, offset, length))
            # of several lines on one pack the last counts when the table is read, so the newest words go last
            result.appendix = _pack_names(names + renewed + list(packs))
            yield f"packs-{run}", result, [entry.path for entry in fold if entry.path]
        for digest, state in self._verified.items():
            if objects.find(digest) < 0:
                objects.add(digest, _STATE.pack(*state))
        if len(objects):
            self.object_state(b"\0" * 32)
            old = self._foldable([(len(table), (table, path)) for table, path in self._objects or []], len(objects))
            for table, _path in old:
                for position in range(len(table)):
                    digest = table.digest(position)
                    if objects.find(digest) < 0:
                        objects.add(digest, table.value(position))
            yield f"objects-{run}", objects, [path for _table, path in old]

    @staticmethod
    def _foldable(tables: t.List[t.Tuple[int, t.Any]], size: int) -> t.List[t.Any]:
        """The newest neighbours that are not much larger than what is being written: a table is rewritten a few times, not always."""
        chosen = []
        for count, entry in tables:
            if count > 2 * size + 4096:
                break
            chosen.append(entry)
            size += count
        return chosen

    def _files(self, prefix: str) -> t.List[str]:
        """Derived files of one sort, newest first: a run's name begins with its time."""
        top = os.path.join(self._path, "index")
        try:
            return [os.path.join(top, name) for name in sorted(os.listdir(top), reverse=True) if name.startswith(prefix)]
        except OSError:
            return []  # what it would tell is told by the packs and objects


def _pack_names(packs: t.Iterable[t.Tuple[bytes, State]]) -> bytes:
    return b"".join(_PACK.pack(name, *state) for name, state in packs)


def place(number: int, offset: int, length: int) -> bytes:
    """A record of a pack table."""
    return _PLACE.pack(number, offset, length)


def unplace(record: bytes) -> t.Tuple[int, int, int]:
    """(number, offset, length) of such a record."""
    return t.cast("t.Tuple[int, int, int]", _PLACE.unpack(record))


def state_record(state: State) -> bytes:
    """A record of an object table."""
    return _STATE.pack(*state)


PLACE_SIZE, STATE_SIZE = _PLACE.size, _STATE.size


def read_bounded(path: str, limit: int) -> bytes:
    """A file of at most `limit` bytes; Damaged where it is missing, larger, or cannot be read."""
    try:
        with open(path, "rb", buffering=0, opener=_no_follow) as file:
            info = os.fstat(file.fileno())
            size = info.st_size
            if not stat.S_ISREG(info.st_mode):
                raise Damaged(f"{path} is not a file.")
            if size > limit:
                raise Damaged(f"{path} is larger than anything a store holds.")
            data = file.read(size + 1)
    except FileNotFoundError:
        raise Damaged(f"{path} is missing from the store.") from None
    except PermissionError as error:
        raise UsageError(f"{path} cannot be read: {reason(error)}; run as the user who owns the store.") from None
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {reason(error)}.") from None
    return data


def _no_follow(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
