# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Which backups there are, and what state they are in. A backup that lacks something is shown as damaged, never passed over in silence."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import re
import time
import typing as t

from .._base import (
    Damaged,
    Foreign,
    NotFound,
    StoreError,
    Unsupported,
    VoltError,
    directory_lock,
    files,
    is_future,
    newer,
    nfs,
    parse_time,
    reason,
    show,
    show_time,
    store_errors,
)
from .._format import links, tree
from .._format.reachability import Reachability
from .._store.store import Store
from . import directory, records
from .ids import is_id, matches_tags
from .needs import Needs
from .records import Listed, Manifest, Sidecar

#: Seconds after which a manifest without a record is none of a run that is about to write it.
_SETTLED = 60.0


class Catalog:
    """The backups of one store and backup directory. Only `remove` and `change` write to them."""

    def __init__(self, store: Store, backup_dir: str, learns: bool = True) -> None:
        """:param learns: what was found in the trees may be noted in the store's cache."""
        self._store = store
        self._directory = backup_dir
        self.owner = directory.Owner(store, backup_dir)
        self._reach = Reachability(store.read, store.present)
        self._needs = Needs(store, learns)
        self.load = tree.Loader(store.read)
        #: Which backups these are, for messages.
        self.where = f"store {show(store.path)} (records in {show(backup_dir)})"

    # ---- listing

    def ids(self) -> t.List[str]:
        """Ids of all sidecars; StoreError where they cannot be listed, for that is not the same as none."""
        nfs.look_anew(self._directory)
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"Backup directory {self._directory} cannot be listed: {reason(error)}; fix that, then run again.") from None
        return [name[:-5] for name in names if name.endswith(".json") and not name.startswith(".")]

    def sidecar(self, backup: str) -> Sidecar:
        """One sidecar; NotFound, Damaged, Unsupported, or Foreign for one of the original Volt command."""
        try:
            data = files.read_stored(self.path(backup), records.SIDECAR_MOST)
            sidecar = records.decode_sidecar(data)
        except FileNotFoundError:
            raise NotFound(f"There is no backup {backup} in {self.where}; list the backups.") from None
        except Foreign:
            if records.original_sidecar(backup, data) is None:
                raise Damaged("It is a record of the original Volt command, saved under another name.") from None
            raise Foreign(
                f"Backup {show(backup)}: it was made by the original Volt command, and volt.backup does not change it; use that command, or move the"
                " record away.",
                backup_id=show(backup),
            ) from None
        if sidecar["id"] != backup:
            raise Damaged(f"The sidecar belongs to backup {sidecar['id']!r}.")
        if workload_of(backup) not in (None, sidecar["workload_name"]):
            raise Damaged(f"The sidecar belongs to workload {sidecar['workload_name']!r}.")
        parse_created(sidecar)
        return sidecar

    def path(self, backup: str) -> str:
        """Where a backup's sidecar is."""
        return os.path.join(self._directory, f"{backup}.json")

    def list(self, workload: t.Optional[str] = None, backup: t.Optional[str] = None) -> t.List[Listed]:
        """Sidecars, newest first; nothing is checked beyond them. What cannot be read is there with `damage`, or as `unsupported`.

        :param workload: only files whose names may be of its backups are read. :param backup: only this one's.
        """
        found: t.List[Listed] = []
        manifests: t.Dict[str, t.List[str]] = {}
        for name in self.ids() if backup is None else [backup]:
            if workload is not None and workload_of(name) not in (None, workload):
                continue
            try:
                found.append(t.cast(Listed, self.sidecar(name)))
            except NotFound:
                continue  # deleted meanwhile
            except Foreign:
                found.append(self._original(name))
            except (Damaged, Unsupported) as error:
                manifests = manifests or self._manifests()  # listed once, however many records cannot be read
                found.append(self._unreadable(name, error, manifests.get(name, ())))
        return sorted(found, key=lambda sidecar: (sidecar["created_at"] or "", sidecar["id"]), reverse=True)

    def _manifests(self) -> t.Dict[str, t.List[str]]:
        """Names of manifests by the id of their backup."""
        found: t.Dict[str, t.List[str]] = {}
        for name in self._store.refs.names():
            found.setdefault(records.owner(name), []).append(name)
        return found

    def _unreadable(self, name: str, error: VoltError, manifests: t.Iterable[str]) -> Listed:
        """A backup whose sidecar cannot be read, with what its manifest tells of the brake: a suspect one holds others all the same."""
        listed = unreadable(show(name), error)
        for reference in manifests:
            with contextlib.suppress(Damaged, Foreign, Unsupported, FileNotFoundError):
                facts = self.referenced(reference)[0].backup
                keys = ("created_at", "suspect", "suspect_reason", "source_path", "exclude", "exclude_caches", "one_file_system")
                listed.update(t.cast(Listed, {key: facts[key] for key in keys}))
        return listed

    def unlisted(self) -> t.List[str]:
        """Ids of this directory's backups that have a manifest and no record. A manifest without one is normal for a moment, while a run ends."""
        manifests = self._manifests()
        found = []
        for backup in sorted(set(manifests) - set(self.ids())):
            with contextlib.suppress(FileNotFoundError):
                settled = any(self._store.refs.written(name) < time.time() - _SETTLED for name in manifests[backup])
                if backup and settled and self.manifests_of(backup) and not self.exists(backup):
                    found.append(backup)
        return found

    def own(self, workload: str) -> t.List[Listed]:
        """The same for a workload, without what is foreign: what others left tells nothing of this directory's backups."""
        return [sidecar for sidecar in self.list(workload) if self.owner.foreign(sidecar) is None]

    def earlier(self) -> t.Dict[str, Listed]:
        """By id, the last backup of the same workload that was made before it, where there is one. What is unreadable or foreign counts for nothing."""
        found: t.Dict[str, Listed] = {}
        last: t.Dict[str, Listed] = {}
        for sidecar in reversed(self.list()):
            if trouble_of(sidecar) is None and self.owner.foreign(sidecar) is None:
                before = last.get(sidecar["workload_name"])
                if before is not None and before["created_at"] == sidecar["created_at"]:
                    before = found.get(before["id"])  # of the same moment: neither was before the other
                if before is not None:
                    found[sidecar["id"]] = before
                last[sidecar["workload_name"]] = sidecar
        return found

    def _original(self, name: str) -> Listed:
        """A record of the original Volt command, with what can be read of it."""
        try:
            listed = records.original_sidecar(name, files.read_stored(self.path(name), records.SIDECAR_MOST))
        except (Damaged, FileNotFoundError):
            listed = None
        return listed or unreadable(show(name), Damaged("The sidecar was replaced a moment ago."))

    def newest(
        self, workload: str, deep: bool, wanted: t.Callable[[Listed], bool] = lambda _sidecar: True
    ) -> t.Tuple[t.Optional[Listed], t.List[t.Dict[str, str]]]:
        """The newest complete, undamaged backup of a workload that is wanted, neither suspect nor of the future; and what was passed over on the way to it.

        :param deep: look for all its content, not for its manifest alone.
        """
        passed: t.List[t.Dict[str, str]] = []
        for sidecar in self.list(workload):
            trouble = trouble_of(sidecar) or self.owner.foreign(sidecar)
            if sidecar["workload_name"] != workload or trouble is None and not wanted(sidecar):
                continue
            trouble = trouble or doubt(sidecar)
            if trouble is None:
                try:
                    manifest = self.manifest(sidecar)
                    trouble = self.owner.foreign(sidecar, manifest)
                    if trouble is None:
                        if deep:
                            self._look(sidecar, manifest)
                        return sidecar, passed
                except NotFound:
                    continue
                except (Damaged, Unsupported) as error:
                    trouble = error.message
                    if not self.is_current(sidecar):
                        continue
            passed.append({"id": sidecar["id"], "reason": trouble})
        return None, passed

    # ---- state

    def manifest(self, sidecar: Sidecar) -> Manifest:
        """The manifest of a backup; Damaged where it is missing or altered, or in another store."""
        elsewhere = self.owner.elsewhere(sidecar)
        if elsewhere is not None:
            raise Damaged(elsewhere)
        return self.manifest_here(sidecar)

    def manifest_here(self, sidecar: Sidecar) -> Manifest:
        """The same, whatever store the sidecar names."""
        name = sidecar["manifest_ref"]
        if not is_id(name):
            raise Damaged(f"The sidecar has an invalid manifest name: {name!r}.")
        try:
            data = self._store.refs.read(name)
        except FileNotFoundError:
            if not self.is_current(sidecar):
                raise NotFound(f"Backup {sidecar['id']} was deleted a moment ago; list the backups to see what is left.") from None
            raise Damaged(f"Manifest {name} is missing from the store.") from None
        if hashlib.sha256(data).hexdigest() != sidecar["manifest_sha256"]:
            raise Damaged(f"Manifest {name} is altered.")
        manifest = records.decode_manifest(data)
        if manifest.backup["id"] != sidecar["id"]:
            raise Damaged(f"Manifest {name} belongs to another backup.")
        return manifest

    def referenced(self, name: str) -> t.Tuple[Manifest, str]:
        """A manifest by its name in the store, whether or not a sidecar has it, and its SHA-256; FileNotFoundError where it is gone, else Damaged."""
        data = self._store.refs.read(name)
        manifest = records.decode_manifest(data)
        said, digest = records.reference(manifest.backup["id"], data)
        if said != name:
            raise Damaged(f"Manifest {name} is altered.")
        return manifest, digest

    def check(self, manifest: Manifest) -> None:
        """Damaged unless all trees are sound and all content is present; shared trees are looked at once in a catalog's life."""
        self._store.steadily(lambda: self._reach(manifest.root.content, manifest.links))

    def is_here(self, sidecar: Sidecar) -> bool:
        """Whether the list of what a backup needs says that all of it is here, as it was when last hashed. False where the trees must tell."""
        return bool(self._needs.hashed(sidecar["manifest_sha256"]))

    def _look(self, sidecar: Sidecar, manifest: Manifest) -> t.Optional[int]:
        """The same by the list of what the backup needs, where that says that all is present. When all of it was last hashed, as of `Needs.hashed`."""
        digest = sidecar["manifest_sha256"]
        hashed = self._needs.hashed(digest)
        if hashed is None:
            self.check(manifest)
            self._needs.learn(digest, manifest)
            hashed = self._needs.hashed(digest)
        return hashed

    def rest(self) -> None:
        """No other backup will be looked at: give back the memory that makes the next look quick."""
        self._needs.rest()

    def groups(self, manifest: Manifest) -> t.List[t.List[bytes]]:
        """The hard-link groups of a backup."""
        return links.groups(links.decode(self._store.read(manifest.links, links.LIMIT)), self.load, manifest.root) if manifest.links else []

    def judged(self, sidecar: Listed) -> t.Optional[Listed]:
        """The sidecar with its state found out (`records.STATE`); None if the backup was deleted meanwhile. What is another directory's is not judged."""
        error: t.Optional[VoltError] = None
        hashed: t.Optional[int] = None
        if sidecar.get("foreign"):
            return sidecar
        if trouble_of(sidecar) is None:
            foreign = self.owner.foreign(sidecar)
            try:
                if foreign is None:
                    manifest = self.manifest(sidecar)
                    foreign = self.owner.foreign(sidecar, manifest)
                    if foreign is None:
                        hashed = self._look(sidecar, manifest)
            except NotFound:
                return None
            except (Damaged, Unsupported) as trouble:
                if not self.is_current(sidecar):
                    return None
                error = trouble
            sidecar = with_state(sidecar, error, foreign, hashed)
        return sidecar

    def is_current(self, sidecar: Sidecar) -> bool:
        """Whether a backup is still the one whose sidecar was read. An id is free again once its backup is deleted, also within the same second."""
        try:
            return self.sidecar(sidecar["id"])["manifest_ref"] == sidecar["manifest_ref"]
        except NotFound:
            return False
        except (Damaged, Foreign, Unsupported):
            return True  # it cannot be told apart, and damage is not to be hidden

    @contextlib.contextmanager
    def reading(self, *sidecars: Sidecar) -> t.Iterator[None]:
        """NotFound instead of Damaged where one of these backups was deleted in the context: a collection may have taken what it needed."""
        try:
            yield
        except Damaged:
            for sidecar in sidecars:
                if not self.is_current(sidecar):
                    raise NotFound(f"Backup {sidecar['id']} was deleted a moment ago; list the backups to see what is left.") from None
            raise

    # ---- removal

    def remove(self, backup: str, meant: t.Optional[Sidecar] = None) -> bool:
        """Delete a backup, sidecar first; whether there was anything. Works on damaged ones as well.

        :param meant: how it was listed; another backup that has got its id since is left alone.
        """
        reference = meant["manifest_ref"] if meant is not None else None
        # without a reference, the manifests of that id are looked for, and one may be that of a run that is about to write its sidecar
        alone, patience = reference is None or records.owner(reference) != backup, self._store.lock_timeout
        with directory_lock(self._directory, patience) if alone else directory.changing(self._directory, self.path(backup), patience):
            if meant is not None and not self._still(backup, meant):
                return False
            return self._remove(backup, reference)

    def _still(self, backup: str, meant: Sidecar) -> bool:
        """Whether an id is still the backup's that was listed, and it was neither protected nor accepted since."""
        try:
            now = self.sidecar(backup)
            return now["manifest_ref"] == meant["manifest_ref"] and not now["protected"] and now["suspect"] == meant["suspect"]
        except NotFound:
            return meant["manifest_ref"] is None  # there was none then either
        except (Foreign, Unsupported):
            return False
        except Damaged as error:
            if meant["manifest_ref"] is None:
                return True
            raise StoreError(f"Backup {backup} was not deleted, because its sidecar can no longer be read ({error.message}); try again.") from None

    def _remove(self, backup: str, reference: t.Optional[str]) -> bool:
        # The manifest that the sidecar names, and no other: another backup directory may have a backup of the same id. But what a
        # sidecar says is only believed if the manifest's own name agrees.
        names = [reference] if reference is not None and records.owner(reference) == backup else self.manifests_of(backup)
        there = self.exists(backup)
        with store_errors(f"deleting backup {backup}"):
            if there:
                there = files.unlink(self.path(backup))
                files.sync_directory(self._directory)
            removed = self._store.refs.remove(names)
        return there or bool(removed)

    def manifests_of(self, backup: str) -> t.List[str]:
        """Names of a backup's manifests that are this directory's: one as a rule; another without a sidecar where a run died."""
        return [name for name in self._manifests().get(backup, ()) if self._may_remove(backup, name)]

    def _may_remove(self, backup: str, name: str) -> bool:
        """Whether a manifest belongs here: it names this directory, or none and has a sidecar here, or cannot be read by any directory."""
        try:
            manifest, _digest = self.referenced(name)
        except (FileNotFoundError, Foreign):
            return False
        except (Damaged, Unsupported):
            return True
        return self.owner.is_ours(manifest) or manifest.backup["directory_id"] is None and self.exists(backup)

    def alien(self, sidecar: Sidecar) -> t.Optional[str]:
        """Why a backup that is listed here must not be changed here, as a sentence: it is another directory's or another store's. Or None."""
        return self.owner.foreign(sidecar) or self.owner.elsewhere(sidecar)

    def known(self, backup: str, done: str) -> Listed:
        """A backup of this directory with its state, which may be damaged; NotFound, Damaged, Unsupported or Foreign where there is none.

        :param done: what is to be done with it, for the message: `copied`.
        """
        listed = t.cast(Listed, self.sidecar(backup))
        alien = self.alien(listed)
        if alien is not None:
            raise Foreign(f"Backup {backup} was not {done}. {alien}", backup_id=backup)
        found = self.judged(listed)
        if found is None:
            raise NotFound(f"Backup {backup} was deleted a moment ago; list the backups to see what is left.")
        if found["unsupported"]:
            raise newer(f"Backup {backup}", backup_id=backup)
        return found

    def change(self, backup: str, change: t.Callable[[Sidecar], Sidecar]) -> Sidecar:
        """Write a backup's sidecar anew, which is returned; NotFound where it was deleted meanwhile."""
        with directory.changing(self._directory, self.path(backup), self._store.lock_timeout):
            sidecar = change(self.sidecar(backup))
            with store_errors(f"writing the sidecar of {backup}"):
                files.write_file(self.path(backup), records.encode_sidecar(sidecar))
            return sidecar

    def exists(self, backup: str) -> bool:
        return not files.is_gone(self.path(backup))


def parse_created(sidecar: Sidecar) -> t.Any:
    """The moment of a backup; Damaged where the sidecar does not tell."""
    try:
        return parse_time(sidecar["created_at"])
    except Exception:
        raise Damaged("The sidecar has no time.") from None


_ID = re.compile(r"(.+)-(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)-(manual|scheduled|snapshot|pre-deploy)(-\d+)?\Z")


def trouble_of(sidecar: Listed) -> t.Optional[str]:
    """Why a backup is none to rely on, as far as its listing tells: what is damaged, or that a newer version wrote it."""
    return sidecar.get("damage") or sidecar.get("unsupported_reason")


def doubt(sidecar: Sidecar) -> t.Optional[str]:
    """Why a backup that is sound is none to rely on, by what it says of itself."""
    if not sidecar["complete"]:
        return "It is incomplete."
    if sidecar["suspect"]:
        return f"It is suspect: {sidecar['suspect_reason']}."
    return f"Its time {sidecar['created_at']} is in the future: the clock was wrong when it was made, or is wrong now." if of_future(sidecar) else None


def of_future(sidecar: Sidecar) -> bool:
    """Whether a backup was made at a time that has not come yet. What the time of another one tells of it is then not known either."""
    try:
        return is_future(parse_created(sidecar))
    except Damaged:
        return False


def with_state(
    sidecar: Sidecar, error: t.Optional[VoltError], foreign: t.Optional[str] = None, hashed: t.Optional[int] = None
) -> Listed:
    """:param hashed: when all that it needs was last hashed, as of `Needs.hashed`."""
    message = error.message if error is not None else None
    unsupported = isinstance(error, Unsupported)
    state = {
        "checked": None if hashed is None else bool(hashed),
        "checked_at": show_time(datetime.datetime.fromtimestamp(hashed // 1000 / 1e6, datetime.timezone.utc)) if hashed else None,
        "damaged": error is not None and not unsupported,
        "damage": None if unsupported else message,
        "unsupported": unsupported,
        "unsupported_reason": message if unsupported else None,
        "future": of_future(sidecar),
        "foreign": foreign is not None,
        "foreign_reason": foreign,
    }
    return t.cast(Listed, {**sidecar, **state})


def workload_of(backup: str) -> t.Optional[str]:
    """The workload that an id names; None for an id that we do not make."""
    match = _ID.match(backup)
    return match[1] if match else None


def made_at(backup: str) -> t.Optional[datetime.datetime]:
    """When an id says that its backup was made; None for an id that we do not make."""
    match = _ID.match(backup)
    try:
        return datetime.datetime(*map(int, match.groups()[1:7]), tzinfo=datetime.timezone.utc) if match else None  # type: ignore[misc,arg-type]
    except ValueError:
        return None  # no moment at all


def unreadable(backup: str, error: VoltError) -> Listed:
    """What can be said of a backup whose sidecar cannot be read: its id, and by that its workload, time and type."""
    sidecar: t.Dict[str, t.Any] = dict.fromkeys(records.SIDECAR)
    sidecar.update(id=backup, tags=[], exclude=[], skipped=[], changed_while_read=[], complete=False)
    match, moment = _ID.match(backup), made_at(backup)
    if match:
        sidecar.update(workload_name=match[1], type=match[8])
    if moment is not None:
        sidecar["created_at"] = f"{moment.replace(tzinfo=None).isoformat()}.000000Z"  # also of the year 1
    return with_state(t.cast(Sidecar, sidecar), error)


def selects(workload: t.Optional[str], kind: t.Optional[str], tags: t.Iterable[str]) -> t.Callable[[Sidecar], bool]:
    """A filter on sidecars."""
    wanted = list(tags)

    def accept(sidecar: Sidecar) -> bool:
        return (
            (workload is None or sidecar["workload_name"] == workload)
            and (kind is None or sidecar["type"] == kind)
            and matches_tags(sidecar["tags"], wanted)
        )

    return accept
