# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real push beside a collection on the remote: in all orders of their requests, and with the faults of the model put into the real code.

No version collects on remotes yet, so the collection is written here, from docs/remote-format.md.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.volt.backup.plugins.module_utils._backup.manager import Manager
from ansible_collections.volt.backup.plugins.module_utils._base import RemoteError
from ansible_collections.volt.backup.plugins.module_utils._remote import commits, names
from ansible_collections.volt.backup.plugins.module_utils._remote.directory import Directory
from ansible_collections.volt.backup.plugins.module_utils._remote.remote import Remote, Settings, Which
from ansible_collections.volt.backup.tests.rigs import need, sample
from ansible_collections.volt.backup.tests.unit._remote.independent_reader import RemoteReader

from .test_push import HOST, Place, Tapped, made

#: Requests of a push that sends something, more where hosts share, and steps of a collection.
_REQUESTS, _SHARING, _STEPS = 9, 15, 6


class Collection:
    """A collection on a remote; each step is called once. :param pruned: commits that retention has ended."""

    def __init__(self, top: Path, pruned: set[str]) -> None:
        self._remote, self._top, self._pruned = Directory(str(top)), top, pruned
        self.steps: Iterator[Callable[[], None]] = iter([self.mark, self.publish, self.look, self.revoke, self.again, self.delete])

    def _objects(self, kind: str) -> list[str]:
        return [entry.name for entry in self._remote.list(f"{kind}/")]

    def _settled(self) -> set[str]:
        return {name.partition("/")[2] for name in self._objects("commits")}

    def _needed(self) -> set[str]:
        reader, found = RemoteReader(self._top), set()
        for name in set(reader.commits()) - self._pruned:
            line = commits.parse(name, reader.get(name))
            assert line is not None
            found |= {(push, number) for push, numbers in line.commit.needs.items() for number in numbers}
        packs = [names.parse_pack(name) for name in self._objects("packs")]
        return {pack.name for pack in packs if pack is not None and (pack.push, pack.number) in found}

    def mark(self) -> None:
        running = {name.partition("/")[2] for name in self._objects("intents")} - self._settled()
        self.dead = {name for name in self._objects("packs") if not any(name.startswith(f"packs/{push}/") for push in running)} - self._needed()

    def publish(self) -> None:
        assert self._remote.create("tombstones/0001", "\n".join(['{"tombstones":1}', *(name[6:] for name in sorted(self.dead)), ""]).encode())

    def look(self) -> None:
        self.intents = [name.partition("/")[2] for name in self._objects("intents")]

    def revoke(self) -> None:
        for push in self.intents:
            self._remote.create(f"commits/{push}", commits.revocation(names.parse_push(push)))

    def again(self) -> None:
        self.dead -= self._needed()

    def delete(self) -> None:
        self._remote.delete(sorted(self.dead))


class Scene:
    """A remote whose packs no backup needs any more, and a backup that could use them.

    :param share: the packs are of another host, and hosts share them.
    """

    def __init__(self, place: Place, share: bool) -> None:
        self._place, self._kept, self._share = place, place.bench.top / "kept", share
        place.open(host="another" if share else HOST).push(Which([place.create().backup["id"]]))
        self.pruned = set(RemoteReader(place.top).commits())
        (place.bench.source / "small").write_bytes(b"changed\n")
        self.backup = place.create().backup
        for name in ("nas", "store", "backups"):
            shutil.copytree(place.bench.top / name, self._kept / name)

    def play(self, order: tuple[int, ...], spoil: Callable[[Tapped], None] = lambda _transport: None, **left_out: bool) -> None:
        """Push beside a collection whose steps come before these requests; what has a commit must be whole afterwards.

        :param spoil: puts a fault into the push. :param left_out: steps that the collection does not do.
        """
        top = self._place.bench.top
        for name in ("nas", "store", "backups"):
            shutil.rmtree(top / name)
            shutil.copytree(self._kept / name, top / name)
        remote = Remote(Manager(str(top / "store"), str(top / "backups"), 5), Settings(f"file://{top}/nas", HOST, 1, share="domain" if self._share else "host"))
        remote.transport = Tapped(str(top / "nas"))
        spoil(remote.transport)
        collection = Collection(top / "nas", self.pruned)

        def before(request: int) -> Callable[[], None]:
            def act() -> None:
                for _step in range(order.count(request)):
                    step = next(collection.steps)
                    if not left_out.get(step.__name__):
                        step()

            return act

        remote.transport.before = {request: before(request) for request in range(200)}
        try:
            remote.push(Which([self.backup["id"]]))
        except RemoteError as error:
            assert "ended the push" in error.message
        for step in collection.steps:  # those that come after its last request
            if not left_out.get(step.__name__):
                step()
        reader = RemoteReader(top / "nas")
        for name in set(reader.commits()) - self.pruned:
            reader.read(name)


@pytest.fixture
def scene(place: Place) -> Scene:
    return Scene(place, False)


@pytest.fixture
def shared(place: Place) -> Scene:
    return Scene(place, True)


@pytest.fixture
def place(bench: Any) -> Place:
    need("zstd")
    bench.files(small=b"hello\n", other=bytes(range(256)) * 2000)
    return made(bench)


#: Before which request of the push each step of the collection comes.
ORDERS, SHARING = (list(itertools.combinations_with_replacement(range(count + 1), _STEPS)) for count in (_REQUESTS, _SHARING))


def test_nothing_is_lost_in_any_order(scene: Scene) -> None:
    for order in sample.some(ORDERS, 40, "orders of push and collection"):
        scene.play(order)


def test_nothing_is_lost_where_hosts_share(shared: Scene) -> None:
    for order in sample.some(SHARING, 40, "orders of sharing and collection"):
        shared.play(order)


def _unread(transport: Tapped) -> None:
    """Tombstones are not read."""
    real = transport.list
    transport.list = lambda prefix, after="": iter(()) if prefix == names.TOMBSTONES else real(prefix, after)  # type: ignore[method-assign]


def _replacing(transport: Tapped) -> None:
    """A commit is written whether its name exists or not."""
    real, put = transport.create, transport.put
    transport.create = lambda name, data: put(name, data) is None if name.startswith(names.COMMITS) else real(name, data)  # type: ignore[method-assign]


def _late(transport: Tapped) -> None:
    """The intent is created after the tombstones were read."""
    create, listed, waiting = transport.create, transport.list, []

    def later(name: str, data: bytes) -> bool:
        if name.startswith(names.INTENTS):
            waiting.append((name, data))
            return True
        return create(name, data)

    def then(prefix: str, after: str = "") -> Iterator[Any]:
        found = list(listed(prefix, after))
        while waiting and prefix == names.TOMBSTONES:
            create(*waiting.pop())
        return iter(found)

    transport.create, transport.list = later, then  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("spoil", "left_out", "order"),
    [
        (_unread, {}, (0, 0, 0, 0, 0, 0)),
        (_replacing, {}, (1, 3, 3, 3, 3, 3)),
        (_late, {}, (1, 2, 2, 2, 2, 2)),
        (lambda _transport: None, {"revoke": True}, (1, 3, 3, 3, 3, 3)),
        (lambda _transport: None, {"again": True}, (1, 3, 3, 9, 9, 9)),
    ],
    ids=["tombstones unread", "commit replaces", "late intent", "no revocation", "no second look"],
)
def test_each_step_is_needed(scene: Scene, spoil: Callable[[Tapped], None], left_out: dict[str, bool], order: tuple[int, ...]) -> None:
    """In this order, the real code without one of its steps loses data. With it, none is lost."""
    scene.play(order)
    with pytest.raises(AssertionError, match="is missing"):
        scene.play(order, spoil, **left_out)


@pytest.mark.parametrize(
    ("spoil", "left_out", "order"),
    [(_unread, {}, (0, 0, 0, 0, 0, 20)), (_late, {}, (1, 3, 3, 3, 3, 20)), (lambda _transport: None, {"again": True}, (1, 4, 4, 20, 20, 20))],
    ids=["tombstones unread", "late intent", "no second look"],
)
def test_each_step_is_needed_where_hosts_share(
    shared: Scene, spoil: Callable[[Tapped], None], left_out: dict[str, bool], order: tuple[int, ...]
) -> None:
    """As above. The packs are deleted last, for before the commit the push looks whether they are there."""
    shared.play(order)
    with pytest.raises(AssertionError, match="is missing"):
        shared.play(order, spoil, **left_out)
