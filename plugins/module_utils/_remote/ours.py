# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Which copies on a remote are this host's: what it is called there, and what its own records say that it has there.

A host without a declared name or keys is called by its name and the beginning of its store's id. Its records may have another name: it was renamed, or a
sealed remote is read with the recovery key alone.
"""

from __future__ import annotations

import typing as t

from .._backup.host import made_here
from .._backup.manager import Manager
from .._backup.query import Query
from .._base import NotFound, VoltError, tolerated
from . import known, names, reading
from .transport import Transport


def copied(manager: Manager, remote: t.Optional[str] = None) -> t.Dict[str, str]:
    """The workloads of the copies that this host made, by `<host>/<push>`, as its records say; none where these cannot be read.

    :param remote: the id of one; None for all remotes.
    """
    found: t.Dict[str, str] = {}
    own = made_here()
    with tolerated(VoltError):
        for sidecar in filter(own, manager.find(Query(), dry=True)):  # a backup that was pulled came with the copies of its host
            found.update({copy["push"]: sidecar["workload_name"] for copy in sidecar["copies"] or () if remote in (None, copy["remote"])})
    return found


def called(manager: Manager, remote: t.Optional[str] = None) -> t.List[str]:
    """The names of this host in its records, that of the newest push first. :param remote: see `copied`."""
    pushes = sorted(filter(None, map(names.parse_push, copied(manager, remote))), key=lambda push: push.id, reverse=True)
    return list(dict.fromkeys(push.host for push in pushes))


def expect(transport: Transport, host: t.Optional[str]) -> None:
    """NotFound where a host has no copies, with the hosts that have some. :param host: None for this one, if it has no name."""
    if host is not None and known.committed(transport, host):
        return
    there: t.List[str] = []
    with tolerated(VoltError):  # the credentials of a host may not let it list others
        there = list(reading.hosts(transport))
    others = "push one first"
    if there:
        others = f"it has those of {', '.join(there[:5])}{' and others' if len(there) > 5 else ''}; set `host` to one of them"
    whose = f"of host {host}" if host is not None else "of this host, which has no store and so no name there"
    raise NotFound(f"{transport.where} has no copies {whose}; {others}.")
