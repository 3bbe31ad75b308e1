# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Bringing a backup from elsewhere into the store of this host: data first, then the manifest, then the sidecar, as a run that makes a backup does."""

from __future__ import annotations

import typing as t

from .._base import Damaged, NotFound, Progress, Unsupported
from .._format import chunks, magic
from .._format.reachability import Reachability
from .._store.features import CDC
from .._store.store import Store
from .._store.transaction import Transaction
from . import directory
from .catalog import Catalog, trouble_of
from .origin import Origin
from .publish import publish
from .records import CopyRecord, Manifest, Sidecar


class Pulled(t.NamedTuple):
    """A backup that is here now, or would be; and what the store lacked of its content."""

    sidecar: Sidecar
    changed: bool
    new_blobs: int = 0
    new_bytes: int = 0


def pull(store: Store, catalog: Catalog, backup_dir: str, origin: Origin, copy: CopyRecord, dry: bool, progress: Progress) -> Pulled:
    """Bring a backup here, unless it is here. :param copy: where it comes from, for its record."""
    manifest = origin.manifest()
    here = _here(catalog, origin.sidecar, manifest)
    if here is not None:
        return Pulled(here, False)
    lacking: t.Dict[bytes, int] = {}

    def look(digest: bytes, size: int) -> None:
        if not store.has(digest, size):
            lacking[digest] = size

    Reachability(origin.blobs.read, look)(manifest.root.content, manifest.links)
    found = Pulled(_of_here(origin.sidecar, copy, lacking), True, len(lacking), sum(lacking.values()))
    if not dry:
        with origin.supplying(lacking, 0):
            _take(store, backup_dir, origin, manifest, found.sidecar, progress)
    return found


def _here(catalog: Catalog, sidecar: Sidecar, manifest: Manifest) -> t.Optional[Sidecar]:
    """The same backup, if it is in the store, and sound as far as is known. Its id may be another one."""
    for other in catalog.list(sidecar["workload_name"]):
        if trouble_of(other) is not None or any(other[key] != sidecar[key] for key in ("created_at", "type", "host_id")):
            continue
        judged = catalog.judged(other)
        try:
            if judged is not None and trouble_of(judged) is None and not judged["foreign"] and catalog.manifest(other).root == manifest.root:
                return other
        except (Damaged, NotFound, Unsupported):
            continue
    return None


def _of_here(sidecar: Sidecar, copy: CopyRecord, lacking: t.Mapping[bytes, int]) -> Sidecar:
    others = [other for other in sidecar["copies"] if other["remote"] != copy["remote"]]
    counts = {"new_blobs": len(lacking), "dedup_blobs": max(sidecar["blob_count"] - len(lacking), 0)}
    return t.cast(Sidecar, {**sidecar, **counts, "pushed_to_cdn": True, "copies": [*others, copy]})


def _take(store: Store, backup_dir: str, origin: Origin, manifest: Manifest, sidecar: Sidecar, progress: Progress) -> None:
    with Transaction(store) as run:
        directory.make(backup_dir)

        def read(digest: bytes, limit: int) -> bytes:
            blob = origin.blobs.read(digest, limit)
            if blob.startswith(magic.CUTS):
                run.require(CDC)
            run.add_metadata(blob)
            return blob

        def content(digest: bytes, size: int) -> None:
            if run.brings(digest):
                return
            if size <= chunks.PACKED_MOST:
                if not run.blobs.has(digest):
                    run.blobs.add(digest, origin.blobs.read(digest, size))
                    progress(1, size)
            elif not run.objects.has(digest, size):
                run.objects.save(digest, origin.blobs.read(digest, size))
                progress(1, size)

        Reachability(read, content)(manifest.root.content, manifest.links)
        run.commit()
        sidecar["new_bytes"], sidecar["stored_bytes"] = run.counts.new_bytes, run.counts.stored_bytes
        publish(run, backup_dir, sidecar, manifest)
