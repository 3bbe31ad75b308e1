# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Writing to a store: one run from its lock to its commit.

Everything new is first written under tmp/<run>/. `commit` makes it durable, gives it its final names, makes the names
durable, and only then may the caller write a reference to it. A run that dies leaves nothing but its directory under tmp/,
which the next run removes; it can tell, because the kernel dropped the dead run's lock.

Several threads may add objects. Small blobs and metadata come from one thread, because their order decides the packs.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import threading
import typing as t
from concurrent.futures import Future, ThreadPoolExecutor

from .._base import files, kernel
from .._base.errors import Damaged, StoreError, store_failure
from .._base.signals import held
from . import codec, layout, pack
from .index import DOUBT, PLACE_SIZE, STATE_SIZE, Index, place, run_name, state_record, unplace
from .lock import Lock
from .store import Store
from .table import Table

_WORKERS = max(2, min(4, os.cpu_count() or 2))
#: Finished packs and large files that may wait for a worker: bounds the memory, keeps the workers busy.
_WAITING = 2 * _WORKERS


class Sealed(t.NamedTuple):
    """A finished pack of a run; sizes in bytes."""

    name: bytes
    suffix: str
    plain: int
    stored: int


class Run:
    """A context that holds the shared lock and collects what is new; `dry` counts and remembers, and writes nothing.

    :param only: where given, blobs that are not in it are taken for known: nobody wants them.
    :ivar new_blobs: blobs of content that were not in the store before.
    :ivar new_bytes: their plain size in bytes.
    :ivar stored_bytes: bytes that the run adds to the store, metadata included, as written.
    """

    def __init__(self, store: Store, compression: str = "auto", dry: bool = False, only: t.Optional[t.Container[bytes]] = None) -> None:
        self.store = store
        self.dry = dry
        self._only = only
        self.may_clone = compression == "auto"
        self._no_clones: t.Set[int] = set()
        self._pack_suffix = self._object_suffix = codec.choose(compression)
        self.new_blobs = self.new_bytes = self.stored_bytes = 0
        self._content = pack.Builder(pack.CONTENT)
        self._metadata = pack.Builder(pack.METADATA)
        self._open_number = {pack.CONTENT: 0, pack.METADATA: 1}
        self._numbers = 2
        self._places = Table(PLACE_SIZE)
        self._objects = Table(STATE_SIZE)
        self._relied: t.Set[bytes] = set()
        self._sealed: t.Dict[int, Sealed] = {}
        self._kept: t.Dict[int, t.Tuple[str, bytes]] = {}  # a dry run's metadata
        self._mutex = threading.Lock()
        self._jobs: t.List[Future[None]] = []
        self.pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="volt")
        self._slots = threading.Semaphore(_WAITING)
        self._broken: t.Optional[BaseException] = None
        self._lock: t.Optional[Lock] = None
        self._lock_fd = -1
        self.name = ""
        self.directory = ""

    # ---- life

    def __enter__(self) -> Run:
        store = self.store
        if self.dry:
            if store.exists:
                self._lock = store.lock().__enter__()
            self._look()
            return self
        if not store.exists:
            layout.make(store.path)
            store.exists = True
        try:
            self._lock = Lock(store.path, store.lock_timeout, at_gate=self._begin).__enter__()
            self._look()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _look(self) -> None:
        """List the packs now: under the lock nothing goes away, and threads may then ask."""
        self.store.index = Index(self.store.path)
        self.store.index.load()

    def _begin(self) -> None:
        """Called at the gate, where no other run begins: sweep the dead, then show that we live."""
        tmp = self.store.full_path("tmp")
        try:
            for name in layout.DIRECTORIES:
                if name != "refs":  # losing the manifests is no small thing; all else may be deleted or comes again
                    os.makedirs(self.store.full_path(name), mode=0o700, exist_ok=True)
            for entry in os.listdir(tmp):
                _sweep(os.path.join(tmp, entry))
            self.name = run_name(self.store.path)
            self.directory = os.path.join(tmp, self.name)
            os.mkdir(self.directory, 0o700)
            self._lock_fd = files.open_directory(self.directory)
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name in ("objects", "packs", "clones"):
                os.mkdir(os.path.join(self.directory, name), 0o700)
        except OSError as error:
            raise store_failure("beginning a run", error) from None

    def __exit__(self, *_exception: object) -> None:
        with held():  # a signal that comes now would leave the directory
            self._broken = self._broken or StoreError("The run has ended.")
            self.pool.shutdown(wait=True, cancel_futures=True)
            if self.directory:
                shutil.rmtree(self.directory, ignore_errors=True)
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1
            if self._lock is not None:
                self._lock.__exit__()
                self._lock = None

    def submit(self, call: t.Callable[..., t.Any], *arguments: t.Any) -> Future[t.Any]:
        """Hand work to a thread; waits while too much is under way, so that memory stays bounded."""
        self._slots.acquire()
        try:
            future = self.pool.submit(call, *arguments)
        except BaseException:
            self._slots.release()
            raise
        future.add_done_callback(lambda _done: self._slots.release())
        return future

    # ---- adding

    def has_small(self, digest: bytes) -> bool:
        """Whether a blob of pack size is in a pack of the store or of this run; remembers which pack we rely on.

        Objects are not asked: three system calls for each new file would cost more than the rare second copy.
        """
        if self._places.find(digest) >= 0:
            return True
        if self._only is not None and digest not in self._only:
            return True
        place = self.store.index.find(digest)
        if place is None:
            return False
        self._relied.add(place[0])
        return True

    def relied_on(self) -> t.Set[bytes]:
        """The packs in which this run found or put what it needs; call `finish` first."""
        return self._relied.union(self.sealed())

    def sealed(self) -> t.Dict[bytes, int]:
        """The packs that this run made, or would, with their sizes as stored; call `finish` first."""
        return {made.name: made.stored for made in self._sealed.values()}

    def add_small(self, digest: bytes, blob: bytes) -> bool:
        """Put a blob of content into the open pack; False where it is known already."""
        if self.has_small(digest):
            return False
        self.new_blobs += 1
        self.new_bytes += len(blob)
        self._pack(self._content, digest, blob)
        return True

    def add_metadata(self, blob: bytes) -> bytes:
        """Store a tree, a list or a table; its digest."""
        digest = hashlib.sha256(blob).digest()
        if len(blob) > pack.BLOB_MOST:
            self._object(digest, blob)
        elif not self.has_small(digest):
            self._pack(self._metadata, digest, blob)
        return digest

    def move(self, kind: int, digest: bytes, blob: bytes) -> None:
        """Put a blob into a new pack although an old one has it, so that the old one can go."""
        if self._places.find(digest) < 0:
            self._pack(self._metadata if kind == pack.METADATA else self._content, digest, blob)

    def holds(self, digest: bytes) -> bool:
        """Whether this run brings a blob, or would if it were not dry."""
        return self._places.find(digest) >= 0 or self._objects.find(digest) >= 0

    @property
    def brought(self) -> int:
        """How many blobs of any kind this run brings; ask before `commit`, which merges what it knows into the index."""
        return len(self._places) + len(self._objects)

    def _pack(self, builder: pack.Builder, digest: bytes, blob: bytes) -> None:
        offset, ends = builder.add(digest, blob)
        self._places.add(digest, place(self._open_number[builder.kind], offset, len(blob)))
        if ends:
            self._seal(builder)

    def _seal(self, builder: pack.Builder) -> None:
        if self._broken is not None:
            raise self._broken
        number = self._open_number[builder.kind]
        self._open_number[builder.kind] = self._numbers
        self._numbers += 1
        self._jobs = [job for job in self._jobs if not job.done() or job.result()]  # a failed one raises here
        self._jobs.append(self.submit(self._write_pack, number, builder.kind, builder.take()))

    def _write_pack(self, number: int, kind: int, pieces: t.List[bytes]) -> None:
        data = b"".join(pieces)
        pieces.clear()
        name = hashlib.sha256(data).digest()
        suffix, stored = codec.compress(data, self._pack_suffix)
        if self.dry:
            if kind == pack.METADATA:
                self._kept[number] = (suffix, stored)
        else:
            self._write(os.path.join("packs", f"{name.hex()}.pack{suffix}"), stored)
        with self._mutex:
            self.stored_bytes += len(stored)
            self._sealed[number] = Sealed(name, suffix, len(data), len(stored))

    def claim(self, digest: bytes, size: int) -> bool:
        """Whether a large blob is new to store and run. The first to ask is told so and must add it; any thread."""
        if not self._is_new(digest, size):
            return False
        with self._mutex:
            self.new_blobs += 1
            self.new_bytes += size
        return True

    def _is_new(self, digest: bytes, size: int) -> bool:
        """Whether an object is neither in the store nor promised by this run, which promises it now; any thread."""
        with self._mutex:
            if self._objects.find(digest) >= 0:
                return False
        if self._only is not None and digest not in self._only:
            return False
        if self.store.has_large(digest, size):  # not under the mutex, for this may hash a file that nobody remembers
            return False
        with self._mutex:
            if self._objects.find(digest) >= 0:
                return False
            self._objects.add(digest, state_record((0, 0)))
            return True

    def add_object(self, digest: bytes, blob: bytes) -> None:
        """Write a large blob that `claim` gave to us; any thread."""
        suffix, stored = codec.compress(blob, self._object_suffix)
        if not self.dry:
            self._write(os.path.join("objects", digest.hex() + suffix), stored)
        with self._mutex:
            self.stored_bytes += len(stored)

    def restore_object(self, digest: bytes, blob: bytes) -> None:
        """Bring back a large blob that the store has lost; counts as nothing new."""
        with self._mutex:
            if self._objects.find(digest) >= 0:
                return
            self._objects.add(digest, state_record(DOUBT))
        self.add_object(digest, blob)

    def _object(self, digest: bytes, blob: bytes) -> None:
        if self._is_new(digest, len(blob)):
            self.add_object(digest, blob)

    def add_clone(self, digest: bytes, source: int, offset: int, length: int, whole: bool) -> bool:
        """The same by sharing the blocks of an open file; False where the file system will not."""
        path = os.path.join(self.directory, "objects", digest.hex())
        try:
            fd = files.create_file(path)
        except OSError as error:
            raise store_failure("writing an object", error) from None
        try:
            if whole:
                kernel.clone(source, fd)
            else:
                kernel.clone_range(source, offset, length, fd, 0)
        except OSError as error:
            os.unlink(path)
            if error.errno in kernel.NO_CLONE:
                return False
            raise store_failure("cloning an object", error) from None
        finally:
            os.close(fd)
        with self._mutex:
            self.stored_bytes += length
        return True

    def clone_of(self, source: int, device: int) -> t.Optional[int]:
        """A private, unchanging clone of an open file (a descriptor without a name), or None where blocks cannot be shared.

        :param device: the file's st_dev; what a file system cannot do is tried once.
        """
        if self.dry or not self.may_clone or device in self._no_clones:
            return None
        try:
            fd = os.open(self.directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno in kernel.NEVER_CLONES:
                self._no_clones.add(device)
                return None
            raise store_failure("cloning a file", error) from None
        try:
            kernel.clone(source, fd)
        except OSError as error:
            os.close(fd)
            if error.errno in kernel.NEVER_CLONES:
                self._no_clones.add(device)
            if error.errno in kernel.NO_CLONE:
                return None
            raise store_failure("cloning a file", error) from None
        return fd

    def _write(self, relative: str, data: bytes) -> None:
        try:
            fd = files.create_file(os.path.join(self.directory, relative))
            try:
                files.write_all(fd, data)
            finally:
                os.close(fd)
        except OSError as error:
            failure = store_failure("writing new data", error)
            self._broken = failure
            raise failure from None

    # ---- reading what is new

    def read(self, digest: bytes, limit: int) -> bytes:
        """A metadata blob of the store or of this run, which must be committed, or dry and finished."""
        position = self._places.find(digest) if self.dry else -1
        if position < 0:
            return self.store.read(digest, limit)
        number, offset, length = unplace(self._places.value(position))
        suffix, stored = self._kept[number]
        data = codec.decompress(stored, suffix, pack.PACK_MOST)
        start = pack.first_blob(data) + offset
        if length > limit:
            raise Damaged("A blob is larger than its place allows.")
        return data[start : start + length]

    # ---- the end

    def finish(self) -> None:
        """Close the open packs and wait until everything is written; whatever failed in a thread is raised here."""
        for builder in (self._content, self._metadata):
            if builder:
                self._seal(builder)
        for job in self._jobs:
            job.result()
        self._jobs = []
        if self._broken is not None:
            raise self._broken

    def commit(self, folding: str = "some") -> None:
        """Make everything durable under its final name. Only after this may a manifest be written.

        :param folding: what becomes of older tables of the index, see `Index.tables`.
        """
        self.finish()
        if self.dry:
            return
        try:
            kernel.syncfs(self._lock_fd)
            objects = self._publish("objects")
            packs = self._publish("packs")
            superfluous = self._write_tables(objects, packs, folding)
            kernel.syncfs(self._lock_fd)
        except OSError as error:
            raise store_failure("making the new data durable", error) from None
        for path in superfluous:
            try:
                os.unlink(path)
            except OSError:
                pass  # another run folded the same table
        self.store.index = Index(self.store.path)

    def _publish(self, kind: str) -> t.Dict[str, t.Tuple[int, int]]:
        """Rename all files of one kind into place; file name -> state."""
        states = {}
        top = os.path.join(self.directory, kind)
        names = sorted(os.listdir(top))
        for shelf in sorted({name[:2] for name in names}):
            _shelve(self.store.full_path(f"{kind}/{shelf}"))
        for name in names:
            final = self.store.full_path(f"{kind}/{name[:2]}/{name}")
            if bytes.fromhex(name[:64]) in self.store.index.damaged or not os.path.lexists(final):
                os.rename(os.path.join(top, name), final)  # else another run was first, with the same bytes
            info = os.lstat(final)
            states[name] = (info.st_size, info.st_ctime_ns)
        return states

    def _write_tables(
        self, objects: t.Dict[str, t.Tuple[int, int]], packs: t.Dict[str, t.Tuple[int, int]], folding: str
    ) -> t.List[str]:
        known = Table(STATE_SIZE, len(objects))
        for name, state in objects.items():
            digest = bytes.fromhex(name[:64])
            if known.find(digest) < 0:
                known.add(digest, state_record(state))
        numbered = []
        for number in range(self._numbers):
            if number in self._sealed:
                sealed = self._sealed[number]
                numbered.append((sealed.name, packs[f"{sealed.name.hex()}.pack{sealed.suffix}"], sealed.plain))
            else:
                numbered.append((b"\0" * 32, DOUBT, 0))  # an open pack that nothing went into
        superfluous: t.List[str] = []
        lines = numbered if len(self._places) else []
        for name, table, folded in self.store.index.tables(self.name, lines, self._places, known, folding):
            path = os.path.join(self.directory, name)
            with open(path, "xb") as file:
                for piece in table.parts():
                    file.write(piece)
            os.rename(path, self.store.full_path(f"index/{name}"))
            superfluous += folded
        return superfluous


def _shelve(path: str) -> None:
    """Make a shelf, or see that it is one: nothing is put behind a symlink, which leads out of the store."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise StoreError(f"{path} is not a directory of the store; remove it, or put the true one back, then run again.") from None


def _sweep(path: str) -> None:
    """Remove what a dead run left; a living one holds its lock."""
    try:
        fd = files.open_directory(path)
    except OSError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    except OSError:
        pass
    finally:
        os.close(fd)
