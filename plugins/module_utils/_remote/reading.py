# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""The backups on a remote, read from their commits.

The commits of a host are a chain: each has a number and names the one before. What a remote withholds, replays or invents shows in it.
"""

from __future__ import annotations

import datetime
import typing as t

from .._backup import records
from .._base import Damaged, Foreign, Unsupported
from . import commits, known, names
from .keys import Keys
from .transport import Transport

#: So many names come with one request, as a rule.
_PAGE = 1000


class Copy(t.NamedTuple):
    """A backup on a remote."""

    push: names.Push
    #: None where it cannot be read; `trouble` says why.
    seq: t.Optional[int]
    sidecar: t.Optional[records.Sidecar]
    trouble: t.Optional[str]
    #: SHA-256 of the commit, in hex.
    sha256: t.Optional[str] = None
    read: t.Optional[commits.Read] = None


class Listing(t.NamedTuple):
    """The backups of some hosts, the newest push first, and what is wrong with their chains, as sentences."""

    copies: t.List[Copy]
    warnings: t.List[str]


def hosts(transport: Transport) -> t.Dict[str, t.Optional[t.List[names.Push]]]:
    """The hosts that have commits on a remote, in order, each with the names of these as `known.committed`; None where it has many, and they were skipped."""
    found: t.Dict[str, t.Optional[t.List[names.Push]]] = {}
    last, host = "", ""
    while True:
        for number, entry in enumerate(transport.list(names.COMMITS, after=last)):
            push = names.parse_commit(entry.name)
            if push is None:
                continue
            if number >= _PAGE and push.host == host:
                found[host] = None
                break
            host = push.host
            t.cast(t.List[names.Push], found.setdefault(host, [])).append(push)
        else:
            return found
        last = f"{names.COMMITS}{host}0"  # after its last possible name: 0 comes after /


class Pushes(t.NamedTuple):
    """The commits of a host, by their names alone: how many there are, and when the newest push began."""

    host: str
    commits: int
    newest: datetime.datetime


def overview(transport: Transport) -> t.List[Pushes]:
    """How many commits each host has. Pushes that a collection ended count, too: nothing is read."""
    found: t.List[Pushes] = []
    for push in filter(None, (names.parse_commit(entry.name) for entry in transport.list(names.COMMITS))):
        before = found.pop().commits if found and found[-1].host == push.host else 0
        found.append(Pushes(push.host, before + 1, names.moment(push.id)))
    return found


def listing(transport: Transport, keys: Keys, host: t.Optional[str] = None) -> Listing:
    """All backups of a host, or of all hosts."""
    copies: t.List[Copy] = []
    warnings: t.List[str] = []
    for name in [host] if host is not None else hosts(transport):
        found, whole = _read_all(transport, keys, name)
        copies += found
        warnings += chain_faults(name, whole)
    return Listing(sorted(copies, key=lambda copy: (copy.push.id, copy.push.host), reverse=True), warnings)


def read(transport: Transport, keys: Keys, push: names.Push) -> t.Optional[t.Tuple[commits.Read, records.Sidecar]]:
    """A commit that has the signature of its host, and the record in it; None for a revocation, Damaged, Foreign or Unsupported for all else."""
    found = known.read_commit(transport, push)
    if found is None:
        return None
    keys.check(found)
    return found, records.decode_sidecar(keys.open_catalog(found.sidecar))


def _read_all(transport: Transport, keys: Keys, host: str) -> t.Tuple[t.List[Copy], t.List[commits.Read]]:
    copies, whole = [], []
    for push in known.committed(transport, host):
        try:
            item = read(transport, keys, push)
        except (Damaged, Foreign, Unsupported) as error:
            copies.append(Copy(push, None, None, error.message))
            continue
        if item is None:
            continue
        found, sidecar = item
        whole.append(found)
        copies.append(Copy(push, found.commit.seq, sidecar, None, found.sha256, found))
    return copies, whole


def chain_faults(host: str, read: t.Sequence[commits.Read]) -> t.List[str]:
    """What is wrong with the chain of a host's commits, as sentences. :param read: in the order of their names."""
    faults: t.List[str] = []
    before: t.Optional[commits.Read] = None
    for found in sorted(read, key=lambda item: (item.commit.seq, item.commit.push)):
        seq, last = found.commit.seq, before.commit.seq if before is not None else 0
        if seq == last:
            faults.append(f"Host {host} has two commits with the number {seq}: two hosts use one name; give each host its own name and keys.")
        elif seq > last + 1:
            missing = f"{last + 1}" if seq == last + 2 else f"{last + 1} to {seq - 1}"
            faults.append(f"Commit {missing} of host {host} is missing on the remote; compare the list with the host's own backups.")
        elif found.commit.previous != (before.sha256 if before is not None else None):
            faults.append(f"Commit {seq} of host {host} does not follow commit {last}: one of them was replaced; compare the list with the host's own backups.")
        before = found
    return faults
