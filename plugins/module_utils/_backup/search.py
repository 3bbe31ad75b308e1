# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Searching many backups at once: which have a file that matches a pattern, and what became of one path.

All backups are walked side by side. Those that have the same tree at a path share it: it is read once, and what is found in it counts for all of them. A
set of backups is a number with a bit for each, the newest first.
"""

from __future__ import annotations

import typing as t

from .._base import Damaged, NotFound, Unsupported, parse, show
from .._format import walk
from .._format.tree import DIRECTORY, Entry
from .._fs.exclusions import Pattern
from .._restore.compare import Selection
from .catalog import Catalog, trouble_of
from .listing import describe, inside, kind
from .query import Query, accepts
from .records import Listed, Manifest


class Searched(t.NamedTuple):
    """A backup that can be searched. :ivar load: gives its trees."""

    sidecar: Listed
    manifest: Manifest
    load: walk.Load

    @property
    def group(self) -> t.Tuple[str, str]:
        """Whose files it has: the host on a remote, else nothing, and the workload."""
        return self.sidecar["id"].rpartition("/")[0], self.sidecar["workload_name"]


class Found(t.NamedTuple):
    """What a search found: rows for JSON, and how many there are in all."""

    rows: t.List[t.Dict[str, t.Any]]
    number: int


class Search:
    """A search through backups.

    :param backups: the newest first. :param unsearched: those that cannot be read: their ids, and why.
    :ivar unsearched: also those of which a part could not be read. :ivar troubles: what else is wrong, as sentences.
    """

    def __init__(self, backups: t.Sequence[Searched], unsearched: t.Sequence[t.Dict[str, str]], is_current: t.Callable[[Listed], bool]) -> None:
        self._backups, self._is_current = backups, is_current
        self.troubles: t.List[str] = []
        self._unsearched = {item["id"]: item for item in unsearched}
        self._loads: t.List[t.Tuple[walk.Load, int]] = []
        for load in dict.fromkeys(backup.load for backup in backups):
            self._loads.append((load, _bits(backup.load == load for backup in backups)))
        groups = dict.fromkeys(backup.group for backup in backups)
        self._groups = [_bits(backup.group == group for backup in backups) for group in groups]

    @property
    def count(self) -> int:
        """How many backups are searched."""
        return len(self._backups)

    @property
    def unsearched(self) -> t.List[t.Dict[str, str]]:
        return list(self._unsearched.values())

    # ---- by a pattern

    def find(self, text: str, limit: int) -> Found:
        """The versions of all that a pattern matches, as rows: a path, and which backups have it with the same content, size and time.

        :param text: as an exclusion of a backup; it may have the source in front. :param limit: as many rows are given, all are counted.
        """
        rows: t.List[t.Dict[str, t.Any]] = []
        count = 0
        texts: t.Dict[str, int] = {}
        for at, backup in enumerate(self._backups):
            below = _below(text, backup.sidecar["source_path"])
            texts[below] = texts.get(below, 0) | 1 << at
        for below, wanted in texts.items():
            for path, entry, having in self._matches(Pattern(below), wanted):
                for group in self._groups:
                    having_here = having & group
                    if having_here:
                        count += 1
                        if len(rows) < limit:
                            rows.append(self._row(path, entry, having_here))
        return Found(rows, count)

    def _row(self, path: bytes, entry: Entry, having: int) -> t.Dict[str, t.Any]:
        newest, oldest = self._backups[(having & -having).bit_length() - 1], self._backups[having.bit_length() - 1]
        return {**describe(path, entry, newest.manifest), **_span(newest, oldest), "count": bin(having).count("1")}

    def _matches(self, pattern: Pattern, wanted: int) -> t.Iterator[t.Tuple[bytes, Entry, int]]:
        """(path, entry, backups that have it) of each version of each path that matches. :param wanted: the backups to look at."""
        roots: t.Dict[bytes, int] = {}
        for at, backup in enumerate(self._backups):
            if wanted >> at & 1:
                roots[backup.manifest.root.content] = roots.get(backup.manifest.root.content, 0) | 1 << at
        todo: t.List[t.Tuple[walk.Above, int, t.Dict[bytes, int]]] = [(walk.Above(b"", None), 0, roots)]
        while todo:
            above, depth, trees = todo.pop()
            path = above.path
            only = pattern.above[depth] if depth < len(pattern.above) else None
            versions: t.Dict[t.Tuple[t.Any, ...], t.Tuple[Entry, int]] = {}
            below: t.Dict[bytes, t.Dict[bytes, int]] = {}
            for digest, having in trees.items():
                for entry in self._load(digest, having, path):
                    name, is_directory = entry.name, entry.kind == DIRECTORY
                    if only is not None and name != only:
                        continue
                    if is_directory:
                        children = below.setdefault(name, {})
                        children[entry.content] = children.get(entry.content, 0) | having
                    if only is None and pattern.matches(path, name, is_directory):
                        key = _version(entry)
                        versions[key] = versions[key][0] if key in versions else entry, (versions[key][1] if key in versions else 0) | having
            for entry, having in sorted(versions.values(), key=lambda found: (found[0].name, found[1] & -found[1])):
                yield walk.join(path, entry.name), entry, having
            if pattern.depth is None or depth + 1 < pattern.depth:
                todo += [(walk.Above(name, above), depth + 1, below[name]) for name in sorted(below, reverse=True)]

    def _load(self, digest: bytes, having: int, path: bytes) -> t.Sequence[Entry]:
        """The entries of a directory; none where it cannot be read, which is noted for the backups that have it."""
        trouble = ""
        for load, backups in self._loads:
            if having & backups:
                try:
                    return load(digest)
                except (Damaged, Unsupported) as error:
                    trouble = error.message
        for at, backup in enumerate(self._backups):
            if having >> at & 1:
                self._miss(backup.sidecar, f"{show(path) or 'The source'} cannot be listed: {trouble}")
        return []

    def _miss(self, sidecar: Listed, reason: str) -> None:
        """Note that a backup could not be searched as a whole, unless it was deleted meanwhile: a collection may have taken what it needed."""
        if sidecar["id"] not in self._unsearched and self._is_current(sidecar):
            self._unsearched[sidecar["id"]] = {"id": sidecar["id"], "reason": reason}

    # ---- by a path

    def history(self, text: str) -> t.List[t.Dict[str, t.Any]]:
        """The versions of one path, of each workload from the newest to the oldest, and when it was gone. NotFound where all backups lack it.

        :param text: the path, which may have the source in front.
        """
        parse(text)  # before a backup is looked at
        rows: t.List[t.Dict[str, t.Any]] = []
        for group in self._groups:
            versions: t.List[_Version] = []
            for at in range(len(self._backups) - 1, -1, -1):
                if group >> at & 1:
                    self._follow(self._backups[at], text, versions)
            rows += reversed([version.row() for version in versions])
        if not rows and not self._unsearched:
            raise NotFound(f"No backup has path {show(parse(text))}; search for its name with a pattern.", path=show(parse(text)))
        return rows

    def _follow(self, backup: Searched, text: str, versions: t.List[_Version]) -> None:
        """Look at the path in the next backup of a workload."""
        try:
            path, entry = self._at(backup.load, backup.manifest, backup.sidecar["source_path"], text)
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


def local(catalog: Catalog, query: Query) -> Search:
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
                backups.append(Searched(sidecar, catalog.manifest(sidecar), catalog.load))
        except NotFound:
            continue  # deleted meanwhile
        except (Damaged, Unsupported) as error:
            trouble = error.message
        if trouble is not None:
            unsearched.append({"id": sidecar["id"], "reason": trouble})
    return Search(backups, unsearched, catalog.is_current)


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
