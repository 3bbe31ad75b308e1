# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Garbage collection as seen from backups: what they refer to, and what makes that impossible to know.

Every manifest counts, with a sidecar or without: a lost backup directory, or another one given by mistake, must not cost a single blob. A record or
tree that cannot be read ends the collection, for what it refers to is then unknown.
"""

from __future__ import annotations

import contextlib
import typing as t

from .._base import Damaged, Foreign, NotFound, Unsupported, files, parse, parse_span, show
from .._format.reachability import Reachability
from .._restore import known
from .._store.gc import Collector, compact
from .._store.store import Store
from .._store.table import Table
from .._store.trash import one_at_a_time
from . import records
from .catalog import Catalog
from .create import scan_name
from .ids import is_id
from .needs import Needs

#: Half-written records of runs that died are removed when they are older, in seconds.
_LEFTOVER = 86400


class _Adder:
    """Takes what is reached into the table of live blobs."""

    def __init__(self, live: Table) -> None:
        self._live = live

    def content(self, digest: bytes, _size: int) -> None:
        if self._live.find(digest) < 0:
            self._live.add(digest, b"")

    def metadata(self, digest: bytes) -> None:
        self.content(digest, 0)


class Marker:
    """Marks what all backups refer to; each call adds what came since the one before (see `_store.gc.Mark`)."""

    def __init__(self, store: Store, catalog: Catalog) -> None:
        self._store, self._catalog = store, catalog
        self._seen: t.Set[str] = set()
        self._ids: t.Set[str] = set()
        self._reach: t.Optional[Reachability] = None
        self._named: t.Set[str] = set()
        self._held: t.Set[str] = set()
        self._foreign: t.Dict[str, t.Optional[str]] = {}
        self.sources: t.Set[str] = set()
        self.digests: t.Set[str] = set()  # of manifests

    def __call__(self, live: Table) -> None:
        ids = self._catalog.ids()
        references = self._store.refs.names()  # after the sidecars: a backup that has one by then has its manifest
        self._check_sidecars(ids, references)
        new = [name for name in references if name not in self._seen]
        if new:
            self._store.refresh()  # their blobs may be in packs that we do not know yet
        if self._reach is None:
            adder = _Adder(live)
            self._reach = Reachability(self._store.read, adder.content, adder.metadata)
        for name in new:
            if self._mark(name, self._reach):
                self._seen.add(name)
        for name, data in self._store.refs.held():  # after the references: one that was deleted meanwhile is held since before
            if name not in self._seen and name not in self._held:
                with contextlib.suppress(Damaged, Foreign, Unsupported):  # then its reader cannot use it either, or is still writing it
                    manifest = records.decode_manifest(data)
                    self._reach(manifest.root.content, manifest.links)
                    self._held.add(name)

    def _mark(self, name: str, reach: Reachability) -> bool:
        """Mark what a manifest refers to; False where it was deleted at this moment."""
        if not records.owner(name):
            raise Damaged(f"Garbage collection refused: {show(name)}.json in the store's refs directory is not a manifest; move it away.")
        try:
            manifest, digest = self._catalog.referenced(name)
            self.digests.add(digest)
            if not self._catalog.owner.is_ours(manifest):
                self._foreign[name] = manifest.backup["directory_id"]
            self.sources.add(scan_name(parse(manifest.backup["source_path"]), manifest.backup.get("host_id")))
            reach(manifest.root.content, manifest.links)
        except FileNotFoundError:
            return False
        except Foreign:
            self._named.add(name)  # of the original Volt command, whose objects are out of our way
        except Unsupported as error:
            raise _unsupported(records.owner(name), error) from None
        except Damaged as error:
            raise _refusal(f"manifest {name} or a tree below it cannot be read ({error.message})", records.owner(name)) from None
        return True

    def _check_sidecars(self, ids: t.List[str], references: t.List[str]) -> None:
        """Each sidecar can be read, and has its manifest: one that lacks it may be whole again tomorrow, from another copy."""
        there = set(references)
        for backup in ids:
            if backup in self._ids:
                continue
            if not is_id(backup):
                raise Damaged(f"Garbage collection refused: {show(backup)}.json in the backup directory is not a backup's record; move it away.")
            try:
                sidecar = self._catalog.sidecar(backup)
            except (Foreign, NotFound):
                continue
            except Unsupported as error:
                raise _unsupported(show(backup), error) from None
            except Damaged as error:
                raise _refusal(f"the sidecar of backup {show(backup)} cannot be read ({error.message})", show(backup)) from None
            if self._catalog.alien(sidecar) is not None:
                self._ids.add(backup)  # another directory deletes it as it likes, and another store has its content
                self._named.add(sidecar["manifest_ref"])
                continue
            # listed anew before it is missed: the id may have become another backup's since
            if sidecar["manifest_ref"] not in there and sidecar["manifest_ref"] not in self._store.refs.names():
                if self._catalog.is_current(sidecar):
                    raise _refusal(f"manifest {sidecar['manifest_ref']} is missing from the store", backup)
                continue  # deleted; the next call looks at the one that may have the id now
            self._ids.add(backup)
            self._named.add(sidecar["manifest_ref"])

    def unlisted(self) -> t.List[str]:
        """Manifests of this directory that no sidecar names."""
        return sorted(self._seen - self._named - self._foreign.keys())

    def foreign(self) -> t.List[str]:
        """Manifests of no directory that no sidecar names; and those of other directories, if this one lists no backups: else it is one of several."""
        return sorted(name for name, named in self._foreign.items() if name not in self._named and (named is None or not self._ids))


def _refusal(what: str, backup: str) -> Damaged:
    return Damaged(
        f"Garbage collection refused: {what}; run volt_cas_verify with repair: true, or delete backup {backup}, then collect again.",
        backup_id=backup,
    )


def _unsupported(backup: str, error: Unsupported) -> Unsupported:
    return Unsupported(f"Garbage collection refused: it is unknown which data backup {backup} needs. {error.message}", backup_id=backup)


@contextlib.contextmanager
def _lists_kept(store: Store, needs: Needs, collector: Collector, marker: Marker) -> t.Iterator[None]:
    """Keep the lists of needs true around a collection. No other one may end meanwhile: that would let backups share parts that this one changes."""
    with one_at_a_time(store) as collector.check_alone:
        needs.begin()
        try:
            yield
        except BaseException:
            needs.give_up()
            raise
        if collector.keeps_trash:
            needs.forget()  # what a part names and nothing has may be missing, not dead
        needs.end(collector.taken, collector.made, marker.digests)


def collect(store: Store, backup_dir: str, grace: str, repack: bool, dry: bool) -> t.Dict[str, t.Any]:
    """Collect garbage; the figures of `Collected`, and `warnings`."""
    seconds = parse_span(grace).total_seconds()
    marker = Marker(store, Catalog(store, backup_dir))
    collector = Collector(store, marker, seconds, repack, dry)
    needs = Needs(store)
    writes = store.exists and not dry
    with _lists_kept(store, needs, collector, marker) if writes else contextlib.nullcontext():
        collected = collector()
    warnings = list(collector.warnings)
    unlisted, foreign, sources = marker.unlisted(), marker.foreign(), marker.sources
    del collector, marker, needs
    if writes:
        if collected.trashed_files or store.needs_compaction():
            compact(store, warnings)
        store.tidy(sources, _LEFTOVER)
        known.sweep(store.cache)
        files.sweep(backup_dir, _LEFTOVER)
    if unlisted:
        warnings.append(
            f"{len(unlisted)} manifest(s) have no sidecar in {show(backup_dir)}, first {unlisted[0]}; their data was kept. To list them again, run"
            " volt_cas_verify with repair: true."
        )
    if foreign:
        warnings.append(
            f"{len(foreign)} backup(s) in this store belong to a backup directory other than {show(backup_dir)}, first {records.owner(foreign[0])}; their"
            " data was kept. If that directory is lost, run volt-backup adopt --unlisted."
        )
    changed = bool(collected.freed_files or collected.trashed_files)
    lines = [
        f"move {collected.trashed_files} file(s) to the trash, {collected.trashed_bytes} bytes\n" if collected.trashed_files else "",
        f"rewrite {collected.repacked_packs} pack(s) as {collected.written_bytes} bytes\n" if collected.repacked_packs else "",
        f"delete {collected.freed_files} file(s), {collected.freed_bytes} bytes\n" if collected.freed_files else "",
    ]
    return {**collected._asdict(), "changed": changed, "diff": {"prepared": "".join(lines)}, "warnings": warnings}
