# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Whether the store that belongs here is there: a disk that is not mounted must not pass for an empty store, nor get one in its place.

What knows of a store: the host file, where it names this path; else the job of a schedule; `.directory.json`; and backups that are listed. A store is
made where none of them does, or where a user says to begin anew. Backups of a store that was given up stay listed, and are damaged.
"""

from __future__ import annotations

import os
import typing as t

from .._base import VoltError, directory_lock, files, show, store_errors, tolerated
from .._store.store import Store
from . import directory, host
from .catalog import Catalog


class Begun(t.NamedTuple):
    """What there is, or would be: `store_id` is None where only a real run gives it one. `steps` are what was done for it, a line each."""

    store: str
    backup_dir: str
    store_id: t.Optional[str]
    steps: t.List[str]


def check(store: Store, catalog: Catalog, path: str, told: t.Optional[str] = None) -> None:
    """OtherStore where the store that is known is away, or another one is in its place.

    :param path: the backup directory. :param told: the store's id, as a job knows it.
    """
    if not store.exists:
        listed = [sidecar for sidecar in catalog.list() if sidecar["workload_name"] is not None and not sidecar.get("foreign")]
        if listed:
            known = next((sidecar["store_id"] for sidecar in listed if sidecar["store_id"]), "")
            which = f" of the store with id {known}" if known else ""
            directory.match(store, known, f"{show(path)} lists {len(listed)} backup(s){which}")
    named = _named_by_host(store)
    if named and store.exists and not os.path.isdir(path) and _is_home(path) and store.refs.names():
        raise directory.OtherStore(
            f"The backup directory {show(path)} of this host is missing, but the store has backups; mount its disk, or recreate it with"
            " volt-backup adopt.",
            store_id=named,
        )
    if named or told:
        directory.match(store, named or told or "", f"{host.PATH if named else 'the schedule'} needs the store with id {named or told}")
    directory.check(path, store)


def _named_by_host(store: Store) -> t.Optional[str]:
    """The id that the host file has for the store at this path."""
    try:
        home = host.read()
    except host.Hidden:
        return None  # a user who may not read it has named the store
    except VoltError:
        if store.exists:
            return None  # no reason to do without backups
        raise
    return home.store_id if home is not None and host.is_same(home.store, show(store.path)) else None


def _is_home(path: str) -> bool:
    """Whether the host file names this backup directory."""
    home = host.read()
    return home is not None and host.is_same(home.backup_dir, show(path))


def to_begin(store: Store, catalog: Catalog, path: str, told: t.Optional[str], anew: bool) -> bool:
    """Whether to begin anew, for what is known is another store; OtherStore where that may not be.

    :param anew: whether the user said so. A store with backups is still not taken in place of another.
    """
    try:
        check(store, catalog, path, told)
        return False
    except directory.OtherStore:
        if not anew or (store.exists and store.refs.names()):
            raise
        return True


def plan(store: Store, path: str, name: bool) -> t.List[str]:
    """What `begin` would do, a line each; StoreError where that could not be done."""
    place, where = show(store.path), show(path)
    for shown, real in ((place, store.path), (where, path)):
        with store_errors(f"making directory {shown}"):
            if not os.path.isdir(real):
                files.foresee_write(real)
    steps = [f"make directory {shown}" for shown, real in ((place, store.path), (where, path)) if not os.path.isdir(real)]
    if store.format is None:
        steps.append(f"make store {place}")
    elif not store.format.id:
        steps.append(f"give store {place} an id")
    if name:
        steps.append(f"name the store in {where}/{directory.NAME}")
    return steps


def begin(store: Store, path: str, name: bool = True) -> None:
    """Make the store and the backup directory, unless they are there. `name`: let the directory name this store, even before there are backups."""
    from .._store.transaction import Transaction  # what only reads needs no threads

    with Transaction(store):  # which makes a store, and gives one of version 0.1.0 its id
        directory.make(path)
        if name:
            with directory_lock(path, store.lock_timeout):
                take(store, path)


def take(store: Store, path: str) -> directory.Directory:
    """Let backup directory and host file name this store. Under the directory's lock."""
    own = directory.claim(path, store, anew=True)
    home = None
    with tolerated(VoltError):  # one that cannot be read names nothing, and the next declaration says so
        home = host.read()
    if home is not None and home.store_id != own.store and host.is_same(home.store, show(store.path)):
        host.write(home._replace(store_id=own.store))
    return own
