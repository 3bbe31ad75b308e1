# Copyright (c) 2026, volt.backup contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill each command at its write-side system calls, once at each: no backup, no target, no next run is hurt. And ask it to stop there."""

from __future__ import annotations

import pytest
from ansible_collections.volt.backup.tests.crash.cases import ALL, Repair
from ansible_collections.volt.backup.tests.rigs import sample, strace

#: Of each command, in a usual run. ext4 shares no blocks, Btrfs does.
SAMPLE = {"ext4": 3, "btrfs": 1}
SIGNALS = 2
NAMES = [kind.__name__ for kind in ALL]


@pytest.mark.parametrize("disk", SAMPLE)
@pytest.mark.parametrize("kind", ALL, ids=NAMES)
def test_killed(worlds, count, kind, disk):
    world = worlds[disk]
    case = world.case(kind)
    points = world.points(kind)
    chosen = sample.some(points, SAMPLE[disk], "killed", kind.__name__, disk)
    killed = 0
    for point in chosen:
        world.reset(kind)
        result = strace.run(world.server, case.words(), point, "signal=KILL")
        try:
            assert result.killed or result.status == case.status, result
            case.after(None if result.killed else result)
            case.again(world.server.run(case.words()))
            assert case.debris() == []
            case.at_last()
        except Exception as error:
            error.add_note("killed: " + world.explain(kind, point))
            raise
        killed += result.killed
        count("killed", int(result.killed))
    assert killed >= len(chosen) * 0.7, "calls vary a little from run to run, but most points must have been met"
    if kind is not Repair:
        world.scene.judged_by_others()


@pytest.mark.parametrize("kind", ALL, ids=NAMES)
def test_signals_end_cleanly(worlds, count, kind):
    """At any moment: one sentence, no debris, nothing half-done."""
    world = worlds["ext4"]
    case = world.case(kind)
    points = world.points(kind)
    for turn, point in enumerate(sample.some(points, SIGNALS, "signalled", kind.__name__)):
        world.reset(kind)
        result = strace.run(world.server, case.words(), point, "signal=" + ("TERM", "INT")[turn % 2])
        try:
            assert "Traceback" not in result.errors, result
            if result.status != case.status:
                assert result.status == 130 and result.value["code"] == "interrupted" and len(result.errors.splitlines()) == 1, result
            case.after(result)
            assert case.debris(living=True) == []
        except Exception as error:
            error.add_note("signalled: " + world.explain(kind, point))
            raise
        count("signalled")
