# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Which backup people mean: by its id, by the beginning of its id, by its workload, or by `latest`, in this order.

Modules take whole ids alone: what a playbook means must not change with the next backup.
"""

from __future__ import annotations

import typing as t

from .._base import NotFound, UsageError, show
from .catalog import Catalog, trouble_of, workload_of
from .ids import check_id, is_id, is_workload
from .records import Sidecar

LATEST = "latest"
#: As many are named in a message.
_NAMED = 5


def id_of(catalog: Catalog, text: str) -> str:
    """The id that a text is, or the one that begins with it. UsageError where several do. Where none does, the text as it is: who looks for it says so.

    A text that looks like the name of another workload does not match: `app` is no backup of app-db on a host where app has none.

    A whole id means itself alone: one that was deleted must not mean the second of the same second, whose id is longer by a number.
    """
    if not is_id(text) or catalog.exists(text) or workload_of(text) is not None:
        return text
    found = sorted((name for name in catalog.ids() if name.startswith(text) and is_id(name)), reverse=True)
    if len(found) > 1:
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise UsageError(f"{text} matches {len(found)} backups: {', '.join(found[:_NAMED])}{more}; type more of the id.")
    return found[0] if found and not _is_like_a_name(text, workload_of(found[0]) or "") else text


def first_of(passed: t.Sequence[t.Mapping[str, str]]) -> str:
    """Why the first of some backups was skipped, as a sentence to append. Empty where none was."""
    return f" Backup {passed[0]['id']} was skipped: {passed[0]['reason'].rstrip('.')}." if passed else ""


def _is_like_a_name(text: str, workload: str) -> bool:
    """Whether a text ends where a part of a workload's name does."""
    return len(text) < len(workload) and not workload[len(text)].isalnum()


def known(catalog: Catalog) -> t.Tuple[t.List[str], t.Set[str]]:
    """(ids, those of a workload newest first, names of workloads), by what the records are called: read is none of them."""
    ids = sorted((name for name in catalog.ids() if is_id(name)), reverse=True)
    return ids, {workload for workload in map(workload_of, ids) if workload is not None}


def meant(catalog: Catalog, text: str) -> t.Tuple[t.Optional[str], t.Optional[str]]:
    """(the id of a backup, None), or (None, the workload of which the newest one is meant). UsageError or NotFound where it can not be told."""
    if not is_id(text) or catalog.exists(text):
        return text, None
    if is_workload(text) and catalog.list(text):
        return None, text
    if text == LATEST:
        return None, _only(catalog)
    found = id_of(catalog, text)
    if not catalog.exists(found):
        raise NotFound(f"There is no backup or workload {show(text)} in {catalog.where}; list the backups.")
    return found, None


def chosen(catalog: Catalog, text: str, deep: bool) -> Sidecar:
    """The backup that people mean by a text: of a workload its newest good one. :param deep: as of `Catalog.newest`."""
    backup, workload = meant(catalog, text)
    if workload is None:
        return catalog.sidecar(check_id(backup or ""))
    found = catalog.newest(workload, deep)[0]
    if found is None:
        raise NotFound(f"Workload {workload} has no complete, undamaged backup in {catalog.where}; list its backups and give one's id.")
    return found


def _only(catalog: Catalog) -> str:
    """The workload, where there is one."""
    found = sorted({listed["workload_name"] for listed in catalog.list() if trouble_of(listed) is None and catalog.owner.foreign(listed) is None})
    if not found:
        raise NotFound(f"There is no undamaged, complete backup in {catalog.where}; list the backups.")
    if len(found) > 1:
        raise UsageError(f"There are {len(found)} workloads: {', '.join(found)}; use one of these names instead of {LATEST}.")
    return found[0]
