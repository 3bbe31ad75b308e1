# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The door to the engine: what modules and the command call.

Each action imports what it needs when it is called. A listing, which people wait for, needs a third of the engine.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import typing as t

from .._base import (
    Damaged,
    Foreign,
    NoStore,
    NotFound,
    Progress,
    Protected,
    Standing,
    StoreError,
    StoreFull,
    UsageError,
    VoltError,
    newer,
    parse_time,
    show,
    unwatched,
)
from .._format import tree
from .._store.store import WALKER, Store
from . import acts, directory, host, names, presence
from .catalog import Catalog, of_future, parse_created, selects, trouble_of, unreadable
from .copies import Copies
from .ids import check_id, check_workload
from .query import Query, accepts
from .records import Listed

if t.TYPE_CHECKING:
    from .._restore.plan import RestoreRequest
    from . import adopt, create, differ, import_original, marks, prune, pull, repair, restore, verify
    from .origin import Origin
    from .records import CopyRecord
    from .retention import Keep
    from .search import Search


@contextlib.contextmanager
def no_cycles() -> t.Iterator[None]:
    """Without the cycle collector, which would look at every entry again and again: the engine makes next to no cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@acts.noted(acts.LOCAL, lambda manager: {"store": manager.shown[0]})
class Manager:
    """All that can be done with the backups of one store.

    :param store: path of the store. :param backup_dir: path of the sidecars. Where one is None, the host file tells (see `host`).
    :param lock_timeout: seconds. :param store_id: the store's id, as far as the caller knows it.
    """

    def __init__(
        self, store: t.Optional[str], backup_dir: t.Optional[str], lock_timeout: float = 300, store_id: t.Optional[str] = None
    ) -> None:
        self._asked, self._timeout, self._told = (store, backup_dir), lock_timeout, store_id

    @functools.cached_property
    def _paths(self) -> t.Tuple[str, str]:
        """Of the store and of the sidecars; found out when they are needed, so that what needs neither does not fail for them."""
        store, backup_dir = host.resolve(*self._asked)
        for name, path in (("store", store), ("backup_dir", backup_dir)):
            if not path:
                raise UsageError(f"The {name} is an empty path; set a directory.")
        return host.absolute(store), host.absolute(backup_dir)

    @property
    def is_named(self) -> bool:
        """Whether the caller named a place, instead of leaving it to the host."""
        return any(self._asked)

    @property
    def backup_dir(self) -> str:
        """The directory of the sidecars, as it is shown."""
        return show(self._paths[1])

    @property
    def shown(self) -> t.Tuple[str, str]:
        """The paths of the store and of the sidecars, as they are shown."""
        return show(self._paths[0]), self.backup_dir

    @property
    def where(self) -> str:
        """Which store and backup directory are read, for messages."""
        return self._look()[1].where

    def lack(self, workload: t.Optional[str] = None, is_scheduled: t.Callable[[str], bool] = lambda _workload: False) -> t.Optional[VoltError]:
        """Why there is nothing to be found, where that is no matter of filters: NoStore, or NotFound for a workload that has no backups and no schedule."""
        store, catalog = self._open()
        if not store.exists and not catalog.ids():
            return NoStore(f"There is no {catalog.where}; set the right `store`, or make a first backup.")
        if workload is not None and not catalog.list(check_workload(workload)) and not is_scheduled(workload):
            return NotFound(f"Workload {workload} has no backups in {catalog.where} and no schedule; list all backups to see the workloads.")
        return None

    @property
    def _directory(self) -> str:
        return self._paths[1]

    def _look(self, dry: bool = False, **more: t.Any) -> t.Tuple[Store, Catalog]:
        """The store, whether it is there or not. :param dry: nothing may be written, not even what may be lost. :param more: for `Store`."""
        store = Store(self._paths[0], self._timeout, **more)
        return store, Catalog(store, self._directory, not dry)

    def _open(self, dry: bool = False, **more: t.Any) -> t.Tuple[Store, Catalog]:
        """The store; where none was ever made, it is empty. One that is not mounted must not pass for that, nor another one for it."""
        store, catalog = self._look(dry, **more)
        try:
            presence.check(store, catalog, self._directory, self._told)
        except directory.OtherStore:
            raise
        except StoreError:
            if not store.exists:
                raise  # else what is damaged is no reason to do without the backups that are there
        return store, catalog

    @contextlib.contextmanager
    def _locked(self, dry: bool = False, **more: t.Any) -> t.Iterator[t.Tuple[Store, Catalog]]:
        """The same, to read from or to write records (see `Store.lock`)."""
        store, catalog = self._open(dry, **more)
        with store.lock():
            yield store, catalog

    def check_store(self) -> t.Optional[str]:
        """The id of the store, None where there is none; StoreError where one is known that is away, or another one is in its place."""
        store, catalog = self._look()
        presence.check(store, catalog, self._directory, self._told)
        return (store.format.id or None) if store.format is not None else None

    def begin(self, replace: bool = False, dry: bool = False, name: bool = True) -> presence.Begun:
        """Make the store and the backup directory, unless they are there. `replace`: also make a new store for one that is away; the backups of that are lost.

        :param name: let the directory name the store even before there are backups. Not for who writes down elsewhere which store it is.
        """
        store, catalog = self._look(dry)
        anew = presence.to_begin(store, catalog, self._directory, self._told, replace)
        if replace and not anew and store.exists:
            raise UsageError(f"The store at {show(store.path)} exists, and --replace does not overwrite it; move it away, or omit --replace.")
        name = anew or (name and not directory.read(self._directory).id)
        steps = presence.plan(store, self._directory, name)
        if steps and not dry:
            presence.begin(store, self._directory, name)
        known = (store.format.id or None) if store.format is not None else None
        return presence.Begun(show(store.path), self.backup_dir, known, steps)

    def create(
        self,
        request: create.CreateRequest,
        dry: bool = False,
        progress: Progress = unwatched,
        new_store: bool = False,
        standing: t.Optional[Standing] = None,
    ) -> create.Created:
        """Make a backup. `dry` computes it and writes nothing. `new_store`: begin anew where a store is known that is away.

        :param standing: tells where the work stands, to one who looks on.
        """
        from . import create, prune

        store, catalog = self._look(dry)
        creator = create.Creator(store, self._directory, request, dry, progress, standing or Standing())
        if presence.to_begin(store, catalog, self._directory, self._told, new_store) and not dry:
            presence.begin(store, self._directory)
        try:
            with no_cycles():
                return creator()
        except StoreFull as error:
            count, size = prune.held(catalog.owner, catalog.own(request.workload))
            if not count:
                raise
            why = f"{count} backup(s) that added {size} bytes are kept because a later one is suspect; accept that one, or delete some of them"
            raise StoreFull(f"{error.message} {why}.", **error.details) from None

    def restore(
        self,
        backup: t.Optional[str],
        request: RestoreRequest,
        newest: t.Optional[Query] = None,
        before: t.Optional[str] = None,
        dry: bool = False,
        reread: bool = False,
        progress: Progress = unwatched,
    ) -> t.Tuple[restore.Restored, t.List[t.Dict[str, str]]]:
        """Restore a backup by id, or the newest that a query finds; also what was passed over on the way to it.

        :param reread: hash all that is at the target, and leave no stat cache of it.
        """
        from . import restore
        from .origin import LocalOrigin

        store, catalog = self._open(dry)
        limit = parse_time(before) if before else None
        with store.lock():
            passed: t.List[t.Dict[str, str]] = []
            if backup is not None:
                sidecar = catalog.sidecar(check_id(backup))
            else:
                query = newest or Query()
                if query.workload is None:
                    raise UsageError("No backup was chosen; give an id, or a workload to restore its newest backup.")
                accept = selects(check_workload(query.workload), query.type, query.tags)
                found, passed = catalog.newest(
                    query.workload, True, lambda listed: accept(listed) and (limit is None or parse_created(listed) < limit)
                )
                if found is None:
                    raise NotFound(
                        f"Workload {query.workload} has no matching backup in {catalog.where} that is complete and undamaged; list its backups and restore"
                        f" one by its id. `salvage: true` restores the intact files of a damaged one.{names.first_of(passed)}",
                        skipped=passed,
                    )
                sidecar = found
            origin = LocalOrigin(store, catalog, self._directory, sidecar)
            restorer = restore.Restorer(origin, request, dry, reread, progress)
            try:
                with no_cycles(), catalog.reading(sidecar):
                    return restorer(), passed
            except Damaged:
                if not dry:
                    store.remember()  # so that the next listing does not promise it again
                raise

    def pull(self, origin: Origin, copy: CopyRecord, dry: bool = False, progress: Progress = unwatched) -> pull.Pulled:
        """Bring a backup from elsewhere into the store, which is made if there is none. :param copy: where it comes from, for its record."""
        from . import pull

        store, catalog = self._look(dry)
        if presence.to_begin(store, catalog, self._directory, self._told, False) and not dry:
            presence.begin(store, self._directory)
        with no_cycles():  # without the store's lock: the first write to a store of version 0.1.0 takes it alone
            return pull.pull(store, catalog, self._directory, origin, copy, dry, progress)

    @property
    def copies(self) -> Copies:
        """The copies of the backups on remotes."""
        return Copies(*self._open())

    def delete(self, backup: str, dry: bool = False) -> t.Optional[Listed]:
        """Delete a backup; its sidecar as it was, or None where there was none."""
        check_id(backup)
        store, catalog = self._open(dry, proves=False)
        if not catalog.exists(backup) and not catalog.manifests_of(backup):
            return None
        with store.lock():
            found = next(iter(catalog.list(backup=backup)), None)
            missing = found is None
            if missing and catalog.manifests_of(backup):
                found = unreadable(backup, Damaged("Its sidecar is missing."))  # a run that died before it wrote or after it removed it
            judged = catalog.judged(found) if found is not None else None
            if judged is not None and judged["unsupported"]:
                raise newer(f"Backup {backup}")
            alien = (judged["foreign_reason"] or catalog.owner.elsewhere(judged)) if judged is not None else None
            if alien is not None:
                raise Foreign(f"Backup {backup} was not deleted. {alien}", backup_id=backup)
            if judged is not None and judged["protected"]:
                raise Protected(
                    f"Backup {backup} is protected and was not deleted; run volt_backup with state: unprotected and id: {backup} first.", backup_id=backup
                )
            if found is not None and not dry and not catalog.remove(backup, found):
                # where there was no sidecar, another process was deleting the backup, and the id is that of a new one by now
                if found["manifest_ref"] is None and not missing and catalog.exists(backup):
                    raise StoreError(f"Backup {backup} was not deleted, because its record changed meanwhile; try again.")
                return None  # another process was first
            return found

    def accept_mounts(self, workload: str, dry: bool = False) -> t.List[str]:
        """Forget what was mounted at the last backups of a workload and is not now; these mount points.

        NotFound where there are no backups of it.
        """
        from . import marks

        check_workload(workload)
        with self._locked(dry) as (_store, catalog):
            return marks.accept_mounts(catalog, workload, dry)

    def accept(self, backup: str, dry: bool = False) -> marks.Marked:
        """Accept a suspect backup as correct."""
        from . import marks

        with self._locked(dry) as (_store, catalog):
            return marks.accept(catalog, check_id(backup), dry)

    def protect(self, backup: str, wanted: bool = True, dry: bool = False) -> marks.Marked:
        """Say that a backup must not be deleted, or may be again."""
        from . import marks

        with self._locked(dry) as (_store, catalog):
            return marks.protect(catalog, check_id(backup), wanted, dry)

    def adopt(self, ids: t.Sequence[str] = (), unlisted: bool = False, dry: bool = False) -> adopt.Adopted:
        """Take over backups whose records name no directory, another one, or another store. `unlisted`: also those of which the store has nothing but
        the manifest."""
        from . import adopt

        store, catalog = self._look(dry)
        if not store.exists:
            presence.check(store, catalog, self._directory, self._told)
        return adopt.Adopter(store, catalog, self._directory, [check_id(backup) for backup in ids], unlisted, dry)()

    def import_original(self, ids: t.Sequence[str] = (), dry: bool = False) -> import_original.Imported:
        """Take in backups of the original Volt command; what is there of it stays as it is."""
        from . import import_original

        store, catalog = self._open(dry)
        return import_original.Importer(store, catalog, self._directory, [check_id(backup) for backup in ids], dry)()

    def prune(
        self,
        workload: str,
        keep: Keep,
        types: t.Sequence[str] = (),
        dry: bool = False,
        coming: t.Optional[Listed] = None,
        new_store: bool = False,
    ) -> prune.Pruned:
        """Delete a workload's backups that a policy does not keep.

        :param coming: in check mode, one that a real run would have made. :param new_store: it would have begun anew where the store is away.
        """
        from . import prune

        store, catalog = self._look(dry, proves=False) if new_store else self._open(dry, proves=False)
        anew = new_store and presence.to_begin(store, catalog, self._directory, self._told, True)
        pruner = prune.Pruner(store, catalog, workload, keep, types, dry, coming, anew)
        with no_cycles():
            return pruner()

    def collect(self, grace: str = "24h", repack: bool = True, dry: bool = False) -> t.Dict[str, t.Any]:
        """Collect garbage: what no backup refers to goes to the trash, and from there after `grace`, a span of time."""
        from . import garbage

        store, _catalog = self._open(room=WALKER)
        with no_cycles():
            return garbage.collect(store, self._directory, grace, repack, dry)

    def verify(
        self, request: verify.VerifyRequest, dry: bool = False, progress: Progress = unwatched, elsewhere: t.Optional[repair.Elsewhere] = None
    ) -> verify.Verified:
        """Look whether everything is there and sound; with `request.repair`, mend what can be. :param elsewhere: gives blobs that the store has lost."""
        from . import repair

        if request.vet:
            raise UsageError("Only packs of a remote are vetted; name one with `remote`, and omit `repair`.")
        store, catalog = self._open(room=WALKER)
        with no_cycles():
            return repair.verified(store, catalog, self._directory, request, dry, progress, elsewhere)

    def find(self, query: Query, dry: bool = False) -> t.List[Listed]:
        """Sidecars that match, newest first, each with the state of its backup. `dry` notes nothing of what it finds out."""
        accept = accepts(query)
        found = []
        with self._locked(dry, proves=False) as (_store, catalog):
            for sidecar in filter(accept, catalog.list(query.workload, query.id)):
                judged = catalog.judged(sidecar)
                if judged is not None:
                    found.append(judged)
                if query.limit and len(found) == query.limit:
                    break
        return found

    def id_of(self, text: str) -> str:
        """The id that people mean by a text: itself, or the one that begins with it (see `names`)."""
        return names.id_of(self._open()[1], text)

    def meant(self, text: str) -> t.Tuple[t.Optional[str], t.Optional[str]]:
        """An id, or a workload of which the newest backup is meant (see `names`)."""
        return names.meant(self._open()[1], text)

    def names(self) -> t.Tuple[t.List[str], t.Set[str]]:
        """Ids of backups and names of their workloads, for completion (see `names`)."""
        return names.known(self._open()[1])

    def unlisted(self) -> t.List[str]:
        """Ids of backups of this directory that lost their records: their content is there, and no list shows them."""
        with self._locked() as (_store, catalog):
            return [show(backup) for backup in catalog.unlisted()]

    def workloads(self) -> t.List[str]:
        """Names of all workloads that have backups, sorted."""
        _store, catalog = self._open()
        return sorted({sidecar["workload_name"] for sidecar in catalog.list() if trouble_of(sidecar) is None and catalog.owner.foreign(sidecar) is None})

    @property
    def places(self) -> t.Tuple[str, str]:
        """Where the store and the backup directory really are: those of another manager are the same, or not."""
        return os.path.realpath(self._paths[0]), os.path.realpath(self._directory)

    def expected(self, workload: t.Optional[str] = None, backup: t.Optional[str] = None) -> int:
        """Bytes of content in a backup, or in a workload's last one; 0 where that is not known. For a progress bar."""
        _store, catalog = self._open()
        for sidecar in catalog.list(workload, backup):
            if trouble_of(sidecar) is not None or sidecar.get("foreign"):
                continue
            if sidecar["id"] == backup or sidecar["workload_name"] == workload and not of_future(sidecar):
                return sidecar["total_size"]
        return 0

    def diff(self, old: str, new: str, paths: t.Sequence[str] = (), limit: int = 1000) -> differ.Difference:
        """What leads from one backup to another, each as people name it (see `names`)."""
        from . import differ
        from .origin import LocalOrigin

        with self._locked() as (store, catalog), no_cycles():
            sidecars = differ.pair(catalog, old, new)
            with catalog.reading(*sidecars):
                before, after = (LocalOrigin(store, catalog, self._directory, sidecar) for sidecar in sidecars)
                return differ.between(before, after, paths, limit)

    def diff_live(
        self, old: str, target: t.Optional[str] = None, paths: t.Sequence[str] = (), verify: bool = True, limit: int = 1000
    ) -> differ.Difference:
        """What leads from a backup to a directory as it is now, by default its source. `verify`: compare content, not only size and time."""
        from . import differ

        with self._locked() as (store, catalog), no_cycles():
            return differ.live(store, catalog, self._directory, old, target, paths, verify, limit)

    def changes(self, sidecars: t.Sequence[Listed], limit: int) -> t.Dict[str, t.Any]:
        """For each backup by id, what came since the one before it of the same workload (see `differ`)."""
        from . import differ

        with self._locked() as (store, catalog):
            return differ.changes(store, catalog, sidecars, limit)

    def contents(self, backup: str, limit: t.Optional[int]) -> t.Dict[str, t.Any]:
        """What is in a backup: at most `limit` entries (None: all) in walk order, and how many more there are."""
        from .listing import contents

        with self._locked() as (store, catalog):
            sidecar = catalog.sidecar(check_id(backup))
            manifest = catalog.manifest(sidecar)
            with catalog.reading(sidecar):
                return contents(manifest, lambda digest: tree.load(store.read, digest), limit)

    @contextlib.contextmanager
    def opened(self, text: str, dry: bool = False) -> t.Iterator[Origin]:
        """A backup to read from, as people name it: of a workload the newest that is complete and undamaged (see `names`)."""
        from .origin import LocalOrigin

        with self._locked(dry) as (store, catalog), no_cycles():
            sidecar = names.chosen(catalog, text, True)
            with catalog.reading(sidecar):
                yield LocalOrigin(store, catalog, self._directory, sidecar)

    @contextlib.contextmanager
    def searched(self, query: Query, dry: bool = False) -> t.Iterator[Search]:
        """A search through the backups that match (see `search`)."""
        from . import search

        with self._locked(dry, proves=False) as (store, catalog), no_cycles():
            yield search.local(store, catalog, query)

    def usage(self) -> t.Dict[str, t.Any]:
        """What the store holds and what that costs, in all and by workload."""
        from . import usage

        with self._locked(room=WALKER, proves=False) as (store, catalog), no_cycles():
            return usage.usage(store, catalog)
