# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Garbage collection: what no backup refers to leaves the store, in two steps, while others work. First a plan is made, then it is carried out.

::

    plan:       read the claims, then mark all that manifests refer to
                put back from the trash what is claimed or needed, as after a collection that was killed
                list packs and objects that are dead, packs that are to be rewritten, trash that has lain for the grace period
    carry out:  empty the trash
                move the dead files to the trash, in slices: after each, read the claims, then mark what new manifests refer to; put back what is
                claimed or needed
                rewrite packs that are mostly dead, or tiny: their live blobs go into new packs, durable before anything else happens
                move the old packs to the trash in the same way
                write the index anew

Check mode makes the plan, and rewrites packs without writing to know what that would save.

No process waits for another. A run that relies on a file claims it first and looks for it then (see `claims`); a collection moves it first and reads the
claims then. A run drops its claims after its manifest is written; a collection reads the manifests after the claims. So what a run relies on is
seen in one of the two, or the run has seen that it is gone. A file is deleted only after a pass over the trash that found it neither claimed nor needed.
What has become garbage since the plan was made is for the next collection.

Nothing depends on what an earlier collection knew. One that is killed leaves files in the trash, where readers find them and the next one puts them back,
or a pack beside its replacement, in which no blob is then found any more: the next one moves it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
import typing as t

from .._base import Closing, Damaged, Interrupted, StoreFull, VoltError, files, kernel, newer, nfs, store_errors
from . import codec, layout, pack
from .claims import Claimed
from .index import PackFile
from .store import Store
from .table import Table
from .transaction import Transaction
from .trash import Dead, DeadFiles, FileCount, Trash

#: Seconds for which files are moved before the claims are read: until then, readers look for them in the trash.
_SLICE = 1.0
#: Packs of a smaller plain size are merged.
_SMALL = 256 << 10
_SHARDS = [f"{number:02x}" for number in range(256)]


class Mark(t.Protocol):
    """Marks the blobs that backups need."""

    def __call__(self, live: Table) -> None:
        """Add every digest that can be reached, and was not added by an earlier call, to a table; raise where not all can be known."""


class Plan(t.NamedTuple):
    """What a collection is to do.

    :ivar trash: directories of the trash that have lain long enough. :ivar dead: packs and objects that nothing needs.
    :ivar rewrite: packs whose live blobs are to go into new ones. :ivar keeps_trash: something is damaged, and the trash may hold it.
    """

    trash: t.Dict[str, FileCount]
    dead: DeadFiles
    rewrite: t.List[bytes]
    keeps_trash: bool


class Collected(t.NamedTuple):
    """What a collection did, or would do. Bytes are those of files as stored."""

    freed_files: int = 0  # deleted for good
    freed_bytes: int = 0
    trashed_files: int = 0  # moved to the trash, to be deleted after the grace period
    trashed_bytes: int = 0
    repacked_packs: int = 0  # of the trashed ones, those whose live blobs went into new packs
    written_bytes: int = 0  # size of the new packs
    live_blobs: int = 0


class _Needed:
    """What backups and runs need: live blobs, how many plain bytes of each pack they are, and what is claimed. Grows as backups and claims come.

    :ivar lacking: live blobs that were not found.
    """

    def __init__(self, store: Store, mark: Mark) -> None:
        self._store, self._mark = store, mark
        self._claimed = Claimed(store.path)
        self.live = Table(0, store.index.count())
        self.lacking: t.Set[bytes] = set()
        self.packs: t.Dict[bytes, int] = {}
        self._located = 0

    def mark(self) -> bool:
        """Read what was claimed, and mark what came, since the last call; whether other runs live.

        In this order: a run writes its manifest before it drops its claims.
        """
        others = self._claimed.read()
        self._mark(self.live)
        return others

    def locate(self) -> None:
        """Find the packs of what was marked since the last call."""
        index, live, packs = self._store.index, self.live, self.packs
        index.look_at_all()
        for position in range(self._located, len(live)):
            place = index.find(live.digest(position))
            if place is not None:
                packs[place[0]] = packs.get(place[0], 0) + place[2] + pack.ENTRY.size
            elif index.objects.is_gone(live.digest(position)):
                self.lacking.add(live.digest(position))
        self._located = len(live)
        if self.lacking and self._store.look_again():
            self._find_in_trash()

    def _find_in_trash(self) -> None:
        """What is not in its place may be in a pack that lies in the trash."""
        for digest in list(self.lacking):
            place = self._store.index.find(digest)
            if place is not None:
                self.packs[place[0]] = self.packs.get(place[0], 0) + place[2] + pack.ENTRY.size
                self.lacking.remove(digest)

    def locate_anew(self) -> None:
        """The same for everything, after blobs have moved to other packs."""
        self.packs, self._located, self.lacking = {}, 0, set()
        self.locate()

    def is_dead(self, file: Dead) -> bool:
        """Whether a file is neither needed nor claimed."""
        if file.kind == "packs":
            return file.name not in self.packs and not _has(self._claimed.packs, file.name)
        return not _has(self.live, file.name) and not _has(self._claimed.objects, file.name)


def _has(table: Table, name: bytes) -> bool:
    return len(table) > 0 and table.find(name) >= 0


class Collector:
    """One collection. Use once, within `one_at_a_time` unless dry.

    :param mark: see Mark.
    :param grace: seconds that a file lies in the trash.
    :param repack: rewrite packs that are mostly dead.
    :param dry: say what would be done, and write nothing.
    :ivar check_alone: what `one_at_a_time` yielded. :ivar taken: packs and objects that were moved to the trash; nothing in them is needed but what is
        in `made`. :ivar made: packs that this collection made. :ivar keeps_trash: see Plan.
    """

    def __init__(self, store: Store, mark: Mark, grace: float, repack: bool, dry: bool) -> None:
        self._store, self._mark, self._grace, self._repack, self._dry = store, mark, grace, repack, dry
        self._trash = Trash(store, grace)
        self.check_alone: t.Callable[[], None] = lambda: None
        self._doubled: t.Set[bytes] = set()
        self.taken = Table(0)
        self.made: t.List[bytes] = []
        self.keeps_trash = self._rotten = False
        self.warnings: t.List[str] = []

    def __call__(self) -> Collected:
        if not self._store.exists:
            return Collected()
        needed = _Needed(self._store, self._mark)
        with self._store.lock():
            plan = self._plan(needed)
        return self._foresee(plan, needed) if self._dry else self._carry_out(plan, needed)

    # ---- the plan

    def _plan(self, needed: _Needed) -> Plan:
        needed.mark()
        needed.locate()
        back = self._clear_trash(needed)
        index = self._store.index
        there = index.packs
        if self._store.has_newer_packs:
            raise newer(f"Something in store {self._store.path}")
        damaged = len(index.damaged)
        self.keeps_trash = keeps_trash = bool(damaged or needed.lacking or self._rotten)
        if keeps_trash:
            self.warnings.append(
                f"{damaged} damaged pack(s), and {len(needed.lacking)} blob(s) that backups need are missing; the trash was kept, because it may hold some of"
                " them. Run volt_cas_verify with repair: true."
            )
        if nfs.has_local_locks(self._store.path):
            self.warnings.append(
                f"Store {self._store.path}: its NFS mount has local locks, so runs on other hosts are not seen, and what they need can be deleted. If other"
                " hosts use the store, mount it without nolock and local_lock."
            )
        if not self._dry:
            self._doubled = index.doubled(there.keys() - needed.packs.keys(), needed.live)
        return Plan(
            trash={} if keeps_trash else self._trash.due(back),
            dead=DeadFiles(itertools.chain(_dead_objects(self._store, needed), _dead_packs(self._store, needed))),
            rewrite=_packs_to_rewrite(self._store, needed) if self._repack else [],
            keeps_trash=keeps_trash,
        )

    def _foresee(self, plan: Plan, needed: _Needed) -> Collected:
        """What carrying out the plan would do."""
        trashed = plan.dead.tally
        superseded: t.List[bytes] = []
        written = 0
        if plan.rewrite:
            with Transaction(self._store, dry=True) as transaction:
                superseded, written = self._rewrite(plan.rewrite, needed, transaction)
        for name in superseded:
            for file in _forms(self._store, "packs", name):
                trashed = trashed.plus(file.size)
        freed = FileCount(sum(tally.files for tally in plan.trash.values()), sum(tally.bytes for tally in plan.trash.values()))
        if self._grace == 0 and not plan.keeps_trash:
            freed = FileCount(freed.files + trashed.files, freed.bytes + trashed.bytes)
        return Collected(*freed, *trashed, len(superseded), written, len(needed.live))

    # ---- carrying it out

    def _carry_out(self, plan: Plan, needed: _Needed) -> Collected:
        trash, written, rewritten = self._trash, 0, 0
        trash.empty(plan.trash)
        _settle(self._store)
        self._sweep(plan, plan.dead, needed)
        if plan.rewrite:
            try:
                superseded, written = self._rewrite_packs(plan.rewrite, needed)
                rewritten = len(superseded)
                self._sweep(plan, DeadFiles(file for name in superseded for file in _forms(self._store, "packs", name)), needed)
            except StoreFull as error:  # a full disk may have no space for this; what was freed without it still counts
                self.warnings.append(f"Garbage collection is not complete. {error.message}")
        trash.close()
        return Collected(*trash.freed, *trash.moved, rewritten, written, len(needed.live))

    def _sweep(self, plan: Plan, dead: DeadFiles, needed: _Needed) -> None:
        """Move to the trash what is dead still, in slices."""
        while dead:
            self.check_alone()
            taken = self._take(dead, needed)
            back = self._put_back(needed, taken)
            for file in taken:
                if file not in back and self.taken.find(file.name) < 0 and file.name not in self._doubled:
                    self.taken.add(file.name, b"")
        if self._grace == 0 and not plan.keeps_trash:
            self.check_alone()
            self._trash.empty(self._trash.due())

    def _take(self, dead: DeadFiles, needed: _Needed) -> t.Dict[Dead, str]:
        """One slice: what was moved, and where it lies now."""
        taken: t.Dict[Dead, str] = {}
        until = time.monotonic() + _SLICE
        with self._trash.moving() as take:
            while dead and time.monotonic() < until:
                file = dead.pop()
                try:
                    path = take(file) if needed.is_dead(file) else None
                except StoreFull:
                    if self._grace:
                        raise
                    self._delete_alone(file, needed)
                    continue
                if path is not None:
                    taken[file] = path
        return taken

    def _delete_alone(self, file: Dead, needed: _Needed) -> None:
        """Delete a file where a full disk has no room even for moving it. That needs a moment in which no other run lives."""
        with self._store.gate():
            if needed.mark():
                raise StoreFull("The store's file system is too full to move files to the trash; wait until the other runs end, then run again.")
            needed.locate()
            if needed.is_dead(file):
                self._trash.delete(file)

    def _put_back(self, needed: _Needed, moved: t.Mapping[Dead, str]) -> t.Set[Dead]:
        """Put back what is claimed or needed of what was moved; only now is it known of the rest that it is dead. What was put back."""
        known = set(needed.lacking)
        needed.mark()
        needed.locate()
        back = {file for file in moved if not needed.is_dead(file)}
        back |= self._holders(needed.lacking - known, moved)
        for file in back:
            self._trash.put_back(file, moved[file])
        if back:
            self._store.refresh()
            needed.locate_anew()
        return back

    def _clear_trash(self, needed: _Needed) -> t.Set[str]:
        """Put back what is claimed or needed of what lies in the trash from earlier. A dry one leaves it there, and tells the paths."""
        trash = self._trash.found()
        back = {file for file in trash if not needed.is_dead(file) and not any(_forms(self._store, file.kind, file.name))}
        back |= self._holders(needed.lacking, trash)
        self._rotten = any(self._is_rotten(file, needed) for file in trash)
        if self._dry:
            needed.lacking -= {file.name for file in back}.union(*(self._contents(trash[file], file) for file in back if file.kind == "packs"))
        elif back:
            for file in back:
                self._trash.put_back(file, trash[file], earlier=True)
            self._store.refresh()
            needed.locate_anew()
        return {trash[file] for file in back} if self._dry else set()

    def _is_rotten(self, file: Dead, needed: _Needed) -> bool:
        """Whether the trash has a file that is needed, and that in its place is damaged."""
        return file.kind == "objects" and not needed.is_dead(file) and any(_forms(self._store, *file[:2])) and self._store.object_form(file.name) is None

    def _holders(self, lacking: t.AbstractSet[bytes], moved: t.Mapping[Dead, str]) -> t.Set[Dead]:
        """The packs in the trash, of those that no table tells of, that have blobs which are found nowhere else."""
        index = self._store.index
        unknown = ((file, path) for file, path in moved.items() if file.kind == "packs" and not index.is_moved(file.name)) if lacking else ()
        return {file for file, path in unknown if not lacking.isdisjoint(self._contents(path, file))}

    @staticmethod
    def _contents(path: str, file: Dead) -> t.Set[bytes]:
        """The blobs of a pack in the trash; none where it cannot be read."""
        try:
            data = codec.decompress(layout.read_blob_file(path, 2 * pack.PACK_MOST), file.suffix, pack.PACK_MOST)
            return {digest for digest, _offset, _length in pack.parse(data, file.name)}
        except Interrupted:
            raise
        except VoltError:
            return set()

    def _rewrite_packs(self, chosen: t.List[bytes], needed: _Needed) -> t.Tuple[t.List[bytes], int]:
        """Rewrite packs, durably: (packs whose blobs are all in others now, bytes written)."""
        with Transaction(self._store) as transaction:
            needed.mark()
            needed.locate_anew()
            self._doubled |= self._store.index.doubled(set(chosen), needed.live)
            superseded, written = self._rewrite(chosen, needed, transaction)
            needed.locate_anew()
            return superseded, written

    def _rewrite(self, chosen: t.List[bytes], needed: _Needed, transaction: Transaction) -> t.Tuple[t.List[bytes], int]:
        there = set(self._store.index.packs)
        copied = [name for name in chosen if name in there and self._copy(transaction, name, needed.live)]
        if not copied:
            return [], 0
        transaction.commit(folding="none")  # all are folded at the end
        made = transaction.blobs.sealed()
        self.made = list(made)
        # a new pack may come out as one that was there
        return [name for name in copied if name not in made], sum(size for name, size in made.items() if name not in there)

    def _copy(self, transaction: Transaction, name: bytes, live: Table) -> bool:
        """Put the live blobs of a pack into new packs; False where the pack is damaged, and stays."""
        index = self._store.index
        try:
            data = index.read_pack(name, t.cast(PackFile, index.pack(name)).suffix)
            entries = pack.parse(data, name)
        except Damaged as error:
            index.condemn(name, error.message)
            self.warnings.append(f"{error.message} It was not changed; run volt_cas_verify with repair: true.")
            return False
        kind, start = pack.kind(data), pack.first_blob(data)
        for digest, offset, length in entries:
            if live.find(digest) >= 0:
                place = index.find(digest)
                if place is not None and place[0] == name:
                    transaction.blobs.move(kind, digest, data[start + offset : start + offset + length])
        return True


def compact(store: Store, warnings: t.List[str]) -> None:
    """Write the index anew without what is gone, once the marks are no longer in memory."""
    try:
        with Transaction(store) as transaction:
            transaction.commit(folding="all")
    except StoreFull as error:
        warnings.append(f"The index was not rewritten. {error.message}")


# ---- what is dead


def _forms(store: Store, kind: str, name: bytes) -> t.Iterator[Dead]:
    """The files that there are of a pack or an object in their place, in whatever form."""
    place = layout.pack_path if kind == "packs" else layout.object_path
    for suffix in codec.SUFFIXES:
        try:
            size = os.lstat(store.full_path(place(name, suffix))).st_size
        except FileNotFoundError:
            continue
        yield Dead(kind, name, suffix, size)


def _dead_packs(store: Store, needed: _Needed) -> t.Iterator[Dead]:
    """In all of their forms. Sizes are those that the index has just seen: 100,000 packs are not looked at twice."""
    packs = store.index.packs
    for shard in _SHARDS:
        for file in layout.shard_names(store.path, "packs", shard):
            match = layout.PACK_NAME.match(file)
            name = bytes.fromhex(match[1]) if match and file[:2] == shard else b""
            found = packs.get(name)
            if match and found is not None and name not in needed.packs:
                if match[2] == found.suffix:
                    yield Dead("packs", name, match[2], found.state[0])
                else:
                    with contextlib.suppress(FileNotFoundError):  # a dry run beside a true one
                        yield Dead("packs", name, match[2], os.lstat(store.full_path(f"packs/{shard}/{file}")).st_size)


def _dead_objects(store: Store, needed: _Needed) -> t.Iterator[Dead]:
    for shard in _SHARDS:
        path = store.full_path(f"objects/{shard}")
        for name in layout.shard_names(store.path, "objects", shard):
            match = layout.OBJECT_NAME.match(name)
            if match and name[:2] == shard and needed.live.find(bytes.fromhex(match[1])) < 0:
                with contextlib.suppress(FileNotFoundError):  # a dry run beside a true one
                    yield Dead("objects", bytes.fromhex(match[1]), match[2], os.lstat(os.path.join(path, name)).st_size)


def _packs_to_rewrite(store: Store, needed: _Needed) -> t.List[bytes]:
    """Packs of which less than half is live, and small ones where there are others to merge them with; the oldest first."""
    packs = store.index.packs
    mostly_dead: t.Dict[int, t.List[bytes]] = {}
    small: t.Dict[int, t.List[bytes]] = {}
    for name, live in needed.packs.items():
        if name not in packs:
            continue
        dying = 2 * live < packs[name].plain
        if dying or packs[name].plain < _SMALL:
            try:
                kind = pack.kind(store.index.read_pack(name, packs[name].suffix))
            except Damaged:
                continue
            (mostly_dead if dying else small).setdefault(kind, []).append(name)
    chosen: t.List[bytes] = []
    for kind in (pack.CONTENT, pack.METADATA):
        half, merge = mostly_dead.get(kind, []), small.get(kind, [])
        if half or len(merge) > 1:
            chosen += half + merge
    return sorted(chosen, key=lambda name: (packs[name].state[1], name))


def _settle(store: Store) -> None:
    """Make deletions of backups durable before what they referred to goes."""
    with store_errors("syncing it"), Closing(files.open_directory(store.path, follow=True)) as fd:
        kernel.syncfs(fd)
