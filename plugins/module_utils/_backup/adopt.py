# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Taking over backups: from now on they are this directory's, which may prune and delete them.

::

    records in the directory that name no directory (version 0.1.0), another one (copied back after a disaster) or another store
        their manifests are in this store -> the ids of directory and store are written into them
    manifests in the store without a record here, of a directory that is lost
        a record is made anew, as repair makes one

The second only where the directory has no record at all, or where it is asked for: another directory that uses the same store may be alive.
A directory from which backups were taken over must not be used any more: each of the two would delete what the other lists.
"""

from __future__ import annotations

import typing as t

from .._base import Damaged, Foreign, NotFound, StoreError, Unsupported, directory_lock, files, show, store_errors
from .._store.store import Store
from .._store.transaction import Transaction
from . import directory, presence, records
from .catalog import Catalog
from .records import Manifest, Sidecar

Row = t.Dict[str, t.Any]


class Adopted(t.NamedTuple):
    """What was taken over, or would be, and what was left with the reason: id, time, workload, what there is of it, and whose it was, of each."""

    adopted: t.List[Row]
    left: t.List[Row]
    changed: bool


class Adopter:
    """Takes over what can be taken over. Use once.

    :param ids: these alone; all of them where none is named. :param unlisted: also manifests without a record. :param dry: write nothing.
    """

    def __init__(self, store: Store, catalog: Catalog, path: str, ids: t.Sequence[str], unlisted: bool, dry: bool) -> None:
        self._store, self._catalog, self._path, self._ids, self._dry = store, catalog, path, list(ids), dry
        self._unlisted = unlisted or bool(ids)
        self._found: t.List[t.Tuple[Row, t.Optional[t.Callable[[directory.Directory], Sidecar]]]] = []

    def __call__(self) -> Adopted:
        store = self._store
        if not store.exists:
            raise StoreError(f"There is no store at {show(store.path)}; mount it, or set the right `store`.")
        if self._dry:
            with store.lock():
                self._look()
        else:
            with Transaction(store):  # which gives a store of version 0.1.0 its id
                directory.make(self._path)
                with directory_lock(self._path, store.lock_timeout), store.refs.lock(store.lock_timeout):
                    self._look()
                    self._write()
        missing = sorted(set(self._ids) - {row["id"] for row, _sidecar in self._found} - set(self._catalog.ids()))
        if missing:
            raise NotFound(
                f"There is no backup {missing[0]} in {show(self._path)} or in the store; run volt-backup adopt without ids to list what can be"
                " adopted."
            )
        taken, left = ([row for row, make in self._found if (make is not None) is wanted] for wanted in (True, False))
        return Adopted(taken, left, bool(taken))

    # ---- looking

    def _look(self) -> None:
        listed: t.Set[str] = set()
        ids = [sidecar["id"] for sidecar in self._catalog.list() if not sidecar.get("foreign")]
        for backup in sorted(ids):
            try:
                sidecar = self._catalog.sidecar(backup)
            except (Foreign, NotFound):
                continue
            except (Damaged, Unsupported) as error:
                listed.update(self._catalog.manifests_of(backup))
                self._add(dict(id=show(backup), found="record"), why=error.message)
                continue
            listed.add(sidecar["manifest_ref"])
            self._look_at(sidecar)
        if self._unlisted or not ids:
            for name in self._store.refs.names():
                if name not in listed:
                    self._look_for(name)

    def _look_at(self, sidecar: Sidecar) -> None:
        """At a record that is here."""
        own, known = self._catalog.owner.own, self._store.format.id if self._store.format is not None else ""
        if own.id and (sidecar["directory_id"], sidecar["store_id"]) == (own.id, known):
            return
        row = _row(t.cast(Row, sidecar), "record", sidecar["store_id"])
        try:
            self._catalog.manifest_here(sidecar)
        except NotFound:
            return
        except (Damaged, Unsupported) as error:
            self._add(row, why=self._catalog.owner.elsewhere(sidecar) or error.message)
            return
        self._add(row, lambda new: t.cast(Sidecar, {**sidecar, "directory_id": new.id, "store_id": new.store}))

    def _look_for(self, name: str) -> None:
        """For a backup of which there is a manifest alone."""
        try:
            manifest, digest = self._catalog.referenced(name)
        except (FileNotFoundError, Foreign):
            return
        except (Damaged, Unsupported) as error:
            self._add(dict(id=records.owner(name) or show(name), found="manifest"), why=error.message)
            return
        found: Manifest = manifest
        self._add(_row(found.backup, "manifest", None), lambda new: records.rebuilt_sidecar(found, name, digest, new.id, new.store))

    def _add(self, row: Row, make: t.Optional[t.Callable[[directory.Directory], Sidecar]] = None, why: t.Optional[str] = None) -> None:
        if not self._ids or row["id"] in self._ids:
            full = {**dict.fromkeys(("id", "created_at", "workload_name", "found", "directory_id", "store_id")), **row, "reason": why}
            self._found.append((full, make))

    # ---- writing

    def _write(self) -> None:
        wanted = [(row, make) for row, make in self._found if make is not None]
        if not wanted:
            return
        with store_errors("writing the records of adopted backups"):
            own = presence.take(self._store, self._path)
            for row, make in wanted:
                files.write_file(self._catalog.path(row["id"]), records.encode_sidecar(make(own)))


def _row(facts: t.Mapping[str, t.Any], found: str, store: t.Optional[str]) -> Row:
    """What is told of a backup. :param found: what there is of it. :param store: the id of the store that it names."""
    names = ("id", "created_at", "workload_name", "directory_id")
    return {**{name: facts[name] for name in names}, "found": found, "store_id": store}
