# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Whose a backup is: several backup directories may share a store, and none may delete what is another's.

::

    <backup_dir>/.directory.json    {"format": 1, "id": "<32 hex digits>", "store": "<the store's id>"}

The file is made with the first backup that is written into a directory, or by volt-backup init. Sidecars and manifests name the directory by its id,
sidecars the store as well. What names another directory is *foreign* here: it is shown, and neither pruned nor repaired nor deleted. A sidecar that names
another store is damaged here: its content is in that store. Sidecars of version 0.1.0 name neither; they count as this directory's, unless their manifests
name another one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
import typing as t

from .._base import NO_LOCKS, Closing, Damaged, NoStore, StoreError, check_format, directory_lock, files, locked, show, store_errors
from .._store.features import new_id
from .._store.store import Store
from .records import Manifest, Sidecar

NAME = ".directory.json"
FORMAT = 1
_MOST = 65536
_ID = re.compile(r"[0-9a-f]{32}\Z")


class Directory(t.NamedTuple):
    """What a backup directory says of itself. `id` is empty where it says nothing yet; `trouble` is why it cannot be told, as a sentence."""

    id: str = ""
    store: str = ""
    trouble: t.Optional[str] = None


def read(path: str) -> Directory:
    """What the directory at a path says of itself; Unsupported where a newer version wrote that, StoreError where it may not be read."""
    place = os.path.join(path, NAME)
    try:
        value = json.loads(files.read_stored(place, _MOST))
        check_format(value["format"], FORMAT, show(place))
        if not _ID.match(value["id"]) or not _ID.match(value["store"]):
            raise ValueError(value)
        return Directory(value["id"], value["store"])
    except FileNotFoundError:
        return Directory()
    except (Damaged, ValueError, KeyError, TypeError, RecursionError):
        return Directory(
            trouble=f"{show(place)} is damaged, so the store of these backups is unknown; restore the file from a copy, or remove it and run"
            " volt-backup adopt."
        )


class OtherStore(StoreError):
    """The store or the backup directory that is known is away, or another store is in its place. `details` has `store_id`, of the one that is known."""


class Away(OtherStore, NoStore):
    """There is none where the one that is known should be."""

    code = OtherStore.code


def match(store: Store, known: str, clause: str) -> None:
    """OtherStore unless a store is the one that is known.

    :param known: its id, or nothing where only that there is one is known. :param clause: who knows that, for the message.
    """
    place = show(store.path)
    if store.format is None:
        raise Away(
            f"There is no store at {place}, but {clause}; mount it, or set the right `store`. To start with an empty store, run volt_backup with new_store:"
            " true.",
            store_id=known or None,
        )
    if store.format.id and known and store.format.id != known:  # one of version 0.1.0 has no id yet
        raise OtherStore(
            f"The store at {place} has the id {store.format.id}, but {clause}; mount the right store, or set `store` or `backup_dir`.", store_id=known
        )


def check(path: str, store: Store) -> Directory:
    """What the directory says of itself; StoreError where it is damaged, or of another store than this."""
    found = read(path)
    if found.trouble is not None:
        raise StoreError(found.trouble)
    if found.store:
        match(store, found.store, f"the backups in {show(path)} need the store with id {found.store}")
    return found


def claimed(path: str, store: Store) -> t.Optional[Directory]:
    """The same; None where its file has yet to be written."""
    found = check(path, store)
    return found if _is_of(found, store) else None


def _is_of(found: Directory, store: Store) -> bool:
    return bool(found.id) and found.store == _id_of(store)


def _id_of(store: Store) -> str:
    return store.format.id if store.format is not None else ""


def claim(path: str, store: Store, anew: bool = False) -> Directory:
    """The same, and the file is made where there is none. Under the directory's lock.

    :param anew: write the file anew where it names another store.
    """
    found = read(path) if anew else check(path, store)
    if found.trouble is not None:
        raise StoreError(found.trouble)
    if _is_of(found, store):
        return found
    found = Directory(found.id or new_id(), _id_of(store))
    text = json.dumps({"format": FORMAT, "id": found.id, "store": found.store}, indent=1) + "\n"
    with store_errors("writing the backup directory's id"):
        files.write_file(os.path.join(path, NAME), text.encode())
    return found


@contextlib.contextmanager
def changing(path: str, sidecar: str, timeout: float) -> t.Iterator[None]:
    """Keep others from changing or removing one backup of a directory, by the lock of its sidecar. Runs may add others meanwhile: one who waited until
    none does would wait for long."""
    deadline = time.monotonic() + timeout
    with directory_lock(path, timeout, alone=False):
        fd = locked(lambda: _open(sidecar), sidecar, fcntl.LOCK_EX, deadline, f"the lock of {show(sidecar)}", NO_LOCKS)
        if fd is not None:
            with Closing(fd):
                yield
            return
    with directory_lock(path, timeout):
        yield


def _open(sidecar: str) -> t.Optional[int]:
    """A descriptor of it, None where there is nothing that can be locked."""
    try:
        return files.open_file(sidecar, os.O_RDWR)  # NFS locks only what may be written
    except OSError:
        return None


def make(path: str) -> None:
    """Make a backup directory where there is none."""
    if os.path.isdir(path):
        return
    with store_errors(f"making the backup directory {path}"):
        os.makedirs(path, mode=0o700, exist_ok=True)
        files.sync_directory(os.path.dirname(path))


class Owner:
    """Whose the backups are that a directory lists."""

    def __init__(self, store: Store, path: str) -> None:
        self._store, self._path = store, path
        self._own = Directory()

    @property
    def own(self) -> Directory:
        """What the directory says of itself; once it has an id, that is known."""
        if not self._own.id:
            self._own = read(self._path)
        return self._own

    def foreign(self, sidecar: Sidecar, manifest: t.Optional[Manifest] = None) -> t.Optional[str]:
        """Why a backup is not this directory's, as a sentence, or None.

        :param manifest: its manifest, where that is at hand: it tells for a sidecar that names no directory.
        """
        known = t.cast("t.Mapping[str, t.Any]", sidecar).get("foreign_reason")
        if known is not None:
            return t.cast(str, known)  # of the original Volt command
        named = sidecar["directory_id"] or (manifest.backup["directory_id"] if manifest is not None else None)
        if named is None or named == self.own.id:
            return None
        return self.own.trouble or f"It belongs to another backup directory (id {named}); run volt-backup adopt to add it to this one."

    def elsewhere(self, sidecar: Sidecar) -> t.Optional[str]:
        """Why the content of a backup is not in this store, as a sentence, or None."""
        named, known = sidecar["store_id"], self._store.format.id if self._store.format is not None else ""
        if not named or not known or named == known:
            return None
        return f"It belongs to another store (id {named}); set `store` to that store."

    def is_ours(self, manifest: Manifest) -> bool:
        """Whether a manifest names this directory."""
        named = manifest.backup["directory_id"]
        return named is not None and named == self.own.id
