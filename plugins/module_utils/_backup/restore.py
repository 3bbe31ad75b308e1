# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Restoring: compare first, then choose how, then do it so that nothing is lost if it fails.

::

    refuse targets that cannot be meant (inside the store, around it, no parent)
    check that the backup is whole
    compare backup and target; equal: done, whatever was forced
    there is something else and no force: refuse
    replace  a new tree beside the old, exchanged with it in one step
    in place each file beside its name, then renamed; needed where trees cannot be exchanged, or where that would lose something
"""

from __future__ import annotations

import os
import time
import typing as t

from .._base import Progress, TargetDiffers, TargetError, open_directory, parse, reason, show, target_failure
from .._format.diff import REMOVED
from .._fs import mounts
from .._fs.exclusions import Exclusions, Skipped
from .._fs.metadata import Owners, Setter
from .._restore import content
from .._restore.assemble import Assembler, Tally
from .._restore.compare import Comparer, Comparison, Selection, TargetComparer
from .._restore.plan import RestoreRequest, check, choose, needs_replace, refuse_in_place, removes
from .._restore.preserve import Preserve
from .._restore.replace import Impossible, Rules, Stage, sweep
from .._restore.target import resolve, take
from .._store.store import Store
from .catalog import Catalog
from .records import Manifest, Sidecar


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
        check(request)
        self._store, self._catalog, self._directory = store, catalog, backup_dir
        self._sidecar, self._request, self._dry, self._progress = sidecar, request, dry, progress
        self._started = time.monotonic_ns()
        self._selection = [parse(path) for path in request.paths]
        self._lock = -1
        self._warnings: t.List[str] = []
        self._target = resolve(
            request.target, sidecar["source_path"], (store.path, backup_dir), [Selection.clean(path) for path in self._selection]
        )

    def _take(self) -> bool:
        """Lock the target against other restores, for as long as we live; whether it exists."""
        fd = take(self._target)
        self._lock = -1 if fd is None else fd
        return fd is not None

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
        wanted = comparison.changes if removes(request) else comparison.changes.without(REMOVED)
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
        strategy = choose(request, target, comparison, exists, below, self._warnings.append)
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
                needs_replace(request, "trees cannot be exchanged here")
                refuse_in_place(request, comparison)
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
            extraneous = not comparison.changes.counts[REMOVED] and not removes(request)
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
        assembler.in_place(manifest.root, self._lock, Selection(self._selection), preserve, comparison, removes(request))
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


def _counts(diff: t.Dict[str, t.Any]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in diff["counts"].items())
