# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Searching many backups at once: which have a file that matches a pattern, and what became of one path.

All backups are walked side by side. Those that have the same tree at a path share it: it is read once, and what is found in it counts for all of them. A
set of backups is a number with a bit for each, the newest first.
"""

from __future__ import annotations

import collections
import hashlib
import re
import typing as t

from .._base import Damaged, NotFound, Unsupported, VoltError, parse, show
from .._format import tree, walk
from .._format.tree import DIRECTORY, Entry
from .._fs.exclusions import Pattern, framed
from .._restore.blobs import Blobs
from .._restore.compare import Selection
from .._store.store import Store
from .catalog import Catalog, trouble_of
from .listing import describe, inside, kind
from .query import Query, accepts
from .records import Listed, Manifest


class Searched(t.NamedTuple):
    """A backup that can be searched. :ivar blobs: have its trees."""

    sidecar: Listed
    manifest: Manifest
    blobs: Blobs

    @property
    def group(self) -> t.Tuple[str, str]:
        """Whose files it has: the host on a remote, else nothing, and the workload."""
        return self.sidecar["id"].rpartition("/")[0], self.sidecar["workload_name"]


class _Trees:
    """Reads trees. Packs of trees have little else, so when one of its trees is read, all small ones of a pack are kept.

    A walk comes to the packs of all backups at each path, and looking a blob up takes longer than reading it. Large trees would fill the room for the others.
    """

    _ROOM, _SMALL = 64 << 20, 64 << 10

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._kept: t.Dict[bytes, bytes] = {}
        self._large: t.Set[bytes] = set()
        self._packs: t.Deque[t.Tuple[t.List[bytes], int]] = collections.deque()
        self._size = 0

    def read(self, digest: bytes, limit: int) -> bytes:
        """A blob, hashed; Damaged as of `Blobs.read`."""
        if digest not in self._kept and digest not in self._large:
            self._unpack(digest)
        blob = self._kept.get(digest)
        if blob is not None and hashlib.sha256(blob).digest() == digest:
            return blob
        return self._blobs.read(digest, limit)

    def _unpack(self, digest: bytes) -> None:
        found: t.Dict[bytes, bytes] = {}
        for name, blob in self._blobs.unpack(digest):  # nothing where it is an object, or its pack cannot be read: `Blobs.read` tells why
            if len(blob) > self._SMALL:
                self._large.add(name)
            elif name not in self._kept:
                found[name] = bytes(blob)
        size = sum(map(len, found.values()))
        self._kept.update(found)
        self._packs.append((list(found), size))
        self._size += size
        while self._size > self._ROOM and len(self._packs) > 1:
            names, size = self._packs.popleft()
            self._size -= size
            for name in names:
                del self._kept[name]


class Search:
    """A search through backups.

    :param backups: the newest first. :param unsearched: those that cannot be read: their ids, and why.
    :ivar unsearched: also those of which a part could not be read. :ivar troubles: what else is wrong, as sentences.
    """

    def __init__(self, backups: t.Sequence[Searched], unsearched: t.Sequence[t.Dict[str, str]], is_current: t.Callable[[Listed], bool]) -> None:
        self._backups, self._is_current = backups, is_current
        self.troubles: t.List[str] = []
        self._unsearched = {item["id"]: item for item in unsearched}
        places = dict.fromkeys(backup.blobs for backup in backups)
        self._reads = [(_Trees(blobs).read, _bits(backup.blobs is blobs for backup in backups)) for blobs in places]
        self._loads = {blobs: tree.Loader(blobs.read) for blobs in places}
        groups = dict.fromkeys(backup.group for backup in backups)
        self._groups = [_bits(backup.group == group for backup in backups) for group in groups]

    @property
    def count(self) -> int:
        """How many backups are searched."""
        return len(self._backups)

    @property
    def unsearched(self) -> t.List[t.Dict[str, str]]:
        return list(self._unsearched.values())

    def _result(self, name: str, rows: t.List[t.Dict[str, t.Any]], number: int) -> t.Dict[str, t.Any]:
        told = [f"Backup {item['id']} was not searched completely: {item['reason']}" for item in self.unsearched]
        return {
            name: rows, "count": number, "more": number - len(rows), "searched": self.count, "not_searched": self.unsearched,
            "warnings": [*self.troubles, *told],
        }  # fmt: skip

    # ---- by a pattern

    def find(self, pattern: str, limit: int) -> t.Dict[str, t.Any]:
        """For JSON, the versions of all that a pattern matches: a path, and which backups have it with the same content, size and time.

        :param pattern: as an exclusion of a backup; it may have the source in front. :param limit: as many rows are given, all are counted.
        """
        rows: t.List[t.Dict[str, t.Any]] = []
        count = 0
        texts: t.Dict[str, int] = {}
        for at, backup in enumerate(self._backups):
            below = _below(pattern, backup.sidecar["source_path"])
            texts[below] = texts.get(below, 0) | 1 << at
        for below, wanted in texts.items():
            for path, entry, having in self._matches(Pattern(below), wanted):
                for group in self._groups:
                    having_here = having & group
                    if having_here:
                        count += 1
                        if len(rows) < limit:
                            rows.append(self._row(path, entry, having_here))
        return self._result("matches", rows, count)

    def _row(self, path: bytes, entry: Entry, having: int) -> t.Dict[str, t.Any]:
        newest, oldest = self._backups[(having & -having).bit_length() - 1], self._backups[having.bit_length() - 1]
        return {**describe(path, entry, newest.manifest), **_span(newest, oldest), "count": bin(having).count("1")}

    def _matches(self, pattern: Pattern, wanted: int) -> t.Iterator[t.Tuple[bytes, Entry, int]]:
        """(path, entry, backups that have it) of each version of each path that matches. :param wanted: the backups to look at."""
        roots: t.Dict[bytes, int] = {}
        for at, backup in enumerate(self._backups):
            if wanted >> at & 1:
                roots[backup.manifest.root.content] = roots.get(backup.manifest.root.content, 0) | 1 << at
        on_the_way = [framed(re.escape(name)) for name in pattern.above]
        todo: t.List[t.Tuple[int, bytes, int, t.Dict[bytes, int]]] = [(0, b"", 0, roots)]
        path = b""
        while todo:
            length, name, depth, trees = todo.pop()
            path = walk.cut(path, length, name)
            is_above = depth < len(on_the_way)
            only: t.List[t.Tuple[Entry, int]] = []  # of a tree that all backups here share
            versions: t.Dict[t.Tuple[t.Any, ...], t.Tuple[Entry, int]] = {}
            below: t.Dict[bytes, t.Dict[bytes, int]] = {}
            for having, found in self._picked(trees, path, on_the_way[depth] if is_above else pattern.names):
                for entry in () if is_above else found.entries:
                    if not pattern.matches(path, entry.name, entry.kind == DIRECTORY):
                        continue
                    if len(trees) == 1:
                        only.append((entry, having))
                    else:
                        key = _version(entry)
                        known, others = versions.get(key, (entry, 0))
                        versions[key] = known, others | having
                for name, digest in found.directories:
                    if not is_above or name == pattern.above[depth]:
                        children = below.setdefault(name, {})
                        children[digest] = children.get(digest, 0) | having
            for entry, having in only or sorted(versions.values(), key=lambda found: (found[0].name, found[1] & -found[1])):
                yield walk.join(path, entry.name), entry, having
            if pattern.depth is None or depth + 1 < pattern.depth:
                todo += [(len(path), name, depth + 1, below[name]) for name in sorted(below, reverse=True)]

    def _picked(self, trees: t.Dict[bytes, int], path: bytes, names: t.Pattern[bytes]) -> t.Iterator[t.Tuple[int, tree.Picked]]:
        """(backups, what they have of these names) of each part of the trees at a path."""
        parts: t.Dict[bytes, int] = {}
        for digest, having in trees.items():
            try:
                blob = self._read(digest, having)
                listed = tree.part_digests(blob)
                if listed is None:
                    yield having, tree.pick(blob, names)
                for part in listed or ():
                    parts[part] = parts.get(part, 0) | having
            except (Damaged, Unsupported) as error:
                self._lost(having, path, error)
        for part, having in parts.items():
            try:
                yield having, tree.pick(self._read(part, having), names)
            except (Damaged, Unsupported) as error:
                self._lost(having, path, error)

    def _read(self, digest: bytes, having: int) -> bytes:
        """A tree that some backups have; Damaged or Unsupported where none of them gives it."""
        trouble: t.Union[Damaged, Unsupported] = Damaged("It is in no backup.")
        for read, backups in self._reads:
            if having & backups:
                try:
                    return read(digest, tree.BLOB_LIMIT)
                except (Damaged, Unsupported) as error:
                    trouble = error
        raise trouble

    def _lost(self, having: int, path: bytes, error: VoltError) -> None:
        """Note for some backups that a directory cannot be listed."""
        for at, backup in enumerate(self._backups):
            if having >> at & 1:
                self._miss(backup.sidecar, f"{show(path) or 'The source'} cannot be listed: {error.message}")

    def _miss(self, sidecar: Listed, reason: str) -> None:
        """Note that a backup could not be searched as a whole, unless it was deleted meanwhile: a collection may have taken what it needed."""
        if sidecar["id"] not in self._unsearched and self._is_current(sidecar):
            self._unsearched[sidecar["id"]] = {"id": sidecar["id"], "reason": reason}

    # ---- by a path

    def history(self, path: str, limit: t.Optional[int] = None) -> t.Dict[str, t.Any]:
        """For JSON, the versions of one path, of each workload from the newest to the oldest, and when it was gone. NotFound where all backups lack it.

        :param path: it may have the source in front. :param limit: as many rows are given; None: all.
        """
        parse(path)  # before a backup is looked at
        rows: t.List[t.Dict[str, t.Any]] = []
        for group in self._groups:
            versions: t.List[_Version] = []
            for at in range(len(self._backups) - 1, -1, -1):
                if group >> at & 1:
                    self._follow(self._backups[at], path, versions)
            rows += reversed([version.row() for version in versions])
        if not rows and not self._unsearched:
            raise NotFound(f"No backup has path {show(parse(path))}; search for its name with a pattern.", path=show(parse(path)))
        return self._result("history", rows[:limit], len(rows))

    def _follow(self, backup: Searched, text: str, versions: t.List[_Version]) -> None:
        """Look at the path in the next backup of a workload."""
        try:
            path, entry = self._at(self._loads[backup.blobs], backup.manifest, backup.sidecar["source_path"], text)
        except (Damaged, Unsupported) as error:
            self._miss(backup.sidecar, error.message)
            return
        last = versions[-1] if versions else None
        if last is not None and _same(last.entry, entry):
            versions[-1] = last._replace(newest=backup, backups=last.backups + 1)
        elif last is not None or entry is not None:
            versions.append(_Version(path, entry, backup, backup, 1, _changes(last.entry, entry) if last is not None else []))

    @staticmethod
    def _at(load: walk.Load, manifest: Manifest, source: str, text: str) -> t.Tuple[bytes, t.Optional[Entry]]:
        path = Selection.clean(inside(load, lambda: manifest, source, parse(text)))
        return path, walk.find(load, manifest.root, path)


class _Version(t.NamedTuple):
    """What was at a path from one backup to another; None where there was nothing."""

    path: bytes
    entry: t.Optional[Entry]
    oldest: Searched
    newest: Searched
    backups: int
    changes: t.List[str]

    def row(self) -> t.Dict[str, t.Any]:
        facts = {"path": show(self.path) or ".", "present": self.entry is not None, "changes": self.changes, "count": self.backups}
        if self.entry is None:
            return {**dict.fromkeys(_FACTS), **facts, **_span(self.newest, self.oldest)}
        return {**describe(self.path, self.entry, self.newest.manifest), **facts, **_span(self.newest, self.oldest)}


#: What is told of an entry; nothing of one that is gone.
_FACTS = ("path", "type", "mode", "uid", "gid", "user", "group", "size", "mtime", "target", "xattrs")


def local(store: Store, catalog: Catalog, query: Query) -> Search:
    """A search through the backups of the local directory that match. Those of the original Volt command, which have no trees, are left out."""
    accept = accepts(query)
    backups: t.List[Searched] = []
    unsearched: t.List[t.Dict[str, str]] = []
    for sidecar in filter(accept, catalog.list(query.workload, query.id)):
        if sidecar.get("foreign"):
            continue
        trouble = trouble_of(sidecar)
        try:
            if trouble is None:
                backups.append(Searched(sidecar, catalog.manifest(sidecar), store))
        except NotFound:
            continue  # deleted meanwhile
        except (Damaged, Unsupported) as error:
            trouble = error.message
        if trouble is not None:
            unsearched.append({"id": sidecar["id"], "reason": trouble})
    return Search(backups, unsearched, catalog.is_current)


def reads_all(pattern: t.Optional[str]) -> bool:
    """Whether a search reads most trees of the backups. UsageError for an invalid pattern. :param pattern: None for the history of a path."""
    return pattern is not None and not Pattern(pattern).above


def _bits(flags: t.Iterable[bool]) -> int:
    return sum(1 << at for at, flag in enumerate(flags) if flag)


def _below(text: str, source: str) -> str:
    """A pattern without the source in front of it."""
    above = source.rstrip("/") + "/"
    return "/" + text[len(above) :].lstrip("/") if text.startswith(above) and len(text) > len(above) else text


def _span(newest: Searched, oldest: Searched) -> t.Dict[str, t.Any]:
    """The first and the last backup of a version."""
    host, workload = newest.group
    first, last = oldest.sidecar, newest.sidecar
    return {
        "workload_name": workload, "host": host or last["host"],
        "first_id": first["id"], "first_at": first["created_at"], "last_id": last["id"], "last_at": last["created_at"],
    }  # fmt: skip


def _version(entry: Entry) -> t.Tuple[t.Any, ...]:
    """What makes two entries of one name the same version. A directory is the same whatever is in it."""
    if entry.kind == DIRECTORY:
        return entry.name, DIRECTORY
    return entry.name, entry.kind, entry.size, entry.seconds, entry.nanos, entry.content, entry.extra.target, entry.extra.device


def _same(old: t.Optional[Entry], new: t.Optional[Entry]) -> bool:
    return old == new if old is None or new is None else not _changes(old, new)


def _changes(old: t.Optional[Entry], new: t.Optional[Entry]) -> t.List[str]:
    """What tells a version from the one before it, in words."""
    if old is None or new is None:
        return ["new"] if old is None else ["gone"]
    if kind(old) != kind(new):
        return ["type"]
    pairs = {
        "content": (old.content != new.content, old.size != new.size),
        "size": (old.size != new.size,),
        "mtime": (old.mtime != new.mtime,),
        "mode": (old.mode != new.mode,),
        "owner": ((old.uid, old.gid) != (new.uid, new.gid),),
        "target": (old.extra.target != new.extra.target,),
        "device": (old.extra.device != new.extra.device,),
        "attributes": (old.extra.xattrs != new.extra.xattrs,),
    }
    return [name for name, differs in pairs.items() if any(differs)]
