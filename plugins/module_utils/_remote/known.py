# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module utility is **PRIVATE** to the collection. It can change at any time, also in patch releases.

"""What the remote has of this host, read from it: for a host that has lost its cache, and before each push."""

from __future__ import annotations

import contextlib
import hashlib
import json
import typing as t

from .._base import Damaged, RemoteError, Unsupported, newer
from . import commits, indexes, names
from .keys import Keys
from .memory import Blobs, IndexName, State
from .transport import Transport

if t.TYPE_CHECKING:
    from .shared import Shared

_FORMAT = 1


def committed(transport: Transport, host: str, after: str = "") -> t.List[names.Push]:
    """The names of a host's commits and of its revocations. They ascend, so the last one is the newest. :param after: only those after this push."""
    top = f"{names.COMMITS}{host}/"
    found = (names.parse_commit(entry.name) for entry in transport.list(top, after=f"{top}{after}" if after else ""))
    return [push for push in found if push is not None]


def is_revoked(transport: Transport, push: names.Push) -> bool:
    """Whether the name of a commit is taken by a revocation."""
    try:
        return read_commit(transport, push) is None
    except (Damaged, Unsupported):
        return False


def newest_commit(transport: Transport, host: str, keys: Keys) -> t.Tuple[t.Optional[commits.Read], t.List[names.Push]]:
    """The newest commit of a host that can be read and has its signature, and the names of all until that one."""
    pushes = committed(transport, host)
    while pushes:  # the last may be a revocation, or not of this host
        with contextlib.suppress(Damaged):
            found = read_commit(transport, pushes[-1])
            if found is not None:
                keys.check(found)
                return found, pushes
        pushes.pop()
    return None, pushes


def all_indexes(transport: Transport, host: str, keys: Keys) -> t.List[t.Tuple[str, str]]:
    """Name and digest of each index that a commit of a host names. Commits that cannot be read, or are not of that host, are passed over."""
    found: t.Dict[str, str] = {}
    for push in committed(transport, host):
        with contextlib.suppress(Damaged, Unsupported):
            read = read_commit(transport, push)
            if read is not None:
                keys.check(read)
                found.update(read.commit.indexes)
    return list(found.items())


def recover(transport: Transport, host: str, keys: Keys) -> t.Tuple[State, Blobs, bool]:
    """Where this host stands, by its newest commit and the indexes that it names; and whether all of these are there.

    A commit that is damaged, or that this host did not sign, is passed over: its indexes could name packs that do not exist. So is an index that is
    missing or altered: what it names is sent again.
    """
    found, pushes = newest_commit(transport, host, keys)
    blobs = Blobs()
    if found is None:
        return State(), blobs, True
    own = []
    for name, digest in found.commit.indexes:
        try:
            data = index_bytes(transport, name, digest)
            lists = lists_of(data, keys)
        except Damaged:
            continue
        own.append(IndexName(name, digest, len(data)))
        for pack, body in lists:
            blobs.add(pack, body)
    recent = tuple(push.id for push in pushes[-commits.HEAD_MOST :])
    return State(found.commit.seq, found.sha256, recent, tuple(own)), blobs, len(own) == len(found.commit.indexes)


def read_commit(transport: Transport, push: names.Push) -> t.Optional[commits.Read]:
    """A commit; None where it is a revocation, Damaged where it is missing or altered."""
    data = transport.get(push.commit)
    if data is None:
        raise Damaged(f"{transport.where}: {push.commit} is missing.")
    return commits.parse(push.commit, data)


def read_index(transport: Transport, keys: Keys, index: IndexName) -> t.List[t.Tuple[names.Pack, bytes]]:
    """The packs of an index, each with its list; Damaged where it is missing or altered."""
    return lists_of(index_bytes(transport, index.name, index.sha256), keys)


def index_bytes(transport: Transport, name: str, digest: str) -> bytes:
    """An index as it is stored; Damaged where it is missing or altered."""
    data = transport.get(name)
    if data is None or hashlib.sha256(data).hexdigest() != digest:
        wrong = "missing" if data is None else "altered"
        raise Damaged(f"{transport.where}: {name} is {wrong}, so what it lists cannot be found; restore that object from a copy of the remote.")
    return data


def lists_of(data: bytes, keys: Keys, wanted: t.Callable[[names.Pack], bool] = lambda _pack: True) -> t.List[t.Tuple[names.Pack, bytes]]:
    """The packs of an index that are wanted, each with its list; Damaged where it is none."""
    return [(pack, indexes.check(keys.open_list(body))) for pack, body in indexes.parse(data) if wanted(pack)]


def forget_tombstones(transport: Transport, state: State, blobs: Blobs, shared: t.Optional[Shared] = None) -> State:
    """Read the tombstones that are new, and believe no more in the packs that they name.

    A list of tombstones is a line of JSON, {"tombstones": 1}, and a line for each pack: its name behind `packs/`. It is written before these packs
    are deleted, and kept.
    """
    read = list(state.tombstones)
    for entry in transport.list(names.TOMBSTONES):
        if entry.name in state.tombstones and (shared is None or entry.name in shared.tombstones):
            continue
        data = transport.get(entry.name)
        first, *lines = (data or b"").decode("utf-8", "replace").split("\n")
        try:
            if json.loads(first)["tombstones"] > _FORMAT:
                raise newer(f"{transport.where}: {entry.name}")
        except (ValueError, KeyError, TypeError):
            raise RemoteError(f"{transport.where}: {entry.name} is damaged; restore that object from a copy of the remote, then push again.") from None
        dead = [pack for pack in (names.parse_pack(f"{names.PACKS}{line}") for line in lines) if pack is not None]
        for pack in dead:
            blobs.forget(pack)
        if shared is not None:
            shared.forget(dead)
            shared.tombstones.add(entry.name)
        if entry.name not in read:
            read.append(entry.name)
    return state._replace(tombstones=tuple(read))
