# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Taking in backups of the original Volt command, which share directories with ours: each becomes one more backup, and what is there stays as it is.

::

    a sidecar of the original's -> its manifest: does it read so, and is it what its name says
    all objects that the manifest names: are they there, and is each what its name says
    only then: read them into the store, make trees of the paths, write manifest and sidecar under a new id

The original recorded neither owners nor modes, times, links or empty directories. Files are taken in as root's, readable by all, with the time of
the backup, and the backup is incomplete and says so: it is never the newest, and is restored by its id.
"""

from __future__ import annotations

import hashlib
import os
import typing as t

from .._base import Damaged, NotFound, UsageError, parse, parse_time, reason, show, show_time
from .._capture import reading
from .._capture.stat_cache import Stats
from .._format import tree
from .._format.tree import CHUNKED, DIRECTORY, FILE, NOTHING, Entry
from .._format.walk import join
from .._fs.exclusions import Skipped
from .._store import original
from .._store.store import Store
from .._store.transaction import Transaction
from . import directory, host, records
from .catalog import Catalog
from .ids import check_type, check_workload
from .publish import publish
from .records import Listed, Manifest, Sidecar

#: What is said of each backup that is taken in.
LACKS = "the original Volt command did not record owners, modes, times and links"
_PIECE = 1 << 20
_LONGEST = 4096

Row = t.Dict[str, t.Any]


class Imported(t.NamedTuple):
    """What was taken in, or would be, and what was not: `id` of the original, `new_id` of ours, `reason` why not."""

    imported: t.List[Row]
    left: t.List[Row]
    changed: bool


class Importer:
    """Takes in what can be taken in. Use once.

    :param ids: of the original's backups, these alone; all of them where none is named. :param dry: check all, write nothing.
    """

    def __init__(self, store: Store, catalog: Catalog, path: str, ids: t.Sequence[str], dry: bool) -> None:
        self._store, self._catalog, self._path, self._ids, self._dry = store, catalog, path, list(ids), dry

    def __call__(self) -> Imported:
        listed = self._catalog.list()
        ours = {(found["workload_name"], found["type"], found["created_at"]): found["id"] for found in listed if found["format"] is not None}
        theirs = [found for found in listed if found.get("foreign") and found["format"] is None and found["manifest_ref"] is not None]
        missing = sorted(set(self._ids) - {found["id"] for found in theirs})
        if missing:
            raise NotFound(f"There is no backup {missing[0]} of the original Volt command in {show(self._path)}; list the backups.")
        rows = []
        for found in reversed(theirs):  # the oldest first
            if not self._ids or found["id"] in self._ids:
                row: Row = {"id": found["id"], "workload_name": found["workload_name"], "created_at": found["created_at"], "new_id": None, "reason": None}
                try:
                    moment = show_time(parse_time(found["created_at"] or ""))
                    there = ours.get((found["workload_name"], found["type"], moment))
                    if there is not None:
                        row.update(new_id=there, reason="It was imported already.")
                    else:
                        row["new_id"] = self._take(found, moment)
                except (Damaged, UsageError) as error:
                    row["reason"] = error.message
                except OSError as error:
                    row["reason"] = f"An object cannot be read: {reason(error)}."
                except (OverflowError, reading.Vanished):
                    row["reason"] = "Its record has an invalid time, or an object was replaced while it was read."
                rows.append(row)
        taken, left = ([row for row in rows if (row["reason"] is None) is wanted] for wanted in (True, False))
        return Imported(taken, left, bool(taken))

    def _take(self, found: Listed, moment: str) -> t.Optional[str]:
        """Take in one backup; its new id, None in a dry run. Damaged or UsageError where that cannot be."""
        check_workload(found["workload_name"])
        check_type(found["type"])
        if not (found["source_path"] or "").startswith("/"):
            raise Damaged("Its record has no source.")
        paths = self._paths(found["manifest_ref"])
        stamps = {digest: self._prove(digest) for digest in set(paths.values())}
        _check(paths)
        if not 0 <= found["duration"] < 1 << 63:
            raise Damaged("Its record has an invalid duration.")
        if self._dry:
            return None
        with Transaction(self._store) as run:
            directory.make(self._path)
            trees = _Trees(run, self._store.path, int(parse_time(moment).timestamp()), stamps)
            root = trees.root(paths)
            run.commit()
            sidecar, manifest = _describe(found, moment, root, trees.stats, run)
            publish(run, self._path, sidecar, manifest)
            return sidecar["id"]

    def _paths(self, reference: str) -> t.Dict[bytes, str]:
        """path -> digest in hex, of a manifest."""
        name = reference[:-5] if reference.endswith(".json") else reference
        if "/" in name or not name:
            raise Damaged("Its record has no manifest.")
        try:
            data = self._store.refs.read(name)
        except FileNotFoundError:
            raise Damaged("Its manifest is missing.") from None
        if not original.is_manifest(data) or hashlib.sha256(data).hexdigest()[:12] != name[-12:]:
            raise Damaged("Its manifest is not one of the original Volt command, or was altered.")
        objects = original.objects(data)
        paths = {parse(path): digest for path, digest in objects.items()}
        if len(paths) < len(objects):
            raise Damaged("Its manifest lists a path twice.")
        return paths

    def _prove(self, digest: str) -> reading.Stamp:
        """The state of an object; Damaged unless it is what its name says."""
        found = hashlib.sha256()
        try:
            fd = original.open_object(self._store.path, digest)
        except FileNotFoundError:
            raise Damaged(f"Its object {digest} is missing.") from None
        with open(fd, "rb", buffering=0) as file:
            stamp = reading.stamp(os.fstat(fd))
            for piece in iter(lambda: file.read(_PIECE), b""):
                found.update(piece)
        if found.hexdigest() != digest:
            raise Damaged(f"Its object {digest} is altered.")
        return stamp


def _check(paths: t.Iterable[bytes]) -> t.Dict[bytes, t.Set[bytes]]:
    """The directories that paths lie in, each with the names of those in it; Damaged where the paths cannot be in one tree."""
    directories: t.Dict[bytes, t.Set[bytes]] = {b"": set()}
    files_ = set(paths)
    for path in files_:
        parts = path.split(b"/")
        if len(path) > _LONGEST or any(part in (b"", b".", b"..") or len(part) > 255 for part in parts):
            raise Damaged(f"Its path {show(path)} is invalid.")
        above = b""
        for part in parts[:-1]:
            here = join(above, part)
            if here in files_:
                raise Damaged(f"Its path {show(path)} is below a file.")
            directories[above].add(part)
            directories.setdefault(here, set())
            above = here
    return directories


class _Trees:
    """Makes entries of objects. :param stamps: the states in which they were proved. :ivar stats: of all that was made."""

    def __init__(self, run: Transaction, store: str, moment: int, stamps: t.Mapping[str, reading.Stamp]) -> None:
        self._run, self._place, self._moment, self._stamps = run, store, moment, stamps
        self.stats = Stats()

    def root(self, paths: t.Mapping[bytes, str]) -> Entry:
        """The tree of all paths."""
        within: t.Dict[bytes, t.List[Entry]] = {above: [] for above in _check(paths)}
        for path in sorted(paths):
            above, _slash, name = path.rpartition(b"/")
            within[above].append(self._file(name, paths[path]))
        for path in sorted(within, key=lambda found: found.count(b"/") + bool(found), reverse=True):  # the deepest first
            entries = sorted(within[path], key=lambda entry: entry.name)
            above, _slash, name = path.rpartition(b"/")
            made = Entry(name, DIRECTORY, 0o755, 0, 0, self._moment, 0, 0, tree.store(self._run.add_metadata, entries), NOTHING)
            if path:
                within[above].append(made)
        self.stats = self.stats + Stats(directories=len(within) - 1)
        return made

    def _file(self, name: bytes, digest: str) -> Entry:
        fd = original.open_object(self._place, digest)
        content = reading.read_file(self._run, fd, os.fstat(fd))
        if content.change or reading.stamp(content.info) != self._stamps[digest]:
            raise Damaged(f"Its object {digest} changed while it was read.")
        kind, size, held, blobs = FILE, content.info.st_size, content.digest, int(content.info.st_size > 0)
        if content.kind == CHUNKED:
            kind, held, blobs = CHUNKED, self._run.add_metadata(content.chunk_list), content.chunk_count
        self.stats = self.stats + Stats(files=1, size=size, blobs=blobs)
        return Entry(name, kind, 0o644, 0, 0, self._moment, 0, size, held, NOTHING)


def _describe(found: Listed, moment: str, root: Entry, stats: Stats, run: Transaction) -> t.Tuple[Sidecar, Manifest]:
    """The records of a backup that is taken in."""
    skipped = [Skipped(b"", "attributes", LACKS)]
    sidecar = Sidecar(
        id=t.cast(str, None),
        workload_name=found["workload_name"],
        workload_mode=found["workload_mode"],
        type=found["type"],
        manifest_ref=t.cast(str, None),
        tags=list(found["tags"]),
        created_at=moment,
        blob_count=stats.blobs,
        total_size=stats.size,
        new_blobs=min(run.counts.new_blobs, stats.blobs),
        dedup_blobs=stats.blobs - min(run.counts.new_blobs, stats.blobs),
        duration=found["duration"],
        pushed_to_cdn=False,
        source_path=found["source_path"],
        notes=found["notes"],
        format=records.FORMAT,
        host=host.name(),
        host_id=None,
        manifest_sha256=t.cast(str, None),
        complete=False,
        exclude=[],
        exclude_caches=False,
        one_file_system=False,
        file_count=stats.files,
        new_bytes=run.counts.new_bytes,
        stored_bytes=run.counts.stored_bytes,
        skipped=[{"path": show(item.path), "reason": item.reason, "detail": item.detail} for item in skipped],
        skipped_count=len(skipped),
        changed_while_read=[],
        changed_while_read_count=0,
    )
    full = t.cast(Sidecar, {**sidecar, **records.LATER, "file_counts": [stats.files]})
    manifest = Manifest(
        backup={key: t.cast("t.Dict[str, t.Any]", full)[key] for key in records.REPEATED},
        root=root,
        links=b"",
        links_size=0,
        users={0: "root"},
        groups={0: "root"},
        skipped=skipped,
        totals=stats._asdict(),
    )
    return full, manifest
