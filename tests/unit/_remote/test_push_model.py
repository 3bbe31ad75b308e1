# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a push and a collection on a remote are safe together: all orders of their steps, and what each step is needed for.

The model has two pushes and one or two collections, each of which may stop for ever after any step. Pack `old` is on the remote and the host knows it;
the backup that needed it has been pruned. A push that may use it does, else it uploads a pack of its own. A commit that needs a deleted pack is lost
data. There is no clock: a wait may end at any moment.

The steps are those of docs/remote-format.md, and of `_remote/push.py` in their order. `tests/system/test_push.py` puts the same faults into the real code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

OLD = "old"


class World(NamedTuple):
    """The objects on the remote, and where each process is."""

    packs: frozenset[str]
    intents: frozenset[str]
    tombstones: frozenset[str]
    #: (push, the pack that it needs)
    commits: frozenset[tuple[str, str]]
    revoked: frozenset[str]
    #: Step and memory of each process.
    processes: tuple[tuple[int, tuple[tuple[str, frozenset[str]], ...]], ...]


Memory = dict[str, frozenset[str]]
Step = Callable[[World, Memory], tuple[World, Memory, bool]]


def push(name: str, fault: str) -> list[Step]:
    own = f"{name}'s"

    def intent(world: World, memory: Memory) -> tuple[World, Memory, bool]:
        return world._replace(intents=world.intents | {name}), memory, True

    def tombstones(world: World, memory: Memory) -> tuple[World, Memory, bool]:
        return world, {**memory, "dead": world.tombstones if fault != "tombstones are not read" else frozenset()}, True

    def upload(world: World, memory: Memory) -> tuple[World, Memory, bool]:
        used = own if OLD in memory["dead"] else OLD
        return world._replace(packs=world.packs | ({own} if used == own else set())), {**memory, "used": frozenset({used})}, True

    def commit(world: World, memory: Memory) -> tuple[World, Memory, bool]:
        if name in world.revoked and fault != "a commit replaces a revocation":
            return world, memory, False  # it would begin anew
        return world._replace(commits=world.commits | {(name, pack) for pack in memory["used"]}), memory, True

    if fault == "the intent is late":
        return [tombstones, intent, upload, commit]
    return [*([] if fault == "no intent" else [intent]), tombstones, upload, commit]


def collection(fault: str) -> list[Step]:
    def needed(world: World) -> frozenset[str]:
        return frozenset(pack for _push, pack in world.commits)

    def settled(world: World) -> set[str]:
        return {name for name, _pack in world.commits} | world.revoked

    def mark(world: World, memory: Memory) -> tuple[World, Memory, bool]:
        # packs of running pushes could be marked as well, and nothing would be lost; but each collection would then end all pushes
        running = {f"{name}'s" for name in world.intents - settled(world)}
        return world, {**memory, "dead": world.packs - running - needed(world)}, True

    def publish(world: World, memory: Memory) -> tuple[World, Memory, bool]:
        return world._replace(tombstones=world.tombstones | memory["dead"]), memory, True

    def look(world: World, memory: Memory) -> tuple[World, Memory, bool]:
        return world, {**memory, "intents": world.intents}, True

    def revoke(world: World, memory: Memory) -> tuple[World, Memory, bool]:
        if fault == "pushes are not revoked":
            return world, memory, True
        return world._replace(revoked=world.revoked | {name for name in memory["intents"] if name not in settled(world)}), memory, True

    def again(world: World, memory: Memory) -> tuple[World, Memory, bool]:
        return world, {**memory, "dead": memory["dead"] - (needed(world) if fault != "no second look at commits" else set())}, True

    def delete(world: World, memory: Memory) -> tuple[World, Memory, bool]:
        return world._replace(packs=world.packs - memory["dead"]), memory, True

    return [mark, publish, look, revoke, again, delete]


def explore(fault: str = "", pushes: int = 2, collections: int = 1) -> tuple[int, list[str]]:
    """(number of states, the steps to lost data); no steps where there is no way to it."""
    programs = [push(f"push {number}", fault) for number in range(pushes)] + [collection(fault) for _number in range(collections)]
    start = World(frozenset({OLD}), *[frozenset()] * 4, tuple((0, ()) for _program in programs))  # type: ignore[arg-type]
    came: dict[World, tuple[World, str] | None] = {start: None}
    todo = [start]
    while todo:
        world = todo.pop()
        for here, step in _steps(world, programs):
            if here in came:
                continue
            came[here] = world, step
            if any(pack not in here.packs for _push, pack in here.commits):
                return len(came), _way(came, here)
            todo.append(here)
    return len(came), []


def _steps(world: World, programs: list[list[Step]]) -> Iterator[tuple[World, str]]:
    for number, program in enumerate(programs):
        at, memory = world.processes[number]
        if at < len(program):
            after, remembered, goes_on = program[at](world, dict(memory))
            processes = list(world.processes)
            processes[number] = at + 1 if goes_on else len(program), tuple(sorted(remembered.items()))
            yield after._replace(processes=tuple(processes)), f"{number}: {program[at].__name__}"


def _way(came: dict[World, tuple[World, str] | None], world: World) -> list[str]:
    steps = []
    before = came[world]
    while before is not None:
        steps.append(before[1])
        before = came[before[0]]
    return steps[::-1]


@pytest.mark.parametrize(("pushes", "collections"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_nothing_is_lost(pushes: int, collections: int) -> None:
    states, way = explore("", pushes, collections)
    assert way == [] and states == {(1, 1): 78, (2, 1): 938, (1, 2): 1148, (2, 2): 23432}[pushes, collections], states


@pytest.mark.parametrize(
    "fault",
    [
        "tombstones are not read", "a commit replaces a revocation", "the intent is late", "no intent", "pushes are not revoked",
        "no second look at commits",
    ],
)  # fmt: skip
def test_each_step_is_needed(fault: str) -> None:
    """With any of these faults there is an order of steps that loses data."""
    assert explore(fault, 2, 1)[1] or explore(fault, 2, 2)[1], fault
