# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What leads from a backup to another one, or to a directory as it is now.

A directory is compared as a restore compares its target: by content, and without what the backup excluded or skipped. Nothing is written.
"""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t

from .._base import Damaged, NotFound, TargetError, Unsupported, UsageError, parse, show, unwatched
from .._format import diff, walk
from .._format.tree import DIRECTORY
from .._fs.exclusions import Skipped
from .._restore.compare import Selection
from .._restore.equal import Basics, Comparer
from .._restore.plan import RestoreRequest
from .._restore.target import resolve
from .._store.store import Store
from . import names, text_diff
from .catalog import Catalog, of_future, trouble_of
from .listing import inside
from .origin import LocalOrigin, Origin
from .records import Listed, Manifest, Sidecar
from .restore import Restorer
from .text_diff import TextDiff


class Difference(t.NamedTuple):
    """What was compared, and what leads from the one to the other."""

    old: str
    new: str
    diff: t.Dict[str, t.Any]
    #: Of one file: what changed in it, or why that is not told.
    text: t.Optional[str] = None
    text_reason: t.Optional[str] = None


def pair(catalog: Catalog, old: str, new: str) -> t.Tuple[Sidecar, Sidecar]:
    """The two backups that are meant. NotFound tells how to name a directory instead."""
    older = names.chosen(catalog, old, False)
    try:
        return older, names.chosen(catalog, new, False)
    except NotFound:
        if not os.path.isdir(new):
            raise
        shown = show(new)
        raise NotFound(f"There is no backup or workload {shown}; for the directory of that name, write ./{shown}.") from None


def between(old: Origin, new: Origin, paths: t.Sequence[str], limit: int) -> Difference:
    """What leads from one backup to another; with `paths`, what of it is there or below, and of a single file also what changed in its text."""
    before, after = old.manifest().root, new.manifest().root
    changes = diff.Changes(limit)
    text = TextDiff()
    selected = [[inside(origin.load, origin.manifest, origin.sidecar["source_path"], parse(path)) for path in paths] for origin in (old, new)]
    places = _topmost(zip(*selected)) if paths else [(b"", b"")]
    for one, other in places:
        a, b = walk.find(old.load, before, one), walk.find(new.load, after, other)
        if a is None and b is None:
            raise UsageError(f"Neither backup has path {show(one)}; list their contents.", paths=[show(one)])
        if a is not None and b is not None and a.kind == b.kind == DIRECTORY:
            diff.diff(old.blobs.read, new.blobs.read, a, b, changes, one)
        elif a != b:
            diff.note(old.blobs.read, new.blobs.read, one, a, b, changes)
            if len(places) == 1:
                text = text_diff.compare(text_diff.Side(old, one, a), text_diff.Side(new, other, b))
    return Difference(old.sidecar["id"], new.sidecar["id"], changes.as_dict(), *text)


def _topmost(pairs: t.Iterable[t.Tuple[bytes, ...]]) -> t.List[t.Tuple[bytes, ...]]:
    """Paths, as they are called in both backups, without those that are below others."""
    clean = sorted({tuple(map(Selection.clean, pair)) for pair in pairs})
    above = {pair[0] for pair in clean}
    return [pair for pair in clean if not any(pair[0].startswith(path + b"/") or path == b"" != pair[0] for path in above)]


def live(store: Store, catalog: Catalog, backup_dir: str, old: str, target: t.Optional[str], paths: t.Sequence[str], verify: bool, limit: int) -> Difference:
    """What leads from a backup to a directory as it is now. :param target: None for the source. :param verify: compare content, too."""
    sidecar = names.chosen(catalog, old, False)
    request = RestoreRequest(target=target, paths=paths, verify=verify, diff_limit=limit)
    return Difference(sidecar["id"], *_Live(LocalOrigin(store, catalog, backup_dir, sidecar), request, True, False, unwatched).differences())


def _may_be_directory(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # opening it says what is wrong


def _no_directory(path: bytes) -> TargetError:
    return TargetError(f"There is no directory {show(path)}; give the one to compare the backup with.")


class _Comparer(Comparer):
    """As in a restore, but that the time of a directory counts for nothing: whatever is done in it moves that."""

    def _same_basics(self, wanted: Basics, info: os.stat_result) -> bool:
        return super()._same_basics(wanted._replace(mtime=info.st_mtime_ns) if stat.S_ISDIR(info.st_mode) else wanted, info)


class _Live(Restorer):
    """A restore that ends with its comparison. It may be of a directory that no restore may have as its target, and of a damaged backup."""

    comparer = _Comparer

    def _resolve(self, selection: t.Sequence[bytes]) -> bytes:
        asked = self._sidecar["source_path"] if self._request.target is None else self._request.target
        path = parse(os.path.expanduser(asked))
        if path and not _may_be_directory(path):
            raise _no_directory(path)
        return resolve(asked, "", (), selection)

    def _check(self, manifest: Manifest) -> t.List[Skipped]:
        return []

    def _apart(self) -> t.List[Skipped]:
        """Without mounts where the backup has gone into them."""
        return [item for item in super()._apart() if item.reason != "mount" or self._sidecar["one_file_system"]]

    def differences(self) -> t.Tuple[str, t.Dict[str, t.Any]]:
        with self._target as target:
            if not target.exists:
                raise _no_directory(target.path)
            return show(target.path), self._look().comparison.changes.reversed().as_dict()


def changes(store: Store, catalog: Catalog, sidecars: t.Sequence[Listed], limit: int) -> t.Dict[str, t.Any]:
    """For each backup by id, what came since the one before it of the same workload. None for first ones, and for those that cannot be read or are of
    the future."""
    earlier = catalog.earlier()
    found: t.Dict[str, t.Any] = {}
    for sidecar in sidecars:
        older = earlier.get(sidecar["id"])
        found[sidecar["id"]] = None
        if trouble_of(sidecar) is not None or of_future(sidecar) or catalog.owner.foreign(sidecar) or older is None:
            continue
        with contextlib.suppress(Damaged, Unsupported):  # one of the two is, or has been deleted; that spoils no other
            seen = diff.Changes(limit)
            diff.diff(store.read, store.read, catalog.manifest(older).root, catalog.manifest(sidecar).root, seen)
            found[sidecar["id"]] = {"since": older["id"], **seen.as_dict()}
    return found
