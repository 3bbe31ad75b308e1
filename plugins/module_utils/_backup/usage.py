# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What a store holds and what that costs, in all and by workload.

A small blob shares its pack with others, and the pack is compressed as a whole; the blob is said to occupy the share of the pack's file that it has of the
pack's plain bytes. What several workloads share is counted for each of them, and once in all.
"""

from __future__ import annotations

import typing as t

from .._base import Damaged, NotFound, Unsupported, show
from .._format.reachability import Reachability
from .._store.features import Format
from .._store.store import Store
from .._store.table import Table
from .catalog import Catalog, trouble_of
from .records import Manifest


class _Account:
    """Adds up what is met, each blob once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen = Table(0)
        self.unique = self.metadata_bytes = self.blobs = 0
        self.stored = 0.0
        self.whole = True

    def content(self, digest: bytes, size: int) -> None:
        if self._is_new(digest):
            self.unique += size
            self.blobs += 1
            self._occupy(digest, size)

    def metadata(self, digest: bytes) -> None:
        if self._is_new(digest):
            self.metadata_bytes += self._occupy(digest, -1)

    def broken(self, _digest: bytes, _error: Damaged) -> None:
        self.whole = False

    def _is_new(self, digest: bytes) -> bool:
        if self._seen.find(digest) >= 0:
            return False
        self._seen.add(digest, b"")
        return True

    def _occupy(self, digest: bytes, size: int) -> int:
        """Add what a blob occupies; its plain size."""
        found = self._store.occupied(digest, size)
        if found is None:
            self.whole = False
            return 0
        self.stored += found[1]
        return found[0]


#: Why not all could be counted: "damaged", "unsupported", both or neither.
_Troubles = t.Set[str]


def usage(store: Store, catalog: Catalog) -> t.Dict[str, t.Any]:
    """Figures for `volt_backup_info`; sizes in bytes."""
    before = store.refs.names()
    found = _usage(store, catalog)
    # what a backup needed that was deleted meanwhile may be gone
    return _usage(store, catalog) if found["damaged"] and store.refs.names() != before else found


def _usage(store: Store, catalog: Catalog) -> t.Dict[str, t.Any]:
    files = {part: store.files_below(part) for part in ("objects", "packs", "trash", "quarantine")}
    by_workload: t.Dict[str, t.List[t.Tuple[int, Manifest]]] = {}
    troubles: _Troubles = set()
    for sidecar in catalog.list():
        if trouble_of(sidecar) is not None:
            troubles.add("unsupported" if sidecar["unsupported"] else "damaged")
            continue
        if sidecar.get("foreign"):
            continue
        try:
            manifest = catalog.manifest(sidecar)
        except NotFound:
            continue
        except (Damaged, Unsupported) as error:
            troubles.add("unsupported" if isinstance(error, Unsupported) else "damaged")
            continue
        by_workload.setdefault(sidecar["workload_name"], []).append((sidecar["total_size"], manifest))
    everything = [pair for pairs in by_workload.values() for pair in pairs]
    total = _figures(store, everything, troubles)
    by_name = {name: total for name in by_workload}
    if len(by_workload) > 1:
        by_name = {name: _figures(store, pairs, set()) for name, pairs in by_workload.items()}
    by_name = {name: dict(figures) for name, figures in by_name.items()}
    stored = files["objects"][1] + files["packs"][1]
    referenced = total.pop("stored_bytes")
    known = store.format or Format()
    return {
        "path": show(store.path),
        "format": known.number,
        "id": known.id or None,
        "features": {"required": list(known.required), "optional": list(known.optional)},
        "exists": store.exists,
        **total,
        "stored_bytes": stored,
        "unreferenced_bytes": max(0, stored - referenced),
        "ratio": _ratio(total["logical_bytes"], stored),
        "objects": files["objects"][0],
        "packs": files["packs"][0],
        "trash_bytes": files["trash"][1],
        "quarantine_bytes": files["quarantine"][1],
        "damaged": "damaged" in troubles,
        "unsupported": "unsupported" in troubles,
        "workloads": [{"workload_name": name, **figures} for name, figures in sorted(by_name.items())],
    }


def _account(store: Store, backups: t.List[t.Tuple[int, Manifest]], troubles: _Troubles) -> _Account:
    account = _Account(store)
    reach = Reachability(store.read, account.content, account.metadata, account.broken)
    for _size, manifest in backups:
        try:
            reach(manifest.root.content, manifest.links)
        except Unsupported:
            troubles.add("unsupported")
    return account


def _figures(store: Store, backups: t.List[t.Tuple[int, Manifest]], troubles: _Troubles) -> t.Dict[str, t.Any]:
    account = _account(store, backups, troubles)
    if not account.whole and store.look_again():
        account = _account(store, backups, troubles)
    if not account.whole:
        troubles.add("unsupported" if store.has_newer_packs else "damaged")
    logical, stored = sum(size for size, _manifest in backups), round(account.stored)
    return {
        "backups": len(backups),
        "blobs": account.blobs,
        "logical_bytes": logical,
        "unique_bytes": account.unique,
        "metadata_bytes": account.metadata_bytes,
        "stored_bytes": stored,
        "dedup_ratio": _ratio(logical, account.unique),
        "compression_ratio": _ratio(account.unique + account.metadata_bytes, stored),
    }


def _ratio(large: int, small: int) -> t.Optional[float]:
    return round(large / small, 2) if small else None
