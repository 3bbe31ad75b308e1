# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Making a backup: capture, commit, manifest, sidecar, in this order."""

from __future__ import annotations

import datetime
import grp
import hashlib
import os
import pwd
import time
import typing as t

from .._base import (
    Damaged,
    NotFound,
    Phase,
    Progress,
    Standing,
    Unsupported,
    UsageError,
    now,
    parse,
    parse_span,
    reason,
    show,
    show_time,
    store_errors,
    unwatched,
)
from .._capture import databases
from .._capture.capture import Capture, Captured, Options, SourceMoved, only_streams
from .._capture.stat_cache import Scan
from .._capture.state import Notes
from .._capture.stream import Streams
from .._format import diff
from .._format.diff import Changes
from .._format.tree import Entry
from .._format.walk import find, join
from .._fs import metadata
from .._fs.exclusions import Exclusions
from .._store import codec
from .._store.store import Store
from .._store.transaction import Transaction
from . import brake, directory, host, prune, records, replacement
from .catalog import Catalog, of_future, parse_created, trouble_of
from .guards import AskedSource, NoSource, check_still, refuse_emptied, refuse_inside, refuse_missing_mounts, refuse_new_links
from .ids import check_type, check_workload
from .needs import Needs
from .publish import publish
from .records import DumpRecord, Listed, Manifest, Sidecar


class CreateRequest(t.NamedTuple):
    """What is asked of `create`; names as in the contract."""

    workload: str
    source: t.Optional[str]  # None: there is only what a program writes
    type: str = "manual"
    workload_mode: t.Optional[str] = None
    tags: t.Sequence[str] = ()
    notes: t.Optional[str] = None
    exclude: t.Sequence[str] = ()
    exclude_caches: bool = False
    one_file_system: bool = False
    compression: str = "auto"
    only_if_changed: bool = False
    max_age: t.Optional[str] = None
    allow_empty: bool = False
    unstable_ok: t.Sequence[str] = ()
    max_shrink: int = brake.MAX_SHRINK
    max_churn: int = brake.MAX_CHURN
    command: t.Sequence[str] = ()
    command_file: t.Optional[str] = None
    dumps: t.Sequence[t.Mapping[str, t.Any]] = ()
    stdin: t.Optional[t.Tuple[str, t.BinaryIO]] = None
    snapshot: str = "none"
    snapshot_size: t.Optional[str] = None
    quiesce: str = "none"
    diff_limit: int = 1000


class Created(t.NamedTuple):
    """What `create` did: `backup` is the new sidecar, or the matched one where nothing changed."""

    backup: Sidecar
    changed: bool
    diff: t.Dict[str, t.Any]
    skipped: t.List[t.Dict[str, str]]
    warnings: t.List[str]


class Creator:
    """One creation. Use once.

    :param standing: is told of each part of the work, for one who looks on.
    """

    def __init__(self, store: Store, backup_dir: str, request: CreateRequest, dry: bool, progress: Progress, standing: Standing) -> None:
        check_workload(request.workload)
        check_type(request.type)
        codec.choose(request.compression)
        check_still(request.snapshot, request.snapshot_size, request.quiesce)
        self._exclude, self._unstable_ok = Exclusions(request.exclude), Exclusions(request.unstable_ok)
        for name, value in (("max_shrink", request.max_shrink), ("max_churn", request.max_churn)):
            brake.check_percent(name, value)
        self._max_age = parse_span(request.max_age) if request.max_age else None
        self._store, self._directory, self._request = store, backup_dir, request
        self._dry, self._progress, self._standing = dry, progress, standing
        standing.phase = Phase("checking the source", path=lambda: parse(request.source or ""))
        if request.source is None and not request.snapshot == request.quiesce == "none":
            raise UsageError("Options `snapshot` and `quiesce` need a `source`; set it, or omit them.")
        if request.source is None and not (request.command or request.stdin or request.dumps):
            raise UsageError("There is nothing to back up; set `source`, `command` or `dumps`.")
        self._asked = NoSource() if request.source is None else AskedSource(request.source)
        self._source = self._asked.real
        self._streams, self._dumps = self._prepare()
        refuse_inside(self._source, store.path, backup_dir)
        if os.path.lexists(backup_dir) and not os.path.isdir(backup_dir):
            raise UsageError(f"Backup directory {backup_dir} is not a directory; choose another `backup_dir`.")
        self._shown = show(self._source)
        self._snapshots: t.List[t.Any] = []
        self._quiesced: t.List[t.Any] = []
        self._told: t.List[str] = []  # of snapshots
        self._read_all = False  # no stat cache told anything
        self._passed: t.List[t.Dict[str, str]] = []
        standing.phase = Phase("opening the store", patience=store.lock_timeout)

    def __call__(self) -> Created:
        request = self._request
        started, created = time.monotonic_ns(), now()
        with Transaction(self._store, request.compression, self._dry) as run:
            self._standing.phase = Phase("checking the source and its earlier backups", lambda: run.counts.steps, lambda: self._source)
            if not self._dry:
                directory.make(self._directory)
            catalog = Catalog(self._store, self._directory, not self._dry)
            known = catalog.own(request.workload)
            refuse_new_links(self._asked, known)
            refuse_missing_mounts(self._source, known, None if request.one_file_system else self._exclude)
            young = self._young_enough(catalog, created)
            if young is not None:
                return young
            if not request.allow_empty:
                refuse_emptied(self._source, lambda: self._last(known))
            base, passed = catalog.newest(request.workload, deep=False)
            passed = self._passed + [item for item in passed if item not in self._passed]
            captured = self._capture(run, lambda path: self._known(run, catalog, base, path))
            self._standing.phase = Phase("comparing with earlier backups", lambda: run.counts.steps)
            old = self._manifest(run, catalog, base)
            if base is not None and self._is_needless(base, old, known, captured):
                run.commit()  # what a damaged store lacked is whole again
                return Created(base, False, Changes(0).as_dict(), passed, self._keep_scan(run, captured))
            self._standing.phase = Phase("making the backup durable", lambda: run.counts.steps)
            run.commit()
            self._standing.phase = Phase("comparing with earlier backups", lambda: run.counts.steps)
            sidecar, manifest = self._describe(created, captured, run, self._judge(catalog, known, captured, run))
            changes = self._changes(run, old, manifest)
            sidecar["duration"] = time.monotonic_ns() - started
            warnings: t.List[str] = []
            if not self._dry:
                self._standing.phase = Phase("writing the backup's record")
                publish(run, self._directory, sidecar, manifest)
                self._note_needs(run, sidecar["manifest_sha256"], manifest, None if base is None or old is None else (base["manifest_sha256"], old))
                warnings = self._keep_scan(run, captured)
            warnings += self._held(catalog, [t.cast(Listed, sidecar), *known])
            return Created(sidecar, True, changes.as_dict(), passed, warnings + self._warnings(captured))

    # ---- steps

    def _prepare(self) -> t.Tuple[Streams, t.List[DumpRecord]]:
        """What programs are to write into the backup. Few backups have any, so the code for it is not loaded for all."""
        request = self._request
        if not (request.command or request.command_file or request.dumps or request.stdin):
            return Streams(), []
        from .._sources.prepare import Asked, prepare

        return prepare(Asked(*(getattr(request, name) for name in Asked._fields)), None if request.source is None else self._source)

    def _young_enough(self, catalog: Catalog, created: datetime.datetime) -> t.Optional[Created]:
        """With `max_age`: this host's newest backup of the same source and rules, if it is young enough."""
        if self._max_age is None:
            return None
        own = host.made_here()
        match, passed = catalog.newest(self._request.workload, True, lambda one: self._same_rules(one) and own(one))
        self._passed += passed
        if match is None or created - parse_created(match) >= self._max_age:
            return None
        return Created(match, False, Changes(0).as_dict(), passed, [])

    def _last(self, known: t.Iterable[Listed]) -> t.Optional[Listed]:
        """The newest backup of the same source, complete or not: an incomplete one, or one of the future, may be all that there is."""
        found = [sidecar for sidecar in known if trouble_of(sidecar) is None and sidecar["source_path"] == self._shown]
        return next((sidecar for sidecar in found if not of_future(sidecar)), found[0] if found else None)

    @staticmethod
    def _manifest(run: Transaction, catalog: Catalog, base: t.Optional[Sidecar]) -> t.Optional[Manifest]:
        """A backup's, if it has not been deleted since: a capture takes its time. What it needs stays until the run ends."""
        try:
            if base is None:
                return None
            manifest = catalog.manifest(base)
            run.hold(base["manifest_ref"])
            return manifest
        except (Damaged, NotFound, Unsupported, FileNotFoundError):
            return None

    def _same_rules(self, sidecar: Sidecar) -> bool:
        request = self._request
        return (sidecar["source_path"], sidecar["exclude"], sidecar["exclude_caches"], sidecar["one_file_system"]) == (
            self._shown, list(request.exclude), request.exclude_caches, request.one_file_system
        )  # fmt: skip

    def _scan_path(self) -> str:
        return self._store.cache.path(scan_name(self._source, host.machine_id()))

    def _known(self, run: Transaction, catalog: Catalog, base: t.Optional[Sidecar], path: bytes) -> t.Optional[Entry]:
        """What is at a path of the backup before, if that can be read."""
        manifest = self._manifest(run, catalog, base)
        try:
            return None if manifest is None else find(catalog.load, manifest.root, path)
        except (Damaged, Unsupported):
            return None

    def _capture(self, run: Transaction, known: t.Callable[[bytes], t.Optional[Entry]]) -> Captured:
        apart = _identities(self._store.path, self._directory)
        streams = self._streams
        options = Options(self._exclude, self._request.exclude_caches, self._request.one_file_system, apart, streams)
        self._standing.phase = Phase("reading dumps", lambda: run.counts.steps, lambda: streams.at)
        streams.save(run, self._progress, known, self._dry)
        if self._request.source is None:
            return only_streams(run, streams)
        way, quiesce = self._request.snapshot, self._request.quiesce
        if way == quiesce == "none" or self._dry:
            return self._walk_surely(run, options)
        from .._sources.prepare import kept_still, shown_at

        self._standing.phase = Phase("keeping the source still", lambda: run.counts.steps, lambda: self._source)
        exclude = None if self._request.one_file_system else self._exclude
        with kept_still(self._source, lambda: run.directory("view"), way, quiesce, exclude, self._request.snapshot_size) as held:
            self._snapshots, self._quiesced, self._told = held.snapshots, held.quiesced, held.warnings
            if held.view is not None:
                shown = _identities(*shown_at(held.view.place, self._source, self._store.path, self._directory))
                options = options._replace(view=held.view, apart=apart | shown)
            return self._walk_surely(run, options)

    def _walk_surely(self, run: Transaction, options: Options) -> Captured:
        try:
            return self._walk(run, options, Scan(self._scan_path()))
        except (Damaged, Unsupported):
            return self._walk(run, options, Scan(os.devnull))  # a tree that the cache relied on is altered: read everything
        except SourceMoved:
            return self._walk(run, options, Scan(self._scan_path()))  # as after a deployment that exchanged it; once

    def _walk(self, run: Transaction, options: Options, old: Scan) -> Captured:
        self._read_all = old.root() is None
        if self._dry:
            captured = self._watched(Capture(run, options, old, None, self._progress))(self._source)
            run.finish()
            return captured
        with store_errors("writing the stat cache"):
            file = run.open_cache()
        with ScanFile(file) as out:
            return self._watched(Capture(run, options, old, out, self._progress))(self._source)

    def _watched(self, capture: Capture) -> Capture:
        self._standing.phase = Phase("reading", capture.steps, lambda: join(self._source, capture.path) if capture.path else self._source)
        return capture

    def _note_needs(self, run: Transaction, digest: str, manifest: Manifest, near: t.Optional[t.Tuple[str, Manifest]]) -> None:
        if self._read_all:
            Needs(self._store).learn_first(digest, run)
        else:
            Needs(self._store).learn(digest, manifest, near)

    def _keep_scan(self, run: Transaction, captured: Captured) -> t.List[str]:
        """Keep the stat cache for the next run, or say why not: the backup is made either way."""
        if captured.rescanned and not self._dry:
            try:
                run.keep_cache(scan_name(self._source, host.machine_id()))
            except OSError as error:
                return [f"The stat cache could not be saved ({reason(error)}), so the next backup reads all files again."]
        return []

    def _is_needless(self, base: Sidecar, old: t.Optional[Manifest], known: t.Sequence[Listed], captured: Captured) -> bool:
        """With `only_if_changed`: whether this host's newest backup stands for this one. After a suspect one, a new one is made."""
        if not self._request.only_if_changed or old is None or not (self._same_rules(base) and host.made_here()(base)):
            return False
        last = next((one for one in known if trouble_of(one) is None and self._same_rules(one)), base)
        return not last["suspect"] and _equal(old, captured)

    def _judge(self, catalog: Catalog, known: t.Sequence[Listed], captured: Captured, run: Transaction) -> brake.Verdict:
        """Whether the new backup has lost more than the good ones of the same source and rules show; where there are none, of the same source."""
        good = [one for one in known if trouble_of(one) is None and one["complete"] and not one["suspect"] and not of_future(one)]
        same = [sidecar for sidecar in good if self._same_rules(sidecar)]
        there = brake.since_accepted(same or [sidecar for sidecar in good if sidecar["source_path"] == self._shown])
        heads = replacement.heads_below(self._source) if self._dry else replacement.heads_in(self._store)
        meant = not same or self._request.allow_empty and not captured.stats.files  # other exclusions, or a source that is to be empty
        judge = brake.Brake(self._store, there, lambda one: self._root(run, catalog, one), 0 if meant else self._request.max_shrink, self._request.max_churn)
        return judge(captured.root, run.read, heads)

    def _root(self, run: Transaction, catalog: Catalog, sidecar: Sidecar) -> t.Optional[Entry]:
        manifest = self._manifest(run, catalog, t.cast(Listed, sidecar))
        return None if manifest is None else manifest.root

    def _describe(self, created: datetime.datetime, captured: Captured, run: Transaction, verdict: brake.Verdict) -> t.Tuple[Sidecar, Manifest]:
        request, notes, stats = self._request, captured.notes, captured.stats
        changed = [show(path) for path in sorted({*notes.grown, *notes.unstable})]
        unstable = [show(path) for path in self._unstable(notes)]
        sidecar = Sidecar(
            id=t.cast(str, None),
            workload_name=request.workload,
            workload_mode=request.workload_mode,
            type=request.type,
            manifest_ref=t.cast(str, None),
            tags=list(request.tags),
            created_at=show_time(created),
            blob_count=stats.blobs,
            total_size=stats.size,
            new_blobs=min(run.counts.new_blobs, stats.blobs),
            dedup_blobs=stats.blobs - min(run.counts.new_blobs, stats.blobs),
            duration=0,
            pushed_to_cdn=False,
            source_path=self._shown,
            notes=request.notes,
            format=records.FORMAT,
            host=host.name(),
            host_id=host.machine_id(),
            manifest_sha256=t.cast(str, None),
            complete=not any(item.makes_incomplete for item in notes.skipped),
            exclude=list(request.exclude),
            exclude_caches=request.exclude_caches,
            one_file_system=request.one_file_system,
            file_count=stats.files,
            new_bytes=run.counts.new_bytes,
            stored_bytes=run.counts.stored_bytes,
            skipped=[{"path": show(item.path), "reason": item.reason, "detail": item.detail} for item in notes.skipped[:records.NAMED]],
            skipped_count=len(notes.skipped),
            changed_while_read=changed[:records.NAMED],
            changed_while_read_count=len(changed),
            unstable=bool(unstable),
            unstable_paths=unstable[:records.NAMED],
            unstable_count=len(unstable),
            source_asked=self._asked.shown,
            source_links=self._asked.links,
            mounts=sorted(map(show, notes.mounts)),
            directory_id=None,  # as the store's, not known before it is written
            store_id=None,
            copies=[],
            dumps=self._dumps,
            snapshots=self._snapshots,
            quiesced=self._quiesced,
        )
        sidecar.update(verdict.marks())
        manifest = Manifest(
            backup={key: t.cast("t.Dict[str, t.Any]", sidecar)[key] for key in records.REPEATED},
            root=captured.root,
            links=captured.links,
            links_size=captured.links_size,
            users=metadata.names_of(notes.uids, pwd.getpwuid),
            groups=metadata.names_of(notes.gids, grp.getgrgid),
            skipped=notes.skipped,
            totals=stats._asdict(),
        )
        return sidecar, manifest

    def _changes(self, run: Transaction, old: t.Optional[Manifest], new: Manifest) -> Changes:
        """Against the newest: what came, changed and went. Without one, everything came."""
        changes = Changes(self._request.diff_limit)
        if old is not None:
            try:
                diff.diff(self._store.read, run.read, old.root, new.root, changes)
                return changes
            except (Damaged, Unsupported):
                changes = Changes(self._request.diff_limit)  # the older backup is; this one is whole
        total = sum(new.totals[key] for key in ("files", "directories", "symlinks", "others"))
        diff.everything(run.read, new.root, total, changes)
        return changes

    def _unstable(self, notes: Notes) -> t.List[bytes]:
        """Files that may be torn, but for those of which that is known and accepted."""
        found = sorted(set(notes.unstable))
        if not self._unstable_ok:
            return found
        parts = ((path, *path.rpartition(b"/")[::2]) for path in found)
        return [path for path, above, name in parts if not self._unstable_ok.excludes(above, name, False)]

    @staticmethod
    def _held(catalog: Catalog, listed: t.Sequence[Listed]) -> t.List[str]:
        """What keeps retention from deleting anything older although this backup fits: a suspect one of another source, or by other exclusions."""
        count, _size = prune.held(catalog.owner, listed) if not listed[0]["suspect"] else (0, 0)
        if not count:
            return []
        return [f"{count} backup(s) are kept regardless of retention, because a later one is suspect; inspect that one, then accept or delete it."]

    def _warnings(self, captured: Captured) -> t.List[str]:
        notes = captured.notes
        found = []
        unstable = self._unstable(notes)
        if unstable:
            found.append(
                f"{len(unstable)} file(s) changed during the backup, first {show(unstable[0])}: the backup is unstable, and these files may be inconsistent;"
                " stop the application with `pre_command`, or set `dumps` or `snapshot`."
            )
        found += self._told
        if self._streams.left_out:
            first = show(self._streams.left_out[0])
            found.append(f"A check runs no commands and copies no SQLite databases, so {first} is taken to be as in the newest backup.")
        found += databases.advice(notes.databases, show, {dump["kind"] for dump in self._dumps})
        unread = [item for item in notes.skipped if item.makes_incomplete]
        if unread:
            found.append(
                f"{len(unread)} path(s) could not be read, first {show(unread[0].path)} ({unread[0].detail}): the backup is incomplete."
            )
        return found


class ScanFile:
    """A file whose write errors are the store's."""

    def __init__(self, file: t.BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        with store_errors("writing the stat cache"):
            return self._file.write(data)

    def flush(self) -> None:
        with store_errors("writing the stat cache"):
            self._file.flush()

    def __enter__(self) -> t.Any:
        return self

    def __exit__(self, *_exception: object) -> None:
        with store_errors("writing the stat cache"):
            self._file.close()


def retake(run: Transaction, backup: t.Mapping[str, t.Any], *apart: str) -> None:
    """Read a backup's source again by the same rules, without believing any cache, into a run; SourceError where it does not exist.

    :param apart: store and backup directory, which are left out.
    """
    options = Options(Exclusions(backup["exclude"]), backup["exclude_caches"], backup["one_file_system"], _identities(*apart))
    Capture(run, options, Scan(os.devnull), None, unwatched)(AskedSource(backup["source_path"]).real)
    run.finish()


def scan_name(source: bytes, host_id: t.Optional[str]) -> str:
    """The file below cache/ in which the stat cache of a source is kept. Hosts that share a store have one each: after cloning, files of two hosts may have
    equal stats and different content."""
    return f"{hashlib.sha256(source + b'@' + (host_id or '').encode()).hexdigest()[:32]}.scan"


def _equal(old: Manifest, captured: Captured) -> bool:
    """Same content and attributes, down to the root's own; the root's time is one of them."""
    return old.root == captured.root and old.links == captured.links and not any(item.makes_incomplete for item in captured.notes.skipped)


def _identities(*places: str) -> t.FrozenSet[t.Tuple[int, int]]:
    """Directories by device and inode, so that a walk knows them under any name."""
    found = set()
    for place in places:
        try:
            info = os.stat(place)
        except OSError:
            continue  # check mode, and they do not exist yet
        found.add((info.st_dev, info.st_ino))
    return frozenset(found)
