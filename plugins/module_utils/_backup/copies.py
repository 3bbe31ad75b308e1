# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Copies of backups on remotes: which backups have one, what goes into one, and the note that it is there.

A backup's sidecar says which remotes have a copy. What a remote has is nothing that the local store depends on: retention and collection do not wait
for it.
"""

from __future__ import annotations

import contextlib
import typing as t

from .._base import Damaged, NotFound, now, show_time
from .._store.store import Store
from .catalog import Catalog, selects, trouble_of
from .records import CopyRecord, Manifest, Sidecar, encode_sidecar


class Original(t.NamedTuple):
    """A backup that is to be copied; nothing of it is collected while it is open."""

    sidecar: Sidecar
    #: The bytes of its sidecar and of its manifest.
    record: bytes
    data: bytes
    manifest: Manifest


class Copies:
    """The copies of one backup directory's backups."""

    def __init__(self, store: Store, catalog: Catalog) -> None:
        self.store, self._catalog = store, catalog

    def candidates(self, workload: t.Optional[str] = None, kind: t.Optional[str] = None) -> t.List[Sidecar]:
        """Backups that can be copied, the oldest first."""
        accept = selects(workload, kind, ())
        found = [listed for listed in self._catalog.list(workload) if trouble_of(listed) is None and self._catalog.alien(listed) is None]
        return [listed for listed in reversed(found) if accept(listed)]

    def find(self, backup: str) -> Sidecar:
        """A backup that can be copied; NotFound, Damaged, Unsupported or Foreign where it cannot."""
        found = self._catalog.known(backup, "copied")
        if found["damaged"]:
            why = f"it is damaged ({found['damage']})"
            raise Damaged(f"Backup {backup} was not copied, because {why}; run volt_cas_verify with repair: true.", backup_id=backup)
        return found

    @contextlib.contextmanager
    def opened(self, sidecar: Sidecar) -> t.Iterator[Original]:
        """What goes into a copy. NotFound where the backup is deleted, before or in the context."""
        with self.store.lock(), self.store.holding(sidecar["manifest_ref"]), self._catalog.reading(sidecar):
            manifest = self._catalog.manifest(sidecar)
            data = self.store.refs.read(sidecar["manifest_ref"])
            yield Original(sidecar, encode_sidecar(sidecar), data, manifest)

    def note(self, remote: str, backup: str, manifest: str, push: str) -> None:
        """Write down that a copy is there, unless the backup was deleted meanwhile.

        :param remote: its id. :param manifest: SHA-256 of the backup's manifest: the id may be another backup's by now.
        """

        def change(sidecar: Sidecar) -> Sidecar:
            if sidecar["manifest_sha256"] != manifest:
                return sidecar
            others = [copy for copy in sidecar["copies"] if copy["remote"] != remote]
            copy = CopyRecord(remote=remote, push=push, copied_at=show_time(now()))
            return t.cast(Sidecar, {**sidecar, "pushed_to_cdn": True, "copies": [*others, copy]})

        with contextlib.suppress(NotFound):
            self._catalog.change(backup, change)

    def current(self, sidecar: Sidecar) -> Sidecar:
        """A backup's sidecar as it is now; as it was, where it was deleted meanwhile."""
        try:
            return self._catalog.sidecar(sidecar["id"])
        except NotFound:
            return sidecar


def copy_on(sidecar: Sidecar, remote: str) -> t.Optional[str]:
    """`<host>/<push>` of a backup's copy on a remote, as far as its sidecar says; None where there is none. :param remote: its id."""
    return next((copy["push"] for copy in sidecar["copies"] if copy["remote"] == remote), None)
