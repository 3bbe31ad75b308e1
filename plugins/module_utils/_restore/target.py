# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The place to restore to: where it really is, whether it can be meant, and that one restore at a time has it.

A path is believed once. `resolve` follows it, `Target` opens the directory above the target without following anything, and from then on all goes
by descriptors. A user may exchange a directory of the path for a symbolic link meanwhile; the restore does not follow it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import stat
import time
import typing as t

from .._base import (
    NO_LOCKS,
    LockTimeout,
    StoreError,
    TargetError,
    UsageError,
    files,
    locked,
    open_directory,
    open_file,
    open_real,
    parse,
    reason,
    show,
    target_errors,
    target_failure,
)
from .._fs import mounts

#: As many symbolic links may follow each other as the kernel allows (path_resolution(7)).
_LINKS_MOST = 40
#: Seconds that a restore waits for another one that is about to end.
_PATIENCE = 1.0


def resolve(asked: t.Optional[str], recorded: str, kept: t.Iterable[str], paths: t.Sequence[bytes]) -> bytes:
    """The real path of a target; UsageError or TargetError where it cannot be meant.

    :param asked: what a user names; None for where the backup is from, `recorded`. :param kept: store and backup directory.
    :param paths: what is to be restored, if not everything.
    """
    text = asked if asked is not None else recorded
    if not text:
        raise UsageError("The target is an empty path; set a directory, or omit it to restore to the recorded source.")
    path = os.path.abspath(parse(os.path.expanduser(text)))
    real = _real(path)
    if os.path.lexists(real) and not os.path.isdir(real):
        raise TargetError(f"Target {show(path)} is not a directory; choose a directory, or a path that does not exist yet.")
    if asked is None and real != path:
        # a backup is of a path without links: one who put one in since may have turned it to what the backup knows nothing of
        raise TargetError(
            f"Target {show(path)}, the source of the backup, is now a symbolic link to {show(real)}; remove the link, or set the target to restore to."
        )
    if not os.path.isdir(os.path.dirname(real)):
        raise TargetError(f"Target {show(path)} has no parent directory; create {show(os.path.dirname(real))} first.")
    for place in kept:
        _refuse_kept(path, real, os.path.realpath(os.fsencode(place)), paths)
    return real


def _real(path: bytes) -> bytes:
    """An absolute path with its symbolic links followed, if they are ours or root's: another user's may lead anywhere at any time."""
    todo, at, links = list(reversed(path.split(b"/"))), b"/", 0
    while todo:
        name = todo.pop()
        if name in (b"", b".", b".."):
            at = os.path.dirname(at) if name == b".." else at
            continue
        here = os.path.join(at, name)
        try:
            info = os.lstat(here)
        except OSError:
            info = None  # not there, or not for us to see: the callers find out
        if info is None or not stat.S_ISLNK(info.st_mode):
            at = here
            continue
        links += 1
        if info.st_uid not in (0, os.geteuid()):
            raise TargetError(
                f"Target {show(path)} contains {show(here)}, a symbolic link of another user (uid {info.st_uid}); use the real path."
            )
        if links > _LINKS_MOST:
            raise TargetError(f"Target {show(path)} contains too many symbolic links; use the real path.")
        leads = os.readlink(here)
        at = b"/" if leads.startswith(b"/") else at
        todo += reversed(leads.split(b"/"))
    return at


def _refuse_kept(path: bytes, real: bytes, kept: bytes, paths: t.Sequence[bytes]) -> None:
    """Refuse a target from which the restore could reach what holds the backups."""
    if mounts.is_within(real, kept):
        raise TargetError(f"Target {show(path)} is inside {show(kept)}, where backups are kept; choose another.")
    if mounts.is_within(kept, real):
        below = os.path.relpath(kept, real)
        if not paths or any(not wanted or mounts.is_within(below, wanted) or mounts.is_within(wanted, below) for wanted in paths):
            raise TargetError(f"Target {show(path)} contains {show(kept)}, where backups are kept; choose another target, or select only the paths you need.")


class Target:
    """A target while it is restored to. Use as a context: descriptors and locks last until its end.

    :ivar parent: a descriptor of the directory above; `name`: the target's in it. The root directory is its own parent, without a name.
    :ivar fd: a descriptor of the target, or -1 where there is none yet.
    :ivar mounted: what was mounted below it at the first look, and may be entered: paths from the target, and ids of the mounts.
    """

    def __init__(self, path: bytes) -> None:
        """:param path: from `resolve`."""
        self.path, self.name = path, os.path.basename(path)
        self.parent = self.fd = -1
        self.mounted: t.Dict[bytes, int] = {}
        self._locks: t.List[t.Tuple[int, t.Optional[str]]] = []

    def __enter__(self) -> Target:
        above = os.path.dirname(self.path)
        try:
            try:
                self.parent = open_real(above)
            except PermissionError:
                self.parent = open_real(above, flags=os.O_PATH)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT):
                raise TargetError(
                    f"{show(above)}, the parent of target {show(self.path)}, was replaced during the restore; inspect it, then restore again."
                ) from None
            raise TargetError(f"{show(above)}, the parent of target {show(self.path)}, cannot be opened: {reason(error)}; fix that, then run again.") from None
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        for fd, path in self._locks:
            if path is not None:
                files.quietly(os.unlink, path)
            os.close(fd)
        self._locks = []
        for fd in (self.fd, self.parent):
            if fd >= 0:
                os.close(fd)
        self.fd = self.parent = -1

    @property
    def exists(self) -> bool:
        return self.fd >= 0

    @property
    def place(self) -> int:
        """A descriptor of a directory on the target's file system: itself, or the one above where it does not exist yet."""
        return self.fd if self.exists else self.parent

    @property
    def fixed(self) -> t.Optional[str]:
        """Why the directory itself cannot be exchanged for another, as it has to stay what it is; None where it can."""
        if self.path == b"/" or self.exists and files.mount_id(self.fd) != files.mount_id(self.parent):
            return "a mount point"
        return "a subvolume" if self.exists and mounts.is_subvolume(self.fd) else None

    def _open(self) -> None:
        try:
            self.fd = open_directory(self.name or b".", self.parent)
            self.mounted = mounts.below(self.path)
        except FileNotFoundError:
            self.fd = -1
        except OSError as error:
            raise TargetError(f"Target {show(self.path)} cannot be opened: {reason(error)}; fix that, then run again.") from None

    def make(self) -> None:
        """Make the directory, which is not there yet."""
        with target_errors(f"making {show(self.path)}"):
            os.mkdir(self.name, 0o700, dir_fd=self.parent)
            self.fd = open_directory(self.name, self.parent)
            if os.fstat(self.fd).st_uid != os.geteuid() or os.listdir(self.fd):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))  # another user put it in the place of ours

    def check(self) -> None:
        """TargetError where the name leads to another directory by now than the one that is held."""
        with contextlib.suppress(OSError):
            if not self.name or os.path.samestat(os.stat(self.name, dir_fd=self.parent, follow_symlinks=False), os.fstat(self.fd)):
                return
        raise TargetError(f"Target {show(self.path)} was moved or replaced during the restore; inspect it, then restore again.")

    def look_again(self) -> None:
        """Open the target anew, after something was put in its place."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self._open()

    def appeared(self) -> t.List[bytes]:
        """What was mounted below the target after the first look."""
        return [path for path, number in mounts.below(self.path).items() if self.mounted.get(path) != number]

    # ---- one restore at a time

    def lock(self) -> None:
        """Keep other restores out until the end; TargetError where one is under way.

        The locks are files in a directory that is ours alone, named by device and inode: a lock on the target itself could be taken, and kept,
        by each user who may list it.
        """
        info = os.fstat(self.parent)
        names = [f"{info.st_dev:x}-{info.st_ino:x}-{hashlib.sha256(self.name).hexdigest()[:32]}"]
        if self.exists:
            here = os.fstat(self.fd)
            names.append(f"{here.st_dev:x}-{here.st_ino:x}")  # by whatever name it is reached
        directory = _lock_directory()
        if directory is None:
            if self.exists:
                self._lock_itself()
            return
        for name in names:
            path = os.path.join(directory, name)
            try:
                fd = locked(functools.partial(open_file, path, os.O_RDWR | os.O_CREAT), path, fcntl.LOCK_EX, time.monotonic() + _PATIENCE, "the target")
            except LockTimeout:
                raise self._taken() from None
            except StoreError as error:
                raise TargetError(f"Target {show(self.path)} cannot be locked: {error.message}") from None
            except OSError as error:
                raise target_failure(f"opening its lock {path}", error) from None
            self._locks.append((t.cast(int, fd), path))

    def _taken(self) -> TargetError:
        return TargetError(f"Another restore to {show(self.path)} is running; wait for it to end.")

    def _lock_itself(self) -> None:
        fd = os.dup(self.fd)
        self._locks.append((fd, None))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._taken() from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise TargetError(f"Target {show(self.path)} cannot be locked: {reason(error)}; fix that, then run again.") from None


def _lock_directory() -> t.Optional[str]:
    """A directory for locks that only we may enter, made where it is missing; None where there is no place for one (a container, a bare chroot)."""
    places = [os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{os.geteuid()}"] if os.geteuid() else ["/run"]
    for place in filter(os.path.isabs, places):
        directory = os.path.join(place, "volt-backup")
        with contextlib.suppress(OSError):
            if os.stat(place).st_uid != os.geteuid():
                continue
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o700)
            info = os.lstat(directory)
            if stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o077 and os.access(directory, os.W_OK):
                return directory
    return None
