# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Compares two trees in the store. The time depends on the differences, because equal digests are equal subtrees."""

from __future__ import annotations

import typing as t

from .._base import one_line, show
from . import tree
from .tree import DIRECTORY, Entry, Read
from .walk import cut, join, leaves_first, walk

ADDED, CHANGED, REMOVED = "added", "changed", "removed"


class Changes:
    """Paths by what happened to them: exact counts, and the first `limit` paths in all.

    :ivar counts: kind -> number.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.counts = {ADDED: 0, CHANGED: 0, REMOVED: 0}
        self.paths: t.Dict[str, t.List[str]] = {ADDED: [], CHANGED: [], REMOVED: []}
        self._listed = 0
        self.sizes: t.Dict[bytes, int] = {}  # how many entries are below a tree, if requested

    def add(self, kind: str, path: bytes) -> None:
        self.counts[kind] += 1
        if self._listed < self._limit:
            self._listed += 1
            self.paths[kind].append(show(path) or ".")

    def add_unlisted(self, kind: str, count: int) -> None:
        """Count entries without listing them."""
        self.counts[kind] += count

    @property
    def full(self) -> bool:
        """Whether no further path will be listed."""
        return self._listed >= self._limit

    def without(self, kind: str) -> Changes:
        """The same but for one kind."""
        other = Changes(self._limit)
        other.counts = {**self.counts, kind: 0}
        other.paths = {**self.paths, kind: []}
        other._listed = self._listed - len(self.paths[kind])
        return other

    def reversed(self) -> Changes:
        """What leads back: what was added is removed."""
        other = Changes(self._limit)
        for kind, back in ((ADDED, REMOVED), (CHANGED, CHANGED), (REMOVED, ADDED)):
            other.counts[back], other.paths[back] = self.counts[kind], self.paths[kind]
        other._listed = self._listed
        return other

    def __bool__(self) -> bool:
        return any(self.counts.values())

    def as_dict(self) -> t.Dict[str, t.Any]:
        """For JSON: the paths, the counts, how many paths are not listed, and one text for a screen."""
        total = sum(self.counts.values())
        paths = {kind: sorted(listed) for kind, listed in self.paths.items()}
        lines = [sign + one_line(path) for sign, kind in (("+", ADDED), ("~", CHANGED), ("-", REMOVED)) for path in paths[kind]]
        if total > self._listed:
            lines.append(f"... and {total - self._listed} more")
        text = "".join(line + "\n" for line in lines)
        return {**paths, "counts": dict(self.counts), "more": total - self._listed, "prepared": text}


def diff(read_old: Read, read_new: Read, old: Entry, new: Entry, changes: Changes, at: bytes = b"") -> None:
    """What leads from the tree of one directory to that of another. :param at: their path."""
    if not same_attributes(old, new):
        changes.add(CHANGED, at)
    for path, a, b in differences(read_old, read_new, old, new):
        name = t.cast(Entry, a or b).name
        note(read_old, read_new, join(join(at, path) if path else at, name), a, b, changes)


def note(read_old: Read, read_new: Read, path: bytes, a: t.Optional[Entry], b: t.Optional[Entry], changes: Changes) -> None:
    """What became of one path at which two trees differ, without what is below a directory that both have."""
    if a is not None and b is not None and (a.kind == DIRECTORY) == (b.kind == DIRECTORY):
        if a.kind != DIRECTORY or not same_attributes(a, b):
            changes.add(CHANGED, path)
        return
    if a is not None:
        _whole(read_old, path, a, REMOVED, changes)
    if b is not None:
        _whole(read_new, path, b, ADDED, changes)


def differences(read_old: Read, read_new: Read, old: Entry, new: Entry) -> t.Iterator[t.Tuple[bytes, t.Optional[Entry], t.Optional[Entry]]]:
    """(path of the directory, entry in the old tree, entry in the new one) of each name that differs; None if one has no such name.

    It enters directories that both have. What is below one that only one of them has is left to the caller.
    """
    todo: t.List[t.Tuple[int, bytes, bytes, bytes]] = [(0, b"", old.content, new.content)]
    path = b""
    while todo:
        length, name, before, after = todo.pop()
        if before == after:
            continue
        path = cut(path, length, name)
        for a, b in _pairs(_unshared(read_old, before, read_new, after)):
            if a == b:
                continue
            yield path, a, b
            if a is not None and b is not None and a.kind == b.kind == DIRECTORY:
                todo.append((len(path), a.name, a.content, b.content))


def same_attributes(a: Entry, b: Entry) -> bool:
    """Whether two directories are equal except for their contents. A time that changed because names were added or removed does not count."""
    same_time = a.content != b.content or a.mtime == b.mtime
    return (a.mode, a.uid, a.gid, a.extra) == (b.mode, b.uid, b.gid, b.extra) and same_time


def _unshared(read_old: Read, before: bytes, read_new: Read, after: bytes) -> t.Tuple[t.List[Entry], t.List[Entry]]:
    """Entries of two directories, without the parts that both have: such parts have the same names."""
    old_parts, new_parts = _parts(read_old, before), _parts(read_new, after)
    shared = set(old_parts) & set(new_parts)
    return (
        [entry for part in old_parts if part not in shared for entry in tree.decode(read_old(part, tree.BLOB_LIMIT))],
        [entry for part in new_parts if part not in shared for entry in tree.decode(read_new(part, tree.BLOB_LIMIT))],
    )


def _parts(read: Read, digest: bytes) -> t.List[bytes]:
    return tree.part_digests(read(digest, tree.BLOB_LIMIT)) or [digest]


def _pairs(sides: t.Tuple[t.List[Entry], t.List[Entry]]) -> t.Iterator[t.Tuple[t.Optional[Entry], t.Optional[Entry]]]:
    """Both sides by name, in order, with None if one has no such name."""
    old, new = sides
    i = k = 0
    while i < len(old) or k < len(new):
        if k == len(new) or i < len(old) and old[i].name < new[k].name:
            yield old[i], None
            i += 1
        elif i == len(old) or new[k].name < old[i].name:
            yield None, new[k]
            k += 1
        else:
            yield old[i], new[k]
            i += 1
            k += 1


def _whole(read: Read, path: bytes, top: Entry, kind: str, changes: Changes) -> None:
    """A path that only one side has, with all below it."""
    for here, entry in walk(lambda digest: tree.load(read, digest), top, path, lambda _path, _entry: not changes.full):
        changes.add(kind, here)
        if entry.kind == DIRECTORY and changes.full:
            changes.add_unlisted(kind, _below(read, entry.content, changes.sizes))


def _below(read: Read, digest: bytes, known: t.Dict[bytes, int]) -> int:
    """How many entries there are below a tree; each shared one is read only once."""
    under_way: t.Dict[bytes, t.Tuple[int, t.List[bytes]]] = {}

    def below(here: bytes) -> t.List[bytes]:
        entries = tree.load(read, here)
        under_way[here] = len(entries), [entry.content for entry in entries if entry.kind == DIRECTORY]
        return under_way[here][1]

    for here in leaves_first(digest, below, known.__contains__):
        count, children = under_way.pop(here)
        known[here] = count + sum(known[child] for child in children)
    return known[digest]


def everything(read: Read, root: Entry, total: int, changes: Changes) -> None:
    """All of a tree as added: the first paths by name, the rest by number. `total` counts its entries, without the root."""
    seen = 0
    for path, _entry in walk(lambda digest: tree.load(read, digest), root):
        if changes.full:
            break
        if path:
            changes.add(ADDED, path)
            seen += 1
    changes.add_unlisted(ADDED, total - seen)
