# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Verification: is everything there that the backups need, and is it what it should be.

*Structure* looks at every record, tree and list, and for every blob of content; it reads no content. *Content* first reads files of the store and hashes
them: all of them, those of some backups, or as many as a budget allows. What is found false counts as missing, so structure then tells which
backups and paths it hurts. A file that no backup needs is damage as well: a disk that lies about one file will lie about others.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import time
import typing as t

from .._base import Damaged, Foreign, NotFound, Progress, StoreError, Unsupported, UsageError, VoltError, one_line, parse_span, show
from .._format.reachability import Reachability, Tracer
from .._store import scrub
from .._store.rounds import SPACE
from .._store.store import Store
from . import records
from .catalog import Catalog
from .ids import check_id

LEVELS = ("structure", "content")
#: How often what is missing is looked for again while a collection moves files.
_TURNS = 5
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%\Z")

Told = t.Tuple[t.List[t.Dict[str, t.Any]], int, t.List[str]]


class VerifyRequest(t.NamedTuple):
    """What is asked of `verify`; names as in the contract."""

    level: str = "structure"
    budget: t.Optional[str] = None
    ids: t.Sequence[str] = ()
    repair: bool = False
    vet: bool = False
    diff_limit: int = 1000


class Verified(t.NamedTuple):
    """What verification found, and with repair what is left of it.

    `damage` are the first paths and files that are hurt, `damage_count` all of them, `damaged` the ids of the backups concerned, `unsupported`
    those that only a newer version can judge, `foreign` those of another backup directory or of none that were not looked at, `unlisted` this directory's
    manifests without a sidecar. Counts are of backups looked at, and of files and bytes
    of the store that were read for their content. `covered` is how far the round has come that a budget divides, in percent. `repaired` is what
    was done, or None. `remote` and `host`: where copies were looked at, and those of which host; None for the store. `unreferenced` are the first objects there
    that no copy needs. `vetted`: packs of a remote that were read and found right, and how many were `before`; None where none were to be.
    """

    damage: t.List[t.Dict[str, t.Any]]
    damage_count: int
    damaged: t.List[str]
    unsupported: t.List[str]
    foreign: t.List[str]
    unlisted: t.List[str]
    backup_count: int
    file_count: int
    byte_count: int
    covered: t.Optional[float]
    repaired: t.Optional[t.Dict[str, t.Any]]
    changed: bool
    warnings: t.List[str]
    remote: t.Optional[str] = None
    unreferenced: t.Sequence[str] = ()
    unreferenced_count: int = 0
    host: t.Optional[str] = None
    vetted: t.Optional[t.Dict[str, int]] = None

    def result(self) -> t.Dict[str, t.Any]:
        """As modules return it and --json prints it."""
        done = self.repaired or {}
        lines = [f"quarantine {path}\n" for path in done.get("quarantined", ())] + [f"sidecar {backup}\n" for backup in done.get("sidecars", ())]
        lines += [f"blobs {done['blobs']}\n"] if done.get("blobs") else []
        return {**self._asdict(), "diff": {"prepared": "".join(lines)}}

    def failure(self) -> t.Optional[VoltError]:
        """What to raise where something is damaged, or cannot be judged."""
        if not self.damage_count:
            if not self.unsupported:
                return None
            return Unsupported(
                f"No damage was found, but {len(self.unsupported)} backup(s) cannot be checked because a newer version wrote them, first"
                f" {self.unsupported[0]}; update volt.backup on this host, then verify again.",
                **self.result(),
            )
        first = self.damage[0] if self.damage else {"reason": "see damaged"}
        where = " ".join(one_line(first[key]) for key in ("id", "path", "file") if first.get(key))
        where_at = "store" if self.remote is None else "remote"
        hurt = f"{len(self.damaged)} backup(s) are damaged" if self.damaged else f"No backup is affected, but the {where_at} has damaged files"
        if self.vetted is not None:
            hurt = "Packs of the remote are damaged, and were not vetted"
            way = "find out what wrote them, then delete them, or restore them from a copy of the remote"
        elif self.remote is not None:
            way = "restore these objects from a copy of the remote, such as an older version in its bucket"
        elif self.repaired is None:
            way = "run volt_cas_verify with repair: true to repair what can be repaired"
        elif self.damaged:
            way = "the missing data is not on this host; restore the store from another copy, or delete these backups"
        else:
            way = "run volt_cas_verify with repair: true again"
        return Damaged(f"{hurt} ({self.damage_count} in all, first {where}: {first['reason'].rstrip('.')}); {way}.", **self.result())


class Budget(t.NamedTuple):
    """How much content to read: a share of all names, or seconds."""

    names: int = SPACE
    seconds: t.Optional[float] = None


def parse_budget(text: str) -> Budget:
    """A percentage such as 5%, or a span of time such as 30m."""
    match = _PERCENT.match(text.strip())
    if match is None:
        try:
            seconds = parse_span(text).total_seconds()
        except UsageError:
            raise UsageError(f"Budget {text!r} is invalid; write a percentage like 5% or a duration like 30m.") from None
        if not seconds:
            raise UsageError(f"Budget {text} must be longer than 0; write a duration like 30m.")
        return Budget(seconds=seconds)
    millionths = round(float(match[1]) * 10_000)
    if not 0 < millionths <= 1_000_000:
        raise UsageError(f"Budget {text} is out of range; write a percentage above 0 and up to 100.")
    return Budget(names=-(-SPACE * millionths // 1_000_000))  # rounded up: 20 times 5% must be all


class Structure:
    """The structure of all backups, or of some.

    :ivar whole: (id, manifest) of each backup whose records can be read, listed or not.
    :ivar records: id -> what is wrong with its sidecar or manifest.
    :ivar unsupported: ids of backups that a newer version wrote, or something that they need.
    :ivar unlisted: this directory's manifests that no sidecar names. :ivar foreign: ids of backups that are another directory's, or no directory's and
        not listed here, with the directory's id. They are not looked at.
    :ivar lacking: digest -> what is wrong: blobs, trees and lists that backups need.
    :ivar trees: whether any of these is a tree or list, below which nothing is known.
    """

    def __init__(self, store: Store, catalog: Catalog, ids: t.Sequence[str]) -> None:
        self._store, self._catalog, self._ids = store, catalog, ids
        self.whole: t.List[t.Tuple[str, records.Manifest]] = []
        self.records: t.Dict[str, str] = {}
        self.unsupported: t.Set[str] = set()
        self.unlisted: t.List[str] = []
        self.foreign: t.Dict[str, t.Optional[str]] = {}
        self.lacking: t.Dict[bytes, str] = {}
        self.trees = False
        self.told: Told = ([], 0, [])

    def read_records(self) -> None:
        """Sidecars and manifests."""
        catalog = self._catalog
        references = set(self._store.refs.names())
        for backup in sorted(self._ids or catalog.ids()):
            try:
                sidecar = catalog.sidecar(backup)
                references.discard(sidecar["manifest_ref"])
                manifest = None if catalog.owner.foreign(sidecar) and not self._ids else catalog.manifest(sidecar)
                if manifest is None or catalog.owner.foreign(sidecar, manifest) and not self._ids:
                    self.foreign[backup] = sidecar["directory_id"] or ""
                else:
                    self.whole.append((backup, manifest))
            except NotFound:
                if self._ids:
                    raise
            except Foreign:
                if self._ids:
                    raise
                self.foreign[backup] = ""
            except Unsupported:
                self.unsupported.add(show(backup))
            except Damaged as error:
                if catalog.exists(backup):  # else deleted at this moment
                    self.records[show(backup)] = error.message
        if self._ids:
            return
        for name in sorted(references):
            try:
                manifest, _digest = catalog.referenced(name)
            except (FileNotFoundError, Foreign):
                continue
            except Unsupported:
                self.unsupported.add(records.owner(name) or show(name))
                continue
            except Damaged as error:
                self.records.setdefault(records.owner(name) or show(name), error.message)
                continue
            unread = records.owner(name) in self.records or records.owner(name) in self.unsupported
            if not (catalog.owner.is_ours(manifest) or unread and manifest.backup["directory_id"] is None):
                self.foreign[manifest.backup["id"]] = manifest.backup["directory_id"]
                continue
            if not unread:
                self.unlisted.append(name)
            self.whole.append((manifest.backup["id"], manifest))

    def look(self, read: t.Optional[t.Callable[[bytes, int], bytes]] = None, content: t.Optional[t.Callable[[bytes, int], None]] = None) -> None:
        """Go through all trees.

        :param read: how to read trees, if not from the store alone. :param content: how to look for content, likewise.
        """
        for turn in itertools.count():
            known = self._store.false_files, len(self.whole)
            self._look(read, content)
            if self.lacking:
                self._drop_deleted()
            moved = bool(self.lacking) and turn < _TURNS and self._store.look_again()
            if (self._store.false_files, len(self.whole)) == known and not moved:
                return  # else blobs that were still taken for sound are in a file that is none, or a backup turned out to be unsupported

    def _drop_deleted(self) -> None:
        """Forget backups that were deleted meanwhile: a collection may have taken what they needed."""
        there = set(map(records.owner, self._store.refs.names()))
        self.whole = [(backup, manifest) for backup, manifest in self.whole if manifest.backup["id"] in there]

    def _look(self, read: t.Any, content: t.Any) -> None:
        self.lacking, self.trees = {}, False
        store, lacking = self._store, self.lacking
        look = content or store.present
        broken: t.List[bytes] = []

        def blob(digest: bytes, size: int) -> None:
            if digest not in lacking:
                try:
                    look(digest, size)
                except Damaged as error:
                    lacking[digest] = error.message

        def tree(digest: bytes, error: Damaged) -> None:
            lacking[digest] = error.message
            broken.append(digest)

        reach = Reachability(read or store.read, blob, broken=tree)
        for backup, manifest in self.whole:
            try:
                reach(manifest.root.content, manifest.links)
            except Unsupported:
                self.unsupported.add(backup)
        self.whole = [(backup, manifest) for backup, manifest in self.whole if backup not in self.unsupported]
        self.trees = bool(broken)

    def tell(self, limit: int) -> None:
        """Put into `told` what is wrong by backup and path: the first so many, how many in all, ids of the backups concerned."""
        count, hurt = len(self.records), set(self.records)
        listed: t.List[t.Dict[str, t.Any]]
        listed = [{"id": backup, "path": None, "file": None, "reason": reason} for backup, reason in sorted(self.records.items())]
        if self.lacking:
            trace = Tracer(self._store.read, self.lacking)
            for backup, manifest in self.whole:
                found = trace.count(manifest.root.content, manifest.links)
                if not found:
                    continue
                count += found
                hurt.add(backup)
                first = itertools.islice(trace(manifest.root.content, manifest.links), max(0, limit - len(listed)))
                listed += [{"id": backup, "path": show(path) or ".", "file": None, "reason": reason} for path, reason in first]
        self.told = (listed[:limit], count, sorted(hurt))


class Verifier:
    """One verification without repair. Use once."""

    def __init__(self, store: Store, catalog: Catalog, request: VerifyRequest, dry: bool, progress: Progress) -> None:
        if request.level not in LEVELS:
            raise UsageError(f"Level {request.level!r} is unknown; use structure or content.")
        if request.budget and (request.level != "content" or request.ids):
            raise UsageError("budget only applies to level content without ids; omit it, or use that level without ids.")
        self._store, self._catalog, self._request, self._dry, self._progress = store, catalog, request, dry, progress
        self._budget = parse_budget(request.budget) if request.budget else None
        self.ids = [check_id(backup) for backup in request.ids]
        self.files: t.List[t.Tuple[scrub.StoreFile, str]] = []
        self._sound: t.List[scrub.StoreFile] = []
        self.structure = Structure(store, catalog, self.ids)
        self.read_files = self.read_bytes = 0
        self.covered: t.Optional[float] = None
        self.warnings: t.List[str] = []

    def __call__(self) -> None:
        store = self._store
        if not store.exists:
            self.warnings.append(f"There is no store at {show(store.path)}.")
            return
        if self._request.level == "content" and not self.ids:
            self._examine_store()
        with store.lock():
            self.structure.read_records()
            store.refresh()  # after the records: what they refer to is there by now
            scrub.confirm(store, self._sound)
            store.look_at_all()
            if self._request.level == "content" and self.ids:
                self._examine_backups()
            scrub.condemn(store, self.files)
            self.structure.look()
            self.files += scrub.found_meanwhile(store, {file for file, _wrong in self.files})
            self.structure.tell(self._request.diff_limit)
        if not self._dry:
            store.remember()
        if self.structure.unlisted:
            self.warnings.append(
                f"{len(self.structure.unlisted)} manifest(s) have no sidecar, first {self.structure.unlisted[0]}; run volt_cas_verify with repair: true to"
                " list them as backups again."
            )
        alone = not self.structure.whole and not self.structure.records  # else the directory is one of several
        foreign = sorted(backup for backup, named in self.structure.foreign.items() if named is None or named and alone)
        if foreign:
            self.warnings.append(
                f"{len(foreign)} backup(s) in this store belong to another backup directory, first {foreign[0]}, and were not checked. If that directory is"
                " lost, run volt-backup adopt --unlisted."
            )

    # ---- content

    def _examine_store(self) -> None:
        store, budget = self._store, self._budget
        begin = store.rounds.next if budget is not None else 0
        until = time.monotonic() + budget.seconds if budget is not None and budget.seconds is not None else None
        walk = scrub.Scrub(store, begin, budget.names if budget is not None else SPACE, until, self._progress)
        walk()
        self.files, self._sound, self.read_files, self.read_bytes = walk.faults, walk.sound, walk.files, walk.bytes
        if budget is not None:
            self.covered = 100.0 if walk.at <= begin and walk.came else round(100 * walk.at / SPACE, 2)
        if not self._dry:
            try:
                store.rounds.save()
            except StoreError as error:
                self.warnings.append(f"The next verification starts at the same place as this one. {error.message}")

    def _examine_backups(self) -> None:
        """Read every file of the store that some backups need; a pack is read once."""
        store, seen = self._store, set()

        def file(digest: bytes) -> None:
            kind, name = scrub.holding(store, digest)
            if (kind, name) in seen:
                return
            seen.add((kind, name))
            for found in scrub.forms(store, kind, name):
                wrong = scrub.fault(store, found)
                self.read_files += 1
                self.read_bytes += found.state[0]
                self._progress(1, found.state[0])
                if wrong is not None:
                    self.files.append((found, wrong))
                elif not scrub.is_known(store, found):
                    scrub.confirm(store, [found])

        reach = Reachability(store.read, lambda digest, _size: file(digest), file, lambda _digest, _error: None)
        for _backup, manifest in self.structure.whole:
            with contextlib.suppress(Unsupported):  # which looking at the structure tells
                reach(manifest.root.content, manifest.links)

    # ---- what is told

    def damage(self) -> Told:
        """What the survey told, and the false files of the store."""
        limit = self._request.diff_limit
        listed, count, hurt = self.structure.told
        files = [{"id": None, "path": None, "file": file.path, "reason": wrong} for file, wrong in sorted(self.files)]
        return (files + listed)[:limit], count + len(files), hurt
