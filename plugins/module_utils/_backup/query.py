# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Which backups are meant by filters: of the local directory, and of a remote."""

from __future__ import annotations

import typing as t

from .._base import parse_time
from .catalog import parse_created, selects, trouble_of
from .ids import check_id, check_type, check_workload
from .records import Listed


class Query(t.NamedTuple):
    """Which backups; names as in the contract."""

    workload: t.Optional[str] = None
    type: t.Optional[str] = None
    tags: t.Sequence[str] = ()
    id: t.Optional[str] = None
    host: t.Optional[str] = None
    since: t.Optional[str] = None
    until: t.Optional[str] = None
    limit: int = 0


def accepts(query: Query) -> t.Callable[[Listed], bool]:
    """Whether a backup matches, its id and the limit aside; UsageError for a query that is invalid."""
    if query.id is not None:
        check_id(query.id)
    if query.workload is not None:
        check_workload(query.workload)
    if query.type is not None:
        check_type(query.type)
    since, until = (parse_time(text) if text else None for text in (query.since, query.until))
    matches, by_id = selects(query.workload, query.type, query.tags), selects(query.workload, query.type, ())

    def accept(sidecar: Listed) -> bool:
        # what an unreadable one was tagged with is not known, and it must not be passed over in silence
        if not (matches(sidecar) and query.host in (None, sidecar["host"]) if trouble_of(sidecar) is None else by_id(sidecar)):
            return False
        if sidecar["created_at"] is None:
            return True
        moment = parse_created(sidecar)
        return (since is None or moment >= since) and (until is None or moment <= until)

    return accept
