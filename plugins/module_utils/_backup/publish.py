# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The last step of a new backup: manifest, then sidecar. All that they refer to is durable by then."""

from __future__ import annotations

import os

from .._base import LockLost, directory_lock, files, parse_time, store_errors
from .._store.transaction import Transaction
from . import directory, records
from .ids import new_id
from .records import Manifest, Sidecar


def publish(run: Transaction, backup_dir: str, sidecar: Sidecar, manifest: Manifest) -> None:
    """Write the records of a backup that a transaction has committed. What is known only now is filled in: its id, the manifest's name, the ids of
    directory and store.

    Runs that end together share the locks, so none waits while another syncs. A run holds them alone where two of them chose the same id, and where the
    directory's own file has to be written.
    """
    if not _publish(run, backup_dir, sidecar, manifest, alone=False):
        _publish(run, backup_dir, sidecar, manifest, alone=True)


def _publish(run: Transaction, backup_dir: str, sidecar: Sidecar, manifest: Manifest, alone: bool) -> bool:
    store = run.store
    with directory_lock(backup_dir, store.lock_timeout, alone), store.refs.lock(store.lock_timeout, alone):
        own = directory.claim(backup_dir, store) if alone else directory.claimed(backup_dir, store)
        if own is None:
            return False
        sidecar["directory_id"], sidecar["store_id"] = own.id, own.store
        manifest.backup["directory_id"] = own.id
        return _write(run, backup_dir, sidecar, manifest, alone)


def _write(run: Transaction, backup_dir: str, sidecar: Sidecar, manifest: Manifest, alone: bool) -> bool:
    """Give the backup an id. False where another run that shares the locks chose the same; nothing is left of ours then."""
    created = parse_time(sidecar["created_at"])
    taken = set(map(records.owner, run.store.refs.names()))  # of other backup directories, or left by a run that died
    number = 1
    while True:
        sidecar["id"] = new_id(sidecar["workload_name"], created, sidecar["type"], number)
        data = records.encode_manifest(manifest._replace(backup={**manifest.backup, "id": sidecar["id"]}))
        sidecar["manifest_ref"], sidecar["manifest_sha256"] = records.reference(sidecar["id"], data)
        path = os.path.join(backup_dir, f"{sidecar['id']}.json")
        number += 1
        if os.path.lexists(path) or sidecar["id"] in taken:
            continue
        if _add(run, path, sidecar, data, alone):
            return True
        if not alone:
            return False


def _add(run: Transaction, path: str, sidecar: Sidecar, manifest: bytes, alone: bool) -> bool:
    """Write the manifest, then the sidecar. False where the id was taken meanwhile: in this directory by the name of a sidecar, in the store by that of a
    manifest."""
    refs, name = run.store.refs, sidecar["manifest_ref"]
    with store_errors("writing the backup's records"):
        try:
            refs.write(name, manifest)
        except FileExistsError:
            return False  # the same tree at the same moment: it is another run's
        try:
            if alone or all(other == name for other in refs.names() if records.owner(other) == sidecar["id"]):
                run.check_claims()
                files.write_file(path, records.encode_sidecar(sidecar), exclusive=True)
                return True
        except FileExistsError:
            return False  # a sidecar of this very manifest: where names are not exclusive (`give_name`), two may write that at one moment
        except LockLost:
            refs.remove([name])
            raise
        refs.remove([name])
        return False
