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
from .pack_tables import LOCATION_SIZE, SUSPECT, Folded, PackLine, PackTable, pack_lines, unpack_location
from .table import Table, Unusable

_STATE = struct.Struct("=Qq")  # size of the file, ctime in ns
#: How often the tables are listed anew where one of the list is gone.
_TRIES = 5

Location = t.Tuple[bytes, int, int]


class PackFile(t.NamedTuple):
    """A sound pack file: the form it has, its state, and its plain size in bytes, 0 where that is not known yet (see `Index.unchecked`)."""

    suffix: str
    state: layout.State
    plain: int


class Index:
    """What is known of one store. Made anew by each command; not kept true while others work.

    :param trash: know what lies in the trash as well. :ivar knows_trash: the same.
    :param proves: hash a file that is not as it was when last hashed before it is believed. Without, it counts as sound if only its ctime is another.
    :ivar unchecked: the packs that count as sound so.
    :ivar trashed: paths of what lies there, by name. :ivar stamp: of `layout.trash_stamp`, before the packs were listed.
    """

    def __init__(self, path: str, trash: bool = False, proves: bool = True) -> None:
        self._path, self.knows_trash, self.proves = path, trash, proves
        self.unchecked: t.Set[bytes] = set()
        self._unread: t.List[t.Tuple[bytes, str, layout.State]] = []  # those of them that no table has
        self._proved: t.Dict[bytes, layout.State] = {}  # packs that this process has hashed
        self._packs: t.Optional[t.Dict[bytes, PackFile]] = None
        self._tables: t.List[PackTable] = []
        self._known: t.Optional[t.Dict[bytes, layout.State]] = None
        self._sizes: t.Dict[bytes, int] = {}
        self._objects: t.Optional[t.List[t.Tuple[Table, str]]] = None
        self._verified: t.Dict[bytes, layout.State] = {}
        self._refuted: t.Set[t.Tuple[bytes, layout.State]] = set()
        self._read_anew: t.List[bytes] = []
        self._suspects: t.List[bytes] = []
        self._false: t.List[bytes] = []  # packs that are not what they are named by
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
        new = Index(self._path, True, self.proves)
        new.recall(self)
        new._verified, new._refuted, new._suspects = self._verified, self._refuted, self._suspects
        new.damaged = dict(self.damaged)
        new._condemned = {name: self.damaged[name] for name in self._suspects if name in self.damaged}
        return new

    def recall(self, other: Index) -> None:
        """Know the packs that another one of this process has hashed. Before `load`."""
        self._proved.update(other._proved)

    # ---- packs

    @property
    def packs(self) -> t.Dict[bytes, PackFile]:
        """Every sound pack of the store."""
        self.load()
        return t.cast("t.Dict[bytes, PackFile]", self._packs)

    def find(self, digest: bytes) -> t.Optional[Location]:
        """(pack, offset behind its table, length) of a packed blob."""
        place = self._find(digest)
        if place is None and self._unread:
            strange, self._unread = self._unread, []
            for name, _suffix, _state in strange:
                self.packs.pop(name, None)
            self._read_strange(strange, ())
            place = self._find(digest)
        return place

    def _find(self, digest: bytes) -> t.Optional[Location]:
        packs = self._packs if self._packs is not None else self.packs
        second: t.Optional[Location] = None
        for entry in self._tables:
            position = entry.table.find(digest)
            if position >= 0:
                number, offset, length = unpack_location(entry.table.value(position))
                name = entry.packs[number][0] if number < len(entry.packs) else b""
                if name in packs and packs[name].plain:
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
                name = numbers.get(unpack_location(entry.table.value(position))[0])
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
        known, sizes = self._told()
        packs: t.Dict[bytes, PackFile] = {}
        self._packs = packs
        strange = []
        for name, suffix, state in self._list_packs():
            if name in packs:
                continue  # a second form of a sound pack
            is_known = known.get(name) == state
            if not is_known and self._proved.get(name) == state:
                is_known = True
                self._read_anew.append(name)
            if is_known and name in sizes:
                packs[name] = PackFile(suffix, state, sizes[name])
                self.damaged.pop(name, None)
            elif not self.proves and (is_known or layout.is_plausible(known.get(name), state)):
                packs[name] = PackFile(suffix, state, sizes.get(name, 0))
                if not is_known:
                    self.unchecked.add(name)
                if name not in sizes:
                    self._unread.append((name, suffix, state))
            else:
                strange.append((name, suffix, state))
        self._read_strange(strange, sizes)
        if self.knows_trash:
            self._list_trash(known, sizes)
        for name, message in self._condemned.items():
            packs.pop(name, None)
            self.damaged[name] = message

    def _read_strange(self, strange: t.Iterable[t.Tuple[bytes, str, layout.State]], sizes: t.Container[bytes]) -> None:
        """Hash packs that are not as they were, or that no table tells of. :param sizes: those whose blobs some table has."""
        packs = t.cast("t.Dict[bytes, PackFile]", self._packs)
        recovered = Folded(Table(LOCATION_SIZE), [])
        for name, suffix, state in strange:
            if name in packs:
                continue
            try:
                data = self.read_pack(name, suffix)
                entries = pack.parse(data, name)
            except Damaged as error:
                self.damaged[name] = error.message
                self._false.append(name)
                continue
            except Unsupported:
                self.unsupported.add(name)
                continue
            packs[name] = PackFile(suffix, state, len(data))
            self.damaged.pop(name, None)
            self.unchecked.discard(name)
            self._read_anew.append(name)
            self._proved[name] = state
            if name not in sizes:
                recovered.tell(name, state, len(data))
                for digest, offset, length in entries:
                    recovered.add(digest, name, state, offset, length)
        self._tables += [PackTable(table, None) for _ending, table in recovered.tables() if table.appendix]

    def _told(self) -> t.Tuple[t.Dict[bytes, layout.State], t.Dict[bytes, int]]:
        """What the tables tell of packs: their states when last hashed, and the plain sizes of those whose blobs some table has."""
        if self._known is None:
            self._tables, useless = self._load_tables()
            self._known = {}
            for entry in reversed(self._tables):  # oldest first: the newest word on a pack counts
                for name, state, plain in entry.packs:
                    self._known[name] = state
                    if plain and not useless:  # what a lost table had of a pack is told by the pack alone
                        self._sizes[name] = plain
        return self._known, self._sizes

    def _list_trash(self, known: t.Mapping[bytes, layout.State], sizes: t.Mapping[bytes, int]) -> None:
        """Know the packs in the trash of unfinished collections as well. What a backup needs and is there comes back (see `gc`)."""
        self.trashed = layout.trash_files(self._path, layout.OPEN)
        packs = t.cast("t.Dict[bytes, PackFile]", self._packs)
        recovered = Folded(Table(LOCATION_SIZE), [])
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
        self._tables += [PackTable(table, None) for _ending, table in recovered.tables() if table.appendix]

    def pack_state(self, name: bytes) -> t.Optional[layout.State]:
        """Size and ctime that a pack's file had when it was last hashed, if that is known."""
        return self._told()[0].get(name)

    def pack_verified(self, name: bytes, state: layout.State) -> None:
        """Remember that a pack was hashed and found true in this state. Before `load`."""
        self._proved[name] = state

    def is_moved(self, name: bytes) -> bool:
        """Whether a pack lies in the trash."""
        return name in self._moved

    def forget(self, name: bytes) -> None:
        """A pack is not there any more."""
        self.packs.pop(name, None)

    def _load_tables(self) -> t.Tuple[t.List[PackTable], bool]:
        """The pack tables, newest first, and whether one of them is of no use."""
        for last in [False] * _TRIES + [True]:
            tables: t.List[PackTable] = []
            self._broken = []
            gone = False
            for path in self._files("packs-"):
                try:
                    tables.append(PackTable(Table.load(path, LOCATION_SIZE), path))
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
        everything = folding == "all"
        fold = list(self._tables)
        if not everything:
            fold = self._foldable([(len(entry.table), entry) for entry in self._tables], len(places) if places else 0) if folding == "some" else []
            fold += [entry for entry in self._tables if entry.path is None and entry not in fold]
        fresh = self._fresh()
        if packs or fresh or any(entry.path is None for entry in fold) or everything:
            folded = Folded(places if places is not None else Table(LOCATION_SIZE), list(packs))
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

    def _fold(self, entry: PackTable, folded: Folded) -> None:
        """Take an older table's knowledge of packs that are still there into a newer one, one line a pack."""
        known = self.packs
        for name, _state, plain in entry.packs:
            if name in known:
                folded.tell(name, known[name].state, plain)
            elif name in self.damaged:
                # a doubted pack's blobs stay behind, so the line must not say that they are here: one failed read may be the last
                folded.tell(name, SUSPECT, 0)
        for position in range(len(entry.table)):
            number, offset, length = unpack_location(entry.table.value(position))
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

    def _fresh(self) -> t.Dict[bytes, layout.State]:
        """What this process found out about packs."""
        known = self.packs
        false = [name for name in self._false if name not in known]
        return {**{name: known[name].state for name in self._read_anew if name in known}, **dict.fromkeys([*false, *self._suspects], SUSPECT)}

    @property
    def has_unread(self) -> bool:
        """Whether there are packs whose blobs are not known yet."""
        self.load()
        return bool(self._unread)

    def remember(self) -> None:
        """Write down what this process found true or false, for those who come later; quietly not, where that cannot be done."""
        lines = [(name, state, 0) for name, state in self._fresh().items()]
        packs, objects = Table(LOCATION_SIZE), Table(_STATE.size)
        packs.appendix = pack_lines(lines)
        for digest, state in self._verified.items():
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


def state_record(state: layout.State) -> bytes:
    """A record of an object table."""
    return _STATE.pack(*state)


STATE_SIZE = _STATE.size
