# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Where each blob is, and whether the files that hold blobs are still what they were.

Derived knowledge, kept in `index/` as tables (see `table`): *pack tables* name the blobs of packs, and the packs
with size and ctime as they were when last hashed; *object tables* the same for objects. A file whose size or ctime is another
now, or that no table names, is hashed before it is believed; one that fails is taken for absent, so the next backup stores its content anew. Packs that
no table names are read: the whole index can be lost.

A pack is looked at when it is first asked for. Packs that no table names are looked for where a blob is not found, and before a run writes: in shards that
are not as they were when all their packs were known (see `pack_tables`).

A run adds one table of each sort, and folds smaller neighbours into it, so that there are few, of growing sizes. Runs at the same time may each have
packed the same blob. A table has one place of a blob, so the others go into tables of their own beside it (`packs-<run>.2` and so on): no place is
forgotten, for a collection may take away the pack of any of them.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import typing as t

from .._base import Damaged, Unsupported, files
from . import codec, layout, pack
from .object_states import ObjectStates
from .pack_files import PackFiles
from .pack_tables import NOTHING, SUSPECT, Folded, PackLine, PackTable, Shards, Stamp, Told, all_told, load_tables
from .table import Table, Unusable, foldable, run_name

_NO_PACK = b"\0" * 32
Location = t.Tuple[bytes, int, int]


class PackFile(t.NamedTuple):
    """A sound pack file: the form it has, its state, and its plain size in bytes, 0 where that is not known yet (see `Index.unchecked`)."""

    suffix: str
    state: layout.State
    plain: int


class Index:
    """What is known of one store. Made anew by each command; not kept true while others work. Any thread, once `load` was called.

    :param trash: know what lies in the trash as well. :ivar knows_trash: the same.
    :param proves: hash a file that is not as it was when last hashed before it is believed. Without, it counts as sound if only its ctime is another.
    :ivar unchecked: the packs that count as sound so. :ivar damaged: what was found false, with what is wrong; of packs, those that were looked at.
    :ivar trashed: paths of what lies there, by name. :ivar stamp: of `layout.trash_stamp`, before anything was looked at.
    """

    def __init__(self, path: str, trash: bool = False, proves: bool = True) -> None:
        self._path, self.knows_trash, self.proves = path, trash, proves
        self._lock = threading.RLock()
        self._tables: t.Optional[t.List[PackTable]] = None
        self._looked: t.Dict[bytes, t.Optional[PackFile]] = {}
        self._stamps: t.Optional[t.Dict[str, Stamp]] = None  # of the shards in which all packs are known
        self._is_whole = False  # all packs were looked at
        self._lines: t.Optional[t.Dict[bytes, Told]] = None  # what all tables tell, once it is read
        self.unchecked: t.Set[bytes] = set()
        self._proved: t.Dict[bytes, layout.State] = {}  # packs that this process has hashed
        self._read_anew: t.List[bytes] = []
        self._suspects: t.List[bytes] = []
        self._false: t.List[bytes] = []  # packs that are not what they are named by
        self._broken: t.List[str] = []  # tables of packs that cannot be read
        self._lacks_tables = False
        self.damaged: t.Dict[bytes, str] = {}
        self.objects, self._files = ObjectStates(path, self.damaged), PackFiles(path)
        self.unsupported: t.Set[bytes] = set()  # packs that a newer version wrote: what is missing may be there
        self._moved: t.Dict[bytes, str] = {}  # paths of packs in the trash
        self.trashed: t.Dict[str, str] = {}
        self.stamp: t.Any = None
        self._condemned: t.Dict[bytes, str] = {}  # packs, before this was made anew

    def anew(self, trash: bool = False) -> Index:
        """The same, which looks at the files anew. Packs that this process has hashed are known."""
        new = Index(self._path, trash, self.proves)
        new._proved.update(self._proved)
        return new

    def again(self) -> Index:
        """The same anew, with what lies in the trash, and with all that this process has found out about files."""
        new = self.anew(trash=True)
        new.objects.recall(self.objects)
        new._suspects = self._suspects
        new.damaged.update(self.damaged)
        new._condemned = {name: self.damaged[name] for name in self._suspects if name in self.damaged}
        return new

    def load(self) -> None:
        """Read the tables, once; later calls are free."""
        with self._lock:
            if self._tables is None:
                self.stamp = layout.trash_stamp(self._path)  # first: what is moved from now on makes it another
                self._tables, self._broken, self._lacks_tables = load_tables(self._path)
                if self.knows_trash:
                    self._list_trash()

    def rest(self) -> None:
        """Give back the memory of what was read of the tables."""
        for table in tuple(self._tables or ()):
            table.rest()
        self.objects.rest()

    # ---- packs

    def pack(self, name: bytes) -> t.Optional[PackFile]:
        """A sound pack; None where there is none. Looked at once."""
        if name not in self._looked:
            self.load()
            with self._lock:
                if name not in self._looked:
                    recovered = Folded()
                    try:
                        self._looked[name] = self._look(name, recovered, self.proves)
                    except Unusable as error:
                        self._drop(error)
                        return self.pack(name)
                    self._take(recovered)
        return self._looked[name]

    @property
    def packs(self) -> t.Dict[bytes, PackFile]:
        """Every sound pack of the store."""
        self.look_at_all()
        return {name: found for name, found in self._looked.items() if found is not None}

    def look_at_all(self) -> None:
        """Look at all packs, once, so that it is known which are false, and not only of those that are asked for."""
        self.expect(sys.maxsize)
        with self._lock:
            while not self._is_whole:
                try:
                    self._look_at_all()
                except Unusable as error:
                    self._drop(error)

    def find(self, digest: bytes) -> t.Optional[Location]:
        """(pack, offset behind its table, length) of a packed blob."""
        place = self.find_told(digest)
        if place is None and self.seek():
            place = self.find_told(digest)
        return place

    def find_told(self, digest: bytes) -> t.Optional[Location]:
        """The same, without looking for packs that no table tells of."""
        if self._tables is None:
            self.load()
        second: t.Optional[Location] = None
        try:
            for entry in t.cast("t.List[PackTable]", self._tables):
                position = entry.places.find(digest)
                if position >= 0:
                    place = entry.place(position)
                    found = self.pack(place[0])
                    if found is not None and found.plain:
                        if place[0] not in self._moved:
                            return place
                        second = place
        except Unusable as error:
            self._drop(error)
            return self.find_told(digest)
        return second

    def seek(self) -> bool:
        """Look for packs that no table tells of, once; whether this was the time."""
        self.load()
        with self._lock:
            if self._stamps is not None:
                return False
            try:
                self._seek()
            except Unusable as error:
                self._drop(error)
                return self.seek()
            return True

    def _seek(self) -> None:
        known, stamps, recovered = self._known_shards(), {}, Folded()
        if not known:
            self.expect(sys.maxsize)
        for shard in self._files.shards():
            stamp = self._files.stamp(shard)
            if stamp is None:
                continue
            if known.get(shard) == stamp:
                stamps[shard] = stamp
                continue
            all_known = not layout.may_have_changed(stamp[1])
            for name in self._files.names(shard):
                state, plain = self._told(name)
                if not plain or state == SUSPECT:
                    self._looked[name] = self._look(name, recovered, True)
                    all_known = all_known and self._looked[name] is not None
            if all_known:
                stamps[shard] = stamp
        self._take(recovered)
        self._stamps = stamps

    def _look_at_all(self) -> None:
        recovered = Folded()
        for shard in self._files.shards():
            names = self._files.names(shard) if self._files.stamp(shard) is not None else []
            self.look_at(names)
            for name in names:
                if name not in self._looked:
                    self._looked[name] = self._look(name, recovered, self.proves)
        self._take(recovered)
        self._is_whole = True

    def _look(self, name: bytes, recovered: Folded, proves: bool) -> t.Optional[PackFile]:
        """The first form of a pack that is sound, as far as that is known; None where none is. :param recovered: gets blobs that no table has."""
        if name in self._condemned:
            self.damaged[name] = self._condemned[name]
            return None
        known, plain = self._told(name)
        strange = []
        for suffix, state in self._files.forms(name):
            is_known = known == state
            if not is_known and self._proved.get(name) == state:
                is_known = True
                self._read_anew.append(name)
            if is_known and plain:
                self.damaged.pop(name, None)
                return PackFile(suffix, state, plain)
            if not proves and (is_known or layout.is_plausible(known, state)):
                if not is_known:
                    self.unchecked.add(name)
                return PackFile(suffix, state, plain)
            strange.append((suffix, state))
        proved = (self._prove(name, suffix, state, None if plain else recovered) for suffix, state in strange)
        return next(filter(None, proved), None)

    def _prove(self, name: bytes, suffix: str, state: layout.State, recovered: t.Optional[Folded]) -> t.Optional[PackFile]:
        """Hash a pack that is not as it was, or that no table tells of; None where it is false, or a newer version wrote it."""
        try:
            data = self.read_pack(name, suffix)
            entries = pack.parse(data, name)
        except Damaged as error:
            self.damaged[name] = error.message
            self._false.append(name)
            return None
        except Unsupported:
            self.unsupported.add(name)
            return None
        self.damaged.pop(name, None)
        self.unchecked.discard(name)
        self._read_anew.append(name)
        self._proved[name] = state
        if recovered is not None:
            recovered.tell(name, state, len(data))
            for digest, offset, length in entries:
                recovered.add(digest, name, state, offset, length)
        return PackFile(suffix, state, len(data))

    def _take(self, recovered: Folded) -> None:
        """Find in packs what was read of them."""
        if recovered:
            self._lines = None
            t.cast("t.List[PackTable]", self._tables).extend(table for _ending, table in recovered.tables())

    def _told(self, name: bytes) -> Told:
        if self._lines is not None:
            return self._lines.get(name, NOTHING)
        state: t.Optional[layout.State] = None
        for entry in t.cast("t.List[PackTable]", self._tables):  # the newest word counts
            line = entry.told(name)
            if line is not None:
                state = line[0] if state is None else state
                if line[1] and not (self._lacks_tables and entry.path):  # what a lost table had of a pack is told by the pack alone
                    return state, line[1]
        return state, 0

    def look_at(self, names: t.Collection[bytes]) -> None:
        """Look at packs that are going to be asked for: many at once are quicker. Those that are not as the tables tell are left for `pack`."""
        self.expect(len(names))
        with self._lock:
            looked, condemned = self._looked, self._condemned
            new = (name for name in names if name not in looked and name not in condemned)
            for name, suffix, state, plain in self._files.unchanged(new, self._lines) if self._lines is not None else ():
                looked[name] = PackFile(suffix, state, plain)
                self.damaged.pop(name, None)

    def expect(self, count: int) -> None:
        """Prepare for looking at so many packs: all lines of the tables are read at once where that is quicker."""
        self.load()
        with self._lock:
            if self._lines is None and 8 * count > sum(len(entry.packs) for entry in self._tables or ()):
                try:
                    self._lines = all_told(self._tables or (), self._lacks_tables)
                except Unusable as error:
                    self._drop(error)

    def _drop(self, error: Unusable) -> None:
        """Do without a table that is not as it was written: what it told is told by the packs."""
        with self._lock:
            path = error.args[0]
            tables = self._tables or []
            if path not in self._broken:
                self._broken.append(path)
                self._tables = [entry for entry in tables if entry.path != path]
                self._lacks_tables = True
                self._lines = None
                self._looked = {name: self._looked[name] for name in self._suspects if name in self._looked}
                self._stamps, self._is_whole = None, False
                if len(self._tables) == len(tables):
                    raise error

    def _list_trash(self) -> None:
        """Know the packs in the trash of unfinished collections as well. What a backup needs and is there comes back (see `gc`)."""
        self.trashed = layout.trash_files(self._path, layout.OPEN)
        recovered = Folded()
        for file, path in self.trashed.items():
            match = layout.PACK_NAME.match(file)
            name = bytes.fromhex(match[1]) if match else b""
            if not match or self.pack(name) is not None:
                continue
            self._moved[name] = path
            known, plain = self._told(name)
            with contextlib.suppress(OSError, Damaged, Unsupported):
                if known is not None and plain and known[0] == os.lstat(path).st_size:
                    self._looked[name] = PackFile(match[2], known, plain)
                    continue
                data = self.read_pack(name, match[2])
                for digest, offset, length in pack.parse(data, name):
                    recovered.add(digest, name, SUSPECT, offset, length)
                self._looked[name] = PackFile(match[2], SUSPECT, len(data))
        self._take(recovered)

    def pack_state(self, name: bytes) -> t.Optional[layout.State]:
        """Size and ctime that a pack's file had when it was last hashed, if that is known."""
        self.load()
        try:
            return self._told(name)[0]
        except Unusable as error:
            self._drop(error)
            return self.pack_state(name)

    def pack_verified(self, name: bytes, state: layout.State) -> None:
        """Remember that a pack was hashed and found true in this state. Before it is looked at."""
        self._proved[name] = state

    def is_moved(self, name: bytes) -> bool:
        """Whether a pack lies in the trash."""
        return name in self._moved

    def forget(self, name: bytes) -> None:
        """A pack is not there any more."""
        self._looked[name] = None

    def read_pack(self, name: bytes, suffix: str) -> bytes:
        """The plain bytes of a pack file, within bounds but not yet hashed; Damaged where there are none."""
        return codec.decompress(self.read_stored(name, suffix), suffix, pack.PACK_MOST)

    def read_stored(self, name: bytes, suffix: str) -> bytes:
        """The bytes of a pack file as they are stored; Damaged where there are none."""
        path = self._moved.get(name) or os.path.join(self._path, layout.pack_path(name, suffix))
        return layout.read_blob_file(path, 2 * pack.PACK_MOST)

    def condemn(self, name: bytes, message: str) -> None:
        """Believe no more in a pack: its file looks as it should, but its bytes are not those it is named by."""
        found = self.pack(name)
        self.damaged[name] = message
        self._suspects.append(name)
        self._looked[name] = None
        for suffix, state in self._files.forms(name) if found is not None else ():  # the same pack may be there in another form
            if suffix != t.cast(PackFile, found).suffix:
                try:
                    data = self.read_pack(name, suffix)
                    pack.check(data, name)
                except Damaged:
                    continue
                self._looked[name] = PackFile(suffix, state, len(data))
                return

    def doubled(self, names: t.AbstractSet[bytes], live: Table) -> t.Set[bytes]:
        """Those of these packs that have a live blob for which readers use another pack, as after a collection that was killed."""
        found: t.Set[bytes] = set()
        for entry in list(self._tables or ()) if names else ():
            numbers = {number: line[0] for number, line in enumerate(entry.lines()) if line[0] in names}
            for digest, number in entry.both(live) if numbers else ():
                place = self.find(digest) if number in numbers else None
                if place is not None and place[0] != numbers[number]:
                    found.add(numbers[number])
        return found

    def count(self) -> int:
        """About how many blobs there are."""
        self.load()
        return sum(len(entry.places) for entry in self._tables or ()) + len(self.objects)

    # ---- tables

    def _known_shards(self) -> t.Mapping[str, Stamp]:
        """What shards were when all packs in them were known; nothing where a table is lost that knew some."""
        tables = self._tables or ()
        there = {os.path.basename(entry.path) for entry in tables if entry.path}
        noted = next((entry.shards for entry in tables if entry.shards.stamps), Shards())
        return {} if self._lacks_tables or not there.issuperset(noted.tables) else noted.stamps

    def tables(
        self, run: str, packs: t.List[PackLine], places: t.Optional[Table], objects: Table, folding: str = "some"
    ) -> t.Iterator[t.Tuple[str, t.Union[Table, PackTable], t.List[str]]]:
        """The tables to write at the end of a run: (file name, table, files it makes superfluous).

        :param packs: the run's packs in the order in which `places` numbers them.
        :param places: digest -> (number, offset, length) of the run's packed blobs.
        :param objects: digest -> state of the run's objects.
        :param folding: "some" folds smaller neighbours; "none" leaves them; "all" folds all, and forgets what is no longer in the store.
        """
        try:
            yield from self._pack_tables(run, packs, places, folding)
        except Unusable as error:
            self._drop(error)
            yield from self._pack_tables(run, packs, places, folding)
        yield from self.objects.tables(run, objects, folding)

    def _pack_tables(self, run: str, packs: t.List[PackLine], places: t.Optional[Table], folding: str) -> t.Iterator[t.Tuple[str, PackTable, t.List[str]]]:
        """Unusable before `places` is changed or anything is yielded."""
        if folding == "all":
            self.look_at_all()
        if folding == "all" or self._lacks_tables:
            self.seek()
        tables = t.cast("t.List[PackTable]", self._tables)
        fold = list(tables)
        if folding != "all":
            fold = foldable([(len(entry.places), entry) for entry in tables], len(places) if places else 0) if folding == "some" else []
            fold += [entry for entry in tables if entry.path is None and entry not in fold]
        fresh = self._fresh()
        if not (packs or fresh or any(entry.path is None for entry in fold) or folding == "all"):
            return
        for entry in fold:
            entry.check()  # before `places` grows
        folded = Folded(places, packs)
        for entry in fold:
            self._fold(entry, folded, folding == "all")
        for name, state in fresh.items():
            folded.tell(name, state, 0)
        made = [(f"packs-{run}{ending}", table) for ending, table in folded.tables()]
        stay = [os.path.basename(entry.path) for entry in tables if entry.path and entry not in fold]
        doubted = {name[:1].hex() for name in (*self.damaged, *self.unsupported)}
        stamps = self._known_shards() if self._stamps is None else self._stamps
        made[-1][1].shards = Shards(
            {shard: stamp for shard, stamp in stamps.items() if shard not in doubted}, (*stay, *(file for file, _table in made))
        )
        for file, table in made[:-1]:
            yield file, table, []
        yield (*made[-1], [entry.path for entry in fold if entry.path] + self._broken)

    def _fold(self, entry: PackTable, folded: Folded, forgets: bool) -> None:
        """Take an older table's knowledge into a newer one, one line a pack, without that of packs that are known to be gone. :param forgets: all are."""
        kept: t.Dict[int, t.Tuple[bytes, layout.State]] = {}
        for number, (name, state, plain) in enumerate(entry.lines()):
            found = self._looked.get(name)
            if name == _NO_PACK:
                continue
            if found is not None:
                state = found.state
            elif name in self.damaged:
                # a doubted pack's blobs stay behind, so the line must not say that they are here: one failed read may be the last
                folded.tell(name, SUSPECT, 0)
                continue
            elif forgets or name in self._looked:
                continue
            elif self._lacks_tables:
                plain = 0
            folded.tell(name, state, plain)
            kept[number] = name, state
        for digest, number, offset, length in entry.rows() if kept else ():
            if number in kept:
                folded.add(digest, *kept[number], offset, length)

    @property
    def is_stale(self) -> bool:
        """Whether files had to be read because no table knew them, or a table could not be read."""
        return bool(self._read_anew or self._broken or self.objects.useless)

    def _fresh(self) -> t.Dict[bytes, layout.State]:
        """What this process found out about packs."""
        looked = {name: self._looked.get(name) for name in self._read_anew}
        false = [name for name in self._false if self._looked.get(name) is None]
        return {**{name: found.state for name, found in looked.items() if found is not None}, **dict.fromkeys([*false, *self._suspects], SUSPECT)}

    def remember(self) -> None:
        """Write down what this process found true or false, for those who come later; quietly not, where that cannot be done."""
        lines = [(name, state, 0) for name, state in self._fresh().items()]
        objects, run = self.objects.news(), run_name(self._path)
        (_ending, packs), = Folded(None, lines).tables()
        for name, table, worth in ((f"packs-{run}", packs, lines), (f"objects-{run}", objects, len(objects))):
            if worth:
                try:
                    files.write_file(os.path.join(self._path, "index", name), b"".join(table.parts()))
                except OSError:
                    return  # a store that may only be read, or is full; the damage is found again
