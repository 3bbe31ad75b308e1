# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The place to restore to: where it really is, whether it can be meant, and that one restore at a time has it."""

from __future__ import annotations

import fcntl
import os
import typing as t

from .._base import NO_LOCKS, TargetError, UsageError, open_directory, parse, reason, show


def resolve(asked: t.Optional[str], recorded: str, kept: t.Iterable[str], paths: t.Sequence[bytes]) -> bytes:
    """The real path of a target; UsageError or TargetError where it cannot be meant.

    :param asked: what a user names; None for where the backup is from, `recorded`. :param kept: store and backup directory.
    :param paths: what is to be restored, if not everything.
    """
    text = asked if asked is not None else recorded
    if not text:
        raise UsageError("The target is an empty path; name a directory, or leave it out for the recorded source.")
    path = os.path.abspath(parse(os.path.expanduser(text)))
    real = os.path.realpath(path)
    if os.path.lexists(real) and not os.path.isdir(real):
        raise TargetError(f"Target {show(path)} is not a directory; name a directory, or a path that does not exist yet.")
    if asked is None and real != path:
        # a backup is of a path without links: one who put one in since may have turned it to what the backup knows nothing of
        raise TargetError(
            f"Target {show(path)}, where the backup is from, leads through a symbolic link to {show(real)} now; take the link away,"
            " or say by target where to restore."
        )
    if not os.path.isdir(os.path.dirname(real)):
        raise TargetError(f"Target {show(path)} has no parent directory; make {show(os.path.dirname(real))} first.")
    for place in kept:
        _refuse_kept(path, real, os.path.realpath(os.fsencode(place)), paths)
    return real


def _refuse_kept(path: bytes, real: bytes, kept: bytes, paths: t.Sequence[bytes]) -> None:
    """Refuse a target from which the restore could reach what holds the backups."""
    if _within(real, kept):
        raise TargetError(f"Target {show(path)} lies in {show(kept)}, where backups are kept; choose another.")
    if _within(kept, real):
        below = os.path.relpath(kept, real)
        if not paths or any(_within(below, wanted) or _within(wanted, below) for wanted in paths):
            raise TargetError(f"Target {show(path)} holds {show(kept)}, where backups are kept; restore elsewhere, or only the paths you need.")


def _within(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top.rstrip(b"/") + b"/") or not top


def take(target: bytes) -> t.Optional[int]:
    """Lock a target against other restores for as long as the descriptor is open; None where it does not exist."""
    while True:
        try:
            fd = open_directory(target, follow=True)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TargetError(f"Target {show(target)} cannot be opened: {reason(error)}.") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise TargetError(f"Another restore to {show(target)} is under way; wait for it to end.") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(fd)
                raise TargetError(f"Target {show(target)} cannot be locked: {reason(error)}.") from None
        try:
            if os.path.samestat(os.fstat(fd), os.stat(target)):
                return fd
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(fd)
            raise TargetError(f"Target {show(target)} cannot be looked at: {reason(error)}.") from None
        os.close(fd)  # exchanged while we waited
