# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Replace: a new tree beside the old one, and one system call that swaps them.

::

    .NAME.volt-<run>/         beside the target, private, locked while we live
        tree                  the new tree; after the exchange, the old one
        journal.json          written before the exchange: how to go on if we die right after it

Until the exchange nothing of the old tree is touched. After it, what the backup never held (exclusions, skipped paths) is carried over
from the old tree, and the rest of that is removed. A run that died in between is finished by the next restore to the same target:
the journal has the new root's inode, by which it tells which tree is which.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
import typing as t

from .._store import kernel
from .._store.errors import TargetError, UsageError, VoltError, target_failure
from .._tree import metadata
from .._tree.exclude import Exclusions
from .._tree.found import Skipped
from .._tree.leave import Leave
from .._tree.names import parse, show
from .._tree.remove import Remover
from .._tree.walk import Trail, join, listing
from .signals import held

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: What an exchange says where it cannot be had: overlayfs, old kernels, exotic file systems, a mount point.
CANNOT = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EBUSY, errno.EOPNOTSUPP)


class Impossible(Exception):
    """Trees cannot be exchanged here; nothing was touched."""


class Rules(t.NamedTuple):
    """What a backup leaves alone, in a form that survives us."""

    exclude: t.List[str]
    caches: bool
    skipped: t.List[Skipped]

    def leave(self) -> Leave:
        return Leave(Exclusions(self.exclude), self.caches, self.skipped)


class Stage:
    """The private directory beside a target, as a context. What is left of it at the end is removed, unless it must not be."""

    def __init__(self, target: bytes) -> None:
        self.target = target
        self._parent_path, self._name = os.path.split(target)
        self._prefix = _prefix(self._name)
        self.parent = self.directory = self.tree = -1
        self._own = b""

    def __enter__(self) -> Stage:
        try:
            self.parent = os.open(self._parent_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._own = self._prefix + f"{time.time_ns():x}".encode()
            os.mkdir(self._own, 0o700, dir_fd=self.parent)
            self.directory = os.open(self._own, _OPEN, dir_fd=self.parent)
            fcntl.flock(self.directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.mkdir(b"tree", 0o700, dir_fd=self.directory)
            self.tree = os.open(b"tree", _OPEN, dir_fd=self.directory)
        except OSError as error:
            self.__exit__()
            raise target_failure(f"making a directory beside {show(self.target)}", error) from None
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.directory >= 0:
            with contextlib.suppress(OSError, VoltError):
                _clear(self.parent, self.directory, self._own)
                kernel.syncfs(self.parent)  # else a power cut brings back names of the old tree, linked with files of the new
        for fd in (self.tree, self.directory, self.parent):
            if fd >= 0:
                os.close(fd)
        self.tree = self.directory = self.parent = -1

    # ---- putting the new tree in place

    def settle(self) -> None:
        """Make the new tree durable, for the target's old one to go."""
        try:
            kernel.syncfs(self.directory)
        except OSError as error:
            raise target_failure("making the new tree durable", error) from None

    def put(self) -> None:
        """Give the new tree the target's name, which nothing has."""
        try:
            os.rename(b"tree", self._name, src_dir_fd=self.directory, dst_dir_fd=self.parent)
            os.fsync(self.parent)
        except OSError as error:
            raise target_failure(f"putting the new tree at {show(self.target)}", error) from None

    def exchange(self, rules: Rules, keep: t.Optional[bytes]) -> t.Tuple[int, t.List[str]]:
        """Swap new and old, carry over what the backup never held, remove the old (or `keep` it under that name).

        :returns: how many things of the old tree were removed, and warnings. Impossible where trees cannot be swapped.
        """
        old = os.open(self._name, _OPEN, dir_fd=self.parent)
        try:
            self._write_journal(rules)
            with held():
                try:
                    kernel.exchange(b"tree", self._name, self.directory, self.parent)
                except OSError as error:
                    if error.errno in CANNOT:
                        raise Impossible from None
                    raise target_failure("exchanging the trees", error) from None
                os.fsync(self.parent)
                kept = Carrier(old, self.tree, rules.leave())()
                if kept:
                    keep = keep or self._name[:200] + b".volt-kept-" + self._own.rpartition(b"-")[2]
                if keep is not None:
                    os.rename(b"tree", keep, src_dir_fd=self.directory, dst_dir_fd=self.parent)
                os.fsync(self.directory)
                os.unlink(b"journal.json", dir_fd=self.directory)
            warnings = []
            if kept:
                place = show(os.path.join(self._parent_path, t.cast(bytes, keep)))
                warnings.append(f"{len(kept)} path(s) that the backup does not hold could not be carried over, first {kept[0]}; they are kept in {place}.")
            if keep is not None:
                return 0, warnings
            remover = Remover(None)
            try:
                remover.remove(self.directory, b"tree", b"")
            except OSError as error:
                warnings.append(f"The old tree could not be removed entirely: {os.strerror(error.errno or 0)}.")
            return remover.removed, warnings
        finally:
            os.close(old)

    def _write_journal(self, rules: Rules) -> None:
        value = {
            "inode": os.fstat(self.tree).st_ino,
            "exclude": rules.exclude,
            "caches": rules.caches,
            "skipped": [[show(item.path), item.reason, item.detail] for item in rules.skipped],
        }
        try:
            fd = os.open(b"journal.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self.directory)
            with open(fd, "w", encoding="utf-8") as file:
                json.dump(value, file)
                file.flush()
                os.fsync(fd)
            os.fsync(self.directory)
        except OSError as error:
            raise target_failure("writing the journal", error) from None


def _prefix(name: bytes) -> bytes:
    return b"." + name[:200] + b".volt-"


def sweep(target: bytes) -> t.List[str]:
    """Finish or remove what earlier restores to this target left when they died; warnings."""
    parent_path, last = os.path.split(target)
    warnings = []
    parent = os.open(parent_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in os.listdir(os.fsencode(parent_path)):
            if not name.startswith(_prefix(last)):
                continue
            try:
                directory = os.open(name, _OPEN, dir_fd=parent)
            except OSError:
                continue
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                place = show(os.path.join(parent_path, name))
                if _recover(parent, last, directory, name):
                    warnings.append(f"An earlier restore to {show(target)} had been cut short; it was cleaned up.")
                else:
                    warnings.append(f"{place} is an earlier restore's and holds a tree of unknown standing; look at it, then remove it.")
            except BlockingIOError:
                raise TargetError(f"Another restore to {show(target)} is under way; wait for it to end.") from None
            finally:
                os.close(directory)
    except OSError as error:
        raise target_failure(f"cleaning up beside {show(target)}", error) from None
    finally:
        os.close(parent)
    return warnings


def _recover(parent: int, target: bytes, directory: int, name: bytes) -> bool:
    """Finish one dead run; False where it cannot be told what its tree is.

    The journal has the new root's inode. A tree of another inode is the old one, and its target must be the new one.
    """
    journal = _read_journal(directory)
    if journal is not None:
        inode, rules = journal
        if _inode(directory, b"tree") not in (inode, None):
            if _inode(parent, target) != inode:
                return False
            old, new = os.open(b"tree", _OPEN, dir_fd=directory), os.open(target, _OPEN, dir_fd=parent)
            try:
                if Carrier(old, new, rules.leave())():
                    return False
            finally:
                os.close(old)
                os.close(new)
    _clear(parent, directory, name)
    return True


def _clear(parent: int, directory: int, name: bytes) -> None:
    """Remove a stage whose tree, if there is one, is nobody's."""
    remover = Remover(None)
    for part in (b"tree", b"journal.json", b"probe"):
        with contextlib.suppress(FileNotFoundError):
            remover.remove(directory, part, b"")
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=parent)


def _inode(directory: int, name: bytes) -> t.Optional[int]:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return None


def _read_journal(directory: int) -> t.Optional[t.Tuple[int, Rules]]:
    try:
        fd = os.open(b"journal.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    with open(fd, encoding="utf-8") as file:
        try:
            value = json.load(file)
            skipped = [Skipped(parse(path), why, detail) for path, why, detail in value["skipped"]]
            return int(value["inode"]), Rules(value["exclude"], value["caches"], skipped)
        except (ValueError, KeyError, TypeError, UsageError):
            return None  # cut short: it is durable before the exchange, so there was none


class Carrier:
    """Moves what the backup never held from the old tree to the same places in the new one."""

    def __init__(self, old: int, new: int, leave: Leave) -> None:
        self._old, self._new, self._leave = old, new, leave
        self._kept: t.List[str] = []

    def __call__(self) -> t.List[str]:
        """Paths that could not be moved."""
        if not self._leave:
            return []
        todo: t.List[t.Tuple[bytes, bool]] = [(b"", False)]
        with Trail(os.dup(self._old)) as trail:
            while todo:
                path, up = todo.pop()
                if up:
                    trail.leave()
                    continue
                if path:
                    try:
                        trail.enter(path.rpartition(b"/")[2])
                    except OSError:
                        continue
                    todo.append((path, True))
                items, names = listing(trail.fd)
                hollow = self._leave.covers_inside(path, trail.fd, set(names))
                for raw, (_name, info) in zip(names, items):
                    directory = stat.S_ISDIR(info.st_mode)
                    if hollow or self._leave.covers(path, raw, directory):
                        self._move(trail.fd, path, raw)
                    elif directory:
                        todo.append((join(path, raw), False))
        return self._kept

    def _move(self, directory: int, parent: bytes, name: bytes) -> None:
        try:
            fd = self._parent(parent)
            try:
                if _inode(fd, name) is not None:
                    if name != b"CACHEDIR.TAG":
                        self._kept.append(show(join(parent, name)))
                    return
                times = os.fstat(fd)
                os.rename(name, name, src_dir_fd=directory, dst_dir_fd=fd)
                os.utime(fd, ns=(times.st_atime_ns, times.st_mtime_ns))
            finally:
                os.close(fd)
        except OSError:
            self._kept.append(show(join(parent, name)))

    def _parent(self, path: bytes) -> int:
        """The directory of the new tree; made like the old one's where the backup has none."""
        new, old = os.dup(self._new), os.dup(self._old)
        try:
            for part in path.split(b"/") if path else ():
                old, before = os.open(part, _OPEN, dir_fd=old), old
                os.close(before)
                times = os.fstat(new)
                try:
                    os.mkdir(part, 0o700, dir_fd=new)
                    made = True
                    os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
                except FileExistsError:
                    made = False
                new, before = os.open(part, _OPEN, dir_fd=new), new
                os.close(before)
                if made:
                    info = os.fstat(old)
                    os.fchown(new, info.st_uid, info.st_gid)
                    for name, value in metadata.read_xattrs(old):
                        os.setxattr(new, name, value)
                    os.fchmod(new, stat.S_IMODE(info.st_mode))
                    os.utime(new, ns=(info.st_atime_ns, info.st_mtime_ns))
        except BaseException:
            os.close(new)
            raise
        finally:
            os.close(old)
        return new
