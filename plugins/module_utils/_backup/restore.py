# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Restoring: compare first, then choose how, then do it so that nothing is lost if it fails.

::

    refuse targets that cannot be meant (inside the store, around it, no parent)
    check that the backup is whole
    compare backup and target; equal: done, whatever was forced
    there is something else and nobody said force: refuse
    replace  a new tree beside the old, exchanged with it in one step
    in place each file beside its name, then renamed; needed where trees cannot be exchanged, or where that would lose something
"""

from __future__ import annotations

import fcntl
import os
import time
import typing as t

from .._base.errors import TargetDiffers, TargetError, UsageError, reason, target_failure
from .._base.files import open_directory
from .._base.text import parse, show
from .._format.diff import REMOVED
from .._fs import mounts
from .._fs.exclusions import Exclusions, Skipped
from .._fs.metadata import Owners, Setter
from .._restore import content
from .._restore.assemble import Assembler, Tally
from .._restore.compare import Comparer, Comparison, Selection, TargetComparer
from .._restore.preserve import Preserve
from .._restore.replace import Impossible, Rules, Stage, sweep
from .._store.store import Store
from .catalog import Catalog
from .records import Manifest, Sidecar

STRATEGIES = ("auto", "replace", "in_place")
LINKS = ("auto", "reflink", "hardlink", "copy")
#: Space that a replacing restore leaves free beyond what it needs: directories, inodes, the file system's own books.
_SPARE = 16 << 20

Progress = t.Callable[[int, int], None]


class RestoreRequest(t.NamedTuple):
    """What is asked of `restore`; names as in the contract. `target` None means the recorded source."""

    target: t.Optional[str] = None
    force: bool = False
    strategy: str = "auto"
    delete: bool = False
    paths: t.Sequence[str] = ()
    link: str = "auto"
    verify: bool = False
    numeric_owner: bool = False
    keep_previous: bool = False
    diff_limit: int = 1000


class Restored(t.NamedTuple):
    """What `restore` did: the contract's `restore`, and more."""

    restore: t.Dict[str, t.Any]
    changed: bool
    diff: t.Dict[str, t.Any]
    warnings: t.List[str]


class Restorer:
    """One restore. Use once, under the store's shared lock."""

    def __init__(
        self, store: Store, catalog: Catalog, backup_dir: str, sidecar: Sidecar, request: RestoreRequest, dry: bool, progress: Progress
    ) -> None:
        for value, allowed, name in ((request.strategy, STRATEGIES, "Strategy"), (request.link, LINKS, "Kind of link")):
            if value not in allowed:
                raise UsageError(f"{name} {value!r} is not known; use one of {', '.join(allowed)}.")
        if request.paths and request.strategy == "replace":
            raise UsageError("Some paths of a backup can only be restored in place; leave out strategy: replace.")
        if request.keep_previous and (request.paths or request.strategy == "in_place"):
            raise UsageError("keep_previous keeps the tree that replace puts aside; in place nothing is put aside, so leave it out.")
        if request.delete and request.strategy == "replace":
            raise UsageError("delete belongs to in_place; replace leaves nothing of the old tree but what the backup excluded.")
        self._store, self._catalog, self._directory = store, catalog, backup_dir
        self._sidecar, self._request, self._dry, self._progress = sidecar, request, dry, progress
        self._started = time.monotonic_ns()
        self._selection = [parse(path) for path in request.paths]
        self._lock = -1
        self._warnings: t.List[str] = []
        self._target = self._resolve(request.target if request.target is not None else sidecar["source_path"])

    # ---- the target

    def _resolve(self, text: str) -> bytes:
        if not text:
            raise UsageError("The target is an empty path; name a directory, or leave it out for the recorded source.")
        path = os.path.abspath(parse(os.path.expanduser(text)))
        real = os.path.realpath(path)
        if os.path.lexists(real) and not os.path.isdir(real):
            raise TargetError(f"Target {show(path)} is not a directory; name a directory, or a path that does not exist yet.")
        if self._request.target is None and real != path:
            # a backup is of a path without links: whoever put one in since may have turned it to what the backup knows nothing of
            raise TargetError(
                f"Target {show(path)}, where the backup is from, leads through a symbolic link to {show(real)} now; take the link away,"
                " or say by target where to restore."
            )
        if not os.path.isdir(os.path.dirname(real)):
            raise TargetError(f"Target {show(path)} has no parent directory; make {show(os.path.dirname(real))} first.")
        for place in (self._store.path, self._directory):
            kept = os.path.realpath(os.fsencode(place))
            if _within(real, kept):
                raise TargetError(f"Target {show(path)} lies in {show(kept)}, where backups are kept; choose another.")
            if _within(kept, real) and self._touches(real, kept):
                raise TargetError(
                    f"Target {show(path)} holds {show(kept)}, where backups are kept; restore elsewhere, or only the paths you need."
                )
        return real

    def _touches(self, target: bytes, kept: bytes) -> bool:
        """Whether what is to be restored could reach the store below the target."""
        below = os.path.relpath(kept, target)
        paths = [Selection.clean(path) for path in self._selection]
        return not paths or any(_within(below, path) or _within(path, below) for path in paths)

    def _take(self) -> bool:
        """Lock the target against other restores, for as long as we live; whether it exists."""
        while True:
            try:
                fd = open_directory(self._target, follow=True)
            except FileNotFoundError:
                return False
            except OSError as error:
                raise TargetError(f"Target {show(self._target)} cannot be opened: {reason(error)}.") from None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                raise TargetError(f"Another restore to {show(self._target)} is under way; wait for it to end.") from None
            try:
                same = os.path.samestat(os.fstat(fd), os.stat(self._target))
            except FileNotFoundError:
                same = False
            if same:
                self._lock = fd
                return True
            os.close(fd)  # exchanged while we waited

    # ---- the run

    def __call__(self) -> Restored:
        try:
            return self._run()
        finally:
            if self._lock >= 0:
                os.close(self._lock)

    def _run(self) -> Restored:
        request, target = self._request, self._target
        manifest = self._catalog.manifest(self._sidecar)
        self._catalog.check(manifest)
        exists = os.path.isdir(target) if self._dry else self._take()
        if not self._dry:
            self._warnings += sweep(target)
            exists = exists or self._take()
        below = [os.path.relpath(point, target) for point in mounts.below(target)] if exists else []
        rules = Rules(manifest.backup["exclude"], manifest.backup["exclude_caches"], manifest.skipped)
        ours = [os.path.relpath(os.path.realpath(os.fsencode(place)), target) for place in (self._store.path, self._directory)]
        apart = [Skipped(path, "mount", "") for path in below] + [Skipped(path, "store", "") for path in ours]
        preserve = Preserve(Exclusions(rules.exclude), rules.caches, [*rules.skipped, *apart])
        owners = Owners({}, {}) if request.numeric_owner else Owners(manifest.users, manifest.groups)
        comparer = Comparer(self._store.read, self._store.read_object, owners, request.verify)
        groups = self._catalog.groups(manifest)
        comparison = self._compare(manifest, comparer, preserve, groups, exists, frozenset(below))
        wanted = comparison.changes if self._removes() else comparison.changes.without(REMOVED)
        diff = wanted.as_dict()
        if not wanted:
            return self._result("none", Tally(), diff, changed=False)
        if exists and not request.force:
            raise TargetDiffers(
                f"Target {show(target)} exists and differs from the backup ({_counts(diff)}); say force: true to overwrite it.",
                diff=diff,
            )
        if self._dry:
            content.foresee(self._store, request.link, target if exists else os.path.dirname(target))
        strategy = self._choose(comparison, exists, below)
        if self._dry:
            return self._result(strategy, Tally(), diff, changed=True)
        setter = Setter(owners)
        filler = content.Filler(self._store, request.link, request.verify)
        assembler = Assembler(self._catalog.load, filler, setter, comparer, groups, self._progress)
        previous = None
        if strategy == "replace":
            try:
                previous = self._replace(assembler, manifest, rules, comparison, exists)
            except Impossible:
                self._needs_replace("trees cannot be exchanged here")
                self._refuse_in_place(comparison)
                self._warnings.append("Trees cannot be exchanged here, so the target was restored in place.")
                strategy = "in_place"
                assembler = assembler.again()
        if strategy == "in_place":
            self._in_place(assembler, manifest, preserve, comparison, exists)
        if setter.refused:
            self._warnings.append(f"{setter.refused} path(s) kept this user's ownership or lack privileged attributes: not running as root.")
        result = self._result(strategy, assembler.tally, diff, changed=True)
        result.restore.update(files_linked=filler.linked, files_copied=filler.copied, previous=show(previous) if previous else None)
        return result

    def _removes(self) -> bool:
        """Whether what the backup lacks shall go."""
        request = self._request
        return request.delete or request.strategy == "replace"

    def _compare(
        self, manifest: Manifest, comparer: Comparer, preserve: Preserve, groups: t.List[t.List[bytes]], exists: bool, below: t.FrozenSet[bytes]
    ) -> Comparison:
        target_comparer = TargetComparer(
            self._catalog.load, comparer, preserve, Selection(self._selection), groups, self._request.diff_limit, self._request.link == "hardlink", below
        )
        try:
            fd = open_directory(self._target, follow=True) if exists else None
            return target_comparer(manifest.root, fd)
        except OSError as error:
            raise TargetError(f"Target {show(self._target)} cannot be compared: {reason(error)}.") from None

    def _choose(self, comparison: Comparison, exists: bool, below: t.List[bytes]) -> str:
        """The contract's auto: replace where nothing can be lost by it, else in place."""
        request, target = self._request, self._target
        if request.strategy == "replace" and below:
            raise TargetError(
                f"Something is mounted below target {show(target)} (at {show(below[0])}); unmount it, or use strategy: in_place.",
                mounts=[show(path) for path in below],
            )
        if not exists:
            return "in_place" if self._selection or request.strategy == "in_place" else "replace"
        strategy = "replace"
        if self._selection or request.strategy == "in_place":
            strategy = "in_place"
        elif mounts.is_mount_point(target) or target == b"/":
            self._needs_replace("the target is a mount point")
            if request.strategy == "replace":
                self._warnings.append(f"Target {show(target)} is a mount point, so it was restored in place.")
            strategy = "in_place"
        elif below:
            self._needs_replace(f"something is mounted below the target (at {show(below[0])})")
            strategy = "in_place"
        elif comparison.size + _SPARE > _free(target):
            self._needs_replace("there is no space for two trees")
            self._warnings.append(f"There is no space for two trees at {show(target)}, so it was restored in place.")
            strategy = "in_place"
        elif comparison.changes.counts[REMOVED] and not (self._removes() or request.keep_previous):
            strategy = "in_place"
        if strategy == "in_place":
            self._refuse_in_place(comparison)
        return strategy

    def _needs_replace(self, why: str) -> None:
        """Refuse where the previous tree was to be kept, and there will be none."""
        if self._request.keep_previous:
            raise TargetError(f"keep_previous needs the target to be replaced as a whole, but {why}; leave it out to restore in place.")

    def _refuse_in_place(self, comparison: Comparison) -> None:
        """Refuse, before anything is written, what would stop halfway or lose something."""
        if comparison.guarded:
            raise TargetError(
                f"{show(comparison.guarded[0])} in the target is a mount point or what the backup left alone, and the backup has something else there;"
                " move or unmount it.",
                paths=[show(path) for path in comparison.guarded],
            )
        if comparison.blocked and not self._removes():
            raise TargetError(
                f"{show(comparison.blocked[0])} in the target is a directory with content, and the backup has something else there;"
                " move it away, or say delete: true.",
                paths=[show(path) for path in comparison.blocked],
            )

    def _replace(self, assembler: Assembler, manifest: Manifest, rules: Rules, comparison: Comparison, exists: bool) -> t.Optional[bytes]:
        target, request = self._target, self._request
        with Stage(target) as stage:
            content.probe(self._store, request.link, stage.directory)
            old = None
            if exists and not request.keep_previous:
                old = open_directory(target, follow=True)
            assembler.fresh(manifest.root, stage.tree, old, lambda path: path not in comparison.unequal_links)
            stage.settle()
            if not exists:
                stage.put()
                return None
            extraneous = not comparison.changes.counts[REMOVED] and not self._removes()
            previous, warnings = stage.exchange(rules, request.keep_previous, extraneous)
            assembler.tally.removed = comparison.changes.counts[REMOVED]
            self._warnings += warnings
            return previous

    def _in_place(self, assembler: Assembler, manifest: Manifest, preserve: Preserve, comparison: Comparison, exists: bool) -> None:
        target, request = self._target, self._request
        if not exists:
            try:
                os.mkdir(target, 0o700)
            except OSError as error:
                raise target_failure(f"making {show(target)}", error) from None
            self._take()
        content.probe(self._store, request.link, self._lock)
        assembler.in_place(manifest.root, self._lock, Selection(self._selection), preserve, comparison, self._removes())
        assembler.sync(self._lock)
        if assembler.tally.kept:
            kept = assembler.tally.kept
            self._warnings.append(f"{len(kept)} path(s) were not removed, first {kept[0]}: they are mounted, or came in meanwhile.")

    def _result(self, strategy: str, tally: Tally, diff: t.Dict[str, t.Any], changed: bool) -> Restored:
        restore = {
            "backup_id": self._sidecar["id"],
            "target_dir": show(self._target),
            "strategy": strategy,
            "files_linked": 0,
            "files_copied": 0,
            "files_unchanged": tally.unchanged,
            "files_removed": tally.removed,
            "total_size": self._sidecar["total_size"],
            "duration": time.monotonic_ns() - self._started,
            "previous": None,
        }
        return Restored(restore, changed, diff, self._warnings)


def _within(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top.rstrip(b"/") + b"/") or not top


def _free(path: bytes) -> int:
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize


def _counts(diff: t.Dict[str, t.Any]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in diff["counts"].items())
