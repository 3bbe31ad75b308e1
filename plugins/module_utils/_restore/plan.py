# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""How to restore: what was asked, and which strategy does it so that nothing is lost."""

from __future__ import annotations

import os
import typing as t

from .._base import AttributesRefused, TargetError, TargetInUse, UsageError, show
from .._format.diff import REMOVED
from .compare import Comparison
from .target import Target

STRATEGIES = ("auto", "replace", "in_place")
LINKS = ("auto", "reflink", "hardlink", "copy")
ATTRIBUTES = ("best_effort", "strict")
#: Space that a replacing restore leaves free beyond what it needs: directories, inodes, the file system's own books.
_SPARE = 16 << 20


class RestoreRequest(t.NamedTuple):
    """What is asked of `restore`; names as in the contract. `target` None means the recorded source."""

    target: t.Optional[str] = None
    force: bool = False
    strategy: str = "auto"
    delete: bool = False
    paths: t.Sequence[str] = ()
    link: str = "auto"
    verify: bool = True
    numeric_owner: bool = False
    keep_previous: bool = False
    salvage: bool = False
    attributes: str = "best_effort"
    allow_in_use: bool = False
    diff_limit: int = 1000


def check(request: RestoreRequest) -> None:
    """UsageError for options that contradict each other."""
    for value, allowed, name in (
        (request.strategy, STRATEGIES, "Strategy"), (request.link, LINKS, "Link type"), (request.attributes, ATTRIBUTES, "Attribute mode"),
    ):  # fmt: skip
        if value not in allowed:
            raise UsageError(f"{name} {value!r} is unknown; use one of {', '.join(allowed)}.")
    if request.paths and request.strategy == "replace":
        raise UsageError("Selected paths can only be restored in place; omit `strategy: replace`.")
    if request.salvage and request.strategy == "replace":
        raise UsageError("`salvage` can only restore in place, so that no other file is removed; omit `strategy: replace`.")
    if request.keep_previous and (request.paths or request.salvage or request.strategy == "in_place"):
        raise UsageError("`keep_previous` only applies to strategy replace; omit it to restore in place.")
    if request.delete and request.strategy == "replace":
        raise UsageError("`delete` only applies to strategy in_place; omit it, because replace removes all but excluded paths anyway.")


def removes(request: RestoreRequest) -> bool:
    """Whether what the backup lacks is to go."""
    return request.delete or request.strategy == "replace"


def choose(request: RestoreRequest, target: Target, comparison: Comparison, needed: int, warn: t.Callable[[str], None]) -> str:
    """The strategy, by the contract's rules: replace where nothing can be lost by it, else in place. TargetError where neither can be.

    :param needed: how many bytes will be written.
    """
    below = [*target.mounted, *comparison.subvolumes]
    if request.strategy == "replace" and below:
        raise TargetError(
            f"Something is mounted below target {show(target.path)} (at {show(below[0])}); unmount it, or use `strategy: in_place`.",
            mounts=[show(path) for path in below],
        )
    partly = bool(request.paths) or request.salvage or request.strategy == "in_place"
    if not target.exists:
        return "in_place" if partly else "replace"
    strategy = "replace"
    fixed = target.fixed
    if partly:
        strategy = "in_place"
    elif fixed is not None:
        needs_replace(request, f"the target is {fixed}")
        if request.strategy == "replace":
            warn(f"Target {show(target.path)} is {fixed}, so it was restored in place.")
        strategy = "in_place"
    elif below:
        needs_replace(request, f"something is mounted below the target (at {show(below[0])})")
        strategy = "in_place"
    elif needed + _SPARE > _free(target.parent):
        needs_replace(request, "there is not enough space for a second copy")
        warn(f"There is not enough space for a second copy beside {show(target.path)}, so it was restored in place.")
        strategy = "in_place"
    elif comparison.changes.counts[REMOVED] and not (removes(request) or request.keep_previous):
        strategy = "in_place"
    if strategy == "in_place":
        refuse_in_place(request, comparison)
    return strategy


def refuse_in_use(request: RestoreRequest, target: Target, users: t.List[str]) -> None:
    """TargetInUse where a restore would take away what something stands on."""
    if users and not request.allow_in_use:
        raise TargetInUse(
            f"Target {show(target.path)} is in use: {'; '.join(users[:3])}. Stop what uses it, or use `allow_in_use: true`.", in_use=users
        )


def refuse_lacks(request: RestoreRequest, target: Target, comparison: Comparison) -> None:
    """AttributesRefused where the target cannot hold all, and that was demanded."""
    lacks = comparison.lacks
    if request.attributes == "strict" and lacks.count:
        raise AttributesRefused(
            f"Target {show(target.path)} cannot hold {lacks} of {lacks.count} path(s), first {lacks.paths[0]}; restore to another file system, or use"
            " `attributes: best_effort`.",
            attributes_skipped=lacks.count,
            attributes=lacks.names,
            paths=lacks.paths,
        )


def needs_replace(request: RestoreRequest, why: str) -> None:
    """Refuse where the previous tree was to be kept, and there will be none."""
    if request.keep_previous:
        raise TargetError(f"`keep_previous` needs strategy replace, but {why}; omit it to restore in place.")


def refuse_in_place(request: RestoreRequest, comparison: Comparison) -> None:
    """Refuse, before anything is written, what would stop halfway or lose something."""
    for paths, why in (
        (comparison.guarded, "is a mount point or an excluded path, but the backup has another type of file there; unmount it or move it away"),
        (comparison.read_only, "differs but is on a read-only file system; remount it read-write, or do not restore that path"),
        (comparison.immutable, "differs but is immutable; remove the flag (chattr -i, chattr -a), then restore again"),
        ([] if removes(request) else comparison.blocked, "is a directory with files, but not in the backup; move it away, or use `delete: true`"),
    ):
        if paths:
            raise TargetError(f"{show(paths[0]) or 'The top'} in the target {why}.", paths=[show(path) for path in paths])


def _free(fd: int) -> int:
    """Bytes that we may still write to the file system of an open file."""
    info = os.statvfs(fd)
    return info.f_bavail * info.f_frsize
