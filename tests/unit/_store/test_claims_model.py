# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model of claims and collections: every order of the steps of two runs, a restore and two collections, each of which may stop or be killed at any step.

One file is looked at: X, that a deleted backup needed, and that the runs want. Each process is a list of steps. A step reads and changes the state, and
nothing comes between. What must hold in every state: where a manifest is there that needs X, or a restore reads it, X is in its place or in the trash.

The faults are those that a change to the code could bring. Each must lose X in some order, or the model would show nothing. The same faults are put into
the real code in `tests/system/test_together.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple, Optional

import pytest

IN_PLACE, TRASHED, GONE = "in place", "in the trash", "gone"


class Run(NamedTuple):
    """A backup: `at` its next step; `relies`: it found X or brought it; `claims` what collections can see."""

    at: int = 0
    claims: bool = False
    relies: bool = False
    manifest: bool = False
    alive: bool = True


class Restore(NamedTuple):
    """A restore of the old backup, which is deleted at any time."""

    at: int = 0
    holds: bool = False
    reads: bool = False
    alive: bool = True


class Collection(NamedTuple):
    """`dead`: X is on its list; `seen`: what it knows to need X."""

    at: int = 0
    dead: bool = False
    seen: bool = False
    alive: bool = True


class State(NamedTuple):
    x: str
    old: bool  # the manifest of the old backup
    runs: tuple[Run, ...]
    restore: Restore
    collections: tuple[Collection, ...]


Fault = Optional[str]
FAULTS = (
    "look before claim", "claims before moves", "manifests before claims", "nothing put back", "own files unclaimed", "old trash deleted unseen",
    "held manifests not read", "held manifests before references", "held without a look", "claims dropped before the manifest",
)  # fmt: skip


def run_step(state: State, number: int, fault: Fault) -> Iterator[State]:
    """claim, look (and rely, or store anew later), bring what is missing, write the manifest, drop the claims."""
    run = state.runs[number]

    def then(x: str = state.x, **change: bool) -> State:
        runs = list(state.runs)
        runs[number] = run._replace(at=run.at + 1, **change)
        return state._replace(x=x, runs=tuple(runs))

    steps = ["claim", "look", "bring", "manifest", "end"]
    if fault == "look before claim":
        steps = ["look", "claim", "bring", "manifest", "end"]
    if fault == "claims dropped before the manifest":
        steps = ["claim", "look", "bring", "end", "manifest"]
    if run.at >= len(steps):
        return
    step = steps[run.at]
    if step == "claim":
        yield then(claims=fault != "own files unclaimed" or state.x == IN_PLACE)
    elif step == "look":
        yield then(relies=state.x == IN_PLACE)
    elif step == "bring":
        yield then(x=state.x if run.relies or state.x == IN_PLACE else IN_PLACE, relies=True)
    elif step == "manifest":
        yield then(manifest=True)
    else:
        yield then(claims=False)


def restore_step(state: State, fault: Fault) -> Iterator[State]:
    """Copy the manifest while it is there, look whether it still is, read, end."""
    restore = state.restore
    if restore.at == 0 and state.old:  # the copy is made of what was read before: the manifest may go in between
        yield state._replace(restore=restore._replace(at=1))
    elif restore.at == 1:
        yield state._replace(restore=restore._replace(at=2, holds=True))
    elif restore.at == 2:
        if state.old or fault == "held without a look":
            yield state._replace(restore=restore._replace(at=3, reads=True))
        else:
            yield state._replace(restore=restore._replace(at=4, holds=False))
    elif restore.at == 3:
        yield state._replace(restore=restore._replace(at=4, holds=False, reads=False))


def _needed(state: State, part: str) -> bool:
    if part == "claims":
        return any(run.claims and run.alive for run in state.runs)
    if part == "references":
        return state.old or any(run.manifest for run in state.runs)
    return state.restore.holds


def collection_step(state: State, number: int, fault: Fault) -> Iterator[State]:
    """Twice: claims, references, held manifests; then put back. First of what lies in the trash, which is then emptied; then of what was moved."""
    mine = state.collections[number]
    if any(other.alive and 0 < other.at < 100 for at, other in enumerate(state.collections) if at != number):
        return  # one at a time

    def then(x: str = state.x, **change: bool) -> State:
        them = list(state.collections)
        them[number] = mine._replace(at=at + 1, **change)
        return state._replace(x=x, collections=tuple(them))

    parts = ["claims", "references", "held"]
    if fault == "manifests before claims":
        parts = ["references", "claims", "held"]
    if fault == "held manifests before references":
        parts = ["claims", "held", "references"]
    if fault == "held manifests not read":
        parts = ["claims", "references"]
    again = [part for part in parts if not (fault == "claims before moves" and part == "claims")]
    steps = ["begin", *parts, "clear", "list", "empty", "move", "forget", *again, "put back", "empty", "end"]
    at = mine.at
    if at >= len(steps):
        return
    step = steps[at]
    if step in ("claims", "references", "held"):
        yield then(seen=mine.seen or _needed(state, step))
    elif step == "clear":
        yield then(x=IN_PLACE if state.x == TRASHED and mine.seen and fault != "old trash deleted unseen" else state.x)
    elif step == "list":
        yield then(dead=state.x == IN_PLACE and not mine.seen)
    elif step == "move":
        yield then(x=TRASHED if mine.dead and state.x == IN_PLACE else state.x)
    elif step == "put back":
        yield then(x=IN_PLACE if state.x == TRASHED and mine.seen and fault != "nothing put back" else state.x)
    elif step == "empty":
        yield then(x=GONE if state.x == TRASHED else state.x)
    elif step == "end":
        them = list(state.collections)
        them[number] = mine._replace(at=100)
        yield state._replace(collections=tuple(them))
    else:
        yield then()


def steps(state: State, fault: Fault) -> Iterator[State]:
    """Every state that can come next. What is killed makes no further step; its claims do not count any more."""
    for number, run in enumerate(state.runs):
        if run.alive:
            yield from run_step(state, number, fault)
            if not run.manifest and run.at:
                runs = list(state.runs)
                runs[number] = Run(alive=False)
                yield state._replace(runs=tuple(runs))
    if state.restore.alive:
        yield from restore_step(state, fault)
        if state.restore.at:
            yield state._replace(restore=Restore(alive=False))
    for number, collection in enumerate(state.collections):
        if collection.alive:
            yield from collection_step(state, number, fault)
            if 0 < collection.at < 100:
                them = list(state.collections)
                them[number] = Collection(alive=False)
                yield state._replace(collections=tuple(them))
    if state.old:
        yield state._replace(old=False)


def is_lost(state: State) -> bool:
    return state.x == GONE and (state.restore.reads or any(run.manifest for run in state.runs))


def alike(state: State) -> State:
    """The same state for all that differ in which of two runs is which, or which of two collections: these have the same steps."""
    (one, two), (first, second) = state.runs, state.collections
    if two < one or second < first:
        return state._replace(runs=(min(one, two), max(one, two)), collections=(min(first, second), max(first, second)))
    return state


def explore(first: State, fault: Fault = None) -> tuple[int, Optional[State]]:
    """How many states can be reached, alike ones counted once, and one in which X is lost."""
    seen, todo = {first}, [first]
    while todo:
        state = todo.pop()
        if is_lost(state):
            return len(seen), state
        for found in map(alike, steps(state, fault)):
            if found not in seen:
                seen.add(found)
                todo.append(found)
    return len(seen), None


BOTH = itertools.product((IN_PLACE, TRASHED, GONE), (True, False))
#: Fewer processes are among these: those of which some never make a step. Needed and gone would be lost already.
BEGINNINGS = [State(x, old, (Run(),) * 2, Restore(), (Collection(),) * 2) for x, old in BOTH if (x, old) != (GONE, True)]


def test_nothing_is_lost_in_any_order(record_property: Callable[[str, object], None]) -> None:
    counts = []
    for first in BEGINNINGS:
        count, lost = explore(first)
        assert lost is None, lost
        counts.append(count)
    print(f"{len(counts)} beginnings, {sum(counts)} states, at most {max(counts)} of one")
    record_property("states", sum(counts))
    assert max(counts) > 10_000


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_loses_data(fault: str) -> None:
    assert any(explore(first, fault)[1] is not None for first in BEGINNINGS)
