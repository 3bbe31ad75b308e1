# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""A backup on a remote as a restore sees it (see `_backup.origin.Origin`): it is read from the remote alone, and from the store of this host as far as
that has the same blobs."""

from __future__ import annotations

import contextlib
import functools
import typing as t

from .._backup import records
from .._base import Interrupted, RemoteError, TargetFull, VoltError, kernel
from .._format import links, tree, walk
from .._format.reachability import Reachability
from .._restore import spool
from .._restore.target import Target
from .._store.cache import Cache
from .._store.store import Store
from . import choice, known
from .blobs import RemoteBlobs
from .choice import Chosen
from .fetcher import Fetcher
from .keys import Keys
from .places import Places
from .transport import Transport


class RemoteOrigin:
    """Use as a context.

    :param everything: all of the backup is to be restored. :param jobs: requests at once. :param local: the store of this host, if there is one.
    :param places: directories that no target may be in or around.
    :ivar troubles: what is wrong with the remote and does not keep the backup from being read, as sentences.
    """

    def __init__(
        self, transport: Transport, keys: Keys, chosen: Chosen, everything: bool, jobs: int, local: t.Optional[Store], places: t.Sequence[str]
    ) -> None:  # fmt: skip
        kernel.return_memory()
        self._transport, self._keys, self._chosen, self._everything = transport, keys, chosen, everything
        self._local, self.places, self.sidecar = local, places, chosen.sidecar
        self.cache: t.Optional[Cache] = local.cache if local is not None else None
        self._spool = spool.Spool()
        self._fetcher = Fetcher(transport, keys, jobs, self._spool)
        self.load: walk.Load = tree.Loader(self._read)
        self.troubles: t.List[str] = []

    @property
    def fetched_bytes(self) -> int:
        """As they were stored on the remote, of packs alone."""
        return self._fetcher.fetched

    def __enter__(self) -> RemoteOrigin:
        return self

    def __exit__(self, *exception: object) -> None:
        self._fetcher.__exit__(*exception)
        self._spool.close()

    @functools.cached_property
    def blobs(self) -> RemoteBlobs:
        commit = self._chosen.commit.commit
        places = Places(
            self._transport, self._keys, commit.indexes, commit.needs, self._everything, self._fetcher.contents, self._everything and self._local is None
        )
        self.troubles = places.troubles
        return RemoteBlobs(self._fetcher, self._keys, places, self._everything, self._local, self._others)

    def _others(self) -> Places:
        """All that the host has sent, for what is lost of this backup."""
        named = known.all_indexes(self._transport, self._chosen.commit.commit.push.host, self._keys)
        return Places(self._transport, self._keys, named, None, True, self._fetcher.contents)

    def _read(self, digest: bytes, limit: int) -> bytes:
        return self.blobs.read(digest, limit)

    @functools.lru_cache(maxsize=1)  # noqa: B019  the origin lives as long as the restore
    def manifest(self) -> records.Manifest:
        return choice.manifest(self._keys, self._chosen.commit, self.sidecar)

    def check(self, manifest: records.Manifest) -> None:
        Reachability(self._read, self.blobs.present)(manifest.root.content, manifest.links)

    def groups(self, manifest: records.Manifest) -> t.List[t.List[bytes]]:
        return links.groups(links.decode(self._read(manifest.links, links.LIMIT)), self.load, manifest.root) if manifest.links else []

    @contextlib.contextmanager
    def at(self, target: Target, dry: bool) -> t.Iterator[None]:
        if dry:
            yield
            return
        self._fetcher.left(self._spool.open(target))
        try:
            yield
        except (RemoteError, Interrupted, TargetFull):
            raise  # what was fetched is of use to the next one
        except VoltError:
            spool.sweep(target)
            raise
        spool.sweep(target)

    @contextlib.contextmanager
    def supplying(self, wanted: t.Iterable[bytes], needed: int) -> t.Iterator[None]:
        self._spool.needed = needed
        self.blobs.expect(wanted)
        with self._fetcher:
            yield
