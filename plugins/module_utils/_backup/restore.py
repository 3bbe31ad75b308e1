# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Restoring: compare first, then choose how, then do it so that nothing is lost if it fails.

::

    refuse targets that cannot be meant (inside the store, around it, no parent); hold the target by descriptors from here on
    check that the backup is whole, or find out what of it is
    compare backup and target; equal: done, whatever was forced
    there is something else and no force: refuse; something runs on it: refuse
    replace  a new tree beside the old, exchanged with it in one step
    in place each file in a private room, then renamed; needed where trees cannot be exchanged, or where that would lose something
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from .._base import Closing, Damaged, Progress, TargetDiffers, TargetError, UsageError, kernel, one_line, open_real, parse, reason, show
from .._format import tree, walk
from .._format.diff import REMOVED
from .._fs.exclusions import Exclusions, Skipped
from .._fs.holding import Holder
from .._fs.metadata import Owners, Setter, Skips
from .._restore import content
from .._restore.assemble import Assembler, Tally
from .._restore.blobs import Blobs
from .._restore.compare import Comparison, Selection, TargetComparer
from .._restore.equal import Comparer
from .._restore.in_use import Users, holding_warning, users_of
from .._restore.known import Known, Seen
from .._restore.plan import RestoreRequest, check, choose, needs_replace, refuse_in_place, refuse_in_use, refuse_lacks, removes
from .._restore.preserve import Preserve
from .._restore.replace import Impossible, Rules, Stage, sweep
from .._restore.rooms import remove_left
from .._restore.salvage import Salvage, named
from .._restore.supply import Uses
from .._restore.target import Target, resolve
from .._sources import loading
from .guards import NO_SOURCE
from .listing import inside
from .origin import Origin
from .records import Manifest, Sidecar


class Restored(t.NamedTuple):
    """What `restore` did: the contract's `restore`, and more."""

    restore: t.Dict[str, t.Any]
    changed: bool
    diff: t.Dict[str, t.Any]
    warnings: t.List[str]


class _Work(t.NamedTuple):
    """What a restore has found out, and works with."""

    manifest: Manifest
    rules: Rules
    preserve: Preserve
    setter: Setter
    comparer: Comparer
    groups: t.List[t.List[bytes]]
    comparison: Comparison


def keeps_numbers(sidecar: Sidecar, load: walk.Load, manifest: Manifest) -> bool:
    """Whether owners are numbers that the host's names say nothing of: those of a container, or of a system with users of its own."""
    if sidecar["workload_mode"] == "container":
        return True
    try:
        return walk.find(load, manifest.root, b"etc/passwd") is not None
    except Damaged:
        return False


class Restorer:
    """One restore. Use once.

    :param reread: believe no stat cache of the target, and leave none: what is there is to be proved.
    :cvar comparer: what tells whether a file is equal.
    """

    comparer: t.Type[Comparer] = Comparer

    def __init__(self, origin: Origin, request: RestoreRequest, dry: bool, reread: bool, progress: Progress) -> None:
        check(request)
        self._reread, self._exposed = reread, 0
        self._origin, self._sidecar = origin, origin.sidecar
        self._request, self._dry, self._progress = request, dry, progress
        self._started = time.monotonic_ns()
        selection = [inside(origin.load, origin.manifest, self._sidecar["source_path"], parse(path)) for path in request.paths]
        self._target = Target(self._resolve([Selection.clean(path) for path in selection]))
        self._selection = Selection(selection)
        self._load = origin.load
        self._warnings: t.List[str] = []
        self._users: t.List[str] = []
        self._lost: t.List[bytes] = []
        self._needed = self._stays = 0

    @property
    def _blobs(self) -> Blobs:
        return self._origin.blobs

    def _resolve(self, selection: t.Sequence[bytes]) -> bytes:
        """Where the target is; UsageError or TargetError where it cannot be meant."""
        if self._request.target is None and self._sidecar["source_path"] == NO_SOURCE:
            raise UsageError(f"Backup {self._sidecar['id']} has no source, only what a program wrote; set the target to restore to.")
        return resolve(self._request.target, self._sidecar["source_path"], self._origin.places, selection)

    def __call__(self) -> Restored:
        with self._target:
            if not self._dry:
                self._target.lock()
                self._warnings += sweep(self._target)
                self._target.look_again()
            with self._origin.at(self._target, self._dry):
                return self._run()

    def _run(self) -> Restored:
        request, target = self._request, self._target
        work = self._look()
        comparison = work.comparison
        wanted = comparison.changes if removes(request) else comparison.changes.without(REMOVED)
        diff = wanted.as_dict()
        users = users_of(target.path) if target.exists and not request.allow_in_use else Users([], [])
        self._users = users.blocking
        if not wanted:
            self._clean(comparison.left)
            if work.comparer.learned:
                self._remember(work.comparer.seen, bool(request.paths))
            return self._result("none", Tally(), diff, Skips())
        if target.exists and not request.force:
            raise TargetDiffers(
                f"Target {show(target.path)} exists and differs from the backup ({_counts(diff)}); use `force: true` to overwrite it.",
                diff=diff,
            )
        refuse_in_use(request, target, self._users)
        refuse_lacks(request, target, comparison)
        if self._dry:
            content.foresee(self._blobs, request.link, target.place)
        with self._naming_lost(work.manifest):
            clones = content.clones(self._blobs, request.link, target.place)
            self._needed = comparison.space.needed(self._blobs, clones, request.salvage)
        strategy = choose(request, target, comparison, self._needed, self._warnings.append)
        if self._dry:
            return self._result(strategy, Tally(), diff, comparison.lacks)
        self._warnings += filter(None, [holding_warning(target.path, users.holding)])
        uses = comparison.space.uses
        supply = self._origin.supplying(comparison.space.wanted(self._blobs), self._needed)
        del comparison.space  # the rest of it, 50 bytes for each large file, is needed no longer, or by the supply
        with supply:
            return self._carry_out(work, uses, strategy, diff)

    def _look(self) -> _Work:
        """Compare the backup with what is there."""
        request, target = self._request, self._target
        manifest = self._origin.manifest()
        lost = self._check(manifest)
        rules = Rules(manifest.backup["exclude"], manifest.backup["exclude_caches"], [*manifest.skipped, *lost])
        preserve = self._preserve(rules)
        by_number = self._request.numeric_owner or keeps_numbers(self._sidecar, self._load, manifest)
        owners = Owners({}, {}) if by_number else Owners(manifest.users, manifest.groups)
        holder = Holder(not self._dry)
        known = self._known()
        if known is not None and not self._dry:
            with contextlib.suppress(OSError):
                kernel.syncfs(target.fd)  # else a store through a memory map to a page that is dirty already moves no time
        seen = Seen(os.fstat(target.place).st_dev, time.time_ns())
        comparer = self.comparer(self._blobs.read, owners, holder, request.verify, known or _nothing, seen)
        with self._naming_lost(manifest):  # a tree may turn out to be damaged only when it is read
            groups = self._groups(manifest)
            comparison = self._compare(manifest, comparer, preserve, groups)
        self._stays = 0 if removes(request) else comparison.changes.counts[REMOVED]
        exact = self._dry or holder.is_faithful(target.place, os.fstat(target.place).st_dev)
        return _Work(manifest, rules, preserve, Setter(owners, exact), comparer, groups, comparison)

    def _carry_out(self, work: _Work, uses: Uses, strategy: str, diff: t.Dict[str, t.Any]) -> Restored:
        request = self._request
        filler = content.Filler(self._blobs, request.link, request.verify, uses)
        lost = self._lost.append if request.salvage else None
        assembler = Assembler(self._load, filler, work.setter, work.comparer, work.groups, self._progress, lost)
        previous = None
        if strategy == "replace":
            try:
                previous = self._replace(assembler, work)
            except Impossible:
                needs_replace(request, "this file system cannot swap directories")
                refuse_in_place(request, work.comparison)
                self._warnings.append("This file system cannot swap directories, so the target was restored in place.")
                strategy = "in_place"
                assembler = assembler.again()
        if strategy == "in_place":
            self._remember(work.comparer.seen, bool(request.paths))
            work.comparer.believe(self._known() or _nothing)  # what the comparison has hashed is hashed again only if it changes
            self._in_place(assembler, work)
        self._target.look_again()
        seen = work.comparer.seen
        if assembler.written is not None:  # all of it is new: what was hashed is in the old tree
            filler.end()
            seen = Seen(os.fstat(self._target.fd).st_dev, 0)
            seen.take(assembler.written, self._exposed)
        self._remember(seen, strategy == "in_place")
        result = self._result(strategy, assembler.tally, diff, work.setter.skips)
        result.restore.update(files_linked=filler.linked, files_copied=filler.copied, previous=show(previous) if previous else None)
        return result

    # ---- before

    def _check(self, manifest: Manifest) -> t.List[Skipped]:
        """Damaged unless all that is asked for is here; what is lost, where the rest is to be salvaged."""
        if self._selection.everything and not self._request.salvage:
            with self._naming_lost(manifest):
                self._origin.check(manifest)
            return []
        salvage = self._salvage(manifest)
        self._lost, self._load = sorted(salvage.lost), salvage.load
        return salvage.skipped()

    @contextlib.contextmanager
    def _naming_lost(self, manifest: Manifest) -> t.Iterator[None]:
        """Damaged names the paths that are lost, if there are any."""
        try:
            yield
        except Damaged as error:
            if not self._request.salvage:
                self._salvage(manifest, f" {error.message}")
            raise

    def _salvage(self, manifest: Manifest, why: str = "") -> Salvage:
        """What is lost; Damaged where that is everything, or something and the rest is not to be salvaged."""
        salvage = Salvage(self._blobs, self._load, manifest.root, self._selection)
        if (why or salvage.lost) and not self._request.salvage:
            # a damaged pack is lost with all that is in it, also with trees that were read before: what `salvage: true` will find is to be told
            salvage = Salvage(self._blobs, tree.Loader(self._blobs.read), manifest.root, self._selection)
        lost, why = sorted(salvage.lost), why or f" {salvage.reason}".rstrip()
        if b"" in salvage.lost:
            what = f"Backup {self._sidecar['id']} lacks the list of its top directory"
            raise Damaged(f"{what}, so nothing of it can be restored; use another backup.{why}", paths=["."])
        if lost and not self._request.salvage:
            raise Damaged(
                f"Backup {self._sidecar['id']} lacks the content of {len(lost)} path(s): {named(lost)}.{why}"
                " Restore the rest with `salvage: true`, or select the paths you need.",
                paths=[show(path) for path in lost],
            )
        return salvage

    def _groups(self, manifest: Manifest) -> t.List[t.List[bytes]]:
        try:
            return self._origin.groups(manifest)
        except Damaged:
            if not self._request.salvage and self._selection.everything:
                raise
            self._warnings.append("The backup's table of hard links is missing or damaged, so hard links were restored as separate files.")
            return []

    def _preserve(self, rules: Rules) -> Preserve:
        """What the restore leaves alone: what the backup did, and what is apart from the target."""
        return Preserve(Exclusions(rules.exclude), rules.caches, [*rules.skipped, *self._apart()])

    def _apart(self) -> t.List[Skipped]:
        """What is not of the target's own file system, and what holds the backups."""
        path = self._target.path
        ours = [os.path.relpath(os.path.realpath(os.fsencode(place)), path) for place in self._origin.places]
        return [Skipped(point, "mount", "") for point in self._target.mounted] + [Skipped(place, "store", "") for place in ours]

    def _compare(self, manifest: Manifest, comparer: Comparer, preserve: Preserve, groups: t.List[t.List[bytes]]) -> Comparison:
        request, target = self._request, self._target
        strict = target.place if request.attributes == "strict" else -1
        target_comparer = TargetComparer(
            self._load, comparer, preserve, self._selection, groups, request.diff_limit, request.link == "hardlink", target.mounted, strict,
            request.keep_previous, not self._blobs.exists and not self._dry,
        )  # fmt: skip
        try:
            return target_comparer(manifest.root, os.dup(target.fd) if target.exists else None)
        except OSError as error:
            raise TargetError(f"Target {show(target.path)} cannot be compared: {reason(error)}; fix that, then run again.") from None

    def _clean(self, left: t.List[bytes]) -> None:
        """Remove rooms that dead restores left in a target that is equal otherwise."""
        for path in left if not self._dry else ():
            parent, _slash, name = path.rpartition(b"/")
            with contextlib.suppress(OSError), Closing(open_real(parent, self._target.fd)) as fd:
                remove_left(fd, name)

    def _known(self) -> t.Optional[Known]:
        cache = self._origin.cache
        return Known(cache, self._target.path, self._target.fd) if cache is not None and self._target.exists and not self._reread else None

    def _remember(self, seen: Seen, more: bool) -> None:
        """Keep what was hashed for the next comparison. :param more: besides what is known of other files."""
        known = self._known() if self._request.verify and not self._dry else None
        if known is not None:
            known.keep(seen, more)

    # ---- doing it

    def _replace(self, assembler: Assembler, work: _Work) -> t.Optional[bytes]:
        target, request, comparison = self._target, self._request, work.comparison
        with Stage(target) as stage:
            content.probe(self._blobs, request.link, stage.directory)
            old = os.dup(target.fd) if target.exists else None
            assembler.fresh(
                work.manifest.root, stage.tree, old, lambda path: not request.keep_previous and path not in comparison.unequal_links
            )
            self._exposed = stage.settle()
            if not target.exists:
                stage.put()
                return None
            extraneous = not comparison.changes.counts[REMOVED] and not removes(request)
            previous, warnings = stage.exchange(work.rules, request.keep_previous, extraneous)
            assembler.tally.removed = comparison.changes.counts[REMOVED]
            self._warnings += warnings
            return previous

    def _in_place(self, assembler: Assembler, work: _Work) -> None:
        target, request = self._target, self._request
        made = not target.exists
        if made:
            target.make()
        target.check()
        content.foresee(self._blobs, request.link, target.fd)
        assembler.in_place(work.manifest.root, target.fd, self._selection, work.preserve, work.comparison, target.mounted, removes(request), made)
        assembler.sync(target.fd)
        target.check()
        appeared = target.appeared()
        if appeared:  # where nothing differed, the restore did not come by
            raise TargetError(
                f"{show(appeared[0])} in the target was mounted during the restore; unmount it, then restore again.", paths=[show(path) for path in appeared]
            )
        if assembler.tally.kept:
            kept = assembler.tally.kept
            self._warnings.append(f"{len(kept)} path(s) were not removed, first {kept[0]}: they are mounted, immutable, or were created during the restore.")

    def _result(self, strategy: str, tally: Tally, diff: t.Dict[str, t.Any], skips: Skips) -> Restored:
        if skips.count:
            why = "" if os.geteuid() == 0 else ", not running as root"
            self._warnings.append(f"{skips.count} path(s) were restored without some attributes{why}: {skips}; first {skips.paths[0]}.")
        if self._lost:
            self._warnings.append(f"{len(self._lost)} path(s) could not be restored because their data is lost; they were left unchanged: {named(self._lost)}.")
        restore = {
            "backup_id": self._sidecar["id"],
            "target_dir": show(self._target.path),
            "strategy": strategy,
            "files_linked": 0,
            "files_copied": 0,
            "files_unchanged": tally.unchanged,
            "files_removed": tally.removed,
            "paths_staying": self._stays,
            "total_size": self._sidecar["total_size"],
            "bytes_needed": self._needed,
            "duration": time.monotonic_ns() - self._started,
            "verified": self._request.verify,
            "attributes_skipped": skips.count,
            "attributes_skipped_names": skips.names,
            "attributes_skipped_paths": skips.paths,
            "partly": not self._selection.everything,
            "lost": [show(path) for path in self._lost],
            "in_use": self._users,
            "dumps": loading.of_restore(self._sidecar["dumps"], show(self._target.path)),
            "previous": None,
            "remote": None,
            "fetched_bytes": 0,
        }
        return Restored(restore, strategy != "none", diff, self._warnings)


def unchanged(restore: t.Mapping[str, t.Any]) -> str:
    """What may be said of a restore that had nothing to do. "Equals" is only said of what is equal, by its content."""
    target, backup = one_line(restore["target_dir"]), restore["backup_id"]
    lost, stays = len(restore["lost"]), restore["paths_staying"]
    if lost or restore["partly"]:
        what = f"all {'intact' if lost else 'selected'} paths of {backup} are in {target}"
    elif stays:
        what = f"all of {backup} is in {target}"
    else:
        what = f"{target} equals {backup}"
    more = f"; {stays} other path{'s were' if stays > 1 else ' was'} left unchanged" if stays else ""
    return what + more + ("" if restore["verified"] else ", compared by size and time only")


def _nothing(_info: os.stat_result) -> t.Optional[bytes]:
    """What is known of a file where nothing is."""
    return None


def _counts(diff: t.Dict[str, t.Any]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in diff["counts"].items())
