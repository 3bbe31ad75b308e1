# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests that try to lose data: kills, errors, power cuts and signals at the engine's own system calls.

A usual run takes a sample of the points (tests/rigs/sample.py), the long mode every point, on more file systems. How many faults there
were is said at the end of the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Optional

import pytest
from ansible_collections.volt.backup.tests.crash.cases import Case
from ansible_collections.volt.backup.tests.crash.scene import Scene
from ansible_collections.volt.backup.tests.rigs import Unavailable, forks, mounts, sample, strace

FAULTS: Counter[str] = Counter()


class World:
    """A scene, the server that runs commands in it, and the cases that were prepared so far."""

    def __init__(self, scene: Scene, server: forks.Server) -> None:
        self.scene, self.server = scene, server
        self._cases: dict[type[Case], Case] = {}
        self._traces: dict[type[Case], list[tuple[strace.Point, str]]] = {}

    def case(self, kind: type[Case]) -> Case:
        """Prepared, and the scene in the state that it begins with."""
        if not kind.exists:
            pytest.skip(f"the engine has no {kind.__name__.lower()} yet")
        if kind not in self._cases:
            self.scene.reset()
            made = kind(self.scene)
            made.prepare()
            self.scene.disk.keep(kind.__name__)
            self._cases[kind] = made
        self.reset(kind)
        return self._cases[kind]

    def reset(self, kind: type[Case]) -> None:
        self.scene.reset(kind.__name__)

    def reset_to_start(self) -> None:
        self.scene.reset()

    def trace(self, kind: type[Case]) -> list[tuple[strace.Point, str]]:
        """All write-side system calls of the command."""
        if kind not in self._traces:
            case = self.case(kind)
            self._traces[kind] = strace.trace(self.server, case.words(), success=case.status == 0)
            self.reset(kind)
        return self._traces[kind]

    def points(self, kind: type[Case]) -> list[strace.Point]:
        return list(dict.fromkeys(point for point, _line in self.trace(kind)))

    def explain(self, kind: type[Case], wanted: strace.Point) -> str:
        """What a point is, for a message."""
        return f"{kind.__name__}, {wanted}: " + "; ".join(line[:400] for point, line in self.trace(kind) if point == wanted)


class Worlds:
    """One for each kind of file system, made when it is asked for."""

    def __init__(self, stack: ExitStack, room: Path) -> None:
        self._stack, self._room = stack, room
        self._made: dict[str, World] = {}
        self._lack: dict[str, str] = {}
        self._server: Optional[forks.Server] = None

    def __getitem__(self, kind: str) -> World:
        if kind in self._lack:
            raise Unavailable(self._lack[kind])
        if kind not in self._made:
            self._server = self._server or self._stack.enter_context(forks.Server(forks.ENGINE))
            room = self._room / kind
            room.mkdir(exist_ok=True)
            try:
                scene = self._stack.enter_context(Scene(kind, room))
            except Unavailable as lack:
                self._lack[kind] = str(lack)
                raise
            scene.build()
            self._made[kind] = World(scene, self._server)
        return self._made[kind]


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    with ExitStack() as stack:
        room = stack.enter_context(mounts.memory()) or tmp_path_factory.mktemp("crash")
        yield Worlds(stack, room)


@pytest.fixture
def count(request: pytest.FixtureRequest, record_property):
    """Count faults by what they were: `count("killed")`."""
    mine: Counter[str] = Counter()

    def one(what: str, times: int = 1) -> None:
        mine[what] += times
        FAULTS[what] += times

    yield one
    for what, number in mine.items():
        record_property(what, number)


def pytest_terminal_summary(terminalreporter) -> None:
    if FAULTS:
        terminalreporter.write_line(f"faults ({sample.HEADER}): " + ", ".join(f"{number} {what}" for what, number in sorted(FAULTS.items())))
