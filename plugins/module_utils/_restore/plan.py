# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""How to restore: what was asked, and which strategy does it so that nothing is lost."""

from __future__ import annotations

import os
import typing as t

from .._base import TargetError, UsageError, show
from .._format.diff import REMOVED
from .._fs import mounts
from .compare import Comparison

STRATEGIES = ("auto", "replace", "in_place")
LINKS = ("auto", "reflink", "hardlink", "copy")
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
    verify: bool = False
    numeric_owner: bool = False
    keep_previous: bool = False
    diff_limit: int = 1000


def check(request: RestoreRequest) -> None:
    """UsageError for options that contradict each other."""
    for value, allowed, name in ((request.strategy, STRATEGIES, "Strategy"), (request.link, LINKS, "Kind of link")):
        if value not in allowed:
            raise UsageError(f"{name} {value!r} is not known; use one of {', '.join(allowed)}.")
    if request.paths and request.strategy == "replace":
        raise UsageError("Some paths of a backup can only be restored in place; leave out strategy: replace.")
    if request.keep_previous and (request.paths or request.strategy == "in_place"):
        raise UsageError("keep_previous keeps the tree that replace puts aside; in place nothing is put aside, so leave it out.")
    if request.delete and request.strategy == "replace":
        raise UsageError("delete belongs to in_place; replace leaves nothing of the old tree but what the backup excluded.")


def removes(request: RestoreRequest) -> bool:
    """Whether what the backup lacks is to go."""
    return request.delete or request.strategy == "replace"


def choose(
    request: RestoreRequest, target: bytes, comparison: Comparison, exists: bool, below: t.List[bytes], warn: t.Callable[[str], None]
) -> str:
    """The strategy, by the contract's rules: replace where nothing can be lost by it, else in place. TargetError where neither can be.

    :param below: what is mounted below the target, relative to it.
    """
    if request.strategy == "replace" and below:
        raise TargetError(
            f"Something is mounted below target {show(target)} (at {show(below[0])}); unmount it, or use strategy: in_place.",
            mounts=[show(path) for path in below],
        )
    if not exists:
        return "in_place" if request.paths or request.strategy == "in_place" else "replace"
    strategy = "replace"
    if request.paths or request.strategy == "in_place":
        strategy = "in_place"
    elif mounts.is_mount_point(target) or target == b"/":
        needs_replace(request, "the target is a mount point")
        if request.strategy == "replace":
            warn(f"Target {show(target)} is a mount point, so it was restored in place.")
        strategy = "in_place"
    elif below:
        needs_replace(request, f"something is mounted below the target (at {show(below[0])})")
        strategy = "in_place"
    elif comparison.size + _SPARE > _free(target):
        needs_replace(request, "there is no space for two trees")
        warn(f"There is no space for two trees at {show(target)}, so it was restored in place.")
        strategy = "in_place"
    elif comparison.changes.counts[REMOVED] and not (removes(request) or request.keep_previous):
        strategy = "in_place"
    if strategy == "in_place":
        refuse_in_place(request, comparison)
    return strategy


def needs_replace(request: RestoreRequest, why: str) -> None:
    """Refuse where the previous tree was to be kept, and there will be none."""
    if request.keep_previous:
        raise TargetError(f"keep_previous needs the target to be replaced as a whole, but {why}; leave it out to restore in place.")


def refuse_in_place(request: RestoreRequest, comparison: Comparison) -> None:
    """Refuse, before anything is written, what would stop halfway or lose something."""
    if comparison.guarded:
        raise TargetError(
            f"{show(comparison.guarded[0])} in the target is a mount point or what the backup left alone, and the backup has something else there;"
            " move or unmount it.",
            paths=[show(path) for path in comparison.guarded],
        )
    if comparison.blocked and not removes(request):
        raise TargetError(
            f"{show(comparison.blocked[0])} in the target is a directory with content, and the backup has something else there;"
            " move it away, or say delete: true.",
            paths=[show(path) for path in comparison.blocked],
        )


def _free(path: bytes) -> int:
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize
