# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Garbage collection: what no backup refers to leaves the store, in two steps, while others work.

::

    shared:     mark all that is referred to; empty the trash of what has lain there for the grace period
    alone:      mark what came meanwhile; move to the trash objects without a mark, and packs in which nothing has one
    shared:     rewrite packs that are mostly dead, or tiny: their live blobs go into new packs, durable before anything else happens
    alone:      mark what came meanwhile; move the old packs to the trash
    shared:     write the index anew

*Alone* comes in slices of a few seconds. When it begins, nobody else is at work: every backup either has its manifest, which is marked now, or will
never have one, for its run is dead. So whatever has no mark at that moment is garbage for ever, until a run stores it again.

Nothing depends on what an earlier collection knew. One that is killed has moved less, or leaves a pack beside its replacement, in which no
blob is then found any more: the next one moves it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
import typing as t

from .._base import files, kernel
from .._base.errors import Damaged, StoreError, StoreFull, reason, store_failure
from .._base.locks import wait
from . import codec, layout, pack
from .index import Index
from .lock import Lock
from .store import Store
from .table import Table
from .transaction import Run

#: Seconds for which the store is held alone, and left to others in between.
_SLICE, _BREATH = 2.0, 0.3
#: Packs of a smaller plain size are merged.
_SMALL = 256 << 10
_SHELVES = [f"{number:02x}" for number in range(256)]


class Mark(t.Protocol):
    """Marks the blobs that backups need."""

    def __call__(self, live: Table, until: t.Optional[float] = None) -> bool:
        """Add every digest that can be reached, and was not added by an earlier call, to a table; raise where not all can be known.

        With a time (of time.monotonic) it may return False when that has passed, to be called again.
        """


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
def alone(store: Store) -> t.Iterator[None]:
    """Keep other collections and repairs out: both take files away, and each may count on what the other takes."""
    trash = os.path.join(store.path, "trash")
    try:
        os.makedirs(trash, mode=0o700, exist_ok=True)
        fd = files.open_directory(trash)
    except OSError as error:
        raise store_failure("opening its trash", error) from None
    try:
        wait(fd, fcntl.LOCK_EX, time.monotonic() + store.lock_timeout, f"the trash of store {store.path}")
        yield
    finally:
        os.close(fd)


class Collector:
    """One collection. Use once.

    :param mark: see Mark; called under the lock.
    :param grace: seconds that a file lies in the trash.
    :param repack: rewrite packs that are mostly dead.
    :param dry: count, and write nothing.
    """

    def __init__(self, store: Store, mark: Mark, grace: float, repack: bool, dry: bool) -> None:
        self._store, self._mark, self._grace, self._repack_too, self._dry = store, mark, grace, repack, dry
        self._index = Index(store.path)
        self._live = Table(0)
        self._needed: t.Dict[bytes, int] = {}
        self._located = 0
        self._freed = [0, 0]
        self._moved = [0, 0]
        self._repacked = self._written = self._lacking = 0
        self._lacks = False
        self._kinds: t.Dict[bytes, int] = {}
        self._trash = os.path.join(store.path, "trash")
        self._bin = os.path.join(self._trash, f"{time.time_ns():020d}-{os.getpid()}")
        self.warnings: t.List[str] = []

    def __call__(self) -> Collected:
        if not self._store.exists:
            return Collected()
        with contextlib.nullcontext() if self._dry else alone(self._store):
            with self._store.lock():
                self._store.index.load()
                self._live = Table(0, self._store.index.count())
                self._mark(self._live)
                self._locate(self._store.index)
                dead = [name for name in self._index.packs if name not in self._needed]
                self._warn_of_damage()
                self._empty_trash()
                if self._dry:
                    self._sweep_slice(list(_SHELVES), dead, None)
            if not self._dry:
                self._settle()
                self._sweep(list(_SHELVES), dead)
            if self._repack_too:
                self._attempt(self._repack)
        if self._dry and self._grace == 0 and not self._lacks:
            self._freed = [a + b for a, b in zip(self._freed, self._moved)]
        return Collected(*self._freed, *self._moved, self._repacked, self._written, len(self._live))

    # ---- trash

    def _empty_trash(self) -> None:
        """Delete what has lain long enough. A name tells when; one from the future (the clock was wrong) waits for its time.

        While anything is damaged or missing, the trash may be where it can still be had.
        """
        if self._lacks:
            return
        try:
            names = os.listdir(self._trash)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"The trash of store {self._store.path} cannot be listed: {reason(error)}.") from None
        for name in names:
            began = name.partition("-")[0]
            if not (began.isascii() and began.isdigit()) or time.time() - int(began) / 1e9 < self._grace:
                continue
            path = os.path.join(self._trash, name)
            for top, _directories, files_in in os.walk(path):
                for file in files_in:
                    try:
                        self._freed[1] += os.lstat(os.path.join(top, file)).st_size
                    except FileNotFoundError:
                        continue  # a dry run beside a true one
                    self._freed[0] += 1
            if not self._dry:
                try:
                    shutil.rmtree(path)
                except OSError as error:
                    raise store_failure(f"emptying its trash of {name}", error) from None

    def _discard(self, kind: str, name: str) -> None:
        """Move a file to the trash. Where a full disk has no room even for that, and the trash is to be emptied anyway, delete it."""
        path = self._store.full_path(f"{kind}/{name[:2]}/{name}")
        size = os.lstat(path).st_size
        if not self._dry:
            try:
                os.makedirs(os.path.join(self._bin, kind), mode=0o700, exist_ok=True)
                os.rename(path, os.path.join(self._bin, kind, name))
            except OSError as error:
                failure = store_failure("moving a file to its trash", error)
                if not isinstance(failure, StoreFull):
                    raise failure from None
                if self._grace:
                    raise StoreFull("The store's file system has no room even for moving files to the trash; collect with a grace of 0s.") from None
                os.unlink(path)
                self._freed[0] += 1
                self._freed[1] += size
        self._moved[0] += 1
        self._moved[1] += size

    # ---- what is needed

    def _locate(self, index: Index) -> None:
        """Find out which packs hold live blobs, and how many plain bytes of them."""
        self._index = index
        self._needed, self._located, self._lacking = {}, 0, 0
        self._locate_new()

    def _locate_new(self) -> None:
        find, live, needed = self._index.find, self._live, self._needed
        self._index.load()
        for position in range(self._located, len(live)):
            place = find(live.digest(position))
            if place is not None:
                needed[place[0]] = needed.get(place[0], 0) + place[2] + pack.ENTRY.size
            elif self._index.is_gone(live.digest(position)):
                self._lacking += 1
        self._located = len(live)

    def _warn_of_damage(self) -> None:
        damaged = len(self._index.damaged)
        self._lacks = bool(damaged or self._lacking)
        if self._lacks:
            self.warnings.append(
                f"{damaged} pack(s) of the store are damaged and {self._lacking} blob(s) that backups need are missing; what is in the trash was kept,"
                " for some of it may be there: run verify with repair."
            )

    # ---- sweeping

    def _settle(self) -> None:
        """Make deletions of backups durable before what they referred to goes."""
        try:
            fd = files.open_directory(self._store.path, follow=True)
            try:
                kernel.syncfs(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise store_failure("syncing it", error) from None

    def _sweep(self, shelves: t.List[str], packs: t.List[bytes]) -> None:
        """Move what is dead, in slices. Long marking is done beforehand, beside others."""
        store = self._store
        while shelves or packs:
            with Lock(store.path, store.lock_timeout, exclusive=True):
                until = time.monotonic() + _SLICE
                if self._mark(self._live, until):
                    self._locate_new()
                    self._sweep_slice(shelves, packs, until)
            time.sleep(_BREATH)  # readers that have waited come in now
            with store.lock():
                self._mark(self._live)
        if self._grace == 0:
            self._empty_trash()

    def _sweep_slice(self, shelves: t.List[str], packs: t.List[bytes], until: t.Optional[float]) -> None:
        """Move dead packs, then dead objects shelf by shelf; what is done leaves the lists."""
        late = self._late(until)
        while packs and not late():
            name = packs.pop()
            if name not in self._needed:
                for suffix in codec.SUFFIXES:
                    if os.path.lexists(self._store.full_path(layout.pack_path(name, suffix))):
                        self._discard("packs", f"{name.hex()}.pack{suffix}")
        while shelves and not late():
            if self._sweep_shelf(shelves[-1], late):
                shelves.pop()

    @staticmethod
    def _late(until: t.Optional[float]) -> t.Callable[[], bool]:
        return lambda: until is not None and time.monotonic() >= until

    def _sweep_shelf(self, shelf: str, late: t.Callable[[], bool]) -> bool:
        """Move one shelf's dead objects; whether it came to the end."""
        live = self._live
        path = self._store.full_path(f"objects/{shelf}")
        try:
            if os.path.islink(path):
                return True  # what lies behind it is not the store's
            names = os.listdir(path)
        except FileNotFoundError:
            return True
        except OSError as error:
            raise StoreError(f"Objects of store {self._store.path} cannot be listed: {reason(error)}.") from None
        for count, name in enumerate(names, 1):
            match = layout.OBJECT_NAME.match(name)
            if match and name[:2] == shelf and live.find(bytes.fromhex(match[1])) < 0:
                self._discard("objects", name)
            if count % 256 == 0 and late():
                return False
        return True

    # ---- repacking

    def _attempt(self, step: t.Callable[[], None]) -> None:
        """A step that needs space, which a full disk may not have: then what was freed without it still counts."""
        try:
            step()
        except StoreFull as error:
            self.warnings.append(f"Not all was collected. {error.message}")

    def _repack(self) -> None:
        store = self._store
        store.index = self._index = Index(store.path)  # lets go of the old one: each maps all tables
        with Run(store, dry=self._dry) as run:
            self._mark(self._live)
            self._locate(store.index)
            if self._dry:  # what a real run would have moved to the trash by now
                for name in [name for name in self._index.packs if name not in self._needed]:
                    self._index.packs.pop(name)
            chosen = [name for name in self._choose() if self._copy(run, name)]
            if not chosen:
                return
            there = set(self._index.packs)
            run.commit(folding="none")  # all are folded at the end
            made = run.sealed()
            superseded = [name for name in chosen if name not in made]  # a new pack may come out as one that was there
            self._written += sum(size for name, size in made.items() if name not in there)
            if self._dry:
                for name in superseded:
                    self._needed.pop(name)
                self._sweep_slice([], list(superseded), None)
            else:
                self._locate(store.index)
        self._repacked += len(superseded)
        if not self._dry:
            self._sweep([], superseded)

    def _choose(self) -> t.List[bytes]:
        """Packs of which less than half is live, and small ones where there are others to merge them with; the oldest first."""
        packs, needed = self._index.packs, self._needed
        chosen: t.List[bytes] = []
        for kind in (pack.CONTENT, pack.METADATA):
            half, small = [], []
            for name in needed:
                dying = 2 * needed[name] < packs[name].plain
                if (dying or packs[name].plain < _SMALL) and self._kind(name) == kind:
                    (half if dying else small).append(name)
            if half or len(small) > 1:
                chosen += half + small
        return sorted(chosen, key=lambda name: (packs[name].state[1], name))

    def _kind(self, name: bytes) -> int:
        if name not in self._kinds:
            try:
                self._kinds[name] = pack.kind(self._index.read_pack(name, self._index.packs[name].suffix))
            except Damaged:
                self._kinds[name] = -1
        return self._kinds[name]

    def _copy(self, run: Run, name: bytes) -> bool:
        """Put the live blobs of a pack into the run; False where the pack is damaged, and stays."""
        index, live = self._index, self._live
        try:
            data = index.read_pack(name, index.packs[name].suffix)
            entries = pack.parse(data, name)
        except Damaged as error:
            index.condemn(name, error.message)
            self.warnings.append(f"{error.message} It was left alone; run verify with repair.")
            return False
        kind, start = pack.kind(data), pack.first_blob(data)
        for digest, offset, length in entries:
            if live.find(digest) >= 0:
                place = index.find(digest)
                if place is not None and place[0] == name:
                    run.move(kind, digest, data[start + offset : start + offset + length])
        return True


def compact(store: Store, warnings: t.List[str]) -> None:
    """Write the index anew without what is gone, once the marks are no longer in memory."""
    try:
        with Run(store) as run:
            run.commit(folding="all")
    except StoreFull as error:
        warnings.append(f"The index was not written anew. {error.message}")
