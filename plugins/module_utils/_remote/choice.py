# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""Which backup on a remote is meant: one by its id, or the newest good one of a workload. As few commits are read as that takes."""

from __future__ import annotations

import datetime
import hashlib
import typing as t

from .._backup import records
from .._backup.catalog import doubt, parse_created
from .._backup.names import first_of
from .._base import Damaged, Foreign, NotFound, Unsupported
from . import commits, names
from .keys import Keys
from .reading import read
from .transport import Transport


class Chosen(t.NamedTuple):
    """A backup on a remote."""

    commit: commits.Read
    sidecar: records.Sidecar
    #: Newer ones that cannot be used, and why.
    passed: t.List[t.Dict[str, str]]


def manifest(keys: Keys, commit: commits.Read, sidecar: records.Sidecar) -> records.Manifest:
    """The manifest in a commit; Damaged where it is not the one that its record names."""
    data = keys.open_data(commit.manifest)
    if hashlib.sha256(data).hexdigest() != sidecar["manifest_sha256"]:
        raise Damaged(f"The manifest of {commit.commit.push} on the remote is not the one that its record names; use another backup.")
    return records.decode_manifest(data)


def by_id(transport: Transport, keys: Keys, host: str, pushes: t.Sequence[names.Push], backup: str) -> Chosen:
    """The backup of an id; of several copies the newest. NotFound where there is none, with what could not be read.

    :param pushes: the commits of the host, as of `known.committed`.
    """
    passed = []
    for push in reversed(pushes):  # the newest first: an older copy may have been lost, and made again
        try:
            found = read(transport, keys, push)
        except (Damaged, Foreign, Unsupported) as error:
            passed.append({"id": str(push), "reason": error.message})
            continue
        if found is not None and found[1]["id"] == backup:
            return Chosen(*found, [])
    unread = f" {len(passed)} commit(s) there cannot be read, the first because: {passed[0]['reason']}" if passed else ""
    raise NotFound(f"{transport.where} has no backup {host}/{backup}; list the backups there.{unread}", skipped=passed)


def newest(
    transport: Transport, keys: Keys, host: str, pushes: t.Sequence[names.Push], workload: str, accept: t.Callable[[records.Sidecar], bool],
    before: t.Optional[datetime.datetime],
) -> Chosen:  # fmt: skip
    """The newest complete backup of a workload, neither suspect nor of the future. NotFound where there is none.

    :param pushes: see `by_id`. :param before: only those that were made before this.
    """
    best: t.Optional[Chosen] = None
    moment = datetime.datetime.min.replace(tzinfo=datetime.timezone.utc)
    passed: t.List[t.Dict[str, str]] = []
    for push in reversed(pushes):
        if best is not None and names.moment(push.id) < moment:
            break  # what was pushed before the best was made is older
        try:
            found = read(transport, keys, push)
        except (Damaged, Foreign, Unsupported) as error:
            passed.append({"id": str(push), "reason": error.message})
            continue
        if found is None or found[1]["workload_name"] != workload or not accept(found[1]):
            continue
        sidecar, made = found[1], parse_created(found[1])
        if before is not None and made >= before:
            continue
        trouble = doubt(sidecar)
        if trouble is not None:
            passed.append({"id": sidecar["id"], "reason": trouble})
        elif made > moment:
            best, moment = Chosen(*found, passed), made
    if best is None:
        raise NotFound(
            f"Workload {workload} of host {host} has no matching backup on {transport.where} that is complete; list the backups there, and restore one by"
            f" its id.{first_of(passed)}",
            skipped=passed,
        )
    return best
