# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What people say of backups that are there: this suspect one is as it should be, this one must stay, this mount is gone for good.

Each is kept in the sidecar, with who said it and when. A manifest is never changed: where a sidecar is lost and made anew, it has to be said again.
"""

from __future__ import annotations

import typing as t

from .._base import Damaged, NotFound, UsageError, now, parse, show_time
from .acts import who
from .catalog import Catalog, trouble_of
from .guards import missing_mounts, without_mounts, witnesses
from .records import Listed, Sidecar


class Marked(t.NamedTuple):
    """A backup as it is marked now, or would be."""

    backup: Listed
    changed: bool


def accept(catalog: Catalog, backup: str, dry: bool) -> Marked:
    """A suspect backup counts as good from now on, and later ones are compared with it. Others are left as they are.

    NotFound, Damaged, Unsupported or Foreign where there is no such backup, or none that could be good.
    """
    found = _sound(catalog, backup)
    if not found["suspect"]:
        return Marked(found, False)
    if not found["complete"]:
        raise UsageError(f"Backup {backup} is incomplete and cannot be accepted; make a complete backup and accept that one.")

    def change(sidecar: Sidecar) -> Sidecar:
        # its loss is no measure for the next ones: what they have is counted from here
        counts = sidecar["file_counts"][:1]
        return t.cast(Sidecar, {**sidecar, "file_counts": counts, "suspect": False, "accepted_by": who(), "accepted_at": show_time(now())})

    return _marked(catalog, found, change, dry)


def protect(catalog: Catalog, backup: str, wanted: bool, dry: bool) -> Marked:
    """Nothing deletes a backup from now on, or it may be deleted again."""
    found = _sound(catalog, backup, damaged=not wanted)
    if found["protected"] == wanted:
        return Marked(found, False)

    def change(sidecar: Sidecar) -> Sidecar:
        return t.cast(Sidecar, {**sidecar, "protected": wanted, "protected_by": who(), "protected_at": show_time(now())})

    return _marked(catalog, found, change, dry)


def _marked(catalog: Catalog, found: Listed, change: t.Callable[[Sidecar], Sidecar], dry: bool) -> Marked:
    marked = change(found) if dry else catalog.change(found["id"], change)
    return Marked(t.cast(Listed, {**found, **marked}), True)


def _sound(catalog: Catalog, backup: str, damaged: bool = False) -> Listed:
    """A backup of this directory, with its state. :param damaged: it may be damaged, as long as its sidecar can be read."""
    try:
        found = catalog.known(backup, "changed")
    except Damaged as error:
        raise Damaged(f"Backup {backup} was not changed, because its record cannot be read ({error.message}); run volt_cas_verify with repair: true.") from None
    trouble = trouble_of(found)
    if trouble is not None and not damaged:
        raise Damaged(f"Backup {backup} was not changed, because it cannot be used ({trouble}); run volt_cas_verify with repair: true.", backup_id=backup)
    return found


def accept_mounts(catalog: Catalog, workload: str, dry: bool) -> t.List[str]:
    """Forget what was mounted at the last backups of a workload and is not now; these mount points.

    NotFound where there are no backups of it.
    """
    known = catalog.own(workload)
    if not known:
        raise NotFound(f"Workload {workload} has no backups in {catalog.where}; list the backups.")
    forgotten: t.Set[str] = set()
    for source in {parse(found["source_path"]) for found in known if trouble_of(found) is None}:
        missing = set(missing_mounts(source, known))
        forgotten |= missing
        for found in witnesses(source, known) if missing and not dry else ():
            catalog.change(found["id"], without_mounts(missing))
    return sorted(forgotten)
