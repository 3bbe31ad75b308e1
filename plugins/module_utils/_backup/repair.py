# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Repair: what verification found false is taken out, and what is missing is looked for wherever it may still be.

::

    move false files to quarantine/
    take again, from quarantine and trash, every blob that backups lack: trees first, for only they tell what else is needed
    lists of what is still missing in hand, read the live sources again as a backup would: what they still hold is stored once more
    make sidecars anew for manifests of this backup directory that have none, or none that can be read
    write the index anew; drop stat caches that cannot be read

Nothing is destroyed: false files stay in quarantine, and a backup that stays damaged stays listed as damaged.
"""

from __future__ import annotations

import typing as t

from .._base import Damaged, Foreign, NotFound, Progress, SourceError, Unsupported, UsageError, directory_lock, files, store_errors
from .._capture.stat_cache import Scan
from .._format import chunks
from .._store.cache import STAT_CACHE
from .._store.quarantine import Quarantine, Remains
from .._store.store import Store
from .._store.transaction import Transaction
from .._store.trash import one_at_a_time
from . import directory, records
from .catalog import Catalog
from .create import retake
from .ids import check_id
from .verify import Structure, Verified, Verifier, VerifyRequest

#: (digest, how many bytes it may have) -> a blob, hashed; None where it is not to be had.
Elsewhere = t.Callable[[bytes, int], t.Optional[bytes]]


class Repairer:
    """Repairs what a verification has found. Use once.

    :param elsewhere: gives blobs that are neither in the store nor in what remains of it, such as those that have copies on a remote.
    :ivar done: what was done: `quarantined` (paths below the store), `blobs` (taken again), `fetched` (of these, from elsewhere), `sources` (read again),
        `sidecars` (ids, made anew).
    """

    def __init__(
        self, store: Store, catalog: Catalog, backup_dir: str, verifier: Verifier, limit: int, dry: bool, elsewhere: t.Optional[Elsewhere] = None
    ) -> None:
        self._store, self._catalog, self._directory, self._verifier, self._dry = store, catalog, backup_dir, verifier, dry
        self._limit, self._elsewhere = limit, elsewhere
        self.done: t.Dict[str, t.Any] = {"quarantined": [], "blobs": 0, "fetched": 0, "sources": [], "sidecars": []}

    @property
    def changed(self) -> bool:
        """A source that was read again in vain changes nothing."""
        return bool(self.done["quarantined"] or self.done["blobs"] or self.done["sidecars"])

    def __call__(self) -> None:
        """Afterwards the verifier's survey tells what stays lost; dry, `done` tells what would be taken out and made anew, as far as it is known."""
        if not self._store.exists:
            return
        if self._dry:
            self.done["quarantined"] = [file.path for file, _wrong in self._verifier.files]
            self.done["sidecars"] = [records.owner(name) for name in self._sidecars_to_make()]
            return
        with one_at_a_time(self._store):
            quarantine = Quarantine(self._store)
            self.done["quarantined"] = quarantine.take([file for file, _wrong in self._verifier.files])
            self._verifier.files = []
            if self.done["quarantined"] or self._verifier.structure.lacking:
                self._take_again()
                if self._verifier.structure.lacking:
                    self._read_sources()
            self._make_sidecars(quarantine)
            self._renew_derived()
        with self._store.lock():
            structure = Structure(self._store, self._catalog, self._verifier.ids)
            structure.read_records()
            self._store.refresh()
            structure.look()
            structure.tell(self._limit)
            self._verifier.structure = structure

    # ---- blobs

    def _take_again(self) -> None:
        """One walk that reads trees from the store or from what remains of them, and keeps what the store lacks."""
        store = self._store
        with Transaction(store) as run:
            remains = Remains(store)

            def keep(digest: bytes, limit: int, error: Damaged) -> bytes:
                blob = remains.get(digest)
                if blob is None and self._elsewhere is not None:
                    blob = self._elsewhere(digest, limit)
                    self.done["fetched"] += blob is not None
                if blob is None:
                    raise error
                return blob

            def read(digest: bytes, limit: int) -> bytes:
                try:
                    return store.read(digest, limit)
                except Damaged as error:
                    blob = keep(digest, limit, error)
                    run.put_back_metadata(digest, blob)
                    return blob

            def content(digest: bytes, size: int) -> None:
                try:
                    store.present(digest, size)
                except Damaged as error:
                    if run.brings(digest):
                        return
                    blob = keep(digest, size, error)
                    if size <= chunks.PACKED_MOST:
                        run.blobs.put_back(digest, blob)
                    else:
                        run.objects.put_back(digest, blob)

            self._verifier.structure.look(read, content)
            self.done["blobs"] += run.brought
            run.commit()

    def _read_sources(self) -> None:
        """Read live sources again, newest backups first, until nothing is missing; each source once for each set of rules."""
        store, structure = self._store, self._verifier.structure
        tried: t.List[t.Tuple[t.Any, ...]] = []
        for _backup, manifest in sorted(structure.whole, key=lambda pair: pair[1].backup["created_at"], reverse=True):
            facts = manifest.backup
            rules = tuple(facts[key] for key in ("source_path", "exclude", "exclude_caches", "one_file_system"))
            if rules in tried:
                continue
            tried.append(rules)
            # below a lost tree it is not known what is missing, so then everything that the store lacks is taken
            with Transaction(store, only=None if structure.trees else set(structure.lacking)) as run:
                try:
                    retake(run, facts, store.path, self._directory)
                except (SourceError, UsageError):
                    continue  # not on this host any more
                self.done["sources"].append(facts["source_path"])
                if not any(run.brings(digest) for digest in structure.lacking):
                    continue  # what it has is of no use here
                run.commit()
            before = set(structure.lacking)
            with store.lock():
                structure.look()
            self.done["blobs"] += len(before.difference(structure.lacking))
            if not structure.lacking:
                return

    # ---- records

    def _sidecars_to_make(self) -> t.List[str]:
        """Manifests without a sidecar, or whose sidecar cannot be read."""
        found = list(self._verifier.structure.unlisted)
        unreadable = self._verifier.structure.records
        for name in self._store.refs.names():
            if records.owner(name) in unreadable and name not in found and self._may_make(name):
                found.append(name)
        return found

    def _may_make(self, name: str) -> bool:
        """Whether a manifest can be read and is not another directory's."""
        try:
            manifest, _digest = self._catalog.referenced(name)
        except (Damaged, FileNotFoundError, Foreign, Unsupported):
            return False
        return manifest.backup["directory_id"] is None or self._catalog.owner.is_ours(manifest)

    def _make_sidecars(self, quarantine: Quarantine) -> None:
        wanted = self._sidecars_to_make()
        if not wanted:
            return
        directory.make(self._directory)
        # as `publish`: a run that is just between its manifest and its sidecar must not find the sidecar's name taken
        with directory_lock(self._directory, self._store.lock_timeout), self._store.refs.lock(self._store.lock_timeout):
            for name in wanted:
                self._make_sidecar(name, quarantine)

    def _make_sidecar(self, name: str, quarantine: Quarantine) -> None:
        try:
            manifest, digest = self._catalog.referenced(name)
            backup = check_id(manifest.backup["id"])
        except (Damaged, FileNotFoundError, Foreign, UsageError, Unsupported):
            return
        path = self._catalog.path(backup)
        try:
            self._catalog.sidecar(backup)
            return  # it has come meanwhile
        except NotFound:
            pass
        except (Foreign, Unsupported):
            return
        except Damaged:
            self.done["quarantined"].append(quarantine.move(path, "backups"))
        own = directory.claim(self._directory, self._store)
        with store_errors(f"writing the sidecar of {backup}"):
            files.write_file(path, records.encode_sidecar(records.rebuilt_sidecar(manifest, name, digest, own.id, own.store)), exclusive=True)
        self.done["sidecars"].append(backup)

    # ---- derived

    def _renew_derived(self) -> None:
        """The index, if anything was wrong; stat caches that cannot be read."""
        if self.changed:
            with Transaction(self._store) as run:
                run.commit(folding="all")
        cache = self._store.cache
        for name in cache.names(STAT_CACHE):
            if Scan(cache.path(name)).root() is None:
                cache.remove(name)


def verified(
    store: Store, catalog: Catalog, backup_dir: str, request: VerifyRequest, dry: bool, progress: Progress, elsewhere: t.Optional[Elsewhere]
) -> Verified:
    """Verify, and repair where that is asked for and something is wrong. :param elsewhere: see `Repairer`."""
    verifier = Verifier(store, catalog, request, dry, progress)
    verifier()
    done, changed = None, False
    if request.repair:
        repairer = Repairer(store, catalog, backup_dir, verifier, request.diff_limit, dry, elsewhere)
        repairer()
        done, changed = repairer.done, repairer.changed
    listed, count, hurt = verifier.damage()
    structure = verifier.structure
    backups = {backup for backup, _manifest in structure.whole}.union(structure.records)
    return Verified(
        damage=listed,
        damage_count=count,
        damaged=hurt,
        unsupported=sorted(structure.unsupported),
        foreign=sorted(structure.foreign),
        unlisted=structure.unlisted,
        backup_count=len(backups | structure.unsupported),
        file_count=verifier.read_files,
        byte_count=verifier.read_bytes,
        covered=verifier.covered,
        repaired=done,
        changed=changed,
        warnings=verifier.warnings,
    )
