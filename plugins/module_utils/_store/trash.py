# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The trash: where a collection moves files before it knows that no run relies on them, and from where they are deleted after the grace period.

::

    trash/<time in ns>-<process>[.open]/objects/, packs/      what one collection moved; open until it knows that all of it is dead
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
import typing as t

from .._base import Closing, LockLost, StoreFull, VoltError, among_hosts, files, is_at, locked, nfs, store_errors, store_failure
from . import codec, layout
from .store import Store


class FileCount(t.NamedTuple):
    """A number of files, and their bytes as stored."""

    files: int = 0
    bytes: int = 0

    def plus(self, size: int, count: int = 1) -> FileCount:
        return FileCount(self.files + count, self.bytes + size)


class Dead(t.NamedTuple):
    """A file of the store that held nothing live when it was listed. `name` is the digest that it is named by; sizes are in bytes."""

    kind: str
    name: bytes
    suffix: str
    size: int

    @staticmethod
    def of(file: str, size: int) -> t.Optional[Dead]:
        """By the name of a file; None where it is neither a pack nor an object."""
        for kind, pattern in (("objects", layout.OBJECT_NAME), ("packs", layout.PACK_NAME)):
            match = pattern.match(file)
            if match:
                return Dead(kind, bytes.fromhex(match[1]), match[2], size)
        return None

    @property
    def file(self) -> str:
        """Its name in its shard."""
        return f"{self.name.hex()}{'.pack' if self.kind == 'packs' else ''}{self.suffix}"


class DeadFiles:
    """A list of dead files, taken from its end; a million of them take 42 MB.

    :ivar tally: of all that was added.
    """

    _RECORD = struct.Struct("=B32sBQ")
    _KINDS = ("objects", "packs")

    def __init__(self, found: t.Iterable[Dead] = ()) -> None:
        self._records = bytearray()
        size = 0
        for file in found:
            self._records += self._RECORD.pack(self._KINDS.index(file.kind), file.name, codec.SUFFIXES.index(file.suffix), file.size)
            size += file.size
        self.tally = FileCount(len(self._records) // self._RECORD.size, size)

    def __bool__(self) -> bool:
        return bool(self._records)

    def pop(self) -> Dead:
        last = len(self._records) - self._RECORD.size
        kind, name, suffix, size = self._RECORD.unpack_from(self._records, last)
        del self._records[last:]
        return Dead(self._KINDS[kind], name, codec.SUFFIXES[suffix], size)


@contextlib.contextmanager
def one_at_a_time(store: Store) -> t.Iterator[t.Callable[[], None]]:
    """Keep other collections and repairs out: both take files away, and each may count on what the other takes.

    It yields a check. The check raises LockLost if the directory that serves as the lock was removed.
    """
    trash, what = os.path.join(store.path, "trash"), f"the trash of store {store.path}"
    store.upgrade()
    deadline = time.monotonic() + store.lock_timeout
    fd = t.cast(int, locked(lambda: _open_trash(trash), trash, fcntl.LOCK_EX, deadline, what))

    def check() -> None:
        if not is_at(fd, trash):
            raise LockLost(f"Store {store.path}: the directory trash was removed or replaced during this run; run again.", store=store.path)
        check_lock()

    with Closing(fd), among_hosts(trash, fcntl.LOCK_EX, deadline, what) as check_lock:
        for kind in ("objects", "packs") if nfs.is_nfs(trash) else ():  # what an earlier one on another host moved
            for shard in files.names_in(store.full_path(kind)):
                nfs.look_anew(store.full_path(f"{kind}/{shard}"))
        yield check


def _open_trash(path: str) -> int:
    with store_errors("opening its trash"):
        os.makedirs(path, mode=0o700, exist_ok=True)
        return files.open_directory(path)


class _Last:
    """Keeps the directory that was last asked for open. :param top: where they are. :param opened: closes it at the end. :param make: directories are made."""

    def __init__(self, top: str, opened: contextlib.ExitStack, make: bool = False) -> None:
        self._top, self._make = top, make
        self._name, self._fd = "", -1
        opened.callback(self._close)

    def __call__(self, name: str) -> int:
        """A descriptor of a directory; OSError."""
        if name != self._name:
            self._close()
            path = os.path.join(self._top, name)
            if self._make:
                os.makedirs(path, mode=0o700, exist_ok=True)
            self._fd, self._name = files.open_directory(path), name
        return self._fd

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._name, self._fd = "", -1


class Trash:
    """The store's trash: a directory for each collection, named by the time of it.

    :ivar freed: what was deleted for good. :ivar moved: what was moved here.
    """

    def __init__(self, store: Store, grace: float) -> None:
        self._store, self._grace = store, grace
        self._path = os.path.join(store.path, "trash")
        self._bin = os.path.join(self._path, f"{time.time_ns():020d}-{os.getpid()}{layout.OPEN}")
        self.freed, self.moved = FileCount(), FileCount()

    def found(self) -> t.Dict[Dead, str]:
        """The packs and objects that lie here, and where."""
        there = {}
        for name, path in layout.trash_files(self._store.path).items():
            with contextlib.suppress(FileNotFoundError):  # a dry run beside a true one
                file = Dead.of(name, os.lstat(path).st_size)
                if file is not None:
                    there[file] = path
        return there

    def close(self) -> None:
        """Nothing of what was moved is claimed or needed: readers need not look for it here."""
        files.quietly(lambda path: os.rename(path, path[: -len(layout.OPEN)]), self._bin)

    def due(self, but: t.Iterable[str] = ()) -> t.Dict[str, FileCount]:
        """What has lain long enough, by name. A name tells since when; one from the future (the clock was wrong) waits for its time.

        :param but: paths here that do not count: a true run puts them back.
        """
        found = {}
        for name in files.list_stored(self._path):
            began = name.partition("-")[0]
            if began.isascii() and began.isdigit() and time.time() - int(began) / 1e9 >= self._grace:
                tally = FileCount(*self._store.files_below(f"trash/{name}"))
                for path in but:
                    if path.startswith(os.path.join(self._path, name, "")):
                        with contextlib.suppress(FileNotFoundError):  # a dry run beside a true one
                            tally = tally.plus(-os.lstat(path).st_size, -1)
                found[name] = tally
        return found

    def empty(self, due: t.Mapping[str, FileCount]) -> None:
        """Delete for good."""
        import shutil  # only here: a start should not wait for what it brings

        for name, tally in due.items():
            with store_errors(f"emptying its trash of {name}"):
                shutil.rmtree(os.path.join(self._path, name))
            self.freed = FileCount(self.freed.files + tally.files, self.freed.bytes + tally.bytes)

    @contextlib.contextmanager
    def moving(self) -> t.Iterator[t.Callable[[Dead], t.Optional[str]]]:
        """It yields what moves a file here: that returns its path, or None where it is gone. Directories stay open meanwhile."""
        with contextlib.ExitStack() as opened:
            shards, bins = _Last(self._store.path, opened), _Last(self._bin, opened, make=True)

            def take(file: Dead) -> t.Optional[str]:
                name = file.file
                try:
                    os.rename(name, name, src_dir_fd=shards(f"{file.kind}/{name[:2]}"), dst_dir_fd=bins(file.kind))
                except FileNotFoundError:
                    return None  # removed by hand
                except OSError as error:
                    raise self._failure(error) from None
                self.moved = self.moved.plus(file.size)
                return f"{self._bin}/{file.kind}/{name}"

            yield take

    def _failure(self, error: OSError) -> VoltError:
        failure = store_failure("moving a file to its trash", error)
        if isinstance(failure, StoreFull) and self._grace:
            return StoreFull("The store's file system is too full to move files to the trash; run volt_cas_gc with grace: 0s.")
        return failure

    def delete(self, file: Dead) -> None:
        """Delete a file in its place, while no other run lives."""
        if files.unlink(self._store.full_path(f"{file.kind}/{file.file[:2]}/{file.file}")):
            self.moved, self.freed = self.moved.plus(file.size), self.freed.plus(file.size)

    def put_back(self, file: Dead, moved: str, earlier: bool = False) -> None:
        """Give a file back its name, unless a run has stored the same content anew. :param earlier: an earlier collection moved it."""
        path = self._store.full_path(f"{file.kind}/{file.file[:2]}/{file.file}")
        with store_errors(f"restoring {file.file} from its trash"), contextlib.suppress(FileExistsError):
            files.give_name(moved, path)
        if not earlier:
            self.moved = self.moved.plus(-file.size, -1)
