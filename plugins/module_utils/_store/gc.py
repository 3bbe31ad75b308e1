# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Garbage collection: what no backup refers to leaves the store, in two steps, while others work. First a plan is made, then it is carried out.

::

    plan, shared:       mark all that is referred to
                        list packs and objects without a mark, packs that are to be rewritten, trash that has lain for the grace period
    carry out, shared:  empty the trash
               alone:   mark what came meanwhile; move to the trash what the plan lists and has no mark still
               shared:  rewrite packs that are mostly dead, or tiny: their live blobs go into new packs, durable before anything else happens
               alone:   mark what came meanwhile; move the old packs to the trash
               shared:  write the index anew

Check mode makes the plan, and rewrites packs without writing to know what that would save.

*Alone* comes in slices of a few seconds. When it begins, no other process is at work: every backup either has its manifest, which is marked now, or will
never have one, for its run is dead. So whatever has no mark at that moment is garbage for ever, until a run stores it again. What has become
garbage since the plan was made is for the next collection.

If the file `lock` was removed, a run may be at work during a slice. Its directory in tmp/ shows that. Then the files that the slice moved are put back, and
the collection ends with an error.

Nothing depends on what an earlier collection knew. One that is killed has moved less, or leaves a pack beside its replacement, in which no
blob is then found any more: the next one moves it.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import struct
import time
import typing as t

from .._base import Damaged, LockLost, StoreError, StoreFull, files, is_at, kernel, locked, newer, reason, store_failure
from . import codec, layout, pack
from .store import Store
from .table import Table
from .transaction import Transaction

#: Seconds for which the store is held alone, and left to others in between.
_SLICE, _BREATH = 2.0, 0.3
#: Packs of a smaller plain size are merged.
_SMALL = 256 << 10
_SHARDS = [f"{number:02x}" for number in range(256)]


class Mark(t.Protocol):
    """Marks the blobs that backups need."""

    def __call__(self, live: Table, until: t.Optional[float] = None) -> bool:
        """Add every digest that can be reached, and was not added by an earlier call, to a table; raise where not all can be known.

        With a time (of time.monotonic) it may return False when that has passed, to be called again.
        """


class FileCount(t.NamedTuple):
    """A number of files, and their bytes as stored."""

    files: int = 0
    bytes: int = 0

    def plus(self, size: int) -> FileCount:
        return FileCount(self.files + 1, self.bytes + size)


class Dead(t.NamedTuple):
    """A file of the store that held nothing live when it was listed. `name` is the digest that it is named by; sizes are in bytes."""

    kind: str
    name: bytes
    suffix: str
    size: int

    @property
    def file(self) -> str:
        """Its name in its shard."""
        return f"{self.name.hex()}{'.pack' if self.kind == 'packs' else ''}{self.suffix}"


class DeadFiles:
    """A list of dead files, taken from its end; a million of them take 42 MB.

    :ivar tally: of all that was added.
    """

    _RECORD = struct.Struct("=B32sBQ")
    _KINDS = ("objects", "packs")

    def __init__(self, found: t.Iterable[Dead] = ()) -> None:
        self._records = bytearray()
        self.tally = FileCount()
        for file in found:
            self._records += self._RECORD.pack(self._KINDS.index(file.kind), file.name, codec.SUFFIXES.index(file.suffix), file.size)
            self.tally = self.tally.plus(file.size)

    def __bool__(self) -> bool:
        return bool(self._records)

    def pop(self) -> Dead:
        last = len(self._records) - self._RECORD.size
        kind, name, suffix, size = self._RECORD.unpack_from(self._records, last)
        del self._records[last:]
        return Dead(self._KINDS[kind], name, codec.SUFFIXES[suffix], size)


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


@contextlib.contextmanager
def one_at_a_time(store: Store) -> t.Iterator[t.Callable[[], None]]:
    """Keep other collections and repairs out: both take files away, and each may count on what the other takes.

    It yields a check. The check raises LockLost if the directory that serves as the lock was removed.
    """
    trash, what = os.path.join(store.path, "trash"), f"the trash of store {store.path}"
    fd = t.cast(int, locked(lambda: _open_trash(trash), trash, fcntl.LOCK_EX, time.monotonic() + store.lock_timeout, what))

    def check() -> None:
        if not is_at(fd, trash):
            raise LockLost(f"Store {store.path}: the directory trash was removed or replaced during this run; run again.", store=store.path)

    try:
        yield check
    finally:
        os.close(fd)


def _open_trash(path: str) -> int:
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        return files.open_directory(path)
    except OSError as error:
        raise store_failure("opening its trash", error) from None


class _Needed:
    """What backups need: live blobs, and how many plain bytes of each pack they are. Grows as backups come."""

    def __init__(self, store: Store, mark: Mark) -> None:
        self._store, self._mark = store, mark
        self.live = Table(0, store.index.count())
        self.lacking = 0
        self.packs: t.Dict[bytes, int] = {}
        self._located = 0

    def mark(self, until: t.Optional[float] = None) -> bool:
        """Mark what came since the last call; False where the time was over before that."""
        return self._mark(self.live, until)

    def locate(self) -> None:
        """Find the packs of what was marked since the last call."""
        index, live, packs = self._store.index, self.live, self.packs
        index.load()
        for position in range(self._located, len(live)):
            place = index.find(live.digest(position))
            if place is not None:
                packs[place[0]] = packs.get(place[0], 0) + place[2] + pack.ENTRY.size
            elif index.is_gone(live.digest(position)):
                self.lacking += 1
        self._located = len(live)

    def locate_anew(self) -> None:
        """The same for everything, after blobs have moved to other packs."""
        self.packs, self._located, self.lacking = {}, 0, 0
        self.locate()

    def is_dead(self, file: Dead) -> bool:
        return (file.name not in self.packs) if file.kind == "packs" else self.live.find(file.name) < 0


class Collector:
    """One collection. Use once, within `one_at_a_time` unless dry.

    :param mark: see Mark; called under the lock.
    :param grace: seconds that a file lies in the trash.
    :param repack: rewrite packs that are mostly dead.
    :param dry: say what would be done, and write nothing.
    :ivar check_alone: what `one_at_a_time` yielded. :ivar taken: packs and objects that were moved to the trash; nothing in them is needed but what is
        in `made`. :ivar made: packs that this collection made. :ivar keeps_trash: see Plan.
    """

    def __init__(self, store: Store, mark: Mark, grace: float, repack: bool, dry: bool) -> None:
        self._store, self._mark, self._grace, self._repack, self._dry = store, mark, grace, repack, dry
        self._trash = _Trash(store, grace)
        self.check_alone: t.Callable[[], None] = lambda: None
        self._doubled: t.Set[bytes] = set()
        self.taken = Table(0)
        self.made: t.List[bytes] = []
        self.keeps_trash = False
        self.warnings: t.List[str] = []

    def __call__(self) -> Collected:
        if not self._store.exists:
            return Collected()
        with self._store.lock():
            needed = _Needed(self._store, self._mark)
            plan = self._plan(needed)
        return self._foresee(plan, needed) if self._dry else self._carry_out(plan, needed)

    # ---- the plan

    def _plan(self, needed: _Needed) -> Plan:
        """Under the shared lock."""
        needed.mark()
        needed.locate()
        index = self._store.index
        if self._store.has_newer_packs:
            raise newer(f"Something in store {self._store.path}")
        damaged = len(index.damaged)
        self.keeps_trash = keeps_trash = bool(damaged or needed.lacking)
        if keeps_trash:
            self.warnings.append(
                f"{damaged} damaged pack(s), and {needed.lacking} blob(s) that backups need are missing; the trash was kept, because it may hold some of"
                " them. Run volt_cas_verify with repair: true."
            )
        if not self._dry:
            self._doubled = index.doubled(index.packs.keys() - needed.packs.keys(), needed.live)
        return Plan(
            trash={} if keeps_trash else self._trash.due(),
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
            for file in _forms(self._store, name):
                trashed = trashed.plus(file.size)
        freed = FileCount(sum(tally.files for tally in plan.trash.values()), sum(tally.bytes for tally in plan.trash.values()))
        if self._grace == 0 and not plan.keeps_trash:
            freed = FileCount(freed.files + trashed.files, freed.bytes + trashed.bytes)
        return Collected(*freed, *trashed, len(superseded), written, len(needed.live))

    # ---- carrying it out

    def _carry_out(self, plan: Plan, needed: _Needed) -> Collected:
        trash, written, rewritten = self._trash, 0, 0
        with self._store.lock():
            trash.empty(plan.trash)
        _settle(self._store)
        self._sweep(plan, plan.dead, needed)
        if plan.rewrite:
            try:
                superseded, written = self._rewrite_packs(plan.rewrite, needed)
                rewritten = len(superseded)
                self._sweep(plan, DeadFiles(file for name in superseded for file in _forms(self._store, name)), needed)
            except StoreFull as error:  # a full disk may have no space for this; what was freed without it still counts
                self.warnings.append(f"Garbage collection is not complete. {error.message}")
        return Collected(*trash.freed, *trash.moved, rewritten, written, len(needed.live))

    def _sweep(self, plan: Plan, dead: DeadFiles, needed: _Needed) -> None:
        """Move to the trash what is dead still, in slices. Long marking is done beforehand, beside others."""
        store = self._store
        while dead:
            with store.alone():
                self.check_alone()
                self._take(dead, needed, time.monotonic() + _SLICE)
            time.sleep(_BREATH)  # readers that have waited come in now
            with store.lock():
                needed.mark()
        if self._grace == 0 and not plan.keeps_trash:
            self._trash.empty(self._trash.due())

    def _take(self, dead: DeadFiles, needed: _Needed, until: float) -> None:
        """One slice. Where the lock's file is removed during it, a run may have begun, and have seen what was then moved: all is put back."""
        if not needed.mark(until):
            return
        needed.locate()
        taken: t.List[Dead] = []
        while dead and time.monotonic() < until:
            file = dead.pop()
            if needed.is_dead(file):
                self._trash.take(file)
                taken.append(file)
        try:
            self._store.check_covered()
        except LockLost:
            for file in taken:
                self._trash.put_back(file)
            raise
        for file in taken:
            if self.taken.find(file.name) < 0 and file.name not in self._doubled:
                self.taken.add(file.name, b"")

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
            data = index.read_pack(name, index.packs[name].suffix)
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


def _forms(store: Store, name: bytes) -> t.Iterator[Dead]:
    """The files that there are of a pack, in whatever form."""
    for suffix in codec.SUFFIXES:
        try:
            size = os.lstat(store.full_path(layout.pack_path(name, suffix))).st_size
        except FileNotFoundError:
            continue
        yield Dead("packs", name, suffix, size)


def _dead_packs(store: Store, needed: _Needed) -> t.Iterator[Dead]:
    for name in store.index.packs:
        if name not in needed.packs:
            yield from _forms(store, name)


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


# ---- the trash


class _Trash:
    """The store's trash: a directory for each collection, named by the time of it.

    :ivar freed: what was deleted for good. :ivar moved: what was moved here.
    """

    def __init__(self, store: Store, grace: float) -> None:
        self._store, self._grace = store, grace
        self._path = os.path.join(store.path, "trash")
        self._bin = os.path.join(self._path, f"{time.time_ns():020d}-{os.getpid()}")
        self.freed, self.moved = FileCount(), FileCount()

    def due(self) -> t.Dict[str, FileCount]:
        """What has lain long enough, by name. A name tells since when; one from the future (the clock was wrong) waits for its time."""
        try:
            names = os.listdir(self._path)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StoreError(f"The trash of store {self._store.path} cannot be listed: {reason(error)}; fix that, then run again.") from None
        found = {}
        for name in names:
            began = name.partition("-")[0]
            if began.isascii() and began.isdigit() and time.time() - int(began) / 1e9 >= self._grace:
                found[name] = FileCount(*self._store.files_below(f"trash/{name}"))
        return found

    def empty(self, due: t.Mapping[str, FileCount]) -> None:
        """Delete for good."""
        for name, tally in due.items():
            try:
                shutil.rmtree(os.path.join(self._path, name))
            except OSError as error:
                raise store_failure(f"emptying its trash of {name}", error) from None
            self.freed = FileCount(self.freed.files + tally.files, self.freed.bytes + tally.bytes)

    def take(self, file: Dead) -> None:
        """Move a file here. Where a full disk has no room even for that, and the trash is to be emptied anyway, delete it."""
        path = self._store.full_path(f"{file.kind}/{file.file[:2]}/{file.file}")
        try:
            os.makedirs(os.path.join(self._bin, file.kind), mode=0o700, exist_ok=True)
            os.rename(path, os.path.join(self._bin, file.kind, file.file))
        except FileNotFoundError:
            return  # removed by hand
        except OSError as error:
            failure = store_failure("moving a file to its trash", error)
            if not isinstance(failure, StoreFull):
                raise failure from None
            if self._grace:
                raise StoreFull("The store's file system is too full to move files to the trash; run volt_cas_gc with grace: 0s.") from None
            self._store.check_covered()  # what is deleted cannot be put back
            os.unlink(path)
            self.freed = self.freed.plus(file.size)
        self.moved = self.moved.plus(file.size)

    def put_back(self, file: Dead) -> None:
        """Give a file back its name, unless a run has stored the same content anew."""
        path = self._store.full_path(f"{file.kind}/{file.file[:2]}/{file.file}")
        try:
            if not os.path.lexists(path):
                os.rename(os.path.join(self._bin, file.kind, file.file), path)
        except OSError as error:
            raise store_failure(f"restoring {file.file} from its trash", error) from None


def _settle(store: Store) -> None:
    """Make deletions of backups durable before what they referred to goes."""
    try:
        fd = files.open_directory(store.path, follow=True)
        try:
            kernel.syncfs(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise store_failure("syncing it", error) from None
