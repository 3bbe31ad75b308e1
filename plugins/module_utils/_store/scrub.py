# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Reading every file of a store to see whether it is what its name says, a piece of the store at a time.

Names are digests, so they are spread evenly: a twentieth of all possible names is a twentieth of the store, whatever is added or collected
meanwhile. A *round* goes through all names in order; where it stopped is remembered (see `rounds`), and the next time goes on from there, around the
end and back to the beginning. So 5% a night reaches every file in 20 nights.

Nothing is held meanwhile. What a collection moves away is not looked at.
"""

from __future__ import annotations

import os
import threading
import time
import typing as t
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from .._base import Damaged, Progress, Unsupported, files
from . import codec, layout, pack
from .object_states import object_bound
from .rounds import SPACE
from .store import Store

_WORKERS = max(2, min(4, os.cpu_count() or 2))
_LONG = threading.Lock()
_KINDS = {"objects": layout.OBJECT_NAME, "packs": layout.PACK_NAME}


class StoreFile(t.NamedTuple):
    """A file that holds blobs. `kind` is objects or packs; `name` the digest that it is named by."""

    name: bytes
    kind: str
    suffix: str
    state: layout.State

    @property
    def path(self) -> str:
        """Below the store."""
        return layout.object_path(self.name, self.suffix) if self.kind == "objects" else layout.pack_path(self.name, self.suffix)


def fault(store: Store, file: StoreFile) -> t.Optional[str]:
    """What is wrong with a file's bytes, or None, also where it is not in its place any more. Any thread."""
    wrong = _fault(store, file)
    if wrong is not None and not files.is_gone(store.full_path(file.path)):
        return _fault(store, file)  # a collection may have moved it away, and back
    return None


def _fault(store: Store, file: StoreFile) -> t.Optional[str]:
    try:
        if file.kind == "objects":
            _read_object(store, file)
        else:
            pack.check(store.index.read_pack(file.name, file.suffix), file.name)
    except Damaged as error:
        return error.message
    except Unsupported:
        return None  # its bytes are those it is named by
    return None


def _read_object(store: Store, file: StoreFile) -> None:
    """Read an object; a long one alone, for together they would take too much memory."""
    usual = object_bound(file.suffix, file.state[0], 0)
    try:
        store.read_form(file.name, file.suffix, usual)
    except Damaged:
        if not file.suffix:
            raise
        with _LONG:
            store.read_form(file.name, file.suffix, object_bound(file.suffix, file.state[0]))


def forms(store: Store, kind: str, name: bytes) -> t.Iterator[StoreFile]:
    """The files that there are under a name, in whatever form."""
    for suffix in codec.SUFFIXES:
        file = StoreFile(name, kind, suffix, (0, 0))
        try:
            info = os.lstat(store.full_path(file.path))
        except OSError:
            continue
        yield file._replace(state=layout.state(info))


def _shard(store: Store, number: int) -> t.List[StoreFile]:
    """The files whose names begin with a byte, in order of their names."""
    found = []
    for kind, pattern in _KINDS.items():
        top = store.full_path(f"{kind}/{number:02x}")
        for name in layout.shard_names(store.path, kind, f"{number:02x}"):
            match = pattern.match(name)
            if match and int(name[:2], 16) == number:
                try:
                    info = os.lstat(os.path.join(top, name))
                except FileNotFoundError:
                    continue
                found.append(StoreFile(bytes.fromhex(match[1]), kind, match[2], layout.state(info)))
    return sorted(found)


class Scrub:
    """A walk through a piece of the store.

    :param begin: the first name, as a number below 2^256. :param span: how many names.
    :param until: time.monotonic() at which to stop, or None.
    :ivar faults: what was found false, with what is wrong. :ivar sound: what was found true and is not as it was when last hashed, as far as is known.
    :ivar at: the first name, as a number, that was not looked at. :ivar came: how many names were.
    """

    def __init__(self, store: Store, begin: int, span: int, until: t.Optional[float], progress: Progress) -> None:
        self._store, self._until, self._progress = store, until, progress
        self._left = min(span, SPACE)
        self.at = begin
        self.files = self.bytes = self.came = 0
        self.faults: t.List[t.Tuple[StoreFile, str]] = []
        self.sound: t.List[StoreFile] = []

    def __call__(self) -> None:
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="volt") as pool:
            while self._left and not self._is_late():
                self._piece(pool)

    def _is_late(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def _piece(self, pool: ThreadPoolExecutor) -> None:
        """From where we are to the end of the shard, of the piece, or of the time."""
        first, rounds = self.at, self._store.rounds
        number, since = first >> 248, rounds.begin(first)
        end = min((number + 1) << 248, first + self._left)
        stop = end
        waiting: t.Deque[t.Tuple[StoreFile, Future[t.Optional[str]]]] = deque()
        for file in _shard(self._store, number):
            value = int.from_bytes(file.name, "big")
            if not first <= value < end:
                continue
            if waiting and file.name != waiting[-1][0].name and self._is_late():
                stop = value  # never between two forms of one name
                break
            waiting.append((file, pool.submit(fault, self._store, file)))
            while len(waiting) > 2 * _WORKERS:
                self._take(*waiting.popleft())
        for file, future in waiting:
            self._take(file, future)
        self._left -= stop - first
        self.came += stop - first
        self.at = stop % SPACE
        rounds.end(self.at, since)

    def _take(self, file: StoreFile, future: Future[t.Optional[str]]) -> None:
        wrong = future.result()
        self.files += 1
        self.bytes += file.state[0]
        self._progress(1, file.state[0])
        if wrong is not None:
            self.faults.append((file, wrong))
        elif not is_known(self._store, file):
            self.sound.append(file)


# ---- files that are false


def is_known(store: Store, file: StoreFile) -> bool:
    """Whether the index has a file's state as that in which it was hashed."""
    known = store.index.objects.find(file.name) if file.kind == "objects" else store.index.pack_state(file.name)
    return known == file.state


def confirm(store: Store, sound: t.Iterable[StoreFile]) -> None:
    """Remember the states in which files were found true. Before they are looked at."""
    for file in sound:
        if file.kind == "objects":
            store.index.objects.verified(file.name, file.state)
        else:
            store.index.pack_verified(file.name, file.state)


def holding(store: Store, digest: bytes) -> t.Tuple[str, bytes]:
    """(kind, name) of the file that a blob is in, or would be in if it were not missing."""
    place = store.index.find(digest)
    return ("packs", place[0]) if place is not None else ("objects", digest)


def condemn(store: Store, false: t.Iterable[t.Tuple[StoreFile, str]]) -> None:
    """Count files that were found false as missing from now on, with what is wrong with each."""
    index = store.index
    for file, wrong in false:
        if file.kind == "objects":
            index.objects.refuted(file.name, file.state, wrong)
        else:
            found = index.pack(file.name)
            if found is not None and found.suffix == file.suffix:  # another form of it may be sound
                index.condemn(file.name, wrong)


def found_meanwhile(store: Store, known: t.Container[StoreFile]) -> t.Iterator[t.Tuple[StoreFile, str]]:
    """Files beyond the known ones that others found false on their way: packs that changed since they were last hashed, objects that did."""
    for name, wrong in list(store.index.damaged.items()):
        for kind in _KINDS:
            for file in forms(store, kind, name):
                if file not in known and fault(store, file) is not None:
                    yield file, wrong
