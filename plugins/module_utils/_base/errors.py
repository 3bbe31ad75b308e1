# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The exceptions that the engine raises, one family.

A message names the thing, what happened and what to do, in the words of a playbook's task (see `speech`).
`code` is for programs: a playbook can test it.
`details` are more fields of the failure, ready for JSON.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import types
import typing as t


class VoltError(Exception):
    """Anything that the engine refuses or fails to do."""

    code = "error"

    def __init__(self, message: str, **details: t.Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class UsageError(VoltError):
    """The request itself is wrong; nothing was touched."""

    code = "usage"


class NotFound(VoltError):
    """There is no such backup, or no backup of such a workload."""

    code = "not_found"


class SourceError(VoltError):
    """The tree to back up cannot be read."""

    code = "source"


class StoreError(VoltError):
    """The store or the backup directory cannot be used, or could not be written."""

    code = "store"


class NoStore(StoreError):
    """There is no store: none was ever created, or the known one is missing."""

    code = "no_store"


class StoreFull(StoreError):
    """No space (or quota) left in the store."""

    code = "store_full"


class LockTimeout(StoreError):
    """Another process held a lock for longer than the caller would wait."""

    code = "lock_timeout"


class LockLost(StoreError):
    """The file of a lock was removed or replaced while others relied on it."""

    code = "lock_lost"


class Damaged(VoltError):
    """Something in the store is missing or altered."""

    code = "damaged"


class Foreign(VoltError):
    """Something that is not ours to change: it belongs to another backup directory, another store or another program."""

    code = "foreign"


class Unsupported(VoltError):
    """Something that a newer version wrote: undamaged, but this version cannot read, check or remove it."""

    code = "unsupported"


class TargetError(VoltError):
    """The place to restore to is unsuitable, or could not be written."""

    code = "target"


class TargetFull(TargetError):
    """No space (or quota) left at the restore target."""

    code = "target_full"


class TargetDiffers(TargetError):
    """The target differs, and `force` is not set."""

    code = "target_differs"


class TargetInUse(TargetError):
    """Something runs on the target, or has mounts below it. `details` has `in_use`, a sentence for each."""

    code = "in_use"


class AttributesRefused(TargetError):
    """The target cannot store required attributes. `details` has `attributes_skipped`, `attributes` and `paths`."""

    code = "attributes"


class Incomplete(VoltError):
    """The backup was made and kept, but something could not be read."""

    code = "incomplete"


class Unstable(VoltError):
    """A backup was made and kept, but files of it may be inconsistent, which an option makes a failure. `details` has `backup`."""

    code = "unstable"


class Suspect(VoltError):
    """A backup was made and kept, and has lost far more than its workload's history shows. `details` has `backup`."""

    code = "suspect"


class Protected(VoltError):
    """A backup is protected, and nothing deletes it."""

    code = "protected"


class Interrupted(VoltError):
    """We were asked to stop; everything half-done was taken back."""

    code = "interrupted"


class Stalled(Interrupted):
    """A run made no progress for too long, and was ended. `details` has `path`, its last path, if that is known, and `seconds`."""

    code = "stalled"


class TimedOut(Interrupted):
    """A run took longer than it may, and was ended. `details` as of Stalled."""

    code = "timeout"


class RemoteError(VoltError):
    """A remote cannot be used, or did not do what it was asked. The local backups are as they were."""

    code = "remote"


class NoRemote(RemoteError):
    """There is no remote here: no bucket, no directory, or nothing in it that is one."""

    code = "no_remote"


class RemoteRefused(RemoteError):
    """The remote does not let us: credentials are wrong, expired, or may not do this."""

    code = "remote_refused"


class RemoteUnreachable(RemoteError):
    """The remote did not answer, or not with what it was asked for, after several attempts."""

    code = "remote_unreachable"


class RemoteFull(RemoteError):
    """No space (or quota) left on the remote."""

    code = "remote_full"


def newer(thing: str, **details: t.Any) -> Unsupported:
    """The exception for data of a newer version. :param thing: what it wrote, at the start of a sentence."""
    return Unsupported(f"{thing} was written by a newer version; update volt.backup on this host.", **details)


def check_format(number: t.Any, known: int, thing: str) -> None:
    """Unsupported for a format that only a newer version knows, ValueError for what is none. :param thing: as of `newer`."""
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(number)
    if number > known:
        raise newer(f"{thing} (format {number})")


_FULL = (errno.ENOSPC, errno.EDQUOT)


class tolerated(contextlib.suppress):
    """Pass over errors of these kinds, but not over a signal that asks to stop: once that is passed over, nothing stops the run any more."""

    def __exit__(self, kind: t.Optional[t.Type[BaseException]], error: t.Optional[BaseException], trace: t.Optional[types.TracebackType]) -> bool:
        return not isinstance(error, Interrupted) and bool(super().__exit__(kind, error, trace))


def reason(error: OSError) -> str:
    """The system's words for an error, in lower case and without Python's decoration."""
    if error.errno == errno.EOVERFLOW and sys.maxsize < 1 << 32:  # stat(2)
        return "a time after 2038, or another number, is too large for programs of this 32-bit host"
    text = os.strerror(error.errno) if error.errno else str(error)
    return text[:1].lower() + text[1:]


def unexpected(error: OSError, place: str = "") -> VoltError:
    """The exception for a system call that failed and is handled nowhere else. :param place: the file in the error, to be shown."""
    return VoltError(f"An unexpected error occurred{f' at {place}' if place else ''}: {reason(error)}; fix that, then run again.")


def store_failure(action: str, error: OSError) -> StoreError:
    """What to raise when a write-side system call on the store failed."""
    if error.errno in _FULL:
        return StoreFull(
            f"The store's file system is full ({action}): {reason(error)}; free space, or delete backups and run volt_cas_gc with grace: 0s, then run again."
        )
    if error.errno == errno.EROFS:
        return StoreError(f"The store is on a read-only file system ({action}); remount it read-write, or choose another.")
    return StoreError(f"The store could not be written ({action}): {reason(error)}; fix that, then run again.")


@contextlib.contextmanager
def store_errors(action: str) -> t.Iterator[None]:
    """An error of the system in the context is a failure to write to the store."""
    try:
        yield
    except OSError as error:
        raise store_failure(action, error) from None


def target_failure(action: str, error: OSError) -> TargetError:
    """What to raise when a write-side system call on a restore target failed."""
    if error.errno in _FULL:
        return TargetFull(f"The target's file system is full ({action}): {reason(error)}; free space, then restore again.")
    if error.errno == errno.EROFS:
        return TargetError(f"The target is on a read-only file system ({action}); remount it read-write, or choose another.")
    return TargetError(f"The target could not be written ({action}): {reason(error)}; fix that, then run again.")


@contextlib.contextmanager
def target_errors(action: str) -> t.Iterator[None]:
    """The same of a restore target."""
    try:
        yield
    except OSError as error:
        raise target_failure(action, error) from None
