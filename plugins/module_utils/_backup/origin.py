# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""A backup as a restore sees it, whether it is in the store of this host or on a remote."""

from __future__ import annotations

import contextlib
import typing as t

from .._format import walk
from .._restore import spool
from .._restore.blobs import Blobs
from .._restore.target import Target
from .._store.cache import Cache
from .._store.store import Store
from .catalog import Catalog
from .records import Manifest, Sidecar


class Origin(t.Protocol):
    """One backup, and what its content is read from."""

    @property
    def sidecar(self) -> Sidecar:
        """Its record."""

    @property
    def blobs(self) -> Blobs:
        """Has the content."""

    @property
    def places(self) -> t.Sequence[str]:
        """Directories of this host that hold backups: no target may be in one, or around one."""

    @property
    def cache(self) -> t.Optional[Cache]:
        """Has the stat caches of targets; None where none are kept."""

    @property
    def load(self) -> walk.Load:
        """The entries of a directory, by the digest of its tree."""

    @property
    def troubles(self) -> t.Sequence[str]:
        """What is wrong and does not keep the backup from being read, as sentences."""

    def manifest(self) -> Manifest:
        """Its manifest; Damaged where that is missing or altered."""

    def check(self, manifest: Manifest) -> None:
        """Damaged unless all trees are sound and all content is present."""

    def groups(self, manifest: Manifest) -> t.List[t.List[bytes]]:
        """Its hard-link groups."""

    def at(self, target: Target, dry: bool) -> t.ContextManager[None]:
        """While a target is looked at and restored to. :param dry: nothing may be written."""

    def supplying(self, wanted: t.Iterable[bytes], needed: int) -> t.ContextManager[None]:
        """While blobs are restored: what the backup needs is kept.

        :param wanted: what will be read, in about this order. :param needed: bytes that will be written.
        """


class LocalOrigin:
    """A backup in the store of this host."""

    def __init__(self, store: Store, catalog: Catalog, directory: str, sidecar: Sidecar) -> None:
        """:param directory: of the sidecars."""
        self.blobs, self.sidecar, self._catalog = store, sidecar, catalog
        self.places = (store.path, directory)
        self.cache: t.Optional[Cache] = store.cache
        self.load: walk.Load = catalog.load
        self.groups = catalog.groups
        self.troubles: t.Sequence[str] = ()

    def manifest(self) -> Manifest:
        return self._catalog.manifest(self.sidecar)

    def check(self, manifest: Manifest) -> None:
        if not self._catalog.is_here(self.sidecar):
            self._catalog.check(manifest)
        self._catalog.rest()
        self.blobs.index.rest()

    def at(self, target: Target, dry: bool) -> t.ContextManager[None]:
        self._catalog.rest()
        if not dry:
            spool.sweep(target)  # of restores from a remote
        return contextlib.nullcontext()

    def supplying(self, _wanted: t.Iterable[bytes], _needed: int) -> t.ContextManager[None]:
        return self.blobs.holding(self.sidecar["manifest_ref"])
