# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What is known of the objects of a store: size and ctime of each file when it was last hashed, in tables (see `index`)."""

from __future__ import annotations

import os
import struct
import typing as t

from .._base import files
from . import codec, layout, pack
from .pack_tables import SUSPECT
from .table import Mapped, Table, Unusable, foldable, table_files

_STATE = struct.Struct("=Qq")  # size of the file, ctime in ns
STATE_SIZE = _STATE.size
#: No object is longer: a table of hard links may be as long as this.
OBJECT_MOST = 1 << 30


class ObjectStates:
    """The states of objects. Any thread.

    :param store: its path. :ivar damaged: what was found false, with what is wrong; shared with the index.
    """

    def __init__(self, store: str, damaged: t.Dict[bytes, str]) -> None:
        self._store, self.damaged = store, damaged
        self._tables: t.Optional[t.List[t.Tuple[Mapped, str]]] = None
        self._verified: t.Dict[bytes, layout.State] = {}
        self._refuted: t.Set[t.Tuple[bytes, layout.State]] = set()
        self.useless: t.List[str] = []  # tables that cannot be read

    def recall(self, other: ObjectStates) -> None:
        """Know what another one of this process has found out, and the other way round."""
        self._verified, self._refuted = other._verified, other._refuted

    def _load(self) -> t.List[t.Tuple[Mapped, str]]:
        if self._tables is None:
            loaded: t.List[t.Tuple[Mapped, str]] = []  # another thread must not see half of it
            for path in table_files(self._store, "objects-"):
                try:
                    loaded.append((Table.load(path, STATE_SIZE), path))
                except (Unusable, OSError):
                    self.useless.append(path)
            self._tables = loaded
        return self._tables

    def __len__(self) -> int:
        """About how many objects there are."""
        return sum(len(table) for table, _path in self._load())

    def rest(self) -> None:
        """Give back the memory of what was read of the tables."""
        for table, _path in self._tables or ():
            table.rest()

    def find(self, digest: bytes) -> t.Optional[layout.State]:
        """Size and ctime that an object's file had when it was last hashed, if that is known."""
        state = self._verified.get(digest)
        if state is not None:
            return state
        for table, path in self._load():
            try:
                position = table.find(digest)
                if position >= 0:
                    return t.cast(layout.State, _STATE.unpack(table.value(position)))
            except Unusable:  # what it told is told by the objects
                self.useless.append(path)
                self._tables = [entry for entry in self._load() if entry[1] != path]
        return None

    def verified(self, digest: bytes, state: layout.State) -> None:
        """Remember that an object was hashed and found true in this state; the next run writes it down."""
        self._verified[digest] = state

    def refuted(self, digest: bytes, state: layout.State, message: str) -> None:
        """Remember that an object was hashed and found false in this state, so that it is not read again in vain."""
        self._refuted.add((digest, state))
        self.damaged[digest] = message
        self._verified[digest] = SUSPECT

    def suspected(self, digest: bytes) -> None:
        """Whatever is remembered of an object, its file was found false: let it be hashed before it is believed again."""
        self._verified[digest] = SUSPECT

    def is_refuted(self, digest: bytes, state: layout.State) -> bool:
        return (digest, state) in self._refuted

    def is_gone(self, digest: bytes) -> bool:
        """Whether there is no object of this name, in whatever form."""
        return all(files.is_gone(os.path.join(self._store, layout.object_path(digest, suffix))) for suffix in codec.SUFFIXES)

    # ---- writing

    def news(self) -> Table:
        """What this process found out, as a table."""
        return self._with_news(Table(STATE_SIZE))

    def _with_news(self, objects: Table) -> Table:
        for digest, state in self._verified.items():
            if objects.find(digest) < 0:
                objects.add(digest, state_record(state))
        return objects

    def tables(self, run: str, objects: Table, folding: str) -> t.Iterator[t.Tuple[str, Table, t.List[str]]]:
        """The table to write at the end of a run, as of `Index.tables`. :param objects: digest -> state of the run's objects."""
        everything = folding == "all"
        if not len(self._with_news(objects)) and not everything:
            return
        old = self._load()
        if not everything:
            old = foldable([(len(table), (table, path)) for table, path in old], len(objects)) if folding == "some" else []
        for table, path in old:
            try:
                self._fold(table, objects, everything)
            except Unusable:
                self.useless.append(path)
        yield f"objects-{run}", objects, [path for _table, path in old] + (self.useless if everything else [])

    def _fold(self, table: Table, objects: Table, forgets: bool) -> None:
        for position in range(len(table)):
            digest = table.digest(position)
            if objects.find(digest) < 0 and not (forgets and self.is_gone(digest)):
                objects.add(digest, table.value(position))


def state_record(state: layout.State) -> bytes:
    """A record of a table."""
    return _STATE.pack(*state)


def object_bound(suffix: str, stored: int, size: int = -1) -> int:
    """How many plain bytes an object's file may have: what is known, else as much as the longest metadata. How well something
    compresses tells nothing: the chunk list of a disk image that is mostly zeros shrinks to a ten-thousandth."""
    if suffix == codec.NONE:
        return max(stored, 1)
    return max(size, pack.BLOB_MOST) if size >= 0 else OBJECT_MOST
