# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Where each blob is, and whether the files that hold blobs are still what they were.

Derived knowledge, kept in `index/` as tables (see `table`): *pack tables* name the blobs of packs, and in their appendix the packs
with size and ctime as they were when last hashed; *object tables* the same for objects. A file whose size or ctime is another
now, or that no table names, is hashed before it is believed; one that fails is taken for absent, so the next backup stores its content anew. Packs that
no table names are read: the whole index can be lost.

A run adds one table of each sort, and folds smaller neighbours into it, so that there are few, of growing sizes. Runs at the same time may each have
packed the same blob. A table has one place of a blob, so the others go into tables of their own beside it (`packs-<run>.2` and so on): no place is
forgotten, for a collection may take away the pack of any of them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
import time
import typing as t

from .._base import Damaged, StoreError, Unsupported, files, reason
from . import codec, layout, pack
from .table import Table, Unusable

_PLACE = struct.Struct("=III")  # number of the pack in the table's appendix, offset behind the pack's table, length
_STATE = struct.Struct("=Qq")  # size of the file, ctime in ns
_PACK = struct.Struct("=32sQqQ")  # name, size of the file, its ctime in ns, plain size
#: How often the tables are listed anew where one of the list is gone.
_TRIES = 5
#: A state that no file has: what is remembered with it is hashed before it is believed.
SUSPECT = (0, 0)

Location = t.Tuple[bytes, int, int]
#: A pack as a table's appendix has it: name, state, plain size. The size is 0 in a line that has news of the state alone: the pack's blobs
#: are then in another table.
PackLine = t.Tuple[bytes, layout.State, int]


class PackFile(t.NamedTuple):
    """A sound pack file: the form it has, its state when last hashed, and its plain size in bytes."""

    suffix: str
    state: layout.State
    plain: int


class _PackTable:
    """A table with the names of the packs that its records point into."""

    def __init__(self, table: Table, path: t.Optional[str]) -> None:
        self.table = table
        self.path = path
        if len(table.appendix) % _PACK.size:
            raise Unusable(path)
        self.packs: t.List[PackLine] = [(name, (size, ctime), plain) for name, size, ctime, plain in _PACK.iter_unpack(table.appendix)]


class _Folded:
    """Pack tables on their way. A blob is in as many of them as there are packs that have it.

    :param first: the table that most go into; its lines tell of whole packs. :param lines: of the packs that it has.
    """

    def __init__(self, first: Table, lines: t.List[PackLine]) -> None:
        self._levels = [(first, lines, {name: number for number, (name, _state, _plain) in enumerate(lines)})]

    def tell(self, name: bytes, state: layout.State, plain: int) -> None:
        """All blobs of a pack are in these tables from now on; or with a plain size of 0, this is its state."""
        _table, lines, numbers = self._levels[0]
        if name not in numbers:
            numbers[name] = len(lines)
            lines.append((name, state, plain))
        elif plain and not lines[numbers[name]][2]:
            lines[numbers[name]] = (name, lines[numbers[name]][1], plain)

    def add(self, digest: bytes, name: bytes, state: layout.State, offset: int, length: int) -> None:
        """A place of a blob, unless it is known."""
        level = 0
        while level < len(self._levels):
            table, lines, _numbers = self._levels[level]
            position = table.find(digest)
            if position < 0:
                break
            number = _PLACE.unpack(table.value(position))[0]
            if number < len(lines) and lines[number][0] == name:
                return
            level += 1
        else:
            self._levels.append((Table(_PLACE.size), [], {}))
        table, lines, numbers = self._levels[level]
        if name not in numbers:
            numbers[name] = len(lines)
            lines.append((name, state, 0))
        table.add(digest, _PLACE.pack(numbers[name], offset, length))

    def tables(self) -> t.Iterator[t.Tuple[str, Table]]:
        """(what to add to the name of its file, table): the first one last, for its lines rely on the others."""
        for number, (table, lines, _numbers) in reversed(list(enumerate(self._levels, 1))):
            table.appendix = _pack_lines(lines)
            yield (f".{number}" if number > 1 else ""), table


class Index:
    """What is known of one store. Made anew by each command; not kept true while others work.

    :param trash: know what lies in the trash as well. :ivar knows_trash: the same.
    :ivar trashed: paths of what lies there, by name. :ivar stamp: of `layout.trash_stamp`, before the packs were listed.
    """

    def __init__(self, path: str, trash: bool = False) -> None:
        self._path, self.knows_trash = path, trash
        self._packs: t.Optional[t.Dict[bytes, PackFile]] = None
        self._tables: t.List[_PackTable] = []
        self._objects: t.Optional[t.List[t.Tuple[Table, str]]] = None
        self._verified: t.Dict[bytes, layout.State] = {}
        self._refuted: t.Set[t.Tuple[bytes, layout.State]] = set()
        self._read_anew: t.List[bytes] = []
        self._suspects: t.List[bytes] = []
        self._useless: t.List[str] = []  # tables of objects that cannot be read
        self._broken: t.List[str] = []  # of packs, likewise
        self.damaged: t.Dict[bytes, str] = {}
        self.unsupported: t.Set[bytes] = set()  # packs that a newer version wrote: what is missing may be there
        self._moved: t.Dict[bytes, str] = {}  # paths of packs in the trash
        self.trashed: t.Dict[str, str] = {}
        self.stamp: t.Any = None
        self._condemned: t.Dict[bytes, str] = {}  # packs, before this was made anew

    def again(self) -> Index:
        """The same anew, with what lies in the trash, and with all that this process has found out about files."""
        new = Index(self._path, trash=True)
        new._verified, new._refuted, new._suspects = self._verified, self._refuted, self._suspects
        new.damaged = dict(self.damaged)
        new._condemned = {name: self.damaged[name] for name in self._suspects if name in self.damaged}
        return new

    # ---- packs

    @property
    def packs(self) -> t.Dict[bytes, PackFile]:
        """Every sound pack of the store."""
        self.load()
        return t.cast("t.Dict[bytes, PackFile]", self._packs)

    def find(self, digest: bytes) -> t.Optional[Location]:
        """(pack, offset behind its table, length) of a packed blob."""
        packs = self._packs if self._packs is not None else self.packs
        second: t.Optional[Location] = None
        for entry in self._tables:
            position = entry.table.find(digest)
            if position >= 0:
                number, offset, length = _PLACE.unpack(entry.table.value(position))
                name = entry.packs[number][0] if number < len(entry.packs) else b""
                if name in packs:
                    if name not in self._moved:
                        return name, offset, length
                    second = name, offset, length
        return second

    def doubled(self, names: t.AbstractSet[bytes], live: Table) -> t.Set[bytes]:
        """Those of these packs that have a live blob for which readers use another pack, as after a collection that was killed."""
        found: t.Set[bytes] = set()
        for entry in self._tables:
            numbers = {number: line[0] for number, line in enumerate(entry.packs) if line[0] in names}
            for position in range(len(entry.table)) if numbers else ():
                name = numbers.get(_PLACE.unpack(entry.table.value(position))[0])
                if name is not None and live.find(entry.table.digest(position)) >= 0:
                    place = self.find(entry.table.digest(position))
                    if place is not None and place[0] != name:
                        found.add(name)
        return found

    def count(self) -> int:
        """About how many blobs there are."""
        self.load()
        self.object_state(b"\0" * 32)
        return sum(len(entry.table) for entry in self._tables) + sum(len(table) for table, _path in self._objects or [])

    def load(self) -> None:
        """List the packs, once; later calls are free."""
        if self._packs is not None:
            return
        self.stamp = layout.trash_stamp(self._path)  # before the listing: what is moved from now on makes it another
        self._tables, useless = self._load_tables()
        known: t.Dict[bytes, layout.State] = {}
        sizes: t.Dict[bytes, int] = {}  # of packs whose blobs some table has
        for entry in reversed(self._tables):  # oldest first: the newest word on a pack counts
            for name, state, plain in entry.packs:
                known[name] = state
                if plain and not useless:  # what a lost table had of a pack is told by the pack alone
                    sizes[name] = plain
        packs: t.Dict[bytes, PackFile] = {}
        self._packs = packs
        strange = []
        for name, suffix, state in self._list_packs():
            if name in packs:
                continue  # a second form of a sound pack
            if name in sizes and known[name] == state:
                packs[name] = PackFile(suffix, state, sizes[name])
                self.damaged.pop(name, None)
            else:
                strange.append((name, suffix, state))
        recovered = _Folded(Table(_PLACE.size), [])
        for name, suffix, state in strange:
            if name in packs:
                continue
            try:
                data = self.read_pack(name, suffix)
                entries = pack.parse(data, name)
            except Damaged as error:
                self.damaged[name] = error.message
                continue
            except Unsupported:
                self.unsupported.add(name)
                continue
            packs[name] = PackFile(suffix, state, len(data))
            self.damaged.pop(name, None)
            self._read_anew.append(name)
            if name not in sizes:
                recovered.tell(name, state, len(data))
                for digest, offset, length in entries:
                    recovered.add(digest, name, state, offset, length)
        self._tables += [_PackTable(table, None) for _ending, table in recovered.tables() if table.appendix]
        if self.knows_trash:
            self._list_trash(known, sizes)
        for name, message in self._condemned.items():
            packs.pop(name, None)
            self.damaged[name] = message

    def _list_trash(self, known: t.Mapping[bytes, layout.State], sizes: t.Mapping[bytes, int]) -> None:
        """Know the packs in the trash of unfinished collections as well. What a backup needs and is there comes back (see `gc`)."""
        self.trashed = layout.trash_files(self._path, layout.OPEN)
        packs = t.cast("t.Dict[bytes, PackFile]", self._packs)
        recovered = _Folded(Table(_PLACE.size), [])
        for file, path in self.trashed.items():
            match = layout.PACK_NAME.match(file)
            name = bytes.fromhex(match[1]) if match else b""
            if not match or name in packs:
                continue
            self._moved[name] = path
            with contextlib.suppress(OSError, Damaged, Unsupported):
                if name in sizes and known[name][0] == os.lstat(path).st_size:
                    packs[name] = PackFile(match[2], known[name], sizes[name])
                    continue
                data = self.read_pack(name, match[2])
                for digest, offset, length in pack.parse(data, name):
                    recovered.add(digest, name, SUSPECT, offset, length)
                packs[name] = PackFile(match[2], SUSPECT, len(data))
        self._tables += [_PackTable(table, None) for _ending, table in recovered.tables() if table.appendix]

    def is_moved(self, name: bytes) -> bool:
        """Whether a pack lies in the trash."""
        return name in self._moved

    def forget(self, name: bytes) -> None:
        """A pack is not there any more."""
        self.packs.pop(name, None)

    def _load_tables(self) -> t.Tuple[t.List[_PackTable], bool]:
        """The pack tables, newest first, and whether one of them is of no use."""
        for last in [False] * _TRIES + [True]:
            tables: t.List[_PackTable] = []
            self._broken = []
            gone = False
            for path in self._files("packs-"):
                try:
                    tables.append(_PackTable(Table.load(path, _PLACE.size), path))
                except FileNotFoundError:
                    gone = True  # another run has just folded it into one that the list lacks
                except (Unusable, OSError):
                    self._broken.append(path)  # what it told is told by the packs
            if not gone or last:
                break
        return tables, gone or bool(self._broken)

    def _list_packs(self) -> t.Iterator[t.Tuple[bytes, str, layout.State]]:
        top = os.path.join(self._path, "packs")
        try:
            with os.scandir(top) as found:  # what lies behind a symlink is not the store's
                shards = [shard.name for shard in found if shard.is_dir(follow_symlinks=False)]
            for directory in shards:
                with os.scandir(os.path.join(top, directory)) as entries:
                    for entry in entries:
                        match = layout.PACK_NAME.match(entry.name)
                        if match and entry.name[:2] == directory:
                            with contextlib.suppress(FileNotFoundError):  # moved to the trash at this moment
                                yield bytes.fromhex(match[1]), match[2], layout.state(entry.stat(follow_symlinks=False))
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not os.path.lexists(top):
                return
            # a listing that fails must never look like an empty store
            raise StoreError(f"The packs of store {self._path} cannot be listed: {reason(error)}; fix that, then run again.") from None

    def read_pack(self, name: bytes, suffix: str) -> bytes:
        """The plain bytes of a pack file, within bounds but not yet hashed; Damaged where there are none."""
        return codec.decompress(self.read_stored(name, suffix), suffix, pack.PACK_MOST)

    def read_stored(self, name: bytes, suffix: str) -> bytes:
        """The bytes of a pack file as they are stored; Damaged where there are none."""
        path = self._moved.get(name) or os.path.join(self._path, layout.pack_path(name, suffix))
        return layout.read_blob_file(path, 2 * pack.PACK_MOST)

    def condemn(self, name: bytes, message: str) -> None:
        """Believe no more in a pack: its file looks as it should, but its bytes are not those it is named by."""
        self.damaged[name] = message
        self._suspects.append(name)
        found = self.packs.pop(name, None)
        for suffix in codec.SUFFIXES:  # the same pack may be there in another form
            path = os.path.join(self._path, layout.pack_path(name, suffix))
            if found is not None and suffix != found.suffix and os.path.lexists(path):
                try:
                    data = self.read_pack(name, suffix)
                    pack.check(data, name)
                    info = os.lstat(path)
                except (Damaged, OSError):
                    continue
                self.packs[name] = PackFile(suffix, layout.state(info), len(data))
                return

    # ---- objects

    def object_state(self, digest: bytes) -> t.Optional[layout.State]:
        """Size and ctime that an object's file had when it was last hashed, if that is known."""
        state = self._verified.get(digest)
        if state is not None:
            return state
        if self._objects is None:
            loaded = []  # another thread must not see half of it
            for path in self._files("objects-"):
                try:
                    loaded.append((Table.load(path, _STATE.size), path))
                except (Unusable, OSError):
                    self._useless.append(path)
            self._objects = loaded
        for table, _path in self._objects:
            position = table.find(digest)
            if position >= 0:
                return t.cast(layout.State, _STATE.unpack(table.value(position)))
        return None

    def object_verified(self, digest: bytes, state: layout.State) -> None:
        """Remember that an object was hashed and found true in this state; the next run writes it down."""
        self._verified[digest] = state

    def object_refuted(self, digest: bytes, state: layout.State, message: str) -> None:
        """Remember that an object was hashed and found false in this state, so that it is not read again in vain."""
        self._refuted.add((digest, state))
        self.damaged[digest] = message
        self._verified[digest] = SUSPECT

    def object_suspected(self, digest: bytes) -> None:
        """Whatever is remembered of an object, its file was found false: let it be hashed before it is believed again."""
        self._verified[digest] = SUSPECT

    def is_refuted(self, digest: bytes, state: layout.State) -> bool:
        return (digest, state) in self._refuted

    # ---- writing

    def tables(
        self, run: str, packs: t.List[PackLine], places: t.Optional[Table], objects: Table, folding: str = "some"
    ) -> t.Iterator[t.Tuple[str, Table, t.List[str]]]:
        """The tables to write at the end of a run: (file name, table, files it makes superfluous).

        :param packs: the run's packs in the order in which `places` numbers them.
        :param places: digest -> (number, offset, length) of the run's packed blobs.
        :param objects: digest -> state of the run's objects.
        :param folding: "some" folds smaller neighbours; "none" leaves them; "all" folds all, and forgets what is no longer in the store.
        """
        known = self.packs
        everything = folding == "all"
        fold = list(self._tables)
        if not everything:
            fold = self._foldable([(len(entry.table), entry) for entry in self._tables], len(places) if places else 0) if folding == "some" else []
            fold += [entry for entry in self._tables if entry.path is None and entry not in fold]
        fresh = {name: known[name].state for name in self._read_anew if name in known}
        fresh.update(dict.fromkeys(self._suspects, SUSPECT))
        if packs or fresh or any(entry.path is None for entry in fold) or everything:
            folded = _Folded(places if places is not None else Table(_PLACE.size), list(packs))
            for entry in fold:
                self._fold(entry, folded)
            for name, state in fresh.items():
                folded.tell(name, state, 0)
            for ending, result in folded.tables():
                yield f"packs-{run}{ending}", result, [] if ending else [entry.path for entry in fold if entry.path] + self._broken
        for digest, state in self._verified.items():
            if objects.find(digest) < 0:
                objects.add(digest, _STATE.pack(*state))
        if len(objects) or everything:
            self.object_state(b"\0" * 32)
            old = self._objects or []
            if not everything:
                old = self._foldable([(len(table), (table, path)) for table, path in old], len(objects)) if folding == "some" else []
            for table, _path in old:
                for position in range(len(table)):
                    digest = table.digest(position)
                    if objects.find(digest) < 0 and not (everything and self.is_gone(digest)):
                        objects.add(digest, table.value(position))
            yield f"objects-{run}", objects, [path for _table, path in old] + (self._useless if everything else [])

    def _fold(self, entry: _PackTable, folded: _Folded) -> None:
        """Take an older table's knowledge of packs that are still there into a newer one, one line a pack."""
        known = self.packs
        for name, _state, plain in entry.packs:
            if name in known:
                folded.tell(name, known[name].state, plain)
            elif name in self.damaged:
                # a doubted pack's blobs stay behind, so the line must not say that they are here: one failed read may be the last
                folded.tell(name, SUSPECT, 0)
        for position in range(len(entry.table)):
            number, offset, length = _PLACE.unpack(entry.table.value(position))
            name = entry.packs[number][0] if number < len(entry.packs) else b""
            if name in known:
                folded.add(entry.table.digest(position), name, known[name].state, offset, length)

    def is_gone(self, digest: bytes) -> bool:
        """Whether there is no object of this name, in whatever form."""
        return not any(os.path.lexists(os.path.join(self._path, layout.object_path(digest, suffix))) for suffix in codec.SUFFIXES)

    @property
    def is_stale(self) -> bool:
        """Whether files had to be read because no table knew them, or a table could not be read."""
        return bool(self._read_anew or self._useless or self._broken)

    def remember_suspects(self) -> None:
        """Write down what this process found false, for those who come later; quietly not, where that cannot be done."""
        lines = [(name, SUSPECT, 0) for name in self._suspects]
        packs, objects = Table(_PLACE.size), Table(_STATE.size)
        packs.appendix = _pack_lines(lines)
        for digest, state in self._verified.items():
            if state == SUSPECT:
                objects.add(digest, _STATE.pack(*state))
        run = run_name(self._path)
        for name, table, worth in ((f"packs-{run}", packs, lines), (f"objects-{run}", objects, len(objects))):
            if worth:
                try:
                    files.write_file(os.path.join(self._path, "index", name), b"".join(table.parts()))
                except OSError:
                    return  # a store that may only be read, or is full; the damage is found again

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


def _pack_lines(packs: t.Iterable[PackLine]) -> bytes:
    return b"".join(_PACK.pack(name, *state, plain) for name, state, plain in packs)


def run_name(store: str) -> str:
    """A name for a run's directory and the tables that it leaves: it sorts behind those of all earlier tables, also where the clock went back."""
    moment = time.time_ns()
    try:
        for name in os.listdir(os.path.join(store, "index")):
            number = name.partition("-")[2].partition("-")[0]
            if number.isdigit() and len(number) == 20:
                moment = max(moment, int(number) + 1)
    except OSError:
        pass  # no tables, nothing to sort behind
    return f"{moment:020d}-{os.getpid()}-{secrets.token_hex(4)}"


def pack_location(number: int, offset: int, length: int) -> bytes:
    """A record of a pack table."""
    return _PLACE.pack(number, offset, length)


def unpack_location(record: bytes) -> t.Tuple[int, int, int]:
    """(number, offset, length) of such a record."""
    return t.cast("t.Tuple[int, int, int]", _PLACE.unpack(record))


def state_record(state: layout.State) -> bytes:
    """A record of an object table."""
    return _STATE.pack(*state)


LOCATION_SIZE, STATE_SIZE = _PLACE.size, _STATE.size
