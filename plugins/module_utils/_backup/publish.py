# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The last step of a new backup: manifest, then sidecar. All that they refer to is durable by then."""

from __future__ import annotations

import os

from .._base import LockLost, directory_lock, files, parse_time, store_failure
from .._store.transaction import Transaction
from . import directory, records
from .ids import new_id
from .records import Manifest, Sidecar


def publish(run: Transaction, backup_dir: str, sidecar: Sidecar, manifest: Manifest) -> None:
    """Write the records of a backup that a transaction has committed. What is known only now is filled in: its id, the manifest's name, the ids of
    directory and store."""
    store = run.store
    with directory_lock(backup_dir, store.lock_timeout), store.refs.lock(store.lock_timeout):
        own = directory.claim(backup_dir, store)
        sidecar["directory_id"], sidecar["store_id"] = own.id, own.store
        manifest.backup["directory_id"] = own.id
        _write(run, backup_dir, sidecar, manifest)


def _write(run: Transaction, backup_dir: str, sidecar: Sidecar, manifest: Manifest) -> None:
    """The sidecar's name settles whose the id is."""
    store = run.store
    created = parse_time(sidecar["created_at"])
    taken = set(map(records.owner, store.refs.names()))  # of other backup directories, or left by a run that died
    number = 1
    while True:
        sidecar["id"] = new_id(sidecar["workload_name"], created, sidecar["type"], number)
        data = records.encode_manifest(manifest._replace(backup={**manifest.backup, "id": sidecar["id"]}))
        sidecar["manifest_ref"], sidecar["manifest_sha256"] = records.reference(sidecar["id"], data)
        path = os.path.join(backup_dir, f"{sidecar['id']}.json")
        number += 1
        if os.path.lexists(path) or sidecar["id"] in taken:
            continue
        try:
            store.refs.write(sidecar["manifest_ref"], data)
            run.check_claims()
            files.write_file(path, records.encode_sidecar(sidecar), exclusive=True)
            return
        except (FileExistsError, LockLost) as error:
            store.refs.remove([sidecar["manifest_ref"]])
            if isinstance(error, LockLost):
                raise
        except OSError as error:
            raise store_failure("writing the backup's records", error) from None
