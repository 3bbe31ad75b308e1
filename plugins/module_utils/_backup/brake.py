# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The brake: a backup that has lost far more than its history shows is *suspect*, and pushes no good one out.

::

    compare with the newest good backup of the same source and rules, and with the tenth newest (or the oldest), so that slow loss adds up
        shrunk    files with content are fewer than before by more than max_shrink percent, or others have taken their place;
                  or they have become fewer in every run, by a third of that in seven runs
        lost      more than max_churn percent of the files were replaced by what looks encrypted or wiped (`content.is_lost`):
                  under their own names, or by others that came while they went
    both count from 50 files on, and not where the workload's history shows the like

New names for content that was there before are a move. What the files hold is looked at in samples, and only where enough of them were replaced.
`benchmarks/brake.py` measures how often this errs.
"""

from __future__ import annotations

import os
import re
import typing as t
from collections import Counter

from .._base import Damaged, Unsupported, UsageError, files, show
from .._format import chunks, diff, tree
from .._format.tree import CHUNKED, DIRECTORY, FILE, Entry, Read
from .._format.walk import join, walk
from .._store.store import Store
from . import content
from .records import Sidecar

#: Percent of files beyond which a loss is suspect, unless a user says otherwise.
MAX_SHRINK, MAX_CHURN = 50, 5
#: Smaller workloads are not judged: an everyday change replaces a few files.
LEAST_FILES = 50
#: Which good backup slow loss is counted from: so many back, or the oldest.
OLDER = 10
#: File counts that a sidecar remembers.
REMEMBERED = 64
#: Files that are looked at, of those that changed, came and went each.
_SAMPLE = 128
#: Below this share of replaced files, none of them is looked at.
_LOOK = 0.01
#: Backups that show what is usual, and how far beyond that is too much.
_RECENT, _BEYOND = 5, 3
#: Runs in each of which files became fewer: so many at least, and at most so many are looked at; and which part of max_shrink is too much for them.
_FEWEST, _MOST, _STEADY = 5, 7, 1 / 3
#: Endings of names that tell a format, and those that a compressor adds.
_ENDING = re.compile(rb"\.([A-Za-z][A-Za-z0-9]{0,4})\Z")
_PACKED = re.compile(rb"\.(?:gz|bz2|xz|zst|lz4|lzma|br|Z)\Z")

#: How a file begins: (path, entry) -> its first `content.HEAD` bytes. Damaged, Unsupported or OSError where it cannot be read.
Heads = t.Callable[[bytes, Entry], bytes]
_File = t.Tuple[bytes, Entry]
_Any = t.TypeVar("_Any")


def check_percent(name: str, value: int) -> None:
    """UsageError for a limit that is no percentage."""
    if not 0 <= value <= 100:
        raise UsageError(f"Option {name} must be a percentage from 0 (off) to 100, and {value} is not.")


class Verdict(t.NamedTuple):
    """What is found of a new backup. `reason` is empty where it fits; the others are for its sidecar, to judge later ones by, the newest first."""

    reason: str
    lost_counts: t.List[int]
    file_counts: t.List[int]

    def marks(self) -> Sidecar:
        """What a new sidecar says of it; people have said nothing yet."""
        return Sidecar(
            suspect=bool(self.reason),
            suspect_reason=self.reason or None,
            lost_counts=self.lost_counts,
            file_counts=self.file_counts,
            accepted_by=None,
            accepted_at=None,
            protected=False,
            protected_by=None,
            protected_at=None,
        )


class Loss(t.NamedTuple):
    """Files of an earlier backup that were replaced by what looks encrypted or wiped: how many, as samples tell, and the path of one."""

    files: int = 0
    example: bytes = b""


class Earlier(t.NamedTuple):
    """A good backup that the new one is compared with."""

    sidecar: Sidecar
    root: Entry
    back: int


class Brake:
    """Judges new backups of one workload, source and rules.

    :param earlier: the newest good backup, and an older one, each with how many good backups back it is (1: the newest).
    :param max_shrink: percent; 0 for off. :param max_churn: likewise.
    """

    def __init__(self, store: Store, earlier: t.Sequence[Earlier], max_shrink: int, max_churn: int) -> None:
        self._store, self._earlier = store, earlier
        self._max_shrink, self._max_churn = max_shrink, max_churn

    def __call__(self, root: Entry, files: int, read: Read, heads: Heads) -> Verdict:
        """:param root: of the new backup. :param files: how many it has. :param read: reads its trees. :param heads: reads its files."""
        if not self._earlier:
            return Verdict("", [0], [files])
        newest, *older = self._earlier
        counts, losses = newest.sidecar["file_counts"] or [newest.sidecar["file_count"]], newest.sidecar["lost_counts"]
        if newest.root.content == root.content:
            return Verdict("", [0, *losses][:REMEMBERED], [counts[0], *counts][:REMEMBERED])
        change = Replacement(self._store, newest.root, root, read, heads)
        count, loss = max(0, counts[0] + change.came - change.gone), self._loss(change, newest.sidecar)
        reason = self._shrunk(count, counts, newest.sidecar) or self._churned(loss, newest, losses) or self._exchanged(change, newest.sidecar)
        for one in older if not reason else ():
            known = one.sidecar["lost_counts"]
            usual = known if len(known) >= _RECENT else losses  # what was usual then; the youngest history tells only of itself
            reason = self._churned(self._loss(Replacement(self._store, one.root, root, read, heads), one.sidecar), one, usual)
        return Verdict(reason, [loss.files, *losses][:REMEMBERED], [count, *counts][:REMEMBERED])

    def _loss(self, change: Replacement, earlier: Sidecar) -> Loss:
        judged = self._max_churn and earlier["file_count"] >= LEAST_FILES
        return change.loss(_LOOK * earlier["file_count"]) if judged else Loss()

    def _shrunk(self, count: int, before: t.Sequence[int], newest: Sidecar) -> str:
        """Why so few files are a sign of loss, at once or little by little. Where there were as few before, they are none.

        :param before: counts of the good backups, the newest first.
        """
        floor = min(before)
        if self._is_beyond(floor - count, floor):
            return f"it has {count} files with content, and {newest['id']} has {before[0]} (max_shrink: {self._max_shrink})"
        run = [count, *before[:_MOST]]
        for length in range(_FEWEST, len(run)):
            falls = sum(new < old for new, old in zip(run[:length], run[1 : length + 1]))
            fewer = run[length] - count
            if count <= floor and falls >= length - length // _MOST and self._is_beyond(fewer, run[length], _STEADY):
                return f"files became fewer in {falls} of {length} runs, from {run[length]} to {count} (max_shrink: {self._max_shrink})"
        return ""

    def _is_beyond(self, fewer: int, files: int, part: float = 1.0) -> bool:
        """Whether so many of so many files are more than `part` of max_shrink."""
        return bool(self._max_shrink) and files >= LEAST_FILES and fewer * 100 > part * self._max_shrink * files

    def _exchanged(self, change: Replacement, newest: Sidecar) -> str:
        """Why files of other kinds in the place of those that went are a sign of loss."""
        files = newest["file_count"]
        if not self._is_beyond(change.gone, files):
            return ""
        masked = change.masked()
        if not self._is_beyond(masked, files):
            return ""
        return f"{change.gone} of the {files} files of {newest['id']} are gone, and {masked} of other kinds came (max_shrink: {self._max_shrink})"

    def _churned(self, loss: Loss, earlier: Earlier, losses: t.Sequence[int]) -> str:
        """Why so many lost files are more than what is usual. :param losses: of good backups, the newest first."""
        files, recent = earlier.sidecar["file_count"], sorted(losses[:_RECENT]) or [0]
        usual = recent[len(recent) // 2] * earlier.back  # the median, in each run
        if loss.files * 100 <= self._max_churn * files or loss.files <= _BEYOND * usual:
            return ""
        return (
            f"about {loss.files} of the {files} files of {earlier.sidecar['id']} were replaced by what looks encrypted or wiped, such as {show(loss.example)}"
            f" (max_churn: {self._max_churn})"
        )


class Replacement:
    """What has taken the place of the files of an earlier backup. Empty files count as none.

    :ivar changed: how many have other content. :ivar gone: how many are not there under their name. :ivar came: how many are new.
    """

    def __init__(self, store: Store, old: Entry, new: Entry, read: Read, heads: Heads) -> None:
        self._store, self._old, self._new, self._read, self._heads = store, old, new, read, heads
        self.changed = self.gone = self.came = 0
        for _path, a, b in self._pairs():
            self.changed += a is not None and b is not None
            self.gone += a is not None and b is None
            self.came += a is None and b is not None

    def _pairs(self) -> t.Iterator[t.Tuple[bytes, t.Optional[Entry], t.Optional[Entry]]]:
        """(path, old entry, new entry) of each file whose content is not what it was."""
        for above, a, b in diff.differences(self._store.read, self._read, self._old, self._new):
            if a is not None and b is not None and a.kind == b.kind == DIRECTORY:
                continue
            if a is not None and b is not None and DIRECTORY not in (a.kind, b.kind):
                if a.content != b.content:
                    yield join(above, a.name), a if _is_filled(a) else None, b if _is_filled(b) else None
                continue
            for path, entry in _files_below(self._store.read, above, a):
                yield path, entry, None
            for path, entry in _files_below(self._read, above, b):
                yield path, None, entry

    def loss(self, least: float) -> Loss:
        """Which files were lost. Nothing is read where fewer than `least` could have been."""
        if self.changed + min(self.gone, self.came) <= least:
            return Loss()
        changed, gone, came = self._without_moves()
        pairs, old, new = self._sample(changed), self._sample(gone), self._sample(came)
        hits = [path for path, a, b in pairs if self._is_lost(path, b) and self._was_sound(path, a)]
        count = _share(hits, pairs) * len(changed)
        went, here = {path for path, _entry in gone}, {path for path, _entry in came}
        locked = [path for path, entry in new if path.rpartition(b".")[0] not in here and self._is_locked(path, entry, went)]
        if locked:
            sound = [path for path, entry in old if self._was_sound(path, entry)]
            count += min(_share(locked, new) * len(came), _share(sound, old) * len(gone))
            hits += locked
        return Loss(round(count), hits[0]) if count else Loss()

    def masked(self) -> int:
        """How many of the files that went have one in their place whose name has an ending that none of them had."""
        _changed, gone, came = self._without_moves()
        went, here = (Counter(_ending(path) for path, _entry in found) for found in (gone, came))
        return min(len(gone), len(came)) - sum((went & here).values())

    def _without_moves(self) -> t.Tuple[t.List[t.Tuple[bytes, Entry, Entry]], t.List[_File], t.List[_File]]:
        """What changed, went and came, but for content that only has another name now."""
        changed: t.List[t.Tuple[bytes, Entry, Entry]] = []
        gone: t.List[_File] = []
        came: t.List[_File] = []
        for path, a, b in self._pairs():
            if a is not None and b is not None:
                changed.append((path, a, b))
            elif a is not None:
                gone.append((path, a))
            elif b is not None:
                came.append((path, b))
        moved = Counter(entry.content for _path, entry in gone) & Counter(entry.content for _path, entry in came)
        return changed, _others(gone, moved), _others(came, moved)

    def _sample(self, found: t.Sequence[_Any]) -> t.Sequence[_Any]:
        """Some of what was found, spread over all of it. Which ones depends on the whole new tree: it cannot be chosen by one who writes to it."""
        step = len(found) // _SAMPLE or 1
        return found[int.from_bytes(self._new.content[:8], "big") % step :: step]

    def _is_lost(self, path: bytes, entry: Entry) -> bool:
        head = _head(self._heads, path, entry)
        return head is not None and content.is_lost(head)

    def _was_sound(self, path: bytes, entry: Entry) -> bool:
        head = _head(heads_in(self._store), path, entry)
        return head is not None and not content.is_lost(head)

    def _is_locked(self, path: bytes, entry: Entry, gone: t.Container[bytes]) -> bool:
        """Whether a file that came looks lost, or has the name of one that went and an ending more, and is not just compressed."""
        head = _head(self._heads, path, entry)
        return head is not None and (content.is_lost(head) or path.rpartition(b".")[0] in gone and not content.is_compressed(head))


def _head(heads: Heads, path: bytes, entry: Entry) -> t.Optional[bytes]:
    """How a file begins; None where that cannot be told."""
    try:
        return heads(path, entry)
    except (Damaged, Unsupported, OSError):
        return None


def heads_in(store: Store) -> Heads:
    """How files begin whose content is in a store."""

    def head(_path: bytes, entry: Entry) -> bytes:
        size, digest = entry.size, entry.content
        if entry.kind == CHUNKED:
            found = chunks.decode(store.read(digest, chunks.LIST_LIMIT), size)
            offset, size, digest = next(iter(found.chunks()), (1, 0, b""))
            if offset:
                return bytes(content.HEAD)  # it begins with a hole
        read = store.read if size <= chunks.PACKED_MOST else store.read_object_first
        return read(digest, size)[: content.HEAD]

    return head


def heads_below(source: bytes) -> Heads:
    """How files begin that lie below a directory. No symbolic link is followed."""

    def head(path: bytes, _entry: Entry) -> bytes:
        above, _slash, name = path.rpartition(b"/")
        directory = files.open_real(join(source, above))
        try:
            fd = files.open_file(name, directory=directory)
        finally:
            os.close(directory)
        try:
            return os.pread(fd, content.HEAD, 0) if files.is_regular(fd) else b""
        finally:
            os.close(fd)

    return head


def _is_filled(entry: Entry) -> bool:
    return entry.kind in (FILE, CHUNKED) and entry.size > 0


def _files_below(read: Read, above: bytes, top: t.Optional[Entry]) -> t.Iterator[_File]:
    """All files of an entry and below it."""
    if top is not None:
        for path, entry in walk(lambda digest: tree.load(read, digest), top, join(above, top.name)):
            if _is_filled(entry):
                yield path, entry


def _ending(path: bytes) -> bytes:
    """The ending of a name, without that of a compressor; empty where it tells nothing."""
    found = _ENDING.search(_PACKED.sub(b"", path))
    return found[1].lower() if found else b""


def _others(found: t.Sequence[_File], moved: t.Counter[bytes]) -> t.List[_File]:
    """Those files that were not moved."""
    left = moved.copy()
    others = []
    for path, entry in found:
        if left[entry.content] > 0:
            left[entry.content] -= 1
        else:
            others.append((path, entry))
    return others


def _share(part: t.Sized, whole: t.Sized) -> float:
    return len(part) / len(whole) if len(whole) else 0.0
