# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Copies of SQLite databases, by SQLite's own backup interface, while others write to them.

The owner of the database may prepare its files, so root must not open them: the copy is made by a process of the owner's, in a private directory. SQLite
then waits for locks, and rolls back what a crash left, as the application itself would. Source: the documentation of SQLite, "Online Backup API".
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import shutil
import signal
import stat
import tempfile
import time
import typing as t
import urllib.parse

from .._base import SourceError, brief, forked, held, is_regular, kernel, open_directory, open_file, reason, show
from .._capture.stream import Read

_PREFIX = "volt-dump-"
_PLACE = "/var/tmp"
#: Seconds that SQLite waits for a lock, and bytes of what the process has to say.
_PATIENCE, _SAID = 300, 4096
#: Seconds that a copy may take.
_LONGEST = 6 * 3600


@contextlib.contextmanager
def copied(path: bytes) -> t.Iterator[Read]:
    """A copy of a database, to be read."""
    what = f"Dump of SQLite database {show(path)}"
    try:
        path = _real(what, path)
        info = os.lstat(path)
        if not stat.S_ISREG(info.st_mode):
            raise SourceError(f"{what}: it is not a regular file; set `path` to the file of the database.")
        _refuse_exposed(what, path, info)
        _sweep()
    except OSError as error:
        raise SourceError(f"{what}: it cannot be copied: {reason(error)}; correct that, then run again.") from None
    try:
        place = tempfile.mkdtemp(prefix=_PREFIX, dir=_PLACE)
    except OSError as error:
        raise SourceError(f"{what}: its copy cannot be made in {_PLACE}: {reason(error)}; correct that, then run again.") from None
    lock = open_directory(place)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if os.geteuid() == 0:
            os.fchown(lock, info.st_uid, info.st_gid)
        copy = os.path.join(place, "copy")
        failed = _by_owner(info, path, copy)
        if failed:
            raise SourceError(f"{what}: it cannot be copied: {failed}; correct that, then run again.")
        with open(open_file(copy), "rb") as file:
            if not is_regular(file.fileno()) or os.fstat(file.fileno()).st_uid != info.st_uid:
                raise SourceError(f"{what}: its owner replaced the copy; find out why, then run again.")
            yield file.read
    finally:
        with contextlib.suppress(OSError):
            os.fchown(lock, os.geteuid(), os.getegid())  # in a unit, root may not write to directories of others
        os.close(lock)
        shutil.rmtree(place, ignore_errors=True)


def _real(what: str, path: bytes) -> bytes:
    """A path with its symbolic links followed, if they are ours or root's: another user's may lead to a database that is not for this backup."""
    todo, at = list(reversed(os.path.abspath(path).split(b"/"))), b"/"
    for _step in range(1000):
        if not todo:
            return at
        name = todo.pop()
        if name in (b"", b"."):
            continue
        here = os.path.dirname(at) if name == b".." else os.path.join(at, name)
        info = os.lstat(here)
        if not stat.S_ISLNK(info.st_mode):
            at = here
            continue
        if info.st_uid not in (0, os.geteuid()):
            raise SourceError(f"{what}: {show(here)} is a symbolic link of another user; set `path` to the file that is meant.")
        leads = os.readlink(here)
        at = b"/" if leads.startswith(b"/") else at
        todo += reversed(leads.split(b"/"))
    raise SourceError(f"{what}: its path has too many symbolic links; set `path` to the file that is meant.")


def _refuse_exposed(what: str, path: bytes, info: os.stat_result) -> None:
    """SourceError where others than the owner and root can replace the file on its way to SQLite: it obeys a journal that it finds beside the file."""
    above = os.path.dirname(path)
    while True:
        found = os.stat(above)
        group = stat.S_IWGRP if found.st_gid not in (0, info.st_gid) else 0
        if found.st_uid not in (0, info.st_uid) or found.st_mode & (stat.S_IWOTH | group) and not found.st_mode & stat.S_ISVTX:
            raise SourceError(f"{what}: other users than its owner can write to {show(above)}, above it; give both to one user.")
        if above == b"/":
            return
        above = os.path.dirname(above)


def _by_owner(owner: os.stat_result, path: bytes, copy: str) -> str:
    """Copy a database in a process of its owner's. Why that failed; empty if it did not. Only text comes back: the owner's process is not trusted."""
    try:
        import sqlite3  # noqa: F401  before the process changes its user, who need not be able to read modules
    except ImportError:
        return "this Python has no module sqlite3; install it"
    reader, writer = os.pipe()
    us, child = os.getpid(), 0
    try:
        with held():  # a signal that comes now must end the process as well
            child = os.fork()
            if not child:
                forked()
                _child(us, writer, owner, path, copy)
            os.close(writer)
        said = b""
        while len(said) < _SAID:
            more = os.read(reader, _SAID)
            if not more:
                break
            said += more
        status = os.waitpid(child, 0)[1]
        child = 0
        return brief(said.decode("utf-8", "replace"), 300) or (f"the process ended with status {status}" if status else "")
    finally:
        if os.getpid() != us:
            os._exit(1)  # whatever happened there must not happen twice
        os.close(reader)
        if child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _child(parent: int, writer: int, owner: os.stat_result, path: bytes, copy: str) -> None:
    gc.freeze()  # a file that our parent no longer needs must not be closed by its number, which is another's by then
    os.closerange(0, writer)  # no lock and no pipe of ours
    os.closerange(writer + 1, os.sysconf("SC_OPEN_MAX"))
    status = 1
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(owner.st_gid)
            os.setuid(owner.st_uid)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):  # SQLite waits in C, where no handler of Python's runs
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(_LONGEST)
        kernel.end_with_parent(parent)  # only now: a change of user takes it back
        os.umask(0o077)
        _copy(path, copy)
        status = 0
    except Exception as error:
        os.write(writer, str(error).encode("utf-8", "replace")[:_SAID])
    finally:
        os._exit(status)


def _copy(path: bytes, copy: str) -> None:
    """All at once: a copy in steps starts again whenever another process writes."""
    import sqlite3

    source = _opened(sqlite3.connect, path, "rw")
    try:
        _begin(source)
    except sqlite3.OperationalError as error:
        if "lock" in str(error):
            raise
        source = _opened(sqlite3.connect, path, "ro")  # on a read-only file system, it can only be read
        _begin(source)
    with contextlib.closing(source), contextlib.closing(_opened(sqlite3.connect, os.fsencode(copy), "rwc")) as target:
        source.backup(target)


def _begin(source: t.Any) -> None:
    """Begin to read. The backup interface itself would wait for a lock for ever."""
    source.isolation_level = None
    source.execute("BEGIN")
    source.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _opened(connect: t.Callable[..., t.Any], path: bytes, mode: str) -> t.Any:
    return connect(f"file:{urllib.parse.quote(path)}?mode={mode}", uri=True, timeout=_PATIENCE)


def _sweep() -> None:
    """Remove what runs left that were killed; none that another run has just made, and not locked yet."""
    for name in os.listdir(_PLACE):
        if not name.startswith(_PREFIX):
            continue
        path = os.path.join(_PLACE, name)
        with contextlib.suppress(OSError):
            fd = open_directory(path)
            try:
                if time.time() - os.fstat(fd).st_mtime < 3600:
                    continue
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.fchown(fd, os.geteuid(), os.getegid())
                shutil.rmtree(path)
            finally:
                os.close(fd)
