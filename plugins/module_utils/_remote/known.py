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
from . import commits, indexes, names, packs
from .keys import Keys
from .memory import Blobs, IndexName, State
from .transport import Transport

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


def recover(transport: Transport, host: str, keys: Keys) -> t.Tuple[State, Blobs, bool]:
    """Where this host stands, by its newest commit and the indexes that it names; and whether all of these are there.

    A commit that is damaged, or that this host did not sign, is passed over: its indexes could name packs that do not exist. So is an index that is
    missing or altered: what it names is sent again.
    """
    found: t.Optional[commits.Read] = None
    pushes = committed(transport, host)
    while pushes and found is None:  # the last may be a revocation, or not of this host
        with contextlib.suppress(Damaged):
            found = read_commit(transport, pushes[-1])
            if found is not None:
                keys.check(found)
                break
        found = None
        pushes.pop()
    blobs = Blobs()
    if found is None:
        return State(), blobs, True
    own = []
    for name, digest in found.commit.indexes:
        try:
            data = _read_index(transport, name, digest)
            lists = _lists(data, keys)
        except Damaged:
            continue
        own.append(IndexName(name, digest, len(data)))
        for pack, body in lists:
            blobs.add(pack, body)
    recent = tuple(push.id for push in pushes[-commits.HEAD_MOST :])
    return State(found.commit.seq, found.sha256, recent, tuple(own)), blobs, len(own) == len(found.commit.indexes)


class Needed(t.NamedTuple):
    """What a commit needs."""

    blobs: Blobs
    #: How many blobs each pack has.
    counts: t.Dict[names.Pack, int]
    #: Packs that the remote does not have.
    missing: t.Set[names.Pack]
    #: What is wrong with the indexes, as sentences.
    troubles: t.List[str]


def needed(transport: Transport, keys: Keys, commit: commits.Commit, look: bool) -> Needed:
    """Where everything is that a commit needs. What an index does not tell that is missing or altered, the heads of the packs tell.

    :param look: list which packs are there.
    """
    blobs, counts, troubles = Blobs(), t.cast(t.Dict[names.Pack, int], {}), t.cast(t.List[str], [])
    left = {(push, number) for push, numbers in commit.needs.items() for number in numbers}

    def learn(pack: names.Pack, body: bytes) -> None:
        if (pack.push, pack.number) in left:
            left.discard((pack.push, pack.number))
            blobs.add(pack, body)
            counts[pack] = len(body) // indexes.LINE.size

    for name, digest in commit.indexes:
        try:
            lists = _lists(_read_index(transport, name, digest), keys, lambda pack: (pack.push, pack.number) in left)
        except Damaged as error:
            troubles.append(error.message)
            continue
        for pack, body in lists:
            learn(pack, body)
    there = {pack for host in {push.host for push in commit.needs} for pack in _packs_of(transport, host)} if look or left else set()
    for pack in sorted(there):
        if (pack.push, pack.number) in left:
            with contextlib.suppress(Damaged):
                learn(pack, _listed_in(transport, keys, pack))
    return Needed(blobs, counts, set(counts) - there if look else set(), troubles)


def _packs_of(transport: Transport, host: str) -> t.Iterator[names.Pack]:
    return (pack for pack in (names.parse_pack(entry.name) for entry in transport.list(f"{names.PACKS}{host}/")) if pack is not None)


def _listed_in(transport: Transport, keys: Keys, pack: names.Pack) -> bytes:
    """The list of a pack's blobs, by its own head; Damaged where it cannot be read."""
    data = transport.get(pack.name)
    if data is None:
        raise Damaged(f"{transport.where}: {pack.name} is missing.")
    contents = packs.Contents(keys.open_data(data))
    return b"".join(indexes.LINE.pack(segment, keys.blob_id(digest), length) for segment, digest, length in contents.blobs())


def read_commit(transport: Transport, push: names.Push) -> t.Optional[commits.Read]:
    """A commit; None where it is a revocation, Damaged where it is missing or altered."""
    data = transport.get(push.commit)
    if data is None:
        raise Damaged(f"{transport.where}: {push.commit} is missing.")
    return commits.parse(push.commit, data)


def read_index(transport: Transport, keys: Keys, index: IndexName) -> t.List[t.Tuple[names.Pack, bytes]]:
    """The packs of an index, each with its list; Damaged where it is missing or altered."""
    return _lists(_read_index(transport, index.name, index.sha256), keys)


def _read_index(transport: Transport, name: str, digest: str) -> bytes:
    data = transport.get(name)
    if data is None or hashlib.sha256(data).hexdigest() != digest:
        wrong = "missing" if data is None else "altered"
        raise Damaged(f"{transport.where}: {name} is {wrong}, so what it lists cannot be found; restore that object from a copy of the remote.")
    return data


def _lists(data: bytes, keys: Keys, wanted: t.Callable[[names.Pack], bool] = lambda _pack: True) -> t.List[t.Tuple[names.Pack, bytes]]:
    return [(pack, indexes.check(keys.open_list(body))) for pack, body in indexes.parse(data) if wanted(pack)]


def forget_tombstones(transport: Transport, state: State, blobs: Blobs) -> State:
    """Read the tombstones that are new, and believe no more in the packs that they name.

    A list of tombstones is a line of JSON, {"tombstones": 1}, and a line for each pack: its name behind `packs/`. It is written before these packs
    are deleted, and kept.
    """
    read = list(state.tombstones)
    for entry in transport.list(names.TOMBSTONES):
        if entry.name in state.tombstones:
            continue
        data = transport.get(entry.name)
        first, *lines = (data or b"").decode("utf-8", "replace").split("\n")
        try:
            if json.loads(first)["tombstones"] > _FORMAT:
                raise newer(f"{transport.where}: {entry.name}")
        except (ValueError, KeyError, TypeError):
            raise RemoteError(f"{transport.where}: {entry.name} is damaged; restore that object from a copy of the remote, then push again.") from None
        for line in lines:
            pack = names.parse_pack(f"{names.PACKS}{line}")
            if pack is not None:
                blobs.forget(pack)
        read.append(entry.name)
    return state._replace(tombstones=tuple(read))
