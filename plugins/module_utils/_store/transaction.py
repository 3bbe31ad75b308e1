# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Writing to a store: one transaction, from its first claim to its commit.

Everything new is first written under tmp/<run>/. `commit` makes it durable, gives it its final names, makes the names
durable, and only then may the caller write a reference to it. A transaction that dies leaves nothing but its directory.

Small blobs and metadata come from one thread, because their order decides the packs (`blobs`). Large ones may come from several (`objects`).
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import os
import stat
import typing as t

from .._base import Damaged, StoreError, files, held, kernel, nfs, store_errors, store_failure
from . import claims, codec, features, layout, pack
from .blob_writer import BlobWriter
from .object_states import STATE_SIZE, state_record
from .object_writer import ObjectWriter
from .pack_tables import SUSPECT
from .store import Store
from .table import Table
from .workers import Counts, Workers
from .workspace import Workspace


class Transaction:
    """A context that says what it relies on, so that no collection removes that, and collects what is new.

    :param dry: count and remember, and write nothing.
    :param only: where given, blobs that are not in it are taken for known: they are not wanted.
    :ivar blobs: small blobs. :ivar objects: large ones. :ivar counts: what is new. :ivar submit: hands work to a thread.
    """

    def __init__(self, store: Store, compression: str = "auto", dry: bool = False, only: t.Optional[t.Container[bytes]] = None) -> None:
        self.store = store
        self._dry = dry
        suffix = codec.choose(compression)
        self._space = Workspace(store.path)
        self._workers = Workers()
        self.submit = self._workers.submit
        self.counts = Counts()
        self.blobs = BlobWriter(store, self._space, self._workers, self.counts, suffix, dry, only)
        self.objects = ObjectWriter(store, self._space, self.counts, suffix, compression == "auto", dry, only)
        self._old_lock = contextlib.ExitStack()  # of a dry one, at a store of version 0.1.0
        self._committed = False

    # ---- life

    def __enter__(self) -> Transaction:
        store = self.store
        try:
            if not self._dry:
                store.make()
                store.upgrade()
                self._space.make(store.lock_timeout)
                for name in ("objects", "packs"):
                    self._space.make_directory(name)
            elif store.exists:
                self._old_lock.enter_context(store.lock())
            store.refresh()
            store.index.seek()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        with held():  # a signal that comes now would leave the directory
            self._space.failure = self._space.failure or StoreError("The run has ended.")
            self._workers.stop()
            self._space.remove()
            self._old_lock.close()

    # ---- content of both sorts

    def add_metadata(self, blob: bytes) -> bytes:
        """Store a tree, a list or a table; its digest."""
        digest = hashlib.sha256(blob).digest()
        if len(blob) > pack.BLOB_MOST:
            self.objects.add_metadata(digest, blob)
        else:
            self.blobs.add_metadata(digest, blob)
        return digest

    def put_back_metadata(self, digest: bytes, blob: bytes) -> None:
        """Bring back a tree, a list or a table that the store has lost."""
        if len(blob) > pack.BLOB_MOST:
            self.objects.put_back(digest, blob)
        else:
            self.blobs.move(pack.METADATA, digest, blob)

    def brings(self, digest: bytes) -> bool:
        """Whether this transaction brings a blob, or would if it were not dry."""
        return self.blobs.places.find(digest) >= 0 or self.objects.brings(digest)

    @property
    def brought(self) -> int:
        """How many blobs of any kind it brings; ask before `commit`, which merges what it knows into the index."""
        return len(self.blobs.places) + len(self.objects.known)

    def read(self, digest: bytes, limit: int) -> bytes:
        """A metadata blob of the store or of this transaction, which must be finished."""
        self.counts.step()
        blob = None if self._committed else self.blobs.read(digest) or self.objects.read(digest, limit)
        if blob is None:
            return self.store.read(digest, limit)
        if len(blob) > limit:
            raise Damaged("A blob is larger than expected.")
        return blob

    def require(self, feature: str) -> None:
        """The store is only for versions that know a feature, from before the first blob is in its place that others cannot read."""
        if not self._dry and feature not in t.cast(features.Format, self.store.format).required:
            self.store.upgrade(feature)

    def directory(self, name: str) -> bytes:
        """A new, empty directory that ends with the transaction."""
        self._space.make_directory(name)
        return os.fsencode(self._space.path(name))

    def rest(self) -> None:
        """Give back the memory of what was read of the index, once a walk is over."""
        self.store.index.rest()

    # ---- a stat cache on its way

    def open_cache(self) -> t.BinaryIO:
        """A new file for the next stat cache; `keep_cache` gives it its place."""
        return open(self._space.path("cache"), "wb")

    def keep_cache(self, name: str) -> None:
        """Put the file of `open_cache` in its place. OSError where that fails."""
        os.rename(self._space.path("cache"), self.store.cache.path(name))

    # ---- the end

    def finish(self) -> None:
        """Close the open packs and wait until everything is written; whatever failed in a thread is raised here."""
        self.blobs.finish()

    def commit(self, folding: str = "some") -> None:
        """Make everything durable under its final name. Only after this may a manifest be written.

        :param folding: what becomes of older tables of the index, see `Index.tables`.
        """
        self.finish()
        if self._dry:
            return
        with store_errors("making the new data durable"):
            kernel.syncfs(self._space.fd)
            self.counts.step()
            objects, packs = Table(STATE_SIZE), {}  # type: Table, t.Dict[str, layout.State]
            for name, state in self._publish("objects", claims.OBJECT):
                digest = bytes.fromhex(name[:64])
                if objects.find(digest) < 0:
                    objects.add(digest, state_record(state))
            packs.update(self._publish("packs", claims.PACK))
            superfluous = self._write_tables(objects, packs, folding)
            self.counts.step()
            kernel.syncfs(self._space.fd)
        for path in superfluous:
            files.quietly(os.unlink, path)  # another run may have folded the same table
        self._committed = True
        self._space.check_claims()
        self.store.refresh()

    def check_claims(self) -> None:
        """LockLost where collections cannot see what this transaction relies on, so that no reference to it may stay."""
        self._space.check_claims()

    def hold(self, reference: str) -> None:
        """Keep what another backup needs until this transaction ends; FileNotFoundError where it was deleted. :param reference: name of its manifest."""
        if not self._dry:
            try:
                self._space.hold(reference)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise store_failure("keeping an older backup", error) from None

    def _publish(self, kind: str, sort: bytes) -> t.Iterator[t.Tuple[str, layout.State]]:
        """Claim all files of one kind and rename them into place: (file name, state). :param sort: of the claims."""
        top = self._space.path(kind)
        groups = _by_shard(top)
        t.cast(claims.Claims, self._space.claims).add(sort, (digest for group in groups.values() for digest in _digests(group)))
        for shard in sorted({shard for shard, _suffix in groups}):
            _make_shard(self.store.full_path(f"{kind}/{shard}"))
            nfs.look_anew(self.store.full_path(f"{kind}/{shard}"))
        for shard, suffix in sorted(groups):
            for digest in sorted(_digests(groups.pop((shard, suffix)))):
                name = digest.hex() + suffix
                own, final = os.path.join(top, name), self.store.full_path(f"{kind}/{shard}/{name}")
                if digest in self.store.index.damaged:
                    with self.store.gate():  # a repair may be about to move the damaged one away
                        os.rename(own, final)
                elif not os.path.lexists(final):
                    os.rename(own, final)  # else another run was first, with the same bytes
                yield name, self._state(own, final)
                self.counts.step()

    @staticmethod
    def _state(own: str, final: str) -> layout.State:
        """The state of a published file. A collection may have moved it before it reads the claims; ours takes its place, or it comes back."""
        try:
            return layout.state(os.lstat(final))
        except FileNotFoundError:
            try:
                os.rename(own, final)
                return layout.state(os.lstat(final))
            except FileNotFoundError:
                return SUSPECT

    def _write_tables(self, objects: Table, packs: t.Dict[str, layout.State], folding: str) -> t.List[str]:
        """Write what the index is to know; the tables that are superfluous by then."""
        superfluous: t.List[str] = []
        for name, table, folded in self.store.index.tables(self._space.name, self.blobs.lines(packs), self.blobs.places, objects, folding):
            path = self._space.path(name)
            with open(path, "xb") as file:
                for piece in table.parts():
                    file.write(piece)
            os.rename(path, self.store.full_path(f"index/{name}"))
            superfluous += folded
        return superfluous


def _by_shard(directory: str) -> t.Dict[t.Tuple[str, str], bytearray]:
    """The digests of a run's files, one behind the other, by shard and suffix: a million names would need 125 MB."""
    groups: t.DefaultDict[t.Tuple[str, str], bytearray] = collections.defaultdict(bytearray)
    with os.scandir(directory) as found:
        for entry in found:
            groups[entry.name[:2], entry.name[64:]] += bytes.fromhex(entry.name[:64])
    return groups


def _digests(group: bytearray) -> t.Iterator[bytes]:
    return (bytes(group[at : at + 32]) for at in range(0, len(group), 32))


def _make_shard(path: str) -> None:
    """Make a shard, or see that it is one: nothing is put behind a symlink, which leads out of the store."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise StoreError(f"{path} is not a directory of the store; remove it, or restore the original, then run again.") from None
