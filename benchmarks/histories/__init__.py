# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Histories of backups, made up: what servers do to their files from day to day, and what attackers do to them.

A history follows from its kind and its seed alone. All content is made here; what is like the real thing about it is what a judge of backups may go by:
the statistics of bytes, first bytes, sizes, names, and how many files change, come and go.

Files: `text` and `binary` make content, `scene` is the directory, `lives` and `hosts` are workloads, `benign` and `hostile` are what befalls them.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Iterator, NamedTuple, Optional

from . import benign, hostile
from .scene import Tree, step

#: Runs after an attack begins: so many that `keep: {last: 7}` has no clean backup left.
AFTER = 8
#: How much of the files slow attacks are to destroy, and after how many runs they are given up.
ENOUGH, MOST = 0.6, 130
CLEAN = (4, 8)
BENIGN, HOSTILE = {**benign.KINDS, **benign.BEYOND}, {**hostile.KINDS, **hostile.BEYOND}


class History(NamedTuple):
    """`begin`: the first run at which an attack has acted; None without one. `runs`: how many there are at least; slow attacks take as many as they
    need."""

    kind: str
    seed: int
    hostile: bool
    runs: int
    begin: Optional[int]

    def play(self, root: Path) -> Iterator[Tree]:
        """Build the tree in `root`, which is empty, and bring it to the state of each run in turn."""
        dice = random.Random(f"{self.kind} {self.seed} {self.hostile}")
        tree = Tree(root, dice)
        if self.begin is None:
            yield from self._benign(tree)
        else:
            yield from self._hostile(tree, self.begin)

    def _benign(self, tree: Tree) -> Iterator[Tree]:
        kind = BENIGN[self.kind]
        life = tree.dice.choice(kind.lives)(tree)
        when = tree.dice.randint(2, self.runs - 2)
        for tree.day in range(self.runs):
            step(life)
            if kind.event is not None and (tree.day == when or kind.daily and tree.day > when):
                kind.event(tree)
            yield tree

    def _hostile(self, tree: Tree, begin: int) -> Iterator[Tree]:
        kind = HOSTILE[self.kind]
        life, attack = tree.dice.choice(kind.lives)(tree), kind.attack(tree)
        for day in range(MOST):
            if day >= self.runs and (not kind.slow or tree.destroyed() >= ENOUGH):
                return
            tree.day = day
            step(life)
            if tree.day >= begin:
                step(attack)
            yield tree


def benign_one(kind: str, seed: int) -> History:
    return History(kind, seed, False, random.Random(f"runs {seed}").randint(9, 14), None)


def hostile_one(kind: str, seed: int) -> History:
    begin = random.Random(f"begin {seed}").randint(*CLEAN)
    return History(kind, seed, True, begin + AFTER + HOSTILE[kind].more, begin)


def choose(benign_count: int, hostile_count: int, seed: int, halves: tuple[int, ...], beyond: bool = False) -> list[History]:
    """So many of each, an equal part in each half: those with even seeds to tune on (0), those with odd ones to report (1). Kinds take turns in each.

    :param beyond: instead of all others, the kinds that no brake is held to.
    """
    calm, attacked = (benign.BEYOND, hostile.BEYOND) if beyond else (benign.KINDS, hostile.KINDS)
    found = []
    for half in halves:
        for make, kinds, count in ((benign_one, list(calm), benign_count), (hostile_one, list(attacked), hostile_count)):
            for number in range((count + 1 - half) // 2):
                found.append(make(kinds[number % len(kinds)], 2 * (seed * 10_000 + number) + half))
    return found
